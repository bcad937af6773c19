"""What the demo promises: each judged by the records in Redis and the files on disk, not by what was said."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ..check import Report as Checked
from ..job import Job, QueueStats
from ..lifecycle import JobStatus, Priority
from ._plan import CRITICAL, DOOMED, FLAKY, Plan

__all__ = ["Promise", "Records", "judge", "table_of"]

TESTS_MIN: Final = 100
_RANK: Final = {priority: rank for rank, priority in enumerate(Priority)}


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """One thing promised, whether it came true, and what shows it."""

    promise: str
    kept: bool
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What is left when the demo is over."""

    jobs: Mapping[str, Job]
    stats: QueueStats
    checked: Checked
    killed: tuple[str, str, int] | None
    """(worker, the job it held, exit status) of the worker that was killed."""


def judge(plan: Plan, records: Records) -> list[Promise]:
    """Judge every promise; one whose records are missing is not kept."""
    judges = (_all_done, _artifacts, _tests, _critical_first, _by_priority, _flaky, _doomed, _killed, _empty, _checked)
    promises: list[Promise] = []
    for one in judges:
        try:
            promises += one(plan, records)
        except (LookupError, TypeError, OSError) as missing:
            text = (one.__doc__ or "").rstrip(".")
            promises.append(Promise(promise=text, kept=False, evidence=f"{type(missing).__name__}: {missing}"))
    return promises


def _all_done(plan: Plan, records: Records) -> Iterator[Promise]:
    """Every job of the pipeline is completed."""
    undone = [
        f"{job_id} {records.jobs[job_id].status if job_id in records.jobs else 'missing'}"
        for job_id in plan.job_ids()
        if job_id not in records.jobs or records.jobs[job_id].status is not JobStatus.COMPLETED
    ]
    yield Promise(
        promise="every job of the pipeline is completed",
        kept=not undone,
        evidence=", ".join(undone) or f"{len(plan.job_ids())} jobs COMPLETED",
    )


def _artifacts(plan: Plan, records: Records) -> Iterator[Promise]:
    """Sdist and wheel were built, and their recorded SHA-256 is that of the files."""
    recorded, found = {}, {}
    for kind in ("sdist", "wheel"):
        facts = _facts(records.jobs[f"hash-{kind}"])
        recorded[facts["artifact"]] = facts["sha256"]
        data = (plan.out / kind / facts["artifact"]).read_bytes()
        found[facts["artifact"]] = hashlib.sha256(data).hexdigest()
    yield Promise(
        promise="sdist and wheel were built, and the recorded SHA-256 is that of the files",
        kept=recorded == found,
        evidence=", ".join(f"{name} {digest[:12]}…" for name, digest in found.items()),
    )


def _tests(plan: Plan, records: Records) -> Iterator[Promise]:
    """The unit tests passed."""
    facts = _facts(records.jobs["tests"])
    in_full = (plan.tree / "tests" / "unit").is_dir()
    needed = TESTS_MIN if in_full else 0
    yield Promise(
        promise=f"the unit tests passed, at least {TESTS_MIN} of them" if in_full else "the tests there are passed",
        kept=facts["passed"] >= needed,
        evidence=f"{facts['passed']} passed in {facts['folder'] or 'no folder'}",
    )


def _critical_first(plan: Plan, records: Records) -> Iterator[Promise]:
    """The CRITICAL job was enqueued last and claimed first."""
    first = _first_fences(plan, records)
    last_in = max(first, key=lambda job_id: records.jobs[job_id].seq)
    first_out = min(first, key=lambda job_id: first[job_id])
    yield Promise(
        promise="the CRITICAL job was enqueued last and claimed first",
        kept=last_in == first_out == CRITICAL,
        evidence=f"enqueued last: {last_in}; lowest fence: {first_out}",
    )


def _by_priority(plan: Plan, records: Records) -> Iterator[Promise]:
    """Jobs that waited together were first claimed by priority, then in the order of enqueue."""
    first = _first_fences(plan, records)
    claimed = sorted(first, key=lambda job_id: first[job_id])
    due = sorted(first, key=lambda job_id: (_RANK[records.jobs[job_id].priority], records.jobs[job_id].seq))
    yield Promise(
        promise="jobs that waited together were claimed by priority, then in the order of enqueue",
        kept=claimed == due,
        evidence=" > ".join(claimed),
    )


def _first_fences(plan: Plan, records: Records) -> dict[str, int]:
    """Return the fence of each first claim; fences grow with every claim of the queue."""
    ids = [str(spec.job_id) for spec in plan.specs()]
    return {job_id: records.jobs[job_id].attempts[0].fence for job_id in ids}


def _flaky(plan: Plan, records: Records) -> Iterator[Promise]:
    """The flaky job failed twice and then succeeded."""
    outcomes = _outcomes(records.jobs[FLAKY], without="lost")
    yield Promise(
        promise="the flaky job failed twice and then succeeded",
        kept=outcomes == ["failed", "failed", "success"],
        evidence=f"{FLAKY}: {', '.join(outcomes)}",
    )


def _doomed(plan: Plan, records: Records) -> Iterator[Promise]:
    """The doomed job used up its attempts, was replayed from the dead letters once mended, and succeeded."""
    job = records.jobs[DOOMED]
    died = any(attempt.status is JobStatus.DEAD_LETTERED for attempt in job.attempts)
    outcomes = _outcomes(job, without="lost")
    yield Promise(
        promise="the doomed job became a dead letter, and was replayed and completed once its cause was mended",
        kept=died and job.generation == 1 and outcomes[-1] == "success" and set(outcomes[:-1]) == {"failed"},
        evidence=f"{DOOMED}: {', '.join(outcomes)}; generation {job.generation}",
    )


def _killed(plan: Plan, records: Records) -> Iterator[Promise]:
    """A worker was killed in the middle of a job, and another finished it."""
    if records.killed is None:
        raise LookupError("no worker was caught in the middle of a job")
    worker, job_id, status = records.killed
    *_, last = attempts = records.jobs[job_id].attempts
    lost = any(one.agent == worker and one.outcome == "lost" for one in attempts)
    yield Promise(
        promise="a worker was killed with SIGKILL in the middle of a job, and another finished it",
        kept=status == -9 and lost and last.outcome == "success" and last.agent != worker,
        evidence=f"{worker} (exit {status}) lost {job_id}; {last.agent} ended it: {last.outcome}",
    )


def _empty(plan: Plan, records: Records) -> Iterator[Promise]:
    """Nothing is left waiting, running or dead."""
    now = records.stats
    left = {
        "queued": now.queued,
        "scheduled": now.scheduled,
        "claimed": now.claimed,
        "running": now.running,
        "dead letters": now.dead_lettered,
    }
    yield Promise(
        promise="nothing is left waiting, running or dead",
        kept=not any(left.values()),
        evidence=", ".join(f"{count} {name}" for name, count in left.items()),
    )


def _checked(plan: Plan, records: Records) -> Iterator[Promise]:
    """Every invariant of the records holds."""
    found = records.checked
    broken = "; ".join(map(str, found.violations[:3]))
    yield Promise(
        promise="every invariant of the records holds",
        kept=found.ok and found.jobs == len(records.jobs),
        evidence=broken or f"{found.jobs} jobs checked, no violation",
    )


def _outcomes(job: Job, *, without: str) -> list[str]:
    return [attempt.outcome for attempt in job.attempts if attempt.outcome != without]


def _facts(job: Job) -> Mapping[str, Any]:
    facts: Mapping[str, Any] = job.result["facts"]
    return facts


def table_of(jobs: Sequence[Job]) -> list[tuple[str, ...]]:
    """Return a row for each job: id, priority, status, and its attempts one by one."""
    rows: list[tuple[str, ...]] = []
    for job in sorted(jobs, key=lambda job: job.seq):
        story = ", ".join(f"{one.outcome} on {one.agent}" for one in job.attempts)
        rows.append((job.job_id, job.priority.value, job.status.value, f"{len(job.attempts)}", story))
    return rows
