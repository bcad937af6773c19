"""describe, list, stats: what looks in changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.conftest import servers_only
from tests.contract.harness import LEASE_MS, NOW, SPEC, Rig


def page(rig: Rig, **said: Any) -> tuple[list[str], tuple[str, str]]:
    """One page of ids, and where the next begins."""
    [[tag, ids, score, job_id]] = rig.run("list", **{"priority": "", **said})
    assert tag == "PAGE"
    return ids, (score, job_id)


def pages(rig: Rig, **said: Any) -> list[list[str]]:
    """All pages of a list."""
    found, cursor = [], ("", "")
    for _ in range(20):
        ids, cursor = page(rig, after_score=cursor[0], after_id=cursor[1], **said)
        found.append(ids)
        if cursor == ("", ""):
            return found
    raise AssertionError(f"the list has no end: {found}")


@pytest.fixture
def shop(rig: Rig) -> Rig:
    """`done dead lost` have ended their leases, `held` has one, `later` and `here` wait."""
    rig.enqueue("done", "dead", priority="HIGH", max_attempts=1)
    rig.complete(rig.running(job_id="done"))
    rig.complete(rig.running(job_id="dead"), "failed")
    rig.enqueue("held", priority="CRITICAL")
    rig.running(job_id="held")
    rig.enqueue("later", delay_ms=5000)
    rig.enqueue("here", priority="LOW")
    return rig


# -- describe --------------------------------------------------------------------------------------------


def test_a_job_is_described_by_everything_redis_holds_of_it(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.running()
    [[tag, flat, spec, result, seq, deadline, finished]] = rig.run("describe", {"job_id": "a"})

    assert tag == "JOB"
    assert dict(zip(flat[::2], flat[1::2], strict=True)) == rig.record("a")
    assert (spec, result, int(seq), int(deadline), finished) == (SPEC, "", 1, NOW + LEASE_MS, "")

    rig.now += 5
    rig.complete(held)
    [[_, _, _, result, _, deadline, finished]] = rig.run("describe", {"job_id": "a"})
    assert (result, deadline, int(finished)) == (rig.hash("result")["a"], "", NOW + 5)


def test_each_job_is_answered_for_itself(shop: Rig) -> None:
    before = shop.snapshot()
    replies = shop.run("describe", *({"job_id": job_id} for job_id in ("dead", "nobody", "done", "dead")))

    assert [reply[0] for reply in replies] == ["JOB", "NOT_FOUND", "JOB", "JOB"]
    assert int(replies[0][6]) == NOW
    assert replies[0] == replies[3]
    assert before == shop.snapshot()


# -- list ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "ids"),
    [
        ({}, ["here", "later", "held", "dead", "done"]),
        ({"index": "leased"}, ["held"]),
        ({"index": "dead"}, ["dead"]),
        ({"index": "finished"}, ["done"]),
        ({"status": "QUEUED"}, ["here"]),
        ({"status": "SCHEDULED"}, ["later"]),
        ({"status": "RUNNING", "index": "leased"}, ["held"]),
        ({"status": "CLAIMED", "index": "leased"}, []),
        ({"priority": "HIGH"}, ["dead", "done"]),
        ({"priority": "HIGH", "status": "COMPLETED"}, ["done"]),
        ({"priority": "HIGH", "status": "QUEUED"}, []),
    ],
)
def test_a_list_is_newest_first_and_filtered(shop: Rig, said: dict[str, str], ids: list[str]) -> None:
    before = shop.snapshot()

    assert page(shop, **said) == (ids, ("", ""))
    assert before == shop.snapshot()


@pytest.mark.parametrize("said", [{}, {"status": "QUEUED"}])
@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7])
def test_pages_hold_every_job_once(rig: Rig, limit: int, said: dict[str, str]) -> None:
    rig.enqueue(*"abcdef")
    found = pages(rig, limit=limit, **said)

    assert [job_id for ids in found for job_id in ids] == list("fedcba")
    assert all(len(ids) <= limit for ids in found)


def test_jobs_of_one_millisecond_are_not_skipped_between_pages(rig: Rig) -> None:
    rig.enqueue(*"abcdef")
    rig.run("cancel", *({"job_id": job_id} for job_id in "abcdef"))

    assert sorted(job_id for ids in pages(rig, index="finished", limit=2) for job_id in ids) == list("abcdef")


def test_a_page_goes_on_where_the_last_ended_though_that_job_is_gone(rig: Rig) -> None:
    rig.enqueue(*"abcdef")
    _, (score, job_id) = page(rig, limit=2)
    rig.client.zrem(f"{rig.root}:all", job_id)
    found, _ = page(rig, after_score=score, after_id=job_id)
    rig.client.zadd(f"{rig.root}:all", {job_id: float(score)})

    assert found == list("dcba")


def test_new_jobs_do_not_shift_the_pages(rig: Rig) -> None:
    rig.enqueue(*"abcd")
    _, (score, job_id) = page(rig, limit=2)
    rig.enqueue(*"xyz")

    assert page(rig, limit=2, after_score=score, after_id=job_id)[0] == ["b", "a"]


def test_a_page_may_be_empty_when_a_filter_has_looked_at_enough(rig: Rig) -> None:
    rig.enqueue("first", priority="HIGH")
    for first in range(0, 1100, 50):
        rig.enqueue(*(f"job-{n:04}" for n in range(first, first + 50)))

    *others, last = pages(rig, priority="HIGH")
    assert last == ["first"]
    assert others and not any(others)


# -- stats -----------------------------------------------------------------------------------------------


def stats(rig: Rig, minutes: int = 5) -> tuple[dict[str, str], dict[str, str], list[dict[str, str]]]:
    """Gauges, totals and the buckets of each minute."""
    [[tag, gauges, totals, buckets]] = rig.run("stats", minutes=minutes)
    assert tag == "STATS"

    def pairs(flat: list[Any]) -> dict[str, str]:
        return {str(name): str(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}

    return pairs(gauges), pairs(totals), [pairs(one) for one in buckets]


def test_the_gauges_of_a_new_queue_are_zero(rig: Rig) -> None:
    gauges, totals, buckets = stats(rig)

    assert set(gauges.values()) == {"0"}
    assert totals == {}
    assert buckets == [{}] * 5


def test_the_gauges_count_what_is_there(shop: Rig) -> None:
    before = shop.snapshot()
    shop.now += 250
    gauges, totals, _ = stats(shop)

    assert gauges == {
        "queued": "1", "scheduled": "1", "blocked": "0", "leased": "1", "dead_lettered": "1", "finished": "1",
        "CRITICAL": "0", "HIGH": "0", "NORMAL": "0", "LOW": "1", "oldest_queued_ms": "250", "paused": "0",
        "age_ms": "250",
    }  # fmt: skip
    assert totals == {"enqueued": "5", "running": "1", "completed": "1", "dead_lettered": "1"}
    assert before == shop.snapshot()


def test_waiting_jobs_of_all_lanes_are_counted_by_priority(rig: Rig) -> None:
    rig.client.hset(f"{rig.root}:lanes", "gpu", "{}")
    for number, priority in enumerate(("CRITICAL", "HIGH", "NORMAL", "LOW"), 1):
        rig.enqueue(*(f"{priority}-{n}" for n in range(number)), priority=priority)
    rig.enqueue("laned", lane="gpu", priority="HIGH")
    gauges, _, _ = stats(rig)

    assert [gauges[name] for name in ("CRITICAL", "HIGH", "NORMAL", "LOW", "queued")] == ["1", "3", "3", "4", "11"]


def test_the_oldest_wait_counts_from_when_a_job_became_claimable(rig: Rig) -> None:
    rig.enqueue("a", delay_ms=60_000)
    rig.live(60_000)
    rig.upkeep()
    rig.now += 300

    assert stats(rig)[0]["oldest_queued_ms"] == "300"


def test_a_window_has_the_buckets_of_its_minutes(rig: Rig) -> None:
    for _ in range(3):
        rig.enqueue(f"job-{rig.now}")
        rig.complete(rig.running())
        rig.live(60_000)

    assert stats(rig, minutes=2)[2] == [{"w0": "1", "x0": "1", "completed": "1"}, {}]
    assert sum(map(bool, stats(rig, minutes=60)[2])) == 3


def test_since_the_beginning_counts_every_minute_once_folded_or_not(rig: Rig) -> None:
    for _ in range(4):
        rig.enqueue(f"job-{rig.now}")
        rig.complete(rig.running())
        rig.live(60_000)
        rig.upkeep()

    buckets = stats(rig, minutes=0)[2]
    assert sum(int(one.get("w0", 0)) for one in buckets) == 4


def test_a_paused_queue_says_so(rig: Rig) -> None:
    rig.one("pause", paused=1)

    assert stats(rig)[0]["paused"] == "1"


# -- peek ------------------------------------------------------------------------------------------------


def peek(rig: Rig, **said: Any) -> list[Any]:
    """What a peek says; it changes nothing."""
    before = rig.snapshot()
    [answer] = rig.run("peek", **said)
    assert before == rig.snapshot()
    return list(answer)


def test_an_empty_queue_is_quiet_and_nothing_is_ever_due(rig: Rig) -> None:
    assert peek(rig) == ["QUIET", -1]


def test_a_queue_whose_jobs_have_ended_is_quiet(rig: Rig) -> None:
    rig.enqueue("done")
    rig.complete(rig.running())
    rig.enqueue("dead", max_attempts=1)
    rig.complete(rig.running(), "failed")

    assert peek(rig) == ["QUIET", -1]


def test_a_claimable_job_calls_for_a_claim_until_the_queue_is_paused(rig: Rig) -> None:
    rig.enqueue("a")
    assert peek(rig) == ["BUSY"]
    rig.run("pause", {"paused": 1})
    assert peek(rig) == ["QUIET", -1]


def test_a_job_of_a_lane_calls_only_for_those_who_may_take_it(rig: Rig) -> None:
    rig.client.hset(f"{rig.root}:lanes", "gpu", "{}")
    rig.enqueue("a", lane="gpu")

    assert peek(rig) == ["QUIET", -1]
    assert peek(rig, lanes="any,gpu") == ["BUSY"]


@pytest.mark.parametrize("paused", [0, 1])
def test_a_lease_that_is_out_calls_for_a_claim(rig: Rig, paused: int) -> None:
    """Whoever claims leaves a mark of the look, by which a lost lease is told from an outage; a peek leaves none."""
    rig.enqueue("a")
    held = rig.lease()
    rig.run("pause", {"paused": paused})
    assert peek(rig) == ["BUSY"]
    rig.start(held)
    assert peek(rig) == ["BUSY"]


def test_the_first_job_that_will_be_due_is_told_whatever_its_priority(rig: Rig) -> None:
    rig.enqueue("a", priority="CRITICAL", delay_ms=9000)
    rig.enqueue("b", priority="LOW", delay_ms=4000)

    assert peek(rig) == ["QUIET", "4000"]
    rig.now += 3999
    assert peek(rig) == ["QUIET", "1"]
    rig.now += 1
    assert peek(rig) == ["BUSY"]


@servers_only
def test_a_peek_into_a_queue_where_nothing_waits_is_three_calls(rig: Rig) -> None:
    rig.enqueue("done")
    rig.complete(rig.running())
    before = rig.client.info("commandstats")
    rig.run("peek")
    after = rig.client.info("commandstats")

    made = {name: stat["calls"] - before.get(name, {"calls": 0})["calls"] for name, stat in after.items()}
    assert sum(made[name] for name in ("cmdstat_exists", "cmdstat_hmget")) == 3
    assert {name for name, n in made.items() if n} <= {
        "cmdstat_exists", "cmdstat_hmget", "cmdstat_eval", "cmdstat_evalsha", "cmdstat_info", "cmdstat_script|load",
    }  # fmt: skip
