"""What goes out: the library's Structs as the wire has them. Keys are fixed by the contract; what is unset is null."""

from __future__ import annotations

import base64
import datetime as dt
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

import hybridq as hq

__all__ = [
    "TERMINAL",
    "AttemptView",
    "ClaimedJob",
    "DashboardJob",
    "JobView",
    "PoolView",
    "StatsView",
    "claimed_view",
    "dashboard_view",
    "full_id",
    "gone_view",
    "job_view",
    "pool_view",
    "stats_view",
]

TERMINAL: Final = frozenset({"COMPLETED", "FAILED", "DEAD_LETTERED", "CANCELLED", "EXPIRED"})
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
NULL: Final = msgspec.Raw(b"null")


class _View(msgspec.Struct, frozen=True, kw_only=True):
    pass


class LateView(_View, frozen=True, kw_only=True):
    """A completion that came after its lease was lost: evidence only, which changed nothing."""

    outcome: str
    at: dt.datetime
    exit_code: int | None
    error: Any


class AttemptView(_View, frozen=True, kw_only=True):
    """One lease of a job that has ended, or the one in force."""

    number: int
    agent_id: str | None
    fence: int
    claimed_at: dt.datetime | None
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    outcome: str | None
    exit_code: int | None
    error: Any
    late: LateView | None = None
    """What its holder said after the lease was lost."""


class RetryView(_View, frozen=True, kw_only=True):
    """How long a failed job waits: up to min(max, base · 2^(attempt - 1)) seconds."""

    base_seconds: float
    max_seconds: float


class JobView(_View, frozen=True, kw_only=True):
    """A job. `id` is `<pool>~<job_id>`; `payload` comes back byte for byte."""

    id: str
    job_id: str
    pool: str
    type: str | None
    status: str
    priority: str | None
    payload: msgspec.Raw
    payload_encoding: str | None
    """`base64` for bytes that are not JSON, which only the Python library can put there."""
    labels: Sequence[str] | None
    tags: Mapping[str, str] | None
    attempt: int | None
    max_attempts: int | None
    deliveries: int | None
    generation: int | None
    timeout_seconds: float | None
    retry: RetryView | None
    agent_id: str | None
    enqueued_at: dt.datetime | None
    run_at: dt.datetime | None
    claimed_at: dt.datetime | None
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    claimed_lease_expires_at: dt.datetime | None
    cancel_requested_at: dt.datetime | None
    outcome: str | None
    exit_code: int | None
    result: Any
    error: Any
    dead_reason: str | None
    group: str | None = None
    unique_key: str | None
    fair_key: str | None = None
    depends_on: Sequence[Any] | None = None
    request_id: str | None
    """X-Request-Id of the request that enqueued it."""
    trace_id: str | None
    traceparent: str | None
    """W3C trace context of the request that enqueued it, to go on from."""
    attempts: Sequence[AttemptView] | UnsetType = UNSET
    unique: bool | UnsetType = UNSET
    """True in the answer to an enqueue whose unique key this job holds."""


class ClaimedJob(JobView, frozen=True, kw_only=True):
    """A job in the hands of its holder, who alone is shown the token."""

    lease_token: str
    fence: int
    """Grows with every claim of the pool; have an older one refused by whatever the job changes."""
    lease_expires_in_seconds: float


class DashboardJob(JobView, frozen=True, kw_only=True):
    """A job of the dashboard: one and the same job as in the queue, and what it was made of."""

    job_type: str | None
    git_repo: str | None
    git_ref: str | None
    git_commit_sha: str | None
    git_commit_message: str | None
    git_author: str | None


class StatsView(_View, frozen=True, kw_only=True):
    """Gauges (now), totals (ever), and a window; 0 where there are no samples."""

    pool: str
    window_seconds: float
    queued: int = 0
    scheduled: int = 0
    blocked: int = 0
    claimed: int = 0
    running: int = 0
    dead_lettered: int = 0
    enqueued: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    lost_leases: int = 0
    avg_wait_seconds: float = 0.0
    p50_wait_seconds: float = 0.0
    p95_wait_seconds: float = 0.0
    p99_wait_seconds: float = 0.0
    avg_execution_seconds: float = 0.0
    p95_execution_seconds: float = 0.0
    failure_rate: float = 0.0
    throughput_per_minute: float = 0.0
    oldest_queued_seconds: float = 0.0
    by_priority: Mapping[str, int] = msgspec.field(
        default_factory=lambda: {priority.value: 0 for priority in hq.Priority}
    )
    by_lane: Mapping[str, int] | None = None
    paused: bool = False


class PoolView(_View, frozen=True, kw_only=True):
    """How a pool is set up."""

    pool: str
    policy: str = "fifo"
    weights: Mapping[str, float] | None = None
    lift_every: int | None = None
    max_queued: int
    """Waiting jobs at most; 0: no limit."""
    max_dead: int
    retention_seconds: float
    retention_count: int
    lease_seconds: float
    paused: bool
    reason: str | None
    by: str | None
    at: dt.datetime | None


def full_id(pool: str, job_id: str) -> str:
    """Return a job's id as it is known outside of its pool."""
    return f"{pool}~{job_id}"


def agent_of(holder: str | None) -> str | None:
    """Return the agent's id in the name of a lease's holder; what follows `@` is the credential's."""
    return None if holder is None else holder.partition("@")[0]


def job_view(job: hq.Job, *, attempts: bool = False, unique: bool = False) -> JobView:
    """Return a job; `attempts` are shown of single jobs only."""
    return JobView(
        **_fields(job),
        attempts=_attempts(job) if attempts else UNSET,
        unique=True if unique else UNSET,
    )


def claimed_view(job: hq.Job | None, lease: hq.Lease) -> ClaimedJob:
    """Return a lease as its holder sees it; `job` None: it could not be read, so what only its record knows is null."""
    lasts_s = lease.lease_s
    # Read after the claim, it may already be in other hands: what the claim answered is what the holder was given.
    if job is not None and job.fence == lease.fence and job.lease_expires_at is not None:
        fields = _fields(job)
    else:
        fields = _fields_of_lease(lease)
    fields |= {
        "status": lease.status.value,
        "attempt": lease.attempt if lease.status is hq.JobStatus.RUNNING else lease.attempt - 1,
        "agent_id": agent_of(lease.agent),
    }
    return ClaimedJob(
        **fields, lease_token=lease.token, fence=lease.fence, lease_expires_in_seconds=lasts_s, attempts=UNSET
    )


def gone_view(pool: str, job_id: str, status: str) -> JobView:
    """Return what is left of a job past its retention: its id and how it ended."""
    known: dict[str, Any] = dict.fromkeys(_REQUIRED)
    known |= {"id": full_id(pool, job_id), "job_id": job_id, "pool": pool, "status": status, "payload": NULL}
    return JobView(**known)


def dashboard_view(job: hq.Job, *, attempts: bool = False) -> DashboardJob:
    """Return a job with what the dashboard shows of it; a payload of another form has no git fields."""
    git = _git_of(job.payload)
    fields = _fields(job)
    for name in ("repo", "ref", "commit_sha", "commit_message", "author"):
        fields[f"git_{name}"] = git.get(name)
    return DashboardJob(**fields, attempts=_attempts(job) if attempts else UNSET, job_type=job.type)


def stats_view(pool: str, stats: hq.QueueStats) -> StatsView:
    """Return the figures of a pool."""
    window = stats.window
    return StatsView(
        pool=pool,
        window_seconds=window.window_s,
        queued=stats.queued,
        scheduled=stats.scheduled,
        blocked=stats.blocked,
        claimed=stats.claimed,
        running=stats.running,
        dead_lettered=stats.dead_lettered,
        enqueued=stats.enqueued_total,
        completed=stats.completed_total,
        failed=stats.failed_total,
        cancelled=stats.cancelled_total,
        retried=stats.retried_total,
        lost_leases=stats.lost_leases_total,
        avg_wait_seconds=window.avg_wait_s,
        p50_wait_seconds=window.p50_wait_s,
        p95_wait_seconds=window.p95_wait_s,
        p99_wait_seconds=window.p99_wait_s,
        avg_execution_seconds=window.avg_execution_s,
        p95_execution_seconds=window.p95_execution_s,
        failure_rate=window.failure_rate,
        throughput_per_minute=window.throughput_per_minute,
        oldest_queued_seconds=stats.oldest_queued_s,
        by_priority=stats.by_priority,
        paused=stats.paused,
    )


def pool_view(pool: str, limits: hq.Limits) -> PoolView:
    """Return how a pool is set up."""
    return PoolView(
        pool=pool,
        policy=limits.policy,
        max_queued=limits.max_queued,
        max_dead=limits.max_dead,
        retention_seconds=limits.retention_s,
        retention_count=limits.retention_count,
        lease_seconds=limits.lease_s,
        paused=limits.paused,
        reason=limits.paused_reason,
        by=limits.paused_by,
        at=limits.paused_at,
    )


def is_json(payload: bytes) -> bool:
    """Whether bytes can stand in a JSON document as they are."""
    try:
        payload.decode()
        msgspec.json.decode(payload)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return False
    return True


_REQUIRED: Final = tuple(
    field.name for field in msgspec.structs.fields(JobView) if field.required and field.name != "payload"
)


def _payload(payload: bytes) -> dict[str, Any]:
    if is_json(payload):
        return {"payload": msgspec.Raw(payload), "payload_encoding": None}
    text = base64.b64encode(payload).decode()
    return {"payload": msgspec.Raw(f'"{text}"'.encode()), "payload_encoding": "base64"}


def _trace(traceparent: str | None) -> dict[str, str | None]:
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return {"trace_id": match[1] if match else traceparent, "traceparent": traceparent if match else None}


def _fields(job: hq.Job) -> dict[str, Any]:
    """Return what every view of a job has."""
    return {
        "id": full_id(job.queue, job.job_id),
        "job_id": job.job_id,
        "pool": job.queue,
        "type": job.type,
        "status": job.status.value,
        "priority": job.priority.value,
        **_payload(job.payload),
        "labels": job.labels or None,
        "tags": job.tags or None,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "deliveries": job.deliveries,
        "generation": job.generation,
        "timeout_seconds": job.timeout_s,
        "retry": RetryView(base_seconds=job.retry.base_s, max_seconds=job.retry.max_s),
        "agent_id": agent_of(job.agent),
        "enqueued_at": job.enqueued_at,
        "run_at": job.run_at,
        "claimed_at": job.claimed_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "claimed_lease_expires_at": job.lease_expires_at,
        "cancel_requested_at": job.cancel_requested_at,
        "outcome": job.outcome,
        "exit_code": job.exit_code,
        "result": job.result,
        "error": job.error,
        "dead_reason": job.dead_reason,
        "unique_key": job.unique,
        "request_id": job.request_id,
        **_trace(job.trace_id),
    }


def _fields_of_lease(lease: hq.Lease) -> dict[str, Any]:
    return {name: None for name in _REQUIRED} | {
        "id": full_id(lease.queue, lease.job_id),
        "job_id": lease.job_id,
        "pool": lease.queue,
        "type": lease.type,
        "priority": lease.priority.value,
        **_payload(lease.payload),
        "tags": lease.tags or None,
        "max_attempts": lease.max_attempts,
        "deliveries": lease.deliveries,
        "generation": lease.generation,
        "timeout_seconds": lease.timeout_s,
        "enqueued_at": lease.enqueued_at,
        "request_id": lease.request_id,
        **_trace(lease.trace_id),
    }


def _late(said: Mapping[str, Any] | None) -> LateView | None:
    if said is None:
        return None
    return LateView(
        outcome=said["outcome"],
        at=dt.datetime.fromtimestamp(said["at_ms"] / 1000, dt.UTC),
        exit_code=said.get("exit_code"),
        error=said.get("error"),
    )


def _attempts(job: hq.Job) -> list[AttemptView]:
    """Return the leases that have ended, and the one in force."""
    found = [
        AttemptView(
            number=each.number,
            agent_id=agent_of(each.agent),
            fence=each.fence,
            claimed_at=each.claimed_at,
            started_at=each.started_at,
            finished_at=each.finished_at,
            outcome=each.outcome,
            exit_code=each.exit_code,
            error=each.error,
            late=_late(each.late),
        )
        for each in job.attempts
    ]
    if job.lease_expires_at is not None and job.fence is not None:
        found.append(
            AttemptView(
                number=job.attempt if job.started_at else job.attempt + 1,
                agent_id=agent_of(job.agent),
                fence=job.fence,
                claimed_at=job.claimed_at,
                started_at=job.started_at,
                finished_at=None,
                outcome=None,
                exit_code=None,
                error=None,
            )
        )
    return found


def _git_of(payload: bytes) -> Mapping[str, Any]:
    try:
        decoded = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    git = decoded.get("git") if isinstance(decoded, dict) else None
    return git if isinstance(git, dict) else {}
