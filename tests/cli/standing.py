"""`hybridq up` as a newcomer has it: a process with its agent, and commands in another terminal, which find it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hybridq import Fleet, Queue
from tests.api.serving import Serving

from .conftest import ROOT, Ran

ENDS_S = 60.0


class Standing(Serving):
    """`hybridq up` on a data directory of its own; `terminal` runs commands there."""

    def __init__(self, data_dir: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self._begun: list[subprocess.Popen[str]] = []
        super().__init__(*arguments, environ={"HYBRIDQ_DATA_DIR": str(data_dir), **(environ or {})}, verb="up")

    @property
    def environ(self) -> dict[str, str]:
        """What the other terminal has: nothing but the place."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HYBRIDQ_")}
        return clean | {"HYBRIDQ_DATA_DIR": str(self.data_dir), "PYTHONPATH": str(ROOT)}

    def begin(self, *arguments: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
        """Start a command in the other terminal."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            [sys.executable, "-m", "hybridq.cli", *arguments],
            **{"cwd": cwd, "env": self.environ, "text": True, **pipes, **options},
        )
        self._begun.append(process)
        return process

    def run(self, *arguments: str, cwd: Path) -> Ran:
        """Run a command in the other terminal to its end."""
        process = self.begin(*arguments, cwd=cwd)
        out, err = process.communicate(timeout=ENDS_S)
        return Ran(process.returncode, out, err)

    def tidy(self) -> None:
        """End what still runs in the other terminal."""
        for process in self._begun:
            process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        self._begun.clear()

    def close(self) -> None:
        self.tidy()
        super().close()

    def queue(self, name: str = "default") -> Queue:
        return Queue(name, data_dir=self.data_dir)

    def agents(self) -> dict[str, str]:
        """Names and statuses of all agents there ever were."""
        with Fleet(data_dir=self.data_dir) as fleet:
            return {one.agent_id: one.status.value for one in fleet.agents().items}

    def agent_processes(self) -> list[int]:
        """The process ids of the agents that the server process has started."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    if parent == self.process.pid and b"hybridq.cli._local" in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
        return found

    def checked(self) -> None:
        """Every invariant holds."""
        ran = self.run("check", "--json", cwd=ROOT)
        assert ran.document["violations"] == []


def lives(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def git(folder: Path, *arguments: str) -> str:
    """Run git there as somebody."""
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def repository(folder: Path, files: Mapping[str, str]) -> str:
    """Make a repository with one commit of these files, and return its id."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "--quiet")
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Begin")
    return git(folder, "rev-parse", "HEAD")


def payload_of(job: Any) -> dict[str, Any]:
    """The payload of a job, as JSON."""
    found: dict[str, Any] = json.loads(job.payload)
    return found
