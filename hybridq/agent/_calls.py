"""Every call of the contract as a value: method, path, body, and how the answer reads.

Ids that make a repeat harmless (`request_id`, `job_id`, `boot_id`, Idempotency-Key) are made here when the caller
brings none, once for a call and all its sendings.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlencode

import msgspec

from ..errors import InvalidArgument
from ..keys import NAME_PATTERN, NAME_RULE, new_id, new_job_id
from . import _wire as wire
from ._call import Auth, Call
from ._session import Credentials, Secret, Session
from .errors import ApiError, NotRegistered, Reason

__all__ = ["HeldLease", "NewJob"]

T = TypeVar("T")
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"


class HeldLease(Protocol):
    """What proves a lease: a `ClaimedJob`, a `LeaseRef`, or anything with these two."""

    @property
    def id(self) -> str:
        """The job's full id."""

    @property
    def lease_token(self) -> str:
        """As the claim gave it."""


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job to take in, as `enqueue` describes it; None: as the server has it."""

    type: str | None = None
    payload: Any = None
    job_id: str | None = None
    pool: str | None = None
    priority: str | None = None
    labels: Sequence[str] | None = None
    tags: Mapping[str, str] | None = None
    run_at: dt.datetime | None = None
    delay_seconds: float | None = None
    max_attempts: int | None = None
    timeout_seconds: float | None = None
    queue_ttl_seconds: float | None = None
    retry: wire.RetryPolicy | Mapping[str, float] | None = None
    unique: str | Mapping[str, Any] | None = None
    depends_on: Sequence[Any] | None = None
    group: str | None = None
    group_limit: int | None = None
    fair_key: str | None = None
    supersede: Mapping[str, Any] | None = None
    rate: Mapping[str, Any] | None = None
    durability: str | None = None


# -- agents ------------------------------------------------------------------------------------------------------


def register(
    session: Session | None,
    *,
    agent_id: str | None,
    pool: str | None,
    version: str | None,
    labels: Mapping[str, str] | None,
    capacity: int,
    boot_id: str | None,
    features: Sequence[str] | None,
) -> Call[wire.Registered]:
    """Begin a session, or go on with the one there is: the same agent and boot are the same session."""
    same = session is not None and agent_id in (None, session.agent_id)
    asked = {
        "agent_id": session.agent_id if same and session else agent_id,
        "pool": pool,
        "version": version,
        "labels": None if labels is None else dict(labels),
        "capacity": capacity,
        "boot_id": boot_id or (session.boot_id if same and session else f"boot-{new_id()}"),
        "features": None if features is None else list(features),
    }
    goes_on = session is not None and (asked["agent_id"], asked["boot_id"]) == (session.agent_id, session.boot_id)
    return _registration(asked, "enrol", or_else="renew" if goes_on else None)


def renew(session: Session) -> Call[wire.Registered]:
    """Go on with a session by its renewal token."""
    asked = {
        "agent_id": session.agent_id,
        "pool": session.pool,
        "version": session.version,
        "labels": session.labels,
        "capacity": session.capacity,
        "boot_id": session.boot_id,
        "features": None if session.features is None else list(session.features),
    }
    return _registration(asked, "renew")


def _registration(asked: dict[str, Any], auth: Auth, or_else: Auth | None = None) -> Call[wire.Registered]:
    def adopt(credentials: Credentials, _: Secret | None, registered: wire.Registered) -> None:
        credentials.adopt(registered, asked)

    return Call(
        "POST",
        "/api/agents/register",
        reads(wire.Registered),
        body=json(asked),
        key=new_id(),
        auth=auth,
        or_else=or_else,
        effect=adopt,
    )


def heartbeat(
    session: Session | None, *, metrics: Mapping[str, float] | None, leases: Iterable[HeldLease]
) -> Call[wire.AgentBeat]:
    own = _own(session, "heartbeat")
    body = {
        "session_id": own.session_id,
        "metrics": None if metrics is None else dict(metrics),
        "leases": held(leases),
    }

    def refresh(credentials: Credentials, used: Secret | None, beat: wire.AgentBeat) -> None:
        if beat.token is not None:
            credentials.refresh(used, beat.token)

    return Call("POST", f"/api/agents/{own.agent_id}/heartbeat", reads(wire.AgentBeat), body=json(body), effect=refresh)


def deregister(session: Session | None, *, agent_id: str | None, reason: str | None) -> Call[wire.AgentInfo | None]:
    itself = agent_id is None or (session is not None and agent_id == session.agent_id)
    name = _own(session, "deregister").agent_id if agent_id is None else a_name("agent_id", agent_id)

    def leave(credentials: Credentials, used: Secret | None, _: wire.AgentInfo | None) -> None:
        credentials.leave(used)

    return Call(
        "POST",
        f"/api/agents/{name}/deregister",
        reads(wire.AgentInfo),
        body=json({"reason": reason}),
        effect=leave if itself else None,
        # Once it has ended its tokens are no good, so the repeat of a call whose answer was lost finds them refused.
        lost=(lambda error: (None,) if error.status == 401 else None) if itself else None,
    )


def agents(
    *, pool: str | None, status: str | None, label: Sequence[str] | None, limit: int | None, cursor: str | None
) -> Call[wire.AgentPage]:
    query = params(pool=pool, status=status, label=label, limit=limit, cursor=cursor)
    return Call("GET", "/api/agents", reads(wire.AgentPage), query=query)


def healthy_agents(*, pool: str | None) -> Call[tuple[wire.AgentInfo, ...]]:
    return Call("GET", "/api/agents/healthy", reads(tuple[wire.AgentInfo, ...]), query=params(pool=pool))


def agent(session: Session | None, agent_id: str | None) -> Call[wire.AgentInfo]:
    name = _own(session, "agent").agent_id if agent_id is None else a_name("agent_id", agent_id)
    return Call("GET", f"/api/agents/{name}", reads(wire.AgentInfo))


def steer_agent(agent_id: str, status: str, *, reason: str | None) -> Call[wire.AgentInfo]:
    path = f"/api/agents/{a_name('agent_id', agent_id)}/status"
    return Call("PATCH", path, reads(wire.AgentInfo), body=json({"status": status, "reason": reason}))


def agent_pools() -> Call[wire.AgentPools]:
    return Call("GET", "/api/agents/pools", reads(wire.AgentPools))


def agent_pool(name: str) -> Call[wire.AgentPool]:
    return Call("GET", f"/api/agents/pools/{a_name('name', name)}", reads(wire.AgentPool))


def scale(name: str, *, min: int | None, max: int | None, target: int | None) -> Call[wire.AgentPool]:
    path = f"/api/agents/pools/{a_name('name', name)}/scale"
    body = {"min": min, "max": max, "target": target}
    return Call("POST", path, reads(wire.AgentPool), body=json(body), key=new_id())


# -- leases ------------------------------------------------------------------------------------------------------

NOTHING_NOW: Final = frozenset({"no_jobs_available", "agent_draining"})


def claim(
    session: Session | None,
    *,
    agent_id: str | None,
    pool: str | None,
    pools: Sequence[str] | None,
    request_id: str | None,
    max: int,
    wait_seconds: float,
    lease_seconds: float | None,
    start: bool,
    holding: Iterable[HeldLease | str] | None,
) -> Call[wire.Claimed]:
    if session is not None and agent_id in (None, session.agent_id):
        agent_id, session_id = session.agent_id, session.session_id
    else:
        session_id = None
    if agent_id is None:
        raise NotRegistered("claim")
    wait_s = float(wait_seconds)
    request_id = request_id or new_id()
    body = {
        "agent_id": agent_id,
        "session_id": session_id,
        "pool": pool,
        "pools": None if pools is None else list(pools),
        "request_id": request_id,
        "max": max,
        "wait_seconds": wait_seconds or None,
        "lease_seconds": lease_seconds,
        "start": start or None,
        "holding": tokens(holding),
    }

    def read(answer: bytes) -> wire.Claimed:
        return msgspec.structs.replace(reads(wire.Claimed)(answer), request_id=request_id)

    def nothing_now(problem: ApiError) -> tuple[wire.Claimed] | None:
        if problem.code not in NOTHING_NOW:
            return None
        drain = problem.members.get("drain") is True
        return (wire.Claimed(drain=drain, retry_after_seconds=problem.retry_after_s, request_id=request_id),)

    return Call("POST", "/api/queue/claim", read, body=json(body), wait_s=wait_s, meant=nothing_now)


def lease_heartbeat(leases: Iterable[HeldLease]) -> Call[wire.LeaseBeat]:
    return Call("POST", "/api/queue/heartbeat", reads(wire.LeaseBeat), body=json({"leases": held(leases)}))


def start(id: str, lease_token: str) -> Call[wire.Job]:
    return Call("POST", job_path(id, "start"), reads(wire.Job), body=json({"lease_token": lease_token}), key=new_id())


def complete(
    id: str,
    lease_token: str,
    outcome: str,
    *,
    exit_code: int | None,
    result: Any,
    error: Any,
    retryable: bool | None,
    claim_next: bool | Mapping[str, Any],
) -> Call[wire.Completed]:
    following: dict[str, Any] | None = None
    if claim_next is not False:
        given = {} if claim_next is True else dict(claim_next)
        following = {
            **given,
            "request_id": given.get("request_id") or new_id(),
            "holding": tokens(given.get("holding")),
        }
        following = {name: value for name, value in following.items() if value is not None}
    body = {
        "lease_token": lease_token,
        "outcome": outcome,
        "exit_code": exit_code,
        "result": raw(result),
        "error": raw(error),
        "retryable": retryable,
        "claim_next": following,
    }
    return Call("POST", job_path(id, "complete"), reads(wire.Completed), body=json(body), key=new_id())


def release(id: str, lease_token: str, *, delay_seconds: float | None) -> Call[wire.Job]:
    body = {"lease_token": lease_token, "delay_seconds": delay_seconds}
    return Call("POST", job_path(id, "release"), reads(wire.Job), body=json(body), key=new_id())


def append_log(id: str, lease_token: str, offset: int, data: str) -> Call[wire.LogAppended]:
    body = {"lease_token": lease_token, "offset": offset, "data": data}
    return Call("POST", job_path(id, "logs"), reads(wire.LogAppended), body=json(body))


def read_log(id: str, *, offset: int, limit: int | None) -> Call[wire.LogPart]:
    return Call("GET", job_path(id, "logs"), reads(wire.LogPart), query=params(offset=offset, limit=limit))


def follow_log(id: str, offset: int) -> Call[Any]:
    return stream(job_path(id, "logs"), params(follow=True, offset=offset))


# -- jobs --------------------------------------------------------------------------------------------------------


def enqueue(job: NewJob) -> Call[wire.Job]:
    return Call("POST", "/api/queue/jobs", reads(wire.Job), body=json(new_job(job)))


def enqueue_batch(jobs: Iterable[NewJob], *, atomic: bool) -> Call[wire.BatchResults]:
    body = {"jobs": [new_job(each) for each in jobs], "atomic": atomic}
    return Call("POST", "/api/queue/jobs:batch", reads(wire.BatchResults), body=json(body))


def new_job(job: NewJob) -> dict[str, Any]:
    """Return the body of a job to take in, with an id of its own."""
    if job.run_at is not None and job.run_at.tzinfo is None:
        raise InvalidArgument("run_at", job.run_at, "a datetime with a time zone")
    body = {name: value for name in job.__struct_fields__ if (value := getattr(job, name)) is not None}
    body["payload"] = wire.NULL if job.payload is None else raw(job.payload)
    body["job_id"] = job.job_id or new_job_id()
    if isinstance(job.unique, str):
        body["unique"] = {"key": job.unique}
    return body


def job(id: str, *, wait_seconds: float) -> Call[wire.Job]:
    query = params(wait_seconds=wait_seconds or None)
    return Call("GET", job_path(id), reads(wire.Job), query=query, wait_s=float(wait_seconds))


def jobs(**filters: Any) -> Call[wire.JobPage]:
    return Call("GET", "/api/queue/jobs", reads(wire.JobPage), query=params(**_tagged(filters)))


def cancel(id: str) -> Call[wire.Job]:
    return Call("DELETE", job_path(id), reads(wire.Job))


def retry(id: str) -> Call[wire.Job]:
    return Call("POST", job_path(id, "retry"), reads(wire.Job), key=new_id())


def priority(id: str, priority: str) -> Call[wire.Job]:
    return Call("PATCH", job_path(id, "priority"), reads(wire.Job), body=json({"priority": priority}))


def stats(*, pool: str | None, window_seconds: float | None) -> Call[wire.Stats]:
    query = params(pool=pool, window_seconds=window_seconds)
    return Call("GET", "/api/queue/stats", reads(wire.Stats), query=query)


def requeue_expired(*, pool: str | None) -> Call[wire.Requeued]:
    path = "/api/queue/maintenance/requeue-expired"
    return Call("POST", path, reads(wire.Requeued), body=json({"pool": pool}), key=new_id())


# -- dead letters ------------------------------------------------------------------------------------------------


def dead(**filters: Any) -> Call[wire.JobPage]:
    return Call("GET", "/api/queue/dead", reads(wire.JobPage), query=params(**_tagged(filters)))


def dead_replay(**filters: Any) -> Call[wire.ReplayedDead]:
    return _on_dead("replay", reads(wire.ReplayedDead), filters)


def dead_purge(**filters: Any) -> Call[wire.PurgedDead]:
    return _on_dead("purge", reads(wire.PurgedDead), filters)


def _on_dead(verb: str, read: Callable[[bytes], T], filters: dict[str, Any]) -> Call[T]:
    body = _tagged(filters)
    if body.get("job_ids") is not None:
        body["job_ids"] = list(body["job_ids"])
    # "The next hundred" said twice is two hundred; named ones are the same ones.
    repeatable = bool(body["dry_run"]) or body.get("job_ids") is not None
    body = {name: value for name, value in body.items() if value is not None and value is not False}
    return Call(
        "POST", f"/api/queue/dead:{verb}", read, body=json(body), key=new_id(), wait_s=PACED_S, repeatable=repeatable
    )


PACED_S: Final = 25.0
"""How long the server may take over a replay at `rate_per_second`."""


# -- pools -------------------------------------------------------------------------------------------------------


def pools() -> Call[wire.PoolPage]:
    return Call("GET", "/api/queue/pools", reads(wire.PoolPage))


def pool(pool: str) -> Call[wire.Pool]:
    return Call("GET", f"/api/queue/pools/{a_name('pool', pool)}", reads(wire.Pool))


def configure_pool(pool: str, **changes: Any) -> Call[wire.Pool]:
    return Call("PATCH", f"/api/queue/pools/{a_name('pool', pool)}", reads(wire.Pool), body=json(changes))


def pause(pool: str, *, reason: str | None) -> Call[wire.PoolPause]:
    path = f"/api/queue/pools/{a_name('pool', pool)}/pause"
    return Call("POST", path, reads(wire.PoolPause), body=json({"reason": reason}), key=new_id())


def resume(pool: str) -> Call[wire.PoolPause]:
    return Call("POST", f"/api/queue/pools/{a_name('pool', pool)}/resume", reads(wire.PoolPause), key=new_id())


# -- the server --------------------------------------------------------------------------------------------------


def events(*, pool: Sequence[str], types: Sequence[str], last_event_id: str | None) -> Call[Any]:
    query = params(pool=list(pool) or None, types=",".join(types) or None)
    if last_event_id is not None and not (last_event_id.isascii() and last_event_id.isprintable()):
        raise InvalidArgument("last_event_id", last_event_id, "the id of an event, as it was told")
    return stream("/api/events", query, last_event_id=last_event_id)


def summary() -> Call[wire.Summary]:
    return Call("GET", "/api/dashboard/summary", reads(wire.Summary))


def info() -> Call[wire.Info]:
    return Call("GET", "/info", reads(wire.Info), auth="none")


def health() -> Call[wire.Health]:
    return Call("GET", "/health", reads(wire.Health), auth="none")


def ready() -> Call[wire.Health]:
    return Call("GET", "/health/ready", reads(wire.Health), auth="none")


def exchange_token(
    subject_token: str, *, subject_token_type: str, audience: str | None, scope: str | None
) -> Call[wire.Exchanged]:
    form = {
        "grant_type": EXCHANGE,
        "subject_token": subject_token.strip(),
        "subject_token_type": subject_token_type,
        "audience": audience,
        "scope": scope,
    }
    return Call(
        "POST",
        "/auth/token",
        reads(wire.Exchanged),
        body=urlencode({name: value for name, value in form.items() if value is not None}).encode(),
        content_type="application/x-www-form-urlencoded",
        auth="none",
        # The subject token is good once: a repeat of what was done is refused, and another token has to be brought.
        repeatable=False,
    )


# -- parts -------------------------------------------------------------------------------------------------------


def stream(path: str, query: tuple[tuple[str, str], ...], last_event_id: str | None = None) -> Call[Any]:
    """Return the call that opens a stream of server-sent events; its value is the open stream."""
    return Call("GET", path, lambda _: None, query=query, streams=True, last_event_id=last_event_id)


@functools.cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def reads(kind: type[T]) -> Callable[[bytes], T]:
    """Return what reads JSON into `kind`."""
    decode: Callable[[bytes], T] = _decoder(kind).decode  # type: ignore[arg-type]  # a type can be hashed
    return decode


def json(body: Mapping[str, Any]) -> bytes:
    """Return a body as JSON; what is None stays out, but for a payload."""
    try:
        return msgspec.json.encode({name: value for name, value in body.items() if value is not None})
    except (TypeError, ValueError, OverflowError, RecursionError) as problem:
        reason = type(problem).__name__
    raise InvalidArgument("body", reason, "what JSON can hold, in texts without half surrogate pairs")


def raw(value: Any) -> Any:
    """Return a value as it goes into a body: bytes as they are, which must be JSON; None as null, or nothing."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return msgspec.Raw(bytes(value))
    return value


def params(**values: Any) -> tuple[tuple[str, str], ...]:
    """Return query parameters; a list stands for one parameter given several times."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if value is None or value is False:
            continue
        several = value if isinstance(value, (list, tuple)) else [value]
        found += [(name, "true" if each is True else str(each)) for each in several]
    for name, text in found:
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InvalidArgument(name, text, "a text without half surrogate pairs")
    return tuple(found)


def _tagged(filters: dict[str, Any]) -> dict[str, Any]:
    """Return filters with `tags` as the wire has them: `tag`, each as `key=value`."""
    tags = filters.pop("tags", None)
    return {**filters, "tag": None if not tags else [f"{key}={value}" for key, value in tags.items()]}


def held(leases: Iterable[HeldLease]) -> list[dict[str, str]]:
    """Return leases as the wire has them."""
    return [{"id": each.id, "lease_token": each.lease_token} for each in leases]


def tokens(holding: Iterable[HeldLease | str] | None) -> list[str] | None:
    """Return the tokens of leases."""
    if holding is None:
        return None
    return [each if isinstance(each, str) else each.lease_token for each in holding]


def a_name(what: str, text: str) -> str:
    """Return a name that goes into a path; nothing else may, or a path would lead elsewhere."""
    if not isinstance(text, str) or NAME_PATTERN.fullmatch(text) is None:
        raise InvalidArgument(what, text, NAME_RULE)
    return text


def job_path(id: str, verb: str | None = None) -> str:
    """Return the path of a job, or of a verb on it."""
    pool, tilde, job_id = id.partition("~") if isinstance(id, str) else ("", "", "")
    if not tilde or NAME_PATTERN.fullmatch(pool) is None or NAME_PATTERN.fullmatch(job_id) is None:
        raise InvalidArgument("id", id, "a job's full id, <pool>~<job_id>")
    return f"/api/queue/jobs/{id}" + (f"/{verb}" if verb else "")


def _own(session: Session | None, call: str) -> Session:
    if session is None:
        raise NotRegistered(call)
    return session


def reasons(value: Any) -> tuple[Reason, ...]:
    """Return the places that a problem names, as far as they can be read."""
    if not isinstance(value, list):
        return ()
    found = [(each.get("pointer"), each.get("reason")) for each in value if isinstance(each, dict)]
    return tuple(Reason(str(pointer or ""), str(reason or "")) for pointer, reason in found)
