"""The server as a process: bounds on what comes over the wire, TLS, and the ways it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from api import wire
from api.server import _bound, _Uvicorn
from api.settings import Settings
from hybridq import Access
from tests.servers import wait_until

from .serving import COMMAND, Serving

Talk = Callable[..., Any]


# -- what comes over the wire ------------------------------------------------------------------------------------


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and says how long it was."""
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    body = f"{scope['path']} {size}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[int]:
    settings = Settings(port=0)
    with _bound(settings.host, 0) as door:
        async with _Uvicorn(echo, settings, door) as server:
            yield server.port


async def talk(port: int, *parts: bytes) -> bytes:
    """Send the parts one by one and return everything that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            await asyncio.sleep(0)
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def problem_in(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    problem: dict[str, Any] = json.loads(body)
    assert head.startswith(f"HTTP/1.1 {problem['status']} ".encode())
    assert problem["instance"].removeprefix("urn:hybridq:request:").encode() in head
    return problem


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], "bad_request"),
        ([b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"], "bad_request"),
        ([b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"zz\r\n"], "bad_request"),
        ([b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"], "bad_request"),
        ([b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 101 + b"\r\n"], "headers_too_large"),
        ([b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"b" * 17_000 + b"\r\n\r\n"], "headers_too_large"),
        ([b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ", *[b"b" * 4_096] * 8], "headers_too_large"),
        ([b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"], "headers_too_large"),
        ([b"GET /", *[b"a" * 4_096] * 8], "headers_too_large"),
    ],
)
async def test_what_is_no_request_is_answered_with_problem_details(parts: list[bytes], code: str) -> None:
    async with listening() as port:
        assert problem_in(await talk(port, *parts))["code"] == code


async def test_a_head_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_WITHIN_S", 0.1)
    async with listening() as port:
        assert problem_in(await talk(port, b"GET / HTTP/1.1\r\nHo"))["code"] == "request_timeout"
        assert await talk(port) == b""


async def test_neither_is_the_head_of_a_second_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.readuntil(b"/a 0")).startswith(b"HTTP/1.1 200")
        monkeypatch.setattr(wire, "HEAD_WITHIN_S", 0.1)
        writer.write(b"GET /b")
        assert problem_in(await asyncio.wait_for(reader.read(), 10))["code"] == "request_timeout"
        writer.close()
        await writer.wait_closed()


async def test_a_body_that_stops_coming_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "BODY_SILENT_S", 0.1)
    async with listening() as port:
        assert await talk(port, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345") == b""


async def test_slow_and_large_requests_within_the_bounds_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_WITHIN_S", 5.0)
    monkeypatch.setattr(wire, "BODY_SILENT_S", 5.0)
    async with listening() as port:
        head = b"POST /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3000000\r\n\r\n"
        answer = await talk(port, *(head[n : n + 1] for n in range(len(head))), *[b"x" * 100_000] * 30)
        assert answer.endswith(b"/a 3000000")
        # Requests in a row on one connection, the second sent before the first was answered.
        two = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        answer = await talk(port, two * 40 + b"GET /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (answer.count(b"/a 3"), answer.endswith(b"/b 0")) == (40, True)


# -- the process -------------------------------------------------------------------------------------------------


def key_of(redis_url: str) -> dict[str, str]:
    with Access(redis=redis_url) as access:
        _, text = access.create_key("test", scopes=["*"], namespace="default", created_by="test")
    return {"Authorization": f"Bearer {text}", "Content-Type": "application/json"}


def in_background(work: Callable[[], Any]) -> Callable[[], Any]:
    """Run `work` in a thread; what is returned waits for its value."""
    kept: list[Any] = []
    thread = threading.Thread(target=lambda: kept.append(work()))
    thread.start()

    def value() -> Any:
        thread.join(30)
        [only] = kept
        return only

    return value


def parked(server: Serving) -> bool:
    return b"hybridq_claims_parked 1.0" in server.ask("/metrics", url=server.said["metrics_url"]).body


@pytest.mark.parametrize("engine", ["uvicorn", "granian"])
def test_a_signal_answers_parked_claims_and_refuses_new_ones(redis_url: str, engine: str) -> None:
    headers = key_of(redis_url)
    environ = {"HYBRIDQ_REDIS_URL": redis_url, "HYBRIDQ_METRICS_PORT": "0", "HYBRIDQ_DRAIN_SECONDS": "3"}
    claim = json.dumps({"agent_id": "a", "wait_seconds": 40})
    with Serving("--server", engine, environ=environ) as server:
        waiting = in_background(lambda: server.ask("/api/queue/claim", "POST", body=claim, headers=headers))
        wait_until(lambda: parked(server), 10, what="the claim is parked")
        began = time.monotonic()
        server.tell()

        answer = waiting()
        assert (answer.status, answer.document["code"]) == (404, "no_jobs_available")
        assert answer.headers["Retry-After"]
        ready = server.ask("/health/ready")
        assert (ready.status, ready.document["code"]) == (503, "stopping")
        assert server.ask("/health").status == 200
        late = server.ask("/api/queue/claim", "POST", body=claim, headers=headers)
        assert (late.status, late.document["code"]) == (503, "stopping")
        assert late.headers["Retry-After"]

        assert server.ended() == 0
        assert 2.5 < time.monotonic() - began < 10


def half_a_request(server: Serving, headers: dict[str, str]) -> socket.socket:
    """A request that is under way: the server waits for the other half of its body."""
    connection = socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), timeout=20)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection.sendall(
        f'POST /api/queue/jobs HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: 13\r\n\r\n{{"payl'.encode()
    )
    return connection


def test_what_is_under_way_is_finished(redis_url: str) -> None:
    environ = {"HYBRIDQ_REDIS_URL": redis_url, "HYBRIDQ_LOG_LEVEL": "DEBUG"}
    with Serving(environ=environ) as server, half_a_request(server, key_of(redis_url)) as one:
        assert server.ask("/health").status == 200
        server.tell()
        wait_until(lambda: "Waiting for connections" in server.errors, 10, what="it waits")
        one.sendall(b'oad":1}')
        assert one.recv(4096).startswith(b"HTTP/1.1 201 ")
        assert server.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_cuts_off_what_is_under_way(redis_url: str, number: int) -> None:
    environ = {"HYBRIDQ_REDIS_URL": redis_url, "HYBRIDQ_LOG_LEVEL": "DEBUG"}
    with Serving(environ=environ) as server, half_a_request(server, key_of(redis_url)):
        assert server.ask("/health").status == 200
        server.tell(number)
        wait_until(lambda: "Waiting for connections" in server.errors, 10, what="it waits")
        began = time.monotonic()
        server.tell(number)
        assert server.ended() == 128 + number
        assert time.monotonic() - began < 5
        assert "server.cut_off" in server.errors
        assert "Traceback" not in server.errors


def test_it_has_room_for_more_connections_than_a_shell_gives(redis_url: str) -> None:
    command = ("bash", "-c", 'ulimit -Sn 256; exec "$@"', "bash", *COMMAND)
    environ = {"HYBRIDQ_REDIS_URL": redis_url, "HYBRIDQ_METRICS_PORT": "0"}
    with Serving(environ=environ, command=command) as server:
        text = server.ask("/metrics", url=server.said["metrics_url"]).body.decode()
        [limit] = [float(line.split()[1]) for line in text.splitlines() if line.startswith("process_max_fds ")]
        assert limit > 256


def test_it_speaks_tls(redis_url: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    environ = {
        "HYBRIDQ_REDIS_URL": redis_url,
        "HYBRIDQ_TLS_CERT": str(tmp_path / "cert.pem"),
        "HYBRIDQ_TLS_KEY": str(tmp_path / "key.pem"),
    }
    with Serving(environ=environ) as server:
        where = urlsplit(server.url)
        assert where.scheme == "https"
        with socket.create_connection(("127.0.0.1", where.port or 0), timeout=20) as plain:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as safe:
                safe.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = b"".join(iter(lambda: safe.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"strict-transport-security" in answer.lower()
        server.tell()
        assert server.ended() == 0


def test_no_answer_tells_what_serves_it(redis_url: str) -> None:
    with Serving(environ={"HYBRIDQ_REDIS_URL": redis_url}) as server:
        for path in ("/health", "/nowhere"):
            headers = server.ask(path).headers
            assert "server" not in headers
            assert "x-powered-by" not in headers
