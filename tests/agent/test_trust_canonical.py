"""JSON of one form: the vectors of RFC 8785, and everything that could be read in two ways."""

from __future__ import annotations

import functools
import json
import math
import re
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hybridq.agent.trust.canonical import DEPTH_MAX, NotPortable, canonical, parse

NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}
"""RFC 8785, appendix B: the bits of a double, and how it is written."""


@pytest.mark.parametrize(("bits", "written"), NUMBERS.items(), ids=NUMBERS)
def test_numbers_are_written_as_the_rfc_s_appendix_b_has_them(bits: str, written: str) -> None:
    [value] = struct.unpack(">d", bytes.fromhex(bits))

    assert written == canonical(value).decode()
    assert value == float(written), "the vector itself"


def test_the_rfc_s_sample_becomes_the_rfc_s_bytes() -> None:
    """RFC 8785, 3.2.2 to 3.2.4."""
    sample = rb"""{
      "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
      "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
      "literals": [null, true, false]
    }"""
    expected = """
        7b 22 6c 69 74 65 72 61 6c 73 22 3a 5b 6e 75 6c 6c 2c 74 72
        75 65 2c 66 61 6c 73 65 5d 2c 22 6e 75 6d 62 65 72 73 22 3a
        5b 33 33 33 33 33 33 33 33 33 2e 33 33 33 33 33 33 33 2c 31
        65 2b 33 30 2c 34 2e 35 2c 30 2e 30 30 32 2c 31 65 2d 32 37
        5d 2c 22 73 74 72 69 6e 67 22 3a 22 e2 82 ac 24 5c 75 30 30
        30 66 5c 6e 41 27 42 5c 22 5c 5c 5c 5c 5c 22 2f 22 7d"""

    assert bytes.fromhex(expected) == canonical(parse(sample))


def test_names_are_ordered_by_utf_16_code_units() -> None:
    """RFC 8785, 3.2.3: a surrogate pair comes before U+FB33, though its code point is larger."""
    values = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }

    written = json.loads(canonical(values))

    assert list(written.values()) == [
        "Carriage Return",
        "One",
        "Control",
        "Latin Small Letter O With Diaeresis",
        "Euro Sign",
        "Emoji: Grinning Face",
        "Hebrew Letter Dalet With Dagesh",
    ]


def test_only_what_must_be_is_escaped() -> None:
    text = "".join(map(chr, range(0x21))) + '"\\/\x7f\x80\u2028\U0001f600'

    assert canonical(text).decode() == (
        r'"\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007\b\t\n\u000b\f\r\u000e\u000f\u0010\u0011\u0012\u0013\u0014'
        r"\u0015\u0016\u0017\u0018\u0019\u001a\u001b\u001c\u001d\u001e\u001f " + '\\"\\\\/\x7f\x80\u2028\U0001f600"'
    )


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: abs(x) < 2**53 or abs(x) >= 1e21)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
@example({"a": 1.0, "b": -0.0, "c": 1e21, "d": [5e-324]})
def test_what_is_written_reads_as_the_same_and_is_written_the_same(value: Any) -> None:
    written = canonical(value)

    assert json.loads(written) == value
    assert written == canonical(parse(written))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_has_the_fewest_digits_that_lead_back_to_it(value: float) -> None:
    written = canonical(value).decode()

    assert value == float(written)
    mantissa = written.partition("e")[0].lstrip("-").replace(".", "").strip("0")
    digits = len(mantissa)
    assert digits <= 17
    if digits > 1:
        assert float(f"{value:.{digits - 2}e}") != value, "one digit fewer would do"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": 1, "\\u0061": 1}', "twice"),
        (b'[{"x": {"b": 0, "b": 0}}]', "twice"),
        (b"NaN", "NaN"),
        (b"[Infinity]", "NaN"),
        (b"-Infinity", "NaN"),
        (b"1e400", "double"),
        (b"-1e999", "double"),
        (b"9007199254740992", "2^53"),
        (b"-9007199254740992", "2^53"),
        (b"1" * 100_000, "2^53"),
        (b'"\\ud800"', "surrogate"),
        (b'"\\udc00\\ud800"', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'"\xff"', "UTF-8"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b"\xef\xbb\xbf{}", "JSON"),
        (b'{"a": 1,}', "JSON"),
        (b"{'a': 1}", "JSON"),
        (b'"a\nb"', "JSON"),
        (b"01", "JSON"),
        (b"", "JSON"),
        (b"{} {}", "JSON"),
        (b"[" * 65 + b"]" * 65, "deeper"),
        (b"[" * 1_000_000, "deeper"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "deeper"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_two_readers_could_understand_differently_is_refused(document: bytes, reason: str) -> None:
    with pytest.raises(NotPortable, match=re.escape(reason)):
        parse(document)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        2**53,
        -(2**53),
        "\ud800",
        {"\udc00": 1},
        {1: "a"},
        {None: "a"},
        b"bytes",
        {"a": {1, 2}},
        object(),
        functools.reduce(lambda inner, _: [inner], range(65), []),
    ],
    ids=lambda value: repr(value)[:16],
)
def test_what_is_no_portable_json_is_not_written(value: Any) -> None:
    with pytest.raises(NotPortable):
        canonical(value)


def test_the_depth_that_is_allowed_is_the_api_s() -> None:
    document = b"[" * DEPTH_MAX + b"]" * DEPTH_MAX

    assert document == canonical(parse(document))
    assert parse(b'"' + b"[" * 100 + b'"') == "[" * 100, "in a text brackets are letters"
    assert parse(b'"\\"' + b"[" * 100 + b'"') == '"' + "[" * 100


def test_a_surrogate_pair_that_is_written_as_escapes_is_one_character() -> None:
    assert canonical(parse(b'"\\ud83d\\ude00"')) == '"\U0001f600"'.encode()
    assert parse(b'"\\\\ud800"') == "\\ud800"


def test_an_error_says_nothing_of_the_document() -> None:
    for document in (b'{"password": hunter2', b'{"hunter2": 1, "hunter2": 1}', b'"hunter2\xff"'):
        with pytest.raises(NotPortable) as caught:
            parse(document)
        assert "hunter2" not in str(caught.value)
