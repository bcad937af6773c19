"""The worker processes of the demo, each with its jobs' programs in a process group of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Final

__all__ = ["Crew"]

STOP_S: Final = 10.0
_START: Final = "import sys; sys.path.insert(0, sys.argv[1]); from hybridq.demo._worker import main; main()"


class Crew:
    """Workers by name. A whole group dies at once, as a machine does: the worker and what it runs."""

    def __init__(self, url: str, namespace: str, logs: Path) -> None:
        self._url, self._namespace, self._logs = url, namespace, logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def hire(self) -> str:
        """Start one more worker and return its name."""
        name = f"worker-{len(self._processes) + 1}"
        root = str(Path(__file__).resolve().parents[2])
        command = [sys.executable, "-c", _START, root, self._namespace, name, str(self._logs)]
        with (self._logs / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                command,
                # In the environment, since arguments can be read by everybody on the machine.
                env=os.environ | {"HYBRIDQ_REDIS_URL": self._url},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return name

    def kill(self, name: str) -> int:
        """End a worker with SIGKILL and return its exit status, -9."""
        self._end_group(name)
        return self._processes[name].wait()

    def died(self) -> dict[str, str]:
        """Return the workers that ended by themselves, with the last line each said."""
        ended = [name for name, process in self._processes.items() if process.poll() not in (None, -signal.SIGKILL)]
        return {name: self._last_words(name) for name in ended}

    def _last_words(self, name: str) -> str:
        lines = (self._logs / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def dismiss(self) -> None:
        """End every worker: politely, and after a few seconds for certain."""
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        for name, process in self._processes.items():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            # Whatever a worker left behind in its group goes with it.
            self._end_group(name)
            process.wait()
            stdin: IO[bytes] | None = process.stdin
            if stdin is not None:
                stdin.close()

    def _end_group(self, name: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._processes[name].pid, signal.SIGKILL)
