"""The files of a data directory: where they are, who holds which lock, and what a failing disk means."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import EmbeddedUnavailable

if sys.platform != "win32":
    import fcntl

SOCKET_PATH_BYTES_MAX = 100  # the kernel takes 104 (macOS) or 108 (Linux), its closing zero included
LOCK_WAIT_S = 330.0  # whoever holds the lock may be waiting for a large file to load
POLL_S = 0.01

_ADVICE = {
    errno.EACCES: "give this user write permission, or choose another data directory",
    errno.EPERM: "give this user write permission, or choose another data directory",
    errno.EROFS: "the file system is read-only; choose another data directory",
    errno.ENOSPC: "the disk is full; free some space, or choose another data directory",
    errno.EDQUOT: "the disk quota is used up; free some space, or choose another data directory",
    errno.EFBIG: "the file size limit of this process is too low; raise it (ulimit -f)",
    errno.ENOTDIR: "a part of the path is a file; choose another data directory",
    errno.EEXIST: "it is a file; choose another data directory",
    errno.ENAMETOOLONG: "the path is too long; choose another data directory",
    errno.ENOLCK: "the file system has no locks (NFS?); choose a data directory on a local disk",
}


def default_data_dir() -> Path:
    """`HYBRIDQ_DATA_DIR`, or where this platform keeps a user's data. Raises `EmbeddedUnavailable`."""
    chosen = os.environ.get("HYBRIDQ_DATA_DIR")
    if chosen:
        return Path(chosen)
    # The XDG convention says that a relative path is to be ignored.
    data_home = os.environ.get("XDG_DATA_HOME", "")
    if os.path.isabs(data_home) and sys.platform != "darwin":
        return Path(data_home, "hybridq")
    try:
        home = Path.home()
    except RuntimeError as exc:
        raise EmbeddedUnavailable("this user has no home directory", "set HYBRIDQ_DATA_DIR") from exc
    if sys.platform == "darwin":
        return home / "Library/Application Support/hybridq"
    return home / ".local/share/hybridq"


@contextlib.contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses around `path` into `EmbeddedUnavailable` with advice."""
    try:
        yield
    except OSError as exc:
        advice = _ADVICE.get(exc.errno or 0, "choose another data directory")
        reason = f"{exc.filename or path}: {exc.strerror}"
        raise EmbeddedUnavailable(reason, advice) from exc


class Folder:
    """The paths and locks of one data directory. Nothing is created before `prepare`."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir.expanduser().absolute()
        self.engine_json = self.path / "engine.json"
        self.log = self.path / "server.log"
        self.run = self.path / "run"
        self.pid_file = self.run / "pid"
        self._socket_file = self.run / "socket"
        self._users = self.run / "users"

    def prepare(self) -> None:
        """Create what is missing; others than this user may not enter `run`, where the socket is."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.run.mkdir(mode=0o700, exist_ok=True)
        self.run.chmod(0o700)
        self._users.mkdir(mode=0o700, exist_ok=True)

    @property
    def has_data(self) -> bool:
        """Whether a server wrote here before, whoever started it."""
        append_only = self.path / "appendonlydir"
        if append_only.is_dir() and any(append_only.iterdir()):
            return True
        return any((self.path / name).exists() for name in ("dump.rdb", "appendonly.aof"))

    @property
    def pid(self) -> int | None:
        """The process id the last server wrote down; it may be another's by now, unless the server lives."""
        try:
            return int(self.pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None

    # -- the socket ------------------------------------------------------------------------------

    @property
    def socket(self) -> Path:
        """Where the server listens, or listened last."""
        try:
            return Path(self._socket_file.read_text())
        except FileNotFoundError:
            return self.run / "s"

    def place_socket(self) -> Path:
        """Choose where the next server listens, and write it down for those who attach."""
        place = self.run / "s"
        if len(os.fsencode(place)) > SOCKET_PATH_BYTES_MAX:
            place = self._short_folder() / "s"
        self._socket_file.write_text(str(place))
        return place

    def forget_socket(self) -> None:
        """Remove the short folder, if there is one, once its server has ended."""
        if self.socket.parent != self.run:
            with contextlib.suppress(OSError):
                self.socket.unlink(missing_ok=True)
                self.socket.parent.rmdir()

    def _short_folder(self) -> Path:
        name = f"hybridq-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]}"
        bases = [os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"]
        for base in bases:
            place = Path(base, name)
            if os.path.isdir(base) and len(os.fsencode(place / "s")) <= SOCKET_PATH_BYTES_MAX:
                break
        place.mkdir(mode=0o700, exist_ok=True)
        # A folder all users share may hold one of this name that another user made, to listen in.
        found = place.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise EmbeddedUnavailable(
                f"{place} is not a private folder of this user",
                "remove it, or choose a data directory with a shorter path",
            )
        return place

    # -- locks -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def decision(self) -> Iterator[None]:
        """Hold the main lock: no other process starts, attaches, leaves or stops meanwhile."""
        lock = _open(self.run / "lock")
        try:
            deadline = time.monotonic() + LOCK_WAIT_S
            while not _lock(lock):
                if time.monotonic() > deadline:
                    raise EmbeddedUnavailable(
                        f"another process has held {self.run / 'lock'} for {LOCK_WAIT_S:.0f} s",
                        "end that process (lsof or fuser names it), then try again",
                    )
                time.sleep(POLL_S)
            yield
        finally:
            os.close(lock)

    def reserve_server(self) -> int | None:
        """Take the lock that a server inherits and holds for life; None while one lives.

        The caller closes the descriptor, after having handed it to the server.
        """
        lock = _open(self.run / "server.lock")
        if _lock(lock):
            return lock
        os.close(lock)
        return None

    @property
    def server_lives(self) -> bool:
        """Whether a server process holds this directory. Asked under `decision` only."""
        lock = self.reserve_server()
        if lock is None:
            return True
        os.close(lock)
        return False

    def join(self) -> int:
        """Count this process as a user, until the returned descriptor is closed or the process ends."""
        self.users()
        lock = _open(self._users / f"{os.getpid()}-{secrets.token_hex(4)}")
        _lock(lock)
        return lock

    def users(self) -> int:
        """How many users there are; the files of dead ones are removed. Asked under `decision` only."""
        living = 0
        for path in self._users.iterdir():
            lock = _open(path)
            if _lock(lock):
                path.unlink()
            else:
                living += 1
            os.close(lock)
        return living


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
