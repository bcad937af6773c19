"""Is this Redis fit for a queue? `examine` asks one server, or each primary of a cluster, and judges.

Reading order: `_findings` (what is said), `_facts` (what is asked), then the checks: `_version`, `_server`,
`_access`, `_queues`. Nothing here writes a key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import msgspec
import redis
from redis.cluster import RedisCluster

from ..connect import Connects, SyncRedis
from ..errors import RedisUnavailable
from . import _server as server
from ._access import check_access
from ._facts import Facts, gather
from ._findings import Finding, Level, Report, warn
from ._queues import check_queues
from ._version import check_release, read_server

__all__ = ["Finding", "Level", "Report", "examine"]


def examine(
    connector: Connects,
    *,
    namespace: str | None = None,
    queue: str = "default",
    production: bool = False,
    now_s: Callable[[], float] = time.time,
) -> Report:
    """Judge the server behind `connector`.

    `namespace` limits the queues looked at (None: all there are); with `queue` it also names the keys whose
    access is checked. `production` refuses what is only risky elsewhere. `now_s` is this machine's clock, in
    epoch seconds. Raises `RedisUnavailable`.
    """
    client = connector.sync()
    try:
        findings = tuple(_examine(client, namespace, queue, production, now_s))
    except (redis.ConnectionError, redis.TimeoutError) as exc:
        raise RedisUnavailable(connector.safe_url, str(exc)) from exc
    finally:
        client.close()
    return Report(url=connector.safe_url, findings=findings)


def _examine(
    client: SyncRedis, namespace: str | None, queue: str, production: bool, now_s: Callable[[], float]
) -> Iterator[Finding]:
    for node, one in _nodes(client):
        started = time.monotonic()
        facts = gather(one, round(now_s() * 1000), started)
        for finding in _judge(facts, namespace, queue, production):
            yield msgspec.structs.replace(finding, node=node)


def _nodes(client: SyncRedis) -> Iterator[tuple[str | None, redis.Redis]]:
    """Yield each primary with its name; a server outside a cluster has none."""
    if not isinstance(client, RedisCluster):
        yield None, client
        return
    for node in client.get_primaries():
        yield node.name, client.get_redis_connection(node)


def _judge(facts: Facts, namespace: str | None, queue: str, production: bool) -> Iterator[Finding]:
    if facts.info is None:
        yield warn(
            "facts",
            f"the server tells nothing of itself ({facts.untold}): version, eviction, persistence, memory, "
            "replication and access were not judged",
            "grant +info and +config|get to the user that runs the doctor",
        )
    else:
        yield from check_release(read_server(facts.info))
        yield from server.check_eviction(facts)
        yield from server.check_persistence(facts, production=production)
        yield from server.check_writes(facts)
        yield from server.check_memory(facts)
        yield from server.check_replication(facts)
        yield from server.check_cluster(facts)
        if facts.config is None:
            yield warn(
                "facts",
                f"the configuration is not told ({facts.untold}): fsync and replication are half judged",
                "grant +config|get to the user that runs the doctor",
            )
        yield from check_access(facts, namespace=namespace or "default", queue=queue)
    yield from server.check_clock(facts)
    yield from server.check_latency(facts)
    yield from check_queues(facts, namespace=namespace)
