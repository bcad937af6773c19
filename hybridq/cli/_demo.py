"""`demo`: a real pipeline, live, that checks its own promises."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from click.exceptions import Exit

from ._options import prints
from ._output import Printer
from ._views import job_document, seconds

if TYPE_CHECKING:
    from hybridq.demo import Report

__all__ = ["demo"]


@click.command()
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path), required=False)
@click.option("--redis", metavar="URL", help="Use this Redis; default: a private server for the time of the demo.")
@prints
def demo(*, out: Printer, path: Path | None, redis: str | None) -> None:
    """Build, test and hash a source tree with two worker processes, one of which is killed.

    PATH is the tree; default: the checkout this runs from, else a small package of its own. Works on a copy. Exits
    with 1 when anything promised did not come true.
    """
    from hybridq import demo as play

    if out.json:
        story: play.SilentStory = play.SilentStory()
    elif out.for_people:
        story = play.LiveStory()
    else:
        story = play.PlainStory(sys.stdout)
    report = play.run(story, tree=path, redis=redis)
    if out.json:
        out.document(
            {
                **{name: getattr(report, name) for name in ("ok", "took_s", "tree", "server", "namespace")},
                "promises": report.promises,
                "jobs": [job_document(job) for job in report.jobs],
                "stats": report.stats,
            }
        )
    else:
        _print(out, report)
    if not report.ok:
        raise Exit(1)


def _print(out: Printer, report: Report) -> None:
    from hybridq.demo import table_of

    out.table(("JOB", "PRIORITY", "STATUS", "RUNS", "HOW THEY ENDED"), table_of(report.jobs))
    totals = report.stats
    out.line(
        f"{totals.enqueued_total} enqueued, {totals.completed_total} completed, {totals.retried_total} retried, "
        f"{totals.dead_lettered_total} dead-lettered, {totals.lost_leases_total} lease(s) lost; "
        f"p95 of waits {seconds(totals.window.p95_wait_s)}, of runs {seconds(totals.window.p95_execution_s)}"
    )
    for promise in report.promises:
        out.line(f"{'✓' if promise.kept else '✗'} {promise.promise}: {promise.evidence}")
    verdict = "every promise came true" if report.ok else "NOT every promise came true"
    out.line(f"{verdict}, in {report.took_s:.1f} s")
