"""What a handler hands back, and how it goes out."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import msgspec
import structlog
from litestar.types import Receive, Send

from .problems import RETRY_S, Problem, oauth_body

__all__ = ["JSON", "Answer", "Stream", "answer_of", "etag_of"]

JSON: Final = "application/json"
PROBLEM_JSON: Final = "application/problem+json"
EVENTS: Final = "text/event-stream; charset=utf-8"
SLOW_CLIENT_S: Final = 30.0
"""How long a client may take nothing of a stream before it is cut off."""

_log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode


class Answer:
    """A whole answer: a Struct or plain values; or bytes or text of a `media_type`, as they are; or nothing (None)."""

    __slots__ = ("body", "cookies", "headers", "media_type", "status")

    def __init__(
        self,
        value: Any = None,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        *,
        media_type: str | None = None,
        cookies: tuple[str, ...] = (),
    ) -> None:
        self.status = status
        self.headers = dict(headers or {})
        self.cookies = cookies
        """Values of Set-Cookie."""
        if value is None:
            self.body, self.media_type = b"", media_type
        elif media_type is not None and isinstance(value, bytes | str):
            self.body, self.media_type = value.encode() if isinstance(value, str) else value, media_type
        else:
            self.body, self.media_type = _encode(value), media_type or JSON


class Stream:
    """An answer that goes on: each item of `chunks` is sent when it comes; it is closed when the client goes away."""

    __slots__ = ("chunks", "headers", "media_type", "status")

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        *,
        media_type: str = EVENTS,
    ) -> None:
        self.chunks, self.status, self.media_type = chunks, status, media_type
        self.headers = dict(headers or {})


def answer_of(problem: Problem, request_id: str, *, oauth: bool = False) -> Answer:
    """Return a problem as an answer: problem details, or OAuth's words for the route that speaks them."""
    headers = problem.headers
    if problem.status in (429, 503, 507):
        headers = {"Retry-After": str(RETRY_S)} | headers
    if oauth:
        return Answer(oauth_body(problem), problem.status, headers)
    return Answer(problem.body(request_id), problem.status, headers, media_type=PROBLEM_JSON)


def etag_of(*parts: object) -> str:
    """Return a strong entity tag that changes when one of the parts does."""
    digest = hashlib.sha256(_encode([str(part) for part in parts])).hexdigest()
    return f'"{digest[:32]}"'


async def send_answer(answer: Answer, send: Send) -> None:
    """Send it in two messages."""
    headers = _raw(answer.headers)
    headers.extend((b"set-cookie", cookie.encode("latin-1")) for cookie in answer.cookies)
    if answer.status not in (204, 304):
        headers.append((b"content-length", str(len(answer.body)).encode()))
        if answer.media_type is not None and answer.body:
            headers.append((b"content-type", answer.media_type.encode("latin-1")))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})


async def send_stream(stream: Stream, receive: Receive, send: Send) -> None:
    """Send chunk by chunk until they end or the client goes away; either way the iterator is closed.

    A stream that breaks is left unfinished, so the client sees it as cut off rather than as complete.
    """
    headers = [*_raw(stream.headers), (b"content-type", stream.media_type.encode("latin-1"))]
    sending = asyncio.create_task(_send_chunks(stream, headers, send))
    leaving = asyncio.create_task(wait_for_disconnect(receive))
    try:
        await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, leaving):
            task.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)
        close = getattr(stream.chunks, "aclose", None)
        if close is not None:
            with contextlib.suppress(Exception):
                await close()
    if not sending.cancelled() and (error := sending.exception()) is not None:
        _log.error("http.stream_broke", component="api", error=type(error).__name__)


async def _send_chunks(stream: Stream, headers: list[tuple[bytes, bytes]], send: Send) -> None:
    await send({"type": "http.response.start", "status": stream.status, "headers": headers})
    async for chunk in stream.chunks:
        async with asyncio.timeout(SLOW_CLIENT_S):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has gone; the body must have been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
