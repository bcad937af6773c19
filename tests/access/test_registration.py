"""Registration keys: for agents of one pool, so and so many times, for a while."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from hybridq import AccessFull, CredentialConflict, CredentialRefused, InvalidArgument, RegistrationSpent, tokens
from tests.access.harness import DAY_MS, NOW, AccessRig
from tests.contract.conftest import one_engine

HOUR_MS = 3_600_000


def test_it_registers_in_its_pool_with_its_labels_and_may_nothing_else(rig: AccessRig) -> None:
    found = rig.who(rig.registration(labels={"os": "linux", "gpu": ""}, created_by="ann", uses=3))

    assert (found.kind, found.pool, found.pools) == ("registration", "linux", ("linux",))
    assert (dict(found.labels or {}), found.created_by) == ({"os": "linux", "gpu": ""}, "ann")
    assert found.scopes == {"agents:register"}
    assert (found.uses, found.uses_spent) == (3, 0)


def test_each_use_is_spent_once(rig: AccessRig) -> None:
    found = rig.who(rig.registration(uses=2))

    spent = [rig.access.spend_registration(found, use) for use in ("a/1", "a/1", "b/1", "a/1", "b/1")]

    assert [(one.left, one.again) for one in spent] == [(1, False), (1, True), (0, False), (0, True), (0, True)]
    with pytest.raises(RegistrationSpent):
        rig.access.spend_registration(found, "c/1")
    assert len(rig.hash(f"uses:{found.id}")) == 2


def test_a_spent_key_is_still_known_so_that_a_lost_reply_can_be_asked_for_again(rig: AccessRig) -> None:
    text = rig.registration()
    rig.access.spend_registration(rig.who(text), "a/1")

    found = rig.who(text)
    assert (found.uses, found.uses_spent) == (1, 1)
    assert rig.access.spend_registration(found, "a/1").again


def test_an_hour_unless_told_otherwise_and_thirty_days_at_most(rig: AccessRig) -> None:
    text = rig.registration()
    found = rig.who(text)
    rig.now = NOW + HOUR_MS - 1
    assert rig.who(text).id
    rig.now = NOW + HOUR_MS

    assert rig.reason(text) == "expired"
    with pytest.raises(CredentialRefused, match="expired"):
        rig.access.spend_registration(found, "a/1")
    assert 0 < rig.ttl_ms(f"registration:{found.id}") <= HOUR_MS
    rig.registration(expires_at=dt.datetime.fromtimestamp((rig.now + 30 * DAY_MS) / 1000, dt.UTC))
    with pytest.raises(InvalidArgument, match="30 days"):
        rig.registration(expires_at=dt.datetime.fromtimestamp((rig.now + 30 * DAY_MS + 1) / 1000, dt.UTC))


def test_uses_end_with_their_key(rig: AccessRig) -> None:
    found = rig.who(rig.registration(lasts_s=60))
    rig.access.spend_registration(found, "a/1")

    assert 0 < rig.ttl_ms(f"uses:{found.id}") <= 60_000


def test_a_revoked_key_spends_nothing(rig: AccessRig) -> None:
    text = rig.registration(uses=5)
    found = rig.who(text)

    assert rig.access.revoke_key(rig.namespace, found.id, kind="registration")
    assert rig.reason(text) == "revoked"
    with pytest.raises(CredentialRefused, match="revoked"):
        rig.access.spend_registration(found, "a/1")
    assert rig.access.keys(rig.namespace, kind="registration").items == ()


def test_a_wrong_secret_spends_nothing(rig: AccessRig) -> None:
    """The script looks for itself: what was admitted earlier, or by somebody else's code, is not enough."""
    import msgspec

    found = msgspec.structs.replace(rig.who(rig.registration()), presented_hash=tokens.hash_of("guess"))

    with pytest.raises(CredentialRefused, match="unknown"):
        rig.access.spend_registration(found, "a/1")


def test_the_same_id_again_is_the_same_key_without_its_text(rig: AccessRig) -> None:
    said: dict[str, Any] = {"key_id": tokens.derived_id("r"), "uses": 2}
    first = rig.access.create_registration_key(rig.namespace, "linux", **said)
    again = rig.access.create_registration_key(rig.namespace, "linux", **said)

    assert first.text is not None and again.text is None and again.credential == first.credential
    with pytest.raises(CredentialConflict):
        rig.access.create_registration_key(rig.namespace, "linux", **{**said, "uses": 3})


@one_engine
def test_a_namespace_holds_a_thousand_and_what_ended_makes_room(rig: AccessRig) -> None:
    rig.registration(lasts_s=60)
    rig.client.zadd(f"{rig.root}:registrations:{rig.namespace}", {f"k{n:011}": n + 100 for n in range(999)})

    with pytest.raises(AccessFull, match="1000"):
        rig.registration()
    rig.now = NOW + 60_000
    assert rig.registration()


@pytest.mark.parametrize("wrong", [{"uses": 0}, {"uses": 1001}, {"pool": "a b"}, {"labels": {"a": "b\n"}}], ids=str)
def test_a_wrong_argument_is_refused_before_anything_is_sent(rig: AccessRig, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        rig.registration(**wrong)
    assert rig.names() == []


def test_another_kind_of_credential_cannot_be_spent(rig: AccessRig) -> None:
    with pytest.raises(InvalidArgument, match="registration"):
        rig.access.spend_registration(rig.who(rig.key()), "a/1")
