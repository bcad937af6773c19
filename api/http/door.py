"""Who is calling: reads the credential, has it looked up and metered in one go, and checks what a browser proves."""

from __future__ import annotations

import ipaddress
import math
import re
from typing import TYPE_CHECKING, Final, Protocol

from hybridq import Admission, AsyncAccess, Credential

from .exchange import Exchange, Headers, header, headers_named
from .problems import Problem, unauthenticated
from .request import Request, cookie_named

if TYPE_CHECKING:
    from ..settings import Settings
    from .route import Route

__all__ = ["Authenticate", "Door", "access_of", "check_scope", "session_cookie_name", "still_admitted"]

_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)")
TOKEN_BYTES_MAX: Final = 4096
DEFAULT_CLASS: Final = "read"
"""The class of a route that has none and still asks who calls."""


class Authenticate(Protocol):
    """Looks a token up and counts the call; `token` None: counts it for the peer alone."""

    async def __call__(self, token: str | None, /, *, peer: str, rate_class: str) -> Admission: ...


class Door:
    """Lets requests in."""

    def __init__(self, authenticate: Authenticate, *, origin: str | None = None) -> None:
        self._authenticate = authenticate
        self._origin = origin.rstrip("/").lower() if origin else None

    async def enter(self, route: Route, request: Request, exchange: Exchange) -> Credential | None:
        """Return the credential, or None on a public route. Raises 401, then 429; sets the RateLimit headers."""
        headers = request.headers
        if route.public and not route.optional_session:
            if route.rate is not None:
                await self._admit(None, route, exchange)
            return None
        token, bearer = _token(headers, exchange.scheme, exchange.peer, cookies_only=route.public)
        caller = await self._admit(token, route, exchange)
        if caller is not None and not _fits(caller, route, bearer=bearer):
            caller = None
        if caller is None and not route.public:
            raise unauthenticated(sent=token is not None)
        if caller is not None:
            exchange.credential_id = caller.id
        return caller

    def check_browser(self, route: Route, request: Request) -> None:
        """Raise 403 `csrf` when a change comes by cookie without the session's token or from another site."""
        caller = request.caller
        if caller is None or caller.kind != "session" or not route.mutates or not route.csrf:
            return
        sent = header(request.headers, b"x-csrf-token")
        if not sent or not caller.csrf_matches(sent.decode("latin-1")):
            raise Problem("csrf")
        origin = header(request.headers, b"origin")
        if origin is None or origin.decode("latin-1").lower() != self._own_origin(request):
            raise Problem("csrf")

    def _own_origin(self, request: Request) -> str:
        if self._origin is not None:
            return self._origin
        host = header(request.headers, b"host") or b""
        return f"{request.scheme}://{host.decode('latin-1').lower()}"

    async def _admit(self, token: str | None, route: Route, exchange: Exchange) -> Credential | None:
        admission = await self._authenticate(token, peer=exchange.peer, rate_class=route.rate or DEFAULT_CLASS)
        rate = admission.rate
        if rate.limit and route.rate is not None:
            exchange.headers.append(("RateLimit-Policy", f'"{route.rate}";q={rate.limit}'))
            exchange.headers.append(
                ("RateLimit", f'"{route.rate}";r={max(0, rate.remaining)};t={math.ceil(max(0.0, rate.reset_s))}')
            )
            if rate.limited:
                after = max(1, math.ceil(rate.retry_after_s))
                raise Problem("rate_limited", headers={"Retry-After": str(after)})
        return admission.credential


async def still_admitted(access: AsyncAccess, request: Request) -> bool:
    """Whether the credential of a request that was let in is still what it was; for answers that go on for long.

    It counts for no limit. Raises what the library raises when Redis is away.
    """
    token, _ = _token(request.headers, request.scheme, request.peer)
    admission = await access.admit(token, peer=request.peer, rate_class=DEFAULT_CLASS, limit_per_second=0)
    now, then = admission.credential, request.credential
    return now is not None and (now.id, now.scopes, now.pools) == (then.id, then.scopes, then.pools)


def _token(headers: Headers, scheme: str, peer: str, *, cookies_only: bool = False) -> tuple[str | None, bool]:
    """Return the token and whether it came as Bearer; a request with an Authorization header has no cookies."""
    sent = headers_named(headers, b"authorization")
    if sent and not cookies_only:
        match = _BEARER.fullmatch(sent[0]) if len(sent) == 1 and len(sent[0]) <= TOKEN_BYTES_MAX else None
        return (match[1].decode("ascii") if match else None), True
    name = session_cookie_name(scheme, peer)
    return (cookie_named(headers, name) if name else None), False


def access_of(access: AsyncAccess, settings: Settings) -> Authenticate:
    """Return the `Authenticate` of an `AsyncAccess`, with the limits of `settings.rate(class)`."""

    async def authenticate(token: str | None, /, *, peer: str, rate_class: str) -> Admission:
        limit = settings.rate(rate_class)
        return await access.admit(
            token, peer=peer, rate_class=rate_class, limit_per_second=limit.per_second, burst=max(1, limit.burst)
        )

    return authenticate


def session_cookie_name(scheme: str, peer: str) -> str | None:
    """Return the name of the session's cookie: `__Host-` over TLS, plain on loopback without, otherwise none."""
    if scheme == "https":
        return "__Host-hq_session"
    return "hq_session" if _is_loopback(peer) else None


def check_scope(route: Route, caller: Credential | None) -> None:
    """Raise 403 with the name of the scope that is missing."""
    if route.public:
        return
    assert caller is not None, "the door lets nobody in without a credential"
    if route.lets(caller.kind, caller.may):
        return
    wanted = " or ".join(route.scopes)
    raise Problem("missing_scope", f"This call needs the scope {wanted}.", scope=wanted)


def _fits(caller: Credential, route: Route, *, bearer: bool) -> bool:
    """Whether this kind of credential may come this way: sessions by cookie alone, the rest as Bearer alone."""
    if (caller.kind == "session") is bearer:
        return False
    return caller.kind in route.bearers


def _is_loopback(peer: str) -> bool:
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return peer == "unix"
