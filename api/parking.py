"""Requests that wait: until what they wait for comes, their client goes away, or the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from .http.problems import RETRY_S, Problem
from .http.request import Request
from .plane import Plane

__all__ = ["refuse_while_stopping", "while_served"]

T = TypeVar("T")


class _Waiting:
    """The requests of a plane that wait; one task ends them all when the server stops."""

    def __init__(self, plane: Plane) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self._ender = asyncio.get_running_loop().create_task(self._end(plane.stopping), name="hybridq-end-waiting")

    async def _end(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        for task in tuple(self.tasks):
            task.cancel()


_waiting: Final[WeakKeyDictionary[Plane, _Waiting]] = WeakKeyDictionary()


def refuse_while_stopping(plane: Plane) -> None:
    """Raise 503 when the server takes no new work."""
    if plane.stopping.is_set():
        raise Problem("stopping", headers={"Retry-After": str(RETRY_S)})


async def while_served(request: Request, work: Coroutine[Any, Any, T], *, otherwise: T | None = None) -> T | None:
    """Return what `work` returns, or `otherwise` when the server stops. When the client goes, `work` is cancelled."""
    return await request.unless_gone(_until_stopping(request.plane, work, otherwise))


async def _until_stopping(plane: Plane, work: Coroutine[Any, Any, T], otherwise: T | None) -> T | None:
    task = asyncio.current_task()
    assert task is not None
    if plane.stopping.is_set():
        work.close()
        return otherwise
    waiting = _waiting.get(plane)
    if waiting is None:
        waiting = _waiting[plane] = _Waiting(plane)
    waiting.tasks.add(task)
    try:
        return await work
    except asyncio.CancelledError:
        if plane.stopping.is_set():
            return otherwise
        raise
    finally:
        waiting.tasks.discard(task)
