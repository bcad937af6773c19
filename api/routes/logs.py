"""What jobs say: their holders write it piece by piece, others read it, or follow it as it grows.

Secrets are taken out of a piece before it is stored, and yet offsets count it as it was sent: a sender never needs to
know. Who follows looks into Redis only while nothing comes from this process, and not at all when nobody follows.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

import hybridq as hq
from hybridq import guard

from ..bodies import LOG_CHUNK_BYTES_MAX, Log, LogQuery
from ..following import following_of
from ..http.answer import Answer, Stream
from ..http.problems import Problem
from ..http.request import Request
from ..http.route import route
from ..parking import refuse_while_stopping
from ..reach import conflicts_of, leased, queue_behind
from ..streams import HEADERS, PING_S, RETRY_MS, Streams, bad_last_event_id, is_admitted, last_event_id, streams_of

__all__ = ["PART_BYTES", "POLL_S"]

BODY_BYTES_MAX: Final = 2 * 1024 * 1024
READ_BYTES: Final = 262_144
PART_BYTES: Final = 65_536
"""Of an event of a stream."""
POLL_S: Final = 1.0
"""How often a stream looks for what came by way of other processes."""
_encode = msgspec.json.Encoder().encode


class LogWritten(msgspec.Struct, frozen=True, kw_only=True):
    """Where the next piece of this lease begins, in bytes of UTF-8 as they are sent."""

    next_offset: int
    redactions: int | UnsetType = UNSET
    """How many secrets were taken out of the piece."""


class LogRead(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a log. `complete`: the job has ended and nothing comes after; `truncated`: the log lacks something."""

    data: str
    offset: int
    next_offset: int
    complete: bool
    truncated: bool


# -- write -----------------------------------------------------------------------------------------------------


@route(
    "POST",
    "/api/queue/jobs/{id:full_id}/logs",
    scope="queue:claim",
    agents=True,
    rate="report",
    body=Log,
    body_bytes_max=BODY_BYTES_MAX,
    answers={200: LogWritten},
    problems=["job_not_found", "not_lease_holder", "offset_gap", "queue_full", "stale_lease"],
    guard="redact",
    summary="Write a piece of a job's log; the same piece again is ignored.",
    description=(
        "`offset` counts the bytes of UTF-8 that were sent under this lease; a gap is 409 with the offset `expected`. "
        "A piece has at most 1,048,576 of them. Secrets are taken out of each piece by itself, so send whole lines. "
        "What comes when the log has reached its limit is taken and not stored."
    ),
    tags=["queue"],
    examples={"body": {"lease_token": "3686400000001." + "0" * 32, "offset": 0, "data": "compiling\n"}},
)
async def write_log(request: Request) -> Answer:
    body: Log = request.body
    sent = _sent(request)
    queue, proof = await leased(request, body.lease_token)
    with conflicts_of(queue.name):
        try:
            following = await queue.append_log(proof, body.offset, body.data, sent_bytes=len(sent))
        except hq.OffsetGap as gap:
            if not body.offset < gap.expected < body.offset + len(sent):
                raise
            # A repeat with more behind it, from which something was taken out: what is new is looked at by itself.
            new = sent[gap.expected - body.offset :].decode(errors="replace")
            data, _ = await asyncio.to_thread(guard.redact, new)
            rest = body.offset + len(sent) - gap.expected
            following = await queue.append_log(proof, gap.expected, data, sent_bytes=rest)
    following_of(request.plane).wake(queue.namespace, queue.name, proof.job_id)
    return Answer(LogWritten(next_offset=following, redactions=request.redactions or UNSET))


def _sent(request: Request) -> bytes:
    """Return the piece as it was sent. Raises 413 for one that is too long."""
    data = request.body.data
    if request.redactions:
        data = msgspec.json.decode(request.raw_body, type=_Sent).data
    sent: bytes = data.encode()
    if len(sent) > LOG_CHUNK_BYTES_MAX:
        raise Problem(
            "payload_too_large",
            errors=[("/data", f"at most {LOG_CHUNK_BYTES_MAX} bytes of UTF-8")],
            limit_bytes=LOG_CHUNK_BYTES_MAX,
        )
    return sent


class _Sent(msgspec.Struct):
    data: str


# -- read ------------------------------------------------------------------------------------------------------


@route(
    "GET",
    "/api/queue/jobs/{id:full_id}/logs",
    scope="queue:read",
    query=LogQuery,
    answers={200: LogRead},
    streams=True,
    problems=["job_not_found", "stopping", "too_many_streams"],
    summary="Read a part of a job's log, or follow it to its end as server-sent events.",
    description=(
        "Offsets are bytes of UTF-8 in the log as it is stored: all attempts of the job, one after the other, each "
        "later one begun by a line of the server's. With `follow=true` each event's `data` is a part as it is "
        "answered otherwise, and its `id` is that part's `next_offset`: sent back as `Last-Event-ID` it goes on there. "
        "The stream ends after the part that is `complete`."
    ),
    tags=["queue"],
    examples={"query": {"offset": 0, "limit": 65536}},
)
async def read_log(request: Request) -> Answer | Stream:
    query: LogQuery = request.query
    if query.follow:
        return await _follow(request)
    queue, job_id = await queue_behind(request)
    part = await queue.read_log(job_id, offset=query.offset, limit=query.limit or READ_BYTES)
    return Answer(_view(part))


def _view(part: hq.LogPart) -> LogRead:
    return LogRead(
        data=part.data,
        offset=part.offset,
        next_offset=part.next_offset,
        complete=part.complete,
        truncated=part.truncated,
    )


# -- follow ----------------------------------------------------------------------------------------------------


async def _follow(request: Request) -> Stream:
    refuse_while_stopping(request.plane)
    offset = _offset_of(request)
    queue, job_id = await queue_behind(request)
    first = await queue.read_log(job_id, offset=offset, limit=PART_BYTES)
    streams = streams_of(request.plane)
    streams.admit(request.credential.id)
    return Stream(_Followed(request, queue, job_id, first, streams), headers=HEADERS)


def _offset_of(request: Request) -> int:
    """Return where to begin: after the last event that a client heard, else where it says."""
    after = last_event_id(request)
    if after is None:
        offset: int = request.query.offset
        return offset
    if re.fullmatch(r"0|[1-9][0-9]{0,15}", after) is None or int(after) >= 2**53:
        raise bad_last_event_id()
    return int(after)


class _Followed:
    """The chunks of one stream: the log's parts as they come. It is closed in any case."""

    def __init__(
        self, request: Request, queue: hq.AsyncQueue, job_id: str, first: hq.LogPart, streams: Streams
    ) -> None:
        self._request, self._queue, self._job_id, self._streams = request, queue, job_id, streams
        self._news = asyncio.Event()
        self._closed = False
        self._chunks = self._tell(first)
        streams.sources.add(self)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return await self._chunks.__anext__()

    async def close(self) -> None:
        """Let the stream end: the server stops."""
        self._closed = True
        self._news.set()

    async def aclose(self) -> None:
        """Follow no more, and count one stream less."""
        if self in self._streams.sources:
            self._streams.sources.discard(self)
            self._streams.dismiss(self._request.credential.id)
            await self.close()
            await self._chunks.aclose()

    async def _tell(self, part: hq.LogPart) -> AsyncGenerator[bytes, None]:
        """Yield the parts of the log as they come, and a comment when there was none for a while."""
        loop, queue = asyncio.get_running_loop(), self._queue
        # With an id from the start, a client that heard nothing before its connection broke goes on here.
        yield f"retry: {RETRY_MS}\nid: {part.offset}\n\n".encode()
        ping_at = loop.time() + PING_S
        with following_of(self._request.plane).listen(queue.namespace, queue.name, self._job_id, self._news):
            while True:
                if part.data or part.complete:
                    yield b"id: %d\ndata: %b\n\n" % (part.next_offset, _encode(_view(part)))
                if part.complete or self._closed:
                    return
                if loop.time() >= ping_at:
                    if not await is_admitted(self._request):
                        return
                    yield b": ping\n\n"
                    ping_at = loop.time() + PING_S
                if not part.data:
                    await self._wait(min(POLL_S, max(0.0, ping_at - loop.time())))
                part = await self._next(part)

    async def _wait(self, wait_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._news.wait()

    async def _next(self, part: hq.LogPart) -> hq.LogPart:
        """Return the part that follows; an empty one while Redis is away."""
        self._news.clear()
        try:
            return await self._queue.read_log(self._job_id, offset=part.next_offset, limit=PART_BYTES)
        except hq.JobNotFound:
            self._closed = True
        except hq.HybridqError:
            pass
        return hq.LogPart(data="", offset=part.next_offset, next_offset=part.next_offset)
