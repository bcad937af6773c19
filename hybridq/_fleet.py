"""What the fleets of both colours share: calls that take more than one step, over the fleet's root and its queues.

Such a call is a generator that yields a Call, or several to be sent together, and is sent their values, or thrown
their error. A crash between two steps leaves a session that is not usable yet, or a debt that `free_lost` pays: never
a lease of an older session that nobody takes back.
"""

from __future__ import annotations

import base64
import binascii
import functools
import secrets
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from ._base import namespace_of
from ._units import to_s
from .agent_records import AgentPage, AgentRecord, AgentStatus, PoolRecord, Pulse, Registration
from .backend import BackendBase
from .call import Call
from .connect import Connects
from .errors import (
    HybridqError,
    InvalidArgument,
    PoolNotFound,
    QueueClosed,
    QueueFull,
    QueueLost,
    ScriptFailed,
    SessionSuperseded,
)
from .keys import bell_channel, catalogue_root, fleet_root, queue_root, validate_name
from .ops import _args, fleet, inspect, queues

__all__ = ["FleetBase", "Flow"]

T = TypeVar("T")
Flow = Generator[Any, Any, T]
"""Steps of a call: yields a Call, or a list of Calls that travel together, and is sent their values."""

PAGE_MAX: Final = 200
READ_MAX: Final = 300
"""Records that one page of a list looks at."""
TOLD_MAX: Final = 25
"""Calls in which one step of `free_lost` tells a queue of one agent: 50 leases each, and an agent holds 1,000."""
CATALOGUE_PAGE: Final = 1000


class FleetBase:
    """Namespace and places of a fleet, and its calls as flows; see `Fleet`."""

    def __init__(self, backend: BackendBase, *, namespace: str | None) -> None:
        self.namespace = namespace_of(namespace)
        self.root = fleet_root(self.namespace)
        self.connector: Connects = backend.connector
        self._backend_base = backend
        self._now_ms = 0
        self._closed = False
        self._channel = bell_channel(catalogue_root(self.namespace))
        backend.place("the fleet", self.root)
        backend.place("the catalogue", catalogue_root(self.namespace))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.namespace} at {self.connector.safe_url}>"

    def _check_open(self) -> None:
        if self._closed:
            raise QueueClosed("the fleet")

    def _queue(self, pool: str) -> str:
        """Return the root of a pool's queue, which is made when it is not there."""
        root = queue_root(self.namespace, pool)
        self._backend_base.place(pool, root, functools.partial(queues.found, self.namespace, pool))
        return root

    # -- agents ------------------------------------------------------------------------------------------------

    def _register(self, agent_id: str, *, capacity: int, **said: Any) -> Flow[Registration]:
        begun: fleet.Begun = yield fleet.register(
            self.namespace,
            agent_id,
            session_id=secrets.token_hex(16),
            capacity=capacity,
            now_ms=self._now_ms,
            **said,
        )
        kept: fleet.Kept = yield fleet.describe(self.namespace, agent_id, now_ms=self._now_ms)
        if kept.fields["session_id"] != begun.session_id:
            raise SessionSuperseded(agent_id)
        standing = fleet.Standing(
            pool=kept.pool,
            generation=begun.generation,
            capacity=int(kept.fields["capacity"]),
            drain=kept.draining,
            left=begun.left,
        )
        freed = yield from self._tell(agent_id, standing, how="supersede")
        return Registration(
            agent_id=agent_id,
            session_id=begun.session_id,
            generation=begun.generation,
            pool=kept.pool,
            created=begun.created,
            heartbeat_s=to_s(begun.heartbeat_ms),
            freed=freed,
        )

    def _tell(self, agent_id: str, standing: fleet.Standing, *, how: str) -> Flow[int]:
        """Tell the queues of an agent's pool, and of those it left, of its session; then note that they were told.

        `how` the leases of its pool are taken; a pool is left by a new session, which supersedes the one it had there.
        """
        freed = 0
        debts = [
            fleet.Debt(agent_id=agent_id, pool=pool, generation=standing.generation, how=taken)
            for pool, taken in ((standing.pool, how), *((left, "supersede") for left in standing.left))
        ]
        for debt in debts:
            here = debt.pool == standing.pool
            more = True
            while more:
                told = yield fleet.enlist(
                    self._queue(debt.pool),
                    agent_id,
                    generation=standing.generation,
                    capacity=standing.capacity if here else 0,
                    drain=here and standing.drain,
                    free=debt.how,
                    now_ms=self._now_ms,
                )
                if told is None:
                    if here:
                        raise SessionSuperseded(agent_id)
                    break
                freed += told[0]
                more = told[1]
        yield fleet.settle(self.namespace, debts, now_ms=self._now_ms)
        return freed

    def _beat(
        self,
        agent_id: str,
        session_id: str,
        *,
        metrics: Mapping[str, float] | None,
        shortest_lease_s: float | None,
    ) -> Flow[Pulse]:
        said_ms = fleet.lease_ms(shortest_lease_s)
        fleet.beat(
            self.namespace, agent_id, session_id, metrics=metrics
        )  # what is wrong is said before anything is sent
        known: fleet.Kept = yield fleet.describe(self.namespace, agent_id, now_ms=self._now_ms)
        [found] = yield fleet.figures(self._queue(known.pool), [agent_id], leases=True, now_ms=self._now_ms)
        shortest = [ms for ms in (said_ms, found.shortest_lease_ms) if ms]
        kept: fleet.Kept = yield fleet.beat(
            self.namespace,
            agent_id,
            session_id,
            metrics=metrics,
            recent=found.recent,
            shortest_lease_ms=min(shortest, default=0),
            now_ms=self._now_ms,
        )
        if kept.pool == known.pool and found.standing != kept.standing:
            # Somebody ended between two steps, or it was OFFLINE: what its queue knows is put right.
            yield self._enlist(agent_id, kept)
        agent = fleet.read_agent(kept, found)
        return Pulse(agent=agent, next_heartbeat_s=agent.heartbeat_s, drain=kept.draining)

    def _enlist(self, agent_id: str, known: fleet.Kept | fleet.Standing) -> Call[Any]:
        if isinstance(known, fleet.Kept):
            generation, capacity, drain = known.standing
        else:
            generation, capacity, drain = known.generation, known.capacity, known.drain
        return fleet.enlist(
            self._queue(known.pool),
            agent_id,
            generation=generation,
            capacity=capacity,
            drain=drain,
            now_ms=self._now_ms,
        )

    def _seen(self, agent_id: str, session_id: str) -> Flow[None]:
        returned = yield fleet.seen(self.namespace, agent_id, session_id, now_ms=self._now_ms)
        if returned is not None:
            yield self._enlist(agent_id, returned)

    def _steer(self, agent_id: str, *, draining: bool, reason: str | None, by: str | None) -> Flow[AgentRecord]:
        standing = yield fleet.steer(
            self.namespace, agent_id, draining=draining, reason=reason, by=by, now_ms=self._now_ms
        )
        # A newer session that the queue knows of already has its own word on this.
        yield self._enlist(agent_id, standing)
        return (yield from self._agent(agent_id))

    def _deregister(self, agent_id: str, *, session_id: str | None, reason: str | None) -> Flow[AgentRecord]:
        standing = yield fleet.deregister(
            self.namespace, agent_id, session_id=session_id, reason=reason, now_ms=self._now_ms
        )
        yield from self._tell(agent_id, standing, how="give_back")
        return (yield from self._agent(agent_id))

    def _agent(self, agent_id: str) -> Flow[AgentRecord]:
        kept: fleet.Kept = yield fleet.describe(self.namespace, agent_id, now_ms=self._now_ms)
        [record] = yield from self._read([kept])
        return record

    def _read(self, agents: Sequence[fleet.Kept]) -> Flow[list[AgentRecord]]:
        """Return agents as they are; the queues of all their pools are asked together."""
        by_pool: dict[str, list[fleet.Kept]] = {}
        for kept in agents:
            by_pool.setdefault(kept.pool, []).append(kept)
        found = yield [
            fleet.figures(self._queue(pool), [kept.agent_id for kept in among], now_ms=self._now_ms)
            for pool, among in by_pool.items()
        ]
        of = {
            kept.agent_id: one
            for among, figures in zip(by_pool.values(), found, strict=True)
            for kept, one in zip(among, figures, strict=True)
        }
        return [fleet.read_agent(kept, of[kept.agent_id]) for kept in agents]

    def _agents(
        self,
        *,
        pool: str | None,
        pools: Iterable[str] | None,
        status: AgentStatus | str | None,
        labels: Sequence[str],
        limit: int,
        cursor: str | None,
    ) -> Flow[AgentPage]:
        _args.integer("limit", limit, 1, PAGE_MAX)
        wanted = None if status is None else _args.member("status", status, AgentStatus)
        required = _requirements(labels)
        within = "" if pool is None else validate_name("pool", pool)
        among = None if pools is None else frozenset(pools)
        if among is not None and within and within not in among:
            return AgentPage(items=(), next_cursor=None)
        filtered = wanted is not None or required or among is not None
        after = _read_cursor(within, cursor)
        items: list[AgentRecord] = []
        for _ in range(READ_MAX // 100 if filtered else 1):
            page: fleet.Page = yield fleet.page(
                self.namespace, pool=within, after=after, limit=100 if filtered else limit, now_ms=self._now_ms
            )
            fitting = [kept for kept in page.agents if among is None or kept.pool in among]
            records = yield from self._read(fitting)
            after = page.after
            for record in records:
                if (wanted is None or record.status is wanted) and _meets(record.labels, required):
                    items.append(record)
                    if len(items) == limit:
                        last = page.agents[-1].agent_id
                        after = record.agent_id if record.agent_id != last else page.after
                        break
            if not after or len(items) == limit:
                break
        return AgentPage(items=tuple(items), next_cursor=_cursor(within, after) if after else None)

    def _all(self, pool: str = "") -> Flow[list[AgentRecord]]:
        records: list[AgentRecord] = []
        after = ""
        while True:
            page: fleet.Page = yield fleet.page(self.namespace, pool=pool, after=after, now_ms=self._now_ms)
            records += yield from self._read(page.agents)
            after = page.after
            if not after:
                return records

    def _counts(self) -> Flow[dict[AgentStatus, int]]:
        counts = dict.fromkeys(AgentStatus, 0)
        for record in (yield from self._all()):
            counts[record.status] += 1
        return counts

    def _free_lost(self) -> Flow[int]:
        debts, more = yield fleet.lost(self.namespace, now_ms=self._now_ms)
        trouble: HybridqError | None = None
        for debt in debts:
            try:
                yield from self._pay(debt)
            except (QueueFull, QueueLost, ScriptFailed) as problem:
                # What is wrong with one queue must not keep the leases of others; it is tried again in 5 s.
                trouble = trouble or problem
        if trouble is not None:
            raise trouble
        return len(debts) or int(more)

    def _pay(self, debt: fleet.Debt) -> Flow[None]:
        """Tell a queue what it is owed, and note that it was told."""
        for _ in range(TOLD_MAX):
            told = yield fleet.enlist(
                self._queue(debt.pool),
                debt.agent_id,
                generation=debt.known,
                capacity=debt.capacity,
                drain=debt.drain,
                free=debt.how,
                until_ms=debt.until_ms,
                now_ms=self._now_ms,
            )
            if told is None or not told[1]:
                yield fleet.settle(self.namespace, [debt], now_ms=self._now_ms)
                return

    # -- pools ---------------------------------------------------------------------------------------------------

    def _queues(self) -> Flow[tuple[str, ...]]:
        names: list[str] = []
        while True:
            page = yield queues.catalogue(self.namespace, after=names[-1] if names else "", limit=CATALOGUE_PAGE)
            names += page
            if len(page) < CATALOGUE_PAGE:
                return tuple(names)

    def _has_queue(self, name: str) -> Call[bool]:
        return fleet.known(self.namespace, name)

    def _pool(self, name: str) -> Flow[PoolRecord]:
        (scale, agents), known = yield [
            fleet.pool(self.namespace, name, now_ms=self._now_ms),
            self._has_queue(name),
        ]
        if not known and not agents and scale is None:
            raise PoolNotFound(name)
        records = (yield from self._all(name)) if agents else []
        stats = (yield inspect.stats(self._queue(name), now_ms=self._now_ms)) if known else None
        return _pool_record(name, records, stats, scale or fleet.Scale())

    def _pools(self) -> Flow[list[PoolRecord]]:
        names = yield from self._queues()
        scaled: dict[str, fleet.Scale] = yield fleet.scaled(self.namespace, now_ms=self._now_ms)
        by_pool: dict[str, list[AgentRecord]] = {name: [] for name in sorted({*names, *scaled})}
        for record in (yield from self._all()):
            by_pool.setdefault(record.pool, []).append(record)
        stats = yield [inspect.stats(self._queue(name), now_ms=self._now_ms) for name in names]
        of = dict(zip(names, stats, strict=True))
        return [
            _pool_record(name, records, of.get(name), scaled.get(name, fleet.Scale()))
            for name, records in by_pool.items()
        ]

    def _scale(self, name: str, **numbers: int | None) -> Flow[PoolRecord]:
        yield fleet.scale(self.namespace, name, now_ms=self._now_ms, **numbers)
        return (yield from self._pool(name))


def _pool_record(name: str, agents: Sequence[AgentRecord], stats: Any, scale: fleet.Scale) -> PoolRecord:
    able = [agent for agent in agents if agent.status in (AgentStatus.HEALTHY, AgentStatus.DEGRADED)]
    there = (*able, *(agent for agent in agents if agent.status in (AgentStatus.UNHEALTHY, AgentStatus.DRAINING)))
    return PoolRecord(
        name=name,
        capacity=sum(agent.capacity for agent in able),
        active=sum(agent.running > 0 for agent in there),
        idle=sum(agent.running == 0 for agent in able),
        unhealthy=sum(agent.status in (AgentStatus.UNHEALTHY, AgentStatus.OFFLINE) for agent in agents),
        queued=stats.queued if stats else 0,
        min=scale.min,
        max=scale.max,
        target=scale.target,
        oldest_wait_s=stats.oldest_queued_s if stats else 0.0,
    )


def _requirements(labels: Sequence[str]) -> list[str]:
    if isinstance(labels, str) or not all(isinstance(one, str) and one.strip("!") for one in labels):
        raise InvalidArgument("labels", labels, 'a sequence of requirements such as "os=linux", "gpu", "!spot"')
    return list(labels)


def _meets(labels: Mapping[str, str], required: Iterable[str]) -> bool:
    for one in required:
        key, equals, value = one.removeprefix("!").partition("=")
        found = labels.get(key) == value if equals else key in labels
        if found == one.startswith("!"):
            return False
    return True


def _cursor(pool: str, after: str) -> str:
    return base64.urlsafe_b64encode(f"agents {pool} {after}".encode()).decode().rstrip("=")


def _read_cursor(pool: str, cursor: str | None) -> str:
    if cursor is None:
        return ""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        kind, of_pool, after = text.split(" ")
        if kind == "agents" and of_pool == pool:
            return validate_name("cursor", after)
    except (ValueError, binascii.Error, UnicodeDecodeError):
        pass
    raise InvalidArgument("cursor", cursor, "one that a page of this very list returned")
