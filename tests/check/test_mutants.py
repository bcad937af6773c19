"""Is the check of use? Scripts are made wrong one line at a time; what goes wrong by it, the check has to see.

Each mutant runs the same day of a queue: every verb, every way out of a lease, in a time of its own. The day's
history and the keyspace it leaves are checked together.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from hybridq import check, scripts
from hybridq.check import Recorder
from hybridq.client import Queue
from hybridq.errors import HybridqError
from hybridq.job import Lease

MUTANTS = {
    "a lease is taken for current whatever its fence": (
        "lib/lease.lua",
        "tonumber(job.fence) ~= e.fence or job.lease_id ~= e.lease_id",
        "false",
    ),
    "a job stays in its agent's held set": ("lib/move.lua", "call('ZREM', k_held .. job.agent, id)", ""),
    "a job stays among the leases": ("lib/move.lua", "call('ZREM', k_leased, id)", ""),
    "a job stays in its lane": ("lib/move.lua", "call('ZREM', k_ready .. job.lane, id)", ""),
    "a lease leaves its id behind": ("lib/move.lua", "'agent', 'lease_id', 'lease_ms'", "'agent', 'lease_ms'"),
    "the gauge of running jobs only grows": ("lib/move.lua", "count('running', -1)", ""),
    "every job gets the same order": ("lib/move.lua", "keep('order', order)", ""),
    "the bands are upside down": (
        "lib/move.lua",
        "{CRITICAL = 0, HIGH = 1, NORMAL = 2, LOW = 3}",
        "{CRITICAL = 3, HIGH = 2, NORMAL = 1, LOW = 0}",
    ),
    "an ended job keeps its unique key": ("lib/move.lua", "call('HDEL', k_unique, job.unique)", ""),
    "a fence is the time alone": ("claim.lua", "math.max(meta.fence + 1, now * 2048)", "now * 2048"),
    "the last fence is forgotten": ("claim.lua", "keep('fence', fence)", ""),
    "a repeated claim takes new jobs": ("claim.lua", "again(e) or {}", "{} or {}"),
    "a known job id is enqueued anew": ("enqueue.lua", "  if status then\n    return", "  if false then\n    return"),
    "an enqueue is not counted": ("enqueue.lua", "count('enqueued', 1)", ""),
    "a start is not charged": ("start.lua", "int(job.attempt) + 1", "int(job.attempt)"),
    "a failed job is tried for ever": (
        "complete.lua",
        "elseif spent < int(job.max_attempts or 3) then",
        "elseif true then",
    ),
    "a report leaves no trace in the history": ("complete.lua", "call('HSET', k_result, id, history)", ""),
    "a retry does not wait": ("complete.lua", "at_ms = now + wait_ms", "at_ms = now"),
    "a delay is forgotten": ("enqueue.lua", "now + e.delay_ms", "now"),
    "a replay stays in its generation": ("replay.lua", "int(job.generation) + 1", "int(job.generation)"),
    "erased jobs stay listed": ("lib/erase.lua", "call('ZREM', k_all, unpack(ids))", ""),
    "erased jobs leave their spec": ("lib/erase.lua", "call('HDEL', k_spec, unpack(ids))", ""),
    "erased jobs are not counted": ("lib/erase.lua", "count('pruned', #ids)", ""),
    "tombstones are not listed by age": ("lib/upkeep.lua", "call('RPUSH', k_tombs_by_age, unpack(names))", ""),
    "another priority does not move a waiting job": ("reprioritise.lua", "BAND[e.priority]", "BAND[job.priority]"),
}


@pytest.fixture
def lua(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the Lua sources that the library runs instead of its own."""
    copy = tmp_path / "lua"
    shutil.copytree(scripts.locate(), copy)
    monkeypatch.setattr(scripts, "locate", lambda: copy)
    scripts.load.cache_clear()
    yield copy
    scripts.load.cache_clear()


@pytest.fixture
def day(redis_url: str, namespace: str) -> Iterator[Day]:
    with Queue("demo", redis=redis_url, namespace=namespace, agent="a1") as queue:
        yield Day(queue)


@pytest.mark.breaks_keys
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_seen(mutant: str, lua: Path, day: Day, redis: redis_py.Redis) -> None:
    file, right, wrong = MUTANTS[mutant]
    text = (lua / file).read_text()
    assert right in text, f"{file} no longer reads {right!r}"
    (lua / file).write_text(text.replace(right, wrong))
    day.live()
    assert day.violations(redis)


def test_the_scripts_as_they_are_keep_every_promise(day: Day, redis: redis_py.Redis) -> None:
    day.live()
    assert day.violations(redis) == ()


class Day:
    """One client's day, told to a recorder. Time stands still but for `pass_s`."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self._ns = 1_700_000_000_000_000_000
        self._requests = itertools.count()
        self.recorder = Recorder(clock=self._tick)
        queue._now_ms = self._ns // 1_000_000

    def _tick(self) -> int:
        self._ns += 1
        return self._ns

    def pass_s(self, seconds: float) -> None:
        """Let time pass in steps that are too short to be taken for an outage."""
        for _ in range(max(1, round(seconds / 0.4))):
            self._ns += round(min(0.4, seconds) * 1e9)
            self.queue._now_ms = self._ns // 1_000_000
            self.queue.upkeep()

    def violations(self, redis: redis_py.Redis) -> tuple[check.Violation, ...]:
        """What the history and the keyspace show together."""
        history = check.history(self.recorder.events)
        kept = check.keyspace(redis, self.queue.namespace, now_ms=self.queue._now_ms)
        return history.violations + kept.violations

    def call(self, op: str, do: Callable[..., Any], *positional: Any, said: dict[str, Any], **args: Any) -> Any:
        """Make one call and record it; None when the library refused it."""
        try:
            with self.recorder.call(op, proc="a1", queue="demo", **said, **args) as call:
                answer = do(*positional, **args)
                call.ok(answer)
                return answer
        except HybridqError:
            return None

    def enqueue(self, job_id: str, **args: Any) -> None:
        args = {"payload": {"for": job_id}, "job_id": job_id} | args
        self.call("enqueue", self.queue.enqueue, "work", said={"type": "work"}, **args)

    def claim(self, n: int = 1, **args: Any) -> list[Lease]:
        args = {"request_id": f"r{next(self._requests)}"} | args
        return self.call("claim", self.queue.claim, said={"agent": "a1"}, n=n, **args) or []

    def on(self, op: str, lease: Lease, **args: Any) -> Any:
        """Make a call of the lease's holder."""
        said: dict[str, Any] = {"leases": [lease]} if op == "heartbeat" else {"lease": lease}
        first = [lease] if op == "heartbeat" else lease
        return self.call(op, getattr(self.queue, op), first, said=said, **args)

    def live(self) -> None:
        """Do everything a queue is for. Whatever goes wrong on the way is for the check to see."""
        for part in (self._order, self._ends, self._losses, self._orders, self._retention):
            part()
        with self.recorder.call("inventory", proc="a1", queue="demo") as call:
            call.ok({job.job_id: job.status for job in self.queue.jobs(limit=200).items})

    def _order(self) -> None:
        for name, priority in (("low", "LOW"), ("first", "NORMAL"), ("second", "NORMAL"), ("urgent", "CRITICAL")):
            self.enqueue(name, priority=priority)
        self.enqueue("low", priority="LOW")
        self.enqueue("later", delay_s=30)
        self.pass_s(2)
        for lease in [*self.claim(), *self.claim(2), *self.claim()]:
            self.on("start", lease)
            self.on("complete", lease)
            self.on("complete", lease)
        self.pass_s(30)
        for lease in self.claim(start=True, request_id="again"):
            self.enqueue("tempting")
            for same in self.claim(request_id="again", start=True):
                self.on("heartbeat", same)
            self.on("heartbeat", lease)
            self.on("complete", lease)
        for lease in self.claim():
            self.on("release", lease)
        for lease in self.claim():
            self.on("fail", self.on("start", lease) or lease, retryable=False)

    def _ends(self) -> None:
        self.enqueue("stubborn", max_attempts=2)
        for _ in range(3):
            for lease in self.claim():
                self.on("fail", self.on("start", lease) or lease, error="broken", delay_s=10)
            self.pass_s(1)
            for lease in self.claim():  # its backoff is not over, so there is nothing
                self.on("release", lease)
            self.pass_s(11)

    def _losses(self) -> None:
        self.enqueue("lost")
        for lost in self.claim(start=True, lease_s=2):
            self.on("heartbeat", lost)
            self.pass_s(3)
            for found in self.claim(start=True):
                self.on("heartbeat", lost)
                self.on("complete", lost, result="late")
                self.on("complete", found, result="in time")
        self.call("job", self.queue.job, said={}, job_id="lost")

    def _orders(self) -> None:
        self.enqueue("keyed", unique="key")
        self.call("cancel", self.queue.cancel, said={}, job_id="keyed")
        self.enqueue("calm", priority="LOW")
        self.call("reprioritise", self.queue.reprioritise, said={}, job_id="calm", priority="HIGH")
        self.call("replay", self.queue.dead.replay, said={}, job_ids=["stubborn"])
        for lease in self.claim(2):
            self.on("start", lease)
            self.call("cancel", self.queue.cancel, said={}, job_id=lease.job_id)
            self.on("fail", lease)
        self.enqueue("waiting", unique="key-2")
        self.call("reprioritise", self.queue.reprioritise, said={}, job_id="waiting", priority="HIGH")

    def _retention(self) -> None:
        self.queue.configure(retention_count=2)
        self.pass_s(1)
        self.enqueue("first")
