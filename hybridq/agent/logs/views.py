"""A text as it would read without what hides a secret in it, and where each byte of that came from.

    raw ─ joined: ends of lines, indents, controls taken out ─ decoded: %73, \\u0073, \\x73, &#115; … ─ decoded again …
        └ soft: quoted-printable's soft line ends too ─ decoded: =73

Each is searched without `GAPS`. Making a view is a matter of a few calls into C; the map back (`source`) is only
made where something was found.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final

__all__ = ["CONTROLS", "GAPS", "View", "decodings", "views_of"]

CONTROLS: Final = bytes([*range(9), *range(10, 32), 127])
"""Line ends are among them: what stands here takes no part in a word."""

GAPS: Final = CONTROLS + b" \t'\"`\\"
"""What may stand inside a value without changing it: ends of lines, indents, quotes of a shell or of JSON."""

LEVELS_MAX: Final = 3
"""How often an encoding may stand within another."""
NEAR_BYTES: Final = 256

Edit = tuple[int, int, int, int]
"""Begin and end in the source, begin and end here; all between edits is the same in both."""

_ENDS: Final = bytes.maketrans(CONTROLS, b"\n" * len(CONTROLS))
_LINE_END: Final = re.compile(rb"[" + re.escape(CONTROLS) + rb"]")
_UNSEEN: Final = re.compile(
    rb"\x1b[\[\]]|\xc2[\x80-\x9f\xad]|\xd8\x9c|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xb8[\x80-\x8f]"
    rb"|\xef\xbb\xbf|\xf3\xa0[\x80-\x87][\x80-\xbf]"
    rb"|(?:[\xc2\xd8]|\xe2[\x80\x81]?|\xef[\xb8\xbb]?|\xf3(?:\xa0[\x80-\x87]?)?)\Z"
)
"""Beginnings of control sequences, and characters that take no room, also cut off; `neutral` knows more of them."""
_RUNS: Final = re.compile(rb"[" + re.escape(GAPS) + rb"]+")
_HEX: Final = rb"[0-9A-Fa-f]"
_ESCAPES: Final = (
    rb"%(?:H{2}|uH{4})",
    # The first backslash of a row; a pattern that begins with bytes is much faster than one that looks behind.
    rb"\\(?<!\\\\)\\*+(?:(?:u001[bB]|x1[bB]|033|e)\[[0-9;]{0,32}[A-Za-z]|u[dD][89abAB]H{2}\\++u[dD][c-fC-F]H{2}"
    rb"|uH{4}|[ux]\{H{1,6}\}|UH{8}|xH{2}|[0-7]{3}|[nrtbf])",
    rb"&(?:#[0-9]{1,7}|#[xX]H{1,6}|[A-Za-z][A-Za-z0-9]{1,31});",
)
_FAMILIES: Final = [re.compile(escape.replace(b"H", _HEX)) for escape in _ESCAPES]
_ESCAPE: Final = re.compile(b"|".join(_ESCAPES).replace(b"H", _HEX))
_UNFINISHED: Final = re.compile(
    rb"(?:%(?:H?|u H{0,3})"
    rb"|(?<!\\)\\++(?:"
    rb"  (?:(?:u001[bB]|x1[bB]|033|e)(?:\[[0-9;]{0,32})?)"
    rb"  |u[dD][89abAB]H{2}(?:\\++(?:u H{0,3})?)?"
    rb"  |u H{0,3}|[ux]\{H{0,6}|U H{0,7}|x H?|[0-7]{1,2}|"
    rb")"
    rb"|&(?:\#[0-9]{0,7}|\#[xX]H{0,6}|[A-Za-z][A-Za-z0-9]{0,31})?"
    rb")\Z".replace(b"H", _HEX),
    re.VERBOSE,
)
_CUT: Final = re.compile(rb"(?:%H?|\\[xuU0-7]?H{0,7}|&#?[A-Za-z0-9]{0,31})\n".replace(b"H", _HEX))
_HINT: Final = re.compile(rb"[%\\&]")
_QUOTED: Final = re.compile(rb"=[0-9A-F]{2}")
_QUOTED_UNFINISHED: Final = re.compile(rb"=[0-9A-F]?\Z")
_SOFT: Final = re.compile(rb"=(?:\r?\n|3D|[0-9A-F]{2}=[0-9A-F]{2}|\r?\Z|[0-9A-F]{1,2}(?:=[0-9A-F]?)?\Z)")


class View:
    """One reading of a text. `source` is where it was made from, None: it is the text."""

    def __init__(
        self,
        data: bytes,
        source: View | None = None,
        edits: Callable[[], Iterator[Edit]] | None = None,
        unfinished: re.Pattern[bytes] | None = None,
        rest: int = 0,
    ) -> None:
        self.data, self.source = data, source
        self._edits, self._unfinished, self._rest = edits, unfinished, rest
        self._map: tuple[list[int], list[Edit]] | None = None

    @property
    def end(self) -> int:
        """Where an escape begins that the end of the text has cut off; the length, when none has."""
        end = len(self.data) - self._rest
        found = self._unfinished and self._unfinished.search(self.data, max(0, end - 64), end)
        return found.start() if found else end

    def bare(self) -> View:
        """Return the view without `GAPS`."""
        data = self.data.translate(None, GAPS)
        return View(data, self, lambda: _deletions(_RUNS, self.data))

    def last(self, count: int, end: int) -> int:
        """Return where the last `count` bytes before `end` begin that are no gaps."""
        size = 2 * count + 32
        while size < end and len(self.data[end - size : end].translate(None, GAPS)) < count:
            size *= 2
        part = View(self.data[max(0, end - size) : end]).bare()
        return max(0, end - size) + part.locate(len(part.data) - count, len(part.data))[0]

    def locate(self, start: int, end: int) -> tuple[int, int]:
        """Return where in the source the bytes from `start` to `end` came from; there is at least one."""
        return self._locate(start)[0], self._locate(end - 1)[1]

    def locate_raw(self, start: int, end: int) -> tuple[int, int]:
        """Return where in the text they came from."""
        view: View = self
        while view.source is not None:
            start, end = view.locate(start, end)
            view = view.source
        return start, end

    def _locate(self, at: int) -> tuple[int, int]:
        if self._edits is None:
            return at, at + 1
        if self._map is None:
            edits = list(self._edits())
            self._map = ([edit[2] for edit in edits], edits)
        begins, edits = self._map
        place = bisect_right(begins, at) - 1
        if place < 0:
            return at, at + 1
        source_start, source_end, _, end = edits[place]
        if at < end:
            return source_start, source_end
        return source_end + at - end, source_end + at - end + 1


def views_of(raw: bytes) -> Iterator[View]:
    """Yield the readings of `raw` that differ; the first is the plain one."""
    root = View(raw)
    plain = _joined(root, b" \t", b"\n", _UNFINISHED)
    yield plain
    yield from _decodings_of(plain)
    if _CUT.search(plain.data):
        # An escape may go on in the next line, or only seem to.
        tight = _joined(root, b" \t", b"", _UNFINISHED)
        yield tight
        yield from _decodings_of(tight)
    if _SOFT.search(raw):
        soft = _joined(root, b" \t=", b"", _QUOTED_UNFINISHED)
        yield soft
        decoded = _decoded(soft, _QUOTED, _quoted, _QUOTED_UNFINISHED)
        if decoded is not soft:
            yield decoded


def _decodings_of(plain: View) -> Iterator[View]:
    for escape in _ways(plain.data):
        view = plain
        for _ in range(LEVELS_MAX):
            decoded = _decoded(view, escape, _meaning, _UNFINISHED)
            if decoded is view:
                break
            yield decoded
            view = decoded


def decodings(text: bytes) -> Iterator[bytes]:
    """Yield what a text becomes when the escapes in it are decoded, once, twice …, as long as there are any."""
    for escape in _ways(text):
        left = text
        for _ in range(LEVELS_MAX):
            left, n = escape.subn(lambda found: _meaning(found[0]), left)
            if not n:
                break
            yield left


def _ways(text: bytes) -> list[re.Pattern[bytes]]:
    """Return the escapes to decode: all together, and each kind alone, lest what stands before hides the next."""
    kinds = [kind for kind in _FAMILIES if kind.search(text)] if _HINT.search(text) else []
    return kinds if len(kinds) < 2 else [_ESCAPE, *kinds]


def _joined(view: View, ending: bytes, between: bytes, unfinished: re.Pattern[bytes]) -> View:
    """Return the view without indents, `between` its lines; `ending` is what goes with the end of a line."""
    data = _UNSEEN.sub(lambda found: b"\n" * len(found[0]), view.data)
    if _LINE_END.search(data) is None:
        return View(data, view, None, unfinished)
    lines = data.translate(_ENDS).split(b"\n")
    # Of the last line nobody knows yet how it ends.
    kept = [line.lstrip(b" \t") for line in [*[line.rstrip(ending) for line in lines[:-1]], lines[-1]]]
    return _Joined(view, lines, kept, between, unfinished)


class _Joined(View):
    """Lines without what is between them. Mostly asked about its end, so that is looked up from there."""

    def __init__(
        self, source: View, lines: list[bytes], kept: list[bytes], between: bytes, unfinished: re.Pattern[bytes]
    ) -> None:
        super().__init__(between.join(kept), source, lambda: _joints(lines, kept, len(between)), unfinished)
        self._lines, self._kept, self._between = lines, kept, len(between)

    def _locate(self, at: int) -> tuple[int, int]:
        if self._map is None and len(self.data) - at <= NEAR_BYTES and self.source is not None:
            here, there = len(self.data), len(self.source.data)
            for line, part in zip(reversed(self._lines), reversed(self._kept), strict=True):
                here -= len(part)
                there -= len(line)
                if here <= at < here + len(part):
                    begin = there + len(line) - len(line.lstrip(b" \t")) + at - here
                    return begin, begin + 1
                here -= self._between
                there -= 1
        return super()._locate(at)


def _joints(lines: list[bytes], kept: list[bytes], between: int) -> Iterator[Edit]:
    gap = here = at = 0
    for line, part in zip(lines, kept, strict=True):
        start = at + len(line) - len(line.lstrip(b" \t"))
        here_too = here + (between if at else 0)
        if start > gap:
            yield gap, start, here, here_too
        gap = start + len(part)
        here = here_too + len(part)
        at += len(line) + 1
    yield gap, at - 1, here, here


def _decoded(
    view: View, escape: re.Pattern[bytes], meaning: Callable[[bytes], bytes], unfinished: re.Pattern[bytes]
) -> View:
    # What the end has cut off stays as it is until the rest of it has come.
    whole = view.end
    data, n = escape.subn(lambda found: meaning(found[0]), view.data[:whole])
    if not n:
        return view

    def edits() -> Iterator[Edit]:
        shift = 0
        for found in escape.finditer(view.data, 0, whole):
            start, end = found.span()
            length = len(meaning(found[0]))
            yield start, end, start + shift, start + shift + length
            shift += length - (end - start)

    rest = view.data[whole:]
    return View(data + rest, view, edits, unfinished, len(rest))


def _deletions(pattern: re.Pattern[bytes], data: bytes) -> Iterator[Edit]:
    gone = 0
    for found in pattern.finditer(data):
        start, end = found.span()
        yield start, end, start - gone, start - gone
        gone += end - start


def _quoted(escape: bytes) -> bytes:
    return bytes.fromhex(escape[1:].decode())


@lru_cache(4096)
def _meaning(escape: bytes) -> bytes:
    """Return what an escape stands for; nothing, for what only lays out."""
    text = escape.decode()
    if text[0] == "&":
        plain = html.unescape(text)
        return plain.encode("utf-8", "surrogatepass")
    if text[0] == "%":
        return _character(text[2:]) if text[1] == "u" else bytes.fromhex(text[1:])
    body = text.lstrip("\\")
    if "[" in body:
        return b""
    if len(body) == 1:
        return b""
    if "\\" in body:
        high, low = (int(part.lstrip("u"), 16) for part in re.split(r"\\+", body))
        return chr(0x10000 + ((high - 0xD800) << 10) + low - 0xDC00).encode()
    if body[0] == "x" and "{" not in body:
        return bytes.fromhex(body[1:])
    if body[0] in "uUx":
        return _character(body[1:].strip("{}"))
    return bytes([int(body, 8) & 0xFF])


def _character(digits: str) -> bytes:
    code = int(digits, 16)
    return chr(code).encode("utf-8", "surrogatepass") if code <= 0x10FFFF else b""
