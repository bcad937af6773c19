"""Evidence that comes too late: what a holder says of a lease it lost is refused, kept under its attempt, and shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.api import shared
from tests.api.client import Agent, Api, instant, problem, wait_until
from tests.api.test_queue_jobs import enqueue

api, key, running = shared.api, shared.key, shared.running
SECRET = "ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
ERROR_BYTES_MAX = 8192


def claim(agent: Agent) -> dict[str, Any]:
    answer = agent.claim(start=True, lease_seconds=1, wait_seconds=5)
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()["job"]
    beaten = agent.post(
        "/api/queue/heartbeat", {"leases": [{"id": job["id"], "lease_token": job["lease_token"]}]}
    )  # what nobody confirmed leaves no attempt behind
    assert [one["id"] for one in beaten.json()["renewed"]] == [job["id"]]
    return job


def say(api: Api, job: dict[str, Any], token: str, outcome: str = "success", **said: Any) -> Any:
    body = {"lease_token": job["lease_token"], "outcome": outcome, **said}
    return api.post(f"/api/queue/jobs/{job['id']}/complete", body, token=token)


def shown(api: Api, job: dict[str, Any]) -> dict[str, Any]:
    return dict(api.get(f"/api/queue/jobs/{job['id']}").json())


@pytest.fixture
def lost(api: Api) -> tuple[Agent, dict[str, Any]]:
    """An agent, and a job whose lease ran out in its hands and that waits again."""
    made = enqueue(api)
    agent = api.agent("slow")
    job = claim(agent)
    wait_until(lambda: shown(api, made)["status"] == "QUEUED", 20, what="the lease was reaped")
    return agent, job


def test_a_late_completion_is_refused_and_kept_under_its_attempt(api: Api, lost: tuple[Agent, dict[str, Any]]) -> None:
    slow, job = lost
    other = api.agent("other")
    again = claim(other)
    before = shown(api, job)

    said = problem(say(api, job, slow.token, "failed", exit_code=3, error={"code": "tests"}), 409, "stale_lease")
    assert (said["job_status"], said["allowed"]) == ("RUNNING", ["RUNNING"])
    after = shown(api, job)
    first, second = after["attempts"]
    late = first.pop("late")
    assert instant(late.pop("at")) >= instant(first["finished_at"])
    assert late == {"outcome": "failed", "exit_code": 3, "error": {"code": "tests"}}
    assert (first["agent_id"], first["fence"], first["outcome"]) == ("slow", job["fence"], "lost")
    assert (first["exit_code"], first["error"]) == (None, None)
    assert (second["agent_id"], second["fence"], second["late"]) == ("other", again["fence"], None)
    unchanged = before.keys() - {"attempts", "claimed_lease_expires_at"}
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}

    assert say(api, again, other.token).status_code == 200
    ended = shown(api, job)
    assert (ended["status"], ended["outcome"]) == ("COMPLETED", "success")
    assert [one["late"] and one["late"]["outcome"] for one in ended["attempts"]] == ["failed", None]
    dashboard = api.get(f"/api/dashboard/jobs/{job['id']}").json()
    assert dashboard["attempts"] == ended["attempts"]


def test_only_the_first_late_word_is_kept(api: Api, lost: tuple[Agent, dict[str, Any]]) -> None:
    slow, job = lost
    for outcome in ("success", "failed", "success"):
        problem(say(api, job, slow.token, outcome), 409, "stale_lease")

    [attempt] = shown(api, job)["attempts"]
    assert attempt["late"]["outcome"] == "success"


def test_late_evidence_holds_no_secret_and_has_a_bound(api: Api, lost: tuple[Agent, dict[str, Any]]) -> None:
    slow, job = lost
    assert say(api, job, slow.token, "failed", error="x" * (ERROR_BYTES_MAX + 1)).status_code == 413
    assert shown(api, job)["attempts"][0]["late"] is None
    error = {"code": "failed", "message": f"push with {SECRET} was refused"}
    problem(say(api, job, slow.token, "failed", error=error, result={"log": "x" * 1000}), 409, "stale_lease")

    late = shown(api, job)["attempts"][0]["late"]
    assert late["error"]["code"] == "failed" and late["error"]["message"].startswith("push with ")
    assert SECRET not in json.dumps(late)
    assert late.keys() == {"outcome", "at", "exit_code", "error"}


def test_what_the_next_boot_says_of_the_boot_before_is_kept(api: Api) -> None:
    """An agent crashed after the work was done; its next boot finds the result on disk and reports it."""
    made = enqueue(api)
    job = claim(api.agent("builder", boot_id="one"))
    agent = api.agent("builder", boot_id="two")
    assert shown(api, made)["status"] == "QUEUED"
    problem(say(api, job, agent.token, "success"), 409, "stale_lease")

    [attempt] = shown(api, made)["attempts"]
    assert (attempt["outcome"], attempt["late"]["outcome"]) == ("lost", "success")


def test_late_words_of_others_are_not_kept(
    api: Api, key: Callable[..., str], lost: tuple[Agent, dict[str, Any]]
) -> None:
    _, job = lost
    stranger = api.agent("stranger")
    problem(say(api, job, stranger.token), 403, "not_lease_holder")
    problem(say(api, job, key("queue:claim")), 403, "not_lease_holder")
    guessed = job | {"lease_token": f"{job['fence'] - 1}.{'0' * 32}"}
    problem(say(api, guessed, stranger.token), 409, "stale_lease")

    assert [one["late"] for one in shown(api, job)["attempts"]] == [None]


def test_a_key_s_late_completion_is_kept_too(api: Api, key: Callable[..., str]) -> None:
    made = enqueue(api)
    mine = key("queue:claim")
    body = {"agent_id": "hand", "lease_seconds": 1}
    job = api.post("/api/queue/claim", body, token=mine).json()["job"]
    started = {"lease_token": job["lease_token"]}
    assert api.post(f"/api/queue/jobs/{job['id']}/start", started, token=mine).status_code == 200
    wait_until(lambda: shown(api, made)["status"] == "QUEUED", 20, what="the lease was reaped")
    problem(say(api, job, mine, "timeout"), 409, "stale_lease")

    [attempt] = shown(api, made)["attempts"]
    assert (attempt["agent_id"], attempt["late"]["outcome"]) == ("hand", "timeout")
