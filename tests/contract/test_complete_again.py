"""complete, again: the first answer stands, whatever became of the job since."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contract.harness import Held, Rig


def trim(rig: Rig) -> None:
    """Have every ended record shrink to its tombstone."""
    rig.configure(retention_count=0)
    rig.upkeep()


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        ("success", "COMPLETED"),
        ("failed", "SCHEDULED"),
        ("timeout", "SCHEDULED"),
        ("infra_error", "SCHEDULED"),
        ("rejected", "FAILED"),
        ("cancelled", "CANCELLED"),
    ],
)
def test_the_same_call_again_gets_the_first_answer_and_changes_nothing(rig: Rig, outcome: str, status: str) -> None:
    rig.enqueue("a")
    held = rig.running()
    rig.complete(held, outcome)
    before = rig.snapshot()

    assert rig.complete(held, outcome) == ["REPLAYED", status]
    assert rig.complete(held, outcome, jitter=1, retryable=0, result='"other"') == ["REPLAYED", status]
    assert before == rig.snapshot()


def test_another_outcome_is_a_conflict_and_changes_nothing(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.running()
    rig.complete(held, "failed")
    before = rig.snapshot()

    assert rig.complete(held, "success") == ["OUTCOME_CONFLICT", "failed"]
    assert before == rig.snapshot()


def test_two_entries_of_one_batch_with_one_lease_end_it_once(rig: Rig) -> None:
    rig.enqueue("a")
    proof = rig.running().proof
    replies = rig.run(
        "complete",
        {**proof, "outcome": "success"},
        {**proof, "outcome": "success"},
        {**proof, "outcome": "failed"},
    )

    assert replies == [["DONE", "COMPLETED", "0"], ["REPLAYED", "COMPLETED"], ["OUTCOME_CONFLICT", "success"]]
    assert rig.counters() == {"enqueued": 1, "completed": 1}


def promote(rig: Rig) -> Rig:
    rig.live(5000)
    rig.upkeep()
    return rig


AFTERWARDS: dict[str, Callable[[Rig], object]] = {
    "promoted": promote,
    "claimed by another": lambda rig: promote(rig).lease("two"),
    "completed by another": lambda rig: promote(rig).complete(rig.running("two")),
    "lost by another": lambda rig: promote(rig).lose(rig.running("two")),
    "cancelled": lambda rig: rig.cancel("a"),
    "reprioritised": lambda rig: rig.one("reprioritise", job_id="a", priority="LOW"),
}


@pytest.mark.parametrize("afterwards", AFTERWARDS)
def test_the_first_answer_stands_after_the_job_was(rig: Rig, afterwards: str) -> None:
    rig.enqueue("a")
    held = rig.running()
    rig.complete(held, "failed")
    AFTERWARDS[afterwards](rig)
    before = rig.snapshot()

    assert rig.complete(held, "failed") == ["REPLAYED", "SCHEDULED"]
    assert rig.complete(held, "success") == ["OUTCOME_CONFLICT", "failed"]
    assert before == rig.snapshot()


def test_the_first_answer_stands_after_the_job_was_replayed(rig: Rig) -> None:
    rig.enqueue("a", max_attempts=1)
    held = rig.running()
    rig.complete(held, "failed")
    rig.replay("a")
    rig.lease("two")

    assert rig.complete(held, "failed") == ["REPLAYED", "DEAD_LETTERED"]


def test_an_answer_that_left_the_history_is_stale(rig: Rig) -> None:
    rig.enqueue("a", max_attempts=40)
    first = rig.running()
    rig.complete(first, "failed", jitter=0)
    for _ in range(31):
        rig.complete(rig.running(), "failed", jitter=0)
    assert rig.complete(first, "failed") == ["REPLAYED", "QUEUED"]

    rig.complete(rig.running(), "failed", jitter=0)
    assert rig.complete(first, "failed") == ["STALE_LEASE", "QUEUED"]


def test_only_who_gave_the_answer_gets_it_again(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.running()
    rig.complete(held)

    assert rig.one("complete", **{**held.proof, "agent": "two", "outcome": "success"}) == ["NOT_HOLDER"]


# -- late --------------------------------------------------------------------------------------------------


def lose_to_another(rig: Rig) -> tuple[Held, Held]:
    """Have a confirmed lease run out and its job run with another agent; returns the lost lease and the current."""
    rig.enqueue("a")
    late = rig.running("one")
    rig.lose(late)
    return late, rig.running("two", job_id="a")


def test_a_late_completion_is_kept_as_evidence_once(rig: Rig) -> None:
    late, _ = lose_to_another(rig)
    record = rig.record("a")
    rig.now += 5

    assert rig.complete(late, exit_code="3", failure='"slow"') == ["STALE_LEASE", "RUNNING"]
    note = {"late": {"outcome": "success", "at_ms": rig.now, "exit_code": 3, "error": "slow"}}
    assert rig.history("a")[0][11:] == [note]
    assert record == rig.record("a")

    before = rig.snapshot()
    assert rig.complete(late, "failed", failure='"again"') == ["STALE_LEASE", "RUNNING"]
    assert before == rig.snapshot()


def test_a_late_completion_moves_one_counter_and_no_other(rig: Rig) -> None:
    late, _ = lose_to_another(rig)
    before = rig.counters()
    rig.complete(late)
    rig.complete(late)

    assert rig.counters() == {**before, "late": 1}


def test_a_late_note_stays_with_its_attempt_in_a_longer_history(rig: Rig) -> None:
    late, current = lose_to_another(rig)
    rig.complete(current, "failed", jitter=0)
    rig.complete(rig.running("three"))
    rig.complete(late)

    lines = rig.history("a")
    assert [line[6] for line in lines] == ["lost", "failed", "success"]
    assert [len(line) for line in lines] == [12, 11, 11]


def test_a_lease_that_was_released_leaves_no_late_note(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.running()
    rig.release(held)
    before = rig.snapshot()

    assert rig.complete(held) == ["STALE_LEASE", "QUEUED"]
    assert before == rig.snapshot()


# -- tombstones ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "status"), [("success", "COMPLETED"), ("rejected", "FAILED"), ("cancelled", "CANCELLED")]
)
def test_the_first_answer_stands_when_a_tombstone_is_left(rig: Rig, outcome: str, status: str) -> None:
    rig.enqueue("a")
    held = rig.running()
    rig.complete(held, outcome)
    trim(rig)
    assert rig.record("a") == {}
    before = rig.snapshot()

    assert rig.complete(held, outcome) == ["REPLAYED", status]
    assert rig.complete(held, "timeout") == ["OUTCOME_CONFLICT", outcome]
    assert before == rig.snapshot()


def test_a_tombstone_knows_nothing_of_another_lease(rig: Rig) -> None:
    rig.enqueue("a")
    lost = rig.running("one")
    rig.lose(lost)
    rig.complete(rig.running("two"))
    trim(rig)

    assert rig.complete(lost) == ["STALE_LEASE", "COMPLETED"]


def test_the_lease_of_a_job_that_was_cancelled_when_it_was_lost_is_stale_for_ever(rig: Rig) -> None:
    """Its tombstone carries the fence of the lost lease, which has no outcome that could be told again."""
    rig.enqueue("a")
    rig.complete(rig.running(), "failed", jitter=0)
    held = rig.running()
    rig.cancel("a")
    rig.lose(held)
    assert rig.complete(held, "failed") == ["STALE_LEASE", "CANCELLED"]
    trim(rig)

    assert rig.complete(held, "failed") == ["STALE_LEASE", "CANCELLED"]
    assert rig.complete(held, "success") == ["STALE_LEASE", "CANCELLED"]


def test_a_failure_is_remembered_though_the_job_was_cancelled_while_it_waited(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.running()
    rig.complete(held, "failed")
    rig.cancel("a")
    trim(rig)

    assert rig.complete(held, "failed") == ["REPLAYED", "CANCELLED"]


def test_after_the_tombstones_time_nothing_is_known(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.running()
    rig.complete(held)
    trim(rig)

    rig.live(900_000, step_ms=300_000)
    rig.upkeep()
    assert rig.complete(held) == ["NOT_FOUND"]
