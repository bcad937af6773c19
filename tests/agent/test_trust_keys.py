"""Keys as texts: read back, told apart, and shown by nothing when they are private."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridq.agent.trust import KeyUnusable, OpenKey, SealKey, SignKey, VerifyKey, read_keys
from hybridq.guard import find

SIGN, OPEN = SignKey.new(), OpenKey.new()
ALL = [SIGN, SIGN.public, OPEN, OPEN.public]
each = pytest.mark.parametrize("key", ALL, ids=lambda key: key.prefix)


@each
def test_a_key_is_read_back_from_its_text(key: SignKey) -> None:
    assert key == type(key).of(key.text)
    assert key == type(key).of(f"  {key.text}\n")
    assert key.text.startswith(key.prefix)


@each
def test_a_key_of_one_kind_is_none_of_another(key: SignKey) -> None:
    """Also under the other's prefix: the checksum is of the kind."""
    for other in ALL:
        if other is not key:
            with pytest.raises(KeyUnusable):
                type(other).of(key.text)
            with pytest.raises(KeyUnusable, match="checksum"):
                type(other).of(other.prefix + key.text.removeprefix(key.prefix))


@each
@pytest.mark.parametrize("change", ["first", "middle", "cut", "longer", "blank", "standard"])
def test_a_mistyped_key_is_refused_and_not_shown(key: SignKey, change: str) -> None:
    body = key.text.removeprefix(key.prefix)
    other = {"first": 0, "middle": 20}.get(change, 0)
    wrong = {
        "cut": body[:-1],
        "longer": body + "A",
        "blank": body[:10] + " " + body[10:],
        "standard": "+/" + body[2:],
    }.get(change, body[:other] + ("A" if body[other] != "A" else "B") + body[other + 1 :])

    with pytest.raises(KeyUnusable) as caught:
        type(key).of(key.prefix + wrong)

    assert body[4:20] not in str(caught.value)


def test_a_private_key_stands_in_no_repr() -> None:
    for key in (SIGN, OPEN):
        assert key.text not in repr(key)
        assert repr(key.raw) not in repr(key)


def test_the_guard_knows_private_keys_and_lets_public_ones_pass() -> None:
    assert find(f"see {SIGN.text} there") is not None
    assert find(f"see {OPEN.text} there") is not None
    assert find(f"see {SIGN.public.text} and {OPEN.public.text} there") is None


def test_an_id_is_of_the_key_and_of_its_kind() -> None:
    assert SIGN.public.id == VerifyKey.of(SIGN.public.text).id
    assert VerifyKey(SIGN.public.raw).id != SealKey(SIGN.public.raw).id
    assert len({SignKey.new().public.id for _ in range(50)}) == 50


def test_keys_come_as_texts_and_in_files(tmp_path: Path) -> None:
    one, two = SignKey.new().public, SignKey.new().public
    (tmp_path / "keys").write_text(f"# who may order work\n\n{one.text}\n  {two.text}\n{one.text}\n")

    assert read_keys(VerifyKey, [str(tmp_path / "keys"), two.text]) == (one, two)
    assert read_keys(VerifyKey, []) == ()


def test_a_file_of_private_keys_is_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(OPEN.text)
    path.chmod(0o600)
    assert read_keys(OpenKey, [str(path)]) == (OPEN,)

    for mode in (0o640, 0o604, 0o620, 0o602):
        path.chmod(mode)
        with pytest.raises(KeyUnusable, match="chmod 600"):
            read_keys(OpenKey, [str(path)])


def test_a_file_of_public_keys_is_not_others_to_write(tmp_path: Path) -> None:
    """Who can add a key to it can order work."""
    path = tmp_path / "keys"
    path.write_text(SIGN.public.text)
    path.chmod(0o644)
    assert read_keys(VerifyKey, [str(path)]) == (SIGN.public,)

    for mode in (0o664, 0o646):
        path.chmod(mode)
        with pytest.raises(KeyUnusable, match="chmod go-w"):
            read_keys(VerifyKey, [str(path)])


def test_what_is_wrong_with_a_file_is_said_without_what_is_in_it(tmp_path: Path) -> None:
    def said(content: bytes) -> str:
        (tmp_path / "keys").write_bytes(content)
        with pytest.raises(KeyUnusable) as caught:
            read_keys(VerifyKey, [str(tmp_path / "keys")])
        return str(caught.value)

    assert "holds no key" in said(b"# none\n")
    assert "larger" in said(b"#" * 70_000)
    for content in (SIGN.text.encode(), b"hunter2\n", b"\xff\xfe"):
        message = said(b"\n" + content)
        assert "line 2" in message
        assert SIGN.text[12:24] not in message and "hunter2" not in message
    with pytest.raises(KeyUnusable, match="No such file"):
        read_keys(VerifyKey, [str(tmp_path / "nothing")])
    with pytest.raises(KeyUnusable, match="directory"):
        read_keys(VerifyKey, [str(tmp_path)])


def test_a_private_key_in_the_place_of_a_public_one_is_not_shown() -> None:
    """It must not be taken for a path and printed."""
    bare = SIGN.text.removeprefix("hqsign_")
    for text in (SIGN.text, OPEN.text, SIGN.text[:-9], SIGN.text.replace("hqsign", "hqsing"), bare, f" {bare}\n", "\0"):
        with pytest.raises(KeyUnusable) as caught:
            read_keys(VerifyKey, [text])
        assert SIGN.text[12:24] not in str(caught.value)
        assert OPEN.text[12:24] not in str(caught.value)
