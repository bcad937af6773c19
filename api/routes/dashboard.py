"""What the dashboard asks: jobs made of a commit, one and the same as in the queue; and the summary of everything."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

import hybridq as hq

from ..bodies import (
    Complete,
    DashboardEnqueue,
    Enqueue,
    JobQuery,
    JobsQuery,
    check_enqueue,
    check_supported,
    check_text,
)
from ..http.answer import Answer
from ..http.request import Request
from ..http.route import route
from ..reach import named_pool, own_pools
from ..views import DashboardJob, dashboard_view
from .leases import RESULT_BYTES_MAX, Completed, complete_lease
from .queue import JOB_BYTES_MAX, enqueue_answer, enqueue_spec, job_by_id, jobs_page, read_answer, spec_of

__all__ = ["Summary"]


class DashboardJobs(msgspec.Struct, frozen=True, kw_only=True):
    """One page of jobs, newest first."""

    items: list[DashboardJob]
    next_cursor: str | None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Figures over the caller's pools."""

    total_jobs: int
    jobs_queued: int
    jobs_running: int
    jobs_completed: int
    jobs_failed: int
    """Failed and dead-lettered."""
    total_deployments: int
    deployments_active: int
    deployments_live: int
    deployments_staging: int
    deployments_failed: int
    agents_healthy: int
    agents_total: int


@route(
    "POST",
    "/api/dashboard/jobs",
    scope="queue:enqueue",
    rate="enqueue",
    body=DashboardEnqueue,
    body_bytes_max=JOB_BYTES_MAX,
    answers={201: DashboardJob, 200: DashboardJob},
    problems=["idempotency_conflict", "not_supported_yet", "pool_not_allowed", "queue_full", "reserved_name"],
    guard="refuse",
    idempotent=True,
    summary="Build, test or deploy a commit: a job of the queue whose payload an agent runs.",
    tags=["dashboard"],
    examples={
        "body": {
            "job_type": "build",
            "git_repo": "https://git.example.com/shop.git",
            "git_ref": "main",
            "git_commit_sha": "4bf92f3577b34da6a3ce929d0e0e47361a2b3c4d",
            "steps": [{"name": "test", "run": "make test"}],
        }
    },
)
async def enqueue_dashboard_job(request: Request) -> Answer:
    body = _in_the_queue(request.body)
    check_text("/git_repo", request.body.git_repo, 2048)
    check_text("/git_ref", request.body.git_ref, 256)
    check_enqueue(body)
    pool = named_pool(request, body.pool)
    check_supported(body)
    enqueued, job = await enqueue_spec(request, pool, spec_of(request, body), body)
    return enqueue_answer(request, pool, enqueued, dashboard_view(job, attempts=True), None)


def _in_the_queue(body: DashboardEnqueue) -> Enqueue:
    """Return the body of the same job as the queue takes it."""
    git = {
        "repo": body.git_repo,
        "ref": body.git_ref,
        "commit_sha": body.git_commit_sha,
        "commit_message": body.git_commit_message,
        "author": body.git_author,
    }
    payload: dict[str, Any] = {} if body.steps is None else {"steps": [_step(step) for step in body.steps]}
    payload["git"] = {name: value for name, value in git.items() if value is not None}
    return Enqueue(
        payload=msgspec.Raw(msgspec.json.encode(payload)),
        type=body.job_type,
        priority=body.priority,
        pool=body.pool,
        labels=body.labels,
        tags=body.tags,
    )


def _step(step: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(step)
    return {name: value for name, value in found.items() if value is not None}


@route(
    "GET",
    "/api/dashboard/jobs",
    scope="queue:read",
    query=JobsQuery,
    answers={200: DashboardJobs},
    problems=["invalid_cursor", "invalid_range", "not_supported_yet", "pool_not_allowed"],
    summary="List jobs, newest first.",
    tags=["dashboard"],
)
async def list_dashboard_jobs(request: Request) -> Answer:
    return await _list(request, request.query.status or request.query.state)


@route(
    "GET",
    "/api/dashboard/jobs/running",
    scope="queue:read",
    query=JobsQuery,
    answers={200: DashboardJobs},
    problems=["invalid_cursor", "invalid_range", "not_supported_yet", "pool_not_allowed"],
    summary="List the jobs that run.",
    tags=["dashboard"],
)
async def list_running_jobs(request: Request) -> Answer:
    return await _list(request, "RUNNING")


async def _list(request: Request, status: str | None) -> Answer:
    page, cursor = await jobs_page(request, request.query, status)
    return Answer(DashboardJobs(items=[dashboard_view(job) for job in page.jobs], next_cursor=cursor))


@route(
    "GET",
    "/api/dashboard/jobs/{id:full_id}",
    scope="queue:read",
    query=JobQuery,
    answers={200: DashboardJob, 304: None},
    problems=["job_not_found"],
    etag=True,
    summary="Return one job whole.",
    tags=["dashboard"],
)
async def get_dashboard_job(request: Request) -> Answer:
    return read_answer(request, dashboard_view(await job_by_id(request, request.query.wait_seconds), attempts=True))


@route(
    "PATCH",
    "/api/dashboard/jobs/{id:full_id}/complete",
    scope="queue:claim",
    agents=True,
    rate="report",
    body=Complete,
    body_bytes_max=RESULT_BYTES_MAX,
    answers={200: Completed},
    problems=["illegal_transition", "job_not_found", "not_lease_holder", "outcome_conflict", "stale_lease"],
    guard="redact",
    summary="End a run with an outcome.",
    tags=["dashboard"],
    examples={
        "body": {"lease_token": "3686400000001.00000000000000000000000000000000", "outcome": "success", "exit_code": 0}
    },
)
async def complete_dashboard_job(request: Request) -> Answer:
    return Answer(await complete_lease(request))


@route(
    "GET",
    "/api/dashboard/summary",
    scope="queue:read",
    answers={200: Summary},
    problems=[],
    summary="Figures over the caller's pools.",
    tags=["dashboard"],
)
async def dashboard_summary(request: Request) -> Answer:
    caller = request.credential
    pools = await own_pools(request)
    # Asked in one turn of the loop they travel together.
    counting = asyncio.ensure_future(_agents(request))
    stats = await asyncio.gather(*(request.plane.queue(caller.namespace, pool).stats() for pool in pools))
    agents = await counting
    return Answer(
        Summary(
            total_jobs=sum(each.enqueued_total for each in stats),
            jobs_queued=sum(each.queued for each in stats),
            jobs_running=sum(each.running for each in stats),
            jobs_completed=sum(each.completed_total for each in stats),
            jobs_failed=sum(each.failed_total + each.dead_lettered_total for each in stats),
            total_deployments=0,
            deployments_active=0,
            deployments_live=0,
            deployments_staging=0,
            deployments_failed=0,
            agents_healthy=agents.get(hq.AgentStatus.HEALTHY, 0),
            agents_total=sum(agents.values()),
        )
    )


async def _agents(request: Request) -> dict[hq.AgentStatus, int]:
    """Return how many agents of the caller's pools are in each status; those that are gone for good do not count."""
    caller = request.credential
    fleet = request.plane.fleet(caller.namespace)
    if caller.pools is None:
        counts = dict(await fleet.counts())
    else:
        counts = {}
        cursor: str | None = None
        while True:
            page = await fleet.agents(pools=caller.pools, limit=200, cursor=cursor)
            for agent in page.items:
                counts[agent.status] = counts.get(agent.status, 0) + 1
            cursor = page.next_cursor
            if cursor is None:
                break
    counts.pop(hq.AgentStatus.TERMINATED, None)
    return counts
