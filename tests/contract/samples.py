"""One valid call of each verb, for tests that ask the same of all of them."""

from __future__ import annotations

from typing import Any

LEASE = {"job_id": "job", "fence": 1, "lease_id": "0" * 32, "agent": "one"}

SAMPLES: dict[str, tuple[dict[str, Any], ...]] = {
    "agents": ({"agent": "one"},),
    "append_log": ({**LEASE, "offset": 0, "sent": 1, "data": "x"},),
    "cancel": ({"job_id": "job"},),
    "claim": ({"agent": "one", "lease_id": "0" * 32},),
    "complete": ({**LEASE, "outcome": "success"},),
    "configure": ({"field": "max_dead", "value": 10},),
    "create": (),
    "describe": ({"job_id": "job"},),
    "enlist": ({"agent": "one", "generation": 1, "capacity": 1},),
    "enqueue": ({"job_id": "job"},),
    "heartbeat": (LEASE,),
    "limits": (),
    "list": (),
    "pause": ({"paused": 1},),
    "peek": (),
    "purge": ({"job_id": "job"},),
    "read_log": ({"job_id": "job", "offset": 0, "most": 100},),
    "release": ({**LEASE, "delay_ms": 0},),
    "replay": ({"job_id": "job"},),
    "reprioritise": ({"job_id": "job", "priority": "HIGH"},),
    "start": (LEASE,),
    "stats": (),
    "upkeep": (),
}
"""verb → its entries; the arguments of the whole call have defaults."""
