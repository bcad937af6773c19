"""A cluster all of whose nodes are gone: what redis-py says of it in words of its own is told in the library's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from hybridq import OutcomeUnknown, RedisUnavailable
from tests.conformance.colours import COLOURS, opened
from tests.integration.conftest import ENGINE
from tests.servers import Cluster, wait_until

LEASE_S = 3


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(ENGINE, primaries=1) as cluster:
        yield cluster


@pytest.fixture(params=COLOURS)
def queue(request: pytest.FixtureRequest, cluster: Cluster, namespace: str) -> Iterator[Any]:
    with opened(request.param, "work", redis=cluster.url, namespace=namespace, agent="ann", lease_s=LEASE_S) as queue:
        queue.enqueue(job_id="first", type="work")
        yield queue


def test_every_call_says_that_redis_is_away(cluster: Cluster, queue: Any) -> None:
    cluster.servers[0].kill()
    with pytest.raises((RedisUnavailable, OutcomeUnknown)):
        queue.enqueue("work")

    for call in (lambda: queue.enqueue("work"), queue.claim, queue.stats, lambda: queue.job("first")):
        with pytest.raises(RedisUnavailable) as caught:
            call()
        assert caught.value.url == cluster.url


def test_who_waits_for_work_is_told_within_a_lease(cluster: Cluster, queue: Any) -> None:
    queue.complete(*queue.claim(start=True))
    told: list[Exception] = []

    def wait() -> None:
        try:
            queue.claim(wait_s=60)
        except (RedisUnavailable, OutcomeUnknown) as problem:
            told.append(problem)

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(lambda: _listeners(cluster, queue), 10, what="the bell is listened to")
    cluster.servers[0].kill()
    waiting.join(LEASE_S + 5)

    assert len(told) == 1


def _listeners(cluster: Cluster, queue: Any) -> bool:
    with cluster.servers[0].client() as client:
        return bool(client.pubsub_channels(f"{queue.root}:bell"))
