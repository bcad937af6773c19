"""With ten thousand agents a beat, a page and a step of `free_lost` cost what they cost with few: counts, no times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis as redis_py

from hybridq import Fleet
from hybridq.keys import fleet_root
from tests.integration.conftest import ENGINE
from tests.servers import ServerProcess

MANY = 10_000


@pytest.fixture(scope="module")
def server_of_its_own() -> Iterator[ServerProcess]:
    """A server whose calls nobody else makes."""
    with ServerProcess(ENGINE) as server:
        yield server


def fill(client: redis_py.Redis, namespace: str, fleet: Fleet, n: int) -> Any:
    """Register one agent, and copy its record `n` - 1 times."""
    session = fleet.register("agent-00000", pool="builds", boot_id="boot-1", labels={"os": "linux"})
    root = fleet_root(namespace)
    record = client.hgetall(f"{root}:agent:agent-00000")
    names = [f"agent-{number:05}" for number in range(1, n)]
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.hset(f"{root}:agent:{name}", mapping=record)
    for index in ("agents", "pool:builds"):
        pipe.zadd(f"{root}:{index}", dict.fromkeys(names, 0))
    pipe.zadd(f"{root}:watch", dict.fromkeys(names, int(record[b"seen_ms"]) + 2 * int(record[b"heartbeat_ms"])))
    pipe.execute()
    return session


def commands(client: redis_py.Redis, call: Callable[[], object]) -> int:
    """How many commands the server ran for a call, those inside scripts included."""

    def total() -> int:
        return sum(int(stat["calls"]) for name, stat in client.info("commandstats").items() if name != "cmdstat_info")

    before = total()
    call()
    return total() - before


def costs(server: ServerProcess, namespace: str, n: int) -> dict[str, int]:
    with server.client() as client, Fleet(redis=server.url, namespace=namespace) as fleet:
        session = fill(client, namespace, fleet, n)
        calls: dict[str, Callable[[], object]] = {
            "beat": lambda: fleet.beat("agent-00000", session.session_id),
            "seen": lambda: fleet.seen("agent-00000", session.session_id),
            "agent": lambda: fleet.agent("agent-00000"),
            "page": lambda: fleet.agents(limit=5),
            "filtered page": lambda: fleet.agents(limit=5, labels=["os=linux"]),
            "page of nothing": lambda: fleet.agents(limit=5, labels=["os=mac"]),
            "steer": lambda: fleet.steer("agent-00000", draining=False),
            "free_lost": fleet.free_lost,
        }
        for call in calls.values():
            call()  # what is sent but once: the scripts themselves
        # The fewest of three: a mark of activity, one command more, is left at most every tenth of a second.
        return {name: min(commands(client, call) for _ in range(3)) for name, call in calls.items()}


def test_nothing_that_agents_do_costs_more_in_a_large_fleet(server_of_its_own: ServerProcess, namespace: str) -> None:
    few = costs(server_of_its_own, f"{namespace}-few", 400)
    many = costs(server_of_its_own, f"{namespace}-many", MANY)

    assert many == few
    assert many["beat"] < 40
    assert many["page of nothing"] < 300 * 5


def test_all_agents_are_counted_in_bounded_steps(server_of_its_own: ServerProcess, namespace: str) -> None:
    with server_of_its_own.client() as client, Fleet(redis=server_of_its_own.url, namespace=namespace) as fleet:
        fill(client, namespace, fleet, MANY)
        client.config_resetstat()
        client.slowlog_reset()
        assert sum(fleet.counts().values()) == MANY
        scripts = int(client.info("commandstats")["cmdstat_evalsha"]["calls"])

    assert scripts <= MANY / 300 + 1 + MANY / 50 + MANY / 300 + 2
