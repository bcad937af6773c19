"""Dead letters: looked at, given a new life, deleted; and the upkeep that brings lost leases back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

import hybridq as hq

from ..audit_trail import audit
from ..bodies import NOT_SUPPORTED, DeadFilter, DeadQuery, OnePool, check_tags, check_text, tags_of
from ..grants import check_pool
from ..http.answer import Answer
from ..http.names import split_full_id
from ..http.problems import Problem, Reason, invalid
from ..http.request import Request
from ..http.route import route
from ..lists import list_jobs
from ..paging import next_cursor, position_of
from ..parking import while_served
from ..reach import own_pools
from ..views import JobView, job_view
from .queue import JobList

__all__ = ["JobList"]

LOOKED_AT_MAX: Final = 1_000
"""Dead letters that one request looks at to find those that meet a filter."""
PAGE: Final = 200
STEP: Final = 50
PACED_S_MAX: Final = 25.0


class Requeued(msgspec.Struct, frozen=True, kw_only=True):
    """What one step of upkeep moved; `more`: call again."""

    requeued: int
    dead_lettered: int
    promoted: int
    more: bool


class ReplayedDead(msgspec.Struct, frozen=True, kw_only=True):
    """Of the dead letters that meet the filter: how many were looked up, live again, and are left."""

    matched: int
    replayed: int
    remaining: int
    more: bool
    """True when there were more than one request looks at, so that `matched` and `remaining` are at least so many."""


class PurgedDead(msgspec.Struct, frozen=True, kw_only=True):
    """Of the dead letters that meet the filter: how many were looked up, are gone, and are left."""

    matched: int
    purged: int
    remaining: int
    more: bool


@route(
    "GET",
    "/api/queue/dead",
    scope="queue:read",
    query=DeadQuery,
    answers={200: JobList},
    problems=["invalid_cursor", "invalid_range", "pool_not_allowed"],
    summary="List dead letters, latest first; without `pool` those of all pools of the caller.",
    tags=["queue"],
)
async def list_dead(request: Request) -> Answer:
    query: DeadQuery = request.query
    check_text("/query/type", query.type, 64)
    tags = tags_of(query.tag)
    check_tags("/query/tag", tags)
    pools = await own_pools(request, query.pool)
    filters = [query.pool, query.type, tags, query.reason]
    position = await position_of(request, filters)
    namespace = request.credential.namespace

    async def read(pool: str, many: int, cursor: str | None) -> hq.JobPage:
        dead = request.plane.queue(namespace, pool).dead
        return await dead.list(type=query.type, reason=query.reason, tags=tags, limit=many, cursor=cursor)

    page = await list_jobs(pools, read, limit=query.limit, position=position, order=lambda job: (job.finished_at, 0))
    items: list[JobView] = [job_view(job) for job in page.jobs]
    return Answer(JobList(items=items, next_cursor=await next_cursor(request, page.position, filters)))


@route(
    "POST",
    "/api/queue/dead:replay",
    scope="queue:admin",
    rate="admin",
    body=DeadFilter,
    answers={200: ReplayedDead},
    problems=["filter_required", "not_supported_yet", "pool_not_allowed"],
    idempotent=True,
    summary="Give dead letters a new life, by id or by filter, those that died first before the others.",
    tags=["queue"],
    examples={"body": {"type": "build", "limit": 100, "dry_run": True}},
)
async def replay_dead(request: Request) -> Answer:
    found = await _find(request)

    async def replay(queue: hq.AsyncQueue, job_ids: Sequence[str]) -> int:
        return len((await queue.dead.replay(job_ids)).replayed)

    done = await _do(request, found, replay)
    if done:
        await audit(request, "dead.replay", request.body.pool or "*", f"replayed:{done}")
    return Answer(
        ReplayedDead(matched=found.matched, replayed=done, remaining=max(0, found.matched - done), more=found.more)
    )


@route(
    "POST",
    "/api/queue/dead:purge",
    scope="queue:admin",
    rate="admin",
    body=DeadFilter,
    answers={200: PurgedDead},
    problems=["filter_required", "not_supported_yet", "pool_not_allowed"],
    idempotent=True,
    summary="Delete dead letters for good, by id or by filter.",
    tags=["queue"],
    examples={"body": {"reason": "never_started", "dry_run": True}},
)
async def purge_dead(request: Request) -> Answer:
    found = await _find(request)

    async def purge(queue: hq.AsyncQueue, job_ids: Sequence[str]) -> int:
        return len((await queue.dead.purge(job_ids)).purged)

    done = await _do(request, found, purge)
    if done:
        await audit(request, "dead.purge", request.body.pool or "*", f"purged:{done}")
    return Answer(
        PurgedDead(matched=found.matched, purged=done, remaining=max(0, found.matched - done), more=found.more)
    )


class _Found(msgspec.Struct, frozen=True):
    """Dead letters to act on, in this order, and how many met the filter in all."""

    chosen: list[tuple[str, str]]
    matched: int
    more: bool


async def _find(request: Request) -> _Found:
    """Return what the body's filter means. Raises 400 for none, 403 for a pool that is not the caller's."""
    body: DeadFilter = request.body
    tags = tags_of(body.tag)
    check_text("/type", body.type, 64)
    check_tags("/tag", tags)
    filtered = bool(body.type or tags or body.reason)
    if not (body.job_ids or filtered or body.all):
        raise Problem("filter_required")
    for place, id in enumerate(body.job_ids or ()):
        if body.pool is not None and split_full_id(id).pool != body.pool:
            raise invalid(f"/job_ids/{place}", "is not of the pool that is named")
    pools = await own_pools(request, body.pool)
    if body.job_ids is not None:
        return await _find_by_id(request, pools, tags)
    return await _find_by_filter(request, pools, tags, filtered=filtered)


async def _find_by_id(request: Request, pools: list[str], tags: dict[str, str] | None) -> _Found:
    body: DeadFilter = request.body
    ids = [split_full_id(id) for id in dict.fromkeys(body.job_ids or ())]
    namespace = request.credential.namespace

    async def meets(pool: str, job_id: str) -> bool:
        try:
            job = await request.plane.queue(namespace, pool).job(job_id)
        except hq.JobNotFound:
            return False
        return (
            job.status is hq.JobStatus.DEAD_LETTERED
            and body.type in (None, job.type)
            and body.reason in (None, job.dead_reason)
            and all(job.tags.get(key) == value for key, value in (tags or {}).items())
        )

    reachable = [id for id in ids if id.pool in pools]
    fits = await asyncio.gather(*(meets(*id) for id in reachable))
    matched = [(id.pool, id.job_id) for id, fit in zip(reachable, fits, strict=True) if fit]
    return _Found(matched[: body.limit], len(matched), False)


async def _find_by_filter(request: Request, pools: list[str], tags: dict[str, str] | None, *, filtered: bool) -> _Found:
    body: DeadFilter = request.body
    namespace = request.credential.namespace
    found: list[hq.Job] = []
    left, more = LOOKED_AT_MAX, False
    for pool in pools:
        cursor: str | None = None
        while True:
            if left <= 0:
                more = True
                break
            many = min(PAGE, left)
            dead = request.plane.queue(namespace, pool).dead
            page = await dead.list(type=body.type, reason=body.reason, tags=tags, limit=many, cursor=cursor)
            left -= many
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
    found.sort(key=lambda job: (job.finished_at or job.enqueued_at, job.seq))
    chosen = [(job.queue, job.job_id) for job in found[: body.limit]]
    if filtered:
        return _Found(chosen, len(found), more)
    # Without a filter their number is known, however many there are.
    stats = await asyncio.gather(*(request.plane.queue(namespace, pool).stats() for pool in pools))
    return _Found(chosen, max(len(found), sum(each.dead_lettered for each in stats)), False)


async def _do(request: Request, found: _Found, act: Any) -> int:
    """Do it to what was found, at the pace that was asked for; return to how many. A dry run does nothing."""
    body: DeadFilter = request.body
    rate = body.rate_per_second
    if rate is not None and len(found.chosen) / rate > PACED_S_MAX:
        raise Problem(
            NOT_SUPPORTED,
            f"At this rate it would take more than {PACED_S_MAX:g} s; take a lower limit or a higher rate.",
            errors=[Reason("/rate_per_second", f"limit / rate_per_second must be {PACED_S_MAX:g} at most")],
        )
    if body.dry_run or not found.chosen:
        return 0
    done = [0]
    work = _in_steps(request, found, act, done)
    if rate is None:
        await work
    else:
        await while_served(request, work)
    return done[0]


async def _in_steps(request: Request, found: _Found, act: Any, done: list[int]) -> None:
    namespace, rate = request.credential.namespace, request.body.rate_per_second
    many = STEP if rate is None else max(1, min(STEP, int(rate / 4)))
    loop = asyncio.get_running_loop()
    began = loop.time()
    taken = 0
    for pool, job_ids in _runs(found.chosen, many):
        if rate is not None:
            await asyncio.sleep(max(0.0, began + taken / rate - loop.time()))
        done[0] += await act(request.plane.queue(namespace, pool), job_ids)
        taken += len(job_ids)


def _runs(chosen: Sequence[tuple[str, str]], many: int) -> list[tuple[str, list[str]]]:
    """Return the ids in their order, in runs of one pool of at most so many."""
    runs: list[tuple[str, list[str]]] = []
    for pool, job_id in chosen:
        if not runs or runs[-1][0] != pool or len(runs[-1][1]) >= many:
            runs.append((pool, []))
        runs[-1][1].append(job_id)
    return runs


@route(
    "POST",
    "/api/queue/maintenance/requeue-expired",
    scope="queue:admin",
    rate="admin",
    body=OnePool,
    answers={200: Requeued},
    problems=["pool_not_allowed"],
    idempotent=True,
    summary="One bounded step of upkeep: lost leases come back, due jobs become claimable.",
    tags=["queue"],
    examples={"body": {}},
)
async def requeue_expired(request: Request) -> Answer:
    pool = request.body.pool
    if pool is not None:
        check_pool(request.credential, pool)
    pools = await own_pools(request, pool)
    namespace = request.credential.namespace
    done = await asyncio.gather(*(request.plane.queue(namespace, each).upkeep() for each in pools))
    return Answer(
        Requeued(
            requeued=sum(each.requeued for each in done),
            dead_lettered=sum(each.dead_lettered for each in done),
            promoted=sum(each.promoted for each in done),
            more=any(each.more for each in done),
        )
    )
