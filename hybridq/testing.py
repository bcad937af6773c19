"""For tests of programs that use hybridq: a queue in memory, and a way to run everything that waits.

The server is fakeredis (`pip install 'hybridq[fake]'`): the same scripts, fewer guarantees, nothing kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .client import Queue
from .connect import AsyncRedis, Connects, SyncRedis
from .job import Lease

__all__ = ["FakeConnector", "drain", "fake_connector"]


class FakeConnector:
    """Clients of one in-memory server, in both colours."""

    knows_shebang = False
    """The interpreter takes `#!lua` for a mistake; the runner sends scripts without it."""

    def __init__(self) -> None:
        import fakeredis

        self._server = fakeredis.FakeServer()

    @property
    def safe_url(self) -> str:
        """Where it is, for messages."""
        return "memory://"

    def sync(self) -> SyncRedis:
        """Return a client for commands."""
        import fakeredis

        client: SyncRedis = fakeredis.FakeRedis(server=self._server)
        return client

    def sync_bell(self) -> SyncRedis:
        """Return a client for pub/sub."""
        return self.sync()

    def aio(self) -> AsyncRedis:
        """Return a client for commands, for one event loop."""
        import fakeredis.aioredis

        client: AsyncRedis = fakeredis.aioredis.FakeRedis(server=self._server)
        return client

    def aio_bell(self) -> AsyncRedis:
        """Return a client for pub/sub, for one event loop."""
        return self.aio()


def fake_connector() -> Connects:
    """Return a fresh in-memory server; give it to `Queue(redis=…)` and `AsyncQueue(redis=…)`."""
    return FakeConnector()


def drain(queue: Queue, handler: Callable[[Lease], Any], *, jobs_max: int = 1000) -> int:
    """Claim, run and complete jobs one by one until none is claimable; returns how many.

    `handler` gets each started lease; what it returns is the result. An exception fails the job and is raised.
    """
    for done in range(jobs_max):
        claimed = queue.claim(start=True)
        if not claimed:
            return done
        try:
            result = handler(claimed[0])
        except Exception as problem:
            queue.fail(claimed[0], {"type": type(problem).__name__})
            raise
        queue.complete(claimed[0], result)
    return jobs_max
