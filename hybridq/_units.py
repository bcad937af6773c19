"""The only conversions between seconds, milliseconds and instants: inside hybridq everything is whole `_ms`."""

from __future__ import annotations

import datetime as dt
import math

from .errors import InvalidArgument

YEAR_S = 366 * 86_400


def to_ms(name: str, seconds: float, low_s: float, high_s: float) -> int:
    """Return `seconds` as whole milliseconds; raises `InvalidArgument` outside `low_s`..`high_s` or for NaN."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or math.isnan(seconds):
        raise InvalidArgument(name, seconds, f"a number of seconds from {low_s:g} to {high_s:g}")
    if not low_s <= seconds <= high_s:
        raise InvalidArgument(name, seconds, f"from {low_s:g} to {high_s:g} seconds")
    return round(seconds * 1000)


def to_s(ms: int) -> float:
    """Return milliseconds as seconds."""
    return ms / 1000


def instant_to_ms(name: str, instant: dt.datetime) -> int:
    """Return an aware datetime as epoch milliseconds; raises `InvalidArgument` when it has no time zone."""
    if not isinstance(instant, dt.datetime) or instant.tzinfo is None:
        raise InvalidArgument(name, instant, "a datetime with a time zone")
    return round(instant.timestamp() * 1000)


def ms_to_instant(ms: int) -> dt.datetime:
    """Return epoch milliseconds as an aware UTC datetime."""
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC)
