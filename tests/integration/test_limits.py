"""Limits hold what they limit, and a full queue takes nothing in while work goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py

from hybridq import Enqueued, JobNotFound, JobSpec, JobStatus, QueueFull, StaleLease
from tests.conformance.colours import set_time

NOW_MS = 1_800_000_000_000


def run_one(queue: Any, job_id: str) -> Any:
    """Enqueue, claim and complete a job; return its lease."""
    queue.enqueue("t", job_id=job_id)
    [lease] = queue.claim(start=True)
    queue.complete(lease, job_id)
    return lease


def test_a_queue_takes_no_more_than_its_limit(queue: Any) -> None:
    queue.configure(max_queued=5)

    answers = queue.enqueue_many(JobSpec(type="t", delay_s=60 if n % 2 else None) for n in range(8))

    assert [Enqueued] * 5 + [QueueFull] * 3 == [type(answer) for answer in answers]
    with pytest.raises(QueueFull) as full:
        queue.enqueue("t")
    assert (5, "work") == (full.value.limit, full.value.queue)
    assert not queue.enqueue("t", job_id=answers[0].job_id).created, "what is there is still found"
    queue.complete(queue.claim(start=True)[0])
    assert queue.enqueue("t").created, "there is room again"
    queue.configure(max_queued=0)
    assert all(answer.created for answer in queue.enqueue_many(JobSpec() for _ in range(50)))


def test_a_full_queue_still_takes_back_what_it_gave(queue: Any) -> None:
    queue.configure(max_queued=2)
    queue.enqueue_many(JobSpec() for _ in range(2))
    held = queue.claim(2, start=True)
    queue.enqueue_many(JobSpec() for _ in range(2))

    assert JobStatus.QUEUED == queue.release(held[0]).status
    assert JobStatus.SCHEDULED == queue.fail(held[1], delay_s=5).status
    with pytest.raises(QueueFull):
        queue.enqueue("t")


def test_finished_jobs_are_kept_for_their_time(queue: Any) -> None:
    queue.configure(retention_s=60, tombstone_s=30)
    set_time(queue, NOW_MS)
    run_one(queue, "j")

    set_time(queue, NOW_MS + 59_000)
    queue.upkeep()
    assert "j" == queue.job("j").result
    set_time(queue, NOW_MS + 60_001)
    assert 1 == queue.upkeep().trimmed
    with pytest.raises(JobNotFound):
        queue.job("j")


def test_of_finished_jobs_only_the_latest_are_kept_and_the_others_remembered(queue: Any) -> None:
    """A record that goes early leaves a tombstone, so that who lost an answer still gets it."""
    queue.configure(retention_count=3, tombstone_s=900)
    set_time(queue, NOW_MS)
    leases = [run_one(queue, f"j{n}") for n in range(10)]
    queue.upkeep()

    assert ["j9", "j8", "j7"] == [job.job_id for job in queue.jobs(status=JobStatus.COMPLETED).items]
    assert queue.complete(leases[0], "j0").replayed
    assert not queue.enqueue("t", job_id="j0").created
    with pytest.raises(StaleLease):
        queue.start(leases[0])
    set_time(queue, NOW_MS + 901_000)
    queue.upkeep()
    with pytest.raises(JobNotFound):
        queue.complete(leases[0], "j0")
    assert queue.enqueue("t", job_id="j0").created


def test_events_are_bounded(queue: Any, redis: redis_py.Redis) -> None:
    queue.configure(events_max=100)
    for _ in range(40):
        queue.enqueue_many(JobSpec() for _ in range(100))

    assert redis.xlen(f"{queue.root}:events") <= 100 + 100, "trimmed by whole nodes of the stream"


def test_the_logs_of_a_queue_keep_to_their_bound_and_the_latest_are_whole(queue: Any, redis: redis_py.Redis) -> None:
    queue.configure(log_bytes_max=30_000, logs_bytes_max=1_000_000)
    text = "".join(f"line {n:05}\n" for n in range(2_000))
    for n in range(100):
        queue.enqueue("t", job_id=f"j{n}")
        [lease] = queue.claim(start=True)
        offset = 0
        while offset < len(text):
            offset = queue.append_log(lease, offset, text[offset : offset + 5_000])
        queue.complete(lease)
        kept = sum(redis.strlen(key) for key in redis.scan_iter(f"{queue.root}:log:*", count=1000))
        assert kept <= 1_000_000

    whole = [n for n in range(100) if not queue.read_log(f"j{n}").truncated]
    assert list(range(100 - len(whole), 100)) == whole, "the oldest went first"
    assert 1_000_000 // len(text) - 2 <= len(whole) <= 1_000_000 // len(text)
    assert text == queue.read_log("j99").data
    assert all(("", True) == ((log := queue.read_log(f"j{n}")).data, log.complete) for n in range(100 - len(whole)))


def test_limits_are_the_queues_not_the_objects(queue: Any, open_queue: Any) -> None:
    queue.configure(max_queued=1)
    other = open_queue(agent="bob")
    other.enqueue("t")

    with pytest.raises(QueueFull):
        queue.enqueue("t")


@contextlib.contextmanager
def memory_used_up(redis: redis_py.Redis) -> Iterator[None]:
    """Leave the server no memory for anything new."""
    before = redis.config_get("maxmemory")["maxmemory"]
    redis.config_set("maxmemory-policy", "noeviction")
    redis.config_set("maxmemory", 1)
    try:
        yield
    finally:
        redis.config_set("maxmemory", before)


def test_without_memory_nothing_is_taken_in_and_work_goes_on(queue: Any, redis: redis_py.Redis) -> None:
    queue.enqueue_many(JobSpec(job_id=f"j{n}") for n in range(6))
    held = queue.claim(2)
    queue.append_log(held[0], 0, "said\n")
    with memory_used_up(redis):
        with pytest.raises(QueueFull) as full:
            queue.enqueue("t", job_id="too-much")
        assert 0 == full.value.limit
        with pytest.raises(QueueFull):
            queue.enqueue_many(JobSpec() for _ in range(3))

        running = queue.start(held[0])
        assert 2 == len(queue.heartbeat(held).renewed)
        assert JobStatus.COMPLETED == queue.complete(running, "well").status
        assert JobStatus.QUEUED == queue.release(held[1]).status
        [next_one] = queue.claim(start=True)
        assert JobStatus.FAILED == queue.fail(next_one, retryable=False).status
        assert JobStatus.CANCELLED == queue.cancel("j5").status
        with pytest.raises(QueueFull):
            queue.append_log(held[1], 0, "no room\n")
        assert "said\n" == queue.read_log(held[0].job_id).data
        queue.reprioritise("j4", "HIGH")
        queue.upkeep()
        assert queue.pause().paused
        assert not queue.resume().paused
        assert "well" == queue.job(running.job_id).result
        assert 1 == queue.stats().completed_total

    with pytest.raises(JobNotFound):
        queue.job("too-much")
    assert queue.enqueue("t", job_id="too-much").created


def test_without_memory_a_dead_letter_stays_where_it_is(queue: Any, redis: redis_py.Redis) -> None:
    queue.enqueue("t", job_id="j", max_attempts=1)
    queue.fail(queue.claim(start=True)[0])
    with memory_used_up(redis):
        with pytest.raises(QueueFull):
            queue.retry("j")
        assert JobStatus.DEAD_LETTERED == queue.job("j").status
    assert JobStatus.QUEUED == queue.retry("j")
