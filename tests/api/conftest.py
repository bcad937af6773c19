"""Fixtures of the HTTP side: a server on a real socket for each test, with a namespace of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.api.client import Api


@pytest.fixture
def api(redis_url: str, namespace: str) -> Iterator[Api]:
    """A server in a thread, over the `server` fixture's Redis; see `tests.api.client`."""
    with Api(redis_url, namespace) as running:
        yield running


@pytest.fixture
def key(api: Api) -> Callable[..., str]:
    """Makes API keys: `key("queue:read queue:enqueue", pools=["a"], namespace="other")` returns the text."""
    return api.key


@pytest.fixture
def api_process(redis_url: str, namespace: str) -> Iterator[Api]:
    """The same in a process of its own."""
    with Api(redis_url, namespace, process=True) as running:
        yield running
