"""The records as a whole: how they begin, what other versions and foreign keys do to them, and what they never hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from hybridq import EntryInDoubt, QueueLost, SchemaMismatch, tokens
from hybridq.connect import SyncRedis
from hybridq.keys import AUTH_FAMILIES
from hybridq.scripts import load, verbs
from tests.access.harness import BOOT, NOW, AccessRig
from tests.access.test_trust import rule
from tests.contract.conftest import servers_only
from tests.contract.test_arguments import wrong

VERBS = verbs("auth")
HASH = "a" * 64
SAMPLES: dict[str, object] = {
    "now_ms": NOW, "signing_key": "5" * 64, "id": "id1", "hash": HASH, "token_hash": HASH, "next_hash": HASH,
    "csrf_hash": HASH, "namespace": "ns", "name": "n", "grant": "{}", "digest": "d", "created_by": "ann",
    "expires_ms": 0, "lasts_ms": 1000, "require_signature": 0, "public_key": "", "pool": "linux", "uses": 1,
    "kind": "key", "peer": "p", "rate_class": "read", "interval_us": 0, "burst": 1, "what": "key", "before": 0,
    "limit": 1, "use": "u", "family_id": "f", "token_id": "t", "agent_id": "a", "boot_id": "b", "session_id": "s",
    "generation": 1, "token_ms": 1000, "renewal_ms": 1000, "why": "w", "rule": "r", "subject": "s", "person": "p",
    "person_key": "p", "life_ms": 1000, "idle_ms": 1000, "old_id": "0", "state_hash": "s", "verifier": "v",
    "nonce": "n", "redirect": "", "ttl_ms": 1000, "proof": "p", "text": "{}", "mark": "m", "actor": "a",
    "action": "x", "object": "o", "outcome": "", "request_id": "",
}  # fmt: skip


def arguments(verb: str, entries: int = 1) -> list[object]:
    header = load(verb).header
    of_audit = {"before": ""} if verb == "auth/list_audit" else {}
    said = SAMPLES | of_audit
    return [said[one.name] for one in header.common] + [said[one.name] for one in header.each] * entries


@pytest.fixture
def busy(rig: AccessRig) -> AccessRig:
    """Records in which every call that is let through by mistake would leave a trace."""
    furnish(rig)
    return rig


def furnish(rig: AccessRig) -> dict[str, str]:
    """One of every credential, used; returns their texts by what they are."""
    access, namespace = rig.access, rig.namespace
    first = rig.enrol("one", labels={"gpu": ""})
    second = rig.rotate(first.renewal_text)
    third = rig.rotate(first.renewal_text)
    access.put_trust_rule(rule(rig))
    exchanged = access.issue_exchange_token(rule(rig), subject="repo:acme/web")
    session = access.open_session("ann", namespace=namespace, role="viewer", replaces="x" * 12)
    texts = {
        "key": rig.key(created_by="ann", lasts_s=60),
        "revoked key": rig.key(),
        "registration": rig.registration(uses=2),
        "agent": first.text,
        "first renewal": first.renewal_text,
        "second renewal": second.renewal_text,
        "third renewal": third.renewal_text,
        "exchanged": exchanged.text,
        "issued": access.issue_agent_token(first.family_id).text,
        "session": session.text,
        "csrf": session.csrf_token,
        "login token": access.make_login_token("ann", namespace=namespace, role="admin"),
        "state": tokens.csrf_of("some state"),
        "jti": tokens.csrf_of("some jti"),
    }
    for text in texts.values():
        rig.admit(text, limit_per_second=0.01, burst=5)
    access.spend_registration(rig.who(texts["registration"]), "one/boot-1")
    access.bind_exchange_token(exchanged.id, agent_id="two", boot_id="b")
    access.revoke_key(namespace, texts["revoked key"][4:16])
    access.begin_login(texts["state"], verifier="verifier", nonce="nonce")
    access.remember_once("jti", texts["jti"], 60)
    access.audit(namespace, actor=texts["key"], action="key.create", object=texts["session"])
    access.begin_login("another", verifier="verifier", nonce="nonce")
    access.take_login("another")
    texts["agent of a living family"] = rig.enrol("living").text
    return texts


# -- what they never hold ------------------------------------------------------------------------------------


def dump(client: SyncRedis, root: str) -> Iterator[bytes]:
    """Every key under a root, its name and all it holds, as bytes."""
    for key in client.scan_iter(match=f"{root}:*", count=1000):
        yield key
        match client.type(key):
            case b"hash":
                yield from (part for pair in client.hgetall(key).items() for part in pair)
            case b"zset":
                yield from client.zrange(key, 0, -1)
            case b"string":
                yield client.get(key) or b""
            case b"stream":
                yield from (part for _, line in client.xrange(key) or [] for pair in line.items() for part in pair)
            case other:
                raise AssertionError(other)


def test_no_text_of_a_credential_is_stored_anywhere(rig: AccessRig) -> None:
    texts = furnish(rig)
    held = b"\n".join(dump(rig.client, rig.root)).lower()

    assert len(held) > 5000 and texts["key"][4:16].lower().encode() in held, "the dump is one"
    for what, text in texts.items():
        secret = text[16:59] if tokens.parse(text) else text
        assert text.lower().encode() not in held, what
        assert secret.lower().encode() not in held, what
        assert secret[:20].lower().encode() not in held, f"a part of {what}"


def test_every_key_is_of_a_family_that_is_known_and_of_its_type(busy: AccessRig) -> None:
    seen = set()
    for name in busy.names():
        family, _, _ = name.partition(":")
        assert AUTH_FAMILIES[family][1].encode() == busy.client.type(f"{busy.root}:{name}")
        seen.add(family)

    assert seen == set(AUTH_FAMILIES)


def test_what_may_end_by_itself_does(busy: AccessRig) -> None:
    """All but what an operator made and removes by hand."""
    stay = {
        "meta",
        "key",
        "keys",
        "key_ends",
        "registrations",
        "registration_ends",
        "rules",
        "rules_of",
        "logins",
        "audit",
    }

    for name in busy.names():
        if name.partition(":")[0] not in stay:
            assert busy.ttl_ms(name) > 0, name


# -- how they begin ------------------------------------------------------------------------------------------


def test_the_signing_key_is_made_once_and_is_the_same_for_everybody(rig: AccessRig, client: SyncRedis) -> None:
    key = rig.access.signing_key()

    assert len(key) == 32 and key == rig.access.signing_key()
    assert rig.hash("meta") == {"schema": "1", "signing_key": key.hex()}


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "auth/establish"])
def test_a_script_that_finds_no_records_says_so_and_writes_nothing(rig: AccessRig, verb: str) -> None:
    assert rig.eval(verb, *arguments(verb)) == ["NO_QUEUE"]
    assert rig.names() == []


def test_the_first_call_makes_the_records(rig: AccessRig) -> None:
    assert rig.admit(None).credential is None
    assert rig.names() == ["meta"]


def test_records_that_vanish_while_in_use_are_not_begun_anew(rig: AccessRig) -> None:
    """An empty store would refuse everybody, and hide that it was lost."""
    rig.key()
    rig.client.delete(f"{rig.root}:meta")

    with pytest.raises(QueueLost):
        rig.admit(None)


@pytest.mark.parametrize("verb", VERBS)
def test_records_of_another_version_are_left_alone(rig: AccessRig, verb: str) -> None:
    rig.client.hset(f"{rig.root}:meta", "schema", "2")

    assert rig.eval(verb, *arguments(verb)) == ["SCHEMA", "2"]
    assert rig.names() == ["meta"]
    with pytest.raises(SchemaMismatch):
        rig.admit(None)


# -- arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_a_malformed_argument_is_refused_by_name_and_changes_nothing(busy: AccessRig, verb: str) -> None:
    before = busy.snapshot()
    good = arguments(verb)
    header = load(verb).header

    for place, parameter in enumerate((*header.common, *header.each)):
        for value in wrong(parameter):
            message = busy.refusal(verb, [*good[:place], value, *good[place + 1 :]])
            assert message.startswith(f"HQ_ARG {parameter.name}: "), (value, message)

    assert before == busy.snapshot()


@pytest.mark.parametrize("verb", VERBS)
def test_a_wrong_count_of_arguments_and_a_batch_over_its_limit_are_refused(busy: AccessRig, verb: str) -> None:
    before = busy.snapshot()
    good = arguments(verb)

    for args in (good[:-1], good[:1], [], arguments(verb, load(verb).header.batch_max + 1)):
        assert busy.refusal(verb, args).startswith("HQ_ARG arguments: ")
    assert before == busy.snapshot()


@pytest.mark.parametrize("verb", VERBS)
def test_the_samples_are_taken_so_that_the_refusals_mean_something(busy: AccessRig, verb: str) -> None:
    assert busy.eval(verb, *arguments(verb))[0][0].isupper()


# -- foreign keys ----------------------------------------------------------------------------------------------


@servers_only
@pytest.mark.parametrize("family", [family for family in AUTH_FAMILIES if family != "meta"])
def test_a_foreign_key_stops_an_entry_before_its_first_write_and_no_other(busy: AccessRig, family: str) -> None:
    """Each script on records where one family is of another type: an entry is done whole, or not at all."""
    for verb in VERBS:
        header = load(verb)
        if family not in header.families:
            continue
        for name in [name for name in busy.names() if name.partition(":")[0] == family]:
            busy.client.delete(f"{busy.root}:{name}")
        spoiled = [f"{busy.root}{AUTH_FAMILIES[family][0]}{part}" for part in spoilable(family)]
        for key in spoiled:
            busy.client.rpush(key, "foreign")
        before = busy.snapshot_of_all()
        try:
            answer: Any = busy.eval(verb, *arguments(verb))
        except redis.exceptions.ResponseError:
            answer = [["IN_DOUBT"]]
        if answer[0][0] == "IN_DOUBT":
            assert before == busy.snapshot_of_all(), f"{verb} wrote before it stopped"
        for key in spoiled:
            busy.client.delete(key)
        furnish(busy)


def spoilable(family: str) -> list[str]:
    """What follows the family in the keys that the samples lead to."""
    parts = {
        "family_of": ["ns/a"], "once": ["key:" + HASH, f"key:{HASH}"], "rate": ["read:at-p"], "sessions": ["p"],
        "rules_of": ["p"], "logins": [""], "login": ["s"], "agent_token": ["t", "id1"], "renewal": ["f", "id1"],
        "uses": ["id1"], "link": ["id1"],
    }  # fmt: skip
    return parts.get(family, ["ns", "id1"])


def test_a_foreign_key_is_an_error_and_never_an_admission(rig: AccessRig) -> None:
    text = rig.key()
    rig.client.delete(f"{rig.root}:key:{text[4:16]}")
    rig.client.rpush(f"{rig.root}:key:{text[4:16]}", "foreign")

    with pytest.raises(EntryInDoubt):
        rig.admit(text)
    assert rig.who(rig.key()), "others go on"


def test_nothing_of_a_boot_is_forgotten(rig: AccessRig) -> None:
    made = rig.enrol()
    assert rig.hash(f"renewal:{made.family_id}")["boot_id"] == BOOT["boot_id"]


def test_only_what_makes_something_new_is_refused_when_redis_is_full() -> None:
    """Who has a credential goes on: admitted, renewed, revoked, audited."""
    refused = {verb.removeprefix("auth/") for verb in VERBS if not load(verb).header.flags}

    assert refused == {
        "establish", "make_key", "make_registration", "spend", "enrol", "exchange", "bind", "open_session",
        "begin_login", "make_link", "put_rule",
    }  # fmt: skip
