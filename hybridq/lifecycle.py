"""The life of a job: its statuses, its priorities, how a run can end, and every move that is allowed.

`TRANSITIONS` is the one table of (verb, from, to); the `MOVES` headers of the Lua scripts say the same, and a
test holds the two and the README's drawing together.
"""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["LEASED", "NEW", "TERMINAL", "TRANSITIONS", "WAITING", "JobStatus", "Outcome", "Priority", "allowed_from"]


class JobStatus(enum.StrEnum):
    """Where a job is; the `status` field of its record is the truth, every zset an index of it."""

    SCHEDULED = "SCHEDULED"
    """Waits for a time: put there by a delayed enqueue, a retry's backoff or a release delay; promote takes it out."""
    BLOCKED = "BLOCKED"
    """Waits for other jobs; unblock takes it out."""
    QUEUED = "QUEUED"
    """Any agent whose labels fit may claim it."""
    CLAIMED = "CLAIMED"
    """Leased and not yet started; start, release, a lost lease or an early complete take it out."""
    RUNNING = "RUNNING"
    """Leased and started: the attempt is charged; complete, release or a lost lease take it out."""
    COMPLETED = "COMPLETED"
    """Ended well. Terminal."""
    FAILED = "FAILED"
    """Ran, failed, and the outcome said no retry. Terminal until somebody retries it."""
    DEAD_LETTERED = "DEAD_LETTERED"
    """Attempts used up, or never started; kept until replayed, purged or over the cap."""
    CANCELLED = "CANCELLED"
    """Somebody cancelled it. Terminal until somebody retries it."""
    EXPIRED = "EXPIRED"
    """Waited longer than its time to live. Terminal."""


class Priority(enum.StrEnum):
    """How urgent a job is; strictly higher first, first in first out inside one."""

    CRITICAL = "CRITICAL"
    HIGH = "HIGH"
    NORMAL = "NORMAL"
    LOW = "LOW"


class Outcome(enum.StrEnum):
    """How a run ended, as its holder reports it."""

    SUCCESS = "success"
    """COMPLETED, also after a cancel request."""
    FAILED = "failed"
    """The work failed: retried while attempts are left."""
    TIMEOUT = "timeout"
    """The work ran past its time: as FAILED."""
    INFRA_ERROR = "infra_error"
    """The machine is at fault, not the work: retried, and not charged the first three times."""
    REJECTED = "rejected"
    """The work can never succeed: FAILED at once."""
    CANCELLED = "cancelled"
    """The work was stopped on request."""


WAITING: Final = frozenset({JobStatus.SCHEDULED, JobStatus.BLOCKED, JobStatus.QUEUED})
LEASED: Final = frozenset({JobStatus.CLAIMED, JobStatus.RUNNING})
TERMINAL: Final = frozenset(
    {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.DEAD_LETTERED, JobStatus.CANCELLED, JobStatus.EXPIRED}
)

NEW: Final = "NEW"
"""Stands for "no record" at either end of a move."""


def _pairs(text: str) -> frozenset[tuple[str, str]]:
    return frozenset((source, target) for source, _, target in (pair.partition(">") for pair in text.split()))


TRANSITIONS: Final[dict[str, frozenset[tuple[str, str]]]] = {
    "enqueue": _pairs("NEW>QUEUED NEW>SCHEDULED"),
    "promote": _pairs("SCHEDULED>QUEUED"),
    "claim": _pairs("QUEUED>CLAIMED QUEUED>RUNNING"),
    "start": _pairs("CLAIMED>RUNNING CLAIMED>CANCELLED"),
    "complete": _pairs(
        "RUNNING>COMPLETED RUNNING>FAILED RUNNING>SCHEDULED RUNNING>QUEUED RUNNING>DEAD_LETTERED RUNNING>CANCELLED "
        "CLAIMED>FAILED CLAIMED>SCHEDULED CLAIMED>QUEUED CLAIMED>DEAD_LETTERED CLAIMED>CANCELLED"
    ),
    "release": _pairs(
        "CLAIMED>QUEUED CLAIMED>SCHEDULED CLAIMED>CANCELLED RUNNING>QUEUED RUNNING>SCHEDULED RUNNING>CANCELLED"
    ),
    "reap": _pairs(
        "CLAIMED>QUEUED CLAIMED>SCHEDULED CLAIMED>DEAD_LETTERED CLAIMED>CANCELLED "
        "RUNNING>QUEUED RUNNING>SCHEDULED RUNNING>DEAD_LETTERED RUNNING>CANCELLED"
    ),
    "cancel": _pairs("QUEUED>CANCELLED SCHEDULED>CANCELLED BLOCKED>CANCELLED"),
    "replay": _pairs("FAILED>QUEUED CANCELLED>QUEUED DEAD_LETTERED>QUEUED"),
    "purge": _pairs("DEAD_LETTERED>NEW"),
    "trim": _pairs("COMPLETED>NEW FAILED>NEW CANCELLED>NEW EXPIRED>NEW DEAD_LETTERED>NEW"),
}
"""verb → the moves it may make. Verbs that leave the status alone (heartbeat, priority, cancel of leased work) are
not here; `cancel` is the library's `cancel`, `replay` also its `retry`."""


def allowed_from(verb: str) -> list[str]:
    """Return the statuses `verb` may be called in, in the order of `JobStatus`; empty for an unknown verb."""
    sources = {source for source, _ in TRANSITIONS.get(verb, frozenset())}
    return [status.value for status in JobStatus if status.value in sources]
