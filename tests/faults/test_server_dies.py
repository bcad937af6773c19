"""The server is killed, flushed, paused, or comes back with older data; what was acknowledged is there, fences grow."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridq import HybridqError, JobStatus, Queue, QueueLost, RedisUnavailable, StaleLease
from tests import invariants
from tests.servers import ENGINES, EngineMissing, ServerProcess, find_binary, wait_until


def _present() -> list[str]:
    present = []
    for engine in ENGINES:
        try:
            find_binary(engine)
        except EngineMissing:
            continue
        present.append(engine)
    return present


@pytest.fixture(params=_present())
def durable(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server of the test's own that acknowledges only what is on disk."""
    with ServerProcess(request.param, aof=True) as server:
        yield server


def _open(server: ServerProcess, **named: object) -> Queue:
    return Queue("work", redis=server.url, namespace="faults", **named)  # type: ignore[arg-type]


def _back(queue: Queue) -> None:
    """Wait until calls go through again."""

    def answers() -> bool:
        try:
            queue.stats()
        except RedisUnavailable:
            return False
        return True

    wait_until(answers, 10, what="the queue answers again")


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(durable: ServerProcess) -> None:
    """Producers run into the kill; every id they were told of is there afterwards, and is done once."""
    acknowledged: list[str] = []
    told = threading.Event()

    def produce(name: str) -> None:
        with _open(durable) as queue:
            for n in range(100_000):
                try:
                    acknowledged.append(queue.enqueue("build", {"n": n}, job_id=f"{name}-{n}").job_id)
                except HybridqError:
                    return
                if len(acknowledged) > 300:
                    told.set()

    threads = [threading.Thread(target=produce, args=(f"p{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    assert told.wait(30)
    durable.kill()
    for thread in threads:
        thread.join(30)
    durable.restart()

    with _open(durable) as queue:
        _back(queue)
        done: list[str] = []
        while leases := queue.claim(50, start=True):
            for lease in leases:
                queue.complete(lease)
                done.append(lease.job_id)
        with durable.client() as client:
            invariants.must_hold(client)
    assert len(done) == len(set(done))
    assert set(acknowledged) <= set(done)


def test_leases_live_through_a_restart_and_later_fences_are_above(durable: ServerProcess) -> None:
    """A holder that was running when the server died completes as if nothing had been."""
    with _open(durable, agent="ann") as queue:
        for n in range(4):
            queue.enqueue("build", job_id=f"job-{n}")
        held = queue.claim(2, start=True)
        durable.kill()
        durable.restart()
        _back(queue)

        assert {lease.job_id for lease in held} == set(queue.heartbeat(held).renewed)
        [new] = queue.claim()
        assert new.fence > max(lease.fence for lease in held)
        assert JobStatus.COMPLETED == queue.complete(held[0]).status


def test_older_data_never_bring_an_old_fence_back(durable: ServerProcess, tmp_path: Path) -> None:
    """The data folder is put back to a copy made before the last claims; their fences are not given out again."""
    with _open(durable, agent="ann") as queue:
        for n in range(20):
            queue.enqueue("build", job_id=f"job-{n}")
        [early] = queue.claim(start=True)
        durable.stop()
        shutil.copytree(durable.folder, tmp_path / "backup", ignore=shutil.ignore_patterns("s"))
        durable.restart()
        _back(queue)
        late = queue.claim(10, start=True)
        durable.kill()
        for item in durable.folder.iterdir():
            shutil.rmtree(item) if item.is_dir() else item.unlink()
        shutil.copytree(tmp_path / "backup", durable.folder, dirs_exist_ok=True)
        durable.restart()
        _back(queue)

        again = queue.claim(10, start=True)

        assert min(lease.fence for lease in again) > max(lease.fence for lease in [early, *late])
        assert len({lease.fence for lease in [early, *late, *again]}) == 21
        with pytest.raises(StaleLease):
            queue.complete(late[0])


def test_a_server_that_stood_still_longer_than_a_lease_does_not_rerun_the_fleet(durable: ServerProcess) -> None:
    """Nobody could renew, so nobody is punished: all leases get one more length, and their holders go on."""
    with _open(durable, agent="ann", lease_s=1.0) as queue, _open(durable, agent="bob", lease_s=1.0) as other:
        for n in range(5):
            queue.enqueue("build", job_id=f"job-{n}")
        held = [queue.start(lease) for lease in queue.claim(5)]
        other.stats()
        ends_at = max(queue.job(lease.job_id).lease_expires_at for lease in held)  # type: ignore[type-var]
        durable.pause()
        with durable.client() as _, pytest.raises(HybridqError):
            Queue("work", redis=f"{durable.url}?socket_timeout=1.5", namespace="faults").stats()
        durable.resume()
        assert ends_at is not None
        _back(other)

        assert [] == other.claim(5)
        assert {lease.job_id for lease in held} == set(queue.heartbeat(held).renewed)
        assert 0 == queue.stats().lost_leases_total


def test_script_flush_at_any_moment_is_not_seen(durable: ServerProcess) -> None:
    """Scripts are loaded again as they are missed, also in the middle of a pipeline of two."""
    stop = threading.Event()

    def flush() -> None:
        with durable.client() as client:
            while not stop.is_set():
                client.script_flush()

    thread = threading.Thread(target=flush)
    thread.start()
    try:
        with _open(durable) as queue:
            for n in range(60):
                queue.enqueue("build", job_id=f"job-{n}")
            [lease] = queue.claim(start=True)
            seen = [lease.job_id]
            while True:
                following = queue.complete(lease, claim_next=1).next
                if not following:
                    break
                lease = following[0]
                seen.append(lease.job_id)
    finally:
        stop.set()
        thread.join(30)

    assert [f"job-{n}" for n in range(60)] == seen


def test_a_flushed_server_is_told_from_an_empty_queue(durable: ServerProcess) -> None:
    """Who was using the queue is told that it is gone; a new one begins empty."""
    with _open(durable) as queue:
        queue.enqueue("build")
        with durable.client() as client:
            client.flushall()

        with pytest.raises(QueueLost, match="flushed"):
            queue.claim()

    with _open(durable) as queue:
        assert [] == queue.claim()


def test_a_storm_of_killed_connections_is_survived(durable: ServerProcess) -> None:
    """Every connection is killed again and again; no call gets a wrong answer, and the pool recovers."""
    with _open(durable) as queue, durable.client() as killer:
        for n in range(40):
            killer.client_kill_filter(_type="normal", skipme=True)
            answer = queue.enqueue("build", {"n": n}, job_id=f"job-{n}")
            assert answer.job_id == f"job-{n}"

        assert 40 == queue.stats().queued
