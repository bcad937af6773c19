"""`hybridq keys create`, `keys list`, `keys revoke`, `audit`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest
import redis as redis_py

from hybridq import Access, tokens
from hybridq.scopes import SCOPES

from .conftest import Ran

Run = Callable[..., Ran]


def reason(redis_url: str, text: str) -> str | None:
    """Why a key is refused, None when it is not."""
    with Access(redis=redis_url) as access:
        return access.admit(text, peer="test", rate_class="read", limit_per_second=0).reason


def test_a_key_is_made_and_works(hybridq: Run, redis_url: str, namespace: str) -> None:
    ran = hybridq("keys", "create", "ci", "--scopes", "queue:read, queue:enqueue", "--by", "ann", "--json")
    document = ran.document

    assert ran.code == 0
    assert (document["name"], document["namespace"], document["created_by"]) == ("ci", namespace, "ann")
    assert document["scopes"] == ["queue:enqueue", "queue:read"]
    assert (document["pools"], document["services"], document["last_used_at"]) == (None, None, None)
    token = tokens.parse(document["key"])
    assert token is not None and (token.kind, token.id) == ("key", document["id"])
    assert reason(redis_url, document["key"]) is None


def test_a_registration_key_is_for_the_agents_of_a_pool(hybridq: Run, redis_url: str, namespace: str) -> None:
    ran = hybridq("keys", "agent", "--pool", "linux", "--uses", "2", "--label", "gpu=a100", "--by", "ann", "--json")
    document = ran.document

    assert ran.code == 0
    assert (document["pool"], document["labels"], document["uses"]) == ("linux", {"gpu": "a100"}, 2)
    token = tokens.parse(document["key"])
    assert token is not None and (token.kind, token.id) == ("registration", document["id"])
    assert reason(redis_url, document["key"]) is None
    with Access(redis=redis_url) as access:
        [line] = access.audit_page(namespace).items
    assert (line.actor, line.action, line.object) == ("person:ann", "registration.create", document["id"])


def test_a_registration_key_lasts_an_hour_and_never_for_ever(hybridq: Run) -> None:
    ran = hybridq("keys", "agent")
    token = tokens.parse(ran.out.strip())
    assert token is not None and token.kind == "registration"
    assert ran.out.strip() not in ran.err

    ends = hybridq("keys", "agent", "--json").document["expires_at"]
    left_s = (dt.datetime.fromisoformat(ends) - dt.datetime.now(dt.UTC)).total_seconds()
    assert left_s == pytest.approx(3600, abs=30)
    assert hybridq("keys", "agent", "--expires", "never").code == 2


def test_it_lasts_ninety_days_unless_told_otherwise(hybridq: Run) -> None:
    def days(*arguments: str) -> float | None:
        ends = hybridq("keys", "create", "ci", "--scopes", "*", "--json", *arguments).document["expires_at"]
        return ends and (dt.datetime.fromisoformat(ends) - dt.datetime.now(dt.UTC)).total_seconds() / 86_400

    assert days() == pytest.approx(90, abs=0.01)
    assert days("--expires", "30d") == pytest.approx(30, abs=0.01)
    assert days("--expires", "12h") == pytest.approx(0.5, abs=0.01)
    assert days("--expires", "90m") == pytest.approx(0.0625, abs=0.01)
    assert days("--expires", "never") is None


def test_without_json_the_key_alone_is_on_stdout(hybridq: Run) -> None:
    """So that KEY=$(hybridq keys create …) holds the key."""
    ran = hybridq("keys", "create", "ci", "--scopes", "*")

    assert tokens.parse(ran.out.removesuffix("\n")) is not None
    assert "not shown again" in ran.err and ran.out.strip() not in ran.err


def test_pools_services_and_namespace_bound_it(hybridq: Run, redis_url: str) -> None:
    made = hybridq(
        *(
            "keys",
            "create",
            "ci",
            "--scopes",
            "*",
            "--pools",
            "b,a",
            "--services",
            "web",
            "--namespace",
            "other",
            "--json",
        )
    ).document

    assert (made["pools"], made["services"], made["namespace"]) == (["a", "b"], ["web"], "other")
    assert hybridq("keys", "list", "--json").document["items"] == []
    assert len(hybridq("keys", "list", "--namespace", "other", "--json").document["items"]) == 1


def test_an_unknown_scope_lists_those_there_are(hybridq: Run, redis: redis_py.Redis) -> None:
    ran = hybridq("keys", "create", "ci", "--scopes", "queue:read,queue:red", "--json")

    assert (ran.code, ran.error["code"]) == (2, "usage")
    assert "queue:red" in ran.error["message"]
    assert all(scope in ran.error["message"] for scope in SCOPES)
    assert redis.dbsize() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("create",),
        ("create", "ci"),
        ("create", "ci", "--scopes", ""),
        ("create", "ci", "--scopes", "*", "--expires", "0d"),
        ("create", "ci", "--scopes", "*", "--expires", "soon"),
        ("create", "ci", "--scopes", "*", "--expires", "99999d"),
        ("create", "ci", "--scopes", "*", "--pools", "{a}"),
        ("create", "x" * 65, "--scopes", "*"),
        ("list", "--limit", "0"),
        ("list", "--cursor", "x"),
        ("revoke",),
        ("revoke", "a b"),
        (),
    ],
)
def test_wrong_usage_is_exit_2_and_makes_nothing(hybridq: Run, arguments: tuple[str, ...]) -> None:
    assert hybridq("keys", *arguments).code == 2
    assert hybridq("keys", "list", "--json").document["items"] == []


def test_keys_are_listed_newest_first_and_never_shown_again(hybridq: Run) -> None:
    made = [hybridq("keys", "create", f"k{n}", "--scopes", "queue:read", "--json").document for n in range(3)]
    first = hybridq("keys", "list", "--limit", "2", "--json").document
    second = hybridq("keys", "list", "--cursor", first["next_cursor"], "--json").document
    shown = hybridq("keys", "list").out

    assert [one["name"] for page in (first, second) for one in page["items"]] == ["k2", "k1", "k0"]
    assert second["next_cursor"] is None
    for key in made:
        assert {name: value for name, value in key.items() if name != "key"} in [*first["items"], *second["items"]]
        assert key["id"] in shown and key["key"][16:] not in shown


def test_a_revoked_key_is_refused_and_gone_from_the_list(hybridq: Run, redis_url: str) -> None:
    made = hybridq("keys", "create", "ci", "--scopes", "*", "--json").document

    assert hybridq("keys", "revoke", made["id"]).out == f"{made['id']} is revoked\n"
    assert reason(redis_url, made["key"]) == "revoked"
    assert hybridq("keys", "list", "--json").document["items"] == []
    assert hybridq("keys", "revoke", made["id"], "--json").document == {"id": made["id"], "revoked": True}


def test_a_key_that_is_not_there_cannot_be_revoked(hybridq: Run) -> None:
    made = hybridq("keys", "create", "ci", "--scopes", "*", "--json").document
    ran = hybridq("keys", "revoke", made["id"], "--namespace", "other", "--json")

    assert (ran.code, ran.error["code"]) == (1, "not_found")
    assert hybridq("keys", "revoke", "nosuch").code == 1
    assert len(hybridq("keys", "list", "--json").document["items"]) == 1


def test_what_was_done_is_in_the_audit(hybridq: Run) -> None:
    made = hybridq("keys", "create", "ci", "--scopes", "*", "--by", "ann", "--json").document
    hybridq("keys", "revoke", made["id"], "--by", "bob")
    hybridq("keys", "revoke", "nosuch", "--by", "bob")
    document = hybridq("audit", "--json").document

    assert [(one["actor"], one["action"], one["object"], one["outcome"]) for one in document["items"]] == [
        ("person:bob", "key.revoke", made["id"], "done"),
        ("person:ann", "key.create", made["id"], "done"),
    ]
    assert document["items"][0]["at"].endswith("Z")
    page = hybridq("audit", "--limit", "1", "--json").document
    assert [one["actor"] for one in hybridq("audit", "--cursor", page["next_cursor"], "--json").document["items"]] == [
        "person:ann"
    ]
    lines = hybridq("audit", "--limit", "1").out.splitlines()
    assert lines[0] == "AT\tACTOR\tACTION\tOBJECT\tOUTCOME\tREQUEST"
    assert lines[1].split("\t")[1:] == ["person:bob", "key.revoke", made["id"], "done", ""]


def test_the_namespace_of_the_server_s_own_records_has_no_keys(hybridq: Run) -> None:
    ran = hybridq("keys", "create", "ci", "--scopes", "*", "--namespace", "sys")

    assert ran.code == 2
    assert "sys" in ran.err and "another name" in ran.err
