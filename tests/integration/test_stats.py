"""The figures of a queue are those of the jobs that were in it, within the width of a bucket."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from hybridq import JobSpec, JobStatus, Priority
from tests.conformance.colours import set_time

BEGIN_MS = 1_800_000_000_000
MINUTE_MS = 60_000
CLOSE = 0.03
"""Times are kept in buckets that each end 5 % above the last; a figure is a bucket's middle."""


@dataclass
class Truth:
    """What really happened: (when, how long) of waits and runs, (when, what) of ends."""

    waits: list[tuple[int, int]] = field(default_factory=list)
    runs: list[tuple[int, int]] = field(default_factory=list)
    ends: list[tuple[int, str]] = field(default_factory=list)
    now_ms: int = BEGIN_MS

    def since(self, window_s: int, samples: Sequence[tuple[int, Any]]) -> list[Any]:
        """The samples of the last whole minutes of a window, this one included."""
        first = (self.now_ms // MINUTE_MS - window_s // 60 + 1) * MINUTE_MS
        return [what for at, what in samples if at >= first]


def quantile_s(samples: Sequence[int], share: float) -> float:
    return sorted(samples)[max(0, math.ceil(share * len(samples)) - 1)] / 1000


def live(queue: Any, seed: int, jobs: int) -> Truth:
    """Let jobs come, wait, run and end one after the other, in virtual time."""
    rng, truth = random.Random(seed), Truth()

    def pass_time(ms: int) -> None:
        truth.now_ms += ms
        set_time(queue, truth.now_ms)

    for _ in range(jobs):
        wait_ms, run_ms = round(rng.lognormvariate(6, 1.5)) + 1, round(rng.lognormvariate(5, 2)) + 1
        set_time(queue, truth.now_ms)
        queue.enqueue("t", max_attempts=1)
        pass_time(wait_ms)
        [lease] = queue.claim(start=True, lease_s=3600)
        truth.waits.append((truth.now_ms, wait_ms))
        pass_time(run_ms)
        end = rng.choices(["completed", "failed", "dead_lettered", "cancelled"], [7, 1, 1, 1])[0]
        if end == "completed":
            queue.complete(lease)
        else:
            outcome = {"failed": "rejected", "dead_lettered": "failed", "cancelled": "cancelled"}[end]
            queue.fail(lease, outcome=outcome)
        truth.runs.append((truth.now_ms, run_ms))
        truth.ends.append((truth.now_ms, end))
    return truth


@pytest.mark.parametrize("window_s", [60, 300, 3600])
def test_a_window_tells_the_truth(queue: Any, window_s: int) -> None:
    truth = live(queue, 5, 300)
    waits, runs = truth.since(window_s, truth.waits), truth.since(window_s, truth.runs)
    ends = Counter(truth.since(window_s, truth.ends))
    assert len(waits) >= 5, "or the window shows nothing"

    window = queue.stats(window_s=window_s).window

    assert window.avg_wait_s == pytest.approx(sum(waits) / len(waits) / 1000, rel=CLOSE)
    assert window.p50_wait_s == pytest.approx(quantile_s(waits, 0.50), rel=CLOSE)
    assert window.p95_wait_s == pytest.approx(quantile_s(waits, 0.95), rel=CLOSE)
    assert window.p99_wait_s == pytest.approx(quantile_s(waits, 0.99), rel=CLOSE)
    assert window.avg_execution_s == pytest.approx(sum(runs) / len(runs) / 1000, rel=CLOSE)
    assert window.p95_execution_s == pytest.approx(quantile_s(runs, 0.95), rel=CLOSE)
    bad = ends["failed"] + ends["dead_lettered"]
    assert window.failure_rate == pytest.approx(bad / (bad + ends["completed"]))
    assert window.throughput_per_minute == pytest.approx(ends["completed"] / (window_s / 60))


def test_figures_since_the_beginning_outlive_every_window(queue: Any) -> None:
    truth = live(queue, 6, 150)
    for _ in range(90):
        truth.now_ms += MINUTE_MS
        set_time(queue, truth.now_ms)
        queue.upkeep()

    window, recent = queue.stats(window_s=0).window, queue.stats(window_s=3600).window

    waits = [ms for _, ms in truth.waits]
    assert (0, 0, 0) == (recent.p50_wait_s, recent.failure_rate, recent.throughput_per_minute)
    assert window.avg_wait_s == pytest.approx(sum(waits) / len(waits) / 1000, rel=CLOSE)
    assert window.p99_wait_s == pytest.approx(quantile_s(waits, 0.99), rel=CLOSE)
    ends = Counter(end for _, end in truth.ends)
    bad = ends["failed"] + ends["dead_lettered"]
    assert window.failure_rate == pytest.approx(bad / (bad + ends["completed"]))
    minutes = (truth.now_ms - BEGIN_MS) / MINUTE_MS
    assert window.throughput_per_minute == pytest.approx(ends["completed"] / minutes, rel=0.01)


def test_nothing_happened_is_all_zero(queue: Any) -> None:
    stats = queue.stats()

    assert (0, 0, 0, 0, 0, 0, 0, False, 0) == (
        stats.queued,
        stats.scheduled,
        stats.claimed,
        stats.running,
        stats.dead_lettered,
        stats.finished,
        stats.oldest_queued_s,
        stats.paused,
        stats.enqueued_total,
    )
    assert (0, 0, 0, 0) == (
        stats.window.avg_wait_s,
        stats.window.p99_wait_s,
        stats.window.failure_rate,
        stats.window.throughput_per_minute,
    )


def test_the_oldest_waiter_is_the_oldest_of_any_priority(queue: Any) -> None:
    set_time(queue, BEGIN_MS)
    queue.enqueue("t", priority=Priority.LOW)
    set_time(queue, BEGIN_MS + 40_000)
    queue.enqueue("t", priority=Priority.CRITICAL)
    queue.enqueue("t", priority=Priority.LOW, delay_s=1)
    set_time(queue, BEGIN_MS + 50_000)

    assert 50.0 == queue.stats().oldest_queued_s
    queue.claim(2)
    assert 9.0 == queue.stats().oldest_queued_s, "a delayed job waits from its due time on"


@pytest.mark.parametrize("seed", range(3))
def test_gauges_and_totals_count_the_jobs(queue: Any, seed: int) -> None:
    rng = random.Random(seed)
    set_time(queue, BEGIN_MS)
    queue.enqueue_many(
        JobSpec(
            job_id=f"j{n}",
            priority=rng.choice(list(Priority)),
            delay_s=rng.choice([None, None, None, 60]),
            max_attempts=rng.choice([1, 3]),
        )
        for n in range(120)
    )
    held = queue.claim(40)
    done: Counter[str] = Counter()
    for lease in rng.sample(held, 30):
        verb = rng.choice(["start", "complete", "fail", "reject", "release"])
        if verb != "release":
            lease = queue.start(lease)
        if verb == "complete":
            queue.complete(lease)
        elif verb in ("fail", "reject"):
            finished = queue.fail(lease, outcome={"fail": "failed", "reject": "rejected"}[verb], delay_s=10)
            done["retried"] += finished.retried
        elif verb == "release":
            queue.release(lease)
            done["released"] += 1
    for n in rng.sample(range(120), 15):
        job = queue.job(f"j{n}")
        if job.status in (JobStatus.QUEUED, JobStatus.SCHEDULED):
            queue.cancel(job.job_id)

    stats = queue.stats()

    jobs = queue.jobs(limit=200).items
    count = Counter(job.status for job in jobs)
    ended = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)
    assert {
        "queued": count[JobStatus.QUEUED],
        "scheduled": count[JobStatus.SCHEDULED],
        "claimed": count[JobStatus.CLAIMED],
        "running": count[JobStatus.RUNNING],
        "dead_lettered": count[JobStatus.DEAD_LETTERED],
        "finished": sum(count[status] for status in ended),
        "enqueued_total": 120,
        "completed_total": count[JobStatus.COMPLETED],
        "failed_total": count[JobStatus.FAILED],
        "cancelled_total": count[JobStatus.CANCELLED],
        "dead_lettered_total": count[JobStatus.DEAD_LETTERED],
        "retried_total": done["retried"],
        "released_total": done["released"],
    }.items() <= {name: getattr(stats, name) for name in stats.__struct_fields__}.items()
    assert stats.by_priority == {
        priority.value: sum(job.status is JobStatus.QUEUED and job.priority is priority for job in jobs)
        for priority in Priority
    }
