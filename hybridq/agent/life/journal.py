"""What survives the process: which leases it held, and which results nobody took yet.

A file each, written before it counts: to a name of its own, flushed to the disk, then renamed. Only the agent's user
may read them, as a lease token proves a lease to whoever also has the agent's credential.

```
leases/<job>.<fence>.json    held now; found at start, it was held by a process that died
results/<job>.<fence>.json   how it ended; goes when the server has taken it
late/<job>.<fence>.json      taken no more, as the job is somebody else's: evidence, the newest few hundred
```
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

__all__ = ["Journal", "KeptLease", "KeptResult", "write_whole"]

log = structlog.get_logger("hybridq")

LATE_MAX: Final = 200
RESULTS_MAX: Final = 1000
"""More results than that are not reported in a row; the oldest are set aside as late."""
_numbers = itertools.count()


class KeptLease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease, as it is kept."""

    id: str
    lease_token: str
    fence: int
    attempt: int | None = None
    claimed_at: float = 0.0
    """By this machine's clock, in seconds since the epoch; for people who look."""

    def __repr__(self) -> str:
        return f"KeptLease(id={self.id!r}, fence={self.fence})"


class KeptResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a lease ended, as it will be told until the server takes it."""

    id: str
    lease_token: str
    fence: int
    outcome: str
    exit_code: int | None = None
    result: Any = None
    error: Any = None
    ended_at: float = 0.0
    refused: str | None = None
    """The code the server refused it with, of a late one."""

    def __repr__(self) -> str:
        return f"KeptResult(id={self.id!r}, fence={self.fence}, outcome={self.outcome!r})"


class Journal:
    """The files below one folder; every process of an agent has it for itself (see `identity.OwnFolder`)."""

    def __init__(self, folder: Path) -> None:
        self._leases, self._results, self._late = (folder / name for name in ("leases", "results", "late"))
        for path in (self._leases, self._results, self._late):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for torn in path.glob("*.tmp"):
                torn.unlink(missing_ok=True)

    # -- leases ----------------------------------------------------------------------------------------------

    def hold(self, lease: KeptLease) -> None:
        """Keep that a lease is held. Raises `OSError`."""
        _write(self._leases / _name(lease), lease)

    def let_go(self, lease: KeptLease) -> None:
        """Forget a lease."""
        _remove(self._leases / _name(lease))

    def left_behind(self) -> list[KeptLease]:
        """Return the leases in the journal: at start, those of a process that died before it knew how they ended."""
        found = []
        for path, lease in _read_all(self._leases, KeptLease):
            if (self._results / path.name).exists():
                _remove(path)
            else:
                found.append(lease)
        return found

    # -- results ---------------------------------------------------------------------------------------------

    def keep(self, result: KeptResult) -> None:
        """Keep how a lease ended, which is then held no more. Raises `OSError`."""
        _write(self._results / _name(result), result)
        _remove(self._leases / _name(result))

    def taken(self, result: KeptResult) -> None:
        """The server has it."""
        _remove(self._results / _name(result))
        _remove(self._leases / _name(result))

    def set_aside(self, result: KeptResult, code: str) -> None:
        """The server takes it no more: it is kept here as evidence, and the oldest of those go."""
        with contextlib.suppress(OSError):
            _write(self._late / _name(result), msgspec.structs.replace(result, refused=code))
            for path in _by_age(self._late)[:-LATE_MAX]:
                _remove(path)
        self.taken(result)

    def unreported(self) -> list[KeptResult]:
        """Return the results in the journal, the oldest first."""
        found = [result for _, result in _read_all(self._results, KeptResult)]
        for result in found[:-RESULTS_MAX]:
            self.set_aside(result, "too_many")
        return found[-RESULTS_MAX:]


def _name(of: KeptLease | KeptResult) -> str:
    return f"{of.id}.{of.fence}.json"


def _write(path: Path, value: msgspec.Struct) -> None:
    write_whole(path, msgspec.json.encode(value))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, and stays through a loss of power. Raises `OSError`."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.{next(_numbers)}.tmp")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _by_age(folder: Path) -> list[Path]:
    dated = []
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError):
            dated.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(dated)]


def _read_all(folder: Path, kind: Any) -> Iterator[tuple[Path, Any]]:
    for path in _by_age(folder):
        try:
            yield path, msgspec.json.decode(path.read_bytes(), type=kind)
        except (OSError, msgspec.DecodeError):
            log.warning("agent.journal_torn", component="agent", file=path.name)
            with contextlib.suppress(OSError):
                path.replace(path.with_suffix(".torn"))


def now() -> float:
    """Return the time, for people who look at the files."""
    return round(time.time(), 3)
