"""How a worker waits for Redis: one log line when it goes, one when it is back, and ever longer pauses."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

import structlog

from ..errors import HybridqError, OutcomeUnknown, RedisUnavailable, ScriptFailed

__all__ = ["TRANSIENT", "Outage"]

log = structlog.get_logger("hybridq")
TRANSIENT: Final = (RedisUnavailable, OutcomeUnknown, ScriptFailed)
"""What may be over at the next try. Every verb of a holder can be repeated: its fence tells it apart."""
PAUSE_S_FIRST: Final = 0.1
PAUSE_S_MAX: Final = 3.0


class Outage:
    """Whether Redis answers the worker of one queue."""

    def __init__(self, queue: str, rng: random.Random | None = None) -> None:
        self._queue = queue
        self._rng = rng or random.Random()
        self._tries = 0
        self._since = 0.0

    async def pause(self, verb: str, problem: Exception) -> None:
        """Sleep before the next try of `verb`: up to 0.1 s, 0.2 s, 0.4 s … 3 s, with full jitter."""
        if self._tries == 0:
            self._since = time.monotonic()
            unknown = not isinstance(problem, HybridqError)
            name = type(problem).__name__
            log.warning("worker.away", queue=self._queue, verb=verb, error_type=name, exc_info=unknown)
        most = min(PAUSE_S_MAX, PAUSE_S_FIRST * 2.0 ** min(self._tries, 10))
        self._tries += 1
        await asyncio.sleep(most * self._rng.random())

    def over(self) -> None:
        """Something worked."""
        if self._tries:
            log.info("worker.back", queue=self._queue, away_s=round(time.monotonic() - self._since, 3))
            self._tries = 0
