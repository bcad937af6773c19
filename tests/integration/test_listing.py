"""Lists of jobs: every filter finds what it should, and pages leave nothing out and repeat nothing."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from hybridq import Job, JobSpec, JobStatus, Priority, UsageError
from tests.conformance.colours import set_time

TYPES = ("build", "test", "deploy")


def listed(queue: Any, limit: int = 50, **filters: Any) -> list[Job]:
    """Follow the cursor to its end."""
    found: list[Job] = []
    cursor = None
    for _ in range(1000):
        page = queue.jobs(limit=limit, cursor=cursor, **filters)
        assert len(page.items) <= limit
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise AssertionError("the list has no end")


@pytest.fixture
def all_jobs(queue: Any) -> list[Job]:
    """Jobs in every status, newest first."""
    rng = random.Random(7)
    queue.enqueue_many(
        JobSpec(
            job_id=f"j{n}",
            type=rng.choice(TYPES),
            priority=rng.choice(list(Priority)),
            tags={"team": rng.choice("ab"), "n": str(n % 5)},
            delay_s=rng.choice([None, None, 3600]),
            max_attempts=1,
        )
        for n in range(240)
    )
    for end in (
        lambda lease: queue.complete(lease),
        lambda lease: queue.fail(lease),
        lambda lease: queue.fail(lease, outcome="rejected"),
        lambda lease: queue.fail(lease, outcome="cancelled"),
        lambda lease: None,
    ):
        for lease in queue.claim(12, start=True):
            end(lease)
    queue.claim(10)
    found = [queue.job(f"j{n}") for n in range(239, -1, -1)]
    assert set(JobStatus) - {JobStatus.BLOCKED, JobStatus.EXPIRED} == {job.status for job in found}
    return found


def test_all_jobs_come_newest_first(queue: Any, all_jobs: list[Job]) -> None:
    for limit in (1, 7, 200):
        assert all_jobs == listed(queue, limit)


def test_every_filter_finds_what_it_should(queue: Any, all_jobs: list[Job]) -> None:
    statuses = [None, *JobStatus]
    priorities: list[Priority | None] = [None, Priority.CRITICAL, Priority.LOW]
    types = [None, "build", "nothing"]
    for status, priority, kind in itertools.product(statuses, priorities, types):
        expected = {
            job.job_id
            for job in all_jobs
            if (status is None or job.status is status)
            and (priority is None or job.priority is priority)
            and (kind is None or job.type == kind)
        }
        found = [job.job_id for job in listed(queue, 50, status=status, priority=priority, type=kind)]
        assert len(found) == len(set(found))
        assert expected == set(found), (status, priority, kind)


def test_tags_are_all_to_match(queue: Any, all_jobs: list[Job]) -> None:
    def fitting(fits: Callable[[Job], bool]) -> list[str]:
        return [job.job_id for job in all_jobs if fits(job)]

    def found(tags: dict[str, str]) -> list[str]:
        return [job.job_id for job in listed(queue, 20, tags=tags)]

    assert fitting(lambda job: job.tags["team"] == "a") == found({"team": "a"})
    assert fitting(lambda job: job.tags == {"team": "b", "n": "3"}) == found({"team": "b", "n": "3"})
    assert [] == found({"team": "c"}) == found({"colour": "a"})


def test_jobs_of_one_millisecond_are_all_listed(queue: Any) -> None:
    """Finished jobs are listed by when they ended, and many end at once."""
    queue.enqueue_many(JobSpec(job_id=f"j{n}") for n in range(30))
    set_time(queue, 1_800_000_000_000)
    for n in range(30):
        queue.cancel(f"j{n}")
    assert 30 == len({job.job_id for job in listed(queue, 7, status=JobStatus.CANCELLED)})


def test_a_list_that_changes_while_it_is_read_repeats_nothing(queue: Any) -> None:
    queue.enqueue_many(JobSpec(job_id=f"old{n}") for n in range(40))
    page = queue.jobs(limit=15)
    found = [job.job_id for job in page.items]
    n = 0
    while page.next_cursor:
        queue.enqueue("t", job_id=f"new{n}")
        n += 1
        page = queue.jobs(limit=15, cursor=page.next_cursor)
        found += [job.job_id for job in page.items]

    assert [f"old{n}" for n in range(39, -1, -1)] == found


def test_a_cursor_whose_job_is_gone_goes_on_after_its_place(queue: Any) -> None:
    queue.enqueue_many(JobSpec(job_id=f"j{n}", max_attempts=1) for n in range(20))
    for _ in range(20):
        queue.fail(queue.claim(start=True)[0])
    page = queue.jobs(limit=5)
    last = page.items[-1].job_id

    queue.dead.purge([last])

    rest = queue.jobs(limit=200, cursor=page.next_cursor).items
    assert [f"j{n}" for n in range(14, -1, -1)] == [job.job_id for job in rest]


def test_a_cursor_belongs_to_its_list(queue: Any) -> None:
    queue.enqueue_many(JobSpec() for _ in range(5))
    cursor = queue.jobs(limit=2).next_cursor

    with pytest.raises(UsageError):
        queue.jobs(limit=2, cursor=cursor, status=JobStatus.COMPLETED)
    with pytest.raises(UsageError):
        queue.dead.list(limit=2, cursor=cursor)


def test_the_only_match_among_thousands_is_found(queue: Any) -> None:
    """A filtered page looks at a bounded number of records, and the cursor goes on from there."""
    queue.enqueue("t", job_id="needle", priority=Priority.HIGH)
    for _ in range(3):
        queue.enqueue_many(JobSpec() for _ in range(800))

    assert ["needle"] == [job.job_id for job in listed(queue, 200, priority=Priority.HIGH)]
