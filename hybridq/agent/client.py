"""`Client`: the contract over HTTP, blocking. It runs Calls and holds no rule of its own."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from ._transport import BROKEN, ClientCert, events_of, send, sync_http
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
from .errors import Unauthenticated, Unreachable

__all__ = ["Client"]

T = TypeVar("T")


class Client(ClientBase):
    """A hybridq server, for threads: everything an agent does, and what those who give it work ask.

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

    A client may be shared by threads, and is closed by `close` or `with`. After `register` it acts as that
    agent until `deregister`; its token is renewed by heartbeats, and by the renewal token after an outage.

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
        self._shared = Shared(sync_http(self._route), threading.Lock())

    def close(self) -> None:
        """Close all connections. May be called twice."""
        self._shared.closed = True
        self._shared.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the agent -----------------------------------------------------------------------------------------------

    def register(
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
        return self._run(
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

    def heartbeat(self, *, metrics: Mapping[str, float] | None = None, leases: Iterable[HeldLease] = ()) -> AgentBeat:
        """Give a sign of life as the registered agent: renews leases, learns what is lost or to be cancelled.

        `metrics`: up to 32 numbers, such as `cpu_percent`. A fresh token that comes back is taken over. Raises
        `AgentNotRegistered` (register again) and `SessionSuperseded` (stop).
        """
        return self._run(_calls.heartbeat(self.session, metrics=metrics, leases=leases))

    def deregister(self, agent_id: str | None = None, *, reason: str | None = None) -> AgentInfo | None:
        """End the session of this agent, or of another one: its leases go back, its tokens are refused.

        None: it has ended, and the answer that said how was lost.
        """
        return self._run(_calls.deregister(self.session, agent_id=agent_id, reason=reason))

    # -- leases --------------------------------------------------------------------------------------------------

    def claim(
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
        return self._run(
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

    def start(self, id: str, lease_token: str) -> Job:
        """Begin the work of a lease: the attempt is charged, once. Raises `JobCancelled`, `StaleLease`."""
        return self._run(_calls.start(id, lease_token))

    def lease_heartbeat(self, leases: Iterable[HeldLease]) -> LeaseBeat:
        """Renew leases by the length they were claimed for; learn which are lost, and what is to be cancelled."""
        return self._run(_calls.lease_heartbeat(leases))

    def complete(
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
        return self._run(
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

    def release(self, id: str, lease_token: str, *, delay_seconds: float | None = None) -> Job:
        """Hand a job back unfinished: the attempt is given back, the job keeps its place in line."""
        return self._run(_calls.release(id, lease_token, delay_seconds=delay_seconds))

    def append_log(self, id: str, lease_token: str, offset: int, data: str) -> LogAppended:
        """Write a piece of a job's log, up to 1 MiB; `offset` counts bytes of UTF-8 as they were sent.

        A repeat is ignored. Raises `OffsetGap`, whose `expected` is where to go on.
        """
        return self._run(_calls.append_log(id, lease_token, offset, data))

    # -- logs ----------------------------------------------------------------------------------------------------

    def read_log(self, id: str, *, offset: int = 0, limit: int | None = None) -> LogPart:
        """Return a part of a job's log; go on at its `next_offset` until it is `complete`."""
        return self._run(_calls.read_log(id, offset=offset, limit=limit))

    def follow_log(self, id: str, *, offset: int = 0) -> Iterator[LogPart]:
        """Yield a job's log as it grows, to its end; goes on where it was after a break."""
        return self._follow(LogFeed(id, offset, self._shared.rng))

    # -- jobs ----------------------------------------------------------------------------------------------------

    def enqueue(
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
        return self._run(
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

    def enqueue_batch(self, jobs: Iterable[NewJob], *, atomic: bool = False) -> BatchResults:
        """Take up to 1,000 jobs in, each for itself and in order; `atomic`: all or none."""
        return self._run(_calls.enqueue_batch(jobs, atomic=atomic))

    def job(self, id: str, *, wait_seconds: float = 0.0) -> Job:
        """Return a job by its full id, whole; waits up to `wait_seconds` (50) for its end. Raises `JobNotFound`."""
        return self._run(_calls.job(id, wait_seconds=wait_seconds))

    def jobs(
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
        return self._run(
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

    def cancel(self, id: str) -> Job:
        """Cancel a job: a waiting one at once; of a leased one (`cancel_requested_at`) the holder is told."""
        return self._run(_calls.cancel(id))

    def retry(self, id: str) -> Job:
        """Give a failed, cancelled or dead-lettered job a new life under its old id."""
        return self._run(_calls.retry(id))

    def priority(self, id: str, priority: str) -> Job:
        """Give a job that has not ended another priority; it joins the end of that level."""
        return self._run(_calls.priority(id, priority))

    def stats(self, *, pool: str | None = None, window_seconds: float | None = None) -> Stats:
        """Return the figures of a pool: now, ever, and over a window (0: since the beginning)."""
        return self._run(_calls.stats(pool=pool, window_seconds=window_seconds))

    def requeue_expired(self, *, pool: str | None = None) -> Requeued:
        """Do one bounded step of upkeep: lost leases come back, due jobs become claimable."""
        return self._run(_calls.requeue_expired(pool=pool))

    # -- dead letters --------------------------------------------------------------------------------------------

    def dead(
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
        return self._run(_calls.dead(pool=pool, type=type, tags=tags, reason=reason, limit=limit, cursor=cursor))

    def dead_replay(
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
        return self._run(
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

    def dead_purge(
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
        return self._run(
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

    def pools(self) -> PoolPage:
        """Return the pools one may see, and how they are set up."""
        return self._run(_calls.pools())

    def pool(self, pool: str) -> Pool:
        """Return how a pool is set up. Raises `Missing`."""
        return self._run(_calls.pool(pool))

    def configure_pool(
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
        return self._run(
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

    def pause(self, pool: str, *, reason: str | None = None) -> PoolPause:
        """Stop handing out jobs of a pool; leased work goes on."""
        return self._run(_calls.pause(pool, reason=reason))

    def resume(self, pool: str) -> PoolPause:
        """Hand out jobs of a pool again."""
        return self._run(_calls.resume(pool))

    # -- the fleet -----------------------------------------------------------------------------------------------

    def agents(
        self,
        *,
        pool: str | None = None,
        status: str | None = None,
        label: Sequence[str] | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> AgentPage:
        """Return one page of agents, by name; `label`: each a name, or name and value with a `=` between."""
        return self._run(_calls.agents(pool=pool, status=status, label=label, limit=limit, cursor=cursor))

    def healthy_agents(self, *, pool: str | None = None) -> tuple[AgentInfo, ...]:
        """Return the healthy agents of the pools one may see."""
        return self._run(_calls.healthy_agents(pool=pool))

    def agent(self, agent_id: str | None = None) -> AgentInfo:
        """Return one agent, by default this one. Raises `AgentNotRegistered`."""
        return self._run(_calls.agent(self.session, agent_id))

    def steer_agent(self, agent_id: str, status: str, *, reason: str | None = None) -> AgentInfo:
        """Have an agent drain ("DRAINING"), or take work again ("HEALTHY")."""
        return self._run(_calls.steer_agent(agent_id, status, reason=reason))

    def agent_pools(self) -> AgentPools:
        """Return the pools of agents one may see."""
        return self._run(_calls.agent_pools())

    def agent_pool(self, name: str) -> AgentPool:
        """Return how many agents a pool has and should have. Raises `Missing`."""
        return self._run(_calls.agent_pool(name))

    def scale(
        self, name: str, *, min: int | None = None, max: int | None = None, target: int | None = None
    ) -> AgentPool:
        """Say how many agents a pool should have; what is not said stays. Raises `Refused` (`invalid_range`)."""
        return self._run(_calls.scale(name, min=min, max=max, target=target))

    # -- the server ----------------------------------------------------------------------------------------------

    def events(
        self, *, pool: Sequence[str] = (), types: Sequence[str] = (), last_event_id: str | None = None
    ) -> Iterator[Event]:
        """Yield what happens, without end; after a break it goes on after the last event, or after `last_event_id`.

        `types`: event types or their beginnings, such as `job.completed` or `agent`. An event of type `reset` says
        that history in between is gone: read anew what you show.
        """
        return self._follow(EventFeed(pool, types, last_event_id, self._shared.rng))

    def summary(self) -> Summary:
        """Return figures over the pools one may see."""
        return self._run(_calls.summary())

    def info(self) -> Info:
        """Return what the server is. Needs no token."""
        return self._run(_calls.info())

    def health(self) -> Health:
        """Return when the server lives. Needs no token."""
        return self._run(_calls.health())

    def ready(self) -> Health:
        """Return when work may be sent to the server. Needs no token."""
        return self._run(_calls.ready())

    def exchange_token(
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
        return self._run(
            _calls.exchange_token(subject_token, subject_token_type=subject_token_type, audience=audience, scope=scope)
        )

    # -- carrying out --------------------------------------------------------------------------------------------

    def _run(self, call: Call[T]) -> T:
        talk = self._talk(call)
        told: Any = None
        while True:
            try:
                step = talk.send(told)
            except StopIteration as done:
                value: T = done.value
                return value
            told = self._do(step)

    def _do(self, step: Step) -> Any:
        if isinstance(step, Send):
            return send(self._shared.http, self._route, step)
        if isinstance(step, Pause):
            return time.sleep(step.pause_s)
        return self._renew(step)

    def _renew(self, step: Renew) -> None:
        """Get another credential, unless another thread has, which is waited for."""
        renewing: threading.Lock = self._shared.renewing
        if not renewing.acquire(timeout=self._limits.deadline_s + self._limits.timeout_s):
            raise Unreachable(self.url, "another call is still renewing the token", in_doubt=False, attempts=0)
        try:
            if self._is_in_use(step):
                self._get_another(step)
        finally:
            renewing.release()

    def _get_another(self, step: Renew) -> None:
        way = self._renewal(step)
        if isinstance(way, Call):
            renewal = self._credentials.renewal
            try:
                self._run(way)
            except Unauthenticated:
                self._shared.refused = renewal
        elif way is not None:
            self._credentials.supply(way())

    def _follow(self, feed: Feed[T]) -> Iterator[T]:
        while True:
            with (
                contextlib.closing(self._run(feed.opening())) as stream,
                contextlib.suppress(*BROKEN),
            ):
                for said in events_of(stream):
                    found = feed.heard(said)
                    if found is not None:
                        yield found
                    if feed.over:
                        return
            time.sleep(feed.pause_s())
