"""Concurrent async calls travel together, and none is harmed by another."""

from __future__ import annotations

import asyncio

import pytest
import redis as redis_py

from hybridq import AsyncQueue, Enqueued, Job, JobConflict, JobSpec, Lease
from hybridq.runner import BATCH_BYTES_MAX
from tests.integration.conftest import scripts_run

LARGE = 256 * 1024
FEWEST = -(-40 * LARGE // BATCH_BYTES_MAX)
"""Scripts for 40 large payloads, when each carries as many as it may."""


async def drained(queue: AsyncQueue) -> list[str]:
    """Claim and complete until nothing is left; return the ids in the order they came."""
    ids: list[str] = []
    while leases := await queue.claim(50, start=True, wait_s=0.2):
        ids += [lease.job_id for lease in leases]
        await asyncio.gather(*(queue.complete(lease) for lease in leases))
    return ids


async def test_a_thousand_concurrent_enqueues_are_a_few_scripts(aqueue: AsyncQueue, redis: redis_py.Redis) -> None:
    await aqueue.enqueue("first")
    before, sent_before = scripts_run(redis), aqueue._coalescer.calls_sent

    answers = await asyncio.gather(*(aqueue.enqueue("t", n, job_id=f"j{n}") for n in range(1000)))

    assert [f"j{n}" for n in range(1000)] == [answer.job_id for answer in answers], "each got its own answer"
    assert scripts_run(redis) - before <= 20
    assert aqueue._coalescer.calls_sent - sent_before <= 20


async def test_entries_of_one_batch_with_one_id_make_one_job(aqueue: AsyncQueue) -> None:
    same = await asyncio.gather(*(aqueue.enqueue("t", 1, job_id="j") for _ in range(20)))
    other = await asyncio.gather(*(aqueue.enqueue("t", n, job_id="k") for n in range(20)), return_exceptions=True)

    assert [True] + [False] * 19 == [answer.created for answer in same]
    assert isinstance(other[0], Enqueued) and other[0].created
    assert all(isinstance(answer, JobConflict) for answer in other[1:])
    assert ["j", "k"] == await drained(aqueue)


async def test_a_look_sees_what_a_call_of_its_turn_did_also_beside_an_older_look(aqueue: AsyncQueue) -> None:
    await aqueue.enqueue("t", job_id="older")
    await aqueue.job("older")  # from now on the server knows both scripts
    sent_before = aqueue._coalescer.calls_sent

    _, enqueued, job = await asyncio.gather(
        aqueue.job("older"), aqueue.enqueue("t", job_id="new"), aqueue.job("new"), return_exceptions=True
    )

    assert isinstance(enqueued, Enqueued) and isinstance(job, Job), "the looks went out behind it"
    assert aqueue._coalescer.calls_sent - sent_before == 2


async def test_a_claim_that_follows_a_finish_comes_behind_it_also_beside_an_older_claim(aqueue: AsyncQueue) -> None:
    await aqueue.enqueue("t", job_id="again")
    [held] = await aqueue.claim(start=True)
    await aqueue.fail(held, "once", delay_s=0)  # from now on the server knows both scripts
    [held] = await aqueue.claim(start=True)

    older, failed = await asyncio.gather(aqueue.claim(), aqueue.fail(held, "twice", delay_s=0, claim_next=1))

    assert ["again"] == [lease.job_id for lease in (*older, *failed.next)], "one of them was given it"


async def test_a_refused_entry_leaves_the_others_of_its_batch_alone(aqueue: AsyncQueue) -> None:
    await aqueue.enqueue("t", "taken", job_id="j5")

    answers = await asyncio.gather(*(aqueue.enqueue("t", n, job_id=f"j{n}") for n in range(10)), return_exceptions=True)

    assert [5] == [n for n, answer in enumerate(answers) if isinstance(answer, JobConflict)]
    assert 10 == len(await drained(aqueue))


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4, 6])
async def test_who_is_cancelled_harms_no_other_enqueue(aqueue: AsyncQueue, turns: int) -> None:
    tasks = [asyncio.create_task(aqueue.enqueue("t", n, job_id=f"j{n}")) for n in range(90)]
    for _ in range(turns):
        await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    kept = {f"j{n}" for n in range(90) if n % 3}
    assert kept == {answer.job_id for answer in answers if isinstance(answer, Enqueued)} & kept
    taken = await drained(aqueue)
    assert len(taken) == len(set(taken))
    assert kept <= set(taken)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4, 6, 10])
async def test_who_is_cancelled_takes_no_job_along(aqueue: AsyncQueue, turns: int) -> None:
    """Forty claims wait, twenty give up while twenty jobs come: the other twenty get one each, and soon."""
    waiting = [asyncio.create_task(aqueue.claim(wait_s=30, start=True)) for _ in range(40)]
    await aqueue.upkeep()
    ids = {(await aqueue.enqueue("t")).job_id for _ in range(5)}

    coming = asyncio.gather(*(aqueue.enqueue("t") for _ in range(15)))
    for _ in range(turns):
        await asyncio.sleep(0)
    unlucky = [task for task in waiting if not task.done()][::2]
    for task in unlucky:
        task.cancel()
    ids |= {answer.job_id for answer in await coming}
    lucky = [task for task in waiting if task not in unlucky]
    got: list[Lease] = []
    async with asyncio.timeout(10):
        while len(got) < len(ids):
            await asyncio.wait([task for task in lucky if not task.done()], return_when=asyncio.FIRST_COMPLETED)
            got = [lease for task in lucky if task.done() for lease in task.result()]

    assert sorted(lease.job_id for lease in got) == sorted(ids), "each job once"
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize("turns", range(8))
async def test_who_is_cancelled_while_finishing_takes_no_next_job_along(aqueue: AsyncQueue, turns: int) -> None:
    """The job that was claimed in the same round trip goes to who asks next, long before its lease would end."""
    for _ in range(2):
        await aqueue.enqueue("t")
    [held] = await aqueue.claim(start=True, lease_s=600)
    finishing = asyncio.create_task(aqueue.complete(held, claim_next=1))
    for _ in range(turns):
        await asyncio.sleep(0)
    finishing.cancel()
    [outcome] = await asyncio.gather(finishing, return_exceptions=True)

    if isinstance(outcome, BaseException):
        assert isinstance(outcome, asyncio.CancelledError)
        async with asyncio.timeout(10):
            assert len(await aqueue.claim(wait_s=9, start=True)) == 1
    else:
        assert len(outcome.next) == 1


async def test_a_batch_is_bounded_in_bytes(aqueue: AsyncQueue, redis: redis_py.Redis) -> None:
    await aqueue.enqueue("first")
    before = scripts_run(redis)
    payload = b"x" * LARGE

    await asyncio.gather(*(aqueue.enqueue("t", payload) for _ in range(40)))

    assert FEWEST <= scripts_run(redis) - before < 40
    assert {b"null", payload} == {lease.payload for lease in await aqueue.claim(41)}


async def test_a_call_of_too_many_bytes_travels_in_parts(aqueue: AsyncQueue, redis: redis_py.Redis) -> None:
    await aqueue.enqueue("first")
    before = scripts_run(redis)
    payload = b"x" * LARGE

    answers = await aqueue.enqueue_many(JobSpec(job_id=f"j{n}", payload=payload) for n in range(40))

    assert FEWEST <= scripts_run(redis) - before
    assert [f"j{n}" for n in range(40)] == [getattr(answer, "job_id", answer) for answer in answers]


async def test_batches_grow_while_the_server_is_busy(aqueue: AsyncQueue, redis: redis_py.Redis) -> None:
    """Calls that come one after the other, faster than answers, still travel together."""
    await aqueue.enqueue("first")
    before = scripts_run(redis)
    tasks = []
    for n in range(600):
        tasks.append(asyncio.create_task(aqueue.enqueue("t", n)))
        if n % 3 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)

    assert scripts_run(redis) - before < 300


async def test_heartbeats_and_completions_of_many_holders_travel_together(
    aqueue: AsyncQueue, redis: redis_py.Redis
) -> None:
    await aqueue.enqueue_many(JobSpec() for _ in range(100))
    leases = [lease for _ in range(4) for lease in await aqueue.claim(25, start=True)]
    before = scripts_run(redis)

    beats = await asyncio.gather(*(aqueue.heartbeat([lease]) for lease in leases))
    ends = await asyncio.gather(*(aqueue.complete(lease) for lease in leases))

    assert [(lease.job_id,) for lease in leases] == [beat.renewed for beat in beats]
    assert [lease.job_id for lease in leases] == [end.job_id for end in ends]
    assert scripts_run(redis) - before <= 8
