"""Dead letters: how jobs get there, how they are found, and every way out."""

from __future__ import annotations

from typing import Any

import pytest

from hybridq import JobNotFound, JobSpec, JobStatus, UniqueTaken
from tests.conformance.colours import set_time
from tests.integration.conftest import Open

NOW_MS = 1_800_000_000_000


def kill(queue: Any, specs: list[JobSpec]) -> None:
    """Enqueue jobs of one attempt each and fail them, so that they are dead letters in this order."""
    queue.enqueue_many(specs)
    left = len(specs)
    while left:
        for lease in queue.claim(25, start=True):
            queue.fail(lease, {"message": "broken"})
            left -= 1


def ids(page: Any) -> list[str]:
    return [job.job_id for job in page.items]


def test_a_job_that_used_its_attempts_up_is_kept_with_its_history(queue: Any) -> None:
    queue.enqueue("build", job_id="j", max_attempts=3)
    for n in range(3):
        [lease] = queue.claim(start=True)
        queue.fail(lease, {"message": f"run {n}"}, exit_code=n, delay_s=0)

    [job] = queue.dead.list().items

    assert ("j", JobStatus.DEAD_LETTERED, "max_attempts", 3) == (
        job.job_id,
        job.status,
        job.dead_reason,
        job.attempt,
    )
    assert [({"message": f"run {n}"}, n) for n in range(3)] == [(one.error, one.exit_code) for one in job.attempts]
    assert [] == queue.claim()


def test_a_job_whose_holders_all_died_is_told_from_one_that_failed(queue: Any) -> None:
    set_time(queue, NOW_MS)
    queue.enqueue("t", job_id="lost", max_attempts=1)
    [lease] = queue.claim(start=True, lease_s=10)
    queue.heartbeat([lease])
    for second in (4, 8, 10):
        set_time(queue, NOW_MS + second * 1000)
        queue.upkeep()

    [job] = queue.dead.list(reason="lease_lost").items

    assert ("lost", "lost") == (job.job_id, job.attempts[0].outcome)
    assert [] == ids(queue.dead.list(reason="max_attempts"))


def test_a_job_that_nobody_ever_starts_does_not_go_round_for_ever(queue: Any) -> None:
    """Twenty claims that were never started, each after a longer pause, and the attempts are still whole."""
    set_time(queue, NOW_MS)
    queue.enqueue("t", job_id="unwanted")
    deliveries = 0
    for step in range(1000):
        # Less than half a lease, so that nobody takes the silence for an outage.
        set_time(queue, NOW_MS + step * 14_000)
        deliveries += len(queue.claim(lease_s=30))
        if queue.upkeep().dead_lettered:
            break

    [job] = queue.dead.list().items

    assert (20, "never_started", 0) == (deliveries, job.dead_reason, job.attempt)
    assert ("unwanted",) == queue.dead.replay(["unwanted"]).replayed
    assert 1 == queue.claim()[0].attempt


def test_dead_letters_are_found_by_type_reason_and_tags(queue: Any) -> None:
    kinds = [("build", {"team": "a"}), ("build", {"team": "b", "os": "x"}), ("test", {"team": "a", "os": "x"})]
    specs = [JobSpec(job_id=f"j{n}", type=kinds[n % 3][0], tags=kinds[n % 3][1], max_attempts=1) for n in range(30)]
    kill(queue, specs)

    def found(**filters: Any) -> set[str]:
        return set(ids(queue.dead.list(limit=200, **filters)))

    assert {f"j{n}" for n in range(30)} == found() == found(reason="max_attempts")
    assert {f"j{n}" for n in range(30) if n % 3 != 2} == found(type="build")
    assert {f"j{n}" for n in range(30) if n % 3 != 1} == found(tags={"team": "a"})
    assert {f"j{n}" for n in range(1, 30, 3)} == found(type="build", tags={"os": "x"})
    assert set() == found(type="deploy") == found(tags={"team": "A"}) == found(reason="lease_lost")


def test_the_list_is_latest_first_in_pages_that_leave_nothing_out(queue: Any) -> None:
    specs = [JobSpec(job_id=f"j{n}", max_attempts=1) for n in range(57)]
    kill(queue, specs)
    listed: list[str] = []
    cursor = None
    while True:
        page = queue.dead.list(limit=10, cursor=cursor)
        listed += ids(page)
        cursor = page.next_cursor
        if cursor is None:
            break

    assert sorted(f"j{n}" for n in range(57)) == sorted(listed)
    ends = [queue.job(job_id).finished_at for job_id in listed]
    assert ends == sorted(ends, reverse=True)


def test_replay_by_filter_gives_new_lives_in_the_order_of_death(queue: Any) -> None:
    """More than one step's worth, as replay goes in steps."""
    specs = [JobSpec(job_id=f"j{n:03}", type="even" if n % 2 == 0 else "odd", max_attempts=1) for n in range(250)]
    for first in range(0, 250, 50):
        set_time(queue, NOW_MS + first)
        kill(queue, specs[first : first + 50])
    set_time(queue, NOW_MS + 1000)

    back = queue.dead.replay(type="even")

    assert {f"j{n:03}" for n in range(0, 250, 2)} == set(back.replayed)
    deaths = [int(job_id[1:]) // 50 for job_id in back.replayed]
    assert deaths == sorted(deaths), "the oldest death first"
    taken = [lease for _ in range(6) for lease in queue.claim(25, start=True)]
    assert list(back.replayed) == [lease.job_id for lease in taken], "in line as they were replayed"
    assert {(1, 1, 2)} == {(lease.attempt, lease.generation, lease.deliveries) for lease in taken}
    assert 125 == queue.stats().dead_lettered


def test_replay_of_at_most_so_many_leaves_the_rest(queue: Any) -> None:
    kill(queue, [JobSpec(job_id=f"j{n}", max_attempts=1) for n in range(12)])

    assert 5 == len(queue.dead.replay(all=True, limit=5).replayed)
    assert 7 == len(queue.dead.list().items)
    assert 7 == len(queue.dead.replay(all=True).replayed)
    assert () == queue.dead.replay(all=True).replayed


def test_a_replayed_job_can_end_well_and_its_history_stays(queue: Any) -> None:
    kill(queue, [JobSpec(job_id="j", max_attempts=1)])
    queue.dead.replay(["j"])
    [lease] = queue.claim(start=True)
    queue.complete(lease, "well")

    job = queue.job("j")

    assert (JobStatus.COMPLETED, "well", None) == (job.status, job.result, job.dead_reason)
    assert ["failed", "success"] == [one.outcome for one in job.attempts]
    assert [1, 1] == [one.number for one in job.attempts]


def test_a_unique_key_that_was_taken_meanwhile_keeps_a_letter_dead(queue: Any) -> None:
    kill(queue, [JobSpec(job_id="old", unique="site", max_attempts=1)])
    queue.enqueue("t", job_id="new", unique="site")

    assert {"old": "unique_taken"} == queue.dead.replay(all=True).skipped
    with pytest.raises(UniqueTaken):
        queue.retry("old")
    queue.cancel("new")
    assert ("old",) == queue.dead.replay(all=True).replayed
    assert not queue.enqueue("t", job_id="third", unique="site").created, "the key is held again"


def test_purged_letters_are_gone_for_good(queue: Any) -> None:
    kill(queue, [JobSpec(job_id=f"j{n}", type="a" if n < 3 else "b", max_attempts=1) for n in range(120)])

    assert {f"j{n}" for n in range(3)} == set(queue.dead.purge(type="a").purged)
    assert 117 == len(queue.dead.purge(all=True).purged)

    stats = queue.stats()
    assert (0, 0, 120) == (stats.dead_lettered, stats.queued, stats.dead_lettered_total)
    with pytest.raises(JobNotFound):
        queue.job("j0")
    assert queue.enqueue("t", job_id="j0").created, "its id is free again"


def test_the_oldest_letters_go_when_there_are_too_many(queue: Any) -> None:
    queue.configure(max_dead=10)
    for n in range(25):
        set_time(queue, NOW_MS + n * 100)
        kill(queue, [JobSpec(job_id=f"j{n}", max_attempts=1)])
    set_time(queue, NOW_MS + 10_000)
    while queue.upkeep().more:
        pass

    assert [f"j{n}" for n in range(24, 14, -1)] == ids(queue.dead.list())


def test_letters_of_one_queue_are_no_other_queues(open_queue: Open) -> None:
    one, other = open_queue("one"), open_queue("other")
    kill(one, [JobSpec(job_id="j", max_attempts=1)])

    assert [] == ids(other.dead.list())
    assert {"j": "not_found"} == other.dead.replay(["j"]).skipped == other.dead.purge(["j"]).skipped
    assert ["j"] == ids(one.dead.list())
