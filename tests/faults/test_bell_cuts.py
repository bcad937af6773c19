"""The pub/sub connection is killed again and again under load: a wake-up may come late, by the fallback, never not."""

from __future__ import annotations

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conformance.colours import COLOURS, opened
from tests.integration.conftest import one_engine
from tests.servers import ServerProcess

LOAD_S = float(os.environ.get("HYBRIDQ_TEST_BELL_S", "10"))
LEASE_S = 3.0
FALLBACK_S_MAX = 1.2
"""A third of the lease, and a fifth for jitter."""
CLAIM_S_MAX = 0.8
"""What reconnecting and claiming may take on a busy machine."""
CONSUMERS = 8


class Consumers:
    """Claims that wait all the time, and how long each job took to reach one of them."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self.enqueued: dict[str, float] = {}
        self.waits: dict[str, float] = {}
        self.over = threading.Event()

    def consume(self) -> None:
        while not (self.over.is_set() and len(self.waits) == len(self.enqueued)):
            for lease in self._queue.claim(wait_s=1.0, start=True):
                self.waits[lease.job_id] = time.monotonic() - self.enqueued[lease.job_id]
                self._queue.complete(lease)

    def produce(self) -> None:
        rng, end = random.Random(11), time.monotonic() + LOAD_S
        while time.monotonic() < end:
            job_id = f"job-{len(self.enqueued)}"
            self.enqueued[job_id] = time.monotonic()
            self._queue.enqueue("build", job_id=job_id)
            self.over.wait(rng.uniform(0.0, 0.1))
        self.over.set()

    def cut(self, server: ServerProcess) -> int:
        """Kill the listening connections at random moments; return how many there were."""
        rng, cuts = random.Random(12), 0
        with server.client() as killer:
            while not self.over.wait(rng.uniform(0.02, 0.3)):
                cuts += killer.client_kill_filter(_type="pubsub")
        return cuts


@one_engine
@pytest.mark.timeout(180)
@pytest.mark.parametrize("colour", COLOURS)
def test_no_wake_up_is_lost_for_longer_than_the_fallback(server: ServerProcess, namespace: str, colour: str) -> None:
    """Each job is claimed within the fallback's period of its enqueue, whenever the connection was cut."""
    with opened(colour, "work", redis=server.url, namespace=namespace, lease_s=LEASE_S) as queue:
        crowd = Consumers(queue)
        with ThreadPoolExecutor(CONSUMERS + 1) as threads:
            consumers = [threads.submit(crowd.consume) for _ in range(CONSUMERS)]
            cuts = threads.submit(crowd.cut, server)
            crowd.produce()
            for consumer in consumers:
                consumer.result(30)

    assert cuts.result() > LOAD_S
    assert crowd.waits.keys() == crowd.enqueued.keys()
    assert max(crowd.waits.values()) < FALLBACK_S_MAX + CLAIM_S_MAX
