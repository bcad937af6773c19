"""Everything that a Redis holds, as plain values: to be compared, and to be looked through."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import redis as redis_py

_REFUSALS = (b"hq:{sys/auth}:audit:", b"hq:{sys/auth}:rate:")
"""What a refused call may write: that it was refused, and that it counts."""
_CLOCKS = frozenset(
    (b"activity_ms", b"upkeep_ms", b"recent", b"recent_failed", b"folded_minute", b"gap_ms", b"gap_at_ms", b"used_ms")
)
"""Fields that go on with the time, whoever calls."""


def everything(client: redis_py.Redis, match: str = "*") -> dict[bytes, Any]:
    """Return every key, or those that match, with its value, whatever its type."""
    found: dict[bytes, Any] = {}
    for name in sorted(client.scan_iter(match, count=10_000)):
        kind = client.type(name)
        if kind == b"hash":
            found[name] = client.hgetall(name)
        elif kind == b"string":
            found[name] = client.get(name)
        elif kind == b"zset":
            found[name] = client.zrange(name, 0, -1, withscores=True)
        elif kind == b"stream":
            found[name] = client.xrange(name)
        elif kind == b"list":
            found[name] = client.lrange(name, 0, -1)
        elif kind == b"set":
            found[name] = client.smembers(name)
        elif kind != b"none":  # it ended while we looked
            raise AssertionError(f"{name!r} is a {kind!r}: nobody here looks into those")
    return found


def text_of(client: redis_py.Redis) -> bytes:
    """Return all of it in one piece: names of keys, members, fields, values."""
    return b"\n".join(_pieces(everything(client)))


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _pieces(key)
            yield from _pieces(inner)
    elif isinstance(value, list | tuple | set):
        for inner in value:
            yield from _pieces(inner)


def lasting(client: redis_py.Redis, namespace: str) -> dict[bytes, Any]:
    """Return what a refused call in a namespace must not change: its records, and the access records of all."""
    found = {**everything(client, f"hq:{{{namespace}/*"), **everything(client, "hq:{sys/auth}:*")}
    return {
        name: {field: one for field, one in value.items() if field not in _CLOCKS} if isinstance(value, dict) else value
        for name, value in found.items()
        if not name.startswith(_REFUSALS)
    }


@contextlib.contextmanager
def nothing_written(client: redis_py.Redis, namespace: str) -> Iterator[None]:
    """Hold a block to leave everything of a namespace as it was."""
    before = lasting(client, namespace)
    yield
    after = lasting(client, namespace)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    assert not changed, [(name, before.get(name), after.get(name)) for name in changed]
