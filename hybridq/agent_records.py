"""What the fleet tells of agents and pools. Durations end in `_s` (seconds), instants in `_at` (aware UTC)."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping

import msgspec

__all__ = ["AgentPage", "AgentRecord", "AgentStatus", "PoolRecord", "Pulse", "Registration"]


class AgentStatus(enum.StrEnum):
    """How an agent is, derived whenever it is asked for (`hybridq.health`); nothing but the facts behind it is kept."""

    HEALTHY = "HEALTHY"
    """It registered, and nothing below is the case."""
    DEGRADED = "DEGRADED"
    """Its machine is overloaded, or it fails far more than the fleet; it still works."""
    UNHEALTHY = "UNHEALTHY"
    """Two heartbeats are missed."""
    OFFLINE = "OFFLINE"
    """Silent for 30 s more: its leases are given to others. A sign of life brings it back."""
    DRAINING = "DRAINING"
    """Somebody told it to: it finishes what it holds and claims nothing more."""
    TERMINATED = "TERMINATED"
    """Its session was ended; only a new registration brings it back."""


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class AgentRecord(_Struct, frozen=True, kw_only=True):
    """An agent as it is now. `running`, `jobs_completed` and `jobs_failed` are of its present pool."""

    agent_id: str
    pool: str
    status: AgentStatus
    labels: Mapping[str, str]
    version: str | None
    capacity: int
    """Leases it may hold at once."""
    running: int
    """Leases it holds."""
    jobs_completed: int
    """Runs that ended well, since it was first seen in its pool."""
    jobs_failed: int
    """Runs that did not: failed, timeout, infra_error, rejected; neither cancelled ones nor lost leases."""
    last_heartbeat_at: dt.datetime
    """Its last sign of life: a heartbeat, a claim, or its registration."""
    registered_at: dt.datetime
    """When its session began."""
    metrics: Mapping[str, float] | None
    session_id: str
    generation: int
    """Number of its session; grows with every one, and marks the leases claimed in it."""
    boot_id: str
    features: tuple[str, ...]
    heartbeat_s: float
    """Seconds between heartbeats, as it was told last."""
    drain_reason: str | None = None
    ended_at: dt.datetime | None = None
    """When its session was ended; None while it is not TERMINATED."""
    end_reason: str | None = None


class AgentPage(_Struct, frozen=True, kw_only=True):
    """One page of agents by name; `next_cursor` continues it, None at the end. Not a snapshot."""

    items: tuple[AgentRecord, ...]
    next_cursor: str | None


class Registration(_Struct, frozen=True, kw_only=True):
    """Answer of register. `created` is False when the same boot asked again; `freed`: leases of older sessions."""

    agent_id: str
    session_id: str
    generation: int
    pool: str
    created: bool
    heartbeat_s: float
    freed: int


class Pulse(_Struct, frozen=True, kw_only=True):
    """Answer of a heartbeat: the agent as it is now, when to beat again, and whether to drain."""

    agent: AgentRecord
    next_heartbeat_s: float
    drain: bool


class PoolRecord(_Struct, frozen=True, kw_only=True):
    """A pool: how many agents it has and should have, and what waits for them.

    OFFLINE and TERMINATED agents count nowhere but, the first, in `unhealthy`.
    """

    name: str
    capacity: int
    """Leases that its agents may hold together; those that are UNHEALTHY or DRAINING do not count."""
    active: int
    """Agents that hold a lease."""
    idle: int
    """Agents that hold none and may claim."""
    unhealthy: int
    """Agents that are UNHEALTHY or OFFLINE."""
    queued: int
    min: int | None
    max: int | None
    target: int | None
    oldest_wait_s: float
    """Seconds that the oldest claimable job has waited; 0 when none waits."""
