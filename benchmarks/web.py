"""Does a `Work` over HTTP: a server process of its own, `concurrency` open connections, one call after another on each.

`what` is an endpoint (claim, enqueue, complete, get, list, stats, register, heartbeat), `life` (claim, then complete
that claims the next), `parked` (long polls that nothing comes for), or `noop`: a handler that does nothing, on the same
server program, the limit of all others.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import uvloop

from hybridq import Access, JobSpec, Queue

from .work import Done, Work, answer, payload_of, told, wait_for_go

UNBOUND: Final = {f"HYBRIDQ_RATE_{kind}": "0" for kind in ("CLAIM", "REPORT", "ENQUEUE", "READ", "ADMIN", "AUTH")}
STARTS_WITHIN_S: Final = 30.0
PARKS_WITHIN_S: Final = 60.0
LOOKED_AT_S: Final = 10.0


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection that carries one request at a time."""

    def __init__(self, host: str, key: str) -> None:
        self._head = f" HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        self._transport: Any = None
        self._held = bytearray()
        self._waiting: deque[asyncio.Future[tuple[int, bytes]]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        end = self._held.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._held[:end]).lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 : head.find(b"\r\n", at) if head.find(b"\r\n", at) > 0 else None]) if at >= 0 else 0
        if len(self._held) < end + 4 + length:
            return
        body = bytes(self._held[end + 4 : end + 4 + length])
        del self._held[: end + 4 + length]
        self._waiting.popleft().set_result((int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        for future in self._waiting:
            future.set_exception(exc or ConnectionError("the server closed the connection"))

    def send(self, method: str, path: str, body: Any = None) -> asyncio.Future[tuple[int, bytes]]:
        """Send a request; the future is of its status and body."""
        data = b"" if body is None else msgspec.json.encode(body)
        self._transport.write(f"{method} {path}{self._head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request; return what it answers. Raises `RuntimeError` for a status of 400 and above."""
        status, data = await self.send(method, path, body)
        if status >= 400:
            raise RuntimeError(f"{method} {path}: {status} {data[:300]!r}")
        return msgspec.json.decode(data) if data else None


class Served:
    """A server process: hybridq's, or the no-op."""

    def __init__(self, work: Work, engine: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        environment = {**os.environ, **UNBOUND, "HYBRIDQ_LOG_LEVEL": "ERROR"}
        if work.what == "noop":
            command = [engine, *_flags(engine, self.port), f"{__package__}.noop:app"]
        else:
            command = ["hybridq.cli", "serve", "--redis", work.url, "--port", str(self.port), "--server", engine]
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def wait(self) -> None:
        """Wait until it listens."""
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the server did not start") from None
                time.sleep(0.05)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def _flags(engine: str, port: int) -> list[str]:
    if engine == "granian":
        return [
            "--interface",
            "asgi",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--log-level",
            "error",
            "--no-access-log",
        ]
    return ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--no-access-log"]


class Load:
    """The calls of one endpoint, and what has to be there before."""

    def __init__(self, work: Work, connections: list[Connection]) -> None:
        self._work, self._connections = work, connections
        self._payload = payload_of(work.payload_bytes)
        self._leases: list[dict[str, Any]] = []
        self._ids: list[str] = []
        self._numbers = itertools.count()
        self.latencies_ms: list[float] = []

    async def prepare(self) -> None:
        """Put in place what the calls are about."""
        first, what = self._connections[0], self._work.what
        if what in ("claim", "life", "complete", "get", "list"):
            with Queue("default", redis=self._work.url) as queue:
                for _ in range(0, self._work.jobs + 1000, 1000):
                    made = queue.enqueue_many([JobSpec(type="build", payload=self._payload)] * 1000)
                    self._ids += [f"default~{one.job_id}" for one in made if not isinstance(one, Exception)]
        while what == "complete" and len(self._leases) < self._work.jobs:
            body = {"agent_id": "bench", "max": 50, "start": True, "lease_seconds": 600}
            self._leases += (await first.call("POST", "/api/queue/claim", body))["jobs"]
        if what == "heartbeat":
            body = {"agent_id": "bench", "boot_id": "one"}
            self._session = (await first.call("POST", "/api/agents/register", body))["session_id"]

    async def run(self) -> int:
        """Make all calls; returns how many."""
        left = iter(range(self._work.jobs))

        async def one(connection: Connection) -> None:
            call: Callable[[Connection], Awaitable[object]] = getattr(self, f"_{self._work.what}")
            for _ in left:
                begin_s = time.perf_counter()
                await call(connection)
                self.latencies_ms.append((time.perf_counter() - begin_s) * 1000)

        async def lives(connection: Connection) -> None:
            body = {"agent_id": "bench", "start": True, "lease_seconds": 600}
            job = (await connection.call("POST", "/api/queue/claim", body))["job"]
            for _ in left:
                begin_s = time.perf_counter()
                ended = {"lease_token": job["lease_token"], "outcome": "success", "claim_next": {}}
                done = await connection.call("POST", f"/api/queue/jobs/{job['id']}/complete", ended)
                job = done["next"][0]
                self.latencies_ms.append((time.perf_counter() - begin_s) * 1000)

        each = lives if self._work.what == "life" else one
        await asyncio.gather(*(each(connection) for connection in self._connections))
        return self._work.jobs

    def _noop(self, connection: Connection) -> Awaitable[object]:
        return connection.call("POST", "/noop", {"agent_id": "bench"})

    def _claim(self, connection: Connection) -> Awaitable[object]:
        return connection.call("POST", "/api/queue/claim", {"agent_id": "bench", "lease_seconds": 600})

    def _enqueue(self, connection: Connection) -> Awaitable[object]:
        return connection.call("POST", "/api/queue/jobs", {"type": "build", "payload": self._payload})

    def _complete(self, connection: Connection) -> Awaitable[object]:
        job = self._leases.pop()
        body = {"lease_token": job["lease_token"], "outcome": "success"}
        return connection.call("POST", f"/api/queue/jobs/{job['id']}/complete", body)

    def _get(self, connection: Connection) -> Awaitable[object]:
        return connection.call("GET", f"/api/queue/jobs/{self._ids[next(self._numbers) % len(self._ids)]}")

    def _list(self, connection: Connection) -> Awaitable[object]:
        return self._pages(connection)

    async def _pages(self, connection: Connection) -> None:
        """Read 1,000 jobs, as five pages of 200."""
        path = "/api/queue/jobs?pool=default&limit=200"
        cursor = ""
        for _ in range(5):
            page = await connection.call("GET", path + cursor)
            cursor = f"&cursor={page['next_cursor']}"

    def _stats(self, connection: Connection) -> Awaitable[object]:
        return connection.call("GET", "/api/queue/stats?pool=default")

    def _register(self, connection: Connection) -> Awaitable[object]:
        body = {"agent_id": f"agent-{next(self._numbers)}", "boot_id": "one"}
        return connection.call("POST", "/api/agents/register", body)

    def _heartbeat(self, connection: Connection) -> Awaitable[object]:
        return connection.call("POST", "/api/agents/bench/heartbeat", {"session_id": self._session})


async def measure(work: Work, port: int, key: str) -> Done:
    """Connect, prepare, wait, and load."""
    loop, host = asyncio.get_running_loop(), f"127.0.0.1:{port}"
    connections = []
    for _ in range(work.jobs + 1 if work.what == "parked" else work.concurrency):
        _, connection = await loop.create_connection(lambda: Connection(host, key), "127.0.0.1", port)
        connections.append(connection)
    if work.what == "parked":
        return await _parked(connections, work.cut_s or LOOKED_AT_S)
    load = Load(work, connections)
    await load.prepare()
    wait_for_go()
    begin_s = time.perf_counter()
    jobs = await load.run()
    return Done(jobs=jobs, took_s=time.perf_counter() - begin_s, latencies_ms=load.latencies_ms)


async def _parked(connections: list[Connection], look_s: float) -> Done:
    """Park a long poll on each connection but one; then look for a while at what they cost, idle."""
    *parked, asks = connections
    body = {"agent_id": "bench", "wait_seconds": 50}
    polls = [connection.send("POST", "/api/queue/claim", body) for connection in parked]
    deadline_s = time.monotonic() + PARKS_WITHIN_S
    while f"\nhybridq_claims_parked {float(len(polls))}".encode() not in (await asks.send("GET", "/metrics"))[1]:
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"{len(polls)} long polls are not parked after {PARKS_WITHIN_S:.0f} s")
        await asyncio.sleep(0.2)
    wait_for_go()
    begin_s = time.perf_counter()
    await asyncio.sleep(look_s)
    took_s = time.perf_counter() - begin_s
    waiting = sum(not poll.done() for poll in polls)
    if waiting < len(polls):
        raise RuntimeError(f"{len(polls) - waiting} of {len(polls)} long polls were answered")
    return Done(jobs=waiting, took_s=took_s)


def main() -> None:
    work = told()
    engine = work.how if work.how in ("uvicorn", "granian") else "uvicorn"
    served = Served(work, engine)
    try:
        served.wait()
        with Access(redis=work.url) as access:
            _, key = access.create_key("bench", namespace="default", scopes=["*"], created_by="bench")
        answer(uvloop.run(measure(work, served.port, key or "")))
    finally:
        served.stop()


if __name__ == "__main__":
    main()
