"""What is off its rule is refused by the real routes: with the problem's status and code, unquoted, and unwritten.

How requests are read is proved where the reader is tested; here it is that each route hangs on it, and what Redis
holds of the namespace is the same before and after.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import redis

from hybridq import scripts
from tests.api import shared
from tests.api.client import Api, problem

api, key, running = shared.api, shared.key, shared.running

NEEDLE = "kilimanjaro-at-dawn"
JOBS, BATCH, CLAIM = "/api/queue/jobs", "/api/queue/jobs:batch", "/api/queue/claim"
YEAR_S = 366 * 86_400
SPEC = {"payload": 1}
MANY_S = 20.0
CLOCK = {b"activity_ms", b"gap_ms", b"gap_at_ms", b"upkeep_ms"}
"""What a queue keeps of time going by; its upkeep, which nobody asks for, writes it too."""


class World:
    """The namespace of a test with a job in line, one that is held, and the pool's settings."""

    def __init__(self, api: Api, store: redis.Redis) -> None:
        self.api, self.store = api, store
        for name in ("held", "waiting"):
            assert api.post(JOBS, {"payload": name, "job_id": name, "priority": "HIGH"}).status_code == 201
        answer = api.post(CLAIM, {"agent_id": "one", "start": True})
        assert answer.status_code == 200, answer.text
        self.job: dict[str, Any] = answer.json()["job"]
        assert self.job["job_id"] == "held"

    def dump(self) -> dict[bytes, Any]:
        """Return every key of the namespace with all that it holds, but for when scripts last looked at the clock."""
        keys = sorted(self.store.scan_iter(f"hq:{{{self.api.namespace}/*", count=1000))
        return {name: self._held(name) if name.endswith(b":meta") else self.store.dump(name) for name in keys}

    def _held(self, name: bytes) -> dict[Any, Any]:
        return {field: value for field, value in self.store.hgetall(name).items() if field not in CLOCK}

    @contextlib.contextmanager
    def untouched(self) -> Iterator[None]:
        before = self.dump()
        assert len(before) > 3
        yield
        after = self.dump()
        assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == set()

    def refuses(self, answer: httpx2.Response, status: int, code: str, *unquoted: str) -> dict[str, Any]:
        body = problem(answer, status, code)
        for text in (NEEDLE, *unquoted):
            assert text not in answer.text
        return body

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[str]]:
        """Yield a list of the verbs on leases that Redis was asked for meanwhile; it is complete at the end."""
        name_of = {scripts.load(verb).sha: verb for verb in VERBS}
        asked: list[str] = []
        with contextlib.closing(redis.Redis.from_url(self.api.redis_url)) as other, other.monitor() as seen:
            yield asked
            self.store.echo(NEEDLE)
            while NEEDLE not in (command := seen.next_command()["command"]) or not command.upper().startswith("ECHO"):
                words = command.split(" ")
                if words[0].upper() == "EVALSHA" and self.api.namespace in command:
                    asked.extend(name_of[sha] for sha in words[1:2] if sha in name_of)


@pytest.fixture
def world(api: Api) -> Iterator[World]:
    store = redis.Redis.from_url(api.redis_url)
    with contextlib.closing(store):
        yield World(api, store)


def at(body: dict[str, Any], *pointers: str) -> None:
    """Hold a problem to the places that it points at."""
    assert [error["pointer"] for error in body["errors"]] == list(pointers)


def speak(port: int, head: list[str], content: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Send a request by hand on a socket of its own and return status, headers and body of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        with contextlib.suppress(ConnectionError):  # refused before all of it was sent
            line.sendall("\r\n".join([*head, "", ""]).encode("latin-1") + content)
        answer = http.client.HTTPResponse(line, method=head[0].split(" ")[0])
        answer.begin()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def by_hand(api: Api, *headers: str, path: str = JOBS, method: str = "POST") -> list[str]:
    return [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {api.admin}", *headers]


# -- the text of a body ------------------------------------------------------------------------------------------

HUGE = str(2**53 + 1)
TEXTS: list[tuple[str, bytes, str]] = [
    ("deep payload", b'{"payload":' + b"[" * 5000 + b"]" * 5000 + b"}", "too_deep"),
    ("deep object", b'{"a":' * 5000 + b"1" + b"}" * 5000, "too_deep"),
    ("never closed", b"[" * 5000, "too_deep"),
    ("bad UTF-8", b'{"payload":"kilimanjaro-at-dawn \xff\xfe"}', "bad_encoding"),
    ("overlong UTF-8", b'{"payload":"\xc0\xafkilimanjaro-at-dawn"}', "bad_encoding"),
    ("byte order mark", b'\xef\xbb\xbf{"payload":1}', "bad_encoding"),
    ("lone surrogate in payload", b'{"payload":"kilimanjaro-at-dawn\\ud800"}', "bad_encoding"),
    ("lone surrogate in type", b'{"payload":1,"type":"\\udc00kilimanjaro-at-dawn"}', "bad_encoding"),
    ("key twice", b'{"payload":1,"type":"kilimanjaro-at-dawn","type":"b"}', "duplicate_key"),
    ("key twice, spelled otherwise", b'{"payload":1,"type":"a","t\\u0079pe":"kilimanjaro-at-dawn"}', "duplicate_key"),
    ("key twice in payload", b'{"payload":{"a":"kilimanjaro-at-dawn","a":2}}', "duplicate_key"),
    ("NaN", b'{"payload":NaN}', "malformed_json"),
    ("Infinity", b'{"payload":1,"delay_seconds":-Infinity}', "malformed_json"),
    ("1e400", b'{"payload":1,"delay_seconds":1e400}', "invalid_argument"),
    ("1e400 in payload", b'{"payload":1e400}', "invalid_argument"),
    ("5000 digits", b'{"payload":1,"max_attempts":' + b"7" * 5000 + b"}", "invalid_argument"),
    ("5000 digits in payload", b'{"payload":' + b"7" * 5000 + b"}", "invalid_argument"),
    ("2^53 + 1", b'{"payload":1,"max_attempts":9007199254740993}', "invalid_argument"),
    ("true for a number", b'{"payload":1,"max_attempts":true}', "invalid_argument"),
    ("a number in quotes", b'{"payload":1,"max_attempts":"3"}', "invalid_argument"),
    ("half a number", b'{"payload":1,"max_attempts":2.5}', "invalid_argument"),
    ("a number for a name", b'{"payload":1,"job_id":12345678901}', "invalid_argument"),
    ("no payload", b'{"type":"kilimanjaro-at-dawn"}', "invalid_argument"),
    ("a list", b'["kilimanjaro-at-dawn"]', "invalid_argument"),
    ("null", b"null", "invalid_argument"),
    ("cut off", b'{"payload":"kilimanjaro-at-dawn', "malformed_json"),
    ("two documents", b'{"payload":1}{"payload":"kilimanjaro-at-dawn"}', "malformed_json"),
    ("a comma too many", b'{"payload":"kilimanjaro-at-dawn",}', "malformed_json"),
    ("a comment", b'{"payload":1}/* kilimanjaro-at-dawn */', "malformed_json"),
    ("a raw NUL", b'{"payload":"kilimanjaro-at-dawn\x00"}', "malformed_json"),
]


@pytest.mark.parametrize(("content", "code"), [each[1:] for each in TEXTS], ids=[each[0] for each in TEXTS])
def test_bodies_that_are_no_strict_json_are_refused(world: World, content: bytes, code: str) -> None:
    with world.untouched():
        answer = world.api.request("POST", JOBS, content=content)

        world.refuses(answer, 400, code, HUGE, "7" * 20, "12345678901", "[[[[")


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (CLAIM, b'{"agent_id":"one","max":true}'),
        (CLAIM, b'{"agent_id":"one","max":9007199254740993}'),
        (CLAIM, b'{"agent_id":"one","agent_id":"kilimanjaro-at-dawn"}'),
        (CLAIM, b'{"agent_id":"one","kilimanjaro-at-dawn":1}'),
        (BATCH, b'{"jobs":[{"payload":1},{"payload":1,"kilimanjaro-at-dawn":1}]}'),
        (BATCH, b'{"jobs":[{"payload":1}],"atomic":1}'),
        ("/api/queue/jobs/default~held/start", b'{"lease_token":12345678901}'),
        ("/api/queue/jobs/default~held/complete", b'{"lease_token":null,"outcome":"success"}'),
        ("/api/queue/jobs/default~held/release", b'["kilimanjaro-at-dawn"]'),
        ("/api/queue/heartbeat", b'{"leases":[["kilimanjaro-at-dawn"]]}'),
        ("/api/queue/heartbeat", b'{"leases":' + b"[" * 5000 + b"}"),
        ("/api/agents/register", b'{"agent_id":"\xff"}'),
        ("/api/keys", b'{"name":"\\ud800","scopes":["*"]}'),
    ],
)
def test_so_they_are_by_every_verb(world: World, path: str, content: bytes) -> None:
    with world.untouched():
        answer = world.api.request("POST", path, content=content)

        assert answer.status_code == 400, (path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert NEEDLE not in answer.text and "12345678901" not in answer.text and HUGE not in answer.text


def test_nothing_of_a_job_but_what_is_input_can_be_set(world: World) -> None:
    """Every key of the answer is tried, those of a claimed job included, and some that others have."""
    inputs = {"job_id", "pool", "type", "priority", "payload", "labels", "tags", "run_at", "max_attempts"}
    inputs |= {"timeout_seconds", "retry", "depends_on", "group", "fair_key", "unique"}
    shown = set(world.job) | set(world.api.get(f"{JOBS}/default~held").json())
    assert {"status", "attempt", "fence", "lease_token", "outcome", "attempts", "request_id"} <= shown
    others = {
        "state",
        "tenant",
        "namespace",
        "token",
        "created_by",
        "__proto__",
        "constructor",
        "Payload",
        "maxAttempts",
    }
    with world.untouched():
        for name in sorted((shown | others) - inputs):
            for value in (world.job.get(name), NEEDLE, 1, None):
                answer = world.api.post(JOBS, {"payload": 1, name: value})
                world.refuses(answer, 400, "invalid_argument")


CONTROLS = ["\x00", "a\x00b", "a\nb", "a\tb", "a\x1bb", "a\x7fb", "a\x85b", "a\u2028b", "a\u202eb"]


@pytest.mark.parametrize("text", CONTROLS, ids=ascii)
def test_control_characters_are_no_part_of_names_types_and_tags(world: World, text: str) -> None:
    text = f"{NEEDLE}{text}"
    with world.untouched():
        for body in (
            {"type": text},
            {"job_id": text},
            {"pool": text},
            {"tags": {text: "a"}},
            {"tags": {"a": text}},
            {"unique": {"key": text}},
        ):
            world.refuses(world.api.post(JOBS, SPEC | body), 400, "invalid_argument")
        for body in ({"agent_id": text}, {"agent_id": "one", "pool": text}, {"agent_id": "one", "request_id": text}):
            world.refuses(world.api.post(CLAIM, body), 400, "invalid_argument")
        beat = {"leases": [{"id": f"default~{text}", "lease_token": world.job["lease_token"]}]}
        world.refuses(world.api.post("/api/queue/heartbeat", beat), 400, "invalid_argument")


def test_names_are_told_apart_by_their_bytes(world: World) -> None:
    """What looks like a name and is none; and its length to the character."""
    with world.untouched():
        for name in (
            "",
            ".a",
            "-a",
            "_a",
            "a~b",
            "a/b",
            "a:b",
            "{a}",
            "a*",
            "a b",
            "a%41",
            "caf\u00e9",
            "\uff41",
            "a" * 65,
        ):
            world.refuses(world.api.post(JOBS, SPEC | {"job_id": name}), 400, "invalid_argument", "a" * 65)
            world.refuses(world.api.post(JOBS, SPEC | {"pool": name}), 400, "invalid_argument", "a" * 65)
            world.refuses(world.api.post(CLAIM, {"agent_id": name}), 400, "invalid_argument", "a" * 65)
    for length in (63, 64):
        assert world.api.post(JOBS, SPEC | {"job_id": "a" * length}).status_code == 201


@pytest.mark.parametrize("part", ["%00", "a%0a", "a%7f", "%C3%A9", "%FF", "a" * 65, "a%20b", "a*", "%7Ba%7D"])
@pytest.mark.parametrize("id", ["default~{}", "{}~held", "{}"])
def test_ids_in_paths_obey_the_rule_of_names(world: World, id: str, part: str) -> None:
    with world.untouched():
        for method, body in (("GET", None), ("DELETE", None)):
            answer = world.api.request(method, f"{JOBS}/{id.format(part)}", body)
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument"), answer.text
            assert answer.headers["content-type"] == "application/problem+json"


# -- what a body comes as ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "limit"), [(JOBS, 384 * 1024), (BATCH, 8 * 1024 * 1024), (f"{JOBS}/default~held/complete", 512 * 1024)]
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_of_its_route_is_413(world: World, path: str, limit: int, chunked: bool) -> None:
    content = b'{"payload":"' + NEEDLE.encode() + b"a" * limit + b'"}'
    head = by_hand(world.api, "Content-Type: application/json", path=path)
    if chunked:
        head.append("Transfer-Encoding: chunked")
        sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
    else:
        head.append(f"Content-Length: {len(content)}")
        sent = b""  # the length is enough
    with world.untouched():
        status, headers, body = speak(world.api.port, head, sent)

        assert (status, headers["content-type"]) == (413, "application/problem+json")
        found = json.loads(body)
        assert (found["code"], found["limit_bytes"]) == ("payload_too_large", limit)
        assert NEEDLE.encode() not in body


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Type: text/plain"],
        ["Content-Type: application/x-www-form-urlencoded"],
        ["Content-Type: multipart/form-data; boundary=kilimanjaro-at-dawn"],
        ["Content-Type: application/jsonp"],
        ["Content-Type: "],
        [],
        ["Content-Type: application/json", "Content-Encoding: gzip"],
        ["Content-Type: application/json", "Content-Encoding: zstd"],
        ["Content-Type: application/json", "Content-Encoding: identity, gzip"],
    ],
    ids=lambda headers: ", ".join(headers) or "none",
)
@pytest.mark.parametrize("path", [JOBS, CLAIM, "/api/agents/register"])
def test_a_body_is_plain_json_or_415(world: World, path: str, headers: list[str]) -> None:
    content = b'{"payload":1}' if path == JOBS else b'{"agent_id":"two"}'
    with world.untouched():
        head = by_hand(world.api, *headers, f"Content-Length: {len(content)}", path=path)
        status, found, body = speak(world.api.port, head, content)

        assert (status, found["content-type"]) == (415, "application/problem+json")
        assert json.loads(body)["code"] == "unsupported_media_type"
        assert NEEDLE.encode() not in body


@pytest.mark.parametrize(
    "framing",
    [
        ["Content-Length: abc"],
        ["Content-Length: -1"],
        ["Content-Length: +13"],
        ["Content-Length: 13, 14"],
        ["Content-Length: 13", "Content-Length: 14"],
        ["Content-Length: 13", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 13"],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
        ["Content-Length : 13"],
        ["Content-Length: 13", " folded: 1"],
    ],
    ids=" ".join,
)
def test_bodies_whose_end_is_in_doubt_are_refused_and_end_the_connection(world: World, framing: list[str]) -> None:
    """What follows on the connection is never taken for a request: it may be somebody else's body."""
    content = b'{"payload":1}'
    chunked = any("chunked" in each for each in framing)
    smuggled = "\r\n".join([*by_hand(world.api, "Content-Type: application/json", "Content-Length: 13"), "", ""])
    body = (b"d\r\n%s\r\n0\r\n\r\n" % content if chunked else content) + smuggled.encode() + content
    with world.untouched():
        head = by_hand(world.api, "Content-Type: application/json", *framing)
        with socket.create_connection(("127.0.0.1", world.api.port), timeout=20) as line:
            line.sendall("\r\n".join([*head, "", ""]).encode() + body)
            said = b""
            with contextlib.suppress(ConnectionError):
                while part := line.recv(65_536):
                    said += part

        assert said.startswith(b"HTTP/1.1 400 "), said[:200]
        assert said.count(b"HTTP/1.1 ") == 1, said


@pytest.mark.parametrize(
    "headers",
    [[f"X-{number}: a" for number in range(10_000)], [f"X-Big: {NEEDLE}{'a' * 65_536}"]],
    ids=["10,000 headers", "64 KiB"],
)
def test_too_many_and_too_long_headers_are_refused(world: World, headers: list[str]) -> None:
    with world.untouched():
        head = by_hand(world.api, "Content-Type: application/json", "Content-Length: 13", *headers)
        status, _, body = speak(world.api.port, head, b'{"payload":1}')

        assert status in (400, 431)
        assert NEEDLE.encode() not in body
    assert world.api.get("/health").status_code == 200


# -- paths and methods -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/api/queue/jobs/",
        "/api/queue//jobs",
        "//api/queue/jobs",
        "/API/queue/jobs",
        "/api/Queue/Jobs",
        "/api/queue/jobs;a=b",
        "/api/queue;/jobs",
        "/api/queue%2fjobs",
        "/api%2Fqueue/jobs",
        "/api/queue/%2f../jobs",
        "/api/queue/..%2fqueue/jobs",
        "/api/queue/%252e%252e/jobs",
        "/api/queue%252fjobs",
        "/api/agents/../queue/jobs",
        "/api/./queue/jobs",
        "/api/queue/jobs%00",
        "/api/queue/jobs%20",
        "/api/queue/jobs%3Blimit=1",
        "/api/queue/jobs/default~held%2f",
        "/api/queue/jobs/default~held/",
        "/api/queue/jobs/default~held/start/",
        "/api/queue/jobs/default%2f..%2fheld/start",
    ],
)
def test_a_path_has_one_spelling(world: World, path: str) -> None:
    content = b'{"payload":1}'
    with world.untouched():
        for method in ("GET", "POST", "DELETE"):
            head = by_hand(world.api, "Content-Type: application/json", "Content-Length: 13", path=path, method=method)
            status, headers, body = speak(world.api.port, head, content)

            assert (status, headers["content-type"]) == (404, "application/problem+json"), (method, body)
            assert json.loads(body)["code"] == "not_found"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (JOBS, "GET, POST"),
        (BATCH, "POST"),
        (CLAIM, "POST"),
        ("/api/queue/heartbeat", "POST"),
        (f"{JOBS}/default~held", "DELETE, GET"),
        (f"{JOBS}/default~held/start", "PATCH, POST"),
        (f"{JOBS}/default~held/complete", "PATCH, POST"),
        (f"{JOBS}/default~held/release", "POST"),
        ("/api/queue/stats", "GET"),
        ("/api/agents/register", "POST"),
    ],
)
def test_other_methods_are_405_and_told_the_right_ones(world: World, path: str, allowed: str) -> None:
    with world.untouched():
        for method in {"HEAD", "OPTIONS", "TRACE", "PUT", "GET", "DELETE", "PATCH", "POST"} - set(allowed.split(", ")):
            answer = world.api.request(method, path, headers={"X-HTTP-Method-Override": "POST", "X-Needle": NEEDLE})

            assert answer.status_code == 405, (method, answer.text)
            assert sorted(answer.headers["allow"].split(", ")) == sorted(allowed.split(", "))
            assert answer.headers["content-type"] == "application/problem+json"
            if method != "HEAD":
                world.refuses(answer, 405, "method_not_allowed")


# -- bounds ------------------------------------------------------------------------------------------------------

TAGS = [{f"tag-{number}": "" for number in range(count)} for count in range(66)]
ENQUEUE_BOUNDS: list[tuple[str, list[Any], list[Any]]] = [
    ("max_attempts", [1, 2, 99, 100, 3.0], [0, -1, 101, 10**9]),
    ("delay_seconds", [0, 0.5, YEAR_S - 1, YEAR_S], [-1, -0.001, YEAR_S + 1, 1e300]),
    ("timeout_seconds", [0.001, 1, YEAR_S], [0, -1, 0.0009, YEAR_S + 1]),
    ("retry", [{"base_seconds": 0}, {"base_seconds": 3600, "max_seconds": 3600}], [{"base_seconds": -1}]),
    ("retry", [{"base_seconds": 3599, "max_seconds": 3600}], [{"base_seconds": 3601, "max_seconds": 86_400}]),
    ("retry", [{"max_seconds": 86_399}, {"max_seconds": 86_400}], [{"max_seconds": 86_401}, {"max_seconds": 4.9}]),
    ("retry", [{}], [{"base_seconds": 1, "jitter": NEEDLE}, {"base_seconds": True}, NEEDLE, []]),
    ("tags", [TAGS[0], TAGS[63], TAGS[64]], [TAGS[65], ["a"], {"a": 1}, {"": "a"}]),
    ("tags", [{"k" * 64: "v" * 256}], [{"k" * 65: "v"}, {"k": "v" * 257}, {"\u00e9" * 33: "v"}]),
    ("type", ["a" * 63, "a" * 64, "\u00e9" * 32], ["", "a" * 65, "\u00e9" * 33]),
    ("priority", ["LOW", "critical"], ["", "URGENT", 9, 0]),
    (
        "run_at",
        ["2026-01-01T00:00:00Z"],
        ["2026-01-01", "2026-01-01T00:00:00", "9999-01-01T00:00:00Z", "1960-01-01T00:00:00Z", 5],
    ),
]


@pytest.mark.parametrize(("field", "good", "bad"), ENQUEUE_BOUNDS)
def test_bounds_of_a_job(world: World, field: str, good: list[Any], bad: list[Any]) -> None:
    with world.untouched():
        for value in bad:
            body = world.refuses(world.api.post(JOBS, {"payload": 1, field: value}), 400, "invalid_argument")
            assert body["errors"][0]["pointer"].startswith(f"/{field}"), (value, body)
    for value in good:
        answer = world.api.post(JOBS, {"payload": 1, field: value})
        assert answer.status_code == 201, (value, answer.text)


CLAIM_BOUNDS: list[tuple[str, list[Any], list[Any]]] = [
    ("lease_seconds", [1, 2, 3599, 3600], [0, -1, 0.999, 3601, 10**9]),
    ("max", [1, 2, 99, 100], [0, -1, 101, 10**6]),
    ("wait_seconds", [0, 0.001, 49, 50], [-1, -0.001, 50.001, 51]),
    ("pools", [["default"]], [[], ["a"] * 65, [NEEDLE + "/"]]),
    ("holding", [], [[NEEDLE], ["1." + "0" * 32] * 201]),
]


@pytest.mark.parametrize(("field", "good", "bad"), CLAIM_BOUNDS)
def test_bounds_of_a_claim(world: World, field: str, good: list[Any], bad: list[Any]) -> None:
    with world.untouched():
        for value in bad:
            answer = world.api.post(CLAIM, {"agent_id": "one", field: value})
            body = world.refuses(answer, 400, "invalid_argument")
            assert body["errors"][0]["pointer"].startswith(f"/{field}"), (value, body)
    for value in good:
        assert world.api.post(JOBS, SPEC).status_code == 201  # there is one: nobody waits
        answer = world.api.post(CLAIM, {"agent_id": "one", field: value})
        assert answer.status_code == 200, (value, answer.text)


QUERY_BOUNDS: list[tuple[str, str, list[Any], list[Any]]] = [
    (JOBS, "limit", [1, 2, 199, 200], [0, -1, 201, "", "1e2", "0x10", "%201", "1.5", "true", HUGE, "7" * 5000]),
    ("/api/queue/dead", "limit", [1, 200], [0, 201]),
    ("/api/queue/stats", "window_seconds", [0, 1, 3599, 3600], [-1, -0.001, 3601, 3600.001, "inf", "nan", "1e400", ""]),
    (f"{JOBS}/default~waiting", "wait_seconds", [0, 0.001], [-1, 51, 50.001, "NaN", "1,5"]),
    (JOBS, "status", ["QUEUED", "queued"], ["", NEEDLE, "%00"]),
    (JOBS, "pool", ["default"], ["", "a%00", "%FF", "a/b", "a" * 65]),
    (JOBS, "kilimanjaro-at-dawn", [], [1]),
]


@pytest.mark.parametrize(("path", "field", "good", "bad"), QUERY_BOUNDS)
def test_bounds_of_queries(world: World, path: str, field: str, good: list[Any], bad: list[Any]) -> None:
    with world.untouched():
        for value in bad:
            answer = world.api.get(f"{path}?{field}={value}")
            assert answer.status_code == 400, (value, answer.text)
            world.refuses(answer, 400, answer.json()["code"], HUGE, "7" * 20)
        for value in good:
            answer = world.api.get(f"{path}?{field}={value}")
            assert answer.status_code == 200, (value, answer.text)


def test_the_shortest_of_waits_ends(world: World) -> None:
    """Wherever on the way its time runs out: also in the middle of an answer of Redis."""
    client = world.api.connect()
    headers = {"Authorization": f"Bearer {world.api.admin}"}
    for number in range(120):
        wait_s = 0.0005 * (1 + number % 12)
        answer = client.get(f"{JOBS}/default~waiting?wait_seconds={wait_s}", headers=headers, timeout=10)
        assert (answer.status_code, answer.json()["status"]) == (200, "QUEUED")


def test_a_payload_is_counted_in_bytes(world: World) -> None:
    """262,144 of them, as they were sent; in a batch each entry has its own."""
    with world.untouched():
        for text in ("a" * 262_143, "\u00e9" * 131_071 + "a"):
            answer = world.api.post(JOBS, content=json.dumps({"payload": text}, ensure_ascii=False).encode())
            body = world.refuses(answer, 413, "payload_too_large", "a" * 20, "\u00e9\u00e9\u00e9")
            assert body["limit_bytes"] == 262_144
            at(body, "/payload")
    for size in (262_141, 262_142):
        assert world.api.post(JOBS, {"payload": "a" * size}).status_code == 201
    answer = world.api.post(BATCH, {"jobs": [{"payload": "a" * 262_143}, SPEC]})
    assert [each["status"] for each in answer.json()["results"]] == [413, 201]
    assert "a" * 20 not in answer.json()["results"][0]["problem"]["detail"]


def test_a_batch_holds_a_thousand(world: World) -> None:
    with world.untouched():
        wrong: tuple[Any, ...] = ([], [SPEC] * 1001, None, {})
        for jobs in wrong:
            at(world.refuses(world.api.post(BATCH, {"jobs": jobs}), 400, "invalid_argument"), "/jobs")
        entry = world.api.post(BATCH, {"jobs": [SPEC, SPEC | {"max_attempts": 0}]})
        at(world.refuses(entry, 400, "invalid_argument"), "/jobs/1/max_attempts")
    for count in (1, 999, 1000):
        answer = world.api.post(BATCH, {"jobs": [SPEC] * count})
        assert [each["status"] for each in answer.json()["results"]] == [201] * count


# -- cursors -----------------------------------------------------------------------------------------------------


def test_a_cursor_that_was_touched_or_is_of_elsewhere_is_refused(world: World, api: Api, running: Api) -> None:
    cursor = api.get(f"{JOBS}?limit=1").json()["next_cursor"]
    assert cursor and api.get(f"{JOBS}?limit=1&cursor={cursor}").status_code == 200
    other = shared.in_namespace(running, f"{api.namespace}-other")
    for name in ("held", "waiting"):
        assert other.post(JOBS, SPEC | {"job_id": name}).status_code == 201
    foreign = other.get(f"{JOBS}?limit=1").json()["next_cursor"]
    swapped = "B" if cursor[0] == "A" else "A"
    with world.untouched():
        for bad in (swapped + cursor[1:], cursor[:-2], cursor + "AAAA", cursor[:24], "AAAA", "A" * 2048, foreign):
            answer = api.get(f"{JOBS}?limit=1&cursor={bad}")
            at(world.refuses(answer, 400, "invalid_cursor", bad[:24] if len(bad) > 8 else NEEDLE), "/query/cursor")
        world.refuses(api.get(f"{JOBS}?limit=1&pool=default&cursor={cursor}"), 400, "invalid_cursor", cursor)
        world.refuses(api.get(f"/api/queue/dead?limit=1&cursor={cursor}"), 400, "invalid_cursor", cursor)
        world.refuses(other.get(f"{JOBS}?limit=1&cursor={cursor}"), 400, "invalid_cursor", cursor)
        for bad in ("", "%00", "a=b", "a+b", "A" * 2049):
            answer = api.get(f"{JOBS}?cursor={bad}")
            assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
            assert answer.json()["code"] in ("invalid_argument", "invalid_cursor")


# -- Idempotency-Key ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent", ["", "a" * 129, "kilimanjaro-at-dawn\u00e9", "kilimanjaro-at-dawn\x7f", "a\tb"], ids=ascii
)
@pytest.mark.parametrize("path", [JOBS, CLAIM, f"{JOBS}/default~held/release"])
def test_an_idempotency_key_off_its_rule_is_refused(world: World, path: str, sent: str) -> None:
    bodies = {JOBS: SPEC, CLAIM: {"agent_id": "one"}}
    content = json.dumps(bodies.get(path, {"lease_token": world.job["lease_token"]})).encode()
    with world.untouched():
        head = by_hand(
            world.api,
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
            f"Idempotency-Key: {sent}",
            path=path,
        )
        status, headers, body = speak(world.api.port, head, content)

        assert (status, headers["content-type"]) == (400, "application/problem+json"), body
        assert json.loads(body)["code"] == ("bad_request" if "\x7f" in sent else "invalid_argument")
        assert NEEDLE.encode() not in body and b"a" * 129 not in body


def test_an_idempotency_key_is_for_one_content(world: World) -> None:
    said = {"Idempotency-Key": "k" * 128}
    assert world.api.post(JOBS, {"payload": 1}, headers=said).status_code == 201
    with world.untouched():
        for other in ({"payload": NEEDLE}, {"payload": 1, "type": NEEDLE}, {"payload": 1, "max_attempts": 7}):
            world.refuses(world.api.post(JOBS, other, headers=said), 409, "idempotency_conflict", "k" * 128)
        answer = world.api.post(JOBS, {"payload": 1}, headers=said)
        assert (answer.status_code, answer.headers["idempotency-replayed"]) == (200, "true")


def test_one_idempotency_key_at_once_from_many_makes_one_job(world: World) -> None:
    before = len(world.api.get(f"{JOBS}?limit=200").json()["items"])
    count = 8
    clients, gate = [world.api.connect() for _ in range(count)], threading.Barrier(count)
    headers = {"Authorization": f"Bearer {world.api.admin}", "Idempotency-Key": "at-once"}
    answers: list[httpx2.Response] = []

    def send(client: httpx2.Client) -> None:
        gate.wait(MANY_S)
        answers.append(client.post(JOBS, json=SPEC, headers=headers))

    threads = [threading.Thread(target=send, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(MANY_S)

    assert sorted(answer.status_code for answer in answers) == [200] * (count - 1) + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(world.api.get(f"{JOBS}?limit=200").json()["items"]) == before + 1


# -- lease tokens ------------------------------------------------------------------------------------------------

VERBS: dict[str, dict[str, Any]] = {"start": {}, "complete": {"outcome": "success"}, "release": {}}
LEASE_ID = "0123456789abcdef" * 2
MALFORMED: list[Any] = [
    "",
    "1",
    f"1.5.{LEASE_ID}",
    f"1e3.{LEASE_ID}",
    f"-1.{LEASE_ID}",
    f"0.{LEASE_ID}",
    f"01.{LEASE_ID}",
    f" 1.{LEASE_ID}",
    f"1.{LEASE_ID}\n",
    f"{2**53}.{LEASE_ID}",
    f"{'9' * 16}.{LEASE_ID}",
    f"{'9' * 17}.{LEASE_ID}",
    f"1.{LEASE_ID.upper()}",
    f"1.{LEASE_ID[:-1]}",
    f"1.{LEASE_ID}0",
    f"1.{LEASE_ID[:-1]}g",
    f"\u0661.{LEASE_ID}",
    NEEDLE,
    f"nan.{LEASE_ID}",
    f"1.]]..redis.call('FLUSHALL')..[[{LEASE_ID}",
    1.5,
    -1,
    True,
    None,
    [],
]


@pytest.mark.parametrize("verb", VERBS)
def test_a_lease_token_off_its_rule_never_reaches_redis(world: World, verb: str) -> None:
    """As Redis tells what it is asked; one of the right form gets there, and would have been seen."""
    path = f"{JOBS}/default~held/{verb}"
    with world.untouched(), world.watched() as asked:
        for token in MALFORMED:
            answer = world.api.post(path, {"lease_token": token} | VERBS[verb])
            at(world.refuses(answer, 400, "invalid_argument", LEASE_ID, LEASE_ID.upper()), "/lease_token")
    assert asked == []
    with world.untouched(), world.watched() as asked:
        world.refuses(world.api.post(path, {"lease_token": f"1.{LEASE_ID}"} | VERBS[verb]), 409, "stale_lease")
    assert set(asked) == {verb}  # twice, when Redis has to be given the script first


@pytest.mark.parametrize("verb", VERBS)
def test_a_lease_token_that_proves_nothing_is_a_conflict(world: World, verb: str) -> None:
    """A guessed one, one of another fence, and one of another job."""
    assert world.api.post(JOBS, {"payload": 1, "job_id": "other", "priority": "CRITICAL"}).status_code == 201
    other = world.api.post(CLAIM, {"agent_id": "one", "start": True}).json()["job"]
    assert other["job_id"] == "other"
    fence, _, lease_id = world.job["lease_token"].partition(".")
    allowed = {"start": ["CLAIMED"], "complete": ["RUNNING"], "release": ["CLAIMED", "RUNNING"]}[verb]
    with world.untouched():
        for token in (f"{fence}.{LEASE_ID}", f"{int(fence) + 1}.{lease_id}", f"1.{lease_id}", other["lease_token"]):
            answer = world.api.post(f"{JOBS}/default~held/{verb}", {"lease_token": token} | VERBS[verb])
            body = world.refuses(answer, 409, "stale_lease", token.partition(".")[2])
            assert (body["job_status"], body["allowed"]) == ("RUNNING", allowed)


@pytest.mark.parametrize("verb", VERBS)
def test_a_lease_that_is_over_is_a_conflict_and_says_how_the_job_is(world: World, verb: str) -> None:
    token = world.job["lease_token"]
    assert world.api.post(f"{JOBS}/default~held/release", {"lease_token": token}).status_code == 200
    with world.untouched():
        answer = world.api.post(f"{JOBS}/default~held/{verb}", {"lease_token": token} | VERBS[verb])
        body = world.refuses(answer, 409, "stale_lease", token)
    assert body["job_status"] == "QUEUED" and body["allowed"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_lease_of_another_credential_is_forbidden(world: World, verb: str) -> None:
    """The right token in the wrong hands; the one it belongs to goes on with it."""
    token = world.job["lease_token"]
    stranger = world.api.key("queue:claim queue:read")
    with world.untouched():
        answer = world.api.post(f"{JOBS}/default~held/{verb}", {"lease_token": token} | VERBS[verb], token=stranger)
        world.refuses(answer, 403, "not_lease_holder", token)
    done = world.api.post(f"{JOBS}/default~held/complete", {"lease_token": token, "outcome": "success"})
    assert done.json()["job"]["status"] == "COMPLETED"


def test_a_lease_of_another_namespace_is_not_there(world: World, running: Api) -> None:
    other = shared.in_namespace(running, f"{world.api.namespace}-other")
    with world.untouched():
        for verb, more in VERBS.items():
            answer = other.post(f"{JOBS}/default~held/{verb}", {"lease_token": world.job["lease_token"]} | more)
            world.refuses(answer, 404, "job_not_found", world.job["lease_token"])
