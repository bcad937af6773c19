"""What the model keeps of a job, and how it would be told to those who ask."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hybridq.lifecycle import Priority


@dataclass(frozen=True)
class Spec:
    job_id: str
    payload: int
    priority: Priority
    delay_ms: int
    max_attempts: int
    unique: str | None


@dataclass
class Hold:
    """A lease; `agent` and `fence` are its proof."""

    agent: str
    fence: int
    lease_ms: int
    deadline_ms: int
    claimed_ms: int
    request: str | None
    confirmed: bool = False
    cancel: bool = False


@dataclass
class Record:
    spec: Spec
    priority: Priority
    status: str = "NEW"
    order: int | None = None
    due_ms: int = 0
    attempt: int = 0
    deliveries: int = 0
    generation: int = 0
    unstarted: int = 0
    infra: int = 0
    releases: int = 0
    avoid: tuple[str, int] = ("", 0)
    dead_reason: str | None = None
    hold: Hold | None = None
    ended: dict[int, tuple[str, str]] = field(default_factory=dict)
    """fence → (outcome, status after) of the leases that ended and are remembered."""
    log: str = ""
    said: tuple[int, int] = (0, 0)
    """Fence of the lease that spoke last, and how many bytes it said."""

    def as_leased(self) -> tuple[Any, ...]:
        """What its holder is told."""
        lease, next_attempt = self.hold, self.attempt + (self.status == "CLAIMED")
        assert lease is not None
        place = (self.spec.job_id, lease.fence, self.status, self.priority)
        return (*place, next_attempt, self.deliveries, self.generation, lease.lease_ms, self.spec.payload)

    def as_read(self) -> tuple[Any, ...]:
        """What everybody can read."""
        lease = (self.hold.fence, self.hold.deadline_ms) if self.hold else (None, None)
        return (self.status, self.priority, self.attempt, self.deliveries, self.generation, *lease, self.dead_reason)
