"""One queue of its own for each test, on each engine: two servers, the in-memory one, and a cluster."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator

import pytest

from hybridq.connect import Connector, Connects, SyncRedis
from hybridq.testing import fake_connector
from tests import servers
from tests.contract.harness import Rig

ENGINES = (*servers.ENGINES, "fake", "cluster")


def _present(engine: str) -> object:
    """The parameter of an engine. Raises `EngineMissing` when it is absent and was asked for by name."""
    try:
        if engine in servers.ENGINES:
            servers.find_binary(engine)
    except servers.EngineMissing as missing:
        if os.environ.get("HYBRIDQ_TEST_ENGINES"):
            raise
        return pytest.param(engine, marks=pytest.mark.skip(reason=str(missing)))
    return engine


def _chosen(among: tuple[str, ...] = ENGINES) -> list[object]:
    asked = os.environ.get("HYBRIDQ_TEST_ENGINES")
    return [_present(engine) for engine in (asked.split(",") if asked else among) if engine in among]


one_engine = pytest.mark.parametrize("engine", _chosen()[:1], indirect=True)
"""For a test so long, and so much about Lua alone, that one engine is enough."""
servers_only = pytest.mark.parametrize("engine", _chosen(servers.ENGINES), indirect=True)
"""For a test of what a server says and fakeredis does not."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Callable[[], SyncRedis]]:
    """Gives the one client of a cluster that is started on first use: it learns the map of the slots but once."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def client() -> SyncRedis:
            running = stack.enter_context(servers.Cluster(_first_present()))
            return stack.enter_context(contextlib.closing(Connector.parse(running.url).sync()))

        yield client


def _first_present() -> str:
    for engine in servers.ENGINES:
        with contextlib.suppress(servers.EngineMissing):
            servers.find_binary(engine)
            return engine
    pytest.skip("no server binary for a cluster")


@pytest.fixture(params=_chosen())
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine in turn."""
    name: str = request.param
    return name


@pytest.fixture
def client(
    engine: str,
    engine_servers: dict[str, servers.ServerProcess],
    cluster: Callable[[], SyncRedis],
) -> Iterator[SyncRedis]:
    """A client of the engine. The server is not emptied: each test has a namespace of its own."""
    if engine == "cluster":
        yield cluster()
        return
    with (fake_connector() if engine == "fake" else _connector(engine, engine_servers)).sync() as client:
        yield client


def _connector(engine: str, engine_servers: dict[str, servers.ServerProcess]) -> Connects:
    server = engine_servers.setdefault(engine, servers.ServerProcess(engine))
    if not server.running:
        server.start()
    return Connector.parse(server.url)


@pytest.fixture
def bare(request: pytest.FixtureRequest, client: SyncRedis, engine: str, namespace: str) -> Iterator[Rig]:
    """A rig whose queue was not created yet. Afterwards its keyspace is checked, unless the test `breaks_keys`."""
    rig = Rig(client, namespace, shebang=engine != "fake")
    yield rig
    if request.node.get_closest_marker("breaks_keys") is None:
        rig.check()


@pytest.fixture
def rig(bare: Rig) -> Rig:
    """A rig with an empty queue."""
    assert bare.run("create") == [["CREATED"]]
    return bare
