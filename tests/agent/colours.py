"""One test for both colours: an `AsyncClient` that a test drives as if it blocked."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

from hybridq.agent import AsyncClient, Client

COLOURS = ("sync", "aio")


class Driven:
    """An `AsyncClient` in a loop of its own; every method returns when its coroutine has."""

    def __init__(self, client: AsyncClient, runner: asyncio.Runner | None = None) -> None:
        self.client = client
        self._runner = runner or asyncio.Runner()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.client, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            made = found(*arguments, **named)
            if inspect.isawaitable(made):
                return self._runner.run(self._wait(made))
            if inspect.isasyncgen(made):
                return self._iterate(made)
            return Driven(made, self._runner) if isinstance(made, AsyncClient) else made

        return call

    async def _wait(self, made: Any) -> Any:
        return await made

    def _iterate(self, made: AsyncIterator[Any]) -> Iterator[Any]:
        try:
            while True:
                try:
                    yield self._runner.run(anext(made))  # type: ignore[arg-type]
                except StopAsyncIteration:
                    return
        finally:
            self._runner.run(made.aclose())  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return repr(self.client)

    def close(self) -> None:
        """Close the client and its loop."""
        self._runner.run(self.client.close())
        self._runner.close()


class _Even(random.Random):
    """Never waits where the wait is random."""

    def randrange(self, *_: Any, **__: Any) -> int:
        return 0

    def uniform(self, a: float, b: float) -> float:
        return a

    def random(self) -> float:
        return 0.0


def in_a_hurry(client: Any) -> Any:
    """Take the random pauses out of a client."""
    (client.client if isinstance(client, Driven) else client)._shared.rng = _Even()
    return client


def connect(colour: str, url: str, **options: Any) -> Any:
    """Return a client of a colour."""
    return Client(url, **options) if colour == "sync" else Driven(AsyncClient(url, **options))
