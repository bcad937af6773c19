"""What jobs run in these tests, and what a test sees of them: files in a folder that both know, and the process table.

A job says how far it is by a file, and goes on when it finds another: nobody waits for a time to pass.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

PYTHON = sys.executable
PAUSE_S = "0.02"


def payload(*runs: str, **more: Any) -> dict[str, Any]:
    """Return what `hybridq agent` runs: one step for each text; `more` are further keys, such as `env`."""
    return {"steps": [{"name": f"step {number}", "run": run} for number, run in enumerate(runs, 1)], **more}


def say(path: Path) -> str:
    """Return shell that writes the pid of the shell into a file, whole or not at all."""
    return f"echo $$ > '{path}.new' && mv '{path}.new' '{path}'"


def wait_for(path: Path) -> str:
    """Return shell that goes on once a file is there."""
    return f"while [ ! -e '{path}' ]; do sleep {PAUSE_S}; done"


def python(program: Path, *arguments: object) -> str:
    """Return shell that runs a program of the test."""
    return " ".join([PYTHON, "-I", "-S", f"'{program}'", *(f"'{argument}'" for argument in arguments)])


def number_in(path: Path) -> int:
    """Return the number that a job wrote into a file."""
    return int(path.read_text())


def strays(folder: Path) -> list[int]:
    """Return the processes of jobs whose workspace is below a folder, by the environment every job is given."""
    return [pid for pid in _pids() if f"HYBRIDQ_WORKSPACE={folder}".encode() in _environment_of(pid)]


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and entry.name != _SELF]


_SELF = str(os.getpid())


def _environment_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
