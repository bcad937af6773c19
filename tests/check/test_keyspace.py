"""A sound keyspace passes the check; one that is broken on purpose is found out, by the right invariant."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import msgspec
import pytest
import redis as redis_py

from hybridq import check
from hybridq.client import Queue
from hybridq.connect import Connector
from hybridq.errors import HybridqError, InvalidArgument
from hybridq.job import JobSpec
from hybridq.testing import FakeConnector
from tests import servers
from tests.check.breaks import CASES, Case
from tests.check.conftest import Shop

pytestmark = pytest.mark.breaks_keys


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.sentence)
def test_a_keyspace_broken_on_purpose_is_found_out(case: Case, shop: Shop) -> None:
    case.do(shop)
    report = check.keyspace(shop.redis, shop.queue.namespace)
    assert {violation.invariant for violation in report.violations} == case.invariants, report.violations
    assert case.job_id in {violation.job_id for violation in report.violations}
    with pytest.raises(check.InvariantBroken, match=r"invariant \d+"):
        report.raise_if_broken()


def test_a_queue_with_a_job_of_every_kind_is_sound(shop: Shop) -> None:
    report = check.keyspace(shop.redis, shop.queue.namespace)
    report.raise_if_broken()
    assert report.ok
    assert (report.jobs, report.queues) == (10, ("demo",))


def test_a_namespace_without_keys_is_sound(redis: redis_py.Redis, namespace: str) -> None:
    assert check.keyspace(redis, namespace) == check.Report(violations=(), jobs=0, queues=())


def test_another_namespace_does_not_count(shop: Shop) -> None:
    with Queue("demo", redis=shop.queue.connector, namespace=shop.queue.namespace + "-b") as other:
        other.enqueue("work", job_id="theirs")
        shop.redis.zrem(f"{other.root}:ready:any", "theirs")
        assert check.keyspace(shop.redis, shop.queue.namespace).ok
        assert not check.keyspace(shop.redis, other.namespace).ok


def test_one_queue_of_a_namespace_can_be_checked_alone(shop: Shop) -> None:
    with Queue("other", redis=shop.queue.connector, namespace=shop.queue.namespace) as other:
        other.enqueue("work", job_id="theirs")
    shop.redis.zrem(shop.key("ready:any"), "queued")
    assert check.keyspace(shop.redis, shop.queue.namespace, "other").ok
    assert check.keyspace(shop.redis, shop.queue.namespace, "demo").queues == ("demo",)
    assert not check.keyspace(shop.redis, shop.queue.namespace, "demo").ok


def test_the_keys_of_the_fleet_are_not_those_of_a_queue(shop: Shop) -> None:
    shop.redis.hset(f"hq:{{{shop.queue.namespace}/sys/fleet}}:agents", "agent-1", "{}")
    assert check.keyspace(shop.redis, shop.queue.namespace).ok


def test_a_history_of_more_leases_than_are_kept_is_sound(queue: Queue, redis: redis_py.Redis) -> None:
    queue.enqueue("work", job_id="restless")
    for _ in range(34):
        [lease] = queue.claim()
        queue.start(lease)
        queue.release(lease)
    check.keyspace(redis, queue.namespace).raise_if_broken()
    assert redis.hget(f"{queue.root}:job:restless", "ended") == b"34"


def test_a_note_of_a_late_completion_is_part_of_a_history(queue: Queue, redis: redis_py.Redis) -> None:
    queue._now_ms = 1_700_000_000_000
    queue.enqueue("work", job_id="slow")
    [lease] = queue.claim(start=True, lease_s=1)
    queue.heartbeat([lease])
    for _ in range(4):  # many short steps, so that the silence is not taken for an outage
        queue._now_ms += 400
        queue.upkeep()
    with pytest.raises(HybridqError, match="no longer current"):
        queue.complete(lease)
    assert queue.job("slow").attempts[0].late is not None
    check.keyspace(redis, queue.namespace, now_ms=queue._now_ms).raise_if_broken()


def test_deadlines_are_judged_by_the_time_that_is_given(queue: Queue, redis: redis_py.Redis) -> None:
    queue._now_ms = 4_000_000_000_000
    queue.enqueue("work")
    queue.claim()
    assert {v.invariant for v in check.keyspace(redis, queue.namespace).violations} == {14}
    assert check.keyspace(redis, queue.namespace, now_ms=queue._now_ms).ok


def test_more_jobs_than_a_page_are_all_read(queue: Queue, redis: redis_py.Redis) -> None:
    queue.enqueue_many(JobSpec(job_id=f"job-{n}", payload="x" * 20_000) for n in range(1_203))
    redis.hdel(f"{queue.root}:spec", "job-777")
    report = check.keyspace(redis, queue.namespace)
    assert report.jobs == 1_203
    assert [(violation.invariant, violation.job_id) for violation in report.violations] == [(9, "job-777")]


def test_one_violation_does_not_hide_another(shop: Shop) -> None:
    """A job that is looked at twice, for a held set it has no business in, must not make up for a spec too many."""
    shop.redis.zadd(shop.key("held:agent-2"), {"claimed": 1})
    shop.redis.hset(shop.key("spec"), "erased", b"{}\nnull")
    report = check.keyspace(shop.redis, shop.queue.namespace)
    assert {(violation.invariant, violation.job_id) for violation in report.violations} == {
        (2, "claimed"),
        (1, "erased"),
    }
    assert report.jobs == 10


def test_of_many_violations_the_first_thousand_are_kept(queue: Queue, redis: redis_py.Redis) -> None:
    queue.enqueue_many(JobSpec() for _ in range(1_100))
    redis.delete(f"{queue.root}:ready:any")
    report = check.keyspace(redis, queue.namespace)
    assert (len(report.violations), report.dropped) == (1_000, 100)
    with pytest.raises(check.InvariantBroken, match=r"(?s)^1100 violation\(s\).*and 1080 more$"):
        report.raise_if_broken()


def test_a_client_that_answers_in_text_is_refused(redis_url: str, namespace: str) -> None:
    with redis_py.Redis.from_url(redis_url, decode_responses=True) as client:
        with pytest.raises(InvalidArgument, match="decode_responses"):
            check.keyspace(client, namespace)


def test_a_report_is_plain_data(shop: Shop) -> None:
    shop.redis.zrem(shop.key("ready:any"), "queued")
    report = check.keyspace(shop.redis, shop.queue.namespace)
    assert msgspec.json.decode(msgspec.json.encode(report), type=check.Report) == report
    [violation] = report.violations
    assert violation.rule == check.INVARIANTS[1]
    assert str(violation) == (
        "invariant 1 (each job is in exactly the index its status names): queue demo, job queued: "
        "it is QUEUED and is not in ready:any"
    )


def test_a_busy_queue_raises_no_false_alarm(queue: Queue, redis: redis_py.Redis) -> None:
    """Four clients churn through jobs of every fate while the check runs again and again."""
    stop = threading.Event()
    problems: list[BaseException] = []

    def churn(number: int) -> None:
        try:
            with Queue("demo", redis=queue.connector, namespace=queue.namespace, agent=f"agent-{number}") as mine:
                mine.configure(retention_count=20)
                for turn in _until(stop):
                    _live(mine, turn)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        reports = [check.keyspace(redis, queue.namespace) for _ in range(12)]
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert problems == []
    for report in reports:
        report.raise_if_broken()
    check.keyspace(redis, queue.namespace).raise_if_broken()
    assert queue.stats().completed_total > 20


def _until(stop: threading.Event) -> Iterator[int]:
    turn = 0
    while not stop.is_set():
        yield turn
        turn += 1


def _live(queue: Queue, turn: int) -> None:
    """Enqueue three jobs, claim up to three, and end each another way."""
    specs = [JobSpec(unique=f"key-{turn % 5}"), JobSpec(delay_s=0.01 * (turn % 3)), JobSpec(max_attempts=1)]
    queue.enqueue_many(specs)
    for place, lease in enumerate(queue.claim(3, start=turn % 2 == 0)):
        if place == 2:
            queue.release(lease)
        elif turn % 4 == 3:
            queue.fail(queue.start(lease), "broken", delay_s=0.01)
        else:
            queue.complete(queue.start(lease), {"turn": turn})


def test_fakeredis_can_be_checked(namespace: str) -> None:
    connector = FakeConnector()
    with Queue("demo", redis=connector, namespace=namespace, agent="agent-1") as queue:
        queue.enqueue("work", job_id="done", unique="one")
        [lease] = queue.claim(start=True)
        queue.complete(lease, 1)
        queue.enqueue("work", job_id="next", unique="one")
        client = connector.sync()
        assert check.keyspace(client, namespace).ok
        client.zrem(f"{queue.root}:ready:any", "next")
        assert [violation.job_id for violation in check.keyspace(client, namespace).violations] == ["next"]


def test_a_cluster_is_checked_on_all_its_nodes(namespace: str) -> None:
    with servers.Cluster() as cluster:
        connector = Connector.parse(cluster.url)
        queues = [Queue(f"q{n}", redis=connector, namespace=namespace, agent="agent-1") for n in range(4)]
        for queue in queues:
            queue.enqueue("work", job_id="done")
            queue.complete(*queue.claim(start=True))
            queue.enqueue("work", job_id="held")
            queue.claim()
            queue.enqueue("work", job_id="next", unique="one")
        client = connector.sync()
        report = check.keyspace(client, namespace)
        assert (report.ok, report.jobs, report.queues) == (True, 12, ("q0", "q1", "q2", "q3")), report.violations
        client.zrem(f"{queues[2].root}:held:agent-1", "held")
        broken = check.keyspace(client, namespace).violations
        assert [(violation.queue, violation.invariant, violation.job_id) for violation in broken] == [("q2", 2, "held")]
        for queue in queues:
            queue.close()
        client.close()
