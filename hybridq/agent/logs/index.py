"""Many literals in a long text, in one pass.

Of each literal a window of four bytes is looked for that begins with a byte that is rare in logs; the few bytes that
all windows begin with are skipped to at the speed of a set. Only where a window stands is the whole literal compared.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final

__all__ = ["Index"]

WINDOW: Final = 4
PERIODIC_BYTES_MAX: Final = 256

_COMMON: Final = b'etaoinsrldcu0m1pgfh.2:-/b_3,4v58=y6"97wk[](){}<>xCESATIRNODLPMjFUBGHqz'
"""Bytes of logs without spaces, the most common first; others are rare."""
_PRICE: Final = {byte: 1.0 / (place + 8) for place, byte in enumerate(_COMMON)}
_RARE: Final = 1.0 / 128


class Index:
    """Finds literals of at least four bytes."""

    def __init__(self, literals: Iterable[bytes]) -> None:
        self._sorted = sorted(set(literals))
        self.longest = max(map(len, self._sorted), default=0)
        self._windows: dict[bytes, list[tuple[bytes, int, int]]] = {}
        firsts: set[int] = set()
        # Short ones first, as they have the least choice.
        for literal in sorted(self._sorted, key=len):
            at = _cheapest(literal, firsts)
            firsts.add(literal[at])
            self._windows.setdefault(literal[at : at + WINDOW], []).append((literal, at, _period(literal)))
        self._search = re.compile(_any_of(sorted(self._windows)), re.DOTALL).search
        self._begins = re.compile(_any_of(sorted({literal[:3] for literal in self._sorted})), re.DOTALL).search

    def __bool__(self) -> bool:
        return bool(self._sorted)

    def find(self, text: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Yield begin, end and literal of all that stand in `text`, also those that overlap."""
        if not self._sorted:
            return
        at = 0
        while (hit := self._search(text, at)) is not None:
            start = hit.start()
            at = start + 1
            for literal, before, period in self._windows[hit[0]]:
                begin = start - before
                if begin >= 0 and text.startswith(literal, begin):
                    end = begin + len(literal)
                    if period:
                        # It overlaps itself: a row of it is one find, not thousands.
                        unit = literal[-period:]
                        while text.startswith(unit, end):
                            end += period
                        at = max(at, end - len(literal))
                    yield begin, end, literal

    def begun(self, text: bytes) -> int:
        """Return how many bytes at the end of `text` may be the beginning of a literal that is not there in full."""
        if not self._sorted:
            return 0
        at = max(0, len(text) - self.longest + 1)
        while (hit := self._begins(text, at)) is not None:
            if self._is_beginning(text[hit.start() :]):
                return len(text) - hit.start()
            at = hit.start() + 1
        return next((k for k in (2, 1) if len(text) >= k and self._is_beginning(text[-k:])), 0)

    def _is_beginning(self, text: bytes) -> bool:
        place = bisect_left(self._sorted, text)
        if place < len(self._sorted) and self._sorted[place] == text:
            place += 1  # in full: `find` has it; what matters is a longer one
        return place < len(self._sorted) and self._sorted[place].startswith(text)


def _cheapest(literal: bytes, firsts: set[int]) -> int:
    """Return where the window begins: at a byte already looked for, else at the rarest."""

    def price(at: int) -> tuple[bool, float]:
        cost = _PRICE.get(literal[at], _RARE)
        return (literal[at] not in firsts or cost > 1 / 30, cost)

    return min(range(len(literal) - WINDOW + 1), key=price)


def _any_of(texts: list[bytes]) -> bytes:
    """Return a pattern for any of `texts`, of one length and sorted, that decides byte by byte."""
    if not texts:
        return b"(?!)"
    if len(texts) == 1:
        return re.escape(texts[0])
    parts: list[bytes] = []
    start = 0
    for end in range(1, len(texts) + 1):
        if end == len(texts) or texts[end][:1] != texts[start][:1]:
            rest = [text[1:] for text in texts[start:end]]
            parts.append(re.escape(texts[start][:1]) + (_any_of(rest) if rest[0] else b""))
            start = end
    return parts[0] if len(parts) == 1 else b"(?:" + b"|".join(parts) + b")"


def _period(literal: bytes) -> int:
    """Return the distance at which a literal repeats itself and so may overlap itself, 0 when it does not."""
    if len(literal) > PERIODIC_BYTES_MAX:
        return 0
    return next((at for at in range(1, len(literal) // 2 + 1) if literal.startswith(literal[at:])), 0)
