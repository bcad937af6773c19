"""Which pool may have which reference: rules of the agent's operator, by default none.

```
vault://ci/*                 any pool    everything in ci, and in none of its folders
linux=vault://ci/**#token    linux       the field token of everything below ci
release-*=env://RELEASE_*    pools that begin with release-
```

A pattern is about the whole reference, in the case it is written in. `*` stands for anything but `/`, `**` for
anything; nothing else is special. It has to be as well formed as a reference, so what it says before its first
wildcard holds: there is no way up and no other spelling.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ...errors import UsageError
from .ref import AllowedRef, SecretRef

__all__ = ["RuleMalformed", "Rules"]

WILDCARDS_MAX: Final = 8
_POOL: Final = re.compile(r"[A-Za-z0-9*][A-Za-z0-9._*-]{0,63}")
_WILD: Final = re.compile(r"\*+")


class RuleMalformed(UsageError):
    """A rule about secrets that cannot be read."""

    def __init__(self, rule: str, reason: str) -> None:
        self.rule, self.reason = rule, reason
        super().__init__(f"rule about secrets {rule[:200]!r}: {reason}")


@dataclass(frozen=True, slots=True)
class _Rule:
    pool: str
    pattern: str
    within: str


class Rules:
    """Rules `[POOL=]PATTERN`; blank ones and those that begin with `#` are passed over. Raises `RuleMalformed`."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        stripped = (line.strip() for line in lines)
        self._rules = tuple(_rule(line) for line in stripped if line and not line.startswith("#"))

    def allowed(self, ref: SecretRef, pool: str) -> AllowedRef | None:
        """Return the reference when a rule allows it to jobs of `pool`, None when none does."""
        for rule in self._rules:
            if _matches(rule.pool, pool) and _matches(rule.pattern, ref.secret_ref):
                return AllowedRef(ref.secret_ref, within=rule.within)
        return None


def _rule(line: str) -> _Rule:
    pool, equals, pattern = line.partition("=")
    if not equals or "://" in pool:
        pool, pattern = "*", line
    pool, pattern = pool.strip(), pattern.strip()
    if not _POOL.fullmatch(pool):
        raise RuleMalformed(line, "before = stands a pool's name, perhaps with *")
    if "*" in pattern.partition("://")[0] or not SecretRef(_WILD.sub("x", pattern)).well_formed:
        raise RuleMalformed(
            line, "it must be [POOL=]scheme://path#field, where * and ** may stand for parts of the path"
        )
    if "***" in pattern or len(_WILD.findall(line)) > WILDCARDS_MAX:
        raise RuleMalformed(line, f"* or **, at most {WILDCARDS_MAX} of them")
    fixed = SecretRef(_WILD.split(pattern, maxsplit=1)[0]).path
    return _Rule(pool, pattern, fixed.rpartition("/")[0] or "/")


def _matches(pattern: str, text: str) -> bool:
    """Whether all of `text` is what the pattern says.

    All readings are followed at once, so that a reference that almost fits does not keep the agent busy, as it could
    with a regular expression that goes back again and again.
    """
    parts = re.findall(r"\*\*?|[^*]", pattern)
    places = _with_empty_wildcards(parts, {0})
    for character in text:
        after = set()
        for place in places:
            part = parts[place] if place < len(parts) else None
            if part == character:
                after.add(place + 1)
            elif part == "**" or (part == "*" and character != "/"):
                after.add(place)
        places = _with_empty_wildcards(parts, after)
    return len(parts) in places


def _with_empty_wildcards(parts: list[str], places: set[int]) -> set[int]:
    """Return the places with those behind a wildcard, which may stand for nothing."""
    for place in sorted(places):
        while place < len(parts) and parts[place].startswith("*"):
            place += 1
            places.add(place)
    return places
