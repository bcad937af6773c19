"""start: the work of a lease begins, its attempt is charged once."""

from __future__ import annotations

from tests.contract.harness import LEASE_MS, NOW, Rig


def test_a_claimed_job_runs_and_its_attempt_is_charged(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.lease()
    rig.now += 50

    assert rig.start(held) == ["STARTED", "1"]
    record = rig.record("a")
    assert (record["status"], record["attempt"], record["started_ms"]) == ("RUNNING", "1", str(NOW + 50))
    assert record["confirmed"] == "1"
    assert rig.counters() == {"enqueued": 1, "running": 1}
    assert rig.events()[-1] == "job.started a RUNNING one 1"


def test_start_does_not_move_the_end_of_the_lease(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.lease()
    rig.now += 50
    rig.start(held)

    assert rig.zset("leased") == rig.zset("held:one") == {"a": NOW + LEASE_MS}


def test_a_repeated_start_is_the_same_start(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.running()
    before = rig.snapshot()

    assert rig.start(held) == ["STARTED", "1"]
    assert before == rig.snapshot()


def test_starting_what_the_claim_started_confirms_it_and_charges_nothing(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.lease(start=1)

    assert rig.start(held) == ["STARTED", "1"]
    assert (rig.record("a")["attempt"], rig.record("a")["confirmed"]) == ("1", "1")
    assert rig.counters() == {"enqueued": 1, "running": 1}


def test_every_attempt_is_charged(rig: Rig) -> None:
    rig.enqueue("a", max_attempts=5)
    for attempt in (1, 2, 3):
        held = rig.lease()
        assert rig.start(held) == ["STARTED", str(attempt)]
        rig.complete(held, "failed", jitter=0)


def test_a_job_whose_cancel_was_requested_is_cancelled_instead_of_started(rig: Rig) -> None:
    rig.enqueue("a", unique="key")
    held = rig.lease()
    rig.cancel("a")

    assert rig.start(held) == ["CANCELLED"]
    assert rig.status("a") == "CANCELLED"
    assert "attempt" not in rig.record("a")
    assert (rig.zset("leased"), rig.zset("held:one"), rig.hash("unique")) == ({}, {}, {})
    assert rig.counters() == {"enqueued": 1, "cancelled": 1}
    assert rig.events()[-1] == "job.cancelled a CANCELLED one 0"


def test_a_running_job_whose_cancel_was_requested_goes_on(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.running()
    rig.cancel("a")

    assert rig.start(held) == ["STARTED", "1"]


def test_two_entries_of_one_batch_with_one_lease_start_once(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.lease()

    assert rig.run("start", held.proof, held.proof) == [["STARTED", "1"], ["STARTED", "1"]]
    assert rig.counters() == {"enqueued": 1, "running": 1}
