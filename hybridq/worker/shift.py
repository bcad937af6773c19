"""A shift: all between `Worker.run()` and its end. It owns the slots, and every lease the worker holds.

```
claim ─► waiting (prefetched) ─► running, at most `concurrency` ─► reported ─► slot free ─► …
 ▲                                    │                               │
 └────────── the claim loop asks ─────┴── the report claims the next ─┘
```
Leases are in the heart's care from claim to report. A run is in `_untold` until the queue knows its end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from .._interrupt import call_in
from .._report import Report
from ..aio import AsyncQueue
from ..errors import (
    AgentDraining,
    Conflict,
    JobCancelled,
    NotFound,
    QueueLost,
    SchemaMismatch,
    ScriptsMissing,
    SessionSuperseded,
    UsageError,
)
from ..heart import boottime, heart_of
from ..job import CancelRequest, Finished, Lease
from ..lifecycle import JobStatus, Outcome
from .hooks import Hooks
from .journal import Journal
from .outage import TRANSIENT, Outage
from .run import UNWIND_S, Cause, Run
from .tasks import Task
from .threads import Threads

__all__ = ["Shift"]

CLAIM_MAX: Final = 100
CLAIM_WAIT_S: Final = 30.0
TELL_S: Final = 5.0
"""How long the last reports of a drain may take."""
_FATAL: Final = (UsageError, QueueLost, SchemaMismatch, ScriptsMissing, SessionSuperseded)


class Shift:
    """One run of a worker, in one event loop."""

    def __init__(
        self,
        queue: AsyncQueue,
        tasks: Mapping[str, Task],
        hooks: Hooks,
        *,
        concurrency: int,
        prefetch: int,
        grace_s: float,
        lease_s: float,
    ) -> None:
        self._queue, self._tasks = queue, tasks
        self._journal = Journal(queue.name, hooks)
        self._concurrency, self._prefetch = concurrency, prefetch
        self._grace_s, self._lease_s = grace_s, lease_s
        self._loop = asyncio.get_running_loop()
        self._heart = heart_of(queue)
        self._threads = Threads()
        self._outage = Outage(queue.name)
        self._waiting: deque[Run] = deque()
        self._running: set[Run] = set()
        self._untold: set[Run] = set()
        self._reports: set[asyncio.Task[None]] = set()
        self._flowing = False
        self._draining = False
        self._room = asyncio.Event()
        self._all_told = asyncio.Event()
        self._stopping = asyncio.Event()
        self._stopping_now = asyncio.Event()
        self._reason = ""

    def stop(self, now: bool, reason: str) -> None:
        """Begin to drain; `now`: without grace, also when it has begun."""
        self._reason = self._reason or reason
        self._stopping.set()
        if now:
            self._stopping_now.set()

    async def serve(self) -> None:
        """Work until stopped. Raises the error that made claiming pointless, after an orderly drain."""
        self._journal.opened(
            agent=self._queue.agent, concurrency=self._concurrency, prefetch=self._prefetch, tasks=self._tasks
        )
        claiming = self._loop.create_task(self._claim_forever(), name="hybridq-claims")
        stopping = self._loop.create_task(self._stopping.wait(), name="hybridq-stop")
        try:
            await asyncio.wait({claiming, stopping}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self.stop(now=True, reason="cancelled")
            raise
        finally:
            stopping.cancel()
            await self._drain(claiming)
        if not claiming.cancelled():
            claiming.result()

    # -- claiming ------------------------------------------------------------------------------------

    async def _claim_forever(self) -> None:
        while True:
            free = self._concurrency + self._prefetch - len(self._running) - len(self._waiting)
            if free <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            sent_at = boottime()
            try:
                # Without prefetch whatever is claimed is begun at once, so that takes no round trip of its own.
                leases = await self._queue.claim(
                    min(free, CLAIM_MAX), wait_s=CLAIM_WAIT_S, lease_s=self._lease_s, start=not self._prefetch
                )
            except AgentDraining:
                self.stop(now=False, reason="agent_draining")
                return
            except _FATAL:
                raise
            except Exception as problem:  # recorded by the outage; jobs in hand must not suffer from it
                await self._outage.pause("claim", problem)
                continue
            self._outage.over()
            self._take(leases, sent_at)

    def _take(self, leases: Sequence[Lease], sent_at: float) -> None:
        """Take charge of leases claimed by a call sent at `sent_at`; begin as many as there are slots."""
        self._flowing = bool(leases)
        for lease in leases:
            run = Run(lease, self._overran)
            self._untold.add(run)
            self._waiting.append(run)
            self._heart.add(lease, *self._callbacks(run), sent_at=sent_at)
        if leases:
            self._journal.claimed(leases)
        self._fill()

    def _callbacks(self, run: Run) -> tuple[Callable[[str], None], Callable[[CancelRequest], None]]:
        def on_lost(reason: str) -> None:
            call_in(self._loop, self._lost, run, reason)

        def on_cancel(request: CancelRequest) -> None:
            call_in(self._loop, self._cancel, run, request)

        return on_lost, on_cancel

    def _fill(self) -> None:
        if self._draining:
            while self._waiting:
                self._waiting[0].stop(Cause.DRAIN, self._reason)
                self._put_down(self._waiting[0])
            return
        while self._waiting and len(self._running) < self._concurrency:
            run = self._waiting.popleft()
            self._running.add(run)
            run.job = self._loop.create_task(self._work(run), name=f"hybridq-job-{run.lease.job_id}")
        self._room.set()

    # -- one job -------------------------------------------------------------------------------------

    async def _work(self, run: Run) -> None:
        following: tuple[Lease, ...] = ()
        sent_at = boottime()
        try:
            report = await self._carry_out(run)
            if not run.settled:
                sent_at = boottime()
                following = await self._settle(run, report, claim_next=self._flowing and not self._draining)
        except Exception as problem:
            # A mistake of ours costs this job its lease, which runs out, and not the worker its other jobs.
            self._journal.unreported(run.lease, problem)
        finally:
            self._heart.remove(run.lease)
            self._running.discard(run)
            if not run.overran:  # else it is told by the report that was made over its head
                self._told(run)
        self._take(following, sent_at)

    async def _carry_out(self, run: Run) -> Report | None:
        if run.lease.status is JobStatus.CLAIMED and run.cause is None:
            await self._start(run)
        if run.cause is not None:
            return run.report_of_cause()
        task = self._tasks.get(run.lease.type)
        if task is None:
            return Report.rejected("unknown_task", f"this worker has no task for jobs of type {run.lease.type}")
        try:
            arguments = task.arguments(run.lease)
        except Exception as problem:  # the payload's own types may raise anything; the job is at fault, not the worker
            return Report.rejected("bad_payload", str(problem))
        self._journal.started(run.lease)
        return await run.call(task, arguments, self._threads)

    async def _start(self, run: Run) -> None:
        while run.cause is None:
            try:
                run.lease = await self._queue.start(run.lease)
            except TRANSIENT as problem:
                await self._outage.pause("start", problem)
                continue
            except JobCancelled:
                run.stop(Cause.CANCELLED, "before_start")
                run.settled = True  # the start has made it CANCELLED: there is nothing to report
                cancelled = Finished(job_id=run.lease.job_id, status=JobStatus.CANCELLED)
                self._journal.ended(run.lease, Report(outcome=Outcome.CANCELLED), cancelled, 0.0, run.reason)
            except (Conflict, NotFound) as problem:
                run.stop(Cause.LOST, type(problem).__name__)
            else:
                self._outage.over()
            return

    async def _settle(self, run: Run, report: Report | None, *, claim_next: bool = False) -> tuple[Lease, ...]:
        """Tell the queue how a run ended, as often as it takes; return the leases that came with the answer."""
        run.settled = True
        # From here on a beat would meet a finished lease, and take it for a lost one.
        self._heart.remove(run.lease)
        run_s = run.run_s
        tried_otherwise = False
        while report is not None:
            try:
                finished = await report.asend(self._queue, run.lease, claim_next=int(claim_next))
            except TRANSIENT as problem:
                await self._outage.pause("report", problem)
            except (Conflict, NotFound) as problem:
                run.reason = type(problem).__name__
                report = None
            except UsageError as problem:
                if tried_otherwise:
                    raise
                # The handler's result, or the delay it asked for, is nothing a queue can store.
                report, tried_otherwise = Report.rejected("bad_report", str(problem)), True
            else:
                self._outage.over()
                self._journal.ended(run.lease, report, finished, run_s, run.reason)
                return finished.next
        self._journal.lost(run.lease, run.reason)
        return ()

    # -- what comes from outside -----------------------------------------------------------------------

    def _lost(self, run: Run, reason: str) -> None:
        if not run.settled:
            run.stop(Cause.LOST, reason)
            self._put_down(run)

    def _cancel(self, run: Run, request: CancelRequest) -> None:
        if not run.settled:
            run.cancel(request)
            self._put_down(run)

    def _overran(self, run: Run) -> None:
        """Report a run that was told to stop and did not; its handler keeps the slot until it ends."""
        assert run.cause is not None
        self._journal.overran(run.lease, run.cause.value)
        self._report_aside(run)

    def _put_down(self, run: Run) -> None:
        """Report a run that waits for its slot; one that was begun reports itself."""
        if run.job is None:
            self._waiting.remove(run)
            self._report_aside(run)

    def _report_aside(self, run: Run) -> None:
        run.settled = True
        task = self._loop.create_task(self._settle_aside(run), name=f"hybridq-report-{run.lease.job_id}")
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def _settle_aside(self, run: Run) -> None:
        try:
            await self._settle(run, run.report_of_cause())
        except Exception as problem:
            self._journal.unreported(run.lease, problem)
        finally:
            self._told(run)
            self._room.set()

    # -- the end -----------------------------------------------------------------------------------------

    async def _drain(self, claiming: asyncio.Task[None]) -> None:
        began_at = self._loop.time()
        self._draining = True
        self._reason = self._reason or "claims_failed"
        self._journal.draining(self._reason, len(self._running), len(self._waiting))
        try:
            claiming.cancel()
            await asyncio.gather(claiming, return_exceptions=True)
            self._fill()
            self._told(None)
            await _first_of(self._all_told, self._stopping_now, timeout_s=self._grace_s)
            for run in tuple(self._running):
                run.stop(Cause.DRAIN, self._reason)
            await _first_of(self._all_told, timeout_s=UNWIND_S + TELL_S)
        finally:
            self._let_go()
        self._journal.closed(self._loop.time() - began_at)

    def _let_go(self) -> None:
        """Leave no lease in the heart's care: what could not be reported has to run out."""
        for run in tuple(self._untold):
            self._journal.unreported(run.lease, None)
            self._heart.remove(run.lease)
        for task in [*self._reports, *(run.job for run in self._running if run.job is not None)]:
            task.cancel()
        self._threads.close()

    def _told(self, run: Run | None) -> None:
        if run is not None:
            self._untold.discard(run)
        if self._draining and not self._untold:
            self._all_told.set()


async def _first_of(*events: asyncio.Event, timeout_s: float) -> None:
    """Wait until one of the events is set, at most `timeout_s` seconds."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
