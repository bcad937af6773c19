"""Threads for plain functions; daemons, as one that never returns must not keep a process alive."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["Threads"]


class Threads:
    """Runs calls in threads that are started as needed and used again. Belongs to one event loop."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._numbers = itertools.count(1)
        self._started = 0
        self._busy = 0

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a thread, with the caller's context variables; return or raise what it does.

        When the caller is cancelled the function goes on, and what it returns is dropped.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        context = contextvars.copy_context()

        def tell(value: Any, raised: BaseException | None) -> None:
            self._busy -= 1
            if not ended.done():
                ended.set_result((value, raised))

        def call() -> None:
            value, raised = None, None
            try:
                value = context.run(function, *arguments)
            except BaseException as problem:
                raised = problem  # whatever it is, it belongs to the caller
            with suppress(RuntimeError):  # the loop was closed over a function that took longer than it
                loop.call_soon_threadsafe(tell, value, raised)

        self._busy += 1
        if self._busy > self._started:
            self._started += 1
            threading.Thread(target=self._serve, name=f"hybridq-task-{next(self._numbers)}", daemon=True).start()
        self._calls.put(call)
        value, raised = await ended
        if raised is not None:
            raise raised
        return value

    def close(self) -> None:
        """End the threads, each when its call has returned."""
        for _ in range(self._started):
            self._calls.put(None)
        self._started = 0

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
