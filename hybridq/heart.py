"""The heart: renews leases, whatever their holders are busy with, and says when one can no longer be relied on.

A handler may block its event loop, or compute for minutes, and keep its job; a process that is stopped, or cut
off, gives its jobs up by its own clock before Redis hands them to another.

```
claim sent ────── beat ────── beat ─── … no answer … ───┬─ not renewed in time ──── it ends in Redis
      │← lease_s/3 →│           │← 0.99 · lease_s, less the margin →│
```
"""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from .client import Queue
from .connect import Connector, Connects
from .errors import HybridqError
from .job import CancelRequest, Lease

if TYPE_CHECKING:
    from .job import Beat

__all__ = ["Heart", "boottime", "heart_of"]

BEATS_PER_LEASE: Final = 3
JITTER: Final = 0.1
CLOCK_DRIFT: Final = 0.01
"""Share of a lease that two clocks may drift apart in its time."""
MARGIN_S_MAX: Final = 2.0
FIRST_BEAT_S: Final = 0.1
IDLE_S: Final = 5.0
LOOK_S_MAX: Final = 2.0
"""A sleep is cut into pieces: a suspended machine stops the clock that measures it, but not the lease."""
REPLY_WAIT_S: Final = (0.25, 5.0)
RETRY_S: Final = (0.05, 1.0)
NOT_RENEWED: Final = "not_renewed_in_time"
CLAIMED_AGAIN: Final = "claimed_again"

log = structlog.get_logger("hybridq")


def boottime() -> float:
    """Return seconds of a clock that never steps, and where there is one goes on in a suspended machine."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class BeatsFor(Protocol):
    """What the heart needs to know of a queue, of either colour."""

    @property
    def name(self) -> str:
        """The queue's name."""

    @property
    def namespace(self) -> str:
        """The queue's namespace."""

    @property
    def agent(self) -> str:
        """Who claims."""

    @property
    def connector(self) -> Connects:
        """How to reach its server."""


class _Beating:
    """One lease in the heart's care. Instants are seconds of the heart's clock."""

    __slots__ = ("ends_at", "lease", "next_at", "on_cancel", "on_lost", "told")

    def __init__(
        self,
        lease: Lease,
        on_lost: Callable[[str], None],
        on_cancel: Callable[[CancelRequest], None],
        ends_at: float,
        next_at: float,
    ) -> None:
        self.lease, self.on_lost, self.on_cancel = lease, on_lost, on_cancel
        self.ends_at, self.next_at = ends_at, next_at
        self.told: CancelRequest | None = None


class Heart:
    """Renews the leases of one queue object from two daemon threads, which live while there are any.

    `hybridq-beat` sends the renewals, with a client of its own, so that nothing a holder does can delay them.
    `hybridq-watch` only reads the clock: a renewal may hang in a dead connection or a name lookup for longer than
    a lease lasts, and the lease has to be given up all the same. Callbacks run in these threads, must return at
    once and must not raise. `clock` and `rng` are for tests.
    """

    def __init__(
        self,
        queue: BeatsFor,
        *,
        clock: Callable[[], float] = boottime,
        rng: random.Random | None = None,
    ) -> None:
        # Not the queue itself: the heart is found by its queue, and must not keep it alive.
        self._name, self._namespace, self._agent = queue.name, queue.namespace, queue.agent
        self._connector = queue.connector
        self._clock = clock
        self._rng = rng or random.Random()
        self._changed = threading.Condition()
        self._beating: dict[str, _Beating] = {}
        self._threads: tuple[threading.Thread, ...] = ()
        self._life: object | None = None
        self._beat_wakes_at = self._watch_wakes_at = 0.0
        self._in_trouble = False

    def add(
        self,
        lease: Lease,
        on_lost: Callable[[str], None],
        on_cancel: Callable[[CancelRequest], None],
        *,
        sent_at: float | None = None,
    ) -> None:
        """Renew `lease` from now on, a third of its `lease_s` after the other.

        `on_lost` is called once, with a reason, when Redis says that the lease is not current, or when it
        could not be renewed in time. `on_cancel` is called when somebody wants the job stopped, again if they
        sharpen it. `sent_at` is the instant (`boottime`) at which the claim was sent: the lease counts from
        there. A claim that waited, or None, says too little: then the lease counts from now, and is confirmed
        almost at once.
        """
        now = self._clock()
        known = sent_at is not None and now - sent_at <= lease.lease_s / 6
        since = sent_at if known and sent_at is not None else now
        next_at = since + self._interval_s(lease) if known else now + min(FIRST_BEAT_S, lease.lease_s / 10)
        one = _Beating(lease, on_lost, on_cancel, since + _usable_s(lease), next_at)
        with self._changed:
            before = self._beating.get(lease.job_id)
            # A job that came to us twice has one lease that counts; a beat names jobs, and cannot carry both.
            stale = one if before is not None and before.lease.fence > lease.fence else before
            if stale is not one:
                self._beating[lease.job_id] = one
            if self._life is None:
                self._start()
            elif next_at < self._beat_wakes_at or one.ends_at < self._watch_wakes_at:
                self._changed.notify_all()
        if stale is not None:
            stale.on_lost(CLAIMED_AGAIN)

    def remove(self, lease: Lease) -> float | None:
        """Renew `lease` no more; to be called before it is finished, so that its end is not taken for a loss.

        Returns the instant up to which it is safe to take the lease for ours, None when it was lost before.
        """
        with self._changed:
            one = self._beating.get(lease.job_id)
            if one is None or one.lease.fence != lease.fence:
                return None
            del self._beating[lease.job_id]
            return one.ends_at

    def close(self) -> None:
        """Forget every lease and end the threads; what is not finished runs out."""
        with self._changed:
            self._beating.clear()
            self._life = None
            self._changed.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(2 * REPLY_WAIT_S[1])

    def _start(self) -> None:
        # Threads end when the life they were started for is not the heart's any more.
        self._life = life = object()
        self._threads = (
            threading.Thread(target=self._keep_beating, args=(life,), name="hybridq-beat", daemon=True),
            threading.Thread(target=self._keep_watch, args=(life,), name="hybridq-watch", daemon=True),
        )
        for thread in self._threads:
            thread.start()

    def _interval_s(self, lease: Lease) -> float:
        return lease.lease_s / BEATS_PER_LEASE * self._rng.uniform(1 - JITTER, 1 + JITTER)

    # -- the thread that watches -----------------------------------------------------------------------

    def _keep_watch(self, life: object) -> None:
        while (expired := self._wait_for_end(life)) is not None:
            for one in expired:
                one.on_lost(NOT_RENEWED)

    def _wait_for_end(self, life: object) -> list[_Beating] | None:
        """Sleep until leases have run out; return them, or None when the thread has to end."""
        with self._changed:
            while self._life is life:
                now = self._clock()
                expired = [one for one in self._beating.values() if now >= one.ends_at]
                if expired:
                    for one in expired:
                        del self._beating[one.lease.job_id]
                    return expired
                self._watch_wakes_at = min([now + LOOK_S_MAX, *(one.ends_at for one in self._beating.values())])
                self._changed.wait(self._watch_wakes_at - now)
        return None

    # -- the thread that beats -------------------------------------------------------------------------

    def _keep_beating(self, life: object) -> None:
        client = _Client(self._name, self._namespace, self._agent, self._connector)
        try:
            while (due := self._wait_for_due(life)) is not None:
                self._beat(client, due)
        finally:
            client.close()

    def _wait_for_due(self, life: object) -> list[_Beating] | None:
        """Sleep until leases are due; return them, or None when the thread has to end."""
        idle_since = self._clock()
        with self._changed:
            while self._life is life:
                now = self._clock()
                if any(now >= one.next_at for one in self._beating.values()):
                    # What is due soon travels along: many leases should not become many round trips.
                    return [one for one in self._beating.values() if now >= one.next_at - one.lease.lease_s / 15]
                if self._beating:
                    idle_since = now
                elif now - idle_since >= IDLE_S:
                    self._life = None
                    self._changed.notify_all()
                    return None
                self._beat_wakes_at = min([now + LOOK_S_MAX, *(one.next_at for one in self._beating.values())])
                self._changed.wait(self._beat_wakes_at - now)
        return None

    def _beat(self, client: _Client, due: Sequence[_Beating]) -> None:
        # Renewals count from the moment of sending: when Redis got it cannot be earlier than that.
        sent_at = self._clock()
        try:
            beat = client.heartbeat([one.lease for one in due])
        except Exception as problem:
            # Whatever it is, it must not end the thread: without it no lease would be renewed, nor given up
            # in time.
            self._note(problem)
            now = self._clock()
            for one in due:
                one.next_at = now + _within(one.lease.lease_s / 12, RETRY_S) * self._rng.uniform(0.5, 1)
            return
        self._note(None)
        self._obey(due, beat, sent_at)

    def _obey(self, due: Sequence[_Beating], beat: Beat, sent_at: float) -> None:
        renewed = set(beat.renewed)
        wanted = {request.job_id: request for request in beat.cancel}
        calls: list[Callable[[], None]] = []
        with self._changed:
            for one in due:
                job_id = one.lease.job_id
                if self._beating.get(job_id) is not one:
                    continue  # removed while the beat was under way: its finish decides, not this answer
                if job_id in renewed:
                    one.ends_at = sent_at + _usable_s(one.lease)
                    one.next_at = sent_at + self._interval_s(one.lease)
                elif job_id in beat.lost:
                    del self._beating[job_id]
                    calls.append(_bound(one.on_lost, beat.lost[job_id]))
                request = wanted.get(job_id)
                if request is not None and request != one.told:
                    one.told = request
                    calls.append(_bound(one.on_cancel, request))
        for call in calls:
            call()

    def _note(self, problem: Exception | None) -> None:
        if problem is not None and not self._in_trouble:
            known = isinstance(problem, HybridqError)
            log.warning("heart.trouble", queue=self._name, error_type=type(problem).__name__, exc_info=not known)
        elif problem is None and self._in_trouble:
            log.info("heart.recovered", queue=self._name)
        self._in_trouble = problem is not None


class _Client:
    """The thread's own queue object, whose patience is a fraction of the shortest lease there was."""

    def __init__(self, name: str, namespace: str, agent: str, connector: Connects) -> None:
        self._name, self._namespace, self._agent, self._connector = name, namespace, agent, connector
        self._wait_s = REPLY_WAIT_S[1]
        self._queue: Queue | None = None

    def heartbeat(self, leases: Sequence[Lease]) -> Beat:
        """Renew `leases`. Raises what `Queue.heartbeat` raises."""
        wait_s = _within(min(lease.lease_s for lease in leases) / 6, REPLY_WAIT_S)
        if self._queue is None or wait_s < self._wait_s:
            self.close()
            self._wait_s = wait_s
            self._queue = self._open(wait_s)
        return self._queue.heartbeat(leases)

    def close(self) -> None:
        if self._queue is not None:
            self._queue.close()
            self._queue = None

    def _open(self, wait_s: float) -> Queue:
        connector = self._connector
        # Other connectors than ours stand for servers inside the process, which answer at once.
        if isinstance(connector, Connector):
            connector = connector.with_reply_wait(wait_s)
        return Queue(self._name, redis=connector, namespace=self._namespace, agent=self._agent)


def _usable_s(lease: Lease) -> float:
    """Seconds from sending a renewal in which the lease is ours for certain, with time left to stop."""
    return lease.lease_s * (1 - CLOCK_DRIFT) - min(MARGIN_S_MAX, lease.lease_s * 0.1)


def _within(seconds: float, bounds: tuple[float, float]) -> float:
    return max(bounds[0], min(bounds[1], seconds))


def _bound(callback: Callable[..., None], argument: object) -> Callable[[], None]:
    return lambda: callback(argument)


_hearts: weakref.WeakKeyDictionary[BeatsFor, Heart] = weakref.WeakKeyDictionary()
_hearts_lock = threading.Lock()


def heart_of(queue: BeatsFor) -> Heart:
    """Return the heart of a queue object: one for each object and process."""
    with _hearts_lock:
        heart = _hearts.get(queue)
        if heart is None:
            heart = _hearts[queue] = Heart(queue)
        return heart


def end_heart_of(queue: BeatsFor) -> None:
    """End the heart of a queue object that is being closed, if it has one."""
    with _hearts_lock:
        heart = _hearts.pop(queue, None)
    if heart is not None:
        heart.close()


def _start_anew() -> None:
    global _hearts, _hearts_lock
    _hearts, _hearts_lock = weakref.WeakKeyDictionary(), threading.Lock()


# A forked child holds none of its parent's leases, and has none of its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
