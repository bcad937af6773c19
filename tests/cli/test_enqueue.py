"""`hybridq enqueue`."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hybridq import Priority, Queue

from .conftest import Ran

Run = Callable[..., Ran]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Put bytes on stdin."""
    return lambda raw: monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw), "utf-8"))


def test_a_job_is_enqueued_with_everything_the_options_say(hybridq: Run, queue: Queue) -> None:
    ran = hybridq(
        *("enqueue", "build", "--payload", '{"ref": "main"}', "--priority", "high", "--job-id", "b1"),
        *("--max-attempts", "5", "--timeout", "60", "--unique", "main", "--tag", "team=core", "--tag", "os=linux"),
    )
    assert (ran.code, ran.out, ran.err) == (0, "b1 QUEUED\n", "")
    job = queue.job("b1")
    assert job.decode() == {"ref": "main"}
    assert (job.type, job.priority, job.max_attempts, job.timeout_s) == ("build", Priority.HIGH, 5, 60.0)
    assert (job.unique, job.tags) == ("main", {"team": "core", "os": "linux"})


def test_the_answer_as_json_names_the_job(hybridq: Run) -> None:
    first = hybridq("enqueue", "build", "--job-id", "b1", "--json")
    again = hybridq("enqueue", "build", "--job-id", "b1", "--json")
    assert first.document == {"job_id": "b1", "status": "QUEUED", "created": True, "unique": False}
    assert again.document == {"job_id": "b1", "status": "QUEUED", "created": False, "unique": False}
    assert "it was there already" in hybridq("enqueue", "build", "--job-id", "b1").out


@pytest.mark.parametrize("option", ["--delay", "--run-at"])
def test_a_job_for_later_is_scheduled(hybridq: Run, queue: Queue, option: str) -> None:
    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    when = tomorrow.isoformat() if option == "--run-at" else "86400"
    assert hybridq("enqueue", "build", "--job-id", "b1", option, when).out == "b1 SCHEDULED\n"
    run_at = queue.job("b1").run_at
    assert run_at is not None
    assert abs((run_at - tomorrow).total_seconds()) < 60


def test_a_payload_file_is_sent_byte_for_byte(hybridq: Run, queue: Queue, tmp_path: Path) -> None:
    raw = bytes(range(256))
    (tmp_path / "body").write_bytes(raw)
    hybridq("enqueue", "build", "--job-id", "b1", "--payload-file", str(tmp_path / "body"))
    assert queue.job("b1").payload == raw


def test_a_payload_comes_from_stdin(hybridq: Run, queue: Queue, stdin: Callable[[bytes], None]) -> None:
    stdin(b"\xff\x00")
    hybridq("enqueue", "build", "--job-id", "b1", "--payload-file", "-")
    assert queue.job("b1").payload == b"\xff\x00"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "name the job's TYPE"),
        (("build", "--payload", "{ref: main}"), "not JSON"),
        (("build", "--payload", "1", "--payload-file", "-"), "not both"),
        (("build", "--run-at", "2030-01-31T08:00"), "needs a zone"),
        (("build", "--run-at", "soon"), "isoformat"),
        (("build", "--tag", "team"), "key=value"),
        (("build", "--priority", "URGENT"), "URGENT"),
        (("build", "--max-attempts", "0"), "max_attempts"),
        (("build", "--job-id", "no spaces please"), "no spaces please"),
        (("build", "--jsonl", "-"), "brings type and payload itself"),
    ],
)
def test_a_wrong_call_is_exit_2_and_sends_nothing(
    hybridq: Run, queue: Queue, arguments: tuple[str, ...], says: str
) -> None:
    ran = hybridq("enqueue", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err
    assert hybridq("enqueue", *arguments, "--json").error["code"] in ("usage", "invalid_argument")
    assert queue.stats().enqueued_total == 0


def test_another_job_under_the_same_id_is_a_conflict(hybridq: Run) -> None:
    hybridq("enqueue", "build", "--job-id", "b1")
    ran = hybridq("enqueue", "test", "--job-id", "b1", "--json")
    assert (ran.code, ran.out) == (1, "")
    assert ran.error["code"] == "job_conflict"
    assert ran.error["job_id"] == "b1"


class TestMany:
    """`--jsonl`."""

    @pytest.fixture
    def jsonl(self, tmp_path: Path) -> Callable[..., str]:
        def write(*lines: object) -> str:
            path = tmp_path / "jobs.jsonl"
            path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
            return str(path)

        return write

    def test_every_line_is_a_job_in_order(self, hybridq: Run, queue: Queue, jsonl: Callable[..., str]) -> None:
        lines = [{"type": "build", "job_id": f"b{n}", "payload": {"n": n}, "tags": {"n": str(n)}} for n in range(3)]
        ran = hybridq("enqueue", "--jsonl", jsonl(*lines, ""))
        assert (ran.code, ran.out) == (0, "3 enqueued, 0 were there already, 0 refused\n")
        assert [lease.job_id for lease in queue.claim(3)] == ["b0", "b1", "b2"]
        assert queue.job("b2").decode() == {"n": 2}

    def test_more_than_one_step_is_taken(self, hybridq: Run, queue: Queue, jsonl: Callable[..., str]) -> None:
        ran = hybridq("enqueue", "--json", "--jsonl", jsonl(*({"type": "build"} for _ in range(2500))))
        assert ran.document["enqueued"] == len(ran.document["results"]) == queue.stats().queued == 2500

    def test_a_refused_job_is_named_and_the_others_go_in(
        self, hybridq: Run, queue: Queue, jsonl: Callable[..., str]
    ) -> None:
        queue.enqueue("other", job_id="b1")
        queue.enqueue("build", job_id="b0")
        file = jsonl(*({"type": "build", "job_id": f"b{n}"} for n in range(3)))
        ran = hybridq("enqueue", "--jsonl", file)
        assert (ran.code, ran.out) == (1, "1 enqueued, 1 were there already, 1 refused\n")
        assert ran.err.startswith("job 2: job b1: exists")
        document = hybridq("enqueue", "--jsonl", file, "--json").document
        assert (document["enqueued"], document["existing"], document["refused"]) == (0, 2, 1)
        assert document["results"][0]["job_id"] == "b0"
        assert document["results"][1]["code"] == "job_conflict"

    @pytest.mark.parametrize("bad", ['{"typ": "build"}', "{", '{"type": 1}', '{"tags": {"a": 1}}', "[]", "\udcff"])
    def test_a_bad_line_is_named_and_nothing_is_sent(
        self, hybridq: Run, queue: Queue, tmp_path: Path, bad: str
    ) -> None:
        path = tmp_path / "jobs.jsonl"
        path.write_bytes(b'{"type": "build"}\n' + bad.encode(errors="surrogateescape") + b"\n")
        ran = hybridq("enqueue", "--jsonl", str(path))
        assert ran.code == 2
        assert "jobs.jsonl, line 2:" in ran.err
        assert "nothing was sent" in ran.err
        assert queue.stats().enqueued_total == 0
