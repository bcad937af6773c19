"""The way of a job's output through the filters, and why they stand in this order.

    raw ─ Redactor ─ Neutral ─ Redactor ─ Lines ─┐
    (each stream: stdout, stderr)                ├─ Redactor ─ the log
    raw ─ Redactor ─ Neutral ─ Redactor ─ Lines ─┘

A control sequence in the middle of a secret hides it until `Neutral` has been there, and one before it may swallow its
first character, after which it is no longer found: so secrets are looked for on both sides. `Lines` brings together
what carriage returns and backspaces had kept apart, and so does the joining of the streams. What a filter before has
searched already is not searched again, so plain output costs one search.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from .neutral import Lines, Neutral
from .redactor import Redactor

__all__ = ["Cleaner"]

_PLAIN: Final = re.compile(rb"[\t\n\r\x08 -~]*+")


class Cleaner:
    """Makes the output of a job, of several streams, one text that may be shown. For one thread at a time."""

    def __init__(self, secrets: Iterable[str | bytes] = ()) -> None:
        self._last = Redactor(secrets)
        self._streams: dict[str, _Stream] = {}
        self._open: str | None = None
        """Whose line the text ends in the middle of."""

    @property
    def count(self) -> int:
        """How many secrets were taken out."""
        return self._last.count + sum(stream.count for stream in self._streams.values())

    @property
    def too_short(self) -> int:
        """How many values are too short to be looked for."""
        return self._last.too_short

    def add(self, secret: str | bytes) -> None:
        """Look for this value too, from here on."""
        self._last.add(secret)

    def feed(self, data: bytes, stream: str) -> bytes:
        """Return what can be said for sure of the log, up to here."""
        if stream not in self._streams:
            self._streams[stream] = _Stream(self._last)
        text = self._streams[stream].feed(data)
        return self._merged(stream, text, searched=not self._streams[stream].redrew)

    def pause(self) -> bytes:
        """Return the lines that have not ended, for someone who watches."""
        return b"".join([self._merged(name, stream.lines.partial()) for name, stream in self._streams.items()])

    def settle(self) -> bytes:
        """Return what was held back, but for what looks like half a secret, so that a note may follow."""
        before = [self._merged(name, stream.settle()) for name, stream in self._streams.items()]
        return b"".join(before) + self._last.settle()

    def note(self, line: str) -> bytes:
        """Return a line of somebody else's."""
        return self._merged("", self.whole(line).encode() + b"\n") + self._last.settle()

    def flush(self) -> bytes:
        """Return what was held back, at the end of all streams."""
        left = [self._merged(name, stream.flush()) for name, stream in self._streams.items()]
        return b"".join(left) + self._last.flush()

    def whole(self, text: str) -> str:
        """Return a whole text cleaned; the log knows nothing of it."""
        one = _Stream(self._last)
        data = text.encode("utf-8", "replace")
        clean = one.feed(data) + one.flush()
        last = self._last.sibling()
        return (last.feed(clean) + last.flush()).decode("utf-8", "replace")

    def _merged(self, stream: str, text: bytes, *, searched: bool = False) -> bytes:
        if not text:
            return b""
        if self._open not in (None, stream):
            text = b"\n" + text
        self._open = None if text.endswith(b"\n") else stream
        return self._last.follow(text) if searched else self._last.feed(text)


class _Stream:
    """The part of the way that each stream goes by itself."""

    def __init__(self, patterns: Redactor) -> None:
        self._raw, self._neutral, self._shown = patterns.sibling(), Neutral(), patterns.sibling()
        self.lines = Lines()
        self.redrew = False
        """Whether lines came out as something else than went in."""

    @property
    def count(self) -> int:
        return self._raw.count + self._shown.count

    def feed(self, data: bytes) -> bytes:
        text = self._seen(self._raw.feed(data))
        self.redrew = self.lines.redraws(text)
        return self.lines.feed(text)

    def settle(self) -> bytes:
        return self.lines.feed(self._seen(self._raw.settle()) + self._shown.settle()) + self.lines.flush()

    def flush(self) -> bytes:
        text = self._seen(self._raw.flush()) + self._shown.feed(self._neutral.flush()) + self._shown.flush()
        return self.lines.feed(text) + self.lines.flush()

    def _seen(self, text: bytes) -> bytes:
        neutral = self._neutral.feed(text)
        # The first redactor has searched this very text, and gave it out for what it saw behind it and holds. When that
        # is plain text as well, the second one would say the same.
        if neutral == text and not self._shown.holds and _PLAIN.fullmatch(self._raw.held):
            return neutral
        return self._shown.feed(neutral)
