"""A failover by the sentinels: calls resume, leases live on or are lost honestly, and every fence grows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from hybridq import JobSpec, check
from tests.conformance.colours import COLOURS, opened
from tests.faults.load import Load
from tests.integration.conftest import ENGINE
from tests.servers import SentinelSet

RESUMED_S = 10.0
"""The sentinel takes a second to believe that the primary is gone, and about as long to promote the replica."""


@pytest.fixture
def sentinels() -> Iterator[SentinelSet]:
    with SentinelSet(ENGINE) as sentinels:
        yield sentinels


def test_both_colours_go_on_after_a_failover(sentinels: SentinelSet) -> None:
    """Everything the replica had is there afterwards; what came in the last moment may be gone, as replication is
    asynchronous: so this asks for no more than what was on the replica for certain.
    """
    with contextlib.ExitStack() as stack:
        queues = [stack.enter_context(opened(colour, colour, redis=sentinels.url)) for colour in COLOURS]
        for queue in queues:
            queue.enqueue_many(JobSpec(job_id=f"early{n}", payload=n) for n in range(40))
        held = [queue.claim(10, start=True) for queue in queues]
        with sentinels.primary.client() as client:
            # Counts what this connection wrote, so write something last.
            client.set("last", "1")
            assert 1 == client.wait(1, 5000), "the replica has everything"
        loads = [stack.enter_context(Load(queue, producers=1, workers=2)) for queue in queues]
        for load in loads:
            load.wait_for_progress(10)
        before = [
            max([*load.fences, *(lease.fence for lease in given)]) for load, given in zip(loads, held, strict=True)
        ]

        sentinels.primary.kill()
        killed_at = time.monotonic()
        for load in loads:
            load.wait_for_progress(1, RESUMED_S)

        assert time.monotonic() - killed_at < RESUMED_S
        sentinels.wait_failover()
        for queue, given, load, fence in zip(queues, held, loads, before, strict=True):
            beat = queue.heartbeat(given)
            assert {lease.job_id for lease in given} == set(beat.renewed), "the replica knew these leases"
            for lease in given:
                queue.complete(lease)
            load.wait_for_progress(20)
            assert min(load.fences[-20:]) > fence
            assert all(queue.job(f"early{n}").decode() == n for n in range(40))
    with sentinels.replica.client() as client:
        check.keyspace(client, "default").raise_if_broken()
