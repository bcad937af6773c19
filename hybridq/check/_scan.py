"""Finds every key of a namespace: its queue and family, its type, its time to live, its slot."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

from redis.crc import key_slot

from ..connect import SyncRedis
from ..keys import FAMILIES, HOLDER_PATTERN, NAME_PATTERN, queue_root, validate_namespace
from ..lifecycle import Priority
from ._report import Findings

__all__ = ["BATCH", "QueueKeys", "batches", "scan"]

T = TypeVar("T")

BATCH: Final = 500
"""Entries a page and jobs a pipeline: enough to hide round trips, few enough for Redis not to notice."""

LATENCY_TTL_MS: Final = 7_200_000
GONE: Final = -2
"""Time to live of a key that vanished since the scan saw it."""
_EXACT: Final = {suffix: name for name, (suffix, kind) in FAMILIES.items() if kind != "channel"}


class Place(NamedTuple):
    """Where a key belongs: `part` is what follows the family, empty for a family of one key."""

    queue: str
    family: str
    part: str


class QueueKeys:
    """What a scan saw of one queue."""

    def __init__(self) -> None:
        self.lanes: set[str] = set()
        self.agents: set[str] = set()
        self.unlisted: set[str] = set()
        """Ids of records and logs that `:all` does not list."""
        self.readable = True
        """False when a key has the wrong type, so that reading on would only raise."""


def batches(items: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """Cut `items` into lists of at most `size`."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def scan(client: SyncRedis, namespace: str, only: str | None, findings: Findings) -> dict[str, QueueKeys]:
    """Read all keys of the namespace, or of the queue `only`; note what is wrong with a key as such.

    Keys of `hq:{<namespace>/sys/…}` belong to other roots and are passed over.
    """
    found: dict[str, QueueKeys] = {}
    # The pattern also matches keys that lack the hash tag; those of other namespaces are sorted out below.
    keys = client.scan_iter(match=f"hq:*{validate_namespace(namespace)}/*", count=1000)
    for page in batches(keys):
        placed = []
        for raw in page:
            key = raw.decode(errors="backslashreplace")
            place = _place(namespace, key)
            if place is None:
                _note_stray(namespace, only, key, findings)
            elif only is None or place.queue == only:
                placed.append((raw, place))
        _look_at(client, namespace, placed, found, findings)
    return found


def _place(namespace: str, key: str) -> Place | None:
    root, brace, rest = key.partition("}")
    prefix = f"hq:{{{namespace}/q/"
    if not brace or not root.startswith(prefix) or not NAME_PATTERN.fullmatch(root[len(prefix) :]):
        return None
    queue = root[len(prefix) :]
    if rest in _EXACT:
        return Place(queue, _EXACT[rest], "")
    head, colon, part = rest[1:].partition(":")
    family = _EXACT.get(f":{head}{colon}") if colon else None
    return Place(queue, family, part) if family and _is_part(family, part) else None


def _is_part(family: str, part: str) -> bool:
    if family == "scheduled":
        return part in Priority.__members__
    if family == "latency":
        return part == "all" or part.isdecimal()
    return (HOLDER_PATTERN if family == "held" else NAME_PATTERN).fullmatch(part) is not None


def _note_stray(namespace: str, only: str | None, key: str, findings: Findings) -> None:
    """Note a key that is no key of a queue, if it has the namespace's name at its beginning."""
    found = re.match(rf"hq:\{{?{re.escape(namespace)}/(?:q/([A-Za-z0-9._-]*))?", key)
    if not found or key.startswith(f"hq:{{{namespace}/sys/"):
        return
    queue = found[1] or ""
    if only is not None and queue != only:
        return
    findings.add(17, f"key {key!r} belongs to no known key family of a queue", queue=queue)
    if not NAME_PATTERN.fullmatch(queue):
        return
    if key_slot(key.encode()) != key_slot(queue_root(namespace, queue).encode()):
        findings.add(18, f"key {key!r} is in another slot than its queue", queue=queue)


def _look_at(
    client: SyncRedis,
    namespace: str,
    placed: list[tuple[bytes, Place]],
    found: dict[str, QueueKeys],
    findings: Findings,
) -> None:
    records: dict[str, list[str]] = {}
    pipe: Any = client.pipeline(transaction=False)
    for raw, place in placed:
        pipe.pttl(raw)
        if place.family in ("job", "log"):
            records.setdefault(place.queue, []).append(place.part)
        if place.family != "job":
            pipe.type(raw)
    for queue, ids in records.items():
        pipe.zmscore(f"{queue_root(namespace, queue)}:all", ids)
    replies = iter(pipe.execute(raise_on_error=False))
    for raw, place in placed:
        keys = found.setdefault(place.queue, QueueKeys())
        ttl_ms = next(replies)
        if ttl_ms != GONE:
            _check_ttl(raw.decode(), place, ttl_ms, findings)
        if place.family != "job":
            _note_kind(raw.decode(), place, next(replies), keys, findings)
    for queue, ids in records.items():
        seqs = next(replies)
        if not isinstance(seqs, Exception):  # else the scan says that :all has the wrong type
            unlisted = (job_id for job_id, seq in zip(ids, seqs, strict=True) if seq is None)
            found[queue].unlisted.update(unlisted)


def _note_kind(key: str, place: Place, kind: bytes, keys: QueueKeys, findings: Findings) -> None:
    wanted = FAMILIES[place.family][1].encode()
    if kind not in (wanted, b"none"):
        findings.add(17, f"key {key!r} is a {kind.decode()}, not a {wanted.decode()}", queue=place.queue)
        keys.readable = False
    elif place.family == "ready":
        keys.lanes.add(place.part)
    elif place.family == "held":
        keys.agents.add(place.part)


def _check_ttl(key: str, place: Place, ttl_ms: int, findings: Findings) -> None:
    if place.family == "latency" and place.part != "all":
        if not 0 <= ttl_ms <= LATENCY_TTL_MS:
            message = f"key {key!r} must vanish within 2 hours and has the time to live {ttl_ms} ms"
            findings.add(0, message, queue=place.queue)
    elif ttl_ms >= 0:
        findings.add(8, f"key {key!r} has a time to live of {ttl_ms} ms; it must have none", queue=place.queue)
