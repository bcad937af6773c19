"""What the figures were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

PACKAGES = ("hybridq", "redis", "hiredis", "msgspec", "uvloop", "litestar", "uvicorn", "granian")


def describe(server_version: str, aof: str) -> dict[str, str]:
    """Return machine, versions and commit, for people and for the JSON file."""
    found = {
        "machine": f"{os.cpu_count()} cores, {_cpu()}, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "server": f"{server_version}, AOF {aof}",
        "commit": _commit(),
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown CPU"


def _commit() -> str:
    if __package__.startswith("hybridq."):
        return "installed from a wheel"
    try:
        folder = Path(__file__).parent
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=folder, capture_output=True, text=True)
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return (commit.stdout.strip() or "unknown") + (" with changes" if dirty.stdout.strip() else "")
