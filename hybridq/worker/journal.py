"""What a worker says about its work: log events, counts and hooks, in one place.

| event              | fields                                       | when                                  |
|--------------------|----------------------------------------------|---------------------------------------|
| worker.started     | queue agent concurrency prefetch tasks       |                                       |
| job.finished       | * run_s                                      | a run ended well                      |
| job.failed         | * run_s outcome status error_type retry_in_s | a run ended otherwise                 |
| job.lost           | * reason                                     | its lease is another's, or ran out    |
| job.released       | * reason                                     | handed back unfinished                |
| job.overrun        | * cause                                      | reported, and its handler still runs  |
| job.unreported     | * error_type                                 | the queue could not be told           |
| worker.away        | queue verb error_type                        | Redis does not answer; once an outage |
| worker.back        | queue away_s                                 | it does again                         |
| worker.hook_failed | queue hook error_type                        | a hook raised                         |
| worker.draining    | queue reason running waiting                 | no more claims                        |
| worker.stopped     | queue finished failed released lost took_s   |                                       |

`*` stands for job_id, type and attempt. Neither payloads nor results nor texts of errors are logged. Fields
ending in `_s` are seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import structlog

from .._report import Report
from ..job import Finished, Lease
from ..lifecycle import Outcome
from .hooks import ClaimDetails, DrainDetails, FailDetails, FinishDetails, Hooks, LossDetails, StartDetails

__all__ = ["Journal"]

D = TypeVar("D")
log = structlog.get_logger("hybridq")


class Journal:
    """The record of one shift of a worker."""

    def __init__(self, queue: str, hooks: Hooks) -> None:
        self._queue, self._hooks = queue, hooks
        self._counts: Counter[str] = Counter()

    def opened(self, *, agent: str, concurrency: int, prefetch: int, tasks: Iterable[str]) -> None:
        """The worker begins to claim."""
        names = sorted(tasks)
        log.info(
            "worker.started",
            queue=self._queue,
            agent=agent,
            concurrency=concurrency,
            prefetch=prefetch,
            tasks=names,
        )

    def claimed(self, leases: Sequence[Lease]) -> None:
        """Jobs came."""
        self._tell(self._hooks.claimed, ClaimDetails(queue=self._queue, leases=tuple(leases)))

    def started(self, lease: Lease) -> None:
        """A handler is about to run."""
        self._tell(self._hooks.started, StartDetails(queue=self._queue, lease=lease))

    def ended(self, lease: Lease, report: Report, finished: Finished, run_s: float, reason: str) -> None:
        """The queue took a report; `reason` says why a run was handed back."""
        match report.outcome:
            case None:
                self._counts["released"] += 1
                log.info("job.released", **_names(lease), reason=reason)
            case Outcome.SUCCESS:
                self._counts["finished"] += 1
                log.info("job.finished", **_names(lease), run_s=round(run_s, 6))
                self._tell(
                    self._hooks.finished,
                    FinishDetails(queue=self._queue, lease=lease, status=finished.status, run_s=run_s),
                )
            case outcome:
                self._failed(lease, report, finished, run_s, outcome)

    def _failed(self, lease: Lease, report: Report, finished: Finished, run_s: float, outcome: Outcome) -> None:
        self._counts["failed"] += 1
        log.warning(
            "job.failed",
            **_names(lease),
            run_s=round(run_s, 6),
            outcome=outcome.value,
            status=finished.status.value,
            error_type=report.error_type,
            retry_in_s=finished.retry_in_s,
        )
        self._tell(
            self._hooks.failed,
            FailDetails(
                queue=self._queue,
                lease=lease,
                outcome=outcome,
                status=finished.status,
                error_type=report.error_type,
                retry_in_s=finished.retry_in_s,
                run_s=run_s,
            ),
        )

    def lost(self, lease: Lease, reason: str) -> None:
        """A lease was lost."""
        self._counts["lost"] += 1
        log.warning("job.lost", **_names(lease), reason=reason)
        self._tell(self._hooks.lost, LossDetails(queue=self._queue, lease=lease, reason=reason))

    def overran(self, lease: Lease, cause: str) -> None:
        """A handler did not end when it was told to, and is reported over its head."""
        log.warning("job.overrun", **_names(lease), cause=cause)

    def unreported(self, lease: Lease, problem: Exception | None) -> None:
        """The queue could not be told of an end: the lease runs out, and the job comes back by itself."""
        log.error("job.unreported", **_names(lease), error_type=None if problem is None else type(problem).__name__)

    def draining(self, reason: str, running: int, waiting: int) -> None:
        """The worker claims no more."""
        log.info("worker.draining", queue=self._queue, reason=reason, running=running, waiting=waiting)

    def closed(self, took_s: float) -> None:
        """The worker has stopped, `took_s` seconds after it was told to."""
        counts = {name: self._counts[name] for name in ("finished", "failed", "released", "lost")}
        log.info("worker.stopped", queue=self._queue, **counts, took_s=round(took_s, 3))
        self._tell(self._hooks.drained, DrainDetails(queue=self._queue, **counts, took_s=took_s))

    def _tell(self, hook: Callable[[D], None], details: D) -> None:
        try:
            hook(details)
        except Exception as problem:  # somebody else's counters must not stop the work
            name = getattr(hook, "__name__", "?")
            log.warning("worker.hook_failed", queue=self._queue, hook=name, error_type=type(problem).__name__)


def _names(lease: Lease) -> dict[str, Any]:
    return {"job_id": lease.job_id, "type": lease.type, "attempt": lease.attempt}
