"""Trust rules over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.api import shared
from tests.api.client import Api, problem

api, key, running = shared.api, shared.key, shared.running

RULE = {"id", "issuer", "audience", "claims", "pool", "scopes", "max_ttl_seconds"}
BODY: dict[str, Any] = {
    "issuer": "https://token.example.test",
    "audience": "https://hybridq.test",
    "claims": {"repository_owner_id": "1234", "sub": "repo:acme/*"},
    "pool": "linux",
    "scopes": ["agents:register"],
    "max_ttl_seconds": 600,
}


def test_a_rule_is_set_changed_listed_and_deleted(api: Api) -> None:
    made = api.put("/api/trust-rules/ci", BODY)
    assert made.status_code == 201 and made.json() == {"id": "ci", **BODY}
    changed = api.put("/api/trust-rules/ci", {**BODY, "pool": "mac"})
    assert changed.status_code == 200 and changed.json()["pool"] == "mac"
    assert api.get("/api/trust-rules").json() == {"items": [changed.json()], "next_cursor": None}
    assert api.delete("/api/trust-rules/ci").status_code == 204
    problem(api.delete("/api/trust-rules/ci"), 404, "not_found")
    actions = [one["action"] for one in api.get("/api/audit").json()["items"]]
    assert actions == ["rule.delete", "rule.change", "rule.create"]


def test_rules_are_listed_page_by_page(api: Api) -> None:
    for name in "bdace":
        api.put(f"/api/trust-rules/{name}", BODY)
    first = api.get("/api/trust-rules", params={"limit": 3}).json()
    second = api.get("/api/trust-rules", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [rule["id"] for rule in first["items"] + second["items"]] == list("abcde")
    assert second["next_cursor"] is None and all(rule.keys() >= RULE for rule in first["items"])


@pytest.mark.parametrize(
    "changed",
    [
        {"issuer": "http://token.example.test"},
        {"issuer": "https://token.example.test/?x=1"},
        {"issuer": "ftp://token.example.test"},
        {"issuer": ""},
        {"audience": ""},
        {"claims": {}},
        {"claims": {"sub": "*"}},
        {"claims": {"sub": "a*b"}},
        {"claims": {"ref": "refs/*"}},
        {"claims": {"sub": ["a"]}},
        {"claims": {f"c{number}": "x" for number in range(33)}},
        {"pool": "a b"},
        {"scopes": ["nothing:known"]},
        {"scopes": []},
        {"max_ttl_seconds": 59},
        {"max_ttl_seconds": 3601},
        {"unknown": 1},
    ],
)
def test_what_is_off_the_rules_is_400(api: Api, changed: dict[str, Any]) -> None:
    problem(api.put("/api/trust-rules/ci", {**BODY, **changed}), 400, "invalid_argument")
    assert api.get("/api/trust-rules").json()["items"] == []


def test_nobody_sets_a_rule_wider_than_their_own(api: Api, key: Callable[..., str]) -> None:
    mine = key("keys:manage agents:register", pools=["linux"])
    assert api.put("/api/trust-rules/ci", BODY, token=mine).status_code == 201
    for scopes in (["queue:admin"], ["*"], ["agents:register", "queue:claim"]):
        wider = api.put("/api/trust-rules/ci", {**BODY, "scopes": scopes}, token=mine)
        problem(wider, 403, "scope_escalation")
    problem(api.put("/api/trust-rules/ci", {**BODY, "pool": "mac"}, token=mine), 403, "pool_not_allowed")


def test_rules_about_other_pools_are_not_there(api: Api, key: Callable[..., str]) -> None:
    api.put("/api/trust-rules/theirs", {**BODY, "pool": "mac"})
    mine = key("keys:manage agents:register", pools=["linux"])
    assert api.get("/api/trust-rules", token=mine).json()["items"] == []
    problem(api.delete("/api/trust-rules/theirs", token=mine), 404, "not_found")
    problem(api.put("/api/trust-rules/theirs", BODY, token=mine), 404, "not_found")
    assert len(api.get("/api/trust-rules").json()["items"]) == 1


def test_another_namespace_s_rule_is_not_there(api: Api, key: Callable[..., str]) -> None:
    api.put("/api/trust-rules/ci", BODY)
    foreign = key("*", namespace=f"{api.namespace}-2")
    assert api.get("/api/trust-rules", token=foreign).json()["items"] == []
    there, absent = (api.delete(f"/api/trust-rules/{name}", token=foreign) for name in ("ci", "none"))
    problem(there, 404, "not_found")
    assert {**there.json(), "instance": ""} == {**absent.json(), "instance": ""}
