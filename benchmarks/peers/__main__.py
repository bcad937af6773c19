"""`python -m benchmarks.peers`: the same work on hybridq, its floor, and every peer, in turn in one run."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..drive import FLOOR, OURS, Figures, Program, Sample, interleaved
from ..machine import describe
from ..server import AOF_MODES, ENGINES, Server
from ..work import Work
from .homes import NotInstalled, command_of, versions_of
from .table import CAN_ALL, PEERS, Peer

WORKS: dict[str, dict[str, object]] = {
    "enqueue one": {"what": "enqueue"},
    "enqueue concurrent": {"what": "enqueue", "how": "concurrent", "concurrency": 50},
    "enqueue bulk": {"what": "enqueue", "how": "bulk", "batch": 1000},
    "drain one": {"what": "drain"},
    "drain concurrent": {"what": "drain", "how": "concurrent", "concurrency": 50},
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
    found: list[Found]


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([peer.name for peer in PEERS]))
@click.option("--work", "works", multiple=True, type=click.Choice(CAN_ALL), default=CAN_ALL, help="Default: all.")
@click.option("--jobs", type=click.IntRange(100), default=20_000, help="Jobs of hybridq and the floor; peers a tenth.")
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
    console = Console(stderr=True)
    at_hand: list[tuple[Peer, Program]] = []
    for peer in PEERS:
        if not names or peer.name in names:
            try:
                with console.status(f"installing {peer.name}"):
                    at_hand.append((peer, command_of(peer)))
            except NotInstalled as missing:
                console.print(f"left out: {missing}", style="yellow", highlight=False)
    with Server(engine, aof) as server:
        machine = describe(server.version(), aof)
        found = [one for work in works for one in _measure(server, work, at_hand, jobs, repeats, console)]
    report = PeerReport(
        at=dt.datetime.now(dt.UTC),
        repeats=repeats,
        machine=machine,
        versions={peer.name: versions_of(peer) for peer, _ in at_hand},
        found=found,
    )
    _print(report, at_hand, jobs, Console(width=None if sys.stdout.isatty() else 160))
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))


def _measure(
    server: Server, work: str, at_hand: Sequence[tuple[Peer, Program]], jobs: int, repeats: int, console: Console
) -> list[Found]:
    programs: dict[str, tuple[Program, int]] = {"hybridq": (OURS, jobs), "floor": (FLOOR, jobs)}
    programs |= {peer.name: (program, jobs // 10) for peer, program in at_hand if work in peer.can}
    samples: dict[str, list[Sample]] = {name: [] for name in programs}

    def works(program: Program, count: int) -> Sequence[tuple[Program, Work]]:
        return [(program, msgspec.convert({"url": server.url, "jobs": count, **WORKS[work]}, Work))]

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        bar = progress.add_task(work, total=repeats * len(programs))
        each = {name: lambda _url, one=one: works(*one) for name, one in programs.items()}
        for name, sample in interleaved(server, each, repeats):
            samples[name].append(sample)
            progress.advance(bar)
    return [Found(work=work, who=name, figures=Figures(samples=some)) for name, some in samples.items()]


def _print(report: PeerReport, at_hand: Sequence[tuple[Peer, Program]], jobs: int, console: Console) -> None:
    works = list(dict.fromkeys(one.work for one in report.found))
    table = Table(title=f"jobs a second, median of {report.repeats} interleaved runs; in brackets hybridq ÷ peer")
    for title in ("queue", "delivery", *works, "settings"):
        table.add_column(title, justify="left" if title in ("queue", "delivery", "settings") else "right")
    rates = {(one.who, one.work): one.figures.rate for one in report.found}
    about = {peer.name: (peer.delivery, peer.settings) for peer, _ in at_hand}
    about = {"hybridq": ("≥1 (fenced lease)", f"{jobs:,} jobs a figure"), "floor": ("≥1, a limit", "")} | about
    for who, (delivery, settings) in about.items():
        cells = [_cell(rates.get((who, work)), rates[("hybridq", work)], who) for work in works]
        table.add_row(who, delivery, *cells, settings)
    console.print(table)
    for name, value in report.machine.items():
        console.print(f"{name:>10}: {value}", highlight=False)


def _cell(rate: float | None, ours: float, who: str) -> str:
    if rate is None:
        return "–"  # noqa: RUF001
    return f"{rate:,.0f}" + ("" if who == "hybridq" else f" ({ours / rate:.1f})")


if __name__ == "__main__":
    peers()
