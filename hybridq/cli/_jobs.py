"""`jobs` and `job`: what is there, and one job whole."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import rich_click as click

from ._options import LEVELS, Target, on_jobs, prints, tags_of
from ._output import Printer
from ._views import JOB_COLUMNS, job_document, job_row, page_document, seconds, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from hybridq import Job, JobPage

__all__ = ["all_pages", "job", "jobs", "print_page"]

PAGE_MAX = 200
STATUSES = (
    *("SCHEDULED", "BLOCKED", "QUEUED", "CLAIMED", "RUNNING"),
    *("COMPLETED", "FAILED", "DEAD_LETTERED", "CANCELLED", "EXPIRED"),
)


@click.command()
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False))
@click.option("--type", metavar="TYPE")
@click.option("--tag", "tags", multiple=True, callback=tags_of, metavar="KEY=VALUE", help="May be repeated.")
@click.option("--priority", type=click.Choice(LEVELS, case_sensitive=False))
@click.option("--limit", type=click.IntRange(1, PAGE_MAX), default=50, help="Of one page. Default: 50.")
@click.option("--cursor", metavar="CURSOR", help="Go on where a page ended.")
@click.option("--all", "everything", is_flag=True, help="Every page, not only one.")
@on_jobs
@prints
def jobs(*, target: Target, out: Printer, limit: int, cursor: str | None, everything: bool, **filters: Any) -> None:
    """List jobs, newest first."""
    with target.reach() as queue:

        def read(limit: int, cursor: str | None) -> JobPage:
            return queue.jobs(limit=limit, cursor=cursor, **filters)

        print_page(out, all_pages(read, cursor) if everything else read(limit, cursor))


def all_pages(read: Callable[[int, str | None], JobPage], cursor: str | None = None) -> JobPage:
    """Return every page that `read(limit, cursor)` brings, as one."""
    page = read(PAGE_MAX, cursor)
    items = list(page.items)
    while page.next_cursor is not None:
        page = read(PAGE_MAX, page.next_cursor)
        items += page.items
    return type(page)(items=tuple(items), next_cursor=None)


def print_page(out: Printer, page: JobPage) -> None:
    """Print a page of jobs, and aside where it goes on."""
    if out.json:
        out.document(page_document(page))
        return
    out.table(JOB_COLUMNS, [job_row(one) for one in page.items])
    if page.next_cursor is not None:
        out.note(f"more: --cursor {page.next_cursor}")


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--payload", is_flag=True, help="Print the payload alone, bytes as they were sent.")
@on_jobs
@prints
def job(*, target: Target, out: Printer, job_id: str, payload: bool) -> None:
    """Show a job whole, with its attempts."""
    target, job_id = target.named(job_id)
    with target.reach() as queue:
        found = queue.job(job_id)
    if payload:
        if out.json:
            document = job_document(found)
            out.document({name: document[name] for name in document if name.startswith("payload")})
        else:
            click.echo(found.payload, nl=sys.stdout.isatty())
    elif out.json:
        out.document(job_document(found))
    else:
        _show(out, found)


def _show(out: Printer, found: Job) -> None:
    facts: list[tuple[str, object]] = [
        ("job", found.job_id),
        ("queue", found.queue),
        ("type", found.type),
        ("status", found.status),
        ("priority", found.priority),
        ("attempt", f"{found.attempt} of {found.max_attempts}"),
        ("deliveries", found.deliveries),
        ("generation", found.generation),
        ("tags", " ".join(f"{key}={value}" for key, value in found.tags.items()) or None),
        ("labels", " ".join(found.labels) or None),
        ("unique", found.unique),
        ("timeout", seconds(found.timeout_s)),
        ("enqueued", found.enqueued_at.isoformat()),
        ("run at", found.run_at and found.run_at.isoformat()),
        ("agent", found.agent),
        ("fence", found.fence),
        ("lease ends", found.lease_expires_at and found.lease_expires_at.isoformat()),
        ("cancel requested", found.cancel_requested_at and found.cancel_requested_at.isoformat()),
        ("finished", found.finished_at and found.finished_at.isoformat()),
        ("outcome", found.outcome),
        ("dead because", found.dead_reason),
        ("payload", _excerpt(found.payload)),
        ("result", None if found.result is None else shown(found.result)),
        ("error", None if found.error is None else shown(found.error)),
    ]
    out.table(("FIELD", "VALUE"), [fact for fact in facts if fact[1] is not None])
    if found.attempts:
        columns = ("ATTEMPT", "AGENT", "FENCE", "STARTED", "TOOK", "OUTCOME", "BECAME", "EXIT", "ERROR")
        rows = []
        for one in found.attempts:
            began = one.started_at or one.claimed_at
            took = seconds((one.finished_at - began).total_seconds())
            started = began.isoformat(timespec="milliseconds")
            error = shown(one.error)
            rows.append(
                (one.number, one.agent, one.fence, started, took, one.outcome, one.status, one.exit_code, error)
            )
        out.table(columns, rows)


def _excerpt(payload: bytes, size: int = 200) -> str:
    text = payload[:size].decode(errors="backslashreplace")
    return text if len(payload) <= size else f"{text}… ({len(payload)} bytes; --payload prints them)"
