"""What a Redis URL says, and what of it may be shown.

A password with an unescaped `/`, `?` or `#` lands in another part of the URL. So no message repeats any part
that could hold one; `Address.safe` is built from the parts that were understood.
"""

from __future__ import annotations

import dataclasses
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from ..errors import InvalidURL

Kind = Literal["server", "socket", "sentinel", "cluster"]

SCHEMES: Mapping[str, tuple[Kind, bool]] = {
    "redis": ("server", False),
    "rediss": ("server", True),
    "unix": ("socket", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
PORT = 6379
SENTINEL_PORT = 26379
ESCAPE_ADVICE = "percent-encode the characters / ? # @ : in a user name or password"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A parsed URL. Its repr shows `safe` alone."""

    kind: Kind
    tls: bool
    safe: str
    hosts: tuple[tuple[str, int], ...] = ()
    socket: str = ""
    service: str = ""
    db: int = 0
    options: Mapping[str, Any]
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        """No credentials: tracebacks and logs print this."""
        return f"Address({self.safe!r})"


def parse(url: str) -> Address:
    """Take a URL apart. Raises `InvalidURL`, which never repeats a credential."""
    scheme, found, _ = url.partition("://")
    if not found or scheme not in SCHEMES:
        raise InvalidURL("Redis URL", f"the scheme must be one of {', '.join(SCHEMES)}")
    kind, tls = SCHEMES[scheme]
    shown = f"{scheme}://…"
    parts = urllib.parse.urlsplit(url)
    if parts.fragment or "#" in url:
        raise InvalidURL(shown, f"a fragment (#) has no meaning here; {ESCAPE_ADVICE}")
    options = _query(shown, parts.query, tls)
    userinfo, _, netloc = parts.netloc.rpartition("@")
    username, _, password = map(urllib.parse.unquote, userinfo.partition(":"))
    path = urllib.parse.unquote(parts.path)
    socket, service = "", ""
    hosts: tuple[tuple[str, int], ...] = ()
    if kind == "socket":
        socket = _socket(shown, netloc, path)
        where, db_text = socket, ""
    else:
        hosts = _hosts(shown, netloc, SENTINEL_PORT if kind == "sentinel" else PORT)
        where = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts)
        db_text = path.strip("/")
        if kind == "sentinel":
            service, _, db_text = db_text.partition("/")
            where += f"/{_service(shown, service)}"
        if kind == "server" and len(hosts) > 1:
            raise InvalidURL(shown, "several hosts need redis+sentinel:// or redis+cluster://")
    db = _db(shown, db_text, options.pop("db", 0))
    if kind == "cluster" and db:
        raise InvalidURL(shown, "a cluster has database 0 only")
    return Address(
        kind=kind,
        tls=tls,
        safe=f"{scheme}://{where}" + (f"?db={db}" if db else ""),
        hosts=hosts,
        socket=socket,
        service=service,
        db=db,
        username=options.pop("username", None) or username or None,
        password=options.pop("password", None) or password or None,
        options=options,
    )


def _socket(shown: str, netloc: str, path: str) -> str:
    if netloc or not path.strip("/"):
        raise InvalidURL(shown, "write the absolute path of the socket after three slashes: unix:///run/redis.sock")
    return path


def _hosts(shown: str, netloc: str, default_port: int) -> tuple[tuple[str, int], ...]:
    hosts = []
    for one in netloc.split(","):
        try:
            parts = urllib.parse.urlsplit(f"//{one}")
            host, port = parts.hostname, parts.port
        except ValueError:
            # The cause is not chained: its text repeats what stands where a port should be.
            raise InvalidURL(shown, f"a port must be a number from 1 to 65535; {ESCAPE_ADVICE}") from None
        if not host or port == 0:
            raise InvalidURL(shown, "name a host, as in redis://localhost:6379")
        hosts.append((host, port or default_port))
    return tuple(hosts)


def _service(shown: str, service: str) -> str:
    if not service.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise InvalidURL(shown, "name what the sentinels watch: redis+sentinel://host:26379/mymaster")
    return service


def _db(shown: str, path: str, query: int) -> int:
    if not path:
        return query
    if not path.isdecimal():
        raise InvalidURL(shown, f"the path must be a database number; {ESCAPE_ADVICE}")
    return int(path)


def _query(shown: str, query: str, tls: bool) -> dict[str, Any]:
    readers = {**_OPTIONS, **(_TLS_OPTIONS if tls else {})}
    options: dict[str, Any] = {}
    for name, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
        if name not in readers:
            raise InvalidURL(shown, f"an option it does not know; it knows {', '.join(sorted(readers))}")
        try:
            options[name] = readers[name](value)
        except ValueError:
            raise InvalidURL(shown, f"option {name} has a value of the wrong kind") from None
    return options


def _whole(low: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise ValueError
        return int(text)

    return read


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 86_400:
        raise ValueError
    return seconds


def _yes(text: str) -> bool:
    return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]


def _flag(text: str) -> bool:
    try:
        return _yes(text)
    except KeyError:
        raise ValueError from None


def _file(text: str) -> str:
    if not Path(text).is_file():
        raise ValueError
    return text


_OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "db": _whole(0),
    "username": str,
    "password": str,
    "sentinel_username": str,
    "sentinel_password": str,
    "max_connections": _whole(1),
    "timeout": _seconds,
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
}
_TLS_OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "ssl_ca_certs": _file,
    "ssl_certfile": _file,
    "ssl_keyfile": _file,
    "ssl_check_hostname": _flag,
}
