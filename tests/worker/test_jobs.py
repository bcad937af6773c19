"""What becomes of a job that a worker runs."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from hybridq import AsyncQueue, InvalidArgument, Job, JobStatus, Lease, Queue, Reject, Retry
from hybridq.call import Call
from hybridq.worker import Worker
from tests.worker.conftest import Running, eventually


class Build(msgspec.Struct):
    ref: str


async def ended(queue: Queue, job_id: str) -> Job:
    """Wait until the worker has reported the job, and return it."""
    await eventually(lambda: queue.job(job_id).attempts, what=f"job {job_id} is reported")
    return queue.job(job_id)


async def test_the_return_value_of_a_handler_is_the_result(aqueue: AsyncQueue, queue: Queue, running: Running) -> None:
    worker = Worker(aqueue)

    @worker.task("build")
    async def build(build: Build, lease: Lease) -> dict[str, object]:
        return {"ref": build.ref, "attempt": lease.attempt}

    async with running(worker):
        job = await ended(queue, queue.enqueue("build", {"ref": "main"}).job_id)
    assert (job.status, job.result) == (JobStatus.COMPLETED, {"ref": "main", "attempt": 1})


async def test_a_plain_function_runs_in_a_thread_with_the_context_of_its_job(
    aqueue: AsyncQueue, queue: Queue, running: Running
) -> None:
    worker = Worker(aqueue)
    seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="nothing")

    @worker.task("build")
    def build() -> list[object]:
        before = seen.get()
        seen.set("the job before")
        return [before, threading.current_thread() is threading.main_thread()]

    async with running(worker):
        for _ in range(3):
            job = await ended(queue, queue.enqueue("build").job_id)
            assert job.result == ["nothing", False]


async def test_sync_tasks_run_side_by_side(aqueue: AsyncQueue, queue: Queue, running: Running) -> None:
    worker = Worker(aqueue, concurrency=3)
    together = threading.Barrier(3, timeout=10)

    @worker.task("build")
    def build() -> None:
        together.wait()

    async with running(worker):
        ids = [queue.enqueue("build").job_id for _ in range(3)]
        jobs = [await ended(queue, job_id) for job_id in ids]
    assert {job.status for job in jobs} == {JobStatus.COMPLETED}


@pytest.mark.parametrize("threaded", [False, True])
async def test_an_exception_fails_the_job_with_type_message_and_traceback(
    aqueue: AsyncQueue, queue: Queue, running: Running, threaded: bool
) -> None:
    worker = Worker(aqueue)

    def sync_build() -> None:
        raise ValueError("no such ref")

    async def async_build() -> None:
        sync_build()

    worker.task("build")(sync_build if threaded else async_build)
    async with running(worker):
        job = await ended(queue, queue.enqueue("build", max_attempts=1).job_id)
    assert (job.status, job.attempts[0].outcome) == (JobStatus.DEAD_LETTERED, "failed")
    error = job.attempts[0].error
    assert (error["type"], error["message"]) == ("ValueError", "no such ref")
    assert 'raise ValueError("no such ref")' in error["traceback"]


async def test_retry_runs_the_job_again_after_its_delay(aqueue: AsyncQueue, queue: Queue, running: Running) -> None:
    worker = Worker(aqueue)

    @worker.task("build")
    async def build(lease: Lease) -> int:
        if lease.attempt == 1:
            raise Retry(delay_s=0.05, reason="not yet")
        return lease.attempt

    async with running(worker):
        job_id = queue.enqueue("build").job_id
        await eventually(lambda: queue.job(job_id).status is JobStatus.COMPLETED)
    job = queue.job(job_id)
    assert (job.result, [attempt.outcome for attempt in job.attempts]) == (2, ["failed", "success"])


async def test_reject_makes_it_the_last_attempt(aqueue: AsyncQueue, queue: Queue, running: Running) -> None:
    worker = Worker(aqueue)

    @worker.task("build")
    async def build() -> None:
        raise Reject("no such commit")

    async with running(worker):
        job = await ended(queue, queue.enqueue("build").job_id)
    assert (job.status, job.outcome) == (JobStatus.FAILED, "rejected")
    assert job.attempts[0].error == {"type": "Reject", "message": "no such commit"}


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_handler_that_exits_fails_its_job_and_not_the_worker(
    aqueue: AsyncQueue, queue: Queue, running: Running, threaded: bool
) -> None:
    """Handed back, it would go round for ever: nothing would count how often it did this."""
    worker = Worker(aqueue)

    def sync_build() -> None:
        raise SystemExit(3)

    async def async_build() -> None:
        raise SystemExit(3)

    worker.task("build")(sync_build if threaded else async_build)
    async with running(worker):
        job = await ended(queue, queue.enqueue("build").job_id)
    assert (job.attempt, job.attempts[0].error["type"]) == (1, "SystemExit")


async def test_a_handler_that_awaits_something_cancelled_has_failed(
    aqueue: AsyncQueue, queue: Queue, running: Running
) -> None:
    worker = Worker(aqueue)

    @worker.task("build")
    async def build() -> None:
        other = asyncio.ensure_future(asyncio.Event().wait())
        other.cancel()
        await other

    async with running(worker):
        job = await ended(queue, queue.enqueue("build").job_id)
    assert job.attempts[0].error["type"] == "CancelledError"


async def test_a_job_nobody_has_a_task_for_is_rejected_with_a_code(
    aqueue: AsyncQueue, queue: Queue, running: Running
) -> None:
    async with running(Worker(aqueue)):
        job = await ended(queue, queue.enqueue("deploy").job_id)
    assert (job.status, job.attempts[0].error["code"]) == (JobStatus.FAILED, "unknown_task")


async def test_a_payload_that_does_not_fit_is_rejected_without_running_anything(
    aqueue: AsyncQueue, queue: Queue, running: Running
) -> None:
    worker = Worker(aqueue)
    ran = []

    @worker.task("build")
    async def build(build: Build) -> None:
        ran.append(build)

    async with running(worker):
        job = await ended(queue, queue.enqueue("build", {"ref": 7}).job_id)
    assert (job.status, job.attempts[0].error["code"]) == (JobStatus.FAILED, "bad_payload")
    assert ran == []


async def test_a_result_that_cannot_be_stored_is_no_reason_to_run_again(
    aqueue: AsyncQueue, queue: Queue, running: Running
) -> None:
    worker = Worker(aqueue)

    @worker.task("object")
    async def returns_an_object() -> object:
        return object()

    @worker.task("large")
    async def returns_too_much() -> str:
        return "x" * 300_000

    @worker.task("delay")
    async def asks_for_the_past() -> None:
        raise Retry(delay_s=-1)

    async with running(worker):
        for type_ in ("object", "large", "delay"):
            job = await ended(queue, queue.enqueue(type_).job_id)
            assert (job.status, job.attempts[0].error["code"]) == (JobStatus.FAILED, "bad_report")


async def test_one_worker_works_off_many_jobs_in_their_order(
    aqueue: AsyncQueue, queue: Queue, running: Running
) -> None:
    worker = Worker(aqueue, concurrency=1)
    done: list[int] = []

    @worker.task("build")
    async def build(number: int) -> None:
        done.append(number)

    for number in range(50):
        queue.enqueue("build", number)
    async with running(worker):
        await eventually(lambda: queue.stats().completed_total == 50)
    assert done == list(range(50))


async def test_the_next_job_comes_with_the_report_of_the_last(
    aqueue: AsyncQueue, queue: Queue, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One round trip a job: 100 jobs must not cost 200."""
    worker = Worker(aqueue, concurrency=1)
    trips: list[int] = []
    run_all = aqueue._backend.runner.run_all

    async def counted(calls: Sequence[Call[Any]]) -> Any:
        trips.append(len(calls))
        return await run_all(calls)

    @worker.task("build")
    async def build() -> None: ...

    monkeypatch.setattr(aqueue._backend.runner, "run_all", counted)
    for _ in range(100):
        queue.enqueue("build")
    async with running(worker):
        await eventually(lambda: queue.stats().completed_total == 100)
    assert len(trips) <= 110


async def test_no_more_than_concurrency_run_at_a_time(aqueue: AsyncQueue, queue: Queue, running: Running) -> None:
    worker = Worker(aqueue, concurrency=3)
    go = asyncio.Event()
    inside = most = 0

    @worker.task("build")
    async def build() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await go.wait()
        inside -= 1

    for _ in range(10):
        queue.enqueue("build")
    async with running(worker):
        await eventually(lambda: inside == 3)
        stats = queue.stats()
        go.set()
        await eventually(lambda: queue.stats().completed_total == 10)
    assert (most, stats.running, stats.queued) == (3, 3, 7)


def test_a_worker_says_what_it_will_not_take(aqueue: AsyncQueue) -> None:
    for wrong in ({"concurrency": 0}, {"prefetch": -1}, {"grace_s": -1}, {"lease_s": 0.5}, {"concurrency": True}):
        with pytest.raises(InvalidArgument):
            Worker(aqueue, **wrong)
    worker = Worker(aqueue)
    worker.task("build")(lambda: None)
    with pytest.raises(InvalidArgument, match="type"):
        worker.task("build")
    with pytest.raises(InvalidArgument, match="timeout_s"):
        worker.task("other", timeout_s=0)
    assert list(worker.tasks) == ["build"]


async def test_a_worker_runs_once_at_a_time_and_again_after_that(
    aqueue: AsyncQueue, queue: Queue, running: Running
) -> None:
    worker = Worker(aqueue)

    @worker.task("build")
    async def build() -> None: ...

    for _ in range(2):
        async with running(worker):
            await ended(queue, queue.enqueue("build").job_id)
            with pytest.raises(InvalidArgument, match="running"):
                await worker.serve()
    worker.stop()
