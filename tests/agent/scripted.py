"""A real HTTP server that answers as it is told, also as no server should."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

JSON = "application/json"
PROBLEM = "application/problem+json"
HTML = "text/html"


@dataclass(frozen=True)
class Reply:
    """An answer, or what comes instead of one.

    `cut`: the connection is reset after so many bytes of the body (0: before anything). `drip_s`: the body comes byte
    by byte with such pauses. `silent`: nothing comes until the event is set.
    """

    status: int = 200
    body: Any = b""
    kind: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    drip_s: float = 0.0
    silent: threading.Event | None = None

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def problem(status: int, code: str, *, retry_after: str | None = None, **members: Any) -> Reply:
    """The answer of our server to what went wrong."""
    body = {"type": f"urn:hybridq:problem:{code}", "title": code, "status": status, "detail": "Said so.", "code": code}
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return Reply(status, {**body, **members}, PROBLEM, headers)


@dataclass(frozen=True)
class Request:
    """What came in."""

    at: float
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def ids(self) -> tuple[Any, ...]:
        """What has to be the same in every repeat."""
        names = ("x-request-id", "idempotency-key", "content-type", "authorization")
        return (self.method, self.path, self.body, *(self.headers.get(name) for name in names))


class Scripted:
    """Answers requests by `replies`, one after the other; the last one again and again. `requests` is what came."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._scheme = "http" if tls is None else "https"
        self.replies: list[Reply] = [Reply()]
        self.requests: list[Request] = []
        self.connections = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.scripted = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="scripted", daemon=True)

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    scripted: Scripted


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65_536):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.scripted.connections += 1

    def answer(self) -> None:
        at = time.monotonic()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.scripted.take(Request(at, self.command, self.path, headers, body))
        with contextlib.suppress(OSError):
            self._reply(reply)

    do_GET = do_POST = do_PATCH = do_DELETE = answer

    def do_CONNECT(self) -> None:
        """Be a proxy: join the client to where it wants to go."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.scripted.requests.append(Request(time.monotonic(), "CONNECT", self.path, headers, b""))
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as there:
            self.send_response_only(200)
            self.end_headers()
            back = threading.Thread(target=_pump, args=(there, self.connection), daemon=True)
            back.start()
            _pump(self.connection, there)
            back.join()
        self.close_connection = True

    def _reply(self, reply: Reply) -> None:
        if reply.silent is not None:
            reply.silent.wait(30.0)
        content = reply.content
        if reply.cut == 0:
            return self._reset()
        self.send_response_only(reply.status)  # no Date and no Server but what the test says
        self.send_header("Content-Type", reply.kind)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if reply.cut is not None:
            self.wfile.write(content[: reply.cut])
            return self._reset()
        if reply.drip_s:
            for place in range(len(content)):
                self.wfile.write(content[place : place + 1])
                time.sleep(reply.drip_s)
            return None
        self.wfile.write(content)
        return None

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        pass
