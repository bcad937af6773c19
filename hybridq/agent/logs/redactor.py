"""Secrets in a stream of output, in every form in which programs print them.

Found are exact values, and what Base64, hexadecimal and other numbers, URLs, JSON, HTML, C and shells make of them,
one within the other up to three levels; also in pieces, over the ends of lines and over any cuts of the stream. Not
found is what a program does to hide a value: reversed, encrypted, compressed, letters with others between. Who may run
code with a secret can always get it out; this is against accidents.

The time grows with the length of the text, and hardly with the number of secrets.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from typing import Final

from .forms import CHARS_MIN, Form, forms_of
from .index import Index
from .views import GAPS, View, views_of

__all__ = ["MARKER", "Redactor"]

MARKER: Final = "[redacted]"
OTHER_MARKER: Final = "***"
"""For those whose secret is part of the marker."""

BLOCK_BYTES: Final = 128 * 1024
HELD_BYTES_MAX: Final = 64 * 1024
NEAR_BYTES: Final = 4096
STRETCH: Final = 8
"""A spelling that is cut by the stream is found up to so many times its length, with escapes and line ends in it."""

_RUNS: Final = re.compile(rb"[" + re.escape(GAPS) + rb"]+")
_QUOTES: Final = b"'\"`\\"


class Redactor:
    """Replaces secrets in a stream by `[redacted]`; `count` is how many were.

    What may be the beginning of a secret is held back until more has come, or `flush`. `too_short` counts the values
    of less than four characters, which are not looked for.
    """

    def __init__(self, secrets: Iterable[str | bytes] = ()) -> None:
        self.count = 0
        self._patterns = _Patterns()
        self._held = b""
        self._covered = 0
        """So many bytes of what is held belong to a secret whose marker is out already."""
        for secret in secrets:
            self.add(secret)

    @property
    def held(self) -> bytes:
        """What is held back: it may be the beginning of a secret."""
        return self._held

    @property
    def holds(self) -> bool:
        """Whether something is held back."""
        return bool(self._held)

    @property
    def too_short(self) -> int:
        """How many values are not looked for, because they would be found everywhere."""
        return self._patterns.too_short

    def add(self, secret: str | bytes) -> None:
        """Look for this value too, from here on: also in what is held back."""
        self._patterns.add(secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret)

    def sibling(self) -> Redactor:
        """Return a redactor for another stream. What is added to the one is looked for by the other."""
        other = Redactor()
        other._patterns = self._patterns
        return other

    def feed(self, data: bytes) -> bytes:
        """Return what can be said for sure of the stream up to here."""
        if not self._patterns:
            held, self._held = self._held, b""
            return held + data
        return b"".join([self._step(data[at : at + BLOCK_BYTES]) for at in range(0, len(data), BLOCK_BYTES)])

    def follow(self, text: bytes) -> bytes:
        """Return as `feed` does, for text that was searched by itself already: only its ends may belong to secrets."""
        near = max(NEAR_BYTES, 2 * self._patterns.longest)
        if len(text) <= 3 * near or not self._patterns:
            return self.feed(text)
        return self.feed(text[:near]) + self.flush() + text[near:-near] + self.feed(text[-near:])

    def flush(self) -> bytes:
        """Return what was held back, at the end of the stream."""
        text, self._held = self._held, b""
        return self._cleaned(text, self._patterns.look(text)[0], len(text))

    def settle(self) -> bytes:
        """Return what was held back when it is a mere character or two; more may well be half a secret."""
        return self.flush() if len(self._held.translate(None, GAPS)) < CHARS_MIN else b""

    def redact(self, text: str) -> str:
        """Return a whole text without secrets."""
        one = self.sibling()
        data = text.encode("utf-8", "surrogatepass")
        clean = one.feed(data) + one.flush()
        self.count += one.count
        return text if clean == data else clean.decode("utf-8", "replace")

    def _step(self, data: bytes) -> bytes:
        text = self._held + data
        spans, upto = self._patterns.look(text)
        upto = max(upto, len(text) - HELD_BYTES_MAX)
        clean = self._cleaned(text, spans, upto)
        self._held = text[upto:]
        return clean

    def _cleaned(self, text: bytes, spans: list[tuple[int, int]], upto: int) -> bytes:
        """Return the text up to `upto` without `spans`; one that goes on behind it is out with its marker."""
        parts: list[bytes] = []
        at = self._covered
        self._covered = 0
        for start, end in spans:
            if start >= upto:
                break
            if start >= at:
                parts += (text[at:start], self._patterns.marker)
                self.count += 1
            at = max(at, end)
        if at > upto:
            self._covered = at - upto
        else:
            parts.append(text[at:upto])
        return b"".join(parts)


class _Patterns:
    """All spellings of all secrets. Indexes are made when they are needed, as secrets come one after the other."""

    def __init__(self) -> None:
        self.too_short = 0
        self.marker = MARKER.encode()
        self._secrets: set[bytes] = set()
        self._forms: dict[bytes, list[Form]] = {}
        self._bare = self._as_is = Index(())
        self._stale = False

    def __bool__(self) -> bool:
        return bool(self._forms)

    def add(self, secret: bytes) -> None:
        if secret in self._secrets or not secret.strip():
            return
        self._secrets.add(secret)
        forms = list(forms_of(secret))
        self.too_short += not forms
        for form in forms:
            if form not in (known := self._forms.setdefault(form.text, [])):
                known.append(form)
        if secret in self.marker:
            self.marker = OTHER_MARKER.encode()
        self._stale = True

    @property
    def longest(self) -> int:
        """The length of the longest spelling."""
        self._make()
        return self._bare.longest

    def look(self, text: bytes) -> tuple[list[tuple[int, int]], int]:
        """Return where secrets stand, in order (some may overlap), and where one may have begun that is cut off."""
        self._make()
        found: list[tuple[int, int]] = []
        upto = len(text)
        for view in views_of(text):
            bare = view.bare()
            found += self._in(view, bare)
            upto = min(upto, self._begun(view, bare.data))
        return sorted(found), upto

    def _make(self) -> None:
        if self._stale:
            self._bare = Index(text for text, forms in self._forms.items() if not all(form.as_is for form in forms))
            self._as_is = Index(text for text, forms in self._forms.items() if any(form.as_is for form in forms))
            self._stale = False

    def _in(self, view: View, bare: View) -> Iterator[tuple[int, int]]:
        for start, end, literal in self._bare.find(bare.data):
            begin, behind = bare.locate(start, end)
            if any(_is(form, view.data, begin, behind) for form in self._forms[literal]):
                yield view.locate_raw(begin, behind)
        for start, end, _ in self._as_is.find(view.data):
            yield view.locate_raw(start, end)

    def _begun(self, view: View, bare: bytes) -> int:
        length = len(view.data)
        begins = [view.last(count, length)] if (count := self._bare.begun(bare)) else []
        if count := self._as_is.begun(view.data):
            begins.append(length - count)
        end = view.end
        if end < length:
            # An escape is cut off, and what stands before it may go on behind it.
            begins.append(end)
            near = view.data[max(0, end - self._bare.longest * STRETCH) : end].translate(None, GAPS)
            if count := self._bare.begun(near):
                begins.append(view.last(count, end))
            if count := self._as_is.begun(view.data[:end]):
                begins.append(end - count)
        return min((view.locate_raw(at, at + 1)[0] for at in begins), default=sys.maxsize)


def _is(form: Form, text: bytes, start: int, end: int) -> bool:
    """Whether what stands between the bytes of a spelling may stand there: line ends are out of `text` already."""
    if form.spaced is None and not form.needs:
        return True
    runs: dict[int, bytes] = {}
    gone = 0
    for run in _RUNS.finditer(text, start, end):
        at = run.start() - start - gone
        gone += len(run[0])
        runs[at] = run[0]
        if form.spaced is None or at in form.spaced or not (b" " in run[0] or b"\t" in run[0]):
            continue
        if not (len(run[0]) > 2 and run[0][0] in _QUOTES and run[0][-1] in _QUOTES):
            return False
    return all(_holds(runs.get(at, b""), quotes) for at, quotes in form.needs)


def _holds(run: bytes, quotes: bytes) -> bool:
    """Whether all of `quotes` stand in `run`, in that order."""
    left = iter(run)
    return all(quote in left for quote in quotes)
