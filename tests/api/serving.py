"""`hybridq serve` as people run it: a process of its own, asked over a socket."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "hybridq.cli")
ENDS_S = 20.0
STARTS_S = 40.0


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


class Serving:
    """A server process. `said` is what it printed when requests were answered; `errors` what it logs."""

    def __init__(
        self,
        *arguments: str,
        environ: Mapping[str, str],
        command: tuple[str, ...] = COMMAND,
        verb: str = "serve",
        cwd: Path = ROOT,
    ) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HYBRIDQ_")}
        self.process = subprocess.Popen(
            [*command, verb, "--port", "0", "--json", *arguments],
            env=clean | dict(environ),
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._errors: list[str] = []
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()
        line = self.line()
        if not line:
            self.close()
            raise AssertionError(f"the server ended with {self.process.returncode}: {self.errors}")
        self.said: dict[str, Any] = json.loads(line)
        self.url: str = self.said["url"]

    def line(self) -> str:
        """Return the next line it prints; empty when it has ended, or says nothing in time."""
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], STARTS_S)
        return self.process.stdout.readline() if readable else ""

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._errors.append(line)

    @property
    def errors(self) -> str:
        return "".join(self._errors)

    def connect(self, url: str | None = None) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urlsplit(url or self.url).netloc, timeout=ENDS_S)

    def ask(self, path: str, method: str = "GET", *, url: str | None = None, **options: Any) -> Answer:
        connection = self.connect(url)
        try:
            connection.request(method, path, **options)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def tell(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end and return the exit code."""
        code = self.process.wait(ENDS_S)
        self._reader.join(ENDS_S)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(ENDS_S)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def refused(*arguments: str, environ: Mapping[str, str], verb: str = "serve", cwd: Path = ROOT) -> tuple[int, str]:
    """Run a server that must not start; return its exit code and what it said."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HYBRIDQ_")}
    done = subprocess.run(
        [*COMMAND, verb, "--port", "0", *arguments],
        env=clean | dict(environ),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=ENDS_S,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr
