"""A job that kills its agent each time: it ends, and what comes after it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent.e2e.agents import AgentProcess
from tests.agent.e2e.doings import payload
from tests.agent.e2e.house import House

Start = Callable[..., AgentProcess]
DELIVERIES_MAX = 8
"""More than that is no bound: 3 attempts, and what may come back uncharged."""


@pytest.mark.parametrize("kept", [True, False], ids=["same machine", "new machine each time"])
def test_a_job_that_kills_its_agent_each_time_ends_in_dead_letters(
    house: House, agent: Start, room: Path, kept: bool
) -> None:
    """An agent that has kept its journal tells how it ended; of one that begins anew, the server takes its lease."""
    holder = agent("a", lease_seconds=3.0, kept_up=True, ephemeral=not kept, key=house.registration_key(uses=100))
    poison = payload(f"echo $HYBRIDQ_FENCE >> '{room / 'runs'}'; kill -9 $(cat '{holder.pid_path}'); sleep 60")
    retry = {"base_seconds": 0, "max_seconds": 1}
    job = house.client.enqueue("t", poison, pool=house.pool, max_attempts=3, retry=retry)
    after = house.client.enqueue("t", payload("exit 0"), pool=house.pool)

    dead = house.wait_for_end(job.id, 100)
    outcomes = [attempt.outcome for attempt in dead.attempts]
    assert dead.status == "DEAD_LETTERED"
    runs = (room / "runs").read_text().split()
    assert 3 <= len(runs) <= DELIVERIES_MAX
    assert len(set(runs)) == len(runs), "each under a lease of its own"
    assert [str(attempt.fence) for attempt in dead.attempts if str(attempt.fence) in runs] == runs
    assert holder.starts > len(runs), "the agent was started again each time"
    assert dead.dead_reason in ("max_attempts", "lease_lost")
    # A lease that ends before the agent is back is lost in any case.
    assert set(outcomes) <= ({"infra_error", "lost"} if kept else {"lost"})
    told = [attempt.error["code"] for attempt in dead.attempts if attempt.outcome == "infra_error"]
    assert set(told) == ({"agent_crashed"} if kept else set())
    assert [letter.id for letter in house.client.dead(pool=house.pool).items] == [job.id]
    assert house.wait_for_end(after.id).status == "COMPLETED"
