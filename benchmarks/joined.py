"""The least client: calls of one loop turn are written together on one connection. What Python can do at best."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Self
from urllib.parse import urlsplit

import hiredis


class Joined(asyncio.Protocol):
    """One connection; `call` returns a future of the reply."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None

    @classmethod
    async def to(cls, url: str) -> Self:
        """Connect to a server on a port, or a socket file."""
        loop, parts = asyncio.get_running_loop(), urlsplit(url)
        if parts.scheme == "unix":
            _, protocol = await loop.create_unix_connection(cls, parts.path)
        else:
            _, protocol = await loop.create_connection(cls, parts.hostname or "localhost", parts.port or 6379)
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._waiting.popleft().set_result(reply)

    def call(self, *words: Any) -> asyncio.Future[Any]:
        """Send a command with the others of this turn."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(hiredis.pack_command(words))
        future = self._loop.create_future()
        self._waiting.append(future)
        return future

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))
        self._out.clear()

    def close(self) -> None:
        self._transport.close()
