"""The pub/sub connection is killed again and again under load: a wake-up may come late, by the fallback, never not."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from hybridq import AsyncQueue
from tests.integration.conftest import one_engine
from tests.servers import ServerProcess

LOAD_S = float(os.environ.get("HYBRIDQ_TEST_BELL_S", "12"))
LEASE_S = 3.0
FALLBACK_S_MAX = 1.2
"""A third of the lease, and a fifth for jitter."""
CLAIM_S_MAX = 0.8
"""What reconnecting and claiming may take on a busy machine."""


@one_engine
@pytest.mark.timeout(180)
async def test_no_wake_up_is_lost_for_longer_than_the_fallback(server: ServerProcess, namespace: str) -> None:
    """Each job is claimed within the fallback's period of its enqueue, whenever the connection was cut."""
    rng = random.Random(11)
    loop = asyncio.get_running_loop()
    enqueued: dict[str, float] = {}
    waits: dict[str, float] = {}
    over = asyncio.Event()

    async def consume(queue: AsyncQueue) -> None:
        while not (over.is_set() and len(waits) == len(enqueued)):
            for lease in await queue.claim(wait_s=1.0, start=True):
                waits[lease.job_id] = loop.time() - enqueued[lease.job_id]
                await queue.complete(lease)

    async def produce(queue: AsyncQueue) -> None:
        end = loop.time() + LOAD_S
        while loop.time() < end:
            job_id = f"job-{len(enqueued)}"
            enqueued[job_id] = loop.time()
            await queue.enqueue("build", job_id=job_id)
            await asyncio.sleep(rng.uniform(0.0, 0.1))
        over.set()

    async def cut() -> int:
        cuts = 0
        with server.client() as killer:
            while not over.is_set():
                cuts += await asyncio.to_thread(killer.client_kill_filter, _type="pubsub")
                await asyncio.sleep(rng.uniform(0.02, 0.3))
        return cuts

    async with AsyncQueue("work", redis=server.url, namespace=namespace, lease_s=LEASE_S) as queue:
        consumers = [asyncio.create_task(consume(queue)) for _ in range(8)]
        cuts, _ = await asyncio.gather(cut(), produce(queue))
        await asyncio.wait_for(asyncio.gather(*consumers), 30)

    assert cuts > LOAD_S
    assert waits.keys() == enqueued.keys()
    assert max(waits.values()) < FALLBACK_S_MAX + CLAIM_S_MAX
