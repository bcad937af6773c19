"""What a credential may do: every scope, and the roles of people as fixed sets of them.

The one list: the HTTP side names its routes by it, the command line and `AsyncAccess` check against it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .errors import InvalidArgument

__all__ = ["EVERYTHING", "ROLES", "SCOPES", "validate_scopes"]

SCOPES: Final[dict[str, str]] = {
    "queue:enqueue": "Enqueue jobs, pipelines and schedules.",
    "queue:claim": "Claim, start, heartbeat, complete and release jobs, and write their logs; on own leases.",
    "queue:read": "Read jobs, logs, statistics, dead letters, pools, events, pipelines and schedules.",
    "queue:admin": "Reprioritise, cancel, retry, replay, purge, pause, resume, set up pools, end pipelines, schedules.",
    "agents:register": "Register agents, and heartbeat or deregister the agents it registered.",
    "agents:read": "Read agents and pools of agents.",
    "agents:manage": "Drain, deregister and scale agents, and make registration keys.",
    "deployments:read": "Read deployments and freezes.",
    "deployments:create": "Create, cancel and block deployments.",
    "deployments:promote": "Promote to staging and production, roll back, and unblock.",
    "deployments:approve": "Approve deployments of others.",
    "deployments:override": "Promote in a freeze or with gates unmet, and edit freezes.",
    "keys:manage": "Make and revoke API keys and trust rules, none wider than one's own.",
    "audit:read": "Read the audit stream.",
    "metrics:read": "Read /metrics.",
}
"""scope → what it lets its holder do."""

EVERYTHING: Final = "*"
"""The scope that holds all others."""

_VIEWER: Final = frozenset({"queue:read", "agents:read", "deployments:read", "metrics:read"})

ROLES: Final[dict[str, frozenset[str]]] = {
    "viewer": _VIEWER,
    "operator": _VIEWER
    | {
        "queue:enqueue",
        "queue:admin",
        "agents:manage",
        "deployments:create",
        "deployments:promote",
        "deployments:approve",
    },
    "admin": frozenset(SCOPES),
}
"""role of a person → its scopes."""


def validate_scopes(scopes: Iterable[str]) -> frozenset[str]:
    """Return `scopes` as a set when each is known or `*`, and there is one at least; else raise `InvalidArgument`."""
    if isinstance(scopes, str):
        raise InvalidArgument("scopes", scopes, "an iterable of scopes; put one into a list")
    found = frozenset(scopes)
    unknown = sorted(scope for scope in found if scope not in SCOPES and scope != EVERYTHING)
    if unknown or not found:
        raise InvalidArgument(
            "scopes", ", ".join(map(str, unknown)), f"one or more of {', '.join(SCOPES)}, or * for all"
        )
    return found
