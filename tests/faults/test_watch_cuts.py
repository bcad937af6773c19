"""The reader's connection is cut, the server restarts, stands still, loses its data: what is still there is told."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest

from hybridq import AsyncWatch, Event
from tests.integration.conftest import ENGINE, one_engine, settled
from tests.integration.test_watch import World, nothing_comes, take, told, written
from tests.proxy import Proxy
from tests.servers import ServerProcess

NAMES = ["a", "b", "c"]


@contextlib.asynccontextmanager
async def watched(server: ServerProcess, namespace: str, proxy: Proxy | None = None) -> AsyncIterator[World]:
    """Queues on a server, and a watch that goes through the proxy."""
    world = World(server.url, namespace)
    if proxy is not None:
        world.watch = AsyncWatch(proxy.url)
    try:
        yield world
    finally:
        await world.close()


@one_engine
async def test_a_connection_that_is_cut_again_and_again_loses_nothing(server: ServerProcess, namespace: str) -> None:
    """While followers come, go on and leave, so cuts meet every kind of question."""
    over = asyncio.Event()

    async def produce(world: World) -> None:
        rng = random.Random(1)
        for _ in range(300):
            await world.enqueue(rng.choice(NAMES), rng.choice((1, 2, 30)))
            await asyncio.sleep(rng.uniform(0, 0.015))
        over.set()

    async def cut(proxy: Proxy) -> int:
        rng, cuts = random.Random(2), 0
        while not over.is_set():
            await asyncio.sleep(rng.uniform(0.01, 0.12))
            await asyncio.to_thread(proxy.cut)
            cuts += 1
        return cuts

    async def stay(world: World, after: str) -> list[Event]:
        found: list[Event] = []
        async with world.follow(*NAMES, after=after) as events:
            while True:
                ended = over.is_set()
                some = await events.take(wait_s=3.0 if ended else 0.2)
                found += some
                if ended and not some:
                    return found

    async def come_and_go(world: World, after: str) -> list[Event]:
        rng, found = random.Random(3), list[Event]()
        while True:
            ended = over.is_set()
            with contextlib.suppress(Exception if not ended else ()):
                async with world.follow(*NAMES, after=after) as events:
                    for _ in range(rng.randrange(1, 5)):
                        some = await events.take(rng.randrange(1, 50), wait_s=3.0 if ended else 0.05)
                        found += some
                        after = some[-1].id if some else after
                        if ended and not some:
                            return found

    with Proxy(server.url) as proxy:
        async with watched(server, namespace, proxy) as world:
            async with world.follow(*NAMES) as events:
                start = events.position
            stayed = asyncio.create_task(stay(world, start))
            went = asyncio.create_task(come_and_go(world, start))
            cutting = asyncio.create_task(cut(proxy))
            await produce(world)
            assert await cutting > 10
            results = [await stayed, await went]
            with server.client() as client:
                for name in NAMES:
                    expected = written(client, world.stream(name))
                    for found in results:
                        assert expected == told(found, name)


@one_engine
async def test_answers_that_are_cut_in_the_middle_lose_nothing(server: ServerProcess, namespace: str) -> None:
    with Proxy(server.url) as proxy:
        async with watched(server, namespace, proxy) as world, world.follow("a") as events:
            found: list[Event] = []
            for n in range(20):
                proxy.cut_reply_after(n * 7, b"XREAD")
                await asyncio.to_thread(proxy.cut)
                await world.enqueue("a", 20)
                found += await take(events, 20)
            with server.client() as client:
                assert written(client, world.stream("a")) == told(found, "a")


@one_engine
async def test_a_server_that_is_away_for_a_while_is_not_noticed(server: ServerProcess, namespace: str) -> None:
    """Neither by a live follower nor by one that begins to catch up while it is away."""
    with Proxy(server.url) as proxy:
        async with watched(server, namespace, proxy) as world, world.follow("a") as events:
            await world.enqueue("a", 3)
            found = await take(events, 3)
            async with world.follow("a", after=found[0].id) as behind:
                proxy.blackhole()
                await asyncio.to_thread(proxy.cut)
                await world.enqueue("a", 3)
                await nothing_comes(events, 0.3)
                await nothing_comes(behind, 0.3)
                await asyncio.to_thread(proxy.cut)
                proxy.heal()
                found += await take(events, 3, 20)
                assert told(found[1:], "a") == told(await take(behind, 5, 20), "a")


async def test_a_restart_of_redis_loses_nothing(namespace: str) -> None:
    with ServerProcess(ENGINE, aof=True) as server:
        async with watched(server, namespace) as world, world.follow("a", "b") as events:
            await world.enqueue("a", 20)
            found = await take(events, 20)
            await asyncio.to_thread(server.kill)
            await nothing_comes(events, 0.2)
            await asyncio.to_thread(server.start)
            await world.enqueue("a", 20)
            await world.enqueue("b", 5)
            found += await take(events, 25)
            with server.client() as client:
                for name in ("a", "b"):
                    assert written(client, world.stream(name)) == told(found, name)


async def test_a_restart_without_the_data_is_a_reset(namespace: str) -> None:
    with ServerProcess(ENGINE) as server:
        async with watched(server, namespace) as world, world.follow("a", "b") as events:
            await world.enqueue("a", 2)
            [_, last] = await take(events, 2)
            await asyncio.to_thread(server.restart)
            [reset] = await take(events, 1)
            assert ("reset", None, None) == (reset.type, reset.queue, reset.job_id)
            async with World(server.url, namespace).watch as other:
                async with other.follow(["a"], namespace=namespace, after=last.id) as again:
                    assert ["reset"] == [one.type for one in await take(again, 1)]
                    fresh = World(server.url, namespace)
                    ids = await fresh.enqueue("a", 3)
                    assert ids == [one.job_id for one in await take(again, 3)]
                    assert ids == [one.job_id for one in await take(events, 3)]
                    await fresh.close()


@one_engine
async def test_what_was_trimmed_while_the_reader_was_away_is_one_reset(server: ServerProcess, namespace: str) -> None:
    with Proxy(server.url) as proxy, server.client() as client:
        async with watched(server, namespace, proxy) as world, world.follow("a", "b") as events:
            async with world.follow("b") as untouched:
                await world.enqueue("a", 2)
                await world.enqueue("b", 2)
                await take(events, 4)
                await take(untouched, 2)
                proxy.blackhole()
                await asyncio.to_thread(proxy.cut)
                for _ in range(5):
                    await world.enqueue("a")
                await world.enqueue("b")
                client.xtrim(world.stream("a"), maxlen=2, approximate=False)
                await asyncio.to_thread(proxy.cut)
                proxy.heal()

                found = await take(events, 4, 20)
                assert "reset" == found[0].type
                assert written(client, world.stream("a")) == told(found, "a")
                assert 1 == len(told(found, "b"))
                assert ["job.enqueued"] == [one.type for one in await take(untouched, 1)]
                await nothing_comes(events, 0.05)


@one_engine
async def test_a_reader_that_stands_still_while_a_queue_is_trimmed_says_so(
    server: ServerProcess, namespace: str
) -> None:
    """No connection breaks here: the process was busy for so long that the stream was trimmed past it."""
    async with watched(server, namespace) as world, world.follow("a") as events:
        await world.queue("a").configure(events_max=100)
        await world.enqueue("a", 2)
        await take(events, 2)
        with server.client() as client:
            before = client.dump(world.stream("a"))
            assert before is not None
            # All in one transaction, so that the reader wakes up when it is over.
            pipe = client.pipeline(transaction=True)
            for n in range(400):
                pipe.execute_command(
                    "XADD", world.stream("a"), "MAXLEN", "~", 100, "*", "job.priority", f"j{n} QUEUED - 0"
                )
            pipe.execute()
            left = written(client, world.stream("a"))

            found = await take(events, 1 + len(left))
            assert "reset" == found[0].type
            assert left == told(found[1:], "a")


@pytest.mark.timeout(60)
async def test_a_server_that_is_gone_and_back_serves_followers_that_came_meanwhile(namespace: str) -> None:
    with ServerProcess(ENGINE, aof=True) as server:
        async with watched(server, namespace) as world, world.follow("a") as events:
            await world.enqueue("a")
            await take(events, 1)
            await asyncio.to_thread(server.kill)
            async with world.follow("a") as second:  # known to the reader: nothing has to be asked
                await asyncio.to_thread(server.start)
                ids = await world.enqueue("a", 2)
                assert ids == [one.job_id for one in await take(events, 2)]
                assert ids == [one.job_id for one in await take(second, 2)]
            await settled(lambda: server.running)
