"""Checks everything Redis holds of a namespace, one queue after the other, in bounded steps."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, pairwise

from ..connect import SyncRedis
from ..errors import InvalidArgument
from ..keys import queue_root, validate_name
from ..lifecycle import LEASED
from ._queue import check_queue
from ._read import Look, Reader, Seen
from ._record import judge
from ._report import Findings, Report
from ._scan import BATCH, QueueKeys, batches, scan

__all__ = ["keyspace"]


def keyspace(
    client: SyncRedis,
    namespace: str,
    queue: str | None = None,
    *,
    now_ms: int | None = None,
    attempts: int = 3,
) -> Report:
    """Check every key of a namespace, or of its one queue `queue`, against the invariants a keyspace can show.

    Reads only, in steps of at most about a millisecond of Redis each, so it may run beside a busy queue. What is
    compared is read at one instant, and what moves on between two readings is read again, up to `attempts` times;
    what never holds still is passed over. So a violation is one, also on a live queue. Memory is bounded by the
    violations kept (1,000), the leases that are out and the records that no list names, not by the jobs.

    `client` is a sync client that answers in bytes, of one server or a cluster. `now_ms` is the time for queues
    whose verbs were given a time of their own; None means the server's clock. Raises `InvalidArgument`.
    """
    if client.get_encoder().decode_responses:
        raise InvalidArgument("client", client, "a client without decode_responses")
    if queue is not None:
        validate_name("queue", queue)
    findings = Findings()
    clock = _clock(client, now_ms)
    jobs = 0
    found = scan(client, namespace, queue, findings)
    for name, keys in sorted(found.items()):
        if keys.readable:
            jobs += _Queue(client, namespace, name, keys, findings, clock, attempts).check()
    return findings.report(jobs=jobs, queues=set(found))


def _clock(client: SyncRedis, now_ms: int | None) -> Callable[[], int]:
    """Return what tells the time: `now_ms` for ever, or the server's clock, asked once and counted on from here."""
    if now_ms is not None:
        return lambda: now_ms
    seconds, micros = client.time()
    offset_ms = seconds * 1000 + micros // 1000 - time.monotonic_ns() // 1_000_000
    return lambda: offset_ms + time.monotonic_ns() // 1_000_000


class _Queue:
    """The check of one queue. Its jobs are read by `:all`; whatever holds more than those is then read itself."""

    def __init__(
        self,
        client: SyncRedis,
        namespace: str,
        name: str,
        keys: QueueKeys,
        findings: Findings,
        clock: Callable[[], int],
        attempts: int,
    ) -> None:
        self._name = name
        self._keys = keys
        self._findings = findings
        self._clock = clock
        self._attempts = attempts
        self._reader = Reader(client, queue_root(namespace, name), keys.lanes | {"any"})
        self._jobs = 0
        self._seen: Counter[str] = Counter()
        """place → jobs that were read and are in it."""
        self._fences: dict[int, str] = {}
        """fence → job, of the leases that are out."""
        self._log_bytes = 0

    def check(self) -> int:
        """Note what is wrong; return the number of jobs read."""
        if not check_queue(self._reader, self._name, self._findings, attempts=self._attempts):
            return 0
        logs = self._logs_counted()
        for ids in chain(self._members("all"), batches(sorted(self._keys.unlisted))):
            self._judge({job_id: Look() for job_id in ids}, counted=True)
        for looks in self._suspects():
            self._judge(looks, counted=False)
        self._same_rank()
        self._all_logs(logs)
        return self._jobs

    def _judge(self, looks: dict[str, Look], *, counted: bool) -> None:
        for seen in self._reader.read(looks, attempts=self._attempts):
            for invariant, message in judge(seen, self._clock()):
                self._note(invariant, message, seen.job_id)
            if counted:
                self._jobs += bool(seen.record)
                self._tally(seen)

    def _note(self, invariant: int, message: str, job_id: str | None = None) -> None:
        self._findings.add(invariant, message, queue=self._name, job_id=job_id)

    def _tally(self, seen: Seen) -> None:
        status, fence = seen.record.get("status"), seen.record.get("fence", "")
        self._seen.update(seen.scores.keys())
        self._seen["spec"] += seen.spec is not None
        self._seen["result"] += seen.result is not None
        self._seen["logs"] += seen.log_ended is not None
        self._log_bytes += seen.log_bytes
        self._seen.update(f"held:{agent}" for agent, score in seen.held.items() if score is not None)
        self._seen["unique"] += sum(holder == seen.job_id for holder in seen.holders.values())
        if status in LEASED and fence.isdecimal():
            other = self._fences.setdefault(int(fence), seen.job_id)
            if other != seen.job_id:
                self._note(3, f"its fence {fence} is also that of the lease of job {other}", seen.job_id)

    def _suspects(self) -> Iterator[dict[str, Look]]:
        """Yield what stands in a place that holds more, or fewer, entries than the jobs read account for."""
        reader = self._reader
        zsets = [*reader.indexes, "logs", *(f"held:{agent}" for agent in sorted(self._keys.agents))]
        hashes = ["spec", "result", "unique"]
        pipe = reader.pipeline()
        for name in zsets:
            pipe.zcard(reader.key(name))
        for name in hashes:
            pipe.hlen(reader.key(name))
        for name, size in zip([*zsets, *hashes], pipe.execute(), strict=True):
            if size != self._seen[name]:
                yield from self._holders() if name == "unique" else self._strangers(name)

    def _strangers(self, name: str) -> Iterator[dict[str, Look]]:
        """Yield the members of a zset, or fields of a hash, that may have no business there."""
        agents = frozenset([name.removeprefix("held:")] if name.startswith("held:") else ())
        for ids in self._members(name) if name not in ("spec", "result") else self._fields(name):
            if agents:
                yield {job_id: Look(agents=agents) for job_id in ids}
                continue
            listed = self._reader.client.zmscore(self._reader.key("all"), ids)
            yield {job_id: Look() for job_id, seq in zip(ids, listed, strict=True) if seq is None}

    def _holders(self) -> Iterator[dict[str, Look]]:
        pairs = self._reader.client.hscan_iter(self._reader.key("unique"), count=BATCH)
        for batch in batches(pairs):
            looks: dict[str, Look] = {}
            for unique, job_id in batch:
                look = Look(uniques=frozenset([unique.decode(errors="backslashreplace")]))
                name = job_id.decode(errors="backslashreplace")
                looks[name] = looks.get(name, Look()) | look
            yield looks

    def _members(self, name: str) -> Iterator[list[str]]:
        members = self._reader.client.zscan_iter(self._reader.key(name), count=BATCH)
        for batch in batches(members):
            yield [member.decode(errors="backslashreplace") for member, _ in batch]

    def _fields(self, name: str) -> Iterator[list[str]]:
        # The values come along, payloads among them, so few at a time.
        fields = self._reader.client.hscan_iter(self._reader.key(name), count=BATCH // 10)
        for batch in batches((field for field, _ in fields), BATCH):
            yield [field.decode(errors="backslashreplace") for field in batch]

    def _logs_counted(self) -> tuple[int, int]:
        """Return how many bytes the logs have by the queue's own record, and how many were ever appended."""
        pipe = self._reader.pipeline(atomic=True)
        pipe.hget(self._reader.key("meta"), "logs_bytes")
        pipe.hget(self._reader.key("stats"), "log_bytes")
        kept, ever = pipe.execute()
        return int(kept or 0), int(ever or 0)

    def _all_logs(self, before: tuple[int, int]) -> None:
        """The logs that were read make what the queue counts, when nothing was appended or dropped meanwhile."""
        if self._logs_counted() == before and before[0] != self._log_bytes:
            self._note(7, f"logs_bytes is {before[0]}; the logs have {self._log_bytes} bytes")

    def _same_rank(self) -> None:
        """Two jobs of one rank have no order between them; they stand side by side in their lane."""
        for index in self._reader.indexes:
            if not index.startswith("ready:"):
                continue
            start = 0
            while page := self._reader.client.zrange(self._reader.key(index), start, start + BATCH, withscores=True):
                for (one, rank), (other, same) in pairwise(page):
                    if rank == same:
                        names = f"{one.decode(errors='replace')} and {other.decode(errors='replace')}"
                        self._note(6, f"jobs {names} have the same place {rank:.0f} in {index}")
                # The last entry is read again as the first of the next page, to be compared with its neighbour.
                start += BATCH
