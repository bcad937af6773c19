"""Processes end between two steps, and several do the same at once: no lease is stranded, none taken twice."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py

from hybridq import AgentStatus, EntryInDoubt, Fleet, JobStatus, Queue, SessionSuperseded
from hybridq.keys import fleet_root, queue_root
from hybridq.ops import fleet as ops

BOOT = "boot-1"
LATER_MS = 5_000
"""After so long somebody else tells a queue what its agent's own process did not."""


class Steps:
    """A fleet of which single steps can be taken by hand, in virtual time."""

    def __init__(self, url: str, namespace: str) -> None:
        self.namespace = namespace
        self.fleet = Fleet(redis=url, namespace=namespace)
        self.queues = {name: Queue(name, redis=url, namespace=namespace) for name in ("builds", "other")}
        self.now_ms = time.time_ns() // 1_000_000
        self.move(0)

    def move(self, ms: int) -> None:
        self.now_ms += ms
        for one in (self.fleet, *self.queues.values()):
            one._now_ms = self.now_ms

    def register(self, boot_id: str = BOOT, pool: str = "builds") -> Any:
        return self.fleet.register("one", pool=pool, boot_id=boot_id, capacity=99)

    def begin(self, boot_id: str, pool: str = "builds") -> ops.Begun:
        """The first step of registering, and then nothing: the process ended."""
        call = ops.register(
            self.namespace, "one", pool=pool, boot_id=boot_id, session_id="f" * 32, capacity=99, now_ms=self.now_ms
        )
        return self.fleet._run(call)

    def tell(self, pool: str, generation: int, capacity: int = 99) -> Any:
        """The second step: the queue is told."""
        told = ops.enlist(
            self.fleet._queue(pool),
            "one",
            generation=generation,
            capacity=capacity,
            free="supersede",
            now_ms=self.now_ms,
        )
        return self.fleet._run(told)

    def claimed(self, session: Any, n: int = 1, pool: str = "builds") -> list[Any]:
        queue = self.queues[pool]
        for number in range(n):
            queue.enqueue("build", job_id=f"{pool}-{session.generation}-{number}")
        leases = []
        while len(leases) < n:
            leases += queue.claim(min(50, n), agent="one", generation=session.generation, lease_s=3600, start=True)
        return leases


@pytest.fixture
def steps(redis_url: str, namespace: str) -> Iterator[Steps]:
    made = Steps(redis_url, namespace)
    yield made
    made.fleet.close()
    for queue in made.queues.values():
        queue.close()


@pytest.mark.parametrize("told", [False, True])
def test_a_registration_that_ended_half_way_is_finished_by_its_repetition(steps: Steps, told: bool) -> None:
    [lease] = steps.claimed(steps.register())
    begun = steps.begin("boot-2")
    if told:
        assert steps.tell("builds", begun.generation) == (1, False)
    again = steps.register("boot-2")

    assert (again.session_id, again.generation, again.created) == ("f" * 32, begun.generation, False)
    assert again.freed == (0 if told else 1)
    assert steps.queues["builds"].job(lease.job_id).status is JobStatus.QUEUED
    assert steps.claimed(again)


@pytest.mark.parametrize("told", [(), ("other",), ("other", "builds")])
def test_a_move_that_ended_half_way_is_finished_by_its_repetition(steps: Steps, told: tuple[str, ...]) -> None:
    [lease] = steps.claimed(steps.register())
    begun = steps.begin("boot-2", pool="other")
    for pool in told:
        steps.tell(pool, begun.generation, capacity=99 if pool == "other" else 0)
    again = steps.register("boot-2", pool="other")

    assert again.freed == (0 if "builds" in told else 1)
    assert steps.queues["builds"].job(lease.job_id).status is JobStatus.QUEUED
    assert steps.claimed(again, pool="other")


@pytest.mark.parametrize("pool", ["builds", "other"])
def test_a_registration_that_nobody_repeats_is_finished_by_whoever_looks_after_the_fleet(
    steps: Steps, pool: str
) -> None:
    first = steps.register()
    [lease] = steps.claimed(first)
    steps.begin("boot-2", pool=pool)
    assert steps.fleet.free_lost() == 0
    assert steps.queues["builds"].job(lease.job_id).status is JobStatus.RUNNING
    steps.move(LATER_MS)

    assert steps.fleet.free_lost() >= 1
    assert steps.queues["builds"].job(lease.job_id).status is JobStatus.QUEUED
    with pytest.raises(SessionSuperseded):
        steps.queues["builds"].claim(agent="one", generation=first.generation)
    assert steps.fleet.free_lost() == 0


def test_an_end_that_ended_half_way_is_finished_by_whoever_looks_after_the_fleet(steps: Steps) -> None:
    [lease] = steps.claimed(steps.register())
    steps.fleet._run(ops.deregister(steps.namespace, "one", now_ms=steps.now_ms))
    steps.move(LATER_MS)
    steps.fleet.free_lost()

    assert steps.queues["builds"].job(lease.job_id).status is JobStatus.QUEUED
    assert steps.fleet.agent("one").status is AgentStatus.TERMINATED


def test_a_drain_that_ended_half_way_is_finished_by_the_next_beat(steps: Steps) -> None:
    session = steps.register()
    steps.fleet._run(ops.steer(steps.namespace, "one", draining=True, now_ms=steps.now_ms))
    [known] = steps.fleet._run(ops.figures(queue_root(steps.namespace, "builds"), ["one"]))
    assert known.standing == (session.generation, 99, False)

    assert steps.fleet.beat("one", session.session_id).drain is True
    [known] = steps.fleet._run(ops.figures(queue_root(steps.namespace, "builds"), ["one"]))
    assert known.standing == (session.generation, 99, True)


def test_who_took_a_debt_and_ended_leaves_it_to_the_next(steps: Steps) -> None:
    [lease] = steps.claimed(steps.register())
    steps.fleet._run(ops.deregister(steps.namespace, "one", now_ms=steps.now_ms))
    steps.move(LATER_MS)
    debts, _more = steps.fleet._run(ops.lost(steps.namespace, now_ms=steps.now_ms))
    assert len(debts) == 1
    assert steps.fleet.free_lost() == 0
    steps.move(LATER_MS)
    assert steps.fleet.free_lost() == 1

    assert steps.queues["builds"].job(lease.job_id).status is JobStatus.QUEUED


@pytest.mark.breaks_keys
def test_what_is_wrong_with_one_pool_does_not_keep_the_leases_of_another(steps: Steps, redis: redis_py.Redis) -> None:
    steps.fleet.register("broken", pool="other", boot_id=BOOT)
    [lease] = steps.claimed(steps.register())
    redis.delete(f"{queue_root(steps.namespace, 'other')}:agent:broken")
    redis.set(f"{queue_root(steps.namespace, 'other')}:agent:broken", "foreign")
    for agent in ("broken", "one"):
        steps.fleet._run(ops.deregister(steps.namespace, agent, now_ms=steps.now_ms))
    steps.move(LATER_MS)

    with pytest.raises(EntryInDoubt):
        steps.fleet.free_lost()
    assert steps.queues["builds"].job(lease.job_id).status is JobStatus.QUEUED
    assert redis.zcard(f"{fleet_root(steps.namespace)}:owed") == 1


def test_a_late_word_of_an_older_session_is_not_taken(steps: Steps) -> None:
    """The process that registered boot-2 was held up, and speaks after boot-3 has registered and claimed."""
    steps.register()
    begun = steps.begin("boot-2")
    third = steps.register("boot-3")
    leases = steps.claimed(third)

    assert steps.tell("builds", begun.generation) is None
    assert steps.queues["builds"].complete(leases[0]).status is JobStatus.COMPLETED


def test_a_boot_that_was_superseded_while_it_registered_is_told_so(steps: Steps) -> None:
    steps.register()
    flow = steps.fleet._register("one", pool="builds", boot_id="boot-2", capacity=1)
    answer = steps.fleet._run(next(flow))
    steps.register("boot-3")

    with pytest.raises(SessionSuperseded):
        while True:
            answer = steps.fleet._run(flow.send(answer))


LOOK_AFTER = """
    import sys, time
    from hybridq import Fleet
    url, namespace, now_ms = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with Fleet(redis=url, namespace=namespace) as fleet:
        fleet._now_ms = now_ms
        print("ready", flush=True)
        sys.stdin.readline()
        while fleet.free_lost():
            pass
"""


def test_five_processes_free_the_leases_of_the_lost_once(steps: Steps, redis_url: str, redis: redis_py.Redis) -> None:
    """Sixty agents fall silent with three jobs each; five processes look after the fleet at the same moment."""
    builds = steps.queues["builds"]
    for number in range(60):
        session = steps.fleet.register(f"agent-{number}", pool="builds", boot_id=BOOT, capacity=3)
        for job in range(3):
            builds.enqueue("build", job_id=f"{number}-{job}")
        leases = builds.claim(3, agent=session.agent_id, generation=session.generation, lease_s=3600, start=True)
        builds.heartbeat(leases)
    for _ in range(16):
        steps.move(4_000)
        steps.fleet._run(ops.scale(steps.namespace, "builds", target=1, now_ms=steps.now_ms))

    command = [sys.executable, "-c", textwrap.dedent(LOOK_AFTER), redis_url, steps.namespace, str(steps.now_ms)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(5)]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.close()
        assert [process.wait(60) for process in processes] == [0] * 5
    finally:
        for process in processes:
            process.kill()
            assert process.stdout is not None
            process.stdout.close()
            process.wait()

    stats = builds.stats()
    assert (stats.lost_leases_total, stats.queued, stats.running) == (180, 180, 0)
    assert steps.fleet.counts()[AgentStatus.OFFLINE] == 60
    assert redis.zcard(f"{fleet_root(steps.namespace)}:owed") == 0
    # An entry may hold several events of one kind, which redis-py's own reading would make one.
    script = "return redis.call('XRANGE', KEYS[1], '-', '+')"
    events: Any = redis.eval(script, 1, f"{fleet_root(steps.namespace)}:events")
    assert sum(fields.count(b"agent.offline") for _, fields in events) == 60
