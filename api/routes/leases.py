"""What holders do: claim and wait for work, keep leases alive, start, complete, hand back.

A claim that waits is parked in this process and costs Redis nothing. Jobs go out in the library's claims; each claimed
job is then read once more, together with those of other claims of the same turn, for what only its record knows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec
import structlog
from msgspec import UNSET, UnsetType

import hybridq as hq

from ..audit_trail import audit_rejection
from ..bodies import (
    NOT_SUPPORTED,
    Claim,
    ClaimNext,
    Complete,
    Heartbeat,
    Release,
    Start,
    raw_value,
)
from ..following import following_of
from ..http.answer import Answer
from ..http.names import split_full_id
from ..http.problems import Problem, Reason, invalid
from ..http.request import Request
from ..http.route import route
from ..parking import refuse_while_stopping, while_served
from ..plane import Plane
from ..reach import conflicts_of, holder_of, known_queue, lease_of, leased, named_pool, with_look
from ..views import ClaimedJob, JobView, claimed_view, gone_view, job_view

__all__ = ["Completed", "complete_lease"]

log = structlog.get_logger("hybridq.api")
AGAIN_S: Final = 1
"""What Retry-After says when there is nothing to claim."""
KNOWN_S: Final = 10.0
"""How long the process goes by what it found of an agent's name, for claims by keys."""
KNOWN_MAX: Final = 50_000
SEEN_S: Final = 1.0
AWAY_S: Final = 10.0
"""An agent whose last sign is younger is not taken for gone by anybody."""
RESULT_BYTES_MAX: Final = 512 * 1024
HOLDING_AS: Final = "-"
"""Stands for the job of a lease in `holding`, of which only the token is sent."""
REPLAYED: Final = {"Idempotency-Replayed": "true"}


class ClaimedJobs(msgspec.Struct, frozen=True, kw_only=True):
    """What a claim brought; `job` is the first."""

    job: ClaimedJob
    jobs: list[ClaimedJob]


class RenewedLease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease that goes on."""

    id: str
    lease_expires_in_seconds: float


class LostLease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease that is over: stop the work."""

    id: str
    reason: str


class CancelAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody asked for the job to stop."""

    id: str
    mode: str
    grace_seconds: float


class Beaten(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each lease."""

    renewed: list[RenewedLease]
    lost: list[LostLease]
    cancel: list[CancelAsked]


class Completed(msgspec.Struct, frozen=True, kw_only=True):
    """How the job is now, and what was claimed along with it."""

    job: JobView
    retried: bool
    replayed: bool
    next: list[ClaimedJob]
    redactions: int | UnsetType = UNSET
    """How many secrets were taken out of the result or error."""
    drain: bool | UnsetType = UNSET
    """True when nothing was claimed because the agent is draining."""


# -- claim -----------------------------------------------------------------------------------------------------


@route(
    "POST",
    "/api/queue/claim",
    scope="queue:claim",
    agents=True,
    rate="claim",
    body=Claim,
    answers={200: ClaimedJobs},
    problems=[
        "agent_draining",
        "agent_not_allowed",
        "no_jobs_available",
        "not_supported_yet",
        "pool_not_allowed",
        "queue_full",
        "reserved_name",
        "session_superseded",
        "stopping",
    ],
    guard="refuse",
    idempotent=True,
    summary="Lease the most urgent jobs of a pool; `wait_seconds` waits for one to come.",
    tags=["queue"],
    examples={"body": {"agent_id": "build-7", "pool": "default", "wait_seconds": 0}},
)
async def claim_jobs(request: Request) -> Answer:
    body: Claim = request.body
    holding = _holding_of(body.holding)
    pool = named_pool(request, _pool_of(body))
    claimer = await _claimer(request)
    if body.pools is not None and len(body.pools) > 1:
        raise Problem(NOT_SUPPORTED, errors=[Reason("/pools", "more than one pool is not in this version")])
    refuse_while_stopping(request.plane)
    await _note_sign_of_life(request)
    queue = request.plane.queue(request.credential.namespace, pool)
    request_id = body.request_id or request.idempotent_id()
    leases = await _wait_for(
        request,
        queue.claim(
            body.max,
            wait_s=body.wait_seconds,
            lease_s=body.lease_seconds,
            start=body.start,
            request_id=request_id,
            agent=claimer,
            generation=request.credential.generation or 0,
            holding=holding,
        ),
        waits=body.wait_seconds > 0,
    )
    if not leases:
        raise Problem("no_jobs_available", headers={"Retry-After": str(AGAIN_S), "Cache-Control": "no-store"})
    jobs, again = await _claimed_views(queue, leases)
    replayed = again and request_id is not None and body.request_id is None
    return Answer(ClaimedJobs(job=jobs[0], jobs=jobs), headers=REPLAYED if replayed else None)


def _pool_of(body: Claim) -> str | None:
    if body.pools is None:
        return body.pool
    if body.pool is not None:
        raise invalid("/pools", "stands beside pool: one of the two")
    return body.pools[0]


def _holding_of(tokens: Sequence[str] | None) -> list[hq.LeaseProof] | None:
    if tokens is None:
        return None
    return [lease_of(HOLDING_AS, token, HOLDING_AS, f"/holding/{place}") for place, token in enumerate(tokens)]


async def _claimer(request: Request) -> str:
    """Return who the leases will belong to. Raises 403 for a name that is not the caller's, 410 for an old session."""
    caller, body = request.credential, request.body
    if caller.kind == "agent":
        if body.agent_id != caller.agent_id or caller.session_id is None:
            raise Problem("agent_not_allowed")
        if body.session_id not in (None, caller.session_id):
            raise Problem("session_superseded")
        return str(body.agent_id)
    if await _registered.holds(request.plane, caller.namespace, body.agent_id):
        raise Problem("agent_not_allowed", "An agent of this name is registered; a key may not claim for it.")
    return f"{body.agent_id}@{caller.id}"


class _Registered:
    """Which names are those of registered agents, as it was a moment ago.

    Leases under a key's names are told apart from an agent's by the key itself, so an answer that is old is harmless.
    """

    def __init__(self) -> None:
        self._of: WeakKeyDictionary[Plane, dict[tuple[str, str], tuple[float, bool]]] = WeakKeyDictionary()

    async def holds(self, plane: Plane, namespace: str, agent_id: str) -> bool:
        known = self._of.setdefault(plane, {})
        now = time.monotonic()
        until, found = known.get((namespace, agent_id), (0.0, False))
        # That a name is free may be believed for a while; that it is taken is asked again, as agents also leave.
        if now < until and not found:
            return False
        try:
            agent = await plane.fleet(namespace).agent(agent_id)
            found = agent.status is not hq.AgentStatus.TERMINATED
        except hq.AgentNotRegistered:
            found = False
        if len(known) >= KNOWN_MAX:
            known.clear()
        known[namespace, agent_id] = (now + KNOWN_S, found)
        return found


_registered = _Registered()


async def _note_sign_of_life(request: Request) -> None:
    """Take the claim of a registered agent for a sign of life."""
    caller = request.credential
    if caller.kind == "agent" and caller.session_id is not None:
        await _signs.note(request.plane, caller.namespace, str(caller.agent_id), caller.session_id)


class _Signs:
    """Signs of life on their way to the fleet, one a second for each agent at most.

    An agent that was away for long comes back by its sign, and may claim from then on: that one is waited for.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def note(self, plane: Plane, namespace: str, agent_id: str, session_id: str) -> None:
        now = time.monotonic()
        key = (agent_id, session_id)
        since = now - self._last.get(key, float("-inf"))
        if since < SEEN_S:
            return
        if len(self._last) >= KNOWN_MAX:
            self._last.clear()
        self._last[key] = now
        if since >= AWAY_S:
            await self._tell(plane, namespace, agent_id, session_id)
            return
        task = asyncio.get_running_loop().create_task(self._tell(plane, namespace, agent_id, session_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, plane: Plane, namespace: str, agent_id: str, session_id: str) -> None:
        try:
            await plane.fleet(namespace).seen(agent_id, session_id)
        except hq.HybridqError as problem:
            # The claim itself says what is wrong with the session; here it is only a sign that was not noted.
            log.info("agent.not_seen", component="api", error_type=type(problem).__name__)


_signs = _Signs()


async def _wait_for(request: Request, claim: Coroutine[Any, Any, list[hq.Lease]], *, waits: bool) -> Sequence[hq.Lease]:
    """Return what a claim brings; when the client goes away first, the jobs go to others."""
    if not waits:
        return await claim
    request.plane.parked += 1
    try:
        return await while_served(request, claim, otherwise=[]) or ()
    finally:
        request.plane.parked -= 1


async def _claimed_views(queue: hq.AsyncQueue, leases: Sequence[hq.Lease]) -> tuple[list[ClaimedJob], bool]:
    """Return leases as their holder sees them, and whether they had been given before and were renewed now."""
    if len(leases) == 1:  # as nearly always: without a task of its own
        jobs = [await _read(queue, leases[0].job_id)]
    else:
        jobs = await asyncio.gather(*(_read(queue, lease.job_id) for lease in leases))
    pairs = list(zip(jobs, leases, strict=True))
    return [claimed_view(job, lease) for job, lease in pairs], any(_is_renewed(job, lease) for job, lease in pairs)


async def _read(queue: hq.AsyncQueue, job_id: str) -> hq.Job | None:
    try:
        return await queue.job(job_id)
    except hq.HybridqError:
        return None  # the lease stands, and what it says is enough to work on


def _is_renewed(job: hq.Job | None, lease: hq.Lease) -> bool:
    """Whether a lease ends later than its claim alone would have it: the same request got it once more."""
    if job is None or job.fence != lease.fence or job.lease_expires_at is None or job.claimed_at is None:
        return False
    return (job.lease_expires_at - job.claimed_at).total_seconds() > lease.lease_s + 0.0005


# -- while it runs ---------------------------------------------------------------------------------------------


@route(
    "POST",
    "/api/queue/heartbeat",
    scope="queue:claim",
    agents=True,
    rate="report",
    body=Heartbeat,
    answers={200: Beaten},
    problems=[],
    summary="Renew leases by the length they were claimed for; learn which are lost, and what is to be cancelled.",
    tags=["queue"],
    examples={"body": {"leases": []}},
)
async def heartbeat_leases(request: Request) -> Answer:
    holder = holder_of(request)
    found = Beaten(renewed=[], lost=[], cancel=[])
    beats = []
    for place, lease in enumerate(request.body.leases):
        at = f"/leases/{place}/lease_token"
        proof = lease_of(split_full_id(lease.id).job_id, lease.lease_token, holder, at)
        beats.append(_beat(request, lease.id, proof, found))
    # Each for itself, as one job may stand there with two tokens; in one turn of the loop they travel together.
    await asyncio.gather(*beats)
    return Answer(found)


async def _beat(request: Request, id: str, proof: hq.LeaseProof, found: Beaten) -> None:
    pool = split_full_id(id).pool
    queue = await known_queue(request, pool) if request.credential.allows_pool(pool) else None
    if queue is None:
        found.lost.append(LostLease(id=id, reason="not_found"))
        return
    beat = await queue.heartbeat([proof])
    if beat.lost:
        found.lost.append(LostLease(id=id, reason=beat.lost[proof.job_id]))
        return
    found.renewed.append(RenewedLease(id=id, lease_expires_in_seconds=beat.lasts_s[proof.job_id]))
    for asked in beat.cancel:
        found.cancel.append(CancelAsked(id=id, mode=asked.mode, grace_seconds=asked.grace_s))


@route(
    ["PATCH", "POST"],
    "/api/queue/jobs/{id:full_id}/start",
    scope="queue:claim",
    agents=True,
    rate="report",
    body=Start,
    answers={200: JobView},
    problems=["cancelled", "job_not_found", "not_lease_holder", "stale_lease"],
    idempotent=True,
    summary="Begin the work of a lease: the attempt is charged, once.",
    tags=["queue"],
    examples={"body": {"lease_token": "3686400000001.00000000000000000000000000000000"}},
)
async def start_job(request: Request) -> Answer:
    queue, proof = await leased(request, request.body.lease_token)
    with conflicts_of(queue.name, "start"):
        _, job = await with_look(queue.start(proof), queue, proof.job_id)
    if job is None or job.status is not hq.JobStatus.RUNNING or job.fence != proof.fence:
        job = await queue.job(proof.job_id)
    return Answer(job_view(job, attempts=True))


# -- how it ends -----------------------------------------------------------------------------------------------


@route(
    ["PATCH", "POST"],
    "/api/queue/jobs/{id:full_id}/complete",
    scope="queue:claim",
    agents=True,
    rate="report",
    body=Complete,
    body_bytes_max=RESULT_BYTES_MAX,
    answers={200: Completed},
    problems=["illegal_transition", "job_not_found", "not_lease_holder", "outcome_conflict", "stale_lease"],
    guard="redact",
    idempotent=True,
    summary="End a run with an outcome; `claim_next` leases what comes next in the same round trip.",
    tags=["queue"],
    examples={
        "body": {"lease_token": "3686400000001.00000000000000000000000000000000", "outcome": "success", "exit_code": 0}
    },
)
async def complete_job(request: Request) -> Answer:
    return Answer(await complete_lease(request))


async def complete_lease(request: Request) -> Completed:
    """End the lease of the job in the path as the body says. Raises what the contract says of it."""
    body: Complete = request.body
    if body.outcome == "success" and raw_value(body.error) is not None:
        raise invalid("/error", "goes with every outcome but success")
    holding = _holding_of(body.claim_next.holding) if body.claim_next else None
    queue, proof = await leased(request, body.lease_token)
    leases: list[hq.Lease] = []
    drain = False
    job: hq.Job | None = None
    with conflicts_of(queue.name, "complete"):
        if body.claim_next is None:
            finished, job = await with_look(_finish(queue, proof, body), queue, proof.job_id)
        else:
            finished, leases, drain = await _finish_and_claim(request, queue, proof, body.claim_next, holding)
    following_of(request.plane).wake(queue.namespace, queue.name, proof.job_id)
    if body.outcome == "rejected" and not finished.replayed:
        await audit_rejection(request, request.path["id"], raw_value(body.error))
    following: list[ClaimedJob] = []
    if leases:
        [view, (following, _)] = await asyncio.gather(_view_after(queue, finished), _claimed_views(queue, leases))
    elif job is not None and job.status is finished.status:
        view = job_view(job, attempts=True)
    else:
        view = await _view_after(queue, finished)
    return Completed(
        job=view,
        retried=finished.retried,
        replayed=finished.replayed,
        next=following,
        redactions=request.redactions or UNSET,
        drain=True if drain else UNSET,
    )


def _finish(queue: hq.AsyncQueue, proof: hq.LeaseProof, body: Complete) -> Coroutine[Any, Any, hq.Finished]:
    result = raw_value(body.result)
    if body.outcome == "success":
        return queue.complete(proof, result, exit_code=body.exit_code)
    return queue.fail(
        proof,
        raw_value(body.error),
        outcome=body.outcome,
        retryable=body.retryable is not False,
        exit_code=body.exit_code,
        result=result,
    )


async def _finish_and_claim(
    request: Request,
    queue: hq.AsyncQueue,
    proof: hq.LeaseProof,
    following: ClaimNext,
    holding: list[hq.LeaseProof] | None,
) -> tuple[hq.Finished, list[hq.Lease], bool]:
    """End a lease and claim as it was claimed; in one turn of the loop they travel together, the end first."""
    job = await _read(queue, proof.job_id)
    claimed = None if job is None else _claim_before(job, proof)
    if claimed is None:
        return await _finish(queue, proof, request.body), [], False
    holder, lease_s, start = claimed
    generation = request.credential.generation or 0
    request_id = following.request_id or request.idempotent_id("next")

    def claim() -> Coroutine[Any, Any, list[hq.Lease]]:
        return queue.claim(
            following.max,
            lease_s=lease_s,
            start=start,
            request_id=request_id,
            agent=holder,
            generation=generation,
            holding=holding,
        )

    finished, leases = await asyncio.gather(_finish(queue, proof, request.body), claim(), return_exceptions=True)
    if isinstance(finished, BaseException):
        if isinstance(leases, list):
            await asyncio.gather(*(queue.release(lease) for lease in leases), return_exceptions=True)
        raise finished
    if isinstance(leases, list) and not leases and generation:
        # Joined with claims of others it may have gone out before the end it follows, when the agent was still full.
        leases = (await asyncio.gather(claim(), return_exceptions=True))[0]
    if isinstance(leases, BaseException):
        # The end stands, whatever became of the claim: the next claim will say what is wrong.
        return finished, [], isinstance(leases, hq.AgentDraining)
    return finished, leases, False


def _claim_before(job: hq.Job, proof: hq.LeaseProof) -> tuple[str, float | None, bool] | None:
    """Return holder, length and start of the claim that a lease came from; None when the job does not know it."""
    if job.fence == proof.fence and job.lease_expires_at is not None:
        holder, claimed_at, started_at = job.agent, job.claimed_at, job.started_at
    else:
        ended = [attempt for attempt in job.attempts if attempt.fence == proof.fence]
        if not ended:
            return None
        holder, claimed_at, started_at = ended[0].agent, ended[0].claimed_at, ended[0].started_at
    if holder is None or not _speaks_for(proof.agent, holder):
        return None
    return holder, job.lease_s if job.fence == proof.fence else None, claimed_at == started_at


def _speaks_for(who: str, holder: str) -> bool:
    return who == holder or (who.startswith("@") and holder.endswith(who))


async def _view_after(queue: hq.AsyncQueue, finished: hq.Finished) -> JobView:
    """Return the job as it is now; of one past its retention what its end left."""
    try:
        return job_view(await queue.job(finished.job_id), attempts=True)
    except hq.JobNotFound:
        return gone_view(queue.name, finished.job_id, finished.status.value)


@route(
    "POST",
    "/api/queue/jobs/{id:full_id}/release",
    scope="queue:claim",
    agents=True,
    rate="report",
    body=Release,
    answers={200: JobView},
    problems=["job_not_found", "not_lease_holder", "stale_lease"],
    idempotent=True,
    summary="Hand a job back unfinished: the attempt is given back, the job keeps its place in line.",
    tags=["queue"],
    examples={"body": {"lease_token": "3686400000001.00000000000000000000000000000000", "delay_seconds": 5}},
)
async def release_job(request: Request) -> Answer:
    body: Release = request.body
    queue, proof = await leased(request, body.lease_token)
    replayed = False
    with conflicts_of(queue.name, "release"):
        try:
            await queue.release(proof, delay_s=body.delay_seconds)
        except hq.StaleLease:
            replayed = request.idempotent_id() is not None and await _was_released(queue, proof)
            if not replayed:
                raise
    view = job_view(await queue.job(proof.job_id), attempts=True)
    return Answer(view, headers=REPLAYED if replayed else None)


async def _was_released(queue: hq.AsyncQueue, proof: hq.LeaseProof) -> bool:
    """Whether this very lease was handed back: the job says so as its last lease, or in its history."""
    job = await queue.job(proof.job_id)
    if job.fence == proof.fence and job.lease_expires_at is None and job.outcome == "released":
        return True
    return any(each.fence == proof.fence and each.outcome == "released" for each in job.attempts)
