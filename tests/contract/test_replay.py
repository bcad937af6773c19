"""replay: an ended job gets a new life under its old id."""

from __future__ import annotations

import pytest

from tests.contract.harness import Rig


def dead(rig: Rig, job_id: str = "a", **fields: object) -> None:
    """Make a dead letter."""
    rig.enqueue(job_id, max_attempts=1, **fields)
    rig.complete(rig.running(job_id=job_id), "failed")


def test_a_job_that_never_was_is_not_found(rig: Rig) -> None:
    before = rig.snapshot()

    assert rig.replay("a") == ["NOT_FOUND"]
    assert before == rig.snapshot()


@pytest.mark.parametrize("only", ["any", "dead"])
def test_a_dead_letter_begins_anew_at_the_end_of_its_level(rig: Rig, only: str) -> None:
    dead(rig)
    rig.enqueue("b")
    rig.now += 5

    assert rig.replay("a", only=only) == ["REPLAYED", "QUEUED"]
    assert rig.line() == ["b", "a"]
    record = rig.record("a")
    assert (record["attempt"], record["generation"], record["ready_ms"]) == ("0", "1", str(rig.now))
    assert not record.keys() & {"outcome", "dead_reason", "unstarted", "infra", "releases", "avoid", "due_ms"}
    assert rig.zset("dead") == {}
    assert rig.counters() == {"enqueued": 2, "dead_lettered": 1, "replayed": 1}
    assert rig.events()[-1] == "job.replayed a QUEUED - 0"


@pytest.mark.parametrize(("outcome", "status"), [("rejected", "FAILED"), ("cancelled", "CANCELLED")])
def test_failed_and_cancelled_jobs_are_retried_but_are_no_dead_letters(rig: Rig, outcome: str, status: str) -> None:
    rig.enqueue("a")
    rig.complete(rig.running(), outcome)
    before = rig.snapshot()

    assert rig.replay("a", only="dead") == ["NOT_TERMINAL", status]
    assert before == rig.snapshot()
    assert rig.replay("a", only="any") == ["REPLAYED", "QUEUED"]


@pytest.mark.parametrize("status", ["QUEUED", "SCHEDULED", "CLAIMED", "RUNNING", "COMPLETED"])
def test_a_job_that_lives_or_succeeded_is_left_alone(rig: Rig, status: str) -> None:
    rig.enqueue("a", delay_ms=5000 if status == "SCHEDULED" else 0)
    if status in ("CLAIMED", "RUNNING", "COMPLETED"):
        held = rig.lease(start=int(status != "CLAIMED"))
        if status == "COMPLETED":
            rig.complete(held)
    before = rig.snapshot()

    assert rig.replay("a") == ["NOT_TERMINAL", status]
    assert before == rig.snapshot()


def test_the_history_goes_on_and_the_attempts_begin_anew(rig: Rig) -> None:
    rig.enqueue("a", max_attempts=2)
    for _ in range(2):
        rig.complete(rig.running(), "failed", jitter=0)
    rig.replay("a")

    held = rig.running()
    assert (held.attempt, held.generation, held.deliveries) == (0, 1, 3)
    assert rig.complete(held, "failed", jitter=0)[1] == "QUEUED"
    assert [line[0] for line in rig.history("a")] == [1, 2, 1]


def test_generations_are_counted(rig: Rig) -> None:
    dead(rig)
    for generation in ("1", "2", "3"):
        rig.replay("a")
        rig.complete(rig.running(), "failed")
        assert rig.record("a")["generation"] == generation


def test_a_life_that_never_started_gets_its_twenty_chances_again(rig: Rig) -> None:
    rig.enqueue("a")
    rig.complete(rig.lease(), "rejected")
    rig.client.hset(f"{rig.root}:job:a", mapping={"unstarted": "19", "infra": "3", "releases": "9"})
    rig.replay("a")
    rig.lose(rig.lease())

    assert (rig.status("a"), rig.record("a")["unstarted"]) == ("QUEUED", "1")


def test_the_unique_key_is_taken_again(rig: Rig) -> None:
    dead(rig, unique="key")
    rig.replay("a")

    assert rig.hash("unique") == {"key": "a"}
    assert rig.enqueue("b", unique="key") == ["UNIQUE", "a", "QUEUED"]


def test_a_unique_key_that_is_taken_meanwhile_keeps_the_job_dead(rig: Rig) -> None:
    dead(rig, unique="key")
    rig.enqueue("b", unique="key")
    before = rig.snapshot()

    assert rig.replay("a") == ["UNIQUE_TAKEN", "b"]
    assert before == rig.snapshot()


def test_two_dead_letters_with_one_unique_key_cannot_both_come_back(rig: Rig) -> None:
    dead(rig, "a", unique="key")
    dead(rig, "b", unique="key")

    assert rig.run("replay", {"job_id": "a"}, {"job_id": "b"}) == [["REPLAYED", "QUEUED"], ["UNIQUE_TAKEN", "a"]]


def test_two_entries_of_one_batch_with_one_job_replay_once(rig: Rig) -> None:
    dead(rig)

    assert rig.run("replay", {"job_id": "a"}, {"job_id": "a"}) == [["REPLAYED", "QUEUED"], ["NOT_TERMINAL", "QUEUED"]]
    assert rig.record("a")["generation"] == "1"


def test_fences_go_on_growing_in_the_new_life(rig: Rig) -> None:
    rig.enqueue("a", max_attempts=1)
    first = rig.running()
    rig.complete(first, "failed")
    rig.replay("a")

    assert rig.lease().fence > first.fence


def test_the_same_call_again_is_no_second_life(rig: Rig) -> None:
    dead(rig, "a")
    assert rig.replay("a", move="first") == ["REPLAYED", "QUEUED"]

    assert rig.replay("a", move="first") == ["AGAIN", "QUEUED"]
    rig.complete(rig.running(job_id="a"), "rejected")
    assert rig.replay("a", move="first") == ["AGAIN", "FAILED"]
    assert rig.record("a")["generation"] == "1"
    assert rig.replay("a", move="second") == ["REPLAYED", "QUEUED"]
    assert rig.replay("a", move="first") == ["NOT_TERMINAL", "QUEUED"]
