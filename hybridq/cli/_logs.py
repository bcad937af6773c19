"""`logs`: what a job said, and with `-f` what it says until it has ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import rich_click as click

from ._follow import print_log
from ._options import Target, on_jobs, prints
from ._output import Printer

if TYPE_CHECKING:
    from hybridq import Queue

    from ._remote import Remote

__all__ = ["logs"]

POLL_S = 0.2


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
@click.option("--offset", type=click.IntRange(min=0), default=0, metavar="BYTES", help="Begin there instead.")
@on_jobs
@prints
def logs(*, target: Target, out: Printer, job_id: str, follow: bool, offset: int) -> None:
    """Print the log of a job, all its attempts in one.

    With --json a document for each part of it, one a line; the last one that is `complete` ends the log.
    """
    target, job_id = target.named(job_id)
    missing = False
    with target.reach() as queue:
        parts = queue.follow_log(job_id, offset=offset, poll_s=POLL_S) if follow else _there(queue, job_id, offset)
        for part in parts:
            missing = missing or part.truncated
            if out.json:
                out.line_of_json({name: getattr(part, name) for name in _SHOWN})
            else:
                print_log(part)
    if missing:
        out.note("the log is not whole: it reached a limit, or its beginning was dropped")


_SHOWN = ("data", "offset", "next_offset", "complete", "truncated")


def _there(queue: Queue | Remote, job_id: str, offset: int) -> Iterator[Any]:
    """Yield the parts that are there now, one at least."""
    while True:
        part = queue.read_log(job_id, offset=offset)
        yield part
        if part.complete or not part.data:
            return
        offset = part.next_offset
