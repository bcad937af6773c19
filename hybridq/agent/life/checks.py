"""Whether this machine is fit for another job. A thread of its own looks: a disk that hangs stops no beat."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import Final

import structlog

from .metrics import Load, memory_bytes
from .settings import AgentSettings

__all__ = ["Checks"]

log = structlog.get_logger("hybridq")

EVERY_S: Final = 5.0
COMMAND_S: Final = 30.0
STALE_S: Final = 60.0
"""Nothing is claimed on a look that is older: whatever is looked at hangs."""


class Checks:
    """The gates before a claim, and the figures that go with heartbeats.

    `failed`: why nothing may be claimed now, in words; None when the machine is fit.
    """

    def __init__(self, settings: AgentSettings, *, clock: Callable[[], float], changed: Callable[[], None]) -> None:
        self._settings, self._clock, self._changed = settings, clock, changed
        self._load = Load(settings.work_folder)
        self._stop = threading.Event()
        self._failed: str | None = "not looked yet"
        self._looked_at_s: float | None = None
        self.metrics: dict[str, float] = {}

    @property
    def failed(self) -> str | None:
        """Why nothing may be claimed now."""
        if self._looked_at_s is not None and self._clock() - self._looked_at_s > STALE_S:
            return "checks hang"
        return self._failed

    def look(self) -> None:
        """Look at everything once."""
        failed = self._disk() or self._memory() or self._command()
        before, self._failed = self._failed, failed
        self._looked_at_s = self._clock()
        self.metrics = {**self._load.look(), "checks_failed": 1.0 if failed else 0.0}
        if failed and failed != before:
            log.warning("agent.unfit", component="agent", reason=failed)
        elif before and not failed and before != "not looked yet":
            log.info("agent.fit", component="agent")
        if bool(before) != bool(failed):
            self._changed()

    def fail(self, reason: str) -> None:
        """Claim nothing until the next look: something failed that a look does not see."""
        self._failed = reason
        self._changed()

    def run(self) -> None:
        """Look again and again, until `stop`."""
        while not self._stop.wait(EVERY_S):
            self.look()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def _disk(self) -> str | None:
        try:
            free = shutil.disk_usage(self._settings.work_folder).free
        except OSError as trouble:
            return f"the work folder cannot be looked at: {trouble.strerror}"
        least = self._settings.disk_free_min
        return f"{free >> 20} MiB of disk are free, {least >> 20} must be" if free < least else None

    def _memory(self) -> str | None:
        _, available = memory_bytes()
        least = self._settings.memory_free_min
        if available is None or available >= least:
            return None
        return f"{available >> 20} MiB of memory are available, {least >> 20} must be"

    def _command(self) -> str | None:
        command = self._settings.health_command
        if command is None:
            return None
        try:
            code = _run_for(command, COMMAND_S)
        except OSError as trouble:
            return f"the health command cannot be run: {trouble.strerror}"
        return None if code == 0 else f"the health command ended with {'no answer' if code is None else code}"


def _run_for(command: str, within_s: float) -> int | None:
    """Run a shell command and return its exit code; None when it had to be killed, with all it started."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None
