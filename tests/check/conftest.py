"""A queue with a job of every kind in it, made by the library itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import redis as redis_py

from hybridq.client import Queue
from hybridq.job import Backoff, Lease
from hybridq.lifecycle import JobStatus, Outcome
from tests.servers import wait_until


@dataclass(frozen=True)
class Shop:
    """The queue `demo` and one job of each kind, by its kind."""

    queue: Queue
    redis: redis_py.Redis

    def key(self, name: str) -> str:
        return f"{self.queue.root}:{name}"

    def job(self, job_id: str) -> str:
        return self.key(f"job:{job_id}")

    def field(self, job_id: str, name: str) -> str:
        value = self.redis.hget(self.job(job_id), name)
        assert isinstance(value, bytes), f"{job_id} has no {name}"
        return value.decode()


@pytest.fixture
def queue(redis_url: str, namespace: str) -> Iterator[Queue]:
    with Queue("demo", redis=redis_url, namespace=namespace, agent="agent-1") as queue:
        yield queue


@pytest.fixture
def shop(queue: Queue, redis: redis_py.Redis) -> Shop:
    """`queued second scheduled claimed running completed failed dead cancelled`, and a tombstone of `buried`."""
    _bury(queue)
    _enqueue(queue, "running")
    _enqueue(queue, "completed")
    [lease] = _claim(queue, "running", start=True)
    queue.append_log(lease, 0, "on its way\n")
    [lease] = _claim(queue, "completed", start=True)
    queue.append_log(lease, 0, "all is well\n")
    queue.complete(lease, {"answer": 42})
    _enqueue(queue, "failed")
    queue.fail(*_claim(queue, "failed", start=True), outcome=Outcome.REJECTED)
    _enqueue(queue, "dead", max_attempts=1)
    queue.fail(*_claim(queue, "dead", start=True), "broken")
    _enqueue(queue, "claimed", unique="order-1")
    _claim(queue, "claimed")
    _enqueue(queue, "cancelled", unique="order-2")
    queue.cancel("cancelled")
    _enqueue(queue, "retried", retry=Backoff(base_s=3600, max_s=3600))
    queue.fail(*_claim(queue, "retried", start=True), "again", delay_s=3600)
    _enqueue(queue, "scheduled", delay_s=3600)
    _enqueue(queue, "queued", unique="order-3")
    _enqueue(queue, "second")
    return Shop(queue, redis)


def _bury(queue: Queue) -> None:
    """Past the count, a finished record shrinks to a tombstone."""
    _enqueue(queue, "buried")
    queue.complete(*_claim(queue, "buried", start=True))
    queue.configure(retention_count=0)
    wait_until(lambda: queue.upkeep().trimmed, 5.0, what="the finished job is trimmed")
    queue.configure(retention_count=100)


def _enqueue(queue: Queue, job_id: str, **said: object) -> None:
    assert queue.enqueue("work", {"for": job_id}, job_id=job_id, **said).created  # type: ignore[arg-type]


def _claim(queue: Queue, job_id: str, *, start: bool = False) -> list[Lease]:
    leases = queue.claim(start=start, request_id=f"request-{job_id}")
    assert [lease.job_id for lease in leases] == [job_id]
    assert queue.job(job_id).status in (JobStatus.CLAIMED, JobStatus.RUNNING)
    return leases
