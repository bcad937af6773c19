"""`python -m benchmarks`: measure, print a table, and write JSON and plots when asked."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

import msgspec
import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from .drive import Figures, Sample, interleaved
from .machine import describe
from .report import Report, measured, print_report
from .rows import GROUPS, Row, backlog_rows, rows, web_rows
from .server import AOF_MODES, ENGINES, Server


@click.command()
@click.argument("groups", nargs=-1, type=click.Choice(GROUPS))
@click.option("--jobs", type=click.IntRange(100), default=20_000, help="Jobs of a figure. Default: 20,000.")
@click.option("--repeats", type=click.IntRange(1), default=5, help="Runs of each program. Default: 5.")
@click.option("--engine", type=click.Choice(ENGINES), default="redis", help="Default: the redis-server on PATH.")
@click.option("--aof", type=click.Choice(AOF_MODES), default="everysec", help="Default: everysec.")
@click.option("--web-engine", type=click.Choice(("uvicorn", "granian")), default="uvicorn", help="Default: uvicorn.")
@click.option("--backlog", "backlogs", type=int, multiple=True, default=(1_000, 100_000, 1_000_000))
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write everything there.")
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="Draw PNG and SVG into this folder.")
def bench(
    *,
    groups: tuple[str, ...],
    jobs: int,
    repeats: int,
    engine: str,
    aof: str,
    web_engine: str,
    backlogs: tuple[int, ...],
    json_file: Path | None,
    plots: Path | None,
) -> None:
    """Measure hybridq beside its limits; GROUPS narrow it down."""
    every = [*rows(jobs), *web_rows(jobs, web_engine), *backlog_rows(backlogs, jobs)]
    wanted = [row for row in every if not groups or row.group in groups]
    console = Console(stderr=True)
    try:
        server = Server(engine, aof)
    except FileNotFoundError as missing:
        raise click.UsageError(str(missing)) from None
    with server:
        machine = describe(server.version(), aof)
        found = [measured(row, figures) for row, figures in _measure(server, wanted, repeats, console)]
    report = Report(at=dt.datetime.now(dt.UTC), repeats=repeats, machine=machine, rows=found)
    print_report(report, Console(width=None if sys.stdout.isatty() else 200))
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    if plots is not None:
        from .plots import draw

        for path in draw(report, plots):
            click.echo(path)


def _measure(server: Server, wanted: list[Row], repeats: int, console: Console) -> list[tuple[Row, dict[str, Figures]]]:
    done: list[tuple[Row, dict[str, Figures]]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(wanted) * repeats * 2)
        for row in wanted:
            programs = {"hybridq": row.ours} | ({"floor": row.limit} if row.limit is not None else {})
            samples: dict[str, list[Sample]] = {name: [] for name in programs}
            progress.update(bar, description=row.name)
            for name, sample in interleaved(server, programs, repeats):
                samples[name].append(sample)
                progress.advance(bar)
            done.append((row, {name: Figures(samples=some) for name, some in samples.items()}))
    return done


if __name__ == "__main__":
    bench()
