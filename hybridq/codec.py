"""How jobs, leases and reports travel: spec text and JSON fragments on the way in, replies into Structs on the way out.

A spec is one line of JSON, a newline, and the payload's bytes as they are: readable in redis-cli, and given back
byte for byte. Encoders are made once.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from ._units import ms_to_instant, to_s
from .errors import InvalidArgument, PayloadTooLarge
from .job import Attempt, Backoff, Job, Lease
from .keys import short_key
from .lifecycle import JobStatus, Priority

__all__ = ["SpecHeader", "digest_of", "encode_fragment", "encode_payload", "read_job", "read_lease", "spec_text"]

PAYLOAD_BYTES_MAX: Final = 262_144
RESULT_BYTES_MAX: Final = 262_144
FAILURE_BYTES_MAX: Final = 8_192
TIMEOUT_MS_DEFAULT: Final = 3_600_000


class SpecHeader(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """First line of a spec: what never changes and Lua need not know. Durations in milliseconds."""

    type: str = "job"
    timeout_ms: int | None = None
    """None: `TIMEOUT_MS_DEFAULT`, so that the usual spec stays short."""
    unique: str | None = None
    tags: Mapping[str, str] = {}
    labels: tuple[str, ...] = ()
    request_id: str | None = None
    trace_id: str | None = None


_encoder = msgspec.json.Encoder()
_header_decoder = msgspec.json.Decoder(SpecHeader)
_line_decoder = msgspec.json.Decoder(list[Any])


def encode_payload(payload: Any) -> bytes:
    """Return bytes as they are, anything else as JSON; raises `InvalidArgument` or `PayloadTooLarge`."""
    is_bytes = isinstance(payload, (bytes, bytearray, memoryview))
    raw = bytes(payload) if is_bytes else _encode("payload", payload)
    if len(raw) > PAYLOAD_BYTES_MAX:
        raise PayloadTooLarge("payload", len(raw), PAYLOAD_BYTES_MAX)
    return raw


def encode_fragment(what: str, value: Any, limit_bytes: int) -> bytes:
    """Return `value` as one line of JSON, empty for None; raises `InvalidArgument` or `PayloadTooLarge`."""
    if value is None:
        return b""
    raw = _encode(what, value)
    if len(raw) > limit_bytes:
        raise PayloadTooLarge(what, len(raw), limit_bytes)
    return raw.replace(b"\n", b" ") if b"\n" in raw else raw


def _encode(what: str, value: Any) -> bytes:
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as problem:
        raise InvalidArgument(what, type(value).__name__, f"bytes, or something JSON can hold ({problem})") from problem


def spec_text(header: SpecHeader, payload: bytes) -> bytes:
    """Return the spec as it is stored."""
    return _encoder.encode(header) + b"\n" + payload


def digest_of(header: SpecHeader, payload: bytes, rest: Iterable[object]) -> str:
    """Return 22 characters that stand for everything the caller said, ids of tracing excepted."""
    said = msgspec.structs.replace(header, request_id=None, trace_id=None)
    parts = _encoder.encode([msgspec.structs.asdict(said), list(rest)])
    digest = hashlib.sha256(parts + b"\n" + payload).digest()
    return base64.urlsafe_b64encode(digest[:16]).decode().rstrip("=")


def split_spec(spec: bytes) -> tuple[SpecHeader, bytes]:
    """Return header and payload of a stored spec."""
    line, _, payload = spec.partition(b"\n")
    return _header_decoder.decode(line), payload


def read_lease(queue: str, fields: Sequence[Any], *, session: int = 0) -> Lease:
    """Return the Lease in one job of a claim's reply, which was made in `session`."""
    job_id, spec, fence, lease_id, agent, status, priority, attempt, most, deliveries, generation, lease_ms, since = (
        fields
    )
    header, payload = split_spec(spec)
    running = status == b"RUNNING"
    return Lease(
        job_id=job_id.decode(),
        queue=queue,
        type=header.type,
        payload=payload,
        fence=int(fence),
        lease_id=lease_id.decode(),
        agent=agent.decode(),
        status=JobStatus.RUNNING if running else JobStatus.CLAIMED,
        priority=Priority(priority.decode()),
        attempt=int(attempt) + (0 if running else 1),
        max_attempts=int(most),
        deliveries=int(deliveries),
        generation=int(generation),
        lease_s=to_s(int(lease_ms)),
        timeout_s=to_s(header.timeout_ms or TIMEOUT_MS_DEFAULT),
        tags=header.tags,
        enqueued_at=ms_to_instant(int(since)),
        started_by_claim=running,
        session=session,
        request_id=header.request_id,
        trace_id=header.trace_id,
    )


def read_job(queue: str, job_id: str, fields: Sequence[Any]) -> Job:
    """Return the Job in one reply of `describe`: record, spec, result, seq, deadline, end."""
    flat, spec, result, seq, deadline_ms, finished_ms = fields
    # Joined, decoded and split again in C: a record has about fifteen fields, whose texts hold no line breaks.
    texts = b"\n".join(flat).decode().split("\n")
    if len(texts) != len(flat):
        texts = [one.decode() for one in flat]
    record = dict(zip(texts[::2], texts[1::2], strict=True))
    header, payload = split_spec(spec)
    attempts = read_attempts(result) if result else ()
    ended = attempts[-1] if attempts and finished_ms else None
    known = record.get

    def instant(name: str) -> Any:
        ms = known(name)
        return ms_to_instant(int(ms)) if ms else None

    return Job(
        job_id=job_id,
        queue=queue,
        type=header.type,
        status=JobStatus(record["status"]),
        priority=Priority(record["priority"]),
        payload=payload,
        lane=record["lane"],
        attempt=int(known("attempt", 0)),
        max_attempts=int(known("max_attempts", 3)),
        deliveries=int(known("deliveries", 0)),
        generation=int(known("generation", 0)),
        timeout_s=to_s(header.timeout_ms or TIMEOUT_MS_DEFAULT),
        retry=_backoff(known("retry_base_ms"), known("retry_max_ms")),
        unique=header.unique,
        tags=header.tags,
        labels=header.labels,
        request_id=header.request_id,
        trace_id=header.trace_id,
        enqueued_at=ms_to_instant(int(known("enqueued_ms", 0))),
        run_at=instant("due_ms"),
        agent=known("agent") or (ended.agent if ended else None),
        fence=int(known("fence", 0)) or None,
        claimed_at=instant("claimed_ms") or (ended.claimed_at if ended else None),
        started_at=instant("started_ms") or (ended.started_at if ended else None),
        lease_expires_at=ms_to_instant(int(float(deadline_ms))) if deadline_ms else None,
        lease_s=to_s(int(record["lease_ms"])) if "lease_ms" in record else None,
        cancel_requested_at=instant("cancel_ms"),
        finished_at=ms_to_instant(int(float(finished_ms))) if finished_ms else None,
        outcome=known("outcome"),
        exit_code=ended.exit_code if ended else None,
        result=ended.result if ended else None,
        error=attempts[-1].error if attempts else None,
        dead_reason=known("dead_reason"),
        seq=int(float(seq)),
        attempts=attempts,
    )


_USUAL: Final = Backoff(base_s=5.0, max_s=300.0)


def _backoff(base_ms: str | None, max_ms: str | None) -> Backoff:
    if base_ms is None and max_ms is None:
        return _USUAL
    return Backoff(base_s=to_s(int(base_ms or 5000)), max_s=to_s(int(max_ms or 300_000)))


def read_attempts(text: bytes) -> tuple[Attempt, ...]:
    """Return the history in a job's result text, oldest first; at most the last 32 leases."""
    return tuple(_attempt(_line_decoder.decode(line)) for line in text.split(b"\n") if line)


def _attempt(line: list[Any]) -> Attempt:
    number, agent, fence, claimed, started, finished, outcome, status, exit_code, error, result, *late = line
    return Attempt(
        number=number,
        agent=agent,
        fence=fence,
        claimed_at=ms_to_instant(claimed),
        started_at=ms_to_instant(started) if started is not None else None,
        finished_at=ms_to_instant(finished),
        outcome=outcome,
        status=JobStatus(status),
        exit_code=exit_code,
        error=error,
        result=result,
        late=late[0]["late"] if late else None,
    )


def unique_field(key: str | None) -> str:
    """Return what stands for a unique key in Redis; empty for none."""
    return "" if key is None else short_key(key)
