"""A job that kills its agent each time: it ends, and what comes after it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.agent.e2e.agents import AgentProcess
from tests.agent.e2e.doings import payload
from tests.agent.e2e.house import House

Start = Callable[..., AgentProcess]
DELIVERIES_MAX = 8
"""More than that is no bound: 3 attempts, and what may come back uncharged."""


def test_a_job_that_kills_its_agent_each_time_ends_in_dead_letters(house: House, agent: Start, room: Path) -> None:
    holder = agent("a", lease_seconds=3.0, kept_up=True)
    poison = payload(f"echo $HYBRIDQ_FENCE >> '{room / 'runs'}'; kill -9 $(cat '{holder.pid_path}'); sleep 60")
    job = house.client.enqueue("t", poison, pool=house.pool, max_attempts=3)
    after = house.client.enqueue("t", payload("exit 0"), pool=house.pool)

    dead = house.wait_for_end(job.id, 100)
    assert dead.status == "DEAD_LETTERED"
    assert dead.dead_reason
    runs = (room / "runs").read_text().split()
    assert 3 <= len(runs) <= DELIVERIES_MAX
    assert len(set(runs)) == len(runs), "each under a lease of its own"
    assert [str(attempt.fence) for attempt in dead.attempts if str(attempt.fence) in runs] == runs
    assert all(attempt.outcome in ("lost", "infra_error") for attempt in dead.attempts)
    assert holder.starts > len(runs), "the agent was started again each time"
    assert [letter.id for letter in house.client.dead(pool=house.pool).items] == [job.id]
    assert house.wait_for_end(after.id).status == "COMPLETED"
