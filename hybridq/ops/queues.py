"""What is done to a queue as a whole: create, configure, pause, resume, upkeep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .._units import YEAR_S, ms_to_instant, to_ms, to_s
from ..call import Call, Reply
from ..errors import InvalidArgument, QueueFull
from ..job import Limits, Pause, Upkeep
from ..keys import catalogue_root, queue_root, validate_name
from . import _args

__all__ = ["catalogue", "configure", "create", "found", "limits", "note", "pause", "peek", "upkeep"]

_LIMITS: Final[dict[str, tuple[str, float, float]]] = {
    "lease_s": ("lease_ms", 1, 3600),
    "max_queued": ("max_queued", 0, 100_000_000),
    "max_dead": ("max_dead", 1, 10_000_000),
    "retention_s": ("retention_ms", 0, YEAR_S),
    "retention_count": ("retention_count", 0, 10_000_000),
    "tombstone_s": ("tombstone_ms", 1, 86_400),
    "events_max": ("events_max", 100, 10_000_000),
    "log_bytes_max": ("log_bytes_max", 1_000, 100_000_000),
    "logs_bytes_max": ("logs_bytes_max", 1_000, 10**15),
}

_ADDED: Final = {"log_bytes_max": 8 * 2**20, "logs_bytes_max": 2**30}
"""Limits of queues that were made before there were any."""


def create(root: str, *, now_ms: int = 0) -> Call[bool]:
    """Make the queue unless it is there. Value: True when it was made by this call."""
    return _args.simple("create", root, now_ms, [], lambda replies: bool(replies[0][0] == b"CREATED"))


def note(namespace: str, queue: str, *, now_ms: int = 0) -> Call[None]:
    """Note in the catalogue of its namespace that a queue is there. Raises `QueueFull` when that holds its limit."""

    def decode(replies: Sequence[Reply]) -> None:
        if replies[0][0] == b"FULL":
            raise QueueFull(queue, int(replies[0][1]))

    entry = (validate_name("queue", queue),)
    return _args.simple("catalogue/note", catalogue_root(namespace), now_ms, [entry], decode)


def found(namespace: str, queue: str, now_ms: int) -> Sequence[Call[Any]]:
    """Return the calls that make a queue: it is noted first, so that none is there that the catalogue does not know."""
    return note(namespace, queue, now_ms=now_ms), create(queue_root(namespace, queue), now_ms=now_ms)


def catalogue(namespace: str, *, after: str = "", limit: int = 1000) -> Call[list[str]]:
    """Read one page of the names of a namespace's queues, in order, from the one that follows `after`."""

    def decode(replies: Sequence[Reply]) -> list[str]:
        return [name.decode() for name in replies[0][1]]

    return _args.simple("catalogue/list", catalogue_root(namespace), 0, [], decode, common=(after, limit))


def configure(root: str, limits: Mapping[str, float], *, now_ms: int = 0) -> Call[dict[str, float]]:
    """Change limits of the queue, by the names in the docstring of `Queue.configure`. Value: those as they are now."""
    entries, names = [], list(limits)
    for name, value in limits.items():
        if name not in _LIMITS:
            raise InvalidArgument("limit", name, "one of " + ", ".join(_LIMITS))
        field, low, high = _LIMITS[name]
        if name.endswith("_s"):
            entries.append((field, to_ms(name, value, low, high)))
        else:
            entries.append((field, _args.integer(name, value, int(low), int(high))))
    if not entries:
        raise InvalidArgument("limits", limits, "at least one of " + ", ".join(_LIMITS))

    def decode(replies: Sequence[Reply]) -> dict[str, float]:
        values = [int(reply[1]) for reply in replies]
        return {name: to_s(ms) if name.endswith("_s") else ms for name, ms in zip(names, values, strict=True)}

    return _args.simple("configure", root, now_ms, entries, decode)


def limits(root: str, *, now_ms: int = 0) -> Call[Limits]:
    """Read how the queue is configured."""

    def decode(replies: Sequence[Reply]) -> Limits:
        flat = replies[0][1]
        meta = {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}
        numbers: dict[str, Any] = {
            name: to_s(int(meta[field])) if name.endswith("_s") else int(meta.get(field, _ADDED.get(field, 0)))
            for name, (field, _, _) in _LIMITS.items()
        }
        at = int(meta.get("paused_at_ms", "0"))
        return Limits(
            policy=meta["policy"],
            paused=meta.get("paused") == "1",
            paused_reason=meta.get("paused_reason") or None,
            paused_by=meta.get("paused_by") or None,
            paused_at=ms_to_instant(at) if at else None,
            **numbers,
        )

    return _args.simple("limits", root, now_ms, [], decode)


def pause(root: str, *, paused: bool, reason: str | None = None, by: str | None = None, now_ms: int = 0) -> Call[Pause]:
    """Stop or resume handing out jobs. Value: how it is now; the first pause's reason stands until resume."""
    entry = (1 if paused else 0, _args.text("reason", reason), _args.text("by", by, 128))

    def decode(replies: Sequence[Reply]) -> Pause:
        _, now, why, who, at = replies[0]
        return Pause(
            paused=now == b"1",
            reason=why.decode() or None,
            by=who.decode() or None,
            at=ms_to_instant(int(at)) if int(at) else None,
        )

    return _args.simple("pause", root, now_ms, [entry], decode)


def peek(root: str, *, now_ms: int = 0) -> Call[float | None]:
    """Look whether a claim or upkeep has something to do. Value: in how many seconds, 0 for now, None for never."""

    def decode(replies: Sequence[Reply]) -> float | None:
        tag, *due = replies[0]
        if tag == b"BUSY":
            return 0.0
        return None if int(due[0]) < 0 else to_s(int(due[0]))

    return _args.simple("peek", root, now_ms, [], decode, common=("any",))


def upkeep(root: str, *, now_ms: int = 0) -> Call[Upkeep]:
    """One bounded step: reap leases that ran out, promote due jobs, trim old records. Value: what it moved."""

    def decode(replies: Sequence[Reply]) -> Upkeep:
        _, requeued, dead, promoted, trimmed, more, due = (int(x) if i else 0 for i, x in enumerate(replies[0]))
        return Upkeep(
            requeued=requeued,
            dead_lettered=dead,
            promoted=promoted,
            trimmed=trimmed,
            more=bool(more),
            next_due_s=None if due < 0 else to_s(due),
        )

    return _args.simple("upkeep", root, now_ms, [], decode)
