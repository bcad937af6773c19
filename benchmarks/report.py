"""What comes out: a table for people, JSON for programs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from .drive import Figures
from .rows import Row

FLAT: Final = 0.8
"""Share of the smallest backlog's rate that the largest must reach."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A row with its figures, by program: `hybridq`, `floor` (the limit), `smallest` (hybridq, least backlog)."""

    name: str
    group: str
    unit: str
    settings: str
    limit_is: str
    goal_of_limit: float | None
    goal: float | None
    figures: dict[str, Figures]

    def value(self, program: str) -> float | None:
        """Return the figure that the row is about; None when the program is not in it, or failed."""
        figures = self.figures.get(program)
        if figures is None or not figures.samples:
            return None
        if self.unit == "ms p50":
            return figures.percentile_ms(0.5)
        if self.unit == "µs":
            return figures.median(lambda sample: sample.script_us)
        if self.unit == "bytes":
            return figures.median(lambda sample: sample.bytes_per_job)
        if self.unit == "commands/s":
            return figures.median(lambda sample: sample.commands_per_s)
        return figures.rate

    def share(self) -> float | None:
        """Return how near ours comes to its limit: 1 is the limit itself."""
        ours, limit = self.value("hybridq"), self.value("floor")
        if not ours or not limit:
            return None
        return ours / limit if self.unit == "jobs/s" else limit / ours

    def of_smallest(self) -> float | None:
        """Return the rate as a share of that with the smallest backlog, measured in turn with it."""
        ours, smallest = self.value("hybridq"), self.value("smallest")
        return ours / smallest if ours and smallest else None

    def reached(self) -> bool | None:
        """Return whether the row's goal is reached; None when it has none, or no figure."""
        ours, share, flat = self.value("hybridq"), self.share(), self.of_smallest()
        if flat is not None:
            return flat >= FLAT
        if self.goal is not None:
            return None if ours is None else ours <= self.goal
        return None if self.goal_of_limit is None or share is None else share >= self.goal_of_limit


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
        goal=row.goal,
        figures=figures,
    )


def as_json(report: Report) -> bytes:
    """Return a report as JSON for a file."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1)


def print_report(report: Report, console: Console) -> None:
    """Print the table, and under it what failed and what it was measured on."""
    table = Table(title=f"hybridq, median of {report.repeats} interleaved runs", title_justify="left")
    table.add_column("what")
    for title in ("hybridq", "min to max", "limit", "share", "goal", "Redis µs a job", "in scripts"):
        table.add_column(title, justify="right")
    table.add_column("the limit is")
    table.add_column("settings")
    for row in report.rows:
        share, ours = row.share(), row.figures.get("hybridq")
        measured = ours if ours is not None and ours.samples else None
        table.add_row(
            row.name,
            _figure(row, "hybridq"),
            "" if measured is None else _spread(row, measured),
            _figure(row, "floor"),
            "" if share is None else f"{share:.0%}",
            _goal(row),
            "" if measured is None else f"{measured.median(lambda sample: sample.server_us):,.0f}",
            "" if measured is None else f"{measured.median(lambda sample: sample.script_us):,.1f}",
            row.limit_is if "floor" in row.figures else "",
            row.settings,
        )
    console.print(table)
    for row in report.rows:
        for program, figures in row.figures.items():
            if figures.failure:
                console.print(f"{row.name}, {program}: {figures.failure}", style="yellow", markup=False)
    for name, value in report.machine.items():
        console.print(f"{name:>10}: {value}", highlight=False)


def _goal(row: Measured) -> str:
    mark = {True: " ✓", False: " ✗", None: ""}[row.reached()]
    flat = row.of_smallest()
    if flat is not None:
        return f"{flat:.0%} of the smallest{mark}"
    if row.goal is not None:
        return f"≤ {row.goal:g}{mark}"
    return "" if row.goal_of_limit is None else f"{row.goal_of_limit:.0%}{mark}"


def _spread(row: Measured, figures: Figures) -> str:
    if row.unit == "jobs/s":
        low, high = figures.spread
        return f"{low:,.0f} to {high:,.0f}"
    p99_ms = figures.percentile_ms(0.99)
    return "" if p99_ms is None else f"p99 {p99_ms:.2f}"


def _figure(row: Measured, program: str) -> str:
    figures, value = row.figures.get(program), row.value(program)
    if figures is not None and figures.failure and value is None:
        return "failed"
    if value is None:
        return ""
    if row.unit == "jobs/s":
        p50_ms, p99_ms = figures.percentile_ms(0.5) if figures else None, None
        if figures is not None and p50_ms is not None:
            p99_ms = figures.percentile_ms(0.99)
        return f"{value:,.0f}/s" + ("" if p99_ms is None else f", p50 {p50_ms:.2f}, p99 {p99_ms:.2f} ms")
    if row.unit == "commands/s":
        return f"{value:,.1f}/s"
    return {"ms p50": f"{value:.2f} ms", "µs": f"{value:.1f} µs", "bytes": f"{value:,.0f} bytes"}[row.unit]
