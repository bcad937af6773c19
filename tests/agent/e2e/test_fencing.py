"""An agent that stood still past its lease: somebody else has the job by then, and nothing it says changes that."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from hybridq.agent import Attempt, Job
from tests.agent.e2e.agents import AgentProcess, lives
from tests.agent.e2e.doings import number_in, payload, python, say, wait_for
from tests.agent.e2e.house import House
from tests.servers import wait_until

LEASE_S = 3.0
TICKER = """\
import os, sys, time
sign, stop = sys.argv[1:]
while not os.path.exists(stop):
    with open(sign, "a") as file:
        file.write(f"{time.monotonic()} {os.getpid()} {os.getpgid(0)}\\n")
    time.sleep(0.01)
"""
Start = Callable[..., AgentProcess]


@pytest.fixture
def ticking(room: Path) -> Callable[[], str]:
    """Shell of a job that writes down, every 10 ms, that it lives: into a file of each fence."""
    program = room / "ticker.py"
    program.write_text(TICKER)
    return lambda: f"exec {python(program)} '{room}'/$HYBRIDQ_FENCE '{room / 'stop'}'"


def ticks(room: Path, fence: int | None) -> list[tuple[float, int, int]]:
    """Return (moment, pid, process group) of each sign of life of a lease."""
    path = room / str(fence)
    lines = path.read_text().splitlines() if path.exists() else []
    return [(float(at), int(pid), int(group)) for at, pid, group in (line.split() for line in lines)]


def first_of(job: Job) -> Attempt:
    return min(job.attempts, key=lambda attempt: attempt.fence or 0)


def refused_reports(agent: AgentProcess) -> list[tuple[int, str]]:
    """Return status and code of every answer to a completion that an agent sent."""
    sent = [heard for method in ("POST", "PATCH") for heard in agent.tap.calls(method, "/complete")]
    return [(heard.status, (heard.answer or {}).get("code", "")) for heard in sent if heard.status]


def begun(house: House, room: Path, run: str) -> Job:
    """Enqueue a job that ticks, and return it as soon as it does."""
    job = house.client.enqueue("t", payload(run), pool=house.pool)
    return house.wait_for(
        job.id, lambda job: bool(job.attempts and ticks(room, job.attempts[-1].fence)), 30, what="it runs"
    )


def taken_over(house: House, room: Path, job: Job) -> Job:
    """Wait until it ticks under another lease."""
    before = job.attempts[-1].fence
    return house.wait_for(
        job.id,
        lambda job: bool(job.attempts[-1].fence != before and ticks(room, job.attempts[-1].fence)),
        30,
        what="somebody else runs it",
    )


def is_told_that_it_is_stale(agent: AgentProcess) -> None:
    """Wait for its report, whose every answer is a refusal."""
    wait_until(lambda: refused_reports(agent), 30, what="the agent reports")
    assert {(409, "stale_lease")} == set(refused_reports(agent))


def test_a_stopped_agent_s_job_is_dead_before_somebody_else_has_it(
    house: House, agent: Start, room: Path, ticking: Callable[[], str]
) -> None:
    first = agent("a", lease_seconds=LEASE_S)
    job = begun(house, room, ticking())
    fence = job.attempts[-1].fence
    _, pid, group = ticks(room, fence)[0]

    first.pause()
    second = agent("b", lease_seconds=LEASE_S)
    taken = taken_over(house, room, job)
    assert taken.agent_id == second.name
    last = ticks(room, fence)[-1][0]
    assert not lives(pid), "the job of the agent that stands still is gone"
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    assert last < ticks(room, taken.attempts[-1].fence)[0][0], "never both at once"

    first.resume()
    is_told_that_it_is_stale(first)
    held = house.job(job.id)
    assert (held.status, held.agent_id, held.attempts[-1].fence) == ("RUNNING", second.name, taken.attempts[-1].fence)
    assert first_of(held).late is not None, "what it says is kept as evidence"

    (room / "stop").touch()
    ended = house.wait_for_end(job.id)
    assert (ended.status, ended.attempts[-1].agent_id) == ("COMPLETED", second.name)
    assert [attempt.outcome for attempt in ended.attempts] == ["lost", "success"]
    assert first.running, "it stays fit for work"


def test_a_result_that_was_ready_while_the_agent_stood_still_is_evidence_only(
    house: House, agent: Start, room: Path
) -> None:
    """The job itself ended well within its lease; its agent could not say so in time."""
    go = room / "go"
    run = f"[ $HYBRIDQ_ATTEMPT = 1 ] || {wait_for(room / 'second')}; {say(room / 'began')}; {wait_for(go)}"
    first = agent("a", lease_seconds=LEASE_S)
    job = house.client.enqueue("t", payload(run), pool=house.pool)
    wait_until((room / "began").exists, 30, what="it runs")
    pid = number_in(room / "began")

    first.pause()
    go.touch()
    wait_until(lambda: not lives(pid), 30, what="the job is over")
    second = agent("b", lease_seconds=LEASE_S)
    taken = house.wait_for(job.id, lambda job: job.agent_id == second.name, 30, what="somebody else has it")
    first.resume()
    is_told_that_it_is_stale(first)
    late = first_of(house.job(job.id)).late
    assert late is not None and late["outcome"] == "success", late

    (room / "second").touch()
    ended = house.wait_for_end(job.id)
    assert (ended.status, ended.attempts[-1].fence) == ("COMPLETED", taken.attempts[-1].fence)
    assert [attempt.outcome for attempt in ended.attempts] == ["lost", "success"]


def test_a_machine_that_stood_still_stops_its_job_when_it_goes_on(
    house: House, agent: Start, room: Path, ticking: Callable[[], str]
) -> None:
    """Everything below the agent stood still, what was to fence it off too: the job ends as soon as that goes on."""
    first = agent("a", lease_seconds=LEASE_S)
    job = begun(house, room, ticking())
    fence = job.attempts[-1].fence
    machine = [first.pid, *first.descendants()]
    for pid in machine:
        os.kill(pid, signal.SIGSTOP)

    second = agent("b", lease_seconds=LEASE_S)
    house.wait_for(job.id, lambda job: job.agent_id == second.name, 30, what="somebody else has it")
    for pid in reversed(machine):
        os.kill(pid, signal.SIGCONT)
    _, job_pid, _ = ticks(room, fence)[0]
    wait_until(lambda: not lives(job_pid), 5, what="the job of the machine that stood still is gone")
    is_told_that_it_is_stale(first)

    (room / "stop").touch()
    ended = house.wait_for_end(job.id)
    assert (ended.status, ended.attempts[-1].agent_id) == ("COMPLETED", second.name)
    assert [attempt.outcome for attempt in ended.attempts] == ["lost", "success"]


def test_an_agent_that_is_cut_off_stops_its_job_before_its_lease_ends(
    house: House, agent: Start, room: Path, ticking: Callable[[], str]
) -> None:
    """The agent is well and cannot renew: nobody tells it to stop, and it does."""
    first = agent("a", lease_seconds=LEASE_S)
    job = begun(house, room, ticking())
    fence = job.attempts[-1].fence
    first.tap.blackhole()
    second = agent("b", lease_seconds=LEASE_S)
    taken = taken_over(house, room, job)
    assert ticks(room, fence)[-1][0] < ticks(room, taken.attempts[-1].fence)[0][0], "never both at once"
    (room / "stop").touch()
    assert house.wait_for_end(job.id).attempts[-1].agent_id == second.name
    first.tap.heal()
    is_told_that_it_is_stale(first)
    assert first_of(house.job(job.id)).late is not None
