"""What a caller may reach: pools they may name, jobs behind ids, leases that are theirs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any, Final, TypeVar

import hybridq as hq

from .grants import check_pool
from .http.names import refuse_reserved, split_full_id
from .http.problems import Problem
from .http.request import Request
from .views import full_id

__all__ = [
    "DEFAULT_POOL",
    "conflicts_of",
    "holder_of",
    "known_queue",
    "lease_of",
    "leased",
    "members_of",
    "named_pool",
    "note_pool",
    "own_pools",
    "queue_behind",
    "with_look",
]

T = TypeVar("T")
DEFAULT_POOL: Final = "default"
_ALLOWED: Final = {
    "start": ("CLAIMED",),
    "complete": ("RUNNING",),
    "release": ("CLAIMED", "RUNNING"),
}
"""verb → statuses it is allowed from, as the contract has them."""


def named_pool(request: Request, pool: str | None, pointer: str = "/pool") -> str:
    """Return the pool a caller means: the one named, the agent's, or the default. 400 for a name that is kept."""
    refuse_reserved(pointer, pool)
    found: str = pool or request.credential.pool or DEFAULT_POOL
    check_pool(request.credential, found)
    return found


async def known_queue(request: Request, pool: str) -> hq.AsyncQueue | None:
    """Return the queue of a pool, None when there is no such pool: looking must not make one."""
    namespace = request.credential.namespace
    return request.plane.queue(namespace, pool) if await request.plane.knows_pool(namespace, pool) else None


async def note_pool(request: Request, pool: str) -> None:
    """See to it that a pool that this call may have made is listed from now on."""
    await request.plane.knows_pool(request.credential.namespace, pool)


async def own_pools(request: Request, pool: str | None = None) -> list[str]:
    """Return the pools a call is about that are there: the one named, else all that the caller may reach."""
    if pool is not None:
        check_pool(request.credential, pool)
    known = await request.plane.known_pools(request.credential.namespace)
    return [each for each in known if request.credential.allows_pool(each) and pool in (None, each)]


async def queue_behind(request: Request) -> tuple[hq.AsyncQueue, str]:
    """Return queue and job id of the full id in the path. 404 for a pool that is not there or not the caller's."""
    pool, job_id = split_full_id(request.path["id"])
    queue = await known_queue(request, pool) if request.credential.allows_pool(pool) else None
    if queue is None:
        raise Problem("job_not_found")
    return queue, job_id


def holder_of(request: Request) -> str:
    """Return who the caller is to a lease: a registered agent, or any name that this credential claims under.

    An exchanged token is no agent's before it registers, and then the agent has a token of its session.
    """
    caller = request.credential
    return f"@{caller.id}" if caller.agent_id is None or caller.session_id is None else caller.agent_id


def lease_of(job_id: str, token: str, holder: str, at: str = "/lease_token") -> hq.LeaseProof:
    """Return the proof in a lease token, whose form was checked when it was read; `at`: where it stands in the body."""
    fence, _, lease_id = token.partition(".")
    if int(fence) >= 2**53:
        raise Problem("invalid_argument", errors=[(at, "must be <fence>.<lease_id>")])
    return hq.LeaseProof(job_id=job_id, fence=int(fence), lease_id=lease_id, agent=holder)


async def leased(request: Request, token: str) -> tuple[hq.AsyncQueue, hq.LeaseProof]:
    """Return the queue and the proof of the lease of the job in the path."""
    proof = lease_of(split_full_id(request.path["id"]).job_id, token, holder_of(request))
    queue, _ = await queue_behind(request)
    return queue, proof


async def with_look(verb: Coroutine[Any, Any, T], queue: hq.AsyncQueue, job_id: str) -> tuple[T, hq.Job | None]:
    """Return what a verb does and the job as it was then, read in the same round trip; None: it was not to be read.

    Whoever asks sees by the job whether it was read before the verb after all, which had to be sent again.
    """
    done, job = await asyncio.gather(verb, queue.job(job_id), return_exceptions=True)
    if isinstance(done, BaseException):
        raise done
    return done, None if isinstance(job, BaseException) else job


@contextlib.contextmanager
def conflicts_of(pool: str, verb: str = "") -> Iterator[None]:
    """Give conflicts what only the place of the call knows: full ids, and from where the verb is allowed."""
    try:
        yield
    except hq.UniqueTaken as error:
        raise Problem("unique_taken", existing_job_id=full_id(pool, error.existing_job_id)) from error
    except hq.StaleLease as error:
        raise Problem("stale_lease", job_status=error.status, allowed=_ALLOWED.get(verb, ())) from error
    except hq.IllegalTransition as error:
        raise Problem("illegal_transition", job_status=error.status, allowed=error.allowed) from error


def members_of(problem: Problem, **members: Any) -> Problem:
    """Return the same problem with further keys in its body."""
    problem.members.update(members)
    return problem
