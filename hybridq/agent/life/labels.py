"""What a machine says of itself: labels that jobs may require."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["labels_of"]

_ARCH: Final = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64"}
DOCKER_SOCKET: Final = Path("/var/run/docker.sock")


def labels_of(given: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of this machine; given ones win."""
    found = {
        "os": {"darwin": "macos"}.get(sys.platform, sys.platform),
        "arch": _ARCH.get(platform.machine(), platform.machine().lower() or "unknown"),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "cores": str(cores()),
    }
    if shutil.which("docker") is not None and (os.environ.get("DOCKER_HOST") or os.access(DOCKER_SOCKET, os.W_OK)):
        found["docker"] = ""
    return found | dict(given)


def cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
