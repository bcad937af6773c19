"""Leases in our hands, and the slots that work on them: one thread a job, from its lease to its end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .._wire import ClaimedJob
    from ..work import Run, StopReason

__all__ = ["Held", "Slots"]

_RANK: Final = {"": 0, "drain": 1, "timeout": 2, "cancelled": 3, "lease_lost": 4}
"""Of two reasons to stop, the later in this order is the one that counts."""


class Held:
    """A lease in our hands, from its claim until the server has taken how it ended, or it is lost.

    Times are as `work.keeper.now_s` counts, which goes on while the machine sleeps, as leases do. It may be stopped
    before there is a run, which then is stopped at once.
    """

    def __init__(self, job: ClaimedJob, *, ends_at_s: float) -> None:
        self.job = job
        self.ends_at_s = ends_at_s
        self.attempt = job.attempt or 0
        """Its number, from 1; the start charges it."""
        self.stopped: StopReason | None = None
        self.why = ""
        """Why it is lost, in the server's word."""
        self._grace_s = 0.0
        self._run: Run | None = None
        self._lock = threading.Lock()

    @property
    def id(self) -> str:
        """The job's full id."""
        return self.job.id

    @property
    def lease_token(self) -> str:
        """As the claim gave it."""
        return self.job.lease_token

    @property
    def fence(self) -> int:
        """Of the lease."""
        return self.job.fence

    @property
    def lost(self) -> bool:
        """Whether the lease is ours no more."""
        return self.stopped == "lease_lost"

    def extend(self, ends_at_s: float) -> None:
        """The lease was renewed, by a call that was sent a lease's length before `ends_at_s`."""
        with self._lock:
            self.ends_at_s = max(self.ends_at_s, ends_at_s)
            if self._run is not None:
                self._run.extend(self.ends_at_s)

    def confirm(self, ends_at_s: float) -> None:
        """The lease's end is known for sure, which after a claim that waited it was not."""
        with self._lock:
            self.ends_at_s = ends_at_s

    def stop(self, reason: StopReason, grace_s: float, *, why: str = "") -> None:
        """Stop the work, now or once it begins."""
        with self._lock:
            if _RANK[reason] < _RANK[self.stopped or ""]:
                if self._run is not None:
                    self._run.stop(reason, grace_s)  # the other reason stands, the grace may become shorter
                return
            self.stopped, self._grace_s, self.why = reason, grace_s, why or self.why
            if self._run is not None:
                self._run.stop(reason, grace_s)

    def begin(self, run: Run) -> bool:
        """Let the work begin, unless it was stopped before; from now on it is told of all that concerns the lease."""
        with self._lock:
            if self.stopped is not None:
                return False
            self._run = run
            run.extend(self.ends_at_s)
            return True

    def end(self) -> None:
        """The work has ended, and is told nothing more."""
        with self._lock:
            self._run = None

    def __repr__(self) -> str:
        return f"<Held {self.id} fence={self.fence}>"


class Slots:
    """`capacity` jobs at once. `changed` is called, from any thread, whenever a slot or a lease is taken or freed."""

    def __init__(self, capacity: int, work: Callable[[Held], bool], *, changed: Callable[[], None]) -> None:
        self._capacity, self._work, self._changed = capacity, work, changed
        self._lock = threading.Lock()
        self._held: dict[str, Held] = {}
        self._busy = 0
        self.worked = 0
        """Jobs that were ours to run, and were run, rejected or failed; not those that went back as they came."""

    @property
    def free(self) -> int:
        """How many jobs more there is room for."""
        with self._lock:
            return max(0, self._capacity - self._busy)

    @property
    def busy(self) -> int:
        """How many jobs are at work."""
        with self._lock:
            return self._busy

    def held(self) -> list[Held]:
        """Return the leases to keep alive, also those whose end the server has not taken yet."""
        with self._lock:
            return list(self._held.values())

    def take(self, held: Held) -> None:
        """Put a lease to work; there must be a free slot."""
        with self._lock:
            older = self._held.get(held.id)
            self._busy += 1
            self._held[held.id] = held
            number = self._busy
        if older is not None:
            # The job comes to us once more, so the lease of it that we had is over.
            older.stop("lease_lost", 0, why="claimed anew")
        threading.Thread(target=self._through, args=(held,), name=f"hybridq-slot-{number}", daemon=True).start()

    def let_go(self, held: Held) -> None:
        """The lease is over: no heartbeat asks for it any more."""
        with self._lock:
            if self._held.get(held.id) is held:
                del self._held[held.id]
        self._changed()

    def _through(self, held: Held) -> None:
        worked = False
        try:
            worked = self._work(held)
        finally:
            with self._lock:
                self._busy -= 1
                self.worked += worked
            self._changed()
