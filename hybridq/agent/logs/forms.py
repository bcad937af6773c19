"""How programs write a secret: every spelling that is looked for.

Not every encoding needs a spelling here. What only adds to a value (line ends, quotes, backslashes) is taken out of
the text before it is searched, and what escapes single characters (`%73`, `\\u0073`, `&#115;`) is decoded before, see
`views`. What is left are spellings that change the whole: Base64 and its kin, numbers, other character sets.
"""

from __future__ import annotations

import base64
import json
import quopri
import re
import shlex
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .neutral import neutralise
from .views import CONTROLS, GAPS, decodings

__all__ = ["CHARS_MIN", "Form", "forms_of"]

CHARS_MIN: Final = 4
"""Shorter values are not looked for: they would be found everywhere."""

LINE_CHARS_MIN: Final = 8
LONG_BYTES: Final = 4096
PIECE_BYTES: Final = 1024

_RUNS: Final = re.compile(rb"[" + re.escape(GAPS) + rb"]+")
_ENDS: Final = re.compile(rb"[" + re.escape(CONTROLS) + rb"]")
_SPACE: Final = re.compile(rb"[ \t" + re.escape(CONTROLS) + rb"]+")
_LINE_ENDS: Final = re.compile(rb"(?:[\r\n]|\\+[rn])+")
_FENCE: Final = re.compile(rb"-{2,5} ?(?:BEGIN|END) [A-Z0-9 ]{1,64}-{2,5}")


@dataclass(frozen=True, slots=True)
class Form:
    """One spelling of a secret.

    `text` is what is looked for, in a text without `GAPS` (or, for one that consists of little else, in the text as it
    is: `as_is`). `spaced` says behind how many bytes of it spaces may stand, None: anywhere. `needs` says which quotes
    must stand where: without them it is another value.
    """

    text: bytes
    spaced: frozenset[int] | None
    needs: tuple[tuple[int, bytes], ...]
    as_is: bool = False

    @staticmethod
    def of(spelling: bytes, *, loose: bool = False) -> Form:
        """Return what to look for; `loose`: spaces may stand anywhere, as between numbers."""
        spelling = spelling.strip()
        text, spaced, needs = bytearray(), set(), []
        at = 0
        for run in _RUNS.finditer(spelling):
            text += spelling[at : run.start()]
            at = run.end()
            if _SPACE.search(run[0]):
                spaced.add(len(text))
            quotes = _SPACE.sub(b"", run[0])
            if quotes and text and at < len(spelling):
                needs.append((len(text), quotes))
        text += spelling[at:]
        if len(text) < CHARS_MIN:
            return Form(b"\n".join(part.strip(b" \t") for part in _ENDS.split(spelling)), None, (), as_is=True)
        return Form(bytes(text), None if loose else frozenset(spaced), tuple(needs))


def forms_of(secret: bytes) -> Iterator[Form]:
    """Yield what to look for: nothing, for a value of less than `CHARS_MIN` characters."""
    secret = secret.strip()
    if min(len(secret.decode("utf-8", "replace")), len(Form.of(secret).text)) < CHARS_MIN:
        return
    for spelling in _texts(secret):
        yield from _pieces(spelling)
        yield from _pieces(spelling.replace(b" ", b"+"))
        # A value that holds escapes itself loses them where the text around it is decoded.
        for level in decodings(spelling):
            yield from _pieces(level)
    if Form.of(secret).as_is:
        for spelling in _quoted(secret):
            yield from _pieces(spelling)
    # What has several lines is told line by line as well: they are printed with something before each.
    lines = [line.strip() for line in _LINE_ENDS.split(secret)]
    if len(lines) > 1:
        for line in lines:
            if len(line) >= LINE_CHARS_MIN and not _FENCE.fullmatch(line):
                yield Form.of(line)
    for spelling in _coded(secret):
        yield from _pieces(spelling)
    for spelling in _numbers(secret):
        yield from _pieces(spelling, loose=True)


def _pieces(spelling: bytes, *, loose: bool = False) -> Iterator[Form]:
    """Yield one form, or for a very long spelling, which nobody should have to wait for, one for each piece of it."""
    form = Form.of(spelling, loose=loose)
    if len(form.text) <= LONG_BYTES:
        if len(form.text) >= CHARS_MIN:
            yield form
        return
    for start in range(0, len(form.text) - PIECE_BYTES + 1, PIECE_BYTES):
        end = start + PIECE_BYTES
        end = end if end + PIECE_BYTES <= len(form.text) else len(form.text)
        spaced = None if form.spaced is None else frozenset(at - start for at in form.spaced if start < at < end)
        needs = tuple((at - start, quotes) for at, quotes in form.needs if start < at < end)
        yield Form(form.text[start:end], spaced, needs)


def _texts(secret: bytes) -> Iterator[bytes]:
    """Yield the value itself, in the character sets and normal forms that it may be printed in."""
    yield secret
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        yield secret.decode("utf-8", "replace").encode()
        return
    if not secret.isascii():
        for form in ("NFC", "NFD"):
            yield unicodedata.normalize(form, text).encode()
        # As Python and JavaScript escape it: \xe4 is a character there, and a byte elsewhere.
        yield b"".join(sign.encode("latin-1" if sign < "\u0100" else "utf-8") for sign in text)
        for charset in ("latin-1", "cp1252", "utf-16-le", "utf-16-be"):
            try:
                coded = text.encode(charset)
            except UnicodeEncodeError:
                continue
            yield coded
            # As it looks once what is not UTF-8 has been replaced.
            shown = neutralise(coded.decode("utf-8", "replace"))
            if len(shown) - shown.count("\ufffd") >= CHARS_MIN:
                yield shown.encode()
    harmless = neutralise(text).encode()
    if harmless != secret:
        yield harmless


def _quoted(secret: bytes) -> Iterator[bytes]:
    """Yield what becomes of quotes, for values that consist of little else."""
    text = secret.decode("utf-8", "replace")
    yield shlex.quote(text)[1:-1].encode()
    for inner in (json.dumps(text), repr(text), repr(secret)[1:]):
        yield inner[1:-1].encode()
        twice = json.dumps(inner[1:-1])[1:-1]
        yield twice.encode()
        yield json.dumps(twice)[1:-1].encode()
    yield re.sub(rb'([$`"\\!])', rb"\\\1", secret)
    yield re.sub(rb"(\W)", rb"\\\1", secret)
    yield secret.replace(b'"', b'""')
    yield secret.replace(b"'", b"''")


def _coded(secret: bytes) -> Iterator[bytes]:
    """Yield Base64 and its kin."""
    wide = secret.decode("utf-8", "replace").encode("utf-16-le")
    for value in (secret, wide, base64.b64encode(secret)):
        for ending in (b"", b"\n"):
            # Whole, so that nothing of it stays; what it is part of is found by what all three alignments share.
            whole = base64.b64encode(value + ending).rstrip(b"=")
            yield whole
            yield _url_safe(whole)
        for before in range(3):
            inner = _aligned(base64.b64encode, value, before, 3, 4)
            yield inner
            yield _url_safe(inner)
    yield base64.b32encode(secret).rstrip(b"=")
    for before in range(5):
        inner = _aligned(base64.b32encode, secret, before, 5, 8)
        yield inner
        yield inner.lower()
    yield base64.b85encode(secret)
    yield base64.a85encode(secret)
    yield quopri.encodestring(secret).replace(b"=\n", b"")


def _aligned(encode: object, value: bytes, before: int, group: int, digits: int) -> bytes:
    """Return the digits that depend on nothing but `value` when `before` other bytes of a group stand before it."""
    bits = {4: 6, 8: 5}[digits]
    encoded: bytes = encode(b"\0" * before + value)  # type: ignore[operator]
    first = -(-before * 8 // bits)
    return encoded[first : (before + len(value)) * 8 // bits]


def _url_safe(digits: bytes) -> bytes:
    return digits.replace(b"+", b"-").replace(b"/", b"_")


def _numbers(secret: bytes) -> Iterator[bytes]:
    """Yield the bytes as numbers, one after the other."""
    for value in (secret, secret.decode("utf-8", "replace").encode("utf-16-le")):
        yield value.hex().encode()
        yield value.hex().upper().encode()
    for joint in (":", "-"):
        yield secret.hex(joint).encode()
        yield secret.hex(joint).upper().encode()
    for each in ("{:d}", "0x{:02x}", "0x{:02X}"):
        yield ",".join(map(each.format, secret)).encode()
    for each in ("{:d}", "{:03o}", "{:08b}", "0x{:02x}"):
        yield "".join(map(each.format, secret)).encode()
