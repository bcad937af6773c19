"""The parts of the demo that need no server: sources, steps, and what is told."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from hybridq import JobStatus
from hybridq.demo import LiveStory, PlainStory
from hybridq.demo import steps as steps_module
from hybridq.demo._promises import Records
from hybridq.demo._source import copy_tree, default_tree
from hybridq.demo._story import changes
from hybridq.errors import InvalidArgument

from .conftest import NOON, attempt, job

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "hybridq" / "demo" / "sample"


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


class TestSource:
    def test_what_git_ignores_is_not_copied(self, tmp_path: Path) -> None:
        tree = tmp_path / "tree"
        tree.mkdir()
        for name in ("tracked.py", "new.py", "ignored.log", "deleted.py"):
            (tree / name).write_text("x = 1\n")
        (tree / ".gitignore").write_text("*.log\n")
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        for command in (["init", "-q"], ["add", "tracked.py", "deleted.py", ".gitignore"]):
            subprocess.run(["git", *command], cwd=tree, check=True, env=environment)
        (tree / "deleted.py").unlink()
        assert copy_tree(tree, tmp_path / "copy") == 3
        assert names(tmp_path / "copy") == {"tracked.py", "new.py", ".gitignore"}

    def test_without_git_what_is_made_from_sources_is_left_behind(self, tmp_path: Path) -> None:
        tree = tmp_path / "tree"
        for name in ("a.py", "sub/b.py", ".venv/c.py", "dist/d.whl", "sub/__pycache__/e.pyc"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text("x = 1\n")
        (tree / "loop").symlink_to(tree)
        (tree / "out.py").symlink_to("/etc/passwd")
        assert copy_tree(tree, tmp_path / "copy") == 2
        assert names(tmp_path / "copy") == {"a.py", "sub/b.py"}

    def test_what_is_no_tree_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").write_text("")
        for name in ("missing", "empty", "file"):
            with pytest.raises(InvalidArgument):
                copy_tree(tmp_path / name, tmp_path / "copy")

    def test_a_tree_that_is_too_large_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "tree").mkdir()
        with (tmp_path / "tree" / "large").open("wb") as file:
            file.truncate(201 * 2**20)
        with pytest.raises(InvalidArgument, match="200 MiB"):
            copy_tree(tmp_path / "tree", tmp_path / "copy")

    def test_a_checkout_is_its_own_source_and_an_installed_package_has_a_sample(self, tmp_path: Path) -> None:
        assert default_tree() == ROOT
        shutil.copytree(ROOT / "hybridq", tmp_path / "hybridq", ignore=shutil.ignore_patterns("__pycache__"))
        script = "from hybridq.demo._source import default_tree; print(default_tree())"
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        command = [sys.executable, "-P", "-c", script]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        assert Path(found.strip()) == tmp_path / "hybridq" / "demo" / "sample"


class TestSteps:
    def run(self, *arguments: str, attempt: int = 1) -> tuple[int, str, dict[str, object]]:
        done = subprocess.run(
            [sys.executable, "-P", str(steps_module.__file__), *arguments],
            env=os.environ | {"HYBRIDQ_ATTEMPT": str(attempt)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        facts = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
        return done.returncode, done.stdout, facts

    def test_the_same_tree_has_the_same_manifest_and_another_another(self, tmp_path: Path) -> None:
        tree = tmp_path / "tree"
        shutil.copytree(SAMPLE, tree)
        first = self.run("manifest", str(tree), str(tmp_path))[2]
        assert first == self.run("manifest", str(tree), str(tmp_path))[2]
        (tree / "pyproject.toml").write_text("")
        assert first != self.run("manifest", str(tree), str(tmp_path))[2]

    @pytest.mark.parametrize("kind", ["sdist", "wheel"])
    def test_the_sample_builds_without_anything_installed(self, tmp_path: Path, kind: str) -> None:
        before = names(SAMPLE)
        code, output, built = self.run("build", kind, str(SAMPLE), str(tmp_path))
        assert code == 0, output
        hashed = self.run("hash", str(tmp_path / kind), kind)[2]
        assert hashed["artifact"] == built["artifact"]
        assert names(SAMPLE) == before, "the build worked on a copy"

    def test_the_sample_wheel_can_be_imported(self, tmp_path: Path) -> None:
        _, _, built = self.run("build", "wheel", str(SAMPLE), str(tmp_path))
        wheel = tmp_path / "wheel" / str(built["artifact"])
        script = "from greeting import greet; print(greet('Ada', 'it'))"
        environment = os.environ | {"PYTHONPATH": str(wheel)}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == "Ciao, Ada!\n"

    def test_every_file_that_does_not_compile_is_named(self, tmp_path: Path) -> None:
        for name, text in (("good.py", "x = 1\n"), ("bad.py", "def f(:\n"), ("worse.py", "if\n")):
            (tmp_path / name).write_text(text)
        code, output, _ = self.run("compile", str(tmp_path), str(tmp_path / "out"))
        assert code == 1
        assert "bad.py" in output
        assert "worse.py" in output

    def test_the_tests_of_a_tree_are_counted(self, tmp_path: Path) -> None:
        assert self.run("tests", str(SAMPLE), str(tmp_path))[2] == {"passed": 4, "folder": "tests"}

    def test_a_failing_test_fails_the_step(self, tmp_path: Path) -> None:
        (tmp_path / "tests").mkdir()
        (tmp_path / "tests" / "test_it.py").write_text("def test_it():\n    assert False\n")
        assert self.run("tests", str(tmp_path), str(tmp_path))[0] != 0

    def test_a_tree_without_tests_has_none_to_fail(self, tmp_path: Path) -> None:
        assert self.run("tests", str(tmp_path), str(tmp_path))[2] == {"passed": 0, "folder": None}

    @pytest.mark.parametrize(("attempt", "code"), [(1, 1), (2, 1), (3, 0), (4, 0)])
    def test_the_flaky_step_succeeds_the_third_time(self, attempt: int, code: int) -> None:
        assert self.run("smoke", attempt=attempt)[0] == code

    def test_a_file_that_is_not_python_is_told_by_its_line(self, tmp_path: Path) -> None:
        (tmp_path / "release.py").write_text("x = 1\ndef ready(:\n")
        code, output, _ = self.run("lint", str(tmp_path / "release.py"))
        assert (code, output.startswith("release.py:2: ")) == (1, True)


class TestStory:
    def test_what_happened_between_two_looks_is_told_in_its_order(self, records: Records) -> None:
        before = {
            "lint": job("lint", 1, status=JobStatus.RUNNING, agent="worker-1", fence=1, claimed_at=NOON),
            "tests": job("tests", 2, status=JobStatus.RUNNING, agent="worker-2", fence=2, claimed_at=NOON),
        }
        error = {"type": "StepFailed", "message": "exit 1: noise\nassert 1 == 2"}
        now = {
            "tests": job("tests", 2, attempt(9, "lost", "worker-2"), status=JobStatus.QUEUED),
            "lint": job(
                *("lint", 1, attempt(5, "failed", error=error)),
                status=JobStatus.DEAD_LETTERED,
                finished_at=NOON.replace(second=5),
            ),
            "wheel": job("wheel", 3, status=JobStatus.RUNNING, agent="worker-1", fence=7, claimed_at=NOON, attempt=1),
        }
        assert changes(before, now) == [
            "wheel: worker-1 runs attempt 1 (NORMAL)",
            "lint: attempt 1 failed on worker-1 after 5.0 s: assert 1 == 2",
            "lint: its attempts are used up, it is a dead letter now",
            "tests: worker-2 went silent, its lease ran out; another worker may have it",
        ]
        assert changes(now, now) == []

    def test_a_pipe_gets_one_plain_line_for_each_thing(self) -> None:
        stream = io.StringIO()
        with PlainStory(stream) as story:
            story.say("lint: \x1b[31mred\x1b[0m\nand more")
            story.say("x" * 500)
        first, second = stream.getvalue().splitlines()
        assert first.endswith("lint:  [31mred [0m and more")
        assert len(second) < 180

    def test_a_terminal_gets_a_picture_of_jobs_and_workers(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        running = job("lint", 1, status=JobStatus.RUNNING, agent="worker-1", fence=1)
        with LiveStory() as story:
            story.show([running, msgspec.structs.replace(running, job_id="wheel")], {"worker-1": "at work"})
            story.say("lint: worker-1 runs attempt 1")
        drawn = capsys.readouterr().out
        for text in ("lint", "wheel", "RUNNING", "worker-1: at work", "runs attempt 1"):
            assert text in drawn
