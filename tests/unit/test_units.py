"""Seconds and milliseconds meet in one place; what is out of range is refused before anything is sent."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridq._units import instant_to_ms, ms_to_instant, to_ms, to_s
from hybridq.errors import InvalidArgument


@pytest.mark.parametrize(("seconds", "ms"), [(0, 0), (1, 1000), (0.0015, 2), (30.0, 30_000), (0.001, 1)])
def test_seconds_become_whole_milliseconds(seconds: float, ms: int) -> None:
    """Rounded, not cut."""
    assert ms == to_ms("delay_s", seconds, 0, 60)


@pytest.mark.parametrize(
    "wrong", [-0.001, 60.001, float("nan"), float("inf"), float("-inf"), True, "5", None, [1]], ids=repr
)
def test_what_is_no_duration_in_range_is_refused_by_name(wrong: object) -> None:
    """The message names the argument, the value and the bounds."""
    with pytest.raises(InvalidArgument, match=r"delay_s: .* 0 to 60") as refused:
        to_ms("delay_s", wrong, 0, 60)  # type: ignore[arg-type]

    assert "delay_s" == refused.value.name


@given(st.integers(min_value=0, max_value=4_102_444_800_000))
def test_an_instant_survives_the_way_there_and_back(ms: int) -> None:
    """To the millisecond, for every instant up to the year 2100."""
    assert ms == instant_to_ms("run_at", ms_to_instant(ms))
    assert ms == to_ms("x", to_s(ms), 0, 5e9)


def test_an_instant_is_the_same_in_every_zone() -> None:
    """Only the instant counts, not how it is written."""
    noon = dt.datetime(2026, 3, 29, 12, tzinfo=dt.UTC)
    elsewhere = noon.astimezone(dt.timezone(dt.timedelta(hours=-9, minutes=-30)))

    assert instant_to_ms("run_at", noon) == instant_to_ms("run_at", elsewhere)


@pytest.mark.parametrize("naive", [dt.datetime(2026, 1, 1), dt.date(2026, 1, 1), 1_700_000_000, "2026-01-01"], ids=repr)
def test_an_instant_without_a_zone_is_refused(naive: object) -> None:
    """A time without a zone means another moment on another machine."""
    with pytest.raises(InvalidArgument, match="time zone"):
        instant_to_ms("run_at", naive)  # type: ignore[arg-type]
