"""`hybridq cancel`, `retry`, `priority`."""

from __future__ import annotations

from collections.abc import Callable

from hybridq import JobStatus, Priority, Queue

from .conftest import Ran

Run = Callable[..., Ran]


def test_a_waiting_job_is_cancelled_at_once(hybridq: Run, queue: Queue) -> None:
    queue.enqueue("build", job_id="b1")
    ran = hybridq("cancel", "b1")
    assert (ran.code, ran.out) == (0, "b1 CANCELLED\n")
    assert queue.job("b1").status is JobStatus.CANCELLED


def test_the_holder_of_a_leased_job_is_asked(hybridq: Run, queue: Queue) -> None:
    queue.enqueue("build", job_id="b1")
    [lease] = queue.claim(start=True)
    ran = hybridq("cancel", "b1", "--mode", "kill", "--grace", "2", "--json")
    assert ran.document == {"results": [{"job_id": "b1", "status": "RUNNING", "requested": True}]}
    [request] = queue.heartbeat([lease]).cancel
    assert (request.mode, request.grace_s) == ("kill", 2.0)
    assert "asked its holder to stop" in hybridq("cancel", "b1").out


def test_many_are_cancelled_and_those_that_cannot_be_are_named(hybridq: Run, queue: Queue) -> None:
    for job_id in ("b1", "b2"):
        queue.enqueue("build", job_id=job_id)
    ran = hybridq("cancel", "b1", "nope", "b2")
    assert (ran.code, ran.out) == (1, "b1 CANCELLED\nb2 CANCELLED\n")
    assert "job nope: not found" in ran.err
    results = hybridq("retry", "b1", "nope", "--json").document["results"]
    assert results[0] == {"job_id": "b1", "status": "QUEUED"}
    assert results[1]["error"]["code"] == "job_not_found"


def test_an_ended_job_cannot_be_cancelled_and_a_waiting_one_not_retried(hybridq: Run, queue: Queue) -> None:
    queue.enqueue("build", job_id="b1")
    assert hybridq("retry", "b1", "--json").error["code"] == "not_terminal"
    [lease] = queue.claim(start=True)
    queue.complete(lease)
    ran = hybridq("cancel", "b1", "--json")
    assert (ran.code, ran.error["code"], ran.error["status"]) == (1, "already_terminal", "COMPLETED")


def test_a_job_gets_another_priority(hybridq: Run, queue: Queue) -> None:
    queue.enqueue("build", job_id="b1")
    queue.enqueue("build", job_id="b2")
    ran = hybridq("priority", "b2", "critical", "--json")
    assert ran.document == {"results": [{"job_id": "b2", "status": "QUEUED", "priority": "CRITICAL"}]}
    assert queue.job("b2").priority is Priority.CRITICAL
    assert queue.claim()[0].job_id == "b2"


def test_a_level_that_does_not_exist_is_a_wrong_call(hybridq: Run) -> None:
    assert hybridq("priority", "b1", "URGENT").code == 2
