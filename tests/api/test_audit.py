"""The audit: one line for each deed that somebody answers for, done or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.api import shared
from tests.api.client import Api, instant, problem

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
