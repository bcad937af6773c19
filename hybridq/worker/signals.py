"""SIGTERM and SIGINT: the first drains, the second stops now."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

__all__ = ["SIGNALS", "stopped_by_signals"]

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class _Stops(Protocol):
    def stop(self, *, now: bool = False, reason: str = "") -> None: ...


@contextmanager
def stopped_by_signals(workers: Sequence[_Stops]) -> Iterator[None]:
    """Let the process' signals stop `workers` while the block runs; only the main thread can."""
    loop = asyncio.get_running_loop()
    received: list[signal.Signals] = []

    def received_one(number: signal.Signals) -> None:
        received.append(number)
        for worker in workers:
            worker.stop(now=len(received) > 1, reason=number.name)

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            previous = signal.getsignal(number)
            try:
                loop.add_signal_handler(number, received_one, number)
            except NotImplementedError:  # Windows: KeyboardInterrupt ends the loop, and leases run out
                break
            before[number] = previous
    try:
        yield
    finally:
        for number, previous in before.items():
            loop.remove_signal_handler(number)
            if previous is not None:
                signal.signal(number, previous)
