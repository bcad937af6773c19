"""One follower: what waits for it, how far it was told, and how it catches up with what it has not seen.

A follower is live, and then readers put events into its queue; or it is behind, and then it reads for itself, a page
at a time and only when it is asked for more. It begins behind when it resumes, and falls behind when its queue is
full; it goes live in the very turn of the loop in which it stands exactly where the readers stand. So a burst costs
nobody their place, what a follower holds is bounded however slow it is, and one that takes nothing at all is dropped.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import deque
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import msgspec

from .._units import ms_to_instant
from ..errors import RedisUnavailable, SlowFollower
from ._position import WHOLE, Bookmark, Marks, Spot
from ._reader import COUNT_MAX, Reader, pause_s
from ._stream import Stream, gone_on_from, in_order
from ._wire import Entry, Happened, Wire

if TYPE_CHECKING:
    from . import AsyncWatch

__all__ = ["RESET", "Event", "Follower"]

RESET: Final = "reset"
QUEUE_MAX: Final = 1_000
PAGE_ENTRIES: Final = 60
"""Of 16 events at most, so that a page fits the queue."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a job, an agent or a deployment.

    A `reset` says that history is missing between the event before it and the one after it: whoever keeps a picture
    made of events reads it anew. All but `id`, `type` and `at` are None then.
    """

    id: str
    """Give it to `follow(after=…)` to go on after this event."""
    type: str
    """`job.completed`, `agent.registered`, `queue.paused`, …"""
    at: dt.datetime
    queue: str | None = None
    """Where it happened; for an agent its pool, where that is known."""
    job_id: str | None = None
    agent_id: str | None = None
    """The agent; for a job who holds it or held it."""
    deployment_id: str | None = None
    status: str | None = None
    attempt: int | None = None


class _Waiting(msgspec.Struct, frozen=True):
    """An event that waits to be taken; a reset when `stream` is None."""

    stream: Stream | None
    spot: Spot
    happened: Happened | None
    reset: Mapping[Stream, Spot] | None = None


class Follower:
    """What `AsyncWatch.follow` gives: `async with … as events: async for event in events`."""

    def __init__(
        self, watch: AsyncWatch, namespace: str, queues: Iterable[str], *, fleet: bool, types: tuple[str, ...] | None,
        after: Bookmark | None, slow_s: float,
    ) -> None:  # fmt: skip
        self.namespace = namespace
        self._watch = watch
        self._first = (tuple(dict.fromkeys(queues)), fleet)
        self._types, self._after, self._slow_s = types, after, slow_s
        self._wanted: dict[str, bool] = {}
        self._streams: dict[str, Stream] = {}
        self._since_ms = 0
        self._waiting: deque[_Waiting] = deque()
        self._news = asyncio.Event()
        self._live = False
        self._spots: dict[Stream, Spot] = {}
        """While behind: up to where events were put into the queue. While live that is where the readers stand, but
        for streams of which more was seen: their reader may have begun anew, and a little earlier.
        """
        self._marks: Marks | None = None
        self._progress: dict[Reader, int] = {}
        """For each reader a time before which everything of its streams was taken, as far as `_even_ms` reaches."""
        self._even_ms: int | None = None
        """Since it began and until it is live: a time up to which `last` covers each of its streams."""
        self._taking = False
        self._taken_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._failed = 0
        self.dropped = asyncio.Event()
        """Set when the follower was too slow and nothing waits for it any more."""
        self._closed = False

    # -- life ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        queues, fleet = self._first
        try:
            await self._watch._admit(self, queues, fleet=fleet)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def add(self, queues: Iterable[str]) -> None:
        """Follow more queues, from the time on at which this follower began. Those it follows already are left out.

        Raises `RedisUnavailable`.
        """
        await self._watch._admit(self, tuple(dict.fromkeys(queues)), fleet=False)

    async def close(self) -> None:
        """Follow nothing any more; who iterates comes to the end."""
        self._closed = True
        self._let_go()
        await self._watch._dismiss(self)

    # -- taking ----------------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while True:
            taken = await self.take(1)
            if taken:
                return taken[0]
            if self._closed:
                raise StopAsyncIteration

    async def take(self, limit: int = 100, *, wait_s: float | None = None) -> list[Event]:
        """Return up to `limit` events, in order; waits for the first up to `wait_s` seconds, None: for ever.

        Empty when none came, or the follower was closed. Raises `SlowFollower` when it was dropped.
        """
        self._taking = True
        try:
            async with asyncio.timeout(wait_s):
                while not self._waiting and not self._closed:
                    if self.dropped.is_set():
                        raise SlowFollower(self._slow_s)
                    if self._live:
                        self._news.clear()
                        await self._news.wait()
                    else:
                        await self._catch_up()
        except TimeoutError:
            pass
        finally:
            self._taking = False
            self._taken_at = asyncio.get_running_loop().time()
        return [self._take_one() for _ in range(min(limit, len(self._waiting)))]

    @property
    def position(self) -> str:
        """What to give to `follow(after=…)` to go on from here; the id of the last event taken, or newer."""
        assert self._marks is not None, "not entered"
        self._marks.advance(self._safe_ms())
        return self._marks.text()

    @property
    def entered(self) -> bool:
        """Whether it stands somewhere already."""
        return self._marks is not None

    # -- called by the watch and its readers -----------------------------------------------------------------

    def begin(self, found: Mapping[Stream, tuple[Reader, Spot | None]], now_ms: int, even_ms: int) -> None:
        """Stand in some streams, each with its reader, and where it goes on if history is missing there.

        `now_ms` is the server's time; up to `even_ms` the `last` of each stream covers everything.
        """
        if self._marks is None:
            self._since_ms = now_ms if self._after is None else self._after.t_ms
        if self._live:
            self._stop_being_live()
        self._even_ms = even_ms
        missing: dict[Stream, Spot] = {}
        for stream, (reader, gone_on) in found.items():
            spot = self.spot_to_begin(stream)
            self._streams[stream.key] = stream
            self._spots[stream] = stream.last if spot is None else spot
            self._progress.setdefault(reader, self._since_ms)
            if gone_on is not None:
                missing[stream] = gone_on
        self._mark(list(found))
        if missing:
            self.reset(missing)
        if not self._go_live():
            self._taken_at = asyncio.get_running_loop().time()
            self._watch_pace()

    def spot_to_begin(self, stream: Stream) -> Spot | None:
        """Return where to begin with a stream; None: where its reader stands."""
        if self._marks is not None:
            return Spot.at_ms(self._since_ms)
        if self._after is None:
            return None
        return self._after.spots.get(stream.digest) or Spot.at_ms(self._after.t_ms)

    def hand(self, stream: Stream, entry: Entry) -> None:
        """Take the next entry of a stream from its reader."""
        if not self._live:
            return
        begun = self._spots.get(stream) if self._spots else None
        first = 0
        if begun is not None:
            if Spot(entry.ms, entry.seq) <= begun:
                return
            first = begun.taken if begun[:2] == entry[:2] else 0
            del self._spots[stream]
        for at, happened in enumerate(entry.happened[first:], first + 1):
            if self._wants(happened.type):
                if len(self._waiting) >= QUEUE_MAX:
                    self._fall_behind(stream, Spot(entry.ms, entry.seq, at - 1) if at > 1 else stream.last)
                    return
                self._put(stream, entry, at, happened)

    def reset(self, spots: Mapping[Stream, Spot]) -> None:
        """Note that streams lost entries this follower has not seen, and go on at these spots."""
        for stream, spot in spots.items():
            if self._live:
                self._spots.pop(stream, None)  # the reader goes on at this spot, and so does who is live
            else:
                self._spots[stream] = spot
        if self._waiting and self._waiting[-1].reset is not None:
            spots = {**self._waiting.pop().reset, **spots}  # type: ignore[dict-item]
        at_ms = max(spot.ms for spot in spots.values())
        self._waiting.append(_Waiting(None, Spot(at_ms, 0), None, dict(spots)))
        self._news.set()

    # -- behind ----------------------------------------------------------------------------------------------

    def _mark(self, begun: list[Stream]) -> None:
        """Note where some streams begin, in what the next id has to say."""
        spots = {stream.digest: self._spots[stream] for stream in begun}
        if self._marks is None:
            self._marks = Marks(self.namespace, self._since_ms, list(spots.items()), safe_ms=self._since_ms)
            # Named, and yet before `t`: it had not caught up with the others when the id was made.
            behind = {} if self._after is None else self._after.spots
            spots = {digest: spot for digest, spot in spots.items() if digest in behind and spot.ms < self._since_ms}
        for digest, spot in spots.items():
            self._marks.pin(digest, spot)

    def _fall_behind(self, stream: Stream, spot: Spot) -> None:
        self._stop_being_live()
        self._spots[stream] = spot
        self._watch_pace()

    def _stop_being_live(self) -> None:
        self._live = False
        self._spots = {one: one.last for one in self._streams.values()} | self._spots

    def _watch_pace(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._slow_s, self._look_at_pace)

    def _look_at_pace(self) -> None:
        self._timer = None
        if self._closed or self._go_live():
            return
        if not self._taking and asyncio.get_running_loop().time() - self._taken_at >= self._slow_s:
            self._let_go()
            self.dropped.set()
            self._news.set()
            return
        self._watch_pace()

    def _behind(self) -> list[Stream]:
        return [stream for stream, spot in self._spots.items() if spot < stream.last]

    def _go_live(self) -> bool:
        """Be live if it stands where the readers stand. Nothing is awaited between comparing and being live."""
        if not self._live and not self._behind():
            self._live, self._even_ms = True, None
            self._spots = {stream: spot for stream, spot in self._spots.items() if spot > stream.last}
            assert self._marks is not None
            self._marks.unpin()
        return self._live

    async def _catch_up(self) -> None:
        """Go live, or put one page into the queue."""
        if self._go_live():
            return
        behind = self._behind()
        try:
            # In a cluster each stream is on its own, and so is its order.
            for group in [[one] for one in behind] if self._watch.spread else [behind]:
                await self._read_page(group)
            self._failed = 0
        except RedisUnavailable:
            self._failed += 1
            await asyncio.sleep(pause_s(self._failed))

    async def _read_page(self, behind: list[Stream]) -> None:
        wire = self._watch._asking
        count = max(1, min(COUNT_MAX, PAGE_ENTRIES // len(behind)))
        spots = {stream: self._spots[stream] for stream in behind}
        # What readers hand out after this moment is left to them: up to it, all streams are equally far.
        until = {stream: stream.last for stream in behind}
        found = await wire.read({stream.key: spot for stream, spot in spots.items()}, count=count)
        merged, cut = in_order([(self._streams[key], entries) for key, entries in found.items()], count)
        if cut:  # only a read that was cut off can have passed over a gap
            missing = await find_gaps(wire, {stream: spots[stream] for stream in cut})
            if missing:
                self.reset(missing)
                return  # and read again from there
        for entry, stream in merged:
            spot, begun = Spot(entry.ms, entry.seq), spots[stream]
            if begun < spot <= until[stream]:
                first = begun.taken if begun[:2] == spot[:2] else 0
                for at, happened in enumerate(entry.happened[first:], first + 1):
                    if self._wants(happened.type):
                        self._put(stream, entry, at, happened)
                self._spots[stream] = spot
        if not cut:  # that was everything, even where the last entries have been dropped meanwhile
            self._spots |= {stream: max(self._spots[stream], spot) for stream, spot in until.items()}

    # -- one event -------------------------------------------------------------------------------------------

    def _wants(self, kind: str) -> bool:
        if self._types is None:
            return True
        wanted = self._wanted.get(kind)
        if wanted is None:
            wanted = any(kind == one or kind.startswith(f"{one}.") for one in self._types)
            self._wanted[kind] = wanted
        return wanted

    def _put(self, stream: Stream, entry: Entry, at: int, happened: Happened) -> None:
        taken = WHOLE if at == len(entry.happened) else at
        self._waiting.append(_Waiting(stream, Spot(entry.ms, entry.seq, taken), happened))
        self._news.set()

    def _take_one(self) -> Event:
        one = self._waiting.popleft()
        assert self._marks is not None
        if one.stream is None or one.happened is None:
            for stream, spot in (one.reset or {}).items():
                self._marks.move(stream.digest, spot)
            return Event(id=self._marks.text(), type=RESET, at=ms_to_instant(one.spot.ms))
        reader = self._watch._reader_of(one.stream.key)
        if reader is not None:
            self._progress[reader] = max(self._progress.get(reader, 0), one.spot.ms)
        self._marks.move(one.stream.digest, one.spot)
        if len(self._progress) == 1 or self._marks.crowded:
            self._marks.advance(self._safe_ms())
        return _event(self._marks.text(), one.stream, one.spot.ms, one.happened)

    def _safe_ms(self) -> int:
        if self._live and not self._waiting:
            for reader in self._progress:
                self._progress[reader] = max(self._progress[reader], reader.drained_ms)
        safe_ms = min(self._progress.values(), default=0)
        return safe_ms if self._even_ms is None else min(safe_ms, self._even_ms)

    def _let_go(self) -> None:
        self._live = False
        self._waiting.clear()
        self._spots = {}
        self._news.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def find_gaps(wire: Wire, spots: Mapping[Stream, Spot]) -> dict[Stream, Spot]:
    """Return the streams of which entries after a spot may be gone, and where each goes on."""
    histories = await wire.histories([stream.key for stream in spots])
    found = {}
    for (stream, spot), history in zip(spots.items(), histories, strict=True):
        on = gone_on_from(spot, history)
        if on is not None:
            found[stream] = on
    return found


def _event(event_id: str, stream: Stream, at_ms: int, happened: Happened) -> Event:
    kind = happened.type.partition(".")[0]
    subject = None if happened.subject in ("", "-") else happened.subject
    return Event(
        id=event_id,
        type=happened.type,
        at=ms_to_instant(at_ms),
        queue=happened.by if stream.queue is None else stream.queue,
        job_id=subject if kind == "job" else None,
        agent_id=subject if kind == "agent" else happened.by if kind == "job" else None,
        deployment_id=subject if kind == "deployment" else None,
        status=happened.status,
        attempt=happened.number if kind == "job" else None,
    )
