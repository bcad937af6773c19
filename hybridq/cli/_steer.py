"""`cancel`, `retry` and `priority`: change the course of single jobs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.exceptions import Exit

from ._options import LEVELS, Target, on_jobs, prints
from ._output import Printer

if TYPE_CHECKING:
    from hybridq import Queue

    from ._remote import Remote

__all__ = ["cancel", "priority", "retry"]

Change = Callable[["Queue | Remote", str], dict[str, Any]]


@click.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--mode", type=click.Choice(("graceful", "kill")), default="graceful", help="Default: graceful.")
@click.option("--grace", "grace_s", type=float, default=10.0, metavar="SECONDS", help="Default: 10.")
@on_jobs
@prints
def cancel(*, target: Target, out: Printer, job_ids: Sequence[str], **options: Any) -> None:
    """Cancel jobs: a waiting one at once, a leased one as soon as its holder hears of it."""

    def one(queue: Queue | Remote, job_id: str) -> dict[str, Any]:
        done = queue.cancel(job_id, **options)
        return {"job_id": job_id, "status": done.status, "requested": done.requested}

    _each(target, out, job_ids, one)


@click.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@on_jobs
@prints
def retry(*, target: Target, out: Printer, job_ids: Sequence[str]) -> None:
    """Run jobs again that failed, were cancelled or are dead letters: fresh attempts, same ids."""
    _each(target, out, job_ids, lambda queue, job_id: {"job_id": job_id, "status": queue.retry(job_id)})


@click.command()
@click.argument("job_id", metavar="ID")
@click.argument("level", type=click.Choice(LEVELS, case_sensitive=False))
@on_jobs
@prints
def priority(*, target: Target, out: Printer, job_id: str, level: str) -> None:
    """Give a job another priority; it joins the end of that level."""

    def one(queue: Queue | Remote, job_id: str) -> dict[str, Any]:
        return {"job_id": job_id, "status": queue.reprioritise(job_id, level), "priority": level}

    _each(target, out, [job_id], one)


def _each(target: Target, out: Printer, job_ids: Sequence[str], change: Change) -> None:
    """Change each job; one that cannot be changed is reported, and the others go on."""
    from hybridq import HybridqError, NotFound, UsageError
    from hybridq.agent.errors import Contradicted, Malformed, Missing
    from hybridq.errors import Conflict

    results: list[dict[str, Any]] = []
    problems: list[HybridqError] = []
    with contextlib.ExitStack() as stack:
        queues: dict[str, Queue | Remote] = {}
        for text in job_ids:
            place, job_id = target.named(text)
            if place.queue not in queues:
                queues[place.queue] = stack.enter_context(contextlib.closing(place.reach()))
            try:
                results.append(change(queues[place.queue], job_id))
            except (Conflict, NotFound, UsageError, Contradicted, Malformed, Missing) as problem:
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
