"""Does a `Work` with hybridq's public names, every guarantee on: leases, fences, statistics, events."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

import uvloop

from hybridq import AsyncQueue, JobSpec, Lease, Queue

from .verbs import OurVerbs, prepare, repeat
from .work import Done, Work, answer, payload_of, told, wait_for_go

NAME: Final = "bench"
FILL_STEP: Final = 1000


def fill(work: Work, jobs: int) -> None:
    """Enqueue what waits before the measured part begins."""
    payload = payload_of(work.payload_bytes)
    with Queue(NAME, redis=work.url) as queue:
        for first in range(0, jobs, FILL_STEP):
            queue.enqueue_many([JobSpec(type="build", payload=payload)] * min(FILL_STEP, jobs - first))


def enqueue_one_by_one(work: Work, queue: Queue) -> int:
    payload = payload_of(work.payload_bytes)
    for _ in range(work.jobs):
        queue.enqueue("build", payload)
    return work.jobs


def enqueue_in_bulk(work: Work, queue: Queue) -> int:
    payload = payload_of(work.payload_bytes)
    for first in range(0, work.jobs, work.batch):
        queue.enqueue_many([JobSpec(type="build", payload=payload) for _ in range(min(work.batch, work.jobs - first))])
    return work.jobs


def drain_one_by_one(work: Work, queue: Queue) -> int:
    """Claim, then complete and claim the next in one round trip."""
    done = 0
    held = queue.claim(work.batch, start=True)
    while held and done < work.jobs:
        for lease in held[:-1]:
            queue.complete(lease)
        done += len(held)
        held = list(queue.complete(held[-1], claim_next=work.batch).next)
    for lease in held:
        queue.release(lease)
    return done


async def enqueue_together(work: Work, queue: AsyncQueue) -> int:
    payload = payload_of(work.payload_bytes)
    left = iter(range(work.jobs))

    async def produce() -> None:
        for _ in left:
            await queue.enqueue("build", payload)

    await asyncio.gather(*(produce() for _ in range(work.concurrency)))
    return work.jobs


async def drain_together(work: Work, queue: AsyncQueue) -> int:
    """`concurrency` tasks, each of which claims `batch` jobs, completes them and claims the next with the last."""
    done = 0

    async def consume() -> None:
        nonlocal done
        held = await queue.claim(work.batch, start=True)
        while held and done < work.jobs:
            *first, last = held
            done += len(held)
            finished, *_ = await asyncio.gather(
                queue.complete(last, claim_next=work.batch), *(queue.complete(lease) for lease in first)
            )
            held = list(finished.next)
        await asyncio.gather(*(queue.release(lease) for lease in held))

    await asyncio.gather(*(consume() for _ in range(work.concurrency)))
    return done


async def claim_together(work: Work, queue: AsyncQueue) -> int:
    """Claims alone, until nothing waits or the jobs are leased."""
    claimed = 0

    async def consume() -> None:
        nonlocal claimed
        while claimed < work.jobs:
            held = await queue.claim(work.batch)
            if not held:
                return
            claimed += len(held)

    await asyncio.gather(*(consume() for _ in range(work.concurrency)))
    return claimed


async def complete_together(work: Work, queue: AsyncQueue, held: list[Lease]) -> int:
    """Completions alone, of leases that were claimed before."""
    left = iter(held)

    async def consume() -> None:
        for lease in left:
            await queue.complete(lease)

    await asyncio.gather(*(consume() for _ in range(work.concurrency)))
    return len(held)


async def hold(work: Work, queue: AsyncQueue) -> int:
    """Put jobs into a state: waiting, scheduled, leased, finished or dead."""
    later_s = 3600.0 if work.how == "scheduled" else 0.0
    spec = JobSpec(type="build", payload=payload_of(work.payload_bytes), delay_s=later_s, max_attempts=1)
    for first in range(0, work.jobs, FILL_STEP):
        await queue.enqueue_many([spec] * min(FILL_STEP, work.jobs - first))
    while work.how in ("leased", "finished", "dead") and (held := await queue.claim(50, start=True)):
        if work.how == "finished":
            await asyncio.gather(*(queue.complete(lease) for lease in held))
        elif work.how == "dead":
            await asyncio.gather(*(queue.fail(lease, "it did not build") for lease in held))
    return work.jobs


async def serve(work: Work, queue: AsyncQueue) -> list[float]:
    """An idle worker: waits for one job after another; returns how long each was on its way, in ms."""
    waits: list[float] = []
    while len(waits) < work.jobs:
        for lease in await queue.claim(1, wait_s=5, start=True):
            waits.append((time.perf_counter() - lease.decode(float)) * 1000)
            await queue.complete(lease)
    return waits


def knock(work: Work, queue: Queue) -> int:
    """Enqueue now and then, for an idle worker."""
    rng = random.Random(1)
    for _ in range(work.jobs):
        time.sleep(rng.uniform(0.002, 0.010))
        queue.enqueue("build", time.perf_counter())
    return work.jobs


async def in_loop(work: Work) -> Done:
    """Do what needs an event loop."""
    latencies: list[float] = []
    async with AsyncQueue(NAME, redis=work.url, agent=f"bench-{random.randrange(2**32)}", lease_s=600) as queue:
        await queue.stats()
        verbs = OurVerbs(queue, work.payload_bytes)
        if work.what == "verb":
            await prepare(verbs, work.how, work.jobs)
        elif work.what == "hold":
            # All are kept that the figure is about.
            await queue.configure(retention_count=work.jobs, max_dead=work.jobs)
        elif work.what == "serve":
            # The first wait connects what rings; an idle worker has that behind it.
            await queue.claim(1, wait_s=0.05)
        held: list[Lease] = []
        while work.what == "complete" and len(held) < work.jobs:
            held += await queue.claim(min(50, work.jobs - len(held)), start=True)
        wait_for_go()
        begin_s = time.perf_counter()
        if work.what == "serve":
            latencies = await serve(work, queue)
            jobs = len(latencies)
        elif work.what == "verb":
            jobs = await repeat(verbs, work.how, work.jobs, work.batch)
        elif work.what == "complete":
            jobs = await complete_together(work, queue, held)
        else:
            each = {"enqueue": enqueue_together, "drain": drain_together, "claim": claim_together, "hold": hold}
            jobs = await each[work.what](work, queue)
        return Done(jobs=jobs, took_s=time.perf_counter() - begin_s, latencies_ms=latencies)


def blocking(work: Work) -> Done:
    """Do what one thread does with one call after another."""
    with Queue(NAME, redis=work.url, agent=f"bench-{random.randrange(2**32)}", lease_s=600) as queue:
        queue.stats()
        wait_for_go()
        begin_s = time.perf_counter()
        if work.what == "knock":
            jobs = knock(work, queue)
        elif work.what == "drain":
            jobs = drain_one_by_one(work, queue)
        else:
            jobs = (enqueue_in_bulk if work.how == "bulk" else enqueue_one_by_one)(work, queue)
        return Done(jobs=jobs, took_s=time.perf_counter() - begin_s)


def main() -> None:
    work = told()
    waiting = work.backlog + (work.jobs if work.what in ("drain", "claim", "complete") else 0)
    if waiting:
        fill(work, waiting)
    if work.what in ("serve", "claim", "complete", "verb", "hold") or work.how == "concurrent":
        answer(uvloop.run(in_loop(work)))
    else:
        answer(blocking(work))


if __name__ == "__main__":
    main()
