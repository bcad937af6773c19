"""What a credential may do: every scope, and the roles of people as fixed sets of them."""

from __future__ import annotations

from typing import Final

__all__ = ["ANY_CREDENTIAL", "EVERYTHING", "PUBLIC", "ROLES", "SCOPES"]

SCOPES: Final[dict[str, str]] = {
    "queue:enqueue": "Enqueue jobs, pipelines and schedules.",
    "queue:claim": "Claim, start, heartbeat, complete and release jobs, and write their logs; on own leases.",
    "queue:read": "Read jobs, logs, statistics, dead letters, pools, events, pipelines and schedules.",
    "queue:admin": "Reprioritise, cancel, retry, replay, purge, pause, resume, and set up pools.",
    "agents:register": "Register agents, and heartbeat or deregister the agents it registered.",
    "agents:read": "Read agents and pools of agents.",
    "agents:manage": "Drain, deregister and scale agents, and make registration keys.",
    "deployments:read": "Read deployments and freezes.",
    "deployments:create": "Create, cancel, block and unblock deployments.",
    "deployments:promote": "Promote to staging and production, and roll back.",
    "deployments:approve": "Approve deployments of others.",
    "deployments:override": "Promote in a freeze or with gates unmet, and edit freezes.",
    "keys:manage": "Make and revoke API keys and trust rules, none wider than one's own.",
    "audit:read": "Read the audit stream.",
    "metrics:read": "Read /metrics.",
}
"""scope → what it lets its holder do."""

EVERYTHING: Final = "*"
"""The scope that holds all others."""

PUBLIC: Final = "public"
"""Instead of a scope: nobody is asked who they are."""

ANY_CREDENTIAL: Final = "any"
"""Instead of a scope: whoever proves who they are."""

_VIEWER = frozenset({"queue:read", "agents:read", "deployments:read", "metrics:read"})
_OPERATOR = _VIEWER | {
    "queue:enqueue",
    "queue:admin",
    "agents:manage",
    "deployments:create",
    "deployments:promote",
    "deployments:approve",
}

ROLES: Final[dict[str, frozenset[str]]] = {
    "viewer": _VIEWER,
    "operator": frozenset(_OPERATOR),
    "admin": frozenset(SCOPES),
}
"""role of a person → its scopes."""
