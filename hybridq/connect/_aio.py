"""The async clients, imported on first use. Each closes what was opened for it."""

from __future__ import annotations

from typing import Any

import hiredis
import redis.asyncio
from redis.asyncio.cluster import ClusterNode, ClusterPubSub, RedisCluster
from redis.asyncio.connection import (
    AbstractConnection,
    BlockingConnectionPool,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from ._address import Address
from ._sync import sentinel_options

CLUSTER_CONNECTIONS_MAX = 1024


def make(address: Address, options: dict[str, Any]) -> redis.asyncio.Redis | RedisCluster:
    """A client for the address with exactly these options, and no retry of any kind."""
    options["retry"] = Retry(NoBackoff(), 0)
    asking = sentinel_options(address, options)
    if address.kind == "cluster":
        return _cluster(address, options)
    if address.kind == "sentinel":
        sentinel = Sentinel(address.hosts, sentinel_kwargs=asking)
        primary: redis.asyncio.Redis = sentinel.master_for(
            address.service, connection_pool_class=_BlockingSentinelPool, ssl=address.tls, **options
        )
        return primary
    if address.kind == "socket":
        options |= {"connection_class": _Socket, "path": address.socket}
    else:
        [(host, port)] = address.hosts
        options |= {"connection_class": _Tls if address.tls else _Tcp, "host": host, "port": port}
    return redis.asyncio.Redis.from_pool(BlockingConnectionPool(**options))


class _PacksInC(AbstractConnection):
    """Writes commands as redis-py's blocking connections do, in C: a batch has hundreds of words."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return a command as it is sent. Redis-py names some with two words in one text."""
        name, *rest = args
        words = name.split() if isinstance(name, str) else [name]
        return [hiredis.pack_command((*words, *rest))]

    def pack_commands(self, commands: Any) -> list[bytes]:
        """Return commands as they are sent, in one piece."""
        return [b"".join(piece for command in commands for piece in self.pack_command(*command))]


class _Tcp(_PacksInC, Connection):
    """To a port."""


class _Tls(_PacksInC, SSLConnection):
    """To a port, encrypted."""


class _Socket(_PacksInC, UnixDomainSocketConnection):
    """To a unix socket."""


def _cluster(address: Address, options: dict[str, Any]) -> RedisCluster:
    nodes = [ClusterNode(host, port) for host, port in address.hosts]
    # This client has no waiting pool, it raises when one is used up: so allow more than are ever wanted.
    del options["timeout"]
    options["max_connections"] = max(CLUSTER_CONNECTIONS_MAX, options["max_connections"])
    # One slot without an owner must not keep queues in other slots from working.
    return _Cluster(startup_nodes=nodes, require_full_coverage=False, ssl=address.tls, **options)


class _Cluster(RedisCluster):
    def pubsub(self, *args: Any, **options: Any) -> ClusterPubSub:
        return _ClusterPubSub(self, *args, **options)


class _ClusterPubSub(ClusterPubSub):
    """Subscribes also as the first thing a client does; redis-py's own has no map of the cluster yet then."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        await self.cluster.initialize()
        return await super().execute_command(*args, **options)


class _BlockingSentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Follows the primary, and waits for a free connection instead of raising."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections; all of them means the client is closing, so the sentinels' go too."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            await self.sentinel_manager.aclose()
