"""hybridq: a work queue for CI/CD fleets, on Redis.

A job is enqueued, claimed under a lease, started, kept alive by heartbeats, and completed; when its holder dies, its
lease ends and another gets it. Every lease has a fence, a number that only grows: a late call with an older one is
refused and changes nothing. See `Queue`, `AsyncQueue`, `Worker`, and `hybridq.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .agent_records import AgentPage, AgentRecord, AgentStatus, PoolRecord, Pulse, Registration
from .errors import (
    AccessFull,
    AgentDraining,
    AgentNotRegistered,
    AgentTerminated,
    AlreadyTerminal,
    BatchRefused,
    Conflict,
    CredentialConflict,
    CredentialRefused,
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
    PoolNotFound,
    QueueClosed,
    QueueFull,
    QueueLost,
    RedisUnavailable,
    Refused,
    RegistrationSpent,
    Reject,
    RenewalReused,
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
    from . import scopes, tokens
    from .access import Access, AsyncAccess
    from .aio import AsyncDeadLetters, AsyncQueue
    from .backend import AsyncBackend, Backend
    from .client import DeadLetters, Queue
    from .connect import Connector, Connects
    from .credential import (
        Admission,
        AgentTokens,
        AuditEntry,
        AuditPage,
        Credential,
        IssuedToken,
        KeyPage,
        LoginLink,
        LoginState,
        NewKey,
        OpenedSession,
        RateState,
        Spent,
        TrustRule,
    )
    from .fleet import AsyncFleet, Fleet
    from .hold import AsyncHold, Hold
    from .worker import Worker

__version__ = "0.1.0"

_LATER = {
    "Access": "access",
    "Admission": "credential",
    "AgentTokens": "credential",
    "AsyncAccess": "access",
    "AsyncBackend": "backend",
    "AsyncDeadLetters": "aio",
    "AsyncFleet": "fleet",
    "AsyncHold": "hold",
    "AsyncQueue": "aio",
    "AuditEntry": "credential",
    "AuditPage": "credential",
    "Backend": "backend",
    "Connector": "connect",
    "Connects": "connect",
    "Credential": "credential",
    "DeadLetters": "client",
    "Fleet": "fleet",
    "Hold": "hold",
    "IssuedToken": "credential",
    "KeyPage": "credential",
    "LoginLink": "credential",
    "LoginState": "credential",
    "NewKey": "credential",
    "OpenedSession": "credential",
    "Queue": "client",
    "RateState": "credential",
    "Spent": "credential",
    "TrustRule": "credential",
    "Worker": "worker",
    "scopes": "scopes",
    "tokens": "tokens",
}
"""Names whose modules need redis-py, which takes long to import: loaded when asked for, so that help comes at once."""

__all__ = [
    "Access",
    "AccessFull",
    "Admission",
    "AgentDraining",
    "AgentNotRegistered",
    "AgentPage",
    "AgentRecord",
    "AgentStatus",
    "AgentTerminated",
    "AgentTokens",
    "AlreadyTerminal",
    "AsyncAccess",
    "AsyncBackend",
    "AsyncDeadLetters",
    "AsyncFleet",
    "AsyncHold",
    "AsyncQueue",
    "Attempt",
    "AuditEntry",
    "AuditPage",
    "Backend",
    "Backoff",
    "BatchRefused",
    "Beat",
    "CancelRequest",
    "Cancelled",
    "Conflict",
    "Connector",
    "Connects",
    "Credential",
    "CredentialConflict",
    "CredentialRefused",
    "DeadLetters",
    "EmbeddedUnavailable",
    "EngineMismatch",
    "Enqueued",
    "EntryInDoubt",
    "Finished",
    "Fleet",
    "Hold",
    "HybridqError",
    "IllegalTransition",
    "InvalidArgument",
    "InvalidURL",
    "IssuedToken",
    "Job",
    "JobCancelled",
    "JobConflict",
    "JobNotFound",
    "JobPage",
    "JobSpec",
    "JobStatus",
    "KeyPage",
    "LanesChanged",
    "Lease",
    "LeaseProof",
    "LoginLink",
    "LoginState",
    "NewKey",
    "NotFound",
    "NotLeaseHolder",
    "NotTerminal",
    "OpenedSession",
    "Outcome",
    "OutcomeConflict",
    "OutcomeUnknown",
    "Pause",
    "PayloadTooLarge",
    "PoolNotFound",
    "PoolRecord",
    "Priority",
    "Pulse",
    "Purged",
    "Queue",
    "QueueClosed",
    "QueueFull",
    "QueueLost",
    "QueueStats",
    "RateState",
    "RedisUnavailable",
    "Refused",
    "Registration",
    "RegistrationSpent",
    "Reject",
    "RenewalReused",
    "Replayed",
    "Retry",
    "SchemaMismatch",
    "ScriptFailed",
    "ScriptsMissing",
    "ServerTrouble",
    "SessionSuperseded",
    "Spent",
    "StaleLease",
    "TrustRule",
    "UniqueTaken",
    "Upkeep",
    "UsageError",
    "WindowStats",
    "Worker",
    "WrongLoop",
    "__version__",
    "scopes",
    "tokens",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        from importlib import import_module

        module = import_module(f".{_LATER[name]}", __name__)
        return module if name == _LATER[name] else getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
