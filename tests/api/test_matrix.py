"""Who may call what: every operation of the OpenAPI document with every kind of caller, and for others' objects.

The document is all that this test knows of the routes, so a route that is added is in it from the first day.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2
import pytest

from hybridq import Access
from hybridq.scopes import ROLES, SCOPES
from tests.api import shared
from tests.api.client import Api, problem

running = shared.running

ANY: Final = "any"
METHODS: Final = ("get", "post", "put", "patch", "delete")
ABSENT: Final = {"name": "nothing-here", "full_id": "linux~nothing-here"}
LIMIT_S: Final = 5.0


@dataclass(frozen=True)
class Operation:
    """One call of the document, as it is sent when nothing is there."""

    method: str
    path: str
    spec: dict[str, Any]

    @property
    def scopes(self) -> tuple[str, ...]:
        return tuple(self.spec["x-scope"])

    @property
    def public(self) -> bool:
        return self.scopes == ("public",)

    @property
    def takes(self) -> frozenset[str]:
        return frozenset(self.spec.get("x-credentials", ()))

    @property
    def parts(self) -> dict[str, str]:
        """Parts of the path, each with what stands for something that is not there."""
        return {
            part["name"]: ABSENT["full_id" if "~" in part["schema"].get("pattern", "") else "name"]
            for part in self.spec.get("parameters", ())
            if part["in"] == "path"
        }

    @property
    def body(self) -> Any:
        content = self.spec.get("requestBody", {}).get("content", {})
        example = content.get("application/json", {}).get("example")
        if isinstance(example, dict) and "wait_seconds" in example:
            example = {**example, "wait_seconds": 0}
        return example

    def lets(self, scopes: frozenset[str]) -> bool:
        return self.scopes == (ANY,) or bool(set(self.scopes) & scopes)

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"


@dataclass
class Caller:
    """Somebody who calls: what they send along, and what they hold."""

    kind: str
    headers: dict[str, str]
    scopes: frozenset[str] = frozenset()
    changes: dict[str, str] = field(default_factory=dict)
    """Headers that a change needs beside."""


@pytest.fixture(scope="module")
def operations(running: Api) -> list[Operation]:
    answer = running.get("/api/docs/openapi.json", token=None)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    found = [
        Operation(method, path, spec)
        for path, methods in document["paths"].items()
        for method, spec in methods.items()
        if method in METHODS
    ]
    assert len(found) > 40
    return found


@pytest.fixture(scope="module")
def home(running: Api) -> Api:
    return shared.in_namespace(running, "home")


@pytest.fixture(scope="module")
def access(running: Api) -> Iterator[Access]:
    with Access(redis=running.redis_url) as access:
        yield access


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture(scope="module")
def callers(home: Api, access: Access) -> dict[str, Caller]:
    found = {"anonymous": Caller("nobody", {})}
    for role, scopes in ROLES.items():
        session = access.open_session(role, namespace="home", role=role)
        changes = {"X-CSRF-Token": session.csrf_token, "Origin": home.url}
        found[role] = Caller("session", {"Cookie": f"hq_session={session.text}"}, scopes, changes)
    agent = home.post("/api/agents/register", {"agent_id": "matrix"}).json()
    found["agent"] = Caller("agent", bearer(agent["token"]), frozenset({"queue:claim"}))
    spent = home.post("/api/agents/keys", {"pool": "default", "uses": 100}).json()["key"]
    found["registration key"] = Caller("registration", bearer(spent))
    found["renewal token"] = Caller("renewal", bearer(agent["renewal_token"]))
    found["made-up key"] = Caller("nobody", bearer("hqk_" + "0" * 61))
    return found


@pytest.fixture(scope="module")
def keys(home: Api) -> Callable[[frozenset[str]], Caller]:
    """Returns a caller whose key has exactly these scopes."""
    made: dict[frozenset[str], Caller] = {}

    def of(scopes: frozenset[str]) -> Caller:
        if scopes not in made:
            made[scopes] = Caller("key", bearer(home.key(scopes)), scopes)
        return made[scopes]

    return of


def send(api: Api, operation: Operation, headers: dict[str, str], parts: dict[str, str]) -> httpx2.Response:
    """Send the call; of a stream only the head is read."""
    client = api._client
    assert client is not None
    body = operation.body
    content = None if operation.method == "get" else json.dumps({} if body is None else body)
    sent = {**headers, **({} if content is None else {"Content-Type": "application/json"})}
    path = operation.path.format(**parts)
    with client.stream(operation.method, path, headers=sent, content=content, timeout=LIMIT_S) as answer:
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            answer.read()
    return answer


def code_of(answer: httpx2.Response) -> str:
    if answer.headers.get("content-type") != "application/problem+json":
        return ""
    code: str = answer.json()["code"]
    return code


def call(api: Api, operation: Operation, caller: Caller, parts: dict[str, str] | None = None) -> httpx2.Response:
    headers = {**caller.headers, **({} if operation.method == "get" else caller.changes)}
    return send(api, operation, headers, operation.parts if parts is None else parts)


def test_every_operation_says_who_may(operations: list[Operation]) -> None:
    for operation in operations:
        scopes = operation.scopes
        assert scopes, operation
        assert scopes in (("public",), (ANY,)) or set(scopes) <= set(SCOPES), operation
        assert operation.public or operation.takes, operation
        required = operation.spec.get("requestBody", {}).get("required", False)
        form = "application/x-www-form-urlencoded" in operation.spec.get("requestBody", {}).get("content", {})
        assert not required or form or operation.body is not None, f"{operation} shows no example of its body"


def test_nobody_gets_anywhere_but_where_the_document_says(
    running: Api,
    operations: list[Operation],
    callers: dict[str, Caller],
    keys: Callable[[frozenset[str]], Caller],
) -> None:
    wrong: list[str] = []
    for operation in operations:
        if operation.public:
            continue
        wanted = frozenset(operation.scopes) & frozenset(SCOPES)
        asked = {f"key with {scope}": keys(frozenset({scope})) for scope in wanted}
        asked["key with everything else"] = keys(frozenset(SCOPES) - wanted)
        for name, caller in {**callers, **asked}.items():
            answer = call(running, operation, caller)
            if (said := _against(operation, caller, answer)) is not None:
                wrong.append(f"{operation} by {name}: {answer.status_code} {code_of(answer)}, but {said}")
    assert wrong == []


def _against(operation: Operation, caller: Caller, answer: httpx2.Response) -> str | None:
    """Return what the document says against an answer; None when it is as due."""
    status, code = answer.status_code, code_of(answer)
    if status >= 500 and code != "not_ready":
        return "nothing is wrong with the server"
    if caller.kind == "nobody" or caller.kind not in operation.takes:
        return None if (status, code) == (401, "unauthenticated") else "it takes no such credential"
    if status == 401:
        return "it takes this credential"
    let_in = operation.lets(caller.scopes) or (caller.kind == "agent" and operation.spec.get("x-agents", False))
    if caller.kind in ("registration", "renewal"):
        let_in = True
    if not let_in:
        named = status == 403 and all(scope in answer.json()["detail"] for scope in operation.scopes)
        return None if (status, code) == (403, "missing_scope") and named else "the scope is missing, and to be named"
    return "it lets this caller in" if code in ("missing_scope", "csrf") else None


def test_public_operations_ask_nobody(running: Api, operations: list[Operation]) -> None:
    public = [operation for operation in operations if operation.public]
    assert {operation.path for operation in public} >= {"/health", "/health/ready", "/info", "/auth/login"}
    for operation in public:
        answer = call(running, operation, Caller("nobody", {}))
        assert code_of(answer) not in ("unauthenticated", "missing_scope"), operation


def test_a_session_changes_nothing_without_its_token(
    running: Api, operations: list[Operation], callers: dict[str, Caller]
) -> None:
    cookie = Caller("session", callers["admin"].headers)
    for operation in operations:
        if operation.method != "get" and "session" in operation.takes:
            problem(call(running, operation, cookie), 403, "csrf")


# -- others' objects --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def objects(home: Api) -> dict[str, str]:
    """One of everything in `home`: what stands in a path → the id of what is there. In order of what matches first."""
    assert home.post("/api/queue/jobs", {"pool": "linux", "job_id": "j1", "payload": 1}).status_code == 201
    assert home.post("/api/agents/register", {"agent_id": "a1", "pool": "linux"}).status_code == 201
    key = home.post("/api/keys", {"name": "k", "scopes": ["queue:read"]}).json()["id"]
    registration = home.post("/api/agents/keys", {"pool": "linux"}).json()["id"]
    rule = {"issuer": "https://x.test", "audience": "a", "claims": {"sub": "x"}, "pool": "linux"}
    assert home.put("/api/trust-rules/ci", rule).status_code == 201
    return {
        "/api/agents/keys/": registration,
        "/api/agents/pools/": "linux",
        "/api/agents/": "a1",
        "/api/keys/": key,
        "/api/trust-rules/": "ci",
        "/api/queue/pools/": "linux",
        "/api/queue/jobs/": "linux~j1",
        "/api/dashboard/jobs/": "linux~j1",
    }


@pytest.mark.parametrize("who", ["another namespace", "other pools"])
def test_others_objects_are_like_those_that_are_not_there(
    running: Api, home: Api, operations: list[Operation], objects: dict[str, str], who: str
) -> None:
    if who == "another namespace":
        caller = Caller("key", bearer(running.key("*", namespace="abroad")), frozenset(SCOPES))
    else:
        caller = Caller("key", bearer(home.key("*", pools=["mac"])), frozenset(SCOPES))
    looked_at = 0
    # First those that look and take away: what others put, there and under the same name, is their own.
    for operation in sorted(operations, key=lambda one: one.method not in ("get", "delete")):
        if operation.public or len(operation.parts) != 1:
            continue
        (part,) = operation.parts
        there = next((id for prefix, id in objects.items() if operation.path.startswith(prefix)), None)
        if there is None:
            said_yet = code_of(call(running, operation, caller))
            assert said_yet == "not_supported_yet", f"{operation}: the test makes no object that it is about"
            continue
        if who == "other pools" and operation.path.startswith("/api/keys/"):
            continue  # a key without pools is wider than the caller, so it is hidden like this too: see test_keys
        absent = operation.parts[part]
        said = [_said(call(running, operation, caller, {part: name}), name) for name in (there, absent)]
        assert said[0] == said[1], operation
        if who == "another namespace" and operation.method in ("get", "delete"):
            assert said[0][0] == 404, operation
        looked_at += 1
    assert looked_at > 15
    _is_as_it_was(home, objects)


def _said(answer: httpx2.Response, name: str) -> tuple[int, str]:
    """Return status and body, without what differs from call to call."""
    text = re.sub(r'"instance":"[^"]*"', "", answer.text.replace(name, "<id>"))
    return answer.status_code, re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "<at>", text)


def _is_as_it_was(home: Api, objects: dict[str, str]) -> None:
    job = home.get(f"/api/queue/jobs/{objects['/api/queue/jobs/']}").json()
    assert (job["status"], job["priority"]) == ("QUEUED", "NORMAL")
    agent = home.get("/api/agents/a1").json()
    assert agent["status"] == "HEALTHY"
    assert home.get("/api/queue/pools/linux").json()["paused"] in (None, False)
    pool = home.get("/api/agents/pools/linux").json()
    assert [pool[name] for name in ("min", "max", "target")] == [None] * 3
    assert objects["/api/keys/"] in [one["id"] for one in home.get("/api/keys", params={"limit": 100}).json()["items"]]
    assert [one["id"] for one in home.get("/api/trust-rules").json()["items"]] == ["ci"]
    assert objects["/api/agents/keys/"] in [one["id"] for one in home.get("/api/agents/keys").json()["items"]]


def test_lists_hold_nothing_of_others(
    running: Api, home: Api, operations: list[Operation], objects: dict[str, str]
) -> None:
    assert objects
    abroad = bearer(running.key("*", namespace="far-abroad"))
    ours: Callable[[str], bool] = lambda text: any(  # noqa: E731
        f'"{id}"' in text for id in (*objects.values(), "j1", "home")
    )
    for operation in operations:
        if operation.method == "get" and not operation.parts and not operation.public:
            answer = send(running, operation, abroad, {})
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                assert not ours(answer.text), operation
