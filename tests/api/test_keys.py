"""API keys over HTTP: made within one's own bounds, listed without their texts, revoked at once."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
import redis as redis_py

from tests.api import shared
from tests.api.client import Api, instant, problem
from tests.servers import ServerProcess

api, key, running = shared.api, shared.key, shared.running

LISTED = {"id", "name", "scopes", "pools", "services", "expires_at", "created_by", "last_used_at"}


def ahead(**delta: float) -> str:
    return (dt.datetime.now(dt.UTC) + dt.timedelta(**delta)).isoformat().replace("+00:00", "Z")


def test_a_key_is_shown_once_and_works(api: Api) -> None:
    body = {"name": "ci", "scopes": ["queue:read", "queue:enqueue"], "pools": ["linux"], "expires_at": ahead(days=1)}
    answer = api.post("/api/keys", body)
    made = answer.json()
    assert answer.status_code == 201 and made.keys() >= LISTED | {"key"}
    assert (made["name"], made["scopes"], made["pools"]) == ("ci", ["queue:enqueue", "queue:read"], ["linux"])
    instant(made["expires_at"])
    assert made["key"].startswith("hqk_")
    job = api.post("/api/queue/jobs", {"pool": "linux", "payload": 1}, token=made["key"])
    assert job.status_code == 201
    listed = api.get("/api/keys").json()
    shown = next(one for one in listed["items"] if one["id"] == made["id"])
    assert shown.keys() >= LISTED and "key" not in shown and listed["next_cursor"] is None
    assert shown["created_by"] == "test", "a key acts as the person who made it"
    instant(shown["last_used_at"])


def test_a_revoked_key_is_refused_from_the_next_call_on(api: Api) -> None:
    made = api.post("/api/keys", {"name": "ci", "scopes": ["agents:read"]}).json()
    assert api.get("/api/agents", token=made["key"]).status_code == 200
    assert api.delete(f"/api/keys/{made['id']}").status_code == 204
    problem(api.get("/api/agents", token=made["key"]), 401, "unauthenticated")
    assert made["id"] not in [one["id"] for one in api.get("/api/keys").json()["items"]]
    problem(api.delete("/api/keys/000000000000"), 404, "not_found")


def test_keys_are_listed_page_by_page(api: Api) -> None:
    names = [f"k{number}" for number in range(5)]
    for name in names:
        api.post("/api/keys", {"name": name, "scopes": ["agents:read"]})
    found: list[str] = []
    params: dict[str, Any] = {"limit": 2}
    while True:
        page = api.get("/api/keys", params=params).json()
        found += [one["name"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        params = {"limit": 2, "cursor": page["next_cursor"]}
    assert found == [*reversed(names), "test"], "the newest first, the admin's own at the end"
    problem(api.get("/api/agents/keys", params={"cursor": params["cursor"]}), 400, "invalid_cursor")


def test_an_idempotency_key_makes_one_key(api: Api) -> None:
    headers = {"Idempotency-Key": "once"}
    first = api.post("/api/keys", {"name": "ci", "scopes": ["agents:read"]}, headers=headers)
    again = api.post("/api/keys", {"name": "ci", "scopes": ["agents:read"]}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json()["id"] == first.json()["id"] and again.json()["key"] is None
    other = api.post("/api/keys", {"name": "ci", "scopes": ["queue:read"]}, headers=headers)
    problem(other, 409, "credential_conflict")


@pytest.mark.parametrize(
    "body",
    [
        {"name": "", "scopes": ["agents:read"]},
        {"name": "x" * 65, "scopes": ["agents:read"]},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["agents:reed"]},
        {"name": "x", "scopes": "agents:read"},
        {"name": "x", "scopes": ["agents:read"], "pools": []},
        {"name": "x", "scopes": ["agents:read"], "pools": ["a b"]},
        {"name": "x", "scopes": ["agents:read"], "expires_at": "2020-01-01T00:00:00Z"},
        {"name": "x", "scopes": ["agents:read"], "expires_at": "2999-01-01T00:00:00Z"},
        {"name": "x", "scopes": ["agents:read"], "expires_at": "2027-01-01T00:00:00"},
        {"name": "x", "scopes": ["agents:read"], "public_key": "short"},
        {"name": "x", "scopes": ["agents:read"], "key": "hqk_mine"},
        {"scopes": ["agents:read"]},
    ],
)
def test_what_is_off_the_rules_is_400(api: Api, body: dict[str, Any]) -> None:
    problem(api.post("/api/keys", body), 400, "invalid_argument")


WIDER: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a scope": ({"scopes": "keys:manage agents:read"}, {"scopes": ["queue:read"]}, "/scopes"),
    "every scope": ({"scopes": "keys:manage agents:read"}, {"scopes": ["*"]}, "/scopes"),
    "another pool": (
        {"scopes": "keys:manage agents:read", "pools": ["a"]},
        {"scopes": ["agents:read"], "pools": ["a", "b"]},
        "/pools",
    ),
    "every pool": ({"scopes": "keys:manage agents:read", "pools": ["a"]}, {"scopes": ["agents:read"]}, "/pools"),
    "every service": (
        {"scopes": "keys:manage agents:read", "services": ["web"]},
        {"scopes": ["agents:read"]},
        "/services",
    ),
    "another service": (
        {"scopes": "keys:manage agents:read", "services": ["web"]},
        {"scopes": ["agents:read"], "services": ["db"]},
        "/services",
    ),
    "for ever": ({"scopes": "keys:manage agents:read", "lasts_s": 3600}, {"scopes": ["agents:read"]}, "/expires_at"),
    "for longer": (
        {"scopes": "keys:manage agents:read", "lasts_s": 3600},
        {"scopes": ["agents:read"], "expires_at": ahead(hours=2)},
        "/expires_at",
    ),
}


@pytest.mark.parametrize("name", WIDER)
def test_nobody_makes_a_key_wider_than_their_own(api: Api, key: Callable[..., str], name: str) -> None:
    held, body, pointer = WIDER[name]
    mine = key(**held)
    answer = problem(api.post("/api/keys", {"name": "wider", **body}, token=mine), 403, "scope_escalation")
    assert [error["pointer"] for error in answer["errors"]] == [pointer]
    assert "wider" not in [one["name"] for one in api.get("/api/keys").json()["items"]]


def test_a_key_within_one_s_own_bounds_is_made(api: Api, key: Callable[..., str]) -> None:
    mine = key("keys:manage agents:read", pools=["a", "b"], services=["web"], lasts_s=7200)
    body = {"name": "n", "scopes": ["agents:read"], "pools": ["a"], "services": ["web"], "expires_at": ahead(hours=1)}
    assert api.post("/api/keys", body, token=mine).status_code == 201


def test_a_registration_key_is_bound_to_a_pool_of_the_caller_s_and_no_longer_than_its_own(
    api: Api, key: Callable[..., str]
) -> None:
    mine = key("agents:manage", pools=["a"], lasts_s=600)
    problem(api.post("/api/agents/keys", {"pool": "b"}, token=mine), 403, "pool_not_allowed")
    longer = api.post("/api/agents/keys", {"pool": "a", "expires_at": ahead(hours=1)}, token=mine)
    problem(longer, 403, "scope_escalation")
    made = api.post("/api/agents/keys", {"pool": "a"}, token=mine).json()
    assert instant(made["expires_at"]) <= dt.datetime.now(dt.UTC) + dt.timedelta(seconds=600)
    usual = api.post("/api/agents/keys", {"pool": "a"}).json()
    assert (
        dt.timedelta(minutes=59) < instant(usual["expires_at"]) - instant(usual["created_at"]) <= dt.timedelta(hours=1)
    )
    for body in (
        {},
        {"pool": "a", "uses": 0},
        {"pool": "a", "uses": 1001},
        {"pool": "a", "expires_at": ahead(days=31)},
    ):
        problem(api.post("/api/agents/keys", body), 400, "invalid_argument")


def test_who_manages_keys_of_some_pools_sees_and_revokes_those_alone(api: Api, key: Callable[..., str]) -> None:
    wide = api.post("/api/keys", {"name": "wide", "scopes": ["agents:read"]}).json()
    narrow = api.post("/api/keys", {"name": "narrow", "scopes": ["agents:read"], "pools": ["a"]}).json()
    mine = key("keys:manage agents:read", pools=["a", "b"])
    names = [one["name"] for one in api.get("/api/keys", token=mine).json()["items"]]
    assert "narrow" in names and "wide" not in names
    problem(api.delete(f"/api/keys/{wide['id']}", token=mine), 404, "not_found")
    assert api.get("/api/agents", token=wide["key"]).status_code == 200
    assert api.delete(f"/api/keys/{narrow['id']}", token=mine).status_code == 204


def test_another_namespace_s_key_is_not_there(api: Api, key: Callable[..., str]) -> None:
    made = api.post("/api/keys", {"name": "ours", "scopes": ["agents:read"]}).json()
    foreign = key("*", namespace="elsewhere")
    assert "ours" not in [one["name"] for one in api.get("/api/keys", token=foreign).json()["items"]]
    there = api.delete(f"/api/keys/{made['id']}", token=foreign)
    absent = api.delete("/api/keys/000000000000", token=foreign)
    problem(there, 404, "not_found")
    assert {**there.json(), "instance": ""} == {**absent.json(), "instance": ""}
    assert api.get("/api/agents", token=made["key"]).status_code == 200


def test_no_text_of_a_credential_is_stored(server: ServerProcess, redis: redis_py.Redis) -> None:
    """Whoever reads all of Redis holds no key, no token and no cookie."""
    with Api(server.url, "default") as api:
        texts = [
            api.admin,
            api.post("/api/keys", {"name": "n", "scopes": ["*"]}).json()["key"],
            registration := api.post("/api/agents/keys", {"pool": "p"}).json()["key"],
        ]
        agent = api.post("/api/agents/register", {"agent_id": "a"}, token=registration).json()
        texts += [agent["token"], agent["renewal_token"]]
    dump = b"".join(_values(redis))
    assert b"created_by" in dump
    for text in texts:
        assert text.encode() not in dump and text[16:].encode() not in dump


def _values(redis: redis_py.Redis) -> list[bytes]:
    found: list[bytes] = []
    for name in redis.scan_iter(count=1000):
        found.append(name)
        kind = redis.type(name)
        if kind == b"hash":
            found += [part for pair in redis.hgetall(name).items() for part in pair]
        elif kind == b"string":
            found.append(redis.get(name) or b"")
        elif kind == b"zset":
            found += redis.zrange(name, 0, -1)
        elif kind == b"stream":
            found += [part for _, fields in redis.xrange(name) for pair in fields.items() for part in pair]
        else:
            found += redis.lrange(name, 0, -1)
    return found
