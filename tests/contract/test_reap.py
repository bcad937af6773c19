"""upkeep, leases: what ran out goes back, and what that costs depends on what its holder showed."""

from __future__ import annotations

import pytest

from tests.contract.harness import LEASE_MS, Rig


def test_a_lease_lasts_to_its_last_millisecond(rig: Rig) -> None:
    rig.enqueue("a")
    rig.running()
    rig.live(LEASE_MS - 1)
    assert rig.upkeep()["requeued"] == 0
    rig.now += 1

    assert rig.upkeep()["requeued"] == 1
    assert rig.status("a") == "QUEUED"
    assert rig.zset("leased") == rig.zset("held:one") == {}


def test_a_lost_run_costs_its_attempt_and_keeps_its_place(rig: Rig) -> None:
    rig.enqueue("a", "b")
    held = rig.running(job_id="a")
    claimed = rig.now
    rig.lose(held)

    assert rig.line() == ["a", "b"]
    record = rig.record("a")
    assert (record["attempt"], record["ready_ms"], record["outcome"]) == ("1", str(rig.now), "lost")
    assert "unstarted" not in record
    assert rig.history("a") == [[1, "one", held.fence, claimed, claimed, rig.now, "lost", "QUEUED", None, None, None]]
    assert rig.counters() == {"enqueued": 2, "lost_leases": 1}
    assert rig.events()[-1] == "job.lost a QUEUED one 1"


@pytest.mark.parametrize("most", [1, 3])
def test_lost_runs_use_up_the_attempts(rig: Rig, most: int) -> None:
    rig.enqueue("a", max_attempts=most)
    for _ in range(most):
        did = rig.lose(rig.running())

    assert (did["requeued"], did["dead_lettered"]) == (0, 1)
    assert (rig.status("a"), rig.record("a")["dead_reason"]) == ("DEAD_LETTERED", "lease_lost")
    assert rig.record("a")["attempt"] == str(most)
    assert rig.events()[-1] == f"job.lost a DEAD_LETTERED one {most}"


def test_an_unconfirmed_lease_goes_back_as_if_never_given(rig: Rig) -> None:
    rig.enqueue("a")
    rig.lose(rig.lease())

    record = rig.record("a")
    assert (record["status"], record["attempt"], record["unstarted"]) == ("QUEUED", "0", "1")
    assert rig.history("a") == []


def test_an_unconfirmed_lease_goes_back_uncharged_though_the_claim_started_it(rig: Rig) -> None:
    rig.enqueue("a", max_attempts=1)
    rig.lose(rig.lease(start=1))

    assert (rig.status("a"), rig.record("a")["attempt"]) == ("QUEUED", "0")
    assert rig.counters() == {"enqueued": 1, "lost_leases": 1}


def test_a_heartbeat_makes_what_the_claim_started_a_run_that_counts(rig: Rig) -> None:
    rig.enqueue("a", max_attempts=1)
    held = rig.lease(start=1)
    rig.heartbeat(held)
    rig.lose(held)

    assert (rig.status("a"), rig.record("a")["dead_reason"]) == ("DEAD_LETTERED", "lease_lost")


def test_a_confirmed_lease_that_was_never_started_costs_no_attempt(rig: Rig) -> None:
    rig.enqueue("a", max_attempts=1)
    held = rig.lease()
    rig.heartbeat(held)
    rig.lose(held)

    record = rig.record("a")
    assert (record["status"], record["attempt"], record["unstarted"]) == ("QUEUED", "0", "1")
    assert [line[6:8] for line in rig.history("a")] == [["lost", "QUEUED"]]


def test_twenty_leases_that_were_never_started_make_a_dead_letter(rig: Rig) -> None:
    """The first goes back at once, the others after 1, 2, 4 … 60 seconds; the job keeps its place all the while."""
    rig.enqueue("a")
    delays = []
    for _ in range(19):
        rig.lose(rig.lease(lease_ms=1000))
        due = rig.zset("scheduled:NORMAL").get("a", rig.now)
        delays.append((due - rig.now) // 1000)
        assert rig.record("a")["order"] == "1"
        rig.live(due - rig.now)
        rig.upkeep()

    assert delays == [0, 1, 2, 4, 8, 16, 32, *[60] * 12]
    assert rig.lose(rig.lease(lease_ms=1000))["dead_lettered"] == 1
    record = rig.record("a")
    assert (record["status"], record["dead_reason"]) == ("DEAD_LETTERED", "never_started")
    assert (record["attempt"], record["unstarted"], record["deliveries"]) == ("0", "20", "20")


def test_a_run_does_not_forget_the_leases_that_never_started(rig: Rig) -> None:
    rig.enqueue("a", max_attempts=9)
    rig.lose(rig.lease())
    rig.lose(rig.running())
    rig.lose(rig.lease())

    assert (rig.status("a"), rig.record("a")["unstarted"]) == ("SCHEDULED", "2")


def test_the_loser_is_passed_over_for_longer_each_time(rig: Rig) -> None:
    rig.enqueue("a", max_attempts=9)
    delays = []
    for _ in range(3):
        rig.release(rig.running())
        rig.lose(rig.running())
        delays.append(int(rig.record("a")["avoid_until_ms"]) - rig.now)

    assert delays == [2000, 4000, 8000]


def test_one_step_reaps_25_leases_and_says_that_there_are_more(rig: Rig) -> None:
    for first in range(0, 60, 20):
        rig.enqueue(*(f"job-{n:02}" for n in range(first, first + 20)))
    rig.claim(max=50)
    rig.live(LEASE_MS)

    steps = [rig.upkeep() for _ in range(3)]
    assert [(did["requeued"], did["more"]) for did in steps] == [(25, 1), (25, 1), (0, 0)]


def test_a_claim_says_that_upkeep_was_cut_short(rig: Rig) -> None:
    for first in range(0, 30, 15):
        rig.enqueue(*(f"job-{n:02}" for n in range(first, first + 15)))
    rig.claim(max=50)
    rig.run("cancel", *({"job_id": f"job-{n:02}"} for n in range(30)))
    rig.live(LEASE_MS)

    assert rig.claim_reply("two")[:2] == ["EMPTY", 1]
    assert rig.claim_reply("two")[:2] == ["EMPTY", 0]
    assert rig.counters()["cancelled"] == 30


def test_leases_are_reaped_the_oldest_end_first(rig: Rig) -> None:
    rig.enqueue("a", "b")
    rig.lease(lease_ms=20_000, job_id="a")
    rig.lease(lease_ms=10_000, job_id="b")
    rig.live(10_000, step_ms=4000)
    rig.upkeep()

    assert (rig.status("a"), rig.status("b")) == ("CLAIMED", "QUEUED")


def test_upkeep_says_when_to_look_in_again(rig: Rig) -> None:
    assert rig.upkeep()["next_due_ms"] == -1
    rig.enqueue("a", delay_ms=60_000)
    assert rig.upkeep()["next_due_ms"] == 60_000
    rig.enqueue("b")
    rig.lease(lease_ms=20_000)

    assert rig.upkeep()["next_due_ms"] == 5000
