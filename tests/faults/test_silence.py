"""A server that is there and says nothing: everybody learns it after the time for one answer, or for two."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from hybridq import AsyncBackend, AsyncQueue, Connector, OutcomeUnknown, RedisUnavailable
from tests.servers import ServerProcess

REPLY_S = 1.0
SLACK_S = 0.9


@pytest.fixture
async def silent(server: ServerProcess, namespace: str) -> AsyncIterator[tuple[ServerProcess, AsyncQueue]]:
    """A server of its own that was frozen after its queue was used, and the queue, which waits a second for answers."""
    with ServerProcess(server.engine) as own:
        connector = Connector.parse(own.url).with_reply_wait(REPLY_S)
        async with AsyncBackend(connector) as backend, AsyncQueue("q", redis=backend, namespace=namespace) as queue:
            await asyncio.gather(queue.enqueue("t", job_id="known"), queue.stats(), queue.limits(), queue.upkeep())
            own.pause()
            try:
                yield own, queue
            finally:
                own.resume()


async def under_way(queue: AsyncQueue, trips: int) -> None:
    """Wait until so many round trips are under way, which the frozen server will not end."""
    while len(queue._coalescer._trips) < trips:
        await asyncio.sleep(0)


async def test_what_waits_behind_a_silent_server_fails_with_it_and_was_never_sent(
    silent: tuple[ServerProcess, AsyncQueue],
) -> None:
    server, queue = silent
    began = time.monotonic()
    sent = []
    for number in range(2):
        sent.append(asyncio.create_task(queue.enqueue("t", job_id=f"sent-{number}")))
        await under_way(queue, number + 1)
    behind = [asyncio.create_task(queue.enqueue("t", job_id=f"behind-{number}")) for number in range(120)]
    answers = await asyncio.gather(*behind, return_exceptions=True)

    assert {type(answer) for answer in answers} == {RedisUnavailable}
    assert REPLY_S - 0.1 < time.monotonic() - began < REPLY_S + SLACK_S
    server.resume()
    assert [answer.job_id for answer in await asyncio.gather(*sent)] == ["sent-0", "sent-1"], "they were sent again"
    page = await queue.jobs(limit=200)
    assert {job.job_id for job in page.items} == {"known", "sent-0", "sent-1"}


async def test_calls_of_one_round_trip_wait_for_a_silent_server_twice_whatever_their_number(
    silent: tuple[ServerProcess, AsyncQueue],
) -> None:
    """Each is a script of its own that would be sent once more: the first of them finds out for all."""
    _, queue = silent
    began = time.monotonic()
    answers = await asyncio.gather(
        queue.enqueue("t"), queue.upkeep(), queue.stats(), queue.limits(), queue.job("known"), queue.jobs(),
        queue.pause(), return_exceptions=True,
    )  # fmt: skip

    assert {type(answer) for answer in answers} <= {RedisUnavailable, OutcomeUnknown}
    assert time.monotonic() - began < 2 * REPLY_S + SLACK_S
