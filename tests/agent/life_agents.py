"""`hybridq agent` as a process, its log as events, and jobs that say how far they are."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from tests.api.client import Api
from tests.proxy import Proxy
from tests.servers import _die_with_parent, wait_until

CHECKOUT = Path(__file__).parents[2]
STARTS_S = ENDS_S = 30.0
SOON_S = 20.0
"""For what takes a moment on an idle machine, and longer on one that is not."""
AGAIN = {"retry": {"base_seconds": 0, "max_seconds": 0}}


class AgentProcess:
    """One agent with a folder of its own. `settings` by their names in the file; it can be started again and again."""

    def __init__(self, url: str, folder: Path, *, key: str | None, env: dict[str, str] | None = None, **settings: Any):
        self.folder, self.state = folder, folder / "state"
        folder.mkdir(parents=True, exist_ok=True)
        self.log_path = folder / "log"
        self._settings = {"url": url, "state_dir": str(self.state), "poll_seconds": 20, **settings}
        self._env = {**({} if key is None else {"HYBRIDQ_AGENT_KEY": key}), **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, ready: bool = True) -> Self:
        """Start it; returns once it says that it works, unless told not to wait for that."""
        before = len(self.events("agent.started"))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HYBRIDQ_")}
        config = self.folder / "agent.toml"
        config.write_text("".join(f"{name} = {_toml(value)}\n" for name, value in self._settings.items()))
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hybridq.cli", "agent", "--json", "--config", str(config), *arguments],
                cwd=self.folder,
                env={**environment, "PYTHONPATH": str(CHECKOUT), **self._env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        if ready:
            wait_until(lambda: self._is_up(before), STARTS_S, what="the agent works")
        return self

    def _is_up(self, before: int) -> bool:
        assert self.running, f"it ended:\n{self.log}"
        return len(self.events("agent.started")) > before

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what it logged under a name, in all its lives."""
        found = []
        for line in self.log.splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                event = json.loads(line)
                if event.get("event") == name:
                    found.append(event)
        return found

    def wait_event(self, name: str, *, count: int = 1, timeout_s: float = SOON_S) -> dict[str, Any]:
        """Wait for an event to have been logged so often, and return the last."""
        wait_until(lambda: len(self.events(name)) >= count, timeout_s, what=f"{name} in the log:\n{self.log[-3000:]}")
        return self.events(name)[-1]

    def files(self, folder: str) -> list[Path]:
        """Return the files of a folder of its journal."""
        return sorted((self.state / folder).glob("*.json"))

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self.running:
            self.signal(signal.SIGKILL)
        self.ended()

    def ended(self, timeout_s: float = ENDS_S) -> int:
        """Wait for its end and return the exit code."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def drain(self) -> int:
        self.signal(signal.SIGTERM)
        return self.ended()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {json.dumps(one)}" for name, one in value.items()) + "}"
    return json.dumps(value)


class Http(Proxy):
    """A network between the agent and the API that breaks on demand."""

    def __init__(self, api: Api) -> None:
        super().__init__(f"redis://127.0.0.1:{api.port}")

    @property
    def url(self) -> str:
        return super().url.replace("redis://", "http://", 1)


class Job:
    """A job that runs until it is told to end. Its shell writes its pid; so does a child that hears no SIGTERM.

    `deaf`: the shell does not end by SIGTERM either, it notes that it was told to.
    """

    def __init__(
        self, api: Api, room: Path, *, pool: str = "default", ends: str = "exit 0", deaf: bool = False, **more: Any
    ) -> None:
        self._api, self._room = api, room
        room.mkdir(parents=True, exist_ok=True)
        heard = f"'touch {room}/told'" if deaf else "-"
        run = (
            f"trap '' TERM; (echo $BASHPID > {room}/child.new; mv {room}/child.new {room}/child; "
            f"while [ ! -e {room}/stop ]; do sleep 0.02; done) & trap {heard} TERM\n"
            f"echo $$ > {room}/shell.new; mv {room}/shell.new {room}/shell\n"
            f"while [ ! -e {room}/stop ]; do sleep 0.02 || true; done; wait; {ends}"
        )
        payload = {"steps": [{"name": "wait", "run": run, "shell": "bash"}]}
        answer = api.post("/api/queue/jobs", {"pool": pool, "payload": payload, **more})
        assert answer.status_code == 201, answer.text
        self.id: str = answer.json()["id"]

    def look(self) -> dict[str, Any]:
        found: dict[str, Any] = self._api.get(f"/api/queue/jobs/{self.id}").json()
        return found

    @property
    def status(self) -> str:
        return str(self.look()["status"])

    def wait_status(self, *statuses: str, timeout_s: float = SOON_S) -> dict[str, Any]:
        wait_until(lambda: self.status in statuses, timeout_s, what=f"{statuses}, it is {self.look()}")
        return self.look()

    def wait_runs(self) -> tuple[int, int]:
        """Wait until shell and child run; return their pids."""
        paths = [self._room / "shell", self._room / "child"]
        wait_until(lambda: all(path.exists() for path in paths), SOON_S, what=f"the job runs: {self.look()}")
        shell, child = (int(path.read_text()) for path in paths)
        return shell, child

    def wait_told(self) -> None:
        """Wait until the shell of a deaf job has heard a SIGTERM."""
        wait_until((self._room / "told").exists, SOON_S, what="the job is told to end")

    def forget(self) -> None:
        """Make ready for `wait_runs` of the next delivery."""
        for name in ("shell", "child"):
            (self._room / name).unlink(missing_ok=True)

    def finish(self) -> None:
        (self._room / "stop").touch()


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def gone(*pids: int, within_s: float = SOON_S) -> None:
    """Wait until none of the processes lives."""
    wait_until(lambda: not any(lives(pid) for pid in pids), within_s, what=f"{pids} are gone")


@contextlib.contextmanager
def agents(api: Api, folder: Path) -> Iterator[Callable[..., AgentProcess]]:
    """Yield what starts agents: `start("a1", lease_seconds=3)`. They are killed at the end; their log is shown then."""
    made: list[AgentProcess] = []

    def start(
        folder_name: str = "a1",
        *arguments: str,
        url: str = "",
        key: str | None = "",
        ready: bool = True,
        **settings: Any,
    ) -> AgentProcess:
        if key == "":
            key = api.key("agents:register")
        agent = AgentProcess(url or api.url, folder / folder_name, key=key, **{"name": folder_name, **settings})
        made.append(agent)
        return agent.start(*arguments, ready=ready)

    try:
        yield start
    finally:
        for agent in made:
            if agent._process is not None:
                agent.kill()
            # Shown with a test that fails.
            print(f"--- {agent.folder.name}\n{agent.log[-6000:]}", file=sys.stderr)
