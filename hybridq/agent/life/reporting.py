"""Tells the server how leases ended: at once, else from the journal until it is taken, or taken no more."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from ...errors import HybridqError
from ...job import Backoff
from ...retry import delay_ms, jitter
from .. import errors
from .journal import Journal, KeptResult
from .slots import Held

if TYPE_CHECKING:
    from .identity import Membership

__all__ = ["Reporter"]

log = structlog.get_logger("hybridq")

TIMEOUT_S: Final = 10.0
BACKOFF: Final = Backoff(base_s=0.5, max_s=15.0)
LATER: Final = (errors.Unreachable, errors.ServerAway, errors.RateLimited, errors.AnswerNotUnderstood)
"""It may be taken another time."""
RESULT_BYTES_MAX: Final = 240_000
ERROR_BYTES_MAX: Final = 7_000


class Reporter:
    """Results on their way. `let_go` is told of each lease whose end is known to be taken, or taken no more."""

    def __init__(
        self,
        membership: Membership,
        journal: Journal,
        *,
        let_go: Callable[[Held], None],
        rng: random.Random,
    ) -> None:
        self._membership, self._journal, self._let_go, self._rng = membership, journal, let_go, rng
        self._waiting: dict[tuple[str, int], tuple[KeptResult, Held | None]] = {}
        self._turn = threading.Condition()
        self._stopped = False

    @property
    def waiting(self) -> int:
        """How many results nobody took yet."""
        with self._turn:
            return len(self._waiting)

    def keep(self, result: KeptResult) -> None:
        """Keep a result for another process to tell, should this one end before it has; `report` may say more."""
        try:
            self._journal.keep(result)
        except OSError as trouble:
            # It is told all the same, only not by another process.
            log.error("agent.disk_failed", component="agent", error_type=type(trouble).__name__)

    def report(self, result: KeptResult, held: Held) -> None:
        """Keep a result, and tell the server: now if it answers, else as soon as it does."""
        self.keep(result)
        # What is lost anyway is told when there is time, the slot is wanted.
        if held.lost or not self._tell(result, held):
            log.info("job.spooled", component="agent", job_id=result.id, fence=result.fence, outcome=result.outcome)
            self._add(result, held)

    def begin(self) -> None:
        """Take up what a process before left: its results, and leases that ended with it."""
        for lease in self._journal.left_behind():
            crashed = KeptResult(
                id=lease.id,
                lease_token=lease.lease_token,
                fence=lease.fence,
                outcome="infra_error",
                error=CRASHED,
            )
            log.warning("job.crashed", component="agent", job_id=lease.id, fence=lease.fence)
            self.keep(crashed)
            self._add(crashed, None)
        for result in self._journal.unreported():
            self._add(result, None)

    def run(self) -> None:
        """Tell what waits, until `stop`; what is left then stays in the journal."""
        failures = 0
        while True:
            with self._turn:
                while not self._waiting and not self._stopped:
                    self._turn.wait()
                if self._stopped:
                    return
                key, (result, held) = next(iter(self._waiting.items()))
            if self._tell(result, held):
                failures = 0
                with self._turn:
                    self._waiting.pop(key, None)
                    self._turn.notify_all()
                continue
            failures += 1
            with self._turn:
                # Not before others again: the trouble may be with this one alone.
                self._waiting[key] = self._waiting.pop(key)
                self._turn.wait_for(lambda: self._stopped, delay_ms(BACKOFF, failures, jitter(self._rng)) / 1000)

    def wait(self, *, within_s: float) -> None:
        """Wait so long for what waits to be taken."""
        with self._turn:
            self._turn.wait_for(lambda: not self._waiting or self._stopped, within_s)

    def stop(self, *, within_s: float) -> int:
        """Wait so long for what waits to be taken, then stop; returns how many results stay in the journal."""
        with self._turn:
            self._turn.wait_for(lambda: not self._waiting, within_s)
            self._stopped = True
            self._turn.notify_all()
            return len(self._waiting)

    def _add(self, result: KeptResult, held: Held | None) -> None:
        with self._turn:
            self._waiting[result.id, result.fence] = (result, held)
            self._turn.notify_all()

    def _tell(self, result: KeptResult, held: Held | None) -> bool:
        """Whether the matter is settled."""
        try:
            refused = self._send(result)
        except LATER as trouble:
            log.debug("job.untold", component="agent", job_id=result.id, error_type=type(trouble).__name__)
            return False
        except HybridqError as trouble:
            # The session is over, or being renewed: the result stays in the journal for another life.
            log.info("job.untold", component="agent", job_id=result.id, error_type=type(trouble).__name__)
            return False
        if refused is None:
            self._journal.taken(result)
        else:
            self._journal.set_aside(result, refused)
            log.warning("job.late", component="agent", job_id=result.id, fence=result.fence, code=refused)
        if held is not None:
            self._let_go(held)
        return True

    def _send(self, result: KeptResult) -> str | None:
        """Return the code of a refusal that no repeat changes; None: the server has it."""
        sent = _bounded(result)
        for smaller in (sent, _without_result(sent)):
            try:
                self._complete(smaller)
                return None
            except errors.Malformed as wrong:
                refused = wrong.code
            except (errors.Contradicted, errors.Missing, errors.Refused, errors.Forbidden) as no:
                if isinstance(no, errors.AgentNotRegistered):
                    raise
                return no.code
        return refused

    def _complete(self, result: KeptResult) -> None:
        self._membership.ask(
            lambda client: client.complete(
                result.id,
                result.lease_token,
                result.outcome,
                exit_code=result.exit_code,
                result=result.result,
                error=result.error,
            ),
            timeout_s=TIMEOUT_S,
            deadline_s=2.0,
        )


CRASHED: Final = {
    "code": "agent_crashed",
    "message": "the agent's process ended while it held the job; what the job had started was killed with it",
}


def _bounded(result: KeptResult) -> KeptResult:
    """Return a result no larger than the server takes."""
    changes: dict[str, Any] = {}
    if len(msgspec.json.encode(result.result)) > RESULT_BYTES_MAX:
        changes["result"] = None
    if len(msgspec.json.encode(result.error)) > ERROR_BYTES_MAX:
        said = result.error if isinstance(result.error, dict) else {}
        changes["error"] = {"code": said.get("code"), "message": str(said.get("message"))[:1000]}
    return msgspec.structs.replace(result, **changes) if changes else result


def _without_result(result: KeptResult) -> KeptResult:
    """Return what no server refuses for its content: the outcome, the exit code, and an error's code."""
    error = None
    if result.outcome != "success":
        code = result.error.get("code") if isinstance(result.error, dict) else None
        error = {"code": code or "result_refused", "message": "the server did not take what the agent had to say of it"}
    return msgspec.structs.replace(result, result=None, error=error)
