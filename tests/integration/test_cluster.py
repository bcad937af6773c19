"""Queues on a cluster: each lives in one slot, and many share the nodes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from hybridq import JobSpec, JobStatus
from tests.conformance.colours import COLOURS, opened
from tests.integration.conftest import ENGINE, Spawn
from tests.servers import Cluster, wait_until

QUEUES = [f"q{n}" for n in range(9)]
SOON_S = 1.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(ENGINE) as cluster:
        yield cluster


@pytest.fixture(params=COLOURS)
def queues(request: pytest.FixtureRequest, cluster: Cluster, namespace: str) -> Iterator[list[Any]]:
    """Nine queues of one colour, each with a client of its own."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(opened(request.param, name, redis=cluster.url, namespace=namespace, agent="ann"))
            for name in QUEUES
        ]


def nodes_with_keys_of(cluster: Cluster, root: str) -> list[int]:
    """Return the ports of the nodes that hold keys of a queue."""
    ports = []
    for server in cluster.servers:
        with server.client() as client:
            if any(True for _ in client.scan_iter(f"{root.replace('[', '?')}:*", count=1000)):
                ports.append(server.port)
    return ports


def test_jobs_live_their_lives_wherever_their_queue_is(cluster: Cluster, queues: list[Any]) -> None:
    for queue in queues:
        queue.enqueue_many(JobSpec(payload=n, max_attempts=1) for n in range(30))
        well, badly, handed_back = queue.claim(3, start=True)
        assert 9 == queue.append_log(well, 0, "all well\n")
        finished = queue.complete(well, "done", claim_next=2)
        queue.fail(badly)
        queue.release(handed_back)
        queue.heartbeat(finished.next)
        assert [3, 4] == [lease.decode() for lease in finished.next]
        assert 1 == len(queue.dead.replay(all=True).replayed)
        stats = queue.stats()
        assert (27, 2, 1) == (stats.queued, stats.running, stats.completed_total)
        assert "done" == queue.job(well.job_id).result
        assert ("all well\n", True) == ((log := queue.read_log(well.job_id)).data, log.complete)
        assert 30 == len(queue.jobs(limit=50).items)

    homes = [nodes_with_keys_of(cluster, queue.root) for queue in queues]
    assert all(len(ports) == 1 for ports in homes), "a queue is on one node"
    assert len({ports[0] for ports in homes}) > 1, "and not all are on the same"


def test_a_parked_claim_hears_the_bell_across_nodes(queues: list[Any], spawn: Spawn) -> None:
    """Pub/sub of a cluster goes to every node, so a bell need not be on the queue's own."""
    claims = [spawn(queue.claim, wait_s=20.0) for queue in queues]
    for queue in queues:
        # Who waits has found the queue empty, so it is there.
        wait_until(lambda queue=queue: queue.stats().queued == 0, 10)
    wait_until(lambda: not any(claim.done() for claim in claims), 1)

    began = time.monotonic()
    ids = [queue.enqueue("t").job_id for queue in queues]

    assert ids == [claim.result(20)[0].job_id for claim in claims]
    assert time.monotonic() - began < 2 * SOON_S


def test_a_fence_grows_within_each_queue(queues: list[Any]) -> None:
    for queue in queues:
        queue.enqueue_many(JobSpec() for _ in range(20))
        fences = [lease.fence for _ in range(4) for lease in queue.claim(5)]
        assert fences == sorted(set(fences))
        assert JobStatus.CLAIMED == queue.job(queue.jobs(limit=1).items[0].job_id).status
