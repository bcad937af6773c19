"""A server over a real socket, and a client that speaks to it: what every test of the HTTP side begins with.

`Api` runs the app under uvicorn on a port of its own, in a thread (fast: one for each test) or in a process of its own
(for what is measured, stopped or killed). Keys are made by the library, against the server's Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import httpx2
import msgspec

from api.settings import Rate, Settings
from hybridq import Access
from tests.api.promises import must_be_documented
from tests.servers import _die_with_parent, wait_until

CHECKOUT = Path(__file__).parents[2]
START_S = 30.0
ANSWER_S = 60.0
UNLIMITED = Rate(0, 0)
UNBOUND = {f"rate_{kind}": UNLIMITED for kind in ("claim", "report", "enqueue", "read", "admin", "auth")}
"""Tests are in a hurry; those about limits say their own."""


class Api:
    """One server and a client of it. `token` of a call: a credential's text; the default is an admin's key.

    Args:
        redis_url: The Redis that the server uses, which must be there at the start.
        namespace: The namespace of keys that `key` makes, and of the server's own affairs.
        process: Run it in a process of its own.
        settings: Further fields of `Settings`.
    """

    def __init__(self, redis_url: str, namespace: str, *, process: bool = False, **settings: Any) -> None:
        self.redis_url, self.namespace = redis_url, namespace
        self.settings = Settings(**{"port": 0, "redis_url": redis_url, "namespace": namespace, **UNBOUND, **settings})
        self._server: _Thread | _Process = (_Process if process else _Thread)(self.settings)
        self._client: httpx2.Client | None = None
        self._clients: list[httpx2.Client] = []

    # -- life ------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._server.start()
        self._client = self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        self._server.stop()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`."""
        return self._server.url

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.rsplit(":", 1)[1])

    @property
    def pid(self) -> int:
        """Of the server's process; it must have one of its own."""
        assert isinstance(self._server, _Process)
        return self._server.pid

    @property
    def log(self) -> str:
        """What a server process has logged."""
        assert isinstance(self._server, _Process)
        return self._server.log_path.read_text(errors="replace")

    def stop(self) -> None:
        """Ask the server to stop as a signal would; returns at once. `wait_stopped` waits for the end."""
        self._server.ask_to_stop()

    def wait_stopped(self, timeout_s: float = 30.0) -> None:
        """Wait for the end of a server that was asked to stop."""
        self._server.wait(timeout_s)

    def connect(self, **options: Any) -> httpx2.Client:
        """Return another client with a pool of connections of its own; it is closed with the server.

        What it is answered must be what the OpenAPI document promises.
        """
        hooks = {"response": [must_be_documented]}
        client = httpx2.Client(base_url=self.url, timeout=ANSWER_S, event_hooks=hooks, **options)
        self._clients.append(client)
        return client

    # -- who -------------------------------------------------------------------------------------------------

    @functools.cached_property
    def admin(self) -> str:
        """A key that may everything in the namespace."""
        return self.key("*")

    def key(
        self,
        scopes: str | Iterable[str],
        pools: Iterable[str] | None = None,
        namespace: str | None = None,
        **more: Any,
    ) -> str:
        """Return the text of a new API key; `scopes` is a list, or a text with blanks between."""
        named = scopes.split() if isinstance(scopes, str) else list(scopes)
        with Access(redis=self.redis_url) as access:
            _, text = access.create_key(
                "test",
                scopes=named,
                pools=None if pools is None else tuple(pools),
                namespace=namespace or self.namespace,
                created_by=more.pop("created_by", "test"),
                **more,
            )
        assert text is not None
        return text

    def agent(self, agent_id: str, pool: str = "default", **registration: Any) -> Agent:
        """Register an agent over HTTP and return what it holds."""
        answer = self.post("/api/agents/register", {"agent_id": agent_id, "pool": pool, **registration})
        assert answer.status_code in (200, 201), answer.text
        return Agent(self, answer.json())

    # -- calls -----------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = "admin",
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        content: bytes | str | None = None,
    ) -> httpx2.Response:
        """Send one request. `body` travels as JSON, `content` as it is; `token` None: with no credential."""
        sent = dict(headers or {})
        if token is not None:
            sent.setdefault("Authorization", f"Bearer {self.admin if token == 'admin' else token}")
        if body is not None:
            content = json.dumps(body)
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        assert self._client is not None, "not started"
        return self._client.request(method, path, headers=sent, params=params, content=content)

    def get(self, path: str, **options: Any) -> httpx2.Response:
        """`GET path`."""
        return self.request("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx2.Response:
        """`POST path` with a JSON body."""
        return self.request("POST", path, body, **options)

    def put(self, path: str, body: Any = None, **options: Any) -> httpx2.Response:
        """`PUT path` with a JSON body."""
        return self.request("PUT", path, body, **options)

    def patch(self, path: str, body: Any = None, **options: Any) -> httpx2.Response:
        """`PATCH path` with a JSON body."""
        return self.request("PATCH", path, body, **options)

    def delete(self, path: str, **options: Any) -> httpx2.Response:
        """`DELETE path`."""
        return self.request("DELETE", path, **options)


class Agent:
    """A registered agent: its id, pool, session, token and renewal token."""

    def __init__(self, api: Api, registered: Mapping[str, Any]) -> None:
        self._api = api
        self.registered = dict(registered)
        self.agent_id: str = registered["agent_id"]
        self.pool: str = registered["pool"]
        self.session_id: str = registered["session_id"]
        self.token: str = registered["token"]

    def post(self, path: str, body: Any = None, **options: Any) -> httpx2.Response:
        """`POST path` with the agent's token."""
        return self._api.post(path, body, token=self.token, **options)

    def claim(self, **more: Any) -> httpx2.Response:
        """Claim as this agent."""
        return self.post("/api/queue/claim", {"agent_id": self.agent_id, **more})


# -- running the server ------------------------------------------------------------------------------------------


class _Thread:
    """The app under uvicorn in an event loop of a thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="hybridq-test-server", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self.url = ""

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(START_S), "the server did not start"
        if self._failed is not None:
            raise self._failed

    def ask_to_stop(self) -> None:
        if self._loop is not None and self._stop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)

    def wait(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the server did not stop"

    def stop(self) -> None:
        self.ask_to_stop()
        self.wait(30.0)
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as problem:
            self._failed = problem
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        from api.app import create_app
        from api.server import _drain, _Uvicorn

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = create_app(self._settings)
        with socket.create_server(("127.0.0.1", 0), backlog=2048) as door:
            async with app.lifespan(), _Uvicorn(app, self._settings, door) as serving:
                self.url = f"http://127.0.0.1:{serving.port}"
                self._ready.set()
                await self._stop.wait()
                app.state.plane.stop()
                await _drain(app.state.plane, 0)


class _Process:
    """The server as `hybridq serve` runs it, in a process of its own."""

    def __init__(self, settings: Settings) -> None:
        import tempfile

        self._folder = tempfile.TemporaryDirectory(prefix="hq-api-")
        self.log_path = Path(self._folder.name) / "log"
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        given = {key: value for key, value in msgspec.to_builtins(self._settings).items() if value is not None}
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.api.client", json.dumps(given)],
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server ended at start:\n{self.log_path.read_text(errors='replace')}")
        self.url = json.loads(line)["url"]

    def ask_to_stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> None:
        assert self._process is not None
        self._process.wait(timeout_s)

    def stop(self) -> None:
        if self._process is None:
            return
        self.ask_to_stop()
        try:
            self._process.wait(30.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5.0)
            raise
        finally:
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._folder.cleanup()


def serve(settings: str) -> int:
    """Run the server of a `_Process`, and say on the first line of standard output where it is."""
    from api.server import run

    def announce(listening: Any) -> None:
        print(msgspec.json.encode(listening).decode(), flush=True)

    return run(msgspec.convert(json.loads(settings), Settings), announce=announce)


# -- small helps ---------------------------------------------------------------------------------------------------


def problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """Return the problem details of an answer, which must be this problem in full."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "code", "instance"} <= body.keys(), body
    assert (body["status"], body["code"]) == (status, code), body
    return body


def instant(text: str) -> dt.datetime:
    """Return the instant in an RFC 3339 text, which must be in UTC with a Z."""
    assert text.endswith("Z"), text
    return dt.datetime.fromisoformat(text)


@contextlib.contextmanager
def took(less_than_s: float) -> Iterator[None]:
    """Hold a block to a time that even a busy machine keeps."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < less_than_s


__all__ = ["Agent", "Api", "instant", "problem", "serve", "took", "wait_until"]

if __name__ == "__main__":
    sys.exit(serve(sys.argv[1]))
