"""What is known of one request from its first line to the log line: ids, peer, scheme, and who it turned out to be."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Iterable
from typing import Any, Final

from hybridq import guard

__all__ = ["Exchange", "Proxies", "exchange_of", "header", "headers_named"]

_KEY: Final = "hybridq.exchange"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

Headers = Iterable[tuple[bytes, bytes]]


class _Named(list[tuple[bytes, bytes]]):
    """The headers of a request in order, and by name, as they are asked for again and again."""

    __slots__ = ("by_name",)

    def __init__(self, headers: Headers) -> None:
        super().__init__(headers)
        self.by_name: dict[bytes, list[bytes]] = {}
        for name, value in self:
            self.by_name.setdefault(name, []).append(value)


class Exchange:
    """One request and its answer, as the shell and the log see them."""

    __slots__ = (
        "credential_id",
        "headers",
        "peer",
        "request_id",
        "route",
        "scheme",
        "status",
        "trace_id",
        "traceparent",
    )

    def __init__(self, *, request_id: str, traceparent: str, peer: str, scheme: str) -> None:
        self.request_id = request_id
        self.traceparent = traceparent
        self.trace_id = traceparent[3:35]
        self.peer = peer
        """Address of the client: of the connection, or what a trusted proxy says."""
        self.scheme = scheme
        self.route: str | None = None
        """Template of the route, once it is known."""
        self.credential_id: str | None = None
        self.headers: list[tuple[str, str]] = []
        """Headers that the answer gets whatever it will be, such as RateLimit."""
        self.status = 0


def exchange_of(scope: Any) -> Exchange:
    """Return the exchange that the shell opened for this request."""
    found: Exchange = scope[_KEY]
    return found


def open_exchange(scope: Any, proxies: Proxies) -> Exchange:
    """Read ids and peer from the headers, and hang the exchange into the scope."""
    headers = scope["headers"] = _Named(scope["headers"])
    peer, scheme = proxies.origin(scope)
    exchange = Exchange(request_id=_request_id(headers), traceparent=_traceparent(headers), peer=peer, scheme=scheme)
    scope[_KEY] = exchange
    return exchange


def headers_named(headers: Headers, name: bytes) -> list[bytes]:
    """Return the values of every header of this name (lower case), in order."""
    if isinstance(headers, _Named):
        return headers.by_name.get(name, [])
    return [value for key, value in headers if key == name]


def header(headers: Headers, name: bytes) -> bytes | None:
    """Return the value of the header when it stands there exactly once."""
    values = headers_named(headers, name)
    return values[0] if len(values) == 1 else None


def _request_id(headers: Headers) -> str:
    sent = header(headers, b"x-request-id")
    if sent is None or _REQUEST_ID.fullmatch(sent) is None:
        return secrets.token_hex(16)
    text = sent.decode("ascii")
    return secrets.token_hex(16) if guard.find(text) is not None else text


def _traceparent(headers: Headers) -> str:
    """Return the W3C trace context as it came, or a new one (Trace Context §3.2)."""
    sent = header(headers, b"traceparent")
    match = _TRACEPARENT.fullmatch(sent) if sent is not None else None
    if match is not None:
        version, trace, parent, flags, more = match.groups()
        known = version == b"00" and more is None
        later = version not in (b"00", b"ff")  # its first four fields are those of version 00
        if (known or later) and trace.strip(b"0") and parent.strip(b"0"):
            return b"-".join((b"00", trace, parent, flags)).decode("ascii")
    drawn = secrets.token_hex(24)
    return f"00-{drawn[:32]}-{drawn[32:]}-01"


class Proxies:
    """Peers whose X-Forwarded-For and X-Forwarded-Proto are believed: addresses, networks, or `unix`."""

    def __init__(self, trusted: Iterable[object] = ()) -> None:
        named = {str(each) for each in trusted}
        self._unix = "unix" in named
        self._networks = [ipaddress.ip_network(each, strict=False) for each in sorted(named - {"unix"})]

    def origin(self, scope: Any) -> tuple[str, str]:
        """Return the client's address and the scheme it used."""
        client = scope.get("client")
        peer = client[0] if client and client[0] else "unix"
        scheme: str = scope["scheme"]
        if not self._trusts(peer):
            return peer, scheme
        headers: Headers = scope["headers"]
        proto = headers_named(headers, b"x-forwarded-proto")
        if proto and (last := proto[-1].rsplit(b",", 1)[-1].strip().lower()) in (b"http", b"https"):
            scheme = last.decode()
        return self._first_untrusted(peer, headers), scheme

    def _first_untrusted(self, peer: str, headers: Headers) -> str:
        """Walk from our side: each trusted hop vouches for the one it names, the first other is the client."""
        hops = b",".join(headers_named(headers, b"x-forwarded-for")).decode("latin-1").split(",")
        for hop in reversed(hops[-32:]):
            try:
                address = str(ipaddress.ip_address(hop.strip()))
            except ValueError:
                return peer
            peer = address
            if not self._trusts(peer):
                return peer
        return peer

    def _trusts(self, peer: str) -> bool:
        if peer == "unix":
            return self._unix
        if not self._networks:
            return False
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self._networks)
