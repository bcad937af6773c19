"""Agents: they register, beat, are steered, and leave.

Register goes: whoever may → one use of the registration key → session and leases in the fleet → tokens → answer. Each
step is the same when it is done again, so a crash or a lost reply anywhere is mended by the same call.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from hybridq import (
    AgentNotRegistered,
    AgentRecord,
    AgentStatus,
    AgentTokens,
    Beat,
    CredentialConflict,
    LeaseProof,
    Registration,
)

from ..audit_trail import actor_of, audit
from ..grants import check_pool
from ..http.answer import Answer, etag_of
from ..http.cursors import CURSOR, CURSOR_CHARS_MAX
from ..http.names import FullId, Name, refuse_reserved, split_full_id
from ..http.problems import Problem, Reason
from ..http.reading import EitherCase
from ..http.request import Request
from ..http.route import BEARERS, route
from ..paging import next_cursor, position_of
from ..reach import lease_of

__all__ = ["AgentView", "Cancel", "Labels", "Lost", "Renewed", "token_s", "view_of"]

FRESH_TOKEN_S: Final = 300
"""An agent whose token lives no longer than this gets another with its heartbeat."""
SESSION_ID_CHARS: Final = 32
HEALTHY_MAX: Final = 10_000
"""What the plain list of healthy agents holds at most."""
LEASES_MAX: Final = 1000
METRICS_MAX: Final = 32
LABELS_MAX: Final = 64
PAGE: Final = 200

LeaseToken = Annotated[
    str, Meta(pattern=r"^[1-9][0-9]{0,15}\.[0-9a-f]{32}$", max_length=49, description="<fence>.<lease_id>")
]
Short = Annotated[str, Meta(max_length=128)]
Reasoned = Annotated[str, Meta(max_length=500)]
LabelName = Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9][A-Za-z0-9._/-]*$")]
LabelValue = Annotated[str, Meta(max_length=128)]
Labels = Annotated[dict[LabelName, LabelValue], Meta(max_length=LABELS_MAX)]
# A name that is a secret reads `[redacted:rule]` by the time it is stored, and may be longer than what was sent.
MetricName = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z\[][A-Za-z0-9_.:\[\]-]*$")]
Number = Annotated[float, Meta(ge=-1e15, le=1e15)]


class Register(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    agent_id: Name | None = None
    pool: Name | None = None
    version: Short | None = None
    labels: Labels | None = None
    capacity: Annotated[int, Meta(ge=1, le=1000)] = 1
    boot_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    features: Annotated[list[Annotated[str, Meta(min_length=1, max_length=64)]], Meta(max_length=32)] | None = None


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    agent_id: str
    session_id: str
    pool: str
    status: str
    token: str
    token_expires_in_seconds: int
    renewal_token: str
    heartbeat_seconds: float
    boot_id: str


class AgentState(EitherCase):
    HEALTHY = "HEALTHY"
    DEGRADED = "DEGRADED"
    UNHEALTHY = "UNHEALTHY"
    OFFLINE = "OFFLINE"
    DRAINING = "DRAINING"
    TERMINATED = "TERMINATED"


class AgentView(msgspec.Struct, frozen=True, kw_only=True):
    agent_id: str
    pool: str
    status: str
    labels: Mapping[str, str]
    version: str | None
    capacity: int
    running: int
    jobs_completed: int
    jobs_failed: int
    last_heartbeat: dt.datetime
    registered_at: dt.datetime
    metrics: Mapping[str, float] | None
    features: tuple[str, ...]
    drain_reason: str | None


class AgentList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[AgentView]
    next_cursor: str | None


class AgentQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pool: Name | None = None
    status: AgentState | None = None
    label: Annotated[list[Annotated[str, Meta(min_length=1, max_length=320)]], Meta(max_length=16)] = []
    limit: Annotated[int, Meta(ge=1, le=PAGE)] = 50
    cursor: Annotated[str, Meta(pattern=CURSOR, max_length=CURSOR_CHARS_MAX)] | None = None


class HealthyQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pool: Name | None = None


class HeldLease(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: FullId
    lease_token: LeaseToken


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    session_id: Annotated[str, Meta(min_length=1, max_length=64)]
    metrics: Annotated[dict[MetricName, Number], Meta(max_length=METRICS_MAX)] | None = None
    leases: Annotated[list[HeldLease], Meta(max_length=LEASES_MAX)] = []


class Renewed(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    lease_expires_in_seconds: float | None


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    reason: str


class Cancel(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    mode: str
    grace_seconds: float


class Beaten(msgspec.Struct, frozen=True, kw_only=True):
    status: str
    next_heartbeat_seconds: float
    renewed: list[Renewed]
    lost: list[Lost]
    cancel: list[Cancel]
    drain: bool
    token: str | None
    token_expires_in_seconds: int | None
    redactions: int = 0


class Steer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    status: Annotated[str, Meta(min_length=1, max_length=32)]
    reason: Reasoned | None = None


class Deregister(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: Reasoned | None = None


# -- register -----------------------------------------------------------------------------------------------


@route(
    "POST",
    "/api/agents/register",
    scope="agents:register",
    agents=True,
    bearers=(*BEARERS, "registration", "renewal"),
    rate="report",
    body=Register,
    answers={200: Registered, 201: Registered},
    problems=["agent_not_allowed", "pool_not_allowed", "queue_full", "reserved_name", "session_superseded"],
    guard="refuse",
    idempotent=True,
    summary="Begin a session of an agent, or go on with it: the same boot gets the same session.",
    tags=["agents"],
    examples={"body": {"agent_id": "build-7", "pool": "linux", "boot_id": "b1", "labels": {"os": "linux"}}},
)
async def register_agent(request: Request) -> Answer:
    body: Register = request.body
    caller = request.credential
    agent_id, boot_id = _agent_to_register(request), _boot_to_register(request)
    pool, labels = _place_to_register(caller, body)
    await _check_takeover(request, agent_id)
    await _spend(request, agent_id, boot_id)
    fleet = request.plane.fleet(caller.namespace)
    registration = await fleet.register(
        agent_id,
        pool=pool,
        boot_id=boot_id,
        version=body.version,
        labels=labels,
        capacity=body.capacity,
        features=tuple(body.features or ()),
    )
    tokens = await _tokens_of(request, registration, boot_id, labels)
    agent = await fleet.agent(agent_id)
    return Answer(
        Registered(
            agent_id=agent_id,
            session_id=registration.session_id,
            boot_id=boot_id,
            pool=pool,
            status=agent.status,
            token=tokens.text,
            token_expires_in_seconds=_left_s(tokens.expires_at),
            renewal_token=tokens.renewal_text,
            heartbeat_seconds=registration.heartbeat_s,
        ),
        201 if registration.created else 200,
    )


def _agent_to_register(request: Request) -> str:
    """Return the agent's id: its own, that of its token, or one made here (the same for the same Idempotency-Key)."""
    named: str | None = request.body.agent_id
    refuse_reserved("/agent_id", named)
    bound: str | None = request.credential.agent_id
    if bound is not None and named not in (None, bound):
        raise Problem("agent_not_allowed")
    return bound or named or request.idempotent_id("agent") or f"agent-{secrets.token_hex(16)}"


def _boot_to_register(request: Request) -> str:
    caller = request.credential
    named: str | None = request.body.boot_id
    bound: str | None = caller.boot_id if caller.kind == "renewal" else None
    if bound is not None and named not in (None, bound):
        raise Problem("agent_not_allowed", "This renewal token is for another boot of the agent.")
    return named or bound or request.idempotent_id("boot") or f"boot-{secrets.token_hex(16)}"


def _place_to_register(caller: Any, body: Register) -> tuple[str, dict[str, str]]:
    """Return pool and labels: what the credential is bound to wins over what the agent says of itself."""
    refuse_reserved("/pool", body.pool)
    pool: str = body.pool or caller.pool or "default"
    if caller.pool is not None and pool != caller.pool:
        raise Problem("pool_not_allowed")
    check_pool(caller, pool)
    return pool, {**(body.labels or {}), **(caller.labels or {})}


async def _check_takeover(request: Request, agent_id: str) -> None:
    """Raise 403 when an agent of this name is at work in a pool that the credential has no say in."""
    caller = request.credential
    try:
        agent = await request.plane.fleet(caller.namespace).agent(agent_id)
    except AgentNotRegistered:
        return
    if agent.status is not AgentStatus.TERMINATED and not caller.allows_pool(agent.pool):
        raise Problem("agent_not_allowed")


async def _spend(request: Request, agent_id: str, boot_id: str) -> None:
    """Use up what can be used once only: for one agent and boot, as often as they ask."""
    caller, access = request.credential, request.plane.access
    if caller.kind == "registration":
        spent = await access.spend_registration(caller, f"{agent_id}\n{boot_id}")
        if not spent.again:
            await audit(request, "registration.spend", agent_id)
    elif caller.rule_id is not None:
        try:
            await access.bind_exchange_token(caller.id, agent_id=agent_id, boot_id=boot_id)
        except CredentialConflict:
            raise Problem("agent_not_allowed", "Another agent registered with this token.") from None


async def _tokens_of(
    request: Request, registration: Registration, boot_id: str, labels: Mapping[str, str]
) -> AgentTokens:
    """Return the agent's tokens: the next of its family for a renewal token, else those of a new family."""
    caller, access = request.credential, request.plane.access
    session: dict[str, Any] = {
        "boot_id": boot_id,
        "session_id": registration.session_id,
        "generation": registration.generation,
        "token_s": token_s(request),
    }
    if caller.kind == "renewal":
        renewed: AgentTokens = await access.rotate_renewal(caller, agent_id=registration.agent_id, **session)
        return renewed
    enrolled: AgentTokens = await access.enrol(
        registration.agent_id,
        pool=registration.pool,
        namespace=caller.namespace,
        labels=labels,
        created_by=actor_of(request),
        **session,
    )
    return enrolled


def token_s(request: Request) -> float:
    """Return how long an agent's token lasts, in seconds."""
    return float(request.settings.agent_token_s)


def _left_s(until: dt.datetime | None) -> int:
    return 0 if until is None else max(0, round((until - dt.datetime.now(dt.UTC)).total_seconds()))


# -- heartbeat ------------------------------------------------------------------------------------------------


@route(
    "POST",
    "/api/agents/{agent_id:name}/heartbeat",
    scope="agents:register",
    agents=True,
    rate="report",
    body=Heartbeat,
    answers={200: Beaten},
    problems=["agent_not_allowed", "agent_not_registered", "session_superseded"],
    guard="redact",
    summary="A sign of life: renews leases, brings what to cancel, whether to drain, and in time another token.",
    tags=["agents"],
    examples={"body": {"session_id": "0" * 32, "metrics": {"cpu_percent": 12.5}, "leases": []}},
)
async def heartbeat_agent(request: Request) -> Answer:
    body: Heartbeat = request.body
    caller = request.credential
    agent_id = request.path["agent_id"]
    _check_own_agent(caller, agent_id)
    if caller.kind != "agent":
        await _visible(request)
    if len(body.session_id) != SESSION_ID_CHARS:
        raise Problem("session_superseded")
    pulse = await request.plane.fleet(caller.namespace).beat(agent_id, body.session_id, metrics=body.metrics)
    renewed, lost, cancel = await _renew(request, agent_id, body.leases)
    token = await _fresh_token(request)
    return Answer(
        Beaten(
            status=pulse.agent.status,
            next_heartbeat_seconds=pulse.next_heartbeat_s,
            renewed=renewed,
            lost=lost,
            cancel=cancel,
            drain=pulse.drain,
            token=None if token is None else token.text,
            token_expires_in_seconds=None if token is None else _left_s(token.expires_at),
            redactions=request.redactions,
        )
    )


def _check_own_agent(caller: Any, agent_id: str) -> None:
    """Raise 403 when an agent's token speaks for another. A key proves by the session's id whom it registered."""
    if caller.kind == "agent" and caller.agent_id != agent_id:
        raise Problem("agent_not_allowed")


async def _renew(
    request: Request, agent_id: str, held: list[HeldLease]
) -> tuple[list[Renewed], list[Lost], list[Cancel]]:
    """Renew leases, those of each pool together; what is in a pool that is not there, or not the caller's, is lost."""
    caller, plane = request.credential, request.plane
    by_pool: dict[str, list[LeaseProof]] = {}
    for place, lease in enumerate(held):
        pool, job_id = split_full_id(lease.id)
        at = f"/leases/{place}/lease_token"
        by_pool.setdefault(pool, []).append(lease_of(job_id, lease.lease_token, agent_id, at))
    known = [pool for pool in by_pool if caller.allows_pool(pool) and await plane.knows_pool(caller.namespace, pool)]
    lost = [
        Lost(id=f"{pool}~{proof.job_id}", reason="not_found")
        for pool, proofs in by_pool.items()
        if pool not in known
        for proof in proofs
    ]
    beats = await asyncio.gather(*(plane.queue(caller.namespace, pool).heartbeat(by_pool[pool]) for pool in known))
    renewed: list[Renewed] = []
    cancel: list[Cancel] = []
    for pool, beat in zip(known, beats, strict=True):
        _tell(pool, beat, renewed, lost, cancel)
    return renewed, lost, cancel


def _tell(pool: str, beat: Beat, renewed: list[Renewed], lost: list[Lost], cancel: list[Cancel]) -> None:
    for job_id in beat.renewed:
        renewed.append(Renewed(id=f"{pool}~{job_id}", lease_expires_in_seconds=beat.lasts_s.get(job_id)))
    for job_id, reason in beat.lost.items():
        lost.append(Lost(id=f"{pool}~{job_id}", reason=reason))
    for asked in beat.cancel:
        cancel.append(Cancel(id=f"{pool}~{asked.job_id}", mode=asked.mode, grace_seconds=asked.grace_s))


async def _fresh_token(request: Request) -> Any:
    caller = request.credential
    if caller.kind != "agent" or caller.family_id is None or _left_s(caller.expires_at) >= FRESH_TOKEN_S:
        return None
    return await request.plane.access.issue_agent_token(caller.family_id, token_s=token_s(request))


# -- looking ------------------------------------------------------------------------------------------------


@route(
    "GET",
    "/api/agents",
    scope="agents:read",
    query=AgentQuery,
    answers={200: AgentList},
    problems=["invalid_cursor", "pool_not_allowed"],
    summary="Agents by name, those of the caller's pools.",
    tags=["agents"],
)
async def list_agents(request: Request) -> Answer:
    query: AgentQuery = request.query
    caller = request.credential
    if query.pool is not None:
        check_pool(caller, query.pool)
    filters = [query.pool, query.status, sorted(query.label), caller.pools]
    page = await request.plane.fleet(caller.namespace).agents(
        pool=query.pool,
        pools=caller.pools,
        status=query.status,
        labels=query.label,
        limit=query.limit,
        cursor=await position_of(request, filters),
    )
    items = [view_of(agent) for agent in page.items]
    return Answer(AgentList(items=items, next_cursor=await next_cursor(request, page.next_cursor, filters)))


@route(
    "GET",
    "/api/agents/healthy",
    scope="agents:read",
    query=HealthyQuery,
    answers={200: list[AgentView]},
    problems=["pool_not_allowed"],
    summary="The healthy agents of the caller's pools, as a plain list.",
    tags=["agents"],
)
async def list_healthy_agents(request: Request) -> Answer:
    query: HealthyQuery = request.query
    caller = request.credential
    if query.pool is not None:
        check_pool(caller, query.pool)
    fleet = request.plane.fleet(caller.namespace)
    found: list[AgentView] = []
    cursor: str | None = None
    while len(found) < HEALTHY_MAX:
        page = await fleet.agents(
            pool=query.pool, pools=caller.pools, status=AgentState.HEALTHY, limit=PAGE, cursor=cursor
        )
        found += [view_of(agent) for agent in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    return Answer(found)


@route(
    "GET",
    "/api/agents/{agent_id:name}",
    scope="agents:read",
    agents=True,
    answers={200: AgentView},
    problems=["agent_not_registered"],
    etag=True,
    summary="One agent. Its entity tag changes when it is steered, not when it beats.",
    tags=["agents"],
)
async def get_agent(request: Request) -> Answer:
    agent = await _visible(request)
    return Answer(view_of(agent), headers={"ETag": _etag(agent)})


async def _visible(request: Request) -> AgentRecord:
    """Return the agent of the path; one that the caller may not see is like one that is not there."""
    caller, agent_id = request.credential, request.path["agent_id"]
    if caller.kind == "agent" and caller.agent_id != agent_id and not caller.may("agents:read"):
        raise Problem("agent_not_registered")
    agent = await request.plane.fleet(caller.namespace).agent(agent_id)
    if not caller.allows_pool(agent.pool):
        raise Problem("agent_not_registered")
    return agent


def _etag(agent: AgentRecord) -> str:
    steered = agent.status in (AgentStatus.DRAINING, AgentStatus.TERMINATED)
    return etag_of(agent.agent_id, agent.generation, agent.status if steered else "", agent.drain_reason)


# -- steering ---------------------------------------------------------------------------------------------------


@route(
    "PATCH",
    "/api/agents/{agent_id:name}/status",
    scope="agents:manage",
    rate="admin",
    body=Steer,
    answers={200: AgentView},
    problems=["agent_not_registered", "agent_terminated", "invalid_status"],
    guard="refuse",
    etag=True,
    if_match=True,
    summary="Have an agent drain (DRAINING), or take work again (HEALTHY).",
    tags=["agents"],
    examples={"body": {"status": "DRAINING", "reason": "kernel update"}},
)
async def steer_agent(request: Request) -> Answer:
    body: Steer = request.body
    caller = request.credential
    agent = await _visible(request)
    request.require_match(_etag(agent))
    wanted = body.status.upper()
    if wanted not in (AgentState.DRAINING, AgentState.HEALTHY):
        raise Problem("invalid_status", errors=[Reason("/status", "must be DRAINING or HEALTHY")])
    draining = wanted == AgentState.DRAINING
    steered = await request.plane.fleet(caller.namespace).steer(
        agent.agent_id, draining=draining, reason=body.reason, by=actor_of(request)
    )
    await audit(request, "agent.drain" if draining else "agent.undrain", agent.agent_id)
    return Answer(view_of(steered), headers={"ETag": _etag(steered)})


@route(
    "POST",
    "/api/agents/{agent_id:name}/deregister",
    scope=("agents:register", "agents:manage"),
    agents=True,
    rate="admin",
    body=Deregister,
    answers={200: AgentView},
    problems=["agent_not_allowed", "agent_not_registered"],
    guard="refuse",
    summary="End an agent's session: its leases go back, its tokens are refused.",
    tags=["agents"],
    examples={"body": {"reason": "scaled in"}},
)
async def deregister_agent(request: Request) -> Answer:
    body: Deregister = request.body
    caller, access = request.credential, request.plane.access
    agent_id = request.path["agent_id"]
    _check_own_agent(caller, agent_id)
    agent = await _visible(request)
    own = caller.kind == "agent" and caller.session_id is not None
    if not own and not caller.may("agents:manage"):
        await _check_registered_by(request, agent_id)
    # The session that this token is of, and no newer one that began while the request was on its way.
    session_id = caller.session_id if own else None
    ended = await request.plane.fleet(caller.namespace).deregister(agent_id, session_id=session_id, reason=body.reason)
    await access.revoke_agent(caller.namespace, agent_id, reason="deregistered")
    if not own and agent.status is not AgentStatus.TERMINATED:
        await audit(request, "agent.deregister", agent_id)
    return Answer(view_of(ended))


async def _check_registered_by(request: Request, agent_id: str) -> None:
    """Raise 403 for an agent that somebody else registered."""
    caller = request.credential
    if await request.plane.access.enrolled_by(caller.namespace, agent_id) != actor_of(request):
        raise Problem("agent_not_allowed")


def view_of(agent: AgentRecord) -> AgentView:
    """Return an agent as the wire has it."""
    return AgentView(
        agent_id=agent.agent_id,
        pool=agent.pool,
        status=agent.status,
        labels=agent.labels,
        version=agent.version,
        capacity=agent.capacity,
        running=agent.running,
        jobs_completed=agent.jobs_completed,
        jobs_failed=agent.jobs_failed,
        last_heartbeat=agent.last_heartbeat_at,
        registered_at=agent.registered_at,
        metrics=agent.metrics,
        features=agent.features,
        drain_reason=agent.drain_reason,
    )
