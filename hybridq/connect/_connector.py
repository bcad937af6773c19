"""A `Connector` makes clients and holds none; `Connects` is what the library asks of one."""

from __future__ import annotations

import dataclasses
import importlib
import socket
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

import redis
from redis.exceptions import RedisClusterException
from redis.maint_notifications import MaintNotificationsConfig

from ..errors import RedisUnavailable
from ._address import Address, parse

if TYPE_CHECKING:
    import redis.asyncio.cluster
    import redis.cluster

SyncRedis: TypeAlias = "redis.Redis | redis.cluster.RedisCluster"
AsyncRedis: TypeAlias = "redis.asyncio.Redis | redis.asyncio.cluster.RedisCluster"

CONNECTIONS_MAX = 64  # a sync client uses one per calling thread; coalesced async calls need few
BELL_CONNECTIONS_MAX = 4
POOL_WAIT_S = 10.0  # for a free connection, before the call fails unsent
REPLY_WAIT_S = 10.0  # scripts take milliseconds; this is for a server that swaps, forks or is gone
CONNECT_WAIT_S = 5.0
# An idle bell hears of a dead peer from the kernel alone: after 30 s of silence, 3 probes 5 s apart.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
KEEPALIVE_OPTIONS = {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}


class Connects(Protocol):
    """What the library needs to reach a server: four clients to make, one address to name in logs.

    Every call makes a new client, which its caller closes. Making one does not connect, except to a cluster
    in the sync colour, whose map is read at once.
    """

    @property
    def safe_url(self) -> str:
        """The server's address without user, password or options."""

    def sync(self) -> SyncRedis:
        """A client for commands, safe to share between threads. Raises `RedisUnavailable`."""

    def sync_bell(self) -> SyncRedis:
        """A client for pub/sub: a read waits as long as its caller wants. Raises `RedisUnavailable`."""

    def aio(self) -> AsyncRedis:
        """A client for commands, for one event loop."""

    def aio_bell(self) -> AsyncRedis:
        """A client for pub/sub, for one event loop."""


class Connector:
    """Makes redis-py clients for one URL. Immutable, holds no connection, shows no credential."""

    __slots__ = ("_address",)

    def __init__(self, address: Address) -> None:
        self._address = address

    @classmethod
    def parse(cls, url: str) -> Self:
        """Understand a Redis URL. Raises `InvalidURL`."""
        return cls(parse(url))

    def __eq__(self, other: object) -> bool:
        """Equal when they lead to the same server in the same way: what a process shares, it shares by this."""
        return isinstance(other, Connector) and other._address == self._address

    def __hash__(self) -> int:
        """Hash of the address without credentials."""
        return hash(self.safe_url)

    def __repr__(self) -> str:
        """`Connector('redis://host:6379')`, without credentials."""
        return f"Connector({self.safe_url!r})"

    @property
    def safe_url(self) -> str:
        """The server's address without user, password or options."""
        return self._address.safe

    def with_reply_wait(self, wait_s: float) -> Self:
        """A connector whose command clients wait at most `wait_s` seconds, to connect and for a reply."""
        waits = {
            name: min(wait_s, self._address.options.get(name, default))
            for name, default in (
                ("socket_timeout", REPLY_WAIT_S),
                ("socket_connect_timeout", CONNECT_WAIT_S),
            )
        }
        options = {**self._address.options, **waits}
        return type(self)(dataclasses.replace(self._address, options=options))

    def sync(self) -> SyncRedis:
        """A client for commands, safe to share between threads. Raises `RedisUnavailable`."""
        return self._sync(self._options())

    def sync_bell(self) -> SyncRedis:
        """A client for pub/sub: a read waits as long as its caller wants. Raises `RedisUnavailable`."""
        return self._sync(self._options(bell=True))

    def aio(self) -> AsyncRedis:
        """A client for commands, for one event loop."""
        return self._aio(self._options())

    def aio_bell(self) -> AsyncRedis:
        """A client for pub/sub, for one event loop."""
        return self._aio(self._options(bell=True))

    def _sync(self, options: dict[str, Any]) -> SyncRedis:
        clients = importlib.import_module("._sync", __package__)
        try:
            client: SyncRedis = clients.make(self._address, options)
        except (redis.RedisError, RedisClusterException) as exc:
            # Only a cluster is asked anything at this point.
            raise RedisUnavailable(self.safe_url, str(exc)) from exc
        return client

    def _aio(self, options: dict[str, Any]) -> AsyncRedis:
        client: AsyncRedis = importlib.import_module("._aio", __package__).make(self._address, options)
        return client

    def _options(self, *, bell: bool = False) -> dict[str, Any]:
        """Every option that redis-py would otherwise choose for us, the same in both colours."""
        address = self._address
        options: dict[str, Any] = {
            "decode_responses": False,
            "driver_info": None,  # else every new connection introduces itself with two more commands
            "health_check_interval": 0,
            # Scripts answer with the same lists in both protocols, and RESP2 needs no HELLO first. With TLS
            # that exchange is welcome: it reads the session tickets that TLS 1.3 sends after the handshake,
            # which redis-py would take for an answer nobody asked for, and give the connection up.
            "protocol": 3 if address.tls else 2,
            "legacy_responses": True,
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
            "max_connections": CONNECTIONS_MAX,
            "timeout": POOL_WAIT_S,
            "socket_timeout": REPLY_WAIT_S,
            "socket_connect_timeout": CONNECT_WAIT_S,
            **address.options,
        }
        if bell:
            options |= {"socket_timeout": None, "max_connections": BELL_CONNECTIONS_MAX}
        if address.kind != "cluster":
            options["db"] = address.db
        if address.kind != "socket":
            options |= {"socket_keepalive": True, "socket_keepalive_options": KEEPALIVE_OPTIONS}
        if address.username or address.password:
            # A provider, because redis-py prints the plain arguments of a connection in some messages.
            options["credential_provider"] = redis.UsernamePasswordCredentialProvider(
                address.username, address.password
            )
        return options
