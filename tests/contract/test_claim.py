"""claim: the most urgent jobs, in order, one lease each, with a fence above all before."""

from __future__ import annotations

import pytest

from tests.contract.harness import LEASE_MS, NOW, SPEC, Held, Rig


def test_a_lease_says_everything_its_holder_needs(rig: Rig) -> None:
    rig.enqueue("a", priority="HIGH", max_attempts=5)
    rig.now += 7

    assert rig.lease("one", lease_id="f" * 32, lease_ms=9000) == Held(
        job_id="a",
        spec=SPEC,
        fence=(NOW + 7) * 2048,
        lease_id="f" * 32,
        agent="one",
        status="CLAIMED",
        priority="HIGH",
        attempt=0,
        max_attempts=5,
        deliveries=1,
        generation=0,
        lease_ms=9000,
        enqueued_ms=NOW,
    )


def test_a_claimed_job_is_in_the_leased_and_held_sets_alone(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.lease(request_id="r1")

    assert rig.line() == []
    assert rig.zset("leased") == rig.zset("held:one") == {"a": NOW + LEASE_MS}
    record = rig.record("a")
    assert {name: record[name] for name in ("status", "agent", "fence", "lease_id", "lease_ms", "request")} == {
        "status": "CLAIMED",
        "agent": "one",
        "fence": str(held.fence),
        "lease_id": held.lease_id,
        "lease_ms": str(LEASE_MS),
        "request": "r1",
    }
    assert "confirmed" not in record
    assert "attempt" not in record
    assert rig.zset("agents") == {"one": NOW}
    assert rig.events()[-1] == "job.claimed a CLAIMED one 0"


def test_start_claims_straight_into_running_and_charges_the_attempt(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.lease(start=1)

    assert (held.status, held.attempt) == ("RUNNING", 1)
    assert (rig.record("a")["attempt"], rig.record("a")["started_ms"]) == ("1", str(NOW))
    assert "confirmed" not in rig.record("a")
    assert rig.counters() == {"enqueued": 1, "running": 1}


def test_higher_priorities_come_first_and_equals_in_order(rig: Rig) -> None:
    for job_id, priority in [("a", "LOW"), ("b", "NORMAL"), ("c", "CRITICAL"), ("d", "HIGH"), ("e", "NORMAL")]:
        rig.enqueue(job_id, priority=priority)

    assert [held.job_id for held in rig.claim(max=100)] == ["c", "d", "b", "e", "a"]


def test_a_job_is_leased_to_one_agent_only(rig: Rig) -> None:
    rig.enqueue("a")

    assert [held.job_id for held in rig.claim("one")] == ["a"]
    assert rig.claim("two") == []


def test_an_empty_queue_says_so_and_is_not_changed(rig: Rig) -> None:
    assert rig.claim_reply() == ["EMPTY", 0, "-1"]
    assert rig.counters() == {}


def test_empty_says_when_something_is_due(rig: Rig) -> None:
    rig.enqueue("a", delay_ms=4000, priority="LOW")
    rig.enqueue("b", delay_ms=9000, priority="CRITICAL")

    assert rig.claim_reply() == ["EMPTY", 0, "4000"]


def test_empty_has_sleepers_look_in_on_leases(rig: Rig) -> None:
    """Somebody has to have been there for a lost lease to be told from an outage."""
    rig.enqueue("a")
    rig.lease(lease_ms=20_000)
    assert rig.claim_reply("two") == ["EMPTY", 0, "5000"]

    rig.live(17_000)
    assert rig.claim_reply("two") == ["EMPTY", 0, "3000"]


def test_a_claim_takes_what_is_there_up_to_what_was_asked(rig: Rig) -> None:
    rig.enqueue("a", "b", "c")

    assert [held.job_id for held in rig.claim(max=2)] == ["a", "b"]
    assert [held.job_id for held in rig.claim(max=2)] == ["c"]


def test_one_call_gives_at_most_its_budget(rig: Rig) -> None:
    for first in range(0, 60, 20):
        rig.enqueue(*(f"job-{n:02}" for n in range(first, first + 20)))

    first, second = rig.run(
        "claim",
        {"agent": "one", "lease_id": "1" * 32, "max": 100},
        {"agent": "two", "lease_id": "2" * 32, "max": 100},
    )
    jobs = [job[0] for reply in (first, second) for job in reply[1]]
    assert sorted(jobs) == [f"job-{n:02}" for n in range(50)]
    assert (len(first[1]), len(second[1])) == (25, 25)


def test_each_entry_gets_one_job_before_any_gets_a_second(rig: Rig) -> None:
    rig.enqueue("a", "b", "c", "d")
    replies = rig.run(
        "claim",
        {"agent": "one", "lease_id": "1" * 32, "max": 3},
        {"agent": "two", "lease_id": "2" * 32, "max": 3},
        {"agent": "three", "lease_id": "3" * 32, "max": 1},
    )

    assert [[job[0] for job in reply[1]] for reply in replies] == [["a", "d"], ["b"], ["c"]]


def test_an_entry_that_comes_too_late_is_empty_while_others_are_served(rig: Rig) -> None:
    rig.enqueue("a")
    replies = rig.run("claim", {"agent": "one", "lease_id": "1" * 32}, {"agent": "two", "lease_id": "2" * 32})

    assert [reply[0] for reply in replies] == ["LEASED", "EMPTY"]


def test_a_claim_promotes_what_is_due_before_it_picks(rig: Rig) -> None:
    rig.enqueue("later", delay_ms=5000, priority="HIGH")
    rig.enqueue("now")
    rig.now += 4999
    assert rig.lease().job_id == "now"
    rig.now += 1

    assert rig.claim() == []  # upkeep ran within the last 20 ms
    rig.now += 20
    assert rig.lease().job_id == "later"


def test_a_claim_reaps_what_ran_out_before_it_picks(rig: Rig) -> None:
    rig.enqueue("a")
    first = rig.running("one")
    rig.live(LEASE_MS)

    assert rig.lease("two", job_id="a").fence > first.fence


def test_the_queues_record_is_left_alone_by_a_paused_claim(rig: Rig) -> None:
    rig.enqueue("a")
    rig.one("pause", paused=1)

    assert rig.claim_reply() == ["PAUSED", 0, "-1"]
    assert rig.status("a") == "QUEUED"


# -- fences ----------------------------------------------------------------------------------------------


def test_fences_of_one_queue_grow_with_every_claim_whatever_the_job(rig: Rig) -> None:
    rig.enqueue("a", "b", "c", priority="LOW")
    fences = [held.fence for held in rig.claim(max=2)]
    rig.now += 1
    fences += [held.fence for held in rig.claim("two")]

    assert fences == [NOW * 2048, NOW * 2048 + 1, (NOW + 1) * 2048]
    assert rig.hash("meta")["fence"] == str(fences[-1])


def test_fences_grow_when_the_clock_is_set_back(rig: Rig) -> None:
    rig.enqueue("a", "b", "c")
    first = rig.lease()
    rig.now -= 3_600_000

    assert [rig.lease().fence, rig.lease().fence] == [first.fence + 1, first.fence + 2]


def test_fences_stay_above_those_given_before_an_older_backup_was_restored(rig: Rig) -> None:
    """The backup knows nothing of the last minute's claims, but the clock went on, and the fence with it."""
    rig.enqueue("a", "b")
    backup = rig.hash("meta")["fence"]
    rig.live(60_000)
    given = rig.lease()
    rig.client.hset(f"{rig.root}:meta", "fence", backup)
    rig.now += 1

    assert rig.lease("two").fence > given.fence


def test_a_fence_and_a_score_are_whole_numbers_however_large(rig: Rig) -> None:
    """2^53 is where Lua's numbers end; a fence of the year 2100 must still be printed to the last digit."""
    rig.now = 4_102_444_800_000
    rig.enqueue("a", "b")
    fences = [held.fence for held in rig.claim(max=2)]

    assert fences == [4_102_444_800_000 * 2048, 4_102_444_800_000 * 2048 + 1]
    assert rig.record("b")["fence"] == str(fences[1])


# -- waits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("waited_ms", "bucket"), [(0, "w0"), (1, "w1"), (2, "w15"), (60_000, "w226")])
def test_the_wait_of_each_claim_is_counted_in_its_bucket(rig: Rig, waited_ms: int, bucket: str) -> None:
    rig.enqueue("a")
    rig.now += waited_ms
    rig.lease()

    assert rig.hash(f"latency:{rig.now // 60_000}") == {bucket: "1"}


def test_the_wait_of_a_delayed_job_counts_from_when_it_was_due(rig: Rig) -> None:
    rig.enqueue("a", delay_ms=50_000)
    rig.live(50_000)
    rig.upkeep()
    rig.lease()

    assert rig.hash(f"latency:{rig.now // 60_000}") == {"w0": "1"}


# -- lanes -----------------------------------------------------------------------------------------------


def lay_lanes(rig: Rig) -> None:
    """Make the lanes gpu and arm, at version 3."""
    rig.client.hset(f"{rig.root}:lanes", mapping={"gpu": "{}", "arm": "{}"})
    rig.client.hset(f"{rig.root}:meta", "lanes_version", "3")


def test_a_claim_that_knows_older_lanes_is_refused_before_anything_is_done(rig: Rig) -> None:
    lay_lanes(rig)
    rig.enqueue("a")
    rig.enqueue("due", delay_ms=10)
    rig.now += 50
    before = rig.snapshot()
    entry = {"agent": "one", "lease_id": "0" * 32}

    assert rig.run("claim", entry, lanes="any,gpu", lanes_version=2) == ["LANES_CHANGED", "3"]
    assert before == rig.snapshot()


def test_lanes_are_merged_by_rank(rig: Rig) -> None:
    lay_lanes(rig)
    rig.enqueue("a")
    rig.enqueue("b", lane="gpu")
    rig.enqueue("c", lane="gpu", priority="HIGH")
    rig.enqueue("d", lane="arm", priority="CRITICAL")

    got = rig.claim(max=9, lanes="any,gpu", lanes_version=3)
    assert [held.job_id for held in got] == ["c", "a", "b"]


def test_an_agent_that_knows_no_lanes_gets_jobs_without_requirements(rig: Rig) -> None:
    lay_lanes(rig)
    rig.enqueue("a", lane="gpu", priority="CRITICAL")
    rig.enqueue("b")

    assert [held.job_id for held in rig.claim(max=9)] == ["b"]
