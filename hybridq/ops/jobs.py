"""What producers and operators do to jobs: enqueue, cancel, reprioritise, replay, purge."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

from .._units import YEAR_S, instant_to_ms, to_ms
from ..call import Call, Reply
from ..codec import TIMEOUT_MS_DEFAULT, SpecHeader, digest_of, encode_payload, spec_text, unique_field
from ..errors import (
    AlreadyTerminal,
    BatchRefused,
    EntryInDoubt,
    HybridqError,
    InvalidArgument,
    JobConflict,
    NotTerminal,
    QueueFull,
    UniqueTaken,
)
from ..job import Cancelled, Enqueued, JobSpec, Purged, Replayed
from ..keys import new_job_id
from ..lifecycle import JobStatus, Priority
from ..scripts import load
from . import _args

__all__ = ["cancel", "enqueue", "prepare", "purge", "replay", "reprioritise", "retry"]

LANE_ANY: Final = "any"
ON_CONFLICT: Final = ("return", "reject")
_DEFAULTS: Final = (Priority.NORMAL.value, LANE_ANY, 0, 0, 3, 5000, 300_000, "")
"""What an empty argument means to `enqueue.lua`: what is not sent need not be checked."""
ATOMIC_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of the specs of an atomic call: what one script call may carry."""


def prepare(spec: JobSpec) -> tuple[Any, ...]:
    """Return the entry of `enqueue.lua` for a spec, its job id first; raises `UsageError` when the spec is wrong."""
    if not isinstance(spec, JobSpec):
        raise InvalidArgument("spec", spec, "a JobSpec")
    job_id = new_job_id() if spec.job_id is None else _args.job_name(spec.job_id)
    if spec.delay_s is not None and spec.run_at is not None:
        raise InvalidArgument("run_at", spec.run_at, "None when delay_s is given: one of the two")
    delay_ms = 0 if spec.delay_s is None else to_ms("delay_s", spec.delay_s, 0, YEAR_S)
    run_at_ms = 0 if spec.run_at is None else instant_to_ms("run_at", spec.run_at)
    if not 0 <= run_at_ms < 2**53:
        raise InvalidArgument("run_at", spec.run_at, "between 1970 and a year from now")
    if spec.labels:
        raise InvalidArgument("labels", spec.labels, "empty: jobs with label requirements are not supported yet")
    base_ms = to_ms("retry.base_s", spec.retry.base_s, 0, 3600)
    max_ms = to_ms("retry.max_s", spec.retry.max_s, spec.retry.base_s, 86_400)
    if spec.unique is not None and not spec.unique:
        raise InvalidArgument("unique", spec.unique, "1 to 256 bytes of text")
    timeout_ms = to_ms("timeout_s", spec.timeout_s, 0.001, YEAR_S)
    header = SpecHeader(
        type=_args.text("type", spec.type, 64),
        timeout_ms=None if timeout_ms == TIMEOUT_MS_DEFAULT else timeout_ms,
        unique=_args.text("unique", spec.unique, 256) or None,
        tags=_args.tags(spec.tags),
        request_id=_args.text("request_id", spec.request_id, 128) or None,
        trace_id=_args.text("trace_id", spec.trace_id, 128) or None,
    )
    payload = encode_payload(spec.payload)
    priority = _args.member("priority", spec.priority, Priority)
    attempts = _args.integer("max_attempts", spec.max_attempts, 1, 100)
    rest = (priority.value, LANE_ANY, delay_ms, run_at_ms, attempts, base_ms, max_ms, unique_field(header.unique))
    sent = tuple("" if value == default else value for value, default in zip(rest, _DEFAULTS, strict=True))
    return (job_id, digest_of(header, payload, rest), spec_text(header, payload), *sent)


def enqueue(
    root: str,
    specs: Sequence[JobSpec],
    *,
    queue: str,
    on_conflict: str = "return",
    atomic: bool = False,
    now_ms: int = 0,
) -> Call[list[Enqueued | HybridqError]]:
    """Take jobs in. Value: for each spec, in order, an `Enqueued` or the error of that entry alone.

    `on_conflict` says what a taken unique key answers: "return" the job that holds it, "reject" `UniqueTaken`.
    `atomic`: all or none; one that fails makes the whole raise `BatchRefused`.
    """
    if on_conflict not in ON_CONFLICT:
        raise InvalidArgument("on_conflict", on_conflict, "one of " + ", ".join(ON_CONFLICT))
    entries = tuple(prepare(spec) for spec in specs)
    script = load("enqueue")
    size = sum(len(entry[2]) for entry in entries)
    if atomic and not (len(entries) <= script.header.batch_max and size <= ATOMIC_BYTES_MAX):
        allowed = f"at most {script.header.batch_max} jobs and {ATOMIC_BYTES_MAX} bytes when they are atomic"
        raise InvalidArgument("specs", len(entries), allowed)

    def one(spec: JobSpec, entry: tuple[Any, ...], reply: Reply) -> Enqueued:
        job_id = str(entry[0])
        match _args.tag_of(script, reply, job_id):
            case "ENQUEUED" | "DUPLICATE" as tag:
                # An id made here is known to nobody else: when it is there, an earlier sending of this call did it.
                created = tag == "ENQUEUED" or spec.job_id is None
                return Enqueued(job_id=job_id, status=JobStatus(reply[1].decode()), created=created)
            case "CONFLICT":
                raise JobConflict(job_id, reply[1].decode())
            case "UNIQUE":
                holder = reply[1].decode()
                if on_conflict == "reject":
                    raise UniqueTaken(job_id, holder)
                return Enqueued(job_id=holder, status=JobStatus(reply[2].decode()), created=False, unique=True)
            case "FULL":
                raise QueueFull(queue, int(reply[1]))
        raise _args.unexpected(script, reply)

    def decode(replies: Sequence[Reply]) -> list[Enqueued | HybridqError]:
        given = enumerate(zip(specs, entries, replies, strict=True))
        found = {place: _value_or_error(one, *each) for place, each in given if each[2][0] != b"NOT_MADE"}
        if atomic:
            _refuse_whole(found)
        return list(found.values())

    # A number of its own keeps one atomic call from being joined with another.
    common = (secrets.randbelow(2**52) + 1 if atomic else 0, 1 if atomic and on_conflict == "reject" else 0)
    return _args.simple("enqueue", root, now_ms, entries, decode, common=common, size_bytes=size)


def _refuse_whole(found: dict[int, Enqueued | HybridqError]) -> None:
    errors = {place: value for place, value in found.items() if isinstance(value, HybridqError)}
    for error in errors.values():
        if isinstance(error, EntryInDoubt):
            raise error
    if errors:
        raise BatchRefused(errors)


def _value_or_error(one: Callable[..., Any], *args: Any) -> Any:
    try:
        return one(*args)
    except HybridqError as error:
        return error


def cancel(
    root: str, job_id: str, *, mode: str = "graceful", grace_s: float = 10.0, now_ms: int = 0
) -> Call[Cancelled]:
    """Cancel a job: at once while it waits, by request while it is leased. Raises `AlreadyTerminal`, `JobNotFound`."""
    if mode not in ("graceful", "kill"):
        raise InvalidArgument("mode", mode, "graceful or kill")
    script = load("cancel")
    entry = (_args.job_name(job_id), mode, to_ms("grace_s", grace_s, 0, 86_400))

    def decode(replies: Sequence[Reply]) -> Cancelled:
        reply = replies[0]
        match _args.tag_of(script, reply, job_id):
            case "CANCELLED":
                return Cancelled(job_id=job_id, status=JobStatus.CANCELLED, requested=False)
            case "REQUESTED":
                return Cancelled(job_id=job_id, status=JobStatus(reply[1].decode()), requested=True)
            case "TERMINAL":
                raise AlreadyTerminal(job_id, reply[1].decode())
        raise _args.unexpected(script, reply)

    return _args.simple("cancel", root, now_ms, [entry], decode)


def reprioritise(root: str, job_id: str, priority: Priority | str, *, now_ms: int = 0) -> Call[JobStatus]:
    """Give a job that has not ended another priority; it joins the end of that level. Value: its status."""
    script = load("reprioritise")
    entry = (_args.job_name(job_id), _args.member("priority", priority, Priority).value)

    def decode(replies: Sequence[Reply]) -> JobStatus:
        reply = replies[0]
        match _args.tag_of(script, reply, job_id):
            case "CHANGED":
                return JobStatus(reply[1].decode())
            case "TERMINAL":
                raise AlreadyTerminal(job_id, reply[1].decode())
        raise _args.unexpected(script, reply)

    return _args.simple("reprioritise", root, now_ms, [entry], decode)


def retry(root: str, job_id: str, *, request_id: str | None = None, now_ms: int = 0) -> Call[JobStatus]:
    """Give one ended job a new life. Value: its status. Raises `NotTerminal`, `UniqueTaken`, `JobNotFound`.

    The same `request_id` again is no second life, whatever became of the first: the value is the status it has now.
    """
    script = load("replay")
    move = _args.text("request_id", request_id, 64)

    def decode(replies: Sequence[Reply]) -> JobStatus:
        reply = replies[0]
        match _args.tag_of(script, reply, job_id):
            case "REPLAYED" | "AGAIN":
                return JobStatus(reply[1].decode())
            case "NOT_TERMINAL":
                raise NotTerminal(job_id, reply[1].decode())
            case "UNIQUE_TAKEN":
                raise UniqueTaken(job_id, reply[1].decode())
        raise _args.unexpected(script, reply)

    # Without an id it is not repeated by itself: a job that ran to its end meanwhile would be given yet another life.
    entry = (_args.job_name(job_id), "any", move)
    return _args.simple("replay", root, now_ms, [entry], decode, repeatable=bool(move))


def replay(root: str, job_ids: Sequence[str], *, now_ms: int = 0) -> Call[Replayed]:
    """Give dead letters a new life. Value: which wait again, and which were left alone with the reason."""
    entries = [(_args.job_name(job_id), "dead", "") for job_id in job_ids]

    def decode(replies: Sequence[Reply]) -> Replayed:
        done, skipped = _sort_out(entries, replies, "REPLAYED")
        return Replayed(replayed=done, skipped=skipped)

    return _args.simple("replay", root, now_ms, entries, decode, repeatable=False)


def purge(root: str, job_ids: Sequence[str], *, now_ms: int = 0) -> Call[Purged]:
    """Delete dead letters for good. Value: which are gone, and which were left alone with the reason."""
    entries = [(_args.job_name(job_id),) for job_id in job_ids]

    def decode(replies: Sequence[Reply]) -> Purged:
        done, skipped = _sort_out(entries, replies, "PURGED")
        return Purged(purged=done, skipped=skipped)

    return _args.simple("purge", root, now_ms, entries, decode)


_REASONS: Final = {
    "NOT_FOUND": "not_found",
    "NOT_TERMINAL": "not_dead_lettered",
    "NOT_DEAD": "not_dead_lettered",
    "UNIQUE_TAKEN": "unique_taken",
    "IN_DOUBT": "in_doubt",
}


def _sort_out(
    entries: Sequence[tuple[str, ...]], replies: Sequence[Reply], good: str
) -> tuple[tuple[str, ...], dict[str, str]]:
    done, skipped = [], {}
    for entry, reply in zip(entries, replies, strict=True):
        tag = bytes(reply[0]).decode()
        if tag == good:
            done.append(entry[0])
        else:
            skipped[entry[0]] = _REASONS[tag]
    return tuple(done), skipped
