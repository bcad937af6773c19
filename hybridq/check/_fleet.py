"""Checks what Redis holds of a namespace's fleet: records and indexes agree, and nothing stands where it should not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from ..connect import SyncRedis
from ..keys import FLEET_FAMILIES, fleet_root
from ._read import number_of, pairs_of
from ._report import Findings, Report
from ._scan import BATCH, batches

__all__ = ["fleet"]

OF_SESSION: Final = frozenset({
    "pool", "boot_id", "session_id", "generation", "version", "labels", "features", "capacity", "registered_ms",
    "seen_ms", "heartbeat_ms",
})  # fmt: skip
NOW_AND_THEN: Final = frozenset({
    "metrics", "recent", "recent_failed", "draining", "drain_reason", "drain_by", "drain_ms", "offline_ms", "ended_ms",
    "end_reason", "left",
})  # fmt: skip
_EXACT: Final = {suffix: kind for suffix, kind in FLEET_FAMILIES.values() if not suffix.endswith(":")}
_MANY: Final = {suffix: kind for suffix, kind in FLEET_FAMILIES.values() if suffix.endswith(":")}
_OWED: Final = re.compile(r"\S+ \S+ \d+ (give_back|supersede|lose) \d+")
SUM_MAX: Final = 1000
"""Agents whose recent runs are added up, in one reading."""


def fleet(client: SyncRedis, namespace: str) -> Report:
    """Check every key of a namespace's fleet: records, their indexes, and the sum of recent runs.

    What is compared of an agent is read at one instant, so it may run beside a busy fleet.
    """
    findings = Findings()
    check = _Check(client, fleet_root(namespace), findings)
    if check.keys():
        agents = check.records()
        check.owed()
        if len(agents) <= SUM_MAX:
            check.sums(agents)
    return findings.report(jobs=0, queues=set())


class _Check:
    def __init__(self, client: SyncRedis, root: str, findings: Findings) -> None:
        self._client: Any = client
        self._root = root
        self._findings = findings

    def _note(self, invariant: int, message: str) -> None:
        self._findings.add(invariant, f"fleet: {message}", queue="")

    def keys(self) -> bool:
        """Every key is of a known family and its type, and none has a time to live."""
        sound = True
        for page in batches(self._client.scan_iter(match=f"{self._root}:*", count=1000)):
            pipe = self._client.pipeline(transaction=False)
            for key in page:
                pipe.type(key)
                pipe.pttl(key)
            replies = iter(pipe.execute())
            for key in page:
                kind, ttl_ms = next(replies).decode(), next(replies)
                name = key.decode(errors="backslashreplace").removeprefix(self._root)
                wanted = _EXACT.get(name) or _MANY.get(f":{name[1:].partition(':')[0]}:")
                if wanted is None:
                    self._note(17, f"key {name!r} belongs to no known family")
                elif kind not in (wanted, "none"):
                    self._note(17, f"key {name!r} is a {kind}, not a {wanted}")
                    sound = False
                if ttl_ms >= 0:
                    self._note(8, f"key {name!r} has a time to live of {ttl_ms} ms; it must have none")
        return sound

    def records(self) -> list[bytes]:
        """Every agent has a record, and stands in the indexes that it names and in no other; return the agents."""
        prefix = f"{self._root}:agent:"
        names = {key.decode().removeprefix(prefix) for key in self._client.scan_iter(match=f"{prefix}*", count=1000)}
        names |= {name.decode() for index in ("agents", "watch", "ended") for name in self._members(index)}
        for page in batches(sorted(names)):
            # An agent may have moved to a pool that was not there yet: who looks wrong is looked at again.
            again = [name for name, faults in self._look(page) if faults]
            for name, faults in self._look(again):
                for fault in faults:
                    self._note(1, f"agent {name}: {fault}")
        return [name.encode() for name in sorted(names)]

    def _look(self, names: list[str]) -> Iterator[tuple[str, list[str]]]:
        """Yield what is wrong with each agent; of one agent everything is read at one instant."""
        prefix = f"{self._root}:pool:"
        pools = [key.decode() for key in self._client.scan_iter(match=f"{prefix}*", count=1000)] if names else []
        pipe = self._client.pipeline(transaction=True)
        for name in names:
            pipe.hgetall(f"{self._root}:agent:{name}")
            for key in (*(f"{self._root}:{index}" for index in ("agents", "watch", "ended")), *pools):
                pipe.zscore(key, name)
        replies = iter(pipe.execute())
        for name in names:
            record = pairs_of(next(replies))
            listed, watched, ended = (number_of(next(replies)) is not None for _ in range(3))
            within = [pool.removeprefix(prefix) for pool in pools if next(replies) is not None]
            yield name, list(_faults(record, (listed, watched, ended), within))

    def owed(self) -> None:
        """What queues are owed can be read."""
        for row in self._members("owed"):
            if not _OWED.fullmatch(row.decode(errors="replace")):
                self._note(0, f"owed has {row!r}, which nobody can tell")

    def sums(self, agents: list[bytes]) -> None:
        """The fleet's sum of recent runs is that of its agents."""
        pipe = self._client.pipeline(transaction=True)
        pipe.hmget(f"{self._root}:meta", "recent", "recent_failed")
        for name in agents:
            pipe.hmget(f"{self._root}:agent:".encode() + name, "recent", "recent_failed")
        kept, *each = pipe.execute()
        for at, field in enumerate(("recent", "recent_failed")):
            total = sum(int(one[at] or 0) for one in each)
            if int(kept[at] or 0) != total:
                self._note(7, f"{field} is {int(kept[at] or 0)}; those of its agents make {total}")

    def _members(self, index: str) -> Iterator[bytes]:
        return (member for member, _ in self._client.zscan_iter(f"{self._root}:{index}", count=BATCH))


def _faults(record: dict[str, str], places: tuple[bool, bool, bool], pools: list[str]) -> Iterator[str]:
    listed, watched, ended = places
    if not record:
        if listed or watched or ended or pools:
            yield "it has no record and is still listed"
        return
    if not listed:
        yield "it has a record and is not in agents"
    missing, unknown = OF_SESSION - record.keys(), record.keys() - OF_SESSION - NOW_AND_THEN
    if missing or unknown:
        yield f"its record lacks {sorted(missing)} and has the unknown {sorted(unknown)}"
    if pools != [record.get("pool")]:
        yield f"it is of pool {record.get('pool')} and listed in {pools}"
    over = "ended_ms" in record or "offline_ms" in record
    if over == watched or over != ended:
        yield f"its end is {'' if over else 'not '}known; it is in watch: {watched}, in ended: {ended}"
