"""Everything fails while real jobs run: at the end each has ended once, and what it did stands exactly once.

Jobs check out a git repository, build it with make, test what was built, and leave its version in a sink that knows
fences. Meanwhile agents are killed, stand still past their leases, are cut off and started again under the same name,
and the API and Redis are killed. `HYBRIDQ_TEST_JOBS`: how many jobs; `HYBRIDQ_TEST_SEED`: which way it goes.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hybridq import check
from hybridq.agent import Job, ServerAway, Unreachable
from tests import invariants
from tests.agent.e2e import sink
from tests.agent.e2e.agents import AgentProcess
from tests.agent.e2e.doings import payload, python, strays
from tests.agent.e2e.house import House
from tests.agent.e2e.sources import Sources, make_sources
from tests.servers import wait_until

JOBS = int(os.environ.get("HYBRIDQ_TEST_JOBS", "60"))
SEED = int(os.environ.get("HYBRIDQ_TEST_SEED", "4"))
JOBS_A_ROUND = 60
AGENTS, CAPACITY, LEASE_S = 3, 2, 3.0
POOL = "builds"
ATTEMPTS_MAX = 30
"""Enough for whatever the faults do to one job."""
BROKEN_ATTEMPTS = 2
VICTIM_S, END_S = 40.0, 60.0 + JOBS
ROUNDS = max(1, JOBS // JOBS_A_ROUND)
"""How often each fault happens."""
TIMEOUT_S = 118 + 2 * (JOBS - JOBS_A_ROUND)


@dataclass
class Plan:
    """One job: what it builds, and how it is to end."""

    job_id: str
    version: str
    kind: str
    body: dict[str, Any]
    max_attempts: int = ATTEMPTS_MAX


@dataclass
class Fleet:
    """The agents, the house they work for, and what has been enqueued so far."""

    house: House
    agents: list[AgentProcess]
    rng: random.Random
    waiting: list[Plan]
    enqueued: dict[str, Plan] = field(default_factory=dict)

    def enqueue(self, count: int) -> None:
        for plan in [self.waiting.pop() for _ in range(min(count, len(self.waiting)))]:
            self.house.client.enqueue(
                "build",
                plan.body,
                job_id=plan.job_id,
                pool=POOL,
                max_attempts=plan.max_attempts,
                retry={"base_seconds": 0, "max_seconds": 1},
            )
            self.enqueued[plan.job_id] = plan

    def running(self) -> list[Job]:
        """Return the jobs that are running now; none while the server is away."""
        with contextlib.suppress(ServerAway, Unreachable):
            return list(self.house.direct.jobs(pool=POOL, status="RUNNING", limit=200).items)
        return []

    def victim(self) -> tuple[AgentProcess, list[Job]]:
        """Wait until somebody runs something; return one of those, and what it runs."""
        found: dict[str, list[Job]] = {}

        def looks() -> bool:
            found.clear()
            for job in self.running():
                found.setdefault(str(job.agent_id), []).append(job)
            return bool(found)

        wait_until(looks, VICTIM_S, what="somebody runs something")
        name = self.rng.choice(sorted(found))
        return next(agent for agent in self.agents if agent.name == name), found[name]

    def lost(self, jobs: list[Job], agent: AgentProcess) -> None:
        """Wait until an agent has none of these jobs any more, as the server sees it."""
        ids = {job.id for job in jobs}
        wait_until(
            lambda: not ids & {job.id for job in self.running() if job.agent_id == agent.name},
            VICTIM_S,
            what=f"{agent.name} has lost its jobs",
        )


# -- the faults ------------------------------------------------------------------------------------------------------


def agent_is_killed(fleet: Fleet) -> None:
    agent, _ = fleet.victim()
    starts = agent.starts
    agent.kill()
    wait_until(lambda: agent.starts > starts, VICTIM_S, what=f"{agent.name} is back")


def agent_stands_still_past_its_lease(fleet: Fleet) -> None:
    agent, found = fleet.victim()
    agent.pause()
    try:
        fleet.lost(found, agent)
    finally:
        agent.resume()


def agent_is_cut_off_past_its_lease(fleet: Fleet) -> None:
    agent, found = fleet.victim()
    agent.tap.blackhole()
    try:
        fleet.lost(found, agent)
    finally:
        agent.tap.heal()


def connections_are_reset(fleet: Fleet) -> None:
    agent, _ = fleet.victim()
    for _ in range(10):
        heard = len(agent.tap.heard)
        agent.tap.cut()
        wait_until(lambda heard=heard: len(agent.tap.heard) > heard, VICTIM_S, what=f"{agent.name} goes on")


def answers_are_lost(fleet: Fleet) -> None:
    for containing in (b"/claim", b"/start", b"/heartbeat", b"/complete"):
        agent = fleet.rng.choice(fleet.agents)
        fleet.enqueue(1)
        lost = agent.tap.drop_next_reply(containing)
        # With little to do it may not happen to this agent at all.
        with contextlib.suppress(TimeoutError):
            wait_until(lost.is_set, 3, what="an answer is lost")
        agent.tap.heal()


def agent_is_started_again(fleet: Fleet) -> None:
    agent, _ = fleet.victim()
    starts = agent.starts
    agent.signal(signal.SIGTERM)
    wait_until(lambda: agent.starts > starts, VICTIM_S, what=f"{agent.name} has drained and is back")


def agent_comes_back_as_a_new_machine(fleet: Fleet) -> None:
    """Under the same name, with nothing of what it was: another boot, which supersedes the session there was."""
    agent, _ = fleet.victim()
    starts = agent.starts
    with agent.held_down():
        agent.kill()
        shutil.rmtree(agent.state)
        agent.state.mkdir()
    wait_until(lambda: agent.starts > starts, VICTIM_S, what=f"{agent.name} is back")


def api_is_killed(fleet: Fleet) -> None:
    fleet.victim()
    fleet.house.api.kill()
    fleet.house.api.start()


def api_is_started_again(fleet: Fleet) -> None:
    fleet.victim()
    fleet.house.api.stop()
    fleet.house.api.start()


def redis_is_killed(fleet: Fleet) -> None:
    fleet.victim()
    fleet.house.redis.kill()
    fleet.house.redis.start()
    fleet.house.api.wait_ready()


FAULTS: tuple[Callable[[Fleet], None], ...] = (
    agent_is_killed,
    agent_stands_still_past_its_lease,
    agent_is_cut_off_past_its_lease,
    connections_are_reset,
    answers_are_lost,
    agent_is_started_again,
    agent_comes_back_as_a_new_machine,
    api_is_killed,
    api_is_started_again,
    redis_is_killed,
)


# -- the jobs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return make_sources(tmp_path)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "sink.db"
    sink.create(path)
    return path


def plans(sources: Sources, database: Path, rng: random.Random) -> Iterator[Plan]:
    commits = list(sources.versions.items())
    for number in range(JOBS):
        commit, version = rng.choice(commits)
        kind = rng.choices(("plain", "slow", "flaky", "broken"), (6, 3, 1, 1))[0]
        slow = {"slow": rng.uniform(1, 3)}.get(kind, rng.uniform(0, 0.4))
        leave = f'{python(Path(sink.__file__), database)} $HYBRIDQ_JOB_ID $HYBRIDQ_FENCE "$(./program)"'
        runs = ["make -s", f"sleep {slow:.2f}; make -s test VERSION={version}", leave]
        if kind == "flaky":
            runs.insert(1, 'test "$HYBRIDQ_ATTEMPT" -gt 1')
        if kind == "broken":
            runs.insert(2, "exit 3")
        body = payload(*runs, git={"repo": str(sources.repo), "commit_sha": commit})
        attempts = BROKEN_ATTEMPTS if kind == "broken" else ATTEMPTS_MAX
        yield Plan(f"job-{number:04d}", version, kind, body, attempts)


@contextlib.contextmanager
def working(sources: Sources, database: Path) -> Iterator[Fleet]:
    rng = random.Random(SEED)
    waiting = list(plans(sources, database, rng))
    with House(pool=POOL) as house, contextlib.ExitStack() as stack:
        agents = [
            AgentProcess(
                house,
                f"agent-{letter}",
                key=house.registration_key(uses=1000),
                capacity=CAPACITY,
                lease_seconds=LEASE_S,
                kept_up=True,
            )
            for letter in "abc"[:AGENTS]
        ]
        for agent in agents:
            stack.enter_context(agent)
            agent.wait_registered()
        yield Fleet(house, agents, rng, waiting)
        for agent in agents:
            agent.retire()
        wait_until(lambda: not strays(house.folder), 10, what="no process of a job is left")


# -- what must hold --------------------------------------------------------------------------------------------------


@pytest.mark.timeout(TIMEOUT_S)
def test_every_job_ends_and_every_accepted_effect_stands_once(sources: Sources, database: Path) -> None:
    with working(sources, database) as fleet:
        faults = [fault for _ in range(ROUNDS) for fault in fleet.rng.sample(FAULTS, len(FAULTS))]
        portion = JOBS // (len(faults) + 1)
        for fault in faults:
            fleet.enqueue(portion)
            print(time.strftime("%H:%M:%S", time.gmtime()), fault.__name__, file=sys.stderr)
            fault(fleet)
        fleet.enqueue(len(fleet.waiting))
        jobs = all_ended(fleet)
        records_must_hold(fleet.house, jobs)
    ends_must_be_as_planned(fleet.enqueued, jobs)
    effects_must_stand_once(fleet.enqueued, jobs, database)
    faults_must_have_hurt(fleet, jobs)


def all_ended(fleet: Fleet) -> dict[str, Job]:
    """Wait for the end of every job; return each whole, read over the tap."""
    house = fleet.house

    def none_left() -> bool:
        stats = house.direct.stats(pool=POOL)
        return not (stats.queued or stats.scheduled or stats.claimed or stats.running)

    wait_until(none_left, END_S, what="every job has ended")
    return {job_id: house.client.job(f"{POOL}~{job_id}") for job_id in fleet.enqueued}


def records_must_hold(house: House, jobs: dict[str, Job]) -> None:
    """What Redis holds keeps every invariant, and so does all that anybody was answered."""
    with house.redis.client() as client:
        invariants.must_hold(client)
    with house.recorder.call("inventory", proc="end", queue=POOL, drained=True) as call:
        call.ok({job.job_id: job.status for job in house.all_jobs(POOL)})
    if os.environ.get("HYBRIDQ_TEST_HISTORY"):
        check.write_events(os.environ["HYBRIDQ_TEST_HISTORY"], house.recorder.events)
    check.history(house.recorder.events).raise_if_broken()


def ends_must_be_as_planned(plans: dict[str, Plan], jobs: dict[str, Job]) -> None:
    assert len(jobs) == JOBS
    for job_id, plan in plans.items():
        job = jobs[job_id]
        assert job.status == ("DEAD_LETTERED" if plan.kind == "broken" else "COMPLETED"), job
        if plan.kind == "broken":
            assert job.dead_reason and job.attempts[-1].outcome != "success", job
            assert all(attempt.exit_code == 3 for attempt in job.attempts if attempt.outcome == "failed"), job


def effects_must_stand_once(plans: dict[str, Plan], jobs: dict[str, Job], database: Path) -> None:
    """The effect that stands is that of the completion that was accepted, and was taken once."""
    accepted = {}
    for job_id, job in jobs.items():
        good = [attempt.fence for attempt in job.attempts if attempt.outcome == "success"]
        assert len(good) == (job.status == "COMPLETED"), job
        if good:
            accepted[f"{POOL}~{job_id}"] = (good[0], plans[job_id].version)
    assert sink.effects(database) == accepted
    taken = Counter((job, fence) for job, fence, was_taken in sink.tries(database) if was_taken)
    assert set(taken.values()) == {1}


def faults_must_have_hurt(fleet: Fleet, jobs: dict[str, Job]) -> None:
    """Faults that nobody noticed would prove nothing."""
    outcomes = Counter(attempt.outcome for job in jobs.values() for attempt in job.attempts)
    calls = Counter((event.op, event.type) for event in fleet.house.recorder.events)
    assert outcomes["lost"] >= 2, outcomes
    assert calls["complete", "fail"] + calls["heartbeat", "info"] + calls["claim", "info"] > 0, calls
    assert sum(agent.starts for agent in fleet.agents) >= len(fleet.agents) + 3 * ROUNDS
    print(f"{len(jobs)} jobs: {dict(Counter(job.status for job in jobs.values()))}, attempts {dict(outcomes)}")
    print(f"calls {dict(calls)}")
