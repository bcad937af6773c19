"""Checks what a queue holds beside its jobs: its own record, counters, tombstones and the bounds of its families."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ..lifecycle import JobStatus
from ._read import Reader, pairs_of
from ._report import Findings
from ._scan import BATCH, batches

__all__ = ["check_queue"]

SCHEMA: Final = "1"
SLACK: Final = 200
"""Upkeep trims in steps, and calls in the same instant may add to what it left."""
AGENTS_MAX: Final = 1000
GONE_MAX: Final = 10_000
EVENTS_DEFAULT: Final = 10_000
LOGS_BYTES_DEFAULT: Final = 2**30
EVENTS_SLACK: Final = 1_000
"""Redis trims a stream by whole nodes, and a lowered limit takes hold with the next event."""

_LIMITS: Final = (
    "created_ms", "activity_ms", "upkeep_ms", "fence", "order", "seq", "lanes_version", "lease_ms", "max_queued",
    "max_dead", "retention_ms", "retention_count", "tombstone_ms", "events_max",
)  # fmt: skip
_LATER: Final = ("log_bytes_max", "logs_bytes", "logs_bytes_max")
"""Numbers that queues made by older versions lack."""
_TERMINAL: Final = ("completed", "failed", "cancelled", "expired", "dead_lettered")
_ZSETS: Final = ("all", "dead", "finished")
_TOMB: Final = re.compile(r"\d+ \S{1,32} \d+ \S+ (\S+)")


def check_queue(reader: Reader, name: str, findings: Findings, *, attempts: int) -> bool:
    """Note what is wrong with the queue as such; return False when its jobs cannot be judged."""
    check = _Check(reader, name, findings)
    if not check.meta():
        return False
    check.counters()
    check.running(attempts)
    check.bounds()
    check.tombs()
    check.gone()
    return True


class _Check:
    def __init__(self, reader: Reader, name: str, findings: Findings) -> None:
        self._reader = reader
        self._name = name
        self._findings = findings
        self._key = reader.key

    def _note(self, invariant: int, message: str, job_id: str | None = None) -> None:
        self._findings.add(invariant, message, queue=self._name, job_id=job_id)

    def meta(self) -> bool:
        """The queue's own record is there, of a known schema, and its numbers are numbers."""
        meta = pairs_of(self._reader.client.hgetall(self._key("meta")))
        if not meta:
            self._note(8, "its keys are there and :meta is not, so no verb works on it")
            return False
        if meta.get("schema") != SCHEMA:
            self._note(0, f"its schema is {meta.get('schema')}; this check knows schema {SCHEMA} only")
            return False
        wanted = (*_LIMITS, *(field for field in _LATER if field in meta))
        broken = [field for field in wanted if not re.fullmatch(r"\d{1,16}", meta.get(field, ""))]
        for field in broken:
            self._note(0, f":meta has {field} = {meta.get(field)!r}, not a whole number")
        return not broken

    def counters(self) -> None:
        """Totals and cardinalities, read at one instant, add up."""
        pipe = self._reader.pipeline(atomic=True)
        pipe.hgetall(self._key("stats"))
        for zset in _ZSETS:
            pipe.zcard(self._key(zset))
        stats, listed, dead, finished = pipe.execute()
        counts = self._counts(pairs_of(stats))
        wanted = listed + counts["pruned"]
        if counts["enqueued"] != wanted:
            self._note(7, f"enqueued is {counts['enqueued']}; jobs listed and pruned make {wanted}")
        ended = sum(counts[total] for total in _TERMINAL) - counts["replayed"] - counts["pruned"]
        if ended != dead + finished:
            self._note(7, f"by the counters {ended} ended jobs are kept; dead and finished hold {dead + finished}")
        if counts["in_doubt"]:
            self._note(7, f"in_doubt is {counts['in_doubt']}: that many entries stopped half way")

    def _counts(self, stats: dict[str, str]) -> dict[str, int]:
        names = ("enqueued", "running", "pruned", "replayed", "in_doubt", *_TERMINAL)
        counts = dict.fromkeys(names, 0)
        for counter, text in stats.items():
            if not re.fullmatch(r"\d{1,16}", text):
                self._note(7, f"counter {counter} is {text!r}, which no count can be")
            counts[counter] = int(text) if re.fullmatch(r"-?\d{1,16}", text) else 0
        return counts

    def running(self, attempts: int) -> None:
        """The counter `running` is the number of RUNNING jobs.

        Every job that becomes or ceases to be RUNNING moves a counter, so counters that are the same before and
        after the counting vouch for it. When they never hold still, nothing is said.
        """
        client, stats_key = self._reader.client, self._key("stats")
        for _ in range(attempts):
            before = pairs_of(client.hgetall(stats_key))
            found = self._count_running()
            if pairs_of(client.hgetall(stats_key)) == before:
                counted = before.get("running", "0")
                if counted != str(found):
                    self._note(7, f"running is {counted}; {found} jobs are RUNNING")
                return

    def _count_running(self) -> int:
        found = 0
        leased = {member for member, _ in self._reader.client.zscan_iter(self._key("leased"), count=BATCH)}
        for ids in batches(leased):
            pipe = self._reader.pipeline()
            for job_id in ids:
                pipe.hget(self._key("job:").encode() + job_id, "status")
            found += pipe.execute(raise_on_error=False).count(JobStatus.RUNNING.value.encode())
        return found

    def bounds(self) -> None:
        """Each family that upkeep trims held its bound when upkeep last finished its work.

        What came in since then is not counted; a queue whose last upkeep stopped at its own bound, or was followed by
        other work, is not judged.
        """
        pipe = self._reader.pipeline(atomic=True)
        pipe.hgetall(self._key("meta"))
        pipe.xlen(self._key("events"))
        pipe.zcard(self._key("logs"))
        meta_reply, events, logs = pipe.execute()
        meta = {field: int(text) for field, text in pairs_of(meta_reply).items() if field in (*_LIMITS, *_LATER)}
        most = max(meta["events_max"], EVENTS_DEFAULT) + EVENTS_SLACK
        if events > most:
            self._note(0, f"events holds {events} entries; events_max is {meta['events_max']}")
        if not meta["upkeep_ms"] or meta["activity_ms"] > meta["upkeep_ms"]:
            return
        if logs and meta.get("logs_bytes", 0) > meta.get("logs_bytes_max", LOGS_BYTES_DEFAULT):
            self._note(0, f"the logs have {meta['logs_bytes']} bytes after upkeep, and there are some of ended jobs")
        limits = (("finished", meta["retention_count"]), ("dead", meta["max_dead"]), ("agents", AGENTS_MAX))
        for family, limit in limits:
            older = self._reader.client.zcount(self._key(family), "-inf", f"({meta['upkeep_ms']}")
            if older > limit + SLACK:
                self._note(0, f"{family} held {older} entries after upkeep; its bound is {limit}")

    def gone(self) -> None:
        """Agents that are gone are those that may hold nothing more; what is kept of them is bounded."""
        client, gone = self._reader.client, self._key("gone")
        if client.zcard(gone) > GONE_MAX + SLACK:
            self._note(0, f"gone holds more than {GONE_MAX} agents")
        for page in batches(client.zscan_iter(gone, count=BATCH)):
            names = [name for name, _ in page]
            pipe = self._reader.pipeline(atomic=True)
            pipe.zmscore(gone, names)
            for name in names:
                pipe.hget(self._key("agent:").encode() + name, "capacity")
            listed, *capacities = pipe.execute()
            for name, since, capacity in zip(names, listed, capacities, strict=True):
                if since is not None and capacity != b"0":
                    shown = name.decode(errors="backslashreplace")
                    self._note(2, f"agent {shown} is gone and its capacity is {capacity!r}")

    def tombs(self) -> None:
        """Tombstones are well formed, and each stands once in the list by age."""
        client, tombs, by_age = self._reader.client, self._key("tombs"), self._key("tombs_by_age")
        pipe = self._reader.pipeline(atomic=True)
        pipe.hlen(tombs)
        pipe.llen(by_age)
        stones, listed = pipe.execute()
        if stones != listed:
            self._note(12, f"there are {stones} tombstones, and tombs_by_age lists {listed}")
        for job_id, text in client.hscan_iter(tombs, count=BATCH):
            found = _TOMB.fullmatch(text.decode(errors="replace"))
            if not found or found[1] not in JobStatus.__members__:
                self._note(12, f"its tombstone reads {text!r}", job_id.decode(errors="backslashreplace"))
        for page in self._pages(by_age):
            for job_id, stone in zip(page, client.hmget(tombs, page), strict=True):
                if stone is None:
                    self._look_again_for_stone(tombs, by_age, job_id)

    def _look_again_for_stone(self, tombs: str, by_age: str, job_id: bytes) -> None:
        """Upkeep may have removed both since the page was read."""
        pipe = self._reader.pipeline(atomic=True)
        pipe.hexists(tombs, job_id)
        pipe.lpos(by_age, job_id)
        there, place = pipe.execute()
        if not there and place is not None:
            name = job_id.decode(errors="backslashreplace")
            self._note(12, "tombs_by_age lists it and there is no tombstone", name)

    def _pages(self, key: str) -> Iterator[list[bytes]]:
        start = 0
        while page := self._reader.client.lrange(key, start, start + BATCH - 1):
            yield page
            start += BATCH
