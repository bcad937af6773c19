"""A reply of Redis is lost after the script ran: the answer over HTTP is the first one, and nothing is done twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hybridq.scripts import load
from tests.api.client import Api
from tests.proxy import Proxy


@pytest.fixture
def network(redis_url: str) -> Iterator[Proxy]:
    with Proxy(redis_url) as network:
        yield network


@pytest.fixture
def api(network: Proxy, namespace: str) -> Iterator[Api]:
    """An API behind the proxy, whose pool is known and which has run each verb once."""
    with Api(network.url, namespace) as api:
        api.post("/api/queue/jobs", {"payload": 1, "job_id": "warm"})
        _run(api, "warm")
        yield api


def _run(api: Api, job_id: str) -> None:
    job = _claimed(api)
    assert job["job_id"] == job_id
    token = {"lease_token": job["lease_token"]}
    assert api.post(f"/api/queue/jobs/{job['id']}/start", token).status_code == 200
    assert api.post(f"/api/queue/jobs/{job['id']}/complete", {**token, "outcome": "success"}).status_code == 200


def _claimed(api: Api) -> dict[str, str]:
    job: dict[str, str] = api.post("/api/queue/claim", {"agent_id": "a1"}).json()["job"]
    return job


def _lose(network: Proxy, verb: str) -> None:
    network.drop_next_reply(load(verb).sha.encode())


def test_a_job_whose_taking_in_had_no_answer_is_created_once(api: Api, network: Proxy) -> None:
    _lose(network, "enqueue")

    answer = api.post("/api/queue/jobs", {"payload": {"n": 1}})

    assert answer.status_code == 201, answer.text
    assert [job["id"] for job in api.get("/api/queue/jobs?status=QUEUED").json()["items"]] == [answer.json()["id"]]


def test_a_start_and_an_end_without_an_answer_are_shown_as_they_came_out(api: Api, network: Proxy) -> None:
    """The job is read in the same round trip, before the verb that has to be sent once more: it is read again."""
    api.post("/api/queue/jobs", {"payload": 1})
    job = _claimed(api)
    token = {"lease_token": job["lease_token"]}
    _lose(network, "start")
    started = api.post(f"/api/queue/jobs/{job['id']}/start", token)
    assert (started.status_code, started.json()["status"], started.json()["attempt"]) == (200, "RUNNING", 1)

    _lose(network, "complete")
    ended = api.post(f"/api/queue/jobs/{job['id']}/complete", {**token, "outcome": "success", "exit_code": 0})

    assert ended.status_code == 200, ended.text
    assert (ended.json()["job"]["status"], len(ended.json()["job"]["attempts"])) == ("COMPLETED", 1)
