"""heartbeat: leases renewed by the length they were claimed with, and word of cancel requests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.contract.harness import NOW, Rig


@pytest.mark.parametrize("lease_ms", [1000, 30_000, 3_600_000])
@pytest.mark.parametrize("start", [0, 1])
def test_a_lease_lasts_its_length_from_the_heartbeat_on(rig: Rig, lease_ms: int, start: int) -> None:
    rig.enqueue("a")
    held = rig.lease(lease_ms=lease_ms, start=start)
    rig.now += 400

    assert rig.heartbeat(held) == ["RENEWED", str(lease_ms), "", "0"]
    assert rig.zset("leased") == rig.zset("held:one") == {"a": NOW + 400 + lease_ms}


def test_a_heartbeat_confirms_the_lease_and_leaves_the_job_as_it_is(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.lease()
    before = rig.record("a")
    rig.heartbeat(held)

    assert rig.record("a") == {**before, "confirmed": "1"}


def test_a_heartbeat_that_comes_late_but_before_the_reaper_saves_the_lease(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.running()
    rig.live(held.lease_ms + 1)
    rig.heartbeat(held)

    assert rig.upkeep()["requeued"] == 0
    assert rig.status("a") == "RUNNING"


@pytest.mark.parametrize("mode", ["graceful", "kill"])
def test_a_heartbeat_brings_word_of_a_cancel_request_until_it_is_obeyed(rig: Rig, mode: str) -> None:
    rig.enqueue("a")
    held = rig.running()
    rig.cancel("a", mode=mode, grace_ms=7000)

    assert rig.heartbeat(held) == ["RENEWED", "30000", mode, "7000"]
    assert rig.heartbeat(held) == ["RENEWED", "30000", mode, "7000"]


def test_each_lease_of_a_batch_has_its_own_answer(rig: Rig) -> None:
    rig.enqueue("a", "b", "c")
    [first, second, third] = rig.claim(max=3)
    rig.cancel("b")
    rig.release(third)

    assert rig.run("heartbeat", first.proof, second.proof, third.proof) == [
        ["RENEWED", "30000", "", "0"],
        ["RENEWED", "30000", "graceful", "10000"],
        ["STALE_LEASE", "QUEUED"],
    ]


def test_the_right_fence_with_another_lease_id_renews_nothing(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.lease()

    assert rig.heartbeat(replace(held, lease_id="f" * 32)) == ["STALE_LEASE", "CLAIMED"]


def test_the_right_lease_in_other_hands_renews_nothing(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.lease("one")

    assert rig.heartbeat(replace(held, agent="two")) == ["NOT_HOLDER"]


def test_the_right_lease_id_with_an_older_fence_renews_nothing(rig: Rig) -> None:
    """One claim gives all its leases one lease id; only the fence tells a job's lease from its next."""
    rig.enqueue("a")
    first = rig.lease(lease_id="e" * 32)
    rig.release(first)
    rig.lease(lease_id="e" * 32)

    assert rig.heartbeat(first) == ["STALE_LEASE", "CLAIMED"]


def test_the_same_lease_twice_in_a_batch_is_renewed_once_and_answered_twice(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.lease()

    assert rig.run("heartbeat", held.proof, held.proof) == [["RENEWED", "30000", "", "0"]] * 2
    assert rig.zset("leased") == {"a": NOW + 30_000}


def test_a_credential_alone_stands_for_every_name_it_claimed_under(rig: Rig) -> None:
    """Over HTTP only the credential is known by then; the name before the `@` is the caller's own affair."""
    rig.enqueue("job")
    held = rig.running("one@abc")

    assert rig.one("heartbeat", **{**held.proof, "agent": "@other"}) == ["NOT_HOLDER"]
    assert rig.one("heartbeat", **{**held.proof, "agent": "one"}) == ["NOT_HOLDER"]
    assert rig.one("heartbeat", **{**held.proof, "agent": "@abc"})[0] == "RENEWED"
    assert rig.one("complete", **{**held.proof, "agent": "@abc", "outcome": "success"})[:2] == ["DONE", "COMPLETED"]
    assert rig.one("complete", **{**held.proof, "agent": "@other", "outcome": "success"}) == ["NOT_HOLDER"]
    assert rig.one("complete", **{**held.proof, "agent": "@abc", "outcome": "success"}) == ["REPLAYED", "COMPLETED"]
