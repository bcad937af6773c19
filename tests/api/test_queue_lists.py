"""Lists over many pools: each job once, newest first, whatever shares an instant, and whatever comes or goes."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import redis as redis_py

from hybridq import JobSpec, Queue
from tests.api import shared
from tests.api.client import Api, problem

api, running = shared.api, shared.running

Page = dict[str, Any]


def pages(api: Api, path: str, **params: Any) -> list[Page]:
    """Return every page of a list."""
    found: list[Page] = []
    cursor = None
    while True:
        answer = api.get(path, params=params if cursor is None else {**params, "cursor": cursor})
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
        cursor = found[-1]["next_cursor"]
        if cursor is None:
            return found
        assert len(found) < 1000, "the list has no end"


def ids_of(found: list[Page]) -> list[str]:
    return [job["id"] for page in found for job in page["items"]]


def fill(api: Api, pools: int, jobs: int) -> list[str]:
    """Take jobs in by batches, so that many share an instant; return their ids."""
    entries = [{"payload": n, "pool": f"pool-of-some-length-{n % pools:03}", "type": f"t{n % 7}"} for n in range(jobs)]
    results = api.post("/api/queue/jobs:batch", {"jobs": entries}).json()["results"]
    return [each["job"]["id"] for each in results]


def bury(api: Api, pool: str, count: int) -> None:
    """Make dead letters that died in one instant, as far as one script call does."""
    with Queue(pool, redis=api.redis_url, namespace=api.namespace) as queue:
        queue.enqueue_many([JobSpec(payload=n, max_attempts=1) for n in range(count)])
        for lease in queue.claim(count, start=True):
            queue.fail(lease, "why")


def test_each_job_of_many_pools_is_listed_once_and_newest_first(api: Api) -> None:
    made = fill(api, pools=12, jobs=400)
    found = pages(api, "/api/queue/jobs", limit=23)

    assert sorted(ids_of(found)) == sorted(made)
    assert all(len(page["items"]) == 23 for page in found[:-1])
    times = [job["enqueued_at"] for page in found for job in page["items"]]
    assert times == sorted(times, reverse=True)


def test_more_pools_than_a_cursor_can_name(api: Api) -> None:
    made = [id for _ in range(2) for id in fill(api, pools=250, jobs=1000)]
    found = pages(api, "/api/queue/jobs", limit=200)

    assert sorted(ids_of(found)) == sorted(made)
    assert all(len(page["next_cursor"] or "") <= 8192 for page in found)


def test_a_filter_that_few_meet_ends_too(api: Api) -> None:
    made = fill(api, pools=5, jobs=300)

    assert sorted(ids_of(pages(api, "/api/queue/jobs", limit=4, type="t3"))) == sorted(made[3::7])
    assert sorted(ids_of(pages(api, "/api/queue/jobs", limit=4, type="t3", pool="pool-of-some-length-001"))) == sorted(
        id for n, id in enumerate(made) if n % 7 == 3 and n % 5 == 1
    )
    assert ids_of(pages(api, "/api/queue/jobs", type="nothing")) == []


def test_dead_letters_of_one_instant_are_listed_once(api: Api) -> None:
    for pool in ("a", "b", "c"):
        bury(api, pool, 30)
    found = pages(api, "/api/queue/dead", limit=7)
    same = pages(api, "/api/queue/jobs", limit=7, status="DEAD_LETTERED")

    assert len(set(ids_of(found))) == len(ids_of(found)) == 90
    assert ids_of(same) == ids_of(found)
    # As times: a text without a fraction sorts behind those with one.
    times = [dt.datetime.fromisoformat(job["finished_at"]) for page in found for job in page["items"]]
    assert times == sorted(times, reverse=True)


def test_what_comes_or_goes_meanwhile_costs_no_other_job_its_place(api: Api) -> None:
    made = fill(api, pools=3, jobs=60)
    first = api.get("/api/queue/jobs", params={"limit": 10}).json()
    later = fill(api, pools=4, jobs=8)
    assert api.post("/api/queue/claim", {"agent_id": "a", "pool": "pool-of-some-length-000"}).status_code == 200
    rest: list[str] = []
    cursor = first["next_cursor"]
    while cursor is not None:
        page = api.get("/api/queue/jobs", params={"limit": 10, "cursor": cursor}).json()
        rest += [job["id"] for job in page["items"]]
        cursor = page["next_cursor"]

    seen = [job["id"] for job in first["items"]] + rest
    assert len(set(seen)) == len(seen)
    assert set(seen) - set(later) == set(made)


def test_a_cursor_that_was_tampered_with_is_no_cursor(api: Api) -> None:
    fill(api, pools=2, jobs=10)
    cursor = api.get("/api/queue/jobs", params={"limit": 3}).json()["next_cursor"]

    for other in (cursor[:-1], cursor + "A", cursor.swapcase(), "A" * 40, cursor[1:] + cursor[0]):
        problem(api.get("/api/queue/jobs", params={"limit": 3, "cursor": other}), 400, "invalid_cursor")
    stranger = shared.in_namespace(api, f"{api.namespace}-other")
    problem(stranger.get("/api/queue/jobs", params={"limit": 3, "cursor": cursor}), 400, "invalid_cursor")


def test_what_is_not_there_is_not_looked_for_among_all_pools(api: Api) -> None:
    """The list of all pools is read now and then, not once for every wrong id that somebody sends."""
    fill(api, 3, 3)
    assert api.get("/api/queue/jobs").status_code == 200
    key = f"hq:{{{api.namespace}/sys/queues}}:queues"

    with redis_py.Redis.from_url(api.redis_url) as redis, redis.monitor() as heard:
        for n in range(20):
            problem(api.get(f"/api/queue/jobs/nowhere{n}~j"), 404, "job_not_found")
        redis.set("end", "of it")
        commands = list(itertools.takewhile(lambda text: not text.startswith("SET end"), map(_text_of, heard.listen())))

    assert 20 == len([command for command in commands if command.startswith(f"ZSCORE {key}")])
    assert len([command for command in commands if command.startswith(f"ZRANGE {key}")]) <= 1


def _text_of(heard: dict[str, Any]) -> str:
    return str(heard["command"])
