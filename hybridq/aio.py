"""`AsyncQueue`: the queue for asyncio. It runs the same Calls as `Queue`, joined with others of the same loop turn."""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
from collections.abc import AsyncIterator, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from . import _base
from ._units import to_ms
from .backend import AsyncBackend, BackendBase
from .bell import AsyncBell
from .call import Call
from .connect import Connects
from .errors import HybridqError, InvalidArgument, JobNotFound
from .job import (
    Backoff,
    Beat,
    Cancelled,
    Enqueued,
    Finished,
    Job,
    JobPage,
    JobSpec,
    Lease,
    LeaseProof,
    Limits,
    LogPart,
    Pause,
    Purged,
    QueueStats,
    Replayed,
    Upkeep,
)
from .keys import bell_channel, new_id
from .lifecycle import JobStatus, Outcome, Priority
from .ops import inspect, jobs, leases, logs, queues
from .parking import Lot, Waiter

if TYPE_CHECKING:
    from .hold import AsyncHold

__all__ = ["AsyncDeadLetters", "AsyncQueue"]

T = TypeVar("T")
L = TypeVar("L", bound=LeaseProof)
WAIT_S_MAX: Final = 86_400
LEASE_S: Final = 30.0
ASK_FIRST_MS: Final = 500


class AsyncQueue(_base.QueueBase):
    """A queue, for asyncio. Connects at the first call, and creates the queue in Redis if it is not there.

    Args:
        name: The queue's name; names and ids are 1 to 64 of `A-Z a-z 0-9 . _ -`.
        redis: A URL (`redis:// rediss:// unix:// redis+sentinel:// redis+cluster://`), a connector, or
            an `AsyncBackend` to share, which its maker closes. None: `HYBRIDQ_REDIS_URL`, else a private
            server in `data_dir`.
        namespace: Keeps apart what shares a Redis. None: `HYBRIDQ_NAMESPACE`, else "default".
        agent: Who claims; None makes up a name for this process.
        lease_s: Seconds a lease lasts unless a claim says otherwise, 1 to 3,600; None: as the queue says.
        data_dir: Folder of the private server. None: `HYBRIDQ_DATA_DIR`, else the platform's place for user data.

    A queue belongs to the event loop of its first call. Concurrent calls travel together. Errors: `hybridq.errors`.
    """

    def __init__(
        self,
        name: str = "default",
        *,
        redis: str | Connects | BackendBase | None = None,
        namespace: str | None = None,
        agent: str | None = None,
        lease_s: float | None = 30.0,
        data_dir: Path | str | None = None,
    ) -> None:
        shared = redis if isinstance(redis, AsyncBackend) else None
        self._backend = shared or AsyncBackend(redis, data_dir=data_dir)
        self._owns_backend = shared is None
        super().__init__(name, self._backend, namespace=namespace, agent=agent, lease_s=lease_s)
        self.dead = AsyncDeadLetters(self)
        self._coalescer = self._backend.coalescer
        self._lot: Lot | None = None

    async def enqueue(
        self,
        type: str,
        payload: Any = None,
        *,
        job_id: str | None = None,
        priority: Priority | str = Priority.NORMAL,
        delay_s: float | None = None,
        run_at: dt.datetime | None = None,
        max_attempts: int = 3,
        timeout_s: float = 3600.0,
        retry: Backoff = Backoff(),  # noqa: B008 - frozen
        unique: str | None = None,
        tags: Mapping[str, str] | None = None,
        labels: Sequence[str] = (),
        request_id: str | None = None,
        trace_id: str | None = None,
        on_conflict: str = "return",
    ) -> Enqueued:
        """Take one job in. With a `job_id` of your own the call can be repeated: same content, same answer.

        `payload` is bytes or anything JSON can hold, at most 262,144 bytes; `delay_s` or `run_at` (with a zone), at
        most a year ahead. `unique`: while a job with this key has not ended, the answer is that job
        (`on_conflict="reject"`: `UniqueTaken`). Raises `UsageError` before anything is sent, `JobConflict`,
        `QueueFull`, `OutcomeUnknown`.
        """
        spec = JobSpec(
            type=type,
            payload=payload,
            job_id=job_id,
            priority=priority,  # type: ignore[arg-type]  # checked and converted by the operation
            delay_s=delay_s,
            run_at=run_at,
            max_attempts=max_attempts,
            timeout_s=timeout_s,
            retry=retry,
            unique=unique,
            tags=tags or {},
            labels=tuple(labels),
            request_id=request_id,
            trace_id=trace_id,
        )
        call = jobs.enqueue(self.root, [spec], queue=self.name, on_conflict=on_conflict, now_ms=self._now_ms)
        return _base.single((await self._run(call))[0])

    async def enqueue_many(
        self, specs: Iterable[JobSpec], *, on_conflict: str = "return", atomic: bool = False
    ) -> list[Enqueued | HybridqError]:
        """Take many jobs in, in order. For each an `Enqueued` or the error of that job alone; the others go on.

        `atomic` takes up to 50 jobs in all at once or not at all: when one fails, `BatchRefused` says which and why.
        """
        given = _base.specs_of(specs)
        call = jobs.enqueue(
            self.root, given, queue=self.name, on_conflict=on_conflict, atomic=atomic, now_ms=self._now_ms
        )
        return await self._run(call) if call.entries else []

    async def claim(
        self,
        n: int = 1,
        *,
        wait_s: float = 0.0,
        lease_s: float | None = None,
        start: bool = False,
        request_id: str | None = None,
        agent: str | None = None,
        generation: int = 0,
        holding: Iterable[LeaseProof] | None = None,
    ) -> list[Lease]:
        """Lease up to `n` (1 to 100) of the most urgent jobs, at most 50 a call; empty when none came within `wait_s`.

        `start` claims straight into RUNNING. The same `request_id` again gets the same leases while they live.
        `holding`, when given, is all this agent holds: what else it was given and never confirmed goes back.
        `generation` is that of a registered agent's session: one that was
        superseded or is draining is refused (`SessionSuperseded`, `AgentDraining`), and it never holds more than its
        capacity.
        """
        wait_ms = to_ms("wait_s", wait_s, 0, WAIT_S_MAX)
        if lease_s is not None:
            to_ms("lease_s", lease_s, 1, 3600)
        lasts_s = self.lease_s if lease_s is None else lease_s
        held = None if holding is None else list(holding)
        who, asked = agent or self.agent, request_id or new_id()

        def make(lease_id: str) -> Call[leases.Claimed]:
            return leases.claim(
                self.root,
                queue=self.name,
                agent=who,
                lease_id=lease_id,
                n=n,
                lease_s=lasts_s,
                start=start,
                request_id=asked,
                fresh=request_id is None,
                generation=generation,
                holding=held,
                now_ms=self._now_ms,
            )

        # A lease of a caller's own request id must not be handed to another; it is given back.
        like = (who, n, lasts_s, start) if request_id is None and held is None else (object(),)
        first = make(secrets.token_hex(16))  # what is wrong with the arguments is said before anything waits
        lot = self._open_lot()
        if wait_ms >= ASK_FIRST_MS:
            return list(await lot.wait(Waiter(make, like, lasts_s or LEASE_S, who), wait_ms / 1000))
        # A wait so short could be over before its first claim is answered: a job that is there is given first.
        ends = asyncio.get_running_loop().time() + wait_ms / 1000
        claimed = await self._coalescer.run(first, orphan=lambda given: lot.pass_on(like, given.leases))
        left_s = ends - asyncio.get_running_loop().time()
        if claimed.leases or not wait_ms or left_s <= 0:
            return list(claimed.leases)
        return list(await lot.wait(Waiter(make, like, lasts_s or LEASE_S, who), left_s))

    async def start(self, lease: L) -> L:
        """Begin the work of a lease: the attempt is charged. Returns the lease, RUNNING. Harmless to repeat.

        Raises `JobCancelled` (do not run it), `StaleLease`, `NotLeaseHolder`, `JobNotFound`.
        """
        return await self._run(leases.start(self.root, lease, now_ms=self._now_ms))

    async def heartbeat(self, held: Iterable[LeaseProof]) -> Beat:
        """Push the end of leases to now + their `lease_s`. Returns which were renewed, lost, are to be cancelled."""
        beating = _base.leases_of(held)
        if not beating:
            return Beat(renewed=(), lost={}, cancel=())
        return await self._run(leases.heartbeat(self.root, beating, now_ms=self._now_ms))

    async def complete(
        self, lease: LeaseProof, result: Any = None, *, exit_code: int | None = None, claim_next: int = 0
    ) -> Finished:
        """End a job well; `result` is anything JSON can hold, at most 262,144 bytes. The same call again is harmless.

        `claim_next` leases up to so many next jobs, as this one was claimed, in the same round trip; it never waits.
        Raises `StaleLease` (the result does not count), `NotLeaseHolder`, `OutcomeConflict`, `IllegalTransition`.
        """
        call = leases.complete(
            self.root, lease, Outcome.SUCCESS, result=result, exit_code=exit_code, now_ms=self._now_ms
        )
        return await self._finish(call, lease, claim_next)

    async def fail(
        self,
        lease: LeaseProof,
        error: Any = None,
        *,
        retryable: bool = True,
        outcome: Outcome | str = Outcome.FAILED,
        delay_s: float | None = None,
        exit_code: int | None = None,
        result: Any = None,
        claim_next: int = 0,
    ) -> Finished:
        """End a run that did not go well: the job waits for its next attempt, or is given up.

        `error` is anything JSON can hold, at most 8,192 bytes; so is `result`, what was reached nevertheless, at most
        262,144. `delay_s` replaces the job's own backoff. Raises as `complete` does.
        """
        call = leases.complete(
            self.root,
            lease,
            outcome,
            result=result,
            error=error,
            exit_code=exit_code,
            retryable=retryable,
            delay_s=delay_s,
            now_ms=self._now_ms,
        )
        return await self._finish(call, lease, claim_next)

    async def release(self, lease: LeaseProof, *, delay_s: float | None = None) -> Finished:
        """Hand a job back unfinished: the attempt is given back and the job keeps its place in line."""
        return await self._run(leases.release(self.root, lease, delay_s=delay_s, now_ms=self._now_ms))

    async def append_log(
        self, lease: LeaseProof, offset: int, data: str | bytes, *, sent_bytes: int | None = None
    ) -> int:
        """Append to the job's log; returns where this lease's next piece begins. The same piece again is ignored.

        `offset` counts the bytes of UTF-8 that were sent under this lease, from 0; a piece has at most 1,048,576.
        `sent_bytes` is how long the piece was for its sender, when something in it was replaced since. The first
        piece confirms the lease. What comes when the log is full is taken and not stored. Raises `OffsetGap`, whose
        `expected` is where to go on, `StaleLease`, `NotLeaseHolder`, `JobNotFound`, `QueueFull`.
        """
        call = logs.append(self.root, lease, offset, data, sent_bytes=sent_bytes, now_ms=self._now_ms)
        return await self._run(call)

    async def cancel(self, job_id: str, *, mode: str = "graceful", grace_s: float = 10.0) -> Cancelled:
        """Cancel a job: at once while it waits; while leased its holder is told by its next heartbeat.

        Raises `AlreadyTerminal`, `JobNotFound`.
        """
        return await self._run(jobs.cancel(self.root, job_id, mode=mode, grace_s=grace_s, now_ms=self._now_ms))

    async def reprioritise(self, job_id: str, priority: Priority | str) -> JobStatus:
        """Give a job that has not ended another priority; it joins the end of that level. Returns its status."""
        return await self._run(jobs.reprioritise(self.root, job_id, priority, now_ms=self._now_ms))

    async def retry(self, job_id: str, *, request_id: str | None = None) -> JobStatus:
        """Give an ended job that is not COMPLETED a new life. Raises `NotTerminal`, `UniqueTaken`, `JobNotFound`.

        The same `request_id` again is no second life: it returns the status that the job has by now.
        """
        return await self._run(jobs.retry(self.root, job_id, request_id=request_id, now_ms=self._now_ms))

    async def job(self, job_id: str) -> Job:
        """Return a job whole. Raises `JobNotFound`."""
        found = (await self._run(inspect.describe(self.root, [job_id], queue=self.name, now_ms=self._now_ms)))[0]
        if found is None:
            raise JobNotFound(job_id)
        return found

    async def jobs(
        self,
        *,
        status: JobStatus | str | None = None,
        priority: Priority | str | None = None,
        type: str | None = None,
        tags: Mapping[str, str] | None = None,
        agent: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> JobPage:
        """Return one page of jobs, newest first, at most 200. A filtered page may be short: go on by `next_cursor`.

        `agent` is who holds the job, or held it last; the credential behind an `@` does not count.
        """
        return await self._follow(
            _base.list_jobs(
                self.root,
                self.name,
                status=status,
                priority=priority,
                type=type,
                tags=tags,
                agent=agent,
                limit=limit,
                cursor=cursor,
                now_ms=self._now_ms,
            )
        )

    async def read_log(self, job_id: str, *, offset: int = 0, limit: int = 262_144) -> LogPart:
        """Return up to `limit` (1 to 1,048,576) bytes of a job's log, in whole characters, from a position on.

        Positions count the log as it is stored: what all leases said, one after the other. Raises `JobNotFound`.
        """
        return await self._run(logs.read(self.root, job_id, offset=offset, limit=limit, now_ms=self._now_ms))

    async def follow_log(self, job_id: str, *, offset: int = 0, poll_s: float = 0.5) -> AsyncIterator[LogPart]:
        """Yield a job's log as it grows, until the job has ended and all was read; looks every `poll_s` seconds.

        The last part is `complete`. Raises `JobNotFound`, also when the job is trimmed meanwhile.
        """
        to_ms("poll_s", poll_s, 0.01, 3600)
        while True:
            part = await self.read_log(job_id, offset=offset)
            if part.data or part.complete:
                yield part
            if part.complete:
                return
            offset = part.next_offset
            if not part.data:
                await asyncio.sleep(poll_s)

    async def pause(self, reason: str | None = None, *, by: str | None = None) -> Pause:
        """Stop handing out jobs; leased work goes on. The first pause's reason stands until `resume`."""
        return await self._run(queues.pause(self.root, paused=True, reason=reason, by=by, now_ms=self._now_ms))

    async def resume(self, *, by: str | None = None) -> Pause:
        """Hand out jobs again."""
        return await self._run(queues.pause(self.root, paused=False, by=by, now_ms=self._now_ms))

    async def stats(self, *, window_s: float = 300.0) -> QueueStats:
        """Return gauges, totals and a window of up to 3,600 s of waits and runs; `window_s=0`: since the beginning."""
        return await self._run(inspect.stats(self.root, window_s=window_s, now_ms=self._now_ms))

    async def upkeep(self) -> Upkeep:
        """Do one bounded step of what claims do on the way: reap lost leases, promote due jobs, trim old records."""
        return await self._run(queues.upkeep(self.root, now_ms=self._now_ms))

    async def due_in_s(self) -> float | None:
        """Return in how many seconds a claim or `upkeep` has something to do: 0 for now, None for never.

        While jobs are claimable or leased that is now. It costs Redis next to nothing, and writes nothing.
        """
        return await self._run(queues.peek(self.root, now_ms=self._now_ms))

    async def configure(self, **limits: float) -> dict[str, float]:
        """Change limits of the queue: `lease_s max_queued max_dead retention_s retention_count tombstone_s events_max
        log_bytes_max logs_bytes_max`.

        `max_queued` = 0 means no limit. Returns those given, as they are now.
        """
        return await self._run(queues.configure(self.root, limits, now_ms=self._now_ms))

    async def limits(self) -> Limits:
        """Return how the queue is configured, and whether it hands out jobs."""
        return await self._run(queues.limits(self.root, now_ms=self._now_ms))

    def hold(self, *, wait_s: float = 0.0, lease_s: float | None = None) -> AsyncHold:
        """Return a context manager that claims one job, keeps its lease alive, and reports how the block ended."""
        from .hold import AsyncHold

        return AsyncHold(self, wait_s=wait_s, lease_s=lease_s)

    async def close(self) -> None:
        """Answer waiting claims with nothing, see what was sent through, close the connections."""
        if not self._closed:
            from .heart import end_heart_of

            self._closed = True
            if self._lot is not None:
                await self._lot.close()
            await self._coalescer.settle()
            await asyncio.to_thread(end_heart_of, self)
            if self._owns_backend:
                await self._backend.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, call: Call[T]) -> T:
        self._check_usable()
        return await self._coalescer.run(call)

    async def _follow(self, flow: Generator[Call[Any], Any, T]) -> T:
        try:
            call = next(flow)
            while True:
                call = flow.send(await self._run(call))
        except StopIteration as end:
            value: T = end.value
            return value

    async def _finish(self, call: Call[Finished], lease: LeaseProof, claim_next: int) -> Finished:
        if claim_next == 0:
            return await self._run(call)
        if not isinstance(lease, Lease):
            raise InvalidArgument("claim_next", claim_next, "0 with a LeaseProof: it does not know how it was claimed")
        following = leases.claim_next(lease, self.root, queue=self.name, n=claim_next, now_ms=self._now_ms)
        like = (lease.agent, claim_next, lease.lease_s, lease.started_by_claim)
        lot = self._open_lot()
        both = self._coalescer.run_both(call, following, orphan=lambda given: lot.pass_on(like, given.leases))
        finished, claimed = await both
        if isinstance(finished, Exception):
            if isinstance(claimed, leases.Claimed):
                lot.pass_on(like, claimed.leases)
            raise finished
        return leases.with_next(finished, claimed)

    def _open_lot(self) -> Lot:
        self._check_usable()
        if self._lot is None:
            bell = AsyncBell.shared(self.connector)
            self._lot = Lot(self._coalescer, bell, bell_channel(self.root), self._give_back, self._peek)
        return self._lot

    async def _give_back(self, lease: Lease) -> Finished:
        return await self._coalescer.run(leases.release(self.root, lease, now_ms=self._now_ms))

    def _peek(self) -> Call[float | None]:
        return queues.peek(self.root, now_ms=self._now_ms)

    def _check_usable(self) -> None:
        self._check_open()
        self._backend.check_loop(self.name)


class AsyncDeadLetters:
    """The dead letters of a queue: jobs whose attempts were used up, or that nobody ever started."""

    def __init__(self, queue: AsyncQueue) -> None:
        self._queue = queue

    async def list(
        self,
        *,
        type: str | None = None,
        reason: str | None = None,
        tags: Mapping[str, str] | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> JobPage:
        """Return one page of dead letters, latest first. `reason`: max_attempts, lease_lost, never_started."""
        queue = self._queue
        return await queue._follow(
            _base.list_jobs(
                queue.root,
                queue.name,
                status=JobStatus.DEAD_LETTERED,
                priority=None,
                type=type,
                tags=tags,
                reason=reason,
                limit=limit,
                cursor=cursor,
                now_ms=queue._now_ms,
            )
        )

    async def replay(
        self,
        job_ids: Sequence[str] | None = None,
        *,
        all: bool = False,
        type: str | None = None,
        reason: str | None = None,
        tags: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> Replayed:
        """Give dead letters a new life, by id or by filter; everything only with `all=True`."""
        queue = self._queue
        return await queue._follow(
            _base.replay_dead(
                queue.root,
                queue.name,
                job_ids,
                all=all,
                type=type,
                reason=reason,
                tags=tags,
                limit=limit,
                now_ms=queue._now_ms,
            )
        )

    async def purge(
        self,
        job_ids: Sequence[str] | None = None,
        *,
        all: bool = False,
        type: str | None = None,
        reason: str | None = None,
        tags: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> Purged:
        """Delete dead letters for good, by id or by filter; everything only with `all=True`."""
        queue = self._queue
        return await queue._follow(
            _base.purge_dead(
                queue.root,
                queue.name,
                job_ids,
                all=all,
                type=type,
                reason=reason,
                tags=tags,
                limit=limit,
                now_ms=queue._now_ms,
            )
        )
