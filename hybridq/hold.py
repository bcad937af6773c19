"""One job at a time: claim it, keep its lease alive while a block runs, and report how the block ended.

`Hold` and `AsyncHold` differ in one thing. An async block can be stopped from outside, so it is, when its
lease is lost or somebody cancels the job; a sync block cannot, so it asks, by `check()`, between two steps.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import structlog

from ._interrupt import Interrupt, call_in
from ._report import Report
from .errors import HybridqError, JobCancelled, OutcomeUnknown, RedisUnavailable, StaleLease
from .heart import boottime, heart_of
from .lifecycle import Outcome

if TYPE_CHECKING:
    from .aio import AsyncQueue
    from .client import Queue
    from .job import CancelRequest, Lease

__all__ = ["AsyncHold", "Hold"]

log = structlog.get_logger("hybridq")
TRY_AGAIN_S: Final = (0.05, 0.5)
_NOT_OURS: Final = "no longer held here"
_jitter = random.Random()


class _Held:
    """What both colours know of the lease in hand."""

    def __init__(self, wait_s: float, lease_s: float | None) -> None:
        self._wait_s, self._lease_s = wait_s, lease_s
        self.lease: Lease | None = None
        """The lease in hand; None when nothing came, and outside the block."""
        self.result: Any = None
        """What a clean exit stores as the job's result: anything msgspec can encode as JSON."""
        self.lost_reason: str | None = None
        """Why the lease is lost, None while it is not."""

    def _report(self, raised: BaseException | None, cancelled: bool) -> Report | None:
        """Return what to tell the queue at exit; None: nothing, since the lease is not ours to end."""
        if raised is None:
            return (
                Report(outcome=Outcome.CANCELLED) if cancelled else Report(outcome=Outcome.SUCCESS, result=self.result)
            )
        if self.lost_reason is not None or isinstance(raised, StaleLease):
            return None
        if cancelled and isinstance(raised, (Exception, asyncio.CancelledError)):
            return Report(outcome=Outcome.CANCELLED)
        return Report.of(raised)

    def _unreported(self, lease: Lease, problem: HybridqError) -> None:
        # The exception of the block is on its way up and says more; the lease runs out by itself.
        log.warning("hold.unreported", job_id=lease.job_id, fence=lease.fence, error_type=type(problem).__name__)


class Hold(_Held):
    """A block that does one job: `with queue.hold(wait_s=5) as lease:`.

    Claims and starts one job, and binds its `Lease`, or None when nothing came within `wait_s` seconds. While
    the block runs, a thread renews the lease. At its end:

    * clean: the job is completed with `hold.result`;
    * `Retry`, `Reject`, another exception: it failed (`Report.of`); the exception goes on;
    * `KeyboardInterrupt`, `SystemExit`: the lease is handed back; the exception goes on;
    * the lease was lost: nothing is reported, or the report is refused with `StaleLease`.

    Usable again once the block has ended, by one thread at a time. The job's `timeout_s` is for the block to keep: its
    lease is renewed for as long as it runs.
    """

    def __init__(self, queue: Queue, *, wait_s: float = 0.0, lease_s: float | None = None) -> None:
        super().__init__(wait_s, lease_s)
        self._queue = queue
        self.lost = threading.Event()
        """Set when the lease is lost: stop the work, its result does not count any more."""
        self.cancel_requested = threading.Event()
        """Set when somebody wants the job stopped."""

    def check(self) -> None:
        """Raise `StaleLease` when the lease is lost, `JobCancelled` when the job has to stop; else return.

        To be called between two steps, above all before one that cannot be undone.
        """
        if self.lease is not None and self.lost.is_set():
            raise StaleLease(self.lease.job_id, self.lease.fence, _NOT_OURS)
        if self.lease is not None and self.cancel_requested.is_set():
            raise JobCancelled(self.lease.job_id)

    def __enter__(self) -> Lease | None:
        """Claim and start a job. Raises what `claim` raises."""
        sent_at = boottime()
        leases = self._queue.claim(1, wait_s=self._wait_s, lease_s=self._lease_s, start=True)
        self.result, self.lost_reason = None, None
        self.lost.clear()
        self.cancel_requested.clear()
        if not leases:
            return None
        self.lease = leases[0]
        heart_of(self._queue).add(self.lease, self._on_lost, self._on_cancel, sent_at=sent_at)
        return self.lease

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Report how the block ended. Raises `StaleLease` after a clean end that came too late."""
        lease, self.lease = self.lease, None
        if lease is None:
            return
        ends_at = heart_of(self._queue).remove(lease)
        report = self._report(raised, cancelled=isinstance(raised, JobCancelled) and self.cancel_requested.is_set())
        if report is None:
            return
        try:
            self._send(report, lease, ends_at)
        except HybridqError as problem:
            if raised is None:
                raise
            self._unreported(lease, problem)

    def _send(self, report: Report, lease: Lease, ends_at: float | None) -> None:
        while True:
            try:
                report.send(self._queue, lease)
                return
            except (RedisUnavailable, OutcomeUnknown):
                if ends_at is None or boottime() >= ends_at:
                    raise
                time.sleep(_jitter.uniform(*TRY_AGAIN_S))

    def _on_lost(self, reason: str) -> None:
        self.lost_reason = reason
        self.lost.set()

    def _on_cancel(self, request: CancelRequest) -> None:
        self.cancel_requested.set()


class AsyncHold(_Held):
    """A block that does one job: `async with queue.hold(wait_s=5) as lease:`.

    As `Hold`, and the block is cancelled when the lease is lost or somebody cancels the job:

    * lost: `StaleLease` is raised in place of the cancellation, and nothing is reported. A block that caught
      the cancellation itself ends as it likes;
    * cancelled on request: the job ends with the outcome cancelled and `JobCancelled` is raised in place of
      the cancellation, or nothing when the block caught it.

    A cancellation from elsewhere hands the lease back and goes on.
    """

    def __init__(self, queue: AsyncQueue, *, wait_s: float = 0.0, lease_s: float | None = None) -> None:
        super().__init__(wait_s, lease_s)
        self._queue = queue
        self._interrupt: Interrupt | None = None
        self.lost = asyncio.Event()
        """Set when the lease is lost."""
        self.cancel_requested = asyncio.Event()
        """Set when somebody wants the job stopped."""

    def check(self) -> None:
        """Raise `StaleLease` when the lease is lost, `JobCancelled` when the job has to stop; else return."""
        if self.lease is not None and self.lost.is_set():
            raise StaleLease(self.lease.job_id, self.lease.fence, _NOT_OURS)
        if self.lease is not None and self.cancel_requested.is_set():
            raise JobCancelled(self.lease.job_id)

    async def __aenter__(self) -> Lease | None:
        """Claim and start a job. Raises what `claim` raises."""
        sent_at = boottime()
        leases = await self._queue.claim(1, wait_s=self._wait_s, lease_s=self._lease_s, start=True)
        self.result, self.lost_reason = None, None
        self.lost.clear()
        self.cancel_requested.clear()
        if not leases:
            return None
        self.lease = leases[0]
        self._interrupt = Interrupt()
        loop = asyncio.get_running_loop()
        fence = self.lease.fence

        def on_lost(reason: str) -> None:
            call_in(loop, self._on_lost, fence, reason)

        def on_cancel(request: CancelRequest) -> None:
            call_in(loop, self._on_cancel, fence)

        heart_of(self._queue).add(self.lease, on_lost, on_cancel, sent_at=sent_at)
        return self.lease

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Report how the block ended. Raises `StaleLease` or `JobCancelled` in place of our cancellation."""
        lease, self.lease = self.lease, None
        interrupt, self._interrupt = self._interrupt, None
        if lease is None or interrupt is None:
            return
        ends_at = heart_of(self._queue).remove(lease)
        ours = interrupt.close() and isinstance(raised, asyncio.CancelledError)
        if not (interrupt.fired and self.lost_reason is not None):
            await self._end(lease, raised, interrupt, ends_at)
        if ours and self.lost_reason is not None:
            raise StaleLease(lease.job_id, lease.fence, _NOT_OURS) from raised
        if ours:
            raise JobCancelled(lease.job_id) from raised

    async def _end(
        self, lease: Lease, raised: BaseException | None, interrupt: Interrupt, ends_at: float | None
    ) -> None:
        cancelled = interrupt.fired or (isinstance(raised, JobCancelled) and self.cancel_requested.is_set())
        report = self._report(raised, cancelled)
        if report is None:
            return
        try:
            await self._send(report, lease, ends_at)
        except HybridqError as problem:
            if raised is None:
                raise
            self._unreported(lease, problem)

    async def _send(self, report: Report, lease: Lease, ends_at: float | None) -> None:
        while True:
            try:
                await report.asend(self._queue, lease)
                return
            except (RedisUnavailable, OutcomeUnknown):
                if ends_at is None or boottime() >= ends_at:
                    raise
                await asyncio.sleep(_jitter.uniform(*TRY_AGAIN_S))

    def _on_lost(self, fence: int, reason: str) -> None:
        if self.lease is None or self.lease.fence != fence or self._interrupt is None:
            return  # the block has ended: its report decides
        self.lost_reason = reason
        self.lost.set()
        self._interrupt.fire()

    def _on_cancel(self, fence: int) -> None:
        if self.lease is None or self.lease.fence != fence or self._interrupt is None:
            return
        self.cancel_requested.set()
        self._interrupt.fire()
