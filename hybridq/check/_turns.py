"""The rules between jobs: which lease came first, and to whom. Invariants 3, 6, 13, 15 and 16."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from ..lifecycle import Priority
from ._best import Best, Mark
from ._story import NEVER, Answer, Grant, JobStory, LeaseCall, QueueStory

__all__ = ["judge_turns"]

Fault = tuple[int, str | None, str]
"""Number of the invariant, job, what was found."""

_BANDS = {priority.value: band for band, priority in enumerate(Priority)}


class Turn(NamedTuple):
    """A job whose first delivery is known, and which had no reason to be passed over.

    It became claimable between `sent` and `there`, and was first leased between `asked` and `got`; `asked` is NEVER
    for a job that certainly was never leased.
    """

    job_id: str
    sent: int
    there: int
    asked: int
    got: int


def judge_turns(jobs: list[JobStory], around: QueueStory, clock_error_ns: int) -> Iterator[Fault]:
    """Yield what is wrong between the jobs of one queue."""
    yield from _fences(jobs)
    yield from _repeated_claims(jobs, around)
    yield from _order(jobs, around)
    for job in jobs:
        yield from ((16, job.job_id, message) for message in _early(job, clock_error_ns))


def _fences(jobs: list[JobStory]) -> Iterator[Fault]:
    """3: no fence is given out twice, and a lease given later has a greater one."""
    grants = [grant for job in jobs for grant in job.grants]
    grants.sort(key=lambda grant: grant.lease.fence, reverse=True)
    for one, other in pairwise(grants):
        if one.lease.fence == other.lease.fence:
            message = f"fence {one.lease.fence} was given out for it and for {other.lease.job_id}"
            yield 3, one.lease.job_id, message
    # Of the leases with a greater fence, the one whose answer came first.
    earliest: Grant | None = None
    for grant in grants:
        fence = grant.lease.fence
        if earliest is not None and earliest.t_ret < grant.t_inv:
            message = f"fence {fence} was given after {earliest.lease.fence} had been, to {earliest.lease.job_id}"
            yield 3, grant.lease.job_id, message
        if earliest is None or grant.t_ret < earliest.t_ret:
            earliest = grant


def _repeated_claims(jobs: list[JobStory], around: QueueStory) -> Iterator[Fault]:
    """13: a claim brings no more than it asked for; repeated, it brings the same leases while they live.

    That a lease lived on is certain only when a later call of its holder was accepted.
    """
    for job in jobs:
        for grant in job.grants:
            if len(grant.claims) > 1 and (len(set(grant.claims)) > 1 or not grant.claims[0][1]):
                yield 13, job.job_id, f"the lease with fence {grant.lease.fence} was handed to several claims"
    used = _last_use(call for job in jobs for call in job.calls)
    for (agent, request_id), answers in around.answers.items():
        for answer in answers:
            if len(answer.fences) > answer.n:
                message = f"agent {agent} asked for {answer.n} and was given {len(answer.fences)} leases"
                yield 13, None, message
        if request_id:
            for earlier, later in pairwise(answers):
                difference = _differ(earlier, later, used)
                if difference:
                    yield 13, None, f"request {request_id} of agent {agent} {difference}"


def _last_use(calls: Iterable[LeaseCall]) -> dict[int, int]:
    used: dict[int, int] = {}
    for call in calls:
        if call.type == "ok" and not call.answer.replayed:
            used[call.fence] = max(used.get(call.fence, 0), call.t_inv)
    return used


def _differ(earlier: Answer, later: Answer, used: dict[int, int]) -> str | None:
    over = max(earlier.t_ret, later.t_ret)
    missing = {fence for fence in earlier.fences - later.fences if used.get(fence, 0) > over}
    extra = {fence for fence in later.fences - earlier.fences if used.get(fence, 0) > over}
    if missing and (earlier.t_ret < later.t_inv or extra):
        return f"brought fences {sorted(earlier.fences)}, then {sorted(later.fences)}, while {sorted(missing)} lived"
    return None


def _order(jobs: list[JobStory], around: QueueStory) -> Iterator[Fault]:
    """6 and 15: among jobs of the same labels the more urgent comes first, and of one priority the earlier one."""
    turns: dict[tuple[str, ...], dict[str, list[Turn]]] = defaultdict(lambda: defaultdict(list))
    leases: dict[tuple[str, ...], list[tuple[int, Grant]]] = defaultdict(list)
    for job in jobs:
        if not job.taken:
            continue
        spec = job.taken[0].spec
        turn = _turn(job, around)
        if turn is not None:
            turns[spec.labels][spec.priority].append(turn)
        leases[spec.labels] += [(_BANDS.get(grant.lease.priority, 0), grant) for grant in job.grants]
    for labels, by_priority in turns.items():
        for priority, waiting in by_priority.items():
            yield from _overtaken(waiting)
            band = _BANDS.get(priority, len(_BANDS))
            yield from _outranked(waiting, [grant for lower, grant in leases[labels] if lower > band])


def _turn(job: JobStory, around: QueueStory) -> Turn | None:
    """Return when the job's turn was; None when it has no say in the order.

    No say have jobs that were delayed, cancelled, reprioritised or replayed (or may have been), and those whose
    first delivery nobody saw: it went to a claim without an answer, or the lease handed out first was not the first.
    """
    enqueues = job.taken
    if any(enqueue.delayed for enqueue in enqueues) or job.ordered("cancel", "reprioritise", "replay"):
        return None
    sent = min(enqueue.t_inv for enqueue in enqueues)
    there = min((enqueue.t_ret for enqueue in enqueues if enqueue.type == "ok"), default=NEVER)
    if not job.grants:
        surely_waiting = not around.lost_claims and not around.blanket
        return Turn(job.job_id, sent, there, NEVER, NEVER) if surely_waiting else None
    first = min(job.grants, key=lambda grant: grant.lease.fence)
    deliveries = first.lease.deliveries
    if first.lease.priority != enqueues[0].spec.priority:
        return None
    if deliveries == 1 or (deliveries is None and not around.lost_claims):
        return Turn(job.job_id, sent, there, first.t_inv, first.t_ret)
    return None


def _overtaken(turns: list[Turn]) -> Iterator[Fault]:
    later = Best(Mark(-turn.sent, -turn.got, turn) for turn in turns)
    for turn in turns:
        found = later.before(-turn.there)
        if found is not None and -found.value < turn.asked:
            message = f"it was enqueued before {found.what.job_id}, of the same priority, which was leased first"
            yield 6, turn.job_id, message


def _outranked(turns: list[Turn], lower: list[Grant]) -> Iterator[Fault]:
    others = Best(Mark(-grant.t_inv, -grant.t_ret, grant) for grant in lower)
    for turn in turns:
        found = others.before(-turn.there)
        if found is not None and -found.value < turn.asked:
            other = found.what.lease
            message = f"it was waiting while {other.job_id}, of priority {other.priority}, was leased"
            yield 15, turn.job_id, message


def _early(job: JobStory, clock_error_ns: int) -> Iterator[str]:
    """16: nothing is leased before it is due, by the callers' clock, which may differ by `clock_error_ns`.

    Known are the delay of an enqueue and that of a retry or release, until a replay or purge may have cut them short; a
    moment given as `run_at` is not, since the history's clock has no date.
    """
    lives = [order.t_inv for order in job.orders if order.kind in ("replay", "purge") and order.type != "fail"]
    reborn = min(lives, default=NEVER)
    first_due = 0
    if job.taken:
        delays = [round((enqueue.spec.delay_s or 0) * 1e9) for enqueue in job.taken]
        first_due = min(enqueue.t_inv for enqueue in job.taken) + min(delays)
    waits = Best(
        Mark(call.fence, call.t_inv + round(call.answer.retry_in_s * 1e9), call)
        for call in job.calls
        if call.type == "ok" and call.answer.retry_in_s and not call.answer.replayed
    )
    for grant in job.grants:
        if grant.t_ret > reborn:
            continue
        wait = waits.before(grant.lease.fence)
        due = first_due if wait is None else max(first_due, wait.value)
        if grant.t_ret < due - clock_error_ns:
            yield f"fence {grant.lease.fence} was given {(due - grant.t_ret) / 1e9:.3f} s before it was due"
