"""The log of one lease, from the job's output to the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

__all__ = ["JobLog", "LogSummary"]


class LogSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a log."""

    bytes_written: int
    bytes_sent: int
    bytes_dropped: int
    truncated: bool
    delivered: bool
    redactions: int
    last_lines: tuple[str, ...]
    refused: str | None = None
    """The code of the answer after which nothing more was sent, such as `stale_lease`."""


class JobLog:
    """The log of one lease."""

    def __init__(
        self,
        folder: Path,
        *,
        append: Callable[[int, str], int],
        secrets: Iterable[str] = (),
        bytes_max: int = 4 * 1024 * 1024,
        tail_bytes: int = 256 * 1024,
        chunk_bytes: int = 64 * 1024,
        flush_s: float = 0.5,
    ) -> None: ...

    def write(self, data: bytes, stream: str = "stdout") -> None:
        """Take output of the job; from any thread, never waits for the network."""

    def note(self, text: str) -> None:
        """Say a line of the agent's own, `[hybridq] …`."""

    def add_secrets(self, values: Iterable[str]) -> None:
        """Look for these values too, from here on."""

    def redact(self, text: str) -> str:
        """Return a text of the job made harmless and without secrets."""
        return text

    def close(self, *, within_s: float) -> LogSummary:
        """Send what is left for at most `within_s` seconds, and say what became of the log."""
        return LogSummary(
            bytes_written=0,
            bytes_sent=0,
            bytes_dropped=0,
            truncated=False,
            delivered=True,
            redactions=0,
            last_lines=(),
        )

    def abandon(self) -> None:
        """Stop at once and delete the spool."""
