"""One connection to Redis for everything that shares it: queues, the fleet, access records.

What is made over one `AsyncBackend` sends its calls through one coalescer, so all calls of a loop turn, whatever
they are about, travel together. A backend knows a `Place` for each root that calls may go to.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .coalesce import Coalescer
from .connect import Connector, Connects
from .errors import InvalidArgument, WrongLoop
from .runner import AsyncRunner, Make, Place, Runner

__all__ = ["AsyncBackend", "Backend", "BackendBase"]


class BackendBase:
    """Where Redis is: a URL, a connector, or a private server in a data directory; see `Backend`."""

    def __init__(
        self, redis: str | Connects | BackendBase | None = None, *, data_dir: Path | str | None = None
    ) -> None:
        self._embedded: Any = None
        self.connector: Connects = self._find_server(redis, data_dir)
        self._places: dict[str, Place] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.connector.safe_url}>"

    def place(self, name: str, root: str, make: Make | None = None) -> Place:
        """Return what is known of a root, which messages call `name`; `make` gives the calls that create it."""
        found = self._places.get(root)
        if found is None:
            shebang = getattr(self.connector, "knows_shebang", True)
            found = self._places[root] = Place(name, root, self.connector.safe_url, shebang=shebang, make=make)
        return found

    def _find_server(self, redis: str | Connects | BackendBase | None, data_dir: Path | str | None) -> Connects:
        if redis is not None and data_dir is not None:
            raise InvalidArgument("data_dir", str(data_dir), "None when redis is given: one of the two")
        if isinstance(redis, BackendBase):
            raise InvalidArgument("redis", redis, "a Backend for what blocks, an AsyncBackend for asyncio")
        if isinstance(redis, str):
            return Connector.parse(redis)
        if redis is not None:
            return redis
        url = os.environ.get("HYBRIDQ_REDIS_URL")
        if url and data_dir is None:
            return Connector.parse(url)
        from .embedded import start_or_attach  # the server is needed only by those who bring none

        self._embedded = start_or_attach(None if data_dir is None else Path(data_dir))
        connector: Connects = self._embedded.connector
        return connector

    def _release_server(self) -> None:
        if self._embedded is not None:
            self._embedded.close()
            self._embedded = None


class Backend(BackendBase):
    """A connection to Redis, blocking; several queues may be opened over one: `Queue("a", redis=backend)`.

    Args:
        redis: A URL (`redis:// rediss:// unix:// redis+sentinel:// redis+cluster://`), or a connector. None:
            `HYBRIDQ_REDIS_URL`, else a private server in `data_dir`.
        data_dir: Folder of the private server. None: `HYBRIDQ_DATA_DIR`, else the platform's place for user data.
    """

    def __init__(
        self, redis: str | Connects | BackendBase | None = None, *, data_dir: Path | str | None = None
    ) -> None:
        super().__init__(redis, data_dir=data_dir)
        self.runner = Runner(self.connector, self._places)

    def close(self) -> None:
        """Close the connections, and let go of a private server."""
        self.runner.close()
        self._release_server()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncBackend(BackendBase):
    """A connection to Redis, for asyncio; several queues may be opened over one: `AsyncQueue("a", redis=backend)`.

    Args:
        redis: A URL (`redis:// rediss:// unix:// redis+sentinel:// redis+cluster://`), or a connector. None:
            `HYBRIDQ_REDIS_URL`, else a private server in `data_dir`.
        data_dir: Folder of the private server. None: `HYBRIDQ_DATA_DIR`, else the platform's place for user data.

    It belongs to the event loop of its first call; close what was made over it first, then it.
    """

    def __init__(
        self, redis: str | Connects | BackendBase | None = None, *, data_dir: Path | str | None = None
    ) -> None:
        super().__init__(redis, data_dir=data_dir)
        self.runner = AsyncRunner(self.connector, self._places)
        self.coalescer = Coalescer(self.runner)
        self._loop: asyncio.AbstractEventLoop | None = None

    def check_loop(self, name: str) -> None:
        """Raise `WrongLoop` when this is not the event loop of the first call."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise WrongLoop(name)

    async def close(self) -> None:
        """See what was sent through, close the connections, and let go of a private server."""
        await self.coalescer.settle()
        await self.runner.close()
        self._release_server()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
