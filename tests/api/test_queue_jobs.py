"""Jobs over HTTP: taken in, shown, listed, steered; status codes and keys are those of the contract, to the letter."""

from __future__ import annotations

import base64
import datetime as dt
import json
import threading
from typing import Any

import pytest

from hybridq import Queue
from tests.api import shared
from tests.api.client import Api, instant, problem, wait_until

api, running = shared.api, shared.running


def keys_of(text: str) -> set[str]:
    """Return the keys in a text of the contract."""
    return set(text.split())


JOB_KEYS = keys_of(
    "id job_id pool type status priority payload labels tags attempt max_attempts deliveries timeout_seconds agent_id "
    "enqueued_at run_at claimed_at started_at finished_at claimed_lease_expires_at cancel_requested_at outcome "
    "exit_code result error dead_reason group unique_key fair_key depends_on request_id trace_id"
)
ATTEMPT_KEYS = keys_of("number agent_id fence claimed_at started_at finished_at outcome exit_code error")
STATS_KEYS = keys_of(
    "queued scheduled blocked claimed running dead_lettered enqueued completed failed cancelled retried lost_leases "
    "avg_wait_seconds p50_wait_seconds p95_wait_seconds p99_wait_seconds avg_execution_seconds p95_execution_seconds "
    "failure_rate throughput_per_minute oldest_queued_seconds by_priority by_lane paused"
)
POOL_KEYS = keys_of(
    "pool policy weights lift_every max_queued max_dead retention_seconds retention_count lease_seconds paused"
)


def enqueue(api: Api, **body: Any) -> dict[str, Any]:
    answer = api.post("/api/queue/jobs", {"payload": None, **body})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def claim(api: Api, **body: Any) -> dict[str, Any]:
    answer = api.post("/api/queue/claim", {"agent_id": "one", **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["job"])


def end(api: Api, job: dict[str, Any], outcome: str, **body: Any) -> dict[str, Any]:
    answer = api.post(
        f"/api/queue/jobs/{job['id']}/complete", {"lease_token": job["lease_token"], "outcome": outcome, **body}
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def dead_letter(api: Api, **body: Any) -> dict[str, Any]:
    made = enqueue(api, max_attempts=1, **body)
    end(api, claim(api, start=True, pool=made["pool"]), "failed", error="why")
    return made


# -- enqueue -----------------------------------------------------------------------------------------------------


def test_a_job_is_made_with_every_key_and_what_is_unset_is_null(api: Api) -> None:
    answer = api.post("/api/queue/jobs", {"payload": {"a": 1}})

    job = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"/api/queue/jobs/{job['id']}")
    assert job.keys() >= JOB_KEYS | {"attempts"}
    assert job["id"] == f"default~{job['job_id']}"
    assert job["attempts"] == []
    said = {"type": "job", "status": "QUEUED", "priority": "NORMAL", "pool": "default", "payload": {"a": 1}}
    assert said.items() <= job.items()
    assert (job["attempt"], job["max_attempts"], job["deliveries"], job["timeout_seconds"]) == (0, 3, 0, 3600)
    assert instant(job["enqueued_at"])
    told = {*said, "id", "job_id", "attempt", "max_attempts", "deliveries", "timeout_seconds", "enqueued_at"}
    assert {job[key] for key in JOB_KEYS - told - {"request_id", "trace_id"}} == {None}


def test_everything_that_is_said_of_a_job_is_shown_again(api: Api) -> None:
    at = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).replace(microsecond=0)
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = api.post(
        "/api/queue/jobs",
        {
            "job_id": "mine",
            "pool": "builds",
            "type": "build",
            "payload": [1],
            "priority": "high",
            "tags": {"team": "shop"},
            "run_at": at.isoformat(),
            "max_attempts": 5,
            "timeout_seconds": 60,
            "retry": {"base_seconds": 1, "max_seconds": 9},
            "unique": {"key": "shop-main"},
            "labels": None,
        },
        headers={"X-Request-Id": "request-1", "traceparent": traceparent},
    )

    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert {
        "id": "builds~mine",
        "status": "SCHEDULED",
        "priority": "HIGH",
        "tags": {"team": "shop"},
        "max_attempts": 5,
        "timeout_seconds": 60,
        "retry": {"base_seconds": 1, "max_seconds": 9},
        "unique_key": "shop-main",
        "request_id": "request-1",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }.items() <= job.items()
    assert instant(job["run_at"]) == at


PAYLOADS = ["null", '"text"', "-0", '{"b":1.50,  "a" :[1e2]}', '"\\u0000\\ud83d\\ude00"', "123456789012345678901"]


def test_a_payload_comes_back_byte_for_byte(api: Api) -> None:
    for payload in PAYLOADS:
        answer = api.post("/api/queue/jobs", content=f'{{"payload": {payload} }}')

        assert answer.status_code == 201, answer.text
        shown = api.get(f"/api/queue/jobs/{answer.json()['id']}")
        assert f'"payload":{payload},' in shown.text
        assert f'"payload":{payload},' in api.post("/api/queue/claim", {"agent_id": "one"}).text


def test_bytes_that_are_no_json_are_shown_in_base64(api: Api) -> None:
    with Queue("default", redis=api.redis_url, namespace=api.namespace) as queue:
        made = queue.enqueue("t", b"\xff{")

    job = api.get(f"/api/queue/jobs/default~{made.job_id}").json()
    assert (base64.b64decode(job["payload"]), job["payload_encoding"]) == (b"\xff{", "base64")


def test_the_same_id_and_content_is_the_same_job_and_other_content_a_conflict(api: Api) -> None:
    first = api.post("/api/queue/jobs", {"job_id": "j", "payload": 1})
    again = api.post("/api/queue/jobs", {"job_id": "j", "payload": 1})

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["enqueued_at"] == again.json()["enqueued_at"]
    problem(api.post("/api/queue/jobs", {"job_id": "j", "payload": 2}), 409, "job_conflict")


def test_an_idempotency_key_makes_a_repeat_the_same_job(api: Api) -> None:
    headers = {"Idempotency-Key": "order 17"}
    first = api.post("/api/queue/jobs", {"payload": 1}, headers=headers)
    again = api.post("/api/queue/jobs", {"payload": 1}, headers=headers)

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    problem(api.post("/api/queue/jobs", {"payload": 2}, headers=headers), 409, "idempotency_conflict")
    other = api.post("/api/queue/jobs", {"payload": 1}, headers=headers, token=api.key("queue:enqueue"))
    assert other.status_code == 201


def test_a_unique_key_answers_as_on_conflict_says(api: Api) -> None:
    first = enqueue(api, unique={"key": "k"})

    again = api.post("/api/queue/jobs", {"payload": 2, "unique": {"key": "k"}})
    assert (again.status_code, again.json()["id"], again.json()["unique"]) == (200, first["id"], True)
    body = {"payload": 2, "unique": {"key": "k", "on_conflict": "reject"}}
    assert problem(api.post("/api/queue/jobs", body), 409, "unique_taken")["existing_job_id"] == first["id"]


LATER_FIELDS = [
    ("labels", ["os=linux"]),
    ("depends_on", ["default~a"]),
    ("group", "g"),
    ("group_limit", 2),
    ("fair_key", "team"),
    ("supersede", {"key": "k", "mode": "queued"}),
    ("rate", {"key": "k", "limit": 1, "per_seconds": 60}),
    ("queue_ttl_seconds", 60),
    ("durability", "wait"),
    ("unique", {"key": "k", "on_conflict": "replace"}),
    ("unique", {"key": "k", "until": "started"}),
    ("unique", {"key": "k", "seconds": 60}),
]


def test_what_is_not_in_this_version_is_named_and_nothing_is_made(api: Api) -> None:
    for field, value in LATER_FIELDS:
        found = problem(api.post("/api/queue/jobs", {"payload": 1, field: value}), 422, "not_supported_yet")

        assert found["errors"][0]["pointer"].startswith(f"/{field}")
        assert api.get("/api/queue/jobs").json()["items"] == []


OFF_THE_RULE = [
    ({}, "/payload"),
    ({"payload": 1, "priority": "URGENT"}, "/priority"),
    ({"payload": 1, "max_attempts": 101}, "/max_attempts"),
    ({"payload": 1, "delay_seconds": -1}, "/delay_seconds"),
    ({"payload": 1, "delay_seconds": 40_000_000}, "/delay_seconds"),
    ({"payload": 1, "run_at": "2026-01-01T00:00:00"}, "/run_at"),
    ({"payload": 1, "run_at": "2190-01-01T00:00:00Z"}, "/run_at"),
    ({"payload": 1, "run_at": "2026-01-01T00:00:00Z", "delay_seconds": 1}, "/run_at"),
    ({"payload": 1, "retry": {"base_seconds": 10, "max_seconds": 9}}, "/retry/max_seconds"),
    ({"payload": 1, "job_id": "a~b"}, "/job_id"),
    ({"payload": 1, "type": "\u200b"}, "/type"),
    ({"payload": 1, "tags": {str(n): "" for n in range(65)}}, "/tags"),
    ({"payload": 1, "nothing": 1}, ""),
]


def test_what_is_off_its_rule_is_pointed_at(api: Api) -> None:
    for body, pointer in OFF_THE_RULE:
        found = problem(api.post("/api/queue/jobs", body), 400, "invalid_argument")

        assert [error["pointer"] for error in found["errors"]] == [pointer]


KEPT_NAMES = [{"job_id": "running"}, {"pool": "healthy"}]


def test_names_of_paths_are_kept(api: Api) -> None:
    for body in KEPT_NAMES:
        problem(api.post("/api/queue/jobs", {"payload": 1, **body}), 400, "reserved_name")


def test_a_payload_is_256_kib_at_most(api: Api) -> None:
    text = "x" * (256 * 1024 - 2)

    assert api.post("/api/queue/jobs", {"payload": text}).status_code == 201
    found = problem(api.post("/api/queue/jobs", {"payload": text + "x"}), 413, "payload_too_large")
    assert found["limit_bytes"] == 262_144


def test_a_full_pool_says_so_and_lets_work_go_on(api: Api) -> None:
    assert api.patch("/api/queue/pools/default", {"max_queued": 1}).status_code == 200
    enqueue(api)

    found = api.post("/api/queue/jobs", {"payload": 1})
    assert problem(found, 507, "queue_full")["limit"] == 1
    assert found.headers["retry-after"]
    assert claim(api)


# -- batch -------------------------------------------------------------------------------------------------------


def test_the_entries_of_a_batch_are_independent_and_in_order(api: Api) -> None:
    enqueue(api, job_id="there")
    entries = [
        {"payload": 1, "pool": "p"},
        {"payload": 2, "job_id": "there"},
        {"payload": 3, "labels": ["gpu"]},
        {"payload": 4, "pool": "p"},
        {"payload": None, "job_id": "there"},
    ]
    answer = api.post("/api/queue/jobs:batch", {"jobs": entries})

    results = answer.json()["results"]
    assert (answer.status_code, [each["index"] for each in results]) == (200, [0, 1, 2, 3, 4])
    assert [each["status"] for each in results] == [201, 409, 422, 201, 200]
    assert [each["problem"] and each["problem"]["code"] for each in results] == [
        None,
        "job_conflict",
        "not_supported_yet",
        None,
        None,
    ]
    assert [claim(api, pool="p")["payload"] for _ in range(2)] == [1, 4]


def test_a_batch_takes_a_thousand_and_an_idempotency_key_counts_with_the_index(api: Api) -> None:
    body = {"jobs": [{"payload": n} for n in range(1000)]}
    first = api.post("/api/queue/jobs:batch", body, headers={"Idempotency-Key": "k"})
    again = api.post("/api/queue/jobs:batch", body, headers={"Idempotency-Key": "k"})

    assert {each["status"] for each in first.json()["results"]} == {201}
    assert {each["status"] for each in again.json()["results"]} == {200}
    assert [each["job"]["id"] for each in first.json()["results"]] == [
        each["job"]["id"] for each in again.json()["results"]
    ]
    assert again.headers["idempotency-replayed"] == "true"
    assert api.get("/api/queue/stats").json()["queued"] == 1000
    problem(api.post("/api/queue/jobs:batch", {"jobs": [{"payload": 1}] * 1001}), 400, "invalid_argument")


def test_an_atomic_batch_is_made_whole_or_not_at_all(api: Api) -> None:
    enqueue(api, job_id="there")

    def atomic(*jobs: dict[str, Any]) -> Any:
        return api.post("/api/queue/jobs:batch", {"jobs": jobs, "atomic": True})

    refused = problem(atomic({"payload": 1}, {"payload": 2, "job_id": "there"}, {"payload": 3}), 409, "job_conflict")
    assert (refused["index"], [each["index"] for each in refused["problems"]]) == (1, [1])
    both = problem(
        atomic({"payload": 1, "group": "g"}, {"payload": 2, "rate": None}, {"payload": 3, "fair_key": "x"}),
        422,
        "not_supported_yet",
    )
    assert [each["index"] for each in both["problems"]] == [0, 2]
    assert problem(atomic(*[{"payload": 1}] * 51), 422, "not_supported_yet")["limit"] == 50
    problem(atomic({"payload": 1}, {"payload": 1, "pool": "other"}), 422, "not_supported_yet")
    assert api.get("/api/queue/stats").json()["enqueued"] == 1
    made = atomic(*[{"payload": n} for n in range(50)])
    assert {each["status"] for each in made.json()["results"]} == {201}


# -- look ----------------------------------------------------------------------------------------------------------


def test_a_job_has_a_tag_that_changes_with_it(api: Api) -> None:
    path = f"/api/queue/jobs/{enqueue(api)['id']}"
    first = api.get(path)

    assert api.get(path, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    claim(api)
    changed = api.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200
    assert "lease_token" not in changed.text
    assert changed.json()["attempts"][0].keys() >= ATTEMPT_KEYS


@pytest.mark.parametrize("id", ["nowhere~job", "default~nothing"])
def test_what_is_not_there_is_not_found(api: Api, id: str) -> None:
    enqueue(api)

    problem(api.get(f"/api/queue/jobs/{id}"), 404, "job_not_found")
    assert [each["pool"] for each in api.get("/api/queue/pools").json()["items"]] == ["default"]


IDS_OFF_THE_RULE = ["job", "default~", "~job", "a~b~c", "default~a%00"]


def test_an_id_off_the_rule_is_malformed(api: Api) -> None:
    for id in IDS_OFF_THE_RULE:
        assert api.get(f"/api/queue/jobs/{id}").status_code == 400


def test_one_may_wait_for_the_end_of_a_job(api: Api) -> None:
    job = enqueue(api)
    path = f"/api/queue/jobs/{job['id']}"
    found: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: found.append(api.get(path, params={"wait_seconds": 30}).json()))
    waiting.start()
    end(api, claim(api, start=True), "success", result={"ok": True})
    waiting.join(20)

    assert (found[0]["status"], found[0]["result"]) == ("COMPLETED", {"ok": True})
    again = enqueue(api)
    assert api.get(f"/api/queue/jobs/{again['id']}", params={"wait_seconds": 0.2}).json()["status"] == "QUEUED"


def test_a_list_goes_over_all_pools_newest_first_and_page_by_page(api: Api) -> None:
    made = [enqueue(api, pool=f"p{n % 4}")["id"] for n in range(25)]

    seen: list[str] = []
    cursor = None
    for _ in range(30):
        page = api.get("/api/queue/jobs", params={"limit": 3} | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["items"]) <= 3
        assert page.keys() == {"items", "next_cursor"}
        seen += [job["id"] for job in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(made)
    times = [api.get(f"/api/queue/jobs/{id}").json()["enqueued_at"] for id in seen]
    assert times == sorted(times, reverse=True)
    assert "attempts" not in page["items"][0]


@pytest.mark.parametrize("pool", [None, "p"])
def test_a_list_can_be_filtered(api: Api, pool: str | None) -> None:
    where = {} if pool is None else {"pool": pool}
    wanted = enqueue(api, pool="p", type="build", priority="HIGH", tags={"team": "a", "ring": "1"})["id"]
    enqueue(api, pool="p", type="test", tags={"team": "b"})
    if pool is None:
        enqueue(api, pool="q", type="other")

    def ids(**filters: Any) -> list[str]:
        answer = api.get("/api/queue/jobs", params={**where, **filters})
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.json()["items"]]

    assert ids(type="build") == [wanted]
    assert ids(priority="high") == [wanted]
    assert ids(tag=["team=a", "ring=1"]) == [wanted]
    assert ids(tag=["team=a", "ring=2"]) == []
    claim(api, agent_id="holder", pool="p")
    assert ids(status="CLAIMED") == ids(state="claimed") == ids(agent_id="holder") == [wanted]
    assert ids(agent_id="hold") == []


def test_a_cursor_belongs_to_its_list_and_filters(api: Api) -> None:
    for _ in range(3):
        enqueue(api)
    cursor = api.get("/api/queue/jobs", params={"limit": 1}).json()["next_cursor"]

    assert api.get("/api/queue/jobs", params={"limit": 2, "cursor": cursor}).status_code == 200
    for path, params in (
        ("/api/queue/jobs", {"type": "job"}),
        ("/api/queue/jobs", {"pool": "default"}),
        ("/api/queue/dead", {}),
        ("/api/dashboard/jobs", {}),
    ):
        problem(api.get(path, params={**params, "cursor": cursor}), 400, "invalid_cursor")


LATER_FILTERS = [{"label": "gpu"}, {"group": "g"}]


def test_filters_of_later_versions_are_refused(api: Api) -> None:
    for params in LATER_FILTERS:
        problem(api.get("/api/queue/jobs", params=params), 422, "not_supported_yet")


QUERIES_OFF_THE_RULE = [{"limit": 201}, {"limit": 0}, {"tag": "x"}, {"status": "LOST"}, {"nothing": 1}]


def test_queries_off_the_rule_are_refused(api: Api) -> None:
    for params in QUERIES_OFF_THE_RULE:
        problem(api.get("/api/queue/jobs", params=params), 400, "invalid_argument")


def test_stats_have_every_key_and_zeros_for_a_pool_that_nobody_used(api: Api) -> None:
    unused = api.get("/api/queue/stats", params={"pool": "unused"}).json()

    assert unused.keys() >= STATS_KEYS
    assert {unused[key] for key in STATS_KEYS - {"by_priority", "by_lane", "paused"}} == {0}
    assert (unused["by_lane"], unused["paused"]) == (None, False)
    assert unused["by_priority"] == dict.fromkeys(["CRITICAL", "HIGH", "NORMAL", "LOW"], 0)
    assert api.get("/api/queue/pools").json() == {"items": []}
    dead_letter(api)
    enqueue(api, priority="LOW")
    used = api.get("/api/queue/stats").json()
    assert used.keys() == unused.keys()
    assert (used["queued"], used["dead_lettered"], used["enqueued"], used["failure_rate"]) == (1, 1, 2, 1.0)
    assert used["by_priority"]["LOW"] == 1
    problem(api.get("/api/queue/stats", params={"window_seconds": 3601}), 400, "invalid_argument")


# -- steer ---------------------------------------------------------------------------------------------------------


def test_a_waiting_job_is_cancelled_at_once_and_a_leased_one_on_request(api: Api) -> None:
    waiting = f"/api/queue/jobs/{enqueue(api)['id']}"
    first = api.delete(waiting)
    assert (first.status_code, first.json()["status"], api.delete(waiting).status_code) == (200, "CANCELLED", 200)

    leased = enqueue(api)
    job = claim(api, start=True)
    asked = api.delete(f"/api/queue/jobs/{leased['id']}")
    assert (asked.status_code, asked.json()["status"]) == (202, "RUNNING")
    assert asked.json()["cancel_requested_at"]
    beat = api.post("/api/queue/heartbeat", {"leases": [{"id": job["id"], "lease_token": job["lease_token"]}]}).json()
    assert beat["cancel"] == [{"id": job["id"], "mode": "graceful", "grace_seconds": 10.0}]
    assert end(api, job, "failed")["job"]["status"] == "CANCELLED"

    enqueue(api)
    done = end(api, claim(api, start=True), "success")["job"]
    found = problem(api.delete(f"/api/queue/jobs/{done['id']}"), 409, "already_terminal")
    assert found["job_status"] == "COMPLETED"


def test_a_priority_is_changed_if_nothing_else_was(api: Api) -> None:
    path = f"/api/queue/jobs/{enqueue(api)['id']}"
    etag = api.get(path).headers["etag"]

    changed = api.patch(f"{path}/priority", {"priority": "critical"}, headers={"If-Match": etag})
    assert (changed.status_code, changed.json()["priority"]) == (200, "CRITICAL")
    assert changed.headers["etag"] == api.get(path).headers["etag"] != etag
    late = api.patch(f"{path}/priority", {"priority": "LOW"}, headers={"If-Match": etag})
    problem(late, 412, "precondition_failed")
    api.delete(path)
    problem(api.patch(f"{path}/priority", {"priority": "LOW"}), 409, "already_terminal")


def test_a_retry_is_a_new_life_and_one_only_for_one_key(api: Api) -> None:
    job = dead_letter(api, unique={"key": "k"})
    path = f"/api/queue/jobs/{job['id']}/retry"
    headers = {"Idempotency-Key": "again"}

    first = api.post(path, headers=headers)
    assert (first.status_code, first.json()["status"], first.json()["generation"]) == (200, "QUEUED", 1)
    assert first.json()["attempts"][0]["outcome"] == "failed"
    assert "idempotency-replayed" not in first.headers
    again = api.post(path, headers=headers)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
    problem(api.post(path), 409, "not_terminal")
    end(api, claim(api, start=True), "rejected")
    assert api.post(path, headers=headers).json()["status"] == "FAILED"
    other = enqueue(api, unique={"key": "k"})
    assert problem(api.post(path), 409, "unique_taken")["existing_job_id"] == other["id"]


# -- dead letters ----------------------------------------------------------------------------------------------------


def test_dead_letters_are_listed_replayed_and_purged_by_filter(api: Api) -> None:
    builds = [dead_letter(api, type="build", pool=f"p{n % 2}", tags={"n": str(n)})["id"] for n in range(4)]
    tests = [dead_letter(api, type="test")["id"] for _ in range(3)]

    listed = api.get("/api/queue/dead").json()["items"]
    assert [job["id"] for job in listed] == [*tests[::-1], *builds[::-1]]
    assert {job["dead_reason"] for job in listed} == {"max_attempts"}
    assert [job["id"] for job in api.get("/api/queue/dead", params={"tag": "n=1"}).json()["items"]] == [builds[1]]

    def replay(**body: Any) -> Any:
        answer = api.post("/api/queue/dead:replay", body)
        assert answer.status_code == 200, answer.text
        return {key: answer.json()[key] for key in ("matched", "replayed", "remaining")}

    assert replay(type="build", dry_run=True) == {"matched": 4, "replayed": 0, "remaining": 4}
    assert replay(type="build", limit=1) == {"matched": 4, "replayed": 1, "remaining": 3}
    assert api.get(f"/api/queue/jobs/{builds[0]}").json()["status"] == "QUEUED"
    assert replay(job_ids=[builds[1], builds[0], "p0~nothing"]) == {"matched": 1, "replayed": 1, "remaining": 0}
    assert replay(all=True, pool="p0", rate_per_second=100) == {"matched": 1, "replayed": 1, "remaining": 0}
    purged = api.post("/api/queue/dead:purge", {"reason": "max_attempts", "type": "test"}).json()
    assert {"matched": 3, "purged": 3, "remaining": 0}.items() <= purged.items()
    problem(api.get(f"/api/queue/jobs/{tests[0]}"), 404, "job_not_found")


@pytest.mark.parametrize("verb", ["replay", "purge"])
def test_everything_needs_to_be_said(api: Api, verb: str) -> None:
    dead_letter(api)

    for body in ({}, {"pool": "default"}, {"limit": 5}):
        problem(api.post(f"/api/queue/dead:{verb}", body), 400, "filter_required")
    assert len(api.get("/api/queue/dead").json()["items"]) == 1


def test_a_pace_that_would_take_too_long_is_refused(api: Api) -> None:
    for _ in range(3):
        dead_letter(api)

    problem(api.post("/api/queue/dead:replay", {"all": True, "rate_per_second": 0.1}), 422, "not_supported_yet")


def test_lost_leases_are_brought_back_on_request(api: Api) -> None:
    enqueue(api)
    claim(api, lease_seconds=1)

    def requeued() -> int:
        answer = api.post("/api/queue/maintenance/requeue-expired")
        assert answer.json().keys() == {"requeued", "dead_lettered", "promoted", "more"}
        return int(answer.json()["requeued"])

    # The upkeep of the server itself may be the first.
    wait_until(lambda: requeued() or api.get("/api/queue/stats").json()["claimed"] == 0, 20)


# -- pools -----------------------------------------------------------------------------------------------------------


def test_a_pool_is_set_up_paused_and_resumed(api: Api) -> None:
    path = "/api/queue/pools/builds"
    problem(api.get(path), 404, "pool_not_found")
    problem(api.post(f"{path}/pause", {"reason": "r"}), 404, "pool_not_found")
    limits = {
        "max_queued": 7,
        "max_dead": 8,
        "retention_seconds": 60,
        "retention_count": 9,
        "lease_seconds": 5,
        "policy": "fifo",
    }
    made = api.patch(path, limits)
    assert made.status_code == 200
    assert made.json().keys() >= POOL_KEYS
    assert limits.items() <= made.json().items()
    assert api.get(path).json() == made.json()

    enqueue(api, pool="builds")
    paused = api.post(f"{path}/pause", {"reason": "repair"})
    assert paused.json().keys() == {"pool", "paused", "reason", "by", "at"}
    assert (paused.json()["paused"], paused.json()["reason"]) == (True, "repair")
    assert api.post(f"{path}/pause", {"reason": "other"}).json() == paused.json()
    problem(api.post("/api/queue/claim", {"agent_id": "a", "pool": "builds"}), 404, "no_jobs_available")
    assert api.post(f"{path}/resume", {}).json()["paused"] is False
    assert api.post(f"{path}/resume").json()["paused"] is False
    assert claim(api, pool="builds")["lease_expires_in_seconds"] == 5.0


LATER_CALLS = [
    ("PATCH", "/api/queue/pools/p", {"policy": "fair"}),
    ("PATCH", "/api/queue/pools/p", {"weights": {"a": 1}}),
    ("PATCH", "/api/queue/pools/p", {"lift_every": 5}),
    ("POST", "/api/queue/pools/default/pause", {"labels": ["gpu"]}),
    ("POST", "/api/queue/pools/default/pause", {"until": "2030-01-01T00:00:00Z"}),
    ("GET", "/api/queue/jobs/default~there/explain", None),
    ("POST", "/api/queue/jobs:cancel", {"all": True}),
    ("POST", "/api/queue/jobs:priority", {"all": True, "priority": "LOW"}),
    (
        "POST",
        "/api/queue/pipelines",
        {"jobs": [{"ref": "a", "payload": 1}, {"ref": "b", "payload": 1, "depends_on": ["a"]}]},
    ),
    ("GET", "/api/queue/pipelines/p", None),
    ("DELETE", "/api/queue/pipelines/p", None),
    ("GET", "/api/queue/schedules", None),
    ("POST", "/api/queue/schedules", {"cron": "* * * * *", "time_zone": "UTC", "job": {"payload": 1}}),
    ("DELETE", "/api/queue/schedules/s", None),
]


def test_calls_of_later_versions_are_known_and_refused(api: Api) -> None:
    enqueue(api, job_id="there")
    reader = api.key("audit:read")
    for method, path, body in LATER_CALLS:
        problem(api.request(method, path, body), 422, "not_supported_yet")
        assert api.request(method, path, body, token=None).status_code == 401
        assert api.request(method, path, body, token=reader).status_code == 403
        if body is not None:
            problem(api.request(method, path, {**body, "nothing": 1}), 400, "invalid_argument")


# -- who may reach what ------------------------------------------------------------------------------------------


def test_pools_of_others_are_out_of_reach(api: Api) -> None:
    mine = api.key("queue:read queue:enqueue queue:admin queue:claim", pools=["mine"])
    enqueue(api, pool="mine", job_id="a")
    other = enqueue(api, pool="other", job_id="a")["id"]

    for answer in (
        api.post("/api/queue/jobs", {"payload": 1, "pool": "other"}, token=mine),
        api.post("/api/queue/jobs", {"payload": 1}, token=mine),
        api.get("/api/queue/jobs", params={"pool": "other"}, token=mine),
        api.get("/api/queue/stats", params={"pool": "other"}, token=mine),
        api.get("/api/queue/pools/other", token=mine),
        api.get("/api/queue/pools/unknown", token=mine),
        api.post("/api/queue/claim", {"agent_id": "x", "pool": "other"}, token=mine),
        api.post("/api/queue/dead:replay", {"pool": "other", "all": True}, token=mine),
    ):
        problem(answer, 403, "pool_not_allowed")
    for id in (other, "unknown~a", "mine~nothing"):
        bodies = [api.get(f"/api/queue/jobs/{id}", token=mine), api.delete(f"/api/queue/jobs/{id}", token=mine)]
        for answer in bodies:
            found = problem(answer, 404, "job_not_found")
            assert {**found, "instance": ""} == {**problem(bodies[0], 404, "job_not_found"), "instance": ""}
    assert [job["id"] for job in api.get("/api/queue/jobs", token=mine).json()["items"]] == ["mine~a"]
    assert [pool["pool"] for pool in api.get("/api/queue/pools", token=mine).json()["items"]] == ["mine"]
    assert api.get("/api/dashboard/summary", token=mine).json()["total_jobs"] == 1


def test_another_namespace_is_another_world(api: Api) -> None:
    job = enqueue(api, job_id="a")
    stranger = api.key("*", namespace=f"{api.namespace}-other")

    problem(api.get(f"/api/queue/jobs/{job['id']}", token=stranger), 404, "job_not_found")
    assert api.get("/api/queue/jobs", token=stranger).json()["items"] == []
    assert api.get("/api/queue/pools", token=stranger).json()["items"] == []


def test_secrets_are_refused_where_intent_comes_in(api: Api) -> None:
    token = "ghp_" + "a1B2c3D4e5" * 3 + "f6G7h8"
    found = api.post("/api/queue/jobs", {"payload": {"env": {"TOKEN": token}}})

    assert problem(found, 422, "secret_suspected")["errors"][0]["pointer"] == "/payload/env/TOKEN"
    assert token not in found.text
    assert json.loads(found.text)["status"] == 422
