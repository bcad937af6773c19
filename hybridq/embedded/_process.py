"""Starting a server over a folder, waiting for it, stopping it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import redis

from ..connect import Connector
from ..errors import EmbeddedUnavailable
from ._engines import Engine
from ._folder import POLL_S, Folder

START_WAIT_S = 30.0  # until it listens; milliseconds as a rule
LOAD_WAIT_S = 300.0  # until it has read its data: about ten seconds per gigabyte
STOP_WAIT_S = 15.0  # for each of: being asked, SIGTERM, SIGKILL
LOG_LINES = 8


def url_of(socket: Path) -> str:
    """The URL of a server that listens on `socket`; any character may stand in a path."""
    return f"unix://{quote(str(socket))}"


def launch(engine: Engine, folder: Folder, lock: int) -> None:
    """Start a server that holds `lock` for life and survives us. Returns once it runs on its own.

    It leaves our session and process group, so that Ctrl-C in a terminal reaches us and not it.
    """
    socket = folder.place_socket()
    if folder.log.exists():
        folder.log.replace(folder.log.with_name("server.old.log"))
    folder.pid_file.unlink(missing_ok=True)
    command = [
        *(str(engine.binary), "--daemonize", "yes", "--pidfile", str(folder.pid_file)),
        *("--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"),
        *("--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--dir", str(folder.path)),
        # A queue must refuse work when memory is short; evicting a key would forget a job.
        *("--maxmemory-policy", "noeviction", "--logfile", str(folder.log)),
    ]
    try:
        said = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[lock],
            start_new_session=True,
            umask=0o077,
            timeout=START_WAIT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise EmbeddedUnavailable(f"{engine.binary} cannot be run: {exc}", "reinstall it") from exc
    if said.returncode:
        raise not_started(folder, said.stdout.decode(errors="replace"))


def wait_ready(folder: Folder) -> int | None:
    """Wait until the server answers and has loaded its data; return its process id, or None if it ends first.

    Raises `EmbeddedUnavailable` when it takes too long.
    """
    deadline = time.monotonic() + START_WAIT_S
    with Connector.parse(f"{url_of(folder.socket)}?socket_timeout=5").sync() as client:
        while True:
            try:
                client.ping()  # INFO is answered during loading, PING is not
                return int(client.info("server")["process_id"])
            except redis.BusyLoadingError:
                deadline = max(deadline, time.monotonic() - START_WAIT_S + LOAD_WAIT_S)
                reason = "is still loading its data"
            except (redis.ConnectionError, redis.TimeoutError):
                reason = f"lives, but does not answer on {folder.socket}"
            if not folder.server_lives:
                return None
            if time.monotonic() > deadline:
                raise EmbeddedUnavailable(
                    f"the server of {folder.path} {reason}", "try again later, or stop it with `hybridq down`"
                )
            time.sleep(POLL_S)


def stop(folder: Folder) -> None:
    """End the server for certain: by request, else by SIGTERM, else by SIGKILL.

    Raises `EmbeddedUnavailable` when it cannot be ended. Call it under `Folder.decision`.
    """
    for end in (_ask, _terminate, _kill):
        wait_s = STOP_WAIT_S if end(folder) else 0.0
        if _until(lambda: not folder.server_lives, wait_s):
            folder.forget_socket()
            return
    raise EmbeddedUnavailable(
        f"the server of {folder.path} does not end", f"end the process named in {folder.pid_file} by hand"
    )


def _ask(folder: Folder) -> bool:
    """It syncs its file first, as SIGTERM would make it do; here is no process id that could be mistaken."""
    with Connector.parse(f"{url_of(folder.socket)}?socket_timeout=2").sync() as client:
        try:
            client.shutdown(nosave=True)
        except redis.RedisError:
            return False
        return True


def _terminate(folder: Folder) -> bool:
    return _signal(folder, signal.SIGTERM)


def _kill(folder: Folder) -> bool:
    return _signal(folder, signal.SIGKILL)


def _signal(folder: Folder, number: signal.Signals) -> bool:
    """Signal the process whose id was written down, if it still is a server on our socket."""
    pid = folder.pid
    if pid is None or os.fsencode(folder.socket) not in _command_of(pid):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    return True


def _command_of(pid: int) -> bytes:
    """How a process calls itself; a server names its socket there. Empty when there is no such process."""
    if Path("/proc/self").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return b""
    return subprocess.run(["ps", "-p", str(pid), "-o", "args="], capture_output=True, check=False).stdout


def _until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def not_started(folder: Folder, said: str = "") -> EmbeddedUnavailable:
    """The error for a server that ended at its start, with the end of what it said and logged."""
    lines = said.splitlines()
    with contextlib.suppress(OSError):
        lines += folder.log.read_text(errors="replace").splitlines()
    tail = "\n".join(lines[-LOG_LINES:])
    advice = f"its log is {folder.log}"
    if "No space left on device" in tail:
        advice = f"the disk is full; free some space, or choose another data directory ({advice})"
    return EmbeddedUnavailable(f"the server of {folder.path} did not start:\n{tail}\n", advice)
