"""Strict JSON: bytes of a body to a Struct, or to a 400 that says where and by which rule, and never with which value.

The text is looked at once by the standard library's parser, which sees every key of every object, and then decoded
by msgspec, which knows the types. Only a text that holds an escape, a long number or the like takes the slow road,
on which every value is visited; a common body of 200 bytes takes some microseconds.

What counts as payload (fields of type `msgspec.Raw`) may hold any JSON value; outside of it numbers stay within
±(2^53 - 1) and strings hold no control characters, but for line breaks and tabs in fields of the type `Lines`, and for
any in fields of the type `AnyText`.
"""

from __future__ import annotations

import enum
import functools
import json
import math
import re
from collections.abc import Callable
from typing import Any, Final, Generic, Self, TypeVar

import msgspec

from .problems import Problem, Reason, invalid
from .shapes import SAFE_INT_MAX, AnyText, Lines, NegativeZero, Shape, number_out_of_range, pointer_part, shape_of

__all__ = [
    "DEPTH_MAX",
    "SAFE_INT_MAX",
    "AnyText",
    "Document",
    "EitherCase",
    "JsonReader",
    "Lines",
    "pointer_part",
    "reasons_of",
]

T = TypeVar("T")
DEPTH_MAX: Final = 64
DIGITS_MAX: Final = 4300
"""Of one number; also inside payload, because others must be able to read it."""


class EitherCase(enum.StrEnum):
    """Base of the enums of the wire whose members are written in UPPER CASE and read in either case."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls._member_map_.get(value.upper()) if isinstance(value, str) else None  # type: ignore[return-value]


class Document(Generic[T]):
    """A body that was read: the Struct, and the plain values it was made of."""

    __slots__ = ("plain", "value")

    def __init__(self, value: T, plain: Any) -> None:
        self.value, self.plain = value, plain


class JsonReader(Generic[T]):
    """Reads bodies of one type."""

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._decoder = msgspec.json.Decoder(kind)
        self._shape = shape_of(msgspec.inspect.type_info(kind))
        self._known = _known_fields(kind)

    def read(self, body: bytes) -> Document[T]:
        """Return what `body` says. Raises `Problem`: 400 with pointers and rules."""
        text = _text(body)
        _check_depth(body)
        plain = _parse(text)
        if _SUSPICIOUS.search(text) is not None:
            plain = _visit_all(text, self._shape)
        try:
            return Document(self.decode(body), plain)
        except Problem:
            if not _has_whole_float(plain):
                raise
            return Document(self._decode_mended(body, plain), plain)

    def decode(self, body: bytes) -> T:
        """Return the Struct; the bytes were checked before, or come from us."""
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise Problem("invalid_argument", errors=[reasons_of(error, self._known)]) from None
        except msgspec.DecodeError:
            raise Problem("malformed_json") from None

    def _decode_mended(self, body: bytes, plain: Any) -> T:
        """Decode a body in which a whole number may be spelled `5.0`; msgspec would not have it for an `int`."""
        try:
            return msgspec.convert(self._shape.mend(plain, body), self._kind)
        except msgspec.ValidationError as error:
            raise Problem("invalid_argument", errors=[reasons_of(error, self._known)]) from None


# -- the text ------------------------------------------------------------------------------------------------


def _text(body: bytes) -> str:
    if body.startswith(b"\xef\xbb\xbf"):
        raise Problem("bad_encoding")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise Problem("bad_encoding") from None


_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _check_depth(body: bytes) -> None:
    """Raise `too_deep` before a parser, which recurses, sees the text.

    Strings are cut out, and then the innermost pairs, one level a round: what is left after 64 rounds is deeper.
    """
    if body.count(b"[") + body.count(b"{") <= DEPTH_MAX:
        return
    rest = _STRINGS.sub(b"", body).translate(None, _NOT_BRACKETS)
    for _ in range(DEPTH_MAX):
        before = len(rest)
        rest = _INNERMOST.sub(b"", rest)
        if len(rest) == before:
            break
    if _INNERMOST.search(rest) is not None or rest.count(b"[") + rest.count(b"{") > DEPTH_MAX:
        raise Problem("too_deep", errors=[Reason("", f"at most {DEPTH_MAX} levels")])


_INNERMOST = re.compile(rb"\[\]|\{\}")
"""One pass takes away the pairs that stand in the text now, not those that closing up makes: so one level a round."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Problem("duplicate_key")
    return found


def _no_constant(_: str) -> Any:
    raise Problem("malformed_json", errors=[Reason("", "NaN and Infinity are not JSON")])


_fast = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _parse(text: str, decoder: json.JSONDecoder = _fast) -> Any:
    try:
        return decoder.decode(text)
    except json.JSONDecodeError as error:
        raise Problem("malformed_json", errors=[Reason("", f"not JSON at character {error.pos}")]) from None
    except ValueError:  # Python refuses to read whole numbers of more than 4300 digits
        raise number_out_of_range("") from None


# -- the slow road: every value is visited -------------------------------------------------------------------

_SUSPICIOUS = re.compile("[\\\\\x7f-\x9f]|[0-9]{16}|[eE][+]?[0-9]{2}|-0(?![.0-9])")
"""An escape, a control character that JSON lets pass, a long number, a large exponent, a negative zero."""

_SURROGATE = re.compile("[\ud800-\udfff]")


def _whole(digits: str) -> int:
    if len(digits) > DIGITS_MAX:
        raise number_out_of_range("")
    return NegativeZero(0) if digits == "-0" else int(digits)


def _real(digits: str) -> float:
    found = float(digits)
    if math.isinf(found):
        raise number_out_of_range("")
    return found


_slow = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_whole, parse_float=_real)


def _visit_all(text: str, shape: Shape) -> Any:
    plain = _parse(text, _slow)
    if "\\u" in text:
        _no_surrogates("", plain)
    shape.check("", plain)
    return plain


def _has_whole_float(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_whole_float, value.values()))
    if isinstance(value, list):
        return any(map(_has_whole_float, value))
    return isinstance(value, float) and value.is_integer()


def _no_surrogates(pointer: str, value: Any) -> None:
    if isinstance(value, str):
        if _SURROGATE.search(value) is not None:
            raise invalid(pointer, "holds half a surrogate pair", code="bad_encoding")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _no_surrogates(pointer, key)
            _no_surrogates(pointer, inner)
    elif isinstance(value, list):
        for inner in value:
            _no_surrogates(pointer, inner)


# -- msgspec's words to ours ---------------------------------------------------------------------------------

_PLACE = re.compile(r" - at (?:`key` in )?`\$([^`]*)`$")
_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[([0-9]+)\]|\[\.\.\.\]")
_SAFE = re.compile(
    r"Expected `[^`]*`(?:, got `[^`]*`| (?:of|matching|<=|>=|<|>|that).*)?"
    r"|Object missing required field `[^`]*`"
    r"|Invalid (?:RFC3339 encoded (?:datetime|date|time)|UUID|base64 encoded string)"
)
"""Messages made of our own types and bounds alone; any other may quote the value."""


def reasons_of(error: msgspec.ValidationError, known: Callable[[str], str] = lambda pointer: "") -> Reason:
    """Return where and why msgspec refused, without the value. `known` lists the fields of the Struct at a pointer."""
    message = str(error)
    place = _PLACE.search(message)
    pointer = _pointer(place[1]) if place else ""
    rule = message[: place.start()] if place else message
    if rule.startswith("Object contains unknown field"):
        fields = known(pointer)
        return Reason(pointer, f"holds an unknown field; known are {fields}" if fields else "holds an unknown field")
    if rule.startswith("Invalid enum value"):
        return Reason(pointer, "is not one of the values allowed here")
    if missing := re.fullmatch(r"Object missing required field `([^`]*)`", rule):
        return Reason(f"{pointer}/{missing[1]}", "is required")
    if _SAFE.fullmatch(rule):
        return Reason(pointer, rule.replace("`", "'").replace("Expected", "must be", 1))
    return Reason(pointer, "is not allowed here")


def _pointer(path: str) -> str:
    found = ""
    for step in _STEP.finditer(path):
        if step[1] is not None:
            found += f"/{step[1]}"
        elif step[2] is not None:
            found += f"/{step[2]}"
        else:  # a key that the sender chose: point at the map
            break
    return found


def _known_fields(kind: Any) -> Callable[[str], str]:
    """Return a function from pointer to the names of the fields that the Struct there knows."""

    @functools.cache
    def root() -> msgspec.inspect.Type:
        return msgspec.inspect.type_info(kind)

    def known(pointer: str) -> str:
        structs = _structs(root())
        for part in pointer.split("/")[1:]:
            if part.isdigit():
                continue
            structs = [
                inner
                for struct in structs
                for field in struct.fields
                if field.encode_name == part
                for inner in _structs(field.type)
            ]
        return ", ".join(field.encode_name for struct in structs[:1] for field in struct.fields)

    return known


def _structs(info: Any) -> list[msgspec.inspect.StructType]:
    if isinstance(info, msgspec.inspect.StructType):
        return [info]
    if isinstance(info, msgspec.inspect.Metadata):
        return _structs(info.type)
    if isinstance(info, msgspec.inspect.UnionType):
        return [found for each in info.types for found in _structs(each)]
    if isinstance(info, (msgspec.inspect.ListType, msgspec.inspect.VarTupleType)):
        return _structs(info.item_type)
    if isinstance(info, msgspec.inspect.DictType):
        return _structs(info.value_type)
    return []
