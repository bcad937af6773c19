"""Each promise of the demo, broken by one change to what a good run leaves behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from hybridq import JobStatus
from hybridq.check import Report as Checked
from hybridq.check import Violation
from hybridq.demo._plan import Plan
from hybridq.demo._promises import Records, judge, table_of

from .conftest import attempt, stats

Changed = Callable[..., Records]


def broken(plan: Plan, records: Records) -> list[str]:
    return [promise.promise for promise in judge(plan, records) if not promise.kept]


def test_the_records_of_a_good_run_keep_every_promise(plan: Plan, records: Records) -> None:
    promises = judge(plan, records)
    assert [promise.evidence for promise in promises if not promise.kept] == []
    assert len(promises) == 10


@pytest.mark.parametrize(
    ("job_id", "fields", "promise"),
    [
        ("wheel", {"status": JobStatus.FAILED}, "every job of the pipeline is completed"),
        ("hash-wheel", {"result": None}, "sdist and wheel were built"),
        ("hash-sdist", {"result": {"facts": {"artifact": "x-1.tar.gz", "sha256": "0" * 64}}}, "sdist and wheel were"),
        ("hash-sdist", {"result": {"facts": {"artifact": "gone.tar.gz", "sha256": ""}}}, "sdist and wheel were"),
        ("tests", {"result": {"facts": {"passed": 99, "folder": "tests/unit"}}}, "the unit tests passed"),
        ("manifest", {"seq": 0}, "the CRITICAL job was enqueued last and claimed first"),
        ("sdist", {"attempts": (attempt(55, "success"),)}, "jobs that waited together were claimed by priority"),
        ("smoke", {"attempts": (attempt(60, "failed"), attempt(61, "success"))}, "the flaky job failed twice"),
        ("smoke", {"attempts": (attempt(60, "success"),)}, "the flaky job failed twice"),
        ("lint", {"generation": 0}, "the doomed job became a dead letter"),
        ("lint", {"attempts": (attempt(30, "failed"), attempt(32, "success"))}, "the doomed job became a dead letter"),
        ("tests", {"attempts": (attempt(20, "success"),)}, "a worker was killed with SIGKILL"),
        (
            "tests",
            {"attempts": (attempt(20, "lost", "worker-2"), attempt(90, "success", "worker-2"))},
            "a worker was killed with SIGKILL",
        ),
    ],
)
def test_one_change_breaks_one_promise(
    plan: Plan, changed: Changed, job_id: str, fields: dict[str, Any], promise: str
) -> None:
    [found] = broken(plan, changed(job_id, **fields))
    assert found.casefold().startswith(promise.casefold())


def test_a_critical_job_that_was_not_claimed_first_breaks_two(plan: Plan, changed: Changed) -> None:
    first, order = broken(plan, changed("manifest", attempts=(attempt(25, "success"),)))
    assert first == "the CRITICAL job was enqueued last and claimed first"
    assert order.startswith("jobs that waited together were claimed by priority")


def test_a_run_in_which_nobody_was_killed_breaks_its_promise(plan: Plan, records: Records) -> None:
    [found] = broken(plan, dataclasses.replace(records, killed=None))
    assert "killed" in found
    [found] = broken(plan, dataclasses.replace(records, killed=("worker-2", "tests", 0)))
    assert "killed" in found


@pytest.mark.parametrize("left", ["queued", "scheduled", "claimed", "running", "dead_lettered"])
def test_anything_left_over_breaks_a_promise(plan: Plan, records: Records, left: str) -> None:
    [found] = broken(plan, dataclasses.replace(records, stats=stats(**{left: 1})))
    assert found == "nothing is left waiting, running or dead"


def test_a_broken_invariant_breaks_a_promise(plan: Plan, records: Records) -> None:
    violation = Violation(invariant=1, queue="ci", job_id="lint", message="in no index")
    checked = Checked(violations=(violation,), jobs=9, queues=("ci",))
    [found] = [one for one in judge(plan, dataclasses.replace(records, checked=checked)) if not one.kept]
    assert "in no index" in found.evidence
    overlooked = Checked(violations=(), jobs=0, queues=())
    assert broken(plan, dataclasses.replace(records, checked=overlooked)) == ["every invariant of the records holds"]


def test_no_records_at_all_keep_almost_nothing(plan: Plan, records: Records) -> None:
    nothing = dataclasses.replace(records, jobs={}, killed=None)
    kept = {promise.promise for promise in judge(plan, nothing) if promise.kept}
    assert kept == {"nothing is left waiting, running or dead"}


def test_without_unit_tests_any_number_of_tests_will_do(plan: Plan, changed: Changed) -> None:
    (plan.tree / "tests" / "unit").rmdir()
    none = changed("tests", result={"facts": {"passed": 0, "folder": None}})
    assert broken(plan, none) == []


def test_the_table_tells_how_each_run_ended(records: Records) -> None:
    rows = {row[0]: row for row in table_of(list(records.jobs.values()))}
    assert rows["tests"] == ("tests", "HIGH", "COMPLETED", "2", "lost on worker-2, success on worker-1")
    assert next(iter(rows)) == "compile", "in the order of enqueue"
