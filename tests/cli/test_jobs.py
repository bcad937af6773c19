"""`hybridq jobs` and `hybridq job`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from hybridq import Priority, Queue
from hybridq.cli._output import visible
from hybridq.cli._views import seconds

from .conftest import Ran

Run = Callable[..., Ran]


def ids(ran: Ran) -> list[str]:
    return [item["job_id"] for item in ran.document["items"]]


def test_jobs_are_listed_newest_first_without_their_payloads(hybridq: Run, queue: Queue) -> None:
    queue.enqueue("build", {"token": "hunter2"}, job_id="b1")
    queue.enqueue("test", job_id="t1")
    ran = hybridq("jobs", "--json")
    assert ids(ran) == ["t1", "b1"]
    assert "hunter2" not in ran.out
    assert not {"payload", "result", "attempts"} & set(ran.document["items"][0])
    lines = hybridq("jobs").out.splitlines()
    assert lines[0].split("\t") == ["JOB", "TYPE", "STATUS", "PRIORITY", "ATTEMPT", "ENQUEUED", "AGENT"]
    assert lines[2].split("\t")[:5] == ["b1", "build", "QUEUED", "NORMAL", "0/3"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--type", "build"), ["b2", "b1"]),
        (("--status", "running"), ["b1"]),
        (("--priority", "CRITICAL"), ["b1"]),
        (("--tag", "os=linux"), ["t1", "b1"]),
        (("--tag", "os=linux", "--tag", "team=core"), ["b1"]),
        (("--status", "COMPLETED"), []),
    ],
)
def test_filters_choose(hybridq: Run, queue: Queue, options: tuple[str, ...], found: list[str]) -> None:
    queue.enqueue("build", job_id="b1", priority=Priority.CRITICAL, tags={"os": "linux", "team": "core"})
    queue.enqueue("build", job_id="b2")
    queue.enqueue("test", job_id="t1", tags={"os": "linux"})
    queue.claim(start=True)
    assert ids(hybridq("jobs", "--json", *options)) == found


def test_pages_follow_each_other_to_the_end(hybridq: Run, queue: Queue) -> None:
    for n in range(5):
        queue.enqueue("build", job_id=f"b{n}")
    first = hybridq("jobs", "--limit", "3", "--json")
    assert ids(first) == ["b4", "b3", "b2"]
    rest = hybridq("jobs", "--limit", "3", "--json", "--cursor", first.document["next_cursor"])
    assert (ids(rest), rest.document["next_cursor"]) == (["b1", "b0"], None)
    aside = hybridq("jobs", "--limit", "3").err
    assert aside == f"more: --cursor {first.document['next_cursor']}\n"


def test_all_reads_every_page(hybridq: Run, queue: Queue) -> None:
    for n in range(450):
        queue.enqueue("build", job_id=f"b{n}")
    ran = hybridq("jobs", "--all", "--json")
    assert ids(ran) == [f"b{n}" for n in reversed(range(450))]
    assert ran.document["next_cursor"] is None


def test_a_cursor_of_another_list_is_a_wrong_call(hybridq: Run) -> None:
    ran = hybridq("jobs", "--cursor", "nonsense", "--json")
    assert (ran.code, ran.error["code"]) == (2, "invalid_argument")


def test_a_job_is_shown_whole_with_its_attempts(hybridq: Run, queue: Queue) -> None:
    queue.enqueue("build", {"ref": "main"}, job_id="b1", tags={"os": "linux"}, max_attempts=2)
    [lease] = queue.claim(start=True, agent="a1")
    queue.fail(lease, {"type": "StepFailed", "message": "exit 1"}, exit_code=1, delay_s=0)
    [lease] = queue.claim(start=True, agent="a2")
    queue.complete(lease, {"artifact": "x.whl"})
    document = hybridq("job", "b1", "--json").document
    assert document["payload"] == {"ref": "main"}
    assert (document["status"], document["result"]) == ("COMPLETED", {"artifact": "x.whl"})
    assert [one["outcome"] for one in document["attempts"]] == ["failed", "success"]
    assert document["attempts"][0]["exit_code"] == 1
    text = hybridq("job", "b1").out
    assert "tags\tos=linux\n" in text
    assert 'payload\t{"ref":"main"}\n' in text
    last = text.splitlines()[-1].split("\t")
    assert (last[0], last[1], last[5], last[6]) == ("2", "a2", "success", "COMPLETED")


def test_the_payload_alone_is_printed_byte_for_byte(
    start: Callable[..., subprocess.Popen[bytes]], queue: Queue
) -> None:
    queue.enqueue("build", b"\x00\xff\r\n", job_id="b1")
    out, _ = start("job", "b1", "--payload", text=False).communicate(timeout=20)
    assert out == b"\x00\xff\r\n"


def test_a_payload_that_is_not_json_is_base64_in_a_document(hybridq: Run, queue: Queue) -> None:
    queue.enqueue("build", b"\x00\xff", job_id="b1")
    assert hybridq("job", "b1", "--payload", "--json").document == {"payload": None, "payload_base64": "AP8="}
    assert hybridq("job", "b1", "--json").document["payload_base64"] == "AP8="


@pytest.mark.parametrize("command", ["job", "cancel", "retry"])
def test_a_job_that_is_not_there_is_an_error_in_one_line(hybridq: Run, command: str) -> None:
    ran = hybridq(command, "nope")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("hybridq: job nope: not found")
    assert ran.err.count("\n") == 1
    assert hybridq(command, "nope", "--json").error["code"] == "job_not_found"


def test_a_job_cannot_steer_the_terminal(hybridq: Run, queue: Queue) -> None:
    queue.enqueue("build", b"\x1b]0;owned\x07\xe2\x80\xae", job_id="b1", max_attempts=1)
    [lease] = queue.claim(start=True)
    queue.fail(lease, "\x1b[2Jgone\r\nand\tmore")
    for text in (hybridq("job", "b1").out, hybridq("dead", "list").out):
        assert not {"\x1b", "\x07", "\r", "\u202e"} & set(text)
        assert "\\x1b[2Jgone\\x0d and more" in text
    assert "\\x1b]0;owned\\x07\\x202e" in hybridq("job", "b1").out


def test_control_characters_are_written_out() -> None:
    assert visible("a\x1bb\x9bc\nd") == "a\\x1bb\\x9bc\nd"
    assert visible(None) == "-"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0004, "0.000 s"), (0.25, "0.250 s"), (4.24, "4.2 s"), (180, "3 min"), (7200, "2 h"), (172_800, "2 d")],
)
def test_durations_come_in_the_unit_that_fits(value: float, text: str) -> None:
    assert seconds(value) == text
