"""Streams of events that go on after a break: where to go on from, what an event means, how long to wait."""

from __future__ import annotations

import abc
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from . import _calls, _wire
from ._call import Call

if TYPE_CHECKING:
    import httpx2

__all__ = ["EventFeed", "Feed", "LogFeed"]

T = TypeVar("T")
RETRY_S: Final = 3.0
RETRY_S_MAX: Final = 60.0


class Feed(abc.ABC, Generic[T]):
    """What a stream is about. `over`: nothing comes after what was heard."""

    def __init__(self, rng: random.Random) -> None:
        self.over = False
        self._rng = rng
        self._retry_s = RETRY_S
        self._in_a_row = 0

    @abc.abstractmethod
    def opening(self) -> Call[Any]:
        """Return the call that opens the stream where the last one broke."""

    def heard(self, said: httpx2.ServerSentEvent) -> T | None:
        """Return what an event means; None: nothing to tell."""
        if said.retry is not None:
            self._retry_s = min(said.retry / 1000, RETRY_S_MAX)
        self._in_a_row = 0
        return self.read(said) if said.data else None

    @abc.abstractmethod
    def read(self, said: httpx2.ServerSentEvent) -> T | None:
        """Return what the data of an event means."""

    def pause_s(self) -> float:
        """Return how long to wait before the stream is opened again: at random, longer each time in a row."""
        self._in_a_row += 1
        return self._rng.uniform(0, min(RETRY_S_MAX, self._retry_s * 2.0 ** min(self._in_a_row - 1, 8)))


class EventFeed(Feed[_wire.Event]):
    """What happens to jobs, pools and agents."""

    def __init__(
        self, pool: Sequence[str], types: Sequence[str], last_event_id: str | None, rng: random.Random
    ) -> None:
        super().__init__(rng)
        self._pool, self._types, self._last = tuple(pool), tuple(types), last_event_id

    def opening(self) -> Call[Any]:
        """Return the call that opens the stream where the last one broke."""
        return _calls.events(pool=self._pool, types=self._types, last_event_id=self._last)

    def heard(self, said: httpx2.ServerSentEvent) -> _wire.Event | None:
        """Return what an event means; an id without data is a place to go on from."""
        self._last = said.id or self._last
        return super().heard(said)

    def read(self, said: httpx2.ServerSentEvent) -> _wire.Event | None:
        """Return the event; what cannot be read is of a kind that is not known here."""
        try:
            found = msgspec.json.decode(said.data, type=dict[str, Any])
            return msgspec.convert({"type": said.event, **found, "id": said.id}, _wire.Event, strict=False)
        except (msgspec.DecodeError, UnicodeEncodeError):
            return None


class LogFeed(Feed[_wire.LogPart]):
    """A job's log, from an offset to its end."""

    def __init__(self, id: str, offset: int, rng: random.Random) -> None:
        super().__init__(rng)
        self._id, self._offset = id, offset

    def opening(self) -> Call[Any]:
        """Return the call that opens the stream where the last one broke."""
        return _calls.follow_log(self._id, self._offset)

    def read(self, said: httpx2.ServerSentEvent) -> _wire.LogPart | None:
        """Return the part of the log; what is before the offset has been told."""
        try:
            part = msgspec.json.decode(said.data, type=_wire.LogPart)
        except (msgspec.DecodeError, UnicodeEncodeError):
            return None
        self.over = part.complete
        told = self._offset - part.offset
        if told > 0 and part.data:
            rest = part.data.encode()[told:].decode(errors="replace")
            if not rest:
                return None
            part = msgspec.structs.replace(part, data=rest, offset=self._offset)
        self._offset = part.next_offset
        return part
