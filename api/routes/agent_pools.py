"""Pools of agents: how many there are, how many there should be, and what waits for them."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from hybridq import InvalidArgument, PoolRecord

from ..audit_trail import audit
from ..grants import check_pool
from ..http.answer import Answer, etag_of
from ..http.problems import Problem, Reason
from ..http.request import Request
from ..http.route import route

__all__ = ["AgentPool"]

Count = Annotated[int, Meta(ge=0, le=100_000)]


class AgentPool(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    capacity: int
    active: int
    idle: int
    unhealthy: int
    queued: int
    min: int | None
    max: int | None
    target: int | None
    desired_agents: int | None = None
    """Null, like the two below, until scheduling says how many are wanted."""
    runnable_jobs: int | None = None
    unsatisfiable_jobs: int | None = None
    oldest_wait_seconds: float


class AgentPools(msgspec.Struct, frozen=True, kw_only=True):
    items: list[AgentPool]


class Scale(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    min: Count | None = None
    max: Count | None = None
    target: Count | None = None


@route(
    "GET",
    "/api/agents/pools",
    scope="agents:read",
    answers={200: AgentPools},
    summary="The pools that the caller may see.",
    tags=["agents"],
)
async def list_agent_pools(request: Request) -> Answer:
    caller = request.credential
    pools = await request.plane.fleet(caller.namespace).pools()
    return Answer(AgentPools(items=[_view(pool) for pool in pools if caller.allows_pool(pool.name)]))


@route(
    "GET",
    "/api/agents/pools/{name:name}",
    scope="agents:read",
    answers={200: AgentPool},
    problems=["pool_not_allowed", "pool_not_found"],
    etag=True,
    summary="One pool. Its entity tag changes when it is scaled.",
    tags=["agents"],
)
async def get_agent_pool(request: Request) -> Answer:
    pool = await _visible(request)
    return Answer(_view(pool), headers={"ETag": _etag(pool)})


@route(
    "POST",
    "/api/agents/pools/{name:name}/scale",
    scope="agents:manage",
    rate="admin",
    body=Scale,
    answers={200: AgentPool},
    problems=["invalid_range", "pool_not_allowed", "pool_not_found", "queue_full"],
    etag=True,
    if_match=True,
    summary="Say how many agents a pool should have; what is not said stays.",
    tags=["agents"],
    examples={"body": {"min": 1, "max": 10, "target": 4}},
)
async def scale_agent_pool(request: Request) -> Answer:
    body: Scale = request.body
    pool = await _visible(request)
    request.require_match(_etag(pool))
    try:
        scaled = await request.plane.fleet(request.credential.namespace).scale(
            pool.name, min=body.min, max=body.max, target=body.target
        )
    except InvalidArgument:
        reason = Reason("", "must leave min <= target <= max, together with what was said before")
        raise Problem("invalid_range", errors=[reason]) from None
    await audit(request, "pool.scale", pool.name)
    return Answer(_view(scaled), headers={"ETag": _etag(scaled)})


async def _visible(request: Request) -> PoolRecord:
    """Return the pool of the path. Raises 403 for one that the caller may not touch, 404 for one that is not there."""
    caller, name = request.credential, request.path["name"]
    check_pool(caller, name)
    pool: PoolRecord = await request.plane.fleet(caller.namespace).pool(name)
    return pool


def _etag(pool: PoolRecord) -> str:
    return etag_of(pool.name, pool.min, pool.max, pool.target)


def _view(pool: PoolRecord) -> AgentPool:
    return AgentPool(
        name=pool.name,
        capacity=pool.capacity,
        active=pool.active,
        idle=pool.idle,
        unhealthy=pool.unhealthy,
        queued=pool.queued,
        min=pool.min,
        max=pool.max,
        target=pool.target,
        oldest_wait_seconds=pool.oldest_wait_s,
    )
