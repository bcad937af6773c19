"""Jobs that are stopped, and jobs whose agent is: nothing of them lives afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridq.agent.work.keeper import now_s
from hybridq.agent.work_of import Git, Step
from hybridq.lifecycle import Outcome
from tests.agent.runs import LONG_S, Job, alive, marked, word
from tests.servers import wait_until

ALONE = Path(__file__).parent / "alone.py"

DAEMON = """
import os, signal, time
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
at = os.environ["AT"]
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
os.chdir("/")
for fd in range(3):
    os.close(fd)
with open(f"{at}/daemon.new", "w") as file:
    file.write(f"{os.getpid()}\\n")
os.rename(f"{at}/daemon.new", f"{at}/daemon")
while True:
    with open(f"{at}/beat.new", "w") as file:
        file.write(f"{time.clock_gettime(CLOCK)}\\n")
    os.rename(f"{at}/beat.new", f"{at}/beat")
    time.sleep(0.005)
"""
"""Detaches itself in every way there is, ignores what can be ignored, and writes down the time as long as it lives."""

ESCAPES = f"""
python3 -c '{DAEMON.replace("'", '"')}'
while ! test -e $AT/daemon; do :; done
setsid sh -c 'echo $$ > $AT/setsid; exec sleep 1000' &
(trap '' TERM; echo $BASHPID > $AT/deaf; while :; do sleep 0.1; done) &
while ! test -s $AT/setsid || ! test -s $AT/deaf; do :; done
trap '' TERM
echo $$ > $AT/leader
while :; do sleep 0.1; done
"""
NAMES = ("daemon", "setsid", "deaf", "leader")


def pids(folder: Path) -> list[int]:
    """Of everything in ESCAPES, once it is there."""
    word(folder / "leader")
    return [int(word(folder / name)) for name in NAMES]


def wait_till(at_s: float) -> None:
    """A moment is what is waited for here."""
    wait_until(lambda: now_s() > at_s, LONG_S)


@contextlib.contextmanager
def alone(folder: Path, lease_s: float, script: str) -> Iterator[subprocess.Popen[bytes]]:
    """An agent's process of its own, with one job."""
    with subprocess.Popen([sys.executable, ALONE, folder, str(lease_s), script]) as process:
        try:
            yield process
        finally:
            process.kill()


# -- stop ----------------------------------------------------------------------------------------


def test_a_stopped_job_may_tidy_up_within_its_grace(tmp_path: Path) -> None:
    job = Job(
        tmp_path, "trap 'touch $AT/tidied; exit 5' TERM; echo $$ > $AT/leader; while :; do sleep 0.05; done", "true"
    )
    job.begin()
    leader = job.number("leader")

    job.run.stop("cancelled", LONG_S)
    ended = job.end()

    assert (tmp_path / "tidied").exists() and not alive(leader) and not job.run.killed
    assert ended.outcome == Outcome.CANCELLED and ended.stopped == "cancelled" and ended.exit_code is None
    assert [step["outcome"] for step in ended.result["steps"]] == ["cancelled", "skipped"]


def test_after_the_grace_everything_is_killed_however_it_hides(tmp_path: Path) -> None:
    job = Job(tmp_path, ESCAPES).begin()
    found = pids(tmp_path)
    began_s = now_s()

    job.run.stop("cancelled", 0.3)
    ended = job.end()

    assert now_s() - began_s < 5
    assert [pid for pid in found if alive(pid)] == [] and marked(tmp_path) == []
    assert job.run.killed and ended.outcome == Outcome.CANCELLED


def test_without_a_grace_everything_is_killed_at_once(tmp_path: Path) -> None:
    job = Job(tmp_path, ESCAPES).begin()
    found = pids(tmp_path)

    job.run.stop("lease_lost", 0)
    ended = job.end()

    assert [pid for pid in found if alive(pid)] == []
    assert job.run.killed and ended.stopped == "lease_lost" and ended.error is not None
    assert ended.outcome == Outcome.INFRA_ERROR and ended.error["code"] == "lease_lost"


def test_a_step_that_ends_leaves_nothing_behind_when_the_job_is_over(tmp_path: Path) -> None:
    job = Job(
        tmp_path, ESCAPES.replace("trap '' TERM\necho $$", "echo $$").replace("\nwhile :; do sleep 0.1; done\n", "\n")
    )

    ended = job.end()

    assert ended.outcome == Outcome.SUCCESS
    assert [pid for pid in pids(tmp_path) if alive(pid)] == [] and marked(tmp_path) == []


def test_steps_that_are_meant_for_it_use_what_is_left_of_the_grace(tmp_path: Path) -> None:
    job = Job(
        tmp_path,
        "echo $$ > $AT/leader; sleep 1000",
        Step(name="default", run="touch $AT/default"),
        Step(name="cancelled", run="touch $AT/cancelled", if_="cancelled"),
        Step(name="failure", run="touch $AT/failure", if_="failure"),
        Step(name="always", run="echo $$ > $AT/always; sleep 1000", if_="always"),
    ).begin()
    job.number("leader")

    job.run.stop("cancelled", 3)
    ended = job.end()

    assert [step["outcome"] for step in ended.result["steps"]] == [
        *("cancelled", "skipped", "success", "skipped", "cancelled")
    ]
    assert not alive(job.number("always")) and ended.outcome == Outcome.CANCELLED and job.run.killed
    assert not (tmp_path / "default").exists() and not (tmp_path / "failure").exists()


@pytest.mark.parametrize("reason", ["drain", "cancelled", "lease_lost"])
def test_a_job_that_is_stopped_before_it_began_runs_nothing(tmp_path: Path, reason: str) -> None:
    job = Job(tmp_path, Step(name="s", run="touch $AT/ran", if_="always"))

    job.run.stop(reason, 10)  # type: ignore[arg-type]
    ended = job.end()

    assert ended.stopped == reason and not (tmp_path / "ran").exists()
    assert list(job.work_dir.iterdir()) == []


def test_a_stop_that_comes_when_all_is_done_changes_nothing(tmp_path: Path) -> None:
    job = Job(tmp_path, "true")

    ended = job.end()
    job.run.stop("cancelled", 0)

    assert ended.outcome == Outcome.SUCCESS and not job.run.killed


def test_a_weightier_reason_and_a_shorter_grace_win_whatever_comes_first(tmp_path: Path) -> None:
    job = Job(tmp_path, "trap '' TERM; echo $$ > $AT/leader; while :; do sleep 0.05; done").begin()
    job.number("leader")

    job.run.stop("drain", 1000)
    job.run.stop("cancelled", 0.1)
    job.run.stop("drain", 1000)
    ended = job.end()

    assert ended.stopped == "cancelled"


def test_a_stop_that_races_with_the_natural_end_has_one_of_the_two_ends(tmp_path: Path) -> None:
    """Whichever: what was through is a success, what was not is cancelled, and nothing lives."""
    seen = set()
    for number in range(25):
        folder = tmp_path / str(number)
        folder.mkdir()
        job = Job(folder, "echo $$ > $AT/leader; read -t 0.03 line < /dev/zero || true", "touch $AT/last")
        job.begin()
        job.number("leader")
        wait_till(now_s() + number * 0.004)

        job.run.stop("cancelled", LONG_S)
        ended = job.end()

        if ended.outcome == Outcome.SUCCESS:
            assert (folder / "last").exists() and ended.stopped is None
        else:
            assert ended.outcome == Outcome.CANCELLED and ended.stopped == "cancelled"
        seen.add(ended.outcome)
        assert marked(folder) == []
    assert Outcome.CANCELLED in seen


def test_a_stop_between_two_steps_keeps_the_next_one_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes when the step was found due, and is not yet running: at the line that announces it."""
    job = Job(
        tmp_path,
        Step(name="never", run="touch $AT/ran"),
        Step(name="tidies", run="touch $AT/tidied", if_="always"),
    )
    monkeypatch.setattr(job.log, "note", lambda text: job.run.stop("cancelled", LONG_S))

    ended = job.end()

    assert [step["outcome"] for step in ended.result["steps"]] == ["skipped", "success"]
    assert ended.outcome == Outcome.CANCELLED
    assert not (tmp_path / "ran").exists() and (tmp_path / "tidied").exists()


def test_many_threads_may_stop_and_extend_at_once(tmp_path: Path) -> None:
    job = Job(tmp_path, "echo $$ > $AT/leader; sleep 1000").begin()
    leader = job.number("leader")

    def worry() -> None:
        for _ in range(200):
            job.run.extend(now_s() + 600)
            job.run.stop("cancelled", 10)

    threads = [threading.Thread(target=worry) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert job.end().outcome == Outcome.CANCELLED and not alive(leader)


def test_a_fork_bomb_is_put_out(tmp_path: Path) -> None:
    """Each member has a session of its own and starts another before it ends."""
    bomb = """
import os, sys, time
at = os.environ["AT"]
for _ in range(20):
    if os.fork() == 0:
        break
else:
    open(f"{at}/leader", "w").write(f"{os.getpid()}\\n")
    time.sleep(1000)
while True:
    os.setsid() if os.getpid() != os.getsid(0) else None
    if os.fork():
        os._exit(0)
    time.sleep(0.001)
"""
    job = Job(tmp_path, Step(name="bomb", run=bomb, shell="python")).begin()
    job.number("leader")

    job.run.stop("cancelled", 0)
    ended = job.end()

    assert ended.outcome == Outcome.CANCELLED
    assert marked(tmp_path) == []


# -- time ----------------------------------------------------------------------------------------


def test_a_step_has_its_own_time(tmp_path: Path) -> None:
    job = Job(
        tmp_path,
        Step(name="slow", run="echo $$ > $AT/leader; sleep 1000", timeout_seconds=1.5),
        Step(name="then", run="true", if_="failure"),
    )

    ended = job.end()

    assert ended.outcome == Outcome.TIMEOUT and ended.exit_code == 143 and ended.stopped is None
    assert ended.error == {"code": "step_timeout", "message": "step 'slow' ran longer than 1.5 s", "step": "slow"}
    assert [step["outcome"] for step in ended.result["steps"]] == ["timeout", "success"]
    assert not alive(job.number("leader"))


def test_a_step_that_ignores_the_end_of_its_time_is_killed(tmp_path: Path) -> None:
    job = Job(
        tmp_path,
        Step(name="deaf", run="trap '' TERM; while :; do sleep 0.05; done", timeout_seconds=0.1),
        term_grace_s=0.2,
    )

    ended = job.end()

    assert ended.outcome == Outcome.TIMEOUT and ended.exit_code == 137 and job.run.killed


def test_a_job_has_its_own_time_for_all_steps_together(tmp_path: Path) -> None:
    job = Job(tmp_path, "sleep 0.1", "echo $$ > $AT/leader; sleep 1000", "true", timeout_s=2.0)

    ended = job.end()

    assert ended.outcome == Outcome.TIMEOUT and ended.error is not None and ended.error["code"] == "timeout"
    assert [step["outcome"] for step in ended.result["steps"]] == ["success", "timeout", "skipped"]
    assert not alive(job.number("leader"))


def test_time_also_runs_while_output_floods(tmp_path: Path) -> None:
    ended = Job(tmp_path, Step(name="flood", run="yes", timeout_seconds=0.3)).end()

    assert ended.outcome == Outcome.TIMEOUT


def test_a_checkout_is_stopped_as_steps_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """git hangs in a program of its own, as it does with a host that does not answer."""
    hang = tmp_path / "hang"
    hang.write_text(f"#!/bin/sh\ntrap '' TERM\necho $$ > {tmp_path}/hanging\nsleep 1000\n")
    hang.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(hang))
    job = Job(tmp_path, "touch $AT/ran", git=Git(repo="ssh://git@example.invalid/repo.git", ref="main")).begin()
    hanging = job.number("hanging")

    job.run.stop("cancelled", 0.2)
    ended = job.end()

    assert ended.outcome == Outcome.CANCELLED and not alive(hanging)
    assert not (tmp_path / "ran").exists() and marked(tmp_path) == []


def test_a_checkout_has_its_own_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_SSH_COMMAND", "sleep 1000 #")
    ended = Job(tmp_path, "true", git=Git(repo="git@example.invalid:repo", ref="main"), checkout_s=0.3).end()

    assert ended.outcome == Outcome.INFRA_ERROR and ended.error is not None
    assert ended.error["code"] == "git_failed" and "longer than 0.3 s" in ended.error["message"]


# -- the lease, and the agent --------------------------------------------------------------------


def test_a_job_is_over_before_its_lease_ends(tmp_path: Path) -> None:
    job = Job(tmp_path, ESCAPES, lease_s=4.0)

    ended = job.end()

    assert float(job.word("beat")) < job.lease_ends_at_s
    assert [pid for pid in pids(tmp_path) if alive(pid)] == []
    assert ended.stopped == "lease_lost" and job.run.killed
    assert now_s() < job.lease_ends_at_s + 2


def test_a_job_whose_lease_is_renewed_goes_on(tmp_path: Path) -> None:
    job = Job(tmp_path, "while ! test -e $AT/go; do sleep 0.05; done", lease_s=3.0).begin()

    job.run.extend(now_s() + 600)
    wait_till(job.lease_ends_at_s)
    (tmp_path / "go").touch()

    assert job.end().outcome == Outcome.SUCCESS


def test_a_killed_agents_job_dies_at_once(tmp_path: Path) -> None:
    with alone(tmp_path, 600, ESCAPES) as agent:
        found = pids(tmp_path)
        assert all(alive(pid) for pid in found)
        agent.kill()
        killed_s = now_s()

        wait_until(lambda: not any(alive(pid) for pid in found), LONG_S, what="everything is dead")
        assert now_s() - killed_s < 2
        assert float(word(tmp_path / "beat")) < killed_s + 1
        wait_until(lambda: marked(tmp_path) == [], LONG_S)


def test_a_stopped_agents_job_is_dead_before_its_lease_ends(tmp_path: Path) -> None:
    """Nobody renews it, nobody reads its output, nobody looks at a clock: it is the keeper who does."""
    with alone(tmp_path, 6.0, f"yes & {ESCAPES}") as agent:
        ends_at_s = float(word(tmp_path / "lease"))
        found = pids(tmp_path)
        agent.send_signal(signal.SIGSTOP)

        wait_until(lambda: not any(alive(pid) for pid in found), LONG_S, what="everything is dead")
        assert now_s() < ends_at_s
        assert ends_at_s - 2 < float(word(tmp_path / "beat")) < ends_at_s

        agent.send_signal(signal.SIGCONT)
        assert word(tmp_path / "ended") == "infra_error lease_lost"


def test_a_keeper_that_is_killed_takes_its_job_along(tmp_path: Path) -> None:
    """By the kernel, say, when memory is used up."""
    job = Job(tmp_path, ESCAPES).begin()
    found = pids(tmp_path)
    keeper = int(Path(f"/proc/{found[-1]}/stat").read_text().rpartition(")")[2].split()[1])

    os.kill(keeper, signal.SIGKILL)
    ended = job.end()

    assert ended.outcome == Outcome.INFRA_ERROR and ended.error is not None
    assert ended.error["code"] == "keeper_died"
    assert [pid for pid in found if alive(pid)] == []


def test_a_job_that_stops_its_own_keeper_does_not_outlive_its_lease(tmp_path: Path) -> None:
    job = Job(tmp_path, f"kill -STOP $PPID; {ESCAPES}", lease_s=4.0).begin()

    ended = job.end()

    assert ended.stopped == "lease_lost" and float(job.word("beat")) < job.lease_ends_at_s
    assert [pid for pid in pids(tmp_path) if alive(pid)] == []


def test_a_job_that_stops_its_own_keeper_can_be_cancelled(tmp_path: Path) -> None:
    job = Job(tmp_path, f"kill -STOP $PPID; {ESCAPES}").begin()
    found = pids(tmp_path)

    job.run.stop("cancelled", 0.2)

    assert job.end().outcome == Outcome.CANCELLED
    assert [pid for pid in found if alive(pid)] == []


def test_the_agents_signals_do_not_reach_the_job(tmp_path: Path) -> None:
    """A Ctrl-C, or a service that is told to stop: it is the agent's to say what becomes of its jobs."""
    job = Job(tmp_path, "echo $PPID > $AT/keeper; while ! test -e $AT/go; do sleep 0.05; done").begin()
    keeper = job.number("keeper")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(keeper, number)
    assert os.getsid(keeper) != os.getsid(0)
    (tmp_path / "go").touch()

    assert job.end().outcome == Outcome.SUCCESS


def test_steps_have_the_signals_of_a_fresh_process(tmp_path: Path) -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
    try:
        look = ("sh", "-c", "exec grep -E 'Sig(Blk|Ign)' /proc/self/status > $AT/signals", "{0}")
        job = Job(tmp_path, Step(name="look", run="", shell=look), Step(name="pipe", run="yes | head -1"))
        ended = job.end()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    # `yes` ends by SIGPIPE, which `pipefail` reports; with the signal ignored it would write an error instead.
    assert ended.exit_code == 141
    # Two numbers are the C library's own, and what it did not set up itself stays as it was inherited.
    libc_s_own = 1 << 31 | 1 << 32
    assert [int(line.split()[1], 16) & ~libc_s_own for line in job.word("signals").splitlines()] == [0, 0]


def test_the_kernel_would_rather_end_a_step_than_its_keeper(tmp_path: Path) -> None:
    job = Job(tmp_path, "cat /proc/$$/oom_score_adj /proc/$PPID/oom_score_adj > $AT/scores")

    job.end()

    step, keeper = (int(score) for score in job.word("scores").split())
    assert step > keeper
