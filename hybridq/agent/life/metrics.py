"""How busy the machine is, in percent, without a library: what the server derives DEGRADED from."""

from __future__ import annotations

import os
import shutil
from collections import deque
from pathlib import Path
from typing import Final

from .labels import cores

__all__ = ["Load", "memory_bytes"]


LOOKS: Final = 12
"""The processor's figure is that of so many looks, about a minute: a build that begins is no trouble."""


class Load:
    """Figures of the machine; the first look at the processor has nothing to compare with."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ticks: deque[tuple[int, int]] = deque(maxlen=LOOKS + 1)

    def look(self) -> dict[str, float]:
        """Return `cpu_percent`, `memory_percent`, `disk_percent`, `load_per_core`; what cannot be told is left out."""
        found: dict[str, float] = {}
        ticks = _cpu_ticks()
        if ticks is not None:
            self._ticks.append(ticks)
            busy, whole = ticks[0] - self._ticks[0][0], ticks[1] - self._ticks[0][1]
            if whole > 0:
                found["cpu_percent"] = round(100 * max(0, busy) / whole, 1)
        total, available = memory_bytes()
        if total and available is not None:
            found["memory_percent"] = round(100 * (1 - available / total), 1)
        try:
            disk = shutil.disk_usage(self._folder)
            found["disk_percent"] = round(100 * disk.used / max(1, disk.used + disk.free), 1)
            found["load_per_core"] = round(os.getloadavg()[0] / cores(), 2)
        except OSError:
            pass
        return found


def _cpu_ticks() -> tuple[int, int] | None:
    """Return busy and all ticks of the machine's processors; None where there is no /proc."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(part) for part in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def memory_bytes() -> tuple[int | None, int | None]:
    """Return all memory and what is available, in bytes; None for what cannot be told."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None, None
    sizes = {line.partition(":")[0]: line.split() for line in text.splitlines()}
    kib = {name: int(sizes[name][1]) for name in ("MemTotal", "MemAvailable") if name in sizes}
    return kib.get("MemTotal", 0) * 1024 or None, kib["MemAvailable"] * 1024 if "MemAvailable" in kib else None
