"""HTTP/1.1 as bytes: bounds on the head of a request, in size and in time, and refusals as problem documents.

uvicorn's parser takes a head of any length and waits for it for ever. What it refuses by itself it answers as text.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from typing import Final

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .http.problems import Problem

__all__ = ["BoundedProtocol"]

HEAD_BYTES_MAX: Final = 16_384
HEADERS_MAX: Final = 100
HEAD_WITHIN_S: Final = 10.0
BODY_SILENT_S: Final = 30.0
LEAVE_WITHIN_S: Final = 2.0


class _Refused(Exception):
    """Ends the parsing of a head that is over a bound."""


class BoundedProtocol(HttpToolsProtocol):
    """A connection whose client must send heads that are small and whole, and bodies that keep coming."""

    _refusal = "bad_request"
    _in_head = True
    _head_bytes = 0
    _field_bytes = 0
    _timer: asyncio.TimerHandle | None = None
    _leaving = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _send_at_once(transport)
        self._wait(HEAD_WITHIN_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._leaving:
            return
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._wait(HEAD_WITHIN_S)  # the first bytes of another request on a connection that was kept
        self._head_bytes += len(data)
        super().data_received(data)
        if self._leaving or self.transport.is_closing():
            return
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
            self._refusal = "headers_too_large"
            self.send_400_response("")
        elif not self._in_head and self.cycle is not None and self.cycle.more_body:
            self._wait(BODY_SILENT_S)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes, self._field_bytes = True, 1, 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > HEAD_BYTES_MAX:
            self._refuse("headers_too_large")

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._field_bytes += len(name) + len(value)
        if len(self.headers) > HEADERS_MAX or self._field_bytes > HEAD_BYTES_MAX:
            self._refuse("headers_too_large")

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._wait(None)
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            self._refuse("bad_request")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._wait(None)
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request. Where the answer to an earlier one is due, this would be taken for it."""
        self._wait(None)
        if self.cycle is not None and not self.cycle.response_complete:
            if self._in_head or self.pipeline or self.cycle.response_started:
                self.transport.close()
                return
            self.cycle.disconnected = True  # a body that is none: whoever reads it is told that nobody waits
            self.cycle.message_event.set()
        problem = Problem(self._refusal)
        request_id = secrets.token_hex(16)
        body = msgspec.json.encode(problem.body(request_id))
        head = (
            f"HTTP/1.1 {problem.status} {problem.kind.title}\r\n"
            f"content-type: application/problem+json\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {request_id}\r\nx-content-type-options: nosniff\r\ncache-control: no-store\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self._leave()

    def _leave(self) -> None:
        """Close our side and read on for a moment: what still comes in would else reset the answer on its way."""
        self._leaving = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._wait(LEAVE_WITHIN_S)
        else:
            self.transport.close()

    def _refuse(self, code: str) -> None:
        self._refusal = code
        raise _Refused

    def _wait(self, seconds: float | None) -> None:
        """Give the client so long for what it owes; None: it owes nothing now."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._tired)

    def _tired(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self._in_head and self._head_bytes and not self._leaving:
            self._refusal = "request_timeout"
            self.send_400_response("")
        else:
            self.transport.close()


def _send_at_once(transport: asyncio.Transport) -> None:
    """Have the second part of an answer not wait for the client's word that it has the first, which is 40 ms late.

    asyncio sees to that only for sockets that were made with the protocol named; one that was bound before may not be.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
