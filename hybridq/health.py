"""What the status of an agent follows from: the last sign of life, its figures, and what was said of it.

One pure function; the time comes in by argument. The order in which the answers stand is the order in which they count:
what ended is over, what is silent cannot be told to drain, and a drained agent that is overloaded is still drained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from .agent_records import AgentStatus

__all__ = ["Fleet", "Signs", "status_of"]

MISSED_BEATS: Final = 2
OFFLINE_AFTER_MS: Final = 30_000
LOAD_MAX: Final[Mapping[str, float]] = {"cpu_percent": 90.0, "memory_percent": 90.0, "disk_percent": 95.0}
"""metric → the most that is well."""
RECENT_MIN: Final = 10
"""Fewer runs of the last 20 say nothing about an agent."""
FAILING_MARGIN: Final = 0.5
"""Failing far more than the fleet: its share of failures is above the fleet's by more than this."""


class Signs(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one agent. Times are of Redis' clock, in milliseconds."""

    seen_ms: int
    heartbeat_ms: int
    """The interval it was told; missed beats count against it."""
    metrics: Mapping[str, float] = {}
    recent: str = ""
    """How its last 20 runs ended, the oldest first: `+` well, `-` not."""
    draining: bool = False
    ended: bool = False
    offline: bool = False
    """It was found OFFLINE and its leases were taken; a sign of life ends that."""


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """What counts for all agents: the time, the end of the last outage, and how recent runs ended."""

    now_ms: int
    resumed_ms: int = 0
    """When agents could be heard again after Redis, or everybody who serves them, had been away; 0: never was."""
    recent: int = 0
    """Recent runs of all agents, and how many of them failed."""
    recent_failed: int = 0


def status_of(signs: Signs, fleet: Fleet) -> AgentStatus:
    """Return how an agent is."""
    if signs.ended:
        return AgentStatus.TERMINATED
    silent_ms = fleet.now_ms - _heard_ms(signs, fleet)
    allowed_ms = MISSED_BEATS * signs.heartbeat_ms
    if signs.offline or silent_ms >= allowed_ms + OFFLINE_AFTER_MS:
        return AgentStatus.OFFLINE
    if signs.draining:
        return AgentStatus.DRAINING
    if silent_ms >= allowed_ms:
        return AgentStatus.UNHEALTHY
    return AgentStatus.DEGRADED if _is_overloaded(signs) or _fails_more(signs, fleet) else AgentStatus.HEALTHY


def _heard_ms(signs: Signs, fleet: Fleet) -> int:
    """Return since when silence counts: nobody could be heard before the end of an outage."""
    return max(min(signs.seen_ms, fleet.now_ms), fleet.resumed_ms)


def _is_overloaded(signs: Signs) -> bool:
    return any(signs.metrics.get(name, 0.0) > most for name, most in LOAD_MAX.items())


def _fails_more(signs: Signs, fleet: Fleet) -> bool:
    if len(signs.recent) < RECENT_MIN or not fleet.recent:
        return False
    own = signs.recent.count("-") / len(signs.recent)
    return own > fleet.recent_failed / fleet.recent + FAILING_MARGIN
