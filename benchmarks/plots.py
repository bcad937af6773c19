"""Draws a report: throughput by concurrency, latency as a distribution, cost by backlog. PNG and SVG of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

from .report import Measured, Report

matplotlib.use("Agg")


def draw(report: Report, folder: Path) -> Iterator[Path]:
    """Write what the rows of a report allow into a folder; yields the files."""
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    for name, draw_one in (("claims", _claims), ("latency", _latency), ("backlog", _backlog)):
        figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
        if draw_one(report, axes):
            figure.supxlabel(_caption(report), fontsize=7, color="gray")
            for ending in ("png", "svg"):
                path = folder / f"{name}.{ending}"
                figure.savefig(path, dpi=150)
                yield path
        pyplot.close(figure)


def _caption(report: Report) -> str:
    return f"{report.machine['server']} · {report.machine['machine']} · commit {report.machine['commit']}"


def _claims(report: Report, axes: Any) -> bool:
    found: dict[int, dict[int, tuple[float, float, float]]] = {}
    for row in report.rows:
        words = re.fullmatch(r"claim: (\d+) claimers, batch (\d+)", row.name)
        figures = row.figures.get("hybridq")
        if words and figures is not None and figures.samples:
            found.setdefault(int(words[2]), {})[int(words[1])] = (figures.rate, *figures.spread)
    for batch, points in sorted(found.items()):
        at = sorted(points)
        rates = [points[x][0] for x in at]
        around = [[points[x][0] - points[x][1] for x in at], [points[x][2] - points[x][0] for x in at]]
        axes.errorbar(at, rates, yerr=around, marker="o", capsize=3, label=f"{batch} a claim")
    axes.set(xscale="log", xlabel="claimers at once", ylabel="claims a second", ylim=(0, None), title="Claims")
    axes.set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])
    if found:
        axes.legend()
    return bool(found)


def _latency(report: Report, axes: Any) -> bool:
    rows = [row for row in report.rows if row.group == "latency"]
    for row in rows:
        for program, figures in row.figures.items():
            values = sorted(one for sample in figures.samples for one in sample.latencies_ms)
            axes.plot(values, [(place + 1) / len(values) for place in range(len(values))], label=program)
    axes.set(xscale="log", xlabel="ms from enqueue to start, idle worker", ylabel="share of jobs", title="Latency")
    if rows:
        axes.legend()
    return bool(rows)


def _backlog(report: Report, axes: Any) -> bool:
    rows = [row for row in report.rows if row.group == "backlog" and all(one.samples for one in row.figures.values())]
    sizes = [int(re.sub(r"\D", "", row.name)) for row in rows]
    for program in ("hybridq", "floor"):
        costs = [_script_us(row, program) for row in rows]
        axes.plot(sizes, costs, marker="o", label=program)
    axes.set(xscale="log", xlabel="jobs waiting", ylabel="µs in Redis a job", ylim=(0, None), title="Cost by backlog")
    if rows:
        axes.legend()
    return bool(rows)


def _script_us(row: Measured, program: str) -> float:
    return row.figures[program].median(lambda sample: sample.script_us)
