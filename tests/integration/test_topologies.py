"""The same queue on a cluster of three primaries, and behind a Sentinel that fails over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from redis.crc import key_slot

from hybridq import AsyncQueue, HybridqError, JobStatus, Queue, StaleLease, check
from tests import servers
from tests.integration.conftest import ENGINE
from tests.servers import wait_until

QUEUES = [f"queue-{n}" for n in range(8)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[servers.Cluster]:
    with servers.Cluster(ENGINE) as cluster:
        yield cluster


@pytest.mark.xdist_group("cluster")
def test_queues_spread_over_a_cluster_and_each_keeps_its_slot(cluster: servers.Cluster, namespace: str) -> None:
    """Eight queues, at least two primaries: every verb finds the right one, and every invariant holds on all."""
    for name in QUEUES:
        with Queue(name, redis=cluster.url, namespace=namespace) as queue:
            queue.enqueue("build", {"q": name}, job_id="one")
            queue.enqueue("build", {"q": name}, job_id="two", priority="HIGH", unique="key")
            [first] = queue.claim(start=True)
            finished = queue.complete(first, {"ok": name}, claim_next=1)
            queue.fail(queue.start(finished.next[0]), "broken", retryable=False)

            assert ["two", "one"] == [first.job_id, finished.next[0].job_id]
            assert JobStatus.FAILED == queue.job("one").status
            assert {"ok": name} == queue.job("two").result
            report = check.keyspace(queue.connector.sync(), namespace, name)
            report.raise_if_broken()

    slots = {key_slot(f"hq:{{{namespace}/q/{name}}}:meta".encode()) * 3 // 16384 for name in QUEUES}
    assert len(slots) > 1


@pytest.mark.xdist_group("cluster")
async def test_a_parked_claim_on_a_cluster_is_woken_by_an_enqueue_elsewhere(
    cluster: servers.Cluster, namespace: str
) -> None:
    """Pub/sub reaches every node, whichever the listener is connected to."""
    for name in QUEUES[:4]:
        async with (
            AsyncQueue(name, redis=cluster.url, namespace=namespace) as waits,
            AsyncQueue(name, redis=cluster.url, namespace=namespace) as sends,
        ):
            parked = asyncio.create_task(waits.claim(wait_s=20, start=True))
            await sends.enqueue("build", {"n": 1})
            [lease] = await parked
            answers = await asyncio.gather(*(sends.enqueue("build", n) for n in range(100)))

            assert JobStatus.COMPLETED == (await waits.complete(lease)).status
            assert 100 == len({answer.job_id for answer in answers})


@pytest.mark.timeout(120)
@pytest.mark.xdist_group("cluster")
def test_a_failover_behind_a_sentinel_is_lived_through(namespace: str) -> None:
    """The primary dies; within ten seconds the queue answers again, and every later fence is above all earlier ones."""
    with (
        servers.SentinelSet(ENGINE) as sentinels,
        Queue("work", redis=sentinels.url, namespace=namespace, agent="ann") as queue,
    ):
        for n in range(10):
            queue.enqueue("build", job_id=f"job-{n}")
        held = queue.claim(3, start=True)
        queue.complete(held[0])
        sentinels.primary.kill()
        sentinels.wait_failover()

        def answers() -> bool:
            try:
                return bool(queue.enqueue("after", job_id="after").job_id)
            except HybridqError:
                return False

        wait_until(answers, 15, what="the queue answers after the failover")
        later = queue.claim(10, start=True)

        assert later and min(lease.fence for lease in later) > max(lease.fence for lease in held)
        for lease in held[1:]:
            # Replication is asynchronous: the promoted replica may not have known the lease, and then says so.
            try:
                assert JobStatus.COMPLETED == queue.complete(lease).status
            except StaleLease:
                assert lease.job_id in {other.job_id for other in later}
        check.keyspace(queue.connector.sync(), namespace).raise_if_broken()
