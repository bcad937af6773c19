"""reprioritise: another level, at its end, wherever the job is."""

from __future__ import annotations

import pytest

from tests.contract.harness import NOW, Rig


def move(rig: Rig, job_id: str, priority: str) -> list[object]:
    return rig.one("reprioritise", job_id=job_id, priority=priority)


def test_a_job_that_never_was_is_not_found(rig: Rig) -> None:
    before = rig.snapshot()

    assert move(rig, "a", "HIGH") == ["NOT_FOUND"]
    assert before == rig.snapshot()


def test_a_queued_job_joins_the_end_of_its_new_level(rig: Rig) -> None:
    rig.enqueue("low", priority="LOW")
    rig.enqueue("a", "b")
    rig.enqueue("high", priority="HIGH")

    assert move(rig, "a", "HIGH") == ["CHANGED", "QUEUED"]
    assert rig.line() == ["high", "a", "b", "low"]
    assert move(rig, "high", "LOW") == ["CHANGED", "QUEUED"]
    assert rig.line() == ["a", "b", "low", "high"]
    assert rig.events()[-1] == "job.priority high QUEUED - 0"


def test_the_same_priority_again_changes_nothing(rig: Rig) -> None:
    rig.enqueue("a", "b")
    before = rig.snapshot()

    assert move(rig, "a", "NORMAL") == ["CHANGED", "QUEUED"]
    assert before == rig.snapshot()


def test_a_scheduled_job_keeps_its_time_and_is_promoted_with_its_new_level(rig: Rig) -> None:
    rig.enqueue("a", "b", delay_ms=5000)

    assert move(rig, "b", "CRITICAL") == ["CHANGED", "SCHEDULED"]
    assert rig.zset("scheduled:NORMAL") == {"a": NOW + 5000}
    assert rig.zset("scheduled:CRITICAL") == {"b": NOW + 5000}
    rig.now += 5000
    rig.upkeep()
    assert rig.line() == ["b", "a"]


def test_a_job_released_with_a_delay_joins_the_end_of_its_new_level_when_due(rig: Rig) -> None:
    rig.enqueue("a")
    rig.enqueue("high", priority="HIGH")
    rig.release(rig.lease("two", job_id="high"), delay_ms=1000)
    rig.release(rig.lease("two", job_id="a"), delay_ms=1000)
    move(rig, "a", "HIGH")
    rig.now += 1000
    rig.upkeep()

    assert rig.line() == ["high", "a"]


@pytest.mark.parametrize("start", [0, 1])
def test_a_leased_job_keeps_it_for_its_next_delivery(rig: Rig, start: int) -> None:
    rig.enqueue("a")
    rig.enqueue("high", priority="HIGH")
    rig.lease("two", job_id="high")
    held = rig.lease("one", job_id="a", start=start)
    rig.enqueue("later", priority="HIGH")

    assert move(rig, "a", "HIGH") == ["CHANGED", held.status]
    rig.enqueue("last", priority="HIGH")
    rig.release(held)
    assert rig.line() == ["later", "a", "last"]


@pytest.mark.parametrize(
    ("outcome", "status"),
    [("success", "COMPLETED"), ("rejected", "FAILED"), ("cancelled", "CANCELLED"), ("failed", "DEAD_LETTERED")],
)
def test_a_job_that_ended_has_no_level_to_change(rig: Rig, outcome: str, status: str) -> None:
    rig.enqueue("a", max_attempts=1)
    rig.complete(rig.running(), outcome)
    before = rig.snapshot()

    assert move(rig, "a", "HIGH") == ["TERMINAL", status]
    assert before == rig.snapshot()


def test_two_entries_of_one_batch_with_one_job_move_it_in_turn(rig: Rig) -> None:
    rig.enqueue("a")
    replies = rig.run("reprioritise", {"job_id": "a", "priority": "HIGH"}, {"job_id": "a", "priority": "LOW"})

    assert replies == [["CHANGED", "QUEUED"], ["CHANGED", "QUEUED"]]
    assert list(rig.zset("ready:any").values()) == [3 * 2**44 + 3]
