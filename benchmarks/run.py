"""One run: servers, rows in turn, a report."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from .drive import Figures, ProgramFailed, Sample, Works, end_on_sigterm, interleaved
from .machine import describe
from .report import Measured, Report, measured
from .rows import Row, backlog_rows, rows, web_rows
from .server import Server

__all__ = ["measure", "rows_of"]


def rows_of(groups: Sequence[str], jobs: int, web_engine: str, backlogs: Sequence[int]) -> list[Row]:
    """Return the rows of some groups; of all when none is named."""
    every = [*rows(jobs), *backlog_rows(backlogs, jobs), *web_rows(jobs, web_engine)]
    return [row for row in every if not groups or row.group in groups]


def measure(wanted: Sequence[Row], *, repeats: int, engine: str, aof: str, console: Console) -> Report:
    """Measure rows on servers of their own. Raises `FileNotFoundError` when the engine is not here."""
    end_on_sigterm()
    with contextlib.ExitStack() as stack:
        servers = {aof: stack.enter_context(Server(engine, aof))}
        for mode in {mode for row in wanted for mode in (row.aof, row.limit_aof) if mode is not None} - {aof}:
            servers[mode] = stack.enter_context(Server(engine, mode))
        machine = describe(servers[aof].version(), aof)
        found = list(_measured(wanted, servers, aof, repeats, console))
    return Report(at=dt.datetime.now(dt.UTC), repeats=repeats, machine=machine, rows=found)


def _entrants(row: Row, servers: dict[str, Server], aof: str) -> dict[str, tuple[Server, Works]]:
    ours, limit = servers[row.aof or aof], servers[row.limit_aof or aof]
    each = {"hybridq": (ours, row.ours), "floor": (limit, row.limit), "smallest": (ours, row.smallest)}
    return {name: (server, works) for name, (server, works) in each.items() if works is not None}


def _measured(
    wanted: Sequence[Row], servers: dict[str, Server], aof: str, repeats: int, console: Console
) -> list[Measured]:
    done: list[Measured] = []
    each = [(row, _entrants(row, servers, aof)) for row in wanted]
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        bar = progress.add_task("", total=repeats * sum(len(entrants) for _, entrants in each))
        for row, entrants in each:
            samples: dict[str, list[Sample]] = {name: [] for name in entrants}
            failures: dict[str, str] = {}
            progress.update(bar, description=row.name)
            for name, sample in interleaved(entrants, repeats):
                if isinstance(sample, ProgramFailed):
                    failures[name] = str(sample)
                else:
                    samples[name].append(sample)
                progress.advance(bar)
            figures = {name: Figures(samples=some, failure=failures.get(name)) for name, some in samples.items()}
            done.append(measured(row, figures))
    return done
