"""`cancel`, `retry` and `priority`: change the course of single jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import rich_click as click
from click.exceptions import Exit

from ._options import LEVELS, Target, on_queue, prints
from ._output import Printer

__all__ = ["cancel", "priority", "retry"]


@click.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--mode", type=click.Choice(("graceful", "kill")), default="graceful", help="Default: graceful.")
@click.option("--grace", "grace_s", type=float, default=10.0, metavar="SECONDS", help="Default: 10.")
@on_queue
@prints
def cancel(*, target: Target, out: Printer, job_ids: Sequence[str], **options: Any) -> None:
    """Cancel jobs: a waiting one at once, a leased one as soon as its holder hears of it."""
    with target.open() as queue:

        def one(job_id: str) -> dict[str, Any]:
            done = queue.cancel(job_id, **options)
            return {"job_id": job_id, "status": done.status, "requested": done.requested}

        _each(out, job_ids, one)


@click.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@on_queue
@prints
def retry(*, target: Target, out: Printer, job_ids: Sequence[str]) -> None:
    """Run jobs again that failed, were cancelled or are dead letters: fresh attempts, same ids."""
    with target.open() as queue:
        _each(out, job_ids, lambda job_id: {"job_id": job_id, "status": queue.retry(job_id)})


@click.command()
@click.argument("job_id", metavar="ID")
@click.argument("level", type=click.Choice(LEVELS, case_sensitive=False))
@on_queue
@prints
def priority(*, target: Target, out: Printer, job_id: str, level: str) -> None:
    """Give a job another priority; it joins the end of that level."""
    with target.open() as queue:
        _each(
            out,
            [job_id],
            lambda job_id: {"job_id": job_id, "status": queue.reprioritise(job_id, level), "priority": level},
        )


def _each(out: Printer, job_ids: Sequence[str], change: Callable[[str], dict[str, Any]]) -> None:
    """Change each job; one that cannot be changed is reported, and the others go on."""
    from hybridq import HybridqError, NotFound, UsageError
    from hybridq.errors import Conflict

    results: list[dict[str, Any]] = []
    problems: list[HybridqError] = []
    for job_id in job_ids:
        try:
            results.append(change(job_id))
        except (Conflict, NotFound, UsageError) as problem:
            if len(job_ids) == 1:
                raise
            problems.append(problem)
            results.append({"job_id": job_id, "error": out.problem_document(problem)})
    if out.json:
        out.document({"results": results})
    else:
        for result in results:
            if "error" not in result:
                asked = " (asked its holder to stop)" if result.get("requested") else ""
                out.line(f"{result['job_id']} {result['status']}{asked}")
        for one in problems:
            out.note(f"hybridq: {one}")
    if problems:
        raise Exit(1)
