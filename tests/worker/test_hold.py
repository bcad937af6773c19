"""`with queue.hold() as lease:` does one job, and reports how the block ended."""

from __future__ import annotations

import threading

import pytest

from hybridq import (
    Job,
    JobCancelled,
    JobStatus,
    Queue,
    RedisUnavailable,
    Reject,
    Retry,
    StaleLease,
)
from tests.proxy import Proxy
from tests.servers import ServerProcess, wait_until
from tests.worker.conftest import LEASE_S


@pytest.fixture
def job_id(queue: Queue) -> str:
    return queue.enqueue("build", {"ref": "main"}).job_id


def last_error(job: Job) -> dict[str, str]:
    error: dict[str, str] = job.attempts[-1].error
    return error


def test_a_clean_exit_completes_the_job_with_the_result(queue: Queue, job_id: str) -> None:
    with (hold := queue.hold()) as lease:
        assert lease is not None
        assert (lease.job_id, lease.decode()) == (job_id, {"ref": "main"})
        assert queue.job(job_id).status is JobStatus.RUNNING
        hold.result = {"artifact": "a.tar"}
    job = queue.job(job_id)
    assert (job.status, job.result) == (JobStatus.COMPLETED, {"artifact": "a.tar"})


def test_nothing_to_do_is_none(queue: Queue) -> None:
    with (hold := queue.hold(wait_s=0.05)) as lease:
        assert lease is None
        hold.check()


def test_a_hold_can_be_used_again_and_forgets_the_last_result(queue: Queue) -> None:
    ids = [queue.enqueue("build").job_id for _ in range(2)]
    hold = queue.hold()
    with hold:
        hold.result = 1
    with hold:
        pass
    assert [queue.job(job_id).result for job_id in ids] == [1, None]


def test_an_exception_fails_the_job_and_goes_on(queue: Queue, job_id: str) -> None:
    with pytest.raises(ZeroDivisionError), queue.hold():
        print(1 // 0)
    job = queue.job(job_id)
    assert (job.status, job.attempts[-1].outcome) == (JobStatus.SCHEDULED, "failed")
    error = last_error(job)
    assert error["type"] == "ZeroDivisionError"
    assert "1 // 0" in error["traceback"]


def test_retry_sets_the_delay(queue: Queue, job_id: str) -> None:
    with pytest.raises(Retry), queue.hold():
        raise Retry(delay_s=0, reason="not yet")
    job = queue.job(job_id)
    assert (job.status, job.attempt) == (JobStatus.QUEUED, 1)
    assert last_error(job) == {"type": "Retry", "message": "not yet"}


def test_reject_makes_it_the_last_attempt(queue: Queue, job_id: str) -> None:
    with pytest.raises(Reject), queue.hold():
        raise Reject("no such commit")
    job = queue.job(job_id)
    assert (job.status, job.outcome) == (JobStatus.FAILED, "rejected")
    assert last_error(job)["message"] == "no such commit"


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_hands_the_job_back(queue: Queue, job_id: str, signal: type[BaseException]) -> None:
    with pytest.raises(signal), queue.hold():
        raise signal
    job = queue.job(job_id)
    assert (job.status, job.attempt) == (JobStatus.QUEUED, 0)


def test_a_block_longer_than_its_lease_keeps_it(queue: Queue, job_id: str) -> None:
    with queue.hold() as lease:
        assert lease is not None
        first_end = queue.job(job_id).lease_expires_at
        assert first_end is not None
        wait_until(
            lambda: (
                (end := queue.job(job_id).lease_expires_at) is not None
                and (end - first_end).total_seconds() > 2 * LEASE_S
            ),
            10,
            what="the lease is renewed for seconds",
        )
    assert queue.job(job_id).status is JobStatus.COMPLETED


def test_a_lost_lease_is_told_between_steps_and_nothing_is_reported(queue: Queue, job_id: str) -> None:
    with pytest.raises(StaleLease), (hold := queue.hold()) as lease:
        assert lease is not None
        hold.check()
        queue.release(lease)
        assert hold.lost.wait(5)
        hold.check()
    assert queue.job(job_id).status is JobStatus.QUEUED
    assert queue.job(job_id).attempts == ()


def test_a_clean_exit_after_the_loss_raises(queue: Queue, job_id: str) -> None:
    with pytest.raises(StaleLease), queue.hold() as lease:
        assert lease is not None
        queue.release(lease)
    assert queue.job(job_id).status is JobStatus.QUEUED


def test_an_exception_after_the_loss_is_not_hidden_by_it(queue: Queue, job_id: str) -> None:
    with pytest.raises(ZeroDivisionError), queue.hold() as lease:
        assert lease is not None
        queue.release(lease)
        print(1 // 0)
    assert queue.job(job_id).attempts == ()


def test_a_cancel_request_is_told_between_steps(queue: Queue, job_id: str) -> None:
    with pytest.raises(JobCancelled), (hold := queue.hold()):
        queue.cancel(job_id)
        assert hold.cancel_requested.wait(5)
        hold.check()
    job = queue.job(job_id)
    assert (job.status, job.outcome) == (JobStatus.CANCELLED, "cancelled")


def test_work_that_is_done_in_spite_of_a_cancel_request_counts(queue: Queue, job_id: str) -> None:
    with (hold := queue.hold()):
        queue.cancel(job_id)
        assert hold.cancel_requested.wait(5)
    assert queue.job(job_id).status is JobStatus.COMPLETED


def test_a_lost_answer_to_the_report_is_asked_for_again(
    redis_url: str, namespace: str, queue: Queue, job_id: str
) -> None:
    with Proxy(redis_url) as proxy, Queue("work", redis=proxy.url, namespace=namespace, lease_s=LEASE_S) as far:
        with far.hold() as lease:
            assert lease is not None
            dropped = proxy.drop_next_reply(containing=lease.lease_id.encode())
        assert dropped.is_set()
    assert [attempt.outcome for attempt in queue.job(job_id).attempts] == ["success"]


def test_a_server_that_is_gone_at_the_end_is_tried_until_the_lease_is_over(
    durable_server: ServerProcess, namespace: str
) -> None:
    with Queue("work", redis=durable_server.url, namespace=namespace, lease_s=LEASE_S) as queue:
        job_id = queue.enqueue("build").job_id
        with pytest.raises(RedisUnavailable), queue.hold():
            durable_server.kill()
        durable_server.start()
        assert queue.job(job_id).status is JobStatus.RUNNING


def test_a_server_that_comes_back_before_the_lease_is_over_gets_the_report(
    durable_server: ServerProcess, namespace: str
) -> None:
    with Queue("work", redis=durable_server.url, namespace=namespace, lease_s=10) as queue:
        job_id = queue.enqueue("build").job_id
        inside, leave = threading.Event(), threading.Event()

        def work() -> None:
            with queue.hold():
                inside.set()
                leave.wait(10)

        holder = threading.Thread(target=work)
        holder.start()
        assert inside.wait(10)
        durable_server.kill()
        leave.set()
        durable_server.start()
        holder.join(10)
        assert queue.job(job_id).status is JobStatus.COMPLETED
