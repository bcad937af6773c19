"""hybridq: a work queue for CI/CD fleets, on Redis.

A job is enqueued, claimed under a lease, started, kept alive by heartbeats, and completed; when its holder dies, its
lease ends and another gets it. Every lease has a fence, a number that only grows: a late call with an older one is
refused and changes nothing. See `Queue`, `AsyncQueue`, `Worker`, and `hybridq.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    AgentDraining,
    AlreadyTerminal,
    BatchRefused,
    Conflict,
    EmbeddedUnavailable,
    EngineMismatch,
    EntryInDoubt,
    HybridqError,
    IllegalTransition,
    InvalidArgument,
    InvalidURL,
    JobCancelled,
    JobConflict,
    JobNotFound,
    LanesChanged,
    NotFound,
    NotLeaseHolder,
    NotTerminal,
    OutcomeConflict,
    OutcomeUnknown,
    PayloadTooLarge,
    QueueClosed,
    QueueFull,
    QueueLost,
    RedisUnavailable,
    Refused,
    Reject,
    Retry,
    SchemaMismatch,
    ScriptFailed,
    ScriptsMissing,
    ServerTrouble,
    SessionSuperseded,
    StaleLease,
    UniqueTaken,
    UsageError,
    WrongLoop,
)
from .job import (
    Attempt,
    Backoff,
    Beat,
    Cancelled,
    CancelRequest,
    Enqueued,
    Finished,
    Job,
    JobPage,
    JobSpec,
    Lease,
    LeaseProof,
    Pause,
    Purged,
    QueueStats,
    Replayed,
    Upkeep,
    WindowStats,
)
from .lifecycle import JobStatus, Outcome, Priority

if TYPE_CHECKING:
    from .aio import AsyncDeadLetters, AsyncQueue
    from .backend import AsyncBackend, Backend
    from .client import DeadLetters, Queue
    from .connect import Connector, Connects
    from .hold import AsyncHold, Hold
    from .worker import Worker

__version__ = "0.1.0"

_LATER = {
    "AsyncBackend": "backend",
    "AsyncDeadLetters": "aio",
    "AsyncHold": "hold",
    "AsyncQueue": "aio",
    "Backend": "backend",
    "Connector": "connect",
    "Connects": "connect",
    "DeadLetters": "client",
    "Hold": "hold",
    "Queue": "client",
    "Worker": "worker",
}
"""Names whose modules need redis-py, which takes long to import: loaded when asked for, so that help comes at once."""

__all__ = [
    "AgentDraining",
    "AlreadyTerminal",
    "AsyncBackend",
    "AsyncDeadLetters",
    "AsyncHold",
    "AsyncQueue",
    "Attempt",
    "Backend",
    "Backoff",
    "BatchRefused",
    "Beat",
    "CancelRequest",
    "Cancelled",
    "Conflict",
    "Connector",
    "Connects",
    "DeadLetters",
    "EmbeddedUnavailable",
    "EngineMismatch",
    "Enqueued",
    "EntryInDoubt",
    "Finished",
    "Hold",
    "HybridqError",
    "IllegalTransition",
    "InvalidArgument",
    "InvalidURL",
    "Job",
    "JobCancelled",
    "JobConflict",
    "JobNotFound",
    "JobPage",
    "JobSpec",
    "JobStatus",
    "LanesChanged",
    "Lease",
    "LeaseProof",
    "NotFound",
    "NotLeaseHolder",
    "NotTerminal",
    "Outcome",
    "OutcomeConflict",
    "OutcomeUnknown",
    "Pause",
    "PayloadTooLarge",
    "Priority",
    "Purged",
    "Queue",
    "QueueClosed",
    "QueueFull",
    "QueueLost",
    "QueueStats",
    "RedisUnavailable",
    "Refused",
    "Reject",
    "Replayed",
    "Retry",
    "SchemaMismatch",
    "ScriptFailed",
    "ScriptsMissing",
    "ServerTrouble",
    "SessionSuperseded",
    "StaleLease",
    "UniqueTaken",
    "Upkeep",
    "UsageError",
    "WindowStats",
    "Worker",
    "WrongLoop",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
