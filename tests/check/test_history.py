"""An honest history passes the check; a lie is found out, by the right invariant. Recording keeps what is needed."""

from __future__ import annotations

import asyncio
import itertools
import threading
from pathlib import Path

import msgspec
import pytest

from hybridq import check
from hybridq.aio import AsyncQueue
from hybridq.check import Event, Recorder
from hybridq.client import Queue
from hybridq.errors import InvalidArgument, JobNotFound, OutcomeUnknown
from hybridq.job import JobSpec
from tests.check.lies import LIES, Case
from tests.check.tale import MS, Tale, lease
from tests.check.truths import TRUTHS, Truth


@pytest.mark.parametrize("case", LIES, ids=lambda case: case.sentence)
def test_a_lie_is_found_out(case: Case) -> None:
    tale = Tale()
    case.tell(tale)
    report = check.history(tale.events)
    assert {violation.invariant for violation in report.violations} == case.invariants, report.violations
    assert case.job_id in {violation.job_id for violation in report.violations}
    assert check.history(reversed(tale.events)).violations == report.violations


@pytest.mark.parametrize("tell", [tell for _, tell in TRUTHS], ids=[sentence for sentence, _ in TRUTHS])
def test_an_honest_history_passes(tell: Truth) -> None:
    tale = Tale()
    tell(tale)
    check.history(tale.events).raise_if_broken()


def test_a_report_counts_jobs_and_names_queues() -> None:
    tale = Tale()
    tale.enqueue("a", queue="one")
    tale.enqueue("a", queue="two")
    tale.tell("stats", {"queued": 2}, queue="three")
    report = check.history(tale.events)
    assert (report.jobs, report.queues) == (2, ("one", "two"))


def test_an_event_that_does_not_read_is_named() -> None:
    tale = Tale()
    tale.tell("claim", [{"job_id": "a"}])
    with pytest.raises(InvalidArgument, match="fence"):
        check.history(tale.events)


def test_a_lease_call_without_its_job_is_refused() -> None:
    tale = Tale()
    tale.tell("complete", {"status": "COMPLETED"})
    with pytest.raises(InvalidArgument, match="neither lease nor job_id"):
        check.history(tale.events)


def test_a_long_history_is_checked_in_one_pass() -> None:
    """Ten thousand jobs, the last two of which changed places."""
    tale = Tale()
    ids = [f"job-{n}" for n in range(10_000)]
    for job_id in ids:
        tale.enqueue(job_id)
    ids[-2:] = reversed(ids[-2:])
    for fence, job_id in enumerate(ids, 1):
        tale.claim(lease(job_id, fence))
    found = check.history(tale.events).violations
    assert [(violation.invariant, violation.job_id) for violation in found] == [(6, "job-9998")]


# -- recording ---------------------------------------------------------------------------------------------------


def test_a_call_is_recorded_with_its_times_arguments_and_answer() -> None:
    recorder = Recorder(clock=itertools.count(100).__next__)
    with recorder.call("enqueue", proc="p1", queue="demo", payload=b"raw", priority="HIGH") as call:
        call.ok({"job_id": "a", "created": True})
    [event] = recorder.events
    assert (event.proc, event.op, event.type, event.t_inv, event.t_ret) == ("p1", "enqueue", "ok", 100, 101)
    assert event.result == {"job_id": "a", "created": True}
    assert event.args["priority"] == "HIGH"
    assert len(event.args["payload_sha256"]) == 64
    assert "payload" not in event.args


def test_a_payload_has_one_digest_in_all_its_forms() -> None:
    recorder = Recorder()
    with recorder.call("enqueue", proc="p1", payload={"a": [1, 2]}) as call:
        call.ok(JobSpec(payload=b'{"a":[1,2]}'))
    [event] = recorder.events
    assert event.args["payload_sha256"] == event.result["payload_sha256"]


def test_an_error_that_says_nothing_happened_is_a_failure() -> None:
    recorder = Recorder()
    with pytest.raises(JobNotFound), recorder.call("job", proc="p1", job_id="a"):
        raise JobNotFound("a")
    [event] = recorder.events
    assert (event.type, event.result["error"]) == ("fail", "JobNotFound")


@pytest.mark.parametrize("error", [OutcomeUnknown("enqueue", "timeout"), asyncio.CancelledError(), ValueError("bug")])
def test_any_other_error_leaves_the_outcome_open(error: BaseException) -> None:
    recorder = Recorder()
    with pytest.raises(type(error)), recorder.call("enqueue", proc="p1", job_id="a"):
        raise error
    assert [event.type for event in recorder.events] == ["info"]


def test_a_call_without_a_word_about_its_end_is_open() -> None:
    recorder = Recorder()
    with recorder.call("enqueue", proc="p1"):
        pass
    assert [event.type for event in recorder.events] == ["info"]


def test_a_history_survives_its_file(tmp_path: Path) -> None:
    tale = Tale()
    tale.enqueue("a")
    tale.claim(lease("a", 1))
    check.write_events(tmp_path / "history.jsonl", tale.events)
    assert check.read_events(tmp_path / "history.jsonl") == tuple(tale.events)


def test_a_killed_process_leaves_the_calls_it_had_sent(tmp_path: Path) -> None:
    """What was sent is written before it is sent, and a line cut short by the kill does no harm."""
    recorder = Recorder(tmp_path / "one.jsonl", clock=itertools.count(1).__next__)
    with recorder.call("enqueue", proc="p1", job_id="a") as call:
        call.ok({"job_id": "a"})
    with recorder.call("claim", proc="p1"):
        killed = (tmp_path / "one.jsonl").read_bytes()
    recorder.close()
    (tmp_path / "killed.jsonl").write_bytes(killed + b'{"proc":"p1","op":"cl')
    events = check.read_events(tmp_path / "killed.jsonl")
    assert [(event.op, event.type, event.t_ret) for event in events] == [("enqueue", "ok", 2), ("claim", "info", None)]


def test_a_broken_line_inside_a_history_is_no_history(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_bytes(b"{}\n")
    with pytest.raises(msgspec.DecodeError):
        check.read_events(tmp_path / "history.jsonl")


def test_histories_of_several_processes_are_read_as_one(tmp_path: Path) -> None:
    for name, at in (("one", 5), ("two", 3)):
        event = Event(proc=name, op="enqueue", args={"job_id": name}, t_inv=at * MS)
        check.write_events(tmp_path / name, [event])
    assert [event.proc for event in check.read_events(tmp_path / "one", tmp_path / "two")] == ["two", "one"]


# -- the library itself ---------------------------------------------------------------------------------------------


def test_what_threads_see_of_the_queue_is_honest(redis_url: str, namespace: str) -> None:
    """Producers and workers of every habit, then an inventory: a real history has nothing to hide."""
    recorder = Recorder()
    problems: list[BaseException] = []

    def produce(name: str) -> None:
        with Queue("demo", redis=redis_url, namespace=namespace) as queue:
            for n in range(40):
                said = {"job_id": f"{name}-{n}", "payload": {"n": n}, "priority": ("LOW", "HIGH")[n % 2]}
                with recorder.call("enqueue", proc=name, queue="demo", **said) as call:
                    call.ok(queue.enqueue("work", **said))  # type: ignore[arg-type]

    def work(name: str) -> None:
        with Queue("demo", redis=redis_url, namespace=namespace, agent=name) as queue:
            for turn in itertools.count():
                if not _work_once(queue, recorder, name, turn):
                    return

    def guarded(do: object, name: str) -> None:
        try:
            do(name)  # type: ignore[operator]
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=guarded, args=(produce, f"producer-{n}")) for n in range(3)]
    threads += [threading.Thread(target=guarded, args=(work, f"worker-{n}")) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    with Queue("demo", redis=redis_url, namespace=namespace) as queue:
        with recorder.call("inventory", proc="main", queue="demo", drained=True) as call:
            call.ok({job.job_id: job.status for job in queue.jobs(limit=200).items})
    report = check.history(recorder.events)
    report.raise_if_broken()
    assert report.jobs == 120


def _work_once(queue: Queue, recorder: Recorder, name: str, turn: int) -> bool:
    """Claim two jobs and end them one way or another; False when there was nothing for a while."""
    with recorder.call("claim", proc=name, queue="demo", agent=name, n=2, request_id=f"{name}-{turn}") as call:
        leases = queue.claim(2, wait_s=0.3, request_id=f"{name}-{turn}")
        call.ok(leases)
    for place, lease_ in enumerate(leases):
        if (turn + place) % 5 == 4 and lease_.deliveries < 3:
            with recorder.call("release", proc=name, queue="demo", lease=lease_) as call:
                call.ok(queue.release(lease_))
            continue
        with recorder.call("start", proc=name, queue="demo", lease=lease_) as call:
            call.ok(queue.start(lease_))
        with recorder.call("heartbeat", proc=name, queue="demo", leases=[lease_]) as call:
            call.ok(queue.heartbeat([lease_]))
        if (turn + place) % 4 == 3:
            with recorder.call("fail", proc=name, queue="demo", lease=lease_) as call:
                call.ok(queue.fail(lease_, "broken", delay_s=0.02))
            continue
        for _ in range(1 + turn % 2):
            with recorder.call("complete", proc=name, queue="demo", lease=lease_, result=turn) as call:
                call.ok(queue.complete(lease_, turn))
        with recorder.call("job", proc=name, queue="demo", job_id=lease_.job_id) as call:
            call.ok(queue.job(lease_.job_id))
    return bool(leases)


async def test_what_tasks_see_of_the_queue_is_honest(redis_url: str, namespace: str) -> None:
    recorder = Recorder()
    async with AsyncQueue("demo", redis=redis_url, namespace=namespace, agent="agent-1") as queue:

        async def produce(n: int) -> None:
            with recorder.call("enqueue", proc=f"producer-{n}", queue="demo", job_id=f"job-{n}") as call:
                call.ok(await queue.enqueue("work", job_id=f"job-{n}"))

        async def work(name: str) -> None:
            while True:
                with recorder.call("claim", proc=name, queue="demo", agent="agent-1") as call:
                    leases = await queue.claim(start=True)
                    call.ok(leases)
                if not leases:
                    return
                with recorder.call("complete", proc=name, queue="demo", lease=leases[0]) as call:
                    call.ok(await queue.complete(leases[0]))

        await asyncio.gather(*(produce(n) for n in range(60)))
        await asyncio.gather(*(work(f"worker-{n}") for n in range(8)))
        with recorder.call("inventory", proc="main", queue="demo", drained=True) as call:
            call.ok({job.job_id: job.status for job in (await queue.jobs(limit=200)).items})
    report = check.history(recorder.events)
    report.raise_if_broken()
    assert report.jobs == 60
