"""Nothing of a log moves a cursor, hides text or turns it round; the text itself stays."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridq.agent.logs import Lines, Neutral, neutralise

HARMLESS = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]*")

SEQUENCES = [
    "\x1b[0m",
    "\x1b[1;31m",
    "\x1b[38;5;196m\x1b[48;2;1;2;3m",
    "\x1b[2J\x1b[H",
    "\x1b[K",
    "\x1b[?25l",
    "\x1b[6n",
    "\x1b[>0q",
    "\x1b]0;a title\x07",
    "\x1b]8;;https://example.com\x1b\\",
    "\x1b]52;c;cm0gLXJmIH4=\x07",
    "\x1bPq#0;2;0;0;0\x1b\\",
    "\x1b_application\x1b\\",
    "\x1b^private\x1b\\",
    "\x1bXstart\x1b\\",
    "\x1b(B",
    "\x1b7\x1b8",
    "\x1bc",
    "\x9b31m",
    "\x9d0;title\x9c",
    "\x90q\x9c",
    "\x00",
    "\x07",
    "\x0e\x0f",
    "\x7f",
    "\x84",
    "\u202e",
    "\u2066\u2069",
    "\u200b",
    "\u00ad",
    "\ufeff",
    "\U000e0041",
    "\x1b\x1b[0m",
    "\x00\x1b[0m",
    "\x01\x9b1m",
    "\x1b[1\x00m",
    "\x1b[3\b1m",
]


def through(data: bytes, rng: random.Random | None = None) -> bytes:
    neutral, lines, out = Neutral(), Lines(), []
    at = 0
    while at < len(data):
        end = at + (rng.randint(1, 5) if rng else len(data))
        out.append(lines.feed(neutral.feed(data[at:end])))
        at = end
    return b"".join([*out, lines.feed(neutral.flush()), lines.flush()])


@pytest.mark.parametrize("sequence", SEQUENCES, ids=ascii)
def test_a_sequence_goes_without_a_trace(sequence: str) -> None:
    for text in (f"one{sequence}two\n", f"{sequence}onetwo\n", f"onetwo{sequence}\n", f"o{sequence * 3}netwo\n"):
        for seed in range(10):
            assert through(text.encode(), random.Random(seed)) == b"onetwo\n"
    assert neutralise(f"one{sequence}two") == "onetwo"


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(st.sampled_from([*SEQUENCES, "a", "\n", "\r", "\b", "é", "\x1b", "[", "]", "0", ";", "\x9b"])).map(
            lambda parts: "".join(parts).encode()
        ),
    ),
    st.randoms(use_true_random=False),
)
def test_what_comes_out_is_harmless_however_it_is_cut(data: bytes, rng: random.Random) -> None:
    out = through(data, rng)
    assert HARMLESS.fullmatch(out.decode()), out
    assert out == through(data)


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Cn", "Zl", "Zp", "Mn", "Me"]), max_size=200),
    st.randoms(use_true_random=False),
)
def test_text_stays(text: str, rng: random.Random) -> None:
    data = f"\t{text}\n".encode()
    assert through(data, rng) == data


def test_emoji_and_persian_keep_their_joiners() -> None:
    for text in ("👩‍💻 ✔️ ⚠️", "می‌خواهم"):
        assert neutralise(text) == text
    assert neutralise("sec\u200dr\ufe0fet") == "secret"


@pytest.mark.parametrize(
    ("data", "drawn"),
    [
        ("10%\r50%\r100%\n", "100%\n"),
        ("10%\r50%\r100%\r\n", "100%\n"),
        ("\rone\r\ntwo\r\n", "one\ntwo\n"),
        ("one\r\r\n", "one\n"),
        ("working\r       \rdone\n", "done\n"),
        ("N\bNA\bAM\bME\bE\n", "NAME\n"),
        ("_\bu_\bn_\bd\n", "und\n"),
        ("abc\b\b\bxyz\n", "xyz\n"),
        ("ab\b\b\b\b\b\bc\n", "c\n"),
        ("é\be\n", "e\n"),
        ("a\nb\b\b\bc\n", "a\nc\n"),
        ("one\x0btwo\x0cthree\u2028four\x85five", "one\ntwo\nthree\nfour\nfive"),
        ("\n\n\n", "\n\n\n"),
        ("no end", "no end"),
    ],
    ids=ascii,
)
def test_lines_become_what_a_screen_would_show(data: str, drawn: str) -> None:
    for seed in range(10):
        assert through(data.encode(), random.Random(seed)).decode() == drawn


@pytest.mark.parametrize(
    "data", ["\x1b", "\x1b[", "\x1b[31", "\x1b]0;title", "\x9b1", "\x1bP", "\x1b]8;;x\x1b"], ids=ascii
)
def test_a_sequence_that_never_ends_swallows_nothing_behind_it(data: str) -> None:
    assert "a long line of text" in neutralise(data + "\n" + "a long line of text\n")
    assert HARMLESS.fullmatch(neutralise(data))


def test_a_title_without_an_end_hides_no_output() -> None:
    text = "\x1b]0;" + "x" * 20_000
    assert "x" * 20_000 in neutralise(text)


def test_what_is_no_utf_8_is_replaced() -> None:
    assert through(b"a\xffb\xc3(\xed\xa0\x80\n").decode() == "a\ufffdb\ufffd(\ufffd\ufffd\ufffd\n"
    assert through("é漢🔑\n".encode(), random.Random(1)).decode() == "é漢🔑\n"
    assert through(b"cut \xf0\x9f\x94").decode() == "cut \ufffd"


def test_utf_16_reads_as_text() -> None:
    for charset in ("utf-16-le", "utf-16-be"):
        assert through("one\ntwo\n".encode(charset)) == b"one\ntwo\n"


def test_a_line_that_is_shown_before_it_ends_goes_on_or_is_said_anew() -> None:
    lines = Lines()
    assert lines.feed(b"Password: ") == b"" and lines.partial() == b"Password: "
    assert lines.feed(b"ok\n") == b"ok\n"
    assert lines.feed(b"1%") == b"" and lines.partial() == b"1%"
    assert lines.feed(b"\r2%\r3%\n") == b"\n3%\n"
    assert lines.feed(b"1%\r") == b"" and lines.partial() == b"", "it still changes"
    assert lines.feed(b"2%\n") == b"2%\n"
    assert lines.feed(b"a") == b"" and lines.partial() == b"a" and lines.feed(b"\r\n") == b"\n"


def test_a_line_without_end_is_not_held_for_ever() -> None:
    lines = Lines()
    out = b"".join([lines.feed("é".encode() * 10_000) for _ in range(10)])
    assert len(out) > 100_000 and out.decode()
    assert (out + lines.flush()).decode() == "é" * 100_000
