"""release: a lease handed back, the attempt with it, the place in line kept."""

from __future__ import annotations

import pytest

from tests.contract.harness import NOW, Rig


@pytest.mark.parametrize("start", [0, 1])
def test_a_released_job_waits_at_its_old_place_uncharged(rig: Rig, start: int) -> None:
    rig.enqueue("a", "b", "c")
    rig.lease("two", job_id="a")
    held = rig.lease("one", job_id="b", start=start)
    order = rig.record("b")["order"]

    assert rig.release(held) == ["RELEASED", "QUEUED", "0"]
    assert rig.line() == ["b", "c"]
    record = rig.record("b")
    assert (record["order"], record["attempt"], record["releases"], record["deliveries"]) == (order, "0", "1", "1")
    assert rig.counters() == {"enqueued": 3, "released": 1}
    assert rig.events()[-1] == "job.released b QUEUED one 0"


def test_nothing_of_the_lease_stays_in_the_record_but_its_fence(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.running(request_id="r1")
    rig.release(held)

    record = rig.record("a")
    assert record["fence"] == str(held.fence)
    leased = ("agent", "lease_id", "lease_ms", "request", "claimed_ms", "started_ms", "confirmed")
    assert not record.keys() & set(leased)
    assert rig.zset("leased") == rig.zset("held:one") == {}


def test_a_delay_keeps_the_job_back_and_its_order_too(rig: Rig) -> None:
    rig.enqueue("a", "b")
    held = rig.lease(job_id="a")

    assert rig.release(held, delay_ms=5000) == ["RELEASED", "SCHEDULED", "5000"]
    assert rig.zset("scheduled:NORMAL") == {"a": NOW + 5000}
    rig.now += 5000
    assert rig.upkeep()["promoted"] == 1
    assert rig.line() == ["a", "b"]


def test_a_job_whose_cancel_was_requested_is_cancelled_by_its_release(rig: Rig) -> None:
    rig.enqueue("a", unique="key")
    held = rig.running()
    rig.cancel("a")

    assert rig.release(held, delay_ms=5000) == ["RELEASED", "CANCELLED", "0"]
    assert rig.hash("unique") == {}
    assert rig.counters() == {"enqueued": 1, "released": 1, "cancelled": 1}


def test_a_confirmed_lease_that_is_released_is_in_the_history(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.running()
    rig.now += 10
    rig.release(held)

    assert rig.history("a") == [[1, "one", held.fence, NOW, NOW, NOW + 10, "released", "QUEUED", None, None, None]]


def test_an_unconfirmed_lease_leaves_no_history(rig: Rig) -> None:
    rig.enqueue("a")
    rig.release(rig.lease(start=1))

    assert rig.history("a") == []
    assert rig.record("a")["attempt"] == "0"


def test_a_job_may_be_released_for_ever_and_still_runs(rig: Rig) -> None:
    rig.enqueue("a", max_attempts=1)
    for _ in range(30):
        assert rig.release(rig.running())[1] == "QUEUED"

    assert rig.record("a")["releases"] == "30"
    assert rig.complete(rig.running()) == ["DONE", "COMPLETED", "0"]


def test_two_entries_of_one_batch_with_one_lease_release_once(rig: Rig) -> None:
    rig.enqueue("a")
    proof = rig.lease().proof

    assert rig.run("release", proof, proof) == [["RELEASED", "QUEUED", "0"], ["STALE_LEASE", "QUEUED"]]
    assert rig.counters() == {"enqueued": 1, "released": 1}
