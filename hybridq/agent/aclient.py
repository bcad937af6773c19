"""`AsyncClient`: the contract over HTTP, for asyncio. It runs Calls and holds no rule of its own."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Self, TypeVar

from ..lifecycle import Outcome
from . import _calls
from ._base import ClientBase, Shared
from ._call import Call
from ._calls import HeldLease, NewJob
from ._feed import EventFeed, Feed, LogFeed
from ._retry import Pause, Renew, Send, Step
from ._session import Session, SessionChanged, TokenSource
from ._transport import BROKEN, ClientCert, asend, async_http, events_of
from ._wire import (
    AgentBeat,
    AgentInfo,
    AgentPage,
    AgentPool,
    AgentPools,
    BatchResults,
    Claimed,
    Completed,
    Event,
    Exchanged,
    Health,
    Info,
    Job,
    JobPage,
    LeaseBeat,
    LogAppended,
    LogPart,
    Pool,
    PoolPage,
    PoolPause,
    PurgedDead,
    Registered,
    ReplayedDead,
    Requeued,
    RetryPolicy,
    Stats,
    Summary,
)
from .errors import Unauthenticated

__all__ = ["AsyncClient"]

T = TypeVar("T")


class AsyncClient(ClientBase):
    """A hybridq server, for asyncio: everything an agent does, and what those who give it work ask.

    Args:
        url: `https://…` of the server, with the prefix of its paths if it has one. Plain `http://` leads to this
            machine only, unless `insecure`.
        token: An API key, or what `register` is done with (registration key, exchanged token).
        token_source: Instead of `token`: returns one that is good now; asked first when needed, and again on a 401.
        session: Of an earlier client: goes on as that agent.
        on_session: Told the session whenever it changes, so that it can be kept. It holds the renewal token. What it
            raises is raised by the call that changed it.
        timeout_s: Of one sending, in seconds; the time that the server may park a call comes on top.
        deadline_s: Of a call with all its repeats, in seconds; no sending begins later. 0: no repeats.
        ca_file: PEM file of the authorities to trust instead of the system's.
        client_cert: PEM file of a certificate and its key, or the two, and perhaps a password.
        proxy: URL of a proxy. None: as `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say, never for loopback.
        headers: Further headers of every request.
        user_agent: What the client calls itself.
        insecure: Send the token in the clear, over plain http, to another machine.

    A client may be shared by tasks of one loop, and is closed by `close` or `async with`. After `register` it acts as
    that agent until `deregister`; its token is renewed by heartbeats, and by the renewal token after an outage.

    What is not answered is sent again with the same ids, at random intervals, until the deadline. Errors:
    `hybridq.agent.errors`; every call may raise `ApiError`, `Unreachable` and `AnswerNotUnderstood`.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        token_source: TokenSource | None = None,
        session: Session | None = None,
        on_session: SessionChanged | None = None,
        timeout_s: float = 10.0,
        deadline_s: float = 60.0,
        ca_file: str | PathLike[str] | None = None,
        client_cert: ClientCert | None = None,
        proxy: str | None = None,
        headers: Mapping[str, str] | None = None,
        user_agent: str | None = None,
        insecure: bool = False,
    ) -> None:
        super().__init__(
            url,
            token=token,
            token_source=token_source,
            session=session,
            on_session=on_session,
            timeout_s=timeout_s,
            deadline_s=deadline_s,
            ca_file=ca_file,
            client_cert=client_cert,
            proxy=proxy,
            headers=headers,
            user_agent=user_agent,
            insecure=insecure,
        )
        self._shared = Shared(async_http(self._route), None)

    async def close(self) -> None:
        """Close all connections. May be called twice."""
        self._shared.closed = True
        renewing: asyncio.Task[None] | None = self._shared.renewing
        if renewing is not None:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
        await self._shared.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- the agent -----------------------------------------------------------------------------------------------

    async def register(
        self,
        agent_id: str | None = None,
        *,
        pool: str | None = None,
        version: str | None = None,
        labels: Mapping[str, str] | None = None,
        capacity: int = 1,
        boot_id: str | None = None,
        features: Sequence[str] | None = None,
    ) -> Registered:
        """Begin a session as an agent, or go on with it: the same agent and boot are the same session.

        Another boot supersedes the session and frees its leases at once. From now on the client acts as this agent.
        `agent_id` None: that of the session there is, else the server makes one; `boot_id` None likewise. Raises
        `Unauthenticated` when the key is spent, `Forbidden` for another's pool or name.
        """
        return await self._run(
            _calls.register(
                self.session,
                agent_id=agent_id,
                pool=pool,
                version=version,
                labels=labels,
                capacity=capacity,
                boot_id=boot_id,
                features=features,
            )
        )

    async def heartbeat(
        self, *, metrics: Mapping[str, float] | None = None, leases: Iterable[HeldLease] = ()
    ) -> AgentBeat:
        """Give a sign of life as the registered agent: renews leases, learns what is lost or to be cancelled.

        `metrics`: up to 32 numbers, such as `cpu_percent`. A fresh token that comes back is taken over. Raises
        `AgentNotRegistered` (register again) and `SessionSuperseded` (stop).
        """
        return await self._run(_calls.heartbeat(self.session, metrics=metrics, leases=leases))

    async def deregister(self, agent_id: str | None = None, *, reason: str | None = None) -> AgentInfo | None:
        """End the session of this agent, or of another one: its leases go back, its tokens are refused.

        None: it has ended, and the answer that said how was lost.
        """
        return await self._run(_calls.deregister(self.session, agent_id=agent_id, reason=reason))

    # -- leases --------------------------------------------------------------------------------------------------

    async def claim(
        self,
        *,
        agent_id: str | None = None,
        pool: str | None = None,
        pools: Sequence[str] | None = None,
        request_id: str | None = None,
        max: int = 1,
        wait_seconds: float = 0.0,
        lease_seconds: float | None = None,
        start: bool = False,
        holding: Iterable[HeldLease | str] | None = None,
    ) -> Claimed:
        """Lease up to `max` (100) of the most urgent jobs; waits up to `wait_seconds` (50) for one. Falsy when none.

        `agent_id`: this agent; a client with an API key names one of its own. `start` claims straight into RUNNING.
        `holding`: all leases held; unconfirmed ones that are not listed go back. The same `request_id` brings the same
        jobs while their leases live, so a lost answer loses nothing. `Claimed.drain`: claim nothing more.
        """
        return await self._run(
            _calls.claim(
                self.session,
                agent_id=agent_id,
                pool=pool,
                pools=pools,
                request_id=request_id,
                max=max,
                wait_seconds=wait_seconds,
                lease_seconds=lease_seconds,
                start=start,
                holding=holding,
            )
        )

    async def start(self, id: str, lease_token: str) -> Job:
        """Begin the work of a lease: the attempt is charged, once. Raises `JobCancelled`, `StaleLease`."""
        return await self._run(_calls.start(id, lease_token))

    async def lease_heartbeat(self, leases: Iterable[HeldLease]) -> LeaseBeat:
        """Renew leases by the length they were claimed for; learn which are lost, and what is to be cancelled."""
        return await self._run(_calls.lease_heartbeat(leases))

    async def complete(
        self,
        id: str,
        lease_token: str,
        outcome: Outcome | str = Outcome.SUCCESS,
        *,
        exit_code: int | None = None,
        result: Any = None,
        error: Any = None,
        retryable: bool | None = None,
        claim_next: bool | Mapping[str, Any] = False,
    ) -> Completed:
        """End a run: `success`, `failed`, `timeout`, `infra_error`, `rejected` or `cancelled`.

        `result` and `error` are anything JSON can hold (bytes: JSON as it is). `retryable=False`: do not try again.
        `claim_next`: lease what comes next in the same round trip, True or `{max, holding, request_id}`. The same
        again is answered as the first time. Raises `StaleLease`, `OutcomeConflict`, `IllegalTransition`.
        """
        return await self._run(
            _calls.complete(
                id,
                lease_token,
                outcome,
                exit_code=exit_code,
                result=result,
                error=error,
                retryable=retryable,
                claim_next=claim_next,
            )
        )

    async def release(self, id: str, lease_token: str, *, delay_seconds: float | None = None) -> Job:
        """Hand a job back unfinished: the attempt is given back, the job keeps its place in line."""
        return await self._run(_calls.release(id, lease_token, delay_seconds=delay_seconds))

    async def append_log(self, id: str, lease_token: str, offset: int, data: str) -> LogAppended:
        """Write a piece of a job's log, up to 1 MiB; `offset` counts bytes of UTF-8 as they were sent.

        A repeat is ignored. Raises `OffsetGap`, whose `expected` is where to go on.
        """
        return await self._run(_calls.append_log(id, lease_token, offset, data))

    # -- logs ----------------------------------------------------------------------------------------------------

    async def read_log(self, id: str, *, offset: int = 0, limit: int | None = None) -> LogPart:
        """Return a part of a job's log; go on at its `next_offset` until it is `complete`."""
        return await self._run(_calls.read_log(id, offset=offset, limit=limit))

    def follow_log(self, id: str, *, offset: int = 0) -> AsyncIterator[LogPart]:
        """Yield a job's log as it grows, to its end; goes on where it was after a break."""
        return self._follow(LogFeed(id, offset, self._shared.rng))

    # -- jobs ----------------------------------------------------------------------------------------------------

    async def enqueue(
        self,
        type: str | None = None,
        payload: Any = None,
        *,
        job_id: str | None = None,
        pool: str | None = None,
        priority: str | None = None,
        labels: Sequence[str] | None = None,
        tags: Mapping[str, str] | None = None,
        run_at: dt.datetime | None = None,
        delay_seconds: float | None = None,
        max_attempts: int | None = None,
        timeout_seconds: float | None = None,
        queue_ttl_seconds: float | None = None,
        retry: RetryPolicy | Mapping[str, float] | None = None,
        unique: str | Mapping[str, Any] | None = None,
        depends_on: Sequence[Any] | None = None,
        group: str | None = None,
        group_limit: int | None = None,
        fair_key: str | None = None,
        supersede: Mapping[str, Any] | None = None,
        rate: Mapping[str, Any] | None = None,
        durability: str | None = None,
    ) -> Job:
        """Take one job in. None: as the server has it. The same `job_id` with the same content is the same job.

        `payload` is anything JSON can hold (bytes: JSON as it is), at most 256 KiB. `unique`: a key, or
        `{key, on_conflict, …}`; while a job with it lives, that job is the answer (`Job.unique`). Raises
        `JobConflict`, `Refused` (`secret_suspected`), `ServerAway` (`queue_full`).
        """
        return await self._run(
            _calls.enqueue(
                NewJob(
                    type=type,
                    payload=payload,
                    job_id=job_id,
                    pool=pool,
                    priority=priority,
                    labels=labels,
                    tags=tags,
                    run_at=run_at,
                    delay_seconds=delay_seconds,
                    max_attempts=max_attempts,
                    timeout_seconds=timeout_seconds,
                    queue_ttl_seconds=queue_ttl_seconds,
                    retry=retry,
                    unique=unique,
                    depends_on=depends_on,
                    group=group,
                    group_limit=group_limit,
                    fair_key=fair_key,
                    supersede=supersede,
                    rate=rate,
                    durability=durability,
                )
            )
        )

    async def enqueue_batch(self, jobs: Iterable[NewJob], *, atomic: bool = False) -> BatchResults:
        """Take up to 1,000 jobs in, each for itself and in order; `atomic`: all or none."""
        return await self._run(_calls.enqueue_batch(jobs, atomic=atomic))

    async def job(self, id: str, *, wait_seconds: float = 0.0) -> Job:
        """Return a job by its full id, whole; waits up to `wait_seconds` (50) for its end. Raises `JobNotFound`."""
        return await self._run(_calls.job(id, wait_seconds=wait_seconds))

    async def jobs(
        self,
        *,
        pool: str | None = None,
        status: str | None = None,
        priority: str | None = None,
        type: str | None = None,
        tags: Mapping[str, str] | None = None,
        label: Sequence[str] | None = None,
        agent_id: str | None = None,
        group: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> JobPage:
        """Return one page of jobs, newest first, up to `limit` (200); without `pool` those of all pools one may see."""
        return await self._run(
            _calls.jobs(
                pool=pool,
                status=status,
                priority=priority,
                type=type,
                tags=tags,
                label=label,
                agent_id=agent_id,
                group=group,
                limit=limit,
                cursor=cursor,
            )
        )

    async def cancel(self, id: str) -> Job:
        """Cancel a job: a waiting one at once; of a leased one (`cancel_requested_at`) the holder is told."""
        return await self._run(_calls.cancel(id))

    async def retry(self, id: str) -> Job:
        """Give a failed, cancelled or dead-lettered job a new life under its old id."""
        return await self._run(_calls.retry(id))

    async def priority(self, id: str, priority: str) -> Job:
        """Give a job that has not ended another priority; it joins the end of that level."""
        return await self._run(_calls.priority(id, priority))

    async def stats(self, *, pool: str | None = None, window_seconds: float | None = None) -> Stats:
        """Return the figures of a pool: now, ever, and over a window (0: since the beginning)."""
        return await self._run(_calls.stats(pool=pool, window_seconds=window_seconds))

    async def requeue_expired(self, *, pool: str | None = None) -> Requeued:
        """Do one bounded step of upkeep: lost leases come back, due jobs become claimable."""
        return await self._run(_calls.requeue_expired(pool=pool))

    # -- dead letters --------------------------------------------------------------------------------------------

    async def dead(
        self,
        *,
        pool: str | None = None,
        type: str | None = None,
        tags: Mapping[str, str] | None = None,
        reason: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> JobPage:
        """Return one page of dead letters, latest first."""
        return await self._run(_calls.dead(pool=pool, type=type, tags=tags, reason=reason, limit=limit, cursor=cursor))

    async def dead_replay(
        self,
        *,
        pool: str | None = None,
        job_ids: Sequence[str] | None = None,
        type: str | None = None,
        tags: Mapping[str, str] | None = None,
        reason: str | None = None,
        limit: int | None = None,
        rate_per_second: float | None = None,
        all: bool = False,
        dry_run: bool = False,
    ) -> ReplayedDead:
        """Give dead letters a new life, by full ids or by filter; without any filter `all` has to be said.

        By filter it is sent once: who got no answer looks again, as "the next hundred" said twice is two hundred.
        """
        return await self._run(
            _calls.dead_replay(
                pool=pool,
                job_ids=job_ids,
                type=type,
                tags=tags,
                reason=reason,
                limit=limit,
                rate_per_second=rate_per_second,
                all=all,
                dry_run=dry_run,
            )
        )

    async def dead_purge(
        self,
        *,
        pool: str | None = None,
        job_ids: Sequence[str] | None = None,
        type: str | None = None,
        tags: Mapping[str, str] | None = None,
        reason: str | None = None,
        limit: int | None = None,
        rate_per_second: float | None = None,
        all: bool = False,
        dry_run: bool = False,
    ) -> PurgedDead:
        """Delete dead letters for good, by full ids or by filter; as `dead_replay`."""
        return await self._run(
            _calls.dead_purge(
                pool=pool,
                job_ids=job_ids,
                type=type,
                tags=tags,
                reason=reason,
                limit=limit,
                rate_per_second=rate_per_second,
                all=all,
                dry_run=dry_run,
            )
        )

    # -- pools ---------------------------------------------------------------------------------------------------

    async def pools(self) -> PoolPage:
        """Return the pools one may see, and how they are set up."""
        return await self._run(_calls.pools())

    async def pool(self, pool: str) -> Pool:
        """Return how a pool is set up. Raises `Missing`."""
        return await self._run(_calls.pool(pool))

    async def configure_pool(
        self,
        pool: str,
        *,
        policy: str | None = None,
        weights: Mapping[str, float] | None = None,
        lift_every: int | None = None,
        max_queued: int | None = None,
        max_dead: int | None = None,
        retention_seconds: float | None = None,
        retention_count: int | None = None,
        lease_seconds: float | None = None,
    ) -> Pool:
        """Change how a pool is set up; what is not said stays. A pool that is not there is made."""
        return await self._run(
            _calls.configure_pool(
                pool,
                policy=policy,
                weights=weights,
                lift_every=lift_every,
                max_queued=max_queued,
                max_dead=max_dead,
                retention_seconds=retention_seconds,
                retention_count=retention_count,
                lease_seconds=lease_seconds,
            )
        )

    async def pause(self, pool: str, *, reason: str | None = None) -> PoolPause:
        """Stop handing out jobs of a pool; leased work goes on."""
        return await self._run(_calls.pause(pool, reason=reason))

    async def resume(self, pool: str) -> PoolPause:
        """Hand out jobs of a pool again."""
        return await self._run(_calls.resume(pool))

    # -- the fleet -----------------------------------------------------------------------------------------------

    async def agents(
        self,
        *,
        pool: str | None = None,
        status: str | None = None,
        label: Sequence[str] | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> AgentPage:
        """Return one page of agents, by name; `label`: each a name, or name and value with a `=` between."""
        return await self._run(_calls.agents(pool=pool, status=status, label=label, limit=limit, cursor=cursor))

    async def healthy_agents(self, *, pool: str | None = None) -> tuple[AgentInfo, ...]:
        """Return the healthy agents of the pools one may see."""
        return await self._run(_calls.healthy_agents(pool=pool))

    async def agent(self, agent_id: str | None = None) -> AgentInfo:
        """Return one agent, by default this one. Raises `AgentNotRegistered`."""
        return await self._run(_calls.agent(self.session, agent_id))

    async def steer_agent(self, agent_id: str, status: str, *, reason: str | None = None) -> AgentInfo:
        """Have an agent drain ("DRAINING"), or take work again ("HEALTHY")."""
        return await self._run(_calls.steer_agent(agent_id, status, reason=reason))

    async def agent_pools(self) -> AgentPools:
        """Return the pools of agents one may see."""
        return await self._run(_calls.agent_pools())

    async def agent_pool(self, name: str) -> AgentPool:
        """Return how many agents a pool has and should have. Raises `Missing`."""
        return await self._run(_calls.agent_pool(name))

    async def scale(
        self, name: str, *, min: int | None = None, max: int | None = None, target: int | None = None
    ) -> AgentPool:
        """Say how many agents a pool should have; what is not said stays. Raises `Refused` (`invalid_range`)."""
        return await self._run(_calls.scale(name, min=min, max=max, target=target))

    # -- the server ----------------------------------------------------------------------------------------------

    def events(
        self, *, pool: Sequence[str] = (), types: Sequence[str] = (), last_event_id: str | None = None
    ) -> AsyncIterator[Event]:
        """Yield what happens, without end; after a break it goes on after the last event, or after `last_event_id`.

        `types`: event types or their beginnings, such as `job.completed` or `agent`. An event of type `reset` says
        that history in between is gone: read anew what you show.
        """
        return self._follow(EventFeed(pool, types, last_event_id, self._shared.rng))

    async def summary(self) -> Summary:
        """Return figures over the pools one may see."""
        return await self._run(_calls.summary())

    async def info(self) -> Info:
        """Return what the server is. Needs no token."""
        return await self._run(_calls.info())

    async def health(self) -> Health:
        """Return when the server lives. Needs no token."""
        return await self._run(_calls.health())

    async def ready(self) -> Health:
        """Return when work may be sent to the server. Needs no token."""
        return await self._run(_calls.ready())

    async def exchange_token(
        self,
        subject_token: str,
        *,
        subject_token_type: str = _calls.JWT,
        audience: str | None = None,
        scope: str | None = None,
    ) -> Exchanged:
        """Exchange a token of somebody the server trusts (an OIDC JWT) for the Bearer of one registration (RFC 8693).

        A subject token is good once, so this is not repeated: bring another after `Unreachable`. Needs no token.
        """
        return await self._run(
            _calls.exchange_token(subject_token, subject_token_type=subject_token_type, audience=audience, scope=scope)
        )

    # -- carrying out --------------------------------------------------------------------------------------------

    async def _run(self, call: Call[T]) -> T:
        talk = self._talk(call)
        told: Any = None
        while True:
            try:
                step = talk.send(told)
            except StopIteration as done:
                value: T = done.value
                return value
            told = await self._do(step)

    async def _do(self, step: Step) -> Any:
        if isinstance(step, Send):
            return await asend(self._shared.http, self._route, step)
        if isinstance(step, Pause):
            return await asyncio.sleep(step.pause_s)
        return await self._renew(step)

    async def _renew(self, step: Renew) -> None:
        """Get another credential, unless another task has, which is waited for.

        It goes on when who asked is cancelled: a renewal token is replaced by its use, and its answer must not be lost.
        """
        while (running := self._shared.renewing) is not None and not running.done():
            await asyncio.shield(running)
        if self._is_in_use(step):
            mine = asyncio.create_task(self._get_another(step), name="hybridq-renew")
            mine.add_done_callback(_take_note)
            self._shared.renewing = mine
            await asyncio.shield(mine)

    async def _get_another(self, step: Renew) -> None:
        way = self._renewal(step)
        if isinstance(way, Call):
            renewal = self._credentials.renewal
            try:
                await self._run(way)
            except Unauthenticated:
                self._shared.refused = renewal
        elif way is not None:
            self._credentials.supply(await asyncio.to_thread(way))

    async def _follow(self, feed: Feed[T]) -> AsyncIterator[T]:
        while True:
            stream = await self._run(feed.opening())
            async with contextlib.aclosing(stream):
                with contextlib.suppress(*BROKEN):
                    async for said in events_of(stream):
                        found = feed.heard(said)
                        if found is not None:
                            yield found
                        if feed.over:
                            return
            await asyncio.sleep(feed.pause_s())


def _take_note(task: asyncio.Task[None]) -> None:
    """Look at how a task ended, so that nothing is said of an error that everybody who waited has been cancelled."""
    if not task.cancelled():
        task.exception()
