"""Jobs to run for tests: real processes in a folder of the test's, and ways to see whether they live."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hybridq.agent.logs import JobLog
from hybridq.agent.work import Ended, JobFacts, Run, WorkSettings
from hybridq.agent.work.keeper import now_s
from hybridq.agent.work_of import Git, Step, Work
from tests.servers import wait_until

LONG_S = 30.0
"""How long a test waits for what has to happen at once."""


class Job:
    """A run with its log. Steps see `$AT`, the test's own folder, where they leave word of themselves."""

    def __init__(
        self,
        folder: Path,
        *steps: Step | str,
        git: Git | None = None,
        env: dict[str, Any] | None = None,
        secrets: Iterable[str] = (),
        lease_s: float = 600.0,
        timeout_s: float | None = None,
        job_id: str = "pool~job-1",
        attempt: int = 1,
        **settings: Any,
    ) -> None:
        self.folder, self.work_dir = folder, folder / "work"
        self._sent: list[str] = []
        self.log = JobLog(folder / "log", append=self._append, secrets=secrets)
        named = [step if isinstance(step, Step) else Step(name=f"s{at}", run=step) for at, step in enumerate(steps, 1)]
        self.lease_ends_at_s = now_s() + lease_s
        self.run = Run(
            Work(steps=tuple(named), git=git),
            job=JobFacts(
                id=job_id, fence=7, attempt=attempt, pool="pool", agent_id="agent-1", type="test", timeout_s=timeout_s
            ),
            env={"AT": str(folder), **(env or {})},
            secrets=secrets,
            folder=self.work_dir,
            log=self.log,
            settings=WorkSettings(**settings),
            lease_ends_at_s=self.lease_ends_at_s,
        )
        self._ended: Ended | None = None
        self._thread = threading.Thread(target=self._run, name="slot", daemon=True)

    def _append(self, offset: int, data: str) -> int:
        self._sent.append(data)
        return offset + len(data.encode())

    def _run(self) -> None:
        self._ended = self.run.run()

    def begin(self) -> Job:
        """Run it in a thread."""
        self._thread.start()
        return self

    def end(self) -> Ended:
        """Wait for the end of it."""
        if self._thread.ident is None:
            self.begin()
        self._thread.join(LONG_S)
        assert self._ended is not None, "the job has not ended"
        return self._ended

    def text(self) -> str:
        """All that was logged."""
        self.log.close(within_s=LONG_S)
        return "".join(self._sent)

    def word(self, name: str) -> str:
        """What a step left in `$AT/<name>`, once it has."""
        return word(self.folder / name)

    def number(self, name: str) -> int:
        """The same, as a number."""
        return int(self.word(name))


def word(path: Path) -> str:
    """The text of a file, as soon as it holds a whole line."""
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), LONG_S, what=f"{path.name} is written")
    return path.read_text().strip()


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet buried does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def marked(folder: Path) -> list[int]:
    """Every process whose environment names `folder`: nothing of a job that is over."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                environ = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(each.startswith(b"HYBRIDQ_WORKSPACE=" + os.fsencode(folder)) for each in environ):
                found.append(int(entry))
    return found
