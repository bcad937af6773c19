"""Checks what clients saw: could a queue that keeps its promises have given these answers?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ._events import Event
from ._jobs import judge_job
from ._leases import judge_leases
from ._report import Findings, Report
from ._story import JobStory, tell
from ._turns import judge_turns

__all__ = ["history"]


def history(events: Iterable[Event], *, dedupe_s: float = 900.0, clock_error_s: float = 0.05) -> Report:
    """Check a client history against invariants 2 to 6, 8 to 13, 15 and 16, in O(n log n).

    Read are the calls `enqueue enqueue_many claim start heartbeat complete fail release cancel reprioritise retry
    replay purge job`, with arguments and answers as `Queue` has them, the argument `queue` for the queue's name (of
    several queues), and `inventory`: all jobs of a queue, `{job id: status}`, read when every client had stopped,
    with `drained=True` when all jobs were to have ended. Other calls are passed over.

    The history has to be complete: every call of every client of the queue, those without an answer too (`info`).
    One call comes before another only if it was answered before the other was sent; calls that overlap are in no
    order. What an `info` call did is unknown, so it is given the benefit of the doubt everywhere: it excuses, and
    is never itself found wrong.

    First in first out (6) and higher priority first (15) are asked for among jobs of the same labels, for the first
    delivery of a job, on a queue of policy fifo. Exempt are jobs that were delayed, cancelled, reprioritised,
    retried or replayed, or may have been; jobs whose first delivery went to a claim without an answer; and every
    later delivery of a job that was released or lost, or failed and was tried again. A job that was never leased
    counts as overtaken only when no claim of the queue lacks its answer.

    Args:
        events: The calls, in any order.
        dedupe_s: How long an id of a job that has ended is remembered at least: the queue's `tombstone_s`.
        clock_error_s: How far the callers' clock and the server's may drift apart over one delay.

    Raises `InvalidArgument` for an event whose arguments or answer do not read.
    """
    story = tell(events)
    findings = Findings()
    by_queue: dict[str, list[JobStory]] = defaultdict(list)
    for (queue, job_id), job in story.jobs.items():
        by_queue[queue].append(job)
        around = story.queues[queue]
        for invariant, message in (
            *judge_leases(job, around.blanket),
            *judge_job(job, around, round(dedupe_s * 1e9)),
        ):
            findings.add(invariant, message, queue=queue, job_id=job_id)
    for queue, jobs in by_queue.items():
        for number, subject, message in judge_turns(jobs, story.queues[queue], round(clock_error_s * 1e9)):
            findings.add(number, message, queue=queue, job_id=subject)
    return findings.report(jobs=len(story.jobs), queues=set(by_queue))
