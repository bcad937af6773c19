"""Claims and leases over HTTP: who gets what, by which token, and how it ends."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tests.api.client import Agent, Api, instant, problem, took, wait_until
from tests.api.test_queue_jobs import JOB_KEYS, claim, end, enqueue

NO_TOKEN = f"1.{'0' * 32}"


def lease_of(job: dict[str, Any]) -> dict[str, str]:
    return {"lease_token": job["lease_token"]}


def start(api: Api, job: dict[str, Any], **options: Any) -> Any:
    return api.patch(f"/api/queue/jobs/{job['id']}/start", lease_of(job), **options)


def queued(api: Api, pool: str = "default") -> int:
    return int(api.get("/api/queue/stats", params={"pool": pool}).json()["queued"])


# -- claim ---------------------------------------------------------------------------------------------------------


def test_a_claim_brings_the_job_and_what_proves_its_lease(api: Api) -> None:
    made = enqueue(api, tags={"a": "b"}, unique={"key": "k"})
    answer = api.post("/api/queue/claim", {"agent_id": "one"})

    job = answer.json()["job"]
    assert (answer.status_code, answer.json()["jobs"]) == (200, [job])
    assert job.keys() >= JOB_KEYS | {"lease_token", "fence", "lease_expires_in_seconds"}
    assert "attempts" not in job
    assert (job["id"], job["status"], job["agent_id"], job["attempt"]) == (made["id"], "CLAIMED", "one", 0)
    assert (job["unique_key"], job["tags"], job["lease_expires_in_seconds"]) == ("k", {"a": "b"}, 30.0)
    fence, lease_id = job["lease_token"].split(".")
    assert (int(fence), len(lease_id)) == (job["fence"], 32)
    assert (instant(job["claimed_lease_expires_at"]) - instant(job["claimed_at"])).total_seconds() == 30


def test_nothing_to_claim_is_not_found_and_not_to_be_kept(api: Api) -> None:
    answer = api.post("/api/queue/claim", {"agent_id": "one"})

    problem(answer, 404, "no_jobs_available")
    assert answer.headers["cache-control"] == "no-store"
    assert int(answer.headers["retry-after"]) >= 1


def test_start_true_claims_straight_into_running(api: Api) -> None:
    enqueue(api)
    job = claim(api, start=True, lease_seconds=7)

    assert (job["status"], job["attempt"], job["lease_expires_in_seconds"]) == ("RUNNING", 1, 7.0)
    assert end(api, job, "success")["job"]["status"] == "COMPLETED"


def test_a_claim_takes_as_many_as_it_asks_for_the_most_urgent_first(api: Api) -> None:
    names = [enqueue(api, priority=priority)["id"] for priority in ("LOW", "HIGH", "NORMAL", "HIGH")]

    jobs = api.post("/api/queue/claim", {"agent_id": "one", "max": 3}).json()["jobs"]
    assert [job["id"] for job in jobs] == [names[1], names[3], names[2]]


@pytest.mark.parametrize("by", ["body", "header"])
def test_the_same_request_gets_the_same_leases_while_they_live(api: Api, by: str) -> None:
    body: dict[str, Any] = {"agent_id": "one", "max": 2}
    headers = {"Idempotency-Key": "k"} if by == "header" else {}
    body |= {"request_id": "r"} if by == "body" else {}
    for _ in range(3):
        enqueue(api)

    first = api.post("/api/queue/claim", body, headers=headers)
    again = api.post("/api/queue/claim", body, headers=headers)
    tokens = [job["lease_token"] for job in first.json()["jobs"]]
    assert [job["lease_token"] for job in again.json()["jobs"]] == tokens
    assert "idempotency-replayed" not in first.headers
    assert again.headers.get("idempotency-replayed") == ("true" if by == "header" else None)
    other = api.post("/api/queue/claim", {**body, "agent_id": "two"}, headers=headers)
    assert len(other.json()["jobs"]) == 1


def test_what_is_not_listed_as_held_goes_back(api: Api) -> None:
    """Once it is 3 s old: until then the answer to its claim may still be on its way."""
    enqueue(api)
    enqueue(api)
    kept, lost = claim(api), claim(api, agent_id="two")
    again: list[dict[str, Any]] = []

    def returned() -> bool:
        answer = api.post("/api/queue/claim", {"agent_id": "two", "holding": []})
        again.extend(answer.json().get("jobs", ()))
        return bool(again)

    wait_until(returned, 30, what="the lease that was not listed came back")
    assert [job["id"] for job in again] == [lost["id"]]
    assert again[0]["fence"] > lost["fence"]
    assert problem(start(api, lost), 409, "stale_lease")["job_status"] == "CLAIMED"
    listed = api.post("/api/queue/claim", {"agent_id": "one", "holding": [kept["lease_token"]]})
    problem(listed, 404, "no_jobs_available")
    assert start(api, kept).status_code == 200


def test_a_waiting_claim_gets_a_job_when_it_comes(api: Api) -> None:
    answers: list[Any] = []
    body = {"agent_id": "one", "wait_seconds": 30}
    waiting = threading.Thread(target=lambda: answers.append(api.post("/api/queue/claim", body)))
    waiting.start()
    began = time.monotonic()
    made = enqueue(api)
    waiting.join(20)

    assert time.monotonic() - began < 20
    assert answers[0].json()["job"]["id"] == made["id"]


def test_a_claim_waits_no_longer_than_it_says(api: Api) -> None:
    began = time.monotonic()
    problem(api.post("/api/queue/claim", {"agent_id": "one", "wait_seconds": 0.3}), 404, "no_jobs_available")

    assert 0.3 <= time.monotonic() - began < 10


def test_a_scheduled_job_wakes_a_waiting_claim_when_it_is_due(api: Api) -> None:
    made = enqueue(api, delay_seconds=0.5)

    assert claim(api, wait_seconds=20)["id"] == made["id"]


CLAIMS_OFF_THE_RULE = [
    ({}, "/agent_id"),
    ({"agent_id": "a b"}, "/agent_id"),
    ({"agent_id": "a", "wait_seconds": 51}, "/wait_seconds"),
    ({"agent_id": "a", "max": 0}, "/max"),
    ({"agent_id": "a", "max": 101}, "/max"),
    ({"agent_id": "a", "lease_seconds": 0.5}, "/lease_seconds"),
    ({"agent_id": "a", "lease_seconds": 3601}, "/lease_seconds"),
    ({"agent_id": "a", "holding": ["1.x"]}, "/holding/0"),
    ({"agent_id": "a", "pools": []}, "/pools"),
    ({"agent_id": "a", "pool": "p", "pools": ["p"]}, "/pools"),
]


def test_claims_off_the_rule_are_refused(api: Api) -> None:
    for body, pointer in CLAIMS_OFF_THE_RULE:
        found = problem(api.post("/api/queue/claim", body), 400, "invalid_argument")
        assert [error["pointer"] for error in found["errors"]] == [pointer], body
    problem(api.post("/api/queue/claim", {"agent_id": "a", "pools": ["p", "q"]}), 422, "not_supported_yet")
    problem(api.post("/api/queue/claim", {"agent_id": "a", "pool": "keys"}), 400, "reserved_name")


# -- who may -----------------------------------------------------------------------------------------------------------


def test_names_are_per_key_and_a_lease_is_its_keys_alone(api: Api) -> None:
    one, other = (api.key("queue:claim") for _ in range(2))
    enqueue(api)
    job = api.post("/api/queue/claim", {"agent_id": "a"}, token=one).json()["job"]

    assert job["agent_id"] == "a"
    problem(start(api, job, token=other), 403, "not_lease_holder")
    for verb, body in (("complete", {"outcome": "success"}), ("release", {})):
        path = f"/api/queue/jobs/{job['id']}/{verb}"
        problem(api.post(path, {**lease_of(job), **body}, token=other), 403, "not_lease_holder")
    beat = api.post("/api/queue/heartbeat", {"leases": [{"id": job["id"], **lease_of(job)}]}, token=other).json()
    assert beat["lost"] == [{"id": job["id"], "reason": "not_lease_holder"}]
    assert start(api, job, token=one).status_code == 200


def test_an_agent_claims_for_itself_within_its_capacity_and_pool(api: Api) -> None:
    agent = api.agent("builder", "builds", capacity=2)
    for _ in range(3):
        enqueue(api, pool="builds")

    problem(agent.claim(agent_id="other"), 403, "agent_not_allowed")
    problem(agent.claim(session_id="0" * 32), 410, "session_superseded")
    problem(agent.claim(pool="other"), 403, "pool_not_allowed")
    claimed = agent.claim(max=9, session_id=agent.session_id).json()["jobs"]
    assert [job["pool"] for job in claimed] == ["builds", "builds"]
    assert {job["agent_id"] for job in claimed} == {"builder"}
    problem(agent.claim(), 404, "no_jobs_available")
    problem(api.post("/api/queue/claim", {"agent_id": "builder", "pool": "builds"}), 403, "agent_not_allowed")
    assert start(api, claimed[0], token=agent.token).status_code == 200
    problem(start(api, claimed[1]), 403, "not_lease_holder")


def test_a_draining_agent_gets_nothing_and_is_told_so(api: Api) -> None:
    agent = api.agent("builder")
    enqueue(api)
    steered = api.patch("/api/agents/builder/status", {"status": "DRAINING"})
    assert steered.status_code == 200, steered.text

    assert problem(agent.claim(), 404, "agent_draining")["drain"] is True
    assert problem(agent.claim(wait_seconds=5), 404, "agent_draining")["drain"] is True


@pytest.mark.parametrize("by", ["status", "deregister", "register"])
def test_a_claim_that_waits_is_answered_when_its_agent_is_steered(api: Api, by: str) -> None:
    """And nobody else's: the others wait on."""
    agent, other = api.agent("builder", boot_id="one"), api.agent("other")
    answers: dict[str, Any] = {}

    def wait(who: Agent) -> None:
        answers[who.agent_id] = who.claim(wait_seconds=30)

    threads = [threading.Thread(target=wait, args=(who,), daemon=True) for who in (agent, other)]
    for thread in threads:
        thread.start()
    wait_until(lambda: parked(api, api.admin) == 2, 10, what="both claims are parked")
    if by == "status":
        assert api.patch("/api/agents/builder/status", {"status": "DRAINING"}).status_code == 200
    elif by == "deregister":
        assert api.post("/api/agents/builder/deregister", {}).status_code == 200
    else:
        api.agent("builder", boot_id="two")

    with took(2):
        threads[0].join(5)
    status, code = (404, "agent_draining") if by == "status" else (410, "session_superseded")
    assert problem(answers["builder"], status, code).get("drain") is (True if by == "status" else None)
    assert parked(api, api.admin) == 1
    made = enqueue(api)
    threads[1].join(10)
    assert answers["other"].json()["job"]["id"] == made["id"]


def test_a_new_session_ends_what_the_old_one_waits_for(api: Api) -> None:
    old = api.agent("builder", boot_id="one")
    enqueue(api)
    job = old.claim(start=True).json()["job"]
    new = api.agent("builder", boot_id="two")

    answer = old.claim()
    assert answer.status_code in (401, 410), answer.text
    assert new.claim().json()["job"]["id"] == job["id"]


def test_a_claim_is_a_sign_of_life(api: Api) -> None:
    agent = api.agent("builder")
    before = api.get("/api/agents/builder").json()["last_heartbeat"]

    def noted() -> bool:
        """Signs are noted once a second at most, so one right after the registration is not."""
        agent.claim()
        return bool(api.get("/api/agents/builder").json()["last_heartbeat"] > before)

    wait_until(noted, 20)


# -- while it runs -----------------------------------------------------------------------------------------------------


def test_a_start_is_charged_once(api: Api) -> None:
    enqueue(api)
    job = claim(api)

    for method in ("PATCH", "POST"):
        answer = api.request(method, f"/api/queue/jobs/{job['id']}/start", lease_of(job))
        assert (answer.status_code, answer.json()["status"], answer.json()["attempt"]) == (200, "RUNNING", 1)
        assert answer.json()["attempts"][0]["fence"] == job["fence"]


def test_a_cancelled_job_is_not_started(api: Api) -> None:
    enqueue(api)
    job = claim(api)
    assert api.delete(f"/api/queue/jobs/{job['id']}").status_code == 202

    problem(start(api, job), 409, "cancelled")
    assert api.get(f"/api/queue/jobs/{job['id']}").json()["status"] == "CANCELLED"


def test_a_token_that_cannot_be_read_is_malformed_and_one_of_another_job_stale(api: Api) -> None:
    enqueue(api)
    enqueue(api)
    job, other = claim(api), claim(api)

    for token in ("", "1", "1.2", f"0.{'0' * 32}", f"1.{'G' * 32}", f"{'9' * 16}.{'0' * 32}", f" {NO_TOKEN}"):
        for verb in ("start", "complete", "release"):
            body = {"lease_token": token, **({"outcome": "success"} if verb == "complete" else {})}
            problem(api.post(f"/api/queue/jobs/{job['id']}/{verb}", body), 400, "invalid_argument")
        beat = api.post("/api/queue/heartbeat", {"leases": [{"id": job["id"], "lease_token": token}]})
        problem(beat, 400, "invalid_argument")
    for token in (NO_TOKEN, other["lease_token"]):
        found = problem(start(api, {**job, "lease_token": token}), 409, "stale_lease")
        assert (found["job_status"], found["allowed"]) == ("CLAIMED", ["CLAIMED"])
    for id in ("default~nothing", "nowhere~job"):
        problem(start(api, {"id": id, "lease_token": NO_TOKEN}), 404, "job_not_found")


def test_a_heartbeat_answers_for_each_lease(api: Api) -> None:
    enqueue(api, pool="a")
    enqueue(api, pool="b")
    first, second = claim(api, pool="a", lease_seconds=5), claim(api, pool="b")
    stale = {"id": first["id"], "lease_token": NO_TOKEN}
    leases = [{"id": job["id"], **lease_of(job)} for job in (first, second)]

    beat = api.post("/api/queue/heartbeat", {"leases": [stale, *leases, {"id": "nowhere~x", "lease_token": NO_TOKEN}]})
    assert beat.json().keys() == {"renewed", "lost", "cancel"}
    assert sorted(beat.json()["renewed"], key=lambda each: each["id"]) == [
        {"id": first["id"], "lease_expires_in_seconds": 5.0},
        {"id": second["id"], "lease_expires_in_seconds": 30.0},
    ]
    assert sorted((each["id"], each["reason"]) for each in beat.json()["lost"]) == [
        (first["id"], "stale_lease"),
        ("nowhere~x", "not_found"),
    ]
    assert api.post("/api/queue/heartbeat", {"leases": []}).json() == {"renewed": [], "lost": [], "cancel": []}


# -- how it ends -------------------------------------------------------------------------------------------------------

ENDS = [
    ("success", {}, "COMPLETED", False),
    ("failed", {}, "SCHEDULED", True),
    ("timeout", {}, "SCHEDULED", True),
    ("failed", {"retryable": False}, "FAILED", False),
    ("infra_error", {}, "SCHEDULED", True),
    ("rejected", {}, "FAILED", False),
    ("cancelled", {}, "CANCELLED", False),
]


def test_each_outcome_leads_where_the_contract_says(api: Api) -> None:
    for place, (outcome, more, status, retried) in enumerate(ENDS):
        enqueue(api, pool=f"p{place}")
        job = claim(api, pool=f"p{place}", start=True)
        body = {**lease_of(job), "outcome": outcome, "exit_code": 3, "result": {"part": [1.50]}, **more}
        if outcome != "success":
            body["error"] = "why"

        answer = api.post(f"/api/queue/jobs/{job['id']}/complete", body)
        assert answer.status_code == 200, answer.text
        assert answer.json().keys() == {"job", "retried", "replayed", "next"}
        said = answer.json()
        assert (said["job"]["status"], said["retried"], said["replayed"], said["next"]) == (status, retried, False, [])
        assert said["job"]["attempts"][0]["exit_code"] == 3
        assert said["job"]["error"] == body.get("error")
        if not retried:
            assert said["job"]["result"] == {"part": [1.5]}
        again = api.patch(f"/api/queue/jobs/{job['id']}/complete", body)
        assert (again.status_code, again.json()["replayed"]) == (200, True)
        assert (again.json()["job"]["status"], again.json()["retried"]) == (status, retried)
        other = {**body, "outcome": "rejected" if outcome != "rejected" else "timeout"}
        problem(api.post(f"/api/queue/jobs/{job['id']}/complete", other), 409, "outcome_conflict")


def test_a_job_that_was_not_started_cannot_succeed(api: Api) -> None:
    enqueue(api)
    job = claim(api)

    body = {**lease_of(job), "outcome": "success"}
    found = problem(api.post(f"/api/queue/jobs/{job['id']}/complete", body), 409, "illegal_transition")
    assert (found["job_status"], found["allowed"]) == ("CLAIMED", ["RUNNING"])


def test_an_end_brings_the_next_job_as_this_one_was_claimed(api: Api) -> None:
    for _ in range(4):
        enqueue(api)
    job = claim(api, start=True, lease_seconds=12)
    body = {**lease_of(job), "outcome": "success", "claim_next": {"request_id": "r", "max": 2}}

    said = api.post(f"/api/queue/jobs/{job['id']}/complete", body).json()
    assert [(each["status"], each["lease_expires_in_seconds"]) for each in said["next"]] == [("RUNNING", 12.0)] * 2
    assert {each["agent_id"] for each in said["next"]} == {"one"}
    again = api.post(f"/api/queue/jobs/{job['id']}/complete", body).json()
    assert again["replayed"] is True
    assert [each["lease_token"] for each in again["next"]] == [each["lease_token"] for each in said["next"]]
    stale = {**body, "lease_token": NO_TOKEN}
    problem(api.post(f"/api/queue/jobs/{job['id']}/complete", stale), 409, "stale_lease")
    assert queued(api) == 1


def test_an_agent_of_capacity_one_goes_from_job_to_job(api: Api) -> None:
    agent = api.agent("builder", capacity=1)
    for _ in range(3):
        enqueue(api)
    job = agent.claim(start=True).json()["job"]

    for left in (2, 1):
        path = f"/api/queue/jobs/{job['id']}/complete"
        said = agent.post(path, {**lease_of(job), "outcome": "success", "claim_next": {}}).json()
        job = said["next"][0]
        assert queued(api) == left - 1


def test_secrets_are_taken_out_of_what_comes_back(api: Api) -> None:
    enqueue(api)
    job = claim(api, start=True)
    token = "ghp_" + "a1B2c3D4e5" * 3 + "f6G7h8"
    body = {**lease_of(job), "outcome": "failed", "error": f"pushing with {token} failed", "retryable": False}

    said = api.post(f"/api/queue/jobs/{job['id']}/complete", body)
    assert said.status_code == 200, said.text
    assert said.json()["redactions"] == 1
    assert token not in api.get(f"/api/queue/jobs/{job['id']}").text


def test_a_released_job_is_back_at_its_place(api: Api) -> None:
    first = enqueue(api)
    enqueue(api)
    job = claim(api, start=True)
    path = f"/api/queue/jobs/{job['id']}/release"
    headers = {"Idempotency-Key": "k"}

    answer = api.post(path, lease_of(job), headers=headers)
    assert (answer.status_code, answer.json()["status"], answer.json()["attempt"]) == (200, "QUEUED", 0)
    again = api.post(path, lease_of(job), headers=headers)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
    assert problem(api.post(path, lease_of(job)), 409, "stale_lease")["allowed"] == ["CLAIMED", "RUNNING"]
    assert claim(api, agent_id="two")["id"] == first["id"]


def test_a_release_may_ask_for_a_delay(api: Api) -> None:
    enqueue(api)
    job = claim(api)

    body = {**lease_of(job), "delay_seconds": 60}
    assert api.post(f"/api/queue/jobs/{job['id']}/release", body).json()["status"] == "SCHEDULED"
    problem(api.post("/api/queue/claim", {"agent_id": "two"}), 404, "no_jobs_available")


def test_a_lost_lease_is_given_to_another_and_the_late_one_is_refused(api: Api) -> None:
    enqueue(api)
    lost = claim(api, start=True, lease_seconds=1)
    wait_until(lambda: queued(api), 20, what="the lease has run out")

    again = claim(api, agent_id="two", start=True)
    assert again["fence"] > lost["fence"]
    body = {**lease_of(lost), "outcome": "success"}
    assert (
        problem(api.post(f"/api/queue/jobs/{lost['id']}/complete", body), 409, "stale_lease")["job_status"] == "RUNNING"
    )
    assert end(api, again, "success")["job"]["status"] == "COMPLETED"


# -- the server stops --------------------------------------------------------------------------------------------------


def test_a_server_that_stops_answers_who_waits_and_takes_nobody_new(redis_url: str, namespace: str) -> None:
    with Api(redis_url, namespace, process=True, drain_s=2) as api:
        token = api.admin
        answers: list[Any] = []
        body = {"agent_id": "one", "wait_seconds": 40}
        waiting = threading.Thread(target=lambda: answers.append(api.post("/api/queue/claim", body)))
        waiting.start()
        wait_until(lambda: parked(api, token) == 1, 20, what="the claim is parked")
        api.stop()
        waiting.join(20)

        found = problem(answers[0], 404, "no_jobs_available")
        assert answers[0].headers["retry-after"], found
        refused = api.post("/api/queue/claim", body)
        problem(refused, 503, "stopping")
        assert refused.headers["retry-after"]
        api.wait_stopped()


def parked(api: Api, token: str) -> int:
    """How many claims wait in the server, as its figures say."""
    text = api.get("/metrics", token=token).text
    found = [line for line in text.splitlines() if "parked" in line and not line.startswith("#")]
    return int(float(found[0].rsplit(" ", 1)[1])) if found else -1
