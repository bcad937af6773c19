"""The bell: whatever makes a job claimable rings, once a call and lane; nothing else does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contract.harness import Held, Rig


def rung(rig: Rig, act: Callable[[], object]) -> list[str]:
    """What the bell says while something is done."""
    with rig.listen() as bell:
        act()
        return bell.heard()


def test_an_enqueue_rings_once_a_lane_with_the_number_of_jobs(rig: Rig) -> None:
    rig.client.hset(f"{rig.root}:lanes", "gpu", "{}")
    entries = [{"job_id": "a"}, {"job_id": "b"}, {"job_id": "c", "lane": "gpu"}, {"job_id": "a"}]

    assert sorted(rung(rig, lambda: rig.run("enqueue", *entries))) == ["any 2", "gpu 1"]


def test_an_enqueue_for_later_says_when_the_first_is_due(rig: Rig) -> None:
    entries = [{"job_id": "a", "delay_ms": 9000}, {"job_id": "b", "delay_ms": 4000}]

    assert rung(rig, lambda: rig.run("enqueue", *entries)) == ["due 4000"]


def test_a_duplicate_rings_nothing(rig: Rig) -> None:
    rig.enqueue("a", unique="key")

    assert rung(rig, lambda: (rig.enqueue("a"), rig.enqueue("b", unique="key"))) == []


@pytest.mark.parametrize("by", ["upkeep", "claim"])
def test_a_promotion_rings(rig: Rig, by: str) -> None:
    rig.enqueue("a", "b", delay_ms=1000)
    rig.now += 1000

    assert rung(rig, rig.upkeep if by == "upkeep" else rig.claim) == ["any 2"]


@pytest.mark.parametrize("by", ["upkeep", "claim"])
def test_a_lost_lease_rings(rig: Rig, by: str) -> None:
    rig.enqueue("a")
    rig.lease()
    rig.live(30_000)

    assert rung(rig, rig.upkeep if by == "upkeep" else rig.claim) == ["any 1"]


def test_a_lost_lease_whose_job_has_to_wait_says_when_it_is_due(rig: Rig) -> None:
    rig.enqueue("a")
    rig.lose(rig.lease())
    rig.lease()
    rig.live(30_000)

    assert rung(rig, rig.upkeep) == ["due 1000"]


LEASED: dict[str, tuple[Callable[[Rig, Held], object], list[str]]] = {
    "release": (lambda rig, held: rig.release(held), ["any 1"]),
    "release with a delay": (lambda rig, held: rig.release(held, delay_ms=700), ["due 700"]),
    "failed, to be retried at once": (lambda rig, held: rig.complete(held, "failed", jitter=0), ["any 1"]),
    "failed, to be retried later": (lambda rig, held: rig.complete(held, "failed"), ["due 2500"]),
    "failed for good": (lambda rig, held: rig.complete(held, "failed", retryable=0), []),
    "success": (lambda rig, held: rig.complete(held), []),
    "heartbeat": (lambda rig, held: rig.heartbeat(held), []),
    "cancel": (lambda rig, held: rig.cancel(held.job_id), []),
    "reprioritise": (lambda rig, held: rig.one("reprioritise", job_id=held.job_id, priority="HIGH"), []),
}


@pytest.mark.parametrize("what", LEASED)
def test_the_end_of_a_lease_rings_when_the_job_may_be_claimed_again(rig: Rig, what: str) -> None:
    act, expected = LEASED[what]
    rig.enqueue("a")
    held = rig.running()

    assert rung(rig, lambda: act(rig, held)) == expected


def test_a_lease_given_back_by_holding_rings(rig: Rig) -> None:
    rig.enqueue("a")
    rig.lease()
    rig.now += 3000

    assert rung(rig, lambda: rig.claim(holding=",")) == ["any 1"]


def test_a_replay_rings(rig: Rig) -> None:
    rig.enqueue("a", max_attempts=1)
    rig.complete(rig.running(), "failed")

    assert rung(rig, lambda: rig.replay("a")) == ["any 1"]


def test_a_new_priority_rings_for_a_queued_job_and_for_no_other(rig: Rig) -> None:
    rig.enqueue("a")
    rig.enqueue("b", delay_ms=1000)

    assert rung(rig, lambda: rig.one("reprioritise", job_id="a", priority="HIGH")) == ["any 1"]
    assert rung(rig, lambda: rig.one("reprioritise", job_id="b", priority="HIGH")) == []


def test_resume_rings_with_the_number_of_jobs_and_pause_does_not(rig: Rig) -> None:
    rig.enqueue("a", "b")

    assert rung(rig, lambda: rig.one("pause", paused=1)) == []
    assert rung(rig, lambda: rig.one("pause", paused=0)) == ["any 2"]
    assert rung(rig, lambda: rig.one("pause", paused=0)) == []


def test_claims_and_looks_ring_nothing(rig: Rig) -> None:
    rig.enqueue("a")
    entry = {"job_id": "a"}

    assert rung(rig, lambda: (rig.claim(), rig.claim(), rig.run("describe", entry), rig.run("stats"))) == []


# -- agents whose claims are answered otherwise -----------------------------------------------------------


def enlist(rig: Rig, **said: object) -> Callable[[], object]:
    return lambda: rig.one("enlist", **{"agent": "one", "generation": 5, "capacity": 2, **said})


def test_claims_of_an_agent_that_is_to_drain_are_called(rig: Rig) -> None:
    enlist(rig)()

    assert rung(rig, enlist(rig, drain=1)) == ["agent one"]
    assert rung(rig, enlist(rig, drain=0)) == ["agent one"]


@pytest.mark.parametrize("said", [{"generation": 6}, {"capacity": 0}, {"capacity": 3}])
def test_what_changes_the_answer_to_an_agent_calls_its_claims(rig: Rig, said: dict[str, int]) -> None:
    enlist(rig)()

    assert rung(rig, enlist(rig, **said)) == ["agent one"]


@pytest.mark.parametrize("said", [{}, {"generation": 4}])
def test_what_changes_nothing_of_an_agent_calls_nobody(rig: Rig, said: dict[str, int]) -> None:
    assert rung(rig, enlist(rig)) == []
    assert rung(rig, enlist(rig, **said)) == []
