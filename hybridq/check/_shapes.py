"""How the arguments and answers of a history read: of each, the fields that a rule looks at."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

__all__ = ["Attempt", "Beat", "ClaimArgs", "Enqueued", "Finished", "Job", "Lease", "LeaseArgs", "Spec", "to"]

T = TypeVar("T")


def to(kind: type[T], value: Any) -> T:
    """Read a plain value as `kind`; fields it does not name are left out. Raises `msgspec.ValidationError`."""
    return msgspec.convert(value, kind, strict=False)


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What an enqueue said of its job."""

    job_id: str | None = None
    priority: str = "NORMAL"
    labels: tuple[str, ...] = ()
    delay_s: float | None = None
    run_at: Any = None
    payload_sha256: str | None = None


class Enqueued(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of enqueue."""

    job_id: str
    status: str = "QUEUED"
    created: bool = True
    unique: bool = False


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease, as a claim answers it and as its holder names it."""

    job_id: str
    fence: int
    lease_id: str = ""
    agent: str = ""
    priority: str = "NORMAL"
    status: str = "CLAIMED"
    attempt: int = 1
    max_attempts: int = 3
    deliveries: int | None = None
    generation: int | None = None
    payload_sha256: str | None = None


class LeaseArgs(msgspec.Struct, frozen=True, kw_only=True):
    """What the holder of a lease, or of several, said."""

    lease: Lease | None = None
    leases: tuple[Lease, ...] = ()
    job_id: str | None = None
    fence: int = 0
    outcome: str | None = None
    claim_next: int = 0
    result: Any = msgspec.UNSET


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of complete, fail and release."""

    status: str = ""
    replayed: bool = False
    retry_in_s: float | None = None
    next: tuple[Lease, ...] = ()


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of heartbeat."""

    renewed: tuple[str, ...] = ()


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One ended lease, as a read of its job shows it."""

    fence: int
    outcome: str
    result: Any = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it was read."""

    job_id: str
    status: str
    payload_sha256: str | None = None
    attempts: tuple[Attempt, ...] = ()


class ClaimArgs(msgspec.Struct, frozen=True, kw_only=True):
    """What a claim asked for."""

    n: int = 1
    agent: str | None = None
    request_id: str | None = None
