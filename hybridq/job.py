"""What callers hold in their hands: the job they ask for, the job as it is, a lease on it, and the answers of verbs.

Durations end in `_s` (seconds), instants in `_at` (aware UTC datetimes).
"""

from __future__ import annotations

import builtins
import datetime as dt
from collections.abc import Mapping
from typing import Any, Final, TypeVar, overload

import msgspec

from .lifecycle import JobStatus, Priority

__all__ = [
    "Attempt",
    "Backoff",
    "Beat",
    "CancelRequest",
    "Cancelled",
    "Enqueued",
    "Finished",
    "Job",
    "JobPage",
    "JobSpec",
    "Lease",
    "LeaseProof",
    "Limits",
    "LogPart",
    "Pause",
    "Purged",
    "QueueStats",
    "Replayed",
    "Upkeep",
    "WindowStats",
]

T = TypeVar("T")
ATTEMPTS_DEFAULT: Final = 3


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Backoff(_Struct, frozen=True, kw_only=True):
    """How long a failed job waits: a random time up to min(`max_s`, `base_s` · 2^(attempt - 1)) (full jitter)."""

    base_s: float = 5.0
    max_s: float = 300.0


class JobSpec(_Struct, frozen=True, kw_only=True):
    """What a producer asks for. `payload` is bytes, sent as they are, or anything msgspec can encode as JSON."""

    type: str = "job"
    payload: Any = None
    job_id: str | None = None
    """Chosen by the caller it makes the enqueue idempotent; None: made by the library."""
    priority: Priority = Priority.NORMAL
    delay_s: float | None = None
    run_at: dt.datetime | None = None
    max_attempts: int = ATTEMPTS_DEFAULT
    timeout_s: float = 3600.0
    retry: Backoff = Backoff()
    unique: str | None = None
    """At most one job that has not ended holds a unique key; a second enqueue answers with the first job."""
    tags: Mapping[str, str] = {}
    labels: tuple[str, ...] = ()
    request_id: str | None = None
    trace_id: str | None = None


class Enqueued(_Struct, frozen=True, kw_only=True):
    """Answer of enqueue: the job's id and status; `created` is False when the job (or its unique key) was there."""

    job_id: str
    status: JobStatus
    created: bool
    unique: bool = False
    """True when the answer is another job, which holds the unique key."""


class Attempt(_Struct, frozen=True, kw_only=True):
    """One lease of a job that has ended, with what its holder reported."""

    number: int
    agent: str
    fence: int
    claimed_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime
    outcome: str
    """One of `Outcome`, or "lost" (the lease ran out) or "released"."""
    status: JobStatus
    """What the job became by it."""
    exit_code: int | None = None
    error: Any = None
    result: Any = None
    late: Any = None
    """A completion that came after the lease was lost: {outcome, at_ms, exit_code, error}; evidence only."""


class Job(_Struct, frozen=True, kw_only=True):
    """A job as Redis holds it now."""

    job_id: str
    queue: str
    type: str
    status: JobStatus
    priority: Priority
    payload: bytes
    """The bytes as they were sent; `decode` reads them."""
    lane: str
    attempt: int
    max_attempts: int
    deliveries: int
    generation: int
    timeout_s: float
    retry: Backoff
    unique: str | None
    tags: Mapping[str, str]
    labels: tuple[str, ...]
    request_id: str | None
    trace_id: str | None
    enqueued_at: dt.datetime
    run_at: dt.datetime | None
    agent: str | None
    fence: int | None
    claimed_at: dt.datetime | None
    started_at: dt.datetime | None
    lease_expires_at: dt.datetime | None
    lease_s: float | None = None
    """Seconds the present lease was claimed for; None while there is none."""
    cancel_requested_at: dt.datetime | None
    finished_at: dt.datetime | None
    outcome: str | None
    exit_code: int | None
    result: Any
    error: Any
    dead_reason: str | None
    seq: int
    """Place in the order of enqueue; lists run by it, newest first."""
    attempts: tuple[Attempt, ...]

    @overload
    def decode(self) -> Any: ...
    @overload
    def decode(self, as_type: builtins.type[T]) -> T: ...
    def decode(self, as_type: Any = Any) -> Any:
        """Return the payload read as JSON into `as_type`; raises `msgspec.DecodeError` when it is something else."""
        return msgspec.json.decode(self.payload, type=as_type)


class LeaseProof(_Struct, frozen=True, kw_only=True):
    """What proves a lease to the queue, for those who kept no more of it: start, heartbeat and every end take it."""

    job_id: str
    fence: int
    """Grows with every claim of the queue; give it to whatever the job changes, and have an older one refused."""
    lease_id: str
    agent: str
    """Its holder; `@` and a credential's id alone stand for any name that credential claimed under."""


class Lease(LeaseProof, frozen=True, kw_only=True):
    """One agent's right to one run of one job, until its end; renew it by heartbeat."""

    queue: str
    type: str
    payload: bytes
    status: JobStatus
    priority: Priority
    attempt: int
    """Number of this run, counting from 1; of the run to come while the job is not started."""
    max_attempts: int
    deliveries: int
    generation: int
    lease_s: float
    """Seconds a renewal lasts, counted by Redis' clock from each claim, start excluded, and heartbeat."""
    timeout_s: float
    tags: Mapping[str, str]
    enqueued_at: dt.datetime
    started_by_claim: bool = False
    """Claimed straight into RUNNING; `claim_next` does the same."""
    session: int = 0
    """Generation of the registered agent's session it was claimed in; 0 for an agent that is not registered."""
    request_id: str | None = None
    trace_id: str | None = None

    @property
    def token(self) -> str:
        """The lease token as it travels over HTTP: `<fence>.<lease_id>`."""
        return f"{self.fence}.{self.lease_id}"

    @overload
    def decode(self) -> Any: ...
    @overload
    def decode(self, as_type: builtins.type[T]) -> T: ...
    def decode(self, as_type: Any = Any) -> Any:
        """Return the payload read as JSON into `as_type`; raises `msgspec.DecodeError` when it is something else."""
        return msgspec.json.decode(self.payload, type=as_type)


class CancelRequest(_Struct, frozen=True, kw_only=True):
    """Somebody asked for the job to stop: `mode` is "graceful" or "kill", after `grace_s` seconds."""

    job_id: str
    mode: str
    grace_s: float


class Beat(_Struct, frozen=True, kw_only=True):
    """Answer of heartbeat: ids renewed, ids lost with the reason, and cancel requests to obey."""

    renewed: tuple[str, ...]
    lost: Mapping[str, str]
    lasts_s: Mapping[str, float] = {}
    """id → seconds until the renewed lease ends."""
    cancel: tuple[CancelRequest, ...]


class Finished(_Struct, frozen=True, kw_only=True):
    """Answer of complete, fail and release: what the job is now; `replayed` when this very call was answered before."""

    job_id: str
    status: JobStatus
    replayed: bool = False
    retry_in_s: float | None = None
    """Seconds until the job is due again, when it waits for a retry or a delay."""
    next: tuple[Lease, ...] = ()
    """What `claim_next` brought."""

    @property
    def retried(self) -> bool:
        """True when the job will run again."""
        return self.status in (JobStatus.QUEUED, JobStatus.SCHEDULED)


class LogPart(_Struct, frozen=True, kw_only=True):
    """A part of a job's log. Positions are bytes of UTF-8 in the log as it is stored, all leases of the job in one."""

    data: str
    offset: int
    """Where `data` begins: where it was asked for, or later, when what stood there is gone."""
    next_offset: int
    complete: bool = False
    """The job has ended, and nothing comes after this part."""
    truncated: bool = False
    """The log lacks something: its beginning was dropped, or it reached a limit and its end was not stored."""


class Cancelled(_Struct, frozen=True, kw_only=True):
    """Answer of cancel: CANCELLED at once, or `requested`: the holder learns it at its next heartbeat."""

    job_id: str
    status: JobStatus
    requested: bool


class Replayed(_Struct, frozen=True, kw_only=True):
    """Answer of a replay: ids that wait again, and ids left alone with the reason."""

    replayed: tuple[str, ...]
    skipped: Mapping[str, str]


class Purged(_Struct, frozen=True, kw_only=True):
    """Answer of a purge: ids deleted for good, and ids left alone with the reason."""

    purged: tuple[str, ...]
    skipped: Mapping[str, str]


class Pause(_Struct, frozen=True, kw_only=True):
    """Whether a queue hands out jobs; if not: why, who said so, since when."""

    paused: bool
    reason: str | None = None
    by: str | None = None
    at: dt.datetime | None = None


class Upkeep(_Struct, frozen=True, kw_only=True):
    """Answer of upkeep: jobs moved by this step; `more` when it stopped at its bound, so call again."""

    requeued: int
    dead_lettered: int
    promoted: int
    trimmed: int
    more: bool
    next_due_s: float | None
    """Seconds until the next job is due or the next lease ends; None when nothing is waiting for a time."""


class JobPage(_Struct, frozen=True, kw_only=True):
    """One page of a list; `next_cursor` continues it, None at the end. Not a snapshot."""

    items: tuple[Job, ...]
    next_cursor: str | None


class Limits(_Struct, frozen=True, kw_only=True):
    """How a queue is configured, by the names that `configure` takes, and whether it hands out jobs."""

    policy: str
    """Who comes first: "fifo"."""
    lease_s: float
    max_queued: int
    """0: no limit."""
    max_dead: int
    retention_s: float
    retention_count: int
    tombstone_s: float
    events_max: int
    log_bytes_max: int
    logs_bytes_max: int
    paused: bool
    paused_reason: str | None
    paused_by: str | None
    paused_at: dt.datetime | None


class WindowStats(_Struct, frozen=True, kw_only=True):
    """Waits and runs inside a window; 0 where there are no samples."""

    window_s: float
    avg_wait_s: float
    p50_wait_s: float
    p95_wait_s: float
    p99_wait_s: float
    avg_execution_s: float
    p95_execution_s: float
    failure_rate: float
    """(failed + dead-lettered) / (completed + failed + dead-lettered)."""
    throughput_per_minute: float


class QueueStats(_Struct, frozen=True, kw_only=True):
    """Gauges (now), totals (ever) and a window of one queue."""

    queued: int
    scheduled: int
    blocked: int
    claimed: int
    running: int
    dead_lettered: int
    finished: int
    by_priority: Mapping[str, int]
    oldest_queued_s: float
    paused: bool
    enqueued_total: int
    completed_total: int
    failed_total: int
    cancelled_total: int
    dead_lettered_total: int
    retried_total: int
    released_total: int
    lost_leases_total: int
    window: WindowStats
