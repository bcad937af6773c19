"""Around everything, also around what the router refuses: ids, limits on headers, security headers, the access log."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Sequence
from typing import Any, Final

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from .answer import answer_of, send_answer
from .exchange import Exchange, Proxies, header, open_exchange
from .pipeline import problem_of_exception
from .problems import Problem

__all__ = ["CSP", "Shell"]

HEADERS_MAX: Final = 100
HEADER_BYTES_MAX: Final = 16 * 1024
CSP: Final = "default-src 'none'; frame-ancestors 'none'"

_DEFAULTS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", CSP.encode()),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
"""Headers of every answer; one that the answer has itself stands."""
_HSTS: Final = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")

_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?")

_log = structlog.get_logger()


class Shell:
    """The outermost ASGI application."""

    def __init__(self, app: ASGIApp, *, proxies: Proxies, hosts: Sequence[str] = ()) -> None:
        self._app, self._proxies = app, proxies
        self._hosts = frozenset(host for host in hosts if not host.startswith("*."))
        self._domains = tuple(host[1:] for host in hosts if host.startswith("*."))
        self._processors: Any = None
        self._logger: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; other kinds of connections are closed."""
        if scope["type"] != ScopeType.HTTP:
            await send({"type": "websocket.close", "code": 1000, "reason": None})
            return
        began = time.perf_counter()
        exchange = open_exchange(scope, self._proxies)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=exchange.request_id, trace_id=exchange.trace_id)

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = _seal(list(message["headers"]), exchange)
            await send(message)

        try:
            await self._serve(scope, receive, sealed, exchange)
        finally:
            self._tell(scope, exchange, time.perf_counter() - began)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        try:
            _check_headers(scope)
            _check_path(scope)
            self._check_host(scope)
            await self._app(scope, receive, send)
        except Exception as error:
            problem = problem_of_exception(error)
            if not exchange.status:  # else the answer has begun: the server cuts it off
                await send_answer(answer_of(problem, exchange.request_id), send)

    def _check_host(self, scope: Scope) -> None:
        """Refuse names that are not ours: a page of somebody else may have made them lead here."""
        if not self._hosts and not self._domains:
            return
        host = _HOST.fullmatch(header(scope["headers"], b"host") or b"")
        name = (host[1] or host[2]).decode("ascii").lower() if host else ""
        if name not in self._hosts and not name.endswith(self._domains):
            raise Problem("bad_request", "This server does not answer to this Host.")

    def _tell(self, scope: Scope, exchange: Exchange, took_s: float) -> None:
        status = exchange.status or 499
        method: Any = scope.get("method", "-")
        method = method if method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS") else "-"
        route = exchange.route or "-"
        logger = self._bound()
        log = logger.error if status >= 500 else logger.info
        log(
            "http.request",
            component="api",
            method=method,
            route=route,
            status=status,
            took_s=round(took_s, 6),
            credential_id=exchange.credential_id,
        )

    def _bound(self) -> Any:
        """Return a logger that is bound once for each way of logging, instead of once for each line."""
        processors = structlog.get_config()["processors"]
        if processors is not self._processors:
            self._processors, self._logger = processors, _log.bind()
        return self._logger


def _check_headers(scope: Scope) -> None:
    headers: Any = scope["headers"]
    if len(headers) > HEADERS_MAX or sum(map(len, itertools.chain.from_iterable(headers))) > HEADER_BYTES_MAX:
        raise Problem("headers_too_large", headers={"Connection": "close"})


def _check_path(scope: Scope) -> None:
    """Refuse spellings that a router would fold into another path: what is looked up is what was asked for."""
    path: str = scope["path"]
    raw: bytes = scope.get("raw_path") or b""
    if (path != "/" and path.endswith("/")) or "//" in path or b"%2f" in raw.lower():
        raise Problem("not_found")


def _seal(headers: list[tuple[bytes, bytes]], exchange: Exchange) -> list[tuple[bytes, bytes]]:
    found = [(name, value) for name, value in headers if name != b"server"]
    names = {name for name, _ in found}
    found += [default for default in _DEFAULTS if default[0] not in names]
    if exchange.scheme == "https":
        found.append(_HSTS)
    found += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in exchange.headers]
    found.append((b"x-request-id", exchange.request_id.encode("ascii")))
    found.append((b"traceparent", exchange.traceparent.encode("ascii")))
    return found
