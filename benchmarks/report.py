"""What comes out: a table for people, JSON for programs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import msgspec
from rich.console import Console
from rich.table import Table

from .drive import Figures
from .rows import Row


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A row with its figures, by program: `hybridq`, `floor`, and peers by their name."""

    name: str
    group: str
    unit: str
    settings: str
    limit_is: str
    goal_of_limit: float | None
    figures: dict[str, Figures]

    def value(self, program: str) -> float | None:
        """Return the figure that the row is about; None when the program is not in it."""
        figures = self.figures.get(program)
        if figures is None:
            return None
        return figures.percentile_ms(0.5) if self.unit == "ms p50" else figures.rate

    def share(self) -> float | None:
        """Return how near ours comes to its limit: 1 is the limit itself."""
        ours, limit = self.value("hybridq"), self.value("floor")
        if not ours or not limit:
            return None
        return limit / ours if self.unit.startswith("ms") else ours / limit


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    at: dt.datetime
    repeats: int
    machine: Mapping[str, str]
    rows: list[Measured]


def measured(row: Row, figures: dict[str, Figures]) -> Measured:
    """Return a row with what was found."""
    return Measured(
        name=row.name,
        group=row.group,
        unit=row.unit,
        settings=row.settings,
        limit_is=row.limit_is,
        goal_of_limit=row.goal_of_limit,
        figures=figures,
    )


def print_report(report: Report, console: Console) -> None:
    """Print the table, and under it what it was measured on."""
    peers = sorted({name for row in report.rows for name in row.figures} - {"hybridq", "floor"})
    table = Table(title=f"hybridq, median of {report.repeats} interleaved runs", title_justify="left")
    table.add_column("what")
    for title in ("hybridq", "min to max", "limit", "share", "goal", "Redis µs a job", "in scripts", *peers):
        table.add_column(title, justify="right")
    table.add_column("settings")
    for row in report.rows:
        ours = row.figures["hybridq"]
        low, high = ours.spread
        share, goal = row.share(), row.goal_of_limit
        table.add_row(
            row.name,
            _figure(row, "hybridq"),
            f"{low:,.0f} to {high:,.0f}" if row.unit == "jobs/s" else f"p99 {ours.percentile_ms(0.99):.2f}",
            _figure(row, "floor"),
            "" if share is None else f"{share:.0%}",
            "" if goal is None else f"{goal:.0%} {'✓' if share is not None and share >= goal else '✗'}",
            f"{ours.median(lambda sample: sample.server_us):.0f}",
            f"{ours.median(lambda sample: sample.script_us):.0f}",
            *(_figure(row, peer) for peer in peers),
            row.settings,
        )
    console.print(table)
    for name, value in report.machine.items():
        console.print(f"{name:>10}: {value}", highlight=False)


def _figure(row: Measured, program: str) -> str:
    value = row.value(program)
    if value is None:
        return ""
    return f"{value:,.0f}/s" if row.unit == "jobs/s" else f"{value:.2f} ms"
