"""A pool over HTTP, with the verbs and answers of `Queue`: a command need not know which of the two it has.

What a server does not tell (`seq`, `lane`, what an attempt became) is None here, and null in documents.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
import rich_click as click

from ..agent import Client
from ..job import Attempt, Backoff, Cancelled, Enqueued, Job, JobPage, JobSpec
from ..lifecycle import TERMINAL, JobStatus, Priority

if TYPE_CHECKING:
    from ..agent import BatchEntry, LogPart, NewJob
    from ..agent import Job as WireJob
    from ..agent.errors import ApiError
    from ..errors import HybridqError

__all__ = ["Remote"]

MODE: Final = "graceful"
GRACE_S: Final = 10.0
UNKNOWN: Final[Any] = None
"""In place of what only Redis knows."""


class Remote:
    """A pool of the server that `client` speaks to. Closed by `close` or `with`."""

    def __init__(self, client: Client, pool: str) -> None:
        self.client, self.name = client, pool

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def at(self, pool: str) -> Remote:
        """Return another pool of the same server, which is closed with this one."""
        return Remote(self.client, pool)

    # -- jobs ----------------------------------------------------------------------------------------------------

    def enqueue(
        self,
        type: str = "job",
        payload: Any = None,
        *,
        job_id: str | None = None,
        priority: Priority | str = Priority.NORMAL,
        delay_s: float | None = None,
        run_at: dt.datetime | None = None,
        max_attempts: int = 3,
        timeout_s: float = 3600.0,
        unique: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Enqueued:
        """Take one job in."""
        spec = JobSpec(
            type=type,
            payload=payload,
            job_id=job_id,
            priority=Priority(str(priority).upper()),
            delay_s=delay_s,
            run_at=run_at,
            max_attempts=max_attempts,
            timeout_s=timeout_s,
            unique=unique,
            tags=tags or {},
        )
        [answer] = self.enqueue_many([spec])
        if isinstance(answer, Enqueued):
            return answer
        raise answer

    def enqueue_many(self, specs: Sequence[JobSpec]) -> list[Enqueued | HybridqError]:
        """Take up to 1,000 jobs in; for each what became of it, or its error."""
        done = self.client.enqueue_batch([self._new_job(spec) for spec in specs])
        return [_answer_of(entry) for entry in done.results]

    def job(self, job_id: str) -> Job:
        """Return a job whole."""
        return _job_of(self.client.job(self._id(job_id)))

    def jobs(
        self,
        *,
        status: str | None = None,
        priority: str | None = None,
        type: str | None = None,
        tags: Mapping[str, str] | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> JobPage:
        """Return one page of jobs, newest first."""
        page = self.client.jobs(
            pool=self.name, status=status, priority=priority, type=type, tags=tags, limit=limit, cursor=cursor
        )
        return JobPage(items=tuple(map(_job_of, page.items)), next_cursor=page.next_cursor)

    def cancel(self, job_id: str, *, mode: str = MODE, grace_s: float = GRACE_S) -> Cancelled:
        """Cancel a job. Over HTTP that is always graceful, with the grace that the server has."""
        if (mode, grace_s) != (MODE, GRACE_S):
            raise click.UsageError("--mode and --grace are for Redis; over HTTP a cancel is graceful")
        job = self.client.cancel(self._id(job_id))
        status = JobStatus(job.status)
        asked = job.cancel_requested_at is not None and status not in TERMINAL
        return Cancelled(job_id=job.job_id, status=status, requested=asked)

    def retry(self, job_id: str) -> JobStatus:
        """Give an ended job a new life."""
        return JobStatus(self.client.retry(self._id(job_id)).status)

    def reprioritise(self, job_id: str, priority: str) -> JobStatus:
        """Give a job another priority."""
        return JobStatus(self.client.priority(self._id(job_id), priority).status)

    # -- logs ----------------------------------------------------------------------------------------------------

    def read_log(self, job_id: str, *, offset: int = 0, limit: int | None = None) -> LogPart:
        """Return a part of a job's log."""
        return self.client.read_log(self._id(job_id), offset=offset, limit=limit)

    def follow_log(self, job_id: str, *, offset: int = 0, poll_s: float = 0.5) -> Iterator[LogPart]:
        """Yield a job's log as it grows, to its end. The server tells, so `poll_s` means nothing here."""
        return self.client.follow_log(self._id(job_id), offset=offset)

    # -- the wire ------------------------------------------------------------------------------------------------

    def _id(self, job_id: str) -> str:
        return f"{self.name}~{job_id}"

    def _new_job(self, spec: JobSpec) -> NewJob:
        from ..agent import NewJob, RetryPolicy

        payload = spec.payload
        if isinstance(payload, bytes):
            try:
                msgspec.json.decode(payload)
            except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
                raise click.UsageError(f"over HTTP a payload is JSON, and this is not: {wrong}") from None
        return NewJob(
            type=spec.type,
            payload=payload,
            job_id=spec.job_id,
            pool=self.name,
            priority=spec.priority.value,
            labels=spec.labels or None,
            tags=spec.tags or None,
            run_at=spec.run_at,
            delay_seconds=spec.delay_s,
            max_attempts=spec.max_attempts,
            timeout_seconds=spec.timeout_s,
            retry=None
            if spec.retry == Backoff()
            else RetryPolicy(base_seconds=spec.retry.base_s, max_seconds=spec.retry.max_s),
            unique=spec.unique,
        )


def _answer_of(entry: BatchEntry) -> Enqueued | ApiError:
    if entry.job is None:
        return _error_of(entry)
    return Enqueued(
        job_id=entry.job.job_id,
        status=JobStatus(entry.job.status),
        created=entry.status == 201,
        unique=entry.job.unique,
    )


def _error_of(entry: BatchEntry) -> ApiError:
    from ..agent.errors import Reason, class_of

    said = dict(entry.problem or {})
    code = str(said.get("code", f"http_{entry.status}"))
    places = [
        Reason(str(one.get("pointer", "")), str(one.get("reason", "")))
        for one in said.get("errors") or ()
        if isinstance(one, dict)
    ]
    members = {name: said[name] for name in said if name not in _PROBLEM}
    return class_of(entry.status, code)(entry.status, code, str(said.get("detail", "")), errors=places, members=members)


_PROBLEM: Final = frozenset({"type", "title", "status", "detail", "code", "instance", "errors"})


def _job_of(wire: WireJob) -> Job:
    """Return a job of the wire under the library's own names."""
    payload = bytes(wire.payload)
    if wire.payload_encoding == "base64":
        payload = base64.b64decode(msgspec.json.decode(payload))
    retry = wire.retry
    return Job(
        job_id=wire.job_id,
        queue=wire.pool,
        type=wire.type or UNKNOWN,
        status=JobStatus(wire.status),
        priority=UNKNOWN if wire.priority is None else Priority(wire.priority),
        payload=payload,
        lane=UNKNOWN,
        attempt=wire.attempt or 0,
        max_attempts=wire.max_attempts or 0,
        deliveries=wire.deliveries or 0,
        generation=wire.generation or 0,
        timeout_s=wire.timeout_seconds or 0.0,
        retry=Backoff() if retry is None else Backoff(base_s=retry.base_seconds, max_s=retry.max_seconds),
        unique=wire.unique_key,
        tags=wire.tags or {},
        labels=wire.labels or (),
        request_id=wire.request_id,
        trace_id=wire.traceparent or wire.trace_id,
        enqueued_at=wire.enqueued_at or UNKNOWN,
        run_at=wire.run_at,
        agent=wire.agent_id,
        fence=UNKNOWN,
        claimed_at=wire.claimed_at,
        started_at=wire.started_at,
        lease_expires_at=wire.claimed_lease_expires_at,
        cancel_requested_at=wire.cancel_requested_at,
        finished_at=wire.finished_at,
        outcome=wire.outcome,
        exit_code=wire.exit_code,
        result=wire.result,
        error=wire.error,
        dead_reason=wire.dead_reason,
        seq=UNKNOWN,
        attempts=tuple(
            Attempt(
                number=one.number,
                agent=one.agent_id or UNKNOWN,
                fence=one.fence or UNKNOWN,
                claimed_at=one.claimed_at or UNKNOWN,
                started_at=one.started_at,
                finished_at=one.finished_at,
                outcome=one.outcome or UNKNOWN,
                status=UNKNOWN,
                exit_code=one.exit_code,
                error=one.error,
                late=one.late,
            )
            for one in wire.attempts
            if one.finished_at is not None
        ),
    )
