"""What a worker says about its work: hooks around each operation, log events with stable names, no secrets."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from structlog.testing import capture_logs

from hybridq import AsyncQueue, JobStatus, Lease, Outcome, Queue
from hybridq.worker import (
    ClaimDetails,
    DrainDetails,
    FailDetails,
    FinishDetails,
    LossDetails,
    StartDetails,
    Worker,
)
from tests.worker.conftest import Running, eventually

SECRET = "hunter2-canary"


class Heard:
    """Implements the whole protocol, and keeps what it hears."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, msgspec.Struct]] = []

    def claimed(self, details: ClaimDetails) -> None:
        self.calls.append(("claimed", details))

    def started(self, details: StartDetails) -> None:
        self.calls.append(("started", details))

    def finished(self, details: FinishDetails) -> None:
        self.calls.append(("finished", details))

    def failed(self, details: FailDetails) -> None:
        self.calls.append(("failed", details))

    def lost(self, details: LossDetails) -> None:
        self.calls.append(("lost", details))

    def drained(self, details: DrainDetails) -> None:
        self.calls.append(("drained", details))


class Deaf:
    """Raises whatever it hears."""

    def __getattr__(self, name: str) -> Callable[[object], None]:
        def hear(details: object) -> None:
            raise RuntimeError(name)

        hear.__name__ = name
        return hear


async def test_hooks_hear_of_every_operation_in_its_order(aqueue: AsyncQueue, queue: Queue, running: Running) -> None:
    heard = Heard()
    worker = Worker(aqueue, concurrency=1, hooks=heard)

    @worker.task("good")
    async def good() -> int:
        return 1

    @worker.task("bad")
    async def bad() -> None:
        raise ValueError(SECRET)

    @worker.task("lost")
    async def lost(lease: Lease) -> None:
        queue.release(lease, delay_s=3600)

    async with running(worker):
        for type_ in ("good", "bad", "lost"):
            queue.enqueue(type_, max_attempts=1)
            before = len(heard.calls)
            await eventually(lambda before=before: len(heard.calls) >= before + 3)
    assert [name for name, _ in heard.calls] == [
        *("claimed", "started", "finished"),
        *("claimed", "started", "failed"),
        *("claimed", "started", "lost"),
        "drained",
    ]
    details = [details for _, details in heard.calls]
    assert isinstance(details[2], FinishDetails) and details[2].status is JobStatus.COMPLETED
    failed = details[5]
    assert isinstance(failed, FailDetails)
    assert (failed.outcome, failed.status, failed.error_type, failed.retry_in_s) == (
        Outcome.FAILED,
        JobStatus.DEAD_LETTERED,
        "ValueError",
        None,
    )
    assert isinstance(details[8], LossDetails) and details[8].reason == "StaleLease"
    end = details[9]
    assert isinstance(end, DrainDetails) and (end.finished, end.failed, end.lost) == (1, 1, 1)


async def test_a_hook_that_raises_does_not_disturb_the_work(aqueue: AsyncQueue, queue: Queue, running: Running) -> None:
    worker = Worker(aqueue, hooks=Deaf())

    @worker.task("build")
    async def build() -> None: ...

    with capture_logs() as logs:
        async with running(worker):
            job_id = queue.enqueue("build").job_id
            await eventually(lambda: queue.job(job_id).status is JobStatus.COMPLETED)
    failed = [log["hook"] for log in logs if log["event"] == "worker.hook_failed"]
    assert failed == ["claimed", "started", "finished", "drained"]


async def test_log_events_have_stable_names_and_hold_no_payload_and_no_text(
    aqueue: AsyncQueue, queue: Queue, running: Running
) -> None:
    worker = Worker(aqueue)

    @worker.task("good")
    async def good(payload: str) -> str:
        return payload

    @worker.task("bad")
    def bad(payload: str) -> None:
        raise ValueError(payload)

    with capture_logs() as logs:
        async with running(worker):
            await eventually(lambda: logs, what="the worker has started")
            for type_ in ("good", "bad", "unknown"):
                before = len(logs)
                queue.enqueue(type_, SECRET, max_attempts=1)
                await eventually(lambda before=before: len(logs) > before, what="the job is logged")
    assert [log["event"] for log in logs] == [
        "worker.started",
        "job.finished",
        "job.failed",
        "job.failed",
        "worker.draining",
        "worker.stopped",
    ]
    assert [log.get("error_type") for log in logs] == [None, None, "ValueError", "unknown_task", None, None]
    assert SECRET not in repr(logs)
