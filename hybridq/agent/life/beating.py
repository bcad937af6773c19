"""Keeps leases alive and hears of cancels, in a thread of its own that no job and no poll can hold up."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import structlog

from ...errors import HybridqError
from ...job import Backoff
from ...retry import delay_ms, jitter
from ..work.keeper import now_s
from .identity import Superseded
from .slots import Held, Slots

if TYPE_CHECKING:
    from .._wire import LeaseBeat
    from .identity import Membership

__all__ = ["Beater"]

log = structlog.get_logger("hybridq")

TIMEOUT_S: Final = 10.0
OFTENER: Final = 7
"""While jobs run, their leases are asked about so many times as often as the agent gives a sign of life, as that is how
a cancel is heard: 1.5 s in a small fleet. The server, which sets the interval by the fleet's size, sets both."""
LEASES_S_MIN: Final = 1.0
BACKOFF: Final = Backoff(base_s=0.25, max_s=2.0)


class Beater:
    """Beats until `stop`.

    Args:
        membership: Who beats.
        slots: Whose leases.
        lease_s: How long leases last.
        cancel_grace_s: What a cancelled job has at most between SIGTERM and SIGKILL; a cancel may ask for less.
        metrics: Figures to send.
        drain: Told what the server says of draining.
        rng: For pauses.
    """

    def __init__(
        self,
        membership: Membership,
        slots: Slots,
        *,
        lease_s: float,
        cancel_grace_s: float,
        metrics: Callable[[], dict[str, float]],
        drain: Callable[[bool], None],
        rng: random.Random,
    ) -> None:
        self._membership, self._slots, self._lease_s = membership, slots, lease_s
        self._cancel_grace_s, self._metrics, self._drain, self._rng = cancel_grace_s, metrics, drain, rng
        self._stop = threading.Event()
        self._every_s = 10.0
        self._next_s = 0.0
        """When the next sign of life of the agent is due."""
        self.alive_at_s = time.monotonic()
        """When the thread last came round, for the watchdog."""

    def begin(self, every_s: float) -> None:
        """The server told us how often to beat."""
        self._every_s = every_s

    def stop(self) -> None:
        """Beat no more."""
        self._stop.set()

    def run(self) -> None:
        """Beat until stopped."""
        failures = 0
        while not self._stop.is_set():
            self.alive_at_s = time.monotonic()
            try:
                self._beat()
                failures = 0
                pause_s = self._pause_s()
            except Superseded:
                return
            except HybridqError as trouble:
                failures += 1
                pause_s = delay_ms(BACKOFF, failures, jitter(self._rng)) / 1000 + 0.05
                if failures == 1:
                    log.warning("heart.trouble", component="agent", error_type=type(trouble).__name__)
            else:
                if failures:
                    log.info("heart.recovered", component="agent")
            self._fence()
            self._stop.wait(pause_s)

    def _pause_s(self) -> float:
        """Leases that come in meanwhile were confirmed by their slot, and last longer than this."""
        return min(max(0.05, self._next_s - time.monotonic()), self._leases_s())

    def _leases_s(self) -> float:
        return min(max(LEASES_S_MIN, self._every_s / OFTENER), self._lease_s / 3)

    def _beat(self) -> None:
        held = self._slots.held()
        sent_s, lease_sent_s = time.monotonic(), now_s()
        # A sending that hangs must leave time for another before the lease ends.
        timeout_s = min(TIMEOUT_S, max(1.0, self._lease_s / 5))
        if sent_s >= self._next_s:
            beat = self._membership.ask(
                lambda client: client.heartbeat(metrics=self._metrics(), leases=held), timeout_s=timeout_s
            )
            self._every_s = beat.next_heartbeat_seconds
            self._next_s = sent_s + min(self._every_s, self._lease_s / 3 if held else self._every_s)
            self._drain(beat.drain)
            self._heard(held, beat, lease_sent_s)
        elif held:
            self._heard(
                held,
                self._membership.ask(lambda client: client.lease_heartbeat(held), timeout_s=timeout_s),
                lease_sent_s,
            )

    def _heard(self, held: Sequence[Held], beat: LeaseBeat, sent_s: float) -> None:
        by_id = {one.id: one for one in held}
        for renewed in beat.renewed:
            if renewed.lease_expires_in_seconds is not None and renewed.id in by_id:
                by_id[renewed.id].extend(sent_s + renewed.lease_expires_in_seconds)
        for lost in beat.lost:
            if lost.id in by_id:
                by_id[lost.id].stop("lease_lost", 0, why=lost.reason)
        for asked in beat.cancel:
            if asked.id in by_id and by_id[asked.id].stopped is None:
                log.info("job.cancelling", component="agent", job_id=asked.id, mode=asked.mode)
                grace_s = 0.0 if asked.mode == "kill" else min(asked.grace_seconds, self._cancel_grace_s)
                by_id[asked.id].stop("cancelled", grace_s)
            elif asked.id in by_id and asked.mode == "kill":
                by_id[asked.id].stop("cancelled", 0.0)

    def _fence(self) -> None:
        """Stop what could not be renewed. Its keeper has done so before, whether or not this thread runs."""
        for held in self._slots.held():
            if now_s() >= held.ends_at_s and not held.lost:
                held.stop("lease_lost", 0, why="not renewed in time")
