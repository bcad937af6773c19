"""Where in a body payload stands, and where texts of several lines: found by the types, so no name can pretend.

Everywhere else the rules of the wire hold: numbers within ±(2^53 - 1), no control characters.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Final

import msgspec

from .problems import Problem, invalid

__all__ = [
    "SAFE_INT_MAX",
    "AnyText",
    "Lines",
    "NegativeZero",
    "Shape",
    "number_out_of_range",
    "pointer_part",
    "shape_of",
]

SAFE_INT_MAX: Final = 2**53 - 1

_LINES = "hybridq.lines"
Lines = Annotated[str, msgspec.Meta(extra={_LINES: True}, extra_json_schema={"x-lines": True})]
"""The type of a text of several lines: line breaks and tabs may stand in it, other control characters not."""

_ANY = "hybridq.any"
AnyText = Annotated[str, msgspec.Meta(extra={_ANY: True}, extra_json_schema={"x-any-text": True})]
"""The type of a text in which every character may stand: what a program said."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_CONTROL_IN_LINES = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class NegativeZero(int):
    """What `-0` is read as, so that it can be told from 0."""


class Shape:
    """The shape of a value in which nothing is special; those below know better."""

    control = _CONTROL

    def check(self, pointer: str, value: Any) -> None:
        """Raise the 400 that points at what breaks a rule in the value or in what it holds."""
        if isinstance(value, str):
            if self.control.search(value) is not None:
                raise invalid(pointer, "holds a control character")
        elif isinstance(value, NegativeZero) or (isinstance(value, int | float) and abs(value) > SAFE_INT_MAX):
            raise number_out_of_range(pointer)
        elif isinstance(value, dict):
            for key, inner in value.items():
                PLAIN.check(pointer, key)
                self.check(pointer, inner)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                self.check(f"{pointer}/{index}", inner)

    def mend(self, value: Any, raw: bytes) -> Any:
        """Return the value with `5.0` as 5, the same number in JSON, and payload as the bytes it has in `raw`."""
        if (
            isinstance(value, float)
            and value.is_integer()
            and math.copysign(1.0, value) == (-1.0 if value < 0 else 1.0)
        ):
            return int(value)  # all but -0.0, which is no more welcome than -0
        if isinstance(value, dict):
            return {key: self.mend(inner, raw) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.mend(inner, raw) for inner in value]
        return value


class _TextOfLines(Shape):
    control = _CONTROL_IN_LINES


class _LinesOr(Shape):
    """A text of several lines, or something else, whose texts have none."""

    def __init__(self, other: Shape) -> None:
        self._other = other

    def check(self, pointer: str, value: Any) -> None:
        (_LINES_SHAPE if isinstance(value, str) else self._other).check(pointer, value)

    def mend(self, value: Any, raw: bytes) -> Any:
        return self._other.mend(value, raw)


class _Payload(Shape):
    """Any JSON value, byte for byte."""

    def check(self, pointer: str, value: Any) -> None:
        """Everything is right."""

    def mend(self, value: Any, raw: bytes) -> Any:
        return msgspec.Raw(raw)


class _AnyText(Shape):
    def check(self, pointer: str, value: Any) -> None:
        """Every text is right; what is none is refused by its type."""
        if not isinstance(value, str):
            super().check(pointer, value)


class _Struct(Shape):
    def __init__(self, fields: dict[str, Shape]) -> None:
        self._fields = fields

    def check(self, pointer: str, value: Any) -> None:
        if not isinstance(value, dict):
            return PLAIN.check(pointer, value)
        for key, inner in value.items():
            known = self._fields.get(key)
            if known is None:  # an unknown field is refused anyhow; its name belongs to the sender
                PLAIN.check(pointer, key)
                PLAIN.check(pointer, inner)
            else:
                known.check(f"{pointer}/{pointer_part(key)}", inner)

    def mend(self, value: Any, raw: bytes) -> Any:
        if not isinstance(value, dict):
            return PLAIN.mend(value, raw)
        parts = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        return {key: self._fields.get(key, PLAIN).mend(inner, bytes(parts[key])) for key, inner in value.items()}


class _List(Shape):
    def __init__(self, item: Shape) -> None:
        self._item = item

    def check(self, pointer: str, value: Any) -> None:
        if not isinstance(value, list):
            return PLAIN.check(pointer, value)
        for index, inner in enumerate(value):
            self._item.check(f"{pointer}/{index}", inner)

    def mend(self, value: Any, raw: bytes) -> Any:
        if not isinstance(value, list):
            return PLAIN.mend(value, raw)
        parts = msgspec.json.decode(raw, type=list[msgspec.Raw])
        return [self._item.mend(inner, bytes(part)) for inner, part in zip(value, parts, strict=True)]


class _Map(Shape):
    def __init__(self, item: Shape) -> None:
        self._item = item

    def check(self, pointer: str, value: Any) -> None:
        if not isinstance(value, dict):
            return PLAIN.check(pointer, value)
        for key, inner in value.items():
            PLAIN.check(pointer, key)
            self._item.check(pointer, inner)

    def mend(self, value: Any, raw: bytes) -> Any:
        if not isinstance(value, dict):
            return PLAIN.mend(value, raw)
        parts = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        return {key: self._item.mend(inner, bytes(parts[key])) for key, inner in value.items()}


PLAIN: Final = Shape()
_LINES_SHAPE: Final = _TextOfLines()
_PAYLOAD: Final = _Payload()
_ANY_TEXT: Final = _AnyText()


def shape_of(info: msgspec.inspect.Type) -> Shape:
    """Return the shape of a type."""
    if isinstance(info, msgspec.inspect.Metadata):
        extra = info.extra or {}
        return _LINES_SHAPE if extra.get(_LINES) else _ANY_TEXT if extra.get(_ANY) else shape_of(info.type)
    if isinstance(info, msgspec.inspect.RawType):
        return _PAYLOAD
    if isinstance(info, msgspec.inspect.UnionType):
        inner = [shape_of(each) for each in info.types if not isinstance(each, msgspec.inspect.NoneType)]
        special = [each for each in inner if each is not PLAIN]
        if _LINES_SHAPE in special and len(special) > 1:
            return _LinesOr(next(each for each in special if each is not _LINES_SHAPE))
        return special[0] if special else PLAIN
    if isinstance(info, msgspec.inspect.StructType):
        return _Struct({field.encode_name: shape_of(field.type) for field in info.fields})
    if isinstance(info, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
        item = shape_of(info.item_type)
        return PLAIN if item is PLAIN else _List(item)
    if isinstance(info, msgspec.inspect.DictType):
        item = shape_of(info.value_type)
        return PLAIN if item is PLAIN else _Map(item)
    return PLAIN


def number_out_of_range(pointer: str) -> Problem:
    """Return the 400 of a number that others could not read, or not exactly."""
    return invalid(pointer, "a number is out of range")


def pointer_part(name: str) -> str:
    """Return a name as one part of a JSON pointer (RFC 6901 §3)."""
    return name.replace("~", "~0").replace("/", "~1")
