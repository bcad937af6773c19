"""Logs of jobs, from the program to whoever reads them: whole, in order, bounded."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

from tests.agent.e2e.agents import AgentProcess
from tests.agent.e2e.doings import payload, python
from tests.agent.e2e.house import House
from tests.servers import wait_until

CUTS = 20
LINES = 150
BIG_BYTES = 50_000_000
MEMORY_KIB_MAX = 200_000
Start = Callable[..., AgentProcess]

TALKER = """\
import os, sys, time
room, rounds, lines = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for number in range(rounds):
    while not os.path.exists(f"{room}/{number}"):
        time.sleep(0.01)
    for line in range(lines):
        print(f"round {number} line {line} \\u00fc\\u20ac {'x' * (line % 60)}", flush=line % 7 == 0)
    sys.stdout.flush()
"""


def expected(rounds: int) -> list[str]:
    return [f"round {n} line {line} ü€ {'x' * (line % 60)}".rstrip() for n in range(rounds) for line in range(LINES)]


def of_the_job(log: str) -> list[str]:
    """Return the lines that the job printed; the agent's and the server's own begin with `[hybridq]`."""
    return [line.rstrip() for line in log.splitlines() if not line.startswith("[hybridq]")]


def pieces(agent: AgentProcess, *, answered: bool = False) -> int:
    """Return how many pieces of logs an agent has sent, or was answered for."""
    return sum(1 for heard in agent.tap.calls("POST", "/logs") if heard.status or not answered)


def test_a_log_is_whole_and_in_order_through_twenty_cuts(house: House, agent: Start, room: Path) -> None:
    """Half of the cuts lose a piece of the log on its way, the others the answer to a piece that has arrived."""
    rng = random.Random(20)
    program = room / "talker.py"
    program.write_text(TALKER)
    holder = agent("a")
    job = house.client.enqueue("t", payload(f"exec {python(program, room, CUTS, LINES)}"), pool=house.pool)
    house.wait_for_run(job.id)
    for number in range(CUTS):
        sent, answered = pieces(holder), pieces(holder, answered=True)
        if rng.random() < 0.5:
            cut = holder.tap.drop_next_reply(b"/logs")
            (room / str(number)).touch()
            wait_until(cut.is_set, 30, what="an answer was lost")
        else:
            (room / str(number)).touch()
            wait_until(lambda sent=sent: pieces(holder) > sent, 30, what="a piece is on its way")
            holder.tap.cut()
        if number % 5:  # else the next cut may meet the same piece
            wait_until(lambda last=answered: pieces(holder, answered=True) > last, 30, what="the log goes on")
    ended = house.wait_for_end(job.id)
    assert ended.status == "COMPLETED"
    assert of_the_job(house.log(job.id)) == expected(CUTS)
    assert holder.tap.accepted > CUTS, "the connection was made anew each time"
    assert pieces(holder) - pieces(holder, answered=True) >= CUTS // 4, "pieces were lost on their way"


def test_a_log_arrives_after_the_server_was_away(house: House, agent: Start, room: Path) -> None:
    """What the job prints while nobody listens is kept on the agent's disk."""
    program = room / "talker.py"
    program.write_text(TALKER)
    holder = agent("a", lease_seconds=60)
    job = house.client.enqueue("t", payload(f"exec {python(program, room, 2, LINES)}"), pool=house.pool)
    (room / "0").touch()
    wait_until(lambda: holder.tap.calls("POST", "/logs"), 30, what="the log began")
    house.api.kill()
    (room / "1").touch()
    wait_until(lambda: not (holder.tap.heard[-1].status), 30, what="the agent noticed")
    house.api.start()
    assert house.wait_for_end(job.id).status == "COMPLETED"
    assert of_the_job(house.log(job.id)) == expected(2)


def test_a_log_of_50_mb_is_cut_and_says_so(house: House, agent: Start, room: Path) -> None:
    line = "line {:09d} " + "y" * 84
    count = BIG_BYTES // (len(line.format(0)) + 1)
    program = room / "big.py"
    program.write_text(f"for number in range({count}):\n    print({line!r}.format(number))\n")
    holder = agent("a")
    job = house.client.enqueue("t", payload(f"exec {python(program)}"), pool=house.pool)
    assert house.wait_for_end(job.id, 100).status == "COMPLETED"

    log = house.log(job.id)
    assert len(log) < BIG_BYTES // 4
    numbers = [int(found) for found in re.findall(r"^line (\d{9}) y{84}$", log, re.M)]
    assert numbers == sorted(set(numbers)), "in order, none twice"
    assert (numbers[0], numbers[-1]) == (0, count - 1), "its beginning and its end are there"
    said = [text for text in log.splitlines() if text.startswith("[hybridq]") and re.search(r"\d", text)]
    missing = (count - len(numbers)) * (len(line.format(0)) + 1)
    assert missing > BIG_BYTES // 2
    assert any(
        abs(int(digits.replace(",", "")) - missing) < 1000 for text in said for digits in re.findall(r"[\d,]+\d", text)
    ), said
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{holder.pid}/status").read_text())
    assert peak is not None and int(peak[1]) < MEMORY_KIB_MAX, peak
