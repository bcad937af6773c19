"""purge: dead letters deleted for good, and nothing else."""

from __future__ import annotations

import pytest

from tests.contract.harness import Rig
from tests.contract.test_replay import dead


def purge(rig: Rig, job_id: str) -> list[object]:
    return rig.one("purge", job_id=job_id)


def test_a_job_that_never_was_is_not_found(rig: Rig) -> None:
    before = rig.snapshot()

    assert purge(rig, "a") == ["NOT_FOUND"]
    assert before == rig.snapshot()


def test_nothing_is_left_of_a_purged_dead_letter(rig: Rig) -> None:
    dead(rig)

    assert purge(rig, "a") == ["PURGED"]
    assert not any("a" in rig.zset(name) for name in ("all", "dead", "finished"))
    assert rig.record("a") == rig.hash("spec") == rig.hash("result") == rig.hash("tombs") == {}
    assert rig.counters() == {"enqueued": 1, "dead_lettered": 1, "purged": 1, "pruned": 1}
    assert rig.events()[-1] == "job.purged a DEAD_LETTERED - 0"
    assert purge(rig, "a") == ["NOT_FOUND"]


@pytest.mark.parametrize("status", ["QUEUED", "SCHEDULED", "CLAIMED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"])
def test_what_is_no_dead_letter_is_left_alone(rig: Rig, status: str) -> None:
    rig.enqueue("a", delay_ms=5000 if status == "SCHEDULED" else 0)
    if status == "CANCELLED":
        rig.cancel("a")
    elif status not in ("QUEUED", "SCHEDULED"):
        held = rig.lease(start=int(status != "CLAIMED"))
        if status in ("COMPLETED", "FAILED"):
            rig.complete(held, "success" if status == "COMPLETED" else "rejected")
    before = rig.snapshot()

    assert purge(rig, "a") == ["NOT_DEAD", status]
    assert before == rig.snapshot()


def test_a_purged_id_may_be_used_again(rig: Rig) -> None:
    dead(rig)
    purge(rig, "a")

    assert rig.enqueue("a", digest="digest-2") == ["ENQUEUED", "QUEUED"]


def test_entries_are_independent(rig: Rig) -> None:
    dead(rig, "a")
    dead(rig, "b")
    rig.enqueue("c")
    replies = rig.run("purge", *({"job_id": job_id} for job_id in ("a", "c", "a", "b")))

    assert replies == [["PURGED"], ["NOT_DEAD", "QUEUED"], ["NOT_FOUND"], ["PURGED"]]
