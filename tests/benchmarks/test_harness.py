"""The harness measures what it says, and no program that fails or hangs takes the run with it."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.drive import (
    FLOOR,
    OURS,
    WEB,
    Figures,
    Program,
    ProgramFailed,
    Sample,
    Works,
    interleaved,
    run_once,
)
from benchmarks.peers.__main__ import WORKS, Found, PeerReport, print_peers, works_of
from benchmarks.peers.homes import PROGRAMS, NotInstalled, command_of
from benchmarks.peers.table import PEERS, Peer
from benchmarks.plots import draw
from benchmarks.report import Measured, Report
from benchmarks.rows import backlog_rows, rows, web_rows
from benchmarks.server import Server, at_hand
from benchmarks.work import Work
from tests.servers import wait_until

ROOT = Path(__file__).resolve().parents[2]
BENCH = [sys.executable, "-m", "hybridq.cli", "bench"]
MANY_S = 30.0

pytestmark = pytest.mark.xdist_group("benchmarks")

FAKE_PEER = """
import sys
sys.path.insert(0, {programs!r})
from _protocol import Counter, Work, answer, wait_for_go
import redis, time

work = Work()
client = redis.Redis.from_url(work.url)
if work.works:
    counter = Counter(work)
    if work.what == "drain":
        for _ in range(work.jobs):
            client.rpush("jobs", 0)
    counter.when_done = counter.finish
    wait_for_go()
    while True:
        taken = client.blpop(["jobs"], 1)
        if taken:
            time.sleep({pause})
            counter.note({{"sent_s": float(taken[1])}})
wait_for_go()
begin_s = time.perf_counter()
for payload in work.knocks() if work.what == "knock" else ({{"sent_s": 0.0}} for _ in range(work.jobs)):
    client.rpush("jobs", payload["sent_s"])
answer(work.jobs, time.perf_counter() - begin_s)
"""
"""A list of Redis, by the protocol of the peers."""


@pytest.fixture(scope="module")
def measured_on() -> Iterator[Server]:
    with Server(at_hand(), "off") as server:
        yield server


def _script(folder: Path, text: str) -> Program:
    path = folder / "program.py"
    path.write_text(text)
    return (sys.executable, str(path))


def _peer(folder: Path, pause_s: float = 0.0) -> Program:
    return _script(folder, FAKE_PEER.format(programs=str(PROGRAMS), pause=pause_s))


def _once(program: Program, server: Server, within_s: float = MANY_S, **what: object) -> Sample:
    import msgspec

    return run_once(server, [(program, msgspec.convert({"url": server.url, **what}, Work))], within_s)


# -- programs that fail ------------------------------------------------------------------------------------


def test_a_program_that_hangs_is_ended_and_named(measured_on: Server, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    program = _script(
        tmp_path,
        f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid()))\n"
        "print('ready', flush=True); time.sleep(600)",
    )

    begin_s = time.monotonic()
    with pytest.raises(ProgramFailed, match=r"program\.py said nothing for \d+ s"):
        _once(program, measured_on, within_s=6, what="enqueue", jobs=1)

    assert time.monotonic() - begin_s < MANY_S
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_program_that_ends_is_quoted(measured_on: Server, tmp_path: Path) -> None:
    with pytest.raises(ProgramFailed, match="ended: ValueError: no such queue"):
        _once(_script(tmp_path, "raise ValueError('no such queue')"), measured_on, what="enqueue", jobs=1)


def test_a_program_that_is_not_there_fails_like_any_other(measured_on: Server, tmp_path: Path) -> None:
    with pytest.raises(ProgramFailed, match="cannot be started"):
        _once((str(tmp_path / "absent"),), measured_on, what="enqueue", jobs=1)


def test_a_program_that_does_no_job_is_no_figure(measured_on: Server, tmp_path: Path) -> None:
    text = "print('ready', flush=True); input(); print('{\"jobs\": 0, \"took_s\": 1.0}')"

    with pytest.raises(ProgramFailed, match="did no job"):
        _once(_script(tmp_path, text), measured_on, what="enqueue", jobs=1)


def test_the_others_go_on_when_one_fails_which_is_not_tried_again(measured_on: Server, tmp_path: Path) -> None:
    def works(program: Program) -> Works:
        def of(url: str) -> Sequence[tuple[Program, Work]]:
            return [(program, Work(url=url, what="enqueue", jobs=5))]

        return of

    bad = _script(tmp_path, "raise SystemExit('no')")
    entrants = {"bad": (measured_on, works(bad)), "good": (measured_on, works(FLOOR))}

    found = [(name, type(sample)) for name, sample in interleaved(entrants, 2)]

    assert [("bad", ProgramFailed), ("good", Sample), ("good", Sample)] == found


# -- what is measured --------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", [OURS, FLOOR], ids=["hybridq", "floor"])
def test_a_drain_does_all_jobs_and_costs_something(measured_on: Server, program: Program) -> None:
    found = _once(program, measured_on, what="drain", how="concurrent", concurrency=5, jobs=60)

    assert found.jobs >= 60
    assert found.rate > 0 and found.script_us > 0 and found.commands_per_s > 0


@pytest.mark.parametrize("state", ["waiting", "scheduled", "leased", "finished", "dead"])
def test_memory_is_of_the_data(measured_on: Server, state: str) -> None:
    """A payload of 4,096 bytes is in it, and not much more."""
    found = _once(OURS, measured_on, what="hold", how=state, jobs=200, payload_bytes=4096)

    assert 200 == found.jobs
    assert 4096 < found.bytes_per_job < 3 * 4096


def test_two_programs_share_the_jobs(measured_on: Server, tmp_path: Path) -> None:
    works = works_of("drain, 2 processes", _peer(tmp_path), 40, 0.0, None)

    found = run_once(measured_on, works(measured_on.url), MANY_S)

    assert 80 == found.jobs
    assert 0 == measured_on.client.llen("jobs")


def test_a_drain_that_takes_too_long_is_cut_and_divided(measured_on: Server, tmp_path: Path) -> None:
    works = works_of("drain one", _peer(tmp_path, pause_s=0.02), 100_000 // 100, 0.5, None)

    found = run_once(measured_on, works(measured_on.url), MANY_S)

    assert 1 <= found.jobs < 1000
    assert found.took_s >= 0.5
    assert found.rate == pytest.approx(found.jobs / found.took_s)


def test_latency_is_of_each_job_but_the_one_that_wakes_the_worker(measured_on: Server, tmp_path: Path) -> None:
    works = works_of("latency", _peer(tmp_path), 20, 0.0, None)

    found = run_once(measured_on, works(measured_on.url), MANY_S)

    assert 20 == found.jobs == len(found.latencies_ms)
    assert all(wait_ms > 0 for wait_ms in found.latencies_ms)


def test_http_is_measured_through_a_server_of_its_own(measured_on: Server) -> None:
    found = _once(WEB, measured_on, what="life", how="uvicorn", concurrency=2, jobs=20, within_s=MANY_S)

    assert 20 == found.jobs == len(found.latencies_ms)


def test_parked_polls_stay_parked_while_they_are_looked_at(measured_on: Server) -> None:
    found = _once(WEB, measured_on, what="parked", how="uvicorn", jobs=20, cut_s=0.5)

    assert 20 == found.jobs


def test_every_row_is_one_of_its_own(measured_on: Server) -> None:
    every = [*rows(1000), *web_rows(1000, "uvicorn"), *backlog_rows((10, 1000), 1000)]

    assert len(every) == len({row.name for row in every})
    for row in every:
        for works in (row.ours, row.limit, row.smallest):
            assert works is None or all(work.jobs > 0 for _, work in works(measured_on.url))


# -- the command -------------------------------------------------------------------------------------------


def test_the_command_measures_from_anywhere_and_answers_in_json(tmp_path: Path) -> None:
    done = subprocess.run(
        [*BENCH, "enqueue", "limits", "--jobs", "50", "--repeats", "1", "--json", "--save", "saved.json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert 0 == done.returncode, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "saved.json").read_text())
    assert {"enqueue", "limits"} == {row["group"] for row in report["rows"]}
    for row in report["rows"]:
        for figures in row["figures"].values():
            assert figures["failure"] is None
            assert all(sample["rate"] > 0 for sample in figures["samples"])


def test_a_run_that_is_terminated_leaves_no_server_behind(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*BENCH, "enqueue", "--jobs", "1000000", "--repeats", "1"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        # The data of the server, and the memory that its programs share.
        wait_until(lambda: 2 == len(list(tmp_path.glob("hq-bench-*"))), MANY_S, what="a program runs")
        running.terminate()
        assert 143 == running.wait(MANY_S)

    assert [] == list(tmp_path.glob("hq-bench-*"))


@pytest.mark.parametrize(
    ("missing", "arguments", "advice"),
    [
        ("uvloop", ["limits"], "pip install 'hybridq[bench]'"),
        ("matplotlib", ["limits", "--plots", "drawn"], "pip install 'hybridq[bench]'"),
        ("litestar", ["http"], "pip install 'hybridq[server]'"),
    ],
)
def test_an_extra_that_is_missing_is_named_before_anything_runs(
    missing: str, arguments: list[str], advice: str, tmp_path: Path
) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from hybridq.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "bench", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert 2 == done.returncode, done.stderr
    assert missing in done.stderr and advice in done.stderr


def test_a_group_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    done = subprocess.run([*BENCH, "speed"], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert 2 == done.returncode
    assert "no such group: speed" in done.stderr


# -- what comes out ----------------------------------------------------------------------------------------


def _figures(*rates: float, latencies_ms: Sequence[float] = ()) -> Figures:
    samples = [
        Sample(jobs=10, took_s=10 / rate, rate=rate, server_us=2.0, script_us=1.0, latencies_ms=list(latencies_ms))
        for rate in rates
    ]
    return Figures(samples=samples)


def _row(name: str, unit: str = "jobs/s", **figures: Figures) -> Measured:
    return Measured(
        name=name,
        group=name.partition(":")[0],
        unit=unit,
        settings="",
        limit_is="floor",
        goal_of_limit=0.5,
        goal=None,
        figures=figures,
    )


def test_a_share_is_of_the_limit_and_less_is_better_for_latency() -> None:
    rate = _row("drain: x", hybridq=_figures(10, 20, 60), floor=_figures(80))
    latency = _row("latency", "ms p50", hybridq=_figures(1, latencies_ms=[2.0]), floor=_figures(1, latencies_ms=[1.0]))

    assert (20 / 80, False) == (rate.share(), rate.reached())
    assert (0.5, True) == (latency.share(), latency.reached())


def test_a_backlog_is_held_against_the_smallest() -> None:
    assert _row("backlog: x", hybridq=_figures(90), smallest=_figures(100)).reached() is True
    assert _row("backlog: x", hybridq=_figures(70), smallest=_figures(100)).reached() is False


def test_plots_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    report = Report(
        at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        repeats=1,
        machine={"server": "Redis", "machine": "two cores", "commit": "abc"},
        rows=[
            _row("claim: 1 claimers, batch 10", hybridq=_figures(10), floor=_figures(20)),
            _row("claim: 4 claimers, batch 10", hybridq=Figures(samples=[], failure="ended")),
            _row("backlog: drain with 1,000 more waiting", hybridq=_figures(10), floor=_figures(20)),
        ],
    )

    assert {"claims.png", "claims.svg", "backlog.png", "backlog.svg"} == {path.name for path in draw(report, tmp_path)}
    assert all(path.stat().st_size > 1000 for path in tmp_path.iterdir())


# -- peers -------------------------------------------------------------------------------------------------


def test_each_peer_has_a_program_and_pinned_packages() -> None:
    assert len(PEERS) == len({peer.name for peer in PEERS})
    for peer in PEERS:
        assert (PROGRAMS / peer.program).is_file()
        assert any(mark in peer.packages[0] for mark in ("==", "@"))
        assert set(peer.can) <= set(WORKS)


def test_a_peer_whose_server_is_not_here_is_left_out_with_the_reason() -> None:
    peer = Peer(name="x", program="x_.py", packages=("x==1",), delivery="", settings="", daemon="no-such-server")

    with pytest.raises(NotInstalled, match="there is no no-such-server on this machine"):
        command_of(peer)


def test_the_table_of_peers_says_why_there_is_no_figure() -> None:
    report = PeerReport(
        at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        repeats=1,
        machine={},
        versions={},
        promises={"saq": "≥1"},
        settings={"saq": "uvloop"},
        left_out={"celery": "pip is offline"},
        found=[
            Found(work="drain one", who="hybridq", figures=_figures(100)),
            Found(work="drain one", who="saq", figures=Figures(samples=[], failure="saq_.py said nothing for 45 s")),
        ],
    )
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115

    with console.file:
        print_peers(report, 100, console)

    said = console.export_text()
    assert "saq, drain one: saq_.py said nothing for 45 s" in said
    assert "celery: pip is offline" in said
