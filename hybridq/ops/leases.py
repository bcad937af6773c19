"""What holders do: claim, start, heartbeat, complete, release."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from .._units import YEAR_S, to_ms, to_s
from ..call import Call, Reply
from ..codec import FAILURE_BYTES_MAX, RESULT_BYTES_MAX, encode_fragment, read_lease
from ..errors import (
    AgentDraining,
    IllegalTransition,
    InvalidArgument,
    JobCancelled,
    JobNotFound,
    NotLeaseHolder,
    OutcomeConflict,
    SessionSuperseded,
    StaleLease,
)
from ..job import Beat, CancelRequest, Finished, Lease, LeaseProof
from ..keys import new_id, validate_holder
from ..lifecycle import JobStatus, Outcome, allowed_from
from ..retry import jitter
from ..scripts import load
from . import _args

__all__ = ["LANES_ANY", "Claimed", "claim", "claim_next", "complete", "heartbeat", "release", "start", "with_next"]

LANES_ANY: Final = "any"
CLAIM_MAX: Final = 100
LEASE_S_MAX: Final = 3600
HOLDING_MAX: Final = 200
_jitter = random.SystemRandom()
L = TypeVar("L", bound=LeaseProof)


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of one claim: leases, or why there are none and when to look again."""

    leases: tuple[Lease, ...] = ()
    paused: bool = False
    more: bool = False
    """The upkeep was cut short: call again at once."""
    next_due_ms: int = -1
    """Milliseconds until something is due; -1 when nothing is waiting for a time."""


def claim(
    root: str,
    *,
    queue: str,
    agent: str,
    lease_id: str,
    n: int = 1,
    lease_s: float = 30.0,
    start: bool = False,
    request_id: str = "",
    fresh: bool = True,
    holding: Iterable[LeaseProof] | None = None,
    generation: int = 0,
    lanes: str = LANES_ANY,
    lanes_version: int = 0,
    now_ms: int = 0,
) -> Call[Claimed]:
    """Lease up to `n` of the most urgent jobs to `agent` for `lease_s` seconds; 0: as long as the queue says.

    `fresh` says that `request_id` was never sent before; the same id again, not fresh, gets the same leases.
    """
    script = load("claim")
    held = None if holding is None else [str(_args.lease_entry(lease)[1]) for lease in holding]
    if held is not None and len(held) > HOLDING_MAX:
        raise InvalidArgument("holding", len(held), f"at most {HOLDING_MAX} leases")
    entry = (
        validate_holder("agent", agent),
        generation,
        _args.text("request_id", request_id, 64),
        1 if fresh else 0,
        lease_id,
        _args.integer("n", n, 1, CLAIM_MAX),
        to_ms("lease_s", lease_s, 1, LEASE_S_MAX) if lease_s else 0,
        1 if start else 0,
        "" if held is None else f",{','.join(held)},",
    )

    def decode(replies: Sequence[Reply]) -> Claimed:
        reply = replies[0]
        match _args.tag_of(script, reply, ""):
            case "LEASED":
                return Claimed(leases=tuple(read_lease(queue, fields, session=generation) for fields in reply[1]))
            case "EMPTY" | "PAUSED" as tag:
                return Claimed(paused=tag == "PAUSED", more=bool(int(reply[1])), next_due_ms=int(reply[2]))
            case "DRAINING":
                raise AgentDraining(agent)
            case "SUPERSEDED":
                raise SessionSuperseded(agent)
        raise _args.unexpected(script, reply)

    again = (*entry[:3], 0, *entry[4:]) if request_id else None
    return Call(
        script=script,
        root=root,
        common=(now_ms, lanes_version, lanes),
        entries=(entry,),
        decode=decode,
        repeat=None if again is None else (again,),
    )


def claim_next(lease: Lease, root: str, *, queue: str, n: int, now_ms: int = 0) -> Call[Claimed]:
    """Return a claim of up to `n` next jobs as `lease` was claimed: same agent, same length, same start."""
    return claim(
        root,
        queue=queue,
        agent=lease.agent,
        lease_id=secrets.token_hex(16),
        n=n,
        lease_s=lease.lease_s,
        start=lease.started_by_claim,
        request_id=new_id(),
        generation=lease.session,
        now_ms=now_ms,
    )


def with_next(finished: Finished, claimed: Claimed | BaseException) -> Finished:
    """Return the answer of a finish with the leases that were claimed in the same round trip.

    When that claim failed the finish still stands; why it failed is told to the next claim.
    """
    return finished if isinstance(claimed, BaseException) else msgspec.structs.replace(finished, next=claimed.leases)


def start(root: str, lease: L, *, now_ms: int = 0) -> Call[L]:
    """Begin the work of a lease: the attempt is charged, once. Value: the lease, RUNNING.

    Raises `JobCancelled` when the job was cancelled meanwhile, `StaleLease`, `NotLeaseHolder`, `JobNotFound`.
    """
    script = load("start")

    def decode(replies: Sequence[Reply]) -> L:
        reply = replies[0]
        match _args.tag_of(script, reply, lease.job_id):
            case "STARTED":
                if not isinstance(lease, Lease):
                    return lease
                return msgspec.structs.replace(lease, status=JobStatus.RUNNING, attempt=int(reply[1]))
            case "CANCELLED":
                raise JobCancelled(lease.job_id)
        raise refusal(lease, "start", reply)

    return _args.simple("start", root, now_ms, [_args.lease_entry(lease)], decode)


def heartbeat(root: str, leases: Sequence[LeaseProof], *, now_ms: int = 0) -> Call[Beat]:
    """Renew leases by the length they were claimed with. Value: renewed, lost with the reason, cancel requests."""
    script = load("heartbeat")

    def decode(replies: Sequence[Reply]) -> Beat:
        renewed: list[str] = []
        lost: dict[str, str] = {}
        lasts_s: dict[str, float] = {}
        cancel: list[CancelRequest] = []
        for lease, reply in zip(leases, replies, strict=True):
            try:
                tag = _args.tag_of(script, reply, lease.job_id)
            except JobNotFound:
                tag = "NOT_FOUND"
            if tag != "RENEWED":
                lost[lease.job_id] = {"STALE_LEASE": "stale_lease", "NOT_HOLDER": "not_lease_holder"}.get(
                    tag, "not_found"
                )
                continue
            renewed.append(lease.job_id)
            lasts_s[lease.job_id] = to_s(int(reply[1]))
            if reply[2]:
                cancel.append(CancelRequest(job_id=lease.job_id, mode=reply[2].decode(), grace_s=to_s(int(reply[3]))))
        return Beat(renewed=tuple(renewed), lost=lost, lasts_s=lasts_s, cancel=tuple(cancel))

    return _args.simple("heartbeat", root, now_ms, [_args.lease_entry(lease) for lease in leases], decode)


def complete(
    root: str,
    lease: LeaseProof,
    outcome: Outcome | str = Outcome.SUCCESS,
    *,
    result: Any = None,
    error: Any = None,
    exit_code: int | None = None,
    retryable: bool = True,
    delay_s: float | None = None,
    rng: random.Random = _jitter,
    now_ms: int = 0,
) -> Call[Finished]:
    """End a lease with an outcome. Value: what the job is now; the same call again gets the first answer.

    Raises `StaleLease`, `NotLeaseHolder`, `OutcomeConflict`, `IllegalTransition`, `JobNotFound`.
    """
    script = load("complete")
    said = _args.member("outcome", outcome, Outcome)
    entry = (
        *_args.lease_entry(lease),
        said.value,
        "" if exit_code is None else str(_args.integer("exit_code", exit_code, -(2**31), 2**31 - 1)),
        1 if retryable else 0,
        0 if delay_s is None else to_ms("delay_s", delay_s, 0, YEAR_S) + 1,
        jitter(rng),
        encode_fragment("error", error, FAILURE_BYTES_MAX),
        encode_fragment("result", result, RESULT_BYTES_MAX),
    )

    def decode(replies: Sequence[Reply]) -> Finished:
        reply = replies[0]
        match _args.tag_of(script, reply, lease.job_id):
            case "DONE":
                status, wait_ms = JobStatus(reply[1].decode()), int(reply[2])
                retry_in = to_s(wait_ms) if status in (JobStatus.SCHEDULED, JobStatus.QUEUED) else None
                return Finished(job_id=lease.job_id, status=status, retry_in_s=retry_in)
            case "REPLAYED":
                return Finished(job_id=lease.job_id, status=JobStatus(reply[1].decode()), replayed=True)
            case "OUTCOME_CONFLICT":
                raise OutcomeConflict(lease.job_id, lease.fence, reply[1].decode())
            case "ILLEGAL":
                raise IllegalTransition(lease.job_id, "complete", reply[1].decode(), [JobStatus.RUNNING.value])
        raise refusal(lease, "complete", reply)

    return _args.simple("complete", root, now_ms, [entry], decode, size_bytes=len(entry[-1]))


def release(root: str, lease: LeaseProof, *, delay_s: float | None = None, now_ms: int = 0) -> Call[Finished]:
    """Hand a lease back unfinished: the attempt is given back, the job keeps its place. Value: what the job is now."""
    script = load("release")
    delay_ms = 0 if delay_s is None else to_ms("delay_s", delay_s, 0, YEAR_S)

    def decode(replies: Sequence[Reply]) -> Finished:
        reply = replies[0]
        if _args.tag_of(script, reply, lease.job_id) == "RELEASED":
            status = JobStatus(reply[1].decode())
            return Finished(job_id=lease.job_id, status=status, retry_in_s=to_s(int(reply[2])))
        raise refusal(lease, "release", reply)

    # Not repeated by itself: the second answer would be "stale", which the caller must see as what it is.
    entry = (*_args.lease_entry(lease), delay_ms)
    return _args.simple("release", root, now_ms, [entry], decode, repeatable=False)


def refusal(lease: LeaseProof, verb: str, reply: Reply) -> Exception:
    match bytes(reply[0]).decode():
        case "STALE_LEASE":
            return StaleLease(lease.job_id, lease.fence, reply[1].decode())
        case "NOT_HOLDER":
            return NotLeaseHolder(lease.job_id, lease.fence)
        case "ILLEGAL":
            return IllegalTransition(lease.job_id, verb, reply[1].decode(), allowed_from(verb))
    return _args.unexpected(load(verb), reply)
