"""A key of another type, put there by somebody else, stops a verb before its first write, or is left out cleanly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from hybridq.scripts import _parts_of, _read_header, load, locate, verbs
from tests.contract.conftest import one_engine, servers_only
from tests.contract.harness import Held, Rig

KEYS = (
    "meta", "ready:any", "ready:gpu", "scheduled:CRITICAL", "scheduled:HIGH", "scheduled:NORMAL", "scheduled:LOW",
    "blocked", "leased", "held:one", "held:two", "agent:one", "agents", "gone", "dead", "finished", "all", "spec",
    "result", "unique", "lanes", "tombs", "tombs_by_age", "stats", "events", "latency:MINUTE", "latency:all",
    "logs", "log:running", "log:lost", "log:dead", "log:failed", "log:old",
    "job:queued", "job:due", "job:claimed", "job:running", "job:lost", "job:dead", "job:failed", "job:old",
)  # fmt: skip
WRITING = [verb for verb in verbs() if "no-writes" not in load(verb).header.flags and verb != "create"]
Leases = dict[str, Held]


def furnish(rig: Rig) -> Leases:
    """Jobs of every kind, each with a unique key, and work for every part of upkeep at the time the rig is left at."""
    rig.client.hset(f"{rig.root}:lanes", "gpu", "{}")
    rig.client.hset(f"{rig.root}:agent:one", mapping={"generation": 1, "capacity": 9})
    leases = {}
    for job_id in ("buried", "old", "failed", "dead"):
        rig.enqueue(job_id, unique=job_id, max_attempts=1)
        outcome = {"dead": "failed", "failed": "rejected"}.get(job_id, "success")
        held = rig.running(job_id=job_id)
        rig.append_log(held, 0, f"{job_id} says this\n")
        rig.complete(held, outcome)
        if job_id == "buried":
            rig.configure(retention_count=0)
            rig.upkeep()
            rig.configure(retention_count=1)
    rig.enqueue("lost", unique="lost")
    leases["lost"] = rig.running("two", lease_ms=20_000)
    rig.append_log(leases["lost"], 0, "going to be lost\n")
    rig.live(19_900)
    for job_id in ("claimed", "running"):
        rig.enqueue(job_id, unique=job_id)
        leases[job_id] = rig.lease(start=int(job_id == "running"))
    rig.heartbeat(leases["running"])
    rig.append_log(leases["running"], 0, "on its way\n")
    rig.enqueue("laned", lane="gpu", unique="laned")
    rig.enqueue("queued", "waiting", unique="")
    rig.client.hset(f"{rig.root}:job:queued", "unique", "queued")
    rig.client.hset(f"{rig.root}:unique", "queued", "queued")
    rig.enqueue("due", unique="due", delay_ms=100, priority="HIGH")
    rig.now += 200
    return leases


def entries_of(verb: str, leases: Leases) -> tuple[dict[str, Any], ...]:
    """A call of a verb that has something to do in a furnished queue."""
    calls: dict[str, tuple[dict[str, Any], ...]] = {
        "append_log": tuple(
            {**leases[name].proof, "offset": 0, "sent": 30, "data": "x" * 30} for name in ("running", "lost")
        ),
        "cancel": ({"job_id": "queued"}, {"job_id": "claimed"}),
        "claim": ({"agent": "one", "generation": 1, "lease_id": "c" * 32, "holding": ",", "max": 9},),
        "complete": tuple({**leases[name].proof, "outcome": "failed"} for name in ("running", "lost")),
        "configure": ({"field": "max_dead", "value": 10},),
        "enlist": ({"agent": "one", "generation": 2, "capacity": 1, "free": "give_back"},),
        "enqueue": ({"job_id": "new", "unique": "new"}, {"job_id": "laned-2", "lane": "gpu"}),
        "heartbeat": (leases["running"].proof, leases["claimed"].proof),
        "pause": ({"paused": 1},),
        "purge": ({"job_id": "dead"},),
        "release": tuple({**leases[name].proof, "delay_ms": 0} for name in ("running", "claimed")),
        "replay": ({"job_id": "dead"}, {"job_id": "failed"}),
        "reprioritise": ({"job_id": "queued", "priority": "LOW"}, {"job_id": "due", "priority": "LOW"}),
        "start": (leases["claimed"].proof,),
        "upkeep": (),
    }
    return calls[verb]


def without_doubt(snapshot: dict[str, Any], root: str) -> dict[str, Any]:
    """A snapshot without the counter that says that something went wrong, and without the note of activity."""
    volatile = {f"{root}:stats": (b"in_doubt",), f"{root}:meta": (b"activity_ms", b"upkeep_ms", b"folded_minute")}
    clean = dict(snapshot)
    for key, fields in volatile.items():
        if isinstance(clean.get(key), dict):
            clean[key] = {name: value for name, value in clean[key].items() if name not in fields}
    return clean


class Replaced:
    """A key that holds a foreign text for a while, or, where a text belongs, a foreign list."""

    def __init__(self, rig: Rig, name: str) -> None:
        self._client = rig.client
        self._key = f"{rig.root}:{name.replace('MINUTE', str(rig.now // 60_000))}"
        self._saved = f"{rig.root}:saved"

    def __enter__(self) -> None:
        self._existed = self._client.exists(self._key)
        if self._existed:
            self._client.rename(self._key, self._saved)
        if ":log:" in self._key:
            self._client.rpush(self._key, "foreign")
        else:
            self._client.set(self._key, "foreign")

    def __exit__(self, *exc: object) -> None:
        self._client.delete(self._key)
        if self._existed:
            self._client.rename(self._saved, self._key)


def furnished(rig: Rig) -> Iterator[tuple[Rig, Leases]]:
    """Furnished queues without end, each a fresh one."""
    number = 0
    while True:
        number += 1
        queue = rig.another(f"shop-{number}")
        yield queue, furnish(queue)


@one_engine
@pytest.mark.parametrize("verb", WRITING)
def test_a_foreign_key_never_tears_a_call(rig: Rig, verb: str) -> None:
    shops = furnished(rig)
    shop, leases = next(shops)
    for name in KEYS:
        before = shop.snapshot()
        with Replaced(shop, name):
            doubted = _call(shop, verb, leases)
        after = shop.snapshot()
        if doubted is None:
            assert before == after, f"{name}: refused, and something was written"
            continue
        shop.client.hdel(f"{shop.root}:stats", "in_doubt")
        if doubted:
            assert without_doubt(before, shop.root) == without_doubt(after, shop.root), f"{name}: torn"
        else:
            _assert_sound(shop, name)
        if without_doubt(before, shop.root) != without_doubt(after, shop.root):
            shop, leases = next(shops)


def _call(shop: Rig, verb: str, leases: Leases) -> bool | None:
    """None when the whole call was refused; else whether every entry was in doubt."""
    try:
        replies = shop.run(verb, *entries_of(verb, leases))
    except redis.exceptions.ResponseError as refused:
        assert "HQ_ARG" not in str(refused)
        return None
    return all(reply[0] == "IN_DOUBT" for reply in replies)


def _assert_sound(shop: Rig, name: str) -> None:
    try:
        shop.check()
    except AssertionError as broken:
        raise AssertionError(f"{name}: {broken}") from broken


INDEX_KEYS = {
    "QUEUED": "ready:any", "SCHEDULED": "scheduled:NORMAL", "BLOCKED": "blocked", "CLAIMED": "leased",
    "RUNNING": "leased", "DEAD_LETTERED": "dead", "COMPLETED": "finished", "FAILED": "finished",
    "CANCELLED": "finished", "EXPIRED": "finished",
}  # fmt: skip


def _moved(part: str) -> set[str]:
    moves = _read_header((locate() / part).read_text(encoding="utf-8")).moves
    return {status for move in moves for status in move.partition(":")[2].split(">")} & INDEX_KEYS.keys()


@pytest.mark.parametrize("verb", [verb for verb in WRITING if verb not in ("configure", "pause", "purge")])
def test_a_verb_that_moves_jobs_is_refused_whole_when_an_index_is_foreign(rig: Rig, verb: str) -> None:
    """Each index that one of its moves leads from or to; what it leaves alone may be anything."""
    leases = furnish(rig)
    before = rig.snapshot()
    statuses = {status for part in _parts_of(locate(), f"{verb}") for status in _moved(part)}

    for name in ("stats", "events", *sorted(INDEX_KEYS[status] for status in statuses)):
        with Replaced(rig, name), pytest.raises(redis.exceptions.ResponseError):
            rig.run(verb, *entries_of(verb, leases))
    assert before == rig.snapshot()


@servers_only
@pytest.mark.parametrize(
    ("name", "place"), [("leased", "call('ZINTER'"), ("stats", "error(key"), ("meta", "call('HMGET'")]
)
def test_the_refusal_leads_back_to_its_line_in_the_sources(rig: Rig, name: str, place: str) -> None:
    with Replaced(rig, name), pytest.raises(redis.exceptions.ResponseError) as caught:
        rig.claim()

    path, _, number = load("claim").source_of(str(caught.value)).partition(":")
    assert path == "lua/lib/open.lua"
    assert place in (locate().parent / path).read_text(encoding="utf-8").splitlines()[int(number) - 1]


@pytest.mark.breaks_keys
@pytest.mark.parametrize("broken", ["ready", "leased"])
def test_a_record_that_cannot_be_read_stops_nobody_else(rig: Rig, broken: str) -> None:
    """It is left where it is, counted, and named by the check; the queue goes on."""
    rig.enqueue("a", "b")
    if broken == "leased":
        rig.lease(job_id="a")
        rig.live(30_000)
    rig.client.delete(f"{rig.root}:job:a")
    rig.client.set(f"{rig.root}:job:a", "foreign")

    assert [held.job_id for held in rig.claim("two", max=9)] == ["b"]
    assert rig.counters()["in_doubt"] >= 1


GARBAGE: dict[str, Callable[[Rig], object]] = {
    "a tombstone": lambda rig: (
        rig.client.hset(f"{rig.root}:tombs", "gone", "???"),
        rig.client.rpush(f"{rig.root}:tombs_by_age", "gone"),
    ),
    "an ended record": lambda rig: (
        rig.client.hset(f"{rig.root}:job:b", "status", "COMPLETED"),
        rig.client.zadd(f"{rig.root}:finished", {"b": rig.now}),
        rig.client.hset(f"{rig.root}:meta", "retention_count", "0"),
    ),
    "a lease without a record": lambda rig: rig.client.zadd(f"{rig.root}:leased", {"b": rig.now}),
    "a waiting job without a record": lambda rig: rig.client.zadd(f"{rig.root}:ready:any", {"b": 0}),
    "a due job without a record": lambda rig: rig.client.zadd(f"{rig.root}:scheduled:HIGH", {"b": rig.now}),
    "a minute of another type": lambda rig: (
        rig.client.hset(f"{rig.root}:meta", "folded_minute", str(rig.now // 60_000 - 5)),
        rig.client.set(f"{rig.root}:latency:{rig.now // 60_000 - 4}", "foreign"),
    ),
}


@pytest.mark.breaks_keys
@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_does_not_keep_a_claim_from_its_work(rig: Rig, what: str) -> None:
    rig.enqueue("a")
    GARBAGE[what](rig)
    rig.now += 20

    assert [held.job_id for held in rig.claim(max=9)] == ["a"]
    rig.now += 20
    assert rig.claim_reply()[0] == "EMPTY"
