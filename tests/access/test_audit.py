"""The audit: what was written is there, in order, one line each, and never a secret."""

from __future__ import annotations

import pytest

from hybridq import InvalidArgument, tokens
from tests.access.harness import AccessRig
from tests.contract.conftest import one_engine


def test_lines_come_newest_first_page_by_page(rig: AccessRig) -> None:
    ids = [rig.access.audit(rig.namespace, actor="ann", action="key.create", object=f"k{n}") for n in range(5)]
    rig.access.audit(f"{rig.namespace}-2", actor="bob", action="key.create")

    seen, cursor = [], None
    for _ in range(3):
        page = rig.access.audit_page(rig.namespace, limit=2, cursor=cursor)
        seen.append([one.object for one in page.items])
        cursor = page.next_cursor

    assert seen == [["k4", "k3"], ["k2", "k1"], ["k0"]]
    assert cursor is None
    assert ids == sorted(ids, key=lambda id: tuple(map(int, id.split("-"))))


def test_a_line_says_who_did_what_to_what_and_when(rig: AccessRig) -> None:
    rig.access.audit(rig.namespace, actor="ann", action="key.revoke", object="k1", outcome="refused", request_id="r-1")
    [line] = rig.access.audit_page(rig.namespace).items

    assert (line.actor, line.action, line.object) == ("ann", "key.revoke", "k1")
    assert (line.outcome, line.request_id) == ("refused", "r-1")
    assert line.at is not None and line.at.tzinfo is not None


@pytest.mark.parametrize("char", ["\n", "\r", "\0", "\x1b", "\x7f", "\x85", "\u2028", "\u202e", "\ud800"])
def test_control_characters_are_written_out(rig: AccessRig, char: str) -> None:
    rig.access.audit(rig.namespace, actor=f"a{char}b", action=f"x{char}", object=f"{char}{char}")
    [line] = rig.access.audit_page(rig.namespace).items

    assert line.actor == f"a\\x{ord(char):02x}b"
    assert char not in line.actor + line.action + line.object


def test_a_credential_is_cut_down_to_its_id_wherever_it_stands(rig: AccessRig) -> None:
    text = tokens.make("key")
    rig.access.audit(
        rig.namespace, actor=f"by {text}", action=text, object=f"{'x' * 240}{text}", outcome=text, request_id=text
    )
    [line] = rig.access.audit_page(rig.namespace).items

    assert text[16:] not in repr(line) and text[16:24] not in repr(line)
    assert line.actor == f"by hqk_{text[4:16]}…"


def test_what_is_too_long_is_cut_and_not_lost(rig: AccessRig) -> None:
    rig.access.audit(rig.namespace, actor="é" * 200, action="x" * 100, object="y" * 1000)
    [line] = rig.access.audit_page(rig.namespace).items

    assert line.actor.endswith("…") and len(line.actor.encode()) <= 128
    assert (len(line.action.encode()), len(line.object.encode())) == (64, 256)


@pytest.mark.parametrize("cursor", ["", "-", "+", "1", "1-", "a-b", "(1-1", "1-1-1", "1-1 ", "9" * 40])
def test_a_cursor_of_another_shape_is_refused(rig: AccessRig, cursor: str) -> None:
    with pytest.raises(InvalidArgument):
        rig.access.audit_page(rig.namespace, cursor=cursor)


@one_engine
def test_about_a_hundred_thousand_lines_are_kept(rig: AccessRig) -> None:
    rig.access.audit(rig.namespace, actor="first", action="x")
    key = f"{rig.root}:audit:{rig.namespace}"
    for _ in range(21):
        pipe = rig.client.pipeline(transaction=False)
        for _ in range(5000):
            pipe.xadd(key, {"actor": "a", "action": "x", "object": "", "outcome": "", "request_id": ""})
        pipe.execute()
    rig.access.audit(rig.namespace, actor="last", action="x")

    assert 100_000 <= rig.client.xlen(key) <= 100_200
    assert rig.access.audit_page(rig.namespace).items[0].actor == "last"
