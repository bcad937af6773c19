"""Answers "which is the greatest so far" without looking at every pair."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Best", "Mark"]

T = TypeVar("T")


class Mark(NamedTuple, Generic[T]):
    """Something with a value, from a place on."""

    at: int
    value: int
    what: T


class Best(Generic[T]):
    """Of marks at places, finds the one with the greatest value before a place, in O(log n)."""

    def __init__(self, marks: Iterable[Mark[T]]) -> None:
        ordered = sorted(marks, key=lambda mark: mark.at)
        self._places = [mark.at for mark in ordered]
        self._best: list[Mark[T]] = []
        for mark in ordered:
            last = self._best[-1] if self._best else mark
            self._best.append(mark if mark.value > last.value else last)

    def before(self, place: int) -> Mark[T] | None:
        """Return the mark of the greatest value among those strictly before `place`; None when there are none."""
        count = bisect_left(self._places, place)
        return self._best[count - 1] if count else None
