"""Runs the app: one process, one event loop, from the first bound port to the last answered request.

```
signal ─► what runs beside the server ends (`hybridq up`: its agents are drained)
       ─► stopping is set: /health/ready says no, new claims 503, parked claims and streams are answered
       ─► HYBRIDQ_DRAIN_SECONDS pass, parked claims are gone
       ─► the server listens no more and sees through what is under way
       ─► the app's lifespan ends: loops, connections, private server
second signal ─► what is under way is cut off, the lifespan ends
third ─► the process is gone
```
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, Self

import msgspec
import structlog
import uvicorn
from litestar import Litestar

from hybridq import HybridqError

from . import logs
from .app import admin_credentials, create_app, metrics_app
from .plane import Plane
from .settings import Settings, SettingsError, strangers
from .wire import BoundedProtocol

__all__ = ["Beside", "Engine", "Listening", "NotListening", "run"]

log = structlog.get_logger("hybridq")

Engine = Literal["uvicorn", "granian"]
BACKLOG: Final = 2_048
KEEP_ALIVE_S: Final = 75
"""Longer than balancers keep idle connections, so that the balancer is the one to close them."""
PARKED_GONE_S: Final = 5.0
IN_FLIGHT_S: Final = 15
UP_WITHIN_S: Final = 20.0
OPEN_FILES: Final = 65_536
GARBAGE_AFTER: Final = (10_000, 10, 10)
"""Objects that must have come to stay before the collector looks at the young, the middle-aged and all."""


class NotListening(HybridqError):
    """The port cannot be listened on."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        self.host, self.port, self.reason = host, port, reason
        super().__init__(f"cannot listen on {host}:{port}: {reason}; --port takes another, 0 a free one")


class Listening(msgspec.Struct, frozen=True, kw_only=True):
    """What is there now. `login_url` (once) and `key` are an admin's, with `HYBRIDQ_DEV` only."""

    url: str
    redis: str
    environment: str
    engine: Engine
    metrics_url: str | None = None
    login_url: str | None = None
    key: str | None = None


Beside = Callable[[Listening], contextlib.AbstractAsyncContextManager[Any]]
"""What is entered when requests are answered, and left before they no longer are."""


def run(
    settings: Settings,
    *,
    engine: Engine = "uvicorn",
    environ: Mapping[str, str] | None = None,
    announce: Callable[[Listening], None],
    beside: Beside | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT; `announce` is called when requests are answered. Returns the exit code.

    Raises `SettingsError`, `NotListening`, and whatever makes Redis unusable.
    """
    logs.configure(settings)
    for name in strangers(environ or {}):
        log.warning("settings.unknown", variable=name)
    _allow_many_connections()
    factory = uvicorn.Config("", loop="auto", log_config=None).get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_run(settings, engine, announce, beside))


async def _run(settings: Settings, engine: Engine, announce: Callable[[Listening], None], beside: Beside | None) -> int:
    stop = _Stop()
    try:
        with stop.on_signals(), _bound(settings.host, settings.port) as door:
            app = create_app(settings)
            async with app.lifespan():
                stop.cancels = False
                await _serve(app, settings, engine, door, stop, announce, beside)
    except asyncio.CancelledError:
        if not stop.signals:
            raise
        log.warning("server.cut_off")
    except BaseExceptionGroup as group:
        raise _only(group) from None
    log.info("server.stopped")
    return 128 + stop.signals[1] if len(stop.signals) > 1 else 0


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what a group holds when that is one error: the framework wraps what ends its lifespan."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        [error] = error.exceptions
    return error


async def _serve(
    app: Litestar,
    settings: Settings,
    engine: Engine,
    door: socket.socket,
    stop: _Stop,
    announce: Callable[[Listening], None],
    beside: Beside | None,
) -> None:
    plane: Plane = app.state.plane
    async with contextlib.AsyncExitStack() as stack:
        serving: _Uvicorn | _Granian
        serving = _Uvicorn(app, settings, door) if engine == "uvicorn" else _Granian(app, settings, door)
        await stack.enter_async_context(serving)
        url = _url(settings, serving.port)
        listening = Listening(
            url=url, redis=plane.backend.connector.safe_url, environment=settings.environment, engine=engine
        )
        if settings.metrics_port is not None:
            metrics_door = stack.enter_context(_bound(settings.host, settings.metrics_port))
            metrics = await stack.enter_async_context(_Uvicorn(metrics_app(app), settings, metrics_door))
            listening = msgspec.structs.replace(listening, metrics_url=f"{_url(settings, metrics.port)}/metrics")
        log.info("server.listening", url=url, redis=listening.redis, environment=settings.environment, engine=engine)
        if settings.dev:
            login_url, key = await admin_credentials(plane, settings, url)
            listening = msgspec.structs.replace(listening, login_url=login_url, key=key)
        _keep_what_is_there()
        announce(listening)
        async with contextlib.nullcontext() if beside is None else beside(listening):
            await stop.asked.wait()
        log.info("server.stopping", parked=plane.parked, drain_s=settings.drain)
        plane.stop()
        await _drain(plane, settings.drain)


async def _drain(plane: Plane, drain_s: float) -> None:
    """Give balancers their time, and parked claims theirs to be answered."""
    loop = asyncio.get_running_loop()
    end = loop.time() + drain_s
    while loop.time() < end or (plane.parked and loop.time() < end + PARKED_GONE_S):
        await asyncio.sleep(0.02)


class _Stop:
    """The signals that came. While `cancels`, nothing has begun that deserves to be finished."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.asked = asyncio.Event()
        self.cancels = True

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        loop, main = asyncio.get_running_loop(), asyncio.current_task()
        assert main is not None

        def take(number: int) -> None:
            self.signals.append(number)
            self.asked.set()
            if len(self.signals) > 2:
                os._exit(128 + number)
            if len(self.signals) > 1 or self.cancels:
                # Every request that is cut off would be told with a traceback.
                logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
                main.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, take, number)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


# -- the two engines ---------------------------------------------------------------------------------------


class _Uvicorn(uvicorn.Server):
    """uvicorn on a bound socket, within our loop and under our signals: listening between enter and exit."""

    def __init__(self, app: Any, settings: Settings, door: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=BoundedProtocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=IN_FLIGHT_S,
                ssl_certfile=settings.tls_cert,
                ssl_keyfile=settings.tls_key,
            )
        )
        self._door = door
        self.port: int = door.getsockname()[1]
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as wrong:
            host, port = self._door.getsockname()[:2]
            raise NotListening(host, port, wrong.strerror or str(wrong)) from wrong
        self._up.set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.serve(sockets=[self._door]))
        up = asyncio.create_task(self._up.wait())
        await asyncio.wait({self._task, up}, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._task is not None
        self.should_exit = True
        if kind is not None:
            self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError) if kind is not None else contextlib.nullcontext():
            await self._task


class _Granian:
    """granian's server, within our loop. It binds by itself, so the socket only tells it where."""

    def __init__(self, app: Any, settings: Settings, door: socket.socket) -> None:
        try:
            from granian.constants import Interfaces
            from granian.server.embed import Server
        except ModuleNotFoundError:
            raise SettingsError("--server granian: is not installed: pip install 'hybridq[granian]'") from None
        address, self.port = door.getsockname()[:2]
        door.close()
        self._server: Any = Server(
            app,
            address=address,
            port=self.port,
            interface=Interfaces.ASGINL,
            websockets=False,
            backlog=BACKLOG,
            log_enabled=False,
            ssl_cert=settings.tls_cert,
            ssl_key=settings.tls_key,
        )
        self._address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
        self._context = ssl._create_unverified_context() if settings.tls else None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._server.serve())
        async with asyncio.timeout(UP_WITHIN_S):
            while not self._task.done() and not await self._answers():
                await asyncio.sleep(0.02)
        return self

    async def _answers(self) -> bool:
        """Whether it is up: it does not say so."""
        try:
            reader, writer = await asyncio.open_connection(self._address, self.port, ssl=self._context)
            try:
                writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return (await reader.read(12)).startswith(b"HTTP/1.1 200")
            finally:
                writer.close()
                await writer.wait_closed()
        except OSError:
            return False

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._server.stop()
        await self._task


# -- sockets -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that has the port and does not listen yet. Raises `NotListening`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        door = socket.socket(family, kind, protocol)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(address)
    except OSError as wrong:
        raise NotListening(host, port, wrong.strerror or str(wrong)) from wrong
    with door:
        yield door


def _url(settings: Settings, port: int) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"{'https' if settings.tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _keep_what_is_there() -> None:
    """Have the collector look at requests' objects alone: modules and routes take it 60 ms, and nobody is served."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_AFTER)


def _allow_many_connections() -> None:
    """A parked claim is an open socket, and shells start processes with room for 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
