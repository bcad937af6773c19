"""Jobs run on this machine: what steps are given, what becomes of what they say, and how each end is called."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridq.agent.work import sweep
from hybridq.agent.work_of import Git, Step
from hybridq.lifecycle import Outcome
from tests.agent.runs import Job, alive, marked

ROOT = os.geteuid() == 0
ALONE = Path(__file__).parent / "alone.py"


def outcomes(ended: object) -> list[str]:
    return [step["outcome"] for step in ended.result["steps"]]  # type: ignore[attr-defined]


# -- what steps are given ------------------------------------------------------------------------


def test_steps_run_in_order_in_one_workspace_that_is_gone_afterwards(tmp_path: Path) -> None:
    job = Job(tmp_path, "pwd > $AT/where; echo one > file", "cat file; pwd >> $AT/where", attempt=2)

    ended = job.end()

    assert ended.outcome == Outcome.SUCCESS and ended.exit_code == 0 and ended.error is None and ended.stopped is None
    assert outcomes(ended) == ["success", "success"]
    assert "one" in job.text()
    first, second = (tmp_path / "where").read_text().split()
    assert first == second and Path(first).is_relative_to(tmp_path)
    assert list(job.work_dir.iterdir()) == []


def test_the_workspace_is_for_its_user_alone(tmp_path: Path) -> None:
    job = Job(tmp_path, "stat -c %a $HYBRIDQ_WORKSPACE/.. $HYBRIDQ_WORKSPACE $HOME $TMPDIR $HYBRIDQ_OUTPUT > $AT/modes")

    job.end()

    assert job.word("modes").split() == ["700", "700", "700", "700", "600"]


def test_steps_are_told_of_their_job(tmp_path: Path) -> None:
    told = Job(tmp_path, Step(name="tell", run="env > $AT/env"), job_id="linux~job-9", attempt=3)

    told.end()

    env = dict(line.partition("=")[::2] for line in told.word("env").splitlines())
    assert {name: env[name] for name in env if name in ("CI", "HYBRIDQ") or name.startswith("HYBRIDQ_")} == {
        "CI": "true",
        "HYBRIDQ": "true",
        "HYBRIDQ_AGENT_ID": "agent-1",
        "HYBRIDQ_ATTEMPT": "3",
        "HYBRIDQ_FENCE": "7",
        "HYBRIDQ_JOB_ID": "linux~job-9",
        "HYBRIDQ_JOB_TYPE": "test",
        "HYBRIDQ_OUTPUT": env["HYBRIDQ_OUTPUT"],
        "HYBRIDQ_POOL": "pool",
        "HYBRIDQ_STEP": "tell",
        "HYBRIDQ_WORKSPACE": env["PWD"],
    }


def test_nothing_of_the_agents_own_environment_leaks_into_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key, its vault token, its home: a job gets a few harmless names, and those the operator added."""
    monkeypatch.setenv("HYBRIDQ_AGENT_KEY", "not-for-jobs")
    monkeypatch.setenv("VAULT_TOKEN", "not-for-jobs")
    monkeypatch.setenv("CCACHE_DIR", "/ccache")
    monkeypatch.setenv("NODE_A", "a")
    job = Job(tmp_path, "env > $AT/env", pass_env=("CCACHE_DIR", "NODE_*", "HYBRIDQ_*"))

    job.end()

    env = job.word("env")
    assert "not-for-jobs" not in env
    assert "CCACHE_DIR=/ccache" in env and "NODE_A=a" in env
    assert f"HOME={os.environ['HOME']}\n" not in env


def test_a_steps_environment_stands_above_the_jobs(tmp_path: Path) -> None:
    first = Step(name="a", run='echo "$A $B" > $AT/a', env={"B": "step"})
    job = Job(tmp_path, first, Step(name="b", run='echo "$A $B" > $AT/b'), env={"A": "job", "B": "job"})

    job.end()

    assert (job.word("a"), job.word("b")) == ("job step", "job job")


@pytest.mark.parametrize(
    "name", ["HYBRIDQ_JOB_ID", "LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "BASH_ENV", "A-B", "", "A=B"]
)
def test_a_job_that_sets_what_no_job_may_is_rejected(tmp_path: Path, name: str) -> None:
    of_job = Job(tmp_path, "touch $AT/ran", env={name: "x"}).end()
    of_step = Job(tmp_path, Step(name="s", run="touch $AT/ran", env={name: "x"})).end()

    for ended in (of_job, of_step):
        assert ended.outcome == Outcome.REJECTED and ended.error is not None
        assert ended.error["code"] == "env_not_allowed"
    assert not (tmp_path / "ran").exists()


def test_the_value_of_a_refused_variable_is_not_told(tmp_path: Path) -> None:
    ended = Job(tmp_path, "true", env={"A": "sec\0ret"}).end()

    assert ended.outcome == Outcome.REJECTED and "sec" not in str(ended.error)


def test_stdin_has_ended_when_a_step_begins(tmp_path: Path) -> None:
    job = Job(tmp_path, "cat; if read line; then exit 3; fi")

    assert job.end().outcome == Outcome.SUCCESS


def test_a_step_has_no_descriptor_but_its_three(tmp_path: Path) -> None:
    """Else it could speak to the agent as its keeper does."""
    job = Job(tmp_path, Step(name="s", run="import os; print(len(os.listdir('/proc/self/fd')))", shell="python"))

    job.end()

    # The listing itself is open while it is read, and python reads its script.
    assert int(job.text().splitlines()[-1]) <= 5


def test_the_default_shell_stops_at_the_first_failure_also_inside_a_pipe(tmp_path: Path) -> None:
    assert Job(tmp_path, "false; touch $AT/ran").end().exit_code == 1
    assert Job(tmp_path, "false | cat; touch $AT/ran").end().exit_code == 1
    assert not (tmp_path / "ran").exists()


def test_a_shell_is_a_name_or_any_command(tmp_path: Path) -> None:
    job = Job(
        tmp_path,
        Step(name="python", run="import sys; print(f'python {1 + 1}')", shell="python"),
        Step(name="sh", run='echo "sh $0"', shell="sh"),
        Step(name="list", run="x y", shell=("grep", "-c", "x", "{0}")),
        Step(name="line", run="hello", shell="cat -- {0}"),
        Step(name="appended", run="appended", shell="cat"),
    )

    ended = job.end()

    assert ended.outcome == Outcome.SUCCESS
    assert all(said in job.text() for said in ("python 2", "sh /", "hello", "appended"))


def test_a_shell_that_is_not_there_is_the_machines_failure(tmp_path: Path) -> None:
    ended = Job(tmp_path, Step(name="s", run="x", shell="no-such-shell {0}")).end()

    assert ended.outcome == Outcome.INFRA_ERROR and ended.error is not None
    assert ended.error["code"] == "spawn_failed" and "no-such-shell" in ended.error["message"]


def test_a_program_that_is_none_is_the_machines_failure(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"\0\0")
    (tmp_path / "program").chmod(0o755)

    ended = Job(tmp_path, Step(name="s", run="x", shell=(str(tmp_path / "program"), "{0}"))).end()

    assert ended.outcome == Outcome.INFRA_ERROR and ended.error is not None
    assert ended.error["code"] == "spawn_failed"


def test_working_directory_is_a_folder_of_the_workspace(tmp_path: Path) -> None:
    job = Job(tmp_path, "mkdir -p a/b; ln -s a/b link", Step(name="b", run="pwd -P > $AT/b", working_directory="link"))

    assert job.end().outcome == Outcome.SUCCESS
    assert job.word("b").endswith("/work/a/b")


@pytest.mark.parametrize("folder", ["..", "/", "a/../../..", "out", "../work-of-another"])
def test_a_folder_outside_the_workspace_is_refused(tmp_path: Path, folder: str) -> None:
    """By its path or through a link, whatever step made that."""
    job = Job(
        tmp_path,
        "ln -s / out; mkdir a ../work-of-another",
        Step(name="out", run="touch $AT/ran", working_directory=folder),
    )

    ended = job.end()

    assert ended.outcome == Outcome.REJECTED and ended.error is not None
    assert ended.error == {"code": "outside_workspace", "message": ended.error["message"], "step": "out"}
    assert not (tmp_path / "ran").exists()


def test_a_folder_outside_the_workspace_is_fine_where_the_operator_says_so(tmp_path: Path) -> None:
    job = Job(
        tmp_path, Step(name="here", run="pwd > $AT/where", working_directory=str(tmp_path)), outside_workspace=True
    )

    job.end()

    assert job.word("where") == str(tmp_path)


def test_a_folder_that_is_not_there_is_the_jobs_failure(tmp_path: Path) -> None:
    ended = Job(tmp_path, Step(name="s", run="true", working_directory="nowhere")).end()

    assert ended.outcome == Outcome.FAILED and ended.error is not None
    assert ended.error["code"] == "no_working_directory"


def test_an_environment_larger_than_the_kernel_takes_is_the_jobs_failure(tmp_path: Path) -> None:
    ended = Job(tmp_path, "true", env={f"BIG_{n}": "x" * 100_000 for n in range(100)}).end()

    assert ended.outcome == Outcome.FAILED and ended.error is not None
    assert ended.error["code"] == "environment_too_large"


def test_a_large_environment_arrives_whole(tmp_path: Path) -> None:
    """More than a pipe holds, in one order to the keeper."""
    job = Job(tmp_path, "env | wc -c > $AT/bytes", env={f"BIG_{n}": "ü" * 50_000 for n in range(10)})

    assert job.end().outcome == Outcome.SUCCESS
    assert job.number("bytes") > 1_000_000


# -- which steps run -----------------------------------------------------------------------------


def test_if_says_which_steps_run_after_a_failure(tmp_path: Path) -> None:
    ended = Job(
        tmp_path,
        Step(name="not yet", run="true", if_="failure"),
        Step(name="never", run="true", if_="cancelled"),
        Step(name="fails", run="exit 3"),
        Step(name="default", run="true"),
        Step(name="success", run="true", if_="success"),
        Step(name="failure", run="exit 4", if_="failure"),
        Step(name="always", run="true", if_="always"),
    ).end()

    assert outcomes(ended) == ["skipped", "skipped", "failed", "skipped", "skipped", "failed", "success"]
    assert ended.outcome == Outcome.FAILED and ended.exit_code == 3
    assert ended.error == {"code": "step_failed", "message": "step 'fails' exited with 3", "step": "fails"}


# -- what steps say ------------------------------------------------------------------------------


def test_both_streams_arrive_in_the_order_in_which_they_were_written(tmp_path: Path) -> None:
    job = Job(tmp_path, "for n in 1 2 3 4 5; do echo out $n; echo err $n >&2; done")

    job.end()

    said = [line for line in job.text().splitlines() if line.startswith(("out", "err"))]
    assert said == [f"{stream} {n}" for n in range(1, 6) for stream in ("out", "err")]


def test_a_flood_of_output_neither_stops_the_job_nor_is_lost_before_its_end(tmp_path: Path) -> None:
    job = Job(tmp_path, "head -c 50000000 /dev/zero | tr '\\0' 'x' | fold -w 99; echo the end")

    assert job.end().outcome == Outcome.SUCCESS
    summary = job.log.close(within_s=30)
    assert summary.bytes_written >= 50_000_000
    assert "the end" in "".join(summary.last_lines)


def test_a_step_ends_when_it_ends_and_not_when_its_pipe_closes(tmp_path: Path) -> None:
    """A server that a step leaves running serves the next step, holds the pipe, and is ended with the job."""
    job = Job(
        tmp_path,
        "(echo $BASHPID > $AT/server; while :; do echo tick; touch $AT/ticks; done) & echo started",
        "while ! test -e $AT/ticks; do :; done; kill -0 $(cat $AT/server); echo served",
    )

    ended = job.end()

    assert ended.outcome == Outcome.SUCCESS
    assert not alive(job.number("server"))
    said = job.text()
    assert "started" in said and "tick" in said
    assert "[hybridq] ended what steps had left running: bash" in said


def test_the_last_words_of_a_step_come_before_the_next_step(tmp_path: Path) -> None:
    job = Job(tmp_path, "(sleep 1000 &); seq 10000", "echo next")

    job.end()

    said = job.text().splitlines()
    assert said.index("10000") < said.index("next")


def test_outputs_are_read_from_their_file(tmp_path: Path) -> None:
    job = Job(
        tmp_path,
        'echo version=1.2 >> $HYBRIDQ_OUTPUT; printf "notes<<END\\na=b\\n\\nc\\nEND\\n" >> "$HYBRIDQ_OUTPUT"',
        "echo version=1.3 >> $HYBRIDQ_OUTPUT; exit 1",
    )

    assert job.end().result["outputs"] == {"version": "1.3", "notes": "a=b\n\nc"}


def test_outputs_that_are_too_large_are_left_out_and_the_log_says_so(tmp_path: Path) -> None:
    job = Job(tmp_path, "head -c 70000 /dev/zero | tr '\\0' x > $HYBRIDQ_OUTPUT")

    ended = job.end()

    assert ended.outcome == Outcome.SUCCESS and "outputs" not in ended.result
    assert "outputs are larger than 65536 bytes and were left out" in job.text()


@pytest.mark.parametrize(
    "hostile", ["ln -sf /etc/passwd $HYBRIDQ_OUTPUT", "mkfifo p; mv -f p $HYBRIDQ_OUTPUT", "rm $HYBRIDQ_OUTPUT"]
)
def test_a_file_of_outputs_that_is_none_is_not_followed(tmp_path: Path, hostile: str) -> None:
    ended = Job(tmp_path, hostile).end()

    assert ended.outcome == Outcome.SUCCESS and "outputs" not in ended.result


def test_secrets_are_redacted_in_all_that_is_handed_back(tmp_path: Path) -> None:
    secret = "correct-horse-battery"
    job = Job(
        tmp_path,
        Step(name=f"name {secret}", run=f"echo {secret}; echo out={secret} >> $HYBRIDQ_OUTPUT; exit 1"),
        secrets=(secret,),
    )

    ended = job.end()

    assert secret not in str(ended) and secret not in job.text()


# -- how it ends ---------------------------------------------------------------------------------


def test_a_step_ended_by_a_signal_has_the_exit_code_a_shell_would_give_it(tmp_path: Path) -> None:
    ended = Job(tmp_path, "kill -SEGV $$").end()

    assert ended.outcome == Outcome.FAILED and ended.exit_code == 139 and ended.error is not None
    assert ended.error["message"] == "step 's1' was ended by SIGSEGV"


def test_an_unwritable_folder_is_the_machines_failure(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file is in the way")

    ended = Job(tmp_path, "true").end()

    assert ended.outcome == Outcome.INFRA_ERROR and ended.error is not None
    assert ended.error["code"] == "workspace_failed"
    assert outcomes(ended) == ["skipped"]


def test_a_keeper_that_cannot_be_started_is_the_machines_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))

    ended = Job(tmp_path, "true").end()

    assert ended.outcome == Outcome.INFRA_ERROR and ended.error is not None
    assert ended.error["code"] == "spawn_failed"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_is_the_machines_failure_and_leaves_nothing(small_disk: Path) -> None:
    before = Job(small_disk, "true")
    (small_disk / "filler").touch()
    job = Job(small_disk, "head -c 100000000 /dev/zero > file")
    ended = job.end()

    assert ended.outcome == Outcome.INFRA_ERROR and ended.error is not None
    assert ended.error["code"] == "disk_full"
    assert list(job.work_dir.iterdir()) == []
    assert before.end().outcome == Outcome.SUCCESS


def test_a_disk_that_is_full_already_is_the_machines_failure(small_disk: Path) -> None:
    job = Job(small_disk, "true")
    with contextlib.suppress(OSError), open(small_disk / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 4096)

    ended = job.end()

    assert ended.outcome == Outcome.INFRA_ERROR and ended.error is not None
    assert ended.error["code"] == "disk_full"


# -- what stays ----------------------------------------------------------------------------------


def test_folders_that_may_not_be_written_to_are_removed_all_the_same(tmp_path: Path) -> None:
    """As Go's module cache leaves them. Root without its powers stands for a user here."""
    powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if ROOT else []
    if powerless and shutil.which("setpriv") is None:
        pytest.skip("nothing here takes root's powers away")
    script = "mkdir -p a/b/c; touch a/b/c/file; chmod 500 a/b/c; chmod 000 a/b; chmod 500 $HYBRIDQ_WORKSPACE"

    subprocess.run([*powerless, sys.executable, ALONE, tmp_path, "600", script], check=True)

    assert (tmp_path / "ended").read_text() == "success None\n"
    assert list((tmp_path / "work").iterdir()) == []


def test_removing_a_workspace_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (tmp_path / "precious").chmod(0o755)
    job = Job(tmp_path, "ln -s $AT/precious a; ln -s $AT/precious $HYBRIDQ_WORKSPACE/../b; mkdir c; chmod 0 c")

    job.end()

    assert (tmp_path / "precious" / "file").exists()
    assert stat.S_IMODE((tmp_path / "precious").stat().st_mode) == 0o755
    assert list(job.work_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("keep", "run", "stays"),
    [("always", "true", True), ("failed", "true", False), ("failed", "false", True), ("never", "false", False)],
)
def test_the_workspace_stays_when_the_operator_wants_to_look(tmp_path: Path, keep: str, run: str, stays: bool) -> None:
    job = Job(tmp_path, f"touch file; {run}", keep=keep)

    ended = job.end()

    assert (ended.kept is not None) is stays
    if ended.kept is not None:
        assert (ended.kept / "work" / "file").exists()
        assert str(ended.kept) in job.text()
        assert sweep(job.work_dir) == 0 and ended.kept.exists()


def test_what_a_dead_agent_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    theirs = tmp_path / "work" / "photos"
    (theirs / "2026").mkdir(parents=True)
    kept = Job(tmp_path, "cp -a $HYBRIDQ_WORKSPACE/.. $AT/copy").end().kept
    shutil.move(tmp_path / "copy", tmp_path / "work" / "left")

    assert sweep(tmp_path / "work") == 1
    assert kept is None and [path.name for path in (tmp_path / "work").iterdir()] == ["photos"]
    assert sweep(tmp_path / "nowhere") == 0


def test_many_jobs_at_once_do_not_know_of_each_other(tmp_path: Path) -> None:
    jobs = []
    for number in range(8):
        (tmp_path / str(number)).mkdir()
        jobs.append(Job(tmp_path / str(number), f"for n in $(seq 200); do echo {number}; done; exit {number}").begin())

    ends = [job.end() for job in jobs]

    assert [ended.exit_code for ended in ends] == list(range(8))
    for number, job in enumerate(jobs):
        assert {line for line in job.text().splitlines() if not line.startswith("[hybridq]")} == {str(number)}
    assert marked(tmp_path) == []


def test_a_job_without_git_asks_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = shutil.which("bash")
    assert shell is not None
    monkeypatch.setenv("PATH", str(tmp_path))

    without = Job(tmp_path, Step(name="s", run="true", shell=(shell, "{0}"))).end()
    with_git = Job(tmp_path, "true", git=Git(repo="/somewhere")).end()

    assert without.outcome == Outcome.SUCCESS
    assert with_git.outcome == Outcome.INFRA_ERROR and with_git.error is not None
    assert with_git.error["code"] == "git_missing"
