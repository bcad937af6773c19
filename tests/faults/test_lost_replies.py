"""A reply is lost after the script ran: the same call again gets the first answer, and nothing happens twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hybridq import JobSpec, JobStatus, Lease, OutcomeUnknown
from tests.conformance.colours import COLOURS, opened
from tests.proxy import Proxy


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    with Proxy(redis_url) as proxy:
        yield proxy


@pytest.fixture(params=COLOURS)
def queue(request: pytest.FixtureRequest, proxy: Proxy, namespace: str) -> Iterator[Any]:
    """A queue behind the proxy that has run each verb once, so that every script is known to the server."""
    with opened(request.param, "work", redis=proxy.url, namespace=namespace, agent="ann") as queue:
        queue.enqueue("warm", job_id="warm")
        [lease] = queue.claim()
        queue.complete(queue.start(lease))
        queue.cancel(queue.enqueue("warm").job_id)
        queue.enqueue("warm", job_id="warm-2")
        [lease] = queue.claim()
        queue.heartbeat([lease])
        queue.append_log(lease, 0, "warm\n")
        queue.read_log("warm-2")
        queue.release(lease)
        queue.cancel("warm-2")
        queue.retry("warm-2")
        queue.cancel("warm-2")
        queue.job("warm-2")
        yield queue


def _lose(proxy: Proxy, times: int) -> None:
    proxy.drop_next_reply(b"EVALSHA", times=times)


def _started(queue: Any, job_id: str = "one") -> Lease:
    queue.enqueue("build", job_id=job_id)
    [lease] = queue.claim(start=True)
    return lease


def test_an_enqueue_whose_reply_was_lost_is_answered_as_the_first_time(proxy: Proxy, queue: Any) -> None:
    """The library repeats it by itself: one job, and it says created."""
    before = queue.stats().enqueued_total
    _lose(proxy, 1)

    answer = queue.enqueue("build", {"n": 1})

    assert answer.created
    assert before + 1 == queue.stats().enqueued_total


def test_a_caller_that_was_told_unknown_enqueues_again_and_gets_one_job(proxy: Proxy, queue: Any) -> None:
    """Both sendings lost: the outcome is unknown, the same id settles it."""
    before = queue.stats().enqueued_total
    _lose(proxy, 2)

    with pytest.raises(OutcomeUnknown, match="enqueue"):
        queue.enqueue("build", {"n": 1}, job_id="mine")

    again = queue.enqueue("build", {"n": 1}, job_id="mine")
    assert (False, JobStatus.QUEUED) == (again.created, again.status)
    assert before + 1 == queue.stats().enqueued_total


@pytest.mark.parametrize("lost", [1, 2])
def test_a_claim_whose_reply_was_lost_gets_the_same_lease(proxy: Proxy, queue: Any, lost: int) -> None:
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
def test_a_completion_whose_reply_was_lost_counts_once(proxy: Proxy, queue: Any, lost: int) -> None:
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


def test_a_completion_is_answered_after_its_job_was_retried_and_claimed_by_another(proxy: Proxy, queue: Any) -> None:
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


def _beat(queue: Any, lease: Lease) -> Any:
    return queue.heartbeat([lease]).renewed


def _cancel(queue: Any, lease: Lease) -> Any:
    return queue.cancel(lease.job_id).requested


def _start(queue: Any, lease: Lease) -> Any:
    return queue.start(lease).attempt


def _say(queue: Any, lease: Lease) -> Any:
    return queue.append_log(lease, 0, "once\n"), queue.read_log(lease.job_id).data


@pytest.mark.parametrize("lost", [1, 2])
@pytest.mark.parametrize("verb", [_beat, _cancel, _start, _say])
def test_other_verbs_of_a_lease_can_be_repeated(
    proxy: Proxy, queue: Any, verb: Callable[[Any, Lease], Any], lost: int
) -> None:
    """Whichever sending is answered, the library's or the caller's own, makes no difference."""
    queue.enqueue("build", job_id="one")
    [lease] = queue.claim()
    _lose(proxy, lost)

    if lost == 2:
        with pytest.raises(OutcomeUnknown):
            verb(queue, lease)
    first = verb(queue, lease)

    assert first
    assert first == verb(queue, lease)
    assert queue.job("one").attempt <= 1


def test_what_cannot_be_repeated_is_told_as_unknown_at_once(proxy: Proxy, queue: Any) -> None:
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


def test_a_replay_of_dead_letters_whose_reply_was_lost_is_unknown(proxy: Proxy, queue: Any) -> None:
    """Asked again it says that they are dead no longer, and nothing is given a second new life."""
    queue.enqueue("build", job_id="one", max_attempts=1)
    queue.fail(queue.claim(start=True)[0])
    _lose(proxy, 1)

    with pytest.raises(OutcomeUnknown, match="replay"):
        queue.dead.replay(["one"])

    assert {"one": "not_dead_lettered"} == queue.dead.replay(["one"]).skipped
    assert 1 == queue.job("one").generation


def test_a_batch_whose_reply_was_lost_is_answered_entry_by_entry(proxy: Proxy, queue: Any) -> None:
    before = queue.stats().enqueued_total
    _lose(proxy, 1)

    answers = queue.enqueue_many(JobSpec(job_id=f"j{n}", payload=n) for n in range(30))

    assert [f"j{n}" for n in range(30)] == [answer.job_id for answer in answers]
    assert before + 30 == queue.stats().enqueued_total


def test_a_finish_that_claims_the_next_brings_it_once_though_both_replies_were_lost(proxy: Proxy, queue: Any) -> None:
    lease = _started(queue)
    queue.enqueue_many(JobSpec(job_id=f"j{n}") for n in range(3))
    _lose(proxy, 1)

    finished = queue.complete(lease, claim_next=1)

    assert (JobStatus.COMPLETED, ["j0"]) == (finished.status, [one.job_id for one in finished.next])
    stats = queue.stats()
    assert (2, 1) == (stats.queued, stats.claimed + stats.running), "no second job was leased"


def test_a_reply_cut_at_any_byte_never_becomes_a_wrong_answer(proxy: Proxy, queue: Any) -> None:
    """The reply of an enqueue is a few dozen bytes; each is once the last to arrive."""
    for at in range(45):
        job_id = f"cut-{at}"
        proxy.cut_reply_after(at, b"EVALSHA")

        answer = queue.enqueue("build", {"at": at}, job_id=job_id)

        assert (job_id, JobStatus.QUEUED) == (answer.job_id, answer.status)
        proxy.heal()
    assert 45 == queue.stats().queued


def test_a_claim_cut_at_any_byte_brings_one_whole_lease(proxy: Proxy, queue: Any) -> None:
    """The payload tells whether a lease was put together from the right bytes."""
    for at in range(0, 400, 7):
        queue.enqueue("build", [at] * 5, job_id=f"cut-{at}")
        proxy.cut_reply_after(at, b"EVALSHA")

        [lease] = queue.claim(start=True)

        assert (f"cut-{at}", [at] * 5, "ann") == (lease.job_id, lease.decode(), lease.agent)
        proxy.heal()
        queue.complete(lease)
    assert 0 == queue.stats().running


def test_a_read_cut_at_any_byte_is_read_again(proxy: Proxy, queue: Any) -> None:
    queue.enqueue("build", "payload", job_id="one", tags={"team": "a"})
    whole = queue.job("one")
    for at in range(0, 300, 7):
        proxy.cut_reply_after(at, b"EVALSHA")
        assert whole == queue.job("one")
        proxy.heal()
