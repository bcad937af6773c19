"""One call, decided: who it is, what is told of it, and what it costs whom."""

from __future__ import annotations

from typing import Any

import pytest

from hybridq import Credential, tokens
from tests.access.harness import DAY_MS, MINUTE_MS, NOW, AccessRig
from tests.contract.conftest import servers_only

LIMIT = {"limit_per_second": 0.01, "burst": 2}
"""So slow that no limiter ends by itself while a test runs, whose own clock stands still."""


def forged(text: str) -> str:
    """Another secret for the same id, with a true checksum."""
    token = tokens.parse(text)
    assert token is not None
    return tokens.make(token.kind, token.id)


def test_a_key_is_what_it_was_made_as(rig: AccessRig) -> None:
    text = rig.key(
        name="build server",
        scopes=["queue:enqueue", "queue:read"],
        pools=["b", "a"],
        services=["web"],
        created_by="ann",
    )
    found = rig.who(text)

    assert (found.kind, found.namespace, found.name, found.created_by) == ("key", rig.namespace, "build server", "ann")
    assert found.scopes == {"queue:enqueue", "queue:read"}
    assert (found.pools, found.services, found.expires_at) == (("a", "b"), ("web",), None)
    assert found.may("queue:read") and not found.may("queue:admin")
    assert found.allows_pool("a") and not found.allows_pool("c")
    assert found.allows_service("web") and not found.allows_service("db")
    assert found.acts_as == "ann"


def test_the_scope_star_holds_all_others(rig: AccessRig) -> None:
    assert rig.who(rig.key(scopes=["*"])).may("keys:manage")


def test_nothing_presented_is_nobody_for_no_reason(rig: AccessRig) -> None:
    admission = rig.admit(None)

    assert (admission.credential, admission.reason) == (None, None)


@pytest.mark.parametrize("text", ["", "hqk_", "nonsense", "hqk_" + "x" * 61, "é", "hqk_" + "0" * 100])
def test_what_is_no_credential_is_unknown(rig: AccessRig, text: str) -> None:
    assert rig.reason(text) == "unknown"


def test_an_unknown_id_and_a_wrong_secret_are_told_apart_by_nobody(rig: AccessRig) -> None:
    known = rig.key()

    assert rig.admit(forged(known)) == rig.admit(tokens.make("key"))


def test_a_kind_is_not_taken_for_another(rig: AccessRig) -> None:
    """The id of one under the prefix of another."""
    token = tokens.parse(rig.key())
    assert token is not None

    for kind in tokens.KINDS:
        if kind != "key":
            assert rig.reason(tokens.make(kind, token.id)) == "unknown"


def test_a_login_link_is_no_credential(rig: AccessRig) -> None:
    assert rig.reason(rig.access.make_login_token("ann", namespace=rig.namespace, role="admin")) == "unknown"


def test_a_revoked_key_is_refused_from_the_next_call_on(rig: AccessRig) -> None:
    text = rig.key()
    found = rig.who(text)

    assert rig.access.revoke_key(rig.namespace, found.id)
    assert rig.reason(text) == "revoked"
    assert rig.reason(forged(text)) == "unknown", "who has not the secret is not told"


def test_a_key_ends_to_the_millisecond(rig: AccessRig) -> None:
    text = rig.key(lasts_s=60)

    rig.now = NOW + MINUTE_MS - 1
    assert rig.who(text).id
    rig.now = NOW + MINUTE_MS
    assert rig.reason(text) == "expired"
    assert rig.reason(forged(text)) == "unknown"


def test_the_last_use_is_noted_at_most_once_a_minute(rig: AccessRig) -> None:
    text = rig.key()

    def seen() -> int:
        rig.admit(text)
        return int(rig.hash(f"key:{text[4:16]}")["used_ms"])

    assert seen() == NOW
    rig.now = NOW + MINUTE_MS - 1
    assert seen() == NOW
    rig.now = NOW + MINUTE_MS
    assert seen() == NOW + MINUTE_MS
    last = rig.who(text).last_used_at
    assert last is not None and last.timestamp() * 1000 == NOW + MINUTE_MS


def test_a_refused_call_is_no_use(rig: AccessRig) -> None:
    text = rig.key(lasts_s=60)
    rig.admit(forged(text))
    rig.now = NOW + DAY_MS
    rig.admit(text)

    assert "used_ms" not in rig.hash(f"key:{text[4:16]}")


# -- whose budget ------------------------------------------------------------------------------------------


def test_a_credential_has_its_own_budget_wherever_it_calls_from(rig: AccessRig) -> None:
    text = rig.key()

    limited = [rig.admit(text, peer=f"192.0.2.{n}", **LIMIT).rate.limited for n in range(4)]

    assert limited == [False, False, True, True]
    assert not rig.admit(None, peer="192.0.2.0", **LIMIT).rate.limited


def test_a_wrong_secret_uses_up_the_budget_of_its_place_and_never_that_of_the_key(rig: AccessRig) -> None:
    """Ids are no secrets: who reads one in a log must not be able to lock its owner out."""
    text = rig.key()

    attack = [rig.admit(forged(text), peer="203.0.113.9", **LIMIT).rate for _ in range(5)]

    assert [rate.limited for rate in attack] == [False, False, True, True, True]
    assert rig.admit(text, peer="192.0.2.1", **LIMIT).rate.remaining == 1
    assert not rig.admit(text, peer="203.0.113.9", **LIMIT).rate.limited, "nor does the owner pay beside the attacker"
    assert rig.admit(None, peer="203.0.113.9", **LIMIT).rate.limited


def test_a_revoked_or_expired_key_pays_from_the_budget_of_its_place(rig: AccessRig) -> None:
    text = rig.key(lasts_s=1)
    rig.now = NOW + 1000
    rig.admit(text, **LIMIT)

    assert rig.admit(None, **LIMIT).rate.remaining == 0


def test_classes_do_not_share_a_budget(rig: AccessRig) -> None:
    text = rig.key()
    for _ in range(3):
        rig.admit(text, rate_class="write", **LIMIT)

    assert rig.admit(text, rate_class="write", **LIMIT).rate.limited
    assert rig.admit(text, rate_class="read", **LIMIT).rate.remaining == 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("unix", "unix", True),
        ("", "elsewhere", False),
    ],
)
def test_an_address_is_a_place_and_an_ipv6_host_has_many_addresses(
    rig: AccessRig, one: str, other: str, same: bool
) -> None:
    rig.admit(None, peer=one, **LIMIT)

    assert (rig.admit(None, peer=other, **LIMIT).rate.remaining == 0) is same


def test_a_limiter_lives_until_its_budget_is_whole_and_no_longer(rig: AccessRig) -> None:
    rig.admit(rig.key(), limit_per_second=0.02, burst=10)
    [name] = [name for name in rig.names() if name.startswith("rate:")]

    assert 0 < rig.ttl_ms(name) <= 50_000


def test_without_a_limit_nothing_is_kept(rig: AccessRig) -> None:
    rate = rig.admit(rig.key()).rate

    assert (rate.limit, rate.limited, rate.retry_after_s, rate.reset_s) == (0, False, 0, 0)
    assert not [name for name in rig.names() if name.startswith("rate:")]


# -- what an id that is not there costs --------------------------------------------------------------------


@servers_only
def test_an_unknown_id_costs_as_many_commands_as_a_known_one(rig: AccessRig) -> None:
    def commands(text: str | None) -> int:
        rig.admit(text, peer="198.51.100.7", **LIMIT)
        before = calls()
        rig.admit(text, peer="198.51.100.7", limit_per_second=1000, burst=1000)
        return calls() - before

    def calls() -> int:
        stats: dict[str, Any] = rig.client.info("commandstats")
        return sum(one["calls"] for name, one in stats.items() if name.removeprefix("cmdstat_") in LOOKED)

    LOOKED = {"hgetall", "hget", "hexists", "get", "set"}
    known = rig.key()
    counts = {commands(text) for text in (known, forged(known), tokens.make("key"), tokens.make("agent"), None)}

    assert len(counts) == 1


def test_the_library_compares_again(rig: AccessRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the script ever say VALID for another secret, Python does not believe it."""
    text = rig.key()
    monkeypatch.setattr("hybridq.tokens.same", lambda one, other: False)

    assert rig.admit(text).credential is None


def test_a_credential_shows_no_hash_when_printed(rig: AccessRig) -> None:
    found = rig.who(rig.key())

    assert isinstance(found, Credential)
    assert found.presented_hash is not None and found.presented_hash not in repr(found)
