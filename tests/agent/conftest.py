"""Fixtures of the agent: a real server, clients of both colours, and a server that misbehaves as it is told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.agent.colours import COLOURS, connect, in_a_hurry
from tests.agent.scripted import Scripted
from tests.api.client import Api


@pytest.fixture
def api(redis_url: str, namespace: str) -> Iterator[Api]:
    """A real server in a thread, over the `server` fixture's Redis; see `tests.api.client`."""
    with Api(redis_url, namespace) as running:
        yield running


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    """Which of the two clients; a test that asks for it runs with both."""
    return str(request.param)


@pytest.fixture
def open_client(colour: str) -> Iterator[Callable[..., Any]]:
    """Opens clients, `open_client(url, token=…)`, and closes them after the test."""
    with contextlib.ExitStack() as opened:

        def open_client(url: str, **options: Any) -> Any:
            client = connect(colour, url, **options)
            opened.callback(client.close)
            return client

        yield open_client


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """A server that answers as the test says."""
    with Scripted() as server:
        yield server


@pytest.fixture
def client(open_client: Callable[..., Any], scripted: Scripted) -> Any:
    """A client of the server that misbehaves; its random pauses are none."""
    return in_a_hurry(open_client(scripted.url, token=TOKEN, timeout_s=2.0, deadline_s=10.0))


TOKEN = "hqk_secretsecretsecretsecretsecretsecretsecretsecretsecretsecret1"
