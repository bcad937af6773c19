"""Workers as processes: signals, crashes, and a machine that was asleep."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as redis_py

from hybridq import JobStatus, Queue
from tests.servers import wait_until
from tests.worker.conftest import LEASE_S

EXIT_S = 10.0
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(redis_url: str, namespace: str) -> Iterator[Start]:
    """Start a worker process; what is left at the end is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def start(agent: str = "first", **options: float) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.worker.process", redis_url, namespace, agent, json.dumps(options)]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def begun(redis: redis_py.Redis) -> Callable[[str], int]:
    """How often a job was begun."""
    return lambda job_id: int(redis.get(f"began:{job_id}") or 0)


def test_sigterm_lets_running_jobs_finish_and_claims_no_more(
    start: Start, queue: Queue, redis: redis_py.Redis, begun: Callable[[str], int]
) -> None:
    process = start(grace_s=30)
    running = queue.enqueue("wait").job_id
    wait_until(lambda: begun(running), 20, what="the job is running")
    process.send_signal(signal.SIGTERM)
    first_end = queue.job(running).lease_expires_at
    assert first_end is not None
    wait_until(
        lambda: (
            (end := queue.job(running).lease_expires_at) is not None
            and (end - first_end).total_seconds() > 1.5 * LEASE_S
        ),
        10,
        what="the lease is renewed during the drain",
    )
    later = queue.enqueue("wait").job_id
    redis.set("go", 1)
    assert process.wait(EXIT_S) == 0
    assert queue.job(running).status is JobStatus.COMPLETED
    assert (queue.job(later).status, begun(later)) == (JobStatus.QUEUED, 0)


@pytest.mark.parametrize("type_", ["wait", "hang"])
def test_sigterm_hands_back_what_does_not_finish_within_the_grace(
    start: Start, queue: Queue, begun: Callable[[str], int], type_: str
) -> None:
    process = start(grace_s=0.5)
    job_id = queue.enqueue(type_).job_id
    wait_until(lambda: begun(job_id), 20, what="the job is running")
    signalled_at = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(EXIT_S) == 0
    assert time.monotonic() - signalled_at >= 0.5
    job = queue.job(job_id)
    assert (job.status, job.attempt, job.agent) == (JobStatus.QUEUED, 0, None)


@pytest.mark.parametrize("type_", ["wait", "hang"])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_hands_back_at_once(
    start: Start, queue: Queue, begun: Callable[[str], int], type_: str, second: signal.Signals
) -> None:
    process = start(grace_s=3600, concurrency=1, prefetch=1)
    running, waiting = (queue.enqueue(type_).job_id for _ in range(2))
    wait_until(lambda: begun(running) and queue.job(waiting).status is JobStatus.CLAIMED, 20, what="both are held")
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: queue.job(waiting).status is JobStatus.QUEUED, 10, what="what was not begun is handed back")
    assert queue.job(running).status is JobStatus.RUNNING
    process.send_signal(second)
    assert process.wait(EXIT_S) == 0
    assert queue.job(running).status is JobStatus.QUEUED
    assert begun(waiting) == 0


def test_a_killed_worker_s_job_finishes_elsewhere_after_its_lease(
    start: Start, queue: Queue, redis: redis_py.Redis, begun: Callable[[str], int]
) -> None:
    first = start("first")
    job_id = queue.enqueue("wait").job_id
    wait_until(lambda: redis.hget(f"{queue.root}:job:{job_id}", "confirmed"), 20, what="the job is running")
    first.kill()
    first.wait()
    redis.set("go", 1)
    start("second")
    wait_until(lambda: queue.job(job_id).status is JobStatus.COMPLETED, 20, what="the job is finished elsewhere")
    job = queue.job(job_id)
    assert (job.result, begun(job_id)) == ("second", 2)
    assert [attempt.outcome for attempt in job.attempts] == ["lost", "success"]


def test_a_worker_that_was_asleep_for_longer_than_its_lease_stops_its_handler(
    start: Start, queue: Queue, redis: redis_py.Redis, begun: Callable[[str], int]
) -> None:
    """Another one has the job by then: the first must neither report nor go on, and stays fit for work."""
    first = start("first")
    job_id = queue.enqueue("wait").job_id
    wait_until(lambda: redis.hget(f"{queue.root}:job:{job_id}", "confirmed"), 20, what="the job is running")
    first.send_signal(signal.SIGSTOP)
    second = start("second")
    wait_until(lambda: begun(job_id) == 2, 20, what="the job is running elsewhere")
    first.send_signal(signal.SIGCONT)
    first.send_signal(signal.SIGTERM)
    assert first.wait(EXIT_S) == 0  # its grace is longer than that: it had nothing left to wait for
    redis.set("go", 1)
    wait_until(lambda: queue.job(job_id).status is JobStatus.COMPLETED, 20, what="the job is finished")
    assert queue.job(job_id).result == "second"
    assert all(attempt.late is None for attempt in queue.job(job_id).attempts)
    second.send_signal(signal.SIGINT)
    assert second.wait(EXIT_S) == 0
