"""A queue that was closed, one in another loop, and calls that were given up half way."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from hybridq import AsyncQueue, JobSpec, Queue, QueueClosed, WrongLoop
from hybridq.connect import Connects
from tests.conformance.conftest import Open
from tests.conformance.test_refused import LEASE
from tests.servers import wait_until

CALLS: dict[str, Callable[[Any], Any]] = {
    "enqueue": lambda queue: queue.enqueue("t"),
    "enqueue_many": lambda queue: queue.enqueue_many([JobSpec()]),
    "claim": lambda queue: queue.claim(),
    "claim and wait": lambda queue: queue.claim(wait_s=1),
    "start": lambda queue: queue.start(LEASE),
    "heartbeat": lambda queue: queue.heartbeat([LEASE]),
    "complete": lambda queue: queue.complete(LEASE),
    "complete and claim": lambda queue: queue.complete(LEASE, claim_next=1),
    "fail": lambda queue: queue.fail(LEASE),
    "release": lambda queue: queue.release(LEASE),
    "cancel": lambda queue: queue.cancel("j"),
    "reprioritise": lambda queue: queue.reprioritise("j", "LOW"),
    "retry": lambda queue: queue.retry("j"),
    "job": lambda queue: queue.job("j"),
    "jobs": lambda queue: queue.jobs(),
    "dead.list": lambda queue: queue.dead.list(),
    "dead.replay": lambda queue: queue.dead.replay(["j"]),
    "dead.purge": lambda queue: queue.dead.purge(["j"]),
    "pause": lambda queue: queue.pause(),
    "resume": lambda queue: queue.resume(),
    "stats": lambda queue: queue.stats(),
    "upkeep": lambda queue: queue.upkeep(),
    "configure": lambda queue: queue.configure(max_queued=1),
}


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_call_after_close_says_so(open_queue: Open, call: Callable[[Any], Any], used: bool) -> None:
    queue = open_queue()
    if used:
        queue.enqueue("t")
    queue.close()
    queue.close()

    with pytest.raises(QueueClosed):
        call(queue)


def test_close_leaves_other_queues_of_the_same_server_alone(open_queue: Open) -> None:
    one, other = open_queue(), open_queue(agent="bob")
    assert [] == one.claim(wait_s=0.01) == other.claim(wait_s=0.01), "both listen to the bell"

    one.close()

    job_id = other.enqueue("t").job_id
    assert [job_id] == [lease.job_id for lease in other.claim(wait_s=5)]


def test_a_thread_that_waits_is_told_that_its_queue_was_closed(connector: Connects, namespace: str) -> None:
    queues = [Queue("work", redis=connector, namespace=namespace) for _ in range(2)]
    with ThreadPoolExecutor() as threads:
        for queue in queues:
            waiting = [threads.submit(queue.claim, wait_s=60) for _ in range(3)]
            wait_until(lambda queue=queue: queue._bell._reading, 5, what="one of them listens")
            queue.close()
            for claim in waiting:
                with pytest.raises(QueueClosed):
                    claim.result(5)


async def test_a_claim_that_waits_is_answered_with_nothing_at_close(connector: Connects, namespace: str) -> None:
    queue = AsyncQueue("work", redis=connector, namespace=namespace)
    waiting = [asyncio.create_task(queue.claim(wait_s=60)) for _ in range(3)]
    await queue.upkeep()

    await queue.close()

    assert [[], [], []] == await asyncio.gather(*waiting)


def test_an_async_queue_belongs_to_the_loop_of_its_first_call(connector: Connects, namespace: str) -> None:
    queue = AsyncQueue("work", redis=connector, namespace=namespace)

    async def elsewhere() -> None:
        with pytest.raises(WrongLoop):
            await queue.enqueue("t")
        with pytest.raises(WrongLoop):
            await queue.claim(wait_s=1)

    async def here() -> None:
        await queue.enqueue("t")
        await asyncio.to_thread(asyncio.run, elsewhere())
        assert 1 == len(await queue.claim())
        await queue.close()

    asyncio.run(here())


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13])
async def test_a_cancelled_call_leaves_the_connection_usable(connector: Connects, namespace: str, turns: int) -> None:
    """Whatever a call was doing when it was cancelled, the next answer belongs to the next question."""
    async with AsyncQueue("work", redis=connector, namespace=namespace) as queue:
        for n in range(10):
            given_up = asyncio.create_task(queue.enqueue("t", n, job_id=f"given-up-{n}"))
            for _ in range(turns):
                await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.gather(given_up, return_exceptions=True)

            ids = [f"j{n}-{k}" for k in range(5)]
            answers = await asyncio.gather(*(queue.enqueue("t", job_id=job_id) for job_id in ids))
            assert ids == [answer.job_id for answer in answers]
            jobs = await asyncio.gather(*(queue.job(job_id) for job_id in ids))
            assert ids == [job.job_id for job in jobs]


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13])
async def test_a_cancelled_claim_keeps_no_job(connector: Connects, namespace: str, turns: int) -> None:
    async with AsyncQueue("work", redis=connector, namespace=namespace) as queue:
        ids = {(await queue.enqueue("t")).job_id for _ in range(5)}
        for wait_s in (0.0, 30.0):
            given_up = asyncio.create_task(queue.claim(wait_s=wait_s))
            for _ in range(turns):
                await asyncio.sleep(0)
            given_up.cancel()
            [given] = await asyncio.gather(given_up, return_exceptions=True)
            for lease in given if isinstance(given, list) else ():
                await queue.release(lease)

        taken: set[str] = set()
        while len(taken) < 5:
            taken |= {lease.job_id for lease in await queue.claim(5, wait_s=5, agent="bob")}
        assert ids == taken


class Interrupted(BaseException):
    """Stands for Ctrl-C, which may come anywhere."""


@pytest.mark.skipif(os.name != "posix", reason="signals are sent to this process")
def test_an_interrupted_wait_leaves_the_connections_usable(connector: Connects, namespace: str) -> None:
    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with Queue("work", redis=connector, namespace=namespace, agent="ann") as queue:
            for _ in range(3):
                timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
                timer.start()
                with pytest.raises(Interrupted):
                    queue.claim(wait_s=30)
                timer.join()
                job_id = queue.enqueue("t").job_id
                [lease] = queue.claim(wait_s=5, start=True)
                assert job_id == lease.job_id
                queue.complete(lease)
    finally:
        signal.signal(signal.SIGUSR1, before)
