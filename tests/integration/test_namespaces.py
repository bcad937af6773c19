"""Nothing of one namespace is seen from another, or changed by it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import redis as redis_py
from redis.crc import key_slot

from hybridq import JobNotFound, JobSpec, StaleLease, check
from tests.integration.conftest import Open


def everything_is_done_to(queue: Any) -> None:
    """Use every verb that writes."""
    queue.configure(max_queued=100, retention_count=2)
    queue.enqueue_many(JobSpec(job_id=f"j{n}", max_attempts=1, unique=f"u{n}") for n in range(12))
    queue.enqueue("t", delay_s=60)
    first, second, third, fourth = queue.claim(4)
    queue.heartbeat([first, second])
    queue.complete(queue.start(first), "a")
    queue.fail(queue.start(second))
    queue.release(third)
    queue.cancel("j7")
    queue.cancel(fourth.job_id)
    queue.reprioritise("j8", "CRITICAL")
    queue.retry("j7")
    queue.dead.replay(all=True)
    queue.pause("why")
    queue.resume()
    queue.fail(queue.claim(start=True)[0])
    queue.dead.purge(all=True)
    queue.upkeep()
    queue.stats()
    queue.jobs()


def dump(redis: redis_py.Redis, pattern: str) -> dict[bytes, bytes]:
    return {key: redis.dump(key) for key in sorted(redis.scan_iter(pattern, count=1000))}


@pytest.mark.parametrize("other", [{"namespace": "elsewhere"}, {"name": "other"}])
def test_a_queue_is_untouched_by_what_is_done_to_another(
    open_queue: Open, redis: redis_py.Redis, namespace: str, other: dict[str, str]
) -> None:
    mine, theirs = open_queue(), open_queue(**other)
    everything_is_done_to(theirs)
    before = dump(redis, f"{theirs.root}*")
    assert len(before) > 8

    everything_is_done_to(mine)

    assert before == dump(redis, f"{theirs.root}*")
    for queue in (mine, theirs):
        check.keyspace(redis, queue.namespace).raise_if_broken()


def test_all_keys_of_a_queue_begin_with_its_root(queue: Any, redis: redis_py.Redis) -> None:
    everything_is_done_to(queue)

    known = f"hq:{{{queue.namespace}/sys/queues}}:"
    keys = [key.decode() for key in redis.scan_iter("*", count=1000) if not key.decode().startswith(known)]
    assert keys
    assert all(key.startswith(f"{queue.root}:") for key in keys)
    assert {queue.root.partition("{")[2].rstrip("}")} == {re.findall(r"\{(.*?)\}", key)[0] for key in keys}
    assert 1 == len({key_slot(key.encode()) for key in keys}), "one slot"


def test_nobody_reaches_into_another_namespace_with_an_id_or_a_lease(open_queue: Open) -> None:
    mine, theirs = open_queue(), open_queue(namespace="elsewhere")
    theirs.enqueue("t", "secret", job_id="j")
    [lease] = theirs.claim(start=True)
    mine.upkeep()

    for call in (mine.job, mine.cancel, mine.retry, lambda job_id: mine.reprioritise(job_id, "LOW")):
        with pytest.raises(JobNotFound):
            call("j")
    for use in (mine.start, mine.complete, mine.fail, mine.release):
        with pytest.raises((JobNotFound, StaleLease)):
            use(lease)
    assert {"j": "not_found"} == mine.heartbeat([lease]).lost
    assert () == mine.jobs().items == mine.dead.list().items
    assert (0, 0) == (mine.stats().enqueued_total, mine.stats().running)
    assert lease.job_id == theirs.complete(lease).job_id


def test_a_namespace_whose_name_begins_like_another_is_another(open_queue: Open, redis: redis_py.Redis) -> None:
    one, other = open_queue(namespace="team"), open_queue(namespace="team2")
    one.enqueue("t", job_id="j")
    other.enqueue("t", job_id="k")

    assert ["j"] == [job.job_id for job in one.jobs().items]
    assert 1 == check.keyspace(redis, "team").jobs == check.keyspace(redis, "team2").jobs
