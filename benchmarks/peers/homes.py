"""Installs each peer into a folder of its own, once; a changed list of packages makes it anew."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .table import Peer

PROGRAMS: Final = Path(__file__).parent / "programs"
INSTALLS_WITHIN_S: Final = 600.0
STARTS_WITHIN_S: Final = 10.0
SYNC: Final = {"off": ("-F",), "everysec": ("-f", "1000"), "always": ("-f", "0")}
"""How often beanstalkd flushes its log to the disk, as Redis does in each of its modes."""


class NotInstalled(Exception):
    """A peer could not be installed; the text says why."""


def folder() -> Path:
    """Return where peers live: `HYBRIDQ_PEERS`, else the user's cache."""
    told = os.environ.get("HYBRIDQ_PEERS")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(told) if told else cache / "hybridq" / "peers"


def command_of(peer: Peer) -> tuple[str, ...]:
    """Return the command of a peer's program, installing the peer where it is not. Raises `NotInstalled`."""
    if peer.daemon is not None:
        _binary(peer)
    key = hashlib.sha256("\n".join(peer.packages).encode()).hexdigest()[:12]
    home = folder() / f"{peer.program.partition('.')[0]}-{key}"
    program = PROGRAMS / peer.program
    node = peer.program.endswith(".mjs")
    if not (home / ".done").exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        for command in _with_npm(peer, home) if node else _with_pip(peer, home):
            _run(peer, command)
        (home / ".done").touch()
    if node:
        # Node looks for packages beside the program.
        shutil.copy(program, home / program.name)
        return ("node", str(home / program.name), *peer.arguments)
    return (str(home / "bin" / "python"), str(program), *peer.arguments)


@contextmanager
def daemon_of(peer: Peer, aof: str) -> Iterator[str]:
    """Run the server that a peer needs instead of Redis; yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="hq-bench-") as data:
        kept = () if aof == "off" else ("-b", data, *SYNC[aof])
        process = subprocess.Popen([_binary(peer), "-l", "127.0.0.1", "-p", str(port), *kept])
        try:
            deadline_s = time.monotonic() + STARTS_WITHIN_S
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline_s:
                        raise NotInstalled(f"{peer.daemon} did not start") from None
                    time.sleep(0.02)
            yield f"beanstalk://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def _binary(peer: Peer) -> str:
    """Return the path of a peer's server. Raises `NotInstalled`."""
    assert peer.daemon is not None
    found = shutil.which(peer.daemon, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/bin", "/usr/sbin")))
    if found is None:
        raise NotInstalled(f"there is no {peer.daemon} on this machine")
    return found


def versions_of(peer: Peer) -> dict[str, str]:
    """Return the versions of all that is installed for a peer."""
    home = Path(command_of(peer)[0]).parent.parent if not peer.program.endswith(".mjs") else None
    if home is None:
        return dict(package.rpartition("@")[::2] for package in peer.packages)
    listed = subprocess.run([home / "bin" / "pip", "list", "--format", "json"], capture_output=True)
    return {one["name"]: one["version"] for one in json.loads(listed.stdout or b"[]")}


def _with_pip(peer: Peer, home: Path) -> list[list[str]]:
    return [
        [sys.executable, "-m", "venv", str(home)],
        [str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *peer.packages],
    ]


def _with_npm(peer: Peer, home: Path) -> list[list[str]]:
    return [["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(home), *peer.packages]]


def _run(peer: Peer, command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALLS_WITHIN_S)
    except FileNotFoundError:
        raise NotInstalled(f"there is no {command[0]} on this machine") from None
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{command[0]} did not end within {INSTALLS_WITHIN_S:.0f} s") from None
    except subprocess.CalledProcessError as failed:
        raise NotInstalled(failed.stderr.strip()[-300:]) from None
