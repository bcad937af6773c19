"""The server is flushed, full of clients, or holds something else under our keys: each is told for what it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py

from hybridq import JobSpec, QueueLost, RedisUnavailable, SchemaMismatch, ScriptFailed
from tests.conformance.colours import COLOURS, opened
from tests.servers import wait_until


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def queue(colour: str, redis_url: str, namespace: str) -> Iterator[Any]:
    with opened(colour, "work", redis=redis_url, namespace=namespace, agent="ann") as queue:
        yield queue


def everything(redis: redis_py.Redis) -> dict[bytes, bytes]:
    return {key: redis.dump(key) for key in redis.scan_iter("*", count=1000)}


def test_a_flushed_queue_is_lost_to_every_verb_and_not_made_anew(queue: Any, redis: redis_py.Redis) -> None:
    queue.enqueue_many(JobSpec(job_id=f"j{n}") for n in range(3))
    [lease] = queue.claim(start=True)
    redis.flushall()

    for call in (
        lambda: queue.enqueue("t"),
        queue.claim,
        lambda: queue.claim(wait_s=5),
        lambda: queue.heartbeat([lease]),
        lambda: queue.complete(lease),
        lambda: queue.job("j0"),
        queue.jobs,
        queue.stats,
        queue.upkeep,
    ):
        with pytest.raises(QueueLost):
            call()
    assert 0 == redis.dbsize(), "nothing was written over what was lost"


def test_who_opens_a_flushed_queue_anew_begins_empty(
    queue: Any, colour: str, redis: redis_py.Redis, namespace: str
) -> None:
    queue.enqueue("t", job_id="j")
    redis.flushall()

    with opened(colour, "work", redis=queue.connector, namespace=namespace) as other:
        assert other.enqueue("t", job_id="j").created


def test_a_queue_of_another_version_is_left_alone(queue: Any, redis: redis_py.Redis) -> None:
    queue.enqueue("t")
    redis.hset(f"{queue.root}:meta", "schema", "999")
    before = everything(redis)

    for call in (lambda: queue.enqueue("t"), queue.claim, queue.upkeep):
        with pytest.raises(SchemaMismatch) as mismatch:
            call()
        assert "999" == mismatch.value.found
    assert before == everything(redis)
    redis.hset(f"{queue.root}:meta", "schema", "1")


@pytest.mark.breaks_keys
@pytest.mark.parametrize("verb", ["enqueue", "claim"])
@pytest.mark.parametrize(
    "family", ["leased", "ready:any", "scheduled:LOW", "all", "stats", "spec", "events", "finished"]
)
def test_something_else_under_our_key_stops_a_verb_before_it_writes(
    queue: Any, redis: redis_py.Redis, family: str, verb: str
) -> None:
    """Under any that it may write; what it leaves alone does not concern it."""
    queue.enqueue("t", job_id="j0")
    redis.delete(f"{queue.root}:{family}")
    redis.set(f"{queue.root}:{family}", "not ours")
    before = everything(redis)

    def call() -> object:
        return queue.enqueue("t", job_id="j1") if verb == "enqueue" else queue.claim()

    if (verb, family) in {("enqueue", "leased"), ("enqueue", "finished")}:
        assert call().created
        return
    with pytest.raises(ScriptFailed) as failed:
        call()

    assert "lua/" in failed.value.line
    assert before == everything(redis)
    redis.delete(f"{queue.root}:{family}")
    assert queue.enqueue("t", job_id="j2").created, "as soon as the key is free it works again"


def test_a_server_full_of_clients_is_unavailable_until_there_is_room(
    colour: str, redis_url: str, redis: redis_py.Redis, namespace: str
) -> None:
    before = redis.config_get("maxclients")["maxclients"]
    redis.ping()
    with contextlib.ExitStack() as stack:
        stack.callback(redis.config_set, "maxclients", before)
        redis.config_set("maxclients", len(redis.client_list()))
        queue = stack.enter_context(opened(colour, "work", redis=redis_url, namespace=namespace))

        for _ in range(5):
            with pytest.raises(RedisUnavailable):
                queue.stats()

        redis.config_set("maxclients", before)
        assert queue.enqueue("t", job_id="j").created
        assert 1 == queue.stats().enqueued_total


def test_a_paused_client_side_is_no_error_only_slow(queue: Any, redis: redis_py.Redis) -> None:
    """CLIENT PAUSE, as a managed failover does it: calls wait and then go through once."""
    queue.enqueue("t", job_id="before")
    redis.execute_command("CLIENT", "PAUSE", "300", "WRITE")

    assert queue.enqueue("t", job_id="j").created
    wait_until(lambda: queue.stats().queued == 2, 5)
