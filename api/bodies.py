"""What comes in: the Structs of bodies and queries about the queue, with their bounds; `check_*` is what those miss.

Fields of parts that are not in this version are typed as the contract has them, so that a caller learns 422 for what is
right and 400 for what is wrong.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from .http.cursors import CURSOR, CURSOR_CHARS_MAX
from .http.names import FullId, Name, refuse_reserved
from .http.problems import Problem, Reason, invalid
from .http.reading import AnyText, EitherCase, Lines

__all__ = [
    "NOT_SUPPORTED",
    "Batch",
    "Claim",
    "ClaimNext",
    "Complete",
    "DashboardEnqueue",
    "DeadFilter",
    "Enqueue",
    "Heartbeat",
    "LeaseRef",
    "Priority",
    "Status",
    "check_enqueue",
    "raw_value",
    "unsupported_of",
]

YEAR_S: Final = 366 * 86_400
PAYLOAD_BYTES_MAX: Final = 262_144
TOKEN: Final = "^[1-9][0-9]{0,15}\\.[0-9a-f]{32}$"
LOG_CHUNK_BYTES_MAX: Final = 1_048_576
NOT_SUPPORTED: Final = "not_supported_yet"


class Priority(EitherCase):
    """How urgent a job is; strictly higher first."""

    CRITICAL = "CRITICAL"
    HIGH = "HIGH"
    NORMAL = "NORMAL"
    LOW = "LOW"


class Status(EitherCase):
    """Where a job is."""

    SCHEDULED = "SCHEDULED"
    BLOCKED = "BLOCKED"
    QUEUED = "QUEUED"
    CLAIMED = "CLAIMED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    DEAD_LETTERED = "DEAD_LETTERED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


Outcome = Literal["success", "failed", "timeout", "infra_error", "rejected", "cancelled"]
JobType = Annotated[str, Meta(min_length=1, max_length=64)]
TagKey = Annotated[str, Meta(min_length=1, max_length=64)]
TagValue = Annotated[str, Meta(max_length=256)]
Tags = Annotated[dict[TagKey, TagValue], Meta(max_length=64)]
ShortText = Annotated[str, Meta(min_length=1, max_length=256)]
ReasonText = Annotated[str, Meta(max_length=500)]
Token = Annotated[str, Meta(pattern=TOKEN, max_length=49, description="`<fence>.<lease_id>`, as the claim gave it")]
Holding = Annotated[list[Token], Meta(max_length=200)]
DelayS = Annotated[float, Meta(ge=0, le=YEAR_S)]
Cursor = Annotated[str, Meta(pattern=CURSOR, max_length=CURSOR_CHARS_MAX)]
Tag = Annotated[str, Meta(pattern="^[^=]{1,64}=.{0,256}$", max_length=321, description="`key=value`")]
Limit = Annotated[int, Meta(ge=1, le=200)]
WaitS = Annotated[float, Meta(ge=0, le=50)]


class _Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


# -- enqueue ---------------------------------------------------------------------------------------------------


class Retry(_Body, frozen=True, kw_only=True):
    """How long a failed job waits: up to min(max, base · 2^(attempt - 1)) seconds, full jitter."""

    base_seconds: Annotated[float, Meta(ge=0, le=3600)] = 5.0
    max_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 300.0


class Unique(_Body, frozen=True, kw_only=True):
    """At most one live job holds the key."""

    key: ShortText
    until: Literal["done", "started"] = "done"
    seconds: Annotated[float, Meta(gt=0, le=YEAR_S)] | None = None
    on_conflict: Literal["return", "replace", "reject"] = "return"


class DependsOn(_Body, frozen=True, kw_only=True):
    """A job that has to end first, and how."""

    id: FullId
    on: Literal["success", "failure", "always"] = "success"


class Supersede(_Body, frozen=True, kw_only=True):
    """A later job of this key takes the place of earlier ones."""

    key: ShortText
    mode: Literal["queued", "running"]


class RateLimit(_Body, frozen=True, kw_only=True):
    """At most so many starts of this key in a time."""

    key: ShortText
    limit: Annotated[int, Meta(ge=1, le=1_000_000)]
    per_seconds: Annotated[float, Meta(gt=0, le=86_400)]


class Enqueue(_Body, frozen=True, kw_only=True):
    """A job to take in. `payload` is any JSON value, kept byte for byte, at most 256 KiB."""

    payload: msgspec.Raw
    job_id: Name | None = None
    pool: Name | None = None
    type: JobType | None = None
    priority: Priority | None = None
    labels: Annotated[list[Annotated[str, Meta(min_length=1, max_length=128)]], Meta(max_length=64)] | None = None
    tags: Tags | None = None
    run_at: Annotated[dt.datetime, Meta(tz=True)] | None = None
    delay_seconds: DelayS | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=100)] | None = None
    timeout_seconds: Annotated[float, Meta(ge=0.001, le=YEAR_S)] | None = None
    queue_ttl_seconds: Annotated[float, Meta(gt=0, le=YEAR_S)] | None = None
    retry: Retry | None = None
    unique: Unique | None = None
    depends_on: Annotated[list[FullId | DependsOn], Meta(max_length=100)] | None = None
    group: Name | None = None
    group_limit: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    fair_key: ShortText | None = None
    supersede: Supersede | None = None
    rate: RateLimit | None = None
    durability: Annotated[str, Meta(min_length=1, max_length=32)] | None = None


class Batch(_Body, frozen=True, kw_only=True):
    """Jobs to take in, in order; `atomic`: all or none."""

    jobs: Annotated[list[Enqueue], Meta(min_length=1, max_length=1000)]
    atomic: bool = False


Text64 = Annotated[str, Meta(min_length=1, max_length=64)]


class SecretRef(_Body, frozen=True, kw_only=True):
    """Where the agent finds a secret; the secret itself never travels here."""

    secret_ref: Annotated[str, Meta(min_length=1, max_length=1024)]


Env = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=256)], Annotated[Lines, Meta(max_length=65_536)] | SecretRef],
    Meta(max_length=1000),
]


class Step(_Body, frozen=True, kw_only=True):
    """One step of what an agent runs."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    run: Annotated[Lines, Meta(min_length=1, max_length=65_536)]
    shell: Text64 | None = None
    env: Env | None = None
    timeout_seconds: Annotated[float, Meta(gt=0, le=YEAR_S)] | None = None
    working_directory: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    if_: Annotated[str, Meta(min_length=1, max_length=1024)] | None = msgspec.field(name="if", default=None)


class DashboardEnqueue(_Body, frozen=True, kw_only=True):
    """A build, test or deployment of a commit."""

    job_type: Literal["build", "test", "deploy"]
    git_repo: Annotated[str, Meta(min_length=1, max_length=2048)]
    git_ref: Annotated[str, Meta(min_length=1, max_length=256)]
    git_commit_sha: Annotated[str, Meta(pattern="^[0-9a-fA-F]{7,64}$", max_length=64)]
    git_commit_message: Annotated[Lines, Meta(max_length=16_384)] | None = None
    git_author: Annotated[str, Meta(max_length=256)] | None = None
    priority: Priority | None = None
    pool: Name | None = None
    steps: Annotated[list[Step], Meta(min_length=1, max_length=256)] | None = None
    labels: Annotated[list[Annotated[str, Meta(min_length=1, max_length=128)]], Meta(max_length=64)] | None = None
    tags: Tags | None = None


# -- leases ------------------------------------------------------------------------------------------------------


class Claim(_Body, frozen=True, kw_only=True):
    """Ask for jobs, and wait for them."""

    agent_id: Name
    session_id: Name | None = None
    pool: Name | None = None
    pools: Annotated[list[Name], Meta(min_length=1, max_length=64)] | None = None
    request_id: Name | None = None
    max: Annotated[int, Meta(ge=1, le=100)] = 1
    wait_seconds: WaitS = 0.0
    lease_seconds: Annotated[float, Meta(ge=1, le=3600)] | None = None
    start: bool = False
    holding: Holding | None = None


class LeaseRef(_Body, frozen=True, kw_only=True):
    """A lease: the job's full id and the token."""

    id: FullId
    lease_token: Token


class Heartbeat(_Body, frozen=True, kw_only=True):
    """Leases to renew."""

    leases: Annotated[list[LeaseRef], Meta(max_length=200)]


class Start(_Body, frozen=True, kw_only=True):
    """The lease to begin the work of."""

    lease_token: Token


class ClaimNext(_Body, frozen=True, kw_only=True):
    """What to claim with a completion; pool, length and start are those of the claim it follows."""

    request_id: Name | None = None
    max: Annotated[int, Meta(ge=1, le=100)] = 1
    holding: Holding | None = None


class Complete(_Body, frozen=True, kw_only=True):
    """How a run ended."""

    lease_token: Token
    outcome: Outcome
    exit_code: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] | None = None
    result: msgspec.Raw | UnsetType = UNSET
    error: msgspec.Raw | UnsetType = UNSET
    retryable: bool | None = None
    claim_next: ClaimNext | None = None


class Release(_Body, frozen=True, kw_only=True):
    """The lease to hand back."""

    lease_token: Token
    delay_seconds: DelayS | None = None


class Log(_Body, frozen=True, kw_only=True):
    """A piece of a job's log, at most 1 MiB; `offset` in bytes of UTF-8 that this lease sent before."""

    lease_token: Token
    offset: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    data: AnyText


# -- steering ----------------------------------------------------------------------------------------------------


class Reprioritise(_Body, frozen=True, kw_only=True):
    """The new priority."""

    priority: Priority


class OnePool(_Body, frozen=True, kw_only=True):
    """A pool, or nothing: all that the caller may reach."""

    pool: Name | None = None


class DeadFilter(_Body, frozen=True, kw_only=True):
    """Which dead letters. `pool` alone is no filter: without one `all` has to be true."""

    pool: Name | None = None
    job_ids: Annotated[list[FullId], Meta(min_length=1, max_length=1000)] | None = None
    type: JobType | None = None
    tag: Tag | Annotated[list[Tag], Meta(min_length=1, max_length=64)] | None = None
    reason: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    dry_run: bool = False
    rate_per_second: Annotated[float, Meta(gt=0, le=10_000)] | None = None
    all: bool = False


class BulkPriority(DeadFilter, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs, and their new priority."""

    priority: Priority


class PoolPatch(_Body, frozen=True, kw_only=True):
    """What to change of a pool."""

    policy: Literal["fifo", "fair"] | None = None
    weights: Annotated[dict[str, float], Meta(max_length=1000)] | None = None
    lift_every: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    max_queued: Annotated[int, Meta(ge=0, le=100_000_000)] | None = None
    max_dead: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    retention_seconds: DelayS | None = None
    retention_count: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None
    lease_seconds: Annotated[float, Meta(ge=1, le=3600)] | None = None


class PauseBody(_Body, frozen=True, kw_only=True):
    """Why a pool stops handing out jobs."""

    reason: ReasonText | None = None
    labels: Annotated[list[Annotated[str, Meta(min_length=1, max_length=128)]], Meta(max_length=64)] | None = None
    until: Annotated[dt.datetime, Meta(tz=True)] | None = None


class PipelineJob(Enqueue, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job of a pipeline; `depends_on` names others by `ref`."""

    ref: Name
    depends_on: Annotated[list[Name], Meta(max_length=100)] | None = None  # type: ignore[assignment]


class PipelineBody(_Body, frozen=True, kw_only=True):
    """Jobs that depend on each other."""

    name: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    jobs: Annotated[list[PipelineJob], Meta(min_length=1, max_length=1000)]


class ScheduleBody(_Body, frozen=True, kw_only=True):
    """A job to take in again and again."""

    cron: Annotated[str, Meta(min_length=1, max_length=128)]
    time_zone: Text64
    job: Enqueue
    missed: Literal["skip", "once"] = "skip"


# -- queries -----------------------------------------------------------------------------------------------------


class JobsQuery(_Body, frozen=True, kw_only=True):
    """Filters of a list of jobs."""

    pool: Name | None = None
    status: Status | None = None
    state: Status | None = None
    priority: Priority | None = None
    type: JobType | None = None
    tag: Annotated[list[Tag], Meta(max_length=64)] | None = None
    label: Annotated[list[ShortText], Meta(max_length=64)] | None = None
    agent_id: Name | None = None
    group: Name | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class DeadQuery(_Body, frozen=True, kw_only=True):
    """Filters of a list of dead letters."""

    pool: Name | None = None
    type: JobType | None = None
    tag: Annotated[list[Tag], Meta(max_length=64)] | None = None
    reason: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class JobQuery(_Body, frozen=True, kw_only=True):
    """How long to wait for the job's end."""

    wait_seconds: WaitS = 0.0


class StatsQuery(_Body, frozen=True, kw_only=True):
    """Which pool, and how far back; `window_seconds` = 0: since the beginning."""

    pool: Name | None = None
    window_seconds: Annotated[float, Meta(ge=0, le=3600)] = 300.0


class LogQuery(_Body, frozen=True, kw_only=True):
    """Which part of a log."""

    offset: Annotated[int, Meta(ge=0, le=2**53 - 1, description="Bytes of UTF-8 in the log as it is stored.")] = 0
    limit: Annotated[int, Meta(ge=1, le=1_048_576, description="Bytes; 262,144 when absent.")] | None = None
    follow: Annotated[bool, Meta(description="Go on as server-sent events until the job has ended.")] = False


class PageQuery(_Body, frozen=True, kw_only=True):
    """Which page."""

    limit: Limit = 50
    cursor: Cursor | None = None


# -- what msgspec cannot say ---------------------------------------------------------------------------------------


def raw_value(value: msgspec.Raw | UnsetType) -> msgspec.Raw | None:
    """Return JSON that came in as it stands; None where it is absent or null."""
    if isinstance(value, UnsetType) or bytes(value) == b"null":
        return None
    return value


def check_enqueue(body: Enqueue, at: str = "") -> None:
    """Raise 400 for what contradicts itself or is no plain text, 413 for a payload over its limit."""
    refuse_reserved(f"{at}/job_id", body.job_id)
    refuse_reserved(f"{at}/pool", body.pool)
    if body.run_at is not None:
        if body.delay_seconds is not None:
            raise invalid(f"{at}/run_at", "stands beside delay_seconds: one of the two")
        if not 0 <= body.run_at.timestamp() <= dt.datetime.now(dt.UTC).timestamp() + YEAR_S:
            raise invalid(f"{at}/run_at", "must be between 1970 and a year from now")
    if body.retry is not None and body.retry.max_seconds < body.retry.base_seconds:
        raise invalid(f"{at}/retry/max_seconds", "must not be below base_seconds")
    check_text(f"{at}/type", body.type, 64)
    if body.unique is not None:
        check_text(f"{at}/unique/key", body.unique.key, 256)
    check_tags(f"{at}/tags", body.tags)
    if len(bytes(body.payload)) > PAYLOAD_BYTES_MAX:
        raise Problem(
            "payload_too_large",
            errors=[Reason(f"{at}/payload", f"at most {PAYLOAD_BYTES_MAX} bytes")],
            limit_bytes=PAYLOAD_BYTES_MAX,
        )


def check_text(pointer: str, text: str | None, bytes_max: int) -> None:
    """Raise 400 for a text with what cannot be printed, or longer than so many bytes of UTF-8."""
    if text is not None and (not text.isprintable() or len(text.encode()) > bytes_max):
        raise invalid(pointer, f"must be printable text of at most {bytes_max} bytes")


def check_tags(pointer: str, tags: dict[str, str] | None) -> None:
    """Raise 400 for a tag that is no plain text. It points at all of them: a key is the sender's, as a value is."""
    for key, value in (tags or {}).items():
        check_text(pointer, key, 64)
        check_text(pointer, value, 256)


def tags_of(given: str | Sequence[str] | None) -> dict[str, str] | None:
    """Return `key=value` texts as a map; of one key twice the last counts nothing: it is 400."""
    if given is None:
        return None
    found: dict[str, str] = {}
    for each in [given] if isinstance(given, str) else given:
        key, _, value = each.partition("=")
        if found.setdefault(key, value) != value:
            raise invalid("/tag", "names one key with two values")
    return found


def unsupported_of(body: msgspec.Struct, names: Sequence[str], at: str = "") -> Iterator[Reason]:
    """Yield a reason for each of these fields that is set."""
    for name in names:
        if getattr(body, name) is not None:
            yield Reason(f"{at}/{name}", "is not in this version")


ENQUEUE_LATER: Final = (
    "labels",
    "depends_on",
    "group",
    "group_limit",
    "fair_key",
    "supersede",
    "rate",
    "queue_ttl_seconds",
    "durability",
)


def check_supported(body: Enqueue, at: str = "") -> None:
    """Raise 422 `not_supported_yet` that names what is not in this version."""
    reasons = list(unsupported_of(body, ENQUEUE_LATER, at))
    if (unique := body.unique) is not None:
        if unique.on_conflict == "replace":
            reasons.append(Reason(f"{at}/unique/on_conflict", "replace is not in this version"))
        if unique.until == "started":
            reasons.append(Reason(f"{at}/unique/until", "started is not in this version"))
        if unique.seconds is not None:
            reasons.append(Reason(f"{at}/unique/seconds", "is not in this version"))
    refuse(reasons)


def refuse(reasons: Sequence[Reason]) -> None:
    """Raise 422 `not_supported_yet` with the reasons, if there are any."""
    if reasons:
        raise Problem(NOT_SUPPORTED, errors=reasons)
