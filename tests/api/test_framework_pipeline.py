"""The way of a request through the checks: their order, and what each of them answers."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Annotated, Any

import httpx2
import msgspec
import pytest
import structlog

import hybridq as hq
from api.http.answer import Answer, etag_of
from api.http.app import build
from api.http.cursors import Cursors
from api.http.names import Name, split_full_id
from api.http.problems import _OF_ERRORS, OAUTH_ERRORS, PROBLEMS, Problem, Reason, problem_of
from api.http.request import Request
from api.http.route import Table
from api.http.scopes import ANY_CREDENTIAL, PUBLIC
from tests.api.framework import Credentials, Served, serve

TABLE = Table()
LIMIT_BYTES = 1_000
AWS_KEY = "AKIA" + "Q3EGZ7RKX2WPLM4T"
"""Shaped like a key of a cloud, and none."""


class Thing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    payload: msgspec.Raw
    name: Name | None = None


class Pause(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: str | None = None


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50
    tag: list[str] = []


class TokenForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    grant_type: str
    scope: str = ""


@TABLE.route("POST", "/things", scope="queue:enqueue", body=Thing, query=Page, guard="refuse", rate="enqueue",
             body_bytes_max=LIMIT_BYTES, idempotent=True)  # fmt: skip
async def make(request: Request) -> Answer:
    body: Thing = request.body
    return Answer({"payload": body.payload, "id": request.idempotent_id("thing"), "limit": request.query.limit}, 201)


@TABLE.route("GET", "/things/{thing:full_id}", scope="queue:read", etag=True)
async def look(request: Request) -> Answer:
    etag = etag_of("thing", 1)
    if request.has_current(etag):
        return Answer(None, 304, {"ETag": etag})
    pool, job_id = split_full_id(request.path["thing"])
    return Answer(
        {"pool": pool, "job_id": job_id, "at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC)}, headers={"ETag": etag}
    )


@TABLE.route("PATCH", "/things/{thing:full_id}", scope="queue:admin", if_match=True)
async def change(request: Request) -> Answer:
    request.require_match(etag_of("thing", 1))
    return Answer({"changed": True})


@TABLE.route("POST", "/things/{thing:full_id}/result", scope="queue:claim", agents=True, body=Thing, guard="redact")
async def finish(request: Request) -> Answer:
    return Answer({"redactions": request.redactions, "payload": request.body.payload})


@TABLE.route("POST", "/pause/{pool:name}", scope=("queue:admin", "agents:manage"), body=Pause)
async def pause(request: Request) -> Answer:
    return Answer({"reason": request.body.reason})


@TABLE.route("POST", "/things:sweep", scope="queue:admin")
async def sweep(request: Request) -> Answer:
    return Answer({"body": request.body})


@TABLE.route("POST", "/register", scope="agents:register", bearers=("key", "registration", "renewal"))
async def register(request: Request) -> Answer:
    return Answer({"kind": request.caller.kind})


@TABLE.route("GET", "/whoami", scope=ANY_CREDENTIAL)
async def whoami(request: Request) -> Answer:
    return Answer({"id": request.caller.id})


@TABLE.route("POST", "/auth/validate", scope=PUBLIC, optional_session=True, csrf=False, rate="auth")
async def validate(request: Request) -> Answer:
    return Answer({"valid": request.caller is not None})


@TABLE.route("POST", "/auth/logout", scope=PUBLIC, optional_session=True, rate="auth")
async def logout(request: Request) -> Answer:
    return Answer(None, 204)


@TABLE.route("POST", "/auth/token", scope=PUBLIC, body=TokenForm, form=True, rate="auth")
async def token(request: Request) -> Answer:
    if request.body.grant_type != "exchange":
        raise Problem("unsupported_grant_type")
    return Answer({"access_token": "t"})


@TABLE.route("GET", "/broken", scope=PUBLIC, rate=None)
async def broken(request: Request) -> Answer:
    raise KeyError("hunter2")


@TABLE.route("GET", "/slow", scope=PUBLIC, rate=None)
async def slow(request: Request) -> Answer:
    async def work() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            request.plane.cancelled += 1
            raise
        return "done"

    request.plane.begun += 1
    return Answer(await request.unless_gone(work()))


class Rig:
    def __init__(self, served: Served, credentials: Credentials) -> None:
        self.served, self.credentials = served, credentials
        self.key = credentials.make("key", "queue:enqueue", "queue:read")
        self.admin = credentials.make("key", "*")
        self.agent = credentials.make("agent")
        self.csrf = "csrf-of-the-session"
        self.session = credentials.session("*", csrf=self.csrf)

    def call(self, method: str, path: str, token: str | None = None, **more: Any) -> httpx2.Response:
        return self.served.call(method, path, token, **more)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    credentials = Credentials()
    plane, settings = SimpleNamespace(begun=0, cancelled=0), SimpleNamespace(trusted_proxies=())
    with serve(build(TABLE, plane=plane, settings=settings, authenticate=credentials)) as served:
        rig = Rig(served, credentials)
        rig.plane = plane  # type: ignore[attr-defined]
        yield rig


def problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """Check that the answer is this problem, complete; return it."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body: dict[str, Any] = answer.json()
    assert (body["code"], body["status"]) == (code, status), body
    assert body["type"] == f"urn:hybridq:problem:{code}"
    assert body["instance"] == f"urn:hybridq:request:{answer.headers['x-request-id']}"
    assert body["title"] and body["detail"]
    return body


# -- order ---------------------------------------------------------------------------------------------------

BAD_BODY = b'{"payload":1,"payload":2}'
JSON = {"Content-Type": "application/json"}


def test_the_checks_come_in_the_order_of_the_contract(rig: Rig) -> None:
    """One request that is wrong in every way; mended step by step, each answer is the next in line."""
    secret = json.dumps({"payload": AWS_KEY}).encode()
    reader = rig.credentials.make("key", "queue:read")

    def send(token: str | None, body: bytes, kind: str, query: str = "") -> httpx2.Response:
        return rig.call("POST", f"/things{query}", token, content=body, headers={"Content-Type": kind})

    problem(send(None, b"x" * 2_000, "text/plain"), 401, "unauthenticated")
    problem(send(reader, b"x" * 2_000, "text/plain"), 415, "unsupported_media_type")
    problem(send(reader, b"x" * 2_000, "application/json"), 413, "payload_too_large")
    problem(send(reader, BAD_BODY, "application/json"), 400, "duplicate_key")
    problem(send(reader, secret, "application/json", "?limit=0"), 400, "invalid_argument")
    problem(send(reader, secret, "application/json"), 403, "missing_scope")
    problem(send(rig.key, secret, "application/json"), 422, "secret_suspected")
    assert send(rig.key, b'{"payload":1}', "application/json").status_code == 201


def test_a_payload_comes_back_byte_for_byte(rig: Rig) -> None:
    """From the socket to the handler and back."""
    answer = rig.call("POST", "/things?limit=3", rig.key, content=b'{"payload": { "b":1.0,\n "a":[ ] } }', headers=JSON)

    assert answer.status_code == 201
    assert b'"payload":{ "b":1.0,\n "a":[ ] }' in answer.content
    assert answer.json()["limit"] == 3


# -- who -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer a b",
        "Basic YTpi",
        "bearer\u00e9",
        "Bearer nobody",
        "Token key-token-0",
        "Bearer x,y",
    ],
)
def test_a_bad_authorization_header_is_401(rig: Rig, header: str) -> None:
    """Malformed or unknown: the answer is the same but for the challenge."""
    answer = rig.call("GET", "/whoami", headers={"Authorization": header.encode("latin-1")})

    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith('Bearer realm="hybridq"')


def test_two_authorization_headers_are_401(rig: Rig) -> None:
    """Which of them counts is not for us to guess."""
    headers = [("Authorization", f"Bearer {rig.key}"), ("Authorization", f"Bearer {rig.key}")]

    problem(rig.served.client.get("/whoami", headers=headers), 401, "unauthenticated")


def test_the_missing_scope_is_named(rig: Rig) -> None:
    """So is the choice, where several would do."""
    refused = rig.call("POST", "/pause/a", rig.key)
    sweep = rig.call("POST", "/things:sweep", rig.key)

    assert problem(sweep, 403, "missing_scope")["scope"] == "queue:admin"
    assert problem(refused, 403, "missing_scope")["scope"] == "queue:admin or agents:manage"
    manager = rig.credentials.make("key", "agents:manage")
    assert rig.call("POST", "/pause/a", manager).status_code == 200


def test_agents_may_where_the_route_says_so(rig: Rig) -> None:
    """And nowhere else, whatever the route is about."""
    assert rig.call("POST", "/things/a~b/result", rig.agent, json={"payload": 1}).status_code == 200
    problem(rig.call("GET", "/things/a~b", rig.agent), 403, "missing_scope")


@pytest.mark.parametrize("kind", ["registration", "renewal"])
def test_keys_of_registration_open_one_door(rig: Rig, kind: str) -> None:
    """Elsewhere they are as good as none."""
    token = rig.credentials.make(kind)

    assert rig.call("POST", "/register", token).json() == {"kind": kind}
    problem(rig.call("GET", "/whoami", token), 401, "unauthenticated")
    problem(rig.call("POST", "/register", rig.agent), 401, "unauthenticated")


def test_a_limit_met_is_429_with_what_to_do(rig: Rig) -> None:
    """For a credential, and for a peer that has none."""
    rig.credentials.limit = 3
    try:
        token = rig.credentials.make("key", "*")
        passed = [rig.call("GET", "/whoami", token) for _ in range(3)]
        refused = rig.call("GET", "/whoami", token)
    finally:
        rig.credentials.limit = 1_000_000

    assert [answer.headers["ratelimit"] for answer in passed] == [f'"read";r={left};t=1' for left in (2, 1, 0)]
    assert passed[0].headers["ratelimit-policy"] == '"read";q=3'
    problem(refused, 429, "rate_limited")
    assert refused.headers["retry-after"] == "2"
    assert refused.headers["ratelimit"] == '"read";r=0;t=1'


# -- browsers ------------------------------------------------------------------------------------------------


def test_a_session_comes_by_cookie_and_changes_need_proof(rig: Rig) -> None:
    """The token of the session, and an origin of this site."""
    cookie = {"Cookie": f"a=b; hq_session={rig.session}"}
    origin = {"Origin": rig.served.url}
    token = {"X-CSRF-Token": rig.csrf}

    assert rig.call("GET", "/whoami", headers=cookie).status_code == 200
    assert rig.call("POST", "/things:sweep", headers=cookie | origin | token).status_code == 200
    for missing in (
        cookie,
        cookie | origin,
        cookie | token,
        cookie | origin | {"X-CSRF-Token": "guess"},
        cookie | token | {"Origin": "https://evil.example"},
        cookie | token | {"Origin": "null"},
        cookie | token | {"Origin": rig.served.url + ".evil.example"},
    ):
        problem(rig.call("POST", "/things:sweep", headers=missing), 403, "csrf")


def test_a_form_of_another_site_changes_nothing(rig: Rig) -> None:
    """A cross-site form can send text/plain and urlencoded bodies, with the cookie."""
    headers = {"Cookie": f"hq_session={rig.session}", "Content-Type": "text/plain"}

    problem(rig.call("POST", "/things:sweep", headers=headers, content=b"{}"), 415, "unsupported_media_type")


def test_a_session_is_no_bearer_and_a_key_no_cookie(rig: Rig) -> None:
    """And a request with an Authorization header has no cookies."""
    problem(rig.call("GET", "/whoami", rig.session), 401, "unauthenticated")
    problem(rig.call("GET", "/whoami", headers={"Cookie": f"hq_session={rig.key}"}), 401, "unauthenticated")
    both = {"Cookie": f"hq_session={rig.session}", "Authorization": "Bearer nobody"}
    problem(rig.call("GET", "/whoami", headers=both), 401, "unauthenticated")
    twice = {"Cookie": f"hq_session={rig.session}; hq_session={rig.session}"}
    problem(rig.call("GET", "/whoami", headers=twice), 401, "unauthenticated")
    over_tls = {"Cookie": f"__Host-hq_session={rig.session}"}
    problem(rig.call("GET", "/whoami", headers=over_tls), 401, "unauthenticated")


def test_a_public_route_may_look_at_the_session(rig: Rig) -> None:
    """It answers without one, too; what it changes still needs proof."""
    cookie = {"Cookie": f"hq_session={rig.session}"}

    assert rig.call("POST", "/auth/validate").json() == {"valid": False}
    assert rig.call("POST", "/auth/validate", headers=cookie).json() == {"valid": True}
    assert rig.call("POST", "/auth/validate", headers={"Cookie": "hq_session=old"}).json() == {"valid": False}
    assert rig.call("POST", "/auth/logout").status_code == 204
    problem(rig.call("POST", "/auth/logout", headers=cookie), 403, "csrf")


# -- bodies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 201),
        ("application/json; charset=utf-8", 201),
        ('Application/JSON;charset="UTF-8"', 201),
        ("application/json; charset=latin-1", 415),
        ("application/jsonp", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/problem+json", 415),
        ("", 415),
        (None, 415),
    ],
)
def test_bodies_are_json_or_415(rig: Rig, kind: str | None, status: int) -> None:
    """No guessing."""
    headers = {} if kind is None else {"Content-Type": kind}

    assert rig.call("POST", "/things", rig.key, content=b'{"payload":1}', headers=headers).status_code == status


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br", "identity, gzip"])
def test_packed_bodies_are_415(rig: Rig, encoding: str) -> None:
    """No bombs either."""
    headers = JSON | {"Content-Encoding": encoding}

    answer = rig.call("POST", "/things", rig.key, content=b'{"payload":1}', headers=headers)

    problem(answer, 415, "unsupported_media_type")


def test_a_body_may_be_missing_where_everything_in_it_may(rig: Rig) -> None:
    """A body that is needed and missing is 400."""
    assert rig.call("POST", "/pause/a", rig.admin).json() == {"reason": None}
    assert rig.call("POST", "/pause/a", rig.admin, json={"reason": "lunch"}).json() == {"reason": "lunch"}
    assert rig.call("POST", "/things:sweep", rig.admin).json() == {"body": None}
    assert rig.call("POST", "/things:sweep", rig.admin, json={}).json() == {"body": None}
    problem(rig.call("POST", "/things:sweep", rig.admin, json={"a": 1}), 400, "invalid_argument")
    body = problem(rig.call("POST", "/things", rig.key), 400, "invalid_argument")
    assert body["errors"] == [{"pointer": "", "reason": "a body is required"}]


@pytest.mark.parametrize("path", ["a", "a~", "~b", "a~b~c", "a b~c", "-a~b", "a~" + "b" * 65, "%00%0a", "a~b%0a"])
def test_names_in_paths_obey_the_rule(rig: Rig, path: str) -> None:
    """A full id without its tilde is 400, not 404."""
    body = problem(rig.call("GET", f"/things/{path}", rig.key), 400, "invalid_argument")

    assert body["errors"][0]["pointer"] == "/path/thing"


def test_answers_write_instants_with_a_z(rig: Rig) -> None:
    """RFC 3339 in UTC."""
    found = rig.call("GET", "/things/pool-1~job-1", rig.key).json()

    assert found == {"pool": "pool-1", "job_id": "job-1", "at": "2026-01-02T00:00:00Z"}


# -- the guard -----------------------------------------------------------------------------------------------


def test_a_secret_that_comes_in_is_refused_with_its_place(rig: Rig) -> None:
    """The value is nowhere in the answer."""
    answer = rig.call("POST", "/things", rig.key, json={"payload": {"env": [{"KEY": AWS_KEY}]}})

    body = problem(answer, 422, "secret_suspected")
    assert body["errors"][0]["pointer"].startswith("/payload/env/0")
    assert body["errors"][0]["reason"]
    assert AWS_KEY not in answer.text


def test_a_secret_in_a_result_is_taken_out(rig: Rig) -> None:
    """Results are never refused."""
    answer = rig.call("POST", "/things/a~b/result", rig.agent, json={"payload": f"key is {AWS_KEY}"})

    assert answer.status_code == 200
    assert answer.json()["redactions"] == 1
    assert "[redacted:" in answer.json()["payload"]
    assert AWS_KEY not in answer.text


def test_taking_out_leaves_the_rest_as_it_was(rig: Rig) -> None:
    """Numbers that few can write included."""
    body = f'{{"payload":{{"a":"{AWS_KEY}","n":-0,"big":{2**80},"f":2.0,"s":"\\u0000é"}}}}'.encode()

    answer = rig.call("POST", "/things/a~b/result", rig.agent, content=body, headers=JSON)

    payload = json.loads(answer.content)["payload"]
    assert AWS_KEY not in answer.text
    assert payload | {"a": ""} == {"a": "", "n": 0, "big": 2**80, "f": 2.0, "s": "\x00é"}


# -- repeats and conditions ----------------------------------------------------------------------------------


def test_an_idempotency_key_makes_the_same_id_for_the_same_caller(rig: Rig) -> None:
    """Another credential or another key makes another."""

    def made(token: str, key: str) -> Any:
        answer = rig.call("POST", "/things", token, json={"payload": 1}, headers={"Idempotency-Key": key})
        return answer.json()["id"]

    first = made(rig.key, "build 7")
    assert first.startswith("thing-") and len(first) == len("thing-") + 32
    assert made(rig.key, "build 7") == first
    assert len({first, made(rig.key, "build 8"), made(rig.admin, "build 7")}) == 3
    assert rig.call("POST", "/things", rig.key, json={"payload": 1}).json()["id"] is None


@pytest.mark.parametrize("key", ["", "a" * 129, "a\tb", "\u00e9"])
def test_an_idempotency_key_off_its_rule_is_400(rig: Rig, key: str) -> None:
    """1 to 128 printable ASCII characters."""
    headers = {"Idempotency-Key": key.encode("utf-8")}

    body = problem(rig.call("POST", "/things", rig.key, json={"payload": 1}, headers=headers), 400, "invalid_argument")

    assert body["errors"][0]["pointer"] == "/header/idempotency-key"


def test_etags_spare_a_body_and_guard_a_change(rig: Rig) -> None:
    """304 by If-None-Match, 412 by If-Match."""
    etag = rig.call("GET", "/things/a~b", rig.key).headers["etag"]

    for current in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = rig.call("GET", "/things/a~b", rig.key, headers={"If-None-Match": current})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert rig.call("GET", "/things/a~b", rig.key, headers={"If-None-Match": '"x"'}).status_code == 200
    for matching in (etag, "*", f'"x", {etag}'):
        assert rig.call("PATCH", "/things/a~b", rig.admin, headers={"If-Match": matching}).status_code == 200
    for other in ('"x"', f"W/{etag}", "x", f"{etag} {etag}"):
        problem(rig.call("PATCH", "/things/a~b", rig.admin, headers={"If-Match": other}), 412, "precondition_failed")
    assert rig.call("GET", "/things/a~b", rig.key, headers={"If-None-Match": "x"}).status_code == 200


def test_a_cursor_serves_its_own_list_alone() -> None:
    """Tampered, of other filters, of another list, key, or spelling: 400."""
    cursors = Cursors(b"k" * 32)
    cursor = cursors.seal("jobs", {"ns": "a", "status": "QUEUED"}, [12, "x"])

    assert cursors.open("jobs", {"status": "QUEUED", "ns": "a"}, cursor) == [12, "x"]
    flipped = cursor[:-1] + ("A" if cursor[-1] != "A" else "B")
    for name, filters, text in (
        ("jobs", {"ns": "b", "status": "QUEUED"}, cursor),
        ("agents", {"ns": "a", "status": "QUEUED"}, cursor),
        ("jobs", {"ns": "a", "status": "QUEUED"}, flipped),
        ("jobs", {"ns": "a", "status": "QUEUED"}, cursor + "="),
        ("jobs", {"ns": "a", "status": "QUEUED"}, ""),
        ("jobs", {"ns": "a", "status": "QUEUED"}, "\u00fc"),
        ("jobs", {"ns": "a", "status": "QUEUED"}, "A" * 5_000),
        ("jobs", {"ns": "a", "status": "QUEUED"}, "A"),
    ):
        with pytest.raises(Problem) as caught:
            cursors.open(name, filters, text)
        assert caught.value.code == "invalid_cursor"
    with pytest.raises(Problem):
        Cursors(b"l" * 32).open("jobs", {"ns": "a", "status": "QUEUED"}, cursor)


# -- the form ------------------------------------------------------------------------------------------------


def test_the_form_route_speaks_oauth(rig: Rig) -> None:
    """Its errors are those of RFC 6749, as JSON."""
    assert rig.call("POST", "/auth/token", data={"grant_type": "exchange"}).json() == {"access_token": "t"}
    for answer, status, error in (
        (rig.call("POST", "/auth/token", data={"grant_type": "password"}), 400, "unsupported_grant_type"),
        (rig.call("POST", "/auth/token", data={"grant_type": "exchange", "x": "y"}), 400, "invalid_request"),
        (rig.call("POST", "/auth/token", content=b"grant_type=a&grant_type=b",
                  headers={"Content-Type": "application/x-www-form-urlencoded"}), 400, "invalid_request"),
        (rig.call("POST", "/auth/token"), 400, "invalid_request"),
        (rig.call("POST", "/auth/token", json={"grant_type": "exchange"}), 415, "invalid_request"),
    ):  # fmt: skip
        assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"


# -- problems ------------------------------------------------------------------------------------------------


def test_the_unforeseen_is_503_and_says_nothing(rig: Rig) -> None:
    """Logged with the places it passed, and without its message, which could quote the request."""
    with structlog.testing.capture_logs() as logs:
        answer = rig.call("GET", "/broken")

    problem(answer, 503, "internal_error")
    assert answer.headers["retry-after"] == "2"
    assert "hunter2" not in answer.text
    (logged,) = [line for line in logs if line["event"] == "http.internal_error"]
    assert logged["error"] == "KeyError"
    assert "test_framework_pipeline" in logged["traceback"][-1]
    assert "hunter2" not in repr(logs)


ERRORS: list[tuple[hq.HybridqError, int, str, dict[str, Any]]] = [
    (hq.InvalidArgument("delay_s", "hunter2", "from 0 to 9 seconds"), 400, "invalid_argument", {}),
    (hq.InvalidArgument("cursor", "hunter2", "one that a page returned"), 400, "invalid_cursor", {}),
    (hq.PayloadTooLarge("payload", 300_000, 262_144), 413, "payload_too_large", {"limit_bytes": 262_144}),
    (hq.JobNotFound("hunter2"), 404, "job_not_found", {}),
    (hq.JobConflict("hunter2", "QUEUED"), 409, "job_conflict", {"job_status": "QUEUED"}),
    (hq.UniqueTaken("hunter2", "job-1"), 409, "unique_taken", {}),
    (hq.StaleLease("hunter2", 4, "RUNNING"), 409, "stale_lease", {"job_status": "RUNNING", "allowed": ()}),
    (hq.NotLeaseHolder("hunter2", 4), 403, "not_lease_holder", {}),
    (hq.IllegalTransition("hunter2", "start", "DEAD_LETTERED", ["CLAIMED"]), 409, "illegal_transition",
     {"job_status": "DEAD_LETTERED", "allowed": ("CLAIMED",)}),
    (hq.AlreadyTerminal("hunter2", "FAILED"), 409, "already_terminal", {}),
    (hq.NotTerminal("hunter2", "QUEUED"), 409, "not_terminal", {}),
    (hq.OutcomeConflict("hunter2", 4, "success"), 409, "outcome_conflict", {}),
    (hq.JobCancelled("hunter2"), 409, "cancelled", {}),
    (hq.QueueFull("hunter2", 10), 507, "queue_full", {}),
    (hq.AgentDraining("hunter2"), 404, "agent_draining", {"drain": True}),
    (hq.SessionSuperseded("hunter2"), 410, "session_superseded", {}),
    (hq.OutcomeUnknown("claim", "hunter2"), 503, "outcome_unknown", {}),
    (hq.RedisUnavailable("redis://hunter2", "hunter2"), 503, "redis_unavailable", {}),
    (hq.QueueLost("hunter2"), 503, "queue_lost", {}),
    (hq.SchemaMismatch("hunter2", "1", "2"), 503, "server_trouble", {}),
    (hq.ScriptFailed("claim", "lua/claim.lua:1", "hunter2"), 503, "server_trouble", {}),
    (hq.WrongLoop("hunter2"), 503, "internal_error", {}),
    (hq.AgentNotRegistered("hunter2"), 404, "agent_not_registered", {}),
    (hq.PoolNotFound("hunter2"), 404, "pool_not_found", {}),
    (hq.AgentTerminated("hunter2"), 409, "agent_terminated", {}),
    (hq.CredentialConflict("hunter2", "hunter2"), 409, "credential_conflict", {}),
    (hq.AccessFull("hunter2", 10), 422, "limit_reached", {"limit": 10}),
    (hq.RegistrationSpent("hunter2", "hunter2"), 401, "unauthenticated", {}),
    (hq.RenewalReused("hunter2", "hunter2"), 401, "unauthenticated", {}),
    (hq.BatchRefused({3: hq.QueueFull("hunter2", 1), 2: hq.JobConflict("hunter2", "QUEUED")}), 409, "job_conflict",
     {"index": 2, "job_status": "QUEUED"}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "status", "code", "members"), ERRORS, ids=lambda value: type(value).__name__)
def test_every_error_of_the_library_is_a_problem(
    error: hq.HybridqError, status: int, code: str, members: dict[str, Any]
) -> None:
    """With what a client needs to go on, and without what it sent."""
    found = problem_of(error)

    body = found.body("r")
    assert (found.status, found.code) == (status, code)
    assert members.items() <= body.items()
    assert "hunter2" not in repr(body)


def test_no_error_of_the_library_is_forgotten() -> None:
    """Whatever it can raise while serving has a code; the rest would be a bug of ours."""
    ours = {"WrongLoop", "InvalidURL", "SlowFollower", "UsageError", "Conflict", "Refused", "HybridqError"}

    def below(kind: type[hq.HybridqError]) -> set[type[hq.HybridqError]]:
        return {kind}.union(*(below(inner) for inner in kind.__subclasses__()))

    kinds = {kind for kind in below(hq.HybridqError) if kind.__module__ == "hybridq.errors"}
    unmapped = {kind.__name__ for kind in kinds if not any(issubclass(kind, known) for known, _ in _OF_ERRORS)}
    assert unmapped == ours


def test_a_batch_points_at_its_entry() -> None:
    """The pointer goes through the list."""
    found = problem_of(hq.BatchRefused({4: hq.InvalidArgument("delay_s", 1, "from 0 to 9 seconds")}))

    assert found.errors == (Reason("/jobs/4/delay_seconds", "must be from 0 to 9 seconds"),)
    assert found.body("r")["index"] == 4


def test_an_argument_is_pointed_at_as_the_wire_calls_it() -> None:
    """The library's `_s` are the wire's `_seconds`."""
    found = problem_of(hq.InvalidArgument("retry.max_s", 1, "from 5 to 9 seconds"))

    assert found.errors == (Reason("/retry/max_seconds", "must be from 5 to 9 seconds"),)


def test_keys_that_the_sender_chose_are_not_pointed_at() -> None:
    """They came in, and may be what should not have: the map they stand in is named."""
    for name in ("labels[hunter2]", "labels[a.b]", "labels[a]b]", "labels[]", "labels[7]"):
        found = problem_of(hq.InvalidArgument(name, "x", "a text"))
        assert found.errors == (Reason("/labels", "must be a text"),)


def test_the_only_server_errors_are_503_and_507() -> None:
    """And every code is a word of its own."""
    assert {kind.status for kind in PROBLEMS.values() if kind.status >= 500} == {503, 507}
    assert set(PROBLEMS) >= OAUTH_ERRORS
    assert all(code.isidentifier() and code.islower() for code in PROBLEMS)


# -- the connection ------------------------------------------------------------------------------------------


def test_work_for_a_client_that_left_is_cancelled(rig: Rig) -> None:
    """A parked claim must not go on for nobody."""
    from tests.servers import wait_until

    plane: Any = rig.plane  # type: ignore[attr-defined]
    with rig.served.connect() as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: plane.begun == 1, 10, what="the handler runs")
        assert plane.cancelled == 0

    wait_until(lambda: plane.cancelled == 1, 10, what="the work is cancelled")
