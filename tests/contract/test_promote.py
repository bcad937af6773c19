"""upkeep, time: what is due becomes claimable, never before, and gets its place in line then."""

from __future__ import annotations

from tests.contract.harness import NOW, Rig


def test_a_job_is_never_claimable_before_it_is_due(rig: Rig) -> None:
    rig.enqueue("a", delay_ms=5000)
    rig.now += 4999
    assert rig.upkeep()["promoted"] == 0
    assert rig.claim() == []
    rig.now += 1

    assert rig.upkeep()["promoted"] == 1
    assert (rig.status("a"), rig.record("a")["ready_ms"]) == ("QUEUED", str(NOW + 5000))
    assert rig.zset("scheduled:NORMAL") == {}
    assert rig.events()[-1] == "job.promoted a QUEUED - 0"


def test_the_order_number_is_given_when_a_job_becomes_claimable(rig: Rig) -> None:
    rig.enqueue("later", delay_ms=2000)
    rig.enqueue("sooner", delay_ms=1000)
    rig.enqueue("now")
    rig.now += 2000
    rig.upkeep()
    rig.enqueue("last")

    assert rig.line() == ["now", "sooner", "later", "last"]


def test_higher_priorities_are_promoted_first(rig: Rig) -> None:
    rig.enqueue(*(f"low-{n:02}" for n in range(24)), priority="LOW", delay_ms=1000)
    rig.enqueue("high-1", "high-2", priority="HIGH", delay_ms=2000)
    rig.now += 2000

    assert (rig.upkeep()["promoted"], rig.upkeep()["promoted"]) == (25, 1)
    assert rig.line()[:2] == ["high-1", "high-2"]


def test_one_step_promotes_25_jobs_and_says_that_there_may_be_more(rig: Rig) -> None:
    rig.enqueue(*(f"high-{n:02}" for n in range(25)), priority="HIGH", delay_ms=1000)
    rig.enqueue("low", priority="LOW", delay_ms=1000)
    rig.now += 1000

    first, second = rig.upkeep(), rig.upkeep()
    assert [(did["promoted"], did["more"]) for did in (first, second)] == [(25, 1), (1, 0)]


def test_a_claim_after_a_step_that_was_cut_short_does_the_next_at_once(rig: Rig) -> None:
    rig.enqueue(*(f"high-{n:02}" for n in range(30)), priority="HIGH", delay_ms=1000)
    rig.now += 1000
    rig.upkeep()

    assert len(rig.claim(max=50)) == 30


def test_upkeep_on_an_idle_queue_changes_only_its_own_notes(rig: Rig) -> None:
    rig.enqueue("a")
    rig.upkeep()
    before = rig.snapshot()
    rig.now += 50
    rig.upkeep()

    after = rig.snapshot()
    assert [key for key in before if before[key] != after[key]] == [f"{rig.root}:meta"]
