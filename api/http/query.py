"""Query strings and forms: names and values in text to a Struct, as strictly as a body."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import msgspec

from .problems import Problem, Reason, invalid
from .reading import SAFE_INT_MAX, reasons_of

__all__ = ["TextReader"]

T = TypeVar("T")
FIELDS_MAX: Final = 100

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,15})")
_REAL = re.compile(r"(?=.{1,32}\Z)-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")


class TextReader(Generic[T]):
    """Reads `a=b&c=d` into one type of Struct. A field that is a list may be named again and again, others once."""

    def __init__(self, kind: type[T], *, where: str = "/query") -> None:
        self._kind, self._where = kind, where
        info = msgspec.inspect.type_info(kind)
        assert isinstance(info, msgspec.inspect.StructType), kind
        self._lists = {field.encode_name for field in info.fields if _item_of(field.type) is not None}
        self._converts = {field.encode_name: _convert_of(field.type) for field in info.fields}
        self._known = f"known are {', '.join(self._converts)}" if self._converts else "none is known here"

    def read(self, text: bytes) -> T:
        """Return what the text says. Raises `Problem`: 400 with pointers and rules, never with values."""
        found: dict[str, Any] = {}
        for name, value in self._pairs(text):
            convert = self._converts.get(name)
            if convert is None:
                raise invalid(self._where, f"holds an unknown parameter; {self._known}")
            pointer = f"{self._where}/{name}"
            if name in self._lists:
                found.setdefault(name, []).append(convert(pointer, value))
            elif name in found:
                raise invalid(pointer, "stands twice")
            else:
                found[name] = convert(pointer, value)
        try:
            return msgspec.convert(found, self._kind)
        except msgspec.ValidationError as error:
            reason = reasons_of(error)
            raise Problem(
                "invalid_argument", errors=[Reason(f"{self._where}{reason.pointer}", reason.reason)]
            ) from None

    def _pairs(self, text: bytes) -> list[tuple[str, str]]:
        if not text:
            return []
        pieces = text.split(b"&")
        if len(pieces) > FIELDS_MAX:
            raise invalid(self._where, f"holds more than {FIELDS_MAX} parameters")
        pairs = []
        for piece in pieces:
            name, _, value = piece.partition(b"=")
            pairs.append((self._decode(name), self._decode(value)))
        return pairs

    def _decode(self, raw: bytes) -> str:
        try:
            text = _ESCAPE.sub(_unescape, raw.replace(b"+", b" ")).decode()
        except ValueError:  # also UnicodeDecodeError
            raise invalid(self._where, "is not percent-encoded UTF-8", code="bad_encoding") from None
        if _CONTROL.search(text) is not None:
            raise invalid(self._where, "holds a control character")
        return text


def _unescape(match: re.Match[bytes]) -> bytes:
    if match[1] is None:
        raise ValueError("a percent sign without two hex digits")
    return bytes((int(match[1], 16),))


def _plain(info: Any) -> list[Any]:
    """Return the types a value may have, without their bounds and without null."""
    if isinstance(info, msgspec.inspect.Metadata):
        return _plain(info.type)
    if isinstance(info, msgspec.inspect.UnionType):
        return [found for each in info.types for found in _plain(each)]
    return [] if isinstance(info, msgspec.inspect.NoneType) else [info]


def _item_of(info: Any) -> Any:
    for each in _plain(info):
        if isinstance(each, (msgspec.inspect.ListType, msgspec.inspect.VarTupleType)):
            return each.item_type
    return None


def _convert_of(info: Any) -> Callable[[str, str], Any]:
    item = _item_of(info)
    kinds = {type(each) for each in _plain(info if item is None else item)}
    if msgspec.inspect.BoolType in kinds:
        return _to_bool
    if msgspec.inspect.FloatType in kinds:
        return _to_float
    if msgspec.inspect.IntType in kinds:
        return _to_int
    return lambda pointer, value: value


def _to_bool(pointer: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise invalid(pointer, "must be true or false")
    return value == "true"


def _to_int(pointer: str, value: str) -> int:
    if _WHOLE.fullmatch(value) is None or value == "-0":
        raise invalid(pointer, "must be a whole number")
    if abs(int(value)) > SAFE_INT_MAX:
        raise invalid(pointer, "a number is out of range")
    return int(value)


def _to_float(pointer: str, value: str) -> float:
    if _REAL.fullmatch(value) is None:
        raise invalid(pointer, "must be a number")
    found = float(value)
    if abs(found) > SAFE_INT_MAX:
        raise invalid(pointer, "a number is out of range")
    return found
