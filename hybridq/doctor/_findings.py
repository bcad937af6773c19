"""What an examination says: findings, each of one level, and the report they make."""

from __future__ import annotations

import enum
from collections.abc import Iterable

import msgspec

__all__ = ["Finding", "Level", "Report"]


class Level(enum.StrEnum):
    """How bad a finding is."""

    OK = "ok"
    """As a queue needs it."""
    WARN = "warn"
    """Works, and may lose or delay work on a bad day; or could not be looked at."""
    REFUSE = "refuse"
    """Jobs will be lost, refused or torn: do not run a queue here."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One fact about a server, judged. `advice` says what to do; empty when there is nothing to do."""

    check: str
    level: Level
    message: str
    advice: str = ""
    node: str | None = None
    """`host:port` of the cluster node it was found on; None outside a cluster."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All findings about the server at `url` (which never shows credentials), in the order they were made."""

    url: str
    findings: tuple[Finding, ...]

    @property
    def level(self) -> Level:
        """The worst level found."""
        return worst(finding.level for finding in self.findings)

    @property
    def fit(self) -> bool:
        """Whether nothing was refused."""
        return self.level is not Level.REFUSE


def worst(levels: Iterable[Level]) -> Level:
    """Return the worst of `levels`; `OK` when there are none."""
    order = list(Level)
    return max(levels, key=order.index, default=Level.OK)


def ok(check: str, message: str) -> Finding:
    """A finding that needs nothing done."""
    return Finding(check=check, level=Level.OK, message=message)


def warn(check: str, message: str, advice: str) -> Finding:
    """A finding to mend when there is time."""
    return Finding(check=check, level=Level.WARN, message=message, advice=advice)


def refuse(check: str, message: str, advice: str) -> Finding:
    """A finding to mend before any queue runs here."""
    return Finding(check=check, level=Level.REFUSE, message=message, advice=advice)
