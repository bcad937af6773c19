"""Queues of both colours behind one face, so that one test body runs over both."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

from hybridq import AsyncQueue, Lease, Queue, RedisUnavailable

COLOURS = ("sync", "async")
ANSWER_TIMEOUT_S = 60.0


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="colours", daemon=True)
        self._thread.start()

    def wait_for(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Call an async function in the loop and wait for its answer here."""

        async def call() -> Any:
            return await function(*args, **named)

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(ANSWER_TIMEOUT_S)

    def close(self) -> None:
        """End the thread and its loop."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(ANSWER_TIMEOUT_S)
        self.loop.close()


class Awaiting:
    """An `AsyncQueue`, or its dead letters, called like the sync one: every call is awaited in `loop`."""

    def __init__(self, target: Any, loop: LoopThread) -> None:
        self._target, self._loop = target, loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name == "dead":
            return Awaiting(found, self._loop)
        if inspect.isasyncgenfunction(found):
            return lambda *args, **named: self._each(found(*args, **named))
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *args, **named: self._loop.wait_for(found, *args, **named)

    def _each(self, items: Any) -> Iterator[Any]:
        """What an async iterator yields, each awaited in `loop`."""
        try:
            while True:
                try:
                    yield self._loop.wait_for(items.__anext__)
                except StopAsyncIteration:
                    return
        finally:
            self._loop.wait_for(items.aclose)


@contextlib.contextmanager
def opened(colour: str, *args: Any, **named: Any) -> Iterator[Any]:
    """A queue of a colour, called like a `Queue`; closed at the end."""
    if colour == "sync":
        with Queue(*args, **named) as queue:
            yield queue
        return
    loop = LoopThread()
    try:
        target = AsyncQueue(*args, **named)
        try:
            yield Awaiting(target, loop)
        finally:
            loop.wait_for(target.close)
    finally:
        loop.close()


def set_time(queue: Any, now_ms: int) -> None:
    """Let a queue live in virtual time; 0 is the server's clock again."""
    getattr(queue, "_target", queue)._now_ms = now_ms


def hold_one(queue: Any, work: Callable[[Lease | None], Any]) -> None:
    """Run `work` on the lease of a hold; what it returns is the result, what it raises leaves the block."""
    if isinstance(queue, Queue):
        with (hold := queue.hold()) as lease:
            hold.result = work(lease)
        return

    async def run() -> None:
        async with (held := queue.hold()) as lease:
            held.result = work(lease)

    queue._loop.wait_for(run)


class Counting:
    """A connector that counts the clients it makes: while it made none, nothing can have been sent."""

    safe_url = "memory://counted"

    def __init__(self) -> None:
        self.made = 0

    def _make(self) -> Any:
        self.made += 1
        raise RedisUnavailable(self.safe_url, "it only counts")

    sync = sync_bell = aio = aio_bell = _make
