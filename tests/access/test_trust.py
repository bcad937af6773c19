"""Trust rules, the tokens given by them, and values that count once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hybridq import AccessFull, CredentialConflict, CredentialRefused, InvalidArgument, TrustRule
from tests.access.harness import MINUTE_MS, NOW, AccessRig

ISSUER = "https://token.example.com"


def rule(rig: AccessRig, id: str = "main", **fields: Any) -> TrustRule:
    said = {
        "namespace": rig.namespace, "issuer": ISSUER, "audience": "hybridq", "claims": {"sub": "repo:acme/*"},
        "pool": "linux", "scopes": ("agents:register", "queue:claim"),
    }  # fmt: skip
    return TrustRule(id=id, **{**said, **fields})


def test_a_rule_is_set_changed_found_and_deleted(rig: AccessRig) -> None:
    assert rig.access.put_trust_rule(rule(rig))
    assert not rig.access.put_trust_rule(rule(rig, pool="mac"))
    assert rig.access.trust_rules(rig.namespace) == (rule(rig, pool="mac"),)
    assert rig.access.find_trust_rules(ISSUER, "hybridq") == (rule(rig, pool="mac"),)

    assert rig.access.delete_trust_rule(rig.namespace, "main")
    assert not rig.access.delete_trust_rule(rig.namespace, "main")
    assert rig.access.trust_rules(rig.namespace) == rig.access.find_trust_rules(ISSUER, "hybridq") == ()
    assert rig.names() == ["meta"]


def test_a_rule_is_found_by_issuer_and_audience_both_exact(rig: AccessRig) -> None:
    rig.access.put_trust_rule(rule(rig))

    for issuer, audience in [(ISSUER, "other"), (f"{ISSUER}/", "hybridq"), (f"{ISSUER}hybridq", ""), (ISSUER, "")]:
        assert rig.access.find_trust_rules(issuer, audience) == ()


def test_a_rule_that_moves_to_another_issuer_is_not_found_at_the_old_one(rig: AccessRig) -> None:
    rig.access.put_trust_rule(rule(rig))
    rig.access.put_trust_rule(rule(rig, issuer="https://other.example.com"))

    assert rig.access.find_trust_rules(ISSUER, "hybridq") == ()
    assert len(rig.access.find_trust_rules("https://other.example.com", "hybridq")) == 1


def test_rules_of_several_namespaces_are_found_together_and_listed_apart(rig: AccessRig) -> None:
    other = f"{rig.namespace}-2"
    rig.access.put_trust_rule(rule(rig, "b"))
    rig.access.put_trust_rule(rule(rig, "a"))
    rig.access.put_trust_rule(rule(rig, "a", namespace=other))

    found = rig.access.find_trust_rules(ISSUER, "hybridq")
    assert [(one.namespace, one.id) for one in found] == [(rig.namespace, "a"), (rig.namespace, "b"), (other, "a")]
    assert [one.id for one in rig.access.trust_rules(rig.namespace)] == ["a", "b"]
    assert not rig.access.delete_trust_rule("elsewhere", "a")


def test_a_namespace_holds_two_hundred_rules(rig: AccessRig) -> None:
    for n in range(200):
        rig.access.put_trust_rule(rule(rig, f"r{n}", audience=f"a{n}"))

    with pytest.raises(AccessFull, match="200"):
        rig.access.put_trust_rule(rule(rig, "more"))
    assert not rig.access.put_trust_rule(rule(rig, "r0", pool="mac")), "one that is there may change"


def test_an_issuer_and_audience_have_two_hundred_rules(rig: AccessRig) -> None:
    for n in range(200):
        rig.access.put_trust_rule(rule(rig, "r", namespace=f"n{n}"))

    with pytest.raises(AccessFull, match="200"):
        rig.access.put_trust_rule(rule(rig))


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "http://token.example.com"},
        {"issuer": "http://localhost.example.com"},
        {"issuer": ""},
        {"audience": ""},
        {"claims": {}},
        {"claims": {"sub": "*"}},
        {"claims": {"sub": "a*b"}},
        {"claims": {"sub": "a**"}},
        {"claims": {"repository": "acme/*"}},
        {"claims": {"sub": ""}},
        {"claims": {f"c{n}": "x" for n in range(33)}},
        {"scopes": ()},
        {"scopes": ("queue:red",)},
        {"pool": "a b"},
        {"id": "a/b"},
        {"max_ttl_s": 59.0},
        {"max_ttl_s": 3601.0},
    ],
    ids=str,
)
def test_a_rule_that_does_not_say_whom_it_trusts_is_refused(rig: AccessRig, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        rig.access.put_trust_rule(rule(rig, **wrong))
    assert rig.names() == []


@pytest.mark.parametrize("issuer", ["http://127.0.0.1:9000", "http://localhost/realm", "http://[::1]:1"])
def test_an_issuer_of_this_machine_needs_no_certificate(rig: AccessRig, issuer: str) -> None:
    assert rig.access.put_trust_rule(rule(rig, issuer=issuer))


@pytest.mark.parametrize(
    ("claims", "meets"),
    [
        ({"sub": "repo:acme/web", "owner_id": "42"}, True),
        ({"sub": "repo:acme/", "owner_id": 42}, True),
        ({"sub": "repo:acme", "owner_id": "42"}, False),
        ({"sub": "xrepo:acme/web", "owner_id": "42"}, False),
        ({"sub": "repo:acme/web"}, False),
        ({"sub": "repo:acme/web", "owner_id": "421"}, False),
        ({"sub": "repo:acme/web", "owner_id": ["42"]}, False),
        ({"sub": "repo:acme/web", "owner_id": None}, False),
        ({"sub": "repo:acme/web", "owner_id": True}, False),
        ({"sub": ["repo:acme/web"], "owner_id": "42"}, False),
        ({}, False),
    ],
)
def test_every_condition_of_a_rule_has_to_be_met(rig: AccessRig, claims: dict[str, Any], meets: bool) -> None:
    wanted = rule(rig, claims={"sub": "repo:acme/*", "owner_id": "42"})

    assert wanted.matches(claims) is meets
    assert not msgspec.structs.replace(wanted, claims={}).matches(claims), "no condition is no trust"


def test_true_is_not_one(rig: AccessRig) -> None:
    assert not rule(rig, claims={"n": "1"}).matches({"n": True})
    assert not rule(rig, claims={"n": "True"}).matches({"n": True})


# -- tokens by a rule ----------------------------------------------------------------------------------------


def test_a_token_by_a_rule_is_of_no_agent_yet(rig: AccessRig) -> None:
    rig.access.put_trust_rule(rule(rig))
    found = rig.who(rig.access.issue_exchange_token(rule(rig), subject="repo:acme/web").text)

    assert (found.kind, found.agent_id, found.rule_id, found.name) == ("agent", None, "main", "repo:acme/web")
    assert (found.pool, found.pools, found.scopes) == ("linux", ("linux",), {"agents:register", "queue:claim"})


def test_it_lasts_no_longer_than_the_rule_says(rig: AccessRig) -> None:
    short = rule(rig, max_ttl_s=60.0)
    rig.access.put_trust_rule(short)

    assert rig.access.issue_exchange_token(short, subject="s").expires_at.timestamp() * 1000 == NOW + MINUTE_MS
    assert rig.access.issue_exchange_token(short, subject="s", token_s=5).expires_at.timestamp() * 1000 == NOW + 5000
    assert (
        rig.access.issue_exchange_token(short, subject="s", token_s=3000).expires_at.timestamp() * 1000
        == NOW + MINUTE_MS
    )


def test_without_the_rule_there_is_no_token_and_those_there_are_die(rig: AccessRig) -> None:
    rig.access.put_trust_rule(rule(rig))
    text = rig.access.issue_exchange_token(rule(rig), subject="s").text
    rig.access.delete_trust_rule(rig.namespace, "main")

    assert rig.reason(text) == "revoked"
    with pytest.raises(CredentialRefused, match="no rule"):
        rig.access.issue_exchange_token(rule(rig), subject="s")


def test_the_first_agent_to_register_with_it_has_it(rig: AccessRig) -> None:
    rig.access.put_trust_rule(rule(rig))
    issued = rig.access.issue_exchange_token(rule(rig), subject="s")
    rig.access.bind_exchange_token(issued.id, agent_id="one", boot_id="b")
    rig.access.bind_exchange_token(issued.id, agent_id="one", boot_id="b")

    assert rig.who(issued.text).agent_id == "one"
    for other in ({"agent_id": "two", "boot_id": "b"}, {"agent_id": "one", "boot_id": "c"}):
        with pytest.raises(CredentialConflict):
            rig.access.bind_exchange_token(issued.id, **other)


def test_only_a_token_by_a_rule_can_be_bound(rig: AccessRig) -> None:
    for token_id in (rig.enrol().id, "x" * 12):
        with pytest.raises(CredentialRefused):
            rig.access.bind_exchange_token(token_id, agent_id="one", boot_id="b")


# -- once ------------------------------------------------------------------------------------------------


def test_a_value_counts_once_for_its_kind(rig: AccessRig) -> None:
    assert rig.access.remember_once("jti", "value", 60)
    assert not rig.access.remember_once("jti", "value", 60)
    assert rig.access.remember_once("nonce", "value", 60)
    assert rig.access.remember_once("jti", "other", 60)
    for name in rig.names():
        assert name == "meta" or 0 < rig.ttl_ms(name) <= 60_000
        assert "value" not in name


def test_a_repeat_of_ours_after_a_lost_reply_is_still_the_first_time(rig: AccessRig) -> None:
    from hybridq.ops import access as ops

    call = ops.remember_once(rig.root, "jti", "value", 60, now_ms=rig.now)
    again = call.again()
    assert again is not None

    assert rig.access._run(call) and rig.access._run(again)
    assert not rig.access.remember_once("jti", "value", 60)
