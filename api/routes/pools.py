"""Pools: how they are set up, and whether they hand out jobs."""

from __future__ import annotations

import asyncio
import datetime as dt

import msgspec

import hybridq as hq

from ..audit_trail import actor_of, audit
from ..bodies import PauseBody, PoolPatch, check_text, refuse, unsupported_of
from ..grants import check_pool
from ..http.answer import Answer
from ..http.names import refuse_reserved
from ..http.problems import Problem, Reason
from ..http.request import Request
from ..http.route import route
from ..reach import known_queue, note_pool, own_pools
from ..views import PoolView, pool_view

__all__ = ["PoolList"]

LIMITS = {
    "max_queued": "max_queued",
    "max_dead": "max_dead",
    "retention_seconds": "retention_s",
    "retention_count": "retention_count",
    "lease_seconds": "lease_s",
}
"""field of the wire → limit of the library."""


class PoolList(msgspec.Struct, frozen=True, kw_only=True):
    """All pools of the caller."""

    items: list[PoolView]


class Paused(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a pool hands out jobs; if not: why, who said so, since when."""

    pool: str
    paused: bool
    reason: str | None
    by: str | None
    at: dt.datetime | None


@route(
    "GET",
    "/api/queue/pools",
    scope="queue:read",
    answers={200: PoolList},
    problems=[],
    summary="List the pools of the caller.",
    tags=["pools"],
)
async def list_pools(request: Request) -> Answer:
    pools = await own_pools(request)
    namespace = request.credential.namespace
    limits = await asyncio.gather(*(request.plane.queue(namespace, pool).limits() for pool in pools))
    return Answer(PoolList(items=[pool_view(*each) for each in zip(pools, limits, strict=True)]))


@route(
    "GET",
    "/api/queue/pools/{pool:name}",
    scope="queue:read",
    answers={200: PoolView},
    problems=["pool_not_allowed", "pool_not_found"],
    summary="Show how a pool is set up.",
    tags=["pools"],
)
async def get_pool(request: Request) -> Answer:
    queue = await _queue_of_path(request)
    return Answer(pool_view(queue.name, await queue.limits()))


async def _queue_of_path(request: Request) -> hq.AsyncQueue:
    pool = request.path["pool"]
    check_pool(request.credential, pool)
    queue = await known_queue(request, pool)
    if queue is None:
        raise Problem("pool_not_found")
    return queue


@route(
    "PATCH",
    "/api/queue/pools/{pool:name}",
    scope="queue:admin",
    rate="admin",
    body=PoolPatch,
    answers={200: PoolView},
    problems=["not_supported_yet", "pool_not_allowed", "queue_full", "reserved_name"],
    guard="refuse",
    summary="Change how a pool is set up; one that is not there is made.",
    tags=["pools"],
    examples={"body": {"max_queued": 10_000, "lease_seconds": 60}},
)
async def configure_pool(request: Request) -> Answer:
    body: PoolPatch = request.body
    pool = request.path["pool"]
    refuse_reserved("/path/pool", pool)
    check_pool(request.credential, pool)
    later = list(unsupported_of(body, ("weights", "lift_every")))
    if body.policy == "fair":
        later.append(Reason("/policy", "fair is not in this version"))
    refuse(later)
    queue = request.plane.queue(request.credential.namespace, pool)
    limits = {limit: value for name, limit in LIMITS.items() if (value := getattr(body, name)) is not None}
    if limits:
        await queue.configure(**limits)
        await note_pool(request, pool)
        await audit(request, "pool.configure", pool)
    found = await queue.limits()
    await note_pool(request, pool)
    return Answer(pool_view(pool, found))


@route(
    "POST",
    "/api/queue/pools/{pool:name}/pause",
    scope="queue:admin",
    rate="admin",
    body=PauseBody,
    answers={200: Paused},
    problems=["not_supported_yet", "pool_not_allowed", "pool_not_found"],
    guard="refuse",
    idempotent=True,
    summary="Stop handing out jobs of a pool; leased work goes on. The first pause's reason stands until resume.",
    tags=["pools"],
    examples={"body": {"reason": "maintenance of the builders"}},
)
async def pause_pool(request: Request) -> Answer:
    body: PauseBody = request.body
    check_text("/reason", body.reason, 500)
    queue = await _queue_of_path(request)
    refuse(list(unsupported_of(body, ("labels", "until"))))
    pause = await queue.pause(body.reason, by=actor_of(request)[:128])
    await audit(request, "pool.pause", queue.name)
    return Answer(_paused(queue.name, pause))


@route(
    "POST",
    "/api/queue/pools/{pool:name}/resume",
    scope="queue:admin",
    rate="admin",
    answers={200: Paused},
    problems=["pool_not_allowed", "pool_not_found"],
    idempotent=True,
    summary="Hand out jobs of a pool again.",
    tags=["pools"],
)
async def resume_pool(request: Request) -> Answer:
    queue = await _queue_of_path(request)
    pause = await queue.resume(by=actor_of(request)[:128])
    await audit(request, "pool.resume", queue.name)
    return Answer(_paused(queue.name, pause))


def _paused(pool: str, pause: hq.Pause) -> Paused:
    return Paused(pool=pool, paused=pause.paused, reason=pause.reason, by=pause.by, at=pause.at)
