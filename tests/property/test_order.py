"""Higher priority first, then first in first out, whatever the numbers behind it have grown to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import hypothesis.strategies as st
import pytest
import redis as redis_py
from hypothesis import HealthCheck, given, settings

from hybridq import JobSpec, Lease, Priority, Queue, check

BAND = {priority: band for band, priority in enumerate(Priority)}
EDGE = 2**53

one_queue = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
"""Every example empties the queue, so that all can share it."""


@pytest.fixture
def queue(redis_url: str, namespace: str) -> Iterator[Queue]:
    with Queue("work", redis=redis_url, namespace=namespace, agent="ann") as queue:
        yield queue


def take_all(queue: Queue, step: int = 100) -> list[Lease]:
    """Claim and complete until nothing is left; return the leases in the order they were given."""
    taken: list[Lease] = []
    while given := queue.claim(step, start=True):
        for lease in given:
            queue.complete(lease)
        taken += given
    return taken


@one_queue
@given(
    batches=st.lists(st.lists(st.sampled_from(Priority), min_size=1, max_size=12), min_size=1, max_size=6),
    step=st.integers(1, 7),
)
def test_jobs_leave_by_priority_and_then_in_the_order_they_came(
    queue: Queue, batches: list[list[Priority]], step: int
) -> None:
    came = []
    for batch in batches:
        answers = queue.enqueue_many(JobSpec(priority=priority) for priority in batch)
        came += [(BAND[priority], answer.job_id) for priority, answer in zip(batch, answers, strict=True)]

    left = [lease.job_id for lease in take_all(queue, step)]

    assert [job_id for _, job_id in sorted(came, key=lambda pair: pair[0])] == left


several = st.lists(st.sampled_from(Priority), min_size=2, max_size=10)


@one_queue
@given(case=several.flatmap(lambda levels: st.tuples(st.just(levels), st.permutations(range(len(levels))))))
def test_a_job_handed_back_stands_where_it_stood(queue: Queue, case: tuple[list[Priority], list[int]]) -> None:
    priorities, handed_back = case
    queue.enqueue_many(JobSpec(priority=priority) for priority in priorities)
    first = queue.claim(len(priorities), agent="bob")
    for index in handed_back:
        queue.release(first[index])

    again = [lease.job_id for lease in take_all(queue)]

    assert [lease.job_id for lease in first] == again


@one_queue
@given(priorities=several, at=st.integers(0, 9), new=st.sampled_from(Priority))
def test_a_job_given_another_priority_joins_the_end_of_that_level(
    queue: Queue, priorities: list[Priority], at: int, new: Priority
) -> None:
    answers = queue.enqueue_many(JobSpec(priority=priority) for priority in priorities)
    line = [(answer.job_id, priority) for answer, priority in zip(answers, priorities, strict=True)]
    job_id, old = line[at % len(line)]
    if new is not old:
        line.remove((job_id, old))
        line.append((job_id, new))

    queue.reprioritise(job_id, new)

    expected = sorted(line, key=lambda pair: BAND[pair[1]])
    assert [job_id for job_id, _ in expected] == [lease.job_id for lease in take_all(queue)]


@pytest.mark.parametrize("field", ["seq", "fence"])
def test_numbers_stay_exact_up_to_the_last_a_double_can_count(
    queue: Queue, redis: redis_py.Redis, namespace: str, field: str
) -> None:
    """A sorted set holds doubles: from 2^53 on, two neighbours would be one."""
    queue.enqueue("first")
    redis.hset(f"{queue.root}:meta", field, EDGE - 110)

    ids = [answer.job_id for answer in queue.enqueue_many(JobSpec() for _ in range(100))]
    leases = [lease for _ in range(4) for lease in queue.claim(25)]

    if field == "fence":
        assert list(range(EDGE - 109, EDGE - 9)) == [lease.fence for lease in leases]
        assert [str(lease.fence).encode() for lease in leases] == [
            redis.hget(f"{queue.root}:job:{lease.job_id}", "fence") for lease in leases
        ]
    else:
        assert list(range(EDGE - 109, EDGE - 9)) == [queue.job(job_id).seq for job_id in ids]
        page = queue.jobs(limit=100)
        assert ids[::-1] == [job.job_id for job in page.items]
    check.keyspace(redis, namespace).raise_if_broken()


@pytest.mark.parametrize("priority", Priority)
def test_the_last_place_of_a_level_is_still_before_the_first_of_the_next(
    queue: Queue, redis: redis_py.Redis, priority: Priority
) -> None:
    """A place is level · 2^44 + order: below 2^53, and room for 17 million million jobs in each level."""
    queue.enqueue("next level", job_id="low", priority=Priority.LOW)
    redis.hset(f"{queue.root}:meta", "order", 2**44 - 11)

    ids = [answer.job_id for answer in queue.enqueue_many(JobSpec(priority=priority) for _ in range(10))]

    ranks = [score for _, score in redis.zrange(f"{queue.root}:ready:any", 0, -1, withscores=True)]
    assert all(one < other for one, other in pairwise(ranks))
    assert BAND[priority] * 2**44 + 2**44 - 1 in ranks
    expected = ["low", *ids] if priority is Priority.LOW else [*ids, "low"]
    assert expected == [lease.job_id for lease in take_all(queue)]


def test_a_clock_set_back_does_not_bring_the_order_into_disorder(queue: Queue) -> None:
    queue._now_ms = 1_800_000_000_000
    first = queue.enqueue("first").job_id
    queue._now_ms -= 3_600_000
    second = queue.enqueue("second").job_id

    assert [first, second] == [lease.job_id for lease in take_all(queue)]


def test_fences_go_on_growing_after_the_clock_was_set_back(queue: Queue) -> None:
    queue._now_ms = 1_800_000_000_000
    queue.enqueue_many(JobSpec() for _ in range(4))
    before = queue.claim(2)
    queue._now_ms -= 3_600_000
    after = queue.claim(2)

    assert before[-1].fence < after[0].fence < after[1].fence
