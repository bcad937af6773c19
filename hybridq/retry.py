"""How long a failed job waits, as a pure function of the attempt and one random number.

The Lua script of `complete` computes the same; a test compares the two.
"""

from __future__ import annotations

import random
from typing import Final

from .job import Backoff

__all__ = ["JITTER_STEPS", "delay_ms", "jitter"]

JITTER_STEPS: Final = 1 << 20


def jitter(rng: random.Random) -> int:
    """Return a whole number from 0 to `JITTER_STEPS` - 1, evenly spread."""
    return rng.randrange(JITTER_STEPS)


def delay_ms(backoff: Backoff, attempt: int, jitter: int) -> int:
    """Return the wait in milliseconds after the `attempt`-th run failed (from 1), by "full jitter".

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: a random time between 0 and
    min(cap, base · 2^(attempt - 1)); it spreads retries best for the least extra load.
    """
    most = min(backoff.max_s * 1000, backoff.base_s * 1000 * 2.0 ** max(0, attempt - 1))
    return int(most * jitter / JITTER_STEPS)
