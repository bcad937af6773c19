"""Drives the fleet's scripts themselves, as `tests.contract.harness.Rig` does a queue's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from hybridq import check, scripts
from hybridq.connect import SyncRedis
from hybridq.keys import catalogue_root, fleet_root
from hybridq.scripts import Script
from tests.contract.harness import JITTER_HALF, Rig

DEFAULTS: dict[str, Any] = {
    "pool": "builds", "version": "1.0", "labels": '{"os":"linux"}', "features": "[]", "capacity": 2, "metrics": "",
    "recent": 0, "recent_failed": 0, "shortest_lease_ms": 0, "draining": 1, "session_id": "", "within": "", "after": "",
    "boot_id": "boot-1", "min": 0, "max": 0, "target": 0, "jitter": JITTER_HALF, "reason": "", "by": "",
}  # fmt: skip
"""What an argument of the fleet's scripts is when a test does not say."""

SAMPLES: dict[str, tuple[dict[str, Any], ...]] = {
    "catalogue/find": ({"queue": "builds"},),
    "catalogue/list": (),
    "catalogue/note": ({"queue": "builds"},),
    "fleet/beat": ({"agent": "one", "session_id": "0" * 32},),
    "fleet/deregister": ({"agent": "one"},),
    "fleet/describe": ({"agent": "one"},),
    "fleet/list": (),
    "fleet/lost": (),
    "fleet/pool": ({"pool": "builds"},),
    "fleet/pools": (),
    "fleet/register": ({"agent": "one", "session_id": "0" * 32},),
    "fleet/scale": ({"pool": "builds"},),
    "fleet/seen": ({"agent": "one", "session_id": "0" * 32},),
    "fleet/settle": ({"agent": "one", "pool": "builds", "generation": 1, "how": "lose", "until_ms": 0},),
    "fleet/steer": ({"agent": "one"},),
}
"""verb → its entries, one valid call of each."""


class FleetRig(Rig):
    """The fleet of a namespace, and a clock that only the test moves."""

    def __init__(
        self,
        client: SyncRedis,
        namespace: str,
        *,
        shebang: bool = True,
        load: Callable[[str], Script] = scripts.load,
    ) -> None:
        super().__init__(client, namespace, shebang=shebang, load=load)
        self.root = fleet_root(namespace)
        self._sessions = itertools.count(1)

    def arguments(self, verb: str, *entries: Mapping[str, object], **common: object) -> list[object]:
        """The arguments of a call, with what is usual in a fleet where a test says nothing."""
        header = self._load(verb).header
        usual = {one.name: DEFAULTS[one.name] for one in header.each if one.name in DEFAULTS}
        shared = {one.name: DEFAULTS[one.name] for one in header.common if one.name in DEFAULTS}
        return super().arguments(verb, *({**usual, **entry} for entry in entries), **{**shared, **common})

    def catalogue(self) -> FleetRig:
        """A rig of the namespace's catalogue."""
        rig = FleetRig(self.client, self.namespace, shebang=self._shebang, load=self._load)
        rig.root = catalogue_root(self.namespace)
        return rig

    def register(self, agent: str = "one", **said: Any) -> dict[str, Any]:
        """Register an agent; returns its session."""
        said.setdefault("session_id", f"{next(self._sessions):032x}")
        tag, session_id, generation, created, heartbeat_ms, left = self.one("fleet/register", agent=agent, **said)
        assert tag == "REGISTERED"
        return {
            "session_id": session_id,
            "generation": int(generation),
            "created": int(created),
            "heartbeat_ms": int(heartbeat_ms),
            "left": left,
        }

    def beat(self, session_id: str, agent: str = "one", **said: Any) -> list[Any]:
        """Beat; returns the answer as it is."""
        return self.one("fleet/beat", agent=agent, session_id=session_id, **said)

    def lost(self) -> list[list[str]]:
        """One step of `lost`; returns what queues are owed."""
        [[tag, rows, _]] = self.run("fleet/lost")
        assert tag == "LOST"
        return list(rows)

    def tick(self, ms: int, *, step_ms: int = 5_000) -> None:
        """Let time pass while others are busy with the fleet, so that no outage is seen in it."""
        end = self.now + ms
        while self.now < end:
            self.now = min(end, self.now + step_ms)
            self.one("fleet/steer", agent="nobody")

    def kept(self, agent: str = "one") -> dict[str, str]:
        """The record of an agent; empty when there is none."""
        return self.hash(f"agent:{agent}")

    def check(self) -> None:
        """Hold the fleet against its invariants."""
        check.fleet(self.client, self.namespace).raise_if_broken()
