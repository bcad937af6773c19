"""What jobs say: their holders append, anybody reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..call import Call, Reply
from ..errors import InvalidArgument, OffsetGap, PayloadTooLarge
from ..job import LeaseProof, LogPart
from ..lifecycle import TERMINAL, JobStatus
from ..scripts import load
from . import _args, leases

__all__ = ["append", "read"]

CHUNK_BYTES_MAX: Final = 1_048_576
READ_BYTES: Final = 262_144
OFFSET_MAX: Final = 2**53 - 1
CHARACTER_BYTES_MAX: Final = 4
COPIES: Final = 4
"""A piece counts so many times in what travels together: to append four mebibytes at once holds Redis for 6 ms."""


def append(
    root: str, lease: LeaseProof, offset: int, data: str | bytes, *, sent_bytes: int | None = None, now_ms: int = 0
) -> Call[int]:
    """Append to a job's log what its holder says. Value: where the lease's next piece begins; a repeat is ignored.

    `sent_bytes`: how long the piece was for its sender, when something in it was replaced since. Raises `OffsetGap`,
    `StaleLease`, `NotLeaseHolder`, `JobNotFound`, `PayloadTooLarge`.
    """
    script = load("append_log")
    if not isinstance(data, str | bytes | bytearray | memoryview):
        raise InvalidArgument("data", data, "text, or bytes of UTF-8")
    piece = data.encode(errors="replace") if isinstance(data, str) else bytes(data)
    sent = len(piece) if sent_bytes is None else _args.integer("sent_bytes", sent_bytes, 0, OFFSET_MAX)
    if sent > CHUNK_BYTES_MAX:
        raise PayloadTooLarge("data", sent, CHUNK_BYTES_MAX)
    entry = (*_args.lease_entry(lease), _args.integer("offset", offset, 0, OFFSET_MAX), sent, piece)

    def decode(replies: Sequence[Reply]) -> int:
        reply = replies[0]
        match _args.tag_of(script, reply, lease.job_id):
            case "APPENDED":
                return int(reply[1])
            case "OFFSET_GAP":
                raise OffsetGap(lease.job_id, lease.fence, int(reply[1]))
        raise leases.refusal(lease, "append_log", reply)

    return _args.simple("append_log", root, now_ms, [entry], decode, size_bytes=COPIES * len(piece))


def read(root: str, job_id: str, *, offset: int = 0, limit: int = READ_BYTES, now_ms: int = 0) -> Call[LogPart]:
    """Read up to `limit` bytes of a job's log, and never less than a character. Raises `JobNotFound`."""
    script = load("read_log")
    name = _args.job_name(job_id)
    _args.integer("offset", offset, 0, OFFSET_MAX)
    _args.integer("limit", limit, 1, CHUNK_BYTES_MAX)

    def decode(replies: Sequence[Reply]) -> LogPart:
        reply = replies[0]
        _args.tag_of(script, reply, name)
        _, status, first, last, missing, data = reply
        ended = JobStatus(status.decode()) in TERMINAL
        begins, kept = _characters(data, limit, is_end=ended and int(first) + len(data) == int(last))
        following = int(first) + begins + len(kept)
        return LogPart(
            data=kept.decode(errors="replace"),
            offset=int(first) + begins,
            next_offset=following,
            complete=ended and following == int(last),
            truncated=missing == b"1",
        )

    # Room for a character that the limit cuts, and for what a cut left of one at the beginning.
    most = limit + CHARACTER_BYTES_MAX
    return _args.simple("read_log", root, now_ms, [(name, offset, most)], decode, size_bytes=most)


def _characters(data: bytes, limit: int, *, is_end: bool) -> tuple[int, bytes]:
    """Return where the first character of `data` begins, and as many whole ones as `limit` lets; one at least.

    What a cut left of a character at the beginning is passed over. At the end it waits for the rest to come, unless
    nothing comes any more. What is no UTF-8 counts as characters of one byte.
    """
    begins = 0
    while begins < min(3, len(data)) and data[begins] & 0xC0 == 0x80:
        begins += 1
    rest = data[begins:]
    ends = min(limit, len(rest))
    if ends == len(rest) and is_end:
        return begins, rest
    head = _head_before(rest, ends)
    if head == 0:
        # The limit is shorter than the first character, or all of it has not come yet.
        head = next((n for n in range(1, CHARACTER_BYTES_MAX + 1) if n <= len(rest) and _head_before(rest, n) == n), 0)
    return begins, rest[:head]


def _head_before(data: bytes, ends: int) -> int:
    """Return the last place up to `ends` that is not inside a character."""
    for back in range(1, min(CHARACTER_BYTES_MAX - 1, ends) + 1):
        first = data[ends - back]
        if first & 0xC0 == 0x80:
            continue
        wants = 4 if first & 0xF8 == 0xF0 else 3 if first & 0xF0 == 0xE0 else 2 if first & 0xE0 == 0xC0 else 1
        return ends - back if wants > back else ends
    return ends
