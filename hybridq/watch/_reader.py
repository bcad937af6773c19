"""The one connection of a process that blocks in XREAD, and hands out what it reads.

A stream that joins interrupts the read: it is given up and sent again with the new stream in it. Nothing is lost by
that, because a read begins at what was handed out last, whatever became of the one before.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Final

import structlog

from ..errors import RedisUnavailable
from ._position import Spot
from ._stream import Stream, gone_on_from, in_order
from ._wire import Entry, Wire

if TYPE_CHECKING:
    from ._follower import Follower

__all__ = ["COUNT_MAX", "Reader", "pause_s"]

log = structlog.get_logger("hybridq")
_jitter = random.Random()
BLOCK_S: Final = 15.0
COUNT_MAX: Final = 100
"""Entries of one stream a read takes. No queue keeps fewer, so a read over a gap is always cut off at this number."""
ENTRIES_MAX: Final = 4_000
JOIN_S: Final = 0.005
"""Streams that join within that time interrupt the read once."""
RETRY_S_MIN, RETRY_S_MAX = 0.05, 1.0
CANCEL_AGAIN_S: Final = 0.1
TURN_EVENTS: Final = 200
"""After so many events the followers have their turn."""


def pause_s(attempt: int) -> float:
    """Return how long to wait before trying again: longer each time, up to a second, jittered."""
    longest: float = min(RETRY_S_MAX, RETRY_S_MIN * 2.0 ** min(attempt, 10))
    return longest * _jitter.uniform(0.5, 1.5)


class Reader:
    """Reads some streams for their followers, from when the first joins until `close`."""

    def __init__(self, wire: Wire, *, owns_wire: bool) -> None:
        self._wire, self._owns_wire = wire, owns_wire
        self._streams: dict[str, Stream] = {}
        self._changed = asyncio.Event()
        self._clock_ms: float | None = None
        self._task: asyncio.Task[None] | None = None
        self.drained_ms = 0
        """Every event before this time, by the server's clock, was handed out."""

    def __len__(self) -> int:
        return len(self._streams)

    def now_ms(self) -> int | None:
        """Return the server's time, never ahead of it; None while it was not asked yet."""
        return None if self._clock_ms is None else int(self._clock_ms + time.monotonic() * 1000)

    def find(self, key: str) -> Stream | None:
        """Return a stream that is being read."""
        return self._streams.get(key)

    def join(self, stream: Stream) -> None:
        """Read this stream too, from its `last` on."""
        self._streams[stream.key] = stream
        self._changed.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="hybridq-watch")

    def leave(self, stream: Stream) -> None:
        """Read it no more, beginning with the next read."""
        self._streams.pop(stream.key, None)

    async def close(self) -> None:
        """Stop reading and close the connection."""
        task, self._task = self._task, None
        if task is not None:
            await _end(task)
        if self._owns_wire:
            await self._wire.close()

    async def _run(self) -> None:
        failed = 0
        while True:
            try:
                if failed:
                    await self._look_for_gaps(list(self._streams.values()))
                self._clock_ms = None
                while True:
                    if self._clock_ms is None:
                        await self._set_clock()
                    if await self._read_once():
                        failed = 0
            except RedisUnavailable as problem:
                if self._owns_wire:
                    await self._wire.close()
                wait_s = pause_s(failed)
                failed += 1
                log.debug("watch.reconnect", reason=type(problem.__cause__).__name__, wait_s=round(wait_s, 3))
                await asyncio.sleep(wait_s)

    async def _set_clock(self) -> None:
        if self._streams:
            now_ms = await self._wire.now_ms(next(iter(self._streams)))
            self._clock_ms = now_ms - time.monotonic() * 1000

    async def _read_once(self) -> bool:
        """Read and hand out; True when there was an answer, False when the read was interrupted."""
        self._changed.clear()
        if not self._streams:
            await self._changed.wait()
            return False
        asked, sent_ms = dict(self._streams), self.now_ms()
        count = max(1, min(COUNT_MAX, ENTRIES_MAX // len(asked)))
        after = {key: stream.last for key, stream in asked.items()}
        reading = asyncio.create_task(self._wire.read(after, count=count, block_s=BLOCK_S), name="hybridq-xread")
        changing = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait((reading, changing), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await asyncio.sleep(JOIN_S)
            if not reading.done():
                return False
            found = reading.result()
        finally:
            changing.cancel()
            await _end(reading)
        if not found:
            self._clock_ms = None  # nothing for a while: the clock may have been set meanwhile
        whole = await self._hand_out([(asked[key], entries) for key, entries in found.items()], count)
        if whole and sent_ms is not None:
            self.drained_ms = max(self.drained_ms, sent_ms)
        return True

    async def _hand_out(self, found: list[tuple[Stream, list[Entry]]], count: int) -> bool:
        merged, cut = in_order(found, count)
        if cut:
            await self._look_for_gaps(cut)
        handed = 0
        for entry, stream in merged:
            # It may have been left, and joined anew from a later spot, while this read was under way.
            if self._streams.get(stream.key) is stream and Spot(entry.ms, entry.seq) > stream.last:
                for follower in tuple(stream.followers):
                    follower.hand(stream, entry)
                stream.last = Spot(entry.ms, entry.seq)
            handed += len(entry.happened)
            if handed >= TURN_EVENTS:
                handed = 0
                await asyncio.sleep(0)
        return not cut

    async def _look_for_gaps(self, streams: list[Stream]) -> None:
        """Tell followers when entries were dropped before they were read: while Redis was away, or we were slow."""
        if not streams:
            return
        spots = [stream.last for stream in streams]
        histories = await self._wire.histories([stream.key for stream in streams])
        told: dict[Follower, dict[Stream, Spot]] = {}
        for stream, spot, history in zip(streams, spots, histories, strict=True):
            on = gone_on_from(spot, history)
            if on is not None:
                stream.last = on
                for follower in stream.followers:
                    told.setdefault(follower, {})[stream] = on
        for follower, spots_of in told.items():
            follower.reset(spots_of)


async def _end(task: asyncio.Task[object]) -> None:
    # Before Python 3.12 a client's wait_for swallows a cancellation that comes together with an answer.
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_AGAIN_S)
    if not task.cancelled():
        task.exception()
