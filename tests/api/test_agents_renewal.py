"""An agent outlives any outage by its renewal token; a stolen one is found out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
import redis as redis_py

from tests.api.client import Api, problem

HOUR_MS = 3_600_000


def renew(api: Api, renewal_token: str, **body: Any) -> httpx2.Response:
    return api.post("/api/agents/register", body, token=renewal_token)


def beat(api: Api, agent: dict[str, Any], token: str) -> httpx2.Response:
    return api.post(f"/api/agents/{agent['agent_id']}/heartbeat", {"session_id": agent["session_id"]}, token=token)


@pytest.fixture
def enrolled(api: Api) -> dict[str, Any]:
    """An agent that came by a registration key, which is spent now."""
    spent = api.post("/api/agents/keys", {"pool": "linux", "labels": {"zone": "a"}}).json()["key"]
    answer = api.post("/api/agents/register", {"agent_id": "a1", "boot_id": "b1"}, token=spent)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def an_hour_passes(redis: redis_py.Redis) -> None:
    """Everything that was noted was noted an hour earlier; what ended in that hour is gone."""
    for name in redis.scan_iter(match="hq:{sys/auth}:*", count=1000):
        if redis.type(name) == b"hash":
            for field in ("expires_ms", "created_ms", "used_ms"):
                if redis.hexists(name, field):
                    redis.hincrby(name, field, -HOUR_MS)
        left = redis.pttl(name)
        if left >= 0:
            redis.pexpire(name, max(1, left - HOUR_MS))
    for name in redis.scan_iter(match="*/sys/fleet}:agent:*", count=1000):
        redis.hincrby(name, "seen_ms", -HOUR_MS)


def test_after_an_hour_without_the_api_the_agent_comes_back_by_itself(
    redis_url: str, namespace: str, redis: redis_py.Redis, api: Api, enrolled: dict[str, Any]
) -> None:
    api.stop()
    api.wait_stopped()
    an_hour_passes(redis)
    with Api(redis_url, namespace) as again:
        problem(beat(again, enrolled, enrolled["token"]), 401, "unauthenticated")
        answer = renew(again, enrolled["renewal_token"])
        assert answer.status_code == 200, answer.text
        back = answer.json()
        assert [back[name] for name in ("agent_id", "session_id", "pool")] == ["a1", enrolled["session_id"], "linux"]
        assert back["token"] != enrolled["token"] and back["renewal_token"] != enrolled["renewal_token"]
        beaten = beat(again, back, back["token"])
        assert beaten.status_code == 200 and beaten.json()["status"] == "HEALTHY"
        assert again.get("/api/agents/a1").json()["labels"]["zone"] == "a", "what bound it still does"
        assert renew(again, back["renewal_token"]).status_code == 200, "and so for ever"


def test_a_lost_reply_is_mended_by_the_same_token(api: Api, enrolled: dict[str, Any]) -> None:
    first = enrolled["renewal_token"]
    assert renew(api, first).status_code == 200, "a reply that the agent never saw"
    second = renew(api, first)
    assert second.status_code == 200
    back = second.json()
    assert beat(api, back, back["token"]).status_code == 200
    assert renew(api, back["renewal_token"]).status_code == 200


def test_a_stolen_token_is_taken_once_and_then_ends_both(api: Api, enrolled: dict[str, Any]) -> None:
    """The agent renewed; a thief comes with the token before, and then the agent with the one that it was given."""
    stolen = enrolled["renewal_token"]
    agent = renew(api, stolen).json()
    thief = renew(api, stolen)
    assert thief.status_code == 200, "it could be the agent, whose reply was lost"
    assert beat(api, agent, agent["token"]).status_code == 200
    problem(renew(api, agent["renewal_token"]), 401, "unauthenticated")
    _nobody_is_left(api, agent, thief.json())


def test_a_thief_who_comes_twice_ends_both_too(api: Api, enrolled: dict[str, Any]) -> None:
    stolen = enrolled["renewal_token"]
    agent = renew(api, stolen).json()
    thief = renew(api, stolen).json()
    problem(renew(api, stolen), 401, "unauthenticated")
    _nobody_is_left(api, agent, thief)


def _nobody_is_left(api: Api, agent: dict[str, Any], thief: dict[str, Any]) -> None:
    for one in (agent, thief):
        problem(beat(api, one, one["token"]), 401, "unauthenticated")
        problem(renew(api, one["renewal_token"]), 401, "unauthenticated")
    noted = [entry for entry in api.get("/api/audit").json()["items"] if entry["action"] == "renewal.reused"]
    assert [(entry["actor"], entry["outcome"]) for entry in noted] == [("agent:a1", "revoked")]
    fresh = api.post("/api/agents/keys", {"pool": "linux"}).json()["key"]
    answer = api.post("/api/agents/register", {"agent_id": "a1", "boot_id": "b1"}, token=fresh)
    assert answer.status_code == 200, "an operator lets it in again, and its session goes on"


def test_a_renewal_token_is_bound_to_agent_boot_and_pool(api: Api, enrolled: dict[str, Any]) -> None:
    token = enrolled["renewal_token"]
    problem(renew(api, token, agent_id="a2"), 403, "agent_not_allowed")
    problem(renew(api, token, boot_id="b2"), 403, "agent_not_allowed")
    problem(renew(api, token, pool="mac"), 403, "pool_not_allowed")
    assert renew(api, token, agent_id="a1", boot_id="b1", pool="linux").status_code == 200, "nothing was used up"


def test_a_renewal_token_does_nothing_else(api: Api, enrolled: dict[str, Any]) -> None:
    token = enrolled["renewal_token"]
    problem(beat(api, enrolled, token), 401, "unauthenticated")
    problem(api.post("/api/queue/claim", {"agent_id": "a1"}, token=token), 401, "unauthenticated")
    problem(api.get("/api/agents/a1", token=token), 401, "unauthenticated")


def test_a_renewal_token_lasts_a_week(redis: redis_py.Redis, api: Api, enrolled: dict[str, Any]) -> None:
    (name,) = redis.scan_iter(match="hq:{sys/auth}:renewal:*")
    lasts_ms = redis.pttl(name)
    assert 6.9 * 24 * HOUR_MS < lasts_ms <= 7 * 24 * HOUR_MS
    redis.hincrby(name, "expires_ms", -7 * 24 * HOUR_MS)
    problem(renew(api, enrolled["renewal_token"]), 401, "unauthenticated")


def test_a_crash_between_any_two_steps_is_mended_by_the_same_call(
    api: Api, redis: redis_py.Redis, key: Callable[..., str]
) -> None:
    """The use is spent and the session begun, and the server ended before there were tokens."""
    spent = api.post("/api/agents/keys", {"pool": "linux"}).json()["key"]
    body = {"agent_id": "a1", "boot_id": "b1"}
    first = api.post("/api/agents/register", body, token=spent).json()
    for pattern in ("hq:{sys/auth}:renewal:*", "hq:{sys/auth}:agent_token:*", "hq:{sys/auth}:family_of:*"):
        for name in redis.scan_iter(match=pattern):
            redis.delete(name)
    again = api.post("/api/agents/register", body, token=spent)
    assert again.status_code == 200 and again.json()["session_id"] == first["session_id"]
    assert beat(api, again.json(), again.json()["token"]).status_code == 200
