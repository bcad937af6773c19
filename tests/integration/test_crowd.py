"""Two hundred claimers over twenty thousand jobs: each is delivered once, in order, and none is lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from hybridq import AsyncQueue, JobSpec, JobStatus, Lease, Priority, Queue, check
from tests.integration.conftest import ENGINE
from tests.servers import ServerProcess

JOBS = 20_000
CLAIMERS = 200
BAND = {priority: band for band, priority in enumerate(Priority)}


@pytest.fixture
def own_server() -> Iterator[ServerProcess]:
    with ServerProcess(ENGINE) as server:
        yield server


async def enqueue_all(queue: AsyncQueue) -> dict[str, int]:
    """Enqueue the jobs; return the level of each, in the order they came."""
    rng = random.Random(20)
    levels = rng.choices(list(Priority), [1, 2, 4, 2], k=JOBS)
    level_of: dict[str, int] = {}
    for first in range(0, JOBS, 2000):
        specs = [JobSpec(job_id=f"j{n}", priority=levels[n], payload=n) for n in range(first, first + 2000)]
        for answer, spec in zip(await queue.enqueue_many(specs), specs, strict=True):
            assert answer.created
            level_of[answer.job_id] = BAND[spec.priority]
    return level_of


async def work(queue: AsyncQueue, number: int, delivered: list[Lease]) -> None:
    """Claim until nothing is left: one at a time, several, or the next with the end of the last."""
    n = 1 + number % 3
    held = await queue.claim(n, start=True, wait_s=1)
    while held:
        delivered += held
        *others, last = held
        await asyncio.gather(*(queue.complete(lease, lease.decode()) for lease in others))
        if number % 2:
            held = list((await queue.complete(last, last.decode(), claim_next=n)).next)
        else:
            await queue.complete(last, last.decode())
            held = []
        held = held or await queue.claim(n, start=True)


async def test_a_crowd_of_claimers_shares_the_jobs_in_order(own_server: ServerProcess) -> None:
    delivered: list[Lease] = []
    async with AsyncQueue("crowd", redis=own_server.url) as queue:
        level_of = await enqueue_all(queue)

        await asyncio.gather(*(work(queue, number, delivered) for number in range(CLAIMERS)))

        stats = await queue.stats()
    assert {1} == set(Counter(lease.job_id for lease in delivered).values()), "each once"
    assert level_of.keys() == {lease.job_id for lease in delivered}, "none lost, none invented"
    came = sorted(level_of, key=level_of.__getitem__)
    assert came == [lease.job_id for lease in sorted(delivered, key=lambda lease: lease.fence)]
    assert all(lease.decode() == int(lease.job_id[1:]) for lease in delivered)
    assert (JOBS, JOBS, 0, 0) == (stats.completed_total, stats.enqueued_total, stats.queued, stats.running)
    with own_server.client() as client:
        check.keyspace(client, "default").raise_if_broken()
        with Queue("crowd", redis=own_server.url) as queue:
            assert {JobStatus.COMPLETED} == {job.status for job in queue.jobs(limit=200).items}
