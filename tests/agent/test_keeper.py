"""The keeper by itself: its two pipes, its start, and how it ends what is below it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridq.agent.work import keeper
from hybridq.agent.work.process import KeeperGone, KeeperProcess, NotSpawned, Step, deadline
from tests.agent.runs import LONG_S, alive, word
from tests.servers import wait_until


class Kept:
    """A keeper, and all that was heard of it."""

    def __init__(self, folder: Path, lease_s: float = 600.0) -> None:
        self.folder = folder
        self.process = KeeperProcess(deadline(time.monotonic() + lease_s), f"HYBRIDQ_WORKSPACE={folder}")
        self.output = b""

    def start(self, script: str, *, cwd: str | None = None, program: str = "/bin/sh") -> None:
        environment = {"HYBRIDQ_WORKSPACE": str(self.folder), "AT": str(self.folder), "PATH": os.environ["PATH"]}
        self.process.start(Step([program, "-c", script], environment, cwd or str(self.folder)))

    def hear(self, *kinds: bytes) -> list[bytes]:
        """Wait for one of `kinds`; return its fields."""
        until_s = time.monotonic() + LONG_S
        while True:
            event = self.process.next(until_s)
            assert event is not None, "nothing was heard"
            if event[0] in kinds:
                return event[1]
            if event[0] == keeper.OUTPUT:
                self.output += event[1][0]
            else:
                assert event[0] == keeper.STARTED, event


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    opened = Kept(tmp_path)
    yield opened
    opened.process.close()


# -- messages ------------------------------------------------------------------------------------


def test_messages_come_out_as_they_went_in_however_they_are_cut() -> None:
    messages = [(b"a", []), (b"b", [b""]), (b"c", [b"x" * 70_000, b"\0\xff", b""]), (b"d", [b"1"] * 50)]
    stream = b"".join(keeper.pack(kind, *fields) for kind, fields in messages)

    for size in (1, 3, 4096, len(stream)):
        reader = keeper.Messages()
        assert [
            message for at in range(0, len(stream), size) for message in reader.feed(stream[at : at + size])
        ] == messages


# -- start ---------------------------------------------------------------------------------------


def test_a_keeper_is_cheap_to_start(tmp_path: Path) -> None:
    """About 25 ms on a machine with nothing else to do; what it imports decides, so that is what is held."""
    script = (
        f"import sys; exec(open({keeper.__file__!r}).read(), {{'__name__': 'keeper'}}); print(' '.join(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)

    assert not {"typing", "re", "json", "subprocess", "threading", "hybridq"} & set(loaded.stdout.split())

    took_s = []
    for _ in range(5):
        began_s = time.monotonic()
        opened = Kept(tmp_path)
        opened.process.quit()
        opened.hear(keeper.ENDED)
        took_s.append(time.monotonic() - began_s)
        opened.process.close()
    assert min(took_s) < 0.25


def test_a_keeper_that_cannot_be_started_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))

    with pytest.raises(NotSpawned):
        Kept(tmp_path)


def test_a_keeper_that_has_let_go_leaves_neither_process_nor_descriptor(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        opened = Kept(tmp_path)
        opened.start("echo x")
        opened.hear(keeper.EXITED)
        opened.process.quit()
        opened.hear(keeper.ENDED)
        opened.process.close()
        assert not Path(f"/proc/{opened.process.pid}").exists()

    assert set(os.listdir("/proc/self/fd")) == before


# -- steps ---------------------------------------------------------------------------------------


def test_a_step_is_leader_of_its_own_session_and_group(kept: Kept) -> None:
    kept.start("echo $$ > $AT/pid; read line")
    kept.hear(keeper.EXITED)
    kept.start("exec cat /proc/self/stat")
    kept.hear(keeper.EXITED)

    pid, *rest = kept.output.split()
    assert rest[3] == rest[4] == pid


def test_all_that_a_step_wrote_is_heard_before_its_end(kept: Kept) -> None:
    kept.start("head -c 3000000 /dev/zero")

    assert kept.hear(keeper.EXITED) == [b"0", b""]
    assert len(kept.output) == 3_000_000


def test_what_a_closed_agent_does_not_read_stops_no_deadline(tmp_path: Path) -> None:
    """The step waits in its `write`; its keeper does not."""
    opened = Kept(tmp_path, lease_s=0.6)
    opened.start("echo $$ > $AT/pid; yes")
    pid = int(word(tmp_path / "pid"))

    wait_until(lambda: not alive(pid), LONG_S, what="the step is dead, though nobody reads")
    assert opened.hear(keeper.ENDED)[0] == keeper.LEASE
    opened.process.close()


@pytest.mark.parametrize(
    ("cwd", "program", "where"), [("/no/such/folder", "/bin/sh", b"chdir"), ("/", "/no/such/program", b"exec")]
)
def test_a_step_that_cannot_be_started_says_where_it_failed(kept: Kept, cwd: str, program: str, where: bytes) -> None:
    kept.start("true", cwd=cwd, program=program)

    assert kept.hear(keeper.FAILED) == [b"2", where]
    kept.start("true")
    assert kept.hear(keeper.EXITED) == [b"0", b""]


@pytest.mark.parametrize("order", ["stop", "kill"])
def test_a_step_that_ended_before_it_was_told_was_not_told(kept: Kept, order: str) -> None:
    """Its own end stands, also when the order to end is on its way already."""
    kept.start("echo $$ > $AT/pid; while ! test -e $AT/go; do :; done; exit 4")
    pid = int(word(kept.folder / "pid"))
    os.kill(kept.process.pid, signal.SIGSTOP)
    (kept.folder / "go").touch()
    wait_until(lambda: not alive(pid), LONG_S, what="the step has ended, and its keeper does not know")

    if order == "stop":
        kept.process.stop(keeper.now_s() + LONG_S)
    else:
        kept.process.kill()

    status, told = kept.hear(keeper.EXITED)

    assert os.waitstatus_to_exitcode(int(status)) == 4 and told == b""


# -- the end -------------------------------------------------------------------------------------


def test_the_last_word_names_what_was_left_running(kept: Kept) -> None:
    # A new process has the name of its parent until it has executed its own program.
    named = "until grep -q sleep /proc/$a/comm && grep -q sleep /proc/$b/comm; do :; done"
    kept.start(f"sleep 1000 & a=$!; setsid sleep 1000 & b=$!; {named}")
    kept.hear(keeper.EXITED)
    kept.process.quit()

    order, resist, *names = kept.hear(keeper.ENDED)

    assert (order, resist, names) == (keeper.QUIT, b"0", [b"sleep", b"sleep"])


def test_a_process_with_a_strange_name_is_ended_too(kept: Kept) -> None:
    """The kernel shows the name in brackets, unescaped, in the middle of what is read."""
    named = "until grep -q 'R 1 1' /proc/$!/comm; do :; done"
    kept.start(f"cp $(command -v sleep) './) R 1 1'; './) R 1 1' 1000 & echo $! > $AT/pid; {named}")
    kept.hear(keeper.EXITED)
    kept.process.quit()

    assert kept.hear(keeper.ENDED)[2:] == [b") R 1 1"]
    assert not alive(int(word(kept.folder / "pid")))


def test_a_deep_tree_is_ended_whole(kept: Kept) -> None:
    """A chain of sixty, each in a session of its own, of which only the last one speaks."""
    script = 'if [ "$1" -gt 0 ]; then setsid -w "$0" $(($1 - 1)); else echo $$ > "$AT/pid"; sleep 1000; fi'
    (kept.folder / "chain").write_text(f"#!/bin/sh\n{script}\n")
    (kept.folder / "chain").chmod(0o755)
    kept.start("exec ./chain 60")
    last = int(word(kept.folder / "pid"))

    kept.process.kill()

    assert kept.hear(keeper.ENDED)[:2] == [keeper.KILL, b"0"]
    assert not alive(last)


def test_a_keeper_whose_agent_lets_go_ends_everything(tmp_path: Path) -> None:
    opened = Kept(tmp_path)
    opened.start("echo $$ > $AT/pid; sleep 1000")
    pid = int(word(tmp_path / "pid"))

    opened.process.close()

    assert not alive(pid) and not alive(opened.process.pid)


def test_a_lease_that_has_ended_is_not_renewed_by_an_order_that_was_held_up(tmp_path: Path) -> None:
    opened = Kept(tmp_path, lease_s=0.5)
    opened.start("echo $$ > $AT/pid; sleep 1000")
    pid = int(word(tmp_path / "pid"))
    ends_at = keeper.now_s() + 0.5

    os.kill(opened.process.pid, signal.SIGSTOP)
    wait_until(lambda: keeper.now_s() > ends_at, LONG_S)
    opened.process.lease(keeper.now_s() + 600)
    os.kill(opened.process.pid, signal.SIGCONT)

    assert opened.hear(keeper.ENDED)[:2] == [keeper.LEASE, b"0"]
    assert not alive(pid)
    opened.process.close()


def test_a_killed_keeper_is_noticed(kept: Kept) -> None:
    kept.start("trap '' TERM; echo $$ > $AT/pid; sleep 1000")
    pid = int(word(kept.folder / "pid"))

    os.kill(kept.process.pid, signal.SIGKILL)

    with pytest.raises(KeeperGone):
        kept.hear(keeper.ENDED)
    wait_until(lambda: not alive(pid), LONG_S, what="the kernel ended the step along with its keeper")


def test_without_a_subreaper_process_groups_are_ended(tmp_path: Path) -> None:
    """As on macOS, where an orphan goes to init: what stays in a step's group is ended, no more is promised."""
    script = f"""
import runpy, sys
names = runpy.run_path({keeper.__file__!r})
kept = names["Keeper"]
kept._become_subreaper = lambda self: False
kept._below = lambda self: []
kept(0, 1, float(sys.argv[1])).keep()
"""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", script, "inf"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        run = (
            "echo $$ > pid; (trap '' TERM; echo > ready; sleep 1000) & while ! test -e ready; do :; done; echo $! > bg"
        )
        arguments = [b"/bin/sh", b"-c", run.encode()]
        path = f"PATH={os.environ['PATH']}".encode()
        process.stdin.write(keeper.pack(keeper.STEP, os.fsencode(tmp_path), b"3", *arguments, path))
        process.stdin.flush()
        background = int(word(tmp_path / "bg"))
        assert alive(background)
        process.stdin.write(keeper.pack(keeper.QUIT))
        process.stdin.close()
        said = process.stdout.read()

    kinds = [kind for kind, _ in keeper.Messages().feed(said)]
    assert kinds == [keeper.STARTED, keeper.EXITED, keeper.ENDED]
    assert not alive(background)
