"""A fleet of its own for each test: its scripts on each engine, its public names in both colours on each server."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hybridq import AsyncFleet, Fleet
from hybridq.connect import SyncRedis
from tests.conformance.colours import COLOURS, Awaiting, LoopThread, opened
from tests.contract.conftest import client, cluster, engine
from tests.fleet.rig import FleetRig

__all__ = ["House", "client", "cluster", "engine"]


@pytest.fixture
def rig(client: SyncRedis, engine: str, namespace: str, request: pytest.FixtureRequest) -> Iterator[FleetRig]:
    """A rig of an empty fleet. Afterwards its keyspace is checked, unless the test `breaks_keys`."""
    made = FleetRig(client, namespace, shebang=engine != "fake")
    yield made
    if request.node.get_closest_marker("breaks_keys") is None:
        made.check()


class House:
    """A fleet and its queues in one colour, and one clock for all of them."""

    def __init__(self, fleet: Any, open_queue: Callable[[str], Any]) -> None:
        self.fleet = fleet
        self._open_queue = open_queue
        self._queues: dict[str, Any] = {}
        self.now_ms = time.time_ns() // 1_000_000
        self._set(fleet)

    def queue(self, name: str = "builds") -> Any:
        """The queue of a pool."""
        if name not in self._queues:
            self._queues[name] = self._open_queue(name)
            self._set(self._queues[name])
        return self._queues[name]

    def live(self, seconds: float, *, step_s: float = 4.0, keep: Any = ()) -> None:
        """Let time pass with somebody looking after the fleet and the agents of `keep` beating, so it is no outage."""
        end_ms = self.now_ms + int(seconds * 1000)
        while self.now_ms < end_ms:
            self.now_ms = min(end_ms, self.now_ms + int(step_s * 1000))
            for one in (self.fleet, *self._queues.values()):
                self._set(one)
            for queue in self._queues.values():
                queue.upkeep()
            for registration in keep:
                self.fleet.beat(registration.agent_id, registration.session_id)
            self.fleet.free_lost()

    def skip(self, seconds: float) -> None:
        """Let time pass in which nobody does anything."""
        self.now_ms += int(seconds * 1000)
        for one in (self.fleet, *self._queues.values()):
            self._set(one)

    def _set(self, one: Any) -> None:
        getattr(one, "_target", one)._now_ms = self.now_ms


@contextlib.contextmanager
def opened_fleet(colour: str, **named: Any) -> Iterator[Any]:
    """A fleet of a colour, called like a `Fleet`; closed at the end."""
    if colour == "sync":
        with Fleet(**named) as fleet:
            yield fleet
        return
    loop = LoopThread()
    try:
        target = AsyncFleet(**named)
        try:
            yield Awaiting(target, loop)
        finally:
            loop.wait_for(target.close)
    finally:
        loop.close()


@pytest.fixture(params=COLOURS)
def house(request: pytest.FixtureRequest, redis_url: str, namespace: str) -> Iterator[House]:
    """A fleet and its queues, in each colour on each server."""
    with contextlib.ExitStack() as stack:

        def open_queue(name: str) -> Any:
            return stack.enter_context(opened(request.param, name, redis=redis_url, namespace=namespace))

        fleet = stack.enter_context(opened_fleet(request.param, redis=redis_url, namespace=namespace))
        yield House(fleet, open_queue)
