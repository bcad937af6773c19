"""Fixtures of the tests from end to end. A house serves all tests of a file, each in a pool of its own."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import invariants
from tests.agent.e2e.agents import AgentProcess
from tests.agent.e2e.doings import strays
from tests.agent.e2e.house import House
from tests.servers import wait_until

GONE_S = 10.0
pools = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def _linux_only() -> None:
    if sys.platform != "linux":
        pytest.skip("these tests look into /proc")


@pytest.fixture(scope="module")
def shared_house() -> Iterator[House]:
    with House() as house:
        yield house


@pytest.fixture
def house(shared_house: House) -> Iterator[House]:
    """A running house, whose default pool is the test's own. Afterwards every invariant holds, no process is left."""
    shared_house.pool = f"pool-{next(pools)}"
    yield shared_house
    wait_until(lambda: not strays(shared_house.folder), GONE_S, what="no process of a job is left")
    with shared_house.redis.client() as client:
        invariants.must_hold(client)


@pytest.fixture
def agent(house: House) -> Iterator[Callable[..., AgentProcess]]:
    """Starts agents of the test's pool, `agent("a", lease_seconds=3, env={…})`, and ends them after the test."""
    with contextlib.ExitStack() as stack:

        def start(name: str, **settings: Any) -> AgentProcess:
            # The agents of a namespace have names of their own, whatever their pools.
            process = AgentProcess(house, f"{house.pool}-{name}", **settings)
            stack.enter_context(process)
            process.wait_registered()
            return process

        yield start


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A folder that the test and its jobs both know."""
    return tmp_path
