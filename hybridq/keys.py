"""Names and keys: what a name may look like, and every Redis key of a queue.

The same key families stand in `lua/README.md`, held true by a test. All keys of a queue carry one hash tag, so a
cluster keeps them in one slot.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from typing import Final

from .errors import InvalidArgument

__all__ = [
    "FAMILIES",
    "bell_channel",
    "new_id",
    "new_job_id",
    "queue_root",
    "short_key",
    "validate_name",
]

NAME_RULE: Final = "1 to 64 characters: A-Z a-z 0-9 . _ -, beginning with a letter or digit"
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SHORT_KEY_BYTES_MAX: Final = 64

FAMILIES: Final[dict[str, tuple[str, str]]] = {
    "meta": (":meta", "hash"),
    "ready": (":ready:", "zset"),
    "scheduled": (":scheduled:", "zset"),
    "blocked": (":blocked", "zset"),
    "leased": (":leased", "zset"),
    "held": (":held:", "zset"),
    "agent": (":agent:", "hash"),
    "agents": (":agents", "zset"),
    "dead": (":dead", "zset"),
    "finished": (":finished", "zset"),
    "all": (":all", "zset"),
    "job": (":job:", "hash"),
    "spec": (":spec", "hash"),
    "result": (":result", "hash"),
    "unique": (":unique", "hash"),
    "lanes": (":lanes", "hash"),
    "tombs": (":tombs", "hash"),
    "tombs_by_age": (":tombs_by_age", "list"),
    "stats": (":stats", "hash"),
    "latency": (":latency:", "hash"),
    "events": (":events", "stream"),
    "bell": (":bell", "channel"),
}
"""family → (what follows the queue's root, Redis type). A name that ends in `:` takes one more part."""


def validate_name(what: str, name: str) -> str:
    """Return `name` when it obeys the rule for names and ids, else raise `InvalidArgument`."""
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise InvalidArgument(what, name, NAME_RULE)
    return name


def queue_root(namespace: str, queue: str) -> str:
    """Return what all keys of a queue begin with: `hq:{<namespace>/q/<queue>}`."""
    return f"hq:{{{validate_name('namespace', namespace)}/q/{validate_name('queue', queue)}}}"


def bell_channel(root: str) -> str:
    """Return the pub/sub channel on which a queue says that jobs became claimable."""
    return f"{root}:bell"


def new_id() -> str:
    """Return 32 lower-case hex digits that sort by time: a UUID version 7 (RFC 9562 §5.7) without dashes."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return f"{value:032x}"


def new_job_id() -> str:
    """Return a job id no other caller will make."""
    return f"job-{new_id()}"


def short_key(key: str) -> str:
    """Return `key` itself up to 64 bytes, else a digest of it: so the record's fields stay small."""
    raw = key.encode()
    if len(raw) <= SHORT_KEY_BYTES_MAX:
        return key
    return f"sha256-{hashlib.sha256(raw).hexdigest()[:48]}"
