"""claim: the same request again, leases an agent says it has not, sessions, capacity, and who is served first."""

from __future__ import annotations

import pytest

from tests.contract.harness import LEASE_MS, NOW, Held, Rig

# -- the same request ------------------------------------------------------------------------------------


def test_the_same_request_gets_the_same_leases(rig: Rig) -> None:
    rig.enqueue("a", "b", "c")
    first = rig.claim("one", request_id="r1", max=2)
    rig.now += 100

    assert rig.claim("one", request_id="r1", max=2, fresh=0) == first
    assert rig.line() == ["c"]
    assert rig.counters() == {"enqueued": 3}


def test_the_same_request_renews_its_leases_and_confirms_nothing(rig: Rig) -> None:
    rig.enqueue("a")
    rig.lease(request_id="r1")
    rig.now += 9000
    rig.lease(request_id="r1", fresh=0)

    assert rig.zset("leased") == rig.zset("held:one") == {"a": NOW + 9000 + LEASE_MS}
    assert "confirmed" not in rig.record("a")
    assert rig.record("a")["deliveries"] == "1"


def test_a_request_is_the_agents_own(rig: Rig) -> None:
    rig.enqueue("a", "b")
    rig.lease("one", job_id="a", request_id="r1")

    rig.lease("two", job_id="b", request_id="r1", fresh=0)


def test_a_request_gets_what_is_left_of_its_leases(rig: Rig) -> None:
    rig.enqueue("a", "b", "c")
    [first, second] = rig.claim(request_id="r1", max=2)
    rig.start(first)
    rig.complete(first)

    assert rig.claim(request_id="r1", max=2, fresh=0) == [second]


def test_a_request_whose_leases_are_gone_claims_anew(rig: Rig) -> None:
    rig.enqueue("a", "b")
    first = rig.running(request_id="r1", job_id="a")
    rig.complete(first)

    assert rig.lease(request_id="r1", fresh=0).job_id == "b"


def test_an_empty_answer_is_not_remembered(rig: Rig) -> None:
    assert rig.claim(request_id="r1") == []
    rig.enqueue("a")

    assert rig.lease(request_id="r1", fresh=0).job_id == "a"


def test_a_paused_queue_still_repeats_what_it_gave(rig: Rig) -> None:
    rig.enqueue("a")
    first = rig.lease(request_id="r1")
    rig.one("pause", paused=1)

    assert rig.claim(request_id="r1", fresh=0) == [first]


def test_a_repeated_request_in_one_batch_gets_one_set_of_leases(rig: Rig) -> None:
    rig.enqueue("a", "b")
    first = rig.lease(request_id="r1")
    again = {"agent": "one", "lease_id": "e" * 32, "request_id": "r1", "fresh": 0}
    replies = rig.run("claim", again, again)

    assert [[job[3] for job in reply[1]] for reply in replies] == [[first.lease_id], [first.lease_id]]
    assert rig.line() == ["b"]


# -- what an agent holds ---------------------------------------------------------------------------------


def holding(*held: Held) -> str:
    return f",{','.join(str(one.fence) for one in held)},"


def test_a_lease_the_agent_does_not_list_goes_back_after_three_seconds(rig: Rig) -> None:
    rig.enqueue("a", "b", "c")
    [first, second] = rig.claim(max=2)
    rig.now += 3000
    again = rig.lease(holding=holding(first), job_id="b")

    assert again.fence > second.fence
    assert rig.zset("held:one").keys() == {"a", "b"}
    assert (rig.record("b")["releases"], rig.record("b")["deliveries"]) == ("1", "2")
    assert rig.counters() == {"enqueued": 3, "released": 1}


def test_a_young_lease_may_be_on_its_way_and_stays(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.lease()
    rig.now += 2999

    assert rig.claim(holding=",") == []
    assert rig.heartbeat(held)[0] == "RENEWED"


def test_a_confirmed_lease_stays_though_it_is_not_listed(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.lease()
    rig.heartbeat(held)
    rig.now += 5000

    assert rig.claim(holding=",") == []
    assert rig.status("a") == "CLAIMED"


def test_a_claim_that_says_nothing_of_its_holding_gives_nothing_back(rig: Rig) -> None:
    rig.enqueue("a")
    rig.lease()
    rig.now += 5000

    assert rig.claim(holding="") == []
    assert rig.status("a") == "CLAIMED"


def test_a_fence_that_only_begins_like_a_listed_one_is_not_listed(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.lease()
    rig.now += 5000
    rig.claim(holding=f",{held.fence}0,")

    assert rig.record("a")["releases"] == "1"


def test_an_unlisted_lease_of_a_running_job_gives_its_attempt_back(rig: Rig) -> None:
    rig.enqueue("a")
    rig.lease(start=1)
    rig.now += 5000
    rig.one("pause", paused=1)
    rig.claim(holding=",")

    assert (rig.status("a"), rig.record("a")["attempt"]) == ("QUEUED", "0")
    assert rig.counters() == {"enqueued": 1, "released": 1}


# -- sessions --------------------------------------------------------------------------------------------


def register(rig: Rig, agent: str = "one", **fields: object) -> None:
    rig.client.hset(f"{rig.root}:agent:{agent}", mapping={name: str(value) for name, value in fields.items()})


@pytest.mark.parametrize("generation", [1, 3])
def test_a_session_other_than_the_current_one_gets_nothing(rig: Rig, generation: int) -> None:
    register(rig, generation=2)
    rig.enqueue("a")

    assert rig.claim_reply(generation=generation) == ["SUPERSEDED"]
    assert rig.line() == ["a"]


def test_a_session_of_an_agent_nobody_registered_gets_nothing(rig: Rig) -> None:
    rig.enqueue("a")

    assert rig.claim_reply(generation=1) == ["SUPERSEDED"]


def test_the_current_session_is_served(rig: Rig) -> None:
    register(rig, generation=2)
    rig.enqueue("a")

    rig.lease(generation=2)


def test_a_draining_agent_gets_nothing_and_may_finish(rig: Rig) -> None:
    register(rig, generation=1, drain=0)
    rig.enqueue("a", "b")
    held = rig.running(generation=1)
    register(rig, drain=1)

    assert rig.claim_reply(generation=1) == ["DRAINING"]
    assert rig.complete(held) == ["DONE", "COMPLETED", "0"]


def test_refused_sessions_do_not_count_as_agents_that_claim(rig: Rig) -> None:
    register(rig, generation=2, drain=1)
    rig.claim_reply(generation=2)
    rig.claim_reply("two", generation=1)

    assert rig.zset("agents") == {}


def test_live_leases_stay_within_the_agents_capacity(rig: Rig) -> None:
    register(rig, generation=1, capacity=2)
    rig.enqueue("a", "b", "c", "d")

    assert [held.job_id for held in rig.claim(generation=1, max=9)] == ["a", "b"]
    assert rig.claim(generation=1, max=9) == []


def test_a_finished_lease_makes_room_again(rig: Rig) -> None:
    register(rig, generation=1, capacity=1)
    rig.enqueue("a", "b")
    rig.complete(rig.running(generation=1))

    assert [held.job_id for held in rig.claim(generation=1, max=9)] == ["b"]


def test_two_claims_of_one_agent_in_one_call_share_its_capacity(rig: Rig) -> None:
    register(rig, generation=1, capacity=1)
    rig.enqueue("a", "b")
    entry = {"agent": "one", "generation": 1}
    replies = rig.run("claim", {**entry, "lease_id": "1" * 32}, {**entry, "lease_id": "2" * 32})

    assert [reply[0] for reply in replies] == ["LEASED", "EMPTY"]
    assert rig.line() == ["b"]


def test_a_lease_given_back_by_holding_makes_room_in_the_same_call(rig: Rig) -> None:
    register(rig, generation=1, capacity=1)
    rig.enqueue("a")
    rig.lease(generation=1)
    rig.now += 3000

    assert [held.job_id for held in rig.claim(generation=1, holding=",")] == ["a"]


def test_an_agent_without_a_session_has_no_bound(rig: Rig) -> None:
    register(rig, generation=1, capacity=1)
    rig.enqueue("a", "b")

    assert len(rig.claim(max=9)) == 2


# -- who is served first ---------------------------------------------------------------------------------


def test_the_agent_that_released_a_job_is_passed_over_while_another_claims(rig: Rig) -> None:
    rig.claim("two")
    rig.enqueue("a")
    rig.release(rig.lease("one"))

    assert rig.claim("one") == []
    assert [held.job_id for held in rig.claim("two")] == ["a"]


def test_the_delay_after_a_release_is_one_second_then_doubles_to_a_minute(rig: Rig) -> None:
    rig.enqueue("a")
    delays = []
    for _ in range(9):
        rig.release(rig.lease("one"))
        delays.append(int(rig.record("a")["avoid_until_ms"]) - rig.now)

    assert delays == [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]


def test_an_agent_gets_its_own_release_back_when_the_delay_is_over(rig: Rig) -> None:
    rig.claim("two")
    rig.enqueue("a")
    rig.release(rig.lease("one"))

    rig.now += 999
    assert rig.claim("one") == []
    rig.now += 1
    assert [held.job_id for held in rig.claim("one")] == ["a"]


def test_an_agent_that_is_alone_gets_its_own_release_back_at_once(rig: Rig) -> None:
    rig.enqueue("a")
    rig.release(rig.lease("one"))

    assert [held.job_id for held in rig.claim("one")] == ["a"]


@pytest.mark.parametrize(("since_ms", "got"), [(60_000, []), (60_001, ["a"])])
def test_an_agent_that_was_not_seen_for_a_minute_is_nobody_to_wait_for(rig: Rig, since_ms: int, got: list[str]) -> None:
    rig.claim("two")
    rig.enqueue("a")
    rig.live(since_ms)
    rig.release(rig.lease("one"))

    assert [held.job_id for held in rig.claim("one")] == got


def test_an_agent_that_is_passed_over_gets_the_next_job(rig: Rig) -> None:
    rig.claim("two")
    rig.enqueue("a", "b")
    rig.release(rig.lease("one", job_id="a"))

    assert [held.job_id for held in rig.claim("one", max=2)] == ["b"]
    assert rig.line() == ["a"]


def test_an_agent_that_is_passed_over_gets_all_it_wants_of_what_is_behind(rig: Rig) -> None:
    rig.claim("two")
    rig.enqueue("a", "b")
    for held in rig.claim("one", max=2):
        rig.release(held)
    rig.enqueue("c", "d", "e")
    rig.enqueue("first", priority="HIGH")

    assert [held.job_id for held in rig.claim("one", max=3)] == ["first", "c", "d"]
    assert rig.line() == ["a", "b", "e"]


@pytest.mark.parametrize(("passed", "got"), [(16, ["free"]), (17, [])])
def test_at_most_sixteen_jobs_are_passed_over(rig: Rig, passed: int, got: list[str]) -> None:
    rig.claim("two")
    rig.enqueue(*(f"job-{number}" for number in range(passed)))
    for held in rig.claim("one", max=passed):
        rig.release(held)
    rig.enqueue("free")

    assert [held.job_id for held in rig.claim("one")] == got


def test_a_lost_job_is_kept_from_its_loser_while_another_claims(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.running("one")
    rig.live(LEASE_MS - 1)
    rig.claim("two")
    rig.now += 21

    assert rig.claim("one") == []
    assert rig.lease("two", job_id="a").fence > held.fence


def test_agents_beyond_the_first_thousand_are_forgotten_oldest_first(rig: Rig) -> None:
    rig.client.zadd(f"{rig.root}:agents", {f"old-{n}": NOW - 5000 + n for n in range(1005)})
    rig.claim("one")
    rig.now += 20
    rig.upkeep()

    agents = rig.zset("agents")
    assert len(agents) == 1000
    assert "one" in agents and "old-5" not in agents and "old-6" in agents
