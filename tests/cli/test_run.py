"""`hybridq enqueue --run`: what is sent, what one sees of it, and how it ends."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hybridq import JobStatus, Queue
from tests.servers import wait_until

from .conftest import ROOT, Ran
from .standing import ENDS_S, Standing, git, lives, payload_of, repository

Run = Callable[..., Ran]
Start = Callable[..., "subprocess.Popen[str]"]
MAKEFILE = "test:\n\t@echo testing\n\t@cat data.txt\n"


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """`hybridq up`, with its agent."""
    with Standing(tmp_path_factory.mktemp("up") / "data") as standing:
        yield standing
        standing.checked()
        standing.tell()
        assert standing.ended() == 0
        assert "Traceback" not in standing.errors


@pytest.fixture
def up(standing: Standing) -> Iterator[Standing]:
    """The same, with another terminal that is idle."""
    yield standing
    standing.tidy()


@pytest.fixture
def queue_of_up(up: Standing) -> Iterator[Queue]:
    with up.queue() as queue:
        yield queue


def said(ran: Ran) -> list[str]:
    """What the commands said, without the agent's own lines."""
    return [line for line in ran.out.splitlines() if not line.startswith("[hybridq] ")]


def last_job(queue: Queue) -> str:
    return queue.jobs(limit=1).items[0].job_id


class TestWithTheAgentOfUp:
    """Two terminals on one machine, and nothing else."""

    def test_a_commit_is_tested_and_its_log_comes_to_the_terminal(
        self, up: Standing, tmp_path: Path, queue_of_up: Queue
    ) -> None:
        commit = repository(tmp_path, {"Makefile": MAKEFILE, "data.txt": "of the commit\n"})
        ran = up.run("enqueue", "--run", "make test", cwd=tmp_path)

        assert (ran.code, said(ran)) == (0, ["testing", "of the commit"]), ran
        job = queue_of_up.job(last_job(queue_of_up))
        assert (job.type, job.status, job.max_attempts) == ("run", JobStatus.COMPLETED, 1)
        assert ran.err.splitlines()[0] == job.job_id
        assert ran.err.splitlines()[-1].startswith(f"✓ {job.job_id} succeeded after ")
        assert payload_of(job) == {
            "git": {
                "repo": str(tmp_path),
                "ref": "main",
                "commit_sha": commit,
                "commit_message": "Begin",
                "author": "Ada",
            },
            "steps": [{"name": "make test", "run": "make test"}],
        }

    def test_what_is_not_committed_is_not_in_it_and_that_is_said(self, up: Standing, tmp_path: Path) -> None:
        repository(tmp_path, {"Makefile": MAKEFILE, "data.txt": "of the commit\n"})
        (tmp_path / "data.txt").write_text("of the folder\n")
        (tmp_path / "new.txt").touch()
        ran = up.run("enqueue", "--run", "make test", cwd=tmp_path)

        assert (ran.code, said(ran)) == (0, ["testing", "of the commit"]), ran
        assert "2 uncommitted changes are not in it: it runs commit" in ran.err
        assert "--here runs the folder as it is" in ran.err

    def test_here_is_the_folder_as_it_is(self, up: Standing, tmp_path: Path) -> None:
        repository(tmp_path, {"Makefile": MAKEFILE, "data.txt": "of the commit\n"})
        (tmp_path / "data.txt").write_text("of the folder\n")
        ran = up.run("enqueue", "--here", "--run", "make test", cwd=tmp_path)

        assert (ran.code, said(ran)) == (0, ["testing", "of the folder"]), ran
        assert "uncommitted" not in ran.err

    def test_a_folder_of_the_tree_is_where_it_starts(self, up: Standing, tmp_path: Path) -> None:
        repository(tmp_path, {"part/deep/data.txt": "deep\n"})
        ran = up.run("enqueue", "--run", "cat data.txt", cwd=tmp_path / "part" / "deep")

        assert (ran.code, said(ran)) == (0, ["deep"]), ran

    def test_without_git_it_runs_in_the_folder_itself(self, up: Standing, tmp_path: Path) -> None:
        (tmp_path / "data.txt").write_text("plain\n")
        ran = up.run("enqueue", "--run", "cat data.txt", "--env", "A=b c", "--run", 'echo "$A"', cwd=tmp_path)

        assert (ran.code, said(ran)) == (0, ["plain", "b c"]), ran
        assert f"no git commit here, so it runs in {tmp_path} itself" in ran.err

    def test_it_ends_with_the_exit_code_of_the_command_that_failed(self, up: Standing, tmp_path: Path) -> None:
        ran = up.run("enqueue", "--run", "echo one", "--run", "exit 42", "--run", "echo three", cwd=tmp_path)

        assert (ran.code, said(ran)) == (42, ["one"]), ran
        assert ran.err.splitlines()[-1].startswith("✗ ")

    def test_past_its_time_it_ends_with_124(self, up: Standing, tmp_path: Path) -> None:
        ran = up.run("enqueue", "--timeout", "1", "--run", "sleep 600", cwd=tmp_path)

        assert ran.code == 124, ran
        assert "ran out of time" in ran.err

    def test_with_json_the_job_is_printed_at_its_end_and_nothing_else(self, up: Standing, tmp_path: Path) -> None:
        ran = up.run("enqueue", "--json", "--run", "echo loud; exit 3", cwd=tmp_path)

        assert (ran.code, ran.err) == (3, "")
        assert (ran.document["exit_code"], ran.document["type"]) == (3, "run")

    def test_detached_it_is_enqueued_and_no_more(self, up: Standing, tmp_path: Path, queue_of_up: Queue) -> None:
        ran = up.run("enqueue", "--detach", "--run", "true", cwd=tmp_path)

        job_id = ran.out.split()[0]
        assert (ran.code, ran.out.split()[1]) == (0, "QUEUED")
        wait_until(lambda: queue_of_up.job(job_id).status == "COMPLETED", ENDS_S, what="it runs all the same")

    def test_ctrl_c_leaves_the_job_alone_and_says_how_to_come_back(
        self, up: Standing, tmp_path: Path, queue_of_up: Queue
    ) -> None:
        process = _begun(up, tmp_path)
        job_id = last_job(queue_of_up)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=ENDS_S)

        assert process.returncode == 130
        assert f"  hybridq logs -f {job_id}\n  hybridq cancel {job_id}\n" in err
        assert "Traceback" not in err
        assert queue_of_up.job(job_id).status == "RUNNING"
        (tmp_path / "go").touch()
        wait_until(lambda: queue_of_up.job(job_id).status == "COMPLETED", ENDS_S, what="it goes on")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_when_told_so_ctrl_c_cancels_it(
        self, up: Standing, tmp_path: Path, queue_of_up: Queue, number: signal.Signals
    ) -> None:
        process = _begun(up, tmp_path, "--cancel-on-interrupt")
        job_id = last_job(queue_of_up)
        shell = int((tmp_path / "pid").read_text())
        process.send_signal(number)
        _, err = process.communicate(timeout=ENDS_S)

        assert process.returncode == 130
        assert f"✗ {job_id} was cancelled" in err
        assert queue_of_up.job(job_id).status == "CANCELLED"
        assert not lives(shell)

    def test_a_job_can_be_followed_later(self, up: Standing, tmp_path: Path, queue_of_up: Queue) -> None:
        process = _begun(up, tmp_path)
        job_id = last_job(queue_of_up)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=ENDS_S)
        (tmp_path / "go").touch()
        ran = up.run("logs", "-f", job_id, cwd=tmp_path)

        assert (ran.code, said(ran)) == (0, ["begun", "gone on"]), ran


def _begun(up: Standing, folder: Path, *options: str) -> subprocess.Popen[str]:
    """Run what says when it has begun, and goes on when there is a file `go`."""
    script = "echo $$ > pid; echo begun; while ! test -e go; do sleep 0.02; done; echo gone on"
    process = up.begin("enqueue", "--here", *options, "--run", script, cwd=folder)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "begun\n":
            return process
    raise AssertionError(f"it never began: {process.communicate(timeout=ENDS_S)}")


# -- what is sent ------------------------------------------------------------------------------------------------


def test_env_and_secrets_are_those_of_the_job(hybridq: Run, queue: Queue) -> None:
    ran = hybridq(
        *("enqueue", "build", "--detach", "--here", "--run", "make", "--shell-is-not-asked")[:-1],
        *("--env", "MODE=fast=1", "--secret", "TOKEN=vault://ci/token#value", "--max-attempts", "2", "--json"),
    )
    job = queue.job(ran.document["job_id"])

    assert (job.type, job.max_attempts) == ("build", 2)
    assert payload_of(job)["env"] == {"MODE": "fast=1", "TOKEN": {"secret_ref": "vault://ci/token#value"}}


def test_a_long_command_has_a_short_name(hybridq: Run, queue: Queue) -> None:
    command = "\n  echo " + "x" * 100 + "\necho y"
    ran = hybridq("enqueue", "--detach", "--here", "--run", command, "--json")
    [step] = payload_of(queue.job(ran.document["job_id"]))["steps"]

    assert step["run"] == command
    assert step["name"] == "echo " + "x" * 54 + "…"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--run", "x", "--payload", "1"), "not both"),
        (("build", "--here"), "say how --run runs"),
        (("build", "--env", "A=1"), "say how --run runs"),
        (("--run", "x", "--env", "1A=b"), "NAME=value"),
        (("--run", "x", "--secret", "A"), "NAME=value"),
        (("--jsonl", "-", "--run", "x"), "brings type and payload itself"),
        (("--jsonl", "-", "--follow"), "is not followed"),
        (("--run", "x", "--redis", "redis://ci.example.com", "--here"), "the server is elsewhere"),
        (("--run", "x", "--url", "https://ci.example.com", "--here"), "the server is elsewhere"),
    ],
)
def test_a_wrong_call_is_exit_2(hybridq: Run, arguments: tuple[str, ...], says: str) -> None:
    ran = hybridq("enqueue", *arguments, "--json")

    assert (ran.code, ran.error["code"]) == (2, "usage")
    assert says in ran.error["message"]


class TestForAgentsElsewhere:
    """A folder of this machine means nothing to them, so they get what they can fetch."""

    ELSEWHERE = "redis://ci.example.com"

    def test_the_commit_is_fetched_from_the_remote_without_our_password(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        commit = repository(tmp_path / "tree", {"a": ""})
        git(tmp_path, "clone", "--quiet", "--bare", "tree", "origin.git")
        git(tmp_path / "tree", "remote", "add", "origin", str(tmp_path / "origin.git"))
        git(tmp_path / "tree", "fetch", "--quiet", "origin")
        git(tmp_path / "tree", "remote", "set-url", "origin", "https://ada:hunter2@git.example.com/ci.git")
        monkeypatch.chdir(tmp_path / "tree")

        payload = self._payload()
        assert payload["git"]["repo"] == "https://git.example.com/ci.git"
        assert payload["git"]["commit_sha"] == commit
        assert "hunter2" not in str(payload)

    def test_a_commit_that_is_not_pushed_is_refused(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        repository(tmp_path, {"a": ""})
        monkeypatch.chdir(tmp_path)
        with pytest.raises(Exception, match="no remote"):
            self._payload()
        git(tmp_path, "remote", "add", "origin", "https://git.example.com/ci.git")
        with pytest.raises(Exception, match=r"is on no branch of origin yet: git push"):
            self._payload()

    def test_without_git_they_start_in_an_empty_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        assert self._payload() == {"steps": [{"name": "make", "run": "make"}]}

    def _payload(self) -> dict[str, dict[str, str]]:
        from hybridq.cli._options import Target
        from hybridq.cli._output import Printer
        from hybridq.cli._run import payload_of

        target = Target(self.ELSEWHERE, None, None)
        out = Printer(json=True, debug=False)
        return payload_of(target, out, ["make"], env={}, secrets={}, place=None)


# -- what one sees -----------------------------------------------------------------------------------------------


def _told(process: subprocess.Popen[str], words: str) -> str:
    """Read standard error until these words are in it."""
    assert process.stderr is not None
    said = ""
    while words not in said:
        line = process.stderr.readline()
        assert line, f"it ended, and said only: {said}"
        said += line
    return said


def test_without_an_agent_one_is_told_what_is_missing_and_waits(start: Start, queue: Queue) -> None:
    process = start("enqueue", "--here", "--run", "make test")
    said = _told(process, "no agent of pool default is there; in another terminal: hybridq up")
    job_id = said.splitlines()[0]

    [lease] = queue.claim(start=True)
    queue.append_log(lease, 0, "from elsewhere\n")
    queue.complete(lease)
    out, err = process.communicate(timeout=ENDS_S)
    assert (process.returncode, out) == (0, "from elsewhere\n")
    assert f"✓ {job_id} succeeded" in err


def test_a_paused_queue_is_the_reason(start: Start, queue: Queue) -> None:
    queue.pause("repairs")
    process = start("enqueue", "--here", "--run", "make test")

    _told(process, "queue default is paused")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=ENDS_S)
    assert process.returncode == 130


def test_a_log_cannot_steer_the_terminal(start: Start, queue: Queue) -> None:
    process = start("enqueue", "build", "--follow")
    [lease] = queue.claim(wait_s=ENDS_S / 2, start=True)
    queue.append_log(lease, 0, "tab\there \x1b]0;title\x07 and the end")
    queue.fail(lease, {"code": "boom", "message": "it went \x1b[31mwrong"}, retryable=False, exit_code=5)
    out, err = process.communicate(timeout=ENDS_S)

    assert process.returncode == 5
    assert out == "tab\there \\x1b]0;title\\x07 and the end\n"
    assert "failed after" in err and err.endswith("it went \\x1b[31mwrong\n")
    assert "\x1b" not in err


@pytest.mark.parametrize("colours", [True, False])
def test_at_a_terminal_the_end_has_a_colour(
    start: Start, queue: Queue, monkeypatch: pytest.MonkeyPatch, colours: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colours:
        monkeypatch.setenv("NO_COLOR", "1")
    here, there = pty.openpty()
    try:
        process = start("enqueue", "build", "--follow", stderr=there)
        [lease] = queue.claim(wait_s=ENDS_S / 2, start=True)
        queue.complete(lease)
        assert process.wait(ENDS_S) == 0
        shown = b""
        while select.select([here], [], [], 0)[0]:
            shown += os.read(here, 65536)
    finally:
        os.close(here)
        os.close(there)
    assert "succeeded" in shown.decode()
    assert (b"\x1b[32m" in shown) == colours


def test_a_job_that_is_cancelled_while_it_waits_ends_with_130(start: Start, queue: Queue) -> None:
    process = start("enqueue", "build", "--job-id", "j1", "--follow")
    _told(process, "j1")
    queue.cancel("j1")
    _, err = process.communicate(timeout=ENDS_S)

    assert process.returncode == 130
    assert "✗ j1 was cancelled" in err


def test_the_root_of_the_checkout_is_a_repository() -> None:
    """`find_tree` reads what git says of a real tree, and never writes to it."""
    from hybridq.cli._checkout import find_tree

    tree = find_tree(ROOT / "tests")
    if tree is None:
        pytest.skip("this is no checkout")
    assert (tree.top, tree.prefix) == (ROOT, "tests/")
    assert len(tree.commit_sha) == 40
