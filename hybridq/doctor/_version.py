"""Which server it is, by the text of its INFO, and whether that release has the fixes a Lua queue needs.

| CVE            | what                                       | fixed upstream in                           |
|----------------|--------------------------------------------|---------------------------------------------|
| CVE-2025-49844 | Lua: use after free, code execution        | Redis 7.2.11 7.4.6 8.0.4 8.2.2              |
| CVE-2025-46817 | Lua: integer overflow                      | Valkey 8.0.6 8.1.4 9.0.0                    |
| CVE-2025-46818 | Lua: scripts run in another user's context | the same                                    |
| CVE-2025-46819 | Lua: out-of-bounds read                    | the same                                    |
| CVE-2025-21605 | output buffers grow before any login       | Redis 7.2.8 7.4.3 8.0.0, Valkey 8.0.3 8.1.1 |

Upstream ended Redis 7.0 before any of them; distributions patch their own 7.0.15 and keep the number, which
cannot be seen from outside. So a version below the floor is a warning, never a refusal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ._findings import Finding, ok, refuse, warn

__all__ = ["Server", "check_release", "parse_info", "read_server"]

CVES: Final = "CVE-2025-49844, CVE-2025-46817, CVE-2025-46818, CVE-2025-46819 and CVE-2025-21605"
OLDEST: Final = {"redis": (7, 0), "valkey": (8, 0)}
PATCHED: Final[dict[str, dict[tuple[int, int], int]]] = {
    "redis": {(7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2},
    "valkey": {(8, 0): 6, (8, 1): 4},
}
"""flavour → (major, minor) → the first patch release that has all five fixes."""
UNPATCHED: Final = {"redis": ((7, 0),)}
"""Branches that upstream ended without the fixes. Branches in neither table began with them."""
_IMITATIONS: Final = ("dragonfly_version", "kvrocks_version", "garnet_version")


@dataclass(frozen=True, slots=True)
class Server:
    """A server by its own word: `flavour` is redis, valkey or the name of something that imitates them."""

    flavour: str
    version: tuple[int, int, int]

    def __str__(self) -> str:
        """`Redis 7.0.15`."""
        return f"{self.flavour.capitalize()} {'.'.join(map(str, self.version))}"


def parse_info(text: str) -> dict[str, str]:
    """Return the fields of an INFO text."""
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value.strip() for name, colon, value in pairs if colon}


def read_server(info: dict[str, str]) -> Server | None:
    """Return which server answered with these INFO fields; None when it does not say."""
    for field in _IMITATIONS:
        if field in info:
            return Server(field.removesuffix("_version"), _numbers(info[field]))
    if "valkey_version" in info:
        return Server("valkey", _numbers(info["valkey_version"]))
    if "redis_version" in info:
        return Server("redis", _numbers(info["redis_version"]))
    return None


def _numbers(text: str) -> tuple[int, int, int]:
    found = [int(number) for number in re.findall(r"\d+", text)[:3]]
    major, minor, patch = (*found, 0, 0, 0)[:3]
    return major, minor, patch


def check_release(server: Server | None) -> Iterator[Finding]:
    """Judge flavour, version and known holes."""
    if server is None:
        yield warn("version", "the server does not say what it is", "use Redis >= 7.0 or Valkey >= 8.0")
        return
    oldest = OLDEST.get(server.flavour)
    if oldest is None:
        yield warn(
            "version",
            f"{server} speaks the protocol, and hybridq is not tested on it",
            "use Redis >= 7.0 or Valkey >= 8.0, or run the test suite against it first",
        )
        return
    needed = f"{server.flavour.capitalize()} {oldest[0]}.{oldest[1]}"
    if server.version[:2] < oldest:
        yield refuse("version", f"{server} is older than {needed}", f"upgrade to {needed} or newer")
        return
    yield ok("version", str(server))
    yield _known_holes(server)


def _known_holes(server: Server) -> Finding:
    branch, patch = server.version[:2], server.version[2]
    backports = "a distribution may have patched it under the same number, which cannot be seen from outside"
    if branch in UNPATCHED.get(server.flavour, ()):
        return warn(
            "security",
            f"{server}: upstream ended this branch without fixes for {CVES}; {backports}",
            "look for these numbers in the package's changelog (apt changelog redis-server), or upgrade",
        )
    first = PATCHED[server.flavour].get(branch, 0)
    if patch < first:
        fixed = f"{branch[0]}.{branch[1]}.{first}"
        return warn(
            "security",
            f"{server} lacks fixes for some of {CVES}, all in {fixed}; {backports}",
            f"upgrade to {fixed} or newer, or look for these numbers in the package's changelog",
        )
    return ok("security", f"has the fixes for {CVES}")
