"""Checks on how the server is set up and how it is doing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ._facts import Facts
from ._findings import Finding, ok, refuse, warn

__all__ = [
    "check_clock",
    "check_cluster",
    "check_eviction",
    "check_latency",
    "check_memory",
    "check_persistence",
    "check_replication",
    "check_writes",
]

MEMORY_SHARE_MAX: Final = 0.9
CLOCK_OFF_MS_MAX: Final = 2_000
CLOCK_FAR_OFF_MS: Final = 60_000
TRIP_S_MAX: Final = 0.005  # a claim is one round trip, and a remote data centre makes a slow queue


def check_eviction(facts: Facts) -> Iterator[Finding]:
    """Only `noeviction` keeps every key; any other policy deletes jobs when memory runs short."""
    policy = (facts.info or {}).get("maxmemory_policy", "")
    if policy == "noeviction":
        yield ok("eviction", "maxmemory-policy is noeviction")
    else:
        yield refuse(
            "eviction",
            f"maxmemory-policy is {policy or 'not told'}: when memory runs short the server deletes jobs",
            "CONFIG SET maxmemory-policy noeviction, and the same in the configuration file",
        )


def check_memory(facts: Facts) -> Iterator[Finding]:
    """Above 90 % of maxmemory, enqueue is about to be refused; claims and completions go on."""
    limit, used = facts.number("maxmemory"), facts.number("used_memory")
    if not limit:
        yield ok("memory", f"{_mib(used)} in use, no maxmemory")
    elif used > MEMORY_SHARE_MAX * limit:
        yield warn(
            "memory",
            f"{_mib(used)} of {_mib(limit)} maxmemory in use ({used / limit:.0%}); enqueue stops at 100 %",
            "raise maxmemory, shorten the queues' retention, or purge dead letters",
        )
    else:
        yield ok("memory", f"{_mib(used)} of {_mib(limit)} maxmemory in use ({used / limit:.0%})")


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"


def check_persistence(facts: Facts, *, production: bool) -> Iterator[Finding]:
    """What an acknowledged job survives: nothing, the last snapshot, or the last second."""
    advice = "CONFIG SET appendonly yes, and the same in the configuration file"
    if not facts.number("aof_enabled"):
        if facts.config is None:
            yield warn("persistence", "no append-only file; snapshots: not told", advice)
        elif facts.config.get("save"):
            points = facts.config["save"]
            yield warn("persistence", f"snapshots only (save {points}): a crash loses what came after", advice)
        else:
            judge = refuse if production else warn
            yield judge("persistence", "nothing is written to disk: a restart loses every job", advice)
        return
    yield ok("persistence", "an append-only file is kept")
    fsync = (facts.config or {}).get("appendfsync", "")
    if fsync == "no":
        yield warn(
            "fsync",
            "appendfsync is no: a power loss takes up to half a minute of acknowledged jobs",
            "CONFIG SET appendfsync everysec (or always)",
        )
    elif fsync:
        always = fsync == "always"
        kept = "acknowledged jobs are on disk" if always else "a power loss takes up to 2 s of jobs"
        yield ok("fsync", f"appendfsync is {fsync}: {kept}")


def check_writes(facts: Facts) -> Iterator[Finding]:
    """Servers refuse every write after a failed one to their disk."""
    info, config = facts.info or {}, facts.config or {}
    bad = False
    if info.get("aof_last_write_status", "ok") != "ok":
        bad = True
        yield refuse(
            "writes",
            "the last write to the append-only file failed: writes are refused",
            "look for a full disk in the server's log",
        )
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        bad = True
        has_points = config.get("save", "not told") != ""
        stops = has_points and config.get("stop-writes-on-bgsave-error", "yes") == "yes"
        message = "the last snapshot failed"
        advice = "look for a full disk or too little memory to fork in the server's log"
        if stops:
            yield refuse("writes", f"{message}: writes are refused (stop-writes-on-bgsave-error)", advice)
        else:
            yield warn("writes", message, advice)
    if not bad:
        yield ok("writes", "the last writes to disk went well")


def check_replication(facts: Facts) -> Iterator[Finding]:
    """A replica refuses writes; a primary that waits for no replica loses its last jobs in a failover."""
    info = facts.info or {}
    replicas = facts.number("connected_slaves")
    needed = int((facts.config or {}).get("min-replicas-to-write", "0"))
    if info.get("role", "master") != "master":
        primary = f"{info.get('master_host', '?')}:{info.get('master_port', '?')}"
        yield refuse(
            "replication",
            "this is a replica: it refuses writes",
            f"connect to its primary {primary}, or by redis+sentinel://",
        )
    elif needed > facts.number("min_slaves_good_slaves"):
        yield refuse(
            "replication",
            f"writes are refused: min-replicas-to-write is {needed}, and fewer replicas are in step",
            "bring the replicas back, or lower min-replicas-to-write",
        )
    elif replicas and not needed:
        yield warn(
            "replication",
            f"{replicas} replica(s), and writes wait for none: a failover can lose acknowledged jobs",
            "CONFIG SET min-replicas-to-write 1 narrows that window (replication stays asynchronous)",
        )
    else:
        yield ok("replication", f"primary with {replicas} replica(s), min-replicas-to-write {needed}")


def check_cluster(facts: Facts) -> Iterator[Finding]:
    """In a cluster every slot needs an owner, or some queues cannot be reached."""
    if not facts.number("cluster_enabled"):
        return
    answer = facts.client.execute_command("CLUSTER INFO")
    if answer.get("cluster_state") == "ok":
        yield ok("cluster", f"state ok, {answer['cluster_known_nodes']} nodes; each queue lives in one slot")
    else:
        yield refuse(
            "cluster",
            f"state {answer['cluster_state']}: {answer['cluster_slots_ok']} of 16384 slots have an owner",
            "redis-cli --cluster check, and repair the slots or the node",
        )


def check_clock(facts: Facts) -> Iterator[Finding]:
    """The server's clock decides leases, delays and due times; this machine's makes `run_at`."""
    if facts.server_ms is None:
        yield warn("clock", "the server's clock cannot be read (TIME is denied)", "grant +time")
        return
    off_ms = facts.server_ms - facts.local_ms
    side = "ahead of" if off_ms > 0 else "behind"
    if abs(off_ms) <= CLOCK_OFF_MS_MAX:
        yield ok("clock", f"the server's clock is {abs(off_ms)} ms {side} this machine's")
    elif abs(off_ms) <= CLOCK_FAR_OFF_MS:
        yield warn(
            "clock",
            f"the server's clock is {abs(off_ms) / 1000:.1f} s {side} this machine's, and so is run_at",
            "synchronise both with NTP",
        )
    else:
        yield warn(
            "clock",
            f"the server's clock is {abs(off_ms) / 1000:.0f} s {side} this machine's: one is plainly wrong",
            "mend it now: run_at and reported times are wrong by that; a clock set back later delays jobs",
        )


def check_latency(facts: Facts) -> Iterator[Finding]:
    """A claim, a heartbeat and a completion are one round trip each."""
    text = f"a round trip takes {facts.trip_s * 1000:.2f} ms"
    if facts.trip_s <= TRIP_S_MAX:
        yield ok("latency", text)
    else:
        advice = "move workers and server closer together"
        yield warn("latency", f"{text}: each claim and completion takes at least that", advice)
