"""Requests on sockets of their own, by hand: thousands that wait at once, and connections that end as a test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: the end of a connection throws away what is under way and resets it."""


@dataclass(frozen=True)
class Reply:
    """What came back; names of headers in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


class Line:
    """One connection. `send` sends a request and returns; `reply` waits for the answer."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, method: str, path: str, body: Any, token: str) -> None:
        content = json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        self._writer.write(head.encode() + content)
        await self._writer.drain()

    async def reply(self) -> Reply:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Reply(int(first.split(" ")[1]), headers, body)

    async def ask(self, method: str, path: str, body: Any, token: str) -> Reply:
        await self.send(method, path, body, token)
        return await self.reply()

    async def close(self) -> None:
        """End it the polite way: FIN."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def reset(self) -> None:
        """End it as a crash may: RST."""
        with contextlib.suppress(OSError):  # it may be over already
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        await self.close()


def allow_open_files(wanted: int) -> None:
    """Let this process, and what it starts from now on, have that many open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )
