"""What the queues of both colours share: where a queue lives, and the steps of calls that take more than one.

Such a call is a generator that yields Calls and is sent their values; a queue of either colour only runs it.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
import socket
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from ._units import to_ms
from .backend import BackendBase
from .call import Call
from .connect import Connects
from .errors import HybridqError, InvalidArgument, QueueClosed
from .job import Enqueued, Job, JobPage, JobSpec, LeaseProof, Purged, Replayed
from .keys import queue_root, validate_holder, validate_name, validate_namespace
from .lifecycle import JobStatus
from .ops import _args, inspect, jobs, queues

__all__ = ["Flow", "QueueBase"]

T = TypeVar("T")
Flow = Generator[Call[Any], Any, T]
"""Steps of a call: yields Calls, is sent their values, returns the whole's value."""

PAGES_MAX: Final = 10
BULK: Final = 50
LIMIT_MAX: Final = 10_000_000


def default_agent() -> str:
    """Return a name for this process: host, pid and six random digits, within the rule for names."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).strip("._-")[:40] or "host"
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"


class QueueBase:
    """Name, namespace and place of a queue; see `Queue`."""

    def __init__(
        self, name: str, backend: BackendBase, *, namespace: str | None, agent: str | None, lease_s: float | None
    ) -> None:
        self.name = validate_name("queue", name)
        self.namespace = namespace_of(namespace)
        self.agent = validate_holder("agent", agent or default_agent())
        if lease_s is not None:
            to_ms("lease_s", lease_s, 1, 3600)
        self.lease_s = float(lease_s or 0)
        """0: as long as the queue says."""
        self.root = queue_root(self.namespace, self.name)
        self.connector: Connects = backend.connector
        self._now_ms = 0
        self._closed = False
        self._place = backend.place(self.name, self.root, functools.partial(queues.found, self.namespace, self.name))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.namespace}/{self.name} at {self.connector.safe_url}>"

    def _check_open(self) -> None:
        if self._closed:
            raise QueueClosed(self.name)


def namespace_of(namespace: str | None) -> str:
    """Return the namespace meant: the one given, else `HYBRIDQ_NAMESPACE`, else "default"."""
    return validate_namespace(namespace or os.environ.get("HYBRIDQ_NAMESPACE") or "default")


def specs_of(specs: Iterable[JobSpec]) -> list[JobSpec]:
    """Return the specs of a bulk enqueue as a list; a single spec by mistake is refused."""
    if isinstance(specs, JobSpec):
        raise InvalidArgument("specs", "a JobSpec", "an iterable of JobSpec; use enqueue for one")
    return list(specs)


def leases_of(held: Iterable[LeaseProof]) -> list[LeaseProof]:
    """Return the leases of a heartbeat as a list; a single lease by mistake is refused."""
    if isinstance(held, LeaseProof):
        raise InvalidArgument("held", "a Lease", "an iterable of leases; put one into a list")
    return list(held)


def single(result: Enqueued | HybridqError) -> Enqueued:
    """Return the answer of an enqueue of one job, or raise its error."""
    if isinstance(result, HybridqError):
        raise result
    return result


def list_jobs(
    root: str,
    queue: str,
    *,
    status: JobStatus | str | None,
    priority: Any,
    type: str | None,
    tags: Mapping[str, str] | None,
    reason: str | None = None,
    agent: str | None = None,
    limit: int,
    cursor: str | None,
    now_ms: int,
) -> Flow[JobPage]:
    """One page of jobs; filters that need the spec are applied here, over at most `PAGES_MAX` pages of ids."""
    _args.integer("limit", limit, 1, inspect.PAGE_MAX)
    found: list[Job] = []
    for _ in range(PAGES_MAX):
        left = limit - len(found)
        ids = yield inspect.page(root, status=status, priority=priority, limit=left, cursor=cursor, now_ms=now_ms)
        cursor = ids.next_cursor
        described = (yield inspect.describe(root, ids.job_ids, queue=queue, now_ms=now_ms)) if ids.job_ids else []
        found += [job for job in described if job is not None and _fits(job, type, tags, reason, agent)]
        if cursor is None or len(found) >= limit:
            break
    return JobPage(items=tuple(found), next_cursor=cursor)


def _fits(job: Job, type: str | None, tags: Mapping[str, str] | None, reason: str | None, agent: str | None) -> bool:
    return (
        (type is None or job.type == type)
        and (reason is None or job.dead_reason == reason)
        and (agent is None or (job.agent or "").partition("@")[0] == agent)
        and all(job.tags.get(key) == value for key, value in (tags or {}).items())
    )


def matching_dead(
    root: str,
    queue: str,
    job_ids: Sequence[str] | None,
    *,
    all: bool,
    type: str | None,
    reason: str | None,
    tags: Mapping[str, str] | None,
    limit: int | None,
    now_ms: int,
) -> Flow[list[str]]:
    """Ids of the dead letters that a replay or purge speaks of. Without ids or a filter `all=True` is needed."""
    if limit is not None:
        _args.integer("limit", limit, 1, LIMIT_MAX)
    if job_ids is not None:
        if isinstance(job_ids, str):
            raise InvalidArgument("job_ids", job_ids, "a sequence of job ids")
        return list(dict.fromkeys(job_ids))
    if not (all or type or reason or tags):
        raise InvalidArgument("all", all, "True when neither job_ids nor a filter is given")
    ids: list[str] = []
    cursor: str | None = None
    while limit is None or len(ids) < limit:
        page = yield from list_jobs(
            root,
            queue,
            status=JobStatus.DEAD_LETTERED,
            priority=None,
            type=type,
            tags=tags,
            reason=reason,
            limit=inspect.PAGE_MAX,
            cursor=cursor,
            now_ms=now_ms,
        )
        ids += [job.job_id for job in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    return ids if limit is None else ids[:limit]


def replay_dead(root: str, queue: str, job_ids: Sequence[str] | None, *, now_ms: int, **filters: Any) -> Flow[Replayed]:
    """Replay dead letters in steps of `BULK`, the oldest death first."""
    ids = yield from matching_dead(root, queue, job_ids, now_ms=now_ms, **filters)
    done: list[str] = []
    skipped: dict[str, str] = {}
    for step in _steps(ids if job_ids is not None else ids[::-1]):
        answer = yield jobs.replay(root, step, now_ms=now_ms)
        done += answer.replayed
        skipped |= answer.skipped
    return Replayed(replayed=tuple(done), skipped=skipped)


def purge_dead(root: str, queue: str, job_ids: Sequence[str] | None, *, now_ms: int, **filters: Any) -> Flow[Purged]:
    """Purge dead letters in steps of `BULK`."""
    ids = yield from matching_dead(root, queue, job_ids, now_ms=now_ms, **filters)
    done: list[str] = []
    skipped: dict[str, str] = {}
    for step in _steps(ids):
        answer = yield jobs.purge(root, step, now_ms=now_ms)
        done += answer.purged
        skipped |= answer.skipped
    return Purged(purged=tuple(done), skipped=skipped)


def _steps(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[first : first + BULK] for first in range(0, len(ids), BULK))
