"""Runs command lines in this process, and in processes of their own where that is what matters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from hybridq import Queue
from hybridq.cli import main

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "hybridq.cli"]


@dataclass(frozen=True)
class Ran:
    """A command line that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed, as the one JSON document it has to be."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error it printed as JSON."""
        error: dict[str, Any] = json.loads(self.err)["error"]
        return error


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """The command line sends the log elsewhere; the next test finds it as it was."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def hybridq(
    redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    """Run a command line against an empty server: `hybridq("jobs", "--json")`."""
    monkeypatch.setenv("HYBRIDQ_REDIS_URL", redis_url)
    monkeypatch.setenv("HYBRIDQ_NAMESPACE", namespace)

    def run(*arguments: str) -> Ran:
        code = main(arguments)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def queue(redis_url: str, namespace: str) -> Iterator[Queue]:
    """The queue that the command lines are about."""
    with Queue(redis=redis_url, namespace=namespace) as opened:
        yield opened


@pytest.fixture
def start(redis_url: str, namespace: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command line as a process of its own; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        environment = os.environ | {"HYBRIDQ_REDIS_URL": redis_url, "HYBRIDQ_NAMESPACE": namespace}
        pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
        process = subprocess.Popen(
            [*COMMAND, *arguments], env=environment, **{"cwd": ROOT, "text": True, **pipes, **options}
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()
