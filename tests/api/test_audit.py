"""The audit: one line for each deed that somebody answers for, done or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.api import shared
from tests.api.client import Agent, Api, instant, problem

api, key, running = shared.api, shared.key, shared.running

ENTRY = {"at", "actor", "action", "object", "outcome", "request_id"}


def entries(api: Api, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get("/api/audit", params=params).json()["items"]
    return found


def test_every_deed_has_its_line(api: Api) -> None:
    made = api.post("/api/keys", {"name": "n", "scopes": ["agents:read"]}, headers={"X-Request-Id": "r-1"}).json()
    api.delete(f"/api/keys/{made['id']}")
    registration = api.post("/api/agents/keys", {"pool": "linux", "uses": 2}).json()
    agent = api.post("/api/agents/register", {"agent_id": "a1"}, token=registration["key"]).json()
    api.post("/api/agents/pools/linux/scale", {"target": 2})
    api.patch("/api/agents/a1/status", {"status": "DRAINING"})
    api.patch("/api/agents/a1/status", {"status": "HEALTHY"})
    api.delete(f"/api/agents/keys/{registration['id']}")
    api.post("/api/agents/a1/deregister", {})
    api.post("/api/agents/register", {"agent_id": "a2"}, token=api.admin)
    found = entries(api)
    assert all(entry.keys() == ENTRY for entry in found)
    assert [(entry["action"], entry["object"], entry["outcome"]) for entry in reversed(found)] == [
        ("key.create", made["id"], "done"),
        ("key.revoke", made["id"], "done"),
        ("registration.create", registration["id"], "done"),
        ("registration.spend", "a1", "done"),
        ("pool.scale", "linux", "done"),
        ("agent.drain", "a1", "done"),
        ("agent.undrain", "a1", "done"),
        ("registration.revoke", registration["id"], "done"),
        ("agent.deregister", "a1", "done"),
    ]
    assert found[-1]["request_id"] == "r-1"
    actors = {entry["action"]: entry["actor"] for entry in found}
    assert actors["registration.spend"] == f"registration:{registration['id']}"
    assert actors["key.create"].startswith("key:")
    instant(found[0]["at"])
    assert agent["token"] not in str(found)


def test_an_agent_s_own_farewell_is_no_deed_of_an_operator(api: Api) -> None:
    agent = api.post("/api/agents/register", {"agent_id": "a1"}).json()
    api.post("/api/agents/a1/deregister", {}, token=agent["token"])
    assert entries(api) == []


def test_what_operators_do_to_jobs_is_noted(api: Api) -> None:
    job = api.post("/api/queue/jobs", {"payload": 1}).json()["id"]
    api.patch(f"/api/queue/jobs/{job}/priority", {"priority": "HIGH"})
    api.delete(f"/api/queue/jobs/{job}")
    api.post("/api/queue/pools/default/pause", {"reason": "repairs"})
    noted = [(entry["action"], entry["object"]) for entry in reversed(entries(api))]
    assert noted == [("job.priority", job), ("job.cancel", job), ("pool.pause", "default")]


# -- jobs that an agent would not run ------------------------------------------------------------------------------


def reject(api: Api, agent: Agent, error: Any, *, path: str = "queue", again: int = 0) -> str:
    """Have an agent reject a job; return the job's full id."""
    made = api.post("/api/queue/jobs", {"payload": {"signed": None}}).json()["id"]
    job = agent.claim().json()["job"]
    assert job["id"] == made
    said = {"lease_token": job["lease_token"], "outcome": "rejected", **({} if error is None else {"error": error})}
    for number in range(1 + again):
        answer = api.patch(f"/api/{path}/jobs/{made}/complete", said, token=agent.token)
        assert answer.status_code == 200, answer.text
        assert answer.json()["replayed"] is (number > 0)
        assert answer.json()["job"]["status"] == "FAILED"
    return str(made)


@pytest.mark.parametrize("path", ["queue", "dashboard"])
def test_a_job_that_an_agent_rejects_is_noted_once(api: Api, path: str) -> None:
    agent = api.agent("builder")
    job = reject(api, agent, {"code": "signature_invalid", "message": "not what was signed"}, path=path, again=2)

    (entry,) = entries(api)
    assert (entry["actor"], entry["action"]) == ("agent:builder", "job.rejected")
    assert (entry["object"], entry["outcome"]) == (job, "signature_invalid")
    assert "not what was signed" not in str(entry)


def test_a_rejection_is_noted_also_where_the_agent_claims_on(api: Api) -> None:
    agent = api.agent("builder")
    for number in range(2):
        api.post("/api/queue/jobs", {"job_id": f"j{number}", "payload": 1})
    job = agent.claim().json()["job"]
    said = {"lease_token": job["lease_token"], "outcome": "rejected", "error": "no_steps", "claim_next": {}}
    answer = agent.post(f"/api/queue/jobs/{job['id']}/complete", said)

    assert [one["id"] for one in answer.json()["next"]] == ["default~j1"]
    assert [(entry["object"], entry["outcome"]) for entry in entries(api)] == [("default~j0", "no_steps")]


def test_a_key_that_rejects_is_named_as_every_key(api: Api, key: Callable[..., str]) -> None:
    mine = key("queue:claim")
    api.post("/api/queue/jobs", {"payload": 1})
    job = api.post("/api/queue/claim", {"agent_id": "hand"}, token=mine).json()["job"]
    said = {"lease_token": job["lease_token"], "outcome": "rejected"}
    assert api.post(f"/api/queue/jobs/{job['id']}/complete", said, token=mine).status_code == 200

    (entry,) = entries(api)
    assert (entry["actor"], entry["outcome"]) == (f"key:{mine[4:16]}", "rejected")


@pytest.mark.parametrize(
    "error",
    [
        None,
        "signature_invalid",
        "hunter2",
        ["no_steps"],
        7,
        {"message": "no code"},
        {"code": None},
        {"code": {"code": "no_steps"}},
        {"code": "Unknown field: password"},
        {"code": "x" * 49},
        {"code": "x7k2q9zr4m1p"},
        {"code": "a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6"},
        {"code": "ghp_" + "a1B2" * 9},
        {"code": "no_steps\u2028"},
    ],
    ids=repr,
)
def test_of_an_error_only_a_plain_code_is_noted(api: Api, error: Any) -> None:
    job = reject(api, api.agent("builder"), error)

    (entry,) = entries(api)
    assert (entry["object"], entry["outcome"]) == (job, "rejected")


def test_other_ends_of_a_job_are_no_deeds(api: Api) -> None:
    agent = api.agent("builder")
    for outcome in ("success", "failed", "infra_error"):
        api.post("/api/queue/jobs", {"payload": 1, "max_attempts": 1})
        job = agent.claim(start=True).json()["job"]
        said = {"lease_token": job["lease_token"], "outcome": outcome, "retryable": False}
        assert agent.post(f"/api/queue/jobs/{job['id']}/complete", said).status_code == 200
    stale = {"lease_token": job["lease_token"], "outcome": "rejected"}
    problem(agent.post(f"/api/queue/jobs/{job['id']}/complete", stale), 409, "outcome_conflict")

    assert entries(api) == []


def test_what_is_refused_as_too_wide_is_noted(api: Api, key: Callable[..., str]) -> None:
    mine = key("keys:manage")
    problem(api.post("/api/keys", {"name": "n", "scopes": ["*"]}, token=mine), 403, "scope_escalation")
    (entry,) = entries(api)
    assert (entry["action"], entry["outcome"]) == ("key.create", "refused")


def test_the_audit_is_read_page_by_page_by_those_who_may(api: Api, key: Callable[..., str]) -> None:
    ids = [api.post("/api/keys", {"name": "n", "scopes": ["agents:read"]}).json()["id"] for _ in range(5)]
    mine = key("audit:read")
    first = api.get("/api/audit", params={"limit": 3}, token=mine).json()
    second = api.get("/api/audit", params={"limit": 3, "cursor": first["next_cursor"]}, token=mine).json()
    assert [entry["object"] for entry in first["items"] + second["items"]] == ids[::-1]
    assert second["next_cursor"] is None
    foreign = key("audit:read", namespace=f"{api.namespace}-2")
    assert api.get("/api/audit", token=foreign).json()["items"] == []
    cursor = {"cursor": first["next_cursor"]}
    problem(api.get("/api/audit", params=cursor, token=foreign), 400, "invalid_cursor")
    problem(api.get("/api/audit", token=key("keys:manage")), 403, "missing_scope")
