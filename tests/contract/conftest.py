"""One queue of its own for each test, on each engine: two servers, the in-memory one, and a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from hybridq.connect import Connector, Connects
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


def _chosen() -> list[object]:
    asked = os.environ.get("HYBRIDQ_TEST_ENGINES")
    return [_present(engine) for engine in (asked.split(",") if asked else ENGINES)]


one_engine = pytest.mark.parametrize("engine", _chosen()[:1], indirect=True)
"""For a test so long, and so much about Lua alone, that one engine is enough."""


@pytest.fixture(scope="session")
def clusters() -> Iterator[list[servers.Cluster]]:
    """The cluster of this run, started on first use."""
    started: list[servers.Cluster] = []
    yield started
    for cluster in started:
        cluster.close()


@pytest.fixture(params=_chosen())
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine in turn."""
    name: str = request.param
    return name


@pytest.fixture
def connector(
    engine: str,
    engine_servers: dict[str, servers.ServerProcess],
    clusters: list[servers.Cluster],
) -> Connects:
    """Where the engine is. It is not emptied: each test has a namespace of its own."""
    if engine == "fake":
        return fake_connector()
    if engine == "cluster":
        if not clusters:
            clusters.append(servers.Cluster(_first_present()).start())
        return Connector.parse(clusters[0].url)
    server = engine_servers.setdefault(engine, servers.ServerProcess(engine))
    if not server.running:
        server.start()
    return Connector.parse(server.url)


def _first_present() -> str:
    for engine in servers.ENGINES:
        try:
            servers.find_binary(engine)
        except servers.EngineMissing:
            continue
        return engine
    pytest.skip("no server binary for a cluster")


@pytest.fixture
def bare(request: pytest.FixtureRequest, connector: Connects, engine: str, namespace: str) -> Iterator[Rig]:
    """A rig whose queue was not created yet. Afterwards its keyspace is checked, unless the test `breaks_keys`."""
    with connector.sync() as client:
        rig = Rig(client, namespace, shebang=engine != "fake")
        yield rig
        if request.node.get_closest_marker("breaks_keys") is None:
            rig.check()


@pytest.fixture
def rig(bare: Rig) -> Rig:
    """A rig with an empty queue."""
    assert bare.eval("create", bare.now) == [["CREATED"]]
    return bare
