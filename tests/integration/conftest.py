"""Queues of both colours on real servers."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import pytest_asyncio
import redis as redis_py

from hybridq import AsyncQueue
from tests import servers
from tests.conformance.colours import COLOURS, opened

Open = Callable[..., Any]
Spawn = Callable[..., "Future[Any]"]


def _first_engine() -> str:
    asked = os.environ.get("HYBRIDQ_TEST_ENGINES")
    for engine in asked.split(",") if asked else servers.ENGINES:
        with contextlib.suppress(servers.EngineMissing):
            servers.find_binary(engine)
            return engine
    return servers.ENGINES[0]


ENGINE = _first_engine()
one_engine = pytest.mark.parametrize("server", [ENGINE], indirect=True)
"""For tests that take seconds and look at the library more than at the server."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "scale: what a long queue costs; HYBRIDQ_TEST_SCALE says how long")


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    """The colours of a queue: blocking, and awaited."""
    return str(request.param)


@pytest.fixture
def open_queue(colour: str, redis_url: str, namespace: str) -> Iterator[Open]:
    """Opens queues of one colour on one server, all closed at the end."""
    with contextlib.ExitStack() as stack:

        def open_one(name: str = "work", **named: Any) -> Any:
            options = {"redis": redis_url, "namespace": namespace, "agent": "ann"} | named
            return stack.enter_context(opened(colour, name, **options))

        yield open_one


@pytest.fixture
def queue(open_queue: Open) -> Any:
    """A queue of one colour; its agent is ann."""
    return open_queue()


@pytest_asyncio.fixture
async def aqueue(redis_url: str, namespace: str) -> AsyncIterator[AsyncQueue]:
    """A queue for tests of what only the async colour does."""
    async with AsyncQueue("work", redis=redis_url, namespace=namespace, agent="ann") as queue:
        yield queue


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Runs calls in threads; every test ends with all of them done."""
    with ThreadPoolExecutor(max_workers=64) as threads:
        yield threads.submit


def scripts_run(redis: redis_py.Redis) -> int:
    """Return how many scripts the server has run."""
    return sum(
        int(stat["calls"])
        for name, stat in redis.info("commandstats").items()
        if name in ("cmdstat_evalsha", "cmdstat_eval")
    )


def wait_until_parked(redis: redis_py.Redis, channel: str) -> None:
    """Wait until somebody listens on the bell of a queue and no more scripts are run for a while: all are asleep."""
    servers.wait_until(lambda: redis.pubsub_numsub(channel)[0][1] > 0, 10, what="somebody listens")
    seen: list[int] = []

    def quiet() -> bool:
        seen.append(scripts_run(redis))
        return len(seen) > QUIET_LOOKS and len(set(seen[-QUIET_LOOKS:])) == 1

    servers.wait_until(quiet, 10, what="no more claims are sent")


QUIET_LOOKS = 12
"""At one look each 5 ms or more: longer than the way from a subscription to the claim that follows it."""


async def settled(predicate: Callable[[], object], timeout_s: float = 10.0, *, what: str = "condition") -> None:
    """Wait in a thread until `predicate` is true, so that the event loop goes on."""
    await asyncio.to_thread(servers.wait_until, predicate, timeout_s, what=what)
