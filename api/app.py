"""Puts the server together: settings, plane, routes, figures, traces; and what happens before the first request.

```
settings ─► Plane (Redis, queues, loops) ─┬─► build(TABLE) ─► Litestar ─► Observed ─► the wire
                                          └─► Figures, Probe
```
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import pkgutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog
from litestar import Litestar
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from hybridq import HybridqError, RedisUnavailable
from hybridq.doctor import Level, examine

from . import routes
from .http.app import build
from .http.exchange import exchange_of
from .http.route import TABLE
from .metrics import POOLS_MAX, Metrics, QueueFigures
from .plane import Plane
from .settings import Settings, SettingsError, environment_of
from .signatures import verify
from .tracing import Tracer, tracer_of

__all__ = ["admin_credentials", "create_app", "metrics_app"]

log = structlog.get_logger("hybridq")
T = TypeVar("T")

FIGURES_FRESH_S: Final = 1.0
FIGURES_WITHIN_S: Final = 5.0
PROBE_FRESH_S: Final = 0.5
LEFT: Final = 499
"""Status of a request whose client left before the answer."""
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def create_app(settings: Settings | None = None) -> Litestar:
    """Return the server's app. Its lifespan opens and closes everything; None: settings from the environment.

    Raises `SettingsError`, and what the library raises where Redis cannot be used at all.
    """
    if settings is None:
        settings = Settings.from_environment(environment_of(os.environ, Path.cwd()))
    tracer = tracer_of()
    plane = Plane(redis=settings.redis_url, data_dir=settings.data_dir, namespace=settings.namespace)
    for module in pkgutil.iter_modules(routes.__path__):
        importlib.import_module(f"{routes.__name__}.{module.name}")
    metrics = Metrics(parked=lambda: plane.parked)
    app = build(
        TABLE,
        plane=plane,
        settings=settings,
        verify=verify,
        lifespan=[lambda app: _living(plane, settings, tracer)],
    )
    app.state.plane, app.state.settings, app.state.metrics = plane, settings, metrics
    app.state.figures, app.state.probe = Figures(plane), Probe(plane)
    app.asgi_handler = Observed(app.asgi_handler, metrics, tracer)
    return app


@contextlib.asynccontextmanager
async def _living(plane: Plane, settings: Settings, tracer: Tracer | None) -> AsyncIterator[None]:
    try:
        if settings.production:
            await _must_be_fit(plane)
        await plane.start()
        yield
    finally:
        await plane.close()
        if tracer is not None:
            await asyncio.to_thread(tracer.close)


async def admin_credentials(plane: Plane, settings: Settings, url: str) -> tuple[str, str]:
    """Return a link that signs an admin in, once, and an admin's key for a day: for development alone."""
    made = await plane.access.create_key(
        "development", scopes=["*"], namespace=settings.namespace, lasts_s=86_400, created_by="developer"
    )
    assert made.text is not None
    login = await plane.access.make_login_token("developer", role="admin", namespace=settings.namespace)
    return f"{url}/#login_token={login}", made.text


async def _must_be_fit(plane: Plane) -> None:
    """Raise `SettingsError` for a Redis that would lose jobs; what is only risky is logged."""
    connector = plane.backend.connector
    if connector.safe_url.startswith("memory:"):
        raise SettingsError("HYBRIDQ_REDIS_URL: production needs a Redis; there is none here but one in memory")
    report = await asyncio.to_thread(examine, connector, production=True)
    for finding in report.findings:
        if finding.level is Level.WARN:
            log.warning("redis.risky", check=finding.check, found=finding.message, advice=finding.advice)
    refused = [finding for finding in report.findings if finding.level is Level.REFUSE]
    if refused:
        raise SettingsError(
            *(f"HYBRIDQ_REDIS_URL: {report.url}: {one.check}: {one.message}; {one.advice}" for one in refused)
        )


class Observed:
    """Counts and times every request, and puts a span around it. Outermost: a span's id is the request's trace."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracer: Tracer | None) -> None:
        self._app, self._metrics, self._tracer = app, metrics, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        with contextlib.nullcontext() if self._tracer is None else self._tracer.request(scope) as span:
            try:
                await self._app(scope, receive, send)
            finally:
                exchange = exchange_of(scope)
                # The template and never the path: that would make a series of every id.
                route, status = exchange.route or "-", exchange.status or LEFT
                method = scope["method"] if scope["method"] in METHODS else "-"
                self._metrics.observe(method, route, status, time.perf_counter() - begun)
                if span is not None:
                    span.answered(method, route, status)


class _Shared:
    """One answer for all who ask within a moment, so that scrapes and probes are no way to load Redis."""

    def __init__(self, fresh_s: float) -> None:
        self._fresh_s = fresh_s
        self._kept: dict[Any, tuple[float, asyncio.Task[Any]]] = {}

    async def get(self, key: Any, ask: Callable[[], Awaitable[T]]) -> T:
        now = time.monotonic()
        at, task = self._kept.get(key, (0.0, None))
        if task is None or (task.done() and now - at > self._fresh_s):
            for old in [one for one, (asked_at, _) in self._kept.items() if now - asked_at > 60]:
                del self._kept[old]
            task = asyncio.ensure_future(_as_coroutine(ask))
            self._kept[key] = (now, task)
        answer: T = await asyncio.shield(task)
        return answer


async def _as_coroutine(ask: Callable[[], Awaitable[T]]) -> T:
    return await ask()


class Probe:
    """Whether Redis answers a script."""

    def __init__(self, plane: Plane) -> None:
        self._plane, self._shared = plane, _Shared(PROBE_FRESH_S)

    async def ask(self) -> None:
        """Raise what Redis or its scripts have against it."""
        await self._shared.get(None, self._plane.fleet(self._plane.namespace).queues)


class Figures:
    """Reads the queues and agents of a namespace for a scrape, in one batch."""

    def __init__(self, plane: Plane) -> None:
        self._plane, self._shared = plane, _Shared(FIGURES_FRESH_S)

    async def read(self, namespace: str, allows_pool: Callable[[str], bool] | None) -> QueueFigures:
        """Return the figures of the pools allowed (None: all, and agents); those of a Redis that is away say so."""
        try:
            async with asyncio.timeout(FIGURES_WITHIN_S):
                pools = await self._plane.known_pools(namespace)
                shown = pools if allows_pool is None else tuple(pool for pool in pools if allows_pool(pool))
                with_agents = allows_pool is None
                return await self._shared.get(
                    (namespace, shown, with_agents), lambda: self._read(namespace, shown, with_agents)
                )
        except (RedisUnavailable, TimeoutError):
            return QueueFigures(reachable=False)
        except HybridqError as problem:
            log.warning("metrics.unreadable", error_type=type(problem).__name__)
            return QueueFigures(reachable=False)

    async def _read(self, namespace: str, pools: tuple[str, ...], with_agents: bool) -> QueueFigures:
        shown = pools[:POOLS_MAX]
        # Sent in one turn of the loop, so they travel together.
        agents = asyncio.ensure_future(self._plane.fleet(namespace).counts()) if with_agents else None
        stats = await asyncio.gather(*(self._plane.queue(namespace, pool).stats() for pool in shown))
        counts = {} if agents is None else await agents
        return QueueFigures(
            reachable=True,
            pools=dict(zip(shown, stats, strict=True)),
            pools_left_out=len(pools) - len(shown),
            agents={str(status): count for status, count in counts.items()},
        )


def metrics_app(app: Litestar) -> ASGIApp:
    """Return the app of the metrics port: `GET /metrics` of the server's own namespace, and nothing else."""
    settings, metrics, figures = app.state.settings, app.state.metrics, app.state.figures

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            return
        found = scope["method"] in ("GET", "HEAD") and scope["path"] == "/metrics"
        body, content_type = b"not found\n", "text/plain; charset=utf-8"
        if found:
            accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
            body, content_type = metrics.text(await figures.read(settings.namespace, None), accept)
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200 if found else 404, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return answer
