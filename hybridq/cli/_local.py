"""The agents that `hybridq up` keeps beside its server: child processes, started again when they end, drained with it.

```
up ── HYBRIDQ_AGENT_… ──► hybridq agent      a registration key for one use, made anew for each start
   ── stdin ────────────► end of file: up is gone, so the agent ends by itself, also after a SIGKILL
   ── SIGTERM ──────────► drain; again: hand back what runs
```

Each has a name, and a folder that no other process uses: so it is the same agent after a restart, whose jobs are not
waited for until their leases end.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import structlog

if sys.platform != "win32":
    import fcntl

__all__ = ["LocalAgents", "child"]

log = structlog.get_logger("hybridq")

_START: Final = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from hybridq.cli._local import child; sys.exit(child())"
)
FINAL: Final = (2, 3)
"""Exit codes of an agent that is not to start again: its settings will not do, another agent took its name."""
AGAIN_S: Final = (0.5, 30.0)
STEADY_S: Final = 60.0
"""An agent that lived so long starts again at once."""
KEY_LASTS_S: Final = 600.0
DRAIN_GRACE_S: Final = 10.0
"""How long running jobs may go on after Ctrl-C, unless HYBRIDQ_AGENT_DRAIN_GRACE_SECONDS says so."""
RELEASE_S: Final = 15.0
NOT_PASSED_ON: Final = frozenset(
    f"HYBRIDQ_AGENT_{name}" for name in ("CONFIG", "KEY", "KEY_FILE", "OIDC_TOKEN_FILE", "NAME", "STATE_DIR", "URL")
)
"""What would make it somebody else's agent."""


class LocalAgents:
    """Agents of the server at `url`, from enter to exit; exit drains them, and hands back at once when cancelled.

    `settings` are the server's; `json`: their log is JSON. Their standard output and log go to our standard error.
    """

    def __init__(self, url: str, settings: Any, environ: Mapping[str, str], *, count: int, json: bool) -> None:
        self._url, self._settings, self._count = url, settings, count
        self._arguments = ["--json"] if json else []
        own = {name: value for name, value in environ.items() if name.startswith("HYBRIDQ_AGENT_")}
        others = {name: value for name, value in environ.items() if not name.startswith("HYBRIDQ_")}
        self._environ = others | {name: value for name, value in own.items() if name not in NOT_PASSED_ON}
        self._environ.setdefault("HYBRIDQ_AGENT_DRAIN_GRACE_SECONDS", f"{DRAIN_GRACE_S:g}")
        # Who may enqueue here may run anything here; a folder of one's own is what `--here` asks for.
        self._environ.setdefault("HYBRIDQ_AGENT_OUTSIDE_WORKSPACE", "1")
        if settings.tls_cert is not None:
            self._environ.setdefault("HYBRIDQ_AGENT_CA_FILE", str(settings.tls_cert))
        self.pool = self._environ.get("HYBRIDQ_AGENT_POOL", "default")
        self._ending = asyncio.Event()
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._locks = contextlib.ExitStack()

    async def __aenter__(self) -> Self:
        names = self._take_names()
        self._tasks = [asyncio.create_task(self._keep(name, folder)) for name, folder in names.items()]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._tell(signal.SIGTERM)
        try:
            await asyncio.gather(*map(asyncio.shield, self._tasks))
        except asyncio.CancelledError:
            self._tell(signal.SIGTERM)
            await asyncio.wait(self._tasks, timeout=RELEASE_S)
            self._tell(signal.SIGKILL)
            await asyncio.wait(self._tasks, timeout=RELEASE_S)
            raise
        finally:
            self._locks.close()

    def _tell(self, number: int) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    # -- names ---------------------------------------------------------------------------------------------------

    def _take_names(self) -> dict[str, Path]:
        """Return names that no other process of this machine uses for the same server, each with its folder."""
        folder, base = self._place()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found: dict[str, Path] = {}
        number = 0
        while len(found) < self._count:
            number += 1
            name = base if number == 1 else f"{base}-{number}"
            lock = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            self._locks.callback(os.close, lock)
            found[name] = folder / name
        return found

    def _place(self) -> tuple[Path, str]:
        """Return the folder of our agents' folders, and how they are called: by the host where others share a Redis."""
        from hybridq.embedded import default_data_dir

        settings = self._settings
        agents = Path(settings.data_dir or default_data_dir()).expanduser().absolute() / "agents"
        if settings.redis_url is None:
            return agents / settings.namespace, "local"
        host = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname().partition(".")[0])[:40].strip("-._") or "host"
        # An agent remembers its session, which is one of this very Redis.
        there = hashlib.sha256(settings.redis_url.encode()).hexdigest()[:12]
        return agents / there / settings.namespace, f"{host}-local"

    # -- one agent -----------------------------------------------------------------------------------------------

    async def _keep(self, name: str, folder: Path) -> None:
        """Have an agent run until we end."""
        again_s = AGAIN_S[0]
        while True:
            began = time.monotonic()
            code = await self._run(name, folder)
            if self._ending.is_set():
                return
            if code in FINAL:
                log.error(
                    "local_agent.refused", agent_id=name, advice="mend what it says above, or start one elsewhere"
                )
                return
            again_s = AGAIN_S[0] if time.monotonic() - began > STEADY_S else min(AGAIN_S[1], again_s * 2)
            log.warning("local_agent.ended", agent_id=name, exit_code=code, again_s=again_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), again_s)
                return

    async def _run(self, name: str, folder: Path) -> int | None:
        """Run an agent to its end and return its exit code; None: it could not be started."""
        try:
            key = await asyncio.to_thread(self._make_key, name)
            if self._ending.is_set():
                return 0
            process = await self._start(name, folder, key)
        except Exception as problem:  # Redis may be away for a while, or the machine have no process left
            log.warning("local_agent.not_started", agent_id=name, error_type=type(problem).__name__)
            return None
        self._processes[name] = process
        if self._ending.is_set():  # it was being started when the others were told
            self._tell(signal.SIGTERM)
        try:
            return await process.wait()
        finally:
            del self._processes[name]
            if process.stdin is not None:
                process.stdin.close()

    async def _start(self, name: str, folder: Path, key: str) -> asyncio.subprocess.Process:
        flags = ["-I"] if sys.flags.isolated else []
        root = str(Path(__file__).resolve().parents[2])
        told = {"URL": self._url, "NAME": name, "STATE_DIR": str(folder), "KEY": key}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, *flags, "-c", _START, root, *self._arguments),
            env=self._environ | {f"HYBRIDQ_AGENT_{setting}": value for setting, value in told.items()},
            stdin=asyncio.subprocess.PIPE,
            stdout=sys.stderr.fileno(),
            # Ctrl-C in a terminal reaches us alone: we drain it while the server still answers.
            start_new_session=True,
        )

    def _make_key(self, name: str) -> str:
        from hybridq import Access

        settings = self._settings
        with Access(redis=settings.redis_url, data_dir=settings.data_dir) as access:
            made = access.create_registration_key(
                settings.namespace, self.pool, name=name, lasts_s=KEY_LASTS_S, created_by="developer"
            )
        assert made.text is not None
        return made.text


# -- in the child --------------------------------------------------------------------------------------------------


def child() -> int:
    """Be the agent, as long as whoever started us lives."""
    from hybridq.cli import main

    threading.Thread(target=_end_with_parent, name="hybridq-parent", daemon=True).start()
    return main(["agent", *sys.argv[1:]])


def _end_with_parent() -> None:
    """Stop when our standard input ends: politely, then by what cannot be declined."""
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    for number, wait_s in ((signal.SIGTERM, 1.0), (signal.SIGTERM, RELEASE_S), (signal.SIGKILL, 0.0)):
        os.kill(os.getpid(), number)
        time.sleep(wait_s)
