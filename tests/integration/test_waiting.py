"""Whatever makes a job claimable wakes a claim that waits for one, at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis as redis_py

from hybridq import AsyncQueue, Queue
from hybridq.keys import bell_channel
from tests.conformance.colours import opened
from tests.integration.conftest import Open, Spawn, one_engine, scripts_run, settled, wait_until_parked
from tests.servers import wait_until

WAIT_S = 20.0
SOON_S = 1.0
"""A waiter that hears no bell looks in after 4 s at the earliest."""


def lost(bob: Any) -> None:
    """A lease that ends because its holder died: three seconds from now."""
    bob.enqueue("t", job_id="j")
    [lease] = bob.claim(lease_s=3.0, start=True)
    bob.heartbeat([lease])


def dead(bob: Any) -> None:
    bob.enqueue("t", job_id="j", max_attempts=1)
    bob.fail(bob.claim(start=True)[0], delay_s=0)


def cancelled(bob: Any) -> None:
    bob.enqueue("t", job_id="j")
    bob.cancel("j")


def leased(bob: Any) -> Any:
    bob.enqueue("t", job_id="j")
    return bob.claim(start=True)[0]


def waiting_in_a_paused_queue(bob: Any) -> None:
    bob.pause("a release")
    bob.enqueue("t", job_id="j")


Before = Callable[[Any], Any]
RINGS: dict[str, tuple[Before, Callable[[Any, Any], Any], float]] = {
    "enqueue": (lambda bob: None, lambda bob, _: bob.enqueue("t", job_id="j"), 0),
    "due": (lambda bob: None, lambda bob, _: bob.enqueue("t", job_id="j", delay_s=0.4), 0.4),
    "due, known before": (lambda bob: bob.enqueue("t", job_id="j", delay_s=2), lambda bob, _: None, 2),
    "lease lost": (lost, lambda bob, _: None, 3.0),
    "release": (leased, lambda bob, lease: bob.release(lease), 0),
    "release with a delay": (leased, lambda bob, lease: bob.release(lease, delay_s=0.4), 0.4),
    "retry at once": (leased, lambda bob, lease: bob.fail(lease, delay_s=0), 0),
    "retry after a backoff": (leased, lambda bob, lease: bob.fail(lease, delay_s=0.4), 0.4),
    "retry of a cancelled job": (cancelled, lambda bob, _: bob.retry("j"), 0),
    "replay of a dead letter": (dead, lambda bob, _: bob.dead.replay(["j"]), 0),
    "resume": (waiting_in_a_paused_queue, lambda bob, _: bob.resume(), 0),
}


@one_engine
@pytest.mark.parametrize("again", [False, True], ids=["first wait", "second wait"])
@pytest.mark.parametrize(("before", "ring", "after_s"), RINGS.values(), ids=RINGS)
def test_a_parked_claim_starts_soon_after(
    open_queue: Open,
    spawn: Spawn,
    redis: redis_py.Redis,
    before: Before,
    ring: Callable[[Any, Any], Any],
    after_s: float,
    again: bool,
) -> None:
    """The first wait of a queue subscribes to the bell, later ones find it there: both must hear it."""
    ann, bob = open_queue(), open_queue(agent="bob")
    if again:
        assert [] == ann.claim(wait_s=0.05)
    prepared_at = time.monotonic()
    prepared = before(bob)
    claim = spawn(lambda: (ann.claim(wait_s=WAIT_S), time.monotonic()))
    wait_until_parked(redis, bell_channel(ann.root))
    assert not claim.done()

    rung_at = time.monotonic() if after_s < 2 else prepared_at
    ring(bob, prepared)
    leases, started_at = claim.result(WAIT_S)

    assert ["j"] == [lease.job_id for lease in leases]
    assert after_s - 0.01 <= started_at - rung_at <= after_s + SOON_S


@one_engine
def test_a_job_given_another_priority_while_the_queue_is_paused_comes_by_it(
    open_queue: Open, spawn: Spawn, redis: redis_py.Redis
) -> None:
    ann, bob = open_queue(), open_queue(agent="bob")
    bob.pause()
    for job_id in ("first", "second"):
        bob.enqueue("t", job_id=job_id)
    claim = spawn(ann.claim, wait_s=WAIT_S)
    wait_until_parked(redis, bell_channel(ann.root))

    bob.reprioritise("second", "CRITICAL")
    bob.resume()

    assert ["second"] == [lease.job_id for lease in claim.result(SOON_S)]


@one_engine
def test_a_wait_ends_with_nothing_at_its_time(queue: Any) -> None:
    began = time.monotonic()
    assert [] == queue.claim(wait_s=0.3)
    assert 0.3 <= time.monotonic() - began < 0.3 + SOON_S


def test_threads_that_wait_on_one_queue_share_one_connection(
    redis_url: str, namespace: str, spawn: Spawn, redis: redis_py.Redis
) -> None:
    with Queue("work", redis=redis_url, namespace=namespace) as queue:
        claims = [spawn(queue.claim, wait_s=WAIT_S) for _ in range(20)]
        wait_until_parked(redis, bell_channel(queue.root))

        wait_until(lambda: len(redis.client_list(_type="pubsub")) == 1, 5, what="one connection listens")
        for _ in claims:
            queue.enqueue("t")
        ids = [claim.result(WAIT_S)[0].job_id for claim in claims]

    assert 20 == len(set(ids))


def test_what_rang_while_nobody_waited_is_one_look(redis_url: str, namespace: str, redis: redis_py.Redis) -> None:
    """A worker that was busy for a while must not answer every ring it missed with a claim for nothing."""
    with Queue("work", redis=redis_url, namespace=namespace) as queue:
        assert [] == queue.claim(wait_s=0.05)
        for _ in range(300):
            queue.enqueue("t")
        while queue.claim(50):
            pass
        before = scripts_run(redis)

        assert [] == queue.claim(wait_s=0.5)

        assert scripts_run(redis) - before < 10


async def test_claims_that_wait_in_one_process_share_one_connection(
    redis_url: str, namespace: str, redis: redis_py.Redis
) -> None:
    """Whatever the number of queues and waiters."""
    queues = [AsyncQueue(f"q{n}", redis=redis_url, namespace=namespace) for n in range(5)]
    waiting = [asyncio.create_task(queue.claim(wait_s=WAIT_S)) for queue in queues for _ in range(10)]
    for queue in queues:
        await settled(lambda queue=queue: redis.pubsub_numsub(bell_channel(queue.root))[0][1] == 1)

    await settled(lambda: len(redis.client_list(_type="pubsub")) == 1)
    for n, queue in enumerate(queues):
        await queue.enqueue("t")
        async with asyncio.timeout(SOON_S):
            assert 1 == len(await waiting[10 * n])
        await queue.close()
    assert 45 == [await task for task in waiting].count([]), "close answers who still waits with nothing"


async def test_one_job_wakes_one_of_many(aqueue: AsyncQueue, redis: redis_py.Redis) -> None:
    waiting = [asyncio.create_task(aqueue.claim(wait_s=WAIT_S)) for _ in range(200)]
    await asyncio.to_thread(wait_until_parked, redis, bell_channel(aqueue.root))
    before = scripts_run(redis)

    job_id = (await aqueue.enqueue("t")).job_id
    done, _ = await asyncio.wait(waiting, timeout=SOON_S, return_when=asyncio.FIRST_COMPLETED)

    assert [[job_id]] == [[lease.job_id for lease in task.result()] for task in done]
    await asyncio.to_thread(wait_until_parked, redis, bell_channel(aqueue.root))
    assert 1 == len([task for task in waiting if task.done()])
    assert scripts_run(redis) - before <= 4, "the enqueue, and a claim or two"
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_the_oldest_waiter_is_served_first(aqueue: AsyncQueue, redis: redis_py.Redis) -> None:
    waiting = []
    for _ in range(10):
        waiting.append(asyncio.create_task(aqueue.claim(wait_s=WAIT_S)))
        await asyncio.sleep(0)
    await asyncio.to_thread(wait_until_parked, redis, bell_channel(aqueue.root))

    for n in range(10):
        job_id = (await aqueue.enqueue("t")).job_id
        async with asyncio.timeout(SOON_S):
            [lease] = await waiting[n]
        assert job_id == lease.job_id


@one_engine
async def test_thousands_of_parked_claims_cost_redis_next_to_nothing(aqueue: AsyncQueue, redis: redis_py.Redis) -> None:
    """Less than five commands a second for two thousand, those inside scripts included.

    The window is longer than waiters ever sleep without a bell, so the look they then take is counted too.
    """
    waiting = [asyncio.create_task(aqueue.claim(wait_s=WAIT_S)) for _ in range(2000)]
    await asyncio.to_thread(wait_until_parked, redis, bell_channel(aqueue.root))

    def commands() -> int:
        return int(redis.info("stats")["total_commands_processed"])

    window_s = 6.5
    before = commands()
    done, _ = await asyncio.wait(waiting, timeout=window_s)
    used = commands() - before - 1

    assert not done
    assert 0 < used / window_s < 5
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


@one_engine
def test_waiters_in_several_processes_worth_of_queues_share_the_jobs(
    redis_url: str, namespace: str, spawn: Spawn, redis: redis_py.Redis
) -> None:
    """Eight queue objects with connections of their own, of both colours: every job wakes somebody."""
    queues = []
    try:
        for n in range(8):
            context = opened("sync" if n % 2 else "async", "work", redis=redis_url, namespace=namespace, agent=f"a{n}")
            queues.append((context, context.__enter__()))
        claims = [spawn(queue.claim, wait_s=WAIT_S) for _, queue in queues]
        wait_until(lambda: redis.pubsub_numsub(bell_channel(queues[0][1].root))[0][1] >= 4, 10)
        wait_until_parked(redis, bell_channel(queues[0][1].root))

        began = time.monotonic()
        for _ in queues:
            queues[0][1].enqueue("t")
        ids = {claim.result(WAIT_S)[0].job_id for claim in claims}

        assert 8 == len(ids)
        assert time.monotonic() - began < 2 * SOON_S
    finally:
        for context, _ in queues:
            context.__exit__(None, None, None)
