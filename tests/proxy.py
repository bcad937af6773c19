"""A network that breaks on demand: a proxy in front of a server, run by a daemon thread.

Every method may be called from any thread and is in force when it returns. The proxy knows nothing of
the protocol; a fault may wait for a request that contains certain bytes, such as `b"EVALSHA"`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

CHUNK_BYTES = 65_536
ANSWER_TIMEOUT_S = 10.0


class _Fault:
    """Cut the connection after `reply_bytes` of the reply to the next request holding `containing`."""

    def __init__(self, reply_bytes: int, containing: bytes) -> None:
        self.reply_bytes = reply_bytes
        self.containing = containing
        self.done = threading.Event()


class Proxy:
    """Listens on a loopback port and forwards to `target`, a `unix://path` or `redis://host:port` URL.

    `url` is where clients connect; `accepted` counts the connections there were.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._links: set[asyncio.Task[None]] = set()
        self._faults: list[_Fault] = []
        self._delay_s = 0.0
        self._port = 0
        self.accepted = 0

    @property
    def url(self) -> str:
        """Where clients connect instead of to the target."""
        return f"redis://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(ANSWER_TIMEOUT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(ANSWER_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ANSWER_TIMEOUT_S)
        self._loop.close()

    def cut(self) -> None:
        """Reset every open connection; new ones are served."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(ANSWER_TIMEOUT_S)

    def drop_next_reply(self, containing: bytes = b"", *, times: int = 1) -> threading.Event:
        """Forward the next request holding `containing`, then reset the connection in place of its reply.

        `times` requests in a row meet this. Returns an event that is set once it has happened to the last.
        """
        return self._arm([_Fault(0, containing) for _ in range(times)])

    def cut_reply_after(self, reply_bytes: int, containing: bytes = b"") -> threading.Event:
        """As `drop_next_reply`, but the first `reply_bytes` bytes of the reply still arrive."""
        return self._arm([_Fault(reply_bytes, containing)])

    def _arm(self, faults: list[_Fault]) -> threading.Event:
        last = faults[-1].done  # a request may take the fault out of the list at once
        self._call(lambda: setattr(self, "_faults", faults))
        return last

    def delay(self, reply_s: float) -> None:
        """Hold back every piece of a reply for `reply_s` seconds; 0 ends that."""
        self._call(lambda: setattr(self, "_delay_s", reply_s))

    def blackhole(self) -> None:
        """Connections stay open and new ones are accepted, but no byte passes until `heal`."""
        self._call(self._flow.clear)

    def heal(self) -> None:
        """Let everything pass again: no delay, no armed fault, and what was held back is delivered."""

        def heal() -> None:
            self._faults, self._delay_s = [], 0.0
            self._flow.set()

        self._call(heal)

    def _call(self, change: Callable[[], None]) -> None:
        async def run() -> None:
            change()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(ANSWER_TIMEOUT_S)

    async def _listen(self) -> None:
        self._flow = asyncio.Event()
        self._flow.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        await self._cut()

    async def _cut(self) -> None:
        links = tuple(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    def _link(self) -> _Link:
        """Return what carries one connection; a proxy that listens in has its own."""
        return _Link(self)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        self.accepted += 1
        # A cancelled link is one that was cut: it ends here, so that the loop has nothing to report.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._forward(reader, writer)
        writer.transport.abort()
        self._links.discard(link)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind, _, where = self._target.partition("://")
        if kind == "unix":
            server_reader, server_writer = await asyncio.open_unix_connection(where)
        else:
            host, _, port = where.partition(":")
            server_reader, server_writer = await asyncio.open_connection(host, int(port))
        link = self._link()
        pumps = [
            asyncio.ensure_future(link.requests(reader, server_writer)),
            asyncio.ensure_future(link.replies(server_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            server_writer.transport.abort()  # first, as a second cut may end the wait below
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)


class _Link:
    """The two directions of one connection. A direction that ends, ends the connection."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._fault: _Fault | None = None

    async def requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            await self._proxy._flow.wait()
            armed = self._proxy._faults
            if armed and armed[0].containing in chunk:
                self._fault = armed.pop(0)
            writer.write(chunk)
            await writer.drain()

    async def replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            await asyncio.sleep(self._proxy._delay_s)
            await self._proxy._flow.wait()
            fault = self._fault
            if fault is not None and len(chunk) >= fault.reply_bytes:
                writer.write(chunk[: fault.reply_bytes])
                await writer.drain()
                fault.done.set()
                return
            if fault is not None:
                fault.reply_bytes -= len(chunk)
            writer.write(chunk)
            await writer.drain()
