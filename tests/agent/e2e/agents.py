"""Agents as processes: `hybridq agent`, kept up as systemd would, killed, stopped, cut off and let go on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.agent.e2e.house import COMMAND, ENDS_S, House, environment
from tests.agent.e2e.tap import Tap
from tests.servers import _die_with_parent, wait_until

AGAIN_S = 0.1
"""RestartSec= of systemd, by default."""


class AgentProcess:
    """One agent, on a machine of its own as far as it can tell: its folders, its way to the API, its environment.

    `settings` are those of `hybridq agent`, by the names of its options; `env` further variables. While `kept_up`, it
    is started again whenever it ends by itself or is killed.
    """

    def __init__(
        self,
        house: House,
        name: str,
        *,
        env: Mapping[str, str] | None = None,
        key: str | None = None,
        kept_up: bool = False,
        **settings: Any,
    ) -> None:
        self.house, self.name = house, name
        self.folder = house.folder / f"agent-{name}"
        self.state, self.work = self.folder / "state", self.folder / "work"
        for folder in (self.state, self.work):
            folder.mkdir(parents=True, exist_ok=True)
        self.pid_path, self.log_path = self.folder / "pid", self.folder / "log"
        self.tap: Tap = house.new_tap(name)
        self.starts = 0
        self._settings = {"pool": house.pool, "key": key or house.registration_key(), **settings}
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._kept_up, self._over = kept_up, threading.Event()
        self._keeper = threading.Thread(target=self._keep_up, name=f"keeps-{name}", daemon=True)
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        self.tap.__enter__()
        self.start()
        if self._kept_up:
            self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        descendants = self.descendants()
        self.kill()
        if self._keeper.is_alive():
            self._keeper.join(ENDS_S)
        for pid in descendants:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.tap.__exit__(kind, exc, trace)
        if exc is not None:
            print(f"--- log of {self.name}\n{self.log[-6000:]}", file=sys.stderr)
            for heard in self.tap.heard[-10:]:
                print(f"{heard.method} {heard.path} {heard.status} {str(heard.answer)[:200]}", file=sys.stderr)

    # -- life ----------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The process id of its latest start."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process exists; a stopped one does."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it has logged in all its lives."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> None:
        """Start it; `wait_registered` waits until the server knows of it."""
        with self._lock, self.log_path.open("ab") as log:
            self.starts += 1
            self._process = subprocess.Popen(
                [*COMMAND, "agent"],
                cwd=self.folder,
                env=environment(**dict(self._variables()), **self._env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
            self.pid_path.write_text(str(self._process.pid))

    def _variables(self) -> Iterator[tuple[str, str]]:
        own = {"url": self.tap.url, "name": self.name, "state_dir": self.state, "work_dir": self.work}
        for name, value in (own | self._settings).items():
            yield f"HYBRIDQ_AGENT_{name.upper()}", str(int(value) if isinstance(value, bool) else value)

    def _keep_up(self) -> None:
        while not self._over.is_set():
            process = self._process
            assert process is not None
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(AGAIN_S)
            if process.returncode is not None and not self._over.wait(AGAIN_S):
                with self._lock:
                    if not self.running and not self._over.is_set():
                        self.start()
        # The kernel kills a process whose parent's thread has ended: this one started it.
        assert self._process is not None
        self._process.wait()

    @contextlib.contextmanager
    def held_down(self) -> Iterator[None]:
        """Nobody starts it again within the block."""
        with self._lock:
            yield

    def retire(self) -> None:
        """Keep it up no longer, and have it drain; it must end well."""
        self._over.set()
        if self.running:
            assert self.terminate() == 0, self.log[-4000:]

    def wait_registered(self, timeout_s: float = ENDS_S) -> None:
        """Wait until it has asked for work."""
        before = len(self.tap.heard)

        def asked() -> bool:
            assert self.running, f"{self.name} ended:\n{self.log[-4000:]}"
            return any(heard.path == "/api/queue/claim" for heard in self.tap.heard[before:])

        if not any(heard.path == "/api/queue/claim" for heard in self.tap.heard):
            wait_until(asked, timeout_s, what=f"{self.name} asks for work")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process of the agent alone."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(ENDS_S)

    def terminate(self) -> int:
        """Ask it to drain and wait for its end; return the exit code."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def ended(self, timeout_s: float = ENDS_S) -> int:
        """Wait for its end and return the exit code."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def pause(self) -> None:
        """Freeze the agent, not what it has started."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)

    def descendants(self) -> list[int]:
        """Return the pids of everything below it, the nearest first; zombies are not counted."""
        return below(self.pid) if self.running else []


# -- the process table ---------------------------------------------------------------------------------------------


def below(pid: int) -> list[int]:
    """Return the living descendants of a process, the nearest first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parent = _parent_of(int(entry.name))
            if parent is not None:
                children.setdefault(parent, []).append(int(entry.name))
    found, at = list(children.get(pid, ())), 0
    while at < len(found):
        found += children.get(found[at], ())
        at += 1
    return found


def lives(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    return _parent_of(pid) is not None


def _parent_of(pid: int) -> int | None:
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else int(parent)
