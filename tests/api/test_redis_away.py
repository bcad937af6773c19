"""Redis goes away for a while, frozen or dead: what the server says meanwhile, and how it goes on afterwards.

`HYBRIDQ_TEST_AWAY_S` says how long; what was measured is printed (`pytest -s`).
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from api.plane import REPLY_WAIT_S
from tests import invariants
from tests.api.client import Api, problem, wait_until
from tests.api.test_claim import parked
from tests.api.test_matrix import Operation
from tests.api.test_queue_jobs import claim, end, enqueue
from tests.servers import ServerProcess

AWAY_S = float(os.environ.get("HYBRIDQ_TEST_AWAY_S", "3"))
WAITERS = 5
ANSWERS_WITHIN_S = 2 * REPLY_WAIT_S + 2.0
"""What is on its way waits for its answer once, and is sent once more; what waits behind it fails with it."""
BACK_WITHIN_S = 5.0
SAYS_WITHOUT_REDIS = ("/auth/", "/health", "/info", "/api/docs")
"""What is public is asked with no credential; whatever else there is needs Redis to know the caller."""


@pytest.fixture
def durable(server: ServerProcess) -> Iterator[ServerProcess]:
    """A server of the same engine that keeps its data through a crash."""
    with ServerProcess(server.engine, aof=True) as own:
        yield own
        own.resume()
        with own.client() as client:
            invariants.must_hold(client)


@pytest.fixture
def away(durable: ServerProcess, namespace: str) -> Iterator[Api]:
    with Api(durable.url, namespace, process=True) as running:
        yield running


def leave(redis: ServerProcess, how: str) -> None:
    redis.kill() if how == "killed" else redis.pause()


def come_back(redis: ServerProcess, how: str) -> None:
    redis.start() if how == "killed" else redis.resume()


def operations(api: Api) -> list[Operation]:
    """Return every call of the document that needs Redis."""
    document = api.get("/api/docs/openapi.json", token=None).json()
    found = [
        Operation(method, path, spec)
        for path, methods in document["paths"].items()
        for method, spec in methods.items()
        if not path.startswith(SAYS_WITHOUT_REDIS)
    ]
    return [operation for operation in found if not operation.public]


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_every_call_says_so_in_time_while_redis_is_away(away: Api, durable: ServerProcess, how: str) -> None:
    calls, token = operations(away), away.admin
    assert len(calls) > 30
    assert away.get("/health/ready", token=None).status_code == 200

    assert away._client is not None
    away._client.timeout = 4 * ANSWERS_WITHIN_S

    def ask(operation: Operation) -> tuple[Operation, httpx2.Response, float]:
        began = time.monotonic()
        path = operation.path.format(**operation.parts)
        body = None if operation.method == "get" else operation.body or {}
        answer = away.request(operation.method.upper(), path, body, token=token)
        return operation, answer, time.monotonic() - began

    leave(durable, how)
    try:
        with ThreadPoolExecutor(len(calls) + 1) as pool:
            answers = [pool.submit(ask, operation) for operation in calls]
            # What it found out a moment ago counts for that long.
            wait_until(lambda: away.get("/health/ready", token=None).status_code == 503, 5, what="not ready")
            for _ in range(3):
                began = time.monotonic()
                assert away.get("/health", token=None).json()["status"] == "healthy"
                assert time.monotonic() - began < 2, "the process is held up"
                ready = away.get("/health/ready", token=None)
                problem(ready, 503, "not_ready")
                assert int(ready.headers["retry-after"]) >= 1
            done = [answer.result() for answer in answers]
    finally:
        come_back(durable, how)

    codes: Counter[str] = Counter()
    for operation, answer, _ in done:
        assert answer.status_code == 503, (operation, answer.status_code, answer.text)
        said = problem(answer, 503, answer.json()["code"])
        assert said["code"] in ("redis_unavailable", "outcome_unknown"), operation
        assert int(answer.headers["retry-after"]) >= 1
        codes[said["code"]] += 1
    longest = max(done, key=lambda each: each[2])
    took = sorted(each[2] for each in done)
    print(f"\n{how}: {len(done)} calls, {dict(codes)}: median {took[len(took) // 2]:.2f} s, longest {longest[2]:.2f} s")
    assert longest[2] < ANSWERS_WITHIN_S
    wait_until(lambda: away.get("/health/ready", token=None).status_code == 200, BACK_WITHIN_S, what="ready again")


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_work_goes_on_when_redis_is_back(away: Api, durable: ServerProcess, how: str) -> None:
    """A lease as long as the outage would be over at its end; it lives on, and its holder completes with its token."""
    token = away.admin
    enqueue(away, pool="held")
    lease_s = max(1.0, AWAY_S)
    waiting = _Waiters(away)
    wait_until(lambda: parked(away, token) == WAITERS, 20, what="the claims are parked")
    held = claim(away, pool="held", start=True, lease_seconds=lease_s)

    leave(durable, how)
    time.sleep(AWAY_S)
    come_back(durable, how)
    returned = time.monotonic()
    wait_until(lambda: _enqueued(away, "held"), BACK_WITHIN_S, what="requests work again")
    print(f"\n{how} for {AWAY_S:g} s: requests work {time.monotonic() - returned:.2f} s after the return")
    wait_until(lambda: away.get("/health/ready", token=None).status_code == 200, BACK_WITHIN_S, what="ready again")

    # Claims do the upkeep that would reap the lease; what they get is the other job.
    other = claim(away, agent_id="two", pool="held", start=True)
    assert other["id"] != held["id"]
    assert end(away, held, "success")["job"]["status"] == "COMPLETED"
    assert away.get(f"/api/queue/jobs/{held['id']}").json()["deliveries"] == 1
    end(away, other, "success")

    refused = len(waiting.answers)
    print(f"{how}: {refused} of {WAITERS} waiting claims were told, the others waited on")
    for answer in waiting.answers:
        assert int(problem(answer, 503, answer.json()["code"])["status"]) == 503
        assert answer.headers["retry-after"]
    waiting.again(refused)
    wait_until(lambda: parked(away, token) == WAITERS, 20, what="the claims are parked again")
    began = time.monotonic()
    made = {enqueue(away)["id"] for _ in range(WAITERS)}
    waiting.join()
    print(f"{how}: the waiting claims had their jobs {time.monotonic() - began:.3f} s after the enqueue began")
    assert {answer.json()["job"]["id"] for answer in waiting.answers[refused:]} == made


class _Waiters:
    """Claims that wait, each in a thread; `answers` in the order in which they came."""

    def __init__(self, api: Api) -> None:
        self._api, self._threads = api, list[threading.Thread]()
        self.answers: list[httpx2.Response] = []
        self.again(WAITERS)

    def again(self, count: int) -> None:
        for _ in range(count):
            body = {"agent_id": f"waiter-{len(self._threads)}", "wait_seconds": 50, "lease_seconds": 60}
            thread = threading.Thread(target=self._claim, args=(body,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _claim(self, body: dict[str, Any]) -> None:
        self.answers.append(self._api.post("/api/queue/claim", body))

    def join(self) -> None:
        for thread in self._threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in self._threads), "a claim waits on"


def _enqueued(api: Api, pool: str) -> bool:
    answer = api.post("/api/queue/jobs", {"pool": pool, "payload": None, "job_id": "after"})
    if answer.status_code == 503:
        return False
    assert answer.status_code in (200, 201), answer.text
    return True
