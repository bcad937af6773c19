"""`hybridq agents` and `hybridq pools`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis as redis_py

from hybridq import AgentStatus, Fleet, Queue
from hybridq.keys import fleet_root

from .conftest import Ran

Run = Callable[..., Ran]


@pytest.fixture
def fleet(redis_url: str, namespace: str) -> Iterator[Fleet]:
    """The fleet that the command lines are about: two agents in pool builds, one in pool tests."""
    with Fleet(redis=redis_url, namespace=namespace) as opened:
        for name, pool, labels in (
            ("a", "builds", {"os": "linux", "gpu": ""}),
            ("b", "builds", {}),
            ("c", "tests", {}),
        ):
            opened.register(name, pool=pool, boot_id="boot", labels=labels, capacity=2)
        yield opened


def test_agents_are_listed_and_filtered(hybridq: Run, fleet: Fleet) -> None:
    lines = hybridq("agents", "list").out.splitlines()
    assert lines[0].split("\t")[:4] == ["AGENT", "POOL", "STATUS", "RUNNING"]
    assert lines[1].split("\t")[:4] == ["a", "builds", "HEALTHY", "0/2"]
    assert lines[1].split("\t")[-1] == "os=linux gpu"
    assert len(lines) == 4
    names = [item["agent_id"] for item in hybridq("agents", "list", "--pool", "builds", "--json").document["items"]]
    assert names == ["a", "b"]
    assert len(hybridq("agents", "list", "--label", "!gpu", "--status", "healthy").out.splitlines()) == 3


def test_a_list_goes_on_by_cursor_or_at_once(hybridq: Run, fleet: Fleet) -> None:
    first = hybridq("agents", "list", "--limit", "2")
    cursor = first.err.removeprefix("more: --cursor ").strip()
    rest = hybridq("agents", "list", "--cursor", cursor, "--json").document
    assert [item["agent_id"] for item in rest["items"]] == ["c"]
    assert len(hybridq("agents", "list", "--all", "--json").document["items"]) == 3


def test_an_agent_is_shown_whole(hybridq: Run, fleet: Fleet) -> None:
    document = hybridq("agents", "show", "a", "--json").document
    assert (document["agent_id"], document["status"], document["labels"]) == (
        "a",
        "HEALTHY",
        {"os": "linux", "gpu": ""},
    )
    assert "running\t0 of 2" in hybridq("agents", "show", "a").out
    ran = hybridq("agents", "show", "nobody", "--json")
    assert (ran.code, ran.error["code"]) == (1, "agent_not_registered")


def test_agents_are_drained_and_take_work_again(hybridq: Run, fleet: Fleet) -> None:
    ran = hybridq("agents", "drain", "a", "b", "--reason", "kernel", "--by", "ann")
    assert (ran.code, ran.out) == (0, "a DRAINING\nb DRAINING\n")
    assert fleet.agent("a").drain_reason == "kernel"
    assert hybridq("agents", "undrain", "a", "--json").document["results"][0]["status"] == "HEALTHY"
    assert fleet.counts()[AgentStatus.DRAINING] == 1
    fleet.deregister("b")
    assert hybridq("agents", "drain", "b", "--json").error["code"] == "agent_terminated"


def test_pools_are_listed_shown_and_scaled(hybridq: Run, fleet: Fleet, redis_url: str, namespace: str) -> None:
    with Queue("builds", redis=redis_url, namespace=namespace) as queue:
        queue.enqueue("build")
    lines = hybridq("pools", "list").out.splitlines()
    assert [line.split("\t")[:2] for line in lines] == [["POOL", "QUEUED"], ["builds", "1"], ["tests", "0"]]
    assert hybridq("pools", "scale", "builds", "--min", "1", "--max", "4", "--json").document["max"] == 4
    shown = hybridq("pools", "show", "builds", "--json").document
    assert (shown["capacity"], shown["idle"], shown["min"], shown["target"]) == (4, 2, 1, None)
    ran = hybridq("pools", "scale", "builds", "--target", "9", "--json")
    assert (ran.code, ran.error["code"]) == (2, "invalid_argument")
    assert hybridq("pools", "show", "nowhere", "--json").error["code"] == "pool_not_found"


@pytest.mark.breaks_keys
def test_check_looks_at_the_fleet_too(hybridq: Run, fleet: Fleet, redis: redis_py.Redis, namespace: str) -> None:
    assert hybridq("check").code == 0
    redis.zrem(f"{fleet_root(namespace)}:agents", "a")
    ran = hybridq("check")
    assert ran.code == 1
    assert "fleet: agent a: it has a record and is not in agents" in ran.out
