"""What surrounds every request: ids, headers in and out, methods, sizes, peers, the log line. On raw sockets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import structlog

from api.http import answer as answers
from api.http.answer import Answer, Stream
from api.http.app import build
from api.http.exchange import Proxies
from api.http.request import Request
from api.http.route import EVENT_STREAM, Table
from api.http.scopes import PUBLIC
from tests.api.framework import Credentials, Served, read_answer, serve
from tests.servers import wait_until

TABLE = Table()
LIMIT_BYTES = 1_000
STREAMS = {"begun": 0, "closed": 0}


class Blob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    payload: msgspec.Raw


@TABLE.route("POST", "/blobs", scope=PUBLIC, rate=None, body=Blob, body_bytes_max=LIMIT_BYTES)
async def put(request: Request) -> Answer:
    return Answer({"bytes": len(request.raw_body)}, 201)


@TABLE.route("GET", "/blobs/{blob:name}", scope="queue:read")
async def get(request: Request) -> Answer:
    return Answer({"peer": request.peer, "scheme": request.scheme, "trace_id": request.trace_id})


@TABLE.route("PATCH", "/blobs/{blob:name}", scope="queue:read")
async def change(request: Request) -> Answer:
    return Answer()


@TABLE.route("DELETE", "/blobs/{blob:name}/parts/{part:name}", scope=PUBLIC, rate=None, answers={204: None})
async def delete(request: Request) -> Answer:
    return Answer(None, 204, {"X-Path": "~".join(request.path.values())})


@TABLE.route("GET", "/ping", scope=PUBLIC, rate=None)
async def ping(request: Request) -> Answer:
    return Answer({"peer": request.peer, "scheme": request.scheme, "trace_id": request.trace_id})


@TABLE.route("GET", "/page", scope=PUBLIC, rate=None)
async def page(request: Request) -> Answer:
    headers = {"Content-Security-Policy": "default-src 'self'", "Cache-Control": "max-age=60"}
    return Answer("<p>hello</p>", headers=headers, media_type="text/html; charset=utf-8")


async def _ticks(count: int, breaks: bool = False) -> AsyncIterator[bytes]:
    STREAMS["begun"] += 1
    try:
        for tick in range(count):
            yield f"data: {tick}\n\n".encode()
            await asyncio.sleep(0)
        if breaks:
            raise RuntimeError("hunter2")
        if count > 100:
            await asyncio.sleep(60)
    finally:
        STREAMS["closed"] += 1


@TABLE.route("GET", "/events", scope=PUBLIC, rate=None, answers={200: EVENT_STREAM})
async def events(request: Request) -> Stream:
    return Stream(_ticks(3))


@TABLE.route("GET", "/events/endless", scope=PUBLIC, rate=None, answers={200: EVENT_STREAM})
async def endless(request: Request) -> Stream:
    return Stream(_ticks(101))


@TABLE.route("GET", "/events/broken", scope=PUBLIC, rate=None, answers={200: EVENT_STREAM})
async def broken(request: Request) -> Stream:
    return Stream(_ticks(2, breaks=True))


@pytest.fixture(scope="module")
def credentials() -> Credentials:
    return Credentials()


@pytest.fixture(scope="module")
def served(credentials: Credentials) -> Iterator[Served]:
    settings = SimpleNamespace(trusted_proxies=())
    with serve(build(TABLE, plane=None, settings=settings, authenticate=credentials)) as served:
        yield served


def code_of(found: tuple[int, dict[str, str], bytes]) -> str:
    status, headers, body = found
    assert headers["content-type"] == "application/problem+json"
    problem = msgspec.json.decode(body)
    assert problem["status"] == status
    return str(problem["code"])


def get_raw(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode("latin-1")


# -- what is returned ----------------------------------------------------------------------------------------

SECURITY = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@pytest.mark.parametrize("path", ["/ping", "/nowhere", "/blobs/a", "/blobs"])
def test_every_answer_has_the_headers_of_safety(served: Served, path: str) -> None:
    """Errors, too, also those of the router; and nobody is told what serves them."""
    answer = served.call("GET", path)

    assert {name: answer.headers.get(name) for name in SECURITY} == SECURITY
    assert "server" not in answer.headers
    assert "strict-transport-security" not in answer.headers
    assert "access-control-allow-origin" not in answer.headers


def test_an_answer_may_have_its_own_policy(served: Served) -> None:
    """A page needs more than an API."""
    answer = served.call("GET", "/page")

    assert answer.headers.get_list("content-security-policy") == ["default-src 'self'"]
    assert answer.headers.get_list("cache-control") == ["max-age=60"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("build-7.step_2", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("a b", False),
        ("a/b", False),
        ("", False),
        ("ghp_" + "Ab3dE5gH7jK9mN1pQ3sT5vW7yZ9bD1fH3jK5"[:36], False),
    ],
)
def test_a_request_id_is_kept_when_it_is_one(served: Served, sent: str, kept: bool) -> None:
    """Else replaced: it will stand in logs and records, so it must not be a secret either."""
    found = served.call("GET", "/ping", headers={"X-Request-Id": sent}).headers["x-request-id"]

    assert (found == sent) is kept
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", found)


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("sent", "returned"),
    [
        (TRACE, TRACE),
        ("cc" + TRACE[2:] + "-more", TRACE),
        (TRACE + "-more", None),
        (TRACE.upper(), None),
        ("ff" + TRACE[2:], None),
        ("00-" + "0" * 32 + "-00f067aa0ba902b7-01", None),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01", None),
        ("nonsense", None),
    ],
)
def test_a_trace_context_is_kept_when_it_is_one(served: Served, sent: str, returned: str | None) -> None:
    """W3C Trace Context, strictly; else a new one."""
    answer = served.call("GET", "/ping", headers={"traceparent": sent})

    found = answer.headers["traceparent"]
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", found)
    assert (found == returned) if returned else (found[3:35] not in sent.lower())
    assert answer.json()["trace_id"] == found[3:35]


def test_nothing_is_answered_with_nothing(served: Served) -> None:
    """204 has neither body nor a length."""
    answer = served.call("DELETE", "/blobs/a/parts/b")

    assert (answer.status_code, answer.content, answer.headers["x-path"]) == (204, b"", "a~b")
    assert "content-length" not in answer.headers and "content-type" not in answer.headers


# -- what comes in -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/blobs", "POST"), ("/blobs/a", "GET, PATCH"), ("/ping", "GET")],
)
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"])
def test_other_methods_are_405_with_the_ones_allowed(served: Served, path: str, methods: str, method: str) -> None:
    """Nobody needs to be known for that."""
    answer = served.call(method, path)

    assert (answer.status_code, answer.headers["allow"]) == (405, methods)
    if method != "HEAD":
        assert answer.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "path",
    ["/", "/ping/", "//ping", "/Ping", "/ping;a", "/%2fping", "/blobs%2fa", "/blobs/a%2F..%2Fa", "/ping%00", "/../x"],
)
def test_spellings_of_a_path_are_not_folded(served: Served, path: str) -> None:
    """What the router looks up is what was asked for."""
    assert code_of(served.raw(get_raw(path))) == "not_found"


def test_too_many_headers_are_431(served: Served) -> None:
    """In number and in size; the bound itself passes."""
    names = [f"X-{number}: a" for number in range(99)]

    assert served.raw(get_raw("/ping", *names))[0] == 200
    assert code_of(served.raw(get_raw("/ping", *names, "X-99: a"))) == "headers_too_large"
    assert code_of(served.raw(get_raw("/ping", f"X-Big: {'a' * 17_000}"))) == "headers_too_large"


def test_a_body_over_the_limit_is_refused_before_it_comes(served: Served) -> None:
    """The length that is announced is enough; the answer names the limit."""
    with served.connect() as connection:
        connection.sendall(
            get_raw("/blobs", "Content-Type: application/json", f"Content-Length: {10**9}", method="POST")
        )
        found = read_answer(connection)

    assert code_of(found) == "payload_too_large"
    assert str(LIMIT_BYTES).encode() in found[2]
    assert msgspec.json.decode(found[2])["limit_bytes"] == LIMIT_BYTES


@pytest.mark.parametrize(("size", "status"), [(LIMIT_BYTES, 201), (LIMIT_BYTES + 1, 413)])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_limit_is_the_last_size_that_passes(served: Served, size: int, status: int, chunked: bool) -> None:
    """With a length and in chunks."""
    body = b'{"payload":"' + b"a" * (size - 14) + b'"}'
    if chunked:
        pieces = [body[at : at + 100] for at in range(0, size, 100)]
        sent = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        framing = "Transfer-Encoding: chunked"
    else:
        sent, framing = body, f"Content-Length: {size}"

    found = served.raw(get_raw("/blobs", "Content-Type: application/json", framing, method="POST") + sent)

    assert found[0] == status


def test_an_endless_body_is_cut_off_at_the_limit(served: Served) -> None:
    """Nobody waits for its end."""
    with served.connect() as connection:
        connection.sendall(
            get_raw("/blobs", "Content-Type: application/json", "Transfer-Encoding: chunked", method="POST")
        )
        connection.sendall(b"400\r\n" + b"a" * 0x400 + b"\r\n")
        assert code_of(read_answer(connection)) == "payload_too_large"


@pytest.mark.parametrize("length", ["abc", "-1", "1, 2", "0x5"])
def test_a_length_that_is_none_is_400(served: Served, length: str) -> None:
    """Refused by the server before us, or by us."""
    with served.connect() as connection:
        connection.sendall(
            get_raw("/blobs", "Content-Type: application/json", f"Content-Length: {length}", method="POST")
        )
        assert connection.recv(64).split(b" ")[1] == b"400"


# -- hosts and peers -----------------------------------------------------------------------------------------


def test_only_our_own_hosts_are_answered() -> None:
    """When there is a list of them."""
    settings = SimpleNamespace(trusted_proxies=(), hosts=("localhost", "::1", "*.example.com"))
    with serve(build(TABLE, plane=None, settings=settings, authenticate=Credentials())) as served:
        for host, status in (
            ("localhost", 200),
            ("LOCALHOST:8000", 200),
            ("[::1]:8000", 200),
            ("ci.example.com", 200),
            ("example.com", 400),
            ("evil-example.com", 400),
            ("localhost.evil.net", 400),
            ("", 400),
        ):
            assert served.raw(f"GET /ping HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())[0] == status, host


def test_a_forwarded_address_of_a_stranger_is_not_believed(served: Served, credentials: Credentials) -> None:
    """Whoever rotates the header stays one peer."""
    credentials.asked.clear()
    for number in range(20):
        headers = {"X-Forwarded-For": f"10.0.0.{number}", "X-Forwarded-Proto": "https"}
        served.call("GET", "/blobs/a", headers=headers)

    assert {peer for _, peer, _ in credentials.asked} == {"127.0.0.1"}
    assert served.call("GET", "/ping", headers={"X-Forwarded-Proto": "https"}).json()["scheme"] == "http"


def test_a_trusted_proxy_says_who_and_how() -> None:
    """TLS ended at the proxy counts as TLS, so the browser is told to keep to it."""
    settings = SimpleNamespace(trusted_proxies=("127.0.0.0/8",))
    with serve(build(TABLE, plane=None, settings=settings, authenticate=Credentials())) as served:
        answer = served.call(
            "GET", "/ping", headers={"X-Forwarded-For": "1.1.1.1, 203.0.113.7", "X-Forwarded-Proto": "https"}
        )

    assert answer.json() | {"trace_id": ""} == {"peer": "203.0.113.7", "scheme": "https", "trace_id": ""}
    assert answer.headers["strict-transport-security"].startswith("max-age=")


@pytest.mark.parametrize(
    ("forwarded", "peer"),
    [
        ([], "10.0.0.1"),
        (["203.0.113.7"], "203.0.113.7"),
        (["6.6.6.6, 203.0.113.7"], "203.0.113.7"),
        (["6.6.6.6", "203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        (["203.0.113.7, junk"], "10.0.0.1"),
        (["10.0.0.3"], "10.0.0.3"),
        (["2001:db8::7"], "2001:db8::7"),
    ],
)
def test_the_first_hop_that_nobody_vouches_for_is_the_client(forwarded: list[str], peer: str) -> None:
    """Counted from our side: what stands before it was written by the client itself."""
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    scope = {"client": ("10.0.0.1", 1), "scheme": "http", "headers": headers}

    assert Proxies(["10.0.0.0/8"]).origin(scope)[0] == peer


# -- streams -------------------------------------------------------------------------------------------------


def test_a_stream_is_sent_and_ended(served: Served) -> None:
    """As server-sent events."""
    answer = served.call("GET", "/events")

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"


def test_a_stream_is_closed_when_its_client_leaves(served: Served) -> None:
    """Whatever it holds is let go."""
    closed = STREAMS["closed"]
    with served.connect() as connection:
        connection.sendall(get_raw("/events/endless"))
        wait_until(lambda: b"data: 100" in connection.recv(65536), 10, what="events come")
        assert STREAMS["closed"] == closed

    wait_until(lambda: STREAMS["closed"] == closed + 1, 10, what="the stream is closed")


def test_a_stream_that_breaks_looks_broken(served: Served) -> None:
    """The last chunk never comes, so no client takes it for the whole; the log does not quote."""
    found = b""
    with structlog.testing.capture_logs() as logs, served.connect() as connection:
        connection.sendall(get_raw("/events/broken"))
        while piece := connection.recv(65536):
            found += piece

    assert b"data: 1" in found
    assert not found.endswith(b"0\r\n\r\n")
    assert "http.stream_broke" in {line["event"] for line in logs}
    assert "hunter2" not in repr(logs)


async def test_a_client_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its buffer is full, and stays so."""
    monkeypatch.setattr(answers, "SLOW_CLIENT_S", 0.01)
    never = asyncio.Event()
    sent: list[Any] = []

    async def receive() -> Any:
        await never.wait()

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            await never.wait()

    await answers.send_stream(Stream(_ticks(2)), receive, send)

    assert [message.get("more_body") for message in sent] == [None, True]


# -- the log -------------------------------------------------------------------------------------------------


def _lines(logs: list[Any]) -> list[Any]:
    return [line for line in logs if line["event"] == "http.request" and line["request_id"] == "one-line"]


def test_one_line_a_request_and_no_value_in_it(served: Served, credentials: Credentials) -> None:
    """Route template, status, seconds, credential; never path, query, header or body."""
    token = credentials.make("key", "queue:read")
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        mine = {"X-Request-Id": "one-line"}
        served.call("GET", "/blobs/canary-path?canary=query", token, headers=mine | {"X-Canary": "canary-header"})
        served.call("POST", "/blobs", json={"canary": "canary-body"}, headers=mine)
        served.call("GET", "/canary/nowhere", headers=mine)
        # A line is written when its answer is on the way.
        wait_until(lambda: len(_lines(logs)) == 3, 10, what="three lines")

    lines = _lines(logs)
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("GET", "/blobs/{blob}", 400),
        ("POST", "/blobs", 400),
        ("GET", "-", 404),
    ]
    assert {line["component"] for line in lines} == {"api"}
    assert {line["log_level"] for line in lines} == {"info"}
    assert lines[0]["credential_id"] == credentials.known[token].id
    assert all(line["took_s"] >= 0 for line in lines)
    assert "canary" not in repr(logs)
    assert token not in repr(logs)
