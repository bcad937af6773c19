"""Does a `Work` with the floor's scripts: redis-py where one call follows another, `Joined` where there are many."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import redis
import redis.asyncio
import uvloop

from ..joined import Joined
from ..verbs import FloorVerbs, prepare, repeat
from ..work import Done, Work, answer, payload_of, told, wait_for_go

KEYS: Final = ("floor:{q}:jobs", "floor:{q}:ready", "floor:{q}:leased")
SCRIPTS: Final = {
    name: (Path(__file__).parent / f"{name}.lua").read_text() for name in ("enqueue", "claim", "complete", "next")
}
UNTIL: Final = 4_000_000_000_000
STEP: Final = 100


def entries(jobs: int, payload_bytes: int, first: int = 0) -> Iterator[tuple[str | int | bytes, ...]]:
    """Yield id, rank and blob of each job; the blob is encoded anew, as a library has to."""
    payload = payload_of(payload_bytes)
    for number in range(first, first + jobs):
        yield f"job-{number:016d}", 2 * 2**44 + number, msgspec.json.encode(payload)


def fill(client: redis.Redis, shas: dict[str, str], jobs: int, payload_bytes: int, first: int = 0) -> None:
    """Enqueue what the measured part will claim."""
    waiting = entries(jobs, payload_bytes, first)
    while batch := list(itertools.islice(waiting, STEP)):
        client.evalsha(shas["enqueue"], 3, *KEYS, *itertools.chain.from_iterable(batch))


def one_by_one(work: Work, client: redis.Redis, shas: dict[str, str]) -> int:
    """Enqueue, or drain, with one call after another."""
    if work.what == "ping":
        for _ in range(work.jobs):
            client.ping()
        return work.jobs
    if work.what == "enqueue":
        waiting = entries(work.jobs, work.payload_bytes)
        while batch := list(itertools.islice(waiting, work.batch)):
            client.evalsha(shas["enqueue"], 3, *KEYS, *itertools.chain.from_iterable(batch))
        return work.jobs
    done = 0
    held = client.evalsha(shas["claim"], 3, *KEYS, work.batch, UNTIL)
    while held and done < work.jobs:
        done += len(held) // 2
        held = client.evalsha(shas["next"], 3, *KEYS, work.batch, UNTIL, *held[::2])
    return done


async def together(work: Work, shas: dict[str, str]) -> int:
    """The same with many tasks on one connection."""
    joined = await Joined.to(work.url)
    source = entries(work.jobs, work.payload_bytes)
    counted = 0

    async def enqueue() -> None:
        nonlocal counted
        for entry in source:
            await joined.call("EVALSHA", shas["enqueue"], 3, *KEYS, *entry)
            counted += 1

    async def drain() -> None:
        nonlocal counted
        held = await joined.call("EVALSHA", shas["claim"], 3, *KEYS, work.batch, UNTIL)
        while held and counted < work.jobs:
            counted += len(held) // 2
            held = await joined.call("EVALSHA", shas["next"], 3, *KEYS, work.batch, UNTIL, *held[::2])

    async def claim() -> None:
        nonlocal counted
        while counted < work.jobs and (
            held := await joined.call("EVALSHA", shas["claim"], 3, *KEYS, work.batch, UNTIL)
        ):
            counted += len(held) // 2

    each: dict[str, Callable[[], Awaitable[None]]] = {"enqueue": enqueue, "drain": drain, "claim": claim}
    await asyncio.gather(*(each[work.what]() for _ in range(work.concurrency)))
    return counted


async def verb(work: Work) -> tuple[int, float]:
    """One verb alone; returns the jobs and when it began."""
    verbs = await FloorVerbs.at(work.url, work.payload_bytes)
    await prepare(verbs, work.how, work.jobs)
    wait_for_go()
    begin_s = time.perf_counter()
    return await repeat(verbs, work.how, work.jobs, work.batch), begin_s


async def ping(work: Work) -> int:
    """PING with `concurrency` tasks, each of which waits for its answer: what redis-py's asyncio side allows."""
    left = iter(range(work.jobs))
    async with redis.asyncio.Redis.from_url(work.url, max_connections=work.concurrency) as client:

        async def some() -> None:
            for _ in left:
                await client.ping()

        await asyncio.gather(*(some() for _ in range(work.concurrency)))
    return work.jobs


async def ping_joined(work: Work) -> int:
    """The same on one connection with the calls of a loop turn joined."""
    left = iter(range(work.jobs))
    joined = await Joined.to(work.url)

    async def some() -> None:
        for _ in left:
            await joined.call("PING")

    await asyncio.gather(*(some() for _ in range(work.concurrency)))
    return work.jobs


def serve(work: Work, client: redis.Redis, shas: dict[str, str]) -> list[float]:
    """Wait for jobs on a list that carries a bell; return how long each was on its way, in ms."""
    waits: list[float] = []
    while len(waits) < work.jobs:
        held: Any = client.evalsha(shas["claim"], 3, *KEYS, 1, UNTIL)
        if not held:
            client.blpop(["floor:{q}:bell"], 5)
            continue
        now_s = time.perf_counter()
        waits.append((now_s - float(held[1])) * 1000)
        client.evalsha(shas["complete"], 3, *KEYS, held[0])
    return waits


def knock(work: Work, client: redis.Redis, shas: dict[str, str]) -> None:
    """Enqueue now and then, for an idle worker."""
    rng = random.Random(1)
    for number in range(work.jobs):
        time.sleep(rng.uniform(0.002, 0.010))
        pipe = client.pipeline(transaction=False)
        pipe.evalsha(shas["enqueue"], 3, *KEYS, f"job-{number}", number, repr(time.perf_counter()))
        pipe.rpush("floor:{q}:bell", 1)
        pipe.execute()


def main() -> None:
    work = told()
    if work.what == "verb":
        jobs, begin_s = uvloop.run(verb(work))
        answer(Done(jobs=jobs, took_s=time.perf_counter() - begin_s))
        return
    client = redis.Redis.from_url(work.url)
    shas = {name: client.script_load(text) for name, text in SCRIPTS.items()}
    if work.backlog:
        fill(client, shas, work.backlog, work.payload_bytes, first=10**9)
    if work.what in ("drain", "claim"):
        fill(client, shas, work.jobs, work.payload_bytes)
    wait_for_go()
    begin_s = time.perf_counter()
    latencies: list[float] = []
    if work.what == "serve":
        latencies = serve(work, client, shas)
        jobs = len(latencies)
    elif work.what == "knock":
        knock(work, client, shas)
        jobs = work.jobs
    elif work.what == "ping" and work.how != "one":
        jobs = uvloop.run(ping_joined(work) if work.how == "bulk" else ping(work))
    elif work.what == "hold":
        fill(client, shas, work.jobs, work.payload_bytes)
        while work.how == "leased" and client.evalsha(shas["claim"], 3, *KEYS, STEP, UNTIL):
            pass
        jobs = work.jobs
    elif work.how == "concurrent" or work.what == "claim":
        jobs = uvloop.run(together(work, shas))
    else:
        jobs = one_by_one(work, client, shas)
    answer(Done(jobs=jobs, took_s=time.perf_counter() - begin_s, latencies_ms=latencies))


if __name__ == "__main__":
    main()
