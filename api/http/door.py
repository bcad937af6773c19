"""Who is calling: reads the credential, has it looked up and metered in one go, and checks what a browser proves."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import re
from typing import TYPE_CHECKING, Any, Final, Protocol

from .exchange import Exchange, Headers, header, headers_named
from .problems import Problem
from .request import Request, cookie_named

if TYPE_CHECKING:
    from .route import Route

__all__ = ["Admission", "Authenticate", "Caller", "Door", "RateState", "access_of", "session_cookie_name"]

_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)")
TOKEN_BYTES_MAX: Final = 4096


class Caller(Protocol):
    """What is asked of a credential here; the real one is `hybridq.Credential`."""

    @property
    def kind(self) -> str: ...
    @property
    def id(self) -> str: ...
    def may(self, scope: str, /) -> bool: ...


class RateState(Protocol):
    """How much of the limit of its class a credential has left; times in seconds."""

    @property
    def limit(self) -> int: ...
    @property
    def remaining(self) -> int: ...
    @property
    def reset_s(self) -> float: ...
    @property
    def retry_after_s(self) -> float: ...
    @property
    def limited(self) -> bool: ...


class Admission(Protocol):
    """Answer of the look-up: the credential, or None; and the state of the limit, or None where none applies."""

    @property
    def credential(self) -> Any: ...
    @property
    def rate(self) -> RateState | None: ...


class Authenticate(Protocol):
    """Looks a token up and counts the call. `token` None: count the peer alone. `bearer` False: it came as cookie."""

    async def __call__(self, token: str | None, /, *, peer: str, rate_class: str, bearer: bool) -> Admission: ...


class Door:
    """Lets requests in."""

    def __init__(self, authenticate: Authenticate, *, origin: str | None = None) -> None:
        self._authenticate = authenticate
        self._origin = origin.rstrip("/").lower() if origin else None

    async def enter(self, route: Route, request: Request, exchange: Exchange) -> Any:
        """Return the credential, or None on a public route. Raises 401, then 429; sets the RateLimit headers."""
        headers = request.headers
        if route.public and not route.optional_session:
            if route.rate is not None:
                await self._admit(None, route, exchange, bearer=True)
            return None
        token, bearer = self._token(headers, exchange, cookies_only=route.public)
        caller = await self._admit(token, route, exchange, bearer=bearer)
        if caller is not None and not _fits(caller, route, bearer=bearer):
            caller = None
        if caller is None and not route.public:
            raise _unauthenticated(sent=token is not None)
        if caller is not None:
            exchange.credential_id = caller.id
        return caller

    def check_browser(self, route: Route, request: Request) -> None:
        """Raise 403 `csrf` when a change comes by cookie without the session's token or from another site."""
        caller = request.caller
        if caller is None or caller.kind != "session" or not route.mutates or not route.csrf:
            return
        sent = header(request.headers, b"x-csrf-token")
        digest = hashlib.sha256(sent or b"").hexdigest()
        if not sent or not hmac.compare_digest(digest, caller.csrf_hash or ""):
            raise Problem("csrf")
        origin = header(request.headers, b"origin")
        if origin is None or origin.decode("latin-1").lower() != self._own_origin(request):
            raise Problem("csrf")

    def _own_origin(self, request: Request) -> str:
        if self._origin is not None:
            return self._origin
        host = header(request.headers, b"host") or b""
        return f"{request.scheme}://{host.decode('latin-1').lower()}"

    def _token(self, headers: Headers, exchange: Exchange, *, cookies_only: bool) -> tuple[str | None, bool]:
        """Return the token and whether it came as Bearer; a request with an Authorization header has no cookies."""
        sent = headers_named(headers, b"authorization")
        if sent and not cookies_only:
            match = _BEARER.fullmatch(sent[0]) if len(sent) == 1 and len(sent[0]) <= TOKEN_BYTES_MAX else None
            return (match[1].decode("ascii") if match else None), True
        name = session_cookie_name(exchange.scheme, exchange.peer)
        return (cookie_named(headers, name) if name else None), False

    async def _admit(self, token: str | None, route: Route, exchange: Exchange, *, bearer: bool) -> Any:
        admission = await self._authenticate(token, peer=exchange.peer, rate_class=route.rate or "", bearer=bearer)
        rate = admission.rate
        if rate is not None and rate.limit and route.rate is not None:
            exchange.headers.append(("RateLimit-Policy", f'"{route.rate}";q={rate.limit}'))
            exchange.headers.append(
                ("RateLimit", f'"{route.rate}";r={max(0, rate.remaining)};t={math.ceil(max(0.0, rate.reset_s))}')
            )
            if rate.limited:
                after = max(1, math.ceil(rate.retry_after_s))
                raise Problem("rate_limited", headers={"Retry-After": str(after)})
        return admission.credential


def access_of(access: Any, settings: Any) -> Authenticate:
    """Return the `Authenticate` of an `AsyncAccess`, with the limits of `settings.rate(class)`."""

    async def authenticate(token: str | None, /, *, peer: str, rate_class: str, bearer: bool) -> Admission:
        limit = settings.rate(rate_class)
        found: Admission = await access.admit(
            token, peer=peer, rate_class=rate_class, limit_per_second=limit.per_second, burst=limit.burst, bearer=bearer
        )
        return found

    return authenticate


def session_cookie_name(scheme: str, peer: str) -> str | None:
    """Return the name of the session's cookie: `__Host-` over TLS, plain on loopback without, otherwise none."""
    if scheme == "https":
        return "__Host-hq_session"
    return "hq_session" if _is_loopback(peer) else None


def check_scope(route: Route, caller: Any) -> None:
    """Raise 403 with the name of the scope that is missing."""
    if route.public or route.lets(caller.kind, caller.may):
        return
    wanted = " or ".join(route.scopes)
    raise Problem("missing_scope", f"This call needs the scope {wanted}.", scope=wanted)


def _fits(caller: Any, route: Route, *, bearer: bool) -> bool:
    """Whether this kind of credential may come this way: sessions by cookie alone, the rest as Bearer alone."""
    if (caller.kind == "session") is bearer:
        return False
    return caller.kind in route.bearers


def _unauthenticated(*, sent: bool) -> Problem:
    challenge = 'Bearer realm="hybridq"' + (', error="invalid_token"' if sent else "")
    return Problem("unauthenticated", headers={"WWW-Authenticate": challenge})


def _is_loopback(peer: str) -> bool:
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return peer == "unix"
