"""Answers that go on: how many each credential has, whether they may go on, and who ends them when the server stops."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Final, Protocol
from weakref import WeakKeyDictionary

import hybridq as hq

from .http.door import still_admitted
from .http.exchange import headers_named
from .http.problems import Problem, invalid
from .http.request import Request
from .plane import Plane

__all__ = [
    "HEADERS",
    "PING_S",
    "RETRY_MS",
    "STREAMS_MAX",
    "Closable",
    "bad_last_event_id",
    "is_admitted",
    "last_event_id",
    "streams_of",
]

PING_S: Final = 15.0
"""After so long without a word a stream says that it lives, and asks whether its caller may still hear it."""
RETRY_MS: Final = 3_000
STREAMS_MAX: Final = 20
"""Of one credential, in one process."""
HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Closable(Protocol):
    """What a stream draws on; closed, the stream ends."""

    async def close(self) -> None:
        """End it; safe to call twice."""


class Streams:
    """The streams that are open in a process."""

    def __init__(self, plane: Plane) -> None:
        self.sources: set[Closable] = set()
        self._count: dict[str, int] = {}
        self._ender = asyncio.get_running_loop().create_task(self._end(plane.stopping), name="hybridq-end-streams")

    def admit(self, credential_id: str) -> None:
        """Count one more. Raises 429 for one too many."""
        if self._count.get(credential_id, 0) >= STREAMS_MAX:
            raise Problem("too_many_streams")
        self._count[credential_id] = self._count.get(credential_id, 0) + 1

    def dismiss(self, credential_id: str) -> None:
        """Count one less."""
        self._count[credential_id] -= 1
        if not self._count[credential_id]:
            del self._count[credential_id]

    async def _end(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        for source in tuple(self.sources):
            await source.close()


_open: Final[WeakKeyDictionary[Plane, Streams]] = WeakKeyDictionary()


def streams_of(plane: Plane) -> Streams:
    """Return the streams of a plane."""
    found = _open.get(plane)
    if found is None:
        found = _open[plane] = Streams(plane)
    return found


async def is_admitted(request: Request) -> bool:
    """Whether the caller of a stream may still hear it; while Redis is away that stays as it was."""
    expires_at = request.credential.expires_at
    if expires_at is not None and expires_at <= dt.datetime.now(dt.UTC):
        return False
    try:
        return await still_admitted(request.plane.access, request)
    except hq.HybridqError:
        return True  # it is asked again with the next ping


def last_event_id(request: Request) -> str | None:
    """Return the id that a client goes on after, None without one. Raises 400 for two."""
    sent = headers_named(request.headers, b"last-event-id")
    if len(sent) > 1:
        raise bad_last_event_id()
    return sent[0].decode("latin-1") if sent else None


def bad_last_event_id() -> Problem:
    """Return the 400 of an id that no event had."""
    return invalid("/header/last-event-id", "must be the id of an event, as it was sent")
