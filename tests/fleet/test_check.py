"""The checker of a fleet finds each thing that is broken on purpose, and nothing in one that is sound."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hybridq import check
from tests.contract.conftest import one_engine
from tests.fleet.rig import FleetRig

Break = Callable[[FleetRig], object]


def key(rig: FleetRig, name: str) -> str:
    return f"{rig.root}:{name}"


BREAKS: dict[str, tuple[int, str, Break]] = {
    "a key nobody knows": (17, "belongs to no known family", lambda rig: rig.client.set(key(rig, "odd"), "x")),
    "a key of another type": (17, "is a string, not a zset", lambda rig: (
        rig.client.delete(key(rig, "owed")), rig.client.set(key(rig, "owed"), "x"),
    )),
    "a time to live": (8, "time to live", lambda rig: rig.client.expire(key(rig, "agent:one"), 900)),
    "an agent not listed": (1, "is not in agents", lambda rig: rig.client.zrem(key(rig, "agents"), "one")),
    "an agent in no pool": (1, "is of pool builds and listed in []", lambda rig: (
        rig.client.zrem(key(rig, "pool:builds"), "one")
    )),
    "an agent in two pools": (1, "is of pool builds and listed in", lambda rig: (
        rig.client.zadd(key(rig, "pool:tests"), {"one": 0})
    )),
    "an agent nobody watches": (1, "it is in watch: False", lambda rig: rig.client.zrem(key(rig, "watch"), "one")),
    "an ended agent that is watched": (1, "it is in watch: True", lambda rig: (
        rig.client.zadd(key(rig, "watch"), {"ended": 1})
    )),
    "a name without a record": (1, "has no record and is still listed", lambda rig: (
        rig.client.delete(key(rig, "agent:one"))
    )),
    "a field nobody knows": (1, "has the unknown ['mood']", lambda rig: (
        rig.client.hset(key(rig, "agent:one"), "mood", "good")
    )),
    "a field that is missing": (1, "lacks ['seen_ms']", lambda rig: (
        rig.client.hdel(key(rig, "agent:one"), "seen_ms")
    )),
    "a debt nobody can pay": (0, "which nobody can tell", lambda rig: rig.client.zadd(key(rig, "owed"), {"x": 1})),
    "a sum that is none": (7, "recent_failed is 9; those of its agents make 1", lambda rig: (
        rig.client.hset(key(rig, "meta"), "recent_failed", "9")
    )),
}  # fmt: skip


@pytest.fixture
def busy(rig: FleetRig) -> FleetRig:
    """A fleet with an agent of every kind."""
    session = rig.register("one")
    rig.beat(session["session_id"], recent=5, recent_failed=1)
    rig.register("ended")
    rig.one("fleet/deregister", agent="ended")
    rig.register("silent", pool="other")
    rig.tick(30_000)
    rig.beat(session["session_id"], recent=5, recent_failed=1)
    rig.one("fleet/steer", agent="one", draining=1, reason="kernel", by="ann")
    rig.tick(25_000)
    rig.lost()
    assert "offline_ms" in rig.kept("silent")
    return rig


def test_a_fleet_with_an_agent_of_every_kind_is_sound(busy: FleetRig) -> None:
    assert check.fleet(busy.client, busy.namespace).ok
    assert check.fleet(busy.client, "nowhere").ok


@one_engine
@pytest.mark.breaks_keys
@pytest.mark.parametrize("what", BREAKS)
def test_what_is_broken_on_purpose_is_found(busy: FleetRig, what: str) -> None:
    invariant, words, damage = BREAKS[what]
    damage(busy)
    found = check.fleet(busy.client, busy.namespace).violations

    assert any(one.invariant == invariant and words in one.message for one in found), found


@pytest.mark.breaks_keys
def test_a_lease_of_a_session_its_queue_was_never_told_of_is_found(rig: FleetRig) -> None:
    from tests.contract.harness import Rig

    queue = Rig(rig.client, rig.namespace, shebang=rig._shebang)
    queue.run("create")
    queue.one("enlist", agent="one", generation=3, capacity=1)
    queue.enqueue("a")
    queue.lease(generation=3)
    queue.check()
    queue.client.hset(f"{queue.root}:job:a", "session", "4")
    found = check.keyspace(queue.client, queue.namespace, queue.queue, now_ms=queue.now).violations

    assert [str(one) for one in found if "session 4 of agent one" in one.message]


@pytest.mark.breaks_keys
def test_an_agent_that_is_gone_and_may_claim_is_found(rig: FleetRig) -> None:
    from tests.contract.harness import Rig

    queue = Rig(rig.client, rig.namespace, shebang=rig._shebang)
    queue.run("create")
    queue.one("enlist", agent="one", generation=3, capacity=0)
    queue.check()
    queue.client.hset(f"{queue.root}:agent:one", "capacity", "4")
    found = check.keyspace(queue.client, queue.namespace, queue.queue, now_ms=queue.now).violations

    assert ["agent one is gone and its capacity is b'4'"] == [one.message for one in found]
