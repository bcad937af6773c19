"""The rules of a job's being there: invariants 8, 9 and 12."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from ..lifecycle import TERMINAL
from ._story import Enqueue, JobStory, QueueStory

__all__ = ["judge_job"]

Fault = tuple[int, str]

_TRACING = ("request_id", "trace_id")
"""What does not count when a job is enqueued again."""


def judge_job(job: JobStory, around: QueueStory, dedupe_ns: int) -> Iterator[Fault]:
    """Yield what is wrong with the coming and going of one job."""
    yield from _lost(job, around)
    yield from _invented(job, around)
    yield from _enqueued_again(job, around, dedupe_ns)


def _lost(job: JobStory, around: QueueStory) -> Iterator[Fault]:
    """8: an acknowledged job is found until it was purged, or had ended and may be past its retention."""
    known = min((enqueue.t_ret for enqueue in job.enqueues if enqueue.type == "ok"), default=None)
    if known is None:
        return
    if not _may_be_gone(job, around):
        for read in job.reads:
            if read.job is None and read.t_inv > known:
                yield 8, "it was acknowledged, had not ended, and was not found"
                break
        for inventory in around.inventories:
            if inventory.t_inv > known and job.job_id not in inventory.statuses:
                yield 8, "it was acknowledged, had not ended, and is missing from an inventory"
                break
    for inventory in around.inventories:
        status = inventory.statuses.get(job.job_id)
        if inventory.drained and status is not None and status not in TERMINAL:
            yield 8, f"it is still {status} after everything was drained"


def _may_be_gone(job: JobStory, around: QueueStory) -> bool:
    if job.ordered("purge", "cancel") or any(order.kind == "purge" for order in around.blanket):
        return True
    return any(
        call.type == "info"
        or (call.type == "ok" and call.answer.status in TERMINAL)
        or (call.kind == "start" and call.error == "JobCancelled")
        for call in job.calls
        if call.kind != "heartbeat"
    )


def _invented(job: JobStory, around: QueueStory) -> Iterator[Fault]:
    """9: what is leased was enqueued, not earlier than that, and its payload is what was sent."""
    if not job.taken:
        if job.grants and not around.unnamed_enqueue:
            yield 9, "it was leased and never enqueued"
        return
    sent = min(enqueue.t_inv for enqueue in job.taken)
    created = [enqueue for enqueue in job.taken if enqueue.created] or job.taken
    payloads = {enqueue.spec.payload_sha256 for enqueue in created}
    shown = [(f"fence {grant.lease.fence}", grant.t_ret, grant.lease.payload_sha256) for grant in job.grants]
    shown += [("a read", read.t_ret, read.job.payload_sha256) for read in job.reads if read.job is not None]
    for what, t_ret, payload in shown:
        if t_ret < sent:
            yield 9, f"{what} showed it before it was enqueued"
        if payload is not None and None not in payloads and payload not in payloads:
            yield 9, f"{what} showed another payload than the one enqueued"


def _enqueued_again(job: JobStory, around: QueueStory, dedupe_ns: int) -> Iterator[Fault]:
    """12: one job id is one job; other content is refused, the same content never."""
    created = [enqueue for enqueue in job.enqueues if enqueue.created]
    purged = job.ordered("purge") or any(order.kind == "purge" for order in around.blanket)
    if not purged:
        for first, second in pairwise(created):
            if second.t_inv - first.t_ret < dedupe_ns:
                yield 12, "it was created twice"
    for enqueue in job.enqueues:
        if enqueue.error == "JobConflict" and not any(_differs(enqueue, other) for other in job.taken):
            yield 12, "its content was refused as other than its own"
        elif len(created) == 1 and enqueue.type == "ok" and not enqueue.created and _differs(created[0], enqueue):
            yield 12, "other content was taken for the same job"


def _differs(one: Enqueue, other: Enqueue) -> bool:
    """Whether both calls say something of the same argument, and not the same."""
    said: dict[str, Any] = {name: value for name, value in one.said.items() if name not in _TRACING}
    return any(name in other.said and other.said[name] != value for name, value in said.items())
