"""How a worker keeps leases, and what stops a handler: a lost lease, a cancel request, its time."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

import pytest
import redis as redis_py
from structlog.testing import capture_logs

from hybridq import AsyncQueue, JobCancelled, JobStatus, Lease, Queue, StaleLease
from hybridq.heart import boottime
from hybridq.worker import ClaimDetails, LossDetails, NoHooks, Worker
from tests.servers import ServerProcess, wait_until
from tests.worker.conftest import LEASE_S, Running, eventually


class Body:
    """What a handler tells of itself."""

    def __init__(self) -> None:
        self.leases: list[Lease] = []
        self.stopped_by: list[str] = []
        self.go = threading.Event()
        self.over = threading.Event()

    @property
    def begun(self) -> bool:
        return bool(self.leases)

    async def waits(self, lease: Lease) -> None:
        self.leases.append(lease)
        try:
            await asyncio.Event().wait()
        except BaseException as problem:
            self.stopped_by.append(type(problem).__name__)
            raise

    def checks(self, worker: Worker, lease: Lease) -> None:
        """Do small steps, and ask between them whether to go on."""
        self.leases.append(lease)
        try:
            while not self.go.wait(0.01):
                worker.check()
        except BaseException as problem:
            self.stopped_by.append(type(problem).__name__)
            raise
        finally:
            self.over.set()

    def ignores(self, lease: Lease) -> str:
        """Do one long step that nothing can interrupt."""
        self.leases.append(lease)
        self.go.wait(30)
        self.over.set()
        return "done"


async def test_a_handler_that_blocks_the_loop_longer_than_its_lease_keeps_it(
    aqueue: AsyncQueue, queue: Queue, running: Running
) -> None:
    worker = Worker(aqueue)

    def renewed_for_s(lease: Lease) -> float:
        job = queue.job(lease.job_id)
        assert job.lease_expires_at is not None and job.claimed_at is not None
        return (job.lease_expires_at - job.claimed_at).total_seconds()

    @worker.task("build")
    async def build(lease: Lease) -> int:
        wait_until(lambda: renewed_for_s(lease) > 3 * LEASE_S, 10, what="renewals beside the blocked loop")
        return lease.fence

    async with running(worker):
        job_id = queue.enqueue("build").job_id
        await eventually(lambda: queue.job(job_id).status is JobStatus.COMPLETED)
    assert len(queue.job(job_id).attempts) == 1


async def test_losing_the_lease_cancels_the_handler_within_a_heartbeat(
    aqueue: AsyncQueue, queue: Queue, running: Running
) -> None:
    worker, body = Worker(aqueue), Body()
    worker.task("build")(body.waits)
    async with running(worker):
        job_id = queue.enqueue("build").job_id
        await eventually(lambda: body.begun)
        queue.release(body.leases[0], delay_s=3600)
        await eventually(lambda: body.stopped_by, LEASE_S, what="the handler is cancelled")
    assert body.stopped_by == ["CancelledError"]
    assert queue.job(job_id).status is JobStatus.SCHEDULED


async def test_a_lease_that_cannot_be_renewed_cancels_the_handler_before_it_ends(
    aqueue: AsyncQueue, queue: Queue, running: Running, server: ServerProcess
) -> None:
    worker, body = Worker(aqueue, lease_s=2), Body()
    worker.task("build")(body.waits)
    async with running(worker):
        queue.enqueue("build")
        await eventually(lambda: body.begun)
        server.pause()
        await eventually(lambda: body.stopped_by, 2, what="the handler is cancelled")
        server.resume()


async def test_a_handler_that_returns_after_the_loss_is_not_reported(
    aqueue: AsyncQueue, queue: Queue, running: Running, server: ServerProcess
) -> None:
    """Redis would still take it, since nobody else has the job yet; but it was cut short."""
    lost: list[str] = []

    class Heard(NoHooks):
        def lost(self, details: LossDetails) -> None:
            lost.append(details.reason)

    worker = Worker(aqueue, hooks=Heard())
    begun = asyncio.Event()

    @worker.task("build")
    async def build() -> str:
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "cut short"

    async with running(worker):
        job_id = queue.enqueue("build").job_id
        await begun.wait()
        server.pause()
        await eventually(lambda: lost)
        server.resume()
    assert lost == ["not_renewed_in_time"]
    assert all(attempt.outcome != "success" for attempt in queue.job(job_id).attempts)


async def test_a_loss_while_finishing_is_ignored(
    aqueue: AsyncQueue, queue: Queue, running: Running, server: ServerProcess
) -> None:
    """The report takes longer than the lease lasts, since nobody answers: it is for Redis to say that it is late."""
    worker, lost = Worker(aqueue), []
    go = asyncio.Event()

    @worker.task("build")
    async def build(lease: Lease) -> str:
        try:
            await go.wait()
        except asyncio.CancelledError:
            lost.append(lease)
        return "done"

    async with running(worker):
        job_id = queue.enqueue("build").job_id
        await eventually(lambda: queue.job(job_id).status is JobStatus.RUNNING)
        server.pause()
        go.set()
        long_past = boottime() + 1.5 * LEASE_S
        await eventually(lambda: boottime() > long_past, what="the lease would have been given up")
        server.resume()
        await eventually(lambda: queue.job(job_id).status is JobStatus.COMPLETED)
    assert lost == []
    assert queue.job(job_id).result == "done"


@pytest.mark.parametrize("mode", ["graceful", "kill"])
async def test_a_cancel_request_cancels_the_handler_and_the_job(
    aqueue: AsyncQueue, queue: Queue, running: Running, mode: str
) -> None:
    worker, body = Worker(aqueue), Body()
    worker.task("build")(body.waits)
    async with running(worker):
        job_id = queue.enqueue("build").job_id
        await eventually(lambda: body.begun)
        assert queue.cancel(job_id, mode=mode).requested
        await eventually(lambda: queue.job(job_id).status is JobStatus.CANCELLED, 3 * LEASE_S)
    assert body.stopped_by == ["CancelledError"]
    assert queue.job(job_id).outcome == "cancelled"


async def test_a_handler_that_finishes_in_spite_of_a_cancel_request_has_done_its_work(
    aqueue: AsyncQueue, queue: Queue, running: Running
) -> None:
    worker = Worker(aqueue)
    begun = asyncio.Event()

    @worker.task("build")
    async def build() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "saved"
        return "never"

    async with running(worker):
        job_id = queue.enqueue("build").job_id
        await begun.wait()
        queue.cancel(job_id)
        await eventually(lambda: queue.job(job_id).status is JobStatus.COMPLETED)
    assert queue.job(job_id).result == "saved"


async def test_a_plain_function_may_ask_whether_to_stop(aqueue: AsyncQueue, queue: Queue, running: Running) -> None:
    worker, body = Worker(aqueue), Body()

    @worker.task("build")
    def build(lease: Lease) -> None:
        body.checks(worker, lease)

    async with running(worker):
        job_id = queue.enqueue("build").job_id
        await eventually(lambda: body.begun)
        queue.cancel(job_id)
        await eventually(lambda: queue.job(job_id).status is JobStatus.CANCELLED)
    assert body.stopped_by == [JobCancelled.__name__]


async def test_a_plain_function_hears_of_a_lost_lease(aqueue: AsyncQueue, queue: Queue, running: Running) -> None:
    worker, body = Worker(aqueue), Body()

    @worker.task("build")
    def build(lease: Lease) -> None:
        body.checks(worker, lease)

    async with running(worker):
        queue.enqueue("build")
        await eventually(lambda: body.begun)
        queue.release(body.leases[0], delay_s=3600)
        await eventually(lambda: body.stopped_by)
    assert body.stopped_by == [StaleLease.__name__]


def test_check_outside_a_handler_has_no_effect(aqueue: AsyncQueue) -> None:
    Worker(aqueue).check()


async def test_a_handler_over_its_time_is_cancelled_with_outcome_timeout(
    aqueue: AsyncQueue, queue: Queue, running: Running
) -> None:
    worker, body = Worker(aqueue), Body()
    worker.task("by_task", timeout_s=0.05)(body.waits)
    worker.task("by_job")(body.waits)
    async with running(worker):
        by_task = queue.enqueue("by_task", max_attempts=1).job_id
        by_job = queue.enqueue("by_job", max_attempts=1, timeout_s=1).job_id
        for job_id in (by_task, by_job):
            await eventually(lambda job_id=job_id: queue.job(job_id).status is JobStatus.DEAD_LETTERED)
    assert queue.job(by_task).attempts[0].outcome == "timeout"
    assert queue.job(by_task).attempts[0].error == {"type": "Timeout", "message": "over its 0.05 s"}
    assert queue.job(by_job).attempts[0].error == {"type": "Timeout", "message": "over its 1 s"}
    assert body.stopped_by == ["CancelledError"] * 2


async def test_a_thread_over_its_time_is_reported_and_keeps_its_slot(
    aqueue: AsyncQueue, queue: Queue, running: Running
) -> None:
    worker, body = Worker(aqueue, concurrency=1), Body()
    worker.task("build", timeout_s=0.05)(body.ignores)

    @worker.task("next")
    async def following() -> bool:
        return body.over.is_set()

    async with running(worker):
        job_id = queue.enqueue("build", max_attempts=1).job_id
        await eventually(lambda: queue.job(job_id).status is JobStatus.DEAD_LETTERED)
        following_id = queue.enqueue("next").job_id
        assert queue.job(following_id).status is JobStatus.QUEUED
        body.go.set()
        await eventually(lambda: queue.job(following_id).status is JobStatus.COMPLETED)
    job = queue.job(job_id)
    assert (job.attempts[0].outcome, job.result) == ("timeout", None)
    assert queue.job(following_id).result is True


async def test_a_coroutine_that_will_not_stop_is_reported_over_its_head(
    aqueue: AsyncQueue, queue: Queue, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridq.worker.run.UNWIND_S", 0.1)
    worker = Worker(aqueue)
    go = asyncio.Event()

    @worker.task("build", timeout_s=0.05)
    async def build() -> str:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        return "too late"

    async with running(worker):
        job_id = queue.enqueue("build", max_attempts=1).job_id
        await eventually(lambda: queue.job(job_id).status is JobStatus.DEAD_LETTERED)
        go.set()
    assert [attempt.outcome for attempt in queue.job(job_id).attempts] == ["timeout"]


async def test_the_first_reason_to_stop_stands_and_the_shortest_time_counts(
    aqueue: AsyncQueue, queue: Queue, running: Running
) -> None:
    """The cancel request leaves the thread an hour; the drain does not, and is no reason to call it released."""
    worker, body = Worker(aqueue), Body()
    worker.task("build")(body.ignores)

    @worker.task("ask")
    def ask(lease: Lease) -> None:
        body.checks(worker, lease)

    async with running(worker) as task:
        ids = [queue.enqueue(type_).job_id for type_ in ("build", "ask")]
        await eventually(lambda: len(body.leases) == 2)
        for job_id in ids:
            queue.cancel(job_id, grace_s=3600)
        await eventually(lambda: body.stopped_by, what="the request has arrived")
        worker.stop(now=True)
        async with asyncio.timeout(5):
            await task
    body.go.set()
    assert [queue.job(job_id).attempts[-1].outcome for job_id in ids] == ["cancelled", "cancelled"]


async def test_a_drain_waits_for_a_report_that_was_made_over_a_thread_s_head(
    aqueue: AsyncQueue, queue: Queue, running: Running, server: ServerProcess
) -> None:
    worker, body = Worker(aqueue, lease_s=60), Body()

    @worker.task("build", timeout_s=0.05)
    def build(lease: Lease) -> None:
        server.pause()
        body.ignores(lease)

    with capture_logs() as logs:
        async with running(worker) as task:
            job_id = queue.enqueue("build", max_attempts=1).job_id
            await eventually(lambda: any(log["event"] == "job.overrun" for log in logs))
            body.go.set()
            await eventually(body.over.is_set)
            worker.stop()
            await eventually(lambda: any(log["event"] == "worker.draining" for log in logs))
            server.resume()
            await task
    assert [log["outcome"] for log in logs if log["event"] == "job.failed"] == ["timeout"]
    assert queue.job(job_id).attempts[0].outcome == "timeout"


async def test_prefetched_jobs_wait_with_their_leases_alive_and_uncharged(
    aqueue: AsyncQueue, queue: Queue, running: Running, redis: redis_py.Redis
) -> None:
    worker, body = Worker(aqueue, concurrency=1, prefetch=2), Body()
    worker.task("build")(body.ignores)
    ids = [queue.enqueue("build").job_id for _ in range(4)]
    async with running(worker):
        await eventually(
            lambda: [queue.job(job_id).status for job_id in ids] == ["RUNNING", "CLAIMED", "CLAIMED", "QUEUED"]
        )
        waiting = [queue.job(job_id) for job_id in ids[1:3]]
        await eventually(
            lambda: all(redis.hget(f"{queue.root}:job:{job.job_id}", "confirmed") for job in waiting),
            what="the heart confirms them",
        )
        ends = [job.lease_expires_at for job in waiting]
        await eventually(
            lambda: all(
                (now := queue.job(job.job_id).lease_expires_at) is not None and end is not None and now > end
                for job, end in zip(waiting, ends, strict=True)
            ),
            what="their leases are renewed",
        )
        assert [job.attempt for job in waiting] == [0, 0]
        body.go.set()
        await eventually(lambda: queue.stats().completed_total == 4)
    assert [lease.job_id for lease in body.leases] == ids


async def test_a_prefetched_job_that_is_cancelled_never_runs(
    aqueue: AsyncQueue, queue: Queue, running: Running
) -> None:
    worker, body = Worker(aqueue, concurrency=1, prefetch=1), Body()
    worker.task("build")(body.ignores)
    first, second = (queue.enqueue("build").job_id for _ in range(2))
    async with running(worker):
        await eventually(lambda: queue.job(second).status is JobStatus.CLAIMED)
        queue.cancel(second)
        await eventually(lambda: queue.job(second).status is JobStatus.CANCELLED)
        body.go.set()
        await eventually(lambda: queue.job(first).status is JobStatus.COMPLETED)
    assert [lease.job_id for lease in body.leases] == [first]


async def test_a_prefetched_job_that_is_lost_never_runs(aqueue: AsyncQueue, queue: Queue, running: Running) -> None:
    claimed: list[Lease] = []
    lost: list[str] = []

    class Heard(NoHooks):
        def claimed(self, details: ClaimDetails) -> None:
            claimed.extend(details.leases)

        def lost(self, details: LossDetails) -> None:
            lost.append(details.lease.job_id)

    body = Body()
    worker = Worker(aqueue, concurrency=1, prefetch=1, hooks=Heard())
    worker.task("build")(body.ignores)
    first, second = (queue.enqueue("build").job_id for _ in range(2))
    async with running(worker):
        await eventually(lambda: len(claimed) == 2)
        queue.release(claimed[1], delay_s=3600)
        await eventually(lambda: lost == [second], what="the worker has heard of it")
        body.go.set()
        await eventually(lambda: queue.job(first).status is JobStatus.COMPLETED)
    assert [lease.job_id for lease in body.leases] == [first]
    assert queue.job(second).status is JobStatus.SCHEDULED


@pytest.mark.parametrize("how", ["cancelled", "lost"])
async def test_a_prefetched_job_whose_news_comes_with_its_start_never_runs(
    aqueue: AsyncQueue, queue: Queue, running: Running, how: str
) -> None:
    """A lease of a minute: the next heartbeat is far away, so that the start is what finds out."""
    claimed: list[Lease] = []

    class Heard(NoHooks):
        def claimed(self, details: ClaimDetails) -> None:
            claimed.extend(details.leases)

    body = Body()
    worker = Worker(aqueue, concurrency=1, prefetch=1, lease_s=60, hooks=Heard())
    worker.task("build")(body.ignores)
    first, second = (queue.enqueue("build").job_id for _ in range(2))
    async with running(worker):
        await eventually(lambda: len(claimed) == 2)
        await eventually(lambda: queue.job(first).status is JobStatus.RUNNING)
        if how == "cancelled":
            queue.cancel(second)
        else:
            queue.release(claimed[1], delay_s=3600)
        body.go.set()
        await eventually(lambda: queue.job(first).status is JobStatus.COMPLETED)
        expected = JobStatus.CANCELLED if how == "cancelled" else JobStatus.SCHEDULED
        await eventually(lambda: queue.job(second).status is expected)
    assert [lease.job_id for lease in body.leases] == [first]
