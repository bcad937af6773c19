"""The sync clients. Each closes what was opened for it."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import BlockingConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from ._address import Address


def make(address: Address, options: dict[str, Any]) -> redis.Redis | RedisCluster:
    """A client for the address with exactly these options, and no retry of any kind."""
    options["retry"] = Retry(NoBackoff(), 0)
    asking = sentinel_options(address, options)
    if address.kind == "cluster":
        return _cluster(address, options)
    if address.kind == "sentinel":
        sentinel = Sentinel(address.hosts, sentinel_kwargs=asking)
        primary: redis.Redis = sentinel.master_for(
            address.service, connection_pool_class=_BlockingSentinelPool, ssl=address.tls, **options
        )
        return primary
    if address.kind == "socket":
        options |= {"connection_class": UnixDomainSocketConnection, "path": address.socket}
    else:
        [(host, port)] = address.hosts
        options |= {"host": host, "port": port}
        if address.tls:
            options["connection_class"] = SSLConnection
    return redis.Redis.from_pool(BlockingConnectionPool(**options))


def sentinel_options(address: Address, options: dict[str, Any]) -> dict[str, Any]:
    """Take the sentinels' login out of `options`; return what to connect to a sentinel with."""
    login = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    asking = {name: value for name, value in options.items() if name not in _PRIMARY_ONLY}
    # A sentinel answers at once or is gone, and the next one is asked.
    return asking | login | {"ssl": address.tls, "socket_timeout": options["socket_connect_timeout"]}


_PRIMARY_ONLY = {"db", "credential_provider", "max_connections", "timeout"}


def _cluster(address: Address, options: dict[str, Any]) -> RedisCluster:
    (host, port), *others = address.hosts
    return RedisCluster(
        # redis-py uses the pool class it is given for nodes that come from a URL only.
        url=f"{'rediss' if address.tls else 'redis'}://{f'[{host}]' if ':' in host else host}:{port}",
        startup_nodes=[ClusterNode(host, port) for host, port in others],
        connection_pool_class=BlockingConnectionPool,
        # One slot without an owner must not keep queues in other slots from working.
        require_full_coverage=False,
        **options,
    )


class _BlockingSentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Follows the primary, and waits for a free connection instead of raising."""

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections; all of them means the client is closing, so the sentinels' go too."""
        super().disconnect(inuse_connections)
        if inuse_connections:
            self.sentinel_manager.close()
