"""The way of one request through the checks, in the order of the contract, to its handler and back.

401 → 429 → 415/413 → 400 → 403 → secret guard 422 → handler.
"""

from __future__ import annotations

import asyncio
import json
import re
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, Final

import litestar
import structlog
from litestar.types import HTTPScope, Receive, Send

import hybridq as hq
from hybridq import guard

from .answer import Answer, Stream, answer_of, send_answer, send_stream
from .door import Door, check_scope
from .exchange import Exchange, exchange_of, header, headers_named
from .problems import RETRY_S, Problem, Reason, invalid, problem_of
from .request import ClientGone, Request
from .route import Route

__all__ = ["Pipeline", "Verify", "problem_of_exception"]

BODY_TIMEOUT_S: Final = 10.0
"""How long the next piece of a body may take."""
BODY_TOTAL_S: Final = 60.0
THREAD_BYTES_MIN: Final = 512 * 1024
"""A body of this size is read in a thread, so that other requests go on meanwhile."""

_JSON = re.compile(rb'application/json(?:[ \t]*;[ \t]*charset="?utf-?8"?)?[ \t]*', re.IGNORECASE)
_FORM = re.compile(rb'application/x-www-form-urlencoded(?:[ \t]*;[ \t]*charset="?utf-?8"?)?[ \t]*', re.IGNORECASE)
_LENGTH = re.compile(rb"[0-9]{1,18}")

Verify = Callable[[Request], Awaitable[None]]
"""Checks the signature of a request whose credential asks for one; raises 401 `signature_invalid`."""

_log = structlog.get_logger()


class Pipeline:
    """Carries requests of every route; one for an app."""

    def __init__(self, *, door: Door, plane: Any, settings: Any, verify: Verify | None = None) -> None:
        self._door, self._verify = door, verify
        self._plane, self._settings = plane, settings

    async def serve(self, route: Route, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        raw: litestar.Request[Any, Any, Any] = litestar.Request(scope, receive, send)
        exchange = exchange_of(raw.scope)
        exchange.route = route.template
        answer: Answer | Stream
        try:
            answer = await self._answer(route, raw, exchange)
        except ClientGone:
            return
        except Exception as error:
            answer = answer_of(problem_of_exception(error), exchange.request_id, oauth=route.form)
        if isinstance(answer, Stream):
            await send_stream(answer, receive, send)
        else:
            await send_answer(answer, send)

    async def _answer(self, route: Route, raw: litestar.Request[Any, Any, Any], exchange: Exchange) -> Answer | Stream:
        request = Request(raw, route, exchange, plane=self._plane, settings=self._settings)
        request.caller = await self._door.enter(route, request, exchange)
        request.raw_body = await read_body(route, raw)
        await self._check_signature(request)
        plain = await self._read(route, request)
        request.read_headers()
        self._door.check_browser(route, request)
        check_scope(route, request.caller)
        if len(request.raw_body) < THREAD_BYTES_MIN:
            apply_guard(route, request, plain)
        else:
            await asyncio.to_thread(apply_guard, route, request, plain)
        return await route.handler(request)

    async def _read(self, route: Route, request: Request) -> Any:
        """Fill body, query and path; return the plain values of the body."""
        plain: Any = {}
        body = request.raw_body
        if route.form_reader is not None:
            request.body = route.form_reader.read(body)
        elif body:
            if len(body) < THREAD_BYTES_MIN:
                document = route.body_reader.read(body)
            else:
                document = await asyncio.to_thread(route.body_reader.read, body)
            request.body, plain = document.value, document.plain
        elif route.empty_body_allowed:
            request.body = route.body_reader.decode(b"{}")
        else:
            raise invalid("", "a body is required")
        if route.body is None:
            request.body = None
        request.query = route.query_reader.read(request.raw.scope["query_string"])
        found: dict[str, str] = request.raw.scope["path_params"]
        for name, check in route.converters.items():
            request.path[name] = check(f"/path/{name}", found[name])
        return plain

    async def _check_signature(self, request: Request) -> None:
        wanted = request.caller is not None and request.caller.require_signature
        if not wanted and header(request.headers, b"signature") is None:
            return
        if self._verify is not None:
            await self._verify(request)
        elif wanted:
            raise Problem("signature_required")


def apply_guard(route: Route, request: Request, plain: Any) -> None:
    """Refuse secrets where intent comes in, take them out where results come back."""
    if route.guard == "refuse":
        found = guard.scan(plain)
        if request.path:
            found += guard.scan(request.path, "/path")
        if found:
            raise Problem("secret_suspected", errors=[Reason(each.pointer, each.rule) for each in found])
    elif route.guard == "redact":
        redacted, request.redactions = guard.redact_value(plain)
        if request.redactions:
            # Not msgspec's encoder: payload may hold numbers that it does not write.
            request.body = route.body_reader.read(json.dumps(redacted, ensure_ascii=False).encode()).value


async def read_body(route: Route, raw: litestar.Request[Any, Any, Any]) -> bytes:
    """Return the bytes of the body. Raises 415 for another type or a packed body, 413 over the route's limit."""
    headers = raw.scope["headers"]
    kinds = headers_named(headers, b"content-type")
    pattern = _FORM if route.form else _JSON
    if len(kinds) > 1 or (kinds and route.mutates and pattern.fullmatch(kinds[0]) is None):
        raise Problem("unsupported_media_type", "Send application/x-www-form-urlencoded." if route.form else None)
    if any(value.strip().lower() not in (b"", b"identity") for value in headers_named(headers, b"content-encoding")):
        raise Problem("unsupported_media_type", "Send the body as it is, not packed.")
    length = header(headers, b"content-length")
    if length is None and header(headers, b"transfer-encoding") is None:
        return b""
    if length is not None:
        if _LENGTH.fullmatch(length) is None:
            raise Problem("bad_request")
        if int(length) > route.body_bytes_max:
            raise _too_large(route)
        if int(length) == 0:
            return b""
    try:
        body = await _collect(route, raw.receive)
    except TimeoutError:
        raise Problem("request_timeout", headers={"Connection": "close"}) from None
    if body and not kinds:
        raise Problem("unsupported_media_type")
    return body


async def _collect(route: Route, receive: Receive) -> bytes:
    chunks: list[bytes] = []
    size = 0
    now = asyncio.get_running_loop().time
    end = now() + BODY_TOTAL_S
    async with asyncio.timeout(min(BODY_TOTAL_S, BODY_TIMEOUT_S)) as patience:
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientGone
            chunk = message["body"]
            size += len(chunk)
            if size > route.body_bytes_max:
                raise _too_large(route)
            chunks.append(chunk)
            if not message["more_body"]:
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
            patience.reschedule(min(end, now() + BODY_TIMEOUT_S))


def _too_large(route: Route) -> Problem:
    limit = route.body_bytes_max
    return Problem("payload_too_large", f"The body may be {limit} bytes at most.", limit_bytes=limit)


def problem_of_exception(error: Exception) -> Problem:
    """Return the problem that an exception is. What nobody foresaw is logged with the places it passed.

    Its message is not logged: it could quote the request.
    """
    if isinstance(error, Problem):
        return error
    if isinstance(error, hq.HybridqError):
        problem = problem_of(error)
        if problem.code != "internal_error":
            return problem
    frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    _log.error("http.internal_error", component="api", error=type(error).__name__, traceback=frames)
    return Problem("internal_error", headers={"Retry-After": str(RETRY_S)})
