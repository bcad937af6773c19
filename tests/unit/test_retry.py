"""Backoff as a pure function."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridq.job import Backoff
from hybridq.retry import JITTER_STEPS, delay_ms, jitter

FULL = JITTER_STEPS - 1


@pytest.mark.parametrize(("attempt", "most"), [(1, 5_000), (2, 10_000), (3, 20_000), (7, 300_000), (100, 300_000)])
def test_the_longest_wait_doubles_up_to_the_maximum(attempt: int, most: int) -> None:
    """With the default of 5 and 300 seconds."""
    assert most - 1 == pytest.approx(delay_ms(Backoff(), attempt, FULL), abs=1)


@given(st.integers(1, 100), st.integers(0, FULL), st.floats(0, 3600), st.floats(0, 86_400))
def test_a_wait_is_never_negative_nor_over_the_maximum(attempt: int, chance: int, base_s: float, max_s: float) -> None:
    """For every attempt and every throw of the dice."""
    assert 0 <= delay_ms(Backoff(base_s=base_s, max_s=max_s), attempt, chance) <= max_s * 1000


@given(st.integers(1, 20), st.integers(0, FULL - 1))
def test_a_larger_random_number_never_means_a_shorter_wait(attempt: int, chance: int) -> None:
    """So the wait is spread as evenly as the number."""
    assert delay_ms(Backoff(), attempt, chance) <= delay_ms(Backoff(), attempt, chance + 1)


def test_jitter_is_spread_over_its_whole_range() -> None:
    """Four quarters, each with its share."""
    rng = random.Random(7)
    quarters = [0, 0, 0, 0]
    for _ in range(4000):
        quarters[jitter(rng) * 4 // JITTER_STEPS] += 1

    assert all(900 < n < 1100 for n in quarters)
