"""`Fleet` and `AsyncFleet`: the agents and pools of a namespace. Both run the same flows and hold no rule."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from ._fleet import FleetBase
from .agent_records import AgentPage, AgentRecord, AgentStatus, PoolRecord, Pulse, Registration
from .backend import AsyncBackend, Backend, BackendBase
from .bell import AsyncBell, Ring, SyncBell
from .call import Call
from .connect import Connects
from .errors import HybridqError

__all__ = ["AsyncFleet", "Fleet"]

T = TypeVar("T")
LISTEN_S: Final = 0.5


class Fleet(FleetBase):
    """The agents and pools of a namespace, for threads.

    Args:
        redis: A URL (`redis:// rediss:// unix:// redis+sentinel:// redis+cluster://`), a connector, or
            a `Backend` to share, which its maker closes. None: `HYBRIDQ_REDIS_URL`, else a private
            server in `data_dir`.
        namespace: Keeps apart what shares a Redis. None: `HYBRIDQ_NAMESPACE`, else "default".
        data_dir: Folder of the private server. None: `HYBRIDQ_DATA_DIR`, else the platform's place for user data.

    It may be shared by threads. Errors: `hybridq.errors`.
    """

    def __init__(
        self,
        *,
        redis: str | Connects | BackendBase | None = None,
        namespace: str | None = None,
        data_dir: Path | str | None = None,
    ) -> None:
        shared = redis if isinstance(redis, Backend) else None
        self._backend = shared or Backend(redis, data_dir=data_dir)
        self._owns_backend = shared is None
        super().__init__(self._backend, namespace=namespace)

    def register(
        self,
        agent_id: str,
        *,
        pool: str,
        boot_id: str,
        version: str | None = None,
        labels: Mapping[str, str] | None = None,
        capacity: int = 1,
        features: Iterable[str] = (),
    ) -> Registration:
        """Begin a session of an agent in a pool, and take the leases of its older sessions back before this returns.

        What an older session had started and confirmed is lost with it, attempt charged; other leases cost nothing.
        The same `boot_id` in the same pool goes on with its session, so the call can be repeated after any failure.
        `capacity`: leases it may hold at once, 1 to 1,000. Raises `SessionSuperseded` when another boot of the
        agent registered meanwhile, `QueueFull` when the fleet holds 100,000 agents.
        """
        return self._follow(
            self._register(
                agent_id,
                pool=pool,
                boot_id=boot_id,
                version=version,
                labels=labels,
                capacity=capacity,
                features=features,
            )
        )

    def beat(
        self,
        agent_id: str,
        session_id: str,
        *,
        metrics: Mapping[str, float] | None = None,
        shortest_lease_s: float | None = None,
    ) -> Pulse:
        """Take a heartbeat of an agent: it is alive. Returns how it stands, and when to beat again.

        `metrics`, at most 32 numbers, stand until the next ones. The interval grows with the fleet, from 10 s, and is
        never above a third of the shortest lease the agent holds. Raises `AgentNotRegistered`, `SessionSuperseded`.
        """
        return self._follow(self._beat(agent_id, session_id, metrics=metrics, shortest_lease_s=shortest_lease_s))

    def seen(self, agent_id: str, session_id: str) -> None:
        """Take a claim of an agent for a sign of life; call it before the claim. Raises as `beat` does."""
        self._follow(self._seen(agent_id, session_id))

    def steer(self, agent_id: str, *, draining: bool, reason: str | None = None, by: str | None = None) -> AgentRecord:
        """Have an agent drain: it finishes what it holds and claims nothing more; or take work again.

        Raises `AgentNotRegistered`, `AgentTerminated`.
        """
        return self._follow(self._steer(agent_id, draining=draining, reason=reason, by=by))

    def deregister(self, agent_id: str, *, session_id: str | None = None, reason: str | None = None) -> AgentRecord:
        """End an agent's session: its leases are handed back, and whatever it still says is refused.

        Harmless to repeat. With a `session_id` only that session is ended. Raises `AgentNotRegistered`,
        `SessionSuperseded`.
        """
        return self._follow(self._deregister(agent_id, session_id=session_id, reason=reason))

    def agent(self, agent_id: str) -> AgentRecord:
        """Return an agent as it is now. Raises `AgentNotRegistered`."""
        return self._follow(self._agent(agent_id))

    def agents(
        self,
        *,
        pool: str | None = None,
        pools: Iterable[str] | None = None,
        status: AgentStatus | str | None = None,
        labels: Sequence[str] = (),
        limit: int = 50,
        cursor: str | None = None,
    ) -> AgentPage:
        """Return one page of agents by name, at most 200. A page looks at 300, so a filtered one may be short or empty.

        `pools` leaves out all others. `labels` are requirements, as a job's: `"os=linux"`, `"gpu"`, `"!spot"`.
        """
        return self._follow(
            self._agents(pool=pool, pools=pools, status=status, labels=labels, limit=limit, cursor=cursor)
        )

    def counts(self) -> dict[AgentStatus, int]:
        """Return how many agents there are of each status; those that ended count for 7 days."""
        return self._follow(self._counts())

    def pool(self, name: str) -> PoolRecord:
        """Return a pool: its agents, and what waits for them. Raises `PoolNotFound`."""
        return self._follow(self._pool(name))

    def pools(self) -> list[PoolRecord]:
        """Return all pools by name: every queue, and every pool that was scaled."""
        return self._follow(self._pools())

    def scale(
        self, name: str, *, min: int | None = None, max: int | None = None, target: int | None = None
    ) -> PoolRecord:
        """Say how many agents a pool should have, 0 to 100,000; what is None stays as it was. It need not be there yet.

        Raises `InvalidArgument` unless min ≤ target ≤ max then.
        """
        return self._follow(self._scale(name, min=min, max=max, target=target))

    def queues(self) -> tuple[str, ...]:
        """Return the names of all queues of the namespace, sorted."""
        return self._follow(self._queues())

    def has_queue(self, name: str) -> bool:
        """Tell whether the namespace has a queue of this name; asking does not make one."""
        return self._run(self._has_queue(name))

    def free_lost(self) -> int:
        """Do one bounded step for agents that are OFFLINE: their leases go to others. Returns 0 when nothing was left.

        Several processes may do it. Call it every 5 s or so: when nobody did for 15 s, and no agent beat, that counts
        as an outage, after which every agent has its full time to be heard.
        """
        return self._follow(self._free_lost())

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever a queue is made or configured, or a pool scaled, until this is cancelled or closed.

        Also at the first, and after the connection was lost: then something may have changed unheard.
        """
        self._check_open()
        bell = SyncBell.shared(self.connector)
        try:
            mark = bell.mark(self._channel)
            while not self._closed:
                if bell.wait(self._channel, mark, LISTEN_S):
                    mark = bell.mark(self._channel)
                    changed()
        finally:
            bell.leave(self._channel)

    def close(self) -> None:
        """Close the connections; every later call raises `QueueClosed`, and `on_change` returns."""
        if not self._closed:
            self._closed = True
            if self._owns_backend:
                self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, call: Call[T]) -> T:
        self._check_open()
        return self._backend.runner.run(call)

    def _follow(self, flow: Generator[Any, Any, T]) -> T:
        try:
            step = next(flow)
            while True:
                try:
                    value = [self._run(one) for one in step] if isinstance(step, list) else self._run(step)
                except HybridqError as problem:
                    step = flow.throw(problem)
                else:
                    step = flow.send(value)
        except StopIteration as end:
            result: T = end.value
            return result


class AsyncFleet(FleetBase):
    """The agents and pools of a namespace, for asyncio.

    Args:
        redis: A URL (`redis:// rediss:// unix:// redis+sentinel:// redis+cluster://`), a connector, or
            an `AsyncBackend` to share, which its maker closes. None: `HYBRIDQ_REDIS_URL`, else a private
            server in `data_dir`.
        namespace: Keeps apart what shares a Redis. None: `HYBRIDQ_NAMESPACE`, else "default".
        data_dir: Folder of the private server. None: `HYBRIDQ_DATA_DIR`, else the platform's place for user data.

    It belongs to the event loop of its first call. Concurrent calls travel together. Errors: `hybridq.errors`.
    """

    def __init__(
        self,
        *,
        redis: str | Connects | BackendBase | None = None,
        namespace: str | None = None,
        data_dir: Path | str | None = None,
    ) -> None:
        shared = redis if isinstance(redis, AsyncBackend) else None
        self._backend = shared or AsyncBackend(redis, data_dir=data_dir)
        self._owns_backend = shared is None
        super().__init__(self._backend, namespace=namespace)
        self._ended = asyncio.Event()

    async def register(
        self,
        agent_id: str,
        *,
        pool: str,
        boot_id: str,
        version: str | None = None,
        labels: Mapping[str, str] | None = None,
        capacity: int = 1,
        features: Iterable[str] = (),
    ) -> Registration:
        """Begin a session of an agent in a pool, and take the leases of its older sessions back before this returns.

        What an older session had started and confirmed is lost with it, attempt charged; other leases cost nothing.
        The same `boot_id` in the same pool goes on with its session, so the call can be repeated after any failure.
        `capacity`: leases it may hold at once, 1 to 1,000. Raises `SessionSuperseded` when another boot of the
        agent registered meanwhile, `QueueFull` when the fleet holds 100,000 agents.
        """
        return await self._follow(
            self._register(
                agent_id,
                pool=pool,
                boot_id=boot_id,
                version=version,
                labels=labels,
                capacity=capacity,
                features=features,
            )
        )

    async def beat(
        self,
        agent_id: str,
        session_id: str,
        *,
        metrics: Mapping[str, float] | None = None,
        shortest_lease_s: float | None = None,
    ) -> Pulse:
        """Take a heartbeat of an agent: it is alive. Returns how it stands, and when to beat again.

        `metrics`, at most 32 numbers, stand until the next ones. The interval grows with the fleet, from 10 s, and is
        never above a third of the shortest lease the agent holds. Raises `AgentNotRegistered`, `SessionSuperseded`.
        """
        return await self._follow(self._beat(agent_id, session_id, metrics=metrics, shortest_lease_s=shortest_lease_s))

    async def seen(self, agent_id: str, session_id: str) -> None:
        """Take a claim of an agent for a sign of life; call it before the claim. Raises as `beat` does."""
        await self._follow(self._seen(agent_id, session_id))

    async def steer(
        self, agent_id: str, *, draining: bool, reason: str | None = None, by: str | None = None
    ) -> AgentRecord:
        """Have an agent drain: it finishes what it holds and claims nothing more; or take work again.

        Raises `AgentNotRegistered`, `AgentTerminated`.
        """
        return await self._follow(self._steer(agent_id, draining=draining, reason=reason, by=by))

    async def deregister(
        self, agent_id: str, *, session_id: str | None = None, reason: str | None = None
    ) -> AgentRecord:
        """End an agent's session: its leases are handed back, and whatever it still says is refused.

        Harmless to repeat. With a `session_id` only that session is ended. Raises `AgentNotRegistered`,
        `SessionSuperseded`.
        """
        return await self._follow(self._deregister(agent_id, session_id=session_id, reason=reason))

    async def agent(self, agent_id: str) -> AgentRecord:
        """Return an agent as it is now. Raises `AgentNotRegistered`."""
        return await self._follow(self._agent(agent_id))

    async def agents(
        self,
        *,
        pool: str | None = None,
        pools: Iterable[str] | None = None,
        status: AgentStatus | str | None = None,
        labels: Sequence[str] = (),
        limit: int = 50,
        cursor: str | None = None,
    ) -> AgentPage:
        """Return one page of agents by name, at most 200. A page looks at 300, so a filtered one may be short or empty.

        `pools` leaves out all others. `labels` are requirements, as a job's: `"os=linux"`, `"gpu"`, `"!spot"`.
        """
        return await self._follow(
            self._agents(pool=pool, pools=pools, status=status, labels=labels, limit=limit, cursor=cursor)
        )

    async def counts(self) -> dict[AgentStatus, int]:
        """Return how many agents there are of each status; those that ended count for 7 days."""
        return await self._follow(self._counts())

    async def pool(self, name: str) -> PoolRecord:
        """Return a pool: its agents, and what waits for them. Raises `PoolNotFound`."""
        return await self._follow(self._pool(name))

    async def pools(self) -> list[PoolRecord]:
        """Return all pools by name: every queue, and every pool that was scaled."""
        return await self._follow(self._pools())

    async def scale(
        self, name: str, *, min: int | None = None, max: int | None = None, target: int | None = None
    ) -> PoolRecord:
        """Say how many agents a pool should have, 0 to 100,000; what is None stays as it was. It need not be there yet.

        Raises `InvalidArgument` unless min ≤ target ≤ max then.
        """
        return await self._follow(self._scale(name, min=min, max=max, target=target))

    async def queues(self) -> tuple[str, ...]:
        """Return the names of all queues of the namespace, sorted."""
        return await self._follow(self._queues())

    async def has_queue(self, name: str) -> bool:
        """Tell whether the namespace has a queue of this name; asking does not make one."""
        return await self._run(self._has_queue(name))

    async def free_lost(self) -> int:
        """Do one bounded step for agents that are OFFLINE: their leases go to others. Returns 0 when nothing was left.

        Several processes may do it. Call it every 5 s or so: when nobody did for 15 s, and no agent beat, that counts
        as an outage, after which every agent has its full time to be heard.
        """
        return await self._follow(self._free_lost())

    async def on_change(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever a queue is made or configured, or a pool scaled, until this is cancelled or closed.

        Also at the first, and after the connection was lost: then something may have changed unheard.
        """
        self._check_usable()

        def heard(_ring: Ring) -> None:
            changed()

        bell = AsyncBell.shared(self.connector)
        await bell.listen(self._channel, heard)
        try:
            await self._ended.wait()
        finally:
            await bell.leave(self._channel, heard)

    async def close(self) -> None:
        """Close the connections; every later call raises `QueueClosed`, and `on_change` returns."""
        if not self._closed:
            self._closed = True
            self._ended.set()
            await self._backend.coalescer.settle()
            if self._owns_backend:
                await self._backend.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, call: Call[T]) -> T:
        self._check_usable()
        return await self._backend.coalescer.run(call)

    async def _run_all(self, calls: Sequence[Call[Any]]) -> list[Any]:
        # Made in one turn of the loop they travel together. All are seen through before an error is raised.
        answers = await asyncio.gather(*(self._run(call) for call in calls), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    async def _follow(self, flow: Generator[Any, Any, T]) -> T:
        try:
            step = next(flow)
            while True:
                try:
                    value = await (self._run_all(step) if isinstance(step, list) else self._run(step))
                except HybridqError as problem:
                    step = flow.throw(problem)
                else:
                    step = flow.send(value)
        except StopIteration as end:
            result: T = end.value
            return result

    def _check_usable(self) -> None:
        self._check_open()
        self._backend.check_loop("the fleet")
