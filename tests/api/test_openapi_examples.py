"""Every example of the OpenAPI document is sent as it stands there, and answered with success.

Only what no document can know is filled in: the id of a job that is there, the token of its lease, the session.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

import jsonschema_rs
import pytest

from tests.api import shared
from tests.api.client import Api, problem
from tests.api.promises import the_document

running, api, key = shared.running, shared.api, shared.key

Filled = tuple[dict[str, str], dict[str, Any]]
"""Parts of the path, and fields of the body, that a call needs from what is there."""

OPERATIONS: Final = {
    spec["operationId"]: (method.upper(), path, spec)
    for path, item in the_document()["paths"].items()
    for method, spec in item.items()
}


def job(api: Api, **more: Any) -> Filled:
    made = api.post("/api/queue/jobs", {"payload": 1, **more})
    return {"id": made.json()["id"]}, {}


def lease(api: Api, start: bool = True) -> Filled:
    job(api)
    claimed = api.post("/api/queue/claim", {"agent_id": "example", "start": start}).json()["job"]
    return {"id": claimed["id"]}, {"lease_token": claimed["lease_token"]}


def dead(api: Api) -> Filled:
    parts, held = lease(api)
    end = {**held, "outcome": "failed", "retryable": False}
    assert api.post(f"/api/queue/jobs/{parts['id']}/complete", end).status_code == 200
    return parts, {}


def agent(api: Api) -> Filled:
    made = api.agent("build-7", "linux")
    return {"agent_id": made.agent_id, "name": made.pool, "pool": made.pool}, {"session_id": made.session_id}


def a_key(api: Api) -> Filled:
    return {"id": api.post("/api/keys", {"name": "a", "scopes": ["queue:read"]}).json()["id"]}, {}


def a_registration_key(api: Api) -> Filled:
    return {"id": api.post("/api/agents/keys", {"pool": "linux"}).json()["id"]}, {}


def a_rule(api: Api) -> Filled:
    rule = {"issuer": "https://a.test", "audience": "a", "claims": {"sub": "a"}}
    assert api.put("/api/trust-rules/ci", rule).status_code == 201
    return {"id": "ci"}, {}


def a_rule_to_be(api: Api) -> Filled:
    return {"id": "ci"}, {}


def something_to_claim(api: Api) -> Filled:
    job(api)
    return {}, {}


def waiting(api: Api) -> Filled:
    return job(api)


def claimed(api: Api) -> Filled:
    return lease(api, start=False)


def agent_alone(api: Api) -> Filled:
    return agent(api)[0], {}


NEEDS: Final[dict[str, Callable[[Api], Filled]]] = {
    "cancel_job": waiting,
    "claim_jobs": something_to_claim,
    "complete_dashboard_job": lease,
    "complete_job": lease,
    "complete_job_post": lease,
    "configure_pool": agent_alone,
    "delete_trust_rule": a_rule,
    "deregister_agent": agent_alone,
    "explain_job": waiting,
    "get_agent": agent_alone,
    "get_agent_pool": agent_alone,
    "get_dashboard_job": waiting,
    "get_job": waiting,
    "get_pool": agent_alone,
    "heartbeat_agent": agent,
    "pause_pool": agent_alone,
    "put_trust_rule": a_rule_to_be,
    "read_log": waiting,
    "release_job": lease,
    "reprioritise_job": waiting,
    "resume_pool": agent_alone,
    "retry_job": dead,
    "revoke_key": a_key,
    "revoke_registration_key": a_registration_key,
    "scale_agent_pool": agent_alone,
    "start_job": claimed,
    "start_job_post": claimed,
    "steer_agent": agent_alone,
    "write_log": lease,
}
NOT_YET: Final = {
    "cancel_jobs", "cancel_pipeline", "create_pipeline", "create_schedule", "delete_schedule", "explain_job",
    "get_pipeline", "list_schedules", "reprioritise_jobs",
}  # fmt: skip
"""Known to the document and not in this version: the example is understood, and then refused."""
ELSEWHERE: Final = {
    "begin_login": ("not_found", 404),  # these two need a provider, which this server does not have: see test_oidc
    "create_session": ("not_found", 404),
    "exchange_token": ("invalid_request", 400),  # its example is a token of nobody: see test_token_exchange
}
STREAMS: Final = {"events"}


def schema_of(spec: dict[str, Any], status: int, kind: str) -> dict[str, Any]:
    return {**spec["responses"][str(status)]["content"][kind]["schema"], "components": the_document()["components"]}


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in STREAMS])
def test_an_example_is_answered_with_what_is_promised(api: Api, name: str) -> None:
    method, path, spec = OPERATIONS[name]
    parts, known = NEEDS[name](api) if name in NEEDS else ({}, {})
    for part in spec.get("parameters", ()):
        if part["in"] == "path":
            full_id = "~" in part["schema"]["pattern"]
            parts.setdefault(part["name"], part.get("example", "linux~a" if full_id else "a"))
    query = {
        one["name"]: one["example"] for one in spec.get("parameters", ()) if one["in"] == "query" and "example" in one
    }
    content = spec.get("requestBody", {}).get("content", {})
    body: Any = None
    form: dict[str, str] | None = None
    if "application/json" in content:
        body = copy.deepcopy(content["application/json"].get("example"))
        if body is None:
            assert not spec["requestBody"]["required"] or name in NOT_YET, f"{name} shows no example of its body"
        else:
            jsonschema_rs.validate(
                {**content["application/json"]["schema"], "components": the_document()["components"]}, body
            )
            assert known.keys() <= body.keys(), f"the example of {name} does not show all that is needed"
            body.update(known)
    elif content:
        form = content["application/x-www-form-urlencoded"]["example"]

    if form is not None:
        assert api._client is not None
        answer = api._client.request(method, path.format(**parts), data=form)
    else:
        answer = api.request(method, path.format(**parts), body, params=query or None)

    if name in NOT_YET:
        problem(answer, 422, "not_supported_yet")
    elif name in ELSEWHERE:
        code, status = ELSEWHERE[name]
        said = answer.json()
        assert (said.get("code", said.get("error")), answer.status_code) == (code, status)
    else:
        assert 200 <= answer.status_code < 300, answer.text
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if kind == "application/json":
            jsonschema_rs.validate(schema_of(spec, answer.status_code, kind), answer.json(), validate_formats=True)


def test_every_example_of_a_problem_obeys_its_schema() -> None:
    looked_at = 0
    for _, _, spec in OPERATIONS.values():
        for status, answer in spec["responses"].items():
            for kind, content in answer.get("content", {}).items():
                for code, example in content.get("examples", {}).items():
                    jsonschema_rs.validate(schema_of(spec, int(status), kind), example["value"])
                    assert (example["value"]["code"], example["value"]["status"]) == (code, int(status))
                    looked_at += 1
    assert looked_at > 500
