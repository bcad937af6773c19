"""Installs each peer into a folder of its own, once; a changed list of packages makes it anew."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from .table import Peer

PROGRAMS: Final = Path(__file__).parent / "programs"


class NotInstalled(Exception):
    """A peer could not be installed; the text says why."""


def folder() -> Path:
    """Return where peers live: `HYBRIDQ_PEERS`, else the user's cache."""
    told = os.environ.get("HYBRIDQ_PEERS")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(told) if told else cache / "hybridq" / "peers"


def command_of(peer: Peer) -> tuple[str, ...]:
    """Return the command of a peer's program, installing the peer where it is not. Raises `NotInstalled`."""
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
        return ("node", str(home / program.name))
    return (str(home / "bin" / "python"), str(program))


def versions_of(peer: Peer) -> dict[str, str]:
    """Return the versions of all that is installed for a peer."""
    home = Path(command_of(peer)[0]).parent.parent if not peer.program.endswith(".mjs") else None
    if home is None:
        return dict(package.rpartition("@")[::2] for package in peer.packages)
    listed = subprocess.run([home / "bin" / "pip", "list", "--format", "json"], capture_output=True, check=True)
    return {one["name"]: one["version"] for one in json.loads(listed.stdout)}


def _with_pip(peer: Peer, home: Path) -> list[list[str]]:
    return [
        [sys.executable, "-m", "venv", str(home)],
        [str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *peer.packages],
    ]


def _with_npm(peer: Peer, home: Path) -> list[list[str]]:
    return [["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(home), *peer.packages]]


def _run(peer: Peer, command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise NotInstalled(f"{peer.name}: there is no {command[0]} on this machine") from None
    except subprocess.CalledProcessError as failed:
        raise NotInstalled(f"{peer.name}: {failed.stderr.strip()[-300:]}") from None
