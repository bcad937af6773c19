"""upkeep, outages: leases that nobody could renew get one lease of grace; a clock set back keeps nothing for ever."""

from __future__ import annotations

import pytest

from tests.contract.harness import LEASE_MS, Rig


def sleep(rig: Rig, ms: int) -> None:
    """Nobody calls for so long: Redis was away, or everybody was cut off."""
    rig.now += ms


def test_an_outage_longer_than_half_a_lease_spares_all_leases_once(rig: Rig) -> None:
    rig.enqueue("a", "b")
    rig.running(job_id="a")
    rig.lease(job_id="b")
    sleep(rig, LEASE_MS + 1)

    assert rig.upkeep()["requeued"] == 0
    assert rig.zset("leased") == rig.zset("held:one") == {"a": rig.now + LEASE_MS, "b": rig.now + LEASE_MS}
    rig.live(LEASE_MS - 1)
    assert rig.upkeep()["requeued"] == 0
    rig.now += 1
    assert rig.upkeep()["requeued"] == 2


def test_a_holder_that_comes_back_within_the_grace_goes_on(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.running()
    sleep(rig, 3_600_000)
    rig.upkeep()
    rig.live(LEASE_MS - 1)

    assert rig.heartbeat(held)[0] == "RENEWED"
    assert rig.complete(held)[1] == "COMPLETED"


@pytest.mark.parametrize(("gap_ms", "reaped"), [(15_000, 1), (15_001, 0)])
def test_a_gap_of_up_to_half_a_lease_is_no_outage(rig: Rig, gap_ms: int, reaped: int) -> None:
    rig.enqueue("a")
    rig.running()
    rig.live(LEASE_MS - gap_ms)
    sleep(rig, gap_ms)

    assert rig.upkeep()["requeued"] == reaped


def test_the_length_of_each_lease_decides_what_an_outage_is_for_it(rig: Rig) -> None:
    rig.enqueue("short", "long")
    rig.lease(lease_ms=4000, job_id="short")
    rig.lease(lease_ms=10_000, job_id="long")
    rig.live(9000 - 3000, step_ms=1000)
    sleep(rig, 3000)
    rig.live(1000, step_ms=500)

    assert rig.upkeep()["requeued"] == 1
    assert (rig.status("short"), rig.status("long")) == ("CLAIMED", "QUEUED")


def test_a_lease_given_after_the_outage_has_no_part_in_the_grace(rig: Rig) -> None:
    rig.enqueue("a", "b")
    rig.lease(job_id="a")
    sleep(rig, 60_000)
    rig.upkeep()
    rig.live(1000)
    rig.lease(job_id="b", lease_ms=2000)
    rig.live(2000, step_ms=900)

    assert rig.upkeep()["requeued"] == 1
    assert (rig.status("a"), rig.status("b")) == ("CLAIMED", "QUEUED")


def test_a_second_outage_gives_grace_again(rig: Rig) -> None:
    rig.enqueue("a")
    rig.running()
    for _ in range(3):
        sleep(rig, LEASE_MS + 1)
        assert rig.upkeep()["requeued"] == 0


def test_a_short_idle_spell_does_not_take_the_grace_of_a_long_outage_away(rig: Rig) -> None:
    rig.enqueue("a")
    rig.running()
    sleep(rig, 60_000)
    rig.upkeep()
    sleep(rig, 600)

    assert rig.upkeep()["requeued"] == 0


def test_any_verb_notes_the_outage(rig: Rig) -> None:
    rig.enqueue("a")
    rig.running()
    sleep(rig, LEASE_MS + 1)
    rig.enqueue("b")

    assert rig.upkeep()["requeued"] == 0


# -- a clock set back ------------------------------------------------------------------------------------


def test_deadlines_too_far_ahead_are_brought_in(rig: Rig) -> None:
    rig.enqueue("a")
    rig.running()
    rig.now -= 7_200_000
    rig.upkeep()

    assert rig.zset("leased") == rig.zset("held:one") == {"a": rig.now + LEASE_MS}
    rig.live(LEASE_MS)
    assert rig.upkeep()["requeued"] == 1


def test_a_deadline_within_the_longest_lease_stays(rig: Rig) -> None:
    rig.enqueue("a")
    rig.running(lease_ms=3_600_000)
    before = rig.zset("leased")
    rig.upkeep()

    assert before == rig.zset("leased")


def test_upkeep_goes_on_after_the_clock_was_set_back(rig: Rig) -> None:
    rig.upkeep()
    rig.now -= 3_600_000
    rig.enqueue("a", delay_ms=10)
    rig.now += 10

    assert [held.job_id for held in rig.claim()] == ["a"]


def test_a_step_forward_and_back_spares_nobody_for_as_long_as_the_step(rig: Rig) -> None:
    """The gap was seen half an hour ahead; until then every lost lease would have been renewed again and again."""
    rig.enqueue("a")
    sleep(rig, 1_800_000)
    rig.upkeep()
    rig.now -= 1_800_000
    rig.running()
    rig.live(LEASE_MS)

    assert rig.upkeep()["requeued"] == 1


def test_a_small_step_back_after_an_outage_takes_no_grace_away(rig: Rig) -> None:
    rig.enqueue("a")
    rig.running()
    sleep(rig, 60_000)
    rig.enqueue("b")
    rig.now -= 3

    assert rig.upkeep()["requeued"] == 0
    assert rig.zset("leased") == {"a": rig.now + 3 + LEASE_MS}
