"""The rules of one job's leases, as its clients saw them: invariants 2, 4, 5, 10 and 11."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from msgspec import UNSET

from ..lifecycle import TERMINAL
from ._best import Best, Mark
from ._story import NEVER, Grant, JobStory, LeaseCall, Order

__all__ = ["judge_leases"]

Fault = tuple[int, str]


def judge_leases(job: JobStory, blanket: list[Order]) -> Iterator[Fault]:
    """Yield what is wrong with a job's leases. `blanket` are orders whose jobs nobody knows."""
    yield from _one_valid_lease(job)
    yield from _ends(job)
    yield from _reports(job)
    yield from _attempts(job)
    yield from _final(job, [order for order in (*job.orders, *blanket) if order.kind == "replay"])


def _accepted(job: JobStory) -> Iterator[LeaseCall]:
    """Yield the calls that Redis took for those of the current holder."""
    return (call for call in job.calls if call.type == "ok" and not call.answer.replayed)


def _one_valid_lease(job: JobStory) -> Iterator[Fault]:
    """2: no call is accepted with a fence that nobody was given, or after a later lease had been handed out."""
    given = {grant.lease.fence for grant in job.grants}
    newer = Best(Mark(grant.t_ret, grant.lease.fence, grant) for grant in job.grants)
    for call in _accepted(job):
        if call.fence not in given:
            yield 2, f"{call.kind} was accepted with fence {call.fence}, which no recorded claim handed out"
        latest = newer.before(call.t_inv)
        if latest is not None and latest.value > call.fence:
            yield 2, f"{call.kind} was accepted with fence {call.fence} after {latest.value} had been handed out"


def _ends(job: JobStory) -> Iterator[Fault]:
    """4 and 11: a lease ends once, by one outcome, and nothing is accepted from its holder afterwards."""
    by_fence: dict[int, list[LeaseCall]] = defaultdict(list)
    for call in job.calls:
        if call.type == "ok":
            by_fence[call.fence].append(call)
    for fence, calls in by_fence.items():
        ends = [call for call in calls if call.kind in ("complete", "fail", "release")]
        first = [call for call in ends if not call.answer.replayed]
        if len(first) > 1:
            yield 11, f"the lease with fence {fence} ended {len(first)} times: {_names(first)}"
        reports = [call for call in ends if call.kind != "release"]
        if len({call.outcome for call in reports}) > 1:
            yield 11, f"fence {fence} was granted several outcomes: {_names(reports)}"
        elif len({call.answer.status for call in reports}) > 1:
            statuses = ", ".join(call.answer.status for call in reports)
            yield 11, f"the same report of fence {fence} was answered differently: {statuses}"
        ended = min((call.t_ret for call in first), default=NEVER)
        for call in calls:
            if call.kind in ("start", "heartbeat") and call.t_inv > ended:
                yield 4, f"{call.kind} was accepted with fence {fence} after that lease had ended"


def _names(calls: list[LeaseCall]) -> str:
    return ", ".join(call.kind if call.kind == "release" else f"{call.kind} {call.outcome}" for call in calls)


def _reports(job: JobStory) -> Iterator[Fault]:
    """4: what is read of a job was said in a call that was accepted, or may have been."""
    said: dict[tuple[int, str], list[LeaseCall]] = defaultdict(list)
    for call in job.calls:
        if call.kind in ("complete", "fail") and call.type != "fail":
            said[call.fence, call.outcome].append(call)
    for read in job.reads:
        for attempt in read.job.attempts if read.job else ():
            if attempt.outcome in ("lost", "released"):
                continue
            calls = [call for call in said[attempt.fence, attempt.outcome] if call.t_inv < read.t_ret]
            if not calls:
                yield 4, f"it shows {attempt.outcome} for fence {attempt.fence}, which no accepted call reported"
            elif attempt.result is not None and not any(_reported(call, attempt.result) for call in calls):
                yield 4, f"it shows a result of fence {attempt.fence} which no accepted call reported"


def _reported(call: LeaseCall, result: Any) -> bool:
    """Whether the call reported this result; it may have when the history does not say what it reported."""
    return call.asked.result is UNSET or call.asked.result == result


def _attempts(job: JobStory) -> Iterator[Fault]:
    """5: no run past the last attempt; a failure of the last one ends the job.

    Not charged, so not counted: runs that were released, that reported infra_error, and claims straight into
    RUNNING of which no later call of the holder was accepted.
    """
    leases = {grant.lease.fence: grant.lease for grant in job.grants}
    for lease in leases.values():
        if lease.attempt > lease.max_attempts:
            yield 5, f"fence {lease.fence} was given for attempt {lease.attempt} of {lease.max_attempts}"
    uncharged = {
        call.fence
        for call in job.calls
        if call.type != "fail" and (call.kind == "release" or call.outcome == "infra_error")
    }
    shown = {call.fence for call in _accepted(job)}
    started = {call.fence for call in _accepted(job) if call.kind == "start"}
    started |= {lease.fence for lease in leases.values() if lease.status == "RUNNING"} & shown
    by_life: dict[int | None, list[int]] = defaultdict(list)
    for fence in sorted(started - uncharged):
        if fence in leases:
            by_life[leases[fence].generation].append(fence)
    for fences in by_life.values():
        most = leases[fences[0]].max_attempts
        if len(fences) > most:
            yield 5, f"{len(fences)} runs were charged and it has {most} attempts: fences {fences}"
    for call in _accepted(job):
        if call.kind != "fail" or call.outcome not in ("failed", "timeout") or call.answer.status in TERMINAL:
            continue
        found = leases.get(call.fence)
        if found is not None and found.attempt >= found.max_attempts:
            yield 5, f"its last attempt failed and it became {call.answer.status}"


def _final(job: JobStory, replays: list[Order]) -> Iterator[Fault]:
    """10: once a client was told that the job has ended, it stays so until somebody may have replayed it."""
    generations = {grant.lease.fence: grant.lease.generation for grant in job.grants}
    ends = Best(
        Mark(t_ret, t_inv, (status, generation)) for t_inv, t_ret, status, generation in _told(job, generations)
    )
    possible = Best(Mark(order.t_inv, order.t_ret, order) for order in replays if order.type != "fail")

    def replayed(since: int, until: int) -> bool:
        latest = possible.before(until)
        return latest is not None and latest.value > since

    for grant in job.grants:
        end = ends.before(grant.t_inv)
        if end is None:
            continue
        status, generation = end.what
        if not replayed(end.value, grant.t_ret):
            yield 10, f"it was {status}, was not replayed, and was leased with fence {grant.lease.fence}"
        elif _no_later(grant, generation):
            yield 10, f"it was {status} in generation {generation} and leased in {grant.lease.generation}"
    for read in job.reads:
        end = ends.before(read.t_inv)
        if end is None or read.job is None or replayed(end.value, read.t_ret):
            continue
        if read.job.status != end.what[0]:
            yield 10, f"it was {end.what[0]}, was not replayed, and was read as {read.job.status}"


def _no_later(grant: Grant, generation: int | None) -> bool:
    return generation is not None and grant.lease.generation is not None and grant.lease.generation <= generation


def _told(job: JobStory, generations: dict[int, int | None]) -> Iterator[tuple[int, int, str, int | None]]:
    """Yield (t_inv, t_ret, status, generation) of each answer by which a client knows that the job has just ended.

    A replayed answer tells of an end that may lie before a replay, so it says nothing about now.
    """
    for call in job.calls:
        if call.type == "ok" and call.answer.status in TERMINAL and not call.answer.replayed:
            yield call.t_inv, call.t_ret, call.answer.status, generations.get(call.fence)
        elif call.kind == "start" and call.error == "JobCancelled":
            yield call.t_inv, call.t_ret, "CANCELLED", generations.get(call.fence)
    for order in job.orders:
        if order.kind == "cancel" and order.type == "ok" and order.status in TERMINAL:
            yield order.t_inv, order.t_ret, order.status, None
