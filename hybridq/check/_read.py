"""Reads all that Redis holds of a job, at one instant, so that a busy queue raises no false alarm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ..connect import SyncRedis
from ..lifecycle import Priority

__all__ = ["Look", "Reader", "Seen", "number_of", "pairs_of"]

CHUNK_JOBS: Final = 200
CHUNK_BYTES: Final = 4_194_304
"""Bounds of one MULTI: about a millisecond of Redis, and this much memory here."""

_SCHEDULED: Final = tuple(f"scheduled:{priority}" for priority in Priority)


class Look(NamedTuple):
    """Where else to look for a job: held sets by agent and unique keys, which its id alone does not tell."""

    agents: frozenset[str] = frozenset()
    uniques: frozenset[str] = frozenset()

    def __or__(self, other: object) -> Look:
        if not isinstance(other, Look):
            return NotImplemented
        return Look(self.agents | other.agents, self.uniques | other.uniques)


@dataclass(slots=True)
class Seen:
    """All that Redis holds of one job, at one instant."""

    job_id: str
    record: dict[str, str] = field(default_factory=dict)
    """Empty when there is none."""
    readable: bool = True
    """False when the record's key is not a hash."""
    spec: bytes | None = None
    result: bytes | None = None
    tomb: bytes | None = None
    seq: float | None = None
    log_bytes: int = 0
    log_ended: float | None = None
    """Its score in `logs`."""
    scores: dict[str, float] = field(default_factory=dict)
    """index → score, for each index that has the job."""
    held: dict[str, float | None] = field(default_factory=dict)
    """agent → score in its held set, for each agent looked at."""
    generations: dict[str, int | None] = field(default_factory=dict)
    """agent → generation of its session as the queue knows it, for each agent looked at."""
    holders: dict[str, str | None] = field(default_factory=dict)
    """unique key → job that holds it, for each key looked at."""
    meta: Mapping[str, str] = field(default_factory=dict)
    """The queue's own record at that instant."""

    @property
    def needs(self) -> Look:
        """Where else the record says that the job is."""
        agent, unique = self.record.get("agent"), self.record.get("unique")
        return Look(frozenset(filter(None, [agent])), frozenset(filter(None, [unique])))

    @property
    def looked(self) -> Look:
        """Where this reading looked."""
        return Look(frozenset(self.held), frozenset(self.holders))


def pairs_of(reply: Any) -> dict[str, str]:
    """Return a hash reply as text; it comes flat inside a cluster's MULTI. Raises the error Redis answered."""
    if isinstance(reply, Exception):
        raise reply
    items = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {_text(name): _text(value) for name, value in items}


def number_of(reply: Any) -> float | None:
    """Return a score, which comes as text inside a cluster's MULTI; None for no member."""
    return None if reply is None else float(reply)


def _whole(reply: Any) -> int | None:
    """Return a field as a whole number; None when it is none, or when its key is no hash, which the scan reports."""
    return int(reply) if isinstance(reply, bytes) and reply.isdigit() else None


def _text(value: bytes) -> str:
    return value.decode(errors="backslashreplace")


class Reader:
    """Reads the jobs of one queue."""

    def __init__(self, client: SyncRedis, root: str, lanes: Iterable[str]) -> None:
        # redis-py types its answers for both colours at once; these are the sync ones.
        self.client: Any = client
        self.root = root
        ready = (f"ready:{lane}" for lane in sorted(lanes))
        self.indexes = (*ready, *_SCHEDULED, "blocked", "leased", "dead", "finished")

    def key(self, name: str) -> str:
        """Return the key `name` of the queue."""
        return f"{self.root}:{name}"

    def pipeline(self, *, atomic: bool = False) -> Any:
        """Return a pipeline; `atomic`: what it reads, it reads at one instant."""
        return self.client.pipeline(transaction=atomic)

    def read(self, looks: Mapping[str, Look], *, attempts: int) -> Iterator[Seen]:
        """Yield what Redis holds of each job.

        Its record may say that it has to be looked for in more places, so it is read once more with those; and again,
        up to `attempts` times, when it has moved on meanwhile.
        """
        for names in self._chunks(looks):
            wanted = {job_id: looks[job_id] for job_id in names}
            for left in range(attempts, -1, -1):
                again: dict[str, Look] = {}
                for seen in self._snapshot(wanted):
                    places = seen.needs | seen.looked
                    if left and places != seen.looked:
                        again[seen.job_id] = places
                    else:
                        yield seen
                if not again:
                    break
                wanted = again

    def _chunks(self, ids: Iterable[str]) -> Iterator[list[str]]:
        """Cut ids to readings of bounded size."""
        names = list(ids)
        pipe = self.pipeline()
        for job_id in names:
            pipe.hstrlen(self.key("spec"), job_id)
            pipe.hstrlen(self.key("result"), job_id)
        sizes = iter(pipe.execute())
        chunk: list[str] = []
        total = 0
        for job_id in names:
            size = next(sizes) + next(sizes)
            if chunk and (len(chunk) == CHUNK_JOBS or total + size > CHUNK_BYTES):
                yield chunk
                chunk, total = [], 0
            chunk.append(job_id)
            total += size
        if chunk:
            yield chunk

    def _snapshot(self, looks: Mapping[str, Look]) -> Iterator[Seen]:
        names = list(looks)
        pipe = self.pipeline(atomic=True)
        pipe.hgetall(self.key("meta"))
        for hash_name in ("spec", "result", "tombs"):
            pipe.hmget(self.key(hash_name), names)
        for index in ("all", "logs", *self.indexes):
            pipe.zmscore(self.key(index), names)
        for job_id, look in looks.items():
            pipe.hgetall(self.key(f"job:{job_id}"))
            pipe.strlen(self.key(f"log:{job_id}"))
            for agent in look.agents:
                pipe.zscore(self.key(f"held:{agent}"), job_id)
                pipe.hget(self.key(f"agent:{agent}"), "generation")
            for unique in look.uniques:
                pipe.hget(self.key("unique"), unique)
        replies = iter(pipe.execute(raise_on_error=False))
        meta = pairs_of(next(replies))
        specs, results, tombs = next(replies), next(replies), next(replies)
        seqs, logs = next(replies), next(replies)
        scores = {index: next(replies) for index in self.indexes}
        for at, (job_id, look) in enumerate(looks.items()):
            record, log_bytes = next(replies), next(replies)
            unreadable = isinstance(record, Exception)
            held: dict[str, float | None] = {}
            generations: dict[str, int | None] = {}
            for agent in look.agents:
                held[agent] = number_of(next(replies))
                generations[agent] = _whole(next(replies))
            holders = {unique: next(replies) for unique in look.uniques}
            yield Seen(
                job_id=job_id,
                record={} if unreadable else pairs_of(record),
                readable=not unreadable,
                spec=specs[at],
                result=results[at],
                tomb=tombs[at],
                seq=number_of(seqs[at]),
                log_bytes=log_bytes if isinstance(log_bytes, int) else 0,
                log_ended=number_of(logs[at]),
                scores={index: float(found[at]) for index, found in scores.items() if found[at] is not None},
                held=held,
                generations=generations,
                holders={unique: _text(job) if job is not None else None for unique, job in holders.items()},
                meta=meta,
            )
