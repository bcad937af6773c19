"""cancel: at once while a job waits, by intent while it is leased; the intent outlives every way out but success."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contract.harness import LEASE_MS, NOW, Held, Rig


def test_a_job_that_never_was_is_not_found(rig: Rig) -> None:
    before = rig.snapshot()

    assert rig.cancel("a") == ["NOT_FOUND"]
    assert before == rig.snapshot()


@pytest.mark.parametrize("delay_ms", [0, 5000])
def test_a_waiting_job_is_cancelled_at_once(rig: Rig, delay_ms: int) -> None:
    rig.enqueue("a", unique="key", delay_ms=delay_ms)

    assert rig.cancel("a") == ["CANCELLED"]
    assert rig.zset("finished") == {"a": NOW}
    assert (rig.line(), rig.zset("scheduled:NORMAL"), rig.hash("unique")) == ([], {}, {})
    assert rig.record("a")["outcome"] == "cancelled"
    assert rig.counters() == {"enqueued": 1, "cancelled": 1}
    assert rig.events()[-1] == "job.cancelled a CANCELLED - 0"


def test_a_cancelled_job_may_be_cancelled_again(rig: Rig) -> None:
    rig.enqueue("a")
    rig.cancel("a")
    before = rig.snapshot()

    assert rig.cancel("a", mode="kill") == ["CANCELLED"]
    assert before == rig.snapshot()


@pytest.mark.parametrize(
    ("outcome", "status"), [("success", "COMPLETED"), ("rejected", "FAILED"), ("failed", "DEAD_LETTERED")]
)
def test_a_job_that_ended_otherwise_cannot_be_cancelled(rig: Rig, outcome: str, status: str) -> None:
    rig.enqueue("a", max_attempts=1)
    rig.complete(rig.running(), outcome)
    before = rig.snapshot()

    assert rig.cancel("a") == ["TERMINAL", status]
    assert before == rig.snapshot()


@pytest.mark.parametrize("start", [0, 1])
def test_a_leased_job_is_asked_to_stop_and_keeps_its_lease(rig: Rig, start: int) -> None:
    rig.enqueue("a")
    held = rig.lease(start=start)
    rig.now += 10

    assert rig.cancel("a", mode="kill", grace_ms=500) == ["REQUESTED", held.status]
    record = rig.record("a")
    assert (record["cancel_ms"], record["cancel_mode"], record["cancel_grace_ms"]) == (str(NOW + 10), "kill", "500")
    assert record["status"] == held.status
    assert rig.zset("leased") == {"a": NOW + LEASE_MS}
    assert rig.events()[-1] == f"job.cancel_requested a {held.status} one {start}"


def test_the_first_request_sets_the_time_and_a_kill_sharpens_it(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.lease()
    rig.cancel("a", mode="graceful", grace_ms=9000)
    rig.now += 10
    rig.cancel("a", mode="kill", grace_ms=100)

    assert rig.record("a")["cancel_ms"] == str(NOW)
    assert rig.heartbeat(held)[2:] == ["kill", "100"]
    assert sum(event.startswith("job.cancel_requested") for event in rig.events()) == 1


def test_a_kill_is_not_taken_back(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.lease()
    rig.cancel("a", mode="kill", grace_ms=100)

    assert rig.cancel("a", mode="graceful", grace_ms=9000) == ["REQUESTED", "CLAIMED"]
    assert rig.heartbeat(held)[2:] == ["kill", "100"]


def give_back_by_holding(rig: Rig, agent: str) -> None:
    rig.live(3000)
    rig.claim(agent, holding=",")


WAYS_OUT: dict[str, Callable[[Rig, Held], object]] = {
    "failed": lambda rig, held: rig.complete(held, "failed"),
    "timeout": lambda rig, held: rig.complete(held, "timeout"),
    "infra_error": lambda rig, held: rig.complete(held, "infra_error"),
    "rejected": lambda rig, held: rig.complete(held, "rejected"),
    "cancelled": lambda rig, held: rig.complete(held, "cancelled"),
    "release": lambda rig, held: rig.release(held),
    "release with a delay": lambda rig, held: rig.release(held, delay_ms=9000),
    "lost": lambda rig, held: rig.lose(held),
    "given back by holding": lambda rig, held: give_back_by_holding(rig, held.agent),
}


def cancelled_by(rig: Rig, held: Held, way: str) -> None:
    """Request the cancel, leave the lease that way, and see that the job ended with nothing left of the lease."""
    rig.cancel("a")
    WAYS_OUT[way](rig, held)

    record = rig.record("a")
    assert record["status"] == "CANCELLED"
    assert not record.keys() & {"cancel_ms", "cancel_mode", "cancel_grace_ms", "agent", "lease_id", "due_ms"}
    assert rig.zset("leased") == rig.zset("scheduled:NORMAL") == {}
    assert (rig.line(), rig.hash("unique")) == ([], {})
    assert rig.counters()["cancelled"] == 1
    assert rig.claim("two") == []


@pytest.mark.parametrize("way", [way for way in WAYS_OUT if way != "given back by holding"])
def test_the_intent_survives_the_way_out_of_a_running_lease(rig: Rig, way: str) -> None:
    rig.enqueue("a", unique="key")
    cancelled_by(rig, rig.running(), way)


@pytest.mark.parametrize("way", [way for way in WAYS_OUT if way not in ("failed", "timeout")])
def test_the_intent_survives_the_way_out_of_an_unstarted_lease(rig: Rig, way: str) -> None:
    rig.enqueue("a", unique="key")
    cancelled_by(rig, rig.lease(), way)


def test_the_intent_ends_with_the_life_it_was_meant_for(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.running()
    rig.cancel("a")
    rig.complete(held, "failed")
    rig.replay("a")

    assert rig.complete(rig.running(), "failed")[1] == "SCHEDULED"


def test_two_entries_of_one_batch_with_one_job_cancel_once(rig: Rig) -> None:
    rig.enqueue("a", "b")
    replies = rig.run("cancel", {"job_id": "a"}, {"job_id": "a"}, {"job_id": "nobody"}, {"job_id": "b"})

    assert replies == [["CANCELLED"], ["CANCELLED"], ["NOT_FOUND"], ["CANCELLED"]]
    assert rig.counters() == {"enqueued": 2, "cancelled": 2}
