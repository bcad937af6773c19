"""`async with queue.hold() as lease:` stops its block when the lease is lost or the job is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from hybridq import AsyncQueue, JobCancelled, JobStatus, Queue, RedisUnavailable, Retry, StaleLease
from tests.servers import ServerProcess, wait_until
from tests.worker.conftest import LEASE_S, eventually


@pytest.fixture
def job_id(queue: Queue) -> str:
    return queue.enqueue("build", {"ref": "main"}).job_id


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_clean_exit_completes_the_job_with_the_result(aqueue: AsyncQueue, job_id: str) -> None:
    async with (hold := aqueue.hold()) as lease:
        assert lease is not None and lease.decode() == {"ref": "main"}
        hold.check()
        hold.result = [1, 2]
    job = await aqueue.job(job_id)
    assert (job.status, job.result) == (JobStatus.COMPLETED, [1, 2])


async def test_nothing_to_do_is_none(aqueue: AsyncQueue) -> None:
    async with aqueue.hold(wait_s=0.05) as lease:
        assert lease is None


async def test_an_exception_fails_the_job_and_goes_on(aqueue: AsyncQueue, job_id: str) -> None:
    with pytest.raises(Retry):
        async with aqueue.hold():
            raise Retry(delay_s=0)
    job = await aqueue.job(job_id)
    assert (job.status, job.attempts[-1].outcome) == (JobStatus.QUEUED, "failed")


async def test_losing_the_lease_cancels_the_block(aqueue: AsyncQueue, queue: Queue, job_id: str) -> None:
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(StaleLease):
        async with asyncio.timeout(5), aqueue.hold() as lease:
            assert lease is not None
            queue.release(lease)
            await forever()
    assert task.cancelling() == 0
    assert queue.job(job_id).attempts == ()


async def test_a_lease_that_cannot_be_renewed_cancels_the_block_in_time(
    aqueue: AsyncQueue, job_id: str, server: ServerProcess
) -> None:
    began = asyncio.get_running_loop().time()
    with pytest.raises(StaleLease):
        async with asyncio.timeout(5), aqueue.hold(lease_s=2):
            server.pause()
            await forever()
    server.resume()
    assert asyncio.get_running_loop().time() - began < 2


async def test_a_block_that_handles_the_loss_itself_ends_as_it_likes(
    aqueue: AsyncQueue, queue: Queue, job_id: str
) -> None:
    async with asyncio.timeout(5):
        async with (hold := aqueue.hold()) as lease:
            assert lease is not None
            queue.release(lease)
            with pytest.raises(asyncio.CancelledError):
                await forever()
            with pytest.raises(StaleLease):
                hold.check()
    assert queue.job(job_id).status is JobStatus.QUEUED


async def test_a_block_that_ends_before_it_hears_of_the_loss_is_told_by_the_queue(
    aqueue: AsyncQueue, queue: Queue, job_id: str
) -> None:
    with pytest.raises(StaleLease):
        async with aqueue.hold() as lease:
            assert lease is not None
            queue.release(lease)


async def test_a_cancel_request_cancels_the_block_and_the_job(aqueue: AsyncQueue, queue: Queue, job_id: str) -> None:
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(JobCancelled):
        async with asyncio.timeout(5), aqueue.hold():
            queue.cancel(job_id)
            await forever()
    assert task.cancelling() == 0
    job = queue.job(job_id)
    assert (job.status, job.outcome) == (JobStatus.CANCELLED, "cancelled")


async def test_a_block_may_clean_up_after_a_cancel_request(aqueue: AsyncQueue, queue: Queue, job_id: str) -> None:
    async with asyncio.timeout(5), aqueue.hold():
        queue.cancel(job_id)
        with pytest.raises(asyncio.CancelledError):
            await forever()
        await asyncio.sleep(0)
    assert queue.job(job_id).status is JobStatus.CANCELLED


async def test_a_cancellation_from_elsewhere_hands_the_job_back(aqueue: AsyncQueue, queue: Queue, job_id: str) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with aqueue.hold():
            inside.set()
            await forever()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    job = queue.job(job_id)
    assert (job.status, job.attempt) == (JobStatus.QUEUED, 0)


async def test_a_cancellation_from_elsewhere_is_not_taken_for_a_loss(
    aqueue: AsyncQueue, queue: Queue, job_id: str
) -> None:
    """Both come: the loss must not turn the cancellation of the caller's task into an error of its own."""
    inside = asyncio.Event()

    async def work() -> None:
        async with aqueue.hold() as lease:
            assert lease is not None
            queue.release(lease)
            try:
                await forever()
            finally:
                inside.set()
                await asyncio.sleep(0)

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_block_that_blocks_the_loop_longer_than_its_lease_keeps_it(
    aqueue: AsyncQueue, queue: Queue, job_id: str
) -> None:
    def renewed_for_s() -> float:
        end = queue.job(job_id).lease_expires_at
        assert end is not None and first_end is not None
        return (end - first_end).total_seconds()

    async with aqueue.hold():
        first_end = queue.job(job_id).lease_expires_at
        wait_until(lambda: renewed_for_s() > 2 * LEASE_S, 10, what="the lease is renewed beside the blocked loop")
    assert queue.job(job_id).status is JobStatus.COMPLETED


async def test_check_tells_what_the_cancellation_was_about(aqueue: AsyncQueue, queue: Queue, job_id: str) -> None:
    with pytest.raises(JobCancelled):
        async with asyncio.timeout(5), (hold := aqueue.hold()):
            queue.cancel(job_id)
            try:
                await forever()
            except asyncio.CancelledError:
                hold.check()
    assert queue.job(job_id).status is JobStatus.CANCELLED


async def test_an_exception_after_the_loss_is_not_hidden_by_it(aqueue: AsyncQueue, queue: Queue, job_id: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with aqueue.hold() as lease:
            assert lease is not None
            queue.release(lease)
            print(1 // 0)
    assert queue.job(job_id).attempts == ()


async def test_a_server_that_is_gone_at_the_end_is_tried_until_the_lease_is_over(
    durable_server: ServerProcess, namespace: str
) -> None:
    async with AsyncQueue("work", redis=durable_server.url, namespace=namespace, lease_s=LEASE_S) as queue:
        job_id = (await queue.enqueue("build")).job_id
        with pytest.raises(RedisUnavailable):
            async with queue.hold():
                durable_server.kill()
        durable_server.start()
        assert (await queue.job(job_id)).status is JobStatus.RUNNING


async def test_two_holds_run_side_by_side(aqueue: AsyncQueue, queue: Queue) -> None:
    ids = [queue.enqueue("build").job_id for _ in range(2)]
    both = asyncio.Barrier(2)

    async def work() -> None:
        async with aqueue.hold():
            await both.wait()

    await asyncio.gather(work(), work())
    await eventually(lambda: all(queue.job(job_id).status is JobStatus.COMPLETED for job_id in ids))


async def test_a_server_that_comes_back_before_the_lease_is_over_gets_the_report(
    durable_server: ServerProcess, namespace: str
) -> None:
    async with AsyncQueue("work", redis=durable_server.url, namespace=namespace, lease_s=10) as queue:
        job_id = (await queue.enqueue("build")).job_id
        async with queue.hold():
            durable_server.kill()
            back = asyncio.create_task(asyncio.to_thread(durable_server.start))
        await back
        assert (await queue.job(job_id)).status is JobStatus.COMPLETED
