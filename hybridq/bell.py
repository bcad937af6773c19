"""Hears that jobs became claimable: one pub/sub connection a process, whatever the number of queues and waiters.

A ring carries no work, only a hint; whoever hears it claims. A ring can be lost with a connection, so every reconnect
counts as a ring on all channels, and waiters look in now and then on their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, Final

import msgspec
import redis
import structlog

from .connect import AsyncRedis, Connects

__all__ = ["AsyncBell", "Ring", "SyncBell", "fallback_s"]

log = structlog.get_logger("hybridq")
_jitter = random.Random()
RECONNECT_S_MAX: Final = 1.0
CANCEL_AGAIN_S: Final = 0.1
READ_MAX: Final = 10_000
READ_S_MAX: Final = 0.5
"""How long a thread reads at a stretch; a channel that is new to the connection waits for that long at most."""
_TROUBLE: Final = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError, RuntimeError)


class Ring(msgspec.Struct, frozen=True):
    """What a message says: `jobs` became claimable, something is due in `due_in_s`, or claims of an `agent` are
    answered otherwise from now on. A reconnect says none of it.
    """

    jobs: int = 0
    due_in_s: float | None = None
    agent: str | None = None

    @classmethod
    def read(cls, data: bytes) -> Ring:
        """Return the ring in a message: `<lane> <n>`, `due <ms>` or `agent <name>`; else a ring without a hint."""
        kind, _, number = data.partition(b" ")
        if kind == b"agent":
            return cls(agent=number.decode())
        if not number.isdigit():
            return cls()
        return cls(due_in_s=int(number) / 1000) if kind == b"due" else cls(jobs=int(number))


def fallback_s(lease_s: float) -> float:
    """Return how long a waiter sleeps at most without a ring: 5 s, or a third of a shorter lease, jittered."""
    return max(0.3, min(5.0, lease_s / 3)) * _jitter.uniform(0.8, 1.2)


class AsyncBell:
    """Listens on the channels of all queues of a process and calls back; belongs to one event loop."""

    _of: ClassVar[weakref.WeakKeyDictionary[Any, dict[Any, AsyncBell]]] = weakref.WeakKeyDictionary()

    @classmethod
    def shared(cls, connector: Connects) -> AsyncBell:
        """Return the bell of this connector in the running loop."""
        bells = cls._of.setdefault(asyncio.get_running_loop(), {})
        if connector not in bells:
            bells[connector] = cls(connector)
        return bells[connector]

    def __init__(self, connector: Connects) -> None:
        self._connector = connector
        self._heard_by: dict[str, set[Callable[[Ring], None]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._pubsub: Any = None

    async def listen(self, channel: str, heard: Callable[[Ring], None]) -> None:
        """Call `heard` for every ring on `channel` from now on, first once for the subscription itself."""
        known = channel in self._heard_by
        self._heard_by.setdefault(channel, set()).add(heard)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._listen(), name="hybridq-bell")
        elif not known and self._pubsub is not None:
            # When this fails the connection is broken, and the listener subscribes to everything anew.
            with contextlib.suppress(*_TROUBLE):
                await self._pubsub.subscribe(channel)

    async def leave(self, channel: str, heard: Callable[[Ring], None]) -> None:
        """Stop calling `heard`; the last to leave closes the connection."""
        listeners = self._heard_by.get(channel, set())
        listeners.discard(heard)
        if not listeners:
            self._heard_by.pop(channel, None)
        if not self._heard_by and self._task is not None:
            task, self._task = self._task, None
            # Before Python 3.12 a client's wait_for swallows a cancellation that comes together with a message.
            while not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=CANCEL_AGAIN_S)

    async def _listen(self) -> None:
        wait_s = 0.05
        while True:
            client: AsyncRedis | None = None
            try:
                client = self._connector.aio_bell()
                self._pubsub = client.pubsub()
                await self._pubsub.subscribe(*self._heard_by)
                while True:
                    message = await self._pubsub.get_message(ignore_subscribe_messages=False, timeout=None)
                    if message is not None:
                        wait_s = 0.05
                        self._pass_on(message)
            except _TROUBLE as problem:
                log.debug("bell.reconnect", reason=type(problem).__name__, wait_s=round(wait_s, 3))
            finally:
                pubsub, self._pubsub = self._pubsub, None
                with contextlib.suppress(*_TROUBLE):
                    if pubsub is not None:
                        await pubsub.aclose()
                    if client is not None:
                        await client.aclose()
            await asyncio.sleep(wait_s * _jitter.uniform(0.5, 1.5))
            wait_s = min(RECONNECT_S_MAX, wait_s * 2)

    def _pass_on(self, message: dict[str, Any]) -> None:
        channel = message["channel"].decode()
        if message["type"] == "message":
            ring = Ring.read(message["data"])
        elif message["type"] == "subscribe":
            ring = Ring()
        else:
            return
        for heard in list(self._heard_by.get(channel, ())):
            heard(ring)


class SyncBell:
    """Lets threads wait for a ring. One of the waiting threads reads the connection, the others wait for its word."""

    _of: ClassVar[weakref.WeakValueDictionary[Any, SyncBell]] = weakref.WeakValueDictionary()
    _making = threading.Lock()

    @classmethod
    def shared(cls, connector: Connects) -> SyncBell:
        """Return the bell of this connector in this process; who got it calls `leave` in the end."""
        with cls._making:
            bell = cls._of.get(connector)
            if bell is None:
                bell = cls._of[connector] = cls(connector)
            bell._users += 1
            return bell

    def __init__(self, connector: Connects) -> None:
        self._connector = connector
        self._news = threading.Condition()
        self._rings: dict[str, int] = {}
        self._reading = False
        self._client: Any = None
        self._pubsub: Any = None
        self._subscribed: set[str] = set()
        self._users = 0

    def leave(self, channel: str) -> None:
        """Wake who waits on `channel` and need the bell no more; the last of those who share it disconnects."""
        self._ring([channel])
        with self._making:
            self._users -= 1
        with self._news:
            # Whoever reads just now disconnects after it: a connection is not closed under its reader.
            if self._users or self._reading:
                return
            self._reading = True
        self._done_reading()

    def mark(self, channel: str) -> int:
        """Return a mark to give to `wait`: whatever rings on `channel` after it is heard."""
        with self._news:
            return self._rings.setdefault(channel, 0)

    def wait(self, channel: str, mark: int, timeout_s: float) -> bool:
        """Wait until `channel` rang since `mark`, at most `timeout_s` s. A subscription and a reconnect ring too."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self._news:
                while self._rings.get(channel, 0) == mark and self._reading and channel in self._subscribed:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return False
                    self._news.wait(left)
                if self._rings.get(channel, 0) != mark:
                    return True
                if self._reading:
                    # Somebody reads, but not this channel yet: the reader takes it up within its next short read.
                    if deadline <= time.monotonic():
                        return False
                    self._news.wait(min(0.05, max(0.0, deadline - time.monotonic())))
                    continue
                if deadline <= time.monotonic():
                    return False
                self._reading = True
            try:
                self._read(min(READ_S_MAX, max(0.0, deadline - time.monotonic())))
            finally:
                self._done_reading()

    def _done_reading(self) -> None:
        if not self._users:
            self._disconnect()
        with self._news:
            self._reading = False
            self._news.notify_all()

    def _disconnect(self) -> None:
        pubsub, client, self._pubsub, self._client = self._pubsub, self._client, None, None
        self._subscribed = set()
        with contextlib.suppress(*_TROUBLE):
            if pubsub is not None:
                pubsub.close()
            if client is not None:
                client.close()

    def _read(self, timeout_s: float) -> None:
        try:
            wanted = set(self._rings)
            if self._pubsub is None:
                self._client = self._connector.sync_bell()
                self._pubsub = self._client.pubsub()
            if wanted - self._subscribed:
                self._pubsub.subscribe(*(wanted - self._subscribed))
                self._subscribed |= wanted
            message = self._pubsub.get_message(ignore_subscribe_messages=False, timeout=timeout_s)
            rung: set[str] = set()
            # What piled up while nobody waited is one ring: each by itself would be a claim for nothing.
            for _ in range(READ_MAX):
                if message is None:
                    break
                if message["type"] in ("message", "subscribe"):
                    rung.add(message["channel"].decode())
                message = self._pubsub.get_message(ignore_subscribe_messages=False, timeout=0)
            if rung:
                self._ring(list(rung))
        except _TROUBLE:
            self._disconnect()
            self._ring(list(self._rings))
            time.sleep(min(timeout_s, 0.2 * _jitter.uniform(0.5, 1.5)))

    def _ring(self, channels: list[str]) -> None:
        with self._news:
            for channel in channels:
                self._rings[channel] = self._rings.get(channel, 0) + 1
            self._news.notify_all()
