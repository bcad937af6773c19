"""Cursors of lists: where the next page begins, sealed so that no other list and no other filters take it."""

from __future__ import annotations

from typing import Any, Final
from weakref import WeakKeyDictionary

from .http.cursors import Cursors
from .http.request import Request
from .plane import Plane

__all__ = ["next_cursor", "position_of"]

_cursors: Final[WeakKeyDictionary[Plane, Cursors]] = WeakKeyDictionary()


async def position_of(request: Request, filters: Any = None) -> Any:
    """Return what the cursor of the query says, None without one. Raises 400 `invalid_cursor`."""
    cursor: str | None = request.query.cursor
    if cursor is None:
        return None
    return (await _of(request)).open(request.route.template, _bound(request, filters), cursor)


async def next_cursor(request: Request, position: Any, filters: Any = None) -> str | None:
    """Return the cursor that goes on at `position` with the same filters; None at the end."""
    if position is None:
        return None
    return (await _of(request)).seal(request.route.template, _bound(request, filters), position)


def _bound(request: Request, filters: Any) -> Any:
    return [request.credential.namespace, filters]


async def _of(request: Request) -> Cursors:
    found = _cursors.get(request.plane)
    if found is None:
        found = _cursors[request.plane] = Cursors(await request.plane.access.signing_key())
    return found
