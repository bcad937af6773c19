"""What the server has running: one connection to Redis, the queues and fleets opened over it, and its loops.

Nothing here speaks HTTP and nothing here speaks Redis. Routes ask a `Plane` for the queue or the fleet of a
namespace; both are opened once and share the connection, so that the calls of one turn of the loop travel together.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog

from hybridq import AsyncAccess, AsyncBackend, AsyncFleet, AsyncQueue, AsyncWatch, Connector, HybridqError

__all__ = ["Plane"]

log = structlog.get_logger("hybridq.api")
POOLS_KEPT_S: Final = 30.0
UPKEEP_S: Final = (1.0, 15.0)
"""A pool is looked after when its next job is due or its next lease ends, within these bounds."""
TRIM_S: Final = 60.0
"""A pool in which nothing waits and nothing is leased is looked after that often: with it old records are trimmed."""
LOST_S: Final = 5.0
REPLY_WAIT_S: Final = 2.5
_jitter = random.Random()


class _Due(NamedTuple):
    at: float
    namespace: str
    pool: str
    trim_at: float = 0.0


class _Pools:
    """The names of a namespace's pools as they were a moment ago; `fresh_until` = 0 when something changed."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.fresh_until = 0.0
        self.reading: asyncio.Task[tuple[str, ...]] | None = None


class Plane:
    """The control plane of one process. `start()` before the first request, `close()` after the last.

    Args:
        redis: Where Redis is; None: `HYBRIDQ_REDIS_URL`, else a private server in `data_dir`.
        data_dir: Folder of that private server.
        namespace: The namespace of the server's own affairs, looked after from the start.
    """

    def __init__(self, *, redis: str | None = None, data_dir: Path | None = None, namespace: str = "default") -> None:
        self.namespace = namespace
        # A Redis that is frozen must not hold requests for long: a call waits for it once, is repeated once, and those
        # that queued behind it go the same way.
        connector = None if redis is None else Connector.parse(redis).with_reply_wait(REPLY_WAIT_S)
        self.backend = AsyncBackend(connector, data_dir=data_dir)
        self.access = AsyncAccess(redis=self.backend)
        self.watch = AsyncWatch(self.backend)
        self.stopping = asyncio.Event()
        """Set when the server begins to stop: parked claims and streams end, nothing new is parked."""
        self.parked = 0
        """Claims that wait in this process."""
        self._queues: dict[tuple[str, str], AsyncQueue] = {}
        self._fleets: dict[str, AsyncFleet] = {}
        self._pools: dict[str, _Pools] = {}
        self._due: list[_Due] = []
        self._looked_after: set[tuple[str, str]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- what routes ask for -------------------------------------------------------------------------------

    def queue(self, namespace: str, pool: str) -> AsyncQueue:
        """Return the queue of a pool; it is made in Redis by the first call that needs it."""
        key = (namespace, pool)
        found = self._queues.get(key)
        if found is None:
            found = self._queues[key] = AsyncQueue(pool, redis=self.backend, namespace=namespace, lease_s=None)
            self._look_after(namespace, pool)
        return found

    def fleet(self, namespace: str) -> AsyncFleet:
        """Return the fleet of a namespace."""
        found = self._fleets.get(namespace)
        if found is None:
            found = self._fleets[namespace] = AsyncFleet(redis=self.backend, namespace=namespace)
            self._pools[namespace] = _Pools()
            self._spawn(self._free_lost(namespace), f"hybridq-lost-{namespace}")
            self._spawn(found.on_change(lambda: self.forget_pools(namespace)), f"hybridq-changes-{namespace}")
        return found

    async def known_pools(self, namespace: str) -> tuple[str, ...]:
        """Return the pools of a namespace, sorted. Kept for 30 s, and forgotten at once when one is made."""
        fleet = self.fleet(namespace)
        kept = self._pools[namespace]
        if kept.reading is None and time.monotonic() < kept.fresh_until:
            return kept.names
        if kept.reading is None:
            # Many requests may ask at once, and one of them going away must not spoil it for the others.
            kept.reading = asyncio.get_running_loop().create_task(self._read_pools(fleet, kept))
        return await asyncio.shield(kept.reading)

    def pools_at_hand(self, namespace: str) -> tuple[str, ...]:
        """Return the pools of a namespace that were found last: all of them are there, others may be too."""
        found = self._pools.get(namespace)
        return () if found is None else found.names

    async def knows_pool(self, namespace: str, pool: str) -> bool:
        """Whether a pool of this name is there, also one made a moment ago; what is not there costs one look."""
        if pool in await self.known_pools(namespace):
            return True
        there = await self.fleet(namespace).has_queue(pool)
        if there:
            self.forget_pools(namespace)
        return there

    def forget_pools(self, namespace: str) -> None:
        """Read the pools of a namespace anew at the next occasion."""
        if namespace in self._pools:
            self._pools[namespace].fresh_until = 0.0

    # -- life --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to look after what time brings, in the server's own namespace and in those that are used."""
        self.fleet(self.namespace)
        self._spawn(self._look_after_pools(), "hybridq-upkeep")

    def stop(self) -> None:
        """Let parked claims and streams end; safe to call twice."""
        self.stopping.set()

    async def close(self) -> None:
        """End the loops, see what was sent through, and close the connections."""
        self.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.watch.close()
        for queue in self._queues.values():
            await queue.close()
        for fleet in self._fleets.values():
            await fleet.close()
        await self.access.close()
        await self.backend.close()

    # -- loops -------------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read_pools(self, fleet: AsyncFleet, kept: _Pools) -> tuple[str, ...]:
        try:
            # What changes while it is read is read again by the next who asks.
            kept.fresh_until = time.monotonic() + POOLS_KEPT_S
            try:
                kept.names = await fleet.queues()
            except BaseException:
                kept.fresh_until = 0.0
                raise
            for pool in kept.names:
                self._look_after(fleet.namespace, pool)
            return kept.names
        finally:
            kept.reading = None

    def _look_after(self, namespace: str, pool: str) -> None:
        if (namespace, pool) not in self._looked_after:
            self._looked_after.add((namespace, pool))
            heapq.heappush(self._due, _Due(time.monotonic() + _jitter.uniform(0.0, 1.0), namespace, pool))

    async def _look_after_pools(self) -> None:
        """Do the upkeep of each pool when something is due there: with no claimer, nobody else does."""
        while True:
            with contextlib.suppress(HybridqError):
                for namespace in list(self._fleets):
                    await self.known_pools(namespace)
            now = time.monotonic()
            while self._due and self._due[0].at <= now:
                heapq.heappush(self._due, await self._upkeep(heapq.heappop(self._due)))
            await asyncio.sleep(_jitter.uniform(0.8, 1.2))

    async def _upkeep(self, due: _Due) -> _Due:
        """Do one step where something is due, and return when the next is wanted."""
        least, most = UPKEEP_S
        queue, now = self.queue(due.namespace, due.pool), time.monotonic()
        try:
            next_s = await queue.due_in_s() if now < due.trim_at else 0.0
            if next_s == 0.0:
                done = await queue.upkeep()
                if done.more:
                    return due._replace(at=now, trim_at=now)
                due, next_s = due._replace(trim_at=now + TRIM_S), done.next_due_s
        except HybridqError as problem:
            log.warning("upkeep.failed", component="upkeep", pool=due.pool, error_type=type(problem).__name__)
            next_s = most
        wait_s = most if next_s is None else max(least, min(most, next_s))
        return due._replace(at=now + wait_s * _jitter.uniform(0.9, 1.1))

    async def _free_lost(self, namespace: str) -> None:
        """Take the leases of agents that are gone; several processes may do it, each agent's go once."""
        while True:
            await asyncio.sleep(LOST_S * _jitter.uniform(0.8, 1.2))
            try:
                while await self.fleet(namespace).free_lost():
                    pass
            except HybridqError as problem:
                log.warning("fleet.free_lost_failed", component="fleet", error_type=type(problem).__name__)
