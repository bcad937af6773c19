"""Joins calls that are made in the same turn of the event loop: one script call for many entries, one round trip.

The batch belongs to the coalescer, not to its callers: a caller that is cancelled loses only its own answer, and what
it would have been given is handed to `orphan`. While two round trips are under way, further calls gather, so batches
grow with the load by themselves. When the server lets the time for an answer pass, what gathered meanwhile fails at
once, unsent, instead of waiting for as long in its turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from .call import Call, Reply
from .errors import RedisUnavailable
from .runner import BATCH_BYTES_MAX, AsyncRunner, split

__all__ = ["Coalescer"]

T = TypeVar("T")
U = TypeVar("U")
IN_FLIGHT_MAX: Final = 2


@dataclass(slots=True, eq=False)
class _Waiting:
    call: Call[Any]
    future: asyncio.Future[list[Reply]]
    orphan: Callable[[list[Reply]], None] | None


class Coalescer:
    """Gathers the calls of a loop turn for one `AsyncRunner`. Belongs to one event loop."""

    def __init__(self, runner: AsyncRunner) -> None:
        self._runner = runner
        runner.on_silence = self._fail_unsent
        self._waiting: list[_Waiting] = []
        self._scheduled = False
        self._trips: set[asyncio.Task[None]] = set()
        self.calls_sent = 0
        """Script calls sent so far."""

    async def run(self, call: Call[T], *, orphan: Callable[[T], None] | None = None) -> T:
        """Run a call together with others of this turn. `orphan` gets the value if its caller was cancelled."""
        on_orphan = None if orphan is None else lambda replies: orphan(call.decode(replies))
        parts = split(call)
        futures = [self._submit(part, on_orphan) for part in parts]
        try:
            if len(futures) == 1:
                return call.decode(await futures[0])
            results = await asyncio.gather(*futures, return_exceptions=True)
        except asyncio.CancelledError:
            # The answer may have come in the very turn in which its caller was cancelled.
            for future in futures:
                if on_orphan is not None and _has_result(future):
                    on_orphan(future.result())
            raise
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return call.decode([reply for replies in results for reply in replies])  # type: ignore[union-attr]

    async def run_both(
        self, first: Call[T], second: Call[U], *, orphan: Callable[[U], None]
    ) -> tuple[T | Exception, U | Exception]:
        """Run two small calls in one round trip, in this order; for each its value or its error.

        As `run` for each, without a task for each: `orphan` gets the second's value if the caller was cancelled.
        """

        def on_orphan(replies: list[Reply]) -> None:
            orphan(second.decode(replies))

        one, other = self._submit(first, None), self._submit(second, on_orphan)
        try:
            return await _outcome(first, one), await _outcome(second, other)
        except asyncio.CancelledError:
            one.cancel()
            if _has_result(other):
                on_orphan(other.result())
            else:
                other.cancel()  # what still comes for it is an orphan then
            raise

    async def settle(self) -> None:
        """Wait until everything that was sent has been answered."""
        while self._waiting or self._trips:
            if self._trips:
                await asyncio.wait(self._trips)
            else:
                await asyncio.sleep(0)

    def _submit(self, call: Call[Any], orphan: Callable[[list[Reply]], None] | None) -> asyncio.Future[list[Reply]]:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(call, loop.create_future(), orphan)
        self._waiting.append(waiting)
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush)
        return waiting.future

    def _flush(self) -> None:
        self._scheduled = False
        if not self._waiting or len(self._trips) >= IN_FLIGHT_MAX:
            return
        taken, self._waiting = self._waiting, []
        # Who was cancelled before anything was sent is simply left out.
        batches = _join([one for one in taken if not one.future.done()])
        if not batches:
            return
        trip = asyncio.get_running_loop().create_task(self._travel(batches), name="hybridq-trip")
        self._trips.add(trip)
        trip.add_done_callback(self._landed)

    def _fail_unsent(self, problem: RedisUnavailable) -> None:
        unsent, self._waiting = self._waiting, []
        for one in unsent:
            if not one.future.done():
                one.future.set_exception(problem)

    def _landed(self, trip: asyncio.Task[None]) -> None:
        self._trips.discard(trip)
        if self._waiting and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    async def _travel(self, batches: list[list[_Waiting]]) -> None:
        calls = [_joined(batch) for batch in batches]
        self.calls_sent += len(calls)
        try:
            results = await self._runner.run_all(calls)
        except BaseException as problem:
            for one in (one for batch in batches for one in batch):
                if not one.future.done():
                    one.future.set_exception(problem if isinstance(problem, Exception) else asyncio.CancelledError())
            raise
        for batch, result in zip(batches, results, strict=True):
            _hand_out(batch, result)


async def _outcome(call: Call[T], future: asyncio.Future[list[Reply]]) -> T | Exception:
    try:
        return call.decode(await future)
    except Exception as problem:
        return problem


def _has_result(future: asyncio.Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _join(waiting: Sequence[_Waiting]) -> list[list[_Waiting]]:
    """Return the calls grouped by what can travel as one script call, bounded in entries and bytes."""
    batches: list[list[_Waiting]] = []
    open_batch: dict[Any, tuple[list[_Waiting], int, int]] = {}
    for one in waiting:
        key, n, size = one.call.key, len(one.call.entries), one.call.size_bytes
        batch, entries, total = open_batch.get(key, (None, 0, 0))
        full = entries + n > one.call.script.header.batch_max or total + size > BATCH_BYTES_MAX or n == 0
        if batch is None or full:
            batch, entries, total = [], 0, 0
            batches.append(batch)
        batch.append(one)
        open_batch[key] = (batch, entries + n, total + size)
    # So that a finish and the claim that follows it, or a call and a look at what it did, can be made in one turn, also
    # beside an older claim or look of that turn.
    batches.sort(key=lambda batch: batch[0].call.turn)
    return batches


def _joined(batch: Sequence[_Waiting]) -> Call[Any]:
    if len(batch) == 1:
        return batch[0].call
    calls = [one.call for one in batch]
    repeat: tuple[Any, ...] | None = ()
    for call in calls:
        repeat = None if repeat is None or call.repeat is None else (*repeat, *call.repeat)
    return replace(calls[0], entries=tuple(entry for call in calls for entry in call.entries), repeat=repeat)


def _hand_out(batch: Sequence[_Waiting], result: list[Reply] | Exception) -> None:
    at = 0
    for one in batch:
        n = len(one.call.entries)
        replies = result if isinstance(result, Exception) or len(batch) == 1 else result[at : at + n]
        at += n
        if not one.future.done():
            if isinstance(replies, Exception):
                one.future.set_exception(replies)
            else:
                one.future.set_result(replies)
        elif one.orphan is not None and not isinstance(replies, Exception):
            one.orphan(replies)
