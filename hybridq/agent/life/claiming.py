"""Asks for work: one long poll at a time, for as many jobs as there are free slots, and never for more."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import structlog

from ...errors import HybridqError
from ...job import Backoff
from ...keys import new_id
from ...retry import delay_ms, jitter
from .. import errors
from ..work.keeper import now_s
from .identity import Superseded
from .slots import Held, Slots

if TYPE_CHECKING:
    from .._wire import Claimed
    from .checks import Checks
    from .identity import Membership
    from .settings import AgentSettings

__all__ = ["Claimer"]

log = structlog.get_logger("hybridq")

TIMEOUT_S: Final = 10.0
BACKOFF: Final = Backoff(base_s=0.5, max_s=15.0)
EMPTY_S: Final = 1.0
"""What came back empty sooner than it was to wait is asked again no sooner than this."""


class Claimer:
    """Claims until `stop`. `nudge` makes it look again at once: a slot freed, the machine is fit again.

    Args:
        membership: Who asks.
        slots: Where jobs go.
        checks: Whether the machine is fit for more.
        settings: Length of leases and of polls, `once`, `idle_exit_s`.
        enough: Called when `once` or `idle_exit_s` say that the agent is done.
        rng: For pauses.
    """

    def __init__(
        self,
        membership: Membership,
        slots: Slots,
        checks: Checks,
        settings: AgentSettings,
        *,
        enough: Callable[[str], None],
        rng: random.Random,
    ) -> None:
        self._membership, self._slots, self._checks, self._settings = membership, slots, checks, settings
        self._enough, self._rng = enough, rng
        self._turn = threading.Condition()
        self._stopped = self._drained = False
        self._request_id: str | None = None
        self._failures = 0
        self._away_since_s: float | None = None
        self._busy_at_s = time.monotonic()
        """When there was last something to do."""

    # -- told by others --------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Claim nothing more. What a poll that is under way still brings is handed back."""
        with self._turn:
            self._stopped = True
            self._turn.notify_all()

    def drain(self, drained: bool) -> None:
        """The server says that nothing is to be claimed for now, or that it may be again."""
        with self._turn:
            if drained != self._drained:
                log.info("agent.steered", component="agent", drained=drained)
            self._drained = drained
            self._turn.notify_all()

    def nudge(self) -> None:
        """Look again at whether there is room."""
        with self._turn:
            self._busy_at_s = time.monotonic()
            self._turn.notify_all()

    # -- the thread ------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Claim until stopped."""
        while True:
            free = self._room()
            if not free:
                return
            sent_s = time.monotonic()
            try:
                claimed = self._claim(1 if self._settings.once else free)
            except Superseded:
                return
            except HybridqError as trouble:
                if not self._stopped:
                    self._failed(trouble)
                continue
            self._answered()
            for job in claimed.jobs:
                self._take(Held(job, ends_at_s=now_s() + job.lease_expires_in_seconds))
            if claimed.drain:
                self.drain(True)
            elif not claimed.jobs and time.monotonic() - sent_s < EMPTY_S:
                self._pause((claimed.retry_after_seconds or EMPTY_S) * (1 + self._rng.random()))

    def _room(self) -> int:
        """Wait until there is room for a job, and return for how many; 0 once stopped."""
        with self._turn:
            while not self._stopped:
                free = self._slots.free
                busy = self._slots.busy > 0
                if busy:
                    self._busy_at_s = time.monotonic()
                if self._settings.once and (busy or self._slots.worked):
                    free = 0
                if free and not self._is_idle_for_long() and not self._drained and self._checks.failed is None:
                    return free
                self._turn.wait(1.0)
        return 0

    def _is_idle_for_long(self) -> bool:
        idle_s = self._settings.idle_exit_s
        if idle_s is None or time.monotonic() - self._busy_at_s < idle_s:
            return False
        self._enough("idle")
        return True

    def _claim(self, most: int) -> Claimed:
        wait_s = self._settings.poll_s
        if self._settings.idle_exit_s is not None:
            left_s = self._busy_at_s + self._settings.idle_exit_s - time.monotonic()
            wait_s = max(0.0, min(wait_s, left_s))
        # After an answer that was lost the same request brings the same jobs.
        self._request_id = self._request_id or new_id()
        request_id, holding = self._request_id, self._slots.held()
        claimed = self._membership.ask(
            lambda client: client.claim(
                request_id=request_id,
                max=most,
                wait_seconds=wait_s,
                lease_seconds=self._settings.lease_s,
                holding=holding,
            ),
            timeout_s=TIMEOUT_S,
        )
        self._request_id = None
        return claimed

    def _take(self, held: Held) -> None:
        with self._turn:
            stopped = self._stopped or self._slots.free < 1
        if stopped:
            held.stop("drain", 0)
        self._busy_at_s = time.monotonic()
        log.info("job.claimed", component="agent", job_id=held.id, type=held.job.type, fence=held.fence)
        self._slots.take(held)

    # -- trouble ---------------------------------------------------------------------------------------------

    def _failed(self, trouble: HybridqError) -> None:
        if isinstance(trouble, errors.ApiError) and not isinstance(trouble, errors.ServerAway):
            self._request_id = None  # a request that is refused is not asked again
        self._failures += 1
        if self._away_since_s is None:
            self._away_since_s = time.monotonic()
            log.warning("agent.away", component="agent", error_type=type(trouble).__name__, reason=_reason(trouble))
        after_s = trouble.retry_after_s if isinstance(trouble, errors.ApiError) else None
        pause_s = delay_ms(BACKOFF, self._failures, jitter(self._rng)) / 1000
        self._pause(pause_s if after_s is None else max(pause_s, after_s * (1 + 0.2 * self._rng.random())))

    def _answered(self) -> None:
        self._failures = 0
        if self._away_since_s is not None:
            log.info("agent.back", component="agent", away_s=round(time.monotonic() - self._away_since_s, 1))
            self._away_since_s = None

    def _pause(self, pause_s: float) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self._stopped, pause_s)


def _reason(trouble: HybridqError) -> str:
    return trouble.code if isinstance(trouble, errors.ApiError) else getattr(trouble, "reason", "")
