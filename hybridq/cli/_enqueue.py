"""`enqueue`: one job from options, the commands of a job for agents, or many from a file of JSON lines."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any, Final

import rich_click as click
from click.exceptions import Exit

from ._options import LEVELS, Target, on_jobs, prints, tags_of
from ._output import Printer
from ._run import TYPE, payload_of, settings_of

if TYPE_CHECKING:
    from hybridq import Enqueued, HybridqError, JobSpec, Queue

    from ._remote import Remote

__all__ = ["enqueue"]

STEP: Final = 1000
STEP_BYTES: Final = 4 * 1024 * 1024
"""Half of what the HTTP API takes at once."""


@click.command()
@click.argument("type", required=False)
@click.option("--payload", metavar="JSON", help="The payload, as JSON.")
@click.option("--payload-file", type=click.File("rb"), help="The payload, bytes as they are; - is stdin.")
@click.option("--priority", type=click.Choice(LEVELS, case_sensitive=False), default="NORMAL")
@click.option("--delay", "delay_s", type=float, metavar="SECONDS", help="Claimable only after so long.")
@click.option("--run-at", metavar="TIME", help="Claimable only then: ISO 8601 with a zone, 2030-01-31T08:00Z.")
@click.option("--job-id", metavar="ID", help="An id of your own makes the call repeatable.")
@click.option("--max-attempts", type=int, metavar="N", help="Default: 3; with --run 1.")
@click.option("--timeout", "timeout_s", type=float, default=3600.0, metavar="SECONDS", help="Default: 3600.")
@click.option("--unique", metavar="KEY", help="At most one job that has not ended holds a key.")
@click.option("--tag", "tags", multiple=True, callback=tags_of, metavar="KEY=VALUE", help="May be repeated.")
@click.option(
    "--jsonl",
    type=click.File("rb"),
    help="Many jobs: a JSON object a line, its keys as JobSpec's (type, payload, priority, …); - is stdin.",
)
@click.option(
    "--run",
    "commands",
    multiple=True,
    metavar="COMMAND",
    help="What an agent is to run, in a shell; may be repeated. Followed to its end, unless --detach.",
)
@click.option(
    "--env", multiple=True, callback=settings_of, metavar="NAME=VALUE", help="Of --run's environment; may be repeated."
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    callback=settings_of,
    metavar="NAME=REF",
    help="Like --env, of a secret that the agent looks up: vault://…, env://…; may be repeated.",
)
@click.option(
    "--git",
    "place",
    flag_value="git",
    help="--run in a fresh checkout of this work tree's commit. The default in one.",
)
@click.option("--here", "place", flag_value="here", help="--run in this very folder, by an agent on this machine.")
@click.option("--follow/--detach", default=None, help="Print the log, and end as the job does; or only enqueue.")
@click.option("--cancel-on-interrupt", is_flag=True, help="Ctrl-C cancels the job. Default: it goes on without you.")
@on_jobs
@prints
def enqueue(
    *,
    target: Target,
    out: Printer,
    type: str | None,
    payload: str | None,
    payload_file: IO[bytes] | None,
    commands: tuple[str, ...],
    env: dict[str, str],
    secrets: dict[str, str],
    place: str | None,
    follow: bool | None,
    cancel_on_interrupt: bool,
    run_at: str | None,
    jsonl: IO[bytes] | None,
    max_attempts: int | None,
    **fields: Any,
) -> None:
    """Enqueue a job of TYPE, or commands by --run, or many jobs by --jsonl.

    Followed, it ends with the job's exit code: 0, that of the command that failed, 124 past its time, 130 cancelled, 1.
    With --json the log is not printed, but at the end the job.
    """
    if jsonl is not None:
        if type is not None or payload is not None or payload_file is not None or commands or follow:
            raise click.UsageError("--jsonl brings type and payload itself, and is not followed")
        _many(target, out, jsonl)
        return
    if (payload is not None) + (payload_file is not None) + bool(commands) > 1:
        raise click.UsageError("--payload, --payload-file or --run, not both")
    if not commands and (env or secrets or place):
        raise click.UsageError("--env, --secret, --git and --here say how --run runs")
    if type is None and not commands:
        raise click.UsageError("name the job's TYPE, or say --run COMMAND, or give --jsonl")
    instant = _instant(run_at)
    body: Any
    if commands:
        body = payload_of(target, out, commands, env=env, secrets=secrets, place=place)
    else:
        body = payload_file.read() if payload_file else _json_payload(payload)
    fields["max_attempts"] = max_attempts if max_attempts is not None else 1 if commands else 3
    with target.reach() as queue:
        done = queue.enqueue(type or TYPE, body, run_at=instant, **fields)
        if follow if follow is not None else commands:
            _followed(queue, done, out, target.words(), cancel_on_interrupt)
        elif out.json:
            out.document(done)
        else:
            out.line(f"{done.job_id} {done.status}{_aside(done)}")


def _aside(done: Enqueued) -> str:
    return "" if done.created else " (it was there already)"


def _followed(queue: Queue | Remote, done: Enqueued, out: Printer, words: str, cancel_on_interrupt: bool) -> None:
    """Follow a job to its end and end as it did."""
    from ._follow import exit_code_of, follow
    from ._views import job_document

    first = f"{done.job_id}{_aside(done)}"
    job = follow(queue, done.job_id, out, first=first, words=words, cancel_on_interrupt=cancel_on_interrupt)
    if out.json:
        out.document(job_document(job))
    raise Exit(exit_code_of(job))


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
    with target.reach() as queue, out.progress("enqueue", len(specs)) as advance:
        for step in _steps(specs):
            answers += queue.enqueue_many(step)
            advance(len(step))
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


def _steps(specs: Iterable[JobSpec]) -> Iterator[list[JobSpec]]:
    """Yield what is sent at once: so many jobs, or so many bytes."""
    import msgspec

    step: list[JobSpec] = []
    size = 0
    for spec in specs:
        length = len(msgspec.json.encode(spec))
        if step and (len(step) == STEP or size + length > STEP_BYTES):
            yield step
            step, size = [], 0
        step.append(spec)
        size += length
    if step:
        yield step


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
