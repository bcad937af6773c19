"""A long queue costs no more per call than a short one, and no script keeps Redis from other work for long.

Twenty thousand jobs wait by default; `HYBRIDQ_TEST_SCALE=200000` (or 1000000) says how many. Both figures are taken
so that other work on the machine does not spoil them: costs are compared in alternating rounds, of which the median
counts, and of many runs of one script the shortest counts, since everything else only adds to
it. `pytest -rP` shows them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator

import pytest
import redis as redis_py

from hybridq import AsyncQueue, JobSpec, JobStatus, Priority, Queue, scripts
from hybridq.ops import fleet
from tests.integration.conftest import ENGINE
from tests.servers import ServerProcess

pytestmark = pytest.mark.scale

WAITING = int(os.environ.get("HYBRIDQ_TEST_SCALE", "20000"))
SHORT = 1000
ROUNDS = 15
CALLS = 40
WITHIN = 1.2
SCRIPT_MS_MAX = 5.0
YARDSTICK = "for i = 1, 10000 do redis.call('HGET', KEYS[1], 'field') end"
"""About 4.2 ms on an idle machine of the kind the limit is meant for."""
YARDSTICK_MS = 4.2
PAYLOAD = b"x" * 100
LOG_PIECE = b"x" * 200_000


@pytest.fixture
def own_server() -> Iterator[ServerProcess]:
    """A server of its own, as nobody is to check the invariants of so many jobs after every test."""
    with ServerProcess(ENGINE) as server:
        yield server


def fill(queue: Queue, n: int) -> None:
    for first in range(0, n, 2000):
        queue.enqueue_many(
            JobSpec(payload=PAYLOAD, priority=Priority.LOW if index % 4 else Priority.NORMAL)
            for index in range(min(2000, n - first))
        )


def cost_us(client: redis_py.Redis, call: Callable[[], object]) -> float:
    """Return what one script took inside Redis, as a mean over many calls."""

    def used() -> tuple[int, int]:
        stat = client.info("commandstats")["cmdstat_evalsha"]
        return int(stat["usec"]), int(stat["calls"])

    usec, calls = used()
    for _ in range(CALLS):
        call()
    usec_after, calls_after = used()
    return (usec_after - usec) / (calls_after - calls)


def test_enqueue_and_claim_cost_the_same_whatever_waits(own_server: ServerProcess) -> None:
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(own_server.client())
        short, long = (stack.enter_context(Queue(name, redis=own_server.url)) for name in ("short", "long"))
        fill(short, SHORT)
        fill(long, WAITING)
        ratios = cost_ratios(client, short, long)

    for verb, found in ratios.items():
        ratio = statistics.median(found)
        print(f"{verb}: {ratio:.3f} times the cost with {WAITING} waiting of that with {SHORT}")
        assert ratio < WITHIN


def cost_ratios(client: redis_py.Redis, short: Queue, long: Queue) -> dict[str, list[float]]:
    """Return what a call costs on the long queue, in costs on the short one: one figure a round."""
    ratios: dict[str, list[float]] = {"enqueue": [], "claim": []}
    for _ in range(ROUNDS):
        costs = {}
        for queue in (short, long):
            held = []
            costs[queue.name, "enqueue"] = cost_us(client, lambda queue=queue: queue.enqueue("t", PAYLOAD))
            costs[queue.name, "claim"] = cost_us(
                client, lambda queue=queue, held=held: held.extend(queue.claim(start=True))
            )
            assert len(held) == CALLS
            for lease in held:
                queue.complete(lease)
        for verb, found in ratios.items():
            found.append(costs["long", verb] / costs["short", verb])

    return ratios


def times_ms(client: redis_py.Redis) -> dict[str, float]:
    """Return the longest run of each script in the slow log, which is emptied."""
    name_of = {scripts.load(verb).sha.encode(): verb for verb in scripts.verbs()}
    longest: dict[str, float] = {}
    for entry in client.slowlog_get(10_000):
        command, sha, *_ = entry["command"].split(b" ")
        if command == b"EVALSHA" and sha in name_of:
            verb = name_of[sha]
            longest[verb] = max(longest.get(verb, 0.0), entry["duration"] / 1000)
    client.slowlog_reset()
    return longest


def yardstick_ms(client: redis_py.Redis) -> float:
    """Return what a script of known work takes now, in the same server: how busy the machine is."""
    before = int(client.info("commandstats").get("cmdstat_eval", {}).get("usec", 0))
    client.eval(YARDSTICK, 1, "yardstick")
    return (int(client.info("commandstats")["cmdstat_eval"]["usec"]) - before) / 1000


async def use_every_verb(queue: AsyncQueue) -> None:
    """Send every script once with as much as it takes, and with all the upkeep one call does."""
    base_ms = queue._now_ms
    await queue.enqueue_many(JobSpec(priority=Priority.CRITICAL, max_attempts=1) for _ in range(100))
    held = [*await queue.claim(50), *await queue.claim(50)]
    await asyncio.gather(*(queue.start(lease) for lease in held[:50]))
    await queue.heartbeat(held)
    await asyncio.gather(*(queue.complete(lease) for lease in held[:25]), *(queue.fail(lease) for lease in held[25:50]))
    await queue.dead.replay(all=True)
    again = await queue.claim(25, start=True)
    await asyncio.gather(*(queue.fail(lease) for lease in again))
    await queue.dead.purge(all=True)
    await asyncio.gather(*(queue.release(lease) for lease in held[50:]))
    ids = [lease.job_id for lease in held[50:]]
    await asyncio.gather(*(queue.reprioritise(job_id, "HIGH") for job_id in ids))
    await asyncio.gather(*(queue.cancel(job_id) for job_id in ids))

    await queue.enqueue_many(JobSpec(priority=Priority.HIGH, delay_s=1) for _ in range(25))
    await queue.claim(25, lease_s=1)
    for tick_ms in range(0, 1001, 250):
        queue._now_ms = base_ms + tick_ms
        did = await queue.upkeep()
    assert (25, 25) == (did.requeued, did.promoted)
    taken = await queue.claim(50, agent="b", start=True)
    await asyncio.gather(*(queue.append_log(lease, 0, LOG_PIECE) for lease in taken[:20]))
    await asyncio.gather(*(queue.read_log(lease.job_id, limit=len(LOG_PIECE)) for lease in taken[:20]))
    await asyncio.gather(*(queue.complete(lease) for lease in taken))
    await queue.enqueue_many(JobSpec(priority=Priority.HIGH) for _ in range(50))
    given = await queue.claim(50, agent="c", start=True)
    told = fleet.enlist(queue.root, "c", generation=queue._now_ms, capacity=0, free="give_back", now_ms=queue._now_ms)
    assert await queue._run(told) == (50, False)
    await asyncio.gather(*(queue.cancel(lease.job_id) for lease in given))
    await queue._run(fleet.figures(queue.root, ["a"] * 50, leases=True))
    await queue.jobs(status=JobStatus.BLOCKED)
    await queue.jobs(limit=100)
    await queue.stats(window_s=3600)


async def test_no_script_is_long_with_a_full_batch(own_server: ServerProcess) -> None:
    with Queue("long", redis=own_server.url) as queue:
        await asyncio.to_thread(fill, queue, WAITING)
    shortest: dict[str, float] = {}
    yardsticks: list[float] = []
    with own_server.client() as client:
        client.config_set("slowlog-max-len", 10_000)
        # Low enough for every full batch, and high enough to leave out most commands inside the scripts.
        client.config_set("slowlog-log-slower-than", 50)
        async with AsyncQueue("long", redis=own_server.url, agent="a") as aqueue:
            aqueue._now_ms = time.time_ns() // 1_000_000 + 60_000
            for _ in range(ROUNDS):
                yardsticks.append(yardstick_ms(client))
                client.slowlog_reset()
                await use_every_verb(aqueue)
                aqueue._now_ms += 400
                for verb, ms in times_ms(client).items():
                    shortest[verb] = min(ms, shortest.get(verb, ms))

    assert set(scripts.verbs()) - {"create", "configure", "limits", "pause", "peek"} == set(shortest) - {
        "limits",
        "peek",
    }
    # Where everything takes longer, so may a script: the limit is an idle machine's, by a yardstick in the same run.
    limit_ms = SCRIPT_MS_MAX * max(1.0, min(yardsticks) / YARDSTICK_MS)
    print(f"limit: {limit_ms:.2f} ms, as the yardstick took {min(yardsticks):.2f} ms")
    for verb, ms in shortest.items():
        print(f"{verb}: {ms:.2f} ms for a full batch with {WAITING} waiting")
    assert {} == {verb: ms for verb, ms in shortest.items() if ms >= limit_ms}
