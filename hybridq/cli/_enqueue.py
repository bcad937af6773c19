"""`enqueue`: one job from options, or many from a file of JSON lines."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import rich_click as click
from click.exceptions import Exit

from ._options import LEVELS, Target, on_queue, prints, tags_of
from ._output import Printer

if TYPE_CHECKING:
    from hybridq import Enqueued, HybridqError, JobSpec

__all__ = ["enqueue"]

STEP = 1000


@click.command()
@click.argument("type", required=False)
@click.option("--payload", metavar="JSON", help="The payload, as JSON.")
@click.option("--payload-file", type=click.File("rb"), help="The payload, bytes as they are; - is stdin.")
@click.option("--priority", type=click.Choice(LEVELS, case_sensitive=False), default="NORMAL")
@click.option("--delay", "delay_s", type=float, metavar="SECONDS", help="Claimable only after so long.")
@click.option("--run-at", metavar="TIME", help="Claimable only then: ISO 8601 with a zone, 2030-01-31T08:00Z.")
@click.option("--job-id", metavar="ID", help="An id of your own makes the call repeatable.")
@click.option("--max-attempts", type=int, default=3, metavar="N", help="Default: 3.")
@click.option("--timeout", "timeout_s", type=float, default=3600.0, metavar="SECONDS", help="Default: 3600.")
@click.option("--unique", metavar="KEY", help="At most one job that has not ended holds a key.")
@click.option("--tag", "tags", multiple=True, callback=tags_of, metavar="KEY=VALUE", help="May be repeated.")
@click.option(
    "--jsonl",
    type=click.File("rb"),
    help="Many jobs: a JSON object a line, its keys as JobSpec's (type, payload, priority, …); - is stdin.",
)
@on_queue
@prints
def enqueue(
    *,
    target: Target,
    out: Printer,
    type: str | None,
    payload: str | None,
    payload_file: IO[bytes] | None,
    run_at: str | None,
    jsonl: IO[bytes] | None,
    **fields: Any,
) -> None:
    """Enqueue a job of TYPE, or many by --jsonl."""
    if jsonl is not None:
        if type is not None or payload is not None or payload_file is not None:
            raise click.UsageError("--jsonl brings type and payload itself")
        _many(target, out, jsonl)
        return
    if type is None:
        raise click.UsageError("name the job's TYPE, or give --jsonl")
    if payload is not None and payload_file is not None:
        raise click.UsageError("--payload or --payload-file, not both")
    body = payload_file.read() if payload_file else _json_payload(payload)
    with target.open() as queue:
        done = queue.enqueue(type, body, run_at=_instant(run_at), **fields)
    if out.json:
        out.document(done)
    else:
        out.line(f"{done.job_id} {done.status}" + ("" if done.created else " (it was there already)"))


def _json_payload(text: str | None) -> bytes | None:
    import msgspec

    if text is None:
        return None
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as wrong:
        raise click.BadParameter(f"not JSON ({wrong}); bytes go by --payload-file", param_hint="--payload") from None
    return text.encode()


def _instant(text: str | None) -> dt.datetime | None:
    if text is None:
        return None
    try:
        instant = dt.datetime.fromisoformat(text)
    except ValueError as wrong:
        raise click.BadParameter(str(wrong), param_hint="--run-at") from None
    if instant.tzinfo is None:
        raise click.BadParameter(f"{text} needs a zone, as in {text}Z or {text}+01:00", param_hint="--run-at")
    return instant


def _many(target: Target, out: Printer, lines: IO[bytes]) -> None:
    """Read everything before anything is sent, so that a mistake in the last line leaves nothing half done."""
    from hybridq import HybridqError

    specs = list(_specs(lines))
    answers: list[Enqueued | HybridqError] = []
    with target.open() as queue, out.progress("enqueue", len(specs)) as advance:
        for first in range(0, len(specs), STEP):
            answers += queue.enqueue_many(specs[first : first + STEP])
            advance(len(answers) - first)
    refused = [(index, answer) for index, answer in enumerate(answers) if isinstance(answer, HybridqError)]
    created = sum(not isinstance(answer, HybridqError) and answer.created for answer in answers)
    existing = len(answers) - created - len(refused)
    if out.json:
        results = [out.problem_document(answer) if isinstance(answer, HybridqError) else answer for answer in answers]
        out.document({"enqueued": created, "existing": existing, "refused": len(refused), "results": results})
    else:
        out.line(f"{created} enqueued, {existing} were there already, {len(refused)} refused")
        for index, problem in refused[:20]:
            out.note(f"job {index + 1}: {problem}")
    if refused:
        raise Exit(1)


def _specs(lines: IO[bytes]) -> Iterator[JobSpec]:
    import msgspec

    from hybridq import JobSpec

    decoder = msgspec.json.Decoder(JobSpec)
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
                name = getattr(lines, "name", "-")
                raise click.UsageError(f"{name}, line {number}: {wrong}; nothing was sent") from None
