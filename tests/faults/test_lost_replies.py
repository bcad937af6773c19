"""A reply is lost after the script ran: the same call again gets the first answer, and nothing happens twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hybridq import JobStatus, Lease, OutcomeUnknown, Queue
from tests.proxy import Proxy


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    with Proxy(redis_url) as proxy:
        yield proxy


@pytest.fixture
def queue(proxy: Proxy, namespace: str) -> Iterator[Queue]:
    """A queue behind the proxy that has run each verb once, so that every script is known to the server."""
    with Queue("work", redis=proxy.url, namespace=namespace, agent="ann") as queue:
        queue.enqueue("warm", job_id="warm")
        [lease] = queue.claim()
        queue.complete(queue.start(lease))
        queue.cancel(queue.enqueue("warm").job_id)
        queue.enqueue("warm", job_id="warm-2")
        [lease] = queue.claim()
        queue.heartbeat([lease])
        queue.release(lease)
        queue.cancel("warm-2")
        queue.retry("warm-2")
        queue.cancel("warm-2")
        yield queue


def _lose(proxy: Proxy, times: int) -> None:
    proxy.drop_next_reply(b"EVALSHA", times=times)


def _started(queue: Queue, job_id: str = "one") -> Lease:
    queue.enqueue("build", job_id=job_id)
    [lease] = queue.claim(start=True)
    return lease


def test_an_enqueue_whose_reply_was_lost_is_answered_as_the_first_time(proxy: Proxy, queue: Queue) -> None:
    """The library repeats it by itself: one job, and it says created."""
    before = queue.stats().enqueued_total
    _lose(proxy, 1)

    answer = queue.enqueue("build", {"n": 1})

    assert answer.created
    assert before + 1 == queue.stats().enqueued_total


def test_a_caller_that_was_told_unknown_enqueues_again_and_gets_one_job(proxy: Proxy, queue: Queue) -> None:
    """Both sendings lost: the outcome is unknown, the same id settles it."""
    before = queue.stats().enqueued_total
    _lose(proxy, 2)

    with pytest.raises(OutcomeUnknown, match="enqueue"):
        queue.enqueue("build", {"n": 1}, job_id="mine")

    again = queue.enqueue("build", {"n": 1}, job_id="mine")
    assert (False, JobStatus.QUEUED) == (again.created, again.status)
    assert before + 1 == queue.stats().enqueued_total


@pytest.mark.parametrize("lost", [1, 2])
def test_a_claim_whose_reply_was_lost_gets_the_same_lease(proxy: Proxy, queue: Queue, lost: int) -> None:
    """By the library's own repeat, or by the caller's with the same request id: one lease, nobody else has one."""
    queue.enqueue("build", job_id="one")
    queue.enqueue("build", job_id="two")
    _lose(proxy, lost)

    if lost == 2:
        with pytest.raises(OutcomeUnknown, match="claim"):
            queue.claim(request_id="r-1")
    [lease] = queue.claim(request_id="r-1")

    assert "one" == lease.job_id
    assert [lease] == queue.claim(request_id="r-1")
    assert 1 == queue.stats().claimed
    assert 1 == queue.job("one").deliveries


@pytest.mark.parametrize("lost", [1, 2])
def test_a_completion_whose_reply_was_lost_counts_once(proxy: Proxy, queue: Queue, lost: int) -> None:
    """And is answered as replayed."""
    lease = _started(queue)
    before = queue.stats().completed_total
    _lose(proxy, lost)

    if lost == 2:
        with pytest.raises(OutcomeUnknown, match="complete"):
            queue.complete(lease, {"ok": True})
    finished = queue.complete(lease, {"ok": True})

    assert (JobStatus.COMPLETED, True) == (finished.status, finished.replayed)
    assert before + 1 == queue.stats().completed_total
    assert {"ok": True} == queue.job("one").result


def test_a_completion_is_answered_after_its_job_was_retried_and_claimed_by_another(proxy: Proxy, queue: Queue) -> None:
    """The lost reply belongs to a run that is history by now; its holder still gets the first answer."""
    lease = _started(queue)
    _lose(proxy, 2)
    with pytest.raises(OutcomeUnknown):
        queue.fail(lease, "broken", delay_s=0)
    [other] = queue.claim(agent="bob", start=True)
    assert other.job_id == lease.job_id and other.fence > lease.fence

    answer = queue.fail(lease, "broken", delay_s=0)

    assert (JobStatus.QUEUED, True) == (answer.status, answer.replayed)
    assert JobStatus.RUNNING == queue.job("one").status
    assert JobStatus.COMPLETED == queue.complete(other).status


def _beat(queue: Queue, lease: Lease) -> Any:
    return queue.heartbeat([lease]).renewed


def _cancel(queue: Queue, lease: Lease) -> Any:
    return queue.cancel(lease.job_id).requested


def _start(queue: Queue, lease: Lease) -> Any:
    return queue.start(lease).attempt


@pytest.mark.parametrize("verb", [_beat, _cancel, _start])
def test_other_verbs_of_a_lease_can_be_repeated(
    proxy: Proxy, queue: Queue, verb: Callable[[Queue, Lease], Any]
) -> None:
    """Whether the first sending or the second is answered makes no difference."""
    queue.enqueue("build", job_id="one")
    [lease] = queue.claim()
    _lose(proxy, 1)

    first = verb(queue, lease)

    assert first
    assert first == verb(queue, lease)
    assert queue.job("one").attempt <= 1


def test_what_cannot_be_repeated_is_told_as_unknown_at_once(proxy: Proxy, queue: Queue) -> None:
    """A second release would be refused as stale, a second retry would begin another life: the caller decides."""
    lease = _started(queue)
    _lose(proxy, 1)
    with pytest.raises(OutcomeUnknown, match="release"):
        queue.release(lease)
    assert JobStatus.QUEUED == queue.job("one").status

    queue.cancel("one")
    _lose(proxy, 1)
    with pytest.raises(OutcomeUnknown, match="replay"):
        queue.retry("one")
    assert 1 == queue.job("one").generation


def test_a_reply_cut_at_any_byte_never_becomes_a_wrong_answer(proxy: Proxy, queue: Queue) -> None:
    """The reply of an enqueue is a few dozen bytes; each is once the last to arrive."""
    for at in range(45):
        job_id = f"cut-{at}"
        proxy.cut_reply_after(at, b"EVALSHA")

        answer = queue.enqueue("build", {"at": at}, job_id=job_id)

        assert (job_id, JobStatus.QUEUED) == (answer.job_id, answer.status)
        proxy.heal()
    assert 45 == queue.stats().queued
