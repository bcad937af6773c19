"""One lease in a worker's hands: its handler, why that was told to stop, and what is said about it.

```
  call ──► handler ends by itself ─────────────────────────► report of its return value or exception
    │
    └─ stop(cause) ─► handler is cancelled ─► it ends ─────► report of the cause
                                    └─ not in time ────────► overrun: the cause is reported over its head
```
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
from collections.abc import Callable
from typing import Any, Final

from .._interrupt import Interrupt
from .._report import Report
from ..errors import JobCancelled, StaleLease
from ..job import CancelRequest, Lease
from ..lifecycle import Outcome
from .tasks import Task
from .threads import Threads

__all__ = ["Cause", "Run", "current_run"]

UNWIND_S: Final = 2.0
"""How long a cancelled coroutine may take to clean up before its job is reported over its head."""

current_run: contextvars.ContextVar[Run] = contextvars.ContextVar("hybridq_run")


class Cause(enum.Enum):
    """Why a run has to stop."""

    LOST = "lost"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    DRAIN = "drain"


class Run:
    """The life of one lease in a worker. All methods but `check` belong to the event loop's thread."""

    __slots__ = (
        "_interrupt",
        "_loop",
        "_on_overrun",
        "_overrun",
        "_threaded",
        "cause",
        "job",
        "lease",
        "overran",
        "reason",
        "settled",
        "started_at",
        "timeout_s",
    )

    def __init__(self, lease: Lease, on_overrun: Callable[[Run], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_overrun = on_overrun
        self._interrupt: Interrupt | None = None
        self._threaded = False
        self._overrun: asyncio.TimerHandle | None = None
        self.lease = lease
        self.job: asyncio.Task[None] | None = None
        """The task that carries it out; None while it waits for a slot."""
        self.cause: Cause | None = None
        self.reason = ""
        self.timeout_s = lease.timeout_s
        self.started_at: float | None = None
        self.overran = False
        """Whether the handler was reported on before it ended."""
        self.settled = False
        """Whether the queue has been told, or need not be: from here on the lease is none of ours."""

    @property
    def run_s(self) -> float:
        """Seconds since the handler was started, 0 when it was not."""
        return 0.0 if self.started_at is None else self._loop.time() - self.started_at

    async def call(self, task: Task, arguments: list[Any], threads: Threads) -> Report | None:
        """Run the handler to its end and return what to report; None when the lease was lost.

        A handler that returns has done its work, also when it was told to stop meanwhile.
        """
        self.timeout_s = min(self.lease.timeout_s, task.timeout_s or self.lease.timeout_s)
        self.started_at = self._loop.time()
        self._threaded = not task.is_async
        self._interrupt = Interrupt()
        current_run.set(self)
        timer = self._loop.call_later(self.timeout_s, self.stop, Cause.TIMEOUT)
        report: Report | None
        try:
            if task.is_async:
                result = await task.function(*arguments)
            else:
                result = await threads.run(task.function, *arguments)
            report = Report(outcome=Outcome.SUCCESS, result=result)
        except BaseException as raised:  # also what a handler means for its process: it is the worker that ends it
            report = self._report_of(raised)
        finally:
            self._interrupt.close()
            timer.cancel()
            if self._overrun is not None:
                self._overrun.cancel()
        return None if self.cause is Cause.LOST else report

    def stop(self, cause: Cause, reason: str = "", grace_s: float | None = None) -> None:
        """Tell the handler to stop. The first cause stands, but for a loss, which overrules the others.

        A coroutine is cancelled. A thread cannot be: it may ask (`check`), and has `grace_s` seconds (None:
        0, or for a coroutine 2) before it is reported over its head. A later call may shorten that time, not
        lengthen it.
        """
        if self.settled:
            return
        if self.cause is None or cause is Cause.LOST:
            self.cause, self.reason = cause, reason
        if self._interrupt is None:
            return  # not called yet: the cause is looked at before it is
        if not self._threaded:
            self._interrupt.fire()
        if grace_s is None:
            grace_s = 0.0 if self._threaded else UNWIND_S
        ends_at = self._loop.time() + grace_s
        if self._overrun is None or ends_at < self._overrun.when():
            if self._overrun is not None:
                self._overrun.cancel()
            self._overrun = self._loop.call_at(ends_at, self._overran)

    def cancel(self, request: CancelRequest) -> None:
        """Obey a cancel request: a graceful one leaves the handler its `grace_s` to end by itself."""
        graceful = request.mode == "graceful"
        self.stop(Cause.CANCELLED, request.mode, max(UNWIND_S, request.grace_s) if graceful else None)

    def check(self) -> None:
        """Raise when the handler has to stop: `StaleLease`, `JobCancelled`, `TimeoutError`. Any thread."""
        match self.cause:
            case None:
                return
            case Cause.CANCELLED:
                raise JobCancelled(self.lease.job_id)
            case Cause.TIMEOUT:
                raise TimeoutError(f"job {self.lease.job_id}: over its {self.timeout_s:g} s")
        raise StaleLease(self.lease.job_id, self.lease.fence, "no longer held here")

    def report_of_cause(self) -> Report | None:
        """Return what to report for a handler that was told to stop; None when its lease was lost."""
        match self.cause:
            case Cause.LOST:
                return None
            case Cause.CANCELLED:
                return Report(outcome=Outcome.CANCELLED)
            case Cause.TIMEOUT:
                message = f"over its {self.timeout_s:g} s"
                return Report(outcome=Outcome.TIMEOUT, error={"type": "Timeout", "message": message})
        return Report.release()

    def _report_of(self, raised: BaseException) -> Report | None:
        if self.cause is not None:
            return self.report_of_cause()
        this = asyncio.current_task()
        if isinstance(raised, asyncio.CancelledError) and this is not None and this.cancelling():
            return Report.release()  # the event loop is being shut down
        # Also SystemExit, and the cancellation of something the handler awaited: were they handed back, the
        # job would go round for ever without being charged an attempt.
        return Report.of(raised) if isinstance(raised, Exception) else Report.failed(raised)

    def _overran(self) -> None:
        if not self.settled:
            self.overran = True
            self._on_overrun(self)
