"""Cancel: it reaches a running job soon, and leaves no process behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent.e2e.agents import AgentProcess, lives
from tests.agent.e2e.doings import number_in, payload, python
from tests.agent.e2e.house import House
from tests.servers import wait_until

IDLE_S = 2.0
"""What is promised on an idle machine."""
BUSY_S = 3.0
"""What scheduling may take beyond a heartbeat while other tests run beside this one."""
TRIES = 3
LEASE_S = 30.0

FAMILY = """\
import os, signal, sys, time
room = sys.argv[1]

def say(name, text):
    with open(f"{room}/{name}.new", "w") as file:
        file.write(text)
    os.rename(f"{room}/{name}.new", f"{room}/{name}")

def live(name):
    say(name, str(os.getpid()))
    while True:
        time.sleep(60)

if os.fork() == 0:  # a child that stays in the group
    live("child")
if os.fork() == 0:  # one of its own session, whose parent is gone: twice forked
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        live("daemon")
    os._exit(0)
if os.fork() == 0:  # one that hears nothing but SIGKILL
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    live("deaf")

def told(*_):
    say("told", str(time.monotonic()))
    if "stubborn" not in sys.argv:
        os._exit(7)

signal.signal(signal.SIGTERM, told)
live("self")
"""
FAMILY_NAMES = ("child", "daemon", "deaf", "self")
Start = Callable[..., AgentProcess]


@pytest.fixture
def family(room: Path) -> Callable[..., str]:
    """Shell of a job that has children of every kind; `family(folder)` is where they write their pids."""
    program = room / "family.py"
    program.write_text(FAMILY)

    def run(folder: Path, *more: str) -> str:
        folder.mkdir()
        return f"exec {python(program, folder, *more)}"

    return run


def living(folder: Path) -> list[int]:
    """Wait until all of a family live, and return their pids."""
    wait_until(lambda: all((folder / name).exists() for name in FAMILY_NAMES), 30, what="the whole family lives")
    pids = [number_in(folder / name) for name in FAMILY_NAMES]
    assert all(lives(pid) for pid in pids)
    return pids


def test_a_cancel_reaches_a_running_job_within_a_heartbeat_and_leaves_no_process(
    house: House, agent: Start, room: Path, family: Callable[..., str]
) -> None:
    holder = agent("a", lease_seconds=LEASE_S)
    took: list[float] = []
    for number in range(TRIES):
        folder = room / str(number)
        job = house.client.enqueue("t", payload(family(folder)), pool=house.pool)
        pids = living(folder)
        asked = time.monotonic()
        assert house.client.cancel(job.id).cancel_requested_at is not None
        ended = house.wait_for_end(job.id, 30)
        took.append(float((folder / "told").read_text()) - asked)
        assert (ended.status, ended.outcome) == ("CANCELLED", "cancelled")
        assert [pid for pid in pids if lives(pid)] == [], "nothing of the job lives when it is said to have ended"
    beats = [heard.answer["next_heartbeat_seconds"] for heard in holder.tap.heard if _is_beat(heard.path, heard.answer)]
    print(f"told after {', '.join(f'{each:.2f}' for each in took)} s")
    assert max(took) <= max(beats) + BUSY_S, took
    assert min(took) <= IDLE_S, took


def _is_beat(path: str, answer: object) -> bool:
    return path.endswith("/heartbeat") and isinstance(answer, dict) and "next_heartbeat_seconds" in answer


def test_a_job_that_does_not_listen_is_killed_after_the_grace(
    house: House, agent: Start, room: Path, family: Callable[..., str]
) -> None:
    agent("a", cancel_grace_seconds=0.5, lease_seconds=LEASE_S)
    folder = room / "family"
    job = house.client.enqueue("t", payload(family(folder, "stubborn")), pool=house.pool)
    pids = living(folder)
    house.client.cancel(job.id)
    # Of the 10 s that the server gives, the machine's operator gives half a second.
    ended = house.wait_for_end(job.id, 9)
    assert (ended.status, ended.outcome) == ("CANCELLED", "cancelled")
    assert (folder / "told").exists(), "it was asked first"
    assert [pid for pid in pids if lives(pid)] == []


def test_a_job_that_ends_well_leaves_no_process_either(
    house: House, agent: Start, room: Path, family: Callable[..., str]
) -> None:
    agent("a", lease_seconds=LEASE_S)
    folder = room / "family"
    started = family(folder).removeprefix("exec ")
    waits = " ".join(f"'{folder / name}'" for name in FAMILY_NAMES)
    run = f"{started} & for each in {waits}; do while [ ! -e $each ]; do sleep 0.02; done; done"
    job = house.client.enqueue("t", payload(run), pool=house.pool)
    ended = house.wait_for_end(job.id, 30)
    assert (ended.status, ended.exit_code) == ("COMPLETED", 0)
    assert [name for name in FAMILY_NAMES if lives(number_in(folder / name))] == []
