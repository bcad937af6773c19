"""Events reach every follower once and in order: live, after a break, under load, from any number of queues."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any

import pytest
import pytest_asyncio
import redis as redis_py

from hybridq import (
    AsyncBackend,
    AsyncFleet,
    AsyncQueue,
    AsyncWatch,
    Event,
    Follower,
    InvalidArgument,
    JobSpec,
    RedisUnavailable,
    SlowFollower,
)
from hybridq.keys import queue_root
from hybridq.testing import fake_connector
from hybridq.watch._position import Spot
from tests.integration.conftest import ENGINE, one_engine, settled
from tests.servers import Cluster, ServerProcess

SOON_S = 10.0


class World:
    """A watch, and queues whose events can be compared with what their streams hold."""

    def __init__(self, redis: Any, namespace: str) -> None:
        self.backend = AsyncBackend(redis)
        self.namespace = namespace
        self.watch = AsyncWatch(redis)
        self._queues: dict[str, AsyncQueue] = {}

    def queue(self, name: str) -> AsyncQueue:
        if name not in self._queues:
            self._queues[name] = AsyncQueue(name, redis=self.backend, namespace=self.namespace, agent="ann")
        return self._queues[name]

    def follow(self, *queues: str, **named: Any) -> Follower:
        return self.watch.follow(queues, namespace=self.namespace, **named)

    async def enqueue(self, name: str, n: int = 1) -> list[str]:
        made = await self.queue(name).enqueue_many(JobSpec() for _ in range(n))
        return [one.job_id for one in made]  # type: ignore[union-attr]

    async def close(self) -> None:
        await self.watch.close()
        for queue in self._queues.values():
            await queue.close()
        await self.backend.close()

    def stream(self, name: str) -> str:
        return f"{queue_root(self.namespace, name)}:events"

    def written(self, redis: redis_py.Redis, name: str) -> list[tuple[str, str]]:
        """Return (type, subject) of all events in the stream of a queue, straight from Redis."""
        return written(redis, self.stream(name))


def written(redis: redis_py.Redis, key: str) -> list[tuple[str, str]]:
    redis.set_response_callback("XRANGE", lambda reply, **_: reply)
    found = []
    for _, fields in redis.execute_command("XRANGE", key, "-", "+"):
        for kind, value in zip(fields[::2], fields[1::2], strict=True):
            found.append((kind.decode(), value.decode().split(" ")[0]))
    return found


def told(events: Iterable[Event], queue: str) -> list[tuple[str, str]]:
    """Return the same of what a follower was given."""
    return [(event.type, event.job_id or "-") for event in events if event.queue == queue]


async def take(follower: Follower, n: int, timeout_s: float = SOON_S) -> list[Event]:
    """Take exactly `n` events; fail with what came when they do not come."""
    found: list[Event] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while len(found) < n:
                found += await follower.take(n - len(found))
    assert n == len(found), [(event.type, event.queue, event.job_id) for event in found[-5:]]
    return found


async def nothing_comes(follower: Follower, within_s: float = 0.15) -> None:
    assert [] == await follower.take(wait_s=within_s)


def readers(redis: redis_py.Redis) -> list[Any]:
    return [one for one in redis.client_list() if one["cmd"] == "xread" and one["flags"] != "N"]


@pytest_asyncio.fixture
async def world(redis_url: str, namespace: str) -> AsyncIterator[World]:
    made = World(redis_url, namespace)
    yield made
    await made.close()


# -- what an event says ----------------------------------------------------------------------------------------


async def test_the_life_of_a_job_in_order(world: World) -> None:
    queue = world.queue("work")
    before = time.time()
    async with world.follow("work") as events:
        await queue.enqueue("t", job_id="j", max_attempts=2)
        for n in range(2):
            [lease] = await queue.claim(start=n == 1)
            if n == 0:
                lease = await queue.start(lease)
            await queue.fail(lease, delay_s=0)
        await queue.pause("a release")
        await queue.dead.replay(["j"])

        found = await take(events, 8)

    assert [
        ("job.enqueued", "j", None, "QUEUED", 0),
        ("job.claimed", "j", "ann", "CLAIMED", 0),
        ("job.started", "j", "ann", "RUNNING", 1),
        ("job.retried", "j", "ann", "QUEUED", 1),
        ("job.claimed", "j", "ann", "RUNNING", 2),
        ("job.dead_lettered", "j", "ann", "DEAD_LETTERED", 2),
        ("queue.paused", None, None, "PAUSED", None),
        ("job.replayed", "j", None, "QUEUED", 0),
    ] == [(one.type, one.job_id, one.agent_id, one.status, one.attempt) for one in found]
    assert {"work"} == {one.queue for one in found}
    assert all(before - 1 < one.at.timestamp() < time.time() + 1 for one in found)
    assert len(found) == len({one.id for one in found})


async def test_agents_of_the_fleet_are_followed_beside_queues(world: World) -> None:
    async with AsyncFleet(redis=world.backend, namespace=world.namespace) as fleet:
        async with world.follow("work", fleet=True) as events:
            await fleet.register("ann", pool="work", boot_id="b1")
            await world.enqueue("work")
            found = await take(events, 2)

    assert [("agent.registered", "work", "ann", None), ("job.enqueued", "work", None, found[1].job_id)] == [
        (one.type, one.queue, one.agent_id, one.job_id) for one in found
    ]


@pytest.mark.parametrize(
    ("types", "kinds"),
    [
        (["job"], ["job.enqueued", "job.cancelled"]),
        (["job.cancelled", "queue"], ["queue.paused", "job.cancelled"]),
        (["job.enq"], []),
        ([], []),
    ],
)
@one_engine
async def test_a_follower_gets_the_types_it_asked_for(world: World, types: Sequence[str], kinds: list[str]) -> None:
    async with world.follow("work", types=types) as events, world.follow("work") as everything:
        [job_id] = await world.enqueue("work")
        await world.queue("work").pause()
        await world.queue("work").cancel(job_id)
        await take(everything, 3)

        assert kinds == [one.type for one in await take(events, len(kinds))]
        await nothing_comes(events, 0.05)


# -- from when -------------------------------------------------------------------------------------------------


async def test_following_begins_now(world: World) -> None:
    """With the first event after it, also when the stream was read by nobody, or is read for others already."""
    await world.enqueue("work", 3)
    async with world.follow("work") as first:
        [fourth] = await world.enqueue("work")
        assert [fourth] == [one.job_id for one in await take(first, 1)]
        async with world.follow("work") as second:
            await nothing_comes(second)
            [fifth] = await world.enqueue("work")
            assert [fifth] == [one.job_id for one in await take(first, 1)]
            assert [fifth] == [one.job_id for one in await take(second, 1)]


async def test_going_on_begins_after_the_event_that_was_seen_last(world: World, redis: redis_py.Redis) -> None:
    """At each event, the middle of an entry of many included, alone and beside others that are live."""
    async with world.follow("work") as events:
        await world.enqueue("work", 40)
        found = await take(events, 40)
        assert 3 == redis.xlen(world.stream("work")), "several events an entry"
        for at in range(40):
            async with world.follow("work", after=found[at].id) as again:
                assert told(found[at + 1 :], "work") == told(await take(again, 39 - at), "work")
                if at % 10 == 0:
                    await nothing_comes(again, 0.02)
    for at in (0, 7, 15, 16, 39):
        async with world.follow("work", after=found[at].id) as again:
            assert told(found[at + 1 :], "work") == told(await take(again, 39 - at), "work")
            await nothing_comes(again, 0.02)


@one_engine
async def test_a_position_without_an_event_can_be_gone_on_from_too(world: World) -> None:
    """A client that was connected and heard nothing misses nothing either."""
    await world.enqueue("work", 2)
    async with world.follow("work", "other") as events:
        position = events.position
    ids = await world.enqueue("work", 2) + await world.enqueue("other")

    async with world.follow("work", "other", after=position) as events:
        assert set(ids) == {one.job_id for one in await take(events, 3)}
        await nothing_comes(events, 0.02)
        position = events.position
    async with world.follow("work", "other", after=position) as events:
        await nothing_comes(events)


@one_engine
async def test_who_has_seen_more_than_a_reader_is_told_nothing_again(world: World) -> None:
    """A reader that began anew may stand a little before a follower, who read further with the one before it."""
    async with world.follow("work") as first:
        await world.enqueue("work", 40)
        found = await take(first, 40)
        stream = world.watch._find(world.stream("work"))
        assert stream is not None
        stream.last = Spot.at_ms(0)
        async with world.follow("work", after=found[20].id) as again, world.follow("other"):
            assert told(found[21:], "work") == told(await take(again, 19), "work")
            await nothing_comes(again, 0.05)
            [job_id] = await world.enqueue("work")
            assert [job_id] == [one.job_id for one in await take(again, 1)]


@one_engine
async def test_going_on_may_follow_other_queues_than_before(world: World) -> None:
    """A queue that was not followed goes on from the time of the event, one that is not followed now is left out."""
    async with world.follow("a", "b") as events:
        await world.enqueue("a")
        await world.enqueue("b")
        last = (await take(events, 2))[-1]
    # Streams have times of a millisecond; the next job must not share its own with the last event.
    await asyncio.to_thread(time.sleep, 0.002)
    [new] = await world.enqueue("c")
    await world.enqueue("b")

    async with world.follow("a", "c", after=last.id) as events:
        assert [("c", new)] == [(one.queue, one.job_id) for one in await take(events, 1)]
        await nothing_comes(events, 0.05)


@one_engine
async def test_a_queue_that_is_added_is_followed_from_the_beginning_of_the_follower(world: World) -> None:
    """A pool that came into being a moment ago has events before anybody knew of it."""
    await world.enqueue("new", 2)
    await asyncio.to_thread(time.sleep, 0.002)  # the follower begins with a millisecond
    async with world.follow("old") as events:
        missed = await world.enqueue("new", 40) + await world.enqueue("old", 2)
        found = await take(events, 2)
        await events.add(["new", "old"])
        await events.add(["new"])
        ids = await world.enqueue("new")
        found += await take(events, 41)
        await nothing_comes(events, 0.05)
    assert sorted(missed + ids) == sorted(one.job_id or "" for one in found)

    for at in (1, 2, 20, 41, 42):
        async with world.follow("old", "new", after=found[at].id) as again:
            assert {one.job_id for one in found[at + 1 :]} == {one.job_id for one in await take(again, 42 - at)}
            await nothing_comes(again, 0.02)


@one_engine
@pytest.mark.parametrize("after", ["", "x", "1-0", "A" * 9_000])
async def test_a_malformed_id_is_refused_before_anything_is_asked(world: World, after: str) -> None:
    with pytest.raises(InvalidArgument):
        world.follow("work", after=after)


@one_engine
async def test_an_id_of_another_namespace_is_refused(world: World) -> None:
    async with world.follow("work") as events:
        await world.enqueue("work")
        [event] = await take(events, 1)

    with pytest.raises(InvalidArgument):
        world.watch.follow(["work"], namespace="other", after=event.id)


@one_engine
async def test_namespaces_are_kept_apart(world: World, namespace: str) -> None:
    async with world.follow("work") as events, world.watch.follow(["work"], namespace=f"{namespace}-2") as others:
        await world.enqueue("work")
        await take(events, 1)
        await nothing_comes(others, 0.05)


# -- history that is gone --------------------------------------------------------------------------------------


async def test_trimmed_history_is_one_reset_and_then_what_there_is(world: World, redis: redis_py.Redis) -> None:
    async with world.follow("a", "b") as events:
        for _ in range(10):
            await world.enqueue("a")
            await world.enqueue("b")
        found = await take(events, 20)
    for name in "ab":
        redis.xtrim(world.stream(name), maxlen=3, approximate=False)

    async with world.follow("a", "b", after=found[4].id) as events:
        again = await take(events, 7)
        await nothing_comes(events, 0.05)

    assert [("reset", None, None)] == [(one.type, one.queue, one.job_id) for one in again[:1]]
    for name in "ab":
        assert world.written(redis, name) == told(again, name)
    async with world.follow("a", "b", after=again[0].id) as events:
        assert [one.job_id for one in again[1:]] == [one.job_id for one in await take(events, 6)]
        await nothing_comes(events, 0.05)
    async with world.follow("a", "b", after=found[-1].id) as events:
        await nothing_comes(events, 0.05)


@one_engine
async def test_a_queue_that_keeps_few_events_resets_who_stayed_away(world: World, redis: redis_py.Redis) -> None:
    """Trimming as it happens by itself."""
    queue = world.queue("work")
    await queue.configure(events_max=100)
    async with world.follow("work") as events:
        await world.enqueue("work", 2)
        last = (await take(events, 2))[-1]
    for _ in range(400):
        await queue.enqueue("t")
    kept = world.written(redis, "work")
    assert len(kept) < 402

    async with world.follow("work", after=last.id) as events:
        found = await take(events, 1 + len(kept))
        await nothing_comes(events, 0.05)

    assert "reset" == found[0].type
    assert kept == told(found[1:], "work")


@pytest.mark.breaks_keys
@one_engine
async def test_a_stream_that_was_emptied_or_flushed_resets_who_has_not_seen_its_end(
    world: World, redis: redis_py.Redis
) -> None:
    async with world.follow("work") as events:
        await world.enqueue("work", 2)
        found = await take(events, 2)
    redis.xtrim(world.stream("work"), maxlen=0, approximate=False)

    async with world.follow("work", after=found[1].id) as events:
        await nothing_comes(events, 0.05)
    async with world.follow("work", after=found[0].id) as events:
        assert ["reset"] == [one.type for one in await take(events, 1)]
        await nothing_comes(events, 0.05)

    redis.delete(world.stream("work"))
    async with world.follow("work", after=found[1].id) as events:
        assert ["reset"] == [one.type for one in await take(events, 1)]
        await world.enqueue("work")
        [after] = await take(events, 1)
    async with world.follow("work", after=found[1].id) as events:
        assert ["reset", "job.enqueued"] == [one.type for one in await take(events, 2)]
    async with world.follow("work", after=after.id) as events:
        await nothing_comes(events, 0.05)


@pytest.mark.breaks_keys
@one_engine
async def test_a_stream_of_an_older_backup_resets(world: World, redis: redis_py.Redis) -> None:
    """Its last id lies before what was seen."""
    async with world.follow("work") as events:
        await world.enqueue("work")
        await take(events, 1)
        backup = redis.dump(world.stream("work"))
        await world.enqueue("work")
        [event] = await take(events, 1)
    redis.restore(world.stream("work"), 0, backup, replace=True)

    async with world.follow("work", after=event.id) as events:
        assert ["reset"] == [one.type for one in await take(events, 1)]
        await nothing_comes(events, 0.05)
        ids = await world.enqueue("work", 2)
        assert ids == [one.job_id for one in await take(events, 2)]


# -- load ------------------------------------------------------------------------------------------------------


@one_engine
async def test_ten_thousand_events_reach_twenty_followers_in_order(world: World, redis: redis_py.Redis) -> None:
    """Singles and batches, over ten queues, while followers come and go on."""
    names = [f"q{n}" for n in range(10)]
    total = 10_000

    async def produce() -> None:
        rng, left = random.Random(3), total
        while left:
            parts = [min(left // 10 or left, rng.choice((1, 1, 5, 40))) for _ in names]
            parts = [part for part, _ in zip(parts, names, strict=True)]
            chosen = []
            for part, name in zip(parts, names, strict=True):
                part = min(part, left)
                left -= part
                if part:
                    chosen.append(world.enqueue(name, part))
            await asyncio.gather(*chosen)

    async def consume(follower: Follower) -> list[Event]:
        async with follower:
            started.release()
            return await take(follower, total, 60)

    started = asyncio.Semaphore(0)
    consumers = [asyncio.create_task(consume(world.follow(*names))) for _ in range(20)]
    for _ in consumers:
        await started.acquire()
    await produce()
    results = await asyncio.gather(*consumers)

    for name in names:
        expected = world.written(redis, name)
        for found in results:
            assert expected == told(found, name)


@one_engine
async def test_breaks_at_random_places_lose_nothing_and_repeat_nothing(world: World, redis: redis_py.Redis) -> None:
    names = [f"q{n}" for n in range(6)]
    over = asyncio.Event()

    async def produce() -> None:
        rng = random.Random(5)
        for _ in range(250):
            await asyncio.gather(*(world.enqueue(rng.choice(names), rng.choice((1, 3, 20))) for _ in range(3)))
        over.set()

    async def consume(seed: int) -> list[Event]:
        rng, found, after = random.Random(seed), list[Event](), first
        while True:
            ended = over.is_set()
            async with world.follow(*names, after=after) as events:
                for _ in range(rng.randrange(1, 6)):
                    some = await events.take(rng.randrange(1, 90), wait_s=1.0 if ended else 0.05)
                    found += some
                    after = some[-1].id if some else after
                    if ended and not some:
                        return found
                if rng.random() < 0.2:
                    after = events.position

    async with world.follow(*names) as events:
        first = events.position
    producing = asyncio.create_task(produce())
    results = await asyncio.gather(*(consume(seed) for seed in range(8)))
    await producing

    for name in names:
        expected = world.written(redis, name)
        for found in results:
            assert expected == told(found, name)


@one_engine
async def test_streams_that_join_and_leave_disturb_nobody(world: World, redis: redis_py.Redis) -> None:
    """Each new stream interrupts the read under way."""
    over = asyncio.Event()

    async def come_and_go() -> int:
        n = 0
        while not over.is_set():
            async with world.follow("work", f"other{n % 7}"), world.follow(f"more{n % 3}"):
                n += 1
                await asyncio.sleep(0)
        return n

    async with world.follow("work") as events:
        going = asyncio.create_task(come_and_go())
        for _ in range(300):
            await world.enqueue("work", 2)
        found = await take(events, 600)
        over.set()
        assert await going > 20

    assert world.written(redis, "work") == told(found, "work")


@one_engine
async def test_a_burst_larger_than_the_queue_of_a_follower_arrives_whole(world: World, redis: redis_py.Redis) -> None:
    """It falls behind, reads on for itself, and becomes live again."""
    async with world.follow("work") as events:
        await world.enqueue("work", 5_000)
        await settled(lambda: not events._live, what="the follower fell behind")
        assert len(events._waiting) <= 1_000
        found = await take(events, 5_000)
        await world.enqueue("work", 1)
        found += await take(events, 1)
        await nothing_comes(events, 0.02)  # who asks for more when there is no more is live again
        assert events._live

    assert world.written(redis, "work") == told(found, "work")


@one_engine
async def test_a_slow_follower_is_dropped_while_others_go_on(world: World, redis: redis_py.Redis) -> None:
    async with world.follow("work", slow_s=0.3) as slow, world.follow("work", slow_s=0.3) as other:
        await world.enqueue("work", 3)
        seen = await take(slow, 3)
        found = await take(other, 3)
        for _ in range(10):
            await world.enqueue("work", 200)
            found += await take(other, 200)
        async with asyncio.timeout(SOON_S):
            await slow.dropped.wait()
        with pytest.raises(SlowFollower):
            await slow.take()
        await world.enqueue("work", 1)
        found += await take(other, 1)

    assert world.written(redis, "work") == told(found, "work")
    async with world.follow("work", after=seen[-1].id) as again:
        assert told(found[3:], "work") == told(await take(again, len(found) - 3), "work")


@one_engine
async def test_who_waits_for_nothing_is_not_slow(world: World) -> None:
    """Neither one that looks seldom while little happens, nor one that waits for long."""
    async with world.follow("work", slow_s=0.1) as events:
        await asyncio.sleep(0.3)
        await world.enqueue("work", 10)
        await asyncio.sleep(0.3)
        assert 10 == len(await take(events, 10))
        await nothing_comes(events, 0.3)
        await world.enqueue("work", 1)
        await take(events, 1)


# -- what it costs ---------------------------------------------------------------------------------------------


async def test_fifty_followers_of_ten_queues_share_one_connection(world: World, redis: redis_py.Redis) -> None:
    names = [f"q{n}" for n in range(10)]
    async with contextlib.AsyncExitStack() as stack:
        followers = [
            await stack.enter_async_context(world.follow(*random.Random(n).sample(names, 3), names[n % 10]))
            for n in range(50)
        ]
        await settled(lambda: len(readers(redis)) == 1, what="one connection reads")
        for name in names:
            await world.enqueue(name)
        for follower in followers:
            assert len(follower._streams) == len(await take(follower, len(follower._streams)))
        await settled(lambda: len(readers(redis)) == 1)

    await settled(lambda: not readers(redis), what="nobody reads for nobody")


@one_engine
async def test_without_followers_there_is_no_connection(world: World, redis: redis_py.Redis) -> None:
    async with world.follow("work"):
        pass
    await settled(lambda: len(redis.client_list()) == 1, what="ours alone")

    async with world.follow("work") as events:
        await world.enqueue("work")
        await take(events, 1)


@one_engine
async def test_followers_cost_redis_next_to_nothing_while_nothing_happens(world: World, redis: redis_py.Redis) -> None:
    """A few commands in 15 s for fifty of them; the window is longer than a read ever waits."""
    async with contextlib.AsyncExitStack() as stack:
        followers = [await stack.enter_async_context(world.follow("a", "b", f"q{n}")) for n in range(50)]
        await settled(lambda: len(readers(redis)) == 1)
        before = int(redis.info("stats")["total_commands_processed"])

        assert [[]] * 50 == await asyncio.gather(*(follower.take(wait_s=16) for follower in followers))

        assert int(redis.info("stats")["total_commands_processed"]) - before - 1 <= 4


async def test_a_server_that_is_away_is_said_when_following_begins(namespace: str) -> None:
    with ServerProcess(ENGINE) as server:
        url = server.url
    world = World(url, namespace)
    with pytest.raises(RedisUnavailable):
        async with world.follow("work"):
            pass
    await world.close()


@one_engine
async def test_closing_the_watch_ends_every_follower(world: World) -> None:
    async def iterate() -> list[Event]:
        async with world.follow("work") as events:
            following.set()
            return [event async for event in events]

    following = asyncio.Event()
    task = asyncio.create_task(iterate())
    await following.wait()
    await world.enqueue("work", 2)
    await settled(lambda: not task.done())
    await world.watch.close()

    async with asyncio.timeout(SOON_S):
        assert len(await task) in (0, 1, 2)


# -- other servers ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(ENGINE) as cluster:
        yield cluster


async def test_on_a_cluster_each_stream_is_read_on_its_own(cluster: Cluster, namespace: str) -> None:
    names = [f"q{n}" for n in range(9)]
    world = World(cluster.url, namespace)
    try:
        async with world.follow(*names) as events:
            for name in names:
                await world.enqueue(name, 20)
            found = await take(events, 180)
            assert 9 == len(world.watch._readers)
            for at in (0, 50, 100, 179):
                async with world.follow(*names, after=found[at].id) as again:
                    rest = await take(again, 179 - at)
                    await nothing_comes(again, 0.05)
                for name in names:
                    assert told(found[at + 1 :], name) == told(rest, name)
            [job_id] = await world.enqueue("q3")
            assert [job_id] == [one.job_id for one in await take(events, 1)]
        assert {} == world.watch._readers
    finally:
        await world.close()


async def test_the_server_in_memory_is_followed_too(namespace: str) -> None:
    world = World(fake_connector(), namespace)
    try:
        async with world.follow("a", "b") as events:
            await world.enqueue("a", 40)
            found = await take(events, 40)
            await world.enqueue("b")
            found += await take(events, 1)
            async with world.follow("a", "b", "c", after=found[7].id) as again:
                assert [one.job_id for one in found[8:]] == [one.job_id for one in await take(again, 33)]
                [job_id] = await world.enqueue("c")
                assert [job_id] == [one.job_id for one in await take(again, 1)]
    finally:
        await world.close()
