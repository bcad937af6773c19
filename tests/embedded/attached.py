"""Another process that holds the embedded server of a data directory. Run as a module, it is that process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CHECKOUT = Path(__file__).resolve().parents[2]
WAIT_S = 30.0


class Attached:
    """A process that started or attached to the server of `data_dir`, and waits to be told how to end.

    `said` is what it found; when it was refused, `said["error"]` is the error's class and text.
    """

    def __init__(self, data_dir: Path, **environ: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.embedded.attached", str(data_dir)],
            cwd=CHECKOUT,
            env={**os.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._said: dict[str, Any] | None = None

    @property
    def said(self) -> dict[str, Any]:
        """What the process reported; waits for it."""
        if self._said is None:
            assert self._process.stdout is not None
            self._said = json.loads(self._process.stdout.readline())
        return self._said

    def close(self) -> None:
        """Let it call `close()` and end."""
        self._tell("close")

    def leave(self) -> None:
        """Let it end normally without calling `close()`."""
        self._tell("leave")

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.communicate(timeout=WAIT_S)

    def _tell(self, how: str) -> None:
        assert self.said
        self._process.communicate(how, timeout=WAIT_S)
        assert self._process.returncode == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()


def main(data_dir: Path) -> None:
    """Start or attach, report, and end as standard input says; its end ends us too."""
    from hybridq.embedded import start_or_attach
    from hybridq.errors import HybridqError

    try:
        server = start_or_attach(data_dir)
    except HybridqError as refused:
        print(json.dumps({"error": [type(refused).__name__, str(refused)]}), flush=True)
        return
    print(json.dumps({"started_here": server.started_here, "pid": server.pid, "url": server.url}), flush=True)
    if sys.stdin.read() == "close":
        server.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
