"""What a worker tells to whoever wants to count, trace or watch: one method an event, one frozen Struct each.

Hooks run in the worker's event loop, so they have to return at once; one that raises is logged and goes
unheard. None of the Structs holds an error's text or a result; a lease holds its job's payload.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from ..job import Lease
from ..lifecycle import JobStatus, Outcome

__all__ = [
    "ClaimDetails",
    "DrainDetails",
    "FailDetails",
    "FinishDetails",
    "Hooks",
    "LossDetails",
    "NoHooks",
    "StartDetails",
]


class _Details(msgspec.Struct, frozen=True, kw_only=True):
    queue: str


class ClaimDetails(_Details, frozen=True, kw_only=True):
    """Jobs came, in the order in which they will be started."""

    leases: tuple[Lease, ...]


class StartDetails(_Details, frozen=True, kw_only=True):
    """A handler is about to run."""

    lease: Lease


class FinishDetails(_Details, frozen=True, kw_only=True):
    """A run ended well and the queue knows it."""

    lease: Lease
    status: JobStatus
    run_s: float
    """Seconds from the start of the handler to its end."""


class FailDetails(_Details, frozen=True, kw_only=True):
    """A run ended in another way, and the queue knows it. `error_type` names an exception class or a code."""

    lease: Lease
    outcome: Outcome
    status: JobStatus
    error_type: str | None
    retry_in_s: float | None
    run_s: float


class LossDetails(_Details, frozen=True, kw_only=True):
    """A lease was lost: nothing this worker does for the job counts any more."""

    lease: Lease
    reason: str


class DrainDetails(_Details, frozen=True, kw_only=True):
    """The worker has stopped. Counts are of jobs of the whole run."""

    finished: int
    failed: int
    released: int
    lost: int
    took_s: float
    """Seconds from the request to stop until everything was handed over."""


class Hooks(Protocol):
    """Called around each operation of a worker. Subclass `NoHooks` to implement a few."""

    def claimed(self, details: ClaimDetails) -> None:
        """Jobs came."""

    def started(self, details: StartDetails) -> None:
        """A handler is about to run."""

    def finished(self, details: FinishDetails) -> None:
        """A run ended well."""

    def failed(self, details: FailDetails) -> None:
        """A run failed, timed out, was rejected or cancelled."""

    def lost(self, details: LossDetails) -> None:
        """A lease was lost."""

    def drained(self, details: DrainDetails) -> None:
        """The worker has stopped."""


class NoHooks:
    """Hears everything and does nothing: to be subclassed by who wants to hear a part."""

    def claimed(self, details: ClaimDetails) -> None:
        """Do nothing."""

    def started(self, details: StartDetails) -> None:
        """Do nothing."""

    def finished(self, details: FinishDetails) -> None:
        """Do nothing."""

    def failed(self, details: FailDetails) -> None:
        """Do nothing."""

    def lost(self, details: LossDetails) -> None:
        """Do nothing."""

    def drained(self, details: DrainDetails) -> None:
        """Do nothing."""
