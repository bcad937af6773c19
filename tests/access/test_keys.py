"""API keys: made once, listed, revoked, bounded."""

from __future__ import annotations

import base64
import datetime as dt
from typing import Any

import pytest

from hybridq import AccessFull, CredentialConflict, InvalidArgument, tokens
from tests.access.harness import DAY_MS, NOW, AccessRig
from tests.contract.conftest import one_engine

SAID: dict[str, Any] = {"scopes": ["queue:read"], "created_by": "ann"}
PUBLIC = base64.b64encode(bytes(range(32))).decode()


def test_the_same_id_again_is_the_same_key_without_its_text(rig: AccessRig) -> None:
    said = {**SAID, "namespace": rig.namespace, "key_id": tokens.derived_id("request 1")}
    first = rig.access.create_key("ci", **said)
    before = rig.snapshot()

    again = rig.access.create_key("ci", **said)

    assert first.text is not None and again.text is None
    assert again.credential == first.credential
    assert before == rig.snapshot()
    assert rig.who(first.text).name == "ci", "the first text is the one that counts"


@pytest.mark.parametrize(
    "other",
    [{"scopes": ["queue:admin"]}, {"pools": ["a"]}, {"created_by": "bob"}, {"lasts_s": 60}, {"namespace": "elsewhere"}],
)
def test_the_same_id_with_other_content_is_a_conflict(rig: AccessRig, other: dict[str, Any]) -> None:
    said = {**SAID, "namespace": rig.namespace, "key_id": tokens.derived_id("request 1")}
    rig.access.create_key("ci", **said)

    with pytest.raises(CredentialConflict):
        rig.access.create_key("ci", **{**said, **other})


def test_a_revoked_key_is_not_made_again_by_a_late_repeat(rig: AccessRig) -> None:
    said = {**SAID, "namespace": rig.namespace, "key_id": tokens.derived_id("request 1")}
    made = rig.access.create_key("ci", **said)
    rig.access.revoke_key(rig.namespace, made.credential.id)

    assert rig.access.create_key("ci", **said).text is None
    assert made.text is not None and rig.reason(made.text) == "revoked"
    assert 0 < rig.ttl_ms(f"key:{made.credential.id}") <= DAY_MS, "and is forgotten after a day"


def test_keys_are_listed_newest_first_page_by_page(rig: AccessRig) -> None:
    for n in range(7):
        rig.key(name=f"k{n}")
    rig.key(name="other", namespace=f"{rig.namespace}-2")

    names, cursor = [], None
    for _ in range(4):
        page = rig.access.keys(rig.namespace, limit=3, cursor=cursor)
        names.append([one.name for one in page.items])
        cursor = page.next_cursor
        if cursor is None:
            break

    assert names == [["k6", "k5", "k4"], ["k3", "k2", "k1"], ["k0"]]


def test_a_page_that_ends_with_the_list_has_no_cursor(rig: AccessRig) -> None:
    rig.key()

    assert rig.access.keys(rig.namespace, limit=1).next_cursor is None
    assert rig.access.keys("nobody").items == ()


def test_a_list_shows_what_a_key_may_do_and_never_its_hash(rig: AccessRig) -> None:
    text = rig.key(scopes=["queue:read", "audit:read"], pools=["a"], services=["web"], lasts_s=60, created_by="ann")
    rig.admit(text)
    [found] = rig.access.keys(rig.namespace).items

    assert found.scopes == {"queue:read", "audit:read"}
    assert (found.pools, found.services, found.created_by) == (("a",), ("web",), "ann")
    assert found.expires_at == dt.datetime.fromtimestamp((NOW + 60_000) / 1000, dt.UTC)
    assert found.last_used_at == dt.datetime.fromtimestamp(NOW / 1000, dt.UTC)
    assert found.presented_hash is None


def test_a_revoked_key_leaves_the_list(rig: AccessRig) -> None:
    kept, gone = rig.key(name="kept"), rig.key(name="gone", lasts_s=60)
    rig.access.revoke_key(rig.namespace, gone[4:16])

    assert [one.name for one in rig.access.keys(rig.namespace).items] == ["kept"]
    assert rig.who(kept).name == "kept"
    assert f"key_ends:{rig.namespace}" not in rig.names()


def test_another_namespace_s_key_is_not_there_to_revoke(rig: AccessRig) -> None:
    text = rig.key()

    assert not rig.access.revoke_key("elsewhere", text[4:16])
    assert not rig.access.revoke_key(rig.namespace, "x" * 12)
    assert rig.who(text).id == text[4:16]


def test_revoking_again_is_harmless_and_says_the_same(rig: AccessRig) -> None:
    text = rig.key()

    assert rig.access.revoke_key(rig.namespace, text[4:16])
    before = rig.snapshot()
    assert rig.access.revoke_key(rig.namespace, text[4:16])
    assert before == rig.snapshot()


def test_an_expired_key_is_listed_for_a_month_and_then_trimmed_by_the_next_one(rig: AccessRig) -> None:
    rig.key(name="old", lasts_s=60)
    rig.now = NOW + 60_000 + 30 * DAY_MS - 1
    rig.key(name="one")
    assert [one.name for one in rig.access.keys(rig.namespace).items] == ["one", "old"]

    rig.now += 1
    rig.key(name="two")

    assert [one.name for one in rig.access.keys(rig.namespace).items] == ["two", "one"]
    assert len([name for name in rig.names() if name.startswith("key:")]) == 2


@one_engine
def test_a_namespace_holds_ten_thousand_keys(rig: AccessRig) -> None:
    rig.key()
    rig.client.zadd(f"{rig.root}:keys:{rig.namespace}", {f"k{n:011}": n + 100 for n in range(9_999)})
    before = rig.snapshot()

    with pytest.raises(AccessFull, match="10000"):
        rig.key()

    assert before == rig.snapshot()
    assert rig.key(namespace=f"{rig.namespace}-2")


def test_an_end_in_the_past_is_refused(rig: AccessRig) -> None:
    rig.key()
    before = rig.snapshot()

    with pytest.raises(InvalidArgument, match="future"):
        rig.key(expires_at=dt.datetime.fromtimestamp(NOW / 1000, dt.UTC))
    assert before == rig.snapshot()


def test_a_key_that_signs_brings_its_public_half(rig: AccessRig) -> None:
    found = rig.who(rig.key(require_signature=True, public_key=PUBLIC))
    assert (found.require_signature, found.public_key) == (True, PUBLIC)

    found = rig.who(rig.key(public_key=base64.urlsafe_b64encode(b"\xfb" * 32).decode()))
    assert (found.require_signature, found.public_key) == (False, base64.b64encode(b"\xfb" * 32).decode())


@pytest.mark.parametrize(
    "wrong",
    [
        {"scopes": []},
        {"scopes": "queue:read"},
        {"scopes": ["queue:red"]},
        {"pools": "a"},
        {"pools": ["a b"]},
        {"pools": [f"p{n}" for n in range(101)]},
        {"services": ["{x}"]},
        {"name": ""},
        {"name": "x" * 65},
        {"name": "a\nb"},
        {"namespace": "{x}"},
        {"namespace": "sys"},
        {"created_by": "x" * 129},
        {"lasts_s": 0},
        {"lasts_s": 60, "expires_at": dt.datetime(2030, 1, 1, tzinfo=dt.UTC)},
        {"expires_at": dt.datetime(2030, 1, 1)},
        {"require_signature": True},
        {"public_key": "AAAA"},
        {"public_key": "not base64"},
        {"key_id": "short"},
    ],
    ids=str,
)
def test_a_wrong_argument_is_refused_before_anything_is_sent(rig: AccessRig, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        rig.key(**wrong)
    with pytest.raises(InvalidArgument):
        rig.access.keys(rig.namespace, cursor="0")
    with pytest.raises(InvalidArgument):
        rig.access.keys(rig.namespace, kind="session")  # type: ignore[arg-type]

    assert rig.names() == []


def test_no_list_of_pools_is_every_pool_and_an_empty_list_is_none(rig: AccessRig) -> None:
    assert rig.who(rig.key(pools=None)).allows_pool("any")
    assert not rig.who(rig.key(pools=[])).allows_pool("any")
    assert not rig.who(rig.key(services=[])).allows_service("any")
