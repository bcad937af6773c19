"""Every invariant of every queue and fleet on a server, for use after every test."""

from __future__ import annotations

import re

import redis

from hybridq import check


def must_hold(client: redis.Redis) -> None:
    """Raise `InvariantBroken` when any queue or fleet of any namespace on the server breaks one."""
    for key in client.scan_iter("hq:{*/sys/fleet}:meta", count=1000):
        check.fleet(client, key.decode().partition("{")[2].partition("/")[0]).raise_if_broken()
    for key in client.scan_iter("hq:{*}:meta", count=1000):
        found = re.fullmatch(r"hq:\{([^/}]+)/q/([^/}]+)\}:meta", key.decode())
        if found is None:
            continue
        # A test may drive virtual time, of which the queue remembers the latest.
        activity_ms = int(client.hget(key, "activity_ms") or 0)
        seconds, _ = client.time()
        now_ms = max(activity_ms, (seconds + 1) * 1000)
        check.keyspace(client, found[1], found[2], now_ms=now_ms).raise_if_broken()
