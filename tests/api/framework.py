"""A server on a real socket for tests of the framework: uvicorn in a thread, and credentials that live in memory."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import uvicorn

from hybridq import Admission, Credential, RateState, tokens
from tests.servers import wait_until

ANSWERS_WITHIN_S = 10.0


class Credentials:
    """Looks tokens up in a dict and counts the calls of each credential or peer against one limit."""

    def __init__(self, *, limit: int = 1_000_000) -> None:
        self.limit = limit
        self.known: dict[str, Credential] = {}
        self.counted: dict[str, int] = {}
        self.asked: list[tuple[str | None, str, str]] = []

    def make(self, kind: Any, *scopes: str, **more: Any) -> str:
        token = f"{kind}-token-{len(self.known)}"
        self.known[token] = Credential(
            kind=kind, id=f"id-{len(self.known)}", namespace="default", scopes=frozenset(scopes), **more
        )
        return token

    def session(self, *scopes: str, csrf: str) -> str:
        return self.make("session", *scopes, csrf_hash=tokens.hash_of(csrf))

    async def __call__(self, token: str | None, /, *, peer: str, rate_class: str) -> Admission:
        self.asked.append((token, peer, rate_class))
        credential = self.known.get(token) if token is not None else None
        who = credential.id if credential else peer
        count = self.counted[who] = self.counted.get(who, 0) + 1
        limited = count > self.limit
        rate = RateState(
            limit=self.limit,
            remaining=self.limit - count,
            reset_s=0.5,
            retry_after_s=1.2 if limited else 0.0,
            limited=limited,
        )
        return Admission(credential=credential, reason=None if credential or token is None else "unknown", rate=rate)


class Served:
    """An app that answers at `url`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx2.Client(base_url=self.url, timeout=ANSWERS_WITHIN_S, trust_env=False)

    def call(self, method: str, path: str, token: str | None = None, **more: Any) -> httpx2.Response:
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return self.client.request(method, path, headers=headers, **more)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=ANSWERS_WITHIN_S)

    def raw(self, sent: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send bytes as they are; return status, headers and body of the first answer."""
        with self.connect() as connection:
            connection.sendall(sent)
            return read_answer(connection)


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one answer that has a Content-Length."""
    found = b""
    while b"\r\n\r\n" not in found:
        piece = connection.recv(65536)
        assert piece, f"closed after {found!r}"
        found += piece
    head, _, body = found.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    while len(body) < int(headers.get("content-length", 0)):
        piece = connection.recv(65536)
        assert piece, "closed in the body"
        body += piece
    return int(lines[0].split(" ")[1]), headers, body


@contextlib.contextmanager
def serve(app: Any) -> Iterator[Served]:
    """Serve an app until the block ends."""
    config = uvicorn.Config(
        app, log_config=None, server_header=False, proxy_headers=False, lifespan="on", timeout_graceful_shutdown=3
    )
    server = uvicorn.Server(config)
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[door])), name="uvicorn", daemon=True)
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive(), ANSWERS_WITHIN_S, what="uvicorn has started")
            assert server.started, "uvicorn ended at start"
            served = Served(door.getsockname()[1])
            with served.client:
                yield served
        finally:
            server.should_exit = True
            thread.join(ANSWERS_WITHIN_S)
            assert not thread.is_alive(), "uvicorn did not stop"
