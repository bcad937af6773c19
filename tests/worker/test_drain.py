"""How a worker ends: by `stop`, by cancellation, by an error that makes claiming pointless."""

from __future__ import annotations

import asyncio
import os
import signal
import types

import pytest
import redis as redis_py
from structlog.testing import capture_logs

from hybridq import AsyncQueue, InvalidArgument, JobStatus, Lease, Queue, QueueLost
from hybridq.worker import DrainDetails, NoHooks, Worker, find_workers, run_workers
from tests.servers import ServerProcess, wait_until
from tests.worker.conftest import Running, eventually


class Counted(NoHooks):
    """Keeps what a worker says at its end."""

    def __init__(self) -> None:
        self.ends: list[DrainDetails] = []

    def drained(self, details: DrainDetails) -> None:
        self.ends.append(details)


def worker_of(queue: AsyncQueue, **options: object) -> tuple[Worker, asyncio.Event, list[str]]:
    """Return a worker whose jobs end when the event is set, and the ids of those that were begun."""
    worker = Worker(queue, **options)  # type: ignore[arg-type]
    go, begun = asyncio.Event(), []

    @worker.task("build")
    async def build(lease: Lease) -> None:
        begun.append(lease.job_id)
        await go.wait()

    return worker, go, begun


async def test_stop_lets_running_jobs_finish_and_hands_back_the_others(aqueue: AsyncQueue, queue: Queue) -> None:
    hooks = Counted()
    worker, go, begun = worker_of(aqueue, concurrency=1, prefetch=1, hooks=hooks)
    ids = [queue.enqueue("build").job_id for _ in range(3)]
    task = asyncio.create_task(worker.serve())
    await eventually(lambda: begun and queue.job(ids[1]).status is JobStatus.CLAIMED)
    worker.stop()
    await eventually(lambda: queue.job(ids[1]).status is JobStatus.QUEUED)
    assert not task.done()
    go.set()
    await task
    assert [queue.job(job_id).status for job_id in ids] == [JobStatus.COMPLETED, JobStatus.QUEUED, JobStatus.QUEUED]
    assert begun == ids[:1]
    (end,) = hooks.ends
    assert (end.finished, end.released, end.failed, end.lost) == (1, 1, 0, 0)


async def test_the_grace_ends_and_what_is_left_is_handed_back(aqueue: AsyncQueue, queue: Queue) -> None:
    worker, _, begun = worker_of(aqueue, grace_s=0.2)
    job_id = queue.enqueue("build").job_id
    task = asyncio.create_task(worker.serve())
    await eventually(lambda: begun)
    worker.stop()
    async with asyncio.timeout(5):
        await task
    job = queue.job(job_id)
    assert (job.status, job.attempt) == (JobStatus.QUEUED, 0)


async def test_stop_now_ends_a_drain_that_has_begun(aqueue: AsyncQueue, queue: Queue) -> None:
    worker, _, begun = worker_of(aqueue, grace_s=3600)
    job_id = queue.enqueue("build").job_id
    task = asyncio.create_task(worker.serve())
    await eventually(lambda: begun)
    worker.stop()
    worker.stop(now=True)
    async with asyncio.timeout(5):
        await task
    assert queue.job(job_id).status is JobStatus.QUEUED


async def test_a_handler_that_finishes_while_it_is_cancelled_for_the_drain_counts(
    aqueue: AsyncQueue, queue: Queue
) -> None:
    worker = Worker(aqueue, grace_s=0)
    begun = asyncio.Event()

    @worker.task("build")
    async def build() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            return "saved"  # noqa: B012 - on purpose

    job_id = queue.enqueue("build").job_id
    task = asyncio.create_task(worker.serve())
    await begun.wait()
    worker.stop()
    await task
    assert (queue.job(job_id).status, queue.job(job_id).result) == (JobStatus.COMPLETED, "saved")


async def test_a_cancelled_run_hands_back_without_grace(aqueue: AsyncQueue, queue: Queue) -> None:
    worker, _, begun = worker_of(aqueue, grace_s=3600)
    job_id = queue.enqueue("build").job_id
    task = asyncio.create_task(worker.run())
    await eventually(lambda: begun)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert queue.job(job_id).status is JobStatus.QUEUED


async def test_an_idle_worker_stops_at_once_and_no_job_is_lost_on_the_way(aqueue: AsyncQueue, queue: Queue) -> None:
    """A claim may bring a job in the very moment in which it is cancelled."""
    for _ in range(20):
        worker, go, _ = worker_of(aqueue)
        go.set()
        task = asyncio.create_task(worker.serve())
        await asyncio.sleep(0)
        job_id = queue.enqueue("build").job_id
        worker.stop()
        async with asyncio.timeout(5):
            await task
        await eventually(lambda job_id=job_id: queue.job(job_id).status not in (JobStatus.CLAIMED, JobStatus.RUNNING))


async def test_a_drain_that_is_cancelled_leaves_no_lease_that_nobody_works_on(
    aqueue: AsyncQueue, queue: Queue, server: ServerProcess
) -> None:
    """The process may live on: renewed by its heart, such a lease would never end."""
    worker, _, begun = worker_of(aqueue, concurrency=1, prefetch=1, grace_s=3600)
    ids = [queue.enqueue("build").job_id for _ in range(2)]
    task = asyncio.create_task(worker.serve())
    await eventually(lambda: begun and queue.job(ids[1]).status is JobStatus.CLAIMED)
    server.pause()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.resume()

    def both_waiting() -> bool:
        queue.upkeep()
        return all(queue.job(job_id).status in (JobStatus.QUEUED, JobStatus.SCHEDULED) for job_id in ids)

    await eventually(both_waiting, 15, what="both leases have ended")


async def test_run_obeys_the_signals_of_its_process_and_leaves_them_as_they_were(
    aqueue: AsyncQueue, queue: Queue
) -> None:
    def theirs(number: int, frame: object) -> None:
        raise AssertionError(number)

    before = signal.signal(signal.SIGTERM, theirs)
    try:
        worker, _, begun = worker_of(aqueue, grace_s=3600)
        job_id = queue.enqueue("build").job_id
        task = asyncio.create_task(worker.run())
        await eventually(lambda: begun)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        async with asyncio.timeout(5):
            await task
        assert queue.job(job_id).status is JobStatus.QUEUED
        assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_a_job_that_is_cancelled_with_its_loop_is_handed_back(aqueue: AsyncQueue, queue: Queue) -> None:
    """What `asyncio.run` does at its end: it cancels every task there is."""
    worker, _, begun = worker_of(aqueue)
    job_id = queue.enqueue("build").job_id
    task = asyncio.create_task(worker.serve())
    await eventually(lambda: begun)
    for other in asyncio.all_tasks() - {asyncio.current_task()}:
        if other is task or other.get_name() == f"hybridq-job-{job_id}":
            other.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    job = queue.job(job_id)
    assert (job.status, job.attempt) == (JobStatus.QUEUED, 0)


@pytest.mark.breaks_keys
async def test_a_queue_that_vanished_ends_the_worker_with_its_error(
    aqueue: AsyncQueue, queue: Queue, redis: redis_py.Redis
) -> None:
    worker, _, begun = worker_of(aqueue, concurrency=2, grace_s=0.1)
    queue.enqueue("build")
    task = asyncio.create_task(worker.serve())
    await eventually(lambda: begun)
    redis.flushall()
    redis.publish(f"{queue.root}:bell", "any 1")
    with pytest.raises(QueueLost):
        await asyncio.wait_for(task, 10)


async def test_a_drain_ends_though_redis_is_gone(
    aqueue: AsyncQueue, queue: Queue, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridq.worker.shift.TELL_S", 0.2)
    worker, _, begun = worker_of(aqueue, grace_s=0)
    queue.enqueue("build")
    task = asyncio.create_task(worker.serve())
    await eventually(lambda: begun)
    server.kill()
    worker.stop()
    with capture_logs() as logs:
        async with asyncio.timeout(10):
            await task
    assert "job.unreported" in [log["event"] for log in logs]


def test_workers_are_found_in_a_module_by_their_names(aqueue: AsyncQueue) -> None:
    with pytest.raises(InvalidArgument, match="workers"):
        run_workers([])
    module = types.ModuleType("app")
    one, two = Worker(aqueue), Worker(aqueue)
    vars(module).update(one=one, again=one, other="no worker", two=two)
    assert find_workers(module) == [one, two]


@pytest.mark.breaks_keys
def test_workers_run_side_by_side_and_drain_when_one_of_them_fails(
    redis_url: str, namespace: str, queue: Queue, redis: redis_py.Redis
) -> None:
    """The second one's server goes away in a way that cannot be waited out; the first finishes what it has."""
    good = Worker(AsyncQueue("work", redis=redis_url, namespace=namespace))
    bad = Worker(AsyncQueue("other", redis=redis_url, namespace=namespace))

    @good.task("build")
    def build() -> str:
        with Queue("other", redis=redis_url, namespace=namespace) as other:
            wait_until(lambda: redis.exists(f"{other.root}:agents"), 10, what="the other worker claims")
            redis.delete(f"{other.root}:meta")
            redis.publish(f"{other.root}:bell", "any 1")
        return "done"

    job_id = queue.enqueue("build").job_id
    with pytest.raises(QueueLost):
        run_workers([good, bad])
    assert queue.job(job_id).result == "done"


async def test_running_twice_in_one_process_is_two_workers(aqueue: AsyncQueue, queue: Queue, running: Running) -> None:
    first, go, begun = worker_of(aqueue, concurrency=1)
    second, go_too, begun_too = worker_of(aqueue, concurrency=1)
    async with running(first), running(second):
        ids = {queue.enqueue("build").job_id for _ in range(2)}
        await eventually(lambda: {*begun, *begun_too} == ids)
        go.set()
        go_too.set()
        await eventually(lambda: queue.stats().completed_total == 2)
