"""`keypair`, `sign`, `seal`: jobs that the server can neither change nor read. Nothing here speaks to a server."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import rich_click as click

from ._options import prints
from ._output import Printer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hybridq.agent.trust import OpenKey, SignKey

__all__ = ["keypair", "seal", "sign"]

UNITS_S: Final = {"m": 60, "h": 3600, "d": 86_400}


@click.command()
@click.argument("purpose", type=click.Choice(["signing", "sealing"]))
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@prints
def keypair(*, out: Printer, purpose: str, file: Path) -> None:
    """Make a pair of keys for PURPOSE. The private one goes to FILE, the public one is printed.

    signing: FILE signs jobs (`hybridq sign --key FILE`), agents get the printed key (`--verify-keys`).
    sealing: agents get FILE (`--seal-keys`), the printed key seals payloads (`hybridq seal --to KEY`).
    """
    _needs_the_agent_s_libraries()
    from hybridq.agent.trust import OpenKey, SignKey

    key: SignKey | OpenKey = SignKey.new() if purpose == "signing" else OpenKey.new()
    _write_new(file, key.text + "\n")
    public = key.public
    if out.json:
        out.document({"purpose": purpose, "id": public.id, "public": public.text, "private_file": str(file)})
        return
    out.line(public.text)
    out.note(f"key {public.id}; its private half is in {file}: keep it where only its users can read it")


def _write_new(path: Path, text: str) -> None:
    """Write a file that was not there, for its owner's eyes only, and whole or not at all."""
    from hybridq.agent.trust import KeyUnusable

    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyUnusable(f"{path}: is there already, and a key is never written over") from None
    except OSError as wrong:
        raise KeyUnusable(f"{path}: {wrong.strerror}") from None
    try:
        with open(handle, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as wrong:
        path.unlink(missing_ok=True)
        raise KeyUnusable(f"{path}: {wrong.strerror}") from None


def _for_a_job(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what `sign` and `seal` have in common: the payload, and the job it is for."""
    for option in reversed(
        [
            click.argument("payload", type=click.File("rb", lazy=True), default="-"),
            click.option("--pool", metavar="NAME", default="default", help="The job's pool. Default: default."),
            click.option("--job-id", metavar="ID", help="The job's id. Default: a new one."),
            click.option("--any-job", is_flag=True, help="Bind it to no job id."),
            click.option("--payload-only", is_flag=True, help="Print the payload without pool and job id around it."),
        ]
    ):
        function = option(function)
    return function


def _lasts(_context: click.Context, parameter: click.Parameter, value: str) -> float:
    """Callback of `--valid-for`: seconds."""
    number, unit = value[:-1], value[-1:]
    if not (number.isascii() and number.isdigit() and len(number) <= 6 and unit in UNITS_S and int(number)):
        raise click.BadParameter("write 90m, 12h or 30d", param=parameter)
    return float(int(number) * UNITS_S[unit])


@click.command()
@_for_a_job
@click.option("--key", metavar="FILE", required=True, help="File of the private key.")
@click.option(
    "--valid-for",
    "valid_s",
    metavar="TIME",
    callback=_lasts,
    default="24h",
    help="Until when the job may start: 90m, 12h, 30d; without a job id 7d at most. Default: 24h.",
)
@click.option("--seal-to", "seal_to", metavar="KEY", multiple=True, help="Seal it too; a key or a file, repeatable.")
@prints
def sign(
    *,
    out: Printer,
    payload: IO[bytes],
    pool: str,
    job_id: str | None,
    any_job: bool,
    payload_only: bool,
    key: str,
    valid_s: float,
    seal_to: Sequence[str],
) -> None:
    """Sign what a job shall do, so that agents can tell who ordered it.

    PAYLOAD is a file, or standard input: JSON with steps, git, env. Printed is the body of POST /api/queue/jobs. A
    signature counts for one job of one pool; with --any-job, for one job on each agent.
    """
    _needs_the_agent_s_libraries()
    from hybridq import guard
    from hybridq.agent.trust import SealKey, SignKey, read_keys
    from hybridq.agent.trust import seal as sealed
    from hybridq.agent.trust import sign as signed
    from hybridq.errors import UsageError

    keys = read_keys(SignKey, [key])
    if len(keys) != 1:
        raise UsageError(f"{key}: holds {len(keys)} keys; one signs")
    recipients = read_keys(SealKey, seal_to)
    bound = _bound_to(job_id, any_job)
    work = _work_in(payload)
    for found in [] if recipients else guard.scan(work):
        out.note(f"the server will refuse this: {found.pointer or '/'} looks like a secret ({found.rule})")
    ready = signed(work, keys[0], pool=pool, job_id=bound, now=time.time(), valid_s=valid_s)
    if recipients:
        ready = sealed(ready, recipients, pool=pool, job_id=bound)
    _print(out, ready, pool, bound, payload_only)


@click.command()
@_for_a_job
@click.option("--to", metavar="KEY", multiple=True, required=True, help="Who may open it; a key or a file, repeatable.")
@prints
def seal(
    *,
    out: Printer,
    payload: IO[bytes],
    pool: str,
    job_id: str | None,
    any_job: bool,
    payload_only: bool,
    to: Sequence[str],
) -> None:
    """Seal what a job shall do, so that its agents alone can read it.

    PAYLOAD is a file, or standard input: JSON with steps, git, env. Printed is the body of POST /api/queue/jobs. What
    is sealed for one job is refused in any other. Anybody can seal: who ordered the job, only a signature says.
    """
    _needs_the_agent_s_libraries()
    from hybridq.agent.trust import SealKey, read_keys
    from hybridq.agent.trust import seal as sealed

    recipients = read_keys(SealKey, to)
    bound = _bound_to(job_id, any_job)
    work = _work_in(payload)
    _print(out, sealed(work, recipients, pool=pool, job_id=bound), pool, bound, payload_only)


def _needs_the_agent_s_libraries() -> None:
    import importlib.util

    if not all(map(importlib.util.find_spec, ("nacl", "joserfc"))):
        raise click.UsageError("this needs the agent's libraries: pip install 'hybridq[agent]'")


def _bound_to(job_id: str | None, any_job: bool) -> str | None:
    from hybridq.keys import new_job_id, validate_name

    if any_job:
        if job_id is not None:
            raise click.UsageError("--job-id or --any-job, not both")
        return None
    return new_job_id() if job_id is None else validate_name("job_id", job_id)


def _work_in(file: IO[bytes]) -> dict[str, Any]:
    """Return the payload, which must be work that an agent would run."""
    from hybridq.agent.trust.canonical import parse
    from hybridq.agent.work_of import Rejected, checked
    from hybridq.errors import UsageError

    try:
        document = file.read()
    except click.FileError as wrong:
        raise click.BadParameter(wrong.format_message(), param_hint="PAYLOAD") from None
    value: Any = parse(document)
    try:
        checked(value)
    except Rejected as wrong:
        raise UsageError(f"no agent would run this: {wrong.message}") from None
    return {name: part for name, part in value.items() if part is not None}


def _print(out: Printer, payload: dict[str, str], pool: str, job_id: str | None, payload_only: bool) -> None:
    if payload_only:
        out.document(payload)
        if job_id is not None:
            out.note(f"enqueue it in pool {pool} with the job id {job_id}")
        return
    out.document({"pool": pool, **({} if job_id is None else {"job_id": job_id}), "payload": payload})
