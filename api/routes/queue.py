"""Jobs: taken in one by one or many at once, looked at, listed, steered. What holders of leases do is in `leases`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

import hybridq as hq
from hybridq import guard
from hybridq.keys import new_job_id

from ..audit_trail import audit
from ..bodies import (
    NOT_SUPPORTED,
    Batch,
    BulkPriority,
    DeadFilter,
    Enqueue,
    JobQuery,
    JobsQuery,
    PageQuery,
    PipelineBody,
    Reprioritise,
    ScheduleBody,
    StatsQuery,
    check_enqueue,
    check_supported,
    check_tags,
    check_text,
    refuse,
    tags_of,
    unsupported_of,
)
from ..following import following_of
from ..grants import check_pool
from ..http.answer import Answer, etag_of
from ..http.problems import Problem, Reason, invalid, problem_of
from ..http.request import Request
from ..http.route import route
from ..lists import ListedJobs, list_jobs
from ..paging import next_cursor, position_of
from ..parking import while_served
from ..reach import (
    DEFAULT_POOL,
    conflicts_of,
    known_queue,
    members_of,
    named_pool,
    note_pool,
    own_pools,
    queue_behind,
    with_look,
)
from ..views import TERMINAL, JobView, StatsView, full_id, job_view, stats_view

__all__ = ["enqueue_spec", "job_by_id", "jobs_page", "spec_of"]

ATOMIC_MAX: Final = 50
BATCH_BYTES_MAX: Final = 8 * 1024 * 1024
JOB_BYTES_MAX: Final = 384 * 1024
ENDS: Final = ("job.completed", "job.failed", "job.dead_lettered", "job.cancelled")
READ_HEADERS: Final = {"Cache-Control": "private, no-cache"}
REPLAYED: Final = {"Idempotency-Replayed": "true"}


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    """One page of jobs, newest first."""

    items: list[JobView]
    next_cursor: str | None


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one entry: `status` as if it had been sent alone."""

    index: int
    status: int
    job: JobView | None = None
    problem: dict[str, Any] | None = None


class BatchResults(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each entry, in order."""

    results: list[BatchResult]


# -- enqueue ---------------------------------------------------------------------------------------------------


@route(
    "POST",
    "/api/queue/jobs",
    scope="queue:enqueue",
    rate="enqueue",
    body=Enqueue,
    body_bytes_max=JOB_BYTES_MAX,
    answers={201: JobView, 200: JobView},
    problems=[
        "idempotency_conflict",
        "job_conflict",
        "not_supported_yet",
        "pool_not_allowed",
        "queue_full",
        "reserved_name",
        "unique_taken",
    ],
    guard="refuse",
    idempotent=True,
    summary="Take one job in. The same `job_id` or Idempotency-Key with the same content is the same job.",
    tags=["queue"],
    examples={"body": {"type": "build", "payload": {"steps": [{"name": "test", "run": "make test"}]}}},
)
async def enqueue_job(request: Request) -> Answer:
    body: Enqueue = request.body
    check_enqueue(body)
    pool = named_pool(request, body.pool)
    check_supported(body)
    enqueued, job = await enqueue_spec(request, pool, spec_of(request, body), body)
    return enqueue_answer(request, pool, enqueued, job_view(job, attempts=True, unique=enqueued.unique), body.job_id)


def spec_of(request: Request, body: Enqueue, index: int | None = None) -> hq.JobSpec:
    """Return what the library takes in for a body; its id is the caller's, or the Idempotency-Key's."""
    retry = (
        hq.Backoff() if body.retry is None else hq.Backoff(base_s=body.retry.base_seconds, max_s=body.retry.max_seconds)
    )
    return hq.JobSpec(
        type=body.type or "job",
        payload=bytes(body.payload),
        job_id=body.job_id or request.idempotent_id("job", index),
        priority=hq.Priority(body.priority or "NORMAL"),
        delay_s=body.delay_seconds,
        run_at=body.run_at,
        max_attempts=body.max_attempts or 3,
        timeout_s=3600.0 if body.timeout_seconds is None else body.timeout_seconds,
        retry=retry,
        unique=None if body.unique is None else body.unique.key,
        tags=body.tags or {},
        request_id=request.request_id,
        trace_id=request.traceparent,
    )


async def enqueue_spec(request: Request, pool: str, spec: hq.JobSpec, body: Enqueue) -> tuple[hq.Enqueued, hq.Job]:
    """Take one job in and read it. Raises what the contract says of it."""
    namespace = request.credential.namespace
    queue = request.plane.queue(namespace, pool)
    on_conflict = "reject" if _rejects(body) else "return"
    job_id = spec.job_id or new_job_id()
    job: hq.Job | None = None
    with conflicts_of(pool):
        taking = queue.enqueue_many([msgspec.structs.replace(spec, job_id=job_id)], on_conflict=on_conflict)
        if pool in request.plane.pools_at_hand(namespace):
            [enqueued], job = await with_look(taking, queue, job_id)
        else:  # looking must not make a pool
            [enqueued] = await taking
        if isinstance(enqueued, hq.JobConflict):
            raise _conflict(pool, enqueued, by_key=body.job_id is None) from enqueued
        if isinstance(enqueued, Exception):
            raise enqueued
        if spec.job_id is None and enqueued.job_id == job_id:
            # An id made here is known to nobody else: when it is there, an earlier sending of this call did it.
            enqueued = msgspec.structs.replace(enqueued, created=True)
        await note_pool(request, pool)
        if job is None or job.job_id != enqueued.job_id:
            job = await queue.job(enqueued.job_id)
        return enqueued, job


def enqueue_answer(request: Request, pool: str, enqueued: hq.Enqueued, view: Any, job_id: str | None) -> Answer:
    """Return the answer to an enqueue: 201, or 200 for a job that was there."""
    headers = {"Location": f"/api/queue/jobs/{full_id(pool, enqueued.job_id)}"}
    if not enqueued.created and job_id is None and request.idempotent_id() is not None:
        headers |= REPLAYED
    return Answer(view, 201 if enqueued.created else 200, headers)


def _rejects(body: Enqueue) -> bool:
    return body.unique is not None and body.unique.on_conflict == "reject"


def _conflict(pool: str, error: hq.JobConflict, *, by_key: bool) -> Problem:
    code = "idempotency_conflict" if by_key else "job_conflict"
    return Problem(code, job_status=error.status, existing_job_id=full_id(pool, error.job_id))


# -- enqueue many ----------------------------------------------------------------------------------------------


@route(
    "POST",
    "/api/queue/jobs:batch",
    scope="queue:enqueue",
    rate="enqueue",
    body=Batch,
    body_bytes_max=BATCH_BYTES_MAX,
    answers={200: BatchResults},
    problems=[
        "idempotency_conflict",
        "job_conflict",
        "not_supported_yet",
        "pool_not_allowed",
        "queue_full",
        "reserved_name",
        "unique_taken",
    ],
    guard="refuse",
    idempotent=True,
    summary="Take up to 1,000 jobs in, each for itself and in order, or (`atomic`, up to 50 of one pool) all or none.",
    tags=["queue"],
    examples={"body": {"jobs": [{"type": "build", "payload": 1}, {"type": "test", "payload": 2}]}},
)
async def enqueue_jobs(request: Request) -> Answer:
    batch = _Entries(request)
    if request.body.atomic:
        await batch.enqueue_all_or_none()
    else:
        await batch.enqueue_each()
    for pool in batch.pools:
        await note_pool(request, pool)
    headers = REPLAYED if batch.replayed else None
    return Answer(BatchResults(results=await batch.results()), headers=headers)


class _Entries:
    """The entries of a batch on their way: first each is checked, then they are sent by pool, then read."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._bodies: list[Enqueue] = request.body.jobs
        self._pools: list[str] = []
        self._specs: list[hq.JobSpec] = []
        self._problems: dict[int, Problem] = {}
        self._enqueued: dict[int, hq.Enqueued] = {}
        for index, body in enumerate(self._bodies):
            at = f"/jobs/{index}"
            pool = body.pool or request.credential.pool or DEFAULT_POOL
            try:
                check_enqueue(body, at)
                named_pool(request, body.pool, f"{at}/pool")
                check_supported(body, at)
            except Problem as problem:
                self._problems[index] = problem
            self._pools.append(pool)
            self._specs.append(spec_of(request, body, index))

    @property
    def pools(self) -> set[str]:
        """The pools that have taken something in."""
        return {self._pools[place] for place in self._enqueued}

    @property
    def replayed(self) -> bool:
        """Whether the whole batch had been sent before under this Idempotency-Key."""
        made = list(self._enqueued.values())
        return bool(made) and self._request.idempotent_id() is not None and not any(each.created for each in made)

    async def enqueue_each(self) -> None:
        """Send the entries of each pool together; pools do not wait for each other."""
        by_pool: dict[str, list[int]] = {}
        for index, pool in enumerate(self._pools):
            if index not in self._problems:
                by_pool.setdefault(pool, []).append(index)
        outcomes = await asyncio.gather(
            *(self._send(pool, places) for pool, places in by_pool.items()), return_exceptions=True
        )
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        for places, outcome in zip(by_pool.values(), outcomes, strict=True):
            if not isinstance(outcome, BaseException):
                continue
            # Where nothing at all was done, the call as a whole says so.
            if not isinstance(outcome, hq.HybridqError) or (len(failed) == len(outcomes) and not self._problems):
                raise outcome
            self._problems |= dict.fromkeys(places, problem_of(outcome))

    async def _send(self, pool: str, places: Sequence[int]) -> None:
        queue = self._request.plane.queue(self._request.credential.namespace, pool)
        made = await queue.enqueue_many([self._specs[place] for place in places], on_conflict="reject")
        for place, value in zip(places, made, strict=True):
            self._take(place, value)

    def _take(self, place: int, value: hq.Enqueued | hq.HybridqError) -> None:
        pool, body = self._pools[place], self._bodies[place]
        if isinstance(value, hq.Enqueued):
            self._enqueued[place] = value
        elif isinstance(value, hq.UniqueTaken) and not _rejects(body):
            self._enqueued[place] = hq.Enqueued(
                job_id=value.existing_job_id, status=hq.JobStatus.QUEUED, created=False, unique=True
            )
        elif isinstance(value, hq.UniqueTaken):
            self._problems[place] = Problem("unique_taken", existing_job_id=full_id(pool, value.existing_job_id))
        elif isinstance(value, hq.JobConflict):
            self._problems[place] = _conflict(pool, value, by_key=body.job_id is None)
        else:
            self._problems[place] = problem_of(value)

    async def enqueue_all_or_none(self) -> None:
        """Send all entries as one; when one fails the answer is its problem, and what else is wrong stands beside."""
        self._refuse_whole()
        self._check_atomic()
        rejects = {_rejects(body) for body in self._bodies if body.unique is not None}
        queue = self._request.plane.queue(self._request.credential.namespace, self._pools[0])
        try:
            made = await queue.enqueue_many(
                self._specs, on_conflict="reject" if rejects == {True} else "return", atomic=True
            )
        except hq.BatchRefused as refused:
            for place, error in refused.errors.items():
                self._take(place, error)
            self._refuse_whole()
            raise
        for place, value in enumerate(made):
            self._take(place, value)

    def _check_atomic(self) -> None:
        if len(self._bodies) > ATOMIC_MAX:
            raise Problem(
                NOT_SUPPORTED,
                f"An atomic batch holds at most {ATOMIC_MAX} jobs.",
                errors=[Reason("/jobs", f"at most {ATOMIC_MAX} jobs when atomic")],
                limit=ATOMIC_MAX,
            )
        for index, pool in enumerate(self._pools):
            if pool != self._pools[0]:
                raise Problem(
                    NOT_SUPPORTED,
                    "An atomic batch lives in one pool.",
                    errors=[Reason(f"/jobs/{index}/pool", "must be that of the first job when atomic")],
                    index=index,
                )
        if len({_rejects(body) for body in self._bodies if body.unique is not None}) > 1:
            raise Problem(
                NOT_SUPPORTED,
                "The jobs of an atomic batch have one and the same on_conflict.",
                errors=[Reason("/jobs", "all unique keys need the same on_conflict when atomic")],
            )

    def _refuse_whole(self) -> None:
        if not self._problems:
            return
        places = sorted(self._problems)
        first = self._problems[places[0]]
        others = [{"index": place, "problem": self._problems[place].body()} for place in places]
        raise members_of(first, index=places[0], problems=others)

    async def results(self) -> list[BatchResult]:
        """Return what became of each entry, with the jobs as they are now."""
        places = list(self._enqueued)
        jobs = await asyncio.gather(*(self._read(place) for place in places))
        views = dict(zip(places, jobs, strict=True))
        return [self._result(index, views.get(index)) for index in range(len(self._bodies))]

    async def _read(self, place: int) -> JobView | None:
        enqueued = self._enqueued[place]
        queue = self._request.plane.queue(self._request.credential.namespace, self._pools[place])
        with contextlib.suppress(hq.HybridqError):  # it was taken in: that it cannot be read now changes nothing
            return job_view(await queue.job(enqueued.job_id), unique=enqueued.unique)
        return None

    def _result(self, index: int, view: JobView | None) -> BatchResult:
        problem = self._problems.get(index)
        if problem is not None:
            return BatchResult(index=index, status=problem.status, problem=problem.body())
        return BatchResult(index=index, status=201 if self._enqueued[index].created else 200, job=view)


# -- look ------------------------------------------------------------------------------------------------------


@route(
    "GET",
    "/api/queue/jobs",
    scope="queue:read",
    query=JobsQuery,
    answers={200: JobList},
    problems=["invalid_cursor", "invalid_range", "not_supported_yet", "pool_not_allowed"],
    summary="List jobs, newest first; without `pool` those of all pools of the caller.",
    tags=["queue"],
)
async def list_jobs_of_queue(request: Request) -> Answer:
    page, cursor = await jobs_page(request, request.query, request.query.status or request.query.state)
    return Answer(JobList(items=[job_view(job) for job in page.jobs], next_cursor=cursor))


async def jobs_page(request: Request, query: JobsQuery, status: str | None) -> tuple[ListedJobs, str | None]:
    """Return one page of jobs and the cursor of the next."""
    if query.status is not None and query.state is not None and query.status != query.state:
        raise invalid("/query/state", "contradicts status, whose other name it is")
    check_text("/query/type", query.type, 64)
    tags = tags_of(query.tag)
    check_tags("/query/tag", tags)
    pools = await own_pools(request, query.pool)
    refuse(list(unsupported_of(query, ("label", "group"), "/query")))
    filters = [query.pool, status, query.priority, query.type, tags, query.agent_id]
    position = await position_of(request, filters)
    namespace = request.credential.namespace

    async def read(pool: str, many: int, cursor: str | None) -> hq.JobPage:
        return await request.plane.queue(namespace, pool).jobs(
            status=None if status is None else hq.JobStatus(status),
            priority=None if query.priority is None else hq.Priority(query.priority),
            type=query.type,
            tags=tags,
            agent=query.agent_id,
            limit=many,
            cursor=cursor,
        )

    page = await list_jobs(pools, read, limit=query.limit, position=position, order=order_of(status))
    return page, await next_cursor(request, page.position, filters)


def order_of(status: str | None) -> Any:
    """Return what lists of jobs of a status are ordered by."""
    if status in TERMINAL:
        return lambda job: (job.finished_at, 0)
    if status in ("CLAIMED", "RUNNING"):
        return lambda job: (job.lease_expires_at, 0)
    return lambda job: (job.enqueued_at, job.seq)


@route(
    "GET",
    "/api/queue/jobs/{id:full_id}",
    scope="queue:read",
    query=JobQuery,
    answers={200: JobView, 304: None},
    problems=["job_not_found"],
    etag=True,
    summary="Return one job whole; `wait_seconds` waits for its end.",
    tags=["queue"],
)
async def get_job(request: Request) -> Answer:
    return read_answer(request, job_view(await job_by_id(request, request.query.wait_seconds), attempts=True))


def read_answer(request: Request, view: JobView) -> Answer:
    """Return a job with its ETag, or 304 when the caller has it."""
    etag = job_etag(view)
    headers = {"ETag": etag, **READ_HEADERS}
    if request.has_current(etag):
        return Answer(None, 304, headers)
    return Answer(view, headers=headers)


def job_etag(view: JobView) -> str:
    """Return the tag of everything that is shown of a job."""
    return etag_of(msgspec.json.encode(view).decode())


async def job_by_id(request: Request, wait_s: float = 0.0) -> hq.Job:
    """Return the job of the id in the path, at its end or when so many seconds have passed."""
    queue, job_id = await queue_behind(request)
    job = await queue.job(job_id)
    if not wait_s or job.status.value in TERMINAL:
        return job
    last = [job]
    await while_served(request, _ended(request, queue, last, wait_s))
    return last[0]


async def _ended(request: Request, queue: hq.AsyncQueue, last: list[hq.Job], wait_s: float) -> None:
    job_id = last[0].job_id
    deadline = time.monotonic() + wait_s
    with contextlib.suppress(TimeoutError):
        async with (
            asyncio.timeout(wait_s),
            request.plane.watch.follow([queue.name], namespace=queue.namespace, types=ENDS) as events,
        ):
            # It may have ended before anybody watched.
            last[0] = await queue.job(job_id)
            while last[0].status.value not in TERMINAL:
                # Before Python 3.12 a client's wait_for may swallow the timeout above, which comes once.
                taken = await events.take(wait_s=max(0.0, deadline - time.monotonic()))
                if not taken:
                    return
                if any(event.job_id in (job_id, None) for event in taken):
                    last[0] = await queue.job(job_id)


@route(
    "GET",
    "/api/queue/stats",
    scope="queue:read",
    query=StatsQuery,
    answers={200: StatsView},
    problems=["pool_not_allowed"],
    summary="Figures of a pool: now, ever, and over a window. A pool that nobody used has zeros.",
    tags=["queue"],
)
async def queue_stats(request: Request) -> Answer:
    query: StatsQuery = request.query
    pool = query.pool or DEFAULT_POOL
    check_pool(request.credential, pool)
    queue = await known_queue(request, pool)
    if queue is None:
        return Answer(StatsView(pool=guard.redact(pool)[0], window_seconds=query.window_seconds))
    return Answer(stats_view(pool, await queue.stats(window_s=query.window_seconds)))


# -- steer -----------------------------------------------------------------------------------------------------


@route(
    "DELETE",
    "/api/queue/jobs/{id:full_id}",
    scope="queue:admin",
    rate="admin",
    answers={200: JobView, 202: JobView},
    problems=["already_terminal", "job_not_found"],
    summary="Cancel: a waiting job at once; of a leased one the holder is told with its next heartbeat (202).",
    tags=["queue"],
)
async def cancel_job(request: Request) -> Answer:
    queue, job_id = await queue_behind(request)
    cancelled = await queue.cancel(job_id)
    following_of(request.plane).wake(queue.namespace, queue.name, job_id)
    await audit(request, "job.cancel", request.path["id"])
    job = await queue.job(job_id)
    still_leased = cancelled.requested and job.status.value not in TERMINAL
    return Answer(job_view(job, attempts=True), 202 if still_leased else 200)


@route(
    "PATCH",
    "/api/queue/jobs/{id:full_id}/priority",
    scope="queue:admin",
    rate="admin",
    body=Reprioritise,
    answers={200: JobView},
    problems=["already_terminal", "job_not_found", "precondition_failed"],
    etag=True,
    if_match=True,
    summary="Give a job that has not ended another priority; it joins the end of that level.",
    tags=["queue"],
    examples={"body": {"priority": "HIGH"}},
)
async def reprioritise_job(request: Request) -> Answer:
    queue, job_id = await queue_behind(request)
    if request.header("if-match") is not None:
        request.require_match(job_etag(job_view(await queue.job(job_id), attempts=True)))
    await queue.reprioritise(job_id, hq.Priority(request.body.priority))
    await audit(request, "job.priority", request.path["id"])
    view = job_view(await queue.job(job_id), attempts=True)
    return Answer(view, headers={"ETag": job_etag(view)})


@route(
    "POST",
    "/api/queue/jobs/{id:full_id}/retry",
    scope="queue:admin",
    rate="admin",
    answers={200: JobView},
    problems=["job_not_found", "not_terminal", "unique_taken"],
    idempotent=True,
    summary="Give a failed, cancelled or dead-lettered job a new life under its old id.",
    tags=["queue"],
)
async def retry_job(request: Request) -> Answer:
    queue, job_id = await queue_behind(request)
    move = request.idempotent_id()
    before = await queue.job(job_id) if move is not None else None
    with conflicts_of(queue.name):
        await queue.retry(job_id, request_id=move)
    job = await queue.job(job_id)
    replayed = before is not None and before.generation == job.generation
    if not replayed:
        await audit(request, "job.retry", request.path["id"])
    return Answer(job_view(job, attempts=True), headers=REPLAYED if replayed else None)


# -- what is not in this version: it is known, asked for who may, and refused ----------------------------------------


def _later(what: str) -> Problem:
    return Problem(NOT_SUPPORTED, f"{what} are not in this version.")


_LATER: Final[dict[str, Any]] = {"problems": ["job_not_found", "not_supported_yet"], "tags": ["queue"]}


@route(
    "GET",
    "/api/queue/jobs/{id:full_id}/explain",
    scope="queue:read",
    summary="Say why a job waits. Not in this version.",
    **_LATER,
)
async def explain_job(request: Request) -> Answer:
    await queue_behind(request)
    raise _later("Explanations")


@route(
    "POST",
    "/api/queue/jobs:cancel",
    scope="queue:admin",
    rate="admin",
    body=DeadFilter,
    idempotent=True,
    summary="Cancel by filter. Not in this version.",
    **_LATER,
)
async def cancel_jobs(request: Request) -> Answer:
    if request.body.pool is not None:
        check_pool(request.credential, request.body.pool)
    raise _later("Cancellations by filter")


@route(
    "POST",
    "/api/queue/jobs:priority",
    scope="queue:admin",
    rate="admin",
    body=BulkPriority,
    idempotent=True,
    summary="Reprioritise by filter. Not in this version.",
    examples={"body": {"type": "build", "priority": "HIGH"}},
    **_LATER,
)
async def reprioritise_jobs(request: Request) -> Answer:
    if request.body.pool is not None:
        check_pool(request.credential, request.body.pool)
    raise _later("Priorities by filter")


@route(
    "POST",
    "/api/queue/pipelines",
    scope="queue:enqueue",
    rate="enqueue",
    body=PipelineBody,
    body_bytes_max=BATCH_BYTES_MAX,
    guard="refuse",
    idempotent=True,
    summary="Take in jobs that depend on each other. Not in this version.",
    examples={
        "body": {"jobs": [{"ref": "build", "payload": 1}, {"ref": "test", "payload": 2, "depends_on": ["build"]}]}
    },
    **_LATER,
)
async def create_pipeline(request: Request) -> Answer:
    raise _later("Pipelines")


@route(
    "GET",
    "/api/queue/pipelines/{pipeline_id:name}",
    scope="queue:read",
    summary="Show a pipeline. Not in this version.",
    **_LATER,
)
async def get_pipeline(request: Request) -> Answer:
    raise _later("Pipelines")


@route(
    "DELETE",
    "/api/queue/pipelines/{pipeline_id:name}",
    scope="queue:admin",
    rate="admin",
    summary="Cancel a pipeline. Not in this version.",
    **_LATER,
)
async def cancel_pipeline(request: Request) -> Answer:
    raise _later("Pipelines")


@route(
    "GET",
    "/api/queue/schedules",
    scope="queue:read",
    query=PageQuery,
    summary="List schedules. Not in this version.",
    **_LATER,
)
async def list_schedules(request: Request) -> Answer:
    raise _later("Schedules")


@route(
    "POST",
    "/api/queue/schedules",
    scope="queue:enqueue",
    rate="enqueue",
    body=ScheduleBody,
    body_bytes_max=JOB_BYTES_MAX,
    guard="refuse",
    idempotent=True,
    summary="Take a job in again and again. Not in this version.",
    examples={"body": {"cron": "0 4 * * *", "time_zone": "Europe/Berlin", "job": {"payload": 1}}},
    **_LATER,
)
async def create_schedule(request: Request) -> Answer:
    raise _later("Schedules")


@route(
    "DELETE",
    "/api/queue/schedules/{schedule_id:name}",
    scope="queue:admin",
    rate="admin",
    summary="End a schedule. Not in this version.",
    **_LATER,
)
async def delete_schedule(request: Request) -> Answer:
    raise _later("Schedules")
