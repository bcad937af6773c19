"""`hybridq logs`: what a job said, from Redis and over HTTP."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hybridq import Lease, Queue
from tests.api.client import Api

from .conftest import Ran

Run = Callable[..., Ran]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def running(queue: Queue) -> Lease:
    """A job that runs and said two lines."""
    queue.enqueue("build", job_id="b1")
    [lease] = queue.claim(start=True, agent="a1")
    assert queue.append_log(lease, 0, "compiling\nzwölf files\n") == 23
    return lease


def test_a_log_is_printed_as_it_is_and_the_command_ends(hybridq: Run, running: Lease) -> None:
    ran = hybridq("logs", "b1")

    assert (ran.code, ran.out, ran.err) == (0, "compiling\nzwölf files\n", "")
    assert hybridq("logs", "default~b1").out == ran.out
    assert hybridq("logs", "b1", "--offset", "10").out == "zwölf files\n"


def test_a_job_that_said_nothing_prints_nothing(hybridq: Run, queue: Queue) -> None:
    queue.enqueue("build", job_id="b1")

    assert hybridq("logs", "b1") == Ran(0, "", "")


def test_with_json_each_part_is_a_document(hybridq: Run, queue: Queue, running: Lease) -> None:
    queue.complete(running)

    assert [json.loads(line) for line in hybridq("logs", "--json", "b1").out.splitlines()] == [
        {"data": "compiling\nzwölf files\n", "offset": 0, "next_offset": 23, "complete": True, "truncated": False}
    ]


def test_a_long_log_comes_in_parts_and_whole(hybridq: Run, queue: Queue, running: Lease) -> None:
    text = "".join(f"line {n} 🙂\n" for n in range(60_000))
    queue.append_log(running, 23, text)

    assert hybridq("logs", "b1", "--offset", "23").out == text
    parts = [json.loads(line) for line in hybridq("logs", "--json", "b1").out.splitlines()]
    assert len(parts) > 3
    assert "".join(part["data"] for part in parts) == "compiling\nzwölf files\n" + text


def test_what_could_steer_a_terminal_is_written_out(hybridq: Run, queue: Queue, running: Lease) -> None:
    queue.append_log(running, 23, "\x1b[2Jgone \u202eetis\n")

    assert hybridq("logs", "b1", "--offset", "23").out == "\\x1b[2Jgone \\x202eetis\n"


def test_a_log_that_lacks_something_says_so_aside(hybridq: Run, queue: Queue, running: Lease) -> None:
    queue.configure(log_bytes_max=1000)
    queue.append_log(running, 23, "x" * 2000)
    ran = hybridq("logs", "b1")

    assert "the log ends here" in ran.out
    assert ran.err == "the log is not whole: it reached a limit, or its beginning was dropped\n"


def test_an_unknown_job_is_an_error(hybridq: Run, queue: Queue) -> None:
    ran = hybridq("logs", "nobody", "--json")

    assert (ran.code, ran.error["code"]) == (1, "job_not_found")


def test_followed_it_comes_as_it_is_written_until_the_job_has_ended(start: Start, queue: Queue, running: Lease) -> None:
    process = start("logs", "-f", "b1")
    lines = _lines(process)
    assert [next(lines), next(lines)] == ["compiling\n", "zwölf files\n"]
    queue.append_log(running, 23, "linking\n")
    assert next(lines) == "linking\n"
    queue.append_log(running, 31, "done\n")
    queue.complete(running)

    assert list(lines) == ["done\n"]
    assert process.wait(timeout=30) == 0


@pytest.mark.parametrize("words", [(), ("-f",)])
def test_over_http_it_is_the_same(
    hybridq: Run, queue: Queue, running: Lease, redis_url: str, namespace: str, words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    queue.complete(running)
    with Api(redis_url, namespace, process=True) as api:
        monkeypatch.setenv("HYBRIDQ_TOKEN", api.key("queue:read"))
        ran = hybridq("logs", *words, "--url", api.url, "b1")

        assert (ran.code, ran.out, ran.err) == (0, "compiling\nzwölf files\n", "")
        assert hybridq("logs", *words, "--url", api.url, "nobody").code == 1


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    out: Any = process.stdout
    yield from out
