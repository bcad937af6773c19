"""Redis goes and comes back under a worker: jobs go on, reports wait, one line is logged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import structlog
from structlog.testing import capture_logs

from hybridq import AsyncQueue, JobStatus, Lease, Queue
from hybridq.worker import Worker
from tests.proxy import Proxy
from tests.servers import ServerProcess
from tests.worker.conftest import Running, eventually


@pytest_asyncio.fixture
async def durable_queue(durable_server: ServerProcess, namespace: str) -> AsyncIterator[AsyncQueue]:
    async with AsyncQueue("work", redis=durable_server.url, namespace=namespace, lease_s=5) as queue:
        yield queue


async def test_a_restart_of_redis_costs_a_worker_nothing(
    durable_server: ServerProcess, durable_queue: AsyncQueue, namespace: str, running: Running
) -> None:
    worker = Worker(durable_queue, concurrency=2)
    go = asyncio.Event()
    runs: list[str] = []

    @worker.task("build")
    async def build(lease: Lease) -> str:
        runs.append(lease.job_id)
        await go.wait()
        return "done"

    with Queue("work", redis=durable_server.url, namespace=namespace) as queue:
        first = queue.enqueue("build").job_id
        with capture_logs() as logs:
            async with running(worker):
                await eventually(lambda: runs)
                await asyncio.to_thread(durable_server.kill)
                go.set()
                await eventually(lambda: [log for log in logs if log["event"] == "worker.away"], what="it is noticed")
                await asyncio.to_thread(durable_server.start)
                await eventually(lambda: queue.job(first).status is JobStatus.COMPLETED)
                second = queue.enqueue("build").job_id
                await eventually(lambda: queue.job(second).status is JobStatus.COMPLETED)
        assert runs == [first, second]
        assert [attempt.outcome for attempt in queue.job(first).attempts] == ["success"]
    events = [log["event"] for log in logs]
    assert (events.count("worker.away"), events.count("worker.back")) == (1, 1)


async def test_a_job_whose_report_got_no_answer_is_reported_once(
    redis_url: str, namespace: str, queue: Queue, running: Running
) -> None:
    with Proxy(redis_url) as proxy:
        async with AsyncQueue("work", redis=proxy.url, namespace=namespace) as far:
            worker = Worker(far)

            @worker.task("build")
            async def build(lease: Lease) -> str:
                dropped.append(proxy.drop_next_reply(containing=lease.lease_id.encode()))
                return "done"

            dropped: list[object] = []
            async with running(worker):
                job_id = queue.enqueue("build").job_id
                await eventually(lambda: queue.job(job_id).status is JobStatus.COMPLETED)
                later = queue.enqueue("build").job_id
                await eventually(lambda: queue.job(later).status is JobStatus.COMPLETED)
    assert len(dropped) == 2
    assert [attempt.outcome for attempt in queue.job(job_id).attempts] == ["success"]
    assert queue.stats().completed_total == 2


async def test_a_worker_may_be_started_before_its_server(
    durable_server: ServerProcess, durable_queue: AsyncQueue, namespace: str, running: Running
) -> None:
    worker = Worker(durable_queue)

    @worker.task("build")
    async def build() -> None: ...

    await asyncio.to_thread(durable_server.kill)
    with capture_logs() as logs:
        async with running(worker):
            await eventually(lambda: any(log["event"] == "worker.away" for log in logs))
            await asyncio.to_thread(durable_server.start)
            with Queue("work", redis=durable_server.url, namespace=namespace) as queue:
                job_id = queue.enqueue("build").job_id
                await eventually(lambda: queue.job(job_id).status is JobStatus.COMPLETED)


@pytest.fixture(autouse=True)
def _plain_structlog() -> None:
    """`capture_logs` sees only loggers that have not cached their processors."""
    structlog.reset_defaults()
