"""Operations as values: what is refused before anything is sent, and what each answer of a script becomes."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from typing import Any

import pytest

from hybridq import errors
from hybridq.call import Call
from hybridq.job import Backoff, Enqueued, JobSpec, Lease
from hybridq.lifecycle import JobStatus, Priority
from hybridq.ops import fleet, inspect, jobs, leases, logs, queues
from hybridq.retry import JITTER_STEPS
from hybridq.scripts import load, verbs

ROOT = "hq:{default/q/jobs}"
LEASE = Lease(
    job_id="a",
    queue="jobs",
    type="build",
    payload=b"{}",
    fence=7,
    lease_id="0" * 32,
    agent="one",
    status=JobStatus.RUNNING,
    priority=Priority.NORMAL,
    attempt=1,
    max_attempts=3,
    deliveries=1,
    generation=0,
    lease_s=30.0,
    timeout_s=60.0,
    tags={},
    enqueued_at=dt.datetime.fromtimestamp(0, dt.UTC),
)
CALLS: dict[str, Callable[[], Call[Any]]] = {
    "agents": lambda: fleet.figures(ROOT, ["one"]),
    "append_log": lambda: logs.append(ROOT, LEASE, 0, "said\n"),
    "cancel": lambda: jobs.cancel(ROOT, "a"),
    "claim": lambda: leases.claim(ROOT, queue="jobs", agent="one", lease_id="0" * 32),
    "complete": lambda: leases.complete(ROOT, LEASE),
    "configure": lambda: queues.configure(ROOT, {"max_dead": 5}),
    "create": lambda: queues.create(ROOT),
    "describe": lambda: inspect.describe(ROOT, ["a"], queue="jobs"),
    "enlist": lambda: fleet.enlist(ROOT, "one", generation=1, capacity=1),
    "enqueue": lambda: jobs.enqueue(ROOT, [JobSpec(job_id="a")], queue="jobs"),
    "heartbeat": lambda: leases.heartbeat(ROOT, [LEASE]),
    "limits": lambda: queues.limits(ROOT),
    "list": lambda: inspect.page(ROOT),
    "pause": lambda: queues.pause(ROOT, paused=True),
    "peek": lambda: queues.peek(ROOT),
    "purge": lambda: jobs.purge(ROOT, ["a"]),
    "read_log": lambda: logs.read(ROOT, "a"),
    "release": lambda: leases.release(ROOT, LEASE),
    "replay": lambda: jobs.retry(ROOT, "a"),
    "reprioritise": lambda: jobs.reprioritise(ROOT, "a", "HIGH"),
    "start": lambda: leases.start(ROOT, LEASE),
    "stats": lambda: inspect.stats(ROOT),
    "upkeep": lambda: queues.upkeep(ROOT),
}
every_verb = pytest.mark.parametrize("verb", verbs())


@every_verb
def test_a_call_has_the_arguments_its_header_asks_for(verb: str) -> None:
    call = CALLS[verb]()

    assert call.script is load(verb)
    assert len(call.common) == len(call.script.header.common)
    assert [len(entry) for entry in call.entries] == ([len(call.script.header.each)] if call.script.header.each else [])


@every_verb
def test_calls_of_one_kind_can_travel_together(verb: str) -> None:
    assert CALLS[verb]().key == CALLS[verb]().key == (load(verb).sha, ROOT, CALLS[verb]().common)


@pytest.mark.parametrize(
    ("verb", "repeatable"),
    [("cancel", True), ("complete", True), ("enqueue", True), ("release", False), ("replay", False), ("claim", False)],
)
def test_only_what_a_script_recognises_may_be_sent_again(verb: str, repeatable: bool) -> None:
    assert (CALLS[verb]().again() is not None) is repeatable


# -- answers ------------------------------------------------------------------------------------------------

RAISES: list[tuple[str, list[Any], type[Exception]]] = [
    ("cancel", [b"TERMINAL", b"COMPLETED"], errors.AlreadyTerminal),
    ("cancel", [b"NOT_FOUND"], errors.JobNotFound),
    ("claim", [b"DRAINING"], errors.AgentDraining),
    ("claim", [b"SUPERSEDED"], errors.SessionSuperseded),
    ("complete", [b"OUTCOME_CONFLICT", b"failed"], errors.OutcomeConflict),
    ("complete", [b"ILLEGAL", b"CLAIMED"], errors.IllegalTransition),
    ("complete", [b"STALE_LEASE", b"QUEUED"], errors.StaleLease),
    ("complete", [b"NOT_HOLDER"], errors.NotLeaseHolder),
    ("complete", [b"NOT_FOUND"], errors.JobNotFound),
    ("complete", [b"IN_DOUBT", b"user_script:3: oh"], errors.EntryInDoubt),
    ("release", [b"STALE_LEASE", b"RUNNING"], errors.StaleLease),
    ("release", [b"NOT_HOLDER"], errors.NotLeaseHolder),
    ("release", [b"NOT_FOUND"], errors.JobNotFound),
    ("replay", [b"NOT_TERMINAL", b"QUEUED"], errors.NotTerminal),
    ("replay", [b"UNIQUE_TAKEN", b"b"], errors.UniqueTaken),
    ("replay", [b"NOT_FOUND"], errors.JobNotFound),
    ("reprioritise", [b"TERMINAL", b"FAILED"], errors.AlreadyTerminal),
    ("reprioritise", [b"NOT_FOUND"], errors.JobNotFound),
    ("start", [b"CANCELLED"], errors.JobCancelled),
    ("start", [b"STALE_LEASE", b"COMPLETED"], errors.StaleLease),
    ("start", [b"NOT_HOLDER"], errors.NotLeaseHolder),
    ("start", [b"NOT_FOUND"], errors.JobNotFound),
]


@pytest.mark.parametrize(("verb", "reply", "kind"), RAISES)
def test_a_refusal_is_a_typed_error(verb: str, reply: list[Any], kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        CALLS[verb]().decode([reply])

    assert type(caught.value) is kind


@pytest.mark.parametrize("verb", sorted({verb for verb, _, _ in RAISES}))
def test_an_answer_nobody_knows_is_the_installations_fault(verb: str) -> None:
    with pytest.raises(errors.ScriptFailed, match="SURPRISE"):
        CALLS[verb]().decode([[b"SURPRISE", b""]])


@every_verb
def test_every_tag_of_a_header_is_known_to_its_operation(verb: str) -> None:
    """Whatever it becomes, a value or an error: it is never an answer that nobody expected."""
    lists: dict[str, Any] = {"jobs": [], "ids": []}
    for tag, *names in (one.split() for one in load(verb).header.returns):
        if (verb, tag) in IMPOSSIBLE or tag in ("LANES_CHANGED", "NO_QUEUE", "JOB", "LIMITS", "STATS"):
            continue
        reply = [tag.encode(), *(lists.get(name, _sample(name)) for name in names)]
        try:
            answer = CALLS[verb]().decode([reply])
        except errors.ScriptFailed as surprise:
            raise AssertionError(f"{verb} does not know {tag}") from surprise
        except errors.HybridqError:
            continue
        answers = answer if isinstance(answer, list) else [answer]
        assert not any(isinstance(one, errors.ScriptFailed) for one in answers), tag


IMPOSSIBLE = {("complete", "MALFORMED"), ("enqueue", "NO_LANE")}
"""Tags for arguments that the library does not send."""


def _sample(name: str) -> bytes:
    return b"QUEUED" if name == "status" else b"high" if name == "job_id" else b"1"


def test_each_spec_of_an_enqueue_has_its_own_answer() -> None:
    specs = [JobSpec(job_id=job_id) for job_id in "abcd"]
    replies = [[b"ENQUEUED", b"QUEUED"], [b"DUPLICATE", b"RUNNING"], [b"CONFLICT", b"QUEUED"], [b"FULL", b"9"]]
    first, second, third, fourth = jobs.enqueue(ROOT, specs, queue="jobs").decode(replies)

    assert first == Enqueued(job_id="a", status=JobStatus.QUEUED, created=True)
    assert second == Enqueued(job_id="b", status=JobStatus.RUNNING, created=False)
    assert isinstance(third, errors.JobConflict)
    assert isinstance(fourth, errors.QueueFull) and fourth.limit == 9


@pytest.mark.parametrize(("on_conflict", "kind"), [("return", "Enqueued"), ("reject", "UniqueTaken")])
def test_a_taken_unique_key_is_an_answer_or_an_error(on_conflict: str, kind: str) -> None:
    call = jobs.enqueue(ROOT, [JobSpec(job_id="a", unique="key")], queue="jobs", on_conflict=on_conflict)
    [answer] = call.decode([[b"UNIQUE", b"b", b"RUNNING"]])

    assert type(answer).__name__ == kind
    assert "b" in (getattr(answer, "job_id", ""), getattr(answer, "existing_job_id", ""))


def test_a_heartbeat_sorts_leases_into_renewed_lost_and_to_cancel() -> None:
    held = [LEASE, *(Lease(**{**_fields(LEASE), "job_id": job_id}) for job_id in "bcde")]
    beat = leases.heartbeat(ROOT, held).decode(
        [
            [b"RENEWED", b"30000", b"", b"0"],
            [b"RENEWED", b"30000", b"kill", b"1500"],
            [b"STALE_LEASE", b"QUEUED"],
            [b"NOT_HOLDER"],
            [b"NOT_FOUND"],
        ]
    )

    assert beat.renewed == ("a", "b")
    assert beat.lost == {"c": "stale_lease", "d": "not_lease_holder", "e": "not_found"}
    [cancel] = beat.cancel
    assert (cancel.job_id, cancel.mode, cancel.grace_s) == ("b", "kill", 1.5)


def _fields(lease: Lease) -> dict[str, Any]:
    return {name: getattr(lease, name) for name in lease.__struct_fields__}


# -- arguments ----------------------------------------------------------------------------------------------

SPECS: dict[str, dict[str, Any]] = {
    "job_id with braces": {"job_id": "a{b}"},
    "job_id empty": {"job_id": ""},
    "job_id too long": {"job_id": "x" * 65},
    "job_id of bytes": {"job_id": b"a"},
    "priority unknown": {"priority": "URGENT"},
    "priority a number": {"priority": 1},
    "delay and run_at": {"delay_s": 1, "run_at": dt.datetime.now(dt.UTC)},
    "delay negative": {"delay_s": -0.001},
    "delay over a year": {"delay_s": 367 * 86_400},
    "delay not a number": {"delay_s": float("nan")},
    "delay infinite": {"delay_s": float("inf")},
    "delay a bool": {"delay_s": True},
    "run_at without zone": {"run_at": dt.datetime(2027, 1, 1)},
    "run_at before 1970": {"run_at": dt.datetime(1969, 1, 1, tzinfo=dt.UTC)},
    "max_attempts 0": {"max_attempts": 0},
    "max_attempts 101": {"max_attempts": 101},
    "max_attempts a bool": {"max_attempts": True},
    "max_attempts a float": {"max_attempts": 2.0},
    "backoff base over an hour": {"retry": Backoff(base_s=3601, max_s=7200)},
    "backoff below its base": {"retry": Backoff(base_s=10, max_s=9)},
    "timeout 0": {"timeout_s": 0},
    "unique empty": {"unique": ""},
    "unique too long": {"unique": "x" * 257},
    "unique with a control character": {"unique": "a\nb"},
    "type too long": {"type": "x" * 65},
    "tags, too many": {"tags": {str(n): "" for n in range(65)}},
    "tags of numbers": {"tags": {"a": 1}},
    "payload over its limit": {"payload": b"x" * 262_145},
    "payload that is no JSON": {"payload": object()},
    "labels": {"labels": ("os=linux",)},
}


@pytest.mark.parametrize("what", SPECS)
def test_a_wrong_spec_is_refused_before_anything_is_sent(what: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        jobs.prepare(JobSpec(**SPECS[what]))

    assert what.replace(",", " ").split()[0] in str(caught.value).replace("retry.", "backoff ")


WRONG: dict[str, Callable[[], object]] = {
    "a spec of another kind": lambda: jobs.prepare({"job_id": "a"}),  # type: ignore[arg-type]
    "on_conflict": lambda: jobs.enqueue(ROOT, [], queue="jobs", on_conflict="replace"),
    "cancel mode": lambda: jobs.cancel(ROOT, "a", mode="softly"),
    "cancel grace": lambda: jobs.cancel(ROOT, "a", grace_s=86_401),
    "claim n": lambda: leases.claim(ROOT, queue="jobs", agent="one", lease_id="0" * 32, n=101),
    "claim none": lambda: leases.claim(ROOT, queue="jobs", agent="one", lease_id="0" * 32, n=0),
    "claim lease": lambda: leases.claim(ROOT, queue="jobs", agent="one", lease_id="0" * 32, lease_s=0.5),
    "claim agent": lambda: leases.claim(ROOT, queue="jobs", agent="o*e", lease_id="0" * 32),
    "claim request": lambda: leases.claim(ROOT, queue="jobs", agent="one", lease_id="0" * 32, request_id="r" * 65),
    "holding too much": lambda: leases.claim(ROOT, queue="jobs", agent="one", lease_id="0" * 32, holding=[LEASE] * 201),
    "start of no lease": lambda: leases.start(ROOT, "a"),  # type: ignore[arg-type]
    "complete outcome": lambda: leases.complete(ROOT, LEASE, "well"),
    "complete exit code": lambda: leases.complete(ROOT, LEASE, exit_code=2**31),
    "complete exit code of text": lambda: leases.complete(ROOT, LEASE, exit_code="0"),  # type: ignore[arg-type]
    "complete result": lambda: leases.complete(ROOT, LEASE, result="x" * 262_145),
    "complete error": lambda: leases.complete(ROOT, LEASE, "failed", error="x" * 8193),
    "complete delay": lambda: leases.complete(ROOT, LEASE, "failed", delay_s=-1),
    "release delay": lambda: leases.release(ROOT, LEASE, delay_s=float("inf")),
    "configure nothing": lambda: queues.configure(ROOT, {}),
    "configure unknown": lambda: queues.configure(ROOT, {"fence": 1}),
    "configure range": lambda: queues.configure(ROOT, {"lease_s": 3601}),
    "configure a float": lambda: queues.configure(ROOT, {"max_dead": 1.5}),
    "pause reason": lambda: queues.pause(ROOT, paused=True, reason="x" * 501),
    "pause by": lambda: queues.pause(ROOT, paused=True, by="a\x00b"),
    "page limit": lambda: inspect.page(ROOT, limit=201),
    "page status": lambda: inspect.page(ROOT, status="waiting"),
    "page cursor": lambda: inspect.page(ROOT, cursor="bm9uZQ"),
    "stats window": lambda: inspect.stats(ROOT, window_s=3601),
    "stats window negative": lambda: inspect.stats(ROOT, window_s=-1),
    "describe a name": lambda: inspect.describe(ROOT, ["a b"], queue="jobs"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_argument_is_refused_before_anything_is_sent(what: str) -> None:
    with pytest.raises(errors.UsageError):
        WRONG[what]()


def test_a_cursor_is_good_for_its_own_list_only() -> None:
    page = inspect.page(ROOT, status="COMPLETED").decode([[b"PAGE", [b"a"], b"1800000000000", b"a"]])

    assert inspect.page(ROOT, status="FAILED", cursor=page.next_cursor).common[-2:] == ("1800000000000", "a")
    with pytest.raises(errors.InvalidArgument, match="cursor"):
        inspect.page(ROOT, status="DEAD_LETTERED", cursor=page.next_cursor)


def test_the_last_page_has_no_cursor() -> None:
    assert inspect.page(ROOT).decode([[b"PAGE", [], b"", b""]]).next_cursor is None


@pytest.mark.parametrize(("delay_s", "argument"), [(None, 0), (0, 1), (0.001, 2), (60, 60_001)])
def test_a_chosen_delay_travels_plus_one(delay_s: float | None, argument: int) -> None:
    call = leases.complete(ROOT, LEASE, "failed", delay_s=delay_s)
    place = [parameter.name for parameter in call.script.header.each].index("delay_ms")

    assert call.entries[0][place] == argument


def test_jitter_comes_in_by_argument() -> None:
    calls = [leases.complete(ROOT, LEASE, "failed", rng=random.Random(5)) for _ in range(2)]
    place = [parameter.name for parameter in calls[0].script.header.each].index("jitter")

    assert calls[0].entries == calls[1].entries
    assert 0 <= int(calls[0].entries[0][place]) < JITTER_STEPS
