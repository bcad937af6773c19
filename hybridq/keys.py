"""Names and keys: what a name may look like, and every Redis key.

Keys live under roots, each with a hash tag of its own, so a cluster keeps a root in one slot: a queue, the catalogue
of a namespace's queues, its fleet of agents, and the access records of the whole server. The same key families stand
in `lua/README.md`, held true by a test.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from typing import Final

from .errors import InvalidArgument

__all__ = [
    "ACCESS_ROOT",
    "AUTH_FAMILIES",
    "CATALOGUE_FAMILIES",
    "FAMILIES",
    "FLEET_FAMILIES",
    "bell_channel",
    "catalogue_root",
    "families_of",
    "fleet_root",
    "new_id",
    "new_job_id",
    "queue_root",
    "short_key",
    "validate_holder",
    "validate_name",
    "validate_namespace",
]

NAME_RULE: Final = "1 to 64 characters: A-Z a-z 0-9 . _ -, beginning with a letter or digit"
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HOLDER_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}(?:@[A-Za-z0-9]{1,32})?")
RESERVED_NAMESPACE: Final = "sys"
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
    "gone": (":gone", "zset"),
    "dead": (":dead", "zset"),
    "finished": (":finished", "zset"),
    "all": (":all", "zset"),
    "job": (":job:", "hash"),
    "spec": (":spec", "hash"),
    "result": (":result", "hash"),
    "unique": (":unique", "hash"),
    "lanes": (":lanes", "hash"),
    "log": (":log:", "string"),
    "logs": (":logs", "zset"),
    "tombs": (":tombs", "hash"),
    "tombs_by_age": (":tombs_by_age", "list"),
    "stats": (":stats", "hash"),
    "latency": (":latency:", "hash"),
    "events": (":events", "stream"),
    "bell": (":bell", "channel"),
}
"""family → (what follows the queue's root, Redis type). A name that ends in `:` takes one more part."""

CATALOGUE_FAMILIES: Final[dict[str, tuple[str, str]]] = {
    "meta": (":meta", "hash"),
    "queues": (":queues", "zset"),
    "bell": (":bell", "channel"),
}
"""The same for the catalogue of a namespace."""

FLEET_FAMILIES: Final[dict[str, tuple[str, str]]] = {
    "meta": (":meta", "hash"),
    "agent": (":agent:", "hash"),
    "agents": (":agents", "zset"),
    "pool": (":pool:", "zset"),
    "watch": (":watch", "zset"),
    "ended": (":ended", "zset"),
    "owed": (":owed", "zset"),
    "pools": (":pools", "hash"),
    "events": (":events", "stream"),
}
"""The same for the fleet of a namespace."""

AUTH_FAMILIES: Final[dict[str, tuple[str, str]]] = {
    "meta": (":meta", "hash"),
    "key": (":key:", "hash"),
    "keys": (":keys:", "zset"),
    "key_ends": (":key_ends:", "zset"),
    "registration": (":registration:", "hash"),
    "registrations": (":registrations:", "zset"),
    "registration_ends": (":registration_ends:", "zset"),
    "uses": (":uses:", "hash"),
    "agent_token": (":agent_token:", "hash"),
    "renewal": (":renewal:", "hash"),
    "family_of": (":family_of:", "string"),
    "session": (":session:", "hash"),
    "sessions": (":sessions:", "zset"),
    "login": (":login:", "hash"),
    "logins": (":logins", "zset"),
    "link": (":link:", "hash"),
    "rules": (":rules:", "hash"),
    "rules_of": (":rules_of:", "hash"),
    "once": (":once:", "string"),
    "rate": (":rate:", "string"),
    "audit": (":audit:", "stream"),
}
"""The same for the access records, which are looked up before a namespace is known."""

ACCESS_ROOT: Final = "hq:{sys/auth}"


def families_of(script: str) -> dict[str, tuple[str, str]]:
    """Return the key families that a script may use, by its folder: none is a queue's."""
    folders = {"fleet": FLEET_FAMILIES, "auth": AUTH_FAMILIES, "catalogue": CATALOGUE_FAMILIES}
    return folders.get(script.partition("/")[0], FAMILIES)


def validate_name(what: str, name: str) -> str:
    """Return `name` when it obeys the rule for names and ids, else raise `InvalidArgument`."""
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise InvalidArgument(what, name, NAME_RULE)
    return name


def validate_namespace(name: str) -> str:
    """Return `name` when a namespace may be called so, else raise `InvalidArgument`.

    `sys` is kept for what belongs to the whole server: `hq:{sys/auth}`.
    """
    if name == RESERVED_NAMESPACE:
        raise InvalidArgument("namespace", name, "another name: this one is kept for what belongs to the whole server")
    return validate_name("namespace", name)


def validate_holder(what: str, holder: str) -> str:
    """Return `holder` when it is a name, or a name and a credential's id joined by `@`, else raise `InvalidArgument`.

    The second form keeps the names that one credential gives its claimers apart from those of others.
    """
    if not isinstance(holder, str) or not HOLDER_PATTERN.fullmatch(holder):
        raise InvalidArgument(what, holder, f"{NAME_RULE}; and perhaps @ and a credential's id")
    return holder


def queue_root(namespace: str, queue: str) -> str:
    """Return what all keys of a queue begin with: `hq:{<namespace>/q/<queue>}`."""
    return f"hq:{{{validate_namespace(namespace)}/q/{validate_name('queue', queue)}}}"


def catalogue_root(namespace: str) -> str:
    """Return what the keys of a namespace's catalogue begin with: `hq:{<namespace>/sys/queues}`."""
    return f"hq:{{{validate_namespace(namespace)}/sys/queues}}"


def fleet_root(namespace: str) -> str:
    """Return what the keys of a namespace's fleet begin with: `hq:{<namespace>/sys/fleet}`."""
    return f"hq:{{{validate_namespace(namespace)}/sys/fleet}}"


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
