"""enlist: a queue is told of an agent's session; leases of those that are over go back, those of the new one stay."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.contract.conftest import servers_only
from tests.contract.harness import LEASE_MS, Held, Rig


def enlist(rig: Rig, agent: str = "one", *, generation: int = 1, capacity: int = 9, **said: Any) -> list[Any]:
    return rig.one("enlist", agent=agent, generation=generation, capacity=capacity, **said)


def figures(rig: Rig, agent: str = "one") -> dict[str, Any]:
    [[tag, held, shortest, first_end, generation, capacity, drain, completed, failed, recent]] = rig.run(
        "agents", {"agent": agent}, leases=50
    )
    assert tag == "AGENT"
    return {
        "held": held, "shortest": int(shortest), "first_end": int(first_end), "generation": int(generation),
        "capacity": int(capacity), "drain": drain, "completed": int(completed), "failed": int(failed), "recent": recent,
    }  # fmt: skip


def claimed(rig: Rig, *job_ids: str, generation: int = 1, **said: Any) -> list[Held]:
    rig.enqueue(*job_ids)
    return [rig.running(generation=generation, job_id=job_id, **said) for job_id in job_ids]


# -- sessions --------------------------------------------------------------------------------------------


def test_a_session_is_told_with_its_capacity_and_drain(rig: Rig) -> None:
    assert enlist(rig, generation=5, capacity=3, drain=1) == ["ENLISTED", 0, 0]
    assert rig.hash("agent:one") == {"generation": "5", "capacity": "3", "drain": "1"}
    assert rig.zset("gone") == {}


def test_an_older_session_changes_nothing(rig: Rig) -> None:
    enlist(rig, generation=5, capacity=3)
    [held] = claimed(rig, "a", generation=5)
    before = rig.snapshot()

    assert enlist(rig, generation=4, capacity=1, free="lose") == ["SUPERSEDED"]
    assert before == rig.snapshot()
    assert rig.complete(held)[0] == "DONE"


def test_the_same_session_may_be_told_again(rig: Rig) -> None:
    enlist(rig, generation=5, capacity=3)
    assert enlist(rig, generation=5, capacity=4, drain=1) == ["ENLISTED", 0, 0]
    assert rig.hash("agent:one") == {"generation": "5", "capacity": "4", "drain": "1"}


def test_a_claim_remembers_its_session_until_its_lease_ends(rig: Rig) -> None:
    enlist(rig, generation=7)
    [held] = claimed(rig, "a", generation=7)
    assert rig.record("a")["session"] == "7"
    rig.release(held)

    assert "session" not in rig.record("a")


def test_a_claim_without_a_generation_has_no_session(rig: Rig) -> None:
    rig.enqueue("a")
    rig.running(job_id="a")

    assert "session" not in rig.record("a")


def test_after_a_new_session_the_old_one_claims_nothing_and_the_new_one_does(rig: Rig) -> None:
    enlist(rig, generation=1)
    enlist(rig, generation=2)
    rig.enqueue("a")

    assert rig.claim_reply(generation=1) == ["SUPERSEDED"]
    assert [held.job_id for held in rig.claim(generation=2)] == ["a"]


# -- leases of older sessions -----------------------------------------------------------------------------


def test_a_new_session_takes_the_leases_of_the_old_one_back_uncharged(rig: Rig) -> None:
    enlist(rig, generation=1)
    [held] = claimed(rig, "a")

    assert enlist(rig, generation=2, free="give_back") == ["ENLISTED", 1, 0]
    record = rig.record("a")
    assert (record["status"], record["attempt"], record["releases"]) == ("QUEUED", "0", "1")
    assert rig.zset("held:one") == {}
    assert rig.complete(held) == ["STALE_LEASE", "QUEUED"]
    assert rig.counters()["released"] == 1


def test_leases_of_the_session_itself_stay(rig: Rig) -> None:
    enlist(rig, generation=1)
    claimed(rig, "old")
    enlist(rig, generation=2)
    [held] = claimed(rig, "new", generation=2)

    assert enlist(rig, generation=2, free="give_back") == ["ENLISTED", 1, 0]
    assert rig.zset("held:one") == {"new": rig.now + LEASE_MS}
    assert rig.complete(held)[0] == "DONE"


def test_a_lease_claimed_before_the_agent_was_registered_is_older_than_any(rig: Rig) -> None:
    claimed(rig, "a", generation=0)

    assert enlist(rig, generation=1, free="give_back") == ["ENLISTED", 1, 0]
    assert rig.status("a") == "QUEUED"


def test_leases_of_other_agents_and_of_credentials_are_left_alone(rig: Rig) -> None:
    rig.enqueue("a", "b")
    rig.lease("two")
    rig.lease("one@key")

    assert enlist(rig, generation=1, free="give_back") == ["ENLISTED", 0, 0]
    assert rig.zset("held:two") and rig.zset("held:one@key")


def test_without_a_word_of_it_no_lease_is_taken(rig: Rig) -> None:
    enlist(rig, generation=1)
    claimed(rig, "a")

    assert enlist(rig, generation=2, free="none") == ["ENLISTED", 0, 0]
    assert rig.status("a") == "RUNNING"


def test_a_cancelled_job_that_is_taken_back_is_cancelled(rig: Rig) -> None:
    enlist(rig, generation=1)
    claimed(rig, "a")
    rig.cancel("a")
    enlist(rig, generation=2, free="give_back")

    assert rig.status("a") == "CANCELLED"


# -- leases of sessions that another boot superseded --------------------------------------------------------


def confirmed(rig: Rig, job_id: str, **said: Any) -> Held:
    [held] = claimed(rig, job_id, **said)
    assert rig.heartbeat(held)[0] == "RENEWED"
    return held


def test_what_a_superseded_session_had_begun_is_lost_with_it(rig: Rig) -> None:
    enlist(rig, generation=1)
    held = confirmed(rig, "a")

    assert enlist(rig, generation=2, free="supersede") == ["ENLISTED", 1, 0]
    record = rig.record("a")
    assert (record["status"], record["attempt"], record["outcome"]) == ("QUEUED", "1", "lost")
    assert rig.events()[-1] == "job.lost a QUEUED one 1"
    assert rig.counters()["lost_leases"] == 1
    assert rig.complete(held) == ["STALE_LEASE", "QUEUED"]


def test_a_job_that_ends_each_session_of_its_agent_is_a_dead_letter_when_its_attempts_are_used_up(rig: Rig) -> None:
    enlist(rig, generation=1)
    confirmed(rig, "a")
    for generation in (2, 3):
        enlist(rig, generation=generation, free="supersede")
        assert rig.status("a") == "QUEUED"
        rig.heartbeat(rig.running(generation=generation, job_id="a"))
    enlist(rig, generation=4, free="supersede")

    record = rig.record("a")
    assert (record["status"], record["attempt"], record["dead_reason"]) == ("DEAD_LETTERED", "3", "lease_lost")
    assert [line[6:8] for line in rig.history("a")] == [
        ["lost", "QUEUED"],
        ["lost", "QUEUED"],
        ["lost", "DEAD_LETTERED"],
    ]


def test_what_a_superseded_session_had_not_confirmed_or_not_started_goes_back_uncharged(rig: Rig) -> None:
    enlist(rig, generation=1)
    rig.enqueue("unconfirmed", "unstarted")
    rig.lease(generation=1, job_id="unconfirmed", start=1)
    rig.heartbeat(rig.lease(generation=1, job_id="unstarted"))

    assert enlist(rig, generation=2, free="supersede") == ["ENLISTED", 2, 0]
    for job_id in ("unconfirmed", "unstarted"):
        record = rig.record(job_id)
        assert (record["status"], record["attempt"], record["releases"]) == ("QUEUED", "0", "1"), job_id
    assert rig.counters().get("lost_leases", 0) == 0


def test_the_begun_leases_of_the_new_session_stay(rig: Rig) -> None:
    enlist(rig, generation=2)
    held = confirmed(rig, "a", generation=2)

    assert enlist(rig, generation=2, free="supersede") == ["ENLISTED", 0, 0]
    assert rig.complete(held)[0] == "DONE"


def test_what_was_begun_before_the_agent_was_registered_is_of_no_session_and_goes_back_uncharged(rig: Rig) -> None:
    confirmed(rig, "a", generation=0)

    assert enlist(rig, generation=1, free="supersede") == ["ENLISTED", 1, 0]
    assert rig.record("a")["attempt"] == "0"


def test_a_cancelled_job_of_a_superseded_session_is_cancelled(rig: Rig) -> None:
    enlist(rig, generation=1)
    confirmed(rig, "a")
    rig.cancel("a")
    enlist(rig, generation=2, free="supersede")

    assert rig.status("a") == "CANCELLED"


# -- leases of the lost -----------------------------------------------------------------------------------


def test_an_agent_that_is_lost_loses_all_its_leases_as_if_they_had_run_out(rig: Rig) -> None:
    enlist(rig, generation=1)
    [held] = claimed(rig, "a")

    assert enlist(rig, generation=1, capacity=0, free="lose") == ["ENLISTED", 1, 0]
    record = rig.record("a")
    assert (record["status"], record["attempt"], record["outcome"]) == ("QUEUED", "1", "lost")
    assert rig.events()[-1] == "job.lost a QUEUED one 1"
    assert rig.counters()["lost_leases"] == 1
    assert rig.complete(held) == ["STALE_LEASE", "QUEUED"]


def test_what_was_claimed_later_is_spared(rig: Rig) -> None:
    enlist(rig, generation=1)
    claimed(rig, "a")
    found_ms = rig.now
    rig.now += 1
    claimed(rig, "b")

    assert enlist(rig, generation=1, free="lose", until_ms=found_ms) == ["ENLISTED", 1, 0]
    assert (rig.status("a"), rig.status("b")) == ("QUEUED", "RUNNING")


def test_a_lost_lease_is_another_agents_to_take(rig: Rig) -> None:
    enlist(rig, generation=1)
    [held] = claimed(rig, "a")
    enlist(rig, generation=1, capacity=0, free="lose")

    assert rig.lease("two", job_id="a").fence > held.fence


# -- bounds ----------------------------------------------------------------------------------------------


def test_a_call_frees_fifty_leases_and_says_that_there_are_more(rig: Rig) -> None:
    enlist(rig, generation=1, capacity=1000)
    for first in range(0, 120, 30):
        rig.enqueue(*(f"job-{n:03}" for n in range(first, first + 30)))
    while rig.claim(generation=1, max=50):
        pass

    answers = [enlist(rig, generation=2, free="give_back") for _ in range(3)]
    assert answers == [["ENLISTED", 50, 1], ["ENLISTED", 50, 1], ["ENLISTED", 20, 0]]


def test_the_bound_is_one_for_all_agents_of_a_call(rig: Rig) -> None:
    for agent in ("one", "two"):
        enlist(rig, agent, generation=1, capacity=40)
        rig.enqueue(*(f"{agent}-{n}" for n in range(40)))
        assert len(rig.claim(agent, generation=1, max=40)) == 40
    entry = {"generation": 2, "capacity": 1, "free": "give_back"}

    assert rig.run("enlist", {"agent": "one", **entry}, {"agent": "two", **entry}) == [
        ["ENLISTED", 40, 0],
        ["ENLISTED", 10, 1],
    ]


def test_an_agent_without_capacity_is_gone_and_one_with_is_back(rig: Rig) -> None:
    enlist(rig, generation=1, capacity=0)
    assert rig.zset("gone") == {"one": rig.now}
    rig.enqueue("a")
    assert rig.claim(generation=1) == []

    enlist(rig, generation=1, capacity=1)
    assert rig.zset("gone") == {}
    assert rig.claim(generation=1) != []


@pytest.mark.parametrize(("days", "kept"), [(6.9, True), (7, False)])
def test_what_is_known_of_a_gone_agent_goes_after_a_week(rig: Rig, days: float, kept: bool) -> None:
    enlist(rig, generation=1, capacity=0)
    rig.now += int(days * 86_400_000)
    enlist(rig, "two", generation=1)

    assert bool(rig.hash("agent:one")) is kept
    assert rig.zset("gone").keys() == ({"one"} if kept else set())


def test_a_session_of_an_agent_that_was_forgotten_is_refused_all_the_same(rig: Rig) -> None:
    enlist(rig, generation=5, capacity=0)
    rig.now += 7 * 86_400_000
    enlist(rig, "two", generation=1)

    assert rig.hash("agent:one") == {}
    assert rig.claim_reply(generation=4) == ["SUPERSEDED"]
    assert rig.claim_reply(generation=5) == ["SUPERSEDED"]


def test_more_than_ten_thousand_gone_agents_are_not_kept(rig: Rig) -> None:
    rig.client.zadd(f"{rig.root}:gone", {f"gone-{n:05}": rig.now - 20_000 + n for n in range(10_005)})
    rig.client.hset(f"{rig.root}:agent:gone-00004", "capacity", "0")
    enlist(rig, "two", generation=1)

    assert rig.client.zcard(f"{rig.root}:gone") == 10_000
    assert rig.hash("agent:gone-00004") == {}
    rig.client.delete(f"{rig.root}:gone")


# -- figures ---------------------------------------------------------------------------------------------


def test_runs_of_a_registered_agent_are_counted_with_it(rig: Rig) -> None:
    enlist(rig, generation=1)
    outcomes = ("success", "failed", "success", "rejected", "timeout", "infra_error")
    for number, outcome in enumerate(outcomes):
        [held] = claimed(rig, f"job-{number}")
        rig.complete(held, outcome)

    known = figures(rig)
    assert (known["completed"], known["failed"], known["recent"]) == (2, 4, "+-+---")


def test_what_says_nothing_of_the_agent_is_not_counted(rig: Rig) -> None:
    enlist(rig, generation=1)
    released, cancelled, late = claimed(rig, "a", "b", "c")
    rig.release(released)
    rig.cancel("b")
    rig.complete(cancelled, "failed")
    rig.complete(late)
    assert rig.complete(late)[0] == "REPLAYED"

    known = figures(rig)
    assert (known["completed"], known["failed"], known["recent"]) == (1, 0, "+")


def test_the_last_twenty_runs_are_remembered(rig: Rig) -> None:
    enlist(rig, generation=1)
    for number in range(23):
        [held] = claimed(rig, f"job-{number}")
        rig.complete(held, "failed" if number < 3 else "success")

    known = figures(rig)
    assert (known["completed"], known["failed"], known["recent"]) == (20, 3, "+" * 20)


def test_an_agent_that_is_not_registered_is_not_counted(rig: Rig) -> None:
    rig.enqueue("a")
    rig.complete(rig.running())

    assert rig.hash("agent:one") == {}


def test_figures_tell_what_is_held_and_the_shortest_lease(rig: Rig) -> None:
    enlist(rig, generation=3, capacity=5)
    rig.enqueue("a", "b")
    rig.lease(generation=3, lease_ms=20_000)
    rig.lease(generation=3, lease_ms=9_000)

    known = figures(rig)
    assert (known["held"], known["shortest"], known["first_end"]) == (2, 9_000, rig.now + 9_000)
    assert (known["generation"], known["capacity"], known["drain"]) == (3, 5, "0")
    [[_, held, shortest, *_]] = rig.run("agents", {"agent": "one"})
    assert (held, shortest) == (2, "0")


def test_of_an_agent_nobody_knows_there_are_no_figures(rig: Rig) -> None:
    assert figures(rig, "nobody") == {
        "held": 0, "shortest": 0, "first_end": 0, "generation": 0, "capacity": 0, "drain": "0", "completed": 0,
        "failed": 0, "recent": "",
    }  # fmt: skip


# -- what it costs ---------------------------------------------------------------------------------------


@servers_only
def test_only_runs_of_a_registered_agent_cost_more(rig: Rig) -> None:
    """Redis calls of a complete: one read and one write more, and none for whoever claimed without a session."""
    enlist(rig, generation=1)
    rig.enqueue("a", "b", "c", "d")
    costs = []
    for generation in (0, 1, 0, 1):
        held = rig.lease(generation=generation, start=1)
        before = calls(rig)
        rig.complete(held)
        costs.append(calls(rig) - before)

    assert costs[3] - costs[2] == Counter({"cmdstat_hmget": 1, "cmdstat_hset": 1})
    assert costs[2]["cmdstat_hmget"] == 1


def calls(rig: Rig) -> Counter[str]:
    """How often each command was called in the server so far."""
    return Counter({name: int(stat["calls"]) for name, stat in rig.client.info("commandstats").items()})
