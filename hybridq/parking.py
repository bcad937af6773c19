"""Where claims wait: one lot for each queue and loop, so that many waiters cost one claim, and nothing while idle.

Parking is level-triggered: a waiter registers, then claims, then sleeps; a ring makes the lot claim for as many
waiters as jobs were announced, oldest first, and go on until a claim comes back empty. A ring while a claim is under
way is remembered. A job whose waiter is gone goes to the next that asked for the same, else it is released.
Now and then the lot looks in without a ring: it peeks, and claims when something calls for it, or for the upkeep.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from .bell import AsyncBell, Ring, fallback_s
from .call import Call
from .coalesce import Coalescer
from .errors import HybridqError, Refused
from .job import Lease
from .ops.leases import Claimed

__all__ = ["Lot", "Waiter"]

log = structlog.get_logger("hybridq")
BATCH_MAX: Final = 50
LOOK_AGAIN_S: Final = 0.02
"""The script does its upkeep no more often than that, so looking again sooner finds nothing new."""
UPKEEP_S: Final = 60.0
"""An idle queue gets a claim that often: with it old records are trimmed."""


class Waiter:
    """One claim that waits: how to make its call, and whom to tell."""

    def __init__(self, make: Callable[[str], Call[Claimed]], like: tuple[Any, ...], lease_s: float, agent: str) -> None:
        self.make, self.like, self.lease_s, self.agent = make, like, lease_s, agent
        self.future: asyncio.Future[tuple[Lease, ...]] = asyncio.get_running_loop().create_future()

    @property
    def gone(self) -> bool:
        """True once it was answered, timed out or was cancelled."""
        return self.future.done()


class Lot:
    """The waiting claims of one queue in one event loop."""

    def __init__(
        self,
        coalescer: Coalescer,
        bell: AsyncBell,
        channel: str,
        release: Callable[[Lease], Coroutine[Any, Any, Any]],
        peek: Callable[[], Call[float | None]],
    ) -> None:
        self._coalescer, self._bell, self._channel, self._release = coalescer, bell, channel, release
        self._peek = peek
        self._waiters: deque[Waiter] = deque()
        self._news = asyncio.Event()
        self._announced = 0
        self._called: set[str] = set()
        self._due_at: float | None = None
        self._claimed_at = 0.0
        self._pump: asyncio.Task[None] | None = None
        self._releases: set[asyncio.Task[Any]] = set()

    async def wait(self, waiter: Waiter, wait_s: float) -> tuple[Lease, ...]:
        """Return what the waiter is given within `wait_s` seconds; empty when nothing came."""
        self._waiters.append(waiter)
        self._announce(1)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._run(), name="hybridq-lot")
        try:
            done, _ = await asyncio.wait([waiter.future], timeout=wait_s)
            return waiter.future.result() if done else ()
        except asyncio.CancelledError:
            # What came in the very turn in which the caller was cancelled goes to the next.
            if waiter.future.done() and waiter.future.exception() is None:
                self.hand_over(waiter, waiter.future.result())
            raise
        finally:
            self._forget(waiter)

    def hand_over(self, waiter: Waiter, given: tuple[Lease, ...]) -> None:
        """Give leases to a waiter; when it is gone, to the next that asked for the same, or back to the queue."""
        if given and not waiter.gone:
            waiter.future.set_result(given)
        else:
            self.pass_on(waiter.like, given)

    def pass_on(self, like: tuple[Any, ...], given: tuple[Lease, ...]) -> None:
        """Give leases whose caller is gone to the first waiter that asked for the same, else back to the queue."""
        if not given:
            return
        for other in self._waiters:
            if other.like == like and not other.gone:
                other.future.set_result(given)
                return
        for lease in given:
            task = asyncio.get_running_loop().create_task(self._give_back(lease), name="hybridq-release")
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)

    async def close(self) -> None:
        """Answer all waiters with nothing, and see the last releases through."""
        for waiter in self._waiters:
            if not waiter.gone:
                waiter.future.set_result(())
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        await self._coalescer.settle()
        while self._releases:
            await asyncio.gather(*self._releases, return_exceptions=True)

    async def _give_back(self, lease: Lease) -> None:
        try:
            await self._release(lease)
        except HybridqError as problem:
            # Nothing is lost: a lease that nobody confirms runs out as if it had never been given.
            log.info("claim.release_failed", job_id=lease.job_id, reason=type(problem).__name__)

    def _forget(self, waiter: Waiter) -> None:
        if not waiter.future.done():
            waiter.future.cancel()
        self._waiters.remove(waiter)

    def _announce(self, jobs: int) -> None:
        self._announced += jobs
        self._news.set()

    def _heard(self, ring: Ring) -> None:
        if ring.agent is not None:
            self._called.add(ring.agent)
            self._news.set()
        elif ring.due_in_s is None:
            self._announce(max(1, ring.jobs))
        else:
            due_at = asyncio.get_running_loop().time() + ring.due_in_s
            if self._due_at is None or due_at < self._due_at:
                self._due_at = due_at
                self._news.set()

    async def _run(self) -> None:
        # Once somebody has parked, the lot stays subscribed until it is closed: the next waiter costs no connection.
        await self._bell.listen(self._channel, self._heard)
        try:
            while True:
                await self._sleep()
                self._news.clear()
                await self._claim_until_empty()
        except Exception as problem:
            for waiter in self._waiters:
                if not waiter.gone:
                    waiter.future.set_exception(problem)
            raise
        finally:
            await self._bell.leave(self._channel, self._heard)

    async def _sleep(self) -> None:
        if not self._waiters:
            self._announced, self._due_at = 0, None
            self._called.clear()
            await self._news.wait()
            return
        if self._announced or self._called:
            return
        now = asyncio.get_running_loop().time()
        longest = fallback_s(min(waiter.lease_s for waiter in self._waiters))
        until = now + longest
        if self._due_at is not None:
            until = min(until, max(now + LOOK_AGAIN_S, self._due_at + 0.001))
        try:
            async with asyncio.timeout(max(0.0, until - now)):
                await self._news.wait()
        except TimeoutError:
            if until < now + longest or now - self._claimed_at > UPKEEP_S or await self._calls_for_a_claim():
                self._announced = max(1, self._announced)

    async def _calls_for_a_claim(self) -> bool:
        """Look in without a ring; what is due later is remembered."""
        try:
            due_in_s = await self._coalescer.run(self._peek())
        except HybridqError:
            return True  # the claim says what is wrong
        if due_in_s:
            self._heard(Ring(due_in_s=due_in_s))
        return due_in_s == 0

    async def _claim_until_empty(self) -> None:
        while (self._announced or self._called) and self._waiters:
            wanted, self._announced = self._announced, 0
            called, self._called = self._called, set()
            self._due_at = None
            self._claimed_at = asyncio.get_running_loop().time()
            waiting = [waiter for waiter in self._waiters if not waiter.gone]
            batch = [waiter for place, waiter in enumerate(waiting) if place < wanted or waiter.agent in called]
            batch = batch[:BATCH_MAX]
            outcomes = await asyncio.gather(*(self._claim(waiter) for waiter in batch))
            if any(outcome == "jobs" for outcome in outcomes) and not any(outcome == "empty" for outcome in outcomes):
                self._announced += 2 * len(batch)
            elif any(outcome == "more" for outcome in outcomes):
                self._announced += 1
            # One that is refused (draining, superseded) took nothing: what was announced is for those behind it.
            self._announced += outcomes.count("refused")

    async def _claim(self, waiter: Waiter) -> str:
        try:
            claimed = await self._coalescer.run(
                waiter.make(secrets.token_hex(16)), orphan=lambda claimed: self.hand_over(waiter, claimed.leases)
            )
        except HybridqError as problem:
            if not waiter.gone:
                waiter.future.set_exception(problem)
            return "refused" if isinstance(problem, Refused) else "error"
        if claimed.leases:
            self.hand_over(waiter, claimed.leases)
            return "jobs"
        if claimed.next_due_ms >= 0:
            due_at = asyncio.get_running_loop().time() + claimed.next_due_ms / 1000
            self._due_at = due_at if self._due_at is None else min(self._due_at, due_at)
        return "more" if claimed.more else "empty"
