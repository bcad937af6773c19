"""Stopping a task from elsewhere, also from a thread, without mixing up whose cancellation it was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Interrupt", "call_in"]


class Interrupt:
    """Cancels the task it is made in, at most once, and can tell its own cancellation from that of others."""

    __slots__ = ("_before", "_closed", "_task", "fired")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "an interrupt is made inside a task"
        self._task = task
        self._before = task.cancelling()
        self._closed = False
        self.fired = False
        """Whether the task was cancelled by us."""

    def fire(self) -> None:
        """Cancel the task, unless that happened, or the interrupt was closed. Called in the task's loop."""
        if not self.fired and not self._closed:
            self.fired = True
            self._task.cancel()

    def close(self) -> bool:
        """Fire no more; take our cancellation back. Returns True when the task was cancelled by us alone."""
        self._closed = True
        return self.fired and self._task.uncancel() <= self._before


def call_in(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: object) -> None:
    """Call back in a loop, from any thread; nothing happens when the loop is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *arguments)
