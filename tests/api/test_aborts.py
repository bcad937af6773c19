"""Claims whose client is gone: connections that end at random moments around the assignment of a job.

`HYBRIDQ_TEST_ABORTS` says how many; what was measured is printed (`pytest -s`).
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.api.client import Api
from tests.api.raw import Line, Reply, allow_open_files

ABORTS = int(os.environ.get("HYBRIDQ_TEST_ABORTS", "200"))
AT_ONCE = 20
LEASE_S = 1.0
SLACK_S = 4.0
"""Upkeep finds a lease that ended within a second or so; the rest is for machines that are busy."""
AROUND_S = 0.03
"""How far from the enqueue a claim is sent, or its connection ended, at most."""
WAITS_S = 20.0


@dataclass
class Told:
    """What became of the jobs, as clients saw it."""

    fences: dict[str, list[int]] = field(default_factory=dict)
    waited: dict[str, float] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)
    aborts: Counter[str] = field(default_factory=Counter)


async def test_a_connection_that_ends_around_the_assignment_strands_no_job(redis_url: str, namespace: str) -> None:
    """Each round: a claim that will be gone, a job, and a claim that keeps its word, all within milliseconds."""
    allow_open_files(1000)
    told = Told()
    with Api(redis_url, namespace, process=True) as api:
        rounds = [ABORTS // AT_ONCE + (place < ABORTS % AT_ONCE) for place in range(AT_ONCE)]
        began = time.monotonic()
        await asyncio.gather(*(_Pool(api, place, told).run(count) for place, count in enumerate(rounds)))
        took_s = time.monotonic() - began

        jobs = await asyncio.to_thread(lambda: [api.get(f"/api/queue/jobs/{id}").json() for id in told.fences])
        late = sorted(told.waited.values())
        print(
            f"\n{ABORTS} aborts in {took_s:.0f} s: {dict(told.aborts)}; jobs by deliveries: "
            f"{dict(Counter(job['deliveries'] for job in jobs))}; longest wait {late[-1]:.2f} s, "
            f"{sum(wait > LEASE_S / 2 for wait in late)} waited for a lease to end"
        )
        assert len(jobs) == ABORTS
        assert {job["status"] for job in jobs} == {"COMPLETED"}
        assert set(told.ended.values()) == {1}, "completed more than once"
        assert late[-1] < LEASE_S + SLACK_S
        for job in jobs:
            seen = told.fences[job["id"]]
            assert seen == sorted(set(seen)), (job["id"], seen)
            charged = [attempt["fence"] for attempt in job["attempts"]]
            assert charged == sorted(set(charged)), (job["id"], charged)
            assert (charged[-1], job["attempt"]) == (seen[-1], 1), job
        for place, count in enumerate(rounds):
            stats = api.get("/api/queue/stats", params={"pool": f"p{place}"}).json()
            assert (stats["completed"], stats["dead_lettered"], stats["claimed"]) == (count, 0, 0)


class _Pool:
    """The rounds of one pool, one after the other."""

    def __init__(self, api: Api, place: int, told: Told) -> None:
        self._api, self._told, self._name = api, told, f"p{place}"
        self._draw = random.Random(f"aborts {place}")

    async def run(self, rounds: int) -> None:
        async with Line(self._api.port) as enqueuer, Line(self._api.port) as keeper:
            for number in range(rounds):
                await self._round(enqueuer, keeper, number)

    async def _round(self, enqueuer: Line, keeper: Line, number: int) -> None:
        gone, enqueued, kept = self._draw.uniform(0, 2 * AROUND_S), self._draw.uniform(0, AROUND_S), None
        if self._draw.random() < 0.5:
            kept = self._draw.uniform(0, 2 * AROUND_S)  # parked along with the one that goes: next in line
        leaving = asyncio.create_task(self._leave(number, gone))
        keeping = None if kept is None else asyncio.create_task(self._keep(keeper, kept))
        await asyncio.sleep(enqueued)
        began = time.monotonic()
        made = await enqueuer.ask("POST", "/api/queue/jobs", {"pool": self._name, "payload": number}, self._api.admin)
        assert made.status == 201, made.body
        id = made.document["id"]
        received = await leaving
        claimed, at = await (keeping or self._keep(keeper, 0.0))
        assert claimed.status == 200, (id, claimed.status, claimed.body)
        job = claimed.document["job"]
        assert job["id"] == id
        if received is not None:
            assert received["id"] == id
        fences = [] if received is None else [received["fence"]]
        self._told.fences[id] = [*fences, job["fence"]]
        self._told.waited[id] = at - began
        # Whoever has the answer has the lease, and nobody else while it lasts.
        assert received is None or at - began >= LEASE_S, (id, at - began)
        await self._complete(keeper, job)

    async def _leave(self, number: int, after_s: float) -> dict[str, Any] | None:
        """Claim, end the connection after so many seconds, and return the job when it arrived before that."""
        line = Line(self._api.port)
        await line.__aenter__()
        body = {"agent_id": f"leaver-{number}", "pool": self._name, "wait_seconds": WAITS_S, "lease_seconds": LEASE_S}
        await line.send("POST", "/api/queue/claim", body, self._api.admin)
        arriving = asyncio.create_task(line.reply())
        await asyncio.wait([arriving], timeout=after_s)
        received = arriving.result() if arriving.done() else None
        arriving.cancel()
        await asyncio.wait([arriving])
        how = self._draw.choice(("FIN", "RST"))
        await (line.close() if how == "FIN" else line.reset())
        self._told.aborts[f"{how} {'before' if received is None else 'after'} the answer"] += 1
        if received is None:
            return None
        assert received.status == 200, received.body
        return dict(received.document["job"])

    async def _keep(self, line: Line, after_s: float) -> tuple[Reply, float]:
        await asyncio.sleep(after_s)
        body = {"agent_id": "keeper", "pool": self._name, "wait_seconds": WAITS_S, "lease_seconds": 60, "start": True}
        reply = await line.ask("POST", "/api/queue/claim", body, self._api.admin)
        return reply, time.monotonic()

    async def _complete(self, line: Line, job: dict[str, Any]) -> None:
        body = {"lease_token": job["lease_token"], "outcome": "success"}
        done = await line.ask("POST", f"/api/queue/jobs/{job['id']}/complete", body, self._api.admin)
        assert (done.status, done.document["replayed"]) == (200, False), done.body
        self._told.ended[job["id"]] += 1
