"""From a module with workers in it to a process that runs them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import ModuleType

from ..errors import InvalidArgument
from .signals import stopped_by_signals
from .worker import Worker

__all__ = ["find_workers", "run_workers"]


def find_workers(module: ModuleType) -> list[Worker]:
    """Return the `Worker` objects among a module's top-level names, in the order of their definition."""
    found = [value for value in vars(module).values() if isinstance(value, Worker)]
    return list(dict.fromkeys(found))


def run_workers(workers: Sequence[Worker]) -> None:
    """Run workers in an event loop of their own until they are stopped by signals, then close their queues.

    When one of them ends with an error the others drain, and the first error is raised. Raises `InvalidArgument`
    when there is none.
    """
    if not workers:
        raise InvalidArgument("workers", workers, "at least one Worker")
    asyncio.run(_run_all(workers))


async def _run_all(workers: Sequence[Worker]) -> None:
    running = [asyncio.ensure_future(worker.serve()) for worker in workers]
    try:
        with stopped_by_signals(workers):
            await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
            for worker in workers:
                worker.stop(reason="another worker failed")
            results = await asyncio.gather(*running, return_exceptions=True)
    finally:
        for queue in dict.fromkeys(worker.queue for worker in workers):
            await queue.close()
    for result in results:
        if isinstance(result, BaseException):
            raise result
