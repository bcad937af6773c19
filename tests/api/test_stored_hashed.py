"""What lets somebody in is stored as a hash: one of every credential is made and used, and Redis does not know it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
import redis as redis_py

from hybridq import Access, tokens
from tests import servers
from tests.api.client import Api, problem


@pytest.fixture(scope="module")
def database() -> Iterator[servers.ServerProcess]:
    with servers.ServerProcess(next(iter(servers.ENGINES))) as server:
        yield server


@pytest.fixture(scope="module")
def api(database: servers.ServerProcess) -> Iterator[Api]:
    with Api(database.url, "hashed") as running:
        yield running


def dump(client: redis_py.Redis) -> bytes:
    """Return every key of every type, read whole."""
    read: dict[Any, Callable[[Any], Any]] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"stream": client.xrange,
    }
    return b"\n".join(repr((key, read[client.type(key)](key))).encode() for key in client.scan_iter(count=1000))


def made(answer: httpx2.Response, status: int = 201) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def lets_in(api: Api, path: str, token: str, body: Any = None) -> dict[str, Any]:
    method = "GET" if body is None else "POST"
    return made(api.request(method, path, body, token=token), 200)


@pytest.fixture(scope="module")
def credentials(api: Api, database: servers.ServerProcess) -> dict[str, str]:
    """What it is → its text, of each that was made over HTTP and let its holder in."""
    found = {"admin key": api.admin}
    found["API key"] = made(api.post("/api/keys", {"name": "ci", "scopes": ["queue:read"]}))["key"]
    lets_in(api, "/api/queue/stats", found["API key"])

    found["registration key"] = made(api.post("/api/agents/keys", {"pool": "linux"}))["key"]
    register = {"agent_id": "a1", "boot_id": "b1"}
    agent = made(api.post("/api/agents/register", register, token=found["registration key"]))
    found["agent token"], found["renewal token"] = agent["token"], agent["renewal_token"]
    beat = {"session_id": agent["session_id"]}
    lets_in(api, "/api/agents/a1/heartbeat", found["agent token"], beat)

    renewed = lets_in(api, "/api/agents/register", found["renewal token"], {})
    found["next agent token"], found["next renewal token"] = renewed["token"], renewed["renewal_token"]
    assert found["next renewal token"] != found["renewal token"]
    lets_in(api, "/api/agents/a1/heartbeat", found["next agent token"], beat)

    with Access(redis=database.url) as access:
        found["login token"] = access.make_login_token("dev", role="admin", namespace="hashed")
        found["login token that is not used"] = access.make_login_token("dev", role="admin", namespace="hashed")
    browser, own_page = api.connect(), {"Origin": api.url, "Sec-Fetch-Site": "same-origin"}
    session = made(browser.post("/auth/session", json={"login_token": found["login token"]}, headers=own_page))
    found["session cookie"], found["CSRF token"] = browser.cookies["hq_session"], session["csrf_token"]
    change = {"name": "by session", "scopes": ["queue:read"]}
    problem(browser.post("/api/keys", json=change, headers=own_page), 403, "csrf")
    by_session = browser.post("/api/keys", json=change, headers={**own_page, "X-CSRF-Token": found["CSRF token"]})
    found["key made by a session"] = made(by_session)["key"]
    lets_in(api, "/api/queue/stats", found["key made by a session"])
    return found


def secrets_of(text: str) -> set[str]:
    """Return what must not be stored of a text: the whole, and the part that nobody can know."""
    token = tokens.parse(text)
    if token is None:
        return {text}
    return {text, text.split("_", 1)[1][tokens.ID_LENGTH :][: tokens.SECRET_LENGTH]}


def test_no_credential_is_stored_as_it_is(credentials: dict[str, str], database: servers.ServerProcess) -> None:
    kinds = {token.kind for token in map(tokens.parse, credentials.values()) if token is not None}
    assert kinds == set(tokens.KINDS), "one of every kind there is"
    assert len(set(credentials.values())) == len(credentials)
    with database.client() as client:
        stored = dump(client)
    kept = [name for name, text in credentials.items() if any(secret.encode() in stored for secret in secrets_of(text))]
    assert kept == []


def test_the_dump_holds_the_records_of_those_that_are_in_use(
    credentials: dict[str, str], database: servers.ServerProcess
) -> None:
    """So that the test above looks in the right place: their public ids and hashes are there."""
    with database.client() as client:
        stored = dump(client)
    for name in ("admin key", "API key", "registration key", "next renewal token", "next agent token"):
        token = tokens.parse(credentials[name])
        assert token is not None and token.id.encode() in stored, name
        assert tokens.hash_of(credentials[name]).encode() in stored, name


def test_what_is_stored_lets_nobody_in(api: Api, credentials: dict[str, str]) -> None:
    """Who has read Redis knows ids and hashes; neither is a credential, also not put in the shape of one."""
    for name in ("admin key", "API key", "agent token", "renewal token", "session cookie"):
        token = tokens.parse(credentials[name])
        assert token is not None
        hashed = tokens.hash_of(credentials[name])
        for text in (hashed, token.id, f"{tokens.KINDS[token.kind]}_{token.id}{hashed[:49]}"):
            problem(api.get("/api/queue/stats", token=text), 401, "unauthenticated")
