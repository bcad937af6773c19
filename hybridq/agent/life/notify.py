"""Tells systemd how we are, where it listens (`NOTIFY_SOCKET`); see sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket

__all__ = ["tell_systemd", "watchdog_s"]


def tell_systemd(*lines: str) -> None:
    """Send `READY=1` and the like; nothing happens where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.sendto("\n".join(lines).encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


def watchdog_s() -> float | None:
    """Return how often systemd wants to hear `WATCHDOG=1`, halved as it advises; None: it does not."""
    with contextlib.suppress(ValueError):
        every_us = int(os.environ.get("WATCHDOG_USEC", ""))
        if every_us > 0 and os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            return every_us / 2_000_000
    return None
