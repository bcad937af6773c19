"""`dead list`, `dead replay`, `dead purge`: jobs whose attempts are used up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.exceptions import Exit

from ._jobs import PAGE_MAX, all_pages
from ._options import Target, on_queue, prints, tags_of
from ._output import Printer
from ._views import ago, page_document, shown

if TYPE_CHECKING:
    from hybridq import JobPage, Purged, Queue, Replayed

__all__ = ["dead"]

Command = Callable[..., Any]
STEP = 100
REASONS = ("max_attempts", "lease_lost", "never_started")
COLUMNS = ("JOB", "TYPE", "REASON", "ATTEMPT", "DIED", "ERROR")


@click.group()
def dead() -> None:
    """Look through, replay or purge dead letters."""


def _filtered(function: Command) -> Command:
    for option in (
        click.option("--tag", "tags", multiple=True, callback=tags_of, metavar="KEY=VALUE", help="May be repeated."),
        click.option("--reason", type=click.Choice(REASONS)),
        click.option("--type", metavar="TYPE"),
    ):
        function = option(function)
    return function


def _chosen(function: Command) -> Command:
    for option in (
        click.option("--dry-run", is_flag=True, help="Only count what would be taken."),
        click.option("--limit", type=click.IntRange(1), metavar="N", help="At most so many, the latest."),
        click.option("--all", "everything", is_flag=True, help="Without ids or a filter: really all."),
        click.argument("job_ids", metavar="[ID]...", nargs=-1),
    ):
        function = option(function)
    return _filtered(function)


@dead.command("list")
@_filtered
@click.option("--limit", type=click.IntRange(1, PAGE_MAX), default=50, help="Of one page. Default: 50.")
@click.option("--cursor", metavar="CURSOR", help="Go on where a page ended.")
@click.option("--all", "everything", is_flag=True, help="Every page, not only one.")
@on_queue
@prints
def list_(*, target: Target, out: Printer, limit: int, cursor: str | None, everything: bool, **filters: Any) -> None:
    """List dead letters, the latest death first."""
    with target.open() as queue:

        def read(limit: int, cursor: str | None) -> JobPage:
            return queue.dead.list(limit=limit, cursor=cursor, **filters)

        page = all_pages(read, cursor) if everything else read(limit, cursor)
    if out.json:
        out.document(page_document(page))
        return
    rows = []
    for one in page.items:
        died = ago(one.finished_at) if one.finished_at else None
        attempt = f"{one.attempt}/{one.max_attempts}"
        rows.append((one.job_id, one.type, one.dead_reason, attempt, died, shown(one.error)))
    out.table(COLUMNS, rows)
    if page.next_cursor is not None:
        out.note(f"more: --cursor {page.next_cursor}")


@dead.command()
@_chosen
@on_queue
@prints
def replay(*, target: Target, out: Printer, dry_run: bool, **choice: Any) -> None:
    """Give dead letters a new life: by id, by filter, or --all."""
    with target.open() as queue:
        ids = _choose(queue, **choice)
        if dry_run:
            _say(out, "would be replayed", {"matched": len(ids), "dry_run": True}, {})
            return
        # The oldest death first, as it has waited longest.
        done, skipped = _in_steps(out, "replay", ids[::-1], lambda step: _replayed(queue.dead.replay(step)))
    _say(out, "replayed", {"matched": len(ids), "replayed": len(done), "job_ids": done, "skipped": skipped}, skipped)


@dead.command()
@_chosen
@click.option("--yes", is_flag=True, help="Do not ask.")
@on_queue
@prints
def purge(*, target: Target, out: Printer, dry_run: bool, yes: bool, **choice: Any) -> None:
    """Delete dead letters for good: by id, by filter, or --all."""
    with target.open() as queue:
        ids = _choose(queue, **choice)
        if dry_run:
            _say(out, "would be purged", {"matched": len(ids), "dry_run": True}, {})
            return
        if ids and not yes:
            if not sys.stdin.isatty():
                raise click.UsageError(f"this deletes {len(ids)} dead letter(s) for good; say --yes")
            click.confirm(f"Delete {len(ids)} dead letter(s) for good?", abort=True, err=True)
        done, skipped = _in_steps(out, "purge", ids, lambda step: _purged(queue.dead.purge(step)))
    _say(out, "purged", {"matched": len(ids), "purged": len(done), "job_ids": done, "skipped": skipped}, skipped)


def _choose(queue: Queue, job_ids: Sequence[str], everything: bool, limit: int | None, **filters: Any) -> list[str]:
    """Return the ids meant, the latest death first."""
    filtered = any(filters.values())
    if job_ids and (everything or filtered or limit):
        raise click.UsageError("ids, or --all, or a filter: not together")
    if job_ids:
        return list(dict.fromkeys(job_ids))
    if not everything and not filtered:
        raise click.UsageError("name ids, a filter (--type, --reason, --tag), or --all")
    ids: list[str] = []
    cursor: str | None = None
    while limit is None or len(ids) < limit:
        page = queue.dead.list(limit=PAGE_MAX, cursor=cursor, **filters)
        ids += [one.job_id for one in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    return ids[:limit]


Step = Callable[[Sequence[str]], tuple[Sequence[str], Mapping[str, str]]]


def _in_steps(out: Printer, label: str, ids: Sequence[str], step: Step) -> tuple[list[str], dict[str, str]]:
    done: list[str] = []
    skipped: dict[str, str] = {}
    with out.progress(label, len(ids)) as advance:
        for first in range(0, len(ids), STEP):
            taken, left = step(ids[first : first + STEP])
            done += taken
            skipped |= left
            advance(len(taken) + len(left))
    return done, skipped


def _replayed(answer: Replayed) -> tuple[Sequence[str], Mapping[str, str]]:
    return answer.replayed, answer.skipped


def _purged(answer: Purged) -> tuple[Sequence[str], Mapping[str, str]]:
    return answer.purged, answer.skipped


def _say(out: Printer, verb: str, document: dict[str, Any], skipped: Mapping[str, str]) -> None:
    if out.json:
        out.document(document)
    else:
        count = document["matched"] - len(skipped)
        out.line(f"{count} {verb}" + (f", {len(skipped)} left alone" if skipped else ""))
        for job_id, reason in list(skipped.items())[:20]:
            out.note(f"{job_id}: {reason}")
    if skipped:
        raise Exit(1)
