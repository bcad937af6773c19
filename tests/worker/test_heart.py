"""The heart renews leases from a thread of its own, and gives them up by its own clock."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest
import redis as redis_py

from hybridq import CancelRequest, Connector, Lease, Queue
from hybridq import heart as heart_module
from hybridq.heart import Heart, boottime, heart_of
from tests.proxy import Proxy
from tests.servers import ServerProcess, wait_until
from tests.worker.conftest import LEASE_S


class Holder:
    """Somebody who put a lease into the heart's care, and what the heart told them."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.cancelled: list[CancelRequest] = []
        self.lost_at = 0.0

    def on_lost(self, reason: str) -> None:
        self.lost_at = boottime()
        self.lost.append(reason)


@pytest.fixture
def heart(queue: Queue) -> Iterator[Heart]:
    heart = Heart(queue)
    yield heart
    heart.close()


def claimed(queue: Queue, *, lease_s: float = LEASE_S) -> tuple[Lease, float]:
    """Return the lease of a new job, and when it was asked for."""
    queue.enqueue("build")
    sent_at = boottime()
    (lease,) = queue.claim(start=True, lease_s=lease_s)
    return lease, sent_at


def put(heart: Heart, lease: Lease, sent_at: float | None) -> Holder:
    holder = Holder()
    heart.add(lease, holder.on_lost, holder.cancelled.append, sent_at=sent_at)
    return holder


def ends_at(queue: Queue, lease: Lease) -> float:
    expires_at = queue.job(lease.job_id).lease_expires_at
    assert expires_at is not None
    return expires_at.timestamp()


def beats() -> list[threading.Thread]:
    """The threads of all hearts."""
    return [thread for thread in threading.enumerate() if thread.name in ("hybridq-beat", "hybridq-watch")]


def test_a_lease_lasts_as_long_as_the_heart_beats(queue: Queue, heart: Heart) -> None:
    lease, sent_at = claimed(queue)
    first_end = ends_at(queue, lease)
    holder = put(heart, lease, sent_at)
    wait_until(lambda: ends_at(queue, lease) > first_end + 2 * LEASE_S, 10, what="the lease is renewed for seconds")
    assert queue.complete(lease).status == "COMPLETED"
    assert holder.lost == []


def test_a_lease_that_is_not_current_is_told_once(queue: Queue, heart: Heart) -> None:
    lease, sent_at = claimed(queue)
    queue.release(lease)
    holder = put(heart, lease, sent_at)
    wait_until(lambda: holder.lost, 5, what="the loss is told")
    other, other_sent_at = claimed(queue)
    put(heart, other, other_sent_at)
    before = ends_at(queue, other)
    wait_until(lambda: ends_at(queue, other) > before, 5, what="the heart beats on")
    assert holder.lost == ["stale_lease"]
    assert heart.remove(lease) is None


def test_a_cancel_request_is_told_once_and_again_when_it_is_sharpened(queue: Queue, heart: Heart) -> None:
    lease, sent_at = claimed(queue)
    holder = put(heart, lease, sent_at)
    queue.cancel(lease.job_id, grace_s=7)
    wait_until(lambda: holder.cancelled, 5, what="the request is told")
    before = ends_at(queue, lease)
    wait_until(lambda: ends_at(queue, lease) > before, 5, what="another beat")
    queue.cancel(lease.job_id, mode="kill", grace_s=0)
    wait_until(lambda: len(holder.cancelled) > 1, 5, what="the sharper request is told")
    assert [(request.mode, request.grace_s) for request in holder.cancelled] == [("graceful", 7), ("kill", 0)]


def test_a_lease_that_cannot_be_renewed_is_given_up_before_it_ends(
    queue: Queue, heart: Heart, server: ServerProcess
) -> None:
    """A server that accepts and never answers is the hardest case: no call fails by itself."""
    lease, sent_at = claimed(queue, lease_s=2)
    holder = put(heart, lease, sent_at)
    server.pause()
    wait_until(lambda: holder.lost, 5, what="the lease is given up")
    server.resume()
    assert holder.lost == ["not_renewed_in_time"]
    assert holder.lost_at - sent_at < lease.lease_s


def test_a_renewal_counts_from_its_sending_not_from_its_answer(redis_url: str, namespace: str, queue: Queue) -> None:
    with Proxy(redis_url) as proxy:
        heart = Heart(Queue("work", redis=proxy.url, namespace=namespace))
        lease, sent_at = claimed(queue, lease_s=3)
        proxy.delay(0.4)
        put(heart, lease, sent_at)
        first = ends_at(queue, lease)
        wait_until(lambda: ends_at(queue, lease) > first, 5, what="a renewal")
        second = ends_at(queue, lease)
        wait_until(lambda: ends_at(queue, lease) > second, 5, what="another one, so the first was answered")
        relied_on = heart.remove(lease)
        assert relied_on is not None
        assert relied_on - boottime() + time.time() < second
        heart.close()


def test_a_loss_that_is_heard_after_the_removal_is_ignored(redis_url: str, namespace: str, queue: Queue) -> None:
    """The race of a finish with a beat: the beat meets a finished lease, and its answer must not stop anybody."""
    with Proxy(redis_url) as proxy:
        heart = Heart(Queue("work", redis=proxy.url, namespace=namespace))
        other, other_sent_at = claimed(queue)
        put(heart, other, other_sent_at)
        first_end = ends_at(queue, other)
        wait_until(lambda: ends_at(queue, other) > first_end, 5, what="the heart is connected")
        lease, _ = claimed(queue)
        queue.complete(lease)
        proxy.delay(0.1)
        holder = put(heart, lease, None)
        stale = queue_calls(queue)
        wait_until(lambda: queue_calls(queue) > stale, 5, what="a beat is under way")
        heart.remove(lease)
        before = ends_at(queue, other)
        wait_until(lambda: ends_at(queue, other) > before, 5, what="the next beat")
        assert holder.lost == []
        heart.close()


def queue_calls(queue: Queue) -> int:
    """How many scripts the server has run, the onlookers' own left out."""
    with redis_py.Redis.from_url(queue.connector.safe_url) as client:
        return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])


def test_many_leases_travel_in_one_call(queue: Queue, heart: Heart) -> None:
    for _ in range(60):
        queue.enqueue("build")
    sent_at = boottime()
    leases = queue.claim(60, start=True)
    for lease in leases:
        put(heart, lease, sent_at)
    before = queue_calls(queue)
    with redis_py.Redis.from_url(queue.connector.safe_url) as client:
        records = [f"{queue.root}:job:{lease.job_id}" for lease in leases]
        wait_until(lambda: all(client.hget(record, "confirmed") for record in records), 5, what="all are renewed")
    assert queue_calls(queue) - before <= 10


def test_a_claim_that_waited_is_confirmed_almost_at_once(queue: Queue, heart: Heart, redis: redis_py.Redis) -> None:
    """Nobody knows how old its lease is, so the heart asks long before a third of it has passed."""
    queue.enqueue("build")
    (lease,) = queue.claim(start=True, lease_s=60)
    put(heart, lease, None)
    wait_until(lambda: redis.hget(f"{queue.root}:job:{lease.job_id}", "confirmed"), 5, what="it is confirmed")


def test_the_same_job_claimed_again_takes_the_place_of_its_first_lease(queue: Queue, heart: Heart) -> None:
    first, sent_at = claimed(queue)
    holder = put(heart, first, sent_at)
    queue.release(first)
    (second,) = queue.claim(start=True)
    assert second.job_id == first.job_id
    other = put(heart, second, boottime())
    assert holder.lost == ["claimed_again"]
    late = put(heart, first, boottime())
    assert late.lost == ["claimed_again"]
    assert heart.remove(first) is None
    assert heart.remove(second) is not None
    assert other.lost == []


def test_a_restart_of_redis_costs_no_lease_that_is_longer_than_it(
    durable_server: ServerProcess, namespace: str
) -> None:
    with Queue("work", redis=durable_server.url, namespace=namespace) as queue:
        heart = Heart(queue)
        queue.enqueue("build")
        sent_at = boottime()
        (lease,) = queue.claim(start=True, lease_s=3)
        holder = put(heart, lease, sent_at)
        first_end = ends_at(queue, lease)
        durable_server.restart()
        wait_until(lambda: ends_at(queue, lease) > first_end, 10, what="the heart found the server again")
        assert holder.lost == []
        heart.close()


def test_the_threads_end_when_there_is_nothing_to_renew_and_come_back(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heart_module, "IDLE_S", 0.0)
    heart = Heart(queue)
    lease, sent_at = claimed(queue)
    put(heart, lease, sent_at)
    assert len(beats()) == 2
    heart.remove(lease)
    wait_until(lambda: not beats(), 5, what="the threads have ended")
    put(heart, lease, sent_at)
    assert len(beats()) == 2
    heart.close()
    assert not beats()


def test_one_heart_serves_a_queue_object(queue: Queue, redis_url: str, namespace: str) -> None:
    with Queue("work", redis=Connector.parse(redis_url), namespace=namespace) as other:
        assert heart_of(queue) is heart_of(queue)
        assert heart_of(queue) is not heart_of(other)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_a_heart_of_its_own(queue: Queue) -> None:
    lease, sent_at = claimed(queue)
    heart = heart_of(queue)
    put(heart, lease, sent_at)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if heart_of(queue).remove(lease) is None else 1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert heart.remove(lease) is not None
    heart.close()
