"""A queue of each colour on each server, the one in memory included."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hybridq.connect import Connector, Connects
from hybridq.testing import fake_connector
from tests import invariants
from tests.conformance.colours import COLOURS, opened
from tests.conftest import _engine_params
from tests.servers import ServerProcess

Open = Callable[..., Any]


@pytest.fixture(params=[*_engine_params(), "memory"])
def connector(request: pytest.FixtureRequest, engine_servers: dict[str, ServerProcess]) -> Iterator[Connects]:
    """An empty server: of each engine, and in memory."""
    engine = request.param
    if engine == "memory":
        yield fake_connector()
        return
    if engine not in engine_servers:
        engine_servers[engine] = ServerProcess(engine).start()
    with engine_servers[engine].client() as client:
        client.flushall()
    yield Connector.parse(engine_servers[engine].url)
    with engine_servers[engine].client() as client:
        invariants.must_hold(client)


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    """The colours of a queue: blocking, and awaited."""
    return str(request.param)


@pytest.fixture
def open_queue(colour: str, connector: Connects, namespace: str) -> Iterator[Open]:
    """Opens queues of one colour on one server, all closed at the end."""
    with contextlib.ExitStack() as stack:

        def open_one(name: str = "work", **named: Any) -> Any:
            options = {"redis": connector, "namespace": namespace, "agent": "ann"} | named
            return stack.enter_context(opened(colour, name, **options))

        yield open_one


@pytest.fixture
def queue(open_queue: Open) -> Any:
    """A queue of one colour on one server."""
    return open_queue()
