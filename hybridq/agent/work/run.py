"""One job from checkout to clean-up."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import msgspec

from ...lifecycle import Outcome
from . import keeper
from .git import Checkout, Executed, GitFailed, Repository
from .outcome import Ended, JobFacts, StopReason, WorkSettings
from .process import KeeperGone, KeeperProcess, NotSpawned, deadline
from .process import Step as Command
from .steps import Unfit, command_of, environment_of, is_due, outputs_of, passed_on, passwords_of, sayable, unfit_names
from .workspace import Workspace

if TYPE_CHECKING:
    from ..logs import JobLog
    from ..work_of import Git, Step, Work

__all__ = ["Run"]

RANKS: Final[dict[StopReason | None, int]] = {None: 0, "drain": 1, "timeout": 2, "cancelled": 3, "lease_lost": 4}
"""Of several reasons the highest holds."""
MARGIN_S: Final = 2.0
"""A job is over by so much before its lease ends, or by a tenth of the lease if that is less."""
WORDS_BYTES: Final = 4096
STOPPED: Final[dict[StopReason, tuple[Outcome, str]]] = {
    "cancelled": (Outcome.CANCELLED, "stopped on request"),
    "drain": (Outcome.INFRA_ERROR, "stopped, because this agent ends"),
    "lease_lost": (Outcome.INFRA_ERROR, "stopped, because its lease was lost or could not be renewed in time"),
    "timeout": (Outcome.TIMEOUT, "stopped, because it ran past its time"),
}
SPAWN_ERRORS: Final = {
    errno.E2BIG: ("environment_too_large", "its environment and arguments are more than the kernel takes"),
    errno.ENOSPC: ("disk_full", "the disk is full"),
}


class Exit(NamedTuple):
    """How one command ended."""

    status: int
    told: bool
    """It was asked to end before it did."""
    late: bool
    """It ran past the time it had."""

    @property
    def code(self) -> int:
        """As shells have it: 128 + n for signal n."""
        code = os.waitstatus_to_exitcode(self.status)
        return code if code >= 0 else 128 - code


class _Over(Exception):
    """The keeper spoke its last word before the steps were through: nothing can run any more."""


class _Stopped(Exception):
    """The job was stopped before this command of it was started."""


class _Trouble(Exception):
    """The machine is at fault, or (`outcome`) the job is one that cannot be run."""

    def __init__(self, code: str, message: str, outcome: Outcome = Outcome.INFRA_ERROR) -> None:
        self.code, self.message, self.outcome = code, message, outcome
        super().__init__(message)


class Run:
    """One job, on this machine, from its checkout to the end of the last process it started.

    Args:
        work: What is asked for; the `env` of its steps resolved, all texts.
        job: What steps are told of the job.
        env: The job's own environment, resolved.
        secrets: Values the log must not show.
        folder: Where the workspace is made, in a folder of its own.
        log: Takes what steps write, and lines about them. The caller closes it.
        settings: This machine's.
        lease_ends_at_s: As `now_s` counts; nothing of the job lives then, whatever becomes of this process.
    """

    def __init__(
        self,
        work: Work,
        *,
        job: JobFacts,
        env: Mapping[str, str],
        secrets: Iterable[str] = (),
        folder: Path,
        log: JobLog,
        settings: WorkSettings,
        lease_ends_at_s: float,
    ) -> None:
        self._work, self._job, self._env, self._folder = work, job, dict(env), folder
        self._log, self._settings = log, settings
        log.add_secrets((*secrets, *passwords_of(os.environ)))
        self._lock = threading.Lock()
        self._keeper: KeeperProcess | None = None
        self._workspace: Workspace | None = None
        self._lease_by, self._lease_s = lease_ends_at_s, 0.0
        self._set_lease(lease_ends_at_s)
        self._reason: StopReason | None = None
        self._stop_by = keeper.NEVER
        self._job_by = keeper.NEVER
        self._killed = False
        self._finished = False
        self._interrupted = False
        self._failure: dict[str, Any] | None = None
        self._outcome = Outcome.SUCCESS
        self._exit_code: int | None = None
        self._steps: list[dict[str, Any]] = []
        self._git: Git | None = None

    @property
    def killed(self) -> bool:
        """Whether anything of the job had to be ended by SIGKILL before its steps were through."""
        return self._killed

    # -- from other threads ---------------------------------------------------------------------

    def extend(self, lease_ends_at_s: float) -> None:
        """The lease was renewed and ends at this time, as `now_s` counts. From any thread; never blocks."""
        with self._lock:
            self._set_lease(lease_ends_at_s)
            if self._keeper is not None:
                self._keeper.lease(self._lease_by)

    def _set_lease(self, ends_at_s: float) -> None:
        self._lease_s = max(self._lease_s, ends_at_s - keeper.now_s())
        self._lease_by = ends_at_s - min(MARGIN_S, self._lease_s / 10)

    def stop(self, reason: StopReason, grace_s: float) -> None:
        """SIGTERM to what runs, SIGKILL to all of it after `grace_s`. From any thread; never blocks; idempotent.

        Steps that are meant for it (`if: always`, `cancelled`; after a timeout `failure`) may use what the first one
        leaves of the grace. A later stop can shorten the grace and give a weightier reason, never the reverse. A job
        that is through by itself when it comes stays as it ended.
        """
        with self._lock:
            if self._finished:
                return
            if RANKS[reason] > RANKS[self._reason]:
                self._reason = reason
            self._stop_by = min(self._stop_by, time.monotonic() + grace_s)
            if self._keeper is not None:
                self._pass_on_stop(self._keeper)

    def _pass_on_stop(self, kept: KeeperProcess) -> None:
        if self._stop_by <= time.monotonic():
            kept.kill()
        else:
            kept.stop(deadline(self._stop_by))

    # -- from its own ---------------------------------------------------------------------------

    def run(self) -> Ended:
        """Run the job, and return when nothing of it lives any more. Never raises for what a job does."""
        began_s = time.monotonic()
        if self._job.timeout_s is not None:
            self._job_by = began_s + self._job.timeout_s
        try:
            self._run()
        except (_Over, _Stopped):
            self._interrupted = True
        except KeeperGone as gone:
            self._killed = self._interrupted = True
            if keeper.now_s() >= self._lease_by:
                self._reason = "lease_lost"
            self._blame(Outcome.INFRA_ERROR, "keeper_died", str(gone))
        except (_Trouble, GitFailed, NotSpawned, OSError) as trouble:
            self._blame(*self._told_of(trouble))
        finally:
            with self._lock:
                self._finished = True
                kept, self._keeper = self._keeper, None
            if kept is not None:
                kept.close()
        return self._conclude(began_s)

    def _run(self) -> None:
        self._refuse_names()
        self._workspace = workspace = Workspace(self._folder, str(self._job.fence))
        mark = ("HYBRIDQ_WORKSPACE", str(workspace.work))
        with self._lock:
            if self._reason is not None:
                raise _Over
            self._keeper = kept = KeeperProcess(self._lease_by, "=".join(mark))
        if self._work.git is not None:
            self._check_out(self._work.git, workspace, mark)
        environment = self._environment(workspace)
        for number, step in enumerate(self._work.steps, 1):
            self._step(number, step, environment, workspace)
        self._quit(kept)

    def _refuse_names(self) -> None:
        environments: list[Mapping[str, object]] = [self._env, *(step.env for step in self._work.steps)]
        for env in environments:
            for name in unfit_names(env):
                message = f"no job may set {name[:100]!r}, or not to this"
                raise _Trouble("env_not_allowed", message, Outcome.REJECTED)

    def _environment(self, workspace: Workspace) -> dict[str, str]:
        passed = passed_on(os.environ, self._settings.pass_env)
        return passed | environment_of(self._job, workspace, self._git) | self._env

    def _quit(self, kept: KeeperProcess) -> None:
        """End what steps have left behind, and wait until the keeper says so."""
        kept.quit()
        while True:
            event = kept.next(keeper.NEVER)
            if event is not None and event[0] == keeper.OUTPUT:
                self._log.write(event[1][0])
            elif event is not None and event[0] == keeper.ENDED:
                _, resist, *names = event[1]
                if names:
                    said = ", ".join(name.decode("utf-8", "replace") for name in names)
                    self._log.note(f"ended what steps had left running: {said}")
                self._say_who_resists(resist)
                return

    # -- checkout -------------------------------------------------------------------------------

    def _check_out(self, git: Git, workspace: Workspace, mark: tuple[str, str]) -> None:
        repository = Repository.parse(git.repo, self._settings.git_protocols)
        self._log.add_secrets(repository.secrets)
        checkout = Checkout(
            git,
            repository,
            workspace=workspace,
            environ=os.environ,
            mark=mark,
            protocols=self._settings.git_protocols,
            execute=self._execute_within(time.monotonic() + self._settings.checkout_s),
        )
        self._log.note(f"checking out {git.commit_sha or git.ref or 'the default branch'} of {repository.url}")
        sha = checkout.run()
        if sha != git.commit_sha:
            self._log.note(f"it is commit {sha}")
        # What steps are told: where it came from without the credentials, and the commit that it was.
        self._git = msgspec.structs.replace(git, repo=repository.url, commit_sha=sha)

    def _execute_within(self, until_s: float) -> Callable[[Command], Executed]:
        def execute(command: Command) -> Executed:
            words = bytearray()

            def take(data: bytes) -> None:
                words.extend(data)
                del words[:-WORDS_BYTES]

            ended = self._command(command, until_s, take, due=lambda: self._reason is None)
            if ended.told and not ended.late:
                raise _Stopped
            if ended.late:
                raise GitFailed("git_failed", f"the checkout took longer than {self._settings.checkout_s:g} s")
            return Executed(ended.code, words.decode("utf-8", "replace"))

        return execute

    # -- steps ----------------------------------------------------------------------------------

    def _step(self, number: int, step: Step, environment: Mapping[str, str], workspace: Workspace) -> None:
        failed, record = self._failure is not None, self._record(step)

        def due() -> bool:
            return is_due(step.if_, failed=failed, stopped=self._reason)

        if not due():
            # What would have run, had nobody stopped the job, makes the stop what ended it.
            self._interrupted = self._interrupted or is_due(step.if_, failed=failed, stopped=None)
            return

        self._log.note(f"step {number} of {len(self._work.steps)}: {step.name}")
        began_s = time.monotonic()
        by_s = began_s + (step.timeout_seconds if step.timeout_seconds is not None else keeper.NEVER)
        environment = {**environment, "HYBRIDQ_STEP": sayable(step.name), **cast("dict[str, str]", step.env)}
        kills = _oom_kills()
        try:
            command = self._prepare(step, number, environment, workspace)
            ended = self._command(command, by_s, self._log.write, due=due)
        except Unfit as unfit:
            outcome = Outcome.REJECTED if unfit.rejected else Outcome.INFRA_ERROR if unfit.infra else Outcome.FAILED
            record["outcome"] = str(outcome)
            self._blame(outcome, unfit.code, f"step {step.name!r}: {unfit.message}", step.name)
        except _Trouble as trouble:
            record["outcome"] = str(trouble.outcome)
            self._blame(trouble.outcome, trouble.code, f"step {step.name!r}: {trouble.message}", step.name)
        except _Stopped:
            self._interrupted = True
        except (KeeperGone, _Over):
            record["outcome"] = "timeout" if self._reason == "timeout" else "cancelled"
            raise
        else:
            record["exit_code"] = ended.code
            record["outcome"] = self._judge(step, ended, oom=_oom_kills() > kills)
        finally:
            record["duration_seconds"] = round(time.monotonic() - began_s, 3)
        if record["outcome"] != "success":
            said = f"exit code {record['exit_code']}, " if record["exit_code"] is not None else ""
            self._log.note(f"step {number}: {record['outcome']}, {said}after {record['duration_seconds']:g} s")

    def _record(self, step: Step) -> dict[str, Any]:
        record = {"name": self._log.redact(step.name), "outcome": "skipped", "exit_code": None, "duration_seconds": 0.0}
        self._steps.append(record)
        return record

    def _prepare(self, step: Step, number: int, environment: Mapping[str, str], workspace: Workspace) -> Command:
        try:
            return command_of(step, number, environment, workspace, outside=self._settings.outside_workspace)
        except OSError as error:
            outcome, code, message = self._told_of(error)
            raise _Trouble(code, message, outcome) from error

    def _judge(self, step: Step, ended: Exit, *, oom: bool) -> str:
        """Say how a step ended that was started, and remember the first that did not end well."""
        if ended.told and os.WIFSIGNALED(ended.status) and os.WTERMSIG(ended.status) == signal.SIGKILL:
            self._killed = True
        if ended.late:
            message = f"step {step.name!r} ran longer than {step.timeout_seconds:g} s"
            self._blame(Outcome.TIMEOUT, "step_timeout", message, step.name, ended.code)
            return "timeout"
        if ended.told:
            self._interrupted = True
            return "timeout" if self._reason == "timeout" else "cancelled"
        if ended.code == 0:
            return "success"
        how = (
            f"was ended by {_signal_name(ended.status)}"
            if os.WIFSIGNALED(ended.status)
            else f"exited with {ended.code}"
        )
        outcome, code = Outcome.FAILED, "step_failed"
        if ended.code == 128 + signal.SIGKILL and oom:
            code, how = "out_of_memory", "was ended by the kernel: out of memory"
        elif self._workspace is not None and self._workspace.is_full():
            outcome, code, how = Outcome.INFRA_ERROR, "disk_full", f"{how}, and the disk is full"
        self._blame(outcome, code, f"step {step.name!r} {how}", step.name, ended.code)
        return str(outcome)

    def _command(
        self, command: Command, by_s: float, take: Callable[[bytes], None], *, due: Callable[[], bool]
    ) -> Exit:
        """Run one command to its end, or to `by_s` and the grace after it; hand on what it writes.

        Raises `_Stopped` when it is not `due` any more, `_Over` when everything ended before it did, and `_Trouble`
        when it cannot be started.
        """
        kept, late, told_by = self._keeper, False, by_s
        assert kept is not None
        with self._lock:  # a stop comes before, and it is not started, or after, and it is told
            if not due():
                raise _Stopped
            kept.start(command)
        while True:
            now_s = time.monotonic()
            if now_s >= self._job_by:
                self._job_by = keeper.NEVER
                self.stop("timeout", self._settings.term_grace_s)
            if now_s >= told_by and not late:
                late, told_by = True, keeper.NEVER
                kept.term(deadline(now_s + self._settings.term_grace_s))
            event = kept.next(min(self._job_by, told_by))
            if event is None:
                continue
            kind, fields = event
            if kind == keeper.OUTPUT:
                take(fields[0])
            elif kind == keeper.EXITED:
                told = fields[1] == b"1"
                return Exit(int(fields[0]), told, late and told and self._reason is None)
            elif kind == keeper.FAILED:
                raise _spawn_trouble(int(fields[0]), fields[1])
            elif kind == keeper.ENDED:
                self._heard_the_end(fields)
                raise _Over

    def _heard_the_end(self, fields: list[bytes]) -> None:
        with self._lock:
            if fields[0] == keeper.LEASE and RANKS[self._reason] < RANKS["lease_lost"]:
                self._reason = "lease_lost"
        self._killed = True
        self._say_who_resists(fields[1])

    def _say_who_resists(self, count: bytes) -> None:
        if count != b"0":
            self._log.note(f"{count.decode()} processes could not be ended; are they another user's?")

    # -- the end --------------------------------------------------------------------------------

    def _blame(
        self, outcome: Outcome, code: str, message: str, step: str | None = None, exit_code: int | None = None
    ) -> None:
        """Remember why the job is no success: the first reason holds."""
        if self._failure is not None:
            return
        self._outcome, self._exit_code = outcome, exit_code
        self._failure = {"code": code, "message": self._log.redact(message)}
        if step is not None:
            self._failure["step"] = self._log.redact(step)

    def _told_of(self, trouble: Exception) -> tuple[Outcome, str, str]:
        if isinstance(trouble, _Trouble):
            return trouble.outcome, trouble.code, trouble.message
        if isinstance(trouble, GitFailed):
            full = self._workspace is not None and not trouble.rejected and self._workspace.is_full()
            outcome = Outcome.REJECTED if trouble.rejected else Outcome.INFRA_ERROR
            return outcome, "disk_full" if full else trouble.code, trouble.message
        said = trouble.strerror if isinstance(trouble, OSError) and trouble.strerror else type(trouble).__name__
        if isinstance(trouble, OSError) and trouble.errno in (errno.ENOSPC, errno.EDQUOT):
            return Outcome.INFRA_ERROR, "disk_full", f"the disk is full: {said}"
        if isinstance(trouble, NotSpawned):
            return Outcome.INFRA_ERROR, "spawn_failed", f"the job's keeper cannot be started: {said}"
        return Outcome.INFRA_ERROR, "workspace_failed", f"the workspace cannot be used: {said}"

    def _conclude(self, began_s: float) -> Ended:
        stopped = self._reason if self._interrupted and self._reason is not None else None
        if stopped is not None:
            self._outcome, message = STOPPED[stopped]
            self._failure, self._exit_code = None, None
            self._blame(self._outcome, stopped, f"the job was {message}")
            self._log.note(f"the job was {message}")
        for step in self._work.steps[len(self._steps) :]:
            self._record(step)
        result: dict[str, Any] = {"duration_seconds": 0.0, "steps": self._steps}
        if self._git is not None:
            result["git"] = {"commit_sha": self._git.commit_sha}
        kept = self._put_away(result)
        result["duration_seconds"] = round(time.monotonic() - began_s, 3)
        return Ended(
            outcome=self._outcome,
            exit_code=0 if self._outcome == Outcome.SUCCESS else self._exit_code,
            error=self._failure,
            result=result,
            stopped=stopped,
            kept=kept,
        )

    def _put_away(self, result: dict[str, Any]) -> Path | None:
        """Read the outputs, and remove the workspace unless it is to be kept."""
        workspace = self._workspace
        if workspace is None:
            return None
        outputs, wrong = outputs_of(workspace.output, self._settings.output_bytes_max)
        if outputs:
            result["outputs"] = {self._log.redact(name): self._log.redact(value) for name, value in outputs.items()}
        if wrong is not None:
            self._log.note(wrong)
        keep = self._settings.keep
        if keep == "always" or (keep == "failed" and self._outcome != Outcome.SUCCESS):
            self._log.note(f"the workspace stays at {workspace.folder}")
            return workspace.keep()
        if not workspace.remove():
            self._log.note(f"not all of the workspace could be removed: {workspace.folder}")
            return workspace.folder
        return None


def _spawn_trouble(number: int, where: bytes) -> _Trouble:
    if number in SPAWN_ERRORS:
        code, message = SPAWN_ERRORS[number]
        return _Trouble(code, message, Outcome.FAILED if number == errno.E2BIG else Outcome.INFRA_ERROR)
    doing = {b"chdir": "its folder cannot be entered", b"fork": "no process can be started"}
    return _Trouble("spawn_failed", f"{doing.get(where, 'its program cannot be executed')}: {os.strerror(number)}")


def _signal_name(status: int) -> str:
    number = os.WTERMSIG(status)
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _oom_kills() -> int:
    """How many processes of this machine the kernel has ended for want of memory; 0 where it does not say."""
    try:
        with open("/proc/vmstat", encoding="ascii") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    except OSError:
        return 0
