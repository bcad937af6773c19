"""`Worker`: runs handlers for the jobs of one queue, side by side, until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar

from .._interrupt import call_in
from .._units import to_ms
from ..aio import AsyncQueue
from ..errors import InvalidArgument
from ..keys import validate_name
from .hooks import Hooks, NoHooks
from .run import current_run
from .shift import Shift
from .signals import stopped_by_signals
from .tasks import Task

__all__ = ["Worker"]

F = TypeVar("F", bound=Callable[..., Any])
SLOTS_MAX: Final = 1000
YEAR_S: Final = 366 * 86_400


class Worker:
    """Claims jobs of `queue` and runs the tasks that are registered for their types.

        worker = Worker(queue, concurrency=20)

        @worker.task("send", timeout_s=60)
        async def send(mail: Mail, lease: Lease) -> Receipt: ...

        await worker.run()

    Args:
        queue: Where the jobs come from; the worker does not close it.
        concurrency: How many jobs run at a time, 1 to 1,000.
        prefetch: How many more are claimed ahead and wait in this process, their leases kept alive: worth it
            for jobs that are shorter than a round trip. They are not offered to others meanwhile.
        grace_s: How long running jobs may go on when the worker is told to stop.
        lease_s: Seconds a lease lasts, 1 to 3,600; None: the queue's.
        hooks: What to call around each operation.

    What becomes of a job:

    * the handler returns: completed, with what it returned as the result (JSON by msgspec);
    * it raises: failed, with type, message and the last lines of the traceback; `Retry(delay_s)` sets the
      delay, `Reject(reason)` makes it the last attempt;
    * it takes longer than `timeout_s` of the task or of the job, whichever is shorter: outcome timeout;
    * somebody cancels the job: the handler learns it with the next heartbeat, and the outcome is cancelled;
    * the lease is lost: the handler is stopped, and nothing is reported;
    * no task is registered for its type, or its payload does not fit the handler: rejected, FAILED at once,
      with the code `unknown_task` or `bad_payload`. Deploy workers before producers, and `queue.retry` what
      came too early.

    An async handler is stopped by cancelling it. A plain function runs in a thread, which cannot be stopped:
    it may call `worker.check()` between steps. If it does not end, its job is reported all the same, what it
    returns later is dropped, and it keeps its slot until then.
    """

    def __init__(
        self,
        queue: AsyncQueue,
        *,
        concurrency: int = 10,
        prefetch: int = 0,
        grace_s: float = 25.0,
        lease_s: float | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        _check_count("concurrency", concurrency, 1)
        _check_count("prefetch", prefetch, 0)
        to_ms("grace_s", grace_s, 0, YEAR_S)
        if lease_s is not None:
            to_ms("lease_s", lease_s, 1, 3600)
        self.queue = queue
        self._concurrency, self._prefetch, self._grace_s = concurrency, prefetch, grace_s
        self._lease_s = (queue.lease_s or 30.0) if lease_s is None else lease_s
        self._hooks = hooks or NoHooks()
        self._tasks: dict[str, Task] = {}
        self._shift: Shift | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The registered tasks by the type of job they do."""
        return MappingProxyType(self._tasks)

    def task(self, type: str, *, timeout_s: float | None = None) -> Callable[[F], F]:
        """Register the decorated function for jobs of `type`, and return it unchanged.

        It takes the payload, read as JSON into the annotation of its first parameter (`bytes`: as it is;
        none: whatever the JSON holds), the `Lease` in a parameter annotated so or named `lease`, both, or
        nothing. `timeout_s` bounds each run. Raises `InvalidArgument` for a type that is taken or a function
        that does not fit.
        """
        validate_name("type", type)
        if timeout_s is not None:
            to_ms("timeout_s", timeout_s, 0.001, YEAR_S)
        if type in self._tasks:
            raise InvalidArgument("type", type, "a type that has no task yet")

        def register(function: F) -> F:
            self._tasks[type] = Task.read(type, function, timeout_s)
            return function

        return register

    async def run(self) -> None:
        """Work until SIGTERM, SIGINT or `stop`, then drain.

        Draining claims no more, hands back what was not begun, gives running jobs `grace_s` seconds, keeps
        their leases alive meanwhile, and cancels and hands back the rest. A second signal ends the grace.
        When the task that runs this is cancelled, there is no grace. Raises what makes claiming pointless
        (`QueueLost`, `SchemaMismatch`, `SessionSuperseded`, a `UsageError`), also after a drain; waits out
        everything else.
        """
        with stopped_by_signals([self]):
            await self.serve()

    async def serve(self) -> None:
        """As `run`, and leave the process' signals alone: for a loop that has more than one worker."""
        if self._shift is not None:
            raise InvalidArgument("worker", self, "one that is not running already")
        self._loop = asyncio.get_running_loop()
        self._shift = Shift(
            self.queue,
            self._tasks,
            self._hooks,
            concurrency=self._concurrency,
            prefetch=self._prefetch,
            grace_s=self._grace_s,
            lease_s=self._lease_s,
        )
        try:
            await self._shift.serve()
        finally:
            self._shift = None

    def stop(self, *, now: bool = False, reason: str = "stop") -> None:
        """Let `run` drain and return; `now`: without grace. From any thread; no effect when not running."""
        shift, loop = self._shift, self._loop
        if shift is not None and loop is not None:
            call_in(loop, shift.stop, now, reason)

    def check(self) -> None:
        """Called by a handler between two steps: raise when it has to stop, else return.

        Raises `StaleLease` when the lease is lost or was handed back, `JobCancelled`, or `TimeoutError`.
        Without effect outside a handler.
        """
        run = current_run.get(None)
        if run is not None:
            run.check()


def _check_count(name: str, value: object, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= SLOTS_MAX:
        raise InvalidArgument(name, value, f"an integer from {low} to {SLOTS_MAX}")
