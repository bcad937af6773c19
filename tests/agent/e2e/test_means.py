"""The means of the other tests: what they would find, were it there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.agent.e2e import sink
from tests.agent.e2e.agents import below, lives
from tests.agent.e2e.doings import python, strays
from tests.servers import wait_until


def test_the_sink_takes_each_fence_once_and_none_that_is_older(tmp_path: Path) -> None:
    database = tmp_path / "sink.db"
    sink.create(database)

    def leave(fence: int, value: str) -> int:
        command = f"exec {python(Path(sink.__file__), database, 'pool~job', fence, value)}"
        return subprocess.run(["sh", "-c", command], check=False).returncode

    assert [leave(5, "a"), leave(5, "b"), leave(4, "c"), leave(9, "d"), leave(5, "e")] == [0, 75, 75, 0, 75]
    assert sink.effects(database) == {"pool~job": (9, "d")}
    assert sink.tries(database) == [
        ("pool~job", 5, True),
        ("pool~job", 5, False),
        ("pool~job", 4, False),
        ("pool~job", 9, True),
        ("pool~job", 5, False),
    ]


def test_a_process_that_a_job_left_behind_is_found_until_it_ends(tmp_path: Path) -> None:
    """Also one of a session of its own, whose parent is gone: it has the job's environment."""
    pid_path = tmp_path / "pid"
    program = f"import os, time; os.setsid(); open({str(pid_path)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {program!r}])"
    environment = {**os.environ, "HYBRIDQ_WORKSPACE": str(tmp_path / "work" / "1")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    wait_until(lambda: pid_path.exists() and pid_path.read_text(), 10, what="it lives")
    pid = int(pid_path.read_text())
    assert strays(tmp_path) == [pid] and lives(pid)
    assert strays(tmp_path / "other") == []
    os.kill(pid, 9)
    wait_until(lambda: not strays(tmp_path) and not lives(pid), 10, what="it is gone")


def test_everything_below_a_process_is_found() -> None:
    command = "sh -c 'sleep 60 & wait' & wait"
    process = subprocess.Popen(["sh", "-c", command])
    try:
        wait_until(lambda: len(below(process.pid)) == 2, 10, what="child and grandchild live")
    finally:
        found = below(process.pid)
        process.kill()
        process.wait()
        for pid in found:
            os.kill(pid, 9)
