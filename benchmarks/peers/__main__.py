"""`python -m benchmarks.peers`: the same work on hybridq, its floor, and every peer, in turn in one run."""

from __future__ import annotations

import contextlib
import datetime as dt
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..drive import (
    FLOOR,
    OURS,
    PEER_WITHIN_S,
    Figures,
    Program,
    ProgramFailed,
    Sample,
    Works,
    end_on_sigterm,
    interleaved,
)
from ..machine import describe
from ..server import AOF_MODES, ENGINES, Server
from ..work import Work
from .homes import NotInstalled, command_of, daemon_of, versions_of
from .table import CAN_ALL, PEERS, Peer

ELSEWHERE: Final = {peer.name for peer in PEERS if peer.daemon is not None}
"""Peers that leave Redis alone, so that its figures say nothing of them."""
CUT_S: Final = 4.0
"""A peer's drain ends after so long; its rate is then the jobs done by the time they took."""
SAMPLES: Final = 200
"""Jobs of a latency figure."""
BATCHES: Final = "drain in batches"
"""What no peer has: beside the others' drains."""
WORKS: Final[dict[str, dict[str, object]]] = {
    "enqueue one": {"what": "enqueue"},
    "enqueue concurrent": {"what": "enqueue", "how": "concurrent", "concurrency": 50},
    "enqueue bulk": {"what": "enqueue", "how": "bulk", "batch": 1000},
    "drain one": {"what": "drain"},
    "drain concurrent": {"what": "drain", "how": "concurrent", "concurrency": 50},
    BATCHES: {"what": "drain", "how": "concurrent", "concurrency": 4, "batch": 50},
    "drain, 2 processes": {"what": "drain", "how": "concurrent", "concurrency": 50},
    "latency": {"what": "serve", "concurrency": 50},
}


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One program's figures in one kind of work."""

    work: str
    who: str
    figures: Figures


class PeerReport(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    at: dt.datetime
    repeats: int
    machine: dict[str, str]
    versions: dict[str, dict[str, str]]
    promises: dict[str, str]
    settings: dict[str, str]
    left_out: dict[str, str]
    """Peers that are not here, and why."""
    found: list[Found]


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([peer.name for peer in PEERS]))
@click.option("--work", "works", multiple=True, type=click.Choice(list(WORKS)), help="Default: all.")
@click.option("--jobs", type=click.IntRange(100), default=20_000, help="Jobs of hybridq and the floor; peers fewer.")
@click.option("--repeats", type=click.IntRange(1), default=5)
@click.option("--engine", type=click.Choice(ENGINES), default="redis")
@click.option("--aof", type=click.Choice(AOF_MODES), default="everysec")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write everything there.")
def peers(
    *,
    names: tuple[str, ...],
    works: tuple[str, ...],
    jobs: int,
    repeats: int,
    engine: str,
    aof: str,
    json_file: Path | None,
) -> None:
    """Measure hybridq beside other queues; NAMES narrow it down. The first run installs them."""
    end_on_sigterm()
    console = Console(stderr=True)
    at_hand: list[tuple[Peer, Program]] = []
    left_out: dict[str, str] = {}
    for peer in PEERS:
        if not names or peer.name in names:
            try:
                with console.status(f"installing {peer.name}"):
                    at_hand.append((peer, command_of(peer)))
            except NotInstalled as missing:
                left_out[peer.name] = str(missing)
    try:
        server = Server(engine, aof)
    except FileNotFoundError as missing:
        raise click.UsageError(str(missing)) from None
    with server, contextlib.ExitStack() as stack:
        urls: dict[str, str] = {}
        for peer, _ in list(at_hand):
            if peer.daemon is not None:
                try:
                    urls[peer.name] = stack.enter_context(daemon_of(peer, aof))
                except NotInstalled as missing:
                    left_out[peer.name] = str(missing)
        at_hand = [(peer, program) for peer, program in at_hand if peer.name not in left_out]
        report = PeerReport(
            at=dt.datetime.now(dt.UTC),
            repeats=repeats,
            machine=describe(server.version(), aof),
            versions={peer.name: versions_of(peer) for peer, _ in at_hand},
            promises={peer.name: peer.delivery for peer, _ in at_hand},
            settings={peer.name: peer.settings for peer, _ in at_hand},
            left_out=left_out,
            found=[],
        )
        for work in works or tuple(WORKS):
            report.found.extend(_measure(server, work, at_hand, urls, jobs, repeats, console))
            if json_file is not None:
                # After each work: a run takes long, and one that is interrupted was not for nothing.
                json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    print_peers(report, jobs, Console(width=None if sys.stdout.isatty() else 220))


def works_of(work: str, program: Program, jobs: int, cut_s: float, url: str | None) -> Works:
    """Return what makes the works of a kind: one program, two that share, or one that serves and one that knocks."""

    def works(server_url: str) -> Sequence[tuple[Program, Work]]:
        told = {"url": url or server_url, "jobs": jobs, "cut_s": cut_s, **WORKS[work]}
        if work == "latency":
            return [(program, msgspec.convert(told | {"what": what}, Work)) for what in ("serve", "knock")]
        return [(program, msgspec.convert(told, Work))] * (2 if work == "drain, 2 processes" else 1)

    return works


def _measure(
    server: Server,
    work: str,
    at_hand: Sequence[tuple[Peer, Program]],
    urls: dict[str, str],
    jobs: int,
    repeats: int,
    console: Console,
) -> list[Found]:
    latency = work == "latency"
    entrants = {
        name: (server, works_of(work, program, SAMPLES if latency else jobs, 0.0, None))
        for name, program in (("hybridq", OURS), ("floor", FLOOR))
    }
    for peer, program in at_hand:
        if work in peer.can:
            count = SAMPLES if latency else max(1, int(jobs * peer.share))
            cut_s = 0.0 if latency or not work.startswith("drain") else CUT_S
            entrants[peer.name] = (server, works_of(work, program, count, cut_s, urls.get(peer.name)))
    samples: dict[str, list[Sample]] = {name: [] for name in entrants}
    failures: dict[str, str] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        bar = progress.add_task(work, total=repeats * len(entrants))
        for name, sample in interleaved(entrants, repeats, PEER_WITHIN_S):
            progress.advance(bar)
            if isinstance(sample, ProgramFailed):
                failures[name] = str(sample)
            else:
                samples[name].append(sample)
    return [
        Found(work=work, who=name, figures=Figures(samples=some, failure=failures.get(name)))
        for name, some in samples.items()
    ]


def print_peers(report: PeerReport, jobs: int, console: Console) -> None:
    """Print the table, the reasons for its gaps, and what it was measured on."""
    works = list(dict.fromkeys(one.work for one in report.found))
    table = Table(
        title=f"jobs a second, median of {report.repeats} interleaved runs; in brackets hybridq ÷ peer; "
        "latency: ms from enqueue to start on an idle worker, p50 / p99",
        title_justify="left",
    )
    for title in ("queue", "delivery", *works, "bytes a queued job", "Redis µs a drained job", "settings"):
        table.add_column(title, justify="left" if title in ("queue", "delivery", "settings") else "right")
    figures = {(one.who, one.work): one.figures for one in report.found}
    about = {"hybridq": ("≥1 (fenced lease)", f"{jobs:,} jobs a figure"), "floor": ("≥1, a limit", "")}
    about |= {name: (report.promises[name], report.settings[name]) for name in report.promises}
    reasons = dict(report.left_out)
    for who, (delivery, settings) in about.items():
        mine = {work: figures.get((who, work)) for work in works}
        reasons |= {f"{who}, {work}": one.failure for work, one in mine.items() if one is not None and one.failure}
        cells = [_cell(work, mine[work], figures.get(("hybridq", work)), who) for work in works]
        in_redis = ("", "") if who in ELSEWHERE else (_bytes(mine), _drained_us(mine))
        table.add_row(who, delivery, *cells, *in_redis, settings)
    for name in report.left_out:
        table.add_row(name, "", *["left out"] * len(works), "", "", "see below")
    console.print(table)
    for name, reason in reasons.items():
        console.print(f"{name}: {reason}", style="yellow", highlight=False, markup=False)
    for name, value in report.machine.items():
        console.print(f"{name:>10}: {value}", highlight=False)


def _cell(work: str, figures: Figures | None, ours: Figures | None, who: str) -> str:
    if figures is None:
        return "–"  # noqa: RUF001
    if not figures.samples:
        return "failed"
    if work == "latency":
        return f"{figures.percentile_ms(0.5) or 0:.2f} / {figures.percentile_ms(0.99) or 0:.2f}"
    ratio = "" if who == "hybridq" or ours is None or not ours.samples else f" ({ours.rate / figures.rate:.1f})"
    return f"{figures.rate:,.0f}{ratio}"


def _bytes(mine: dict[str, Figures | None]) -> str:
    found = mine.get("enqueue one")
    value = found.median(lambda sample: sample.bytes_per_job) if found is not None and found.samples else 0
    return f"{value:,.0f}" if value >= 1 else ""


def _drained_us(mine: dict[str, Figures | None]) -> str:
    for work in ("drain concurrent", "drain one"):
        found = mine.get(work)
        if found is not None and found.samples:
            value = found.median(lambda sample: sample.server_us)
            return f"{value:,.0f}" if value >= 5 else ""
    return ""


assert set(CAN_ALL) <= set(WORKS)

if __name__ == "__main__":
    peers()
