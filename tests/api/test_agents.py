"""Agents over HTTP: they register, beat, are looked at, steered, and leave."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from tests.api.client import Api, instant, problem

AGENT = {
    "agent_id",
    "pool",
    "status",
    "labels",
    "version",
    "capacity",
    "running",
    "jobs_completed",
    "jobs_failed",
    "last_heartbeat",
    "registered_at",
    "metrics",
}
REGISTERED = {
    "agent_id",
    "session_id",
    "pool",
    "status",
    "token",
    "token_expires_in_seconds",
    "renewal_token",
    "heartbeat_seconds",
}
POOL = {
    "name",
    "capacity",
    "active",
    "idle",
    "unhealthy",
    "queued",
    "min",
    "max",
    "target",
    "desired_agents",
    "runnable_jobs",
    "unsatisfiable_jobs",
    "oldest_wait_seconds",
}


def register(api: Api, token: str | None = "admin", status: int = 201, **body: Any) -> dict[str, Any]:
    answer = api.post("/api/agents/register", body, token=token)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def beat(api: Api, agent: dict[str, Any], **body: Any) -> Any:
    path = f"/api/agents/{agent['agent_id']}/heartbeat"
    return api.post(path, {"session_id": agent["session_id"], **body}, token=agent["token"])


# -- register --------------------------------------------------------------------------------------------------------


def test_an_agent_registers_and_the_same_boot_gets_the_same_session(api: Api) -> None:
    first = register(api, agent_id="a1", pool="linux", boot_id="b1", version="1.2", labels={"os": "linux", "gpu": ""})
    assert first.keys() >= REGISTERED
    assert (first["agent_id"], first["pool"], first["status"]) == ("a1", "linux", "HEALTHY")
    assert first["token"].startswith("hqa_") and first["renewal_token"].startswith("hqn_")
    assert first["token_expires_in_seconds"] == 900 and first["heartbeat_seconds"] > 0
    again = register(api, "admin", 200, agent_id="a1", pool="linux", boot_id="b1")
    assert again["session_id"] == first["session_id"]


def test_another_boot_supersedes_the_session(api: Api) -> None:
    old = register(api, agent_id="a1", boot_id="b1")
    new = register(api, agent_id="a1", boot_id="b2")
    assert new["session_id"] != old["session_id"] and new["pool"] == "default"
    problem(api.post("/api/agents/a1/heartbeat", {"session_id": old["session_id"]}), 410, "session_superseded")
    problem(beat(api, old), 401, "unauthenticated")
    assert beat(api, new).status_code == 200


def test_another_boot_frees_the_leases_at_once(api: Api) -> None:
    old = register(api, agent_id="a1", pool="linux", boot_id="b1")
    api.post("/api/queue/jobs", {"pool": "linux", "payload": 1})
    claimed = api.post("/api/queue/claim", {"agent_id": "a1"}, token=old["token"]).json()["job"]
    new = register(api, agent_id="a1", pool="linux", boot_id="b2")
    job = api.get(f"/api/queue/jobs/{claimed['id']}").json()
    assert job["status"] == "QUEUED"
    lease = {"id": claimed["id"], "lease_token": claimed["lease_token"]}
    assert [one["id"] for one in beat(api, new, leases=[lease]).json()["lost"]] == [claimed["id"]]


def test_the_server_makes_an_agent_s_id_and_boot(api: Api) -> None:
    one, two = register(api), register(api)
    assert one["agent_id"] != two["agent_id"]
    assert register(api, agent_id=one["agent_id"])["session_id"] != one["session_id"], "each call is another boot"


def test_an_idempotency_key_stands_for_id_and_boot(api: Api) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = api.post("/api/agents/register", {"pool": "linux"}, headers=headers)
    again = api.post("/api/agents/register", {"pool": "linux"}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["agent_id"] == again.json()["agent_id"]
    assert first.json()["session_id"] == again.json()["session_id"]
    other = api.post("/api/agents/register", {}, headers={"Idempotency-Key": "k2"})
    assert other.json()["agent_id"] != first.json()["agent_id"]


@pytest.mark.parametrize("name", ["healthy", "pools", "register", "running", "keys"])
def test_names_kept_for_paths_are_refused(api: Api, name: str) -> None:
    problem(api.post("/api/agents/register", {"agent_id": name}), 400, "reserved_name")
    problem(api.post("/api/agents/register", {"pool": name}), 400, "reserved_name")


@pytest.mark.parametrize(
    "body",
    [
        {"agent_id": "-x"},
        {"agent_id": "a~b"},
        {"capacity": 0},
        {"capacity": 1001},
        {"labels": {"": "x"}},
        {"labels": {"os": 1}},
        {"labels": {f"l{n}": "" for n in range(65)}},
        {"boot_id": ""},
        {"unknown": 1},
        {"features": ["x"] * 33},
    ],
)
def test_what_is_off_the_rules_is_400(api: Api, body: dict[str, Any]) -> None:
    problem(api.post("/api/agents/register", body), 400, "invalid_argument")


def test_a_registration_key_binds_pool_and_labels_and_is_spent_once_for_each_agent_and_boot(api: Api) -> None:
    made = api.post("/api/agents/keys", {"pool": "linux", "labels": {"zone": "a"}, "uses": 1}).json()
    spent = made["key"]
    assert spent.startswith("hqr_")
    problem(api.post("/api/agents/register", {"agent_id": "a1", "pool": "mac"}, token=spent), 403, "pool_not_allowed")
    first = register(api, spent, agent_id="a1", boot_id="b1", labels={"zone": "b", "os": "linux"})
    assert first["pool"] == "linux"
    assert api.get("/api/agents/a1").json()["labels"] == {"zone": "a", "os": "linux"}
    again = register(api, spent, 200, agent_id="a1", boot_id="b1")
    assert again["session_id"] == first["session_id"], "a lost reply costs no use"
    assert beat(api, again).status_code == 200
    problem(api.post("/api/agents/register", {"agent_id": "a2"}, token=spent), 401, "unauthenticated")
    problem(api.post("/api/agents/register", {"agent_id": "a1", "boot_id": "b2"}, token=spent), 401, "unauthenticated")
    listed = api.get("/api/agents/keys").json()["items"]
    assert [(key["id"], key["uses"], key["uses_spent"]) for key in listed] == [(made["id"], 1, 1)]


def test_a_registration_key_does_nothing_else(api: Api) -> None:
    spent = api.post("/api/agents/keys", {"pool": "linux"}).json()["key"]
    for method, path in (("GET", "/api/agents"), ("POST", "/api/queue/jobs"), ("GET", "/api/keys")):
        problem(api.request(method, path, {} if method == "POST" else None, token=spent), 401, "unauthenticated")


def test_a_revoked_registration_key_registers_nobody(api: Api) -> None:
    made = api.post("/api/agents/keys", {"pool": "linux"}).json()
    assert api.delete(f"/api/agents/keys/{made['id']}").status_code == 204
    problem(api.post("/api/agents/register", {}, token=made["key"]), 401, "unauthenticated")
    assert api.get("/api/agents/keys").json()["items"] == []
    problem(api.delete("/api/agents/keys/nobody"), 404, "not_found")


def test_a_key_of_other_pools_neither_registers_there_nor_takes_an_agent_over(
    api: Api, key: Callable[..., str]
) -> None:
    register(api, agent_id="a1", pool="linux")
    mine = key("agents:register", pools=["mac"])
    problem(api.post("/api/agents/register", {"agent_id": "a9"}, token=mine), 403, "pool_not_allowed")
    answer = api.post("/api/agents/register", {"agent_id": "a1", "pool": "mac"}, token=mine)
    problem(answer, 403, "agent_not_allowed")
    assert register(api, mine, agent_id="a9", pool="mac")["pool"] == "mac"


def test_labels_that_hold_a_secret_are_refused(api: Api) -> None:
    body = {"labels": {"token": "ghp_" + "a1B2" * 9}}
    answer = problem(api.post("/api/agents/register", body), 422, "secret_suspected")
    assert "ghp_" not in str(answer)


# -- heartbeat -------------------------------------------------------------------------------------------------------


def test_a_heartbeat_answers_what_an_agent_must_know(api: Api) -> None:
    agent = register(api, agent_id="a1", boot_id="b1")
    answer = beat(api, agent, metrics={"cpu_percent": 12.5, "disk_percent": 1}).json()
    assert answer.keys() >= {"status", "next_heartbeat_seconds", "renewed", "lost", "cancel", "drain", "token"}
    assert (answer["status"], answer["drain"], answer["token"]) == ("HEALTHY", False, None)
    assert api.get("/api/agents/a1").json()["metrics"] == {"cpu_percent": 12.5, "disk_percent": 1.0}


def test_a_loaded_agent_is_degraded(api: Api) -> None:
    agent = register(api, agent_id="a1")
    assert beat(api, agent, metrics={"memory_percent": 91}).json()["status"] == "DEGRADED"
    assert api.get("/api/agents/healthy").json() == []
    assert beat(api, agent, metrics={"memory_percent": 10}).json()["status"] == "HEALTHY"


def test_a_heartbeat_renews_and_tells_what_to_cancel_and_what_is_lost(api: Api) -> None:
    agent = register(api, agent_id="a1", pool="linux", capacity=2)
    for number in range(2):
        api.post("/api/queue/jobs", {"pool": "linux", "job_id": f"j{number}", "payload": number})
    claim = {"agent_id": "a1", "max": 2, "lease_seconds": 60, "start": True}
    jobs = api.post("/api/queue/claim", claim, token=agent["token"]).json()["jobs"]
    assert api.delete(f"/api/queue/jobs/{jobs[0]['id']}").status_code == 202
    leases = [{"id": job["id"], "lease_token": job["lease_token"]} for job in jobs]
    gone = {"id": "linux~gone", "lease_token": leases[0]["lease_token"]}
    elsewhere = {"id": "nowhere~j0", "lease_token": leases[0]["lease_token"]}
    answer = beat(api, agent, leases=[*leases, gone, elsewhere]).json()
    assert {one["id"] for one in answer["renewed"]} == {"linux~j0", "linux~j1"}
    assert all(50 < one["lease_expires_in_seconds"] <= 60 for one in answer["renewed"])
    assert [(one["id"], one["mode"]) for one in answer["cancel"]] == [("linux~j0", "graceful")]
    assert {one["id"] for one in answer["lost"]} == {"linux~gone", "nowhere~j0"}
    assert answer["next_heartbeat_seconds"] <= 20, "never above a third of the shortest lease"
    assert "nowhere" not in [pool["name"] for pool in api.get("/api/agents/pools").json()["items"]]


def test_an_agent_renews_no_other_s_lease(api: Api) -> None:
    one, two = register(api, agent_id="a1"), register(api, agent_id="a2")
    api.post("/api/queue/jobs", {"payload": 1})
    job = api.post("/api/queue/claim", {"agent_id": "a1"}, token=one["token"]).json()["job"]
    lease = {"id": job["id"], "lease_token": job["lease_token"]}
    answer = beat(api, two, leases=[lease]).json()
    assert answer["renewed"] == [] and [lost["id"] for lost in answer["lost"]] == [job["id"]]


def test_unknown_agents_and_sessions_are_told_apart(api: Api) -> None:
    problem(api.post("/api/agents/nobody/heartbeat", {"session_id": "0" * 32}), 404, "agent_not_registered")
    agent = register(api, agent_id="a1")
    problem(api.post("/api/agents/a1/heartbeat", {"session_id": "0" * 32}), 410, "session_superseded")
    problem(api.post("/api/agents/a1/heartbeat", {"session_id": "short"}), 410, "session_superseded")
    other = register(api, agent_id="a2")
    answer = api.post("/api/agents/a2/heartbeat", {"session_id": other["session_id"]}, token=agent["token"])
    problem(answer, 403, "agent_not_allowed")


@pytest.mark.parametrize(
    "body",
    [
        {"metrics": {f"m{n}": 1 for n in range(33)}},
        {"metrics": {"cpu": "high"}},
        {"metrics": {"cpu": 1e300}},
        {"leases": [{"id": "noTilde", "lease_token": "1." + "0" * 32}]},
        {"leases": [{"id": "p~j", "lease_token": "1." + "G" * 32}]},
        {"leases": [{"id": "p~j", "lease_token": "-1." + "0" * 32}]},
        {"extra": 1},
    ],
)
def test_a_heartbeat_off_the_rules_is_400(api: Api, body: dict[str, Any]) -> None:
    agent = register(api, agent_id="a1")
    problem(beat(api, agent, **body), 400, "invalid_argument")


def test_a_fresh_token_comes_when_the_old_one_is_nearly_over(redis_url: str, namespace: str) -> None:
    with Api(redis_url, namespace, agent_token_s=299) as api:
        agent = register(api, agent_id="a1")
        answer = beat(api, agent).json()
        assert answer["token"].startswith("hqa_") and answer["token"] != agent["token"]
        assert 0 < answer["token_expires_in_seconds"] <= 299
        assert beat(api, {**agent, "token": answer["token"]}).status_code == 200


def test_a_key_beats_for_the_agent_it_registered(api: Api, key: Callable[..., str]) -> None:
    mine = key("agents:register")
    agent = register(api, mine, agent_id="a1")
    answer = api.post("/api/agents/a1/heartbeat", {"session_id": agent["session_id"]}, token=mine)
    assert answer.status_code == 200 and answer.json()["token"] is None


# -- looking ---------------------------------------------------------------------------------------------------------


def test_agents_are_listed_by_name_page_by_page(api: Api) -> None:
    for number in range(5):
        register(api, agent_id=f"a{number}", pool="linux" if number % 2 else "mac", labels={"n": str(number)})
    first = api.get("/api/agents", params={"limit": 2}).json()
    assert [agent["agent_id"] for agent in first["items"]] == ["a0", "a1"]
    assert all(agent.keys() >= AGENT for agent in first["items"])
    instant(first["items"][0]["last_heartbeat"])
    instant(first["items"][0]["registered_at"])
    rest: list[str] = []
    cursor = first["next_cursor"]
    while cursor:
        page = api.get("/api/agents", params={"limit": 2, "cursor": cursor}).json()
        rest += [agent["agent_id"] for agent in page["items"]]
        cursor = page["next_cursor"]
    assert rest == ["a2", "a3", "a4"]
    problem(api.get("/api/agents", params={"pool": "mac", "cursor": first["next_cursor"]}), 400, "invalid_cursor")
    problem(api.get("/api/agents", params={"cursor": "x"}), 400, "invalid_cursor")


def test_agents_are_filtered_by_pool_status_and_label(api: Api) -> None:
    register(api, agent_id="a1", pool="linux", labels={"os": "linux", "gpu": ""})
    register(api, agent_id="a2", pool="mac", labels={"os": "mac"})
    api.patch("/api/agents/a2/status", {"status": "DRAINING"})

    def names(**params: Any) -> list[str]:
        return [agent["agent_id"] for agent in api.get("/api/agents", params=params).json()["items"]]

    assert names(pool="mac") == ["a2"] and names(pool="none") == []
    assert names(status="draining") == ["a2"] and names(status="HEALTHY") == ["a1"]
    assert names(label="gpu") == ["a1"] and names(label="os=mac") == ["a2"] and names(label="!gpu") == ["a2"]
    problem(api.get("/api/agents", params={"status": "SLEEPY"}), 400, "invalid_argument")


def test_the_healthy_are_a_plain_list(api: Api) -> None:
    register(api, agent_id="a1", pool="linux")
    register(api, agent_id="a2")
    found = api.get("/api/agents/healthy").json()
    assert [agent["agent_id"] for agent in found] == ["a1", "a2"]
    assert found[0]["status"] == "HEALTHY" and found[0].keys() >= {"pool", "last_heartbeat", "jobs_completed"}


def test_a_caller_sees_the_agents_of_its_pools_alone(api: Api, key: Callable[..., str]) -> None:
    register(api, agent_id="a1", pool="linux")
    register(api, agent_id="a2", pool="mac")
    mine = key("agents:read", pools=["mac"])
    assert [agent["agent_id"] for agent in api.get("/api/agents", token=mine).json()["items"]] == ["a2"]
    assert [agent["agent_id"] for agent in api.get("/api/agents/healthy", token=mine).json()] == ["a2"]
    assert [pool["name"] for pool in api.get("/api/agents/pools", token=mine).json()["items"]] == ["mac"]
    hidden, absent = api.get("/api/agents/a1", token=mine), api.get("/api/agents/a7", token=mine)
    problem(hidden, 404, "agent_not_registered")
    assert {**hidden.json(), "instance": ""} == {**absent.json(), "instance": ""}
    problem(api.get("/api/agents", token=mine, params={"pool": "linux"}), 403, "pool_not_allowed")
    problem(api.get("/api/agents/pools/linux", token=mine), 403, "pool_not_allowed")


# -- steering --------------------------------------------------------------------------------------------------------


def test_a_drained_agent_claims_nothing_until_it_is_told_otherwise(api: Api) -> None:
    agent = register(api, agent_id="a1")
    api.post("/api/queue/jobs", {"payload": 1})
    drained = api.patch("/api/agents/a1/status", {"status": "DRAINING", "reason": "new kernel"})
    assert drained.status_code == 200 and drained.json()["status"] == "DRAINING"
    answer = beat(api, agent).json()
    assert (answer["status"], answer["drain"]) == ("DRAINING", True)
    refused = problem(api.post("/api/queue/claim", {"agent_id": "a1"}, token=agent["token"]), 404, "agent_draining")
    assert refused["drain"] is True
    assert api.patch("/api/agents/a1/status", {"status": "healthy"}).json()["status"] == "HEALTHY"
    assert api.post("/api/queue/claim", {"agent_id": "a1"}, token=agent["token"]).status_code == 200


def test_no_other_status_can_be_asked_for(api: Api) -> None:
    register(api, agent_id="a1")
    for status in ("OFFLINE", "UNHEALTHY", "DEGRADED", "TERMINATED", "SLEEPY"):
        problem(api.patch("/api/agents/a1/status", {"status": status}), 422, "invalid_status")
    problem(api.patch("/api/agents/nobody/status", {"status": "DRAINING"}), 404, "agent_not_registered")


def test_steering_can_hang_on_what_was_read(api: Api) -> None:
    register(api, agent_id="a1")
    read = api.get("/api/agents/a1").headers["etag"]
    headers = {"If-Match": read}
    assert api.patch("/api/agents/a1/status", {"status": "DRAINING"}, headers=headers).status_code == 200
    problem(api.patch("/api/agents/a1/status", {"status": "HEALTHY"}, headers=headers), 412, "precondition_failed")
    problem(api.patch("/api/agents/a1/status", {"status": "NEVER"}, headers=headers), 412, "precondition_failed")


def test_a_reason_that_holds_a_secret_is_refused(api: Api) -> None:
    register(api, agent_id="a1")
    body = {"status": "DRAINING", "reason": "the key is AKIA" + "ABCDEFGHIJ234567"}
    problem(api.patch("/api/agents/a1/status", body), 422, "secret_suspected")


def test_an_agent_that_leaves_gives_everything_back(api: Api) -> None:
    agent = register(api, agent_id="a1")
    api.post("/api/queue/jobs", {"payload": 1})
    job = api.post("/api/queue/claim", {"agent_id": "a1", "start": True}, token=agent["token"]).json()["job"]
    left = api.post("/api/agents/a1/deregister", {"reason": "scaled in"}, token=agent["token"])
    assert left.status_code == 200 and left.json()["status"] == "TERMINATED"
    assert api.get(f"/api/queue/jobs/{job['id']}").json()["status"] == "QUEUED"
    problem(beat(api, agent), 401, "unauthenticated")
    problem(api.post("/api/agents/register", {}, token=agent["renewal_token"]), 401, "unauthenticated")
    problem(api.patch("/api/agents/a1/status", {"status": "DRAINING"}), 409, "agent_terminated")
    assert api.post("/api/agents/a1/deregister").status_code == 200, "again, without a body"
    assert register(api, agent_id="a1")["status"] == "HEALTHY"


def test_others_are_deregistered_by_those_who_manage_or_registered_them(api: Api, key: Callable[..., str]) -> None:
    mine, another = key("agents:register"), key("agents:register")
    agent, other = register(api, mine, agent_id="a1"), register(api, agent_id="a2")
    problem(api.post("/api/agents/a1/deregister", {}, token=another), 403, "agent_not_allowed")
    problem(api.post("/api/agents/a2/deregister", {}, token=agent["token"]), 403, "agent_not_allowed")
    problem(api.post("/api/agents/a2/deregister", {}, token=key("agents:read")), 403, "missing_scope")
    assert api.post("/api/agents/a1/deregister", {}, token=mine).status_code == 200
    assert api.post("/api/agents/a2/deregister", {}, token=key("agents:manage")).status_code == 200
    problem(beat(api, other), 401, "unauthenticated")
    problem(api.post("/api/agents/nobody/deregister", {}), 404, "agent_not_registered")


# -- pools -----------------------------------------------------------------------------------------------------------


def test_a_pool_tells_how_many_agents_it_has_and_what_waits(api: Api) -> None:
    agent = register(api, agent_id="a1", pool="linux", capacity=3)
    register(api, agent_id="a2", pool="linux")
    for _ in range(2):
        api.post("/api/queue/jobs", {"pool": "linux", "payload": 1})
    api.post("/api/queue/claim", {"agent_id": "a1"}, token=agent["token"])
    pool = api.get("/api/agents/pools/linux").json()
    assert pool.keys() >= POOL
    assert (pool["capacity"], pool["active"], pool["idle"], pool["queued"]) == (4, 1, 1, 1)
    assert [pool[name] for name in ("desired_agents", "runnable_jobs", "unsatisfiable_jobs")] == [None] * 3
    assert api.get("/api/agents/pools").json()["items"] == [{**pool, "oldest_wait_seconds": pytest.approx(0, abs=60)}]
    problem(api.get("/api/agents/pools/nowhere"), 404, "pool_not_found")


def test_a_pool_is_scaled_within_its_bounds(api: Api) -> None:
    register(api, agent_id="a1", pool="linux")
    etag = api.get("/api/agents/pools/linux").headers["etag"]
    scaled = api.post("/api/agents/pools/linux/scale", {"min": 1, "max": 5, "target": 2}, headers={"If-Match": etag})
    assert [scaled.json()[name] for name in ("min", "max", "target")] == [1, 5, 2]
    for body in ({"target": 6}, {"target": 0}, {"min": 3}, {"max": 1}, {"min": 9, "max": 8}):
        problem(api.post("/api/agents/pools/linux/scale", body), 422, "invalid_range")
    assert api.post("/api/agents/pools/linux/scale", {"target": 5}).json()["target"] == 5
    problem(
        api.post("/api/agents/pools/linux/scale", {"target": 1}, headers={"If-Match": etag}), 412, "precondition_failed"
    )
    problem(api.post("/api/agents/pools/linux/scale", {"target": -1}), 400, "invalid_argument")
    problem(api.post("/api/agents/pools/nowhere/scale", {"target": 1}), 404, "pool_not_found")


def test_another_namespace_s_agents_are_not_there(api: Api, key: Callable[..., str]) -> None:
    register(api, agent_id="a1", pool="linux")
    foreign = key("*", namespace=f"other-{secrets.token_hex(4)}")
    assert api.get("/api/agents", token=foreign).json()["items"] == []
    assert api.get("/api/agents/healthy", token=foreign).json() == []
    for call in (
        lambda name: api.get(f"/api/agents/{name}", token=foreign),
        lambda name: api.patch(f"/api/agents/{name}/status", {"status": "DRAINING"}, token=foreign),
        lambda name: api.post(f"/api/agents/{name}/deregister", {}, token=foreign),
        lambda name: api.post(f"/api/agents/{name}/heartbeat", {"session_id": "0" * 32}, token=foreign),
    ):
        there, absent = call("a1"), call("a7")
        problem(there, 404, "agent_not_registered")
        assert {**there.json(), "instance": ""} == {**absent.json(), "instance": ""}
