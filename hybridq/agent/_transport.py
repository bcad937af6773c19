"""The only module that knows the HTTP library: where to, over which TLS, and one sending of a call.

A sending never raises for what the network does: it returns what came, or what prevented it. The reasons hold neither
headers nor bodies, and no exception of the HTTP library, whose frames hold both, is chained to ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import httpx2

from ..errors import InvalidArgument
from ._call import Answer
from ._retry import Failure, Opened, Send
from ._session import Secret
from .errors import ClientClosed

__all__ = ["BROKEN", "ClientCert", "Route", "asend", "async_http", "events_of", "send", "sync_http"]

ClientCert = str | tuple[str, str] | tuple[str, str, str]
"""A file with certificate and key, or the two apart, or with the key's password."""

ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024
KEEP_ALIVE_S: Final = 60.0
"""Less than the server's 75 s, so that it is seldom the server who closes a connection that is about to be used."""
STREAM_READ_S: Final = 45.0
"""Three comments of a stream missed: it is dead."""
OWN_HEADERS: Final = frozenset(
    {"accept", "authorization", "connection", "content-length", "content-type", "cookie", "host", "idempotency-key"}
    | {"last-event-id", "transfer-encoding", "x-request-id"}
)


@dataclass(frozen=True, slots=True)
class Route:
    """Where the server is and how it is reached."""

    url: str
    """Scheme, host, port and the prefix of paths, without a slash at the end."""
    user_agent: str
    headers: Mapping[str, str] = field(repr=False)
    proxy: Secret | None
    tls: ssl.SSLContext | None = field(repr=False)
    trust_env: bool

    @classmethod
    def of(
        cls,
        url: str,
        *,
        user_agent: str,
        insecure: bool,
        ca_file: Any,
        client_cert: ClientCert | None,
        proxy: str | None,
        headers: Mapping[str, str] | None,
    ) -> Route:
        """Check all that can be wrong about a route before anything is sent. Raises `InvalidArgument`."""
        parts, loopback = _parse("url", url, ("http", "https"))
        if parts.query or parts.fragment:
            raise InvalidArgument("url", _shown(parts), "without a query and a fragment")
        if parts.scheme == "http" and not insecure:
            if not loopback:
                raise InvalidArgument(
                    "url", _shown(parts), "https://, as the token would travel in the clear (or say insecure=True)"
                )
            if proxy is not None and not _parse("proxy", proxy, None, userinfo=True)[1]:
                raise InvalidArgument("proxy", Secret(""), "on this machine too, where the url is plain http")
        if proxy is not None:
            _parse("proxy", proxy, ("http", "https", "socks5", "socks5h"), userinfo=True)
        return cls(
            url=_shown(parts),
            user_agent=user_agent,
            headers=_headers(headers),
            proxy=None if proxy is None else Secret(proxy),
            tls=_tls(ca_file, client_cert) if parts.scheme == "https" else None,
            # What is on this machine is not looked for through a proxy that the environment names.
            trust_env=not loopback,
        )

    def options(self) -> dict[str, Any]:
        """Return what the HTTP library's clients are made with."""
        return {
            "verify": self.tls if self.tls is not None else True,
            "proxy": None if self.proxy is None else self.proxy.reveal(),
            "trust_env": self.trust_env,
            "headers": {"User-Agent": self.user_agent, "Accept-Encoding": "identity", **self.headers},
            "follow_redirects": False,
            # Unbounded, so that a heartbeat never waits until claims that are parked make room.
            "limits": httpx2.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=KEEP_ALIVE_S),
        }


def _parse(what: str, url: str, schemes: tuple[str, ...] | None, *, userinfo: bool = False) -> tuple[Any, bool]:
    """Return the parts of a URL, and whether it leads to this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        held = bool(parts.username or parts.password)
    except (ValueError, TypeError, AttributeError):
        raise InvalidArgument(what, Secret(""), "a URL") from None
    if not host or (schemes is not None and parts.scheme not in schemes):
        raise InvalidArgument(what, Secret(""), f"a URL that begins with {' or '.join(schemes or ('http',))}://")
    if held and not userinfo:
        raise InvalidArgument(what, Secret(""), "without a user and password; the credential is `token`")
    if any(character.isspace() or not character.isprintable() for character in url):
        raise InvalidArgument(what, Secret(""), "without blanks")
    return parts, _is_loopback(host)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _shown(parts: Any) -> str:
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def _headers(given: Mapping[str, str] | None) -> dict[str, str]:
    found = dict(given or {})
    for name, value in found.items():
        if name.lower() in OWN_HEADERS:
            raise InvalidArgument("headers", name, "headers that the client does not write itself")
        if not (name.isascii() and name.isprintable() and value.isascii() and value.isprintable()):
            raise InvalidArgument("headers", name, "printable ASCII")
    return found


def _tls(ca_file: Any, client_cert: ClientCert | None) -> ssl.SSLContext:
    """Return what checks the server's certificate, always; `ca_file` takes the place of the system's authorities."""
    try:
        if ca_file is not None:
            context = ssl.create_default_context(cafile=str(ca_file))
        else:
            context = httpx2.create_ssl_context()
    except (OSError, ssl.SSLError) as problem:
        reason = _os_text(problem) or type(problem).__name__
    else:
        if client_cert is None:
            return context
        parts = (client_cert,) if isinstance(client_cert, str) else tuple(client_cert)
        try:
            context.load_cert_chain(*parts)
            return context
        except (OSError, ssl.SSLError) as problem:
            reason = _os_text(problem) or type(problem).__name__
        raise InvalidArgument("client_cert", reason, "a PEM file with certificate and key, or the two")
    raise InvalidArgument("ca_file", reason, "a PEM file with certificates")


def _os_text(problem: OSError) -> str:
    """Return what an error number means (asyncio puts words of its own in place of it), else what is said."""
    named = isinstance(problem, (socket.gaierror, ssl.SSLError)) or not problem.errno
    return (problem.strerror or "") if named else os.strerror(problem.errno or 0)


# -- clients -----------------------------------------------------------------------------------------------------


def sync_http(route: Route) -> httpx2.Client:
    """Return a client that blocks."""
    client = httpx2.Client(**route.options())
    client.cookies.jar.set_policy(NO_COOKIES)
    return client


def async_http(route: Route) -> httpx2.AsyncClient:
    """Return a client for asyncio."""
    client = httpx2.AsyncClient(**route.options())
    client.cookies.jar.set_policy(NO_COOKIES)
    return client


NO_COOKIES: Final = DefaultCookiePolicy(allowed_domains=[])
"""A cookie would be another credential beside the token."""


def _request(client: httpx2.Client | httpx2.AsyncClient, route: Route, step: Send) -> httpx2.Request:
    call = step.call
    read_s = STREAM_READ_S if call.streams else step.timeout_s
    # Only the answer may be parked.
    others_s = max(0.001, step.timeout_s - call.wait_s)
    request = client.build_request(
        call.method,
        route.url + call.path + (f"?{urlencode(call.query)}" if call.query else ""),
        content=call.body,
        timeout=httpx2.Timeout(others_s, read=read_s),
    )
    headers = request.headers
    headers["X-Request-Id"] = step.request_id
    headers["Accept"] = "text/event-stream" if call.streams else "application/json, application/problem+json"
    if call.body is not None:
        headers["Content-Type"] = call.content_type
    if call.key is not None:
        headers["Idempotency-Key"] = call.key
    if call.last_event_id is not None:
        headers["Last-Event-ID"] = call.last_event_id
    if step.bearer is not None:
        headers["Authorization"] = f"Bearer {step.bearer.reveal()}"
    return request


# -- one sending -------------------------------------------------------------------------------------------------


def send(client: httpx2.Client, route: Route, step: Send) -> Answer | Opened | Failure:
    """Send a call once, within its timeout."""
    ends = time.monotonic() + step.timeout_s
    try:
        response = client.send(_request(client, route, step), stream=True)
        if _is_open(step, response):
            return Opened(response)
        with contextlib.closing(response):
            body = bytearray()
            for chunk in response.iter_raw():
                body += chunk
                # The read timeout is of one piece; a peer that drips is cut off here.
                if time.monotonic() >= ends:
                    return Failure("the answer took too long", sent=True)
                if len(body) > ANSWER_BYTES_MAX:
                    return Failure("the answer is too large", sent=True, hopeless=True)
        return _answer(response, bytes(body))
    except (httpx2.RequestError, OSError) as problem:
        return failure_of(problem)
    except RuntimeError:
        _check_open(client)
        raise


async def asend(client: httpx2.AsyncClient, route: Route, step: Send) -> Answer | Opened | Failure:
    """Send a call once, within its timeout."""
    try:
        async with asyncio.timeout(step.timeout_s + SLACK_S):
            response = await client.send(_request(client, route, step), stream=True)
            if _is_open(step, response):
                return Opened(response)
            try:
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > ANSWER_BYTES_MAX:
                        return Failure("the answer is too large", sent=True, hopeless=True)
            finally:
                await response.aclose()
            return _answer(response, bytes(body))
    except TimeoutError:
        return Failure("the answer took too long", sent=True)
    except (httpx2.RequestError, OSError) as problem:
        return failure_of(problem)
    except RuntimeError:
        _check_open(client)
        raise


def _check_open(client: httpx2.Client | httpx2.AsyncClient) -> None:
    """Raise `ClientClosed` when that is why the HTTP library would not go on."""
    if client.is_closed:
        raise ClientClosed from None


SLACK_S: Final = 0.05
"""The HTTP library's own timeouts come first: they know whether anything was sent."""


def _is_open(step: Send, response: httpx2.Response) -> bool:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return step.call.streams and response.status_code == 200 and kind == "text/event-stream"


def _answer(response: httpx2.Response, body: bytes) -> Answer:
    return Answer(response.status_code, {name.lower(): value for name, value in response.headers.items()}, body)


EVENT_BYTES_MAX: Final = 16 * 1024 * 1024


def events_of(opened: httpx2.Response) -> httpx2.EventSource:
    """Return what reads the events of an open stream, for both colours. What ends it is one of `BROKEN`."""
    return httpx2.EventSource(opened, max_event_size=EVENT_BYTES_MAX)


BROKEN: Final = (httpx2.RequestError, httpx2.StreamError, OSError)
"""What ends a stream from without."""

NOT_SENT: Final = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.LocalProtocolError,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)


def failure_of(problem: httpx2.RequestError | OSError) -> Failure:
    """Return what an exception of the HTTP library means: only what the operating system or TLS say is quoted."""
    said = ""
    untrusted = False
    for cause in _chain(problem):
        if isinstance(cause, ssl.SSLCertVerificationError):
            said, untrusted = f"its certificate is not trusted ({cause.verify_message})", True
            break
        if isinstance(cause, OSError):
            said = _os_text(cause) or said  # the deepest one is what the operating system said
    # Not every error of TLS is one of the HTTP library's: a certificate that is asked for comes up while reading.
    name = "ReadError" if isinstance(problem, OSError) else type(problem).__name__
    kind = WORDS.get(name, name)
    return Failure(
        said if untrusted else f"{kind}: {said}" if said else kind,
        sent=not isinstance(problem, NOT_SENT),
        hopeless=untrusted or isinstance(problem, (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)),
    )


def _chain(problem: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what caused it; of several at once, the first."""
    cause: BaseException | None = problem
    while cause is not None:
        yield cause
        cause = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause.__cause__ or cause.__context__


WORDS: Final = {
    "ConnectError": "no connection",
    "ConnectTimeout": "no connection in time",
    "PoolTimeout": "no free connection in time",
    "ProxyError": "the proxy refuses",
    "ReadError": "the connection broke",
    "ReadTimeout": "no answer in time",
    "RemoteProtocolError": "the connection broke, or this is no HTTP",
    "WriteError": "the connection broke",
    "WriteTimeout": "the request could not be sent in time",
}
