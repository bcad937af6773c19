"""Jobs of the dashboard are jobs of the queue, with what they were made of beside them; and the summary of all."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api import shared
from tests.api.client import Api, problem
from tests.api.test_queue_jobs import JOB_KEYS, claim, dead_letter, end, enqueue

api, key, running = shared.api, shared.key, shared.running

SHA = "4bf92f3577b34da6a3ce929d0e0e47361a2b3c4d"
BODY: dict[str, Any] = {
    "job_type": "build",
    "git_repo": "https://git.example.com/shop.git",
    "git_ref": "main",
    "git_commit_sha": SHA,
    "git_commit_message": "Mend the basket\n\nIt was empty.",
    "git_author": "Ada",
    "priority": "high",
    "steps": [{"name": "test", "run": "make test\nmake lint", "if": "always", "env": {"CI": "1"}}],
    "tags": {"team": "shop"},
}
GIT_KEYS = {"job_type", "git_repo", "git_ref", "git_commit_sha", "git_commit_message", "git_author"}
SUMMARY_KEYS = {
    "total_jobs",
    "jobs_queued",
    "jobs_running",
    "jobs_completed",
    "jobs_failed",
    "total_deployments",
    "deployments_active",
    "deployments_live",
    "deployments_staging",
    "deployments_failed",
    "agents_healthy",
    "agents_total",
}


def test_a_dashboard_job_is_one_and_the_same_as_in_the_queue(api: Api) -> None:
    answer = api.post("/api/dashboard/jobs", BODY)

    job = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"/api/queue/jobs/{job['id']}")
    assert job.keys() >= JOB_KEYS | GIT_KEYS | {"attempts"}
    assert {name: job[name] for name in GIT_KEYS} == {name: BODY[name] for name in GIT_KEYS}
    assert (job["type"], job["status"], job["priority"], job["tags"]) == ("build", "QUEUED", "HIGH", {"team": "shop"})
    git = {"repo": BODY["git_repo"], "ref": "main", "commit_sha": SHA}
    git |= {"commit_message": BODY["git_commit_message"], "author": "Ada"}
    assert job["payload"] == {"steps": BODY["steps"], "git": git}

    in_the_queue = api.get(f"/api/queue/jobs/{job['id']}").json()
    assert {name: job[name] for name in JOB_KEYS} == {name: in_the_queue[name] for name in JOB_KEYS}
    assert api.get(f"/api/dashboard/jobs/{job['id']}").json() == job
    assert api.get("/api/dashboard/jobs").json()["items"] == [{k: v for k, v in job.items() if k != "attempts"}]


def test_the_environment_of_a_step_holds_texts_and_references(api: Api) -> None:
    """As the contract has it: whatever else would stand there, the agent could not read."""
    env = {"KEY": "one\ntwo\t", "EMPTY": "", "TOKEN": {"secret_ref": "vault://kv/ci/registry#token"}}
    step = {"name": "a", "run": "b", "env": env}
    answer = api.post("/api/dashboard/jobs", {**BODY, "steps": [step]})
    assert (answer.status_code, answer.json()["payload"]["steps"]) == (201, [step])

    for wrong in (
        1,
        None,
        True,
        ["a"],
        {},
        {"secret_ref": ""},
        {"secret_ref": "a\nb"},
        {"secret_ref": "a", "b": 1},
        "\0",
    ):
        found = problem(
            api.post("/api/dashboard/jobs", {**BODY, "steps": [{**step, "env": {"A": wrong}}]}), 400, "invalid_argument"
        )
        assert found["errors"][0]["pointer"].startswith("/steps/0/env"), (wrong, found)


def test_what_is_not_said_of_a_commit_is_null(api: Api) -> None:
    body = {"job_type": "deploy", "git_repo": "r", "git_ref": "main", "git_commit_sha": "abcdef1"}
    job = api.post("/api/dashboard/jobs", body).json()

    assert (job["git_commit_message"], job["git_author"]) == (None, None)
    assert job["payload"] == {"git": {"repo": "r", "ref": "main", "commit_sha": "abcdef1"}}


def test_a_job_of_another_form_is_shown_without_a_commit(api: Api) -> None:
    for payload in (None, 1, [1], {"git": "main"}, {"git": {"repo": "r"}}):
        job = api.get(f"/api/dashboard/jobs/{enqueue(api, payload=payload)['id']}").json()
        assert job["git_ref"] is None
        assert job["git_repo"] == ("r" if payload == {"git": {"repo": "r"}} else None)


def test_it_runs_and_ends_as_in_the_queue(api: Api) -> None:
    made = api.post("/api/dashboard/jobs", BODY).json()
    assert api.get("/api/dashboard/jobs/running").json() == {"items": [], "next_cursor": None}
    job = claim(api, start=True)
    assert [each["id"] for each in api.get("/api/dashboard/jobs/running").json()["items"]] == [made["id"]]

    path = f"/api/dashboard/jobs/{made['id']}/complete"
    body = {"lease_token": job["lease_token"], "outcome": "success", "exit_code": 0}
    ended = api.patch(path, body)
    assert (ended.status_code, ended.json()["job"]["status"]) == (200, "COMPLETED")
    assert api.patch(path, body).json()["replayed"] is True
    problem(api.patch(path, {**body, "outcome": "failed"}), 409, "outcome_conflict")
    etag = api.get(f"/api/dashboard/jobs/{made['id']}").headers["etag"]
    again = api.get(f"/api/dashboard/jobs/{made['id']}", headers={"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")


def test_the_same_key_makes_the_same_job(api: Api) -> None:
    headers = {"Idempotency-Key": "push 17"}
    first = api.post("/api/dashboard/jobs", BODY, headers=headers)
    again = api.post("/api/dashboard/jobs", BODY, headers=headers)

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"
    problem(api.post("/api/dashboard/jobs", {**BODY, "git_ref": "x"}, headers=headers), 409, "idempotency_conflict")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"job_type": "other"}, 400, "invalid_argument"),
        ({"git_commit_sha": "main"}, 400, "invalid_argument"),
        ({"git_repo": ""}, 400, "invalid_argument"),
        ({"steps": [{"name": "a"}]}, 400, "invalid_argument"),
        ({"steps": [{"name": "a", "run": "b", "nothing": 1}]}, 400, "invalid_argument"),
        ({"pool": "healthy"}, 400, "reserved_name"),
        ({"labels": ["gpu"]}, 422, "not_supported_yet"),
    ],
)
def test_what_is_off_its_rule_makes_nothing(api: Api, change: dict[str, Any], status: int, code: str) -> None:
    problem(api.post("/api/dashboard/jobs", {**BODY, **change}), status, code)

    assert api.get("/api/dashboard/summary").json()["total_jobs"] == 0


def test_the_summary_counts_what_there_is(api: Api) -> None:
    empty = api.get("/api/dashboard/summary").json()
    assert empty == dict.fromkeys(SUMMARY_KEYS, 0)
    enqueue(api, pool="one")
    end(api, claim(api, pool="one", start=True), "success")
    enqueue(api, pool="one")
    end(api, claim(api, pool="one", start=True), "rejected")
    dead_letter(api, pool="one")
    enqueue(api, pool="one")
    claim(api, pool="one", start=True)
    enqueue(api, pool="one")
    enqueue(api, pool="two")
    for agent_id, pool in (("a", "one"), ("b", "two")):
        api.agent(agent_id, pool)

    assert api.get("/api/dashboard/summary").json() == empty | {
        "total_jobs": 6,
        "jobs_queued": 2,
        "jobs_running": 1,
        "jobs_completed": 1,
        "jobs_failed": 2,
        "agents_healthy": 2,
        "agents_total": 2,
    }
    some = api.key("queue:read", pools=["two"])
    assert api.get("/api/dashboard/summary", token=some).json() == empty | {
        "total_jobs": 1,
        "jobs_queued": 1,
        "agents_healthy": 1,
        "agents_total": 1,
    }
