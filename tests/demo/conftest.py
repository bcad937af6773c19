"""A plan with everything made, and the records of a run that kept every promise."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hybridq import Attempt, Backoff, Job, JobStatus, Priority, QueueStats, WindowStats
from hybridq.check import Report as Checked
from hybridq.demo._plan import Plan
from hybridq.demo._promises import Records

NOON = dt.datetime(2030, 1, 1, 12, tzinfo=dt.UTC)


def attempt(fence: int, outcome: str, agent: str = "worker-1", **fields: Any) -> Attempt:
    whole: dict[str, Any] = {
        "number": 1,
        "agent": agent,
        "fence": fence,
        "claimed_at": NOON,
        "started_at": NOON,
        "finished_at": NOON + dt.timedelta(seconds=fence),
        "outcome": outcome,
        "status": JobStatus.COMPLETED if outcome == "success" else JobStatus.SCHEDULED,
    }
    return Attempt(**whole | fields)


def job(job_id: str, seq: int, *attempts: Attempt, **fields: Any) -> Job:
    whole: dict[str, Any] = {
        **dict.fromkeys(Job.__struct_fields__),
        "job_id": job_id,
        "queue": "ci",
        "type": job_id,
        "status": JobStatus.COMPLETED,
        "priority": Priority.NORMAL,
        "payload": b"null",
        "lane": "any",
        "attempt": len(attempts),
        "max_attempts": 3,
        "deliveries": len(attempts),
        "generation": 0,
        "timeout_s": 300.0,
        "retry": Backoff(),
        "tags": {},
        "labels": (),
        "enqueued_at": NOON,
        "result": {"log": "x.log", "facts": {}},
        "seq": seq,
        "attempts": attempts,
    }
    return Job(**whole | fields)


def stats(**gauges: int) -> QueueStats:
    fields: dict[str, Any] = dict.fromkeys(QueueStats.__struct_fields__, 0)
    window = WindowStats(**dict.fromkeys(WindowStats.__struct_fields__, 0.0))
    return QueueStats(**fields | {"by_priority": {}, "paused": False, "window": window} | gauges)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A plan over a tree with unit tests, whose artifacts were built."""
    made = Plan(tree=tmp_path / "tree", out=tmp_path / "out")
    (made.tree / "tests" / "unit").mkdir(parents=True)
    made.prepare()
    for kind, name in (("sdist", "x-1.tar.gz"), ("wheel", "x-1-py3-none-any.whl")):
        (made.out / kind).mkdir()
        (made.out / kind / name).write_bytes(kind.encode())
    return made


def _hashed(kind: str, artifact: str) -> dict[str, Any]:
    return {"log": "x.log", "facts": {"artifact": artifact, "sha256": hashlib.sha256(kind.encode()).hexdigest()}}


@pytest.fixture
def records() -> Records:
    """What a run leaves that kept every promise."""
    done = "success"
    dead = {"status": JobStatus.DEAD_LETTERED}
    jobs = [
        job("compile", 1, attempt(70, done), priority=Priority.LOW),
        job("sdist", 2, attempt(40, done)),
        job("wheel", 3, attempt(50, done)),
        job("smoke", 4, attempt(60, "failed"), attempt(71, "failed"), attempt(72, done)),
        job(
            *("tests", 5, attempt(20, "lost", "worker-2"), attempt(90, done)),
            priority=Priority.HIGH,
            result={"log": "x.log", "facts": {"passed": 100, "folder": "tests/unit"}},
        ),
        job(
            *("lint", 6, attempt(30, "failed"), attempt(31, "failed", **dead), attempt(32, done)),
            priority=Priority.HIGH,
            generation=1,
        ),
        job("manifest", 7, attempt(10, done), priority=Priority.CRITICAL),
        job("hash-sdist", 8, attempt(80, done), result=_hashed("sdist", "x-1.tar.gz")),
        job("hash-wheel", 9, attempt(81, done), result=_hashed("wheel", "x-1-py3-none-any.whl")),
    ]
    return Records(
        jobs={one.job_id: one for one in jobs},
        stats=stats(),
        checked=Checked(violations=(), jobs=len(jobs), queues=("ci",)),
        killed=("worker-2", "tests", -9),
    )


@pytest.fixture
def changed(records: Records) -> Callable[..., Records]:
    """The records with one job changed."""

    def change(job_id: str, **fields: Any) -> Records:
        new = msgspec.structs.replace(records.jobs[job_id], **fields)
        return Records(
            jobs={**records.jobs, job_id: new},
            stats=records.stats,
            checked=records.checked,
            killed=records.killed,
        )

    return change
