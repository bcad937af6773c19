"""What a handler gets: a request of which everything was checked that can be checked without asking Redis."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import litestar

from .answer import wait_for_disconnect
from .exchange import Exchange, Headers, headers_named
from .problems import Problem, invalid

if TYPE_CHECKING:
    from hybridq import Credential

    from ..plane import Plane
    from ..settings import Settings
    from .route import Route

__all__ = ["ClientGone", "Request"]

T = TypeVar("T")
_KEY = re.compile(rb"[\x20-\x7e]{1,128}")
_TAGS = re.compile(rb'\*|(?:W/)?"[\x21\x23-\x7e]*"(?:[ \t]*,[ \t]*(?:W/)?"[\x21\x23-\x7e]*")*')
_TAG = re.compile(rb'(?:W/)?("[\x21\x23-\x7e]*")')


class ClientGone(Exception):
    """The client closed the connection: nobody reads the answer."""


class Request:
    """One call of one route.

    `body` and `query` are the route's Structs, `path` its names by part, `caller` the credential (None on public
    routes), `raw_body` the bytes as they were sent, `redactions` how many secrets were taken out of `body`.
    """

    __slots__ = (
        "_exchange",
        "_idempotency_key",
        "body",
        "caller",
        "headers",
        "path",
        "plane",
        "query",
        "raw",
        "raw_body",
        "redactions",
        "route",
        "settings",
    )

    def __init__(
        self, raw: litestar.Request[Any, Any, Any], route: Route, exchange: Exchange, *, plane: Any, settings: Any
    ) -> None:
        self.raw, self.route, self._exchange = raw, route, exchange
        self.headers: Headers = raw.scope["headers"]
        self.body: Any = None
        self.query: Any = None
        self.path: dict[str, str] = {}
        self.caller: Credential | None = None
        self.plane: Plane = plane
        self.settings: Settings = settings
        self.raw_body = b""
        self.redactions = 0
        self._idempotency_key: bytes | None = None

    @property
    def credential(self) -> Credential:
        """The caller where the route asks for one."""
        assert self.caller is not None, f"{self.route!r} is public"
        return self.caller

    @property
    def request_id(self) -> str:
        """The caller's X-Request-Id, or ours."""
        return self._exchange.request_id

    @property
    def trace_id(self) -> str:
        """32 hex digits of the W3C trace context."""
        return self._exchange.trace_id

    @property
    def traceparent(self) -> str:
        """The W3C trace context."""
        return self._exchange.traceparent

    @property
    def peer(self) -> str:
        """The client's address."""
        return self._exchange.peer

    @property
    def scheme(self) -> str:
        """How the client reached us: `http` or `https`, a trusted proxy's word included."""
        return self._exchange.scheme

    def header(self, name: str) -> str | None:
        """Return a header's value; several of one name are joined by commas (RFC 9110 §5.3)."""
        values = headers_named(self.headers, name.lower().encode("latin-1"))
        return b", ".join(values).decode("latin-1") if values else None

    def cookie(self, name: str) -> str | None:
        """Return a cookie's value when it stands there exactly once."""
        return cookie_named(self.headers, name)

    # -- repeats ------------------------------------------------------------------------------------------

    def idempotent_id(self, kind: str = "", index: int | None = None) -> str | None:
        """Return the id that the Idempotency-Key makes for what this call creates; None without a key.

        It hangs on credential, route, key, and the place in a batch: the same call again makes the same id, and
        nobody else's key can. 32 hex digits, after `<kind>-` when a kind is named.
        """
        if self._idempotency_key is None:
            return None
        digest = hashlib.sha256()
        for part in (self.caller.id if self.caller else "", self.route.template, self._idempotency_key, index):
            text = b"" if part is None else part if isinstance(part, bytes) else str(part).encode()
            digest.update(len(text).to_bytes(4) + text)
        made = digest.hexdigest()[:32]
        return f"{kind}-{made}" if kind else made

    def read_headers(self) -> None:
        """Read the headers that have a rule of their own. Raises `Problem`: 400."""
        values = headers_named(self.headers, b"idempotency-key")
        if not values or not self.route.mutates:
            return
        if len(values) > 1 or _KEY.fullmatch(values[0]) is None:
            raise invalid("/header/idempotency-key", "must be 1 to 128 printable ASCII characters, and stand once")
        self._idempotency_key = values[0]

    # -- conditions ---------------------------------------------------------------------------------------

    def has_current(self, etag: str) -> bool:
        """Whether If-None-Match names this tag, so that 304 is the answer (weak comparison, RFC 9110 §13.1.2)."""
        named = self._tags(b"if-none-match")
        return named is not None and (named == ["*"] or etag.removeprefix("W/") in named)

    def require_match(self, etag: str) -> None:
        """Raise 412 when If-Match is there and does not name this tag (strong comparison, RFC 9110 §13.1.1)."""
        named = self._tags(b"if-match", strong=True)
        if named is not None and named != ["*"] and etag not in named:
            raise Problem("precondition_failed")

    def _tags(self, name: bytes, *, strong: bool = False) -> list[str] | None:
        """Return the tags named; None without the header. What is no list of tags names none, so it matches nothing."""
        values = headers_named(self.headers, name)
        if not values:
            return None
        joined = b", ".join(value.strip() for value in values)
        if _TAGS.fullmatch(joined) is None:
            return []
        if joined == b"*":
            return ["*"]
        found = [(match[0], match[1]) for match in _TAG.finditer(joined)]
        return [tag.decode() for whole, tag in found if not (strong and whole.startswith(b"W/"))]

    # -- the connection -----------------------------------------------------------------------------------

    async def disconnected(self) -> None:
        """Return when the client has closed the connection. One waiter at a time."""
        await wait_for_disconnect(self.raw.receive)

    async def unless_gone(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns; when the client goes away first, cancel it, and raise `ClientGone`.

        Work that was done at that very moment counts as done: its value is returned, to be made good by what
        follows (a lease that nobody confirms goes back by itself).
        """
        working = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(self.disconnected())
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            working.cancel()
            await asyncio.wait((working,))
            if working.cancelled():
                raise ClientGone
            return working.result()
        finally:
            leaving.cancel()
            if not working.done():  # we are cancelled ourselves: nothing may go on behind our back
                working.cancel()
                await asyncio.wait((working,))


_COOKIE_VALUE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")


def cookie_named(headers: Headers, name: str) -> str | None:
    """Return the value of the cookie of this name when it stands exactly once and is well-formed."""
    found = []
    for line in headers_named(headers, b"cookie"):
        for pair in line.decode("latin-1").split(";"):
            key, equals, value = pair.strip().partition("=")
            if equals and key == name:
                found.append(value)
    return found[0] if len(found) == 1 and _COOKIE_VALUE.fullmatch(found[0]) else None
