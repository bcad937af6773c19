"""What comes back, as the contract has it: frozen Structs with the keys of the wire.

Keys that are not known here are passed over, and statuses and codes are plain texts (equal to the members of
`JobStatus`, `Outcome` …), so that a newer server does not break an older agent. Tokens are not shown when a Struct is
printed.
"""

from __future__ import annotations

import builtins
import datetime as dt
from typing import Any, ClassVar, Final, TypeVar, overload

import msgspec

__all__ = [
    "AgentBeat",
    "AgentInfo",
    "AgentPage",
    "AgentPool",
    "AgentPools",
    "Attempt",
    "BatchEntry",
    "BatchResults",
    "CancelAsked",
    "Claimed",
    "ClaimedJob",
    "Completed",
    "Event",
    "Exchanged",
    "Health",
    "Info",
    "Job",
    "JobPage",
    "LeaseBeat",
    "LeaseRef",
    "LogAppended",
    "LogPart",
    "LostLease",
    "Pool",
    "PoolPage",
    "PoolPause",
    "PurgedDead",
    "Registered",
    "RenewedLease",
    "ReplayedDead",
    "Requeued",
    "RetryPolicy",
    "Stats",
    "Summary",
]

T = TypeVar("T")
NULL: Final = msgspec.Raw(b"null")


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what comes back. Fields that `_hidden` names are not printed."""

    _hidden: ClassVar[frozenset[str]] = frozenset()

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        values = [(name, getattr(self, name)) for name in self.__struct_fields__]
        return [(name, HIDDEN if name in self._hidden and value is not None else value) for name, value in values]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class _Hidden:
    def __repr__(self) -> str:
        return "…"


HIDDEN: Final = _Hidden()


# -- jobs --------------------------------------------------------------------------------------------------------


class Attempt(Wire, frozen=True, kw_only=True):
    """One lease of a job."""

    number: int
    agent_id: str | None = None
    fence: int | None = None
    claimed_at: dt.datetime | None = None
    started_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None
    outcome: str | None = None
    exit_code: int | None = None
    error: Any = None
    late: Any = None
    """A completion that came after the lease was lost: evidence only."""


class RetryPolicy(Wire, frozen=True, kw_only=True):
    """How long a failed job waits: up to min(max, base · 2^(attempt - 1)) seconds, full jitter."""

    base_seconds: float = 5.0
    max_seconds: float = 300.0


class Job(Wire, frozen=True, kw_only=True):
    """A job. `id` is `<pool>~<job_id>`; `payload` is the bytes as they were sent, `decode` reads them."""

    id: str
    job_id: str
    pool: str
    status: str
    type: str | None = None
    priority: str | None = None
    payload: msgspec.Raw = NULL
    payload_encoding: str | None = None
    """`base64` for bytes that are not JSON, which only the Python library can put there."""
    labels: tuple[str, ...] | None = None
    tags: dict[str, str] | None = None
    attempt: int | None = None
    max_attempts: int | None = None
    deliveries: int | None = None
    generation: int | None = None
    timeout_seconds: float | None = None
    retry: RetryPolicy | None = None
    agent_id: str | None = None
    enqueued_at: dt.datetime | None = None
    run_at: dt.datetime | None = None
    claimed_at: dt.datetime | None = None
    started_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None
    claimed_lease_expires_at: dt.datetime | None = None
    cancel_requested_at: dt.datetime | None = None
    outcome: str | None = None
    exit_code: int | None = None
    result: Any = None
    error: Any = None
    dead_reason: str | None = None
    group: str | None = None
    unique_key: str | None = None
    fair_key: str | None = None
    depends_on: Any = None
    request_id: str | None = None
    """X-Request-Id of the request that enqueued it."""
    trace_id: str | None = None
    traceparent: str | None = None
    attempts: tuple[Attempt, ...] = ()
    """Of single jobs only."""
    unique: bool = False
    """True in the answer to an enqueue whose unique key this job holds."""

    @overload
    def decode(self) -> Any: ...
    @overload
    def decode(self, as_type: builtins.type[T]) -> T: ...
    def decode(self, as_type: Any = Any) -> Any:
        """Return the payload read as JSON into `as_type`; raises `msgspec.DecodeError` when it is something else."""
        return msgspec.json.decode(self.payload, type=as_type)


class ClaimedJob(Job, frozen=True, kw_only=True):
    """A job in our hands, until its lease ends."""

    _hidden: ClassVar[frozenset[str]] = frozenset({"lease_token"})

    lease_token: str
    fence: int
    """Grows with every claim of the pool; have an older one refused by whatever the job changes."""
    lease_expires_in_seconds: float


class Claimed(Wire, frozen=True, kw_only=True):
    """What a claim brought; no jobs when there is nothing now, or the agent is draining."""

    jobs: tuple[ClaimedJob, ...] = ()
    drain: bool = False
    """True: finish what is held, claim nothing more."""
    retry_after_seconds: float | None = None
    """When to ask again, if the server says so."""
    request_id: str = ""
    """Under which it was claimed: the same again brings the same jobs while their leases live."""

    @property
    def job(self) -> ClaimedJob | None:
        """The first, None when there are none."""
        return self.jobs[0] if self.jobs else None

    def __bool__(self) -> bool:
        return bool(self.jobs)


class JobPage(Wire, frozen=True, kw_only=True):
    """One page of jobs, newest first; `next_cursor` continues it, None at the end. Not a snapshot."""

    items: tuple[Job, ...]
    next_cursor: str | None = None


class BatchEntry(Wire, frozen=True, kw_only=True):
    """What became of one entry: `status` as if it had been sent alone."""

    index: int
    status: int
    job: Job | None = None
    problem: dict[str, Any] | None = None


class BatchResults(Wire, frozen=True, kw_only=True):
    """What became of each entry, in order."""

    results: tuple[BatchEntry, ...]


class Completed(Wire, frozen=True, kw_only=True):
    """How the job is now; `next` is what `claim_next` brought, `replayed` that this was answered before."""

    job: Job
    retried: bool = False
    replayed: bool = False
    next: tuple[ClaimedJob, ...] = ()
    redactions: int = 0
    """How many secrets the server took out of the result or error."""
    drain: bool = False


class LogAppended(Wire, frozen=True, kw_only=True):
    """Where the next piece of the log begins, in bytes of UTF-8 as they were sent."""

    next_offset: int
    redactions: int = 0


class LogPart(Wire, frozen=True, kw_only=True):
    """A part of a log. `complete`: nothing comes after it; `truncated`: something is missing."""

    data: str
    offset: int
    next_offset: int
    complete: bool = False
    truncated: bool = False


# -- leases ------------------------------------------------------------------------------------------------------


class LeaseRef(Wire, frozen=True, kw_only=True):
    """A lease, by the job's full id and the token. A `ClaimedJob` does as well."""

    _hidden: ClassVar[frozenset[str]] = frozenset({"lease_token"})

    id: str
    lease_token: str


class RenewedLease(Wire, frozen=True, kw_only=True):
    """A lease that goes on."""

    id: str
    lease_expires_in_seconds: float | None = None


class LostLease(Wire, frozen=True, kw_only=True):
    """A lease that is over: stop the work."""

    id: str
    reason: str = ""


class CancelAsked(Wire, frozen=True, kw_only=True):
    """Somebody asked for the job to stop: `mode` is "graceful" or "kill", within `grace_seconds`."""

    id: str
    mode: str = "graceful"
    grace_seconds: float = 0.0


class LeaseBeat(Wire, frozen=True, kw_only=True):
    """What became of each lease."""

    renewed: tuple[RenewedLease, ...] = ()
    lost: tuple[LostLease, ...] = ()
    cancel: tuple[CancelAsked, ...] = ()


# -- agents ------------------------------------------------------------------------------------------------------


class Registered(Wire, frozen=True, kw_only=True):
    """An agent's session. The client keeps the tokens; see `Client.session`."""

    _hidden: ClassVar[frozenset[str]] = frozenset({"token", "renewal_token"})

    agent_id: str
    session_id: str
    pool: str
    status: str
    token: str
    token_expires_in_seconds: float
    renewal_token: str | None = None
    heartbeat_seconds: float
    boot_id: str | None = None


class AgentBeat(LeaseBeat, frozen=True, kw_only=True):
    """The server's answer to a heartbeat: when the next is due, what became of each lease, whether to drain."""

    _hidden: ClassVar[frozenset[str]] = frozenset({"token"})

    status: str
    next_heartbeat_seconds: float
    drain: bool = False
    token: str | None = None
    """A fresh one, which the client has taken over."""
    token_expires_in_seconds: float | None = None
    redactions: int = 0


class AgentInfo(Wire, frozen=True, kw_only=True):
    """An agent as the server sees it."""

    agent_id: str
    pool: str
    status: str
    labels: dict[str, str] = {}
    version: str | None = None
    capacity: int = 1
    running: int = 0
    jobs_completed: int = 0
    jobs_failed: int = 0
    last_heartbeat: dt.datetime | None = None
    registered_at: dt.datetime | None = None
    metrics: dict[str, float] | None = None
    features: tuple[str, ...] = ()
    drain_reason: str | None = None


class AgentPage(Wire, frozen=True, kw_only=True):
    """One page of agents, by name."""

    items: tuple[AgentInfo, ...]
    next_cursor: str | None = None


class AgentPool(Wire, frozen=True, kw_only=True):
    """How many agents a pool has, how many it should have, and what waits for them."""

    name: str
    capacity: int = 0
    active: int = 0
    idle: int = 0
    unhealthy: int = 0
    queued: int = 0
    min: int | None = None
    max: int | None = None
    target: int | None = None
    desired_agents: int | None = None
    runnable_jobs: int | None = None
    unsatisfiable_jobs: int | None = None
    oldest_wait_seconds: float = 0.0


class AgentPools(Wire, frozen=True, kw_only=True):
    """The pools of agents that the caller may see."""

    items: tuple[AgentPool, ...]


# -- pools, figures, the server ------------------------------------------------------------------------------------


class Pool(Wire, frozen=True, kw_only=True):
    """How a pool is set up, and whether it hands out jobs."""

    pool: str
    policy: str = "fifo"
    weights: dict[str, float] | None = None
    lift_every: int | None = None
    max_queued: int | None = None
    max_dead: int | None = None
    retention_seconds: float | None = None
    retention_count: int | None = None
    lease_seconds: float | None = None
    paused: bool = False
    reason: str | None = None
    by: str | None = None
    at: dt.datetime | None = None


class PoolPage(Wire, frozen=True, kw_only=True):
    """The pools of the caller."""

    items: tuple[Pool, ...]


class PoolPause(Wire, frozen=True, kw_only=True):
    """Whether a pool hands out jobs; if not: why, who said so, since when."""

    pool: str
    paused: bool
    reason: str | None = None
    by: str | None = None
    at: dt.datetime | None = None


class Stats(Wire, frozen=True, kw_only=True):
    """Gauges (now), totals (ever), and a window; 0 where there are no samples."""

    pool: str | None = None
    window_seconds: float | None = None
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
    by_priority: dict[str, int] = {}
    by_lane: dict[str, int] | None = None
    paused: bool = False


class ReplayedDead(Wire, frozen=True, kw_only=True):
    """Of the dead letters that meet the filter: how many there were, live again, and are left."""

    matched: int
    replayed: int
    remaining: int
    more: bool = False


class PurgedDead(Wire, frozen=True, kw_only=True):
    """Of the dead letters that meet the filter: how many there were, are gone, and are left."""

    matched: int
    purged: int
    remaining: int
    more: bool = False


class Requeued(Wire, frozen=True, kw_only=True):
    """What one step of upkeep moved; `more`: call again."""

    requeued: int
    dead_lettered: int
    promoted: int
    more: bool = False


class Summary(Wire, frozen=True, kw_only=True):
    """Figures over the caller's pools."""

    total_jobs: int = 0
    jobs_queued: int = 0
    jobs_running: int = 0
    jobs_completed: int = 0
    jobs_failed: int = 0
    total_deployments: int = 0
    deployments_active: int = 0
    deployments_live: int = 0
    deployments_staging: int = 0
    deployments_failed: int = 0
    agents_healthy: int = 0
    agents_total: int = 0


class Health(Wire, frozen=True, kw_only=True):
    """The server lives."""

    status: str
    version: str | None = None


class Info(Wire, frozen=True, kw_only=True):
    """What the server is, and what may be counted on beyond its version."""

    name: str
    version: str
    environment: str | None = None
    api_docs: str | None = None
    features: tuple[str, ...] = ()


class Exchanged(Wire, frozen=True, kw_only=True):
    """What a token of somebody the server trusts was exchanged for: the Bearer of one registration."""

    _hidden: ClassVar[frozenset[str]] = frozenset({"access_token"})

    access_token: str
    token_type: str = "Bearer"
    issued_token_type: str | None = None
    expires_in: float | None = None
    scope: str = ""


class Event(Wire, frozen=True, kw_only=True):
    """Something that happened. `id` is where to go on from; type `reset`: history is gone, read anew what you show."""

    type: str
    id: str = ""
    at: dt.datetime | None = None
    pool: str | None = None
    status: str | None = None
    job_id: str | None = None
    agent_id: str | None = None
    deployment_id: str | None = None
