"""Every public method does its work, in both colours and on every server."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest

from hybridq import (
    AlreadyTerminal,
    Backoff,
    IllegalTransition,
    JobCancelled,
    JobConflict,
    JobNotFound,
    JobSpec,
    JobStatus,
    Lease,
    NotLeaseHolder,
    NotTerminal,
    Outcome,
    OutcomeConflict,
    Priority,
    QueueFull,
    Reject,
    StaleLease,
    UniqueTaken,
)
from tests.conformance.colours import hold_one, set_time
from tests.conformance.conftest import Open

NOW_MS = 1_800_000_000_000


def claim_one(queue: Any, **named: Any) -> Lease:
    [lease] = queue.claim(**named)
    return lease


def dead_letter(queue: Any, job_id: str, **named: Any) -> None:
    """Enqueue a job and use its only attempt up."""
    queue.enqueue("t", job_id=job_id, max_attempts=1, **named)
    queue.fail(claim_one(queue, start=True), "why")


def test_enqueue_says_where_the_job_is(queue: Any) -> None:
    now = queue.enqueue("t", {"n": 1})
    later = queue.enqueue("t", delay_s=60)
    at = queue.enqueue("t", run_at=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
    past = queue.enqueue("t", run_at=dt.datetime(2001, 1, 1, tzinfo=dt.UTC))

    assert [JobStatus.QUEUED, JobStatus.SCHEDULED, JobStatus.SCHEDULED, JobStatus.QUEUED] == [
        one.status for one in (now, later, at, past)
    ]
    assert all(one.created and not one.unique for one in (now, later, at, past))


def test_enqueue_with_an_id_can_be_repeated_and_not_be_changed(queue: Any) -> None:
    assert queue.enqueue("t", 1, job_id="j", trace_id="a").created
    assert not queue.enqueue("t", 1, job_id="j", trace_id="b").created
    for change in ({"payload": 2}, {"priority": "HIGH"}, {"tags": {"a": "b"}}, {"max_attempts": 4}):
        with pytest.raises(JobConflict):
            queue.enqueue(**{"type": "t", "payload": 1, "job_id": "j"} | change)


def test_a_unique_key_is_held_until_its_job_ends(queue: Any) -> None:
    first = queue.enqueue("t", 1, unique="site")
    second = queue.enqueue("t", 2, unique="site")

    assert (first.job_id, False, True) == (second.job_id, second.created, second.unique)
    with pytest.raises(UniqueTaken) as taken:
        queue.enqueue("t", 2, unique="site", on_conflict="reject")
    assert first.job_id == taken.value.existing_job_id
    queue.cancel(first.job_id)
    assert queue.enqueue("t", 2, unique="site").created


def test_enqueue_many_answers_for_each(queue: Any) -> None:
    queue.enqueue("t", 1, job_id="b")

    a, b, c = queue.enqueue_many(JobSpec(type="t", payload=2, job_id=job_id) for job_id in "abc")

    assert ("a", "c") == (a.job_id, c.job_id)
    assert isinstance(b, JobConflict), "its own answer; the others went on"
    assert [] == queue.enqueue_many([])
    assert ["b", "a", "c"] == [lease.job_id for lease in queue.claim(3)]


def test_claim_gives_up_to_n_and_nothing_when_there_is_nothing(queue: Any) -> None:
    queue.enqueue_many(JobSpec(type="t", payload=n) for n in range(3))

    first, rest = queue.claim(2), queue.claim(2)

    assert [0, 1, 2] == [lease.decode(int) for lease in first + rest]
    assert [] == queue.claim() == queue.claim(wait_s=0.05)
    assert {("ann", JobStatus.CLAIMED, 1, 30.0)} == {
        (lease.agent, lease.status, lease.attempt, lease.lease_s) for lease in first
    }


def test_claim_can_start_at_once_for_another_agent_and_another_time(queue: Any) -> None:
    queue.enqueue("t")
    lease = claim_one(queue, start=True, agent="bob", lease_s=5)

    assert ("bob", JobStatus.RUNNING, 5.0) == (lease.agent, lease.status, lease.lease_s)
    job = queue.job(lease.job_id)
    assert (job.status, job.agent, job.attempt, job.fence) == (JobStatus.RUNNING, "bob", 1, lease.fence)


def test_a_claim_repeated_by_its_request_id_brings_the_same_leases(queue: Any) -> None:
    queue.enqueue_many(JobSpec() for _ in range(4))

    first = queue.claim(2, request_id="r")

    assert first == queue.claim(2, request_id="r") == queue.claim(2, request_id="r", wait_s=1)
    assert 2 == len(queue.claim(9, request_id="other"))


def test_what_is_not_said_to_be_held_goes_back(queue: Any) -> None:
    set_time(queue, NOW_MS)
    queue.enqueue_many(JobSpec() for _ in range(3))
    known, unheard, _ = queue.claim(3, lease_s=60)
    queue.heartbeat([known])
    set_time(queue, NOW_MS + 4000)

    [again] = queue.claim(1, holding=[])

    assert unheard.job_id == again.job_id
    assert queue.job(known.job_id).fence == known.fence


def test_start_charges_the_attempt_once(queue: Any) -> None:
    job_id = queue.enqueue("t").job_id
    lease = claim_one(queue)
    assert 0 == queue.job(job_id).attempt

    running = queue.start(lease)

    assert running == queue.start(lease)
    assert (running.status, running.attempt, queue.job(job_id).attempt) == (JobStatus.RUNNING, 1, 1)


def test_a_job_cancelled_meanwhile_does_not_start(queue: Any) -> None:
    job_id = queue.enqueue("t").job_id
    lease = claim_one(queue)
    assert queue.cancel(job_id).requested

    with pytest.raises(JobCancelled):
        queue.start(lease)
    assert JobStatus.CANCELLED == queue.job(job_id).status


def test_heartbeat_tells_what_is_renewed_lost_and_to_be_cancelled(queue: Any) -> None:
    ids = [queue.enqueue("t").job_id for _ in range(4)]
    held = queue.claim(4)
    queue.release(held[1])
    queue.cancel(ids[2], mode="kill", grace_s=2.5)
    stranger = msgspec.structs.replace(held[3], agent="bob")

    beat = queue.heartbeat([held[0], held[1], held[2], stranger])

    assert (ids[0], ids[2]) == beat.renewed
    assert {ids[1]: "stale_lease", ids[3]: "not_lease_holder"} == beat.lost
    assert [(ids[2], "kill", 2.5)] == [(one.job_id, one.mode, one.grace_s) for one in beat.cancel]
    assert not queue.heartbeat([]).renewed


def test_heartbeats_carry_a_lease_past_its_first_end(queue: Any) -> None:
    set_time(queue, NOW_MS)
    queue.enqueue("t")
    lease = claim_one(queue, lease_s=10)
    for n in range(1, 10):
        set_time(queue, NOW_MS + n * 4000)
        assert (lease.job_id,) == queue.heartbeat([lease]).renewed
    assert [] == queue.claim(agent="bob")


def test_complete_keeps_the_result_and_can_be_repeated(queue: Any) -> None:
    job_id = queue.enqueue("t").job_id
    lease = queue.start(claim_one(queue))

    first, again = queue.complete(lease, {"size": 3}, exit_code=0), queue.complete(lease, {"size": 3})

    assert (JobStatus.COMPLETED, False, True) == (first.status, first.replayed, again.replayed)
    job = queue.job(job_id)
    assert ({"size": 3}, 0, "success") == (job.result, job.exit_code, job.outcome)
    with pytest.raises(OutcomeConflict):
        queue.fail(lease)


def test_complete_can_bring_the_next_jobs(queue: Any) -> None:
    queue.enqueue_many(JobSpec(type="t", payload=n) for n in range(4))
    lease = claim_one(queue, start=True, agent="bob", lease_s=7)

    finished = queue.complete(lease, claim_next=2)
    last = queue.fail(finished.next[0], claim_next=5, retryable=False)

    assert [1, 2] == [one.decode() for one in finished.next]
    assert {("bob", JobStatus.RUNNING, 7.0)} == {(one.agent, one.status, one.lease_s) for one in finished.next}
    assert [3] == [one.decode() for one in last.next]
    assert () == queue.complete(last.next[0], claim_next=1).next


def test_what_is_not_started_cannot_be_completed(queue: Any) -> None:
    queue.enqueue("t")
    with pytest.raises(IllegalTransition):
        queue.complete(claim_one(queue))


def test_fail_retries_until_the_attempts_are_used_up(queue: Any) -> None:
    job_id = queue.enqueue("t", max_attempts=2, retry=Backoff(base_s=0, max_s=0)).job_id

    first = queue.fail(claim_one(queue, start=True), {"message": "one"})
    last = queue.fail(claim_one(queue, start=True), {"message": "two"})

    assert (first.retried, last.retried, last.status) == (True, False, JobStatus.DEAD_LETTERED)
    job = queue.job(job_id)
    assert [{"message": "one"}, {"message": "two"}] == [attempt.error for attempt in job.attempts]
    assert "max_attempts" == job.dead_reason


def test_a_retry_waits_as_long_as_it_was_told(queue: Any) -> None:
    set_time(queue, NOW_MS)
    queue.enqueue("t")
    finished = queue.fail(claim_one(queue, start=True), delay_s=12)
    assert (JobStatus.SCHEDULED, 12.0) == (finished.status, finished.retry_in_s)

    set_time(queue, NOW_MS + 11_999)
    assert [] == queue.claim()
    set_time(queue, NOW_MS + 12_000)
    queue.upkeep()
    assert 2 == claim_one(queue).attempt


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"retryable": False}, JobStatus.FAILED),
        ({"outcome": Outcome.REJECTED}, JobStatus.FAILED),
        ({"outcome": "cancelled"}, JobStatus.CANCELLED),
        ({"outcome": "timeout", "delay_s": 1}, JobStatus.SCHEDULED),
        ({"outcome": "infra_error", "delay_s": 0}, JobStatus.QUEUED),
    ],
)
def test_how_a_run_ended_decides_what_becomes_of_the_job(queue: Any, said: dict[str, Any], status: JobStatus) -> None:
    queue.enqueue("t")
    assert status == queue.fail(claim_one(queue, start=True), **said).status


def test_release_gives_the_attempt_and_the_place_back(queue: Any) -> None:
    first = queue.enqueue("t").job_id
    queue.enqueue("t")

    released = queue.release(claim_one(queue, start=True, agent="bob"))

    assert JobStatus.QUEUED == released.status
    lease = claim_one(queue)
    assert (first, 1, 2) == (lease.job_id, lease.attempt, lease.deliveries)
    assert (JobStatus.SCHEDULED, 9.0) == (
        (later := queue.release(lease, delay_s=9)).status,
        later.retry_in_s,
    )


def test_an_older_lease_changes_nothing(queue: Any) -> None:
    job_id = queue.enqueue("t").job_id
    old = claim_one(queue, start=True, agent="bob")
    queue.release(old)
    new = claim_one(queue, start=True)

    for call in (queue.start, queue.complete, queue.fail, queue.release):
        with pytest.raises(StaleLease):
            call(old)
    assert (new.fence, JobStatus.RUNNING) == (queue.job(job_id).fence, queue.job(job_id).status)
    assert old.fence < new.fence


def test_only_its_holder_may_use_a_lease(queue: Any) -> None:
    queue.enqueue("t")
    stolen = msgspec.structs.replace(claim_one(queue), agent="bob")

    for call in (queue.start, queue.complete, queue.fail, queue.release):
        with pytest.raises(NotLeaseHolder):
            call(stolen)


def test_cancel_ends_what_waits_and_asks_who_works(queue: Any) -> None:
    waiting, scheduled = queue.enqueue("t").job_id, queue.enqueue("t", delay_s=60).job_id
    for job_id in (waiting, scheduled):
        done = queue.cancel(job_id)
        assert (JobStatus.CANCELLED, False) == (done.status, done.requested)
        assert done == queue.cancel(job_id), "harmless to repeat"
    leased = queue.enqueue("t").job_id
    lease = claim_one(queue, start=True)
    assert (JobStatus.RUNNING, True) == ((asked := queue.cancel(leased)).status, asked.requested)
    assert queue.job(leased).cancel_requested_at
    assert JobStatus.COMPLETED == queue.complete(lease).status, "success stands"
    with pytest.raises(AlreadyTerminal):
        queue.cancel(leased)
    with pytest.raises(JobNotFound):
        queue.cancel("stranger")


def test_reprioritise_moves_a_job_to_the_end_of_a_level(queue: Any) -> None:
    queue.enqueue("t", job_id="high", priority=Priority.HIGH)
    queue.enqueue("t", job_id="low", priority="low")
    queue.enqueue("t", job_id="normal")

    assert JobStatus.QUEUED == queue.reprioritise("low", "HIGH")

    assert ["high", "low", "normal"] == [lease.job_id for lease in queue.claim(3)]
    assert JobStatus.CLAIMED == queue.reprioritise("low", Priority.LOW)
    with pytest.raises(JobNotFound):
        queue.reprioritise("stranger", "LOW")


def test_retry_gives_an_ended_job_a_new_life(queue: Any) -> None:
    dead_letter(queue, "dead", unique="u")
    queue.enqueue("t", job_id="gone")
    queue.cancel("gone")

    assert JobStatus.QUEUED == queue.retry("dead") == queue.retry("gone")

    with pytest.raises(NotTerminal):
        queue.retry("dead")
    [lease, _] = queue.claim(2, start=True)
    assert ("dead", 1, 1, 2) == (lease.job_id, lease.attempt, lease.generation, lease.deliveries)
    queue.fail(lease, retryable=False)
    queue.enqueue("t", job_id="holder", unique="u")
    with pytest.raises(UniqueTaken):
        queue.retry("dead")
    with pytest.raises(JobNotFound):
        queue.retry("stranger")


def test_job_shows_everything_that_was_asked_for(queue: Any) -> None:
    queue.enqueue(
        "build",
        {"ref": "main"},
        job_id="j",
        priority=Priority.CRITICAL,
        max_attempts=7,
        timeout_s=90.5,
        retry=Backoff(base_s=1, max_s=2),
        unique="key",
        tags={"team": "a b"},
        request_id="r",
        trace_id="t",
    )

    job = queue.job("j")

    assert ("j", "work", "build", JobStatus.QUEUED, Priority.CRITICAL) == (
        job.job_id,
        job.queue,
        job.type,
        job.status,
        job.priority,
    )
    assert (7, 90.5, Backoff(base_s=1, max_s=2), "key") == (
        job.max_attempts,
        job.timeout_s,
        job.retry,
        job.unique,
    )
    assert ({"team": "a b"}, "r", "t", {"ref": "main"}) == (job.tags, job.request_id, job.trace_id, job.decode())
    assert (None, None, None, ()) == (job.agent, job.fence, job.finished_at, job.attempts)
    assert abs(job.enqueued_at - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)
    with pytest.raises(JobNotFound):
        queue.job("stranger")


def test_jobs_are_listed_newest_first_and_page_by_page(queue: Any) -> None:
    queue.enqueue_many(JobSpec(job_id=f"j{n}") for n in range(5))

    first = queue.jobs(limit=3)
    rest = queue.jobs(limit=3, cursor=first.next_cursor)

    assert (["j4", "j3", "j2"], ["j1", "j0"], None) == (
        [job.job_id for job in first.items],
        [job.job_id for job in rest.items],
        rest.next_cursor,
    )


def test_dead_letters_are_listed_replayed_and_purged(queue: Any) -> None:
    for job_id in ("a", "b", "c"):
        dead_letter(queue, job_id)

    assert ["c", "b", "a"] == [job.job_id for job in queue.dead.list().items]
    back = queue.dead.replay(["b", "stranger"])
    gone = queue.dead.purge(["a", "b"])

    assert (("b",), {"stranger": "not_found"}) == (back.replayed, back.skipped)
    assert (("a",), {"b": "not_dead_lettered"}) == (gone.purged, gone.skipped)
    assert ("c",) == queue.dead.replay(all=True).replayed
    with pytest.raises(JobNotFound):
        queue.job("a")


def test_a_paused_queue_hands_nothing_out_and_lets_work_end(queue: Any) -> None:
    queue.enqueue_many(JobSpec() for _ in range(2))
    lease = claim_one(queue, start=True)

    paused = queue.pause("a release", by="eve")

    assert (True, "a release", "eve") == (paused.paused, paused.reason, paused.by)
    assert paused == queue.pause("another"), "the first reason stands"
    assert [] == queue.claim() == queue.claim(wait_s=0.05)
    assert JobStatus.COMPLETED == queue.complete(lease).status
    assert not queue.resume(by="eve").paused
    assert claim_one(queue)


def test_stats_count_what_is_where(queue: Any) -> None:
    queue.enqueue_many(JobSpec(priority=priority) for priority in Priority)
    queue.enqueue("t", delay_s=60)
    queue.start(claim_one(queue))
    queue.complete(claim_one(queue, start=True))

    stats = queue.stats()

    assert (2, 1, 0, 1, 1, 5, 1) == (
        stats.queued,
        stats.scheduled,
        stats.claimed,
        stats.running,
        stats.finished,
        stats.enqueued_total,
        stats.completed_total,
    )
    assert {"CRITICAL": 0, "HIGH": 0, "NORMAL": 1, "LOW": 1} == stats.by_priority
    assert 1 == queue.stats(window_s=0).completed_total


def test_upkeep_moves_what_time_has_brought(queue: Any) -> None:
    set_time(queue, NOW_MS)
    queue.enqueue("t", delay_s=5)
    queue.enqueue("t", job_id="lost")
    claim_one(queue, start=True, lease_s=20)
    assert 5.0 == queue.upkeep().next_due_s
    for second in (5, 10, 15, 20):
        set_time(queue, NOW_MS + second * 1000)
        did = queue.upkeep()
        assert (second == 5, second == 20) == (did.promoted == 1, did.requeued == 1)


def test_configure_changes_limits(queue: Any) -> None:
    assert {"max_queued": 2, "retention_s": 60.0} == queue.configure(max_queued=2, retention_s=60)

    queue.enqueue_many(JobSpec() for _ in range(2))

    with pytest.raises(QueueFull) as full:
        queue.enqueue("t")
    assert 2 == full.value.limit


def test_hold_reports_how_its_block_ended(queue: Any) -> None:
    for job_id in ("well", "badly"):
        queue.enqueue("t", job_id=job_id)

    hold_one(queue, lambda lease: lease.job_id)
    with pytest.raises(Reject):
        hold_one(queue, lambda lease: (_ for _ in ()).throw(Reject("never")))

    assert (JobStatus.COMPLETED, "well") == (queue.job("well").status, queue.job("well").result)
    assert JobStatus.FAILED == queue.job("badly").status


def test_queues_of_other_names_and_namespaces_are_other_queues(open_queue: Open) -> None:
    here = open_queue("work")
    others = [open_queue("other"), open_queue("work", namespace="elsewhere")]
    here.enqueue("t", 1, job_id="j", unique="u")

    for other in others:
        assert [] == other.claim()
        assert other.enqueue("t", 2, job_id="j", unique="u").created
        assert 1 == other.stats().enqueued_total
    assert [1, 2, 2] == [claim_one(queue).decode() for queue in (here, *others)]


def test_a_wait_of_a_millisecond_gets_a_job_that_is_there(queue: Any) -> None:
    """The wait was over before the first claim was answered, and the job went to nobody."""
    for n in range(20):
        queue.enqueue("t", n)

        assert [n] == [lease.decode() for lease in queue.claim(wait_s=0.001)]
