"""`stats`, `pause`, `resume`: a queue as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich_click as click

from ._options import Target, on_queue, prints
from ._output import Printer
from ._views import seconds

if TYPE_CHECKING:
    from hybridq import QueueStats, WindowStats

__all__ = ["pause", "resume", "stats"]


@click.command()
@click.option(
    "--window",
    "window_s",
    type=click.FloatRange(0, 3600),
    default=300.0,
    metavar="SECONDS",
    help="For waits and runs; 0: since the beginning. Default: 300.",
)
@on_queue
@prints
def stats(*, target: Target, out: Printer, window_s: float) -> None:
    """Count what waits, runs and ended, and how long waits and runs were."""
    with target.open() as queue:
        now = queue.stats(window_s=window_s)
    if out.json:
        out.document(now)
        return
    out.table(("FIGURE", "VALUE"), [*_counts(now), *_times(now.window)])


def _counts(now: QueueStats) -> list[tuple[str, object]]:
    by_priority = " ".join(f"{level} {count}" for level, count in now.by_priority.items() if count)
    return [
        ("queued", f"{now.queued}" + (f" ({by_priority})" if by_priority else "")),
        ("oldest queued", seconds(now.oldest_queued_s)),
        ("scheduled", now.scheduled),
        ("blocked", now.blocked),
        ("claimed", now.claimed),
        ("running", now.running),
        ("dead letters", now.dead_lettered),
        ("paused", "yes" if now.paused else "no"),
        ("enqueued ever", now.enqueued_total),
        ("completed ever", now.completed_total),
        ("failed ever", now.failed_total),
        ("cancelled ever", now.cancelled_total),
        ("dead-lettered ever", now.dead_lettered_total),
        ("retried ever", now.retried_total),
        ("released ever", now.released_total),
        ("leases lost ever", now.lost_leases_total),
    ]


def _times(window: WindowStats) -> list[tuple[str, object]]:
    waits = (window.avg_wait_s, window.p50_wait_s, window.p95_wait_s, window.p99_wait_s)
    return [
        ("window", seconds(window.window_s) if window.window_s else "since the beginning"),
        ("wait mean / p50 / p95 / p99", _row(*waits)),
        ("run mean / p95", _row(window.avg_execution_s, window.p95_execution_s)),
        ("failure rate", f"{window.failure_rate:.1%}"),
        ("throughput", f"{window.throughput_per_minute:.1f} a minute"),
    ]


def _row(*durations_s: float) -> str:
    return " / ".join(map(seconds, durations_s))


@click.command()
@click.option("--reason", metavar="TEXT")
@click.option("--by", metavar="NAME", help="Who says so.")
@on_queue
@prints
def pause(*, target: Target, out: Printer, reason: str | None, by: str | None) -> None:
    """Stop handing out jobs; leased work goes on."""
    with target.open() as queue:
        state = queue.pause(reason, by=by)
    if out.json:
        out.document(state)
    else:
        why = f": {state.reason}" if state.reason else ""
        out.line(f"{target.queue} is paused{why}" + (f" (by {state.by})" if state.by else ""))


@click.command()
@click.option("--by", metavar="NAME", help="Who says so.")
@on_queue
@prints
def resume(*, target: Target, out: Printer, by: str | None) -> None:
    """Hand out jobs again."""
    with target.open() as queue:
        state = queue.resume(by=by)
    if out.json:
        out.document(state)
    else:
        out.line(f"{target.queue} hands out jobs")
