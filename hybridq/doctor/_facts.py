"""What one server says of itself, asked once. Most checks judge these facts alone."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any, Final

import redis

from ._version import parse_info

__all__ = ["Facts", "gather"]

TRIPS: Final = 11
CONFIG_NAMES: Final = ("appendfsync", "min-replicas-to-write", "save", "stop-writes-on-bgsave-error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One server as it is now. `info` and `config` are None when it would not tell, and `untold` says why."""

    client: redis.Redis
    info: dict[str, str] | None
    config: dict[str, str] | None
    untold: str
    server_ms: int | None
    """Its clock, in epoch milliseconds, when this machine's said `local_ms`; None when TIME is denied."""
    local_ms: int
    trip_s: float
    """Median of a few round trips."""

    def number(self, field: str) -> int:
        """Return an INFO field as an integer; 0 when it is absent."""
        return int((self.info or {}).get(field, "0") or 0)


def gather(client: redis.Redis, local_ms: int, started: float) -> Facts:
    """Ask one server for its facts.

    `local_ms` is this machine's clock at the moment `time.monotonic()` was `started`. Raises redis-py's
    `ConnectionError` or `TimeoutError` when the server is gone.
    """
    trips, server_ms = [], None
    for _ in range(TRIPS):
        asked = time.monotonic()
        answer, _denied = _ask(client, "TIME")
        answered = time.monotonic()
        trips.append(answered - asked)
        if answer is not None:
            seconds, microseconds = answer
            server_ms = int(seconds) * 1000 + int(microseconds) // 1000
    info, why_info = _ask(client, "INFO")
    config, why_config = _ask(client, "CONFIG GET", *CONFIG_NAMES)
    return Facts(
        client=client,
        info=None if info is None else parse_info(info),
        config=config,
        untold=why_info or why_config,
        server_ms=server_ms,
        local_ms=local_ms + round(1000 * ((asked + answered) / 2 - started)),
        trip_s=statistics.median(trips),
    )


def _ask(client: redis.Redis, command: str, *args: str) -> tuple[Any, str]:
    """Return the answer, or None and the reason that the server gave instead."""
    try:
        if command == "INFO":
            # redis-py would turn the text into numbers and lists by its own rules.
            client.set_response_callback("INFO", lambda text, **_: text.decode(errors="replace"))
        return client.execute_command(command, *args), ""
    except redis.ResponseError as exc:
        return None, f"{command}: {exc}"
