"""Nonces that were seen, on disk: a signed job that is bound to no job id counts for one job on this agent.

One line a nonce, written and flushed to the disk before the job runs. The file belongs to one process, is bounded, and
forgets a nonce when its signature would no longer count anyway.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from pathlib import Path
from typing import Final

from ...errors import HybridqError

__all__ = ["Replays", "ReplaysUnavailable"]

NONCES_MAX: Final = 100_000
_LINE: Final = re.compile(r"(\d{1,12}) ([A-Za-z0-9_-]{1,64}) ([A-Za-z0-9_-]{16,64}) ([A-Za-z0-9._~-]{1,200})")


class ReplaysUnavailable(HybridqError):
    """The memory of nonces cannot be read or written, or is full: the agent's trouble, outcome `infra_error`."""

    code = "replays_unavailable"

    @property
    def error(self) -> dict[str, str]:
        """As the job's `error`: `{code, message}`."""
        return {"code": self.code, "message": str(self)}


class Replays:
    """The memory of nonces in `folder`, which is made when it is missing. Any thread may ask.

    Raises `ReplaysUnavailable`.
    """

    def __init__(self, folder: str | os.PathLike[str], *, nonces_max: int = NONCES_MAX) -> None:
        self._path = Path(folder) / "replays"
        self._nonces_max = nonces_max
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str], tuple[int, str]] = {}
        self._lines = 0
        self._file: int | None = None
        self._in_doubt = False
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._load()
        except OSError as wrong:
            raise ReplaysUnavailable(f"{self._path}: {wrong.strerror}") from None

    def first(self, key_id: str, nonce: str, *, job: str, not_after: float, now: float) -> bool:
        """Return whether this nonce belongs to `job`: never seen before, or seen with this very job.

        `job` is the full id. When it returns True the nonce is on the disk.
        """
        with self._lock:
            seen = self._seen.get((key_id, nonce))
            if seen is not None:
                return seen[1] == job
            if len(self._seen) >= self._nonces_max or self._lines >= 2 * self._nonces_max:
                self._tidy(now)
            if len(self._seen) >= self._nonces_max:
                raise ReplaysUnavailable(f"{self._path}: holds {self._nonces_max} nonces that are still valid")
            line = f"{int(not_after)} {key_id} {nonce} {job}"
            if not _LINE.fullmatch(line):
                raise ReplaysUnavailable(f"{self._path}: a job id or nonce that cannot be written down")
            try:
                self._append(line)
            except OSError as wrong:
                raise ReplaysUnavailable(f"{self._path}: {wrong.strerror}") from None
            self._seen[key_id, nonce] = (int(not_after), job)
            return True

    def close(self) -> None:
        """Close the file; a later question opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _load(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            # What follows the last newline was torn by a crash, before anybody was answered.
            for line in self._path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
                found = _LINE.fullmatch(line)
                if found:
                    self._seen.setdefault((found[2], found[3]), (int(found[1]), found[4]))
        # Written anew, so that the next line does not follow a torn one.
        self._rewrite()

    def _tidy(self, now: float) -> None:
        # A day longer than the signature counts: the clock may be set back.
        self._seen = {nonce: seen for nonce, seen in self._seen.items() if seen[0] + 86_400 > now}
        try:
            self._rewrite()
        except OSError as wrong:
            raise ReplaysUnavailable(f"{self._path}: {wrong.strerror}") from None

    def _rewrite(self) -> None:
        self._close()
        fresh = self._path.with_name("replays.new")
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            lines = [f"{end} {key} {nonce} {job}\n" for (key, nonce), (end, job) in self._seen.items()]
            _write_all(file, "".join(lines).encode())
            os.fsync(file)
        finally:
            os.close(file)
        fresh.replace(self._path)
        _sync_folder(self._path.parent)
        self._lines = len(self._seen)
        self._in_doubt = False

    def _append(self, line: str) -> None:
        if self._in_doubt:
            self._rewrite()
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write_all(self._file, f"{line}\n".encode())
            os.fsync(self._file)
        except OSError:
            # The line, or half of it, may be there, and nobody was told that it counts.
            self._in_doubt = True
            raise
        self._lines += 1


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
