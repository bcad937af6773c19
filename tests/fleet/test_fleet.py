"""Agents and pools by their public names, in both colours: what becomes of sessions, leases and figures."""

from __future__ import annotations

import time
from typing import Any

import pytest

from hybridq import (
    AgentDraining,
    AgentNotRegistered,
    AgentStatus,
    AgentTerminated,
    AsyncFleet,
    AsyncQueue,
    Fleet,
    InvalidArgument,
    JobStatus,
    PoolNotFound,
    Queue,
    QueueClosed,
    SessionSuperseded,
)
from hybridq.ops import fleet as ops
from tests.fleet.conftest import House

BOOT = "boot-1"


def register(house: House, agent_id: str = "one", *, pool: str = "builds", boot_id: str = BOOT, **said: Any) -> Any:
    return house.fleet.register(agent_id, pool=pool, boot_id=boot_id, **said)


def claim(house: House, session: Any, *, pool: str = "builds", n: int = 1) -> list[Any]:
    return house.queue(pool).claim(n, agent=session.agent_id, generation=session.generation, start=True)


def enqueue(house: House, *job_ids: str, pool: str = "builds") -> None:
    for job_id in job_ids:
        house.queue(pool).enqueue("build", job_id=job_id)


# -- sessions ---------------------------------------------------------------------------------------------


def test_an_agent_is_what_it_said_of_itself(house: House) -> None:
    session = register(house, version="1.2", labels={"os": "linux", "gpu": ""}, capacity=3, features=["logs"])
    agent = house.fleet.agent("one")

    assert (session.created, session.freed, session.pool) == (True, 0, "builds")
    assert (agent.agent_id, agent.pool, agent.status, agent.version) == ("one", "builds", AgentStatus.HEALTHY, "1.2")
    assert (agent.labels, agent.capacity, agent.features) == ({"os": "linux", "gpu": ""}, 3, ("logs",))
    assert (agent.running, agent.jobs_completed, agent.jobs_failed, agent.metrics) == (0, 0, 0, None)
    assert (agent.session_id, agent.generation) == (session.session_id, session.generation)
    assert agent.registered_at.timestamp() * 1000 == house.now_ms
    assert 9 <= session.heartbeat_s == agent.heartbeat_s <= 11


def test_registering_makes_the_queue_of_the_pool_known(house: House) -> None:
    register(house, pool="new")
    assert house.fleet.queues() == ("new",)


def test_the_same_boot_asks_again_and_gets_the_same(house: House) -> None:
    first = register(house)
    enqueue(house, "a")
    [lease] = claim(house, first)
    again = register(house)

    assert (again.session_id, again.generation, again.created, again.freed) == (
        first.session_id, first.generation, False, 0,
    )  # fmt: skip
    assert house.queue().complete(lease).status is JobStatus.COMPLETED


def test_another_boot_takes_the_leases_of_the_first_before_it_is_answered(house: House) -> None:
    first = register(house, capacity=60)
    enqueue(house, *(f"job-{n}" for n in range(55)))
    leases = claim(house, first, n=50) + claim(house, first, n=50)
    assert len(leases) == 55
    second = register(house, boot_id="boot-2")

    assert second.freed == 55
    assert house.queue().stats().queued == 55
    assert {house.queue().job(lease.job_id).attempt for lease in leases} == {0}
    with pytest.raises(SessionSuperseded):
        claim(house, first)
    with pytest.raises(SessionSuperseded):
        house.fleet.beat("one", first.session_id)
    assert [lease.job_id for lease in claim(house, second)] == ["job-0"]


def test_what_a_boot_had_started_is_lost_with_it(house: House) -> None:
    """A job that takes its agent down at every start ends; the agent's next boot told nobody why it is there."""
    enqueue(house, "killer")
    for boot in range(3):
        session = register(house, boot_id=f"boot-{boot}")
        [lease] = claim(house, session)
        house.queue().start(lease)
    assert register(house, boot_id="boot-3").freed == 1

    job = house.queue().job("killer")
    assert (job.status, job.attempt, job.dead_reason) == (JobStatus.DEAD_LETTERED, 3, "lease_lost")
    assert [attempt.outcome for attempt in job.attempts] == ["lost"] * 3
    assert house.queue().stats().lost_leases_total == 3


@pytest.mark.parametrize("moved", [False, True])
def test_what_a_boot_had_not_started_costs_nothing(house: House, moved: bool) -> None:
    first = register(house, capacity=2)
    enqueue(house, "claimed", "started")
    claimed, started = house.queue().claim(2, agent="one", generation=first.generation)
    house.queue().heartbeat([claimed])
    house.queue().start(started)
    assert register(house, boot_id="boot-2", pool="other" if moved else "builds").freed == 2

    found = {job_id: house.queue().job(job_id) for job_id in (started.job_id, claimed.job_id)}
    assert {job.status for job in found.values()} == {JobStatus.QUEUED}
    assert (found[started.job_id].attempt, found[claimed.job_id].attempt) == (1, 0)


def test_what_an_agent_that_leaves_had_started_costs_nothing(house: House) -> None:
    session = register(house)
    enqueue(house, "a")
    house.queue().start(claim(house, session)[0])
    house.fleet.deregister("one", reason="going home")

    job = house.queue().job("a")
    assert (job.status, job.attempt, job.attempts[0].outcome) == (JobStatus.QUEUED, 0, "released")


def test_an_agent_that_moves_leaves_nothing_behind(house: House) -> None:
    first = register(house)
    enqueue(house, "a")
    claim(house, first)
    second = register(house, pool="other")

    assert (second.created, second.freed) == (True, 1)
    assert house.queue().job("a").status is JobStatus.QUEUED
    with pytest.raises(SessionSuperseded):
        claim(house, first)
    assert claim(house, second) == []
    enqueue(house, "b", pool="other")
    assert [lease.job_id for lease in claim(house, second, pool="other")] == ["b"]
    assert house.fleet.agent("one").pool == "other"


def test_who_was_never_registered_is_not_found(house: House) -> None:
    with pytest.raises(AgentNotRegistered, match="'nobody' is not registered"):
        house.fleet.agent("nobody")
    with pytest.raises(AgentNotRegistered):
        house.fleet.beat("nobody", "0" * 32)
    with pytest.raises(AgentNotRegistered):
        house.fleet.seen("nobody", "0" * 32)
    with pytest.raises(AgentNotRegistered):
        house.fleet.steer("nobody", draining=True)
    with pytest.raises(AgentNotRegistered):
        house.fleet.deregister("nobody")


# -- beats ------------------------------------------------------------------------------------------------


def test_a_heartbeat_tells_how_the_agent_stands(house: House) -> None:
    session = register(house)
    house.skip(9)
    pulse = house.fleet.beat("one", session.session_id, metrics={"cpu_percent": 91, "jobs": 3})

    assert (pulse.agent.status, pulse.drain) == (AgentStatus.DEGRADED, False)
    assert pulse.agent.metrics == {"cpu_percent": 91.0, "jobs": 3.0}
    assert pulse.agent.last_heartbeat_at.timestamp() * 1000 == house.now_ms
    assert pulse.next_heartbeat_s == pulse.agent.heartbeat_s
    assert house.fleet.agent("one") == pulse.agent


def test_the_interval_is_a_third_of_the_shortest_lease_while_one_is_held(house: House) -> None:
    session = register(house, capacity=3)
    enqueue(house, "a", "b")
    queue = house.queue()
    [short] = queue.claim(agent="one", generation=session.generation, lease_s=6)
    queue.claim(agent="one", generation=session.generation, lease_s=60)

    assert house.fleet.beat("one", session.session_id).next_heartbeat_s == 2.0
    assert house.fleet.beat("one", session.session_id, shortest_lease_s=3).next_heartbeat_s == 1.0
    queue.release(short)
    assert house.fleet.beat("one", session.session_id).next_heartbeat_s >= 9.0


def test_jobs_done_are_counted_with_the_agent(house: House) -> None:
    session = register(house, capacity=9)
    enqueue(house, "a", "b", "c")
    well, badly, _held = claim(house, session, n=3)
    house.queue().complete(well)
    house.queue().fail(badly)

    agent = house.fleet.beat("one", session.session_id).agent
    assert (agent.running, agent.jobs_completed, agent.jobs_failed) == (1, 1, 1)


def test_the_next_claim_of_a_finish_is_made_in_the_same_session(house: House) -> None:
    session = register(house, capacity=1)
    enqueue(house, "a", "b")
    [lease] = claim(house, session)
    finished = house.queue().complete(lease, claim_next=5)

    assert [one.session for one in finished.next] == [session.generation]
    assert house.fleet.agent("one").running == 1


def test_an_agent_that_fails_far_more_than_the_fleet_is_degraded(house: House) -> None:
    sessions = [register(house, name, capacity=20) for name in ("bad", "good")]
    for session in sessions:
        enqueue(house, *(f"{session.agent_id}-{n}" for n in range(20)))
        for lease in claim(house, session, n=20):
            if session.agent_id == "bad":
                house.queue().fail(lease, retryable=False)
            else:
                house.queue().complete(lease)
    for session in (*sessions, *sessions):
        house.fleet.beat(session.agent_id, session.session_id)
    assert house.fleet.agent("bad").status is AgentStatus.HEALTHY  # 20 of 20, the fleet 20 of 40: not by more than half

    third = register(house, "third", capacity=20)
    enqueue(house, *(f"third-{n}" for n in range(20)))
    for lease in claim(house, third, n=20):
        house.queue().complete(lease)
    house.fleet.beat("third", third.session_id)
    assert house.fleet.agent("bad").status is AgentStatus.DEGRADED


# -- drain, end -------------------------------------------------------------------------------------------


def test_a_draining_agent_finishes_and_claims_nothing(house: House) -> None:
    session = register(house, capacity=5)
    enqueue(house, "a", "b")
    [lease] = claim(house, session)
    agent = house.fleet.steer("one", draining=True, reason="kernel", by="ann")

    assert (agent.status, agent.drain_reason) == (AgentStatus.DRAINING, "kernel")
    with pytest.raises(AgentDraining):
        claim(house, session)
    assert house.fleet.beat("one", session.session_id).drain is True
    assert house.queue().complete(lease).status is JobStatus.COMPLETED

    assert house.fleet.steer("one", draining=False).status is AgentStatus.HEALTHY
    assert len(claim(house, session)) == 1


def test_an_agent_that_is_deregistered_hands_its_jobs_back(house: House) -> None:
    session = register(house)
    enqueue(house, "a")
    claim(house, session)
    for _ in range(2):
        agent = house.fleet.deregister("one", session_id=session.session_id, reason="scaled in")
        assert (agent.status, agent.running, agent.end_reason) == (AgentStatus.TERMINATED, 0, "scaled in")

    assert house.queue().job("a").status is JobStatus.QUEUED
    with pytest.raises(SessionSuperseded):
        claim(house, session)
    with pytest.raises(SessionSuperseded):
        house.fleet.beat("one", session.session_id)
    with pytest.raises(AgentTerminated):
        house.fleet.steer("one", draining=True)
    assert register(house).created


def test_an_older_session_cannot_end_a_newer_one(house: House) -> None:
    first = register(house)
    register(house, boot_id="boot-2")
    with pytest.raises(SessionSuperseded):
        house.fleet.deregister("one", session_id=first.session_id)

    assert house.fleet.agent("one").status is AgentStatus.HEALTHY


# -- who is lost ------------------------------------------------------------------------------------------


def test_a_silent_agent_is_unhealthy_then_offline_and_its_job_another_agents(house: House) -> None:
    silent, other = register(house, "silent"), register(house, "other")
    enqueue(house, "a")
    [lease] = house.queue().claim(agent="silent", generation=silent.generation, lease_s=3600, start=True)
    house.queue().heartbeat([lease])
    heartbeat_s = house.fleet.beat("silent", silent.session_id).next_heartbeat_s

    house.live(2 * heartbeat_s, keep=[other])
    assert house.fleet.agent("silent").status is AgentStatus.UNHEALTHY
    assert house.queue().job("a").status is JobStatus.RUNNING
    house.live(30, keep=[other])
    assert house.fleet.agent("silent").status is AgentStatus.OFFLINE
    assert house.fleet.agent("silent").running == 0
    [again] = claim(house, other)
    assert (again.job_id, again.attempt, house.queue().stats().lost_leases_total) == ("a", 2, 1)
    assert house.fleet.counts()[AgentStatus.OFFLINE] == 1


def test_an_agent_that_was_offline_comes_back_in_its_session(house: House) -> None:
    session, other = register(house), register(house, "other")
    enqueue(house, "a")
    house.live(60, keep=[other])
    assert house.fleet.agent("one").status is AgentStatus.OFFLINE
    assert claim(house, session) == []
    house.fleet.seen("one", session.session_id)

    assert [lease.job_id for lease in claim(house, session)] == ["a"]
    assert house.fleet.agent("one").status is AgentStatus.HEALTHY


def test_an_agent_that_beats_again_may_claim_again(house: House) -> None:
    session, other = register(house), register(house, "other")
    enqueue(house, "a")
    house.live(60, keep=[other])
    pulse = house.fleet.beat("one", session.session_id)

    assert pulse.agent.status is AgentStatus.HEALTHY
    assert [lease.job_id for lease in claim(house, session)] == ["a"]


def test_after_an_hour_away_nobody_is_lost_before_a_full_grace(house: House) -> None:
    session = register(house)
    enqueue(house, "a")
    [lease] = house.queue().claim(agent="one", generation=session.generation, lease_s=3600, start=True)
    house.skip(3500)
    assert house.fleet.free_lost() >= 0
    assert house.fleet.agent("one").status is AgentStatus.HEALTHY
    house.live(40)
    house.queue().heartbeat([lease])

    assert house.fleet.beat("one", session.session_id).agent.running == 1


def test_there_is_an_end_to_freeing(house: House) -> None:
    register(house)
    house.live(60)
    assert house.fleet.free_lost() == 0


# -- lists ------------------------------------------------------------------------------------------------


def test_agents_are_listed_by_name_and_filtered(house: House) -> None:
    register(house, "a", labels={"os": "linux", "gpu": ""})
    register(house, "b", labels={"os": "mac"}, pool="other")
    register(house, "c", labels={"os": "linux"})
    house.fleet.steer("c", draining=True)

    def names(**filters: Any) -> list[str]:
        return [agent.agent_id for agent in house.fleet.agents(**filters).items]

    assert names() == ["a", "b", "c"]
    assert names(pool="builds") == ["a", "c"]
    assert names(pools=["other"]) == ["b"]
    assert names(pools=["other"], pool="builds") == []
    assert names(status="draining") == ["c"]
    assert names(labels=["os=linux"]) == ["a", "c"]
    assert names(labels=["os=linux", "!gpu"]) == ["c"]
    assert names(labels=["gpu"], status=AgentStatus.HEALTHY) == ["a"]


def test_pages_of_agents_go_on_by_cursor_and_miss_none(house: House) -> None:
    for number in range(7):
        register(house, f"agent-{number}", labels={"odd": str(number % 2)})

    def walk(**filters: Any) -> list[str]:
        names, cursor = [], None
        for _ in range(20):
            page = house.fleet.agents(limit=2, cursor=cursor, **filters)
            names += [agent.agent_id for agent in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return names
        raise AssertionError("the list has no end")

    assert walk() == [f"agent-{n}" for n in range(7)]
    assert walk(labels=["odd=1"]) == ["agent-1", "agent-3", "agent-5"]
    assert walk(labels=["odd=2"]) == []
    page = house.fleet.agents(limit=2)
    for wrong in (page.next_cursor + "x", "", "é", page.next_cursor):
        with pytest.raises(InvalidArgument, match="cursor"):
            house.fleet.agents(limit=2, cursor=wrong, pool="builds")


def test_counts_name_every_status(house: House) -> None:
    assert house.fleet.counts() == dict.fromkeys(AgentStatus, 0)
    for name in "abc":
        register(house, name)
    house.fleet.deregister("a")
    house.fleet.steer("b", draining=True)

    counts = {status: n for status, n in house.fleet.counts().items() if n}
    assert counts == {AgentStatus.HEALTHY: 1, AgentStatus.DRAINING: 1, AgentStatus.TERMINATED: 1}


# -- pools ------------------------------------------------------------------------------------------------


def test_a_pool_tells_of_its_agents_and_its_queue(house: House) -> None:
    busy, _idle = register(house, "busy", capacity=2), register(house, "idle", capacity=3)
    register(house, "drained")
    register(house, "ended")
    house.fleet.steer("drained", draining=True)
    house.fleet.deregister("ended")
    enqueue(house, "a", "b")
    claim(house, busy)
    house.skip(5)
    pool = house.fleet.pool("builds")

    assert (pool.capacity, pool.active, pool.idle, pool.unhealthy, pool.queued) == (5, 1, 1, 0, 1)
    assert (pool.min, pool.max, pool.target, pool.oldest_wait_s) == (None, None, None, 5.0)
    house.live(25, keep=[busy])
    assert house.fleet.pool("builds").unhealthy == 1


def test_a_pool_is_there_when_a_queue_an_agent_or_a_scale_says_so(house: House) -> None:
    with pytest.raises(PoolNotFound, match="'scaled' does not exist"):
        house.fleet.pool("scaled")
    assert (house.fleet.queues(), house.fleet.pools()) == ((), [])
    assert house.fleet.scale("scaled", target=3).target == 3
    enqueue(house, "a", pool="queue")
    register(house, pool="agents")

    assert [pool.name for pool in house.fleet.pools()] == ["agents", "queue", "scaled"]
    assert [house.fleet.pool(name).queued for name in ("agents", "queue", "scaled")] == [0, 1, 0]
    assert house.fleet.queues() == ("agents", "queue")
    assert [house.fleet.has_queue(name) for name in ("agents", "queue", "nothing")] == [True, True, False]
    assert house.fleet.queues() == ("agents", "queue"), "asking made none"


def test_a_pool_is_scaled_within_its_bounds_or_not_at_all(house: House) -> None:
    pool = house.fleet.scale("builds", min=1, max=5, target=2)
    assert (pool.min, pool.max, pool.target) == (1, 5, 2)
    for numbers in ({"min": 3}, {"max": 1}, {"target": 6}, {"target": 0}, {"min": 7, "max": 6, "target": 6}):
        with pytest.raises(InvalidArgument) as refused:
            house.fleet.scale("builds", **numbers)
        assert all(word in str(refused.value) for word in ("min", "target", "max"))
    for numbers in ({"min": -1}, {"target": 100_001}, {"max": True}):
        with pytest.raises(InvalidArgument):
            house.fleet.scale("builds", **numbers)

    pool = house.fleet.pool("builds")
    assert (pool.min, pool.max, pool.target) == (1, 5, 2)


# -- the queue's side -------------------------------------------------------------------------------------


def test_limits_of_a_queue_are_those_it_was_given(house: House) -> None:
    queue = house.queue()
    limits = queue.limits()
    assert (limits.policy, limits.lease_s, limits.max_queued, limits.retention_count) == ("fifo", 30.0, 0, 10_000)
    assert (limits.paused, limits.paused_reason, limits.paused_at) == (False, None, None)
    queue.configure(lease_s=5, max_queued=7)
    queue.pause("night", by="ann")

    limits = queue.limits()
    assert (limits.lease_s, limits.max_queued, limits.paused) == (5.0, 7, True)
    assert (limits.paused_reason, limits.paused_by) == ("night", "ann")


def test_jobs_are_found_by_who_holds_or_held_them(house: House) -> None:
    session = register(house, capacity=5)
    enqueue(house, "done", "held", "keyed", "waiting")
    done, _held = claim(house, session, n=2)
    house.queue().complete(done)
    house.queue().claim(agent="one@key", n=1)

    def found(agent: str) -> set[str]:
        return {job.job_id for job in house.queue().jobs(agent=agent).items}

    assert found("one") == {"done", "held", "keyed"}
    assert found("on") == set()
    assert house.queue().job("keyed").agent == "one@key"


# -- arguments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        {"agent_id": "a b"}, {"pool": "a/b"}, {"boot_id": ""}, {"boot_id": "x" * 129}, {"capacity": 0},
        {"capacity": 1001}, {"capacity": 1.5}, {"labels": {"": "x"}}, {"labels": {"a": 1}}, {"labels": ["a"]},
        {"labels": {"a": "x" * 129}}, {"labels": {f"l{n}": "" for n in range(65)}}, {"version": "x" * 129},
        {"features": "logs"}, {"features": ["x"] * 33}, {"features": [1]}, {"version": "a\nb"},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_is_refused_before_anything_is_sent(house: House, said: dict[str, Any]) -> None:
    arguments = {"agent_id": "one", "pool": "builds", "boot_id": BOOT, **said}
    with pytest.raises(InvalidArgument):
        house.fleet.register(arguments.pop("agent_id"), **arguments)
    assert house.fleet.counts() == dict.fromkeys(AgentStatus, 0)


@pytest.mark.parametrize(
    "metrics", [{"a": float("nan")}, {"a": True}, {"a": "1"}, {f"m{n}": 1 for n in range(33)}, ["a"], {"a\n": 1}]
)
def test_metrics_are_at_most_thirty_two_numbers(house: House, metrics: Any) -> None:
    session = register(house)
    with pytest.raises(InvalidArgument, match="metrics"):
        house.fleet.beat("one", session.session_id, metrics=metrics)


def test_as_much_as_is_allowed_is_taken(house: House) -> None:
    labels = {f"{n:02}" + '"' * 62: "\\" * 128 for n in range(64)}
    features = ['"' * 64] * 32
    session = register(house, "A" + "z.-_0" * 12 + "9ab", labels=labels, features=features, capacity=1000)
    metrics = {f"{n:02}" + '"' * 62: -1.7976931348623157e308 for n in range(32)}
    agent = house.fleet.beat(session.agent_id, session.session_id, metrics=metrics).agent

    assert (agent.labels, agent.features, agent.metrics) == (labels, tuple(features), metrics)


@pytest.mark.parametrize("session_id", ["", "x", "g" * 33, "é" * 32, " " * 32, 5])
def test_a_malformed_session_is_refused(house: House, session_id: Any) -> None:
    with pytest.raises(InvalidArgument, match="session_id"):
        house.fleet.beat("one", session_id)


def test_a_closed_fleet_answers_nothing(redis_url: str, namespace: str) -> None:
    fleet = Fleet(redis=redis_url, namespace=namespace)
    fleet.close()
    with pytest.raises(QueueClosed):
        fleet.counts()


# -- changes ----------------------------------------------------------------------------------------------


async def test_what_changes_in_a_namespace_is_heard(redis_url: str, namespace: str) -> None:
    """A queue that is made or configured, and a pool that is scaled; other namespaces are not."""
    import asyncio

    heard = asyncio.Event()
    async with (
        AsyncFleet(redis=redis_url, namespace=namespace) as fleet,
        AsyncFleet(redis=redis_url, namespace=f"{namespace}-2") as elsewhere,
        AsyncQueue("new", redis=redis_url, namespace=namespace) as queue,
    ):
        listening = asyncio.create_task(fleet.on_change(heard.set))
        await asyncio.wait_for(heard.wait(), 10)
        for change in (
            lambda: queue.enqueue("build"),
            lambda: queue.configure(max_dead=5),
            lambda: queue.pause(),
            lambda: queue.resume(),
            lambda: fleet.scale("new", target=1),
            lambda: fleet.register("one", pool="another", boot_id=BOOT),
        ):
            heard.clear()
            await change()
            await asyncio.wait_for(heard.wait(), 10)
        heard.clear()
        await elsewhere.scale("new", target=1)
        await fleet.beat("one", (await fleet.agent("one")).session_id)
        assert not heard.is_set()
        await fleet.close()
        await asyncio.wait_for(listening, 10)


def test_changes_are_heard_in_a_thread_too(redis_url: str, namespace: str) -> None:
    import threading

    heard = threading.Event()
    with Fleet(redis=redis_url, namespace=namespace) as fleet:
        listener = threading.Thread(target=fleet.on_change, args=(heard.set,), daemon=True)
        listener.start()
        assert heard.wait(10)
        heard.clear()
        with Queue("new", redis=redis_url, namespace=namespace) as queue:
            queue.enqueue("build")
        assert heard.wait(10)
    listener.join(10)
    assert not listener.is_alive()


async def test_a_refused_waiter_does_not_swallow_the_ring(redis_url: str, namespace: str) -> None:
    """Two claims are parked, the first one's agent is draining by now: one job is enqueued, and the second gets it."""
    import asyncio

    async with (
        AsyncFleet(redis=redis_url, namespace=namespace) as fleet,
        AsyncQueue("builds", redis=redis_url, namespace=namespace) as queue,
    ):
        first = await fleet.register("first", pool="builds", boot_id=BOOT)
        second = await fleet.register("second", pool="builds", boot_id=BOOT)
        waiting = []
        for session in (first, second):
            claim = queue.claim(wait_s=30, agent=session.agent_id, generation=session.generation)
            waiting.append(asyncio.create_task(claim))
            await asyncio.sleep(0)
        lot = queue._open_lot()
        async with asyncio.timeout(10):
            while len(lot._waiters) < 2 or lot._announced:
                await asyncio.sleep(0.01)
        await fleet.steer("first", draining=True)
        began = time.monotonic()
        await queue.enqueue("build", job_id="a")

        [lease] = await asyncio.wait_for(waiting[1], 1.0)
        assert (lease.job_id, lease.agent) == ("a", "second")
        assert time.monotonic() - began < 1.0
        with pytest.raises(AgentDraining):
            await asyncio.wait_for(waiting[0], 5.0)


def test_a_standing_is_that_of_a_session_that_is_there() -> None:
    fields = {"generation": "5", "capacity": "3", "pool": "builds"}
    from hybridq.health import Fleet as About

    def standing(**more: str) -> tuple[int, int, bool]:
        return ops.Kept(agent_id="one", fields=fields | more, fleet=About(now_ms=0)).standing

    assert standing() == (5, 3, False)
    assert standing(draining="1") == (5, 3, True)
    assert standing(offline_ms="1") == standing(ended_ms="1") == (5, 0, False)
