"""What nobody should send, row by row, to a real server: status and code, no value said back, nothing written.

On the wire by hand where no client would send it; else for every operation of the OpenAPI document that it concerns.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

import httpx2
import pytest
import redis as redis_py

from api import wire
from api.http import pipeline
from tests import invariants
from tests.api import shared
from tests.api.client import Api, problem
from tests.api.promises import must_be_documented, the_document
from tests.api.stored import nothing_written

running, key = shared.running, shared.key

MARK: Final = "hunter2zebra"
"""Stands in values that are refused, and must not come back."""
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
JOBS: Final = "/api/queue/jobs"
FORM: Final = ("/auth/token",)


class Operation:
    """One call of the document, with something that it would take."""

    def __init__(self, method: str, path: str, spec: dict[str, Any]) -> None:
        self.method, self.template, self.spec = method, path, spec
        self.id: str = spec["operationId"]
        self.public = spec["x-scope"] == ["public"]
        content = spec.get("requestBody", {}).get("content", {})
        self.takes_json = "application/json" in content
        self.body_required: bool = spec.get("requestBody", {}).get("required", False)
        self.example: Any = copy.deepcopy(content.get("application/json", {}).get("example"))
        if isinstance(self.example, dict) and "wait_seconds" in self.example:
            self.example["wait_seconds"] = 0
        self.schema: dict[str, Any] = content.get("application/json", {}).get("schema", {})

    @property
    def path(self) -> str:
        """With names of what is not there."""
        parts = {
            part["name"]: "linux~absent" if "~" in part["schema"].get("pattern", "") else "absent"
            for part in self.spec.get("parameters", ())
            if part["in"] == "path"
        }
        return self.template.format(**parts)

    def has_header(self, name: str) -> bool:
        return any(one["in"] == "header" and one["name"] == name for one in self.spec.get("parameters", ()))

    def __repr__(self) -> str:
        return self.id


OPERATIONS: Final = [
    Operation(method.upper(), path, spec)
    for path, item in the_document()["paths"].items()
    for method, spec in item.items()
]
CHANGES: Final = [one for one in OPERATIONS if one.method != "GET" and one.template not in FORM]
TAKING_JSON: Final = [one for one in CHANGES if one.takes_json]


@pytest.fixture(scope="module")
def stored(running: Api) -> Iterator[redis_py.Redis]:
    with redis_py.Redis.from_url(running.redis_url) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def _every_invariant_holds(stored: redis_py.Redis) -> Iterator[None]:
    yield
    invariants.must_hold(stored)


@pytest.fixture
def api(running: Api, namespace: str, stored: redis_py.Redis) -> Iterator[Api]:
    """The server for a test that is about refusals: its end must find the records as its beginning left them."""
    found = shared.in_namespace(running, namespace)
    found.admin  # noqa: B018 - the key is there before the records are looked at
    yield found


def refused(answer: httpx2.Response, status: int, *codes: str) -> dict[str, Any]:
    """Return a problem that has one of these codes and says nothing back."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    body = problem(answer, status, answer.json()["code"])
    assert body["code"] in codes, body
    assert MARK not in answer.text.lower() and MARK not in str(answer.headers).lower()
    return body


def send(api: Api, operation: Operation, content: bytes | None, **more: Any) -> httpx2.Response:
    return api.request(operation.method, operation.path, content=content, **more)


# -- on the wire ----------------------------------------------------------------------------------------------------


def talk(port: int, *parts: bytes, end: bool = False) -> bytes:
    """Send pieces as they are and read until the server closes; `end` closes our side after the last."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
        if end:
            connection.shutdown(socket.SHUT_WR)
        found = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                found += piece
    return found


def answers_in(text: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Return status, headers and body of each answer in what was read."""
    found = []
    while text:
        head, _, text = text.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(headers["content-length"])
        found.append((int(lines[0].split(" ")[1]), headers, text[:length]))
        text = text[length:]
    return found


JOB: Final = json.dumps({"payload": MARK, "type": MARK}).encode()
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def sized(length: bytes, body: bytes = JOB) -> bytes:
    return b"Content-Length: " + length + b"\r\n\r\n" + body


JOB_SIZE: Final = str(len(JOB)).encode()
SMUGGLED: Final = b"POST /api/queue/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"
BAD_FRAMING: Final[dict[str, bytes]] = {
    "a length that is a word": sized(b"abc"),
    "a length below zero": sized(b"-1"),
    "a length with a sign": sized(b"+" + JOB_SIZE),
    "a length in hex": sized(b"0x10"),
    "a length that is a list": sized(JOB_SIZE + b", " + JOB_SIZE),
    "a length with a blank within": sized(b"1 0"),
    "a length that is empty": sized(b""),
    "a length of twenty digits": sized(b"9" * 20),
    "two lengths": b"Content-Length: 3\r\n" + sized(JOB_SIZE),
    "the same length twice": b"Content-Length: " + JOB_SIZE + b"\r\n" + sized(JOB_SIZE),
    "length and chunks": CHUNKED + sized(JOB_SIZE, chunk(JOB) + b"0\r\n\r\n"),
    "chunks and length, another request behind": b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + SMUGGLED,
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n" + sized(JOB_SIZE),
    "chunks that are not the last coding": b"Transfer-Encoding: chunked, gzip\r\n\r\n" + chunk(JOB) + b"0\r\n\r\n",
    "a coding with a control character": b"Transfer-Encoding: \x0bchunked\r\n\r\n" + chunk(JOB) + b"0\r\n\r\n",
    "a folded header": b"X-A: " + MARK.encode() + b"\r\n folded\r\n" + sized(JOB_SIZE),
    "a folded coding": b"Transfer-Encoding:\r\n chunked\r\n\r\n" + chunk(JOB) + b"0\r\n\r\n",
    "a blank before the colon": b"Content-Length : " + JOB_SIZE + b"\r\n\r\n" + JOB,
    "a blank before the name": b" Content-Length: " + JOB_SIZE + b"\r\n\r\n" + JOB,
    "a header without a name": b": " + MARK.encode() + b"\r\n" + sized(JOB_SIZE),
    "a header without a colon": MARK.encode() + b"\r\n" + sized(JOB_SIZE),
    "a name with NUL": b"X-\x00: a\r\n" + sized(JOB_SIZE),
    "a value with NUL": b"X-A: a\x00" + MARK.encode() + b"\r\n" + sized(JOB_SIZE),
    "a value with a lone CR": b"X-A: a\rX-B: b\r\n" + sized(JOB_SIZE),
    "a name that is not ASCII": "X-Ä: a\r\n".encode() + sized(JOB_SIZE),
    "bare LF after a header": b"X-A: a\n" + sized(JOB_SIZE),
    "bare LF after the head": b"Content-Length: " + JOB_SIZE + b"\r\n\n" + JOB,
    "a chunk size that is none": CHUNKED + b"\r\nzz\r\n" + JOB + b"\r\n0\r\n\r\n",
    "a chunk size below zero": CHUNKED + b"\r\n-1\r\n" + JOB + b"\r\n0\r\n\r\n",
    "a chunk size with 0x": CHUNKED + b"\r\n0x5\r\nabcde\r\n0\r\n\r\n",
    "a chunk size of seventeen digits": CHUNKED + b"\r\n" + b"f" * 17 + b"\r\n" + JOB,
    "an empty chunk size": CHUNKED + b"\r\n\r\n" + JOB,
    "a chunk that ends in other bytes": CHUNKED + b"\r\n5\r\nabcdeXY0\r\n\r\n",
    "a chunk that ends in LF": CHUNKED + b"\r\n" + b"%x\r\n%b\n" % (len(JOB), JOB) + b"0\r\n\r\n",
    "a chunk size that ends in LF": CHUNKED + b"\r\n" + b"%x\n%b\r\n" % (len(JOB), JOB) + b"0\r\n\r\n",
    "a last chunk that ends in LF": CHUNKED + b"\r\n" + chunk(JOB) + b"0\n\n",
}


def post_head(api: Api) -> bytes:
    return (
        b"POST /api/queue/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer " + api.admin.encode() + b"\r\n"
    )


@pytest.mark.parametrize("sent", BAD_FRAMING.values(), ids=BAD_FRAMING)
def test_a_request_whose_end_is_in_doubt_is_refused(api: Api, stored: redis_py.Redis, sent: bytes) -> None:
    """And what stands behind it is not taken for another: nobody may hide a request in the body of one."""
    with nothing_written(stored, api.namespace):
        found = answers_in(talk(api.port, post_head(api) + sent, end=True))
    assert len(found) == 1, found
    must_be_problem(found[0], 400, "bad_request")


def must_be_problem(found: tuple[int, dict[str, str], bytes], status: int, code: str) -> None:
    answered, headers, body = found
    assert (answered, headers["content-type"]) == (status, "application/problem+json"), found
    assert json.loads(body)["code"] == code
    assert MARK.encode() not in body.lower()


BAD_LINES: Final[dict[str, bytes]] = {
    "no method": b"/api/queue/jobs HTTP/1.1\r\n",
    "a method in small letters": b"get /health HTTP/1.1\r\n",
    "a method of nobody": b"HUNTER2ZEBRA /health HTTP/1.1\r\n",
    "no version": b"GET /health\r\n",
    "a version of its own": b"GET /health HTTP/9.9\r\n",
    "a version of the future": b"GET /health HTTP/3.0\r\n",
    "a blank in the path": b"GET /hea lth HTTP/1.1\r\n",
    "a tab": b"GET\t/health\tHTTP/1.1\r\n",
    "a NUL in the path": b"GET /hea\x00lth HTTP/1.1\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_what_is_no_request_line_is_refused(api: Api, line: bytes) -> None:
    found = answers_in(talk(api.port, line + b"Host: 127.0.0.1\r\nConnection: close\r\n\r\n", end=True))
    assert len(found) == 1
    must_be_problem(found[0], 400, "bad_request")


@pytest.mark.parametrize(
    "headers",
    [
        b"X-A: b\r\n" * 10_000,
        b"X-A: b\r\n" * 100,
        b"X-A: " + b"b" * 65_536 + b"\r\n",
        b"X-" + b"a" * 20_000 + b": b\r\n",
    ],
    ids=["10,000 headers", "one more than 100", "64 KiB in one", "a long name"],
)
def test_heads_are_bounded(api: Api, headers: bytes) -> None:
    found = answers_in(talk(api.port, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n" + headers + b"\r\n", end=True))
    must_be_problem(found[0], 431, "headers_too_large")


def test_the_largest_head_is_taken(api: Api) -> None:
    head = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    for more in (b"X-A: b\r\n" * 98, b"X-A: " + b"b" * 16_000 + b"\r\n"):
        ((status, _, _),) = answers_in(talk(api.port, head + more + b"\r\n"))
        assert status == 200


def test_a_path_is_bounded(api: Api) -> None:
    found = answers_in(talk(api.port, b"GET /" + b"a" * 65_536 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", end=True))
    must_be_problem(found[0], 431, "headers_too_large")


def test_a_head_that_does_not_come_is_408(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_WITHIN_S", 0.2)
    for part in (b"P", b"POST /api/queue/jobs HTTP/1.1\r\n", post_head(api)[:-2], post_head(api)):
        found = answers_in(talk(api.port, part))
        must_be_problem(found[0], 408, "request_timeout")


def test_a_body_that_does_not_come_is_408_and_makes_nothing(
    api: Api, stored: redis_py.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "BODY_TIMEOUT_S", 0.2)
    with nothing_written(stored, api.namespace):
        for sent in (sized(JOB_SIZE, JOB[:-1]), sized(JOB_SIZE, b""), CHUNKED + b"\r\n" + chunk(JOB)):
            found = answers_in(talk(api.port, post_head(api) + sent))
            must_be_problem(found[0], 408, "request_timeout")


def test_a_body_that_comes_in_drops_has_an_end(
    api: Api, stored: redis_py.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each piece is in time, and all of it is not."""
    monkeypatch.setattr(pipeline, "BODY_TOTAL_S", 0.5)
    with (
        nothing_written(stored, api.namespace),
        socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection,
    ):
        connection.sendall(post_head(api) + sized(b"100000", b""))
        connection.settimeout(0.05)
        found = b""
        for _ in range(200):
            with contextlib.suppress(TimeoutError):
                found += connection.recv(65536)
            if found:
                break
            connection.sendall(b" ")
        connection.settimeout(20)
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                found += piece
    must_be_problem(answers_in(found)[0], 408, "request_timeout")


def test_a_client_that_leaves_within_its_body_makes_nothing(api: Api, stored: redis_py.Redis) -> None:
    with nothing_written(stored, api.namespace):
        for sent in (sized(JOB_SIZE, JOB[:-1]), CHUNKED + b"\r\n" + chunk(JOB)):
            assert b"HTTP/1.1 2" not in talk(api.port, post_head(api) + sent, end=True)
        assert api.get("/health").status_code == 200


def test_requests_in_a_row_are_each_their_own(api: Api) -> None:
    """The second, sent before the first was answered, has its own credential, body and answer."""
    one = post_head(api).replace(b"Connection: close\r\n", b"") + sized(JOB_SIZE)
    two = b"POST /api/queue/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"
    found = answers_in(talk(api.port, one + two + sized(JOB_SIZE)))
    assert [status for status, _, _ in found] == [201, 401]


# -- paths and methods --------------------------------------------------------------------------------------------

SPELLINGS: Final = [
    "/api/queue/jobs/linux~a%2f..", "/api/queue/jobs/..%2fpools", "/api/queue%2fjobs",
    "/api/queue/jobs/%2e%2e%2fpools",
    "/api/queue/jobs/%252e%252e%252fpools", "/api/queue/jobs/", "/api/queue//jobs", "//api/queue/jobs",
    "/API/queue/jobs", "/api/Queue/Jobs", "/api/queue/jobs;a=b", "/api/queue/jobs;/../pools",
    "/api/queue/jobs%00", "/api/queue/jobs%0a",
    "/api/queue/jobs%20", "/api/queue/jobs.json", "/api/queue/jobs%3fpool=a", "/api\\queue\\jobs", "/api/queue/%c0%ae",
    "/api/queue/jobs/../pools", "/api/./queue/jobs", "/api/queue/pools/..", "/api/queue/%6aobs/..", "/api/queue/%ff",
    "/api/queue/jobs%ef%bc%8f", "/health/", "/health/ready/", "/../api/queue/jobs", "/api/queue/jobs/%2e",
]  # fmt: skip


@pytest.mark.parametrize("path", SPELLINGS)
def test_other_spellings_of_a_path_lead_nowhere(api: Api, path: str) -> None:
    """Not to the same place, and with no credential to no more than with one."""
    for credential in (b"Authorization: Bearer " + api.admin.encode() + b"\r\n", b""):
        head = b"GET " + path.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n" + credential + b"\r\n"
        ((status, headers, body),) = answers_in(talk(api.port, head))
        assert headers["content-type"] == "application/problem+json"
        assert status in ((404, 400) if credential else (404, 400, 401)), (status, body)


def test_a_path_with_escapes_is_the_same_path(api: Api) -> None:
    """Unreserved characters may be escaped (RFC 3986 §6.2.2.2): who may call is decided on what is routed."""
    assert api.get("/api/queue/%6aobs").status_code == 200
    problem(api.get("/api/queue/%6aobs", token=None), 401, "unauthenticated")


PATHS: Final = list(the_document()["paths"].items())


@pytest.mark.parametrize(("template", "item"), PATHS, ids=[path for path, _ in PATHS])
def test_methods_that_are_not_offered_are_405(api: Api, stored: redis_py.Redis, template: str, item: Any) -> None:
    """With those that are in Allow; whoever asks."""
    path = re.sub(r"\{[a-z_]+\}", "linux~absent" if "/jobs/" in template else "absent", template)
    offered = {method.upper() for method in item}
    others = sorted({*METHODS, "HEAD", "OPTIONS", "TRACE"} - offered)
    with nothing_written(stored, api.namespace):
        for method in others:
            for token in ("admin", None):
                answer = api.request(method, path, token=token, content=None)
                assert answer.status_code == 405, (method, answer.status_code, answer.text)
                assert {each.strip() for each in answer.headers["allow"].split(",")} == offered, method
                assert answer.headers["content-type"] == "application/problem+json"


# -- JSON -----------------------------------------------------------------------------------------------------------

DEEP: Final = 5_000
WHOLE_BODIES: Final[dict[str, tuple[bytes, str]]] = {
    "5,000 lists": (b"[" * DEEP, "too_deep"),
    "5,000 lists, closed": (b"[" * DEEP + b"]" * DEEP, "too_deep"),
    "5,000 objects": (b'{"hunter2zebra":' * DEEP, "too_deep"),
    "65 levels": (b"[" * 65 + b"]" * 65, "too_deep"),
    "bytes that are no UTF-8": (b'{"hunter2zebra\xff":1}', "bad_encoding"),
    "UTF-16": ('{"payload":"hunter2zebra"}'.encode("utf-16"), "bad_encoding"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "bad_encoding"),
    "overlong UTF-8": (b'{"hunter2zebra\xc0\xaf":1}', "bad_encoding"),
    "a surrogate in UTF-8": (b'{"hunter2zebra\xed\xa0\x80":1}', "bad_encoding"),
    "half a pair": (rb'{"hunter2zebra\ud800":1}', "bad_encoding"),
    "NaN": (b'{"hunter2zebra":NaN}', "malformed_json"),
    "Infinity": (b'{"hunter2zebra":-Infinity}', "malformed_json"),
    "a number without end": (b'{"hunter2zebra":1e400}', "invalid_argument"),
    "5,000 digits": (b'{"hunter2zebra":' + b"9" * 5_000 + b"}", "invalid_argument"),
    "single quotes": (b"{'hunter2zebra':1}", "malformed_json"),
    "a comment": (b'{"hunter2zebra":1}//', "malformed_json"),
    "a comma too many": (b'{"hunter2zebra":1,}', "malformed_json"),
    "a leading zero": (b'{"hunter2zebra":01}', "malformed_json"),
    "a tab in a string": (b'{"hunter2zebra\t":1}', "malformed_json"),
    "NUL in a string": (b'{"hunter2zebra\x00":1}', "malformed_json"),
    "two documents": (b"{}{}", "malformed_json"),
    "cut off": (b'{"hunter2zebra":', "malformed_json"),
    "a form": (b"hunter2zebra=1", "malformed_json"),
    "a key twice": (b'{"hunter2zebra":1,"hunter2zebra":2}', "duplicate_key"),
    "a key twice, once escaped": (rb'{"hunter2zebra":1,"hunter2zebr\u0061":2}', "duplicate_key"),
    "a list": (b'["hunter2zebra"]', "invalid_argument"),
    "a text": (b'"hunter2zebra"', "invalid_argument"),
    "a number": (b"7", "invalid_argument"),
    "null": (b"null", "invalid_argument"),
    "true": (b"true", "invalid_argument"),
}


@pytest.mark.parametrize(("body", "code"), WHOLE_BODIES.values(), ids=WHOLE_BODIES)
def test_a_body_that_is_no_strict_json_is_refused_everywhere(
    api: Api, stored: redis_py.Redis, body: bytes, code: str
) -> None:
    with nothing_written(stored, api.namespace):
        for operation in CHANGES:
            refused(send(api, operation, body), 400, code)


def test_fields_nobody_asked_for_are_refused_everywhere(api: Api, stored: redis_py.Redis) -> None:
    """What an answer shows is not what a caller sets: status, attempts, namespace, holder."""
    names = ("status", "state", "attempt", "attempts", "namespace", "tenant", "token", "created_by", "__proto__", MARK)
    with nothing_written(stored, api.namespace):
        for operation in CHANGES:
            known = _properties(operation.schema)
            for name in names:
                if name not in known:
                    sent = json.dumps({**(operation.example or {}), name: MARK}).encode()
                    refused(send(api, operation, sent), 400, "invalid_argument")


def test_a_known_key_may_not_come_twice(api: Api, stored: redis_py.Redis) -> None:
    """Not even with the same value: two parsers would read two bodies."""
    with nothing_written(stored, api.namespace):
        for operation in TAKING_JSON:
            for name, value in (operation.example or {}).items():
                sent = json.dumps(operation.example)[:-1] + f", {json.dumps(name)}: {json.dumps(value)}}}"
                refused(send(api, operation, sent.encode()), 400, "duplicate_key")


@pytest.mark.parametrize("place", ["payload", "result", "error"])
def test_depth_counts_inside_payload_too(api: Api, place: str) -> None:
    body: dict[str, Any] = {place: MARK}
    path = JOBS
    if place != "payload":
        path, body = f"{JOBS}/a~b/complete", {"lease_token": "1." + "0" * 32, "outcome": "failed", place: MARK}
    for inner, status in (
        (62, 201 if place == "payload" else 404),
        (63, 201 if place == "payload" else 404),
        (64, 400),
    ):
        sent = json.dumps(body).replace(f'"{MARK}"', "[" * inner + "]" * inner)
        answer = api.post(path, content=sent)
        assert answer.status_code == status, (inner, answer.text)
    problem(answer, 400, "too_deep")


# -- content types ------------------------------------------------------------------------------------------------

NOT_JSON: Final = [
    [("Content-Type", "text/plain")],
    [("Content-Type", "text/json")],
    [("Content-Type", "application/x-www-form-urlencoded")],
    [("Content-Type", "multipart/form-data; boundary=hunter2zebra")],
    [("Content-Type", "application/json; charset=latin-1")],
    [("Content-Type", "application/json; charset=utf-16")],
    [("Content-Type", "application/jsonhunter2zebra")],
    [("Content-Type", "application/json, text/plain")],
    [("Content-Type", "application/json"), ("Content-Type", "application/json")],
    [("Content-Type", "")],
    [],
    [("Content-Type", "application/json"), ("Content-Encoding", "gzip")],
    [("Content-Type", "application/json"), ("Content-Encoding", "deflate")],
    [("Content-Type", "application/json"), ("Content-Encoding", "br")],
    [("Content-Type", "application/json"), ("Content-Encoding", "zstd")],
    [("Content-Type", "application/json"), ("Content-Encoding", "identity, gzip")],
    [("Content-Type", "application/json"), ("Content-Encoding", "identity"), ("Content-Encoding", "gzip")],
]


@pytest.mark.parametrize("headers", NOT_JSON, ids=str)
def test_what_is_not_plain_json_is_415_everywhere(
    api: Api, stored: redis_py.Redis, headers: list[tuple[str, str]]
) -> None:
    sent = [("Authorization", f"Bearer {api.admin}"), *headers]
    assert api._client is not None
    with nothing_written(stored, api.namespace):
        for operation in CHANGES:
            body = json.dumps(operation.example or {}).encode()
            answer = api._client.request(operation.method, operation.path, headers=sent, content=body)
            refused(answer, 415, "unsupported_media_type")


def test_the_form_route_takes_forms_alone(api: Api) -> None:
    for kind in ("application/json", "text/plain", "multipart/form-data; boundary=a"):
        answer = api.post("/auth/token", content=b"grant_type=a", headers={"Content-Type": kind}, token=None)
        assert (answer.status_code, answer.json()["error"]) == (415, "invalid_request")


# -- sizes --------------------------------------------------------------------------------------------------------


def test_bodies_are_bounded_everywhere(api: Api, stored: redis_py.Redis) -> None:
    """By the size that is announced, before a byte comes; and when none is, by what comes. The bound is documented."""
    with nothing_written(stored, api.namespace):
        for operation in TAKING_JSON:
            limit = int(operation.spec["requestBody"]["description"].split(" bytes")[0].rsplit(" ", 1)[1])
            assert limit in (256 * 1024, 384 * 1024, 512 * 1024, 2 * 1024**2, 8 * 1024**2)
            head = f"{operation.method} {operation.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            head += f"Content-Type: application/json\r\nAuthorization: Bearer {api.admin}\r\n"
            sent = head.encode() + b"Content-Length: " + str(limit + 1).encode() + b"\r\n\r\n"
            must_be_problem(answers_in(talk(api.port, sent))[0], 413, "payload_too_large")
            if limit <= 512 * 1024:
                answer = send(api, operation, b" " * limit)
                assert answer.status_code == 400, answer.text
                pieces = head.encode() + CHUNKED + b"\r\n" + chunk(b" " * limit) + chunk(b" ") + b"0\r\n\r\n"
                must_be_problem(answers_in(talk(api.port, pieces))[0], 413, "payload_too_large")


def text(size: int) -> str:
    return "a" * size


ENQUEUE_BOUNDS: Final[dict[str, tuple[list[Any], list[Any]]]] = {
    "job_id": ([text(1), text(64)], ["", text(65), "-a", "a b", "ä", "a~b", "healthy", 1]),
    "pool": ([text(64)], ["", text(65), ".a", "a/b", "pools", "running", "register", "keys", "healthy"]),
    "type": ([text(1), text(64)], ["", text(65), "a\n", 1]),
    "priority": (["LOW", "critical", "High"], ["", "9", 9, "URGENT"]),
    "tags": ([{}, {str(n): "" for n in range(64)}, {text(64): text(256)}],
             [{str(n): "" for n in range(65)}, {text(65): ""}, {"": ""}, {"a": text(257)}, {"a": 1}, ["a"],
              {"a\0": ""}]),
    "run_at": (["2020-01-01T00:00:00Z", "2020-01-01T00:00:00+14:00"],
               ["2020-01-01T00:00:00", "2020-01-01", "now", 0, "2090-01-01T00:00:00Z", "1969-12-31T23:59:59Z"]),
    "delay_seconds": ([0, 0.001, 366 * 86_400], [-1, -0.001, 366 * 86_400 + 1, "1", True, 315_360_000]),
    "max_attempts": ([1, 100, 2.0], [0, 101, -1, 1.5, "3", True]),
    "timeout_seconds": ([0.001, 366 * 86_400], [0, -1, 366 * 86_400 + 1, "1"]),
    "retry": ([{}, {"base_seconds": 0, "max_seconds": 0}, {"base_seconds": 3600, "max_seconds": 3600},
               {"max_seconds": 86_400}],
              [{"base_seconds": -1}, {"base_seconds": 3601}, {"max_seconds": 86_401}, {"base_seconds": 301},
               {"base_seconds": 10, "max_seconds": 9}, {"factor": 2}, []]),
    "unique": ([{"key": text(1)}, {"key": text(256)}],
               [{}, {"key": ""}, {"key": text(257)}, {"key": "a", "until": "never"}, {"key": "a", "on_conflict": "x"}]),
}  # fmt: skip


@pytest.mark.parametrize("field", ENQUEUE_BOUNDS)
def test_every_bound_of_a_job_holds_on_both_sides(api: Api, stored: redis_py.Redis, field: str) -> None:
    """The last value that passes does; the first that does not is pointed at by its place and its rule."""
    within, beyond = ENQUEUE_BOUNDS[field]
    for number, value in enumerate(within):
        answer = api.post(JOBS, {"payload": 1, "tags": {"n": str(number)}, field: value})
        assert answer.status_code in (200, 201), (value, answer.text)
    with nothing_written(stored, api.namespace):
        for value in beyond:
            body = refused(api.post(JOBS, {"payload": 1, field: value}), 400, "invalid_argument", "reserved_name")
            assert body["errors"][0]["pointer"].startswith(f"/{field}"), (value, body)
            batch = api.post(f"{JOBS}:batch", {"jobs": [{"payload": 1, field: value}], "atomic": True})
            pointer = refused(batch, 400, "invalid_argument", "reserved_name")["errors"][0]["pointer"]
            assert pointer.startswith(f"/jobs/0/{field}"), (value, pointer)


def test_a_payload_of_256_kib_passes_and_a_byte_more_is_413(api: Api, stored: redis_py.Redis) -> None:
    fits = '"' + "a" * (262_144 - 2) + '"'
    assert api.post(JOBS, content=f'{{"payload":{fits}}}').status_code == 201
    with nothing_written(stored, api.namespace):
        for path, sent in ((JOBS, f'{{"payload":"a{fits[1:]}}}'), (f"{JOBS}:batch", f'{{"jobs":[{{"payload":"a{fits[1:]}}}],"atomic":true}}')):  # fmt: skip  # noqa: E501
            body = problem(api.post(path, content=sent), 413, "payload_too_large")
            assert body["limit_bytes"] == 262_144
            assert body["errors"][0]["pointer"].endswith("/payload")


def test_a_batch_holds_1_to_1000_jobs(api: Api, stored: redis_py.Redis) -> None:
    for count in (1, 1000):
        answer = api.post(f"{JOBS}:batch", {"jobs": [{"payload": 1}] * count})
        assert len(answer.json()["results"]) == count
    with nothing_written(stored, api.namespace):
        for count in (0, 1001):
            body = refused(api.post(f"{JOBS}:batch", {"jobs": [{"payload": 1}] * count}), 400, "invalid_argument")
            assert body["errors"][0]["pointer"] == "/jobs"


OTHER_BOUNDS: Final[list[tuple[str, str, dict[str, Any], str, list[Any], list[Any]]]] = [
    ("POST", "/api/queue/claim", {"agent_id": "a"}, "agent_id", [text(64)], ["", text(65), "a@b", "a~b", None]),
    ("POST", "/api/queue/claim", {"agent_id": "a"}, "max", [1, 100], [0, 101, -1, 10**6, 1.5, True]),
    ("POST", "/api/queue/claim", {"agent_id": "a"}, "wait_seconds", [0, 0.01], [-1, 50.1, 51, "1", True]),
    ("POST", "/api/queue/claim", {"agent_id": "a"}, "lease_seconds", [1, 3600], [0, 0.9, -1, 3601, 10**9]),
    ("POST", "/api/queue/claim", {"agent_id": "a"}, "request_id", [text(64)], ["", text(65), "a b"]),
    ("POST", "/api/queue/claim", {"agent_id": "a"}, "holding", [[], ["1." + "0" * 32] * 200],
     [["1." + "0" * 32] * 201, ["1"], "1." + "0" * 32]),
    ("POST", "/api/queue/heartbeat", {}, "leases", [[], [{"id": "a~b", "lease_token": "1." + "0" * 32}] * 200],
     [[{"id": "a~b", "lease_token": "1." + "0" * 32}] * 201, [{"id": "a"}], [{}], {}]),
    ("POST", "/api/queue/dead:purge", {"dry_run": True, "all": True}, "limit", [1, 1000], [0, 1001, -1]),
    ("POST", "/api/queue/dead:purge", {"dry_run": True, "all": True}, "reason", [text(64)], ["", text(65)]),
    ("POST", "/api/queue/dead:purge", {"dry_run": True}, "job_ids", [["a~b"], ["a~b"] * 1000],
     [[], ["a~b"] * 1001, ["a"], ["a~b~c"]]),
    ("PATCH", "/api/queue/pools/bounds", {}, "max_queued", [0, 100_000_000], [-1, 100_000_001, 1.5]),
    ("PATCH", "/api/queue/pools/bounds", {}, "max_dead", [1, 10_000_000], [0, 10_000_001]),
    ("PATCH", "/api/queue/pools/bounds", {}, "lease_seconds", [1, 3600], [0, 3601]),
    ("PATCH", "/api/queue/pools/bounds", {}, "retention_seconds", [0, 366 * 86_400], [-1, 366 * 86_400 + 1]),
    ("PATCH", "/api/queue/pools/bounds", {}, "retention_count", [0, 10_000_000], [-1, 10_000_001]),
    ("POST", "/api/queue/pools/bounds/pause", {}, "reason", ["", text(500)], [text(501), "a\0"]),
    ("POST", "/api/agents/register", {}, "agent_id", [text(1), text(64)], ["", text(65), "a b", "healthy"]),
    ("POST", "/api/agents/register", {}, "capacity", [1], [0, -1, 1.5, 2**53]),
    ("POST", "/api/agents/register", {}, "labels", [{}], [{"": "a"}, {"a": 1}, ["a"], {"a": None}, {"a\0": ""}]),
    ("POST", "/api/agents/register", {}, "features", [[]], [[""], [1], "a", ["a\0"]]),
    ("POST", "/api/agents/pools/bounds/scale", {}, "max", [0, 5], [-1, 1.5, "5", 2**53]),
    ("POST", "/api/keys", {"name": "a", "scopes": ["queue:read"]}, "name", [text(1)], ["", "a\0", 1]),
    ("POST", "/api/keys", {"name": "a"}, "scopes", [["queue:read"]], [[], ["root"], "queue:read", [1], None]),
    ("POST", "/api/keys", {"name": "a", "scopes": ["queue:read"]}, "pools", [["a"]], [["a b"], "a", [text(65)]]),
    ("POST", "/api/keys", {"name": "a", "scopes": ["queue:read"]}, "expires_at", ["2027-06-01T00:00:00Z"],
     ["2020-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", "soon", 1, "2027-06-01T00:00:00"]),
    ("POST", "/api/agents/keys", {"pool": "a"}, "uses", [1, 1000], [0, 1001, -1, 1.5]),
    ("PUT", "/api/trust-rules/bounds", {"issuer": "https://a.test", "audience": "a", "claims": {"sub": "a"}},
     "max_ttl_seconds", [60, 3600], [59, 3601]),
    ("PUT", "/api/trust-rules/bounds", {"issuer": "https://a.test", "audience": "a"}, "claims", [{"sub": "a"}],
     [{}, {"": "a"}, {"sub": ""}, {"sub": 1}, []]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body", "field", "within", "beyond"),
    OTHER_BOUNDS,
    ids=[f"{path}#{field}" for _, path, _, field, _, _ in OTHER_BOUNDS],
)
def test_every_bound_of_the_other_calls_holds_on_both_sides(
    api: Api, stored: redis_py.Redis, method: str, path: str, body: dict[str, Any], field: str,
    within: list[Any], beyond: list[Any],
) -> None:  # fmt: skip
    if path.startswith("/api/queue/pools/"):
        api.patch("/api/queue/pools/bounds", {"max_queued": 10})
    if path.startswith("/api/agents/pools/"):
        api.post("/api/agents/register", {"pool": "bounds"})
    for value in within:
        answer = api.request(method, path, {**body, field: value})
        assert answer.status_code in (200, 201) or answer.json()["code"] == "no_jobs_available", (value, answer.text)
    with nothing_written(stored, api.namespace):
        for value in beyond:
            sent = {**body, field: value}
            if value is None:
                del sent[field]
            found = refused(api.request(method, path, sent), 400, "invalid_argument", "reserved_name")
            assert found["errors"][0]["pointer"].startswith(f"/{field}"), (value, found)


def test_every_field_of_every_body_points_at_itself(api: Api, stored: redis_py.Redis) -> None:
    """A value of a type that the document does not name is refused at its own place, whichever field it is."""
    with nothing_written(stored, api.namespace):
        for operation in TAKING_JSON:
            for name, schema in _properties(operation.schema).items():
                for wrong, kind in (
                    (1.5, "number"),
                    ({MARK: MARK}, "object"),
                    ([MARK], "array"),
                    (MARK * 9_000, "string"),
                ):
                    if kind in _types(schema) or (kind == "number" and "integer" in _types(schema)):
                        continue
                    answer = send(api, operation, json.dumps({**(operation.example or {}), name: wrong}).encode())
                    found = refused(answer, 400, "invalid_argument")
                    assert found["errors"][0]["pointer"].startswith(f"/{name}"), (operation, name, wrong, found)


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = the_document()["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _resolved(schema).get("properties", {})
    return found


def _types(schema: dict[str, Any]) -> set[str]:
    """Return the JSON types that a schema lets pass: all of them when it says nothing."""
    schema = _resolved(schema)
    if "anyOf" in schema:
        return set().union(*(_types(option) for option in schema["anyOf"]))
    if "enum" in schema:
        return {"string"}
    return {schema["type"]} if "type" in schema else {"number", "object", "array", "string"}


# -- queries ------------------------------------------------------------------------------------------------------

QUERYING: Final = [one for one in OPERATIONS if one.method == "GET" and not one.public]
BAD_QUERIES: Final = {
    "an unknown name": ("hunter2zebra=1", "invalid_argument"),
    "no UTF-8": ("pool=%ffhunter2zebra", "bad_encoding"),
    "half an escape": ("pool=hunter2zebra%2", "bad_encoding"),
    "no hex digits": ("pool=hunter2zebra%zz", "bad_encoding"),
    "a NUL": ("pool=hunter2zebra%00", "invalid_argument"),
    "a line break": ("pool=hunter2zebra%0a", "invalid_argument"),
    "101 parameters": ("&".join(["a=hunter2zebra"] * 101), "invalid_argument"),
    "a nested name": ("pool[hunter2zebra]=1", "invalid_argument"),
}


@pytest.mark.parametrize(("query", "code"), BAD_QUERIES.values(), ids=BAD_QUERIES)
def test_a_query_off_the_rule_is_refused_everywhere(api: Api, query: str, code: str) -> None:
    for operation in QUERYING:
        refused(api.get(f"{operation.path}?{query}"), 400, code)


def test_every_parameter_is_pointed_at(api: Api) -> None:
    for operation in QUERYING:
        for part in operation.spec.get("parameters", ()):
            if part["in"] != "query":
                continue
            for value in ("", "a%20hunter2zebra=%01", "hunter2zebra%20" * 300):
                answer = api.get(f"{operation.path}?{part['name']}={value}")
                if answer.status_code != 200 or value:
                    found = refused(answer, 400, "invalid_argument", "invalid_cursor")
                    assert found["errors"][0]["pointer"].startswith("/query"), (operation, part["name"], found)
            if part["schema"].get("type") != "array":
                twice = api.get(f"{operation.path}?{part['name']}=1&{part['name']}=1")
                refused(twice, 400, "invalid_argument")


@pytest.mark.parametrize("limit", ["0", "201", "-1", "1.5", "1e2", "0x10", " 5", "+5", "\u0665", "", "9" * 30, "true"])
def test_a_page_has_1_to_200_entries(api: Api, limit: str) -> None:
    for operation in QUERYING:
        if any(part["name"] == "limit" and part["in"] == "query" for part in operation.spec.get("parameters", ())):
            if operation.id == "read_log":
                continue
            found = refused(api.get(operation.path, params={"limit": limit}), 400, "invalid_argument")
            assert found["errors"][0]["pointer"] == "/query/limit"


# -- cursors ------------------------------------------------------------------------------------------------------


def _two_of_everything(api: Api) -> None:
    for number in ("1", "2", "3"):
        assert api.post(JOBS, {"payload": 1, "type": "t", "job_id": f"waits{number}"}).status_code == 201
        made = api.post(JOBS, {"payload": 1, "pool": "dying", "max_attempts": 1}).json()
        job = api.post("/api/queue/claim", {"agent_id": "a", "pool": "dying", "start": True}).json()["job"]
        assert job["id"] == made["id"]
        end = {"lease_token": job["lease_token"], "outcome": "failed"}
        assert api.post(f"{JOBS}/{job['id']}/complete", end).status_code == 200
        made = api.post(JOBS, {"payload": 1, "pool": "running-still"}).json()
        assert (
            api.post("/api/queue/claim", {"agent_id": "b", "pool": "running-still", "start": True}).status_code == 200
        )
        assert api.post("/api/agents/register", {"agent_id": f"agent{number}"}).status_code == 201
        assert api.post("/api/keys", {"name": number, "scopes": ["queue:read"]}).status_code == 201
        assert api.post("/api/agents/keys", {"pool": "default"}).status_code == 201
        rule = {"issuer": "https://a.test", "audience": "a", "claims": {"sub": number}}
        assert api.put(f"/api/trust-rules/rule{number}", rule).status_code == 201


def test_a_cursor_is_good_for_its_own_list_alone(running: Api, api: Api) -> None:
    """Not cut, not bent, not of another list, other filters, another namespace."""
    _two_of_everything(api)
    stranger = running.key("*", namespace="elsewhere")
    lists = [
        one
        for one in QUERYING
        if any(part["name"] == "cursor" for part in one.spec.get("parameters", ())) and one.id != "list_schedules"
    ]
    cursors: dict[str, str] = {}
    for operation in lists:
        page = api.get(operation.path, params={"limit": 1}).json()
        assert page["next_cursor"], operation
        cursors[operation.path] = page["next_cursor"]
        assert api.get(operation.path, params={"limit": 1, "cursor": page["next_cursor"]}).status_code == 200
    assert len(cursors) == len(lists) >= 8
    for path, cursor in cursors.items():
        middle = len(cursor) // 2
        flipped = [cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :] for at in (0, middle, -2)]
        bent = [
            *flipped, cursor[:-1], cursor[1:], cursor + "A", cursor + "=", cursor[::-1], "", "A", "AAAA", "null", "0",
            "A" * 2048, "A" * 2049, "ä", "../..", "%00", " ", cursor + " ", "\n",
        ]  # fmt: skip
        for wrong in bent:
            refused(api.get(path, params={"cursor": wrong}), 400, "invalid_cursor", "invalid_argument")
        for other, foreign in cursors.items():
            if other != path:
                refused(api.get(path, params={"cursor": foreign}), 400, "invalid_cursor")
        refused(api.get(path, params={"cursor": cursor}, token=stranger), 400, "invalid_cursor")
    for path, filters in (
        (JOBS, {"type": "t"}),
        (JOBS, {"status": "QUEUED"}),
        (JOBS, {"tag": "a=b"}),
        (JOBS, {"pool": "default"}),
        ("/api/queue/dead", {"type": "t"}),
        ("/api/agents", {"pool": "default"}),
        ("/api/agents", {"status": "HEALTHY"}),
    ):
        refused(api.get(path, params={"cursor": cursors[path], **filters}), 400, "invalid_cursor")


# -- Idempotency-Key ------------------------------------------------------------------------------------------------

KEYED: Final = [one for one in OPERATIONS if one.has_header("Idempotency-Key")]
BAD_KEYS: Final = [[b""], [b"a" * 129], [b"hunter2zebra\xff"], [b"hunter2\tzebra"], ["ä".encode()], [b"a", b"b"],
                   [b"a", b"a"]]  # fmt: skip


@pytest.mark.parametrize("values", BAD_KEYS, ids=str)
def test_an_idempotency_key_off_its_rule_is_400_everywhere(
    api: Api, stored: redis_py.Redis, values: list[bytes]
) -> None:
    assert api._client is not None and len(KEYED) > 10
    headers = [(b"Authorization", b"Bearer " + api.admin.encode()), (b"Content-Type", b"application/json")]
    with nothing_written(stored, api.namespace):
        for operation in KEYED:
            body = json.dumps(_sendable(operation)).encode()
            sent = [*headers, *((b"Idempotency-Key", value) for value in values)]
            answer = api._client.request(operation.method, operation.path, headers=sent, content=body)
            found = refused(answer, 400, "invalid_argument")
            assert found["errors"][0]["pointer"] == "/header/idempotency-key"


def _sendable(operation: Operation) -> Any:
    """A body that obeys the schema, also where the document shows none."""
    if operation.example is not None:
        return operation.example
    lease = {"lease_token": "1." + "0" * 32}
    return {
        "write_log": {**lease, "offset": 0, "data": "a"},
        "cancel_jobs": {"all": True},
        "reprioritise_jobs": {"all": True, "priority": "LOW"},
        "create_pipeline": {"jobs": [{"ref": "a", "payload": 1}]},
        "create_schedule": {"cron": "* * * * *", "time_zone": "UTC", "job": {"payload": 1}},
    }.get(operation.id, {})


def test_the_longest_key_counts_to_its_last_character(api: Api) -> None:
    keys = ["k" * 127 + end for end in "ab"]
    made = [api.post(JOBS, {"payload": 1}, headers={"Idempotency-Key": key}) for key in (*keys, *keys)]
    assert [answer.status_code for answer in made] == [201, 201, 200, 200]
    assert made[0].json()["id"] == made[2].json()["id"] != made[1].json()["id"] == made[3].json()["id"]
    assert [answer.headers.get("idempotency-replayed") for answer in made] == [None, None, "true", "true"]


def test_a_key_with_other_content_is_409_and_makes_nothing(api: Api, stored: redis_py.Redis) -> None:
    header = {"Idempotency-Key": "once"}
    assert api.post(JOBS, {"payload": 1}, headers=header).status_code == 201
    with nothing_written(stored, api.namespace):
        for body in ({"payload": 2}, {"payload": 1, "type": "other"}, {"payload": 1, "priority": "LOW"}):
            problem(api.post(JOBS, body, headers=header), 409, "idempotency_conflict")


def test_a_key_is_of_its_credential(api: Api) -> None:
    header = {"Idempotency-Key": "mine"}
    ids = {api.post(JOBS, {"payload": n}, headers=header, token=api.key("*")).json()["id"] for n in (1, 2)}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (JOBS, {"payload": 1}),
        ("/api/dashboard/jobs", {"job_type": "build", "git_repo": "r", "git_ref": "main", "git_commit_sha": "abcdef1"}),
        ("/api/keys", {"name": "n", "scopes": ["queue:read"]}),
        ("/api/agents/keys", {"pool": "default"}),
        ("/api/agents/register", {"pool": "default"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_same_key_at_the_same_moment_makes_one_thing(api: Api, path: str, body: dict[str, Any]) -> None:
    clients = [api.connect() for _ in range(8)]
    headers = {"Authorization": f"Bearer {api.admin}", "Idempotency-Key": "at-once"}
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda client: client.post(path, json=body, headers=headers), clients))
    assert sorted(answer.status_code for answer in found) == [200] * 7 + [201], [one.text for one in found]
    name = "agent_id" if "register" in path else "id"
    assert len({answer.json()[name] for answer in found}) == 1
    if "keys" in path:  # its text is shown once
        assert sum("key" in answer.json() and bool(answer.json()["key"]) for answer in found) == 1


# -- lease tokens -------------------------------------------------------------------------------------------------

LEASE_ID: Final = "0123456789abcdef0123456789abcdef"
MALFORMED: Final[list[Any]] = [
    "", "1", "1.", f".{LEASE_ID}", LEASE_ID, f"0.{LEASE_ID}", f"-1.{LEASE_ID}", f"+1.{LEASE_ID}", f"1.5.{LEASE_ID}",
    f"1e3.{LEASE_ID}", f"0x1.{LEASE_ID}", f"01.{LEASE_ID}", f" 1.{LEASE_ID}", f"1.{LEASE_ID} ", f"1.{LEASE_ID}\n",
    f"1.{LEASE_ID.upper()}", f"1.{LEASE_ID[1:]}", f"1.{LEASE_ID}0", f"1.{LEASE_ID[:-1]}g", f"{2**53}.{LEASE_ID}",
    f"{'9' * 17}.{LEASE_ID}", f"{'9' * 400}.{LEASE_ID}", f"\uff11.{LEASE_ID}", f"1.{LEASE_ID[:-1]}\u0000",
    "hunter2zebra",
    1, 1.5, -1, None, True, [f"1.{LEASE_ID}"], {"fence": 1}, "]]..redis.call('FLUSHALL')..", "inf.nan",
]  # fmt: skip
VERBS: Final[dict[str, dict[str, Any]]] = {"start": {}, "complete": {"outcome": "success"}, "release": {}}


def leased(api: Api, agent_id: str = "one", **more: Any) -> dict[str, Any]:
    token = more.pop("token", "admin")
    assert api.post(JOBS, {"payload": MARK, "pool": more.get("pool", "default")}).status_code == 201
    answer = api.post("/api/queue/claim", {"agent_id": agent_id, "start": True, **more}, token=token)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["job"])


@pytest.mark.parametrize("token", MALFORMED, ids=ascii)
def test_a_token_that_is_none_never_reaches_redis(api: Api, stored: redis_py.Redis, token: Any) -> None:
    job = leased(api)
    with nothing_written(stored, api.namespace):
        for verb, body in VERBS.items():
            answer = api.post(f"{JOBS}/{job['id']}/{verb}", {"lease_token": token, **body})
            found = refused(answer, 400, "invalid_argument", "bad_encoding", "duplicate_key")
            assert found["errors"][0]["pointer"].startswith("/lease_token"), found
        beat = api.post("/api/queue/heartbeat", {"leases": [{"id": job["id"], "lease_token": token}]})
        assert refused(beat, 400, "invalid_argument")["errors"][0]["pointer"].startswith("/leases/0/lease_token")


def test_a_token_that_is_not_current_is_stale_and_changes_nothing(api: Api, stored: redis_py.Redis) -> None:
    """Of the lease before, of another job, made up, with the fence or the id of the real one."""
    job, other = leased(api), leased(api)
    before = job["lease_token"]
    release = api.post(f"{JOBS}/{job['id']}/release", {"lease_token": before})
    assert release.status_code == 200
    while (again := api.post("/api/queue/claim", {"agent_id": "two", "start": True})).status_code != 200:
        pass
    job = again.json()["job"]
    fence, _, lease_id = job["lease_token"].partition(".")
    wrong = [
        before,
        other["lease_token"],
        f"{fence}.{LEASE_ID}",
        f"{int(fence) + 1}.{lease_id}",
        f"{2**53 - 1}.{lease_id}",
    ]
    with nothing_written(stored, api.namespace):
        for token in wrong:
            for verb, body in VERBS.items():
                answer = api.post(f"{JOBS}/{job['id']}/{verb}", {"lease_token": token, **body})
                found = problem(answer, 409, "stale_lease")
                assert found["job_status"] == "RUNNING" and isinstance(found["allowed"], list)
            beat = api.post("/api/queue/heartbeat", {"leases": [{"id": job["id"], "lease_token": token}]}).json()
            assert (beat["renewed"], [one["id"] for one in beat["lost"]]) == ([], [job["id"]])


def test_the_token_in_other_hands_is_403_and_changes_nothing(api: Api, stored: redis_py.Redis) -> None:
    """Another key, another agent, another agent of the same pool: whoever has read the token may not use it."""
    one, two = api.agent("agent-a"), api.agent("agent-b")
    api.post(JOBS, {"payload": MARK})
    job = one.claim(start=True).json()["job"]
    held = leased(api, pool="keys-own")
    strangers = {"another agent": two.token, "a key": api.key("queue:claim"), "an admin": api.admin}
    with nothing_written(stored, api.namespace):
        for whose, token in strangers.items():
            for verb, body in VERBS.items():
                answer = api.post(
                    f"{JOBS}/{job['id']}/{verb}", {"lease_token": job["lease_token"], **body}, token=token
                )
                found = problem(answer, 403, "not_lease_holder")
                assert job["lease_token"] not in answer.text and "payload" not in found, whose
        for verb, body in VERBS.items():
            sent = {"lease_token": held["lease_token"], **body}
            problem(api.post(f"{JOBS}/{held['id']}/{verb}", sent, token=strangers["a key"]), 403, "not_lease_holder")
            problem(api.post(f"{JOBS}/{held['id']}/{verb}", sent, token=two.token), 404, "job_not_found")
        lease = {"id": job["id"], "lease_token": job["lease_token"]}
        for token in strangers.values():
            beat = api.post("/api/queue/heartbeat", {"leases": [lease]}, token=token).json()
            assert (beat["renewed"], [lost["id"] for lost in beat["lost"]]) == ([], [job["id"]])
    beat = two.post("/api/agents/agent-b/heartbeat", {"session_id": two.session_id, "leases": [lease]}).json()
    assert (beat["renewed"], [lost["id"] for lost in beat["lost"]]) == ([], [job["id"]])
    done = one.post(f"{JOBS}/{job['id']}/complete", {"lease_token": job["lease_token"], "outcome": "success"})
    assert done.status_code == 200


def test_an_agent_does_not_speak_for_another(api: Api, stored: redis_py.Redis) -> None:
    """Neither claims, nor beats, nor registers, nor leaves under its name."""
    one, two = api.agent("agent-a"), api.agent("agent-b")
    a_key = api.key("queue:claim")
    api.post(JOBS, {"payload": 1})
    calls = [
        ("/api/queue/claim", {"agent_id": one.agent_id}),
        ("/api/queue/claim", {"agent_id": one.agent_id, "session_id": one.session_id}),
        (f"/api/agents/{one.agent_id}/heartbeat", {"session_id": one.session_id}),
        (f"/api/agents/{one.agent_id}/deregister", {}),
        ("/api/agents/register", {"agent_id": one.agent_id}),
    ]
    with nothing_written(stored, api.namespace):
        for path, body in calls:
            problem(two.post(path, body), 403, "agent_not_allowed")
        problem(api.post("/api/queue/claim", {"agent_id": one.agent_id}, token=a_key), 403, "agent_not_allowed")


def test_a_job_of_another_namespace_is_like_none(running: Api, api: Api, stored: redis_py.Redis) -> None:
    """With its id and its current token: 404, in the words of a job that never was."""
    job = leased(api)
    abroad = shared.in_namespace(running, "abroad")
    strangers = [abroad.key("*"), abroad.agent("agent-a").token]
    with nothing_written(stored, api.namespace):
        for token in strangers:
            for verb, body in VERBS.items():
                sent = {"lease_token": job["lease_token"], **body}
                said = [
                    problem(api.post(f"{JOBS}/{id}/{verb}", sent, token=token), 404, "job_not_found")
                    for id in (job["id"], "default~never-was", "nowhere~never-was")
                ]
                assert len({json.dumps({**one, "instance": ""}) for one in said}) == 1
        said = [problem(api.get(f"{JOBS}/{id}", token=strangers[0]), 404, "job_not_found") for id in (job["id"], "a~b")]
        assert len({json.dumps({**one, "instance": ""}) for one in said}) == 1


# -- credentials ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key[:-1],
        lambda key: key + "A",
        lambda key: key[:-1] + ("A" if key[-1] != "A" else "B"),
        lambda key: key[:30] + ("A" if key[30] != "A" else "B") + key[31:],
        lambda key: key.swapcase(),
        lambda key: "hqa" + key[3:],
        lambda key: "hqs" + key[3:],
        lambda key: key[4:],
        lambda key: key.replace("_", "-"),
        lambda key: f"{key} {key}",
        lambda key: f'"{key}"',
        lambda key: "Bearer " + key,
        lambda key: "A" * 5_000,
        lambda key: "../../../etc/passwd",
    ],
)
def test_a_credential_that_is_none_is_401_everywhere(
    api: Api, stored: redis_py.Redis, change: Callable[[str], str]
) -> None:
    header = {"Authorization": f"Bearer {change(api.admin)}"}
    with nothing_written(stored, api.namespace):
        for operation in OPERATIONS:
            if not operation.public:
                answer = api.request(operation.method, operation.path, headers=header, token=None)
                refused(answer, 401, "unauthenticated")
                assert answer.headers["www-authenticate"].startswith("Bearer ")


def test_other_schemes_and_places_are_no_credential(api: Api) -> None:
    for headers in (
        {"Authorization": f"Basic {api.admin}"},
        {"Authorization": api.admin},
        {"Authorization": f"bearer{api.admin}"},
        {"X-Api-Key": api.admin},
        {"Cookie": f"hq_session={api.admin}"},
        {"Proxy-Authorization": f"Bearer {api.admin}"},
    ):
        problem(api.get(JOBS, token=None, headers=headers), 401, "unauthenticated")
    problem(api.get(f"{JOBS}?access_token={api.admin}", token=None), 401, "unauthenticated")


# -- the document holds what was said ---------------------------------------------------------------------------------


def test_an_answer_that_is_not_documented_would_be_noticed(api: Api) -> None:
    """Every answer in this file passed `must_be_documented`; so it had better be able to fail."""
    answer = api.get(f"{JOBS}/a~b")
    answer.status_code = 418
    with pytest.raises(AssertionError, match="documents no such status"):
        must_be_documented(answer)
    answer = api.get(f"{JOBS}/a~b")
    answer._content = answer.content.replace(b"job_not_found", b"pool_is_closed")
    with pytest.raises(AssertionError, match="pool_is_closed"):
        must_be_documented(answer)
