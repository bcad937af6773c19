"""upkeep, retention: ended jobs go by age and count, dead letters over the cap, tombstones after their time."""

from __future__ import annotations

from tests.contract.harness import NOW, Rig


def finish(rig: Rig, *job_ids: str) -> None:
    """Have jobs come and be cancelled, one after the other in time."""
    for job_id in job_ids:
        rig.enqueue(job_id)
        rig.cancel(job_id)
        rig.now += 1


def die(rig: Rig, *job_ids: str) -> None:
    for job_id in job_ids:
        rig.enqueue(job_id, max_attempts=1)
        rig.complete(rig.running(job_id=job_id), "failed")
        rig.now += 1


def test_an_ended_job_stays_for_its_retention_and_then_leaves_no_tombstone(rig: Rig) -> None:
    """A day is longer than any caller retries, so nobody needs one."""
    finish(rig, "a")
    rig.now = NOW + 86_400_000 - 1
    assert rig.upkeep()["trimmed"] == 0
    rig.now += 1

    assert rig.upkeep()["trimmed"] == 1
    assert rig.record("a") == rig.hash("spec") == rig.hash("tombs") == {}
    assert rig.zset("all") == rig.zset("finished") == {}
    assert rig.counters() == {"enqueued": 1, "cancelled": 1, "pruned": 1}


def test_a_retention_shorter_than_a_tombstones_time_leaves_tombstones(rig: Rig) -> None:
    rig.configure(retention_ms=1000)
    finish(rig, "a")
    rig.now += 1000
    rig.upkeep()

    assert rig.record("a") == {}
    assert rig.enqueue("a") == ["DUPLICATE", "CANCELLED"]


def test_past_the_count_the_oldest_shrink_to_tombstones(rig: Rig) -> None:
    rig.configure(retention_count=2)
    finish(rig, "a", "b", "c", "d")

    assert rig.upkeep()["trimmed"] == 2
    assert list(rig.zset("finished")) == ["c", "d"]
    assert rig.hash("tombs").keys() == {"a", "b"}
    assert rig.client.lrange(f"{rig.root}:tombs_by_age", 0, -1) == [b"a", b"b"]
    assert rig.hash("tombs")["a"] == f"{rig.now} digest-1 0 cancelled CANCELLED"


def test_a_tombstone_recognises_the_job_until_its_time_is_over(rig: Rig) -> None:
    rig.configure(retention_count=0)
    finish(rig, "a")
    rig.upkeep()
    buried = rig.now

    rig.live(899_999, step_ms=300_000)
    rig.upkeep()
    assert rig.enqueue("a") == ["DUPLICATE", "CANCELLED"]
    assert rig.enqueue("a", digest="digest-2") == ["CONFLICT", "CANCELLED"]
    rig.now = buried + 900_000
    rig.upkeep()
    assert rig.hash("tombs") == {}
    assert rig.client.llen(f"{rig.root}:tombs_by_age") == 0
    assert rig.enqueue("a", digest="digest-2") == ["ENQUEUED", "QUEUED"]


def test_a_younger_tombstone_stays_when_an_older_goes(rig: Rig) -> None:
    rig.configure(retention_count=0)
    finish(rig, "a")
    rig.upkeep()
    rig.live(500_000, step_ms=250_000)
    finish(rig, "b")
    rig.upkeep()
    rig.live(400_000, step_ms=200_000)
    rig.upkeep()

    assert rig.hash("tombs").keys() == {"b"}


def test_one_step_trims_100_and_says_that_there_are_more(rig: Rig) -> None:
    rig.configure(retention_count=10)
    for first in range(0, 125, 25):
        rig.enqueue(*(f"job-{n:03}" for n in range(first, first + 25)))
        rig.run("cancel", *({"job_id": f"job-{n:03}"} for n in range(first, first + 25)))

    steps = [rig.upkeep() for _ in range(3)]
    assert [(did["trimmed"], did["more"]) for did in steps] == [(100, 1), (15, 0), (0, 0)]
    assert len(rig.zset("finished")) == len(rig.zset("all")) == 10


def test_age_comes_before_count_in_one_step(rig: Rig) -> None:
    rig.configure(retention_ms=1000, tombstone_ms=500, retention_count=1)
    finish(rig, "a", "b")
    rig.now += 2000
    finish(rig, "c", "d")

    assert rig.upkeep()["trimmed"] == 3
    assert list(rig.zset("finished")) == ["d"]
    assert rig.hash("tombs").keys() == {"c"}


def test_dead_letters_over_the_cap_are_dropped_the_oldest_first_and_counted(rig: Rig) -> None:
    rig.configure(max_dead=2)
    die(rig, "a", "b", "c", "d", "e")

    assert rig.upkeep()["trimmed"] == 3
    assert list(rig.zset("dead")) == ["d", "e"]
    assert rig.counters() == {"enqueued": 5, "dead_lettered": 5, "dead_dropped": 3, "pruned": 3}


def test_a_dropped_dead_letter_is_recognised_for_a_tombstones_time(rig: Rig) -> None:
    rig.configure(max_dead=1)
    die(rig, "a", "b")
    rig.upkeep()

    assert rig.record("a") == {}
    assert rig.enqueue("a") == ["DUPLICATE", "DEAD_LETTERED"]


def test_dead_letters_do_not_go_by_age(rig: Rig) -> None:
    die(rig, "a")
    rig.live(10 * 86_400_000, step_ms=86_400_000)

    assert rig.upkeep()["trimmed"] == 0
    assert rig.status("a") == "DEAD_LETTERED"


def test_jobs_that_live_are_never_trimmed(rig: Rig) -> None:
    rig.configure(retention_count=0, retention_ms=0, max_dead=1)
    rig.enqueue("claimed", "queued")
    rig.enqueue("scheduled", delay_ms=20 * 86_400_000)
    rig.lease(job_id="claimed")
    rig.live(10 * 86_400_000, step_ms=86_400_000)
    rig.upkeep()

    assert rig.counters() == {"enqueued": 3}
    assert {rig.status(job_id) for job_id in ("queued", "claimed", "scheduled")} == {"QUEUED", "CLAIMED", "SCHEDULED"}


def test_the_events_are_bounded(rig: Rig) -> None:
    """A stream is trimmed by whole nodes of 100 entries."""
    rig.configure(events_max=100)
    for _ in range(60):
        finish(rig, *(f"job-{rig.now}-{n}" for n in range(3)))

    assert 100 <= rig.client.xlen(f"{rig.root}:events") <= 200


def test_minutes_are_folded_once_into_the_figures_since_the_beginning(rig: Rig) -> None:
    rig.upkeep()
    for _ in range(3):
        rig.enqueue(f"job-{rig.now}")
        rig.complete(rig.running())
        rig.live(60_000)
    for _ in range(5):
        rig.upkeep()

    assert rig.hash("latency:all") == {"w0": "3", "x0": "3", "completed": "3"}


def test_a_minutes_figures_go_by_their_own_time(rig: Rig) -> None:
    rig.enqueue("a")
    rig.lease()

    assert 0 < rig.client.ttl(f"{rig.root}:latency:{rig.now // 60_000}") <= 7200


def test_nothing_else_of_a_queue_has_a_time_to_live(rig: Rig) -> None:
    finish(rig, "a")
    die(rig, "b")
    rig.enqueue("c", "d", unique="key")
    rig.lease()
    rig.upkeep()

    mortal = [key for key in rig.client.scan_iter(match=f"{rig.root}:*") if rig.client.ttl(key) != -1]
    assert all(b":latency:" in key for key in mortal)
