"""The table of routes: what it refuses at import and at start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import litestar
import msgspec
import pytest

from api.http.answer import Answer
from api.http.app import build
from api.http.route import RouteError, Table
from api.http.scopes import ANY_CREDENTIAL, PUBLIC, ROLES, SCOPES
from tests.api.framework import Credentials


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str


class Loose(msgspec.Struct, frozen=True):
    name: str


class Outer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    inner: list[Loose]


async def handler(request: Any) -> Answer:
    return Answer()


def build_with(table: Table, **more: Any) -> litestar.Litestar:
    return build(table, plane=None, settings=SimpleNamespace(), authenticate=Credentials(), **more)


@pytest.mark.parametrize(
    ("known", "complaint"),
    [
        ({}, "names no scope"),
        ({"scope": ()}, "names no scope"),
        ({"scope": "queue:everything"}, "is not a scope"),
        ({"scope": (PUBLIC, "queue:read")}, "is not a scope"),
        ({"scope": PUBLIC, "problems": ["no_such_code"]}, "not a code"),
        ({"scope": PUBLIC, "body": Loose}, "takes unknown fields"),
        ({"scope": PUBLIC, "body": Outer}, "Loose takes unknown fields"),
        ({"scope": PUBLIC, "query": Loose}, "takes unknown fields"),
        ({"scope": PUBLIC, "body": Strict, "examples": {"body": {"nom": "a"}}}, "an example is off the rules"),
        ({"scope": PUBLIC, "query": Strict, "examples": {"query": {}}}, "an example is off the rules"),
        ({"scope": PUBLIC, "answers": {200: Loose}, "examples": {200: {"nom": 1}}}, "an example is off the rules"),
    ],
    ids=str,
)
def test_a_route_that_is_wrong_fails_at_import(known: dict[str, Any], complaint: str) -> None:
    """A route without a scope does not exist."""
    with pytest.raises(RouteError, match=complaint):
        Table().route("POST", "/things", **known)(handler)


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("/things/{thing}", "not a path"),
        ("things", "not a path"),
        ("/things/", "not a path"),
        ("/things/{thing:colour}", "names no converter"),
    ],
)
def test_a_path_that_the_router_cannot_hold_fails_at_import(path: str, complaint: str) -> None:
    """Every variable part says how it is checked."""
    with pytest.raises(RouteError, match=complaint):
        Table().route("GET", path, scope=PUBLIC)(handler)


def test_two_routes_cannot_have_one_place() -> None:
    """Nor one operation id, nor two names for one part."""
    table = Table()
    table.route("GET", "/things/{thing:name}", scope=PUBLIC)(handler)

    with pytest.raises(RouteError, match="the same call"):
        table.route("GET", "/things/{other:name}", scope=PUBLIC, operation_id="other")(handler)
    with pytest.raises(RouteError, match="differently"):
        table.route("DELETE", "/things/{other:name}", scope=PUBLIC, operation_id="other")(handler)
    with pytest.raises(RouteError, match="operation id"):
        table.route("GET", "/others", scope=PUBLIC)(handler)


def test_a_handler_beside_the_table_fails_at_start() -> None:
    """Whatever Litestar would serve has a scope."""

    @litestar.get("/hidden")
    async def hidden() -> str:
        return "nobody asked who you are"

    with pytest.raises(RouteError, match="/hidden: is served and not in the table"):
        build_with(Table(), handlers=[hidden])


def test_a_handler_of_several_methods_stands_once_for_each() -> None:
    """As start, which is PATCH or POST."""
    table = Table()
    table.route(("PATCH", "POST"), "/things/{thing:name}/start", scope=ANY_CREDENTIAL, operation_id="start")(handler)

    assert [(route.method, route.operation_id) for route in table] == [("PATCH", "start"), ("POST", "start_post")]
    assert {route.template for route in table} == {"/things/{thing}/start"}


def test_roles_grow_from_viewer_to_admin() -> None:
    """A role is a fixed set of known scopes."""
    assert ROLES["viewer"] < ROLES["operator"] < ROLES["admin"] == set(SCOPES)
    assert not any(scope.endswith((":admin", ":manage", ":enqueue", ":create")) for scope in ROLES["viewer"])
