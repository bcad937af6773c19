"""What of a log has not reached the server yet, on disk: an outage may be longer than memory."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["Spool"]


class Spool:
    """A file of one's own (mode 0600) that is appended to and read from. It begins empty."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._made_folder = not path.parent.exists()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        # Never what somebody else has put there, nor what a link points to.
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def append(self, data: bytes) -> None:
        """Add all of `data`, or nothing of it and raise `OSError`, such as on a full disk."""
        at = self.size
        left = memoryview(data)
        while left:
            written = os.pwrite(self._file, left, at)
            left, at = left[written:], at + written
        self.size = at

    def read(self, offset: int, limit: int) -> bytes:
        """Return up to `limit` bytes of whole characters of UTF-8, of whole lines where that is possible."""
        data = os.pread(self._file, min(limit, self.size - offset), offset)
        if offset + len(data) == self.size:
            return data
        line_end = data.rfind(b"\n") + 1
        if line_end:
            return data[:line_end]
        end = len(data) - 1
        while end > 0 and data[end] & 0xC0 == 0x80:
            end -= 1
        return data[:end] if end else data

    def delete(self) -> None:
        """Remove the file, and its folder when that was made for it; what has it open goes on reading."""
        with contextlib.suppress(OSError):
            self.path.unlink()
            if self._made_folder:
                self.path.parent.rmdir()

    def close(self) -> None:
        """Give back the descriptor. Nothing may be read afterwards."""
        os.close(self._file)
