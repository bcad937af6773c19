"""Faults in the middle of work: producers and workers go on, and their history breaks no rule.

The history checked holds every call and every answer: nothing acknowledged is lost, no lease is valid beside another,
every fence is above all earlier ones, each job ends once.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from hybridq import check
from tests.conformance.colours import COLOURS, opened
from tests.faults.load import Load
from tests.integration.conftest import ENGINE
from tests.proxy import Proxy
from tests.servers import ENGINES, EngineMissing, ServerProcess, find_binary

LEASE_S = 2.0
AWAY_S = 2.6
"""Longer than a lease: without grace all of them would be lost at once."""
STORM_S = 2.5
HELD_BACK_S_MAX = 3.0

colours = pytest.mark.parametrize("colour", COLOURS)


@pytest.fixture
def own_server() -> Iterator[ServerProcess]:
    with ServerProcess(ENGINE) as server:
        yield server


def for_a_while(seconds: float, fault: Callable[[], object], every_s: tuple[float, float] = (0.02, 0.1)) -> int:
    """Do a fault again and again at random intervals; return how often."""
    rng, over = random.Random(3), threading.Event()
    timer = threading.Timer(seconds, over.set)
    timer.start()
    times = 0
    while not over.wait(rng.uniform(*every_s)):
        fault()
        times += 1
    timer.join()
    return times


def pass_time(seconds: float) -> None:
    """Let real time pass: how long a fault lasts is part of the fault."""
    threading.Event().wait(seconds)


def keyspace_must_hold(server: ServerProcess) -> None:
    with server.client() as client:
        check.keyspace(client, "default").raise_if_broken()


def engines() -> list[Any]:
    """One parameter per engine, of servers that write to disk."""
    params = []
    for engine in ENGINES:
        try:
            find_binary(engine)
            params.append(pytest.param(engine))
        except EngineMissing as missing:
            params.append(pytest.param(engine, marks=pytest.mark.skip(reason=str(missing))))
    return params


@pytest.mark.parametrize("engine", engines())
@colours
def test_nothing_acknowledged_is_lost_when_the_server_is_killed(engine: str, colour: str) -> None:
    with ServerProcess(engine, aof=True) as server:
        with opened(colour, "work", redis=server.url) as queue:
            with Load(queue, lease_s=LEASE_S) as load:
                for away_s in (0.0, AWAY_S):
                    load.wait_for_progress(20)
                    server.kill()
                    pass_time(away_s)
                    server.start()
                load.wait_for_progress(20)
                load.drain()

            assert load.troubles, "the clients did notice"
            assert 0 == queue.stats().lost_leases_total, "nobody could renew, so nobody is punished"
        keyspace_must_hold(server)


def fences_around(events: Iterable[check.Event], at_ns: int) -> tuple[list[int], list[int]]:
    """Return the fences answered before a time, and those of claims that were sent for the first time after it."""
    first_sent: dict[str, int] = {}
    earlier, later = [], []
    for event in sorted(events, key=lambda event: event.t_inv):
        if event.op == "claim":
            sent = first_sent.setdefault(event.args["request_id"], event.t_inv)
            fences = [lease["fence"] for lease in event.result] if event.type == "ok" else []
            earlier += fences if event.t_ret and event.t_ret < at_ns else []
            later += fences if sent >= at_ns else []
    return earlier, later


@pytest.mark.parametrize("engine", engines())
def test_with_everysec_a_kill_loses_the_last_moments_at_most(engine: str) -> None:
    """While an fsync is under way Redis holds its next write back for up to two seconds and answers all the same, so
    even the death of the process alone may cost that much. Fences still never come twice, and what is there is whole.
    """
    with ServerProcess(engine, aof=True, extra_args=["--appendfsync", "everysec"]) as server:
        with opened("async", "work", redis=server.url) as queue:
            with Load(queue, lease_s=LEASE_S) as load:
                load.wait_for_progress(40)
                killed_at = time.monotonic()
                server.kill()
                pass_time(0.3)  # for the threads to note what they had been told
                restarted_at, restarted_ns = time.monotonic(), time.monotonic_ns()
                server.start()
                load.wait_for_progress(40)
                statuses = load.settle()

            lost = [at for job_id, at in load.acknowledged.items() if job_id not in statuses]
            assert all(killed_at - HELD_BACK_S_MAX <= at < restarted_at for at in lost)
        earlier, later = fences_around(load.recorder.events, restarted_ns)
        assert later and min(later) > max(earlier)
        keyspace_must_hold(server)


@colours
def test_a_server_that_stands_still_longer_than_a_lease_costs_no_lease(own_server: ServerProcess, colour: str) -> None:
    with opened(colour, "work", redis=own_server.url) as queue:
        with Load(queue, lease_s=LEASE_S) as load:
            load.wait_for_progress(20)
            own_server.pause()
            pass_time(AWAY_S)
            own_server.resume()
            load.wait_for_progress(20)
            load.drain()

        assert 0 == queue.stats().lost_leases_total
    keyspace_must_hold(own_server)


@colours
def test_scripts_flushed_in_a_loop_are_not_missed(own_server: ServerProcess, colour: str) -> None:
    with opened(colour, "work", redis=own_server.url) as queue, own_server.client() as other:
        with Load(queue) as load:
            load.wait_for_progress(5)
            assert for_a_while(STORM_S, other.script_flush, (0.0, 0.01)) > 50
            load.wait_for_progress(20)
            load.drain()

        assert [] == load.troubles
    keyspace_must_hold(own_server)


@colours
def test_a_storm_of_killed_connections_does_no_harm(own_server: ServerProcess, colour: str) -> None:
    with opened(colour, "work", redis=own_server.url) as queue, own_server.client() as killer:

        def kill() -> None:
            for kind in ("normal", "pubsub"):
                killer.client_kill_filter(_type=kind, skipme=True)

        with Load(queue) as load:
            load.wait_for_progress(5)
            before = killer.info("stats")["total_connections_received"]
            times = for_a_while(STORM_S, kill)
            assert killer.info("stats")["total_connections_received"] - before > times, "they did come back"
            load.wait_for_progress(20)
            load.drain()
        quiet = len(killer.client_list())

        for _ in range(30):
            queue.stats()
        assert len(killer.client_list()) <= quiet + 1, "connections are not left behind"
    keyspace_must_hold(own_server)


@colours
def test_a_network_that_breaks_at_any_moment_does_no_harm(own_server: ServerProcess, colour: str) -> None:
    """Requests are lost before the server sees them, and replies after."""
    with Proxy(own_server.url) as proxy, opened(colour, "work", redis=proxy.url) as queue:
        with Load(queue) as load:
            load.wait_for_progress(5)
            before, times = proxy.accepted, for_a_while(STORM_S, proxy.cut)
            assert proxy.accepted - before > times, "they did come back"
            load.wait_for_progress(20)
            load.drain()
    keyspace_must_hold(own_server)


@colours
def test_a_slow_network_costs_no_lease(own_server: ServerProcess, colour: str) -> None:
    with Proxy(own_server.url) as proxy, opened(colour, "work", redis=proxy.url) as queue:
        with Load(queue, lease_s=LEASE_S) as load:
            proxy.delay(0.15)
            load.wait_for_progress(8)
            proxy.heal()
            load.wait_for_progress(8)
            load.drain()

        assert [] == load.troubles
        assert 0 == queue.stats().lost_leases_total
