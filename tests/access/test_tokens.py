"""The text of a credential: its shape, its checksum, and that nothing shows it."""

from __future__ import annotations

import math
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridq import tokens
from hybridq.credential import AgentTokens, IssuedToken, LoginState, NewKey, OpenedSession
from hybridq.errors import InvalidArgument

BASE62 = string.digits + string.ascii_letters
kinds = st.sampled_from(sorted(tokens.KINDS))


@given(kinds)
def test_what_was_made_is_recognised_for_what_it_is(kind: tokens.Kind) -> None:
    text = tokens.make(kind)
    token = tokens.parse(text)

    assert token is not None
    assert (token.kind, token.text) == (kind, text)
    assert re.fullmatch(rf"{tokens.KINDS[kind]}_[0-9A-Za-z]{{61}}", text)
    assert text[4:16] == token.id


def test_a_secret_has_at_least_256_bits_and_none_comes_twice() -> None:
    texts = {tokens.make("key") for _ in range(2000)}

    assert len(texts) == len({text[4:16] for text in texts}) == len({text[16:59] for text in texts}) == 2000
    assert 43 * math.log2(62) >= 256
    assert {char for text in texts for char in text[16:59]} == set(BASE62)


@given(kinds, st.integers(0, 64), st.sampled_from(BASE62 + "_-. \n\0é"))
def test_a_text_that_was_changed_anywhere_is_none(kind: tokens.Kind, place: int, char: str) -> None:
    text = tokens.make(kind)
    changed = text[:place] + char + text[place + 1 :]

    assert tokens.parse(changed) is None or changed == text


@pytest.mark.parametrize("cut", [slice(0, -1), slice(1, None), slice(0, 16), slice(0, 0)])
def test_a_part_is_none(cut: slice) -> None:
    assert tokens.parse(tokens.make("key")[cut]) is None
    assert tokens.parse(tokens.make("key") + "a") is None
    assert tokens.parse(f"{tokens.make('key')}\n") is None


@given(st.text())
def test_any_text_at_all_is_taken_without_an_error(text: str) -> None:
    assert tokens.parse(text) is None


def test_the_same_words_always_give_the_same_id() -> None:
    one = tokens.derived_id("post /api/keys 1")

    assert one == tokens.derived_id("post /api/keys 1") != tokens.derived_id("post /api/keys 2")
    token = tokens.parse(tokens.make("key", one))
    assert token is not None and token.id == one


@pytest.mark.parametrize("id", ["", "short", "x" * 13, "a-b" * 4, "é" * 12])
def test_an_id_of_another_shape_is_refused(id: str) -> None:
    with pytest.raises(InvalidArgument):
        tokens.make("key", id)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        tokens.make("door")  # type: ignore[arg-type]


def test_nothing_that_carries_a_text_shows_it() -> None:
    text = tokens.make("key")
    csrf = tokens.csrf_of(text)
    token = tokens.parse(text)
    at = None
    carriers = [
        token,
        NewKey(credential=None, text=text),  # type: ignore[arg-type]
        IssuedToken(text=text, id="i", expires_at=at),  # type: ignore[arg-type]
        AgentTokens(
            text=text,
            id="i",
            expires_at=at,  # type: ignore[arg-type]
            renewal_text=text,
            family_id="f",
            renewal_expires_at=at,  # type: ignore[arg-type]
        ),
        OpenedSession(text=text, id="i", csrf_token=csrf, expires_at=at),  # type: ignore[arg-type]
        LoginState(verifier=text, nonce=text, redirect="/"),
    ]

    for carrier in carriers:
        for shown in (repr(carrier), str(carrier), f"{[carrier]}"):
            assert text[16:] not in shown and csrf not in shown, shown


def test_redaction_leaves_the_id_and_nothing_of_the_secret() -> None:
    text = tokens.make("renewal")

    assert tokens.redact(f"a {text}, b") == f"a hqn_{text[4:16]}…, b"
    assert tokens.redact(text[:40]) == f"hqn_{text[4:16]}…", "also of one that was cut"
    assert tokens.redact("hqk_short stays") == "hqk_short stays"


def test_the_csrf_token_follows_from_the_cookie_and_says_nothing_of_it() -> None:
    one, other = tokens.make("session"), tokens.make("session")

    assert tokens.csrf_of(one) == tokens.csrf_of(one) != tokens.csrf_of(other)
    assert len(tokens.csrf_of(one)) == 43
