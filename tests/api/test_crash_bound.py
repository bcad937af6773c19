"""A job that takes its agent down each time it runs: it ends as a dead letter, and tells each attempt."""

from __future__ import annotations

from typing import Any

import pytest

from hybridq import Queue
from tests.api import shared
from tests.api.client import Agent, Api, wait_until
from tests.api.test_queue_jobs import enqueue

api, running = shared.api, shared.running
LEASE_S = 1
INFRA_FREE = 3
CRASHED = {"code": "agent_crashed", "message": "the agent ended while the job ran"}


def begin(agent: Agent, **more: Any) -> dict[str, Any]:
    """Claim as the agent does, and start: the start is what confirms the lease."""
    answers = []

    def claimed() -> bool:
        answers.append(agent.claim(lease_seconds=LEASE_S, wait_seconds=2, **more))
        return answers[-1].status_code == 200

    wait_until(claimed, 20, what="the job comes back")
    job: dict[str, Any] = answers[-1].json()["job"]
    started = agent.post(f"/api/queue/jobs/{job['id']}/start", {"lease_token": job["lease_token"]})
    assert started.status_code == 200, started.text
    return job


def shown(api: Api, job: dict[str, Any]) -> dict[str, Any]:
    return dict(api.get(f"/api/queue/jobs/{job['id']}").json())


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_job_whose_agent_registers_anew_after_each_start_ends_as_a_dead_letter(api: Api, attempts: int) -> None:
    made = enqueue(api, max_attempts=attempts)
    fences = []
    for boot in range(attempts):
        agent = api.agent("builder", boot_id=f"boot-{boot}")
        fences.append(begin(agent)["fence"])
        assert shown(api, made)["status"] == "RUNNING"
    agent = api.agent("builder", boot_id="boot-last")

    job = shown(api, made)
    assert (job["status"], job["dead_reason"], job["outcome"]) == ("DEAD_LETTERED", "lease_lost", "lost")
    assert (job["attempt"], job["deliveries"]) == (attempts, attempts)
    told = [(one["number"], one["agent_id"], one["fence"], one["outcome"]) for one in job["attempts"]]
    assert told == [(n + 1, "builder", fence, "lost") for n, fence in enumerate(fences)]
    assert all(one["started_at"] and one["finished_at"] for one in job["attempts"])
    dead = api.get("/api/queue/dead", params={"reason": "lease_lost"}).json()["items"]
    assert [one["id"] for one in dead] == [made["id"]]
    assert api.get("/api/queue/stats").json()["lost_leases"] == attempts
    assert agent.claim().status_code == 404, "and nobody gets it any more"


def test_what_another_boot_had_not_started_costs_no_attempt(api: Api) -> None:
    made = enqueue(api, max_attempts=1)
    for boot in range(5):
        agent = api.agent("builder", boot_id=f"boot-{boot}")
        claimed = agent.claim(wait_seconds=2)
        assert claimed.status_code == 200, claimed.text
    api.agent("builder", boot_id="boot-last")

    job = shown(api, made)
    assert (job["status"], job["attempt"], job["deliveries"]) == ("QUEUED", 0, 5)


def test_an_agent_that_leaves_in_order_costs_no_attempt(api: Api) -> None:
    made = enqueue(api, max_attempts=1)
    for boot in range(3):
        agent = api.agent("builder", boot_id=f"boot-{boot}")
        begin(agent)
        assert agent.post("/api/agents/builder/deregister", {"reason": "reboot"}).status_code == 200

    job = shown(api, made)
    assert (job["status"], job["attempt"]) == ("QUEUED", 0)
    assert [one["outcome"] for one in job["attempts"]] == ["released"] * 3


def test_a_job_whose_agents_fall_silent_each_time_ends_as_a_dead_letter(api: Api) -> None:
    """No agent comes back: the leases run out, and what the server does by itself finds them."""
    made = enqueue(api, max_attempts=2)
    for number in range(2):
        begin(api.agent(f"builder-{number}"))
        wait_until(lambda: shown(api, made)["status"] != "RUNNING", 20, what="the lease was reaped")

    job = shown(api, made)
    assert (job["status"], job["dead_reason"], job["attempt"]) == ("DEAD_LETTERED", "lease_lost", 2)
    assert [(one["agent_id"], one["outcome"]) for one in job["attempts"]] == [
        ("builder-0", "lost"),
        ("builder-1", "lost"),
    ]


def test_a_job_whose_agent_says_each_time_that_it_crashed_ends_as_a_dead_letter(api: Api) -> None:
    """The same boot goes on and ends what it held: the machine's fault at most three times, then the job's."""
    made = enqueue(api, max_attempts=2, retry={"base_seconds": 0, "max_seconds": 0})
    agent = api.agent("builder")
    for _ in range(INFRA_FREE + 2):
        job = begin(agent)
        said = {"lease_token": job["lease_token"], "outcome": "infra_error", "error": CRASHED}
        ended = agent.post(f"/api/queue/jobs/{job['id']}/complete", said)
        assert ended.status_code == 200, ended.text

    job = shown(api, made)
    assert (job["status"], job["dead_reason"], job["outcome"]) == ("DEAD_LETTERED", "max_attempts", "infra_error")
    assert (job["attempt"], job["deliveries"], job["error"]) == (2, INFRA_FREE + 2, CRASHED)
    assert [one["outcome"] for one in job["attempts"]] == ["infra_error"] * (INFRA_FREE + 2)
    assert {one["error"]["code"] for one in job["attempts"]} == {"agent_crashed"}


def test_a_dead_letter_of_crashes_can_be_replayed(api: Api) -> None:
    made = enqueue(api, max_attempts=1)
    begin(api.agent("builder", boot_id="one"))
    api.agent("builder", boot_id="two")
    assert shown(api, made)["status"] == "DEAD_LETTERED"
    assert api.post(f"/api/queue/jobs/{made['id']}/retry").status_code == 200
    with Queue("default", redis=api.redis_url, namespace=api.namespace) as queue:
        job = queue.job(made["job_id"])
    assert (job.status, job.attempt, job.dead_reason) == ("QUEUED", 0, None)
