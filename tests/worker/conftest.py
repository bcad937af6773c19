"""Queues of both colours on one server, and a worker that runs for the length of a block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import pytest_asyncio

from hybridq import AsyncQueue, Queue
from hybridq.worker import Worker
from tests.servers import ServerProcess, wait_until

LEASE_S = 2.0
"""Short, since tests wait for leases to end; twice the shortest there is, since machines stall."""

Running = Callable[[Worker], AbstractAsyncContextManager[asyncio.Task[None]]]


async def eventually(predicate: Callable[[], object], timeout_s: float = 10.0, *, what: str = "condition") -> None:
    """Wait in a thread until `predicate` is true, so that the event loop goes on."""
    await asyncio.to_thread(wait_until, predicate, timeout_s, what=what)


@pytest.fixture
def queue(redis_url: str, namespace: str) -> Iterator[Queue]:
    """A sync queue: the holder's in tests of `Hold`, else the onlooker's."""
    with Queue("work", redis=redis_url, namespace=namespace, lease_s=LEASE_S) as queue:
        yield queue


@pytest_asyncio.fixture
async def aqueue(redis_url: str, namespace: str) -> AsyncIterator[AsyncQueue]:
    """The same queue in the other colour, claimed from by another agent."""
    async with AsyncQueue("work", redis=redis_url, namespace=namespace, lease_s=LEASE_S) as queue:
        yield queue


@pytest.fixture
def running() -> Running:
    """Run a worker while a block lasts, then drain it."""

    @asynccontextmanager
    async def run(worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(worker.serve())
        try:
            yield task
        finally:
            while not task.done():
                worker.stop(now=True)
                await asyncio.wait({task}, timeout=0.1)
            await task

    return run


@pytest.fixture
def durable_server() -> Iterator[ServerProcess]:
    """A server of one's own that finds its data again after a restart."""
    with ServerProcess(aof=True) as server:
        yield server
