"""start, heartbeat, complete, release: whoever does not hold the current lease changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.contract.harness import Held, Rig

VERBS: dict[str, dict[str, object]] = {
    "start": {},
    "heartbeat": {},
    "complete": {"outcome": "success"},
    "release": {"delay_ms": 0},
}

every_verb = pytest.mark.parametrize("verb", VERBS)


def call(rig: Rig, verb: str, held: Held) -> list[object]:
    return rig.one(verb, **held.proof, **VERBS[verb])


@every_verb
def test_a_job_that_never_was_is_not_found(rig: Rig, verb: str) -> None:
    rig.enqueue("a")
    held = replace(rig.running(), job_id="b")
    before = rig.snapshot()

    assert call(rig, verb, held) == ["NOT_FOUND"]
    assert before == rig.snapshot()


WRONG: dict[str, Callable[[Held], Held]] = {
    "older fence": lambda held: replace(held, fence=held.fence - 1),
    "newer fence": lambda held: replace(held, fence=held.fence + 1),
    "other lease id": lambda held: replace(held, lease_id="f" * 32),
}


@every_verb
@pytest.mark.parametrize("how", WRONG)
def test_a_lease_that_is_not_current_is_stale(rig: Rig, verb: str, how: str) -> None:
    rig.enqueue("a")
    held = rig.running()
    before = rig.snapshot()

    assert call(rig, verb, WRONG[how](held)) == ["STALE_LEASE", "RUNNING"]
    assert before == rig.snapshot()


@every_verb
def test_the_lease_of_another_job_is_stale(rig: Rig, verb: str) -> None:
    rig.enqueue("a", "b")
    [first, second] = rig.claim(max=2)
    before = rig.snapshot()

    assert call(rig, verb, replace(first, job_id=second.job_id)) == ["STALE_LEASE", "CLAIMED"]
    assert before == rig.snapshot()


@every_verb
def test_the_current_lease_in_other_hands_is_refused(rig: Rig, verb: str) -> None:
    rig.enqueue("a")
    held = rig.running()
    before = rig.snapshot()

    assert call(rig, verb, replace(held, agent="two")) == ["NOT_HOLDER"]
    assert before == rig.snapshot()


@every_verb
def test_a_wrong_lease_in_other_hands_is_stale_and_tells_nothing_more(rig: Rig, verb: str) -> None:
    rig.enqueue("a")
    held = rig.running()

    assert call(rig, verb, replace(held, agent="two", lease_id="f" * 32)) == ["STALE_LEASE", "RUNNING"]


@every_verb
@pytest.mark.parametrize("now_is", ["QUEUED", "SCHEDULED", "CLAIMED", "RUNNING", "CANCELLED"])
def test_a_lease_that_ended_unconfirmed_is_stale_whatever_became_of_the_job(rig: Rig, verb: str, now_is: str) -> None:
    rig.enqueue("a")
    held = rig.lease()
    rig.release(held, delay_ms=5000 if now_is == "SCHEDULED" else 0)
    if now_is in ("CLAIMED", "RUNNING"):
        rig.lease("two", start=int(now_is == "RUNNING"))
    elif now_is == "CANCELLED":
        rig.cancel("a")
    before = rig.snapshot()

    assert call(rig, verb, held) == ["STALE_LEASE", now_is]
    assert before == rig.snapshot()


@every_verb
def test_a_late_worker_cannot_touch_a_job_that_was_reaped_and_given_to_another(rig: Rig, verb: str) -> None:
    rig.enqueue("a")
    late = rig.running("one")
    rig.lose(late)
    rig.running("two", job_id="a")
    before = rig.snapshot()

    assert call(rig, verb, late) == ["STALE_LEASE", "RUNNING"]
    after = rig.snapshot()
    evidence = {f"{rig.root}:result", f"{rig.root}:stats"} if verb == "complete" else set()
    assert {key for key in before if before[key] != after[key]} == evidence
    assert before.keys() == after.keys()


@every_verb
def test_a_late_call_before_anyone_reaped_is_accepted(rig: Rig, verb: str) -> None:
    rig.enqueue("a")
    held = rig.running()
    rig.live(held.lease_ms + 5000)

    assert call(rig, verb, held)[0] in ("STARTED", "RENEWED", "DONE", "RELEASED")


@every_verb
def test_a_job_that_shrank_to_a_tombstone_is_stale_for_whoever_did_not_end_it(rig: Rig, verb: str) -> None:
    rig.enqueue("a")
    first = rig.lease()
    rig.release(first)
    rig.complete(rig.running())
    rig.configure(retention_count=0)
    rig.upkeep()
    assert rig.record("a") == {}

    assert call(rig, verb, first) == ["STALE_LEASE", "COMPLETED"]


@every_verb
def test_one_stale_entry_does_not_spoil_the_others(rig: Rig, verb: str) -> None:
    rig.enqueue("a", "b")
    [first, second] = [rig.running(), rig.running()]
    stale = replace(first, fence=first.fence - 1)
    said = VERBS[verb]
    replies = rig.run(verb, {**stale.proof, **said}, {**second.proof, **said}, {**first.proof, **said})

    assert replies[0] == ["STALE_LEASE", "RUNNING"]
    assert replies[1][0] == replies[2][0] != "STALE_LEASE"
