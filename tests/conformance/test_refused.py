"""What is wrong with a call is said as a `UsageError` before anything is sent."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hybridq import Backoff, JobSpec, JobStatus, Lease, Priority, RedisUnavailable, UsageError
from tests.conformance.colours import Counting, opened

LEASE = Lease(
    job_id="j",
    queue="work",
    type="t",
    payload=b"",
    fence=1,
    lease_id="0" * 32,
    agent="ann",
    status=JobStatus.CLAIMED,
    priority=Priority.NORMAL,
    attempt=1,
    max_attempts=3,
    deliveries=1,
    generation=0,
    lease_s=30.0,
    timeout_s=3600.0,
    tags={},
    enqueued_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
)
NAIVE = dt.datetime(2026, 1, 1)
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
ITSELF: list[Any] = []
ITSELF.append(ITSELF)
KIB_256 = 256 * 1024

bad_names = pytest.mark.parametrize(
    "name",
    ["", "a:b", "a{b}", "}", "a*", "a b", "a\n", "\x00", "a\x7f", "é", "-a", ".", "a/b", "a" * 65, "\ud800", 7, b"a"],
    ids=repr,
)
bad_seconds = [-1, -0.001, math.nan, math.inf, -math.inf, 1e12, "1", True, None]


@pytest.fixture(params=["sync", "async"])
def queue(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A queue whose connector makes no client, and remembers when it was asked for one."""
    with opened(request.param, "work", redis=Counting(), namespace="n", agent="ann") as queue:
        yield queue


def assert_refused(queue: Any, call: Callable[[Any], Any]) -> None:
    with pytest.raises(UsageError) as refused:
        call(queue)
    assert isinstance(refused.value, ValueError)
    assert 0 == queue.connector.made, "a client was made, so something was to be sent"


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("what", ["name", "namespace", "agent"])
@bad_names
def test_a_name_that_could_break_out_of_its_key(colour: str, what: str, name: Any) -> None:
    if what != "name" and name == "":
        pytest.skip("empty means the default here")
    with pytest.raises(UsageError):
        opened(colour, redis=Counting(), **{what: name}).__enter__()


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("lease_s", [0, 0.9, 3601, *(bad for bad in bad_seconds if bad is not None)])
def test_a_lease_of_an_impossible_length(colour: str, lease_s: Any) -> None:
    with pytest.raises(UsageError):
        opened(colour, "work", redis=Counting(), lease_s=lease_s).__enter__()


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_two_places_to_live(colour: str, tmp_path: Any) -> None:
    with pytest.raises(UsageError):
        opened(colour, "work", redis=Counting(), data_dir=tmp_path).__enter__()


@bad_names
def test_a_job_id_that_is_no_name(queue: Any, name: Any) -> None:
    assert_refused(queue, lambda queue: queue.enqueue("t", job_id=name))
    assert_refused(queue, lambda queue: queue.cancel(name))
    assert_refused(queue, lambda queue: queue.reprioritise(name, "HIGH"))
    assert_refused(queue, lambda queue: queue.retry(name))
    assert_refused(queue, lambda queue: queue.job(name))
    assert_refused(queue, lambda queue: queue.dead.replay([name]))
    assert_refused(queue, lambda queue: queue.dead.purge([name]))


WRONG_ENQUEUES: dict[str, dict[str, Any]] = {
    "payload over its limit": {"payload": b"x" * (KIB_256 + 1)},
    "payload over its limit as JSON": {"payload": "x" * (KIB_256 - 1)},
    "payload of no known type": {"payload": object()},
    "payload with half a character": {"payload": "\ud800"},
    "payload that holds itself": {"payload": ITSELF},
    "payload that is a generator": {"payload": (n for n in ())},
    "payload with keys that are no text": {"payload": {(1, 2): 3}},
    "type too long": {"type": "t" * 65},
    "type with a control byte": {"type": "t\n"},
    "type that is no text": {"type": 5},
    "unknown priority": {"priority": "URGENT"},
    "priority that is a number": {"priority": 0},
    "no priority": {"priority": None},
    "time without a zone": {"run_at": NAIVE},
    "time that is a number": {"run_at": 5},
    "time before 1970": {"run_at": dt.datetime(1969, 1, 1, tzinfo=dt.UTC)},
    "two times": {"run_at": NOON, "delay_s": 1},
    **{f"max_attempts {n!r}": {"max_attempts": n} for n in (0, 101, -1, 1.5, "3", True, None)},
    **{f"delay_s {s!r}": {"delay_s": s} for s in bad_seconds if s is not None},
    **{f"timeout_s {s!r}": {"timeout_s": s} for s in (0, *bad_seconds)},
    **{f"retry from {s!r}": {"retry": Backoff(base_s=s)} for s in bad_seconds},
    **{f"retry up to {s!r}": {"retry": Backoff(max_s=s)} for s in bad_seconds},
    "retry that shrinks": {"retry": Backoff(base_s=10, max_s=9)},
    "empty unique key": {"unique": ""},
    "unique key too long": {"unique": "u" * 257},
    "unique key with a control byte": {"unique": "u\x00"},
    "too many tags": {"tags": {str(n): "" for n in range(65)}},
    "tag too long": {"tags": {"a": "x" * 257}},
    "name of a tag too long": {"tags": {"a" * 65: "x"}},
    "tag that is no text": {"tags": {"a": 1}},
    "tags that are no mapping": {"tags": ["a"]},
    "labels": {"labels": ("gpu",)},
    "request id too long": {"request_id": "r" * 129},
    "trace id with a control byte": {"trace_id": "\r"},
    "unknown answer to a conflict": {"on_conflict": "overwrite"},
}


@pytest.mark.parametrize("said", WRONG_ENQUEUES.values(), ids=WRONG_ENQUEUES)
def test_an_enqueue(queue: Any, said: dict[str, Any]) -> None:
    assert_refused(queue, lambda queue: queue.enqueue(**{"type": "t"} | said))
    conflict = {"on_conflict": said["on_conflict"]} if "on_conflict" in said else {}
    spec = {name: value for name, value in said.items() if name != "on_conflict"}
    assert_refused(queue, lambda queue: queue.enqueue_many([JobSpec(), JobSpec(**spec)], **conflict))


WRONG_CALLS: dict[str, Callable[[Any], Any]] = {
    "one spec where many belong": lambda queue: queue.enqueue_many(JobSpec()),
    "specs that are none": lambda queue: queue.enqueue_many([{"type": "t"}]),
    **{f"claim of {n!r}": lambda queue, n=n: queue.claim(n) for n in (0, 101, -1, 1.5, "1", True, None)},
    **{f"claim for {s!r} s": lambda queue, s=s: queue.claim(wait_s=s) for s in bad_seconds},
    **{f"lease of {s!r} s": lambda queue, s=s: queue.claim(lease_s=s) for s in (0, 0.9, 3601, *bad_seconds[:-1])},
    "claim with a long request id": lambda queue: queue.claim(request_id="r" * 65),
    "claim with a request id of control bytes": lambda queue: queue.claim(request_id="\x1b"),
    "claim by an agent that is no name": lambda queue: queue.claim(agent="a:b"),
    "claim while holding too much": lambda queue: queue.claim(holding=[LEASE] * 201),
    "claim while holding what is no lease": lambda queue: queue.claim(holding=["j"]),
    "parked claim of nothing": lambda queue: queue.claim(0, wait_s=1),
    "start of what is no lease": lambda queue: queue.start("j"),
    "heartbeat of what is no lease": lambda queue: queue.heartbeat(["j"]),
    "heartbeat of one bare lease": lambda queue: queue.heartbeat(LEASE),
    "complete what is no lease": lambda queue: queue.complete("j"),
    "result over its limit": lambda queue: queue.complete(LEASE, "x" * (KIB_256 - 1)),
    "result of no known type": lambda queue: queue.complete(LEASE, object()),
    "result with half a character": lambda queue: queue.complete(LEASE, {"\udfff": 1}),
    **{f"exit code {n!r}": lambda queue, n=n: queue.complete(LEASE, exit_code=n) for n in (2**31, "0", True, 1.5)},
    **{f"claim_next {n!r}": lambda queue, n=n: queue.complete(LEASE, claim_next=n) for n in (-1, 101, 1.5, "1")},
    "fail what is no lease": lambda queue: queue.fail(None),
    "unknown outcome": lambda queue: queue.fail(LEASE, outcome="exploded"),
    "error over its limit": lambda queue: queue.fail(LEASE, "x" * 8191),
    "error of no known type": lambda queue: queue.fail(LEASE, ValueError("why")),
    **{f"retry in {s!r} s": lambda queue, s=s: queue.fail(LEASE, delay_s=s) for s in bad_seconds[:-1]},
    "release of what is no lease": lambda queue: queue.release("j"),
    **{f"release for {s!r} s": lambda queue, s=s: queue.release(LEASE, delay_s=s) for s in bad_seconds[:-1]},
    "unknown mode of cancelling": lambda queue: queue.cancel("j", mode="softly"),
    **{f"grace of {s!r} s": lambda queue, s=s: queue.cancel("j", grace_s=s) for s in bad_seconds},
    "unknown priority": lambda queue: queue.reprioritise("j", "URGENT"),
    "list of an unknown status": lambda queue: queue.jobs(status="LOST"),
    "list of an unknown priority": lambda queue: queue.jobs(priority="URGENT"),
    **{f"page of {n!r}": lambda queue, n=n: queue.jobs(limit=n) for n in (0, 201, -1, 1.5, "9", None)},
    "cursor that nobody gave": lambda queue: queue.jobs(cursor="bm90IG1pbmU"),
    "cursor that is no cursor": lambda queue: queue.jobs(cursor="\x00é"),
    "page of dead letters of 0": lambda queue: queue.dead.list(limit=0),
    "replay of nothing named": lambda queue: queue.dead.replay(),
    "purge of nothing named": lambda queue: queue.dead.purge(),
    "replay of a text for ids": lambda queue: queue.dead.replay("j1"),
    "purge of a text for ids": lambda queue: queue.dead.purge("j1"),
    **{f"replay of at most {n!r}": lambda queue, n=n: queue.dead.replay(all=True, limit=n) for n in (0, -1, 1.5)},
    "pause with a long reason": lambda queue: queue.pause("x" * 501),
    "pause with a line break": lambda queue: queue.pause("a\nb"),
    "resume by a long name": lambda queue: queue.resume(by="x" * 129),
    **{f"window of {s!r} s": lambda queue, s=s: queue.stats(window_s=s) for s in (3601, *bad_seconds)},
    "configure nothing": lambda queue: queue.configure(),
    "configure what is not there": lambda queue: queue.configure(speed=11),
    "configure a limit below zero": lambda queue: queue.configure(max_queued=-1),
    "configure half a job": lambda queue: queue.configure(max_queued=1.5),
    "configure no lease": lambda queue: queue.configure(lease_s=math.nan),
    "configure one right and one wrong": lambda queue: queue.configure(max_queued=5, max_dead=0),
}


@pytest.mark.parametrize("call", WRONG_CALLS.values(), ids=WRONG_CALLS)
def test_a_call(queue: Any, call: Callable[[Any], Any]) -> None:
    assert_refused(queue, call)


def test_a_payload_of_exactly_its_limit_is_sent(queue: Any) -> None:
    with pytest.raises(RedisUnavailable):
        queue.enqueue("t", b"x" * KIB_256)
    assert 1 == queue.connector.made, "the connector of these tests does notice"
