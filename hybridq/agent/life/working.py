"""What a slot does with a lease: start, see what is asked for, get the secrets, run, tell how it ended.

Every step has an outcome of its own when it fails: nothing that a job asks for can make the agent stop.
"""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from ...errors import HybridqError
from ...job import Backoff
from ...lifecycle import Outcome
from ...retry import delay_ms, jitter
from .. import errors
from ..trust.rejected import Rejected
from ..work.keeper import now_s
from .journal import Journal, KeptLease, KeptResult, now
from .slots import Held

if TYPE_CHECKING:
    from ..client import Client
    from ..logs import JobLog
    from ..secrets import Secrets
    from ..trust import Trust
    from ..work import Run, WorkSettings
    from .identity import Membership
    from .reporting import Reporter

__all__ = ["Working", "place_of"]

log = structlog.get_logger("hybridq")

TIMEOUT_S: Final = 10.0
BACKOFF: Final = Backoff(base_s=0.25, max_s=5.0)
LATER: Final = (errors.Unreachable, errors.ServerAway, errors.RateLimited, errors.AnswerNotUnderstood)
OVER: Final = (errors.Contradicted, errors.Missing, errors.Forbidden, errors.Malformed)
"""Answers to a start that say: this job is not ours to run."""
LOG_CLOSE_S: Final = 30.0
LOG_CLOSE_S_MAX: Final = 120.0
"""How long the rest of a log may take: as long as the lease lasts, between the two."""


class Working:
    """Works on one lease after another, in as many threads as there are slots."""

    def __init__(
        self,
        membership: Membership,
        journal: Journal,
        reporter: Reporter,
        *,
        trust: Trust,
        secrets: Secrets,
        settings: WorkSettings,
        work_folder: Path,
        log_folder: Path,
        log_bytes_max: int,
        let_go: Callable[[Held], None],
        unfit: Callable[[str], None],
        rng: random.Random,
    ) -> None:
        self._membership, self._journal, self._reporter = membership, journal, reporter
        self._trust, self._secrets, self._settings = trust, secrets, settings
        self._work_folder, self._log_folder, self._log_bytes_max = work_folder, log_folder, log_bytes_max
        self._let_go, self._unfit, self._rng = let_go, unfit, rng

    def __call__(self, held: Held) -> bool:
        """Work on a lease to its end; whether there was anything to do. Never raises."""
        began_s = time.monotonic()
        try:
            if not self._start(held):
                return False
            try:
                ended = self._ended(held)
            except Exception as trouble:
                _report(held, trouble)
                ended = _End(Outcome.INFRA_ERROR, error={"code": "agent_failed", "message": type(trouble).__name__})
            return self._settle(held, ended, took_s=time.monotonic() - began_s)
        except Exception as trouble:
            _report(held, trouble)
            self._let_go(held)
            return False

    # -- start -----------------------------------------------------------------------------------------------

    def _start(self, held: Held) -> bool:
        """Journal the lease and start the job; whether there is anything to do."""
        try:
            self._journal.hold(_kept(held))
        except OSError as trouble:
            log.error("agent.disk_failed", component="agent", error_type=type(trouble).__name__)
            self._unfit("the journal cannot be written")
            self._release(held, "the disk takes no more")
            return False
        failures = 0
        while held.stopped is None:
            try:
                self._confirm(held)
                return True
            except LATER:
                failures += 1
                time.sleep(delay_ms(BACKOFF, failures, jitter(self._rng)) / 1000)
                if now_s() > held.ends_at_s:
                    held.stop("lease_lost", 0, why="the server was away")
            except OVER as no:
                # Cancelled before its start, or given to somebody else: nothing was begun.
                return self._drop(held, no.code)
            except HybridqError as trouble:
                return self._drop(held, type(trouble).__name__)
        if held.lost:
            return self._drop(held, held.why)
        if held.stopped == "drain":
            self._release(held, "drain")
            return False
        return True  # cancelled: its end says so

    def _confirm(self, held: Held) -> None:
        """Start the job, and learn by when the lease has to be renewed: the claim's answer may have been on its way."""
        job = self._membership.ask(lambda client: client.start(held.id, held.lease_token), timeout_s=TIMEOUT_S)
        held.attempt = job.attempt or 1
        sent_s = now_s()
        beat = self._membership.ask(lambda client: client.lease_heartbeat([held]), timeout_s=TIMEOUT_S)
        for lost in beat.lost:
            held.stop("lease_lost", 0, why=lost.reason)
        for renewed in beat.renewed:
            held.confirm(sent_s + (renewed.lease_expires_in_seconds or 0.0))
        log.info(
            "job.started", component="agent", job_id=held.id, type=held.job.type, fence=held.fence, attempt=held.attempt
        )

    def _drop(self, held: Held, why: str) -> bool:
        log.info("job.dropped", component="agent", job_id=held.id, fence=held.fence, reason=why)
        self._journal.let_go(_kept(held))
        self._let_go(held)
        return False

    def _release(self, held: Held, why: str) -> None:
        """Hand the job back; when that cannot be said the lease runs out, or goes back with the session."""
        try:
            self._membership.ask(
                lambda client: client.release(held.id, held.lease_token), timeout_s=TIMEOUT_S, deadline_s=3.0
            )
            log.info("job.released", component="agent", job_id=held.id, fence=held.fence, reason=why)
            self._journal.let_go(_kept(held))
        except OVER as no:
            log.info("job.dropped", component="agent", job_id=held.id, fence=held.fence, reason=no.code)
            self._journal.let_go(_kept(held))
        except HybridqError as trouble:
            log.warning("job.unreported", component="agent", job_id=held.id, error_type=type(trouble).__name__)
        self._let_go(held)

    # -- run -------------------------------------------------------------------------------------------------

    def _ended(self, held: Held) -> _End:
        """Run the job and return how it ended."""
        from ..secrets import SecretUnavailable
        from ..trust import ReplaysUnavailable
        from ..work_of import work_of

        job = held.job
        if held.stopped is not None:
            return _never_begun(held)
        try:
            work, env = self._secrets.resolve_work(work_of(job, self._trust), pool=job.pool)
        except Rejected as no:
            return _End(Outcome.REJECTED, error=no.error)
        except (SecretUnavailable, ReplaysUnavailable) as trouble:
            return _End(Outcome.INFRA_ERROR, error=trouble.error)
        from ..logs import JobLog

        job_log = JobLog(
            self._log_folder / f"{held.id}.{held.fence}",
            append=lambda offset, data: self._append(held, offset, data),
            secrets=env.secrets,
            bytes_max=self._log_bytes_max,
        )
        try:
            return self._run(held, self._run_of(held, work, env.values, env.secrets, job_log), job_log)
        except BaseException:
            job_log.abandon()  # else its thread would wait for more for ever
            raise

    def _run_of(self, held: Held, work: Any, env: Mapping[str, str], secrets: tuple[str, ...], job_log: JobLog) -> Run:
        from ..work import JobFacts, Run

        job = held.job
        facts = JobFacts(
            id=job.id,
            fence=job.fence,
            attempt=held.attempt,
            pool=job.pool,
            agent_id=self._membership.agent_id,
            type=job.type,
            timeout_s=job.timeout_seconds,
            traceparent=job.traceparent,
        )
        return Run(
            work,
            job=facts,
            env=env,
            secrets=secrets,
            folder=self._work_folder,
            log=job_log,
            settings=self._settings,
            lease_ends_at_s=held.ends_at_s,
        )

    def _run(self, held: Held, run: Run, job_log: JobLog) -> _End:
        if not held.begin(run):
            job_log.abandon()
            return _never_begun(held)
        try:
            ended = run.run()
        finally:
            held.end()
        if ended.stopped not in ("drain", "lease_lost"):
            # The rest of the log may take a while yet, and whoever ends us meanwhile must not undo what is done.
            self._reporter.keep(
                _result_of(held, _End(ended.outcome, ended.exit_code, result=ended.result, error=ended.error))
            )
        if held.lost or ended.stopped == "lease_lost":
            summary = job_log.close(within_s=0)
        else:
            left_s = min(LOG_CLOSE_S_MAX, max(LOG_CLOSE_S, held.ends_at_s - now_s()))
            summary = job_log.close(within_s=5.0 if ended.stopped else left_s)
        said = {
            **ended.result,
            "last_lines": list(summary.last_lines),
            "log": {
                "bytes_written": summary.bytes_written,
                "bytes_sent": summary.bytes_sent,
                "truncated": summary.truncated,
                "delivered": summary.delivered,
                "redactions": summary.redactions,
            },
        }
        return _End(ended.outcome, exit_code=ended.exit_code, result=said, error=ended.error, stopped=ended.stopped)

    def _append(self, held: Held, offset: int, data: str) -> int:
        def append(client: Client) -> int:
            return client.append_log(held.id, held.lease_token, offset, data).next_offset

        return self._membership.ask(append, timeout_s=TIMEOUT_S)

    # -- end -------------------------------------------------------------------------------------------------

    def _settle(self, held: Held, ended: _End, *, took_s: float) -> bool:
        """Tell how it ended. A lost lease is told as well: the server keeps what came late, and says that it was."""
        if ended.stopped == "drain":
            self._release(held, "drain")
            return False
        if ended.stopped == "lease_lost":
            log.warning(
                "job.lost", component="agent", job_id=held.id, fence=held.fence, reason=held.why or "not renewed"
            )
        outcome = str(ended.outcome)
        log.info(
            "job.finished",
            component="agent",
            job_id=held.id,
            type=held.job.type,
            fence=held.fence,
            attempt=held.attempt,
            outcome=outcome,
            exit_code=ended.exit_code,
            code=(ended.error or {}).get("code"),
            took_s=round(took_s, 3),
        )
        self._reporter.report(_result_of(held, ended), held)
        return True


class _End(msgspec.Struct, frozen=True):
    """How a lease ended, whether or not anything ran."""

    outcome: Outcome
    exit_code: int | None = None
    result: dict[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    stopped: str | None = None


def _result_of(held: Held, ended: _End) -> KeptResult:
    return KeptResult(
        id=held.id,
        lease_token=held.lease_token,
        fence=held.fence,
        outcome=str(ended.outcome),
        exit_code=ended.exit_code,
        result=ended.result,
        error=None if ended.outcome is Outcome.SUCCESS else ended.error,
        ended_at=now(),
    )


def _never_begun(held: Held) -> _End:
    """How a lease ends that was stopped before anything of the job ran."""
    if held.stopped == "cancelled":
        return _End(Outcome.CANCELLED, stopped=held.stopped)
    error = {"code": "lease_lost", "message": "its lease was lost before anything of the job ran"}
    return _End(Outcome.INFRA_ERROR, error=error, stopped=held.stopped)


def _report(held: Held, trouble: Exception) -> None:
    log.error(
        "job.agent_failed",
        component="agent",
        job_id=held.id,
        error_type=type(trouble).__name__,
        at=place_of(trouble),
    )


def place_of(trouble: Exception) -> str:
    """Return file and line that an error comes from; its text may hold what no log should."""
    where = traceback.extract_tb(trouble.__traceback__)[-1]
    return f"{Path(where.filename).name}:{where.lineno}"


def _kept(held: Held) -> KeptLease:
    return KeptLease(id=held.id, lease_token=held.lease_token, fence=held.fence, attempt=held.attempt, claimed_at=now())
