"""JSON that two sides write alike, byte for byte: RFC 8785 (JCS) over I-JSON (RFC 7493).

What cannot be written so is refused, never mended: numbers that are not finite, whole numbers that a double does not
hold, a key that stands twice, surrogates without their other half. `parse` is as strict, and refuses beside them what
nests too deep.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

from ...errors import UsageError

__all__ = ["DEPTH_MAX", "NotPortable", "canonical", "parse"]

DEPTH_MAX: Final = 64
WHOLE_MAX: Final = 2**53 - 1


class NotPortable(UsageError):
    """A document that two readers could understand differently; the message holds nothing of it."""


def canonical(value: Any) -> bytes:
    """Return the one way to write `value`. Raises `NotPortable`."""
    parts: list[str] = []
    _write(value, parts, 0)
    try:
        return "".join(parts).encode()
    except UnicodeEncodeError:
        raise NotPortable("half of a surrogate pair stands alone in a text") from None


def parse(document: bytes) -> Any:
    """Return what a document says; it need not be in canonical form. Raises `NotPortable`."""
    try:
        text = document.decode()
    except UnicodeDecodeError:
        raise NotPortable("not UTF-8") from None
    if _depth(text) > DEPTH_MAX:
        raise NotPortable(f"nests deeper than {DEPTH_MAX} levels")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as wrong:
        raise NotPortable(f"not JSON: {wrong.msg} at line {wrong.lineno}, column {wrong.colno}") from None
    if _LONE_SURROGATE.search(text) is not None:
        # Only an escape can make one. A pair that was escaped is no harm; what is left over does not encode.
        canonical(value)
    return value


# -- writing -----------------------------------------------------------------------------------------------------


def _write(value: Any, parts: list[str], depth: int) -> None:
    if value is None or value is True or value is False:
        parts.append({None: "null", True: "true", False: "false"}[value])
    elif isinstance(value, str):
        parts.append(_text(value))
    elif isinstance(value, (int, float)):
        parts.append(_number(value))
    elif depth >= DEPTH_MAX:
        raise NotPortable(f"nests deeper than {DEPTH_MAX} levels")
    elif isinstance(value, dict):
        for i, name in enumerate(sorted(value, key=_utf_16)):
            parts.append(("," if i else "{") + _text(name) + ":")
            _write(value[name], parts, depth + 1)
        parts.append("}" if value else "{}")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            parts.append("," if i else "[")
            _write(item, parts, depth + 1)
        parts.append("]" if value else "[]")
    else:
        raise NotPortable(f"JSON has no {type(value).__name__}")


def _utf_16(name: Any) -> bytes:
    """Big-endian, so that bytes compare as code units do: U+1F600 comes before U+FB33."""
    if not isinstance(name, str):
        raise NotPortable(f"a name must be a text, not {type(name).__name__}")
    return name.encode("utf-16-be", "surrogatepass")


_ESCAPED: Final = re.compile(r'[\x00-\x1f"\\]')
_SHORT: Final = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def _text(text: str) -> str:
    return '"' + _ESCAPED.sub(lambda found: _SHORT.get(found[0], f"\\u{ord(found[0]):04x}"), text) + '"'


def _number(value: int | float) -> str:
    """Return a number as ECMAScript prints it (ECMA-262, Number::toString, radix 10)."""
    if isinstance(value, int):
        if not -WHOLE_MAX <= value <= WHOLE_MAX:
            raise NotPortable("a whole number is beyond 2^53 - 1; write it as a text")
        return str(int(value))
    if not math.isfinite(value):
        raise NotPortable("a number is not finite")
    if value == 0:
        return "0"
    # Python's repr has the shortest digits that lead back to the number, as ECMAScript demands; only the frame differs.
    found = _REPR.fullmatch(float.__repr__(value))
    assert found is not None
    sign, whole, fraction, exponent = (
        found["sign"],
        found["whole"],
        found["fraction"] or "",
        int(found["exponent"] or 0),
    )
    point = len(whole) + exponent
    digits = whole + fraction
    point -= len(digits) - len(digits.lstrip("0"))
    digits = digits.strip("0")
    if len(digits) <= point <= 21:
        return sign + digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{point - 1:+d}"


_REPR: Final = re.compile(r"(?P<sign>-?)(?P<whole>\d+)(?:\.(?P<fraction>\d+))?(?:e(?P<exponent>[+-]?\d+))?")


# -- reading -----------------------------------------------------------------------------------------------------


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotPortable("a name stands twice in an object")
    return found


def _whole(text: str) -> int:
    # By length first: to turn very many digits into a number takes long.
    if len(text) > 17 or not -WHOLE_MAX <= int(text) <= WHOLE_MAX:
        raise NotPortable("a whole number is beyond 2^53 - 1; write it as a text")
    return int(text)


def _fraction(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise NotPortable("a number is beyond what a double holds")
    return value


def _no_constant(_: str) -> Any:
    raise NotPortable("NaN and Infinity are not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_whole, parse_float=_fraction, parse_constant=_no_constant
)
_LONE_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_NESTING: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)


def _depth(text: str) -> int:
    """Return how deep brackets nest, before a parser that recurses sees the text."""
    depth = deepest = 0
    for found in _NESTING.finditer(text):
        mark = found[0]
        if mark in ("[", "{"):
            depth += 1
            deepest = max(deepest, depth)
        elif mark in ("]", "}"):
            depth -= 1
    return deepest
