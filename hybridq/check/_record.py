"""Judges one job by what Redis holds of it: pure functions from a reading to what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from ..lifecycle import LEASED, TERMINAL, JobStatus, Priority
from ._attempts import judge_attempts
from ._read import Seen

__all__ = ["Fault", "index_of", "judge"]

Fault = tuple[int, str]
"""Number of the invariant, and what was found."""

BANDS: Final = {priority.value: band for band, priority in enumerate(Priority)}
BAND_STEP: Final = 2**44
UNSTARTED_MAX: Final = 20
LEASE_MS_MAX: Final = 3_600_000
CLOCK_MARGIN_MS: Final = 5_000
VALUE_BYTES_MAX: Final = 64

_ALWAYS: Final = ("status", "priority", "lane", "digest", "enqueued_ms")
_OF_LEASE: Final = ("agent", "lease_id", "lease_ms", "claimed_ms")
_ONLY_LEASED: Final = (
    *_OF_LEASE, "request", "session", "started_ms", "confirmed", "cancel_ms", "cancel_mode", "cancel_grace_ms",
)  # fmt: skip
_NUMBERS: Final = frozenset({
    "order", "enqueued_ms", "due_ms", "ready_ms", "max_attempts", "retry_base_ms", "retry_max_ms", "attempt",
    "deliveries", "unstarted", "infra", "releases", "generation", "ended", "fence", "lease_ms", "claimed_ms",
    "started_ms", "cancel_ms", "cancel_grace_ms", "avoid_until_ms", "session", "log_fence", "log_sent", "log_base",
})  # fmt: skip
_WORDS: Final = frozenset({
    "status", "priority", "lane", "digest", "unique", "agent", "lease_id", "request", "confirmed", "cancel_mode",
    "avoid", "outcome", "dead_reason", "moved", "log_full",
})  # fmt: skip
_WHOLE: Final = re.compile(r"\d{1,16}")
_LEASE_ID: Final = re.compile(r"[0-9a-f]{32}")


class Record:
    """The fields of a job's hash, with their defaults."""

    def __init__(self, fields: dict[str, str]) -> None:
        self.fields = fields
        self.status = fields.get("status", "")
        self.leased = self.status in LEASED
        self.terminal = self.status in TERMINAL

    def number(self, name: str, default: int = 0) -> int:
        """Return a whole number; the default when it is absent or, which is reported apart, no number."""
        text = self.fields.get(name, "")
        return int(text) if _WHOLE.fullmatch(text) else default

    @property
    def max_attempts(self) -> int:
        """How many attempts the job has."""
        return self.number("max_attempts", 3)


def index_of(record: Record) -> str:
    """Return the one index that a job of this record belongs to."""
    match record.status:
        case JobStatus.QUEUED:
            return f"ready:{record.fields.get('lane', '')}"
        case JobStatus.SCHEDULED:
            return f"scheduled:{record.fields.get('priority', '')}"
        case JobStatus.BLOCKED:
            return "blocked"
        case JobStatus.CLAIMED | JobStatus.RUNNING:
            return "leased"
        case JobStatus.DEAD_LETTERED:
            return "dead"
        case _:
            return "finished"


def judge(seen: Seen, now_ms: int) -> Iterator[Fault]:
    """Yield what is wrong with the job. `now_ms` is the server's time at, or shortly before, the reading."""
    if not seen.readable:
        yield 17, "the key of its record is not a hash"
        return
    if not seen.record:
        yield from _remains(seen)
        return
    record = Record(seen.record)
    yield from _shape(record)
    if record.status not in JobStatus.__members__ or record.fields.get("priority") not in BANDS:
        return
    for rule in _RULES:
        yield from rule(seen, record)
    if record.leased:
        yield from _deadline(seen, record, now_ms)
    yield from judge_attempts(seen, record.status, record.number("ended"), record.number("fence"))


def _remains(seen: Seen) -> Iterator[Fault]:
    """Nothing may speak of a job that has no record, but its tombstone."""
    places = [*seen.scores]
    places += ["all"] if seen.seq is not None else []
    places += ["spec"] if seen.spec is not None else []
    places += ["result"] if seen.result is not None else []
    places += ["log"] if seen.log_bytes else []
    places += ["logs"] if seen.log_ended is not None else []
    places += [f"held:{agent}" for agent, score in seen.held.items() if score is not None]
    if places:
        yield 1, f"it has no record and is still in {', '.join(places)}"
    for unique, holder in seen.holders.items():
        if holder == seen.job_id:
            yield 12, f"it has no record and still holds the unique key {unique!r}"


def _shape(record: Record) -> Iterator[Fault]:
    fields = record.fields
    missing = [name for name in _ALWAYS if not fields.get(name)]
    if missing:
        yield 9, f"its record lacks {', '.join(missing)}"
    if record.status and record.status not in JobStatus.__members__:
        yield 1, f"its status is {record.status!r}, which no job has"
    if fields.get("priority") and fields["priority"] not in BANDS:
        yield 15, f"its priority is {fields['priority']!r}, which no job has"
    unknown = sorted(fields.keys() - _NUMBERS - _WORDS)
    if unknown:
        yield 0, f"its record has unknown fields: {', '.join(unknown)}"
    for name, value in fields.items():
        if name in _NUMBERS and not _WHOLE.fullmatch(value):
            yield 9, f"its {name} is {value!r}, not a whole number"
        elif len(value.encode()) > VALUE_BYTES_MAX:
            yield 0, f"its {name} has {len(value.encode())} bytes, of which a record keeps {VALUE_BYTES_MAX}"


def _place(seen: Seen, record: Record) -> Iterator[Fault]:
    home = index_of(record)
    if home not in seen.scores:
        yield 1, f"it is {record.status} and is not in {home}"
    others = [index for index in seen.scores if index != home]
    if others:
        yield 1, f"it is {record.status} and is in {', '.join(others)}, where it does not belong"
    if seen.seq is None:
        yield 1, "it has a record and is not in all"
    elif not 1 <= seen.seq <= int(seen.meta.get("seq", "0")):
        yield 6, f"its place in all is {seen.seq:.0f}; the queue has given out 1 to {seen.meta.get('seq')}"


def _order(seen: Seen, record: Record) -> Iterator[Fault]:
    order = record.fields.get("order")
    if order is not None and record.number("order") > int(seen.meta.get("order", "0")):
        yield 6, f"its order is {order}; the queue has given out numbers up to {seen.meta.get('order')}"
    if record.status == JobStatus.QUEUED:
        score = seen.scores.get(index_of(record))
        if order is None:
            yield 6, "it is QUEUED and has no order"
        elif score is not None:
            wanted = BANDS[record.fields["priority"]] * BAND_STEP + record.number("order")
            if score != wanted:
                yield 1, f"its score in {index_of(record)} is {score:.0f}, by priority and order {wanted}"
    elif record.status == JobStatus.SCHEDULED:
        score = seen.scores.get(index_of(record))
        if "due_ms" not in record.fields:
            yield 16, "it is SCHEDULED and has no due_ms"
        elif score is not None and score != record.number("due_ms"):
            due = record.fields["due_ms"]
            yield 16, f"its score in {index_of(record)} is {score:.0f} and its due_ms {due}"


def _lease(seen: Seen, record: Record) -> Iterator[Fault]:
    fields = record.fields
    held = {agent: score for agent, score in seen.held.items() if score is not None}
    fence, last = record.number("fence"), int(seen.meta.get("fence", "0"))
    if fence > last:
        yield 3, f"its fence is {fence}; the queue has given out fences up to {last}"
    if not record.leased:
        left = [name for name in _ONLY_LEASED if name in fields]
        if left:
            number = 10 if record.terminal else 2
            yield number, f"it is {record.status} and has {', '.join(left)}, as if leased"
        for agent in held:
            yield 2, f"it is {record.status} and is in held:{agent}"
        return
    missing = [name for name in (*_OF_LEASE, "fence") if not fields.get(name)]
    if missing:
        yield 2, f"it is {record.status} and lacks {', '.join(missing)}"
    if fields.get("lease_id") and not _LEASE_ID.fullmatch(fields["lease_id"]):
        yield 2, f"its lease_id is {fields['lease_id']!r}, not 32 hex digits"
    if (record.status == JobStatus.RUNNING) != ("started_ms" in fields):
        yield 2, f"it is {record.status} and its started_ms is {fields.get('started_ms', 'absent')}"
    cancel = [name for name in ("cancel_ms", "cancel_mode", "cancel_grace_ms") if name in fields]
    if len(cancel) not in (0, 3):
        yield 2, f"its cancel request is torn: it has {', '.join(cancel)} alone"
    yield from _held(seen, fields.get("agent", ""), held)


def _held(seen: Seen, agent: str, held: dict[str, float]) -> Iterator[Fault]:
    deadline = seen.scores.get("leased")
    if agent in seen.held and agent not in held:
        yield 2, f"agent {agent} leases it and held:{agent} does not list it"
    elif agent in held and deadline is not None and held[agent] != deadline:
        yield 2, f"its deadline is {deadline:.0f} in leased and {held[agent]:.0f} in held:{agent}"
    for other in held:
        if other != agent:
            yield 2, f"agent {agent} leases it and it is in held:{other}"


def _session(seen: Seen, record: Record) -> Iterator[Fault]:
    """A lease of a registered agent was claimed in a session that its queue had been told of."""
    if not record.leased or "session" not in record.fields:
        return
    agent, session = record.fields.get("agent", ""), record.number("session")
    if agent in seen.generations and session > (seen.generations[agent] or 0):
        known = seen.generations[agent]
        yield 2, f"it was claimed in session {session} of agent {agent}, of whom the queue knows {known or 'none'}"


def _deadline(seen: Seen, record: Record, now_ms: int) -> Iterator[Fault]:
    lease_ms = record.number("lease_ms")
    if not 1000 <= lease_ms <= LEASE_MS_MAX:
        yield 14, f"its lease_ms is {lease_ms}; a lease lasts 1,000 to {LEASE_MS_MAX}"
    ahead = seen.scores.get("leased", now_ms) - now_ms
    if ahead > LEASE_MS_MAX + CLOCK_MARGIN_MS:
        yield 14, f"its deadline lies {ahead:.0f} ms ahead; the longest lease is {LEASE_MS_MAX}"


def _bounds(seen: Seen, record: Record) -> Iterator[Fault]:
    attempt, most, unstarted = record.number("attempt"), record.max_attempts, record.number("unstarted")
    deliveries, ended = record.number("deliveries"), record.number("ended")
    can_run = record.status == JobStatus.CLAIMED or not (record.terminal or record.leased)
    if attempt > most or (can_run and attempt == most):
        yield 5, f"it is {record.status} with attempt {attempt} of {most}"
    if record.status == JobStatus.RUNNING and attempt < 1:
        yield 5, "it is RUNNING and no attempt was charged"
    if attempt > deliveries:
        yield 5, f"attempt {attempt} was charged in {deliveries} deliveries"
    if unstarted > UNSTARTED_MAX or (unstarted == UNSTARTED_MAX and not record.terminal):
        yield 5, f"it is {record.status} after {unstarted} leases that were never started"
    if (record.status == JobStatus.DEAD_LETTERED) != bool(record.fields.get("dead_reason")):
        yield 5, f"it is {record.status} and its dead_reason is {record.fields.get('dead_reason', 'absent')}"
    if ended > deliveries - record.leased:
        yield 11, f"{ended} leases have ended of {deliveries} that were given"


def _content(seen: Seen, record: Record) -> Iterator[Fault]:
    if seen.spec is None:
        yield 9, "it has no spec"
        return
    header, newline, _ = seen.spec.partition(b"\n")
    try:
        msgspec.json.decode(header, type=dict[str, object])
    except msgspec.DecodeError as problem:
        yield 9, f"the first line of its spec is not a JSON object ({problem})"
    else:
        if not newline:
            yield 9, "its spec has no payload behind its first line"


def _idempotence(seen: Seen, record: Record) -> Iterator[Fault]:
    if seen.tomb is not None:
        yield 12, "it has a record and a tombstone"
    mine = record.fields.get("unique")
    for unique, holder in seen.holders.items():
        if unique == mine and not record.terminal:
            if holder != seen.job_id:
                other = holder or "no job"
                yield 12, f"it is {record.status} and {other} holds its unique key {unique!r}"
        elif holder == seen.job_id:
            yield 12, f"it is {record.status} and holds the unique key {unique!r}"


def _log(seen: Seen, record: Record) -> Iterator[Fault]:
    """A log is there when the record says so, and that of an ended job stands in `logs` since its end."""
    said = "log_fence" in record.fields
    if said != bool(seen.log_bytes) and not (said and record.fields.get("log_full")):
        yield 9, f"its record knows {'a' if said else 'no'} log; {seen.log_bytes} bytes of one are there"
    if said and record.number("log_fence") > record.number("fence"):
        yield 4, f"its log was written under fence {record.fields['log_fence']}, which it never gave out"
    ended = seen.scores.get(index_of(record)) if record.terminal and said else None
    if seen.log_ended != ended:
        yield 1, f"it is {record.status} and stands in logs at {seen.log_ended}, not {ended}"


_RULES: Final[tuple[Callable[[Seen, Record], Iterator[Fault]], ...]] = (
    _place,
    _order,
    _lease,
    _session,
    _bounds,
    _content,
    _log,
    _idempotence,
)
