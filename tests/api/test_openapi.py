"""The OpenAPI document: valid, complete, and true."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

import jsonschema_rs
import msgspec
import pytest
import schemathesis

from api.http.answer import Answer
from api.http.names import FullId, Name
from api.http.problems import PROBLEMS
from api.http.reading import EitherCase, JsonReader, Lines
from api.http.route import EVENT_STREAM, Table
from api.http.scopes import PUBLIC
from api.openapi import codes_of, document

TABLE = Table()


class Level(EitherCase):
    HIGH = "HIGH"
    LOW = "LOW"


class Retry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    base_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 5.0


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    payload: msgspec.Raw
    name: Name | None = None
    job: FullId | None = None
    count: int = 1
    level: Level | None = None
    tags: dict[str, str] = {}
    marks: dict[Annotated[str, msgspec.Meta(min_length=1)], str] = {}
    retry: Retry = Retry()
    title: str = ""
    pair: Annotated[str, msgspec.Meta(pattern="^[^=]{1,64}=.{0,256}$")] | None = None
    note: Lines | None = None


class Job(msgspec.Struct, frozen=True):
    id: str
    level: Level
    at: dt.datetime | None
    payload: msgspec.Raw


class Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=200, description="How many.")] = 50
    tag: list[str] = []
    level: Level | None = None
    pool: Name | None = None


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    grant_type: str


async def handler(request: Any) -> Answer:
    return Answer()


EXAMPLE = {"payload": {"steps": []}, "count": 2, "note": "a\nb"}
TABLE.route(
    "POST", "/jobs", scope="queue:enqueue", body=Order, answers={200: Job, 201: Job}, guard="refuse", idempotent=True,
    problems=["job_conflict", "unique_taken", "queue_full"], summary="Enqueue a job", tags=["queue"], rate="enqueue",
    examples={"body": EXAMPLE}, operation_id="enqueue", links={"get": {"operationId": "get_job"}},
)(handler)  # fmt: skip
TABLE.route(
    "GET", "/jobs", scope="queue:read", query=Query, answers={200: list[Job]}, operation_id="list_jobs",
    examples={"query": {"limit": 5}},
)(handler)  # fmt: skip
TABLE.route(
    "GET", "/jobs/{job:full_id}", scope="queue:read", answers={200: Job, 304: None}, etag=True, operation_id="get_job",
    problems=["job_not_found"], examples={"path": {"job": "a~b"}},
)(handler)  # fmt: skip
TABLE.route(
    ("PATCH", "POST"), "/jobs/{job:full_id}/start", scope="queue:claim", agents=True, answers={200: Job}, if_match=True,
    operation_id="start",
)(handler)  # fmt: skip
TABLE.route("GET", "/events", scope="queue:read", answers={200: EVENT_STREAM}, operation_id="events")(handler)
TABLE.route("GET", "/health", scope=PUBLIC, rate=None, answers={200: None}, operation_id="health")(handler)
TABLE.route("GET", "/metrics", scope="metrics:read", answers={200: "text/plain, text/csv"}, operation_id="metrics")(
    handler
)
TABLE.route("GET", "/hidden", scope=PUBLIC, documented=False, operation_id="hidden")(handler)
TABLE.route(
    "POST", "/auth/token", scope=PUBLIC, form=True, body=Form, rate="auth", operation_id="token",
    problems=["invalid_grant"],
)(handler)  # fmt: skip
TABLE.route("POST", "/auth/logout", scope=PUBLIC, optional_session=True, answers={204: None}, operation_id="logout")(
    handler
)

DOCUMENT = msgspec.json.decode(msgspec.json.encode(document(TABLE, version="1.2.3")))
OPERATIONS = {operation["operationId"]: operation for item in DOCUMENT["paths"].values() for operation in item.values()}


def test_the_document_is_valid() -> None:
    """By the schema of OpenAPI 3.1 itself."""
    schemathesis.openapi.from_dict(DOCUMENT).validate()


def test_every_reference_leads_somewhere() -> None:
    """And no schema stands there for nothing."""

    def references(node: Any) -> set[str]:
        if isinstance(node, list):
            return {found for each in node for found in references(each)}
        if not isinstance(node, dict):
            return set()
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own | {found for each in node.values() for found in references(each)}

    found = references(DOCUMENT)
    schemas = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    headers = {f"#/components/headers/{name}" for name in DOCUMENT["components"]["headers"]}
    assert found <= schemas | headers
    assert schemas <= found


def test_every_documented_route_is_there_once() -> None:
    """Under its template, with its own id, summary and scope."""
    assert set(OPERATIONS) == {route.operation_id for route in TABLE if route.documented}
    assert "/jobs/{job}/start" in DOCUMENT["paths"]
    assert set(DOCUMENT["paths"]["/jobs/{job}/start"]) == {"patch", "post"}
    assert OPERATIONS["enqueue"]["x-scope"] == ["queue:enqueue"]
    assert OPERATIONS["start"]["x-agents"] is True
    assert OPERATIONS["health"]["security"] == []
    assert OPERATIONS["logout"]["security"] == [{}, {"session": []}]
    assert OPERATIONS["enqueue"]["security"] == [{"bearer": []}, {"session": []}]
    assert all(operation["summary"] for operation in OPERATIONS.values())


@pytest.mark.parametrize("route", [route for route in TABLE if route.documented], ids=repr)
def test_every_problem_code_stands_under_its_status(route: Any) -> None:
    """With an example that the schema accepts."""
    if route.form:
        return
    responses = OPERATIONS[route.operation_id]["responses"]
    schemas = DOCUMENT["components"]["schemas"]
    for code in codes_of(route):
        content = responses[str(PROBLEMS[code].status)]["content"]["application/problem+json"]
        example = content["examples"][code]["value"]
        schema = {**content["schema"], "components": {"schemas": schemas}}
        assert example["code"] == code
        jsonschema_rs.validate(schema, example)
    assert {int(status) for status in responses if int(status) >= 500} <= {503, 507}


def test_codes_follow_from_what_a_route_is() -> None:
    """Nobody has to name what every route can answer."""
    codes = {route.operation_id: set(codes_of(route)) for route in TABLE}

    assert codes["enqueue"] >= {"unauthenticated", "missing_scope", "csrf", "rate_limited", "payload_too_large",
                                "unsupported_media_type", "secret_suspected", "job_conflict", "queue_full"}  # fmt: skip
    assert "precondition_failed" in codes["start"]
    assert not codes["health"] & {"unauthenticated", "missing_scope", "csrf", "rate_limited", "too_deep"}
    assert "csrf" not in codes["get_job"] and "csrf" in codes["logout"]


def test_parameters_are_those_of_the_struct() -> None:
    """With bounds, without null, lists by repetition."""
    found = {parameter["name"]: parameter for parameter in OPERATIONS["list_jobs"]["parameters"]}

    assert found["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}
    assert found["limit"]["description"] == "How many."
    assert found["limit"]["example"] == 5
    assert found["tag"]["schema"]["type"] == "array"
    assert found["level"]["schema"]["enum"] == ["HIGH", "LOW"]
    assert found["pool"]["schema"]["pattern"].startswith("^[A-Za-z0-9]")
    assert not any(parameter["required"] for parameter in found.values())
    (path,) = OPERATIONS["get_job"]["parameters"][:1]
    assert (path["in"], path["required"], path["example"]) == ("path", True, "a~b")
    headers = {each["name"] for operation in OPERATIONS.values() for each in operation.get("parameters", ())
               if each["in"] == "header"}  # fmt: skip
    assert headers == {"Idempotency-Key", "If-Match", "If-None-Match"}


def test_what_is_not_json_is_said() -> None:
    """Streams, text, the form with its own errors."""
    assert "text/event-stream" in OPERATIONS["events"]["responses"]["200"]["content"]
    assert {"text/plain", "text/csv"} == set(OPERATIONS["metrics"]["responses"]["200"]["content"])
    assert "content" not in OPERATIONS["get_job"]["responses"]["304"]
    token = OPERATIONS["token"]
    assert list(token["requestBody"]["content"]) == ["application/x-www-form-urlencoded"]
    errors = token["responses"]["400"]["content"]["application/json"]["schema"]["properties"]["error"]["enum"]
    assert {"invalid_grant", "invalid_request"} <= set(errors)


def test_an_instant_is_said_to_be_one() -> None:
    """Also in answers, and where it may be null."""
    at = DOCUMENT["components"]["schemas"]["Job"]["properties"]["at"]
    assert {"type": "string", "format": "date-time"} in at["anyOf"]


VALUES: list[tuple[dict[str, Any], bool]] = [
    ({"payload": None}, True),
    ({"payload": {"any": ["\u0000", 2**80]}}, True),
    ({"payload": 1, "name": "a", "job": "a~b", "level": "HIGH", "retry": {}, "tags": {"a": "b"}}, True),
    ({"payload": 1, "note": "a\n\tb"}, True),
    ({}, False),
    ({"payload": 1, "unknown": 1}, False),
    ({"payload": 1, "retry": {"unknown": 1}}, False),
    ({"payload": 1, "name": "a b"}, False),
    ({"payload": 1, "name": "a" * 65}, False),
    ({"payload": 1, "count": True}, False),
    ({"payload": 1, "count": 2**53}, False),
    ({"payload": 1, "count": -(2**53)}, False),
    ({"payload": 1, "level": "MIDDLE"}, False),
    ({"payload": 1, "retry": {"base_seconds": 3601}}, False),
    ({"payload": 1, "title": "a\nb"}, False),
    ({"payload": 1, "title": "a\u0085b"}, False),
    ({"payload": 1, "note": "a\u0007"}, False),
    ({"payload": 1, "tags": {"a": "\u0000"}}, False),
    ({"payload": 1, "pair": "a=b"}, True),
    ({"payload": 1, "pair": "a\u0001=b"}, False),
    ({"payload": 1, "pair": "a=\u0080"}, False),
    ({"payload": 1, "count": 2.0}, True),
    ({"payload": 1, "tags": {"a\u0000": ""}}, False),
    ({"payload": 1, "tags": {"a": 1}}, False),
    ({"payload": 1, "marks": {"a": "b"}}, True),
    ({"payload": 1, "marks": {"": "b"}}, False),
    ({"payload": 1, "marks": {"a\u0000": "b"}}, False),
]


@pytest.mark.parametrize(("value", "accepted"), VALUES, ids=ascii)
def test_the_schema_accepts_what_the_server_accepts(value: dict[str, Any], accepted: bool) -> None:
    """Both are asked about the same value."""
    schema = {"$ref": "#/components/schemas/Order", "components": DOCUMENT["components"]}
    try:
        JsonReader(Order).read(msgspec.json.encode(value))
        read = True
    except Exception:
        read = False

    assert jsonschema_rs.is_valid(schema, value) is accepted
    assert read is accepted
