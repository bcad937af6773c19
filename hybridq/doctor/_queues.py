"""Checks on the queues that are there: written by this version of the library, and not from the future."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import redis

from ._facts import Facts
from ._findings import Finding, ok, refuse, warn

__all__ = ["check_queues"]

SCHEMA: Final = "1"
AHEAD_MS_MAX: Final = 2_000
SCAN_S_MAX: Final = 5.0
SCAN_COUNT: Final = 2_000


def check_queues(facts: Facts, *, namespace: str | None) -> Iterator[Finding]:
    """Look at the `:meta` of every queue of `namespace` (None: of all), found by SCAN within 5 seconds."""
    roots: set[str] = set()
    pattern = f"hq:{{{namespace or '*'}/q/*}}:meta"
    deadline = time.monotonic() + SCAN_S_MAX
    cursor, complete = 0, True
    try:
        while complete:
            cursor, found = facts.client.scan(cursor, match=pattern, count=SCAN_COUNT)
            roots |= {_text(key).removesuffix(":meta") for key in found}
            if cursor == 0:
                break
            complete = time.monotonic() < deadline
    except redis.ResponseError as exc:
        advice = "grant +scan and +hmget to the user that runs the doctor"
        yield warn("queues", f"queues could not be looked for ({exc})", advice)
        return
    if not complete:
        yield warn(
            "queues",
            f"looked for queues for {SCAN_S_MAX:g} s and found {len(roots)}; there may be more",
            "name a namespace, or run it on a quieter server",
        )
    well = 0
    for root in sorted(roots):
        problems = list(_check_meta(facts, root))
        well += not problems
        yield from problems
    yield ok("queues", f"{well} of {len(roots)} queue(s) well: schema {SCHEMA}, last used in the past")


def _check_meta(facts: Facts, root: str) -> Iterator[Finding]:
    name = root.removeprefix("hq:{").removesuffix("}").replace("/q/", "/")
    try:
        schema, activity_ms = facts.client.hmget(f"{root}:meta", ["schema", "activity_ms"])
    except redis.ResponseError as exc:
        yield refuse("queues", f"{name}: its :meta is not a hash ({exc})", "restore the queue from a backup")
        return
    found = _text(schema) if schema else "none"
    if found != SCHEMA:
        yield refuse(
            "queues",
            f"{name}: schema {found}, this library writes {SCHEMA}",
            "use the version of hybridq that wrote it, or another namespace",
        )
    elif (ahead_ms := int(activity_ms or 0) - (facts.server_ms or facts.local_ms)) > AHEAD_MS_MAX:
        yield refuse(
            "queues",
            f"{name}: was last used {ahead_ms / 1000:.0f} s in the future: the server's clock was set back",
            "set it right before any claim: leases and fences already issued are ahead of it",
        )


def _text(answer: bytes | str) -> str:
    return answer if isinstance(answer, str) else answer.decode(errors="replace")
