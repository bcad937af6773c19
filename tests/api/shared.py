"""One server for a whole file of tests, each test in a namespace of its own: for what is not about Redis.

`api, key, running = shared.api, shared.key, shared.running` in a file of tests makes them its fixtures.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import servers
from tests.api.client import Api

__all__ = ["api", "in_namespace", "key", "running"]


@pytest.fixture(scope="module")
def running() -> Iterator[Api]:
    """A server over the first engine there is."""
    with servers.ServerProcess(_engine()) as server, Api(server.url, "default") as started:
        yield started


@pytest.fixture
def api(running: Api, namespace: str) -> Api:
    """That server, with keys of a namespace that no other test uses."""
    return in_namespace(running, namespace)


@pytest.fixture
def key(api: Api) -> Callable[..., str]:
    """Makes API keys of the test's namespace."""
    return api.key


def in_namespace(running: Api, namespace: str) -> Api:
    """Return the same server with keys of another namespace."""
    found: Any = copy.copy(running)
    found.namespace = namespace
    found.__dict__.pop("admin", None)
    return found  # type: ignore[no-any-return]


def _engine() -> str:
    for engine in servers.ENGINES:
        try:
            servers.find_binary(engine)
        except servers.EngineMissing:
            continue
        return engine
    pytest.skip("no server to run on")
