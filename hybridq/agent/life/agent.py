"""`Agent`: the process, from joining the fleet to leaving it.

Threads: the caller's, which waits for the word to stop; `hybridq-claim`, `hybridq-beat`, `hybridq-report`,
`hybridq-checks`; and one for each job.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from ... import __version__
from ...errors import HybridqError
from ...job import Backoff
from ...retry import delay_ms, jitter
from .. import errors
from .beating import Beater
from .checks import Checks
from .claiming import Claimer
from .identity import FoldersAlike, Membership, OwnFolder, Superseded
from .journal import Journal
from .labels import labels_of
from .notify import tell_systemd, watchdog_s
from .reporting import Reporter
from .settings import AgentSettings
from .slots import Held, Slots
from .working import Working, place_of

if TYPE_CHECKING:
    from .._wire import Registered

__all__ = ["Agent"]

log = structlog.get_logger("hybridq")

JOIN_BACKOFF: Final = Backoff(base_s=0.5, max_s=15.0)
REPORT_S: Final = 5.0
"""How long the end waits for results that the server has not taken yet."""
STOPPED_S: Final = 10.0
"""How long, past its grace, a job that is stopped is waited for."""
SUPERSEDED: Final = 3
"""The exit code of one whose name another agent took: to come back would take it away from that one in turn."""
WATCH_S: Final = 60.0
"""A beat that did not come round for so long is hung, and systemd is told nothing more."""


class Agent:
    """Runs the jobs of a pool until it is drained.

    Args:
        settings: What it was told.
        on_ready: Called once it has joined the fleet, with its registration.
    """

    def __init__(self, settings: AgentSettings, *, on_ready: Callable[[Registered], None] | None = None) -> None:
        self.settings = settings
        self._on_ready = on_ready
        self._turn = threading.Condition()
        self._asked: list[str] = []
        """Why to stop; the first reason drains."""
        self._urged = 0
        """How often somebody outside asked: from the second time on nothing is waited for."""
        self._failed: Superseded | None = None
        self._broken = False

    # -- told from outside -----------------------------------------------------------------------------------

    def drain(self, reason: str = "asked") -> None:
        """Claim nothing more, finish what runs within the grace, leave. Asked twice: hand back at once.

        From any thread, and from a signal's handler.
        """
        # A handler may run while this very thread holds the lock, so nothing here waits for it.
        self._urged += 1
        self._asked.append(reason)
        threading.Thread(target=self._changed, name="hybridq-drain", daemon=True).start()

    # -- the life --------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Work until drained, and return the exit code: 0, 1 when it broke, or 3 when another agent took over.

        In the main thread SIGTERM and SIGINT drain; a second one hands back at once, a third leaves on the spot.
        Raises `UsageError` for what the settings cannot mean here, and what a registration that is refused says.
        """
        if self.settings.work_folder.resolve() == self.settings.state_folder.resolve():
            raise FoldersAlike(self.settings.state_folder)
        with (
            OwnFolder(self.settings.state_folder) as folder,
            OwnFolder(self.settings.work_folder) as work_folder,
            self._signals(),
        ):
            self._prepare(folder, work_folder)
            life = _Life(
                self.settings,
                folder,
                changed=self._changed,
                superseded=self._over,
                broken=self._break,
                enough=self._enough,
            )
            try:
                registered = self._join(life.membership)
                if registered is not None and not self._live(life, registered) and self._is_throwaway:
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                life.membership.close()
        if self._failed is not None:
            return SUPERSEDED
        return 1 if self._broken else 0

    @property
    def _is_throwaway(self) -> bool:
        """Whether nobody will ever come back to the folder."""
        return self.settings.ephemeral and self.settings.state_dir is None

    def _prepare(self, folder: Path, work_folder: Path) -> None:
        from ..work import sweep

        sweep(work_folder)
        shutil.rmtree(folder / "logs", ignore_errors=True)
        (folder / "logs").mkdir(mode=0o700)

    def _join(self, membership: Membership) -> Registered | None:
        """Join the fleet, however long the server is away; None when told to stop before."""
        failures, rng = 0, random.Random()
        while not self._asked:
            try:
                return membership.join()
            except (errors.Unreachable, errors.ServerAway, errors.RateLimited, errors.AnswerNotUnderstood) as trouble:
                failures += 1
                tell_systemd("EXTEND_TIMEOUT_USEC=120000000", "STATUS=the server is away")
                if failures == 1:
                    log.warning("agent.away", component="agent", error_type=type(trouble).__name__, reason=str(trouble))
                with self._turn:
                    self._turn.wait_for(lambda: self._asked, delay_ms(JOIN_BACKOFF, failures, jitter(rng)) / 1000)
        return None

    def _live(self, life: _Life, registered: Registered) -> int:
        """Work until there is a reason to stop, then drain; returns how many results nobody took."""
        life.begin(registered)
        log.info(
            "agent.started",
            component="agent",
            agent_id=registered.agent_id,
            pool=registered.pool,
            capacity=self.settings.capacity,
            labels=life.labels,
            version=__version__,
        )
        tell_systemd("READY=1", f"STATUS=agent {registered.agent_id} of pool {registered.pool}")
        if self._on_ready is not None:
            self._on_ready(registered)
        began_s = time.monotonic()
        self._wait(life, lambda: self._asked or self._failed)
        reason = self._asked[0] if self._asked else "superseded"
        tell_systemd("STOPPING=1")
        log.info("agent.draining", component="agent", reason=reason, running=life.slots.busy)
        self._drain(life)
        unreported = life.end(reason, leave=self._failed is None)
        log.info(
            "agent.stopped",
            component="agent",
            reason=reason,
            jobs=life.slots.worked,
            unreported=unreported,
            took_s=round(time.monotonic() - began_s, 1),
        )
        return unreported

    def _drain(self, life: _Life) -> None:
        """Let running jobs finish, as long as the grace and the asker's patience last; stop the rest."""
        life.claimer.stop()

        def over() -> bool:
            return not life.slots.busy or self._urged > 1 or self._failed is not None

        self._wait(life, over, within_s=self.settings.drain_grace_s)
        grace_s = self.settings.cancel_grace_s
        if not over():
            self._stop_all(life, grace_s)
            self._wait(life, over, within_s=grace_s + STOPPED_S)
        if life.slots.busy and over():
            self._stop_all(life, 0.0)
            self._wait(life, lambda: not life.slots.busy, within_s=STOPPED_S)

    def _stop_all(self, life: _Life, grace_s: float) -> None:
        for held in life.slots.held():
            if self._failed is not None:
                held.stop("lease_lost", 0, why="superseded")
            else:
                held.stop("drain", grace_s)

    def _wait(self, life: _Life, over: Callable[[], Any], *, within_s: float | None = None) -> None:
        """Wait for something to be over, and tell systemd's watchdog meanwhile that we are well."""
        until_s = None if within_s is None else time.monotonic() + within_s
        every_s = watchdog_s()
        while True:
            left_s = None if until_s is None else until_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                return
            waits = [one for one in (left_s, every_s) if one is not None]
            with self._turn:
                if self._turn.wait_for(over, min(waits) if waits else None):
                    return
            if every_s is not None and time.monotonic() - life.beater.alive_at_s < WATCH_S:
                tell_systemd("WATCHDOG=1")

    # -- told from inside ------------------------------------------------------------------------------------

    def _enough(self, reason: str) -> None:
        if not self._asked:
            self._asked.append(reason)
            self._changed()

    def _changed(self) -> None:
        with self._turn:
            self._turn.notify_all()

    def _over(self, superseded: Superseded) -> None:
        self._failed = superseded
        log.error("agent.superseded", component="agent", agent_id=superseded.agent_id, reason=str(superseded))
        threading.Thread(target=self._changed, daemon=True).start()

    def _break(self) -> None:
        self._broken = True
        self._enough("broken")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def received(number: int, _frame: Any) -> None:
            if self._urged >= 2:
                os._exit(130)
            self.drain(signal.Signals(number).name)

        before = {number: signal.signal(number, received) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Life:
    """The parts of one life, put together."""

    def __init__(
        self,
        settings: AgentSettings,
        folder: Path,
        *,
        changed: Callable[[], None],
        superseded: Callable[[Superseded], None],
        broken: Callable[[], None],
        enough: Callable[[str], None],
    ) -> None:
        self._settings, self._superseded, self._broken, self._tell = settings, superseded, broken, changed
        self._enough = enough
        rng = random.Random()
        self.labels = labels_of(settings.labels)
        self.membership = Membership(
            settings, folder, labels=self.labels, version=__version__, superseded=self._on_superseded
        )
        self.journal = Journal(folder)
        self.slots = Slots(settings.capacity, self._work, changed=self._changed)
        self.checks = Checks(settings, clock=time.monotonic, changed=self._changed)
        self.reporter = Reporter(self.membership, self.journal, let_go=self.slots.let_go, rng=rng)
        self.beater = Beater(
            self.membership,
            self.slots,
            lease_s=settings.lease_s,
            cancel_grace_s=settings.cancel_grace_s,
            metrics=self._metrics,
            drain=self._on_drain,
            rng=rng,
        )
        self.claimer = Claimer(self.membership, self.slots, self.checks, settings, enough=enough, rng=rng)
        self._working = _working(self, settings, folder, rng)

    def begin(self, registered: Registered) -> None:
        """Start the threads."""
        self.checks.look()
        self.beater.begin(registered.heartbeat_seconds)
        self.reporter.begin()
        for name, target in (
            ("beat", self.beater.run),
            ("report", self.reporter.run),
            ("checks", self.checks.run),
            ("claim", self._claim),
        ):
            threading.Thread(target=self._guarded, args=(target,), name=f"hybridq-{name}", daemon=True).start()

    def _guarded(self, target: Callable[[], None]) -> None:
        """Run a thread's work; an agent that has lost one of its threads must not go on as if it had not."""
        try:
            target()
        except Exception as trouble:
            log.error(
                "agent.broken",
                component="agent",
                thread=threading.current_thread().name,
                error_type=type(trouble).__name__,
                at=place_of(trouble),
            )
            self._broken()

    def _claim(self) -> None:
        # What a process before left is settled first: its leases count against our capacity.
        self.reporter.wait(within_s=REPORT_S)
        self.claimer.run()

    def end(self, reason: str, *, leave: bool) -> int:
        """Tell what is left to tell, and leave the fleet; returns how many results stay in the journal."""
        self.checks.stop()
        # What an ephemeral agent cannot tell is lost with its folder, so it is more patient.
        patience_s = max(REPORT_S, self._settings.drain_grace_s) if self._settings.ephemeral else REPORT_S
        unreported = self.reporter.stop(within_s=patience_s if leave else 0.0)
        self.beater.stop()
        if leave:
            try:
                self.membership.leave(reason)
            except HybridqError as trouble:
                log.warning("agent.not_deregistered", component="agent", error_type=type(trouble).__name__)
        return unreported

    def _work(self, held: Held) -> bool:
        worked = self._working(held)
        if worked and self._settings.once:
            self._enough("once")
        return worked

    def _metrics(self) -> dict[str, float]:
        return {
            **self.checks.metrics,
            "slots_busy": float(self.slots.busy),
            "results_waiting": float(self.reporter.waiting),
        }

    def _on_drain(self, drained: bool) -> None:
        self.claimer.drain(drained)
        if drained and (self._settings.ephemeral or self._settings.once):
            self._enough("drained")

    def _on_superseded(self, over: Superseded) -> None:
        for held in self.slots.held():
            held.stop("lease_lost", 0, why="superseded")
        self._superseded(over)

    def _changed(self) -> None:
        self.claimer.nudge()
        self._tell()


def _working(life: _Life, settings: AgentSettings, folder: Path, rng: random.Random) -> Working:
    from ..secrets import Secrets
    from ..trust import Replays, Trust
    from ..work import WorkSettings

    trust = Trust(
        verify_keys=settings.verify_keys,
        seal_keys=[str(path) for path in settings.seal_keys],
        require_signature=settings.require_signature,
        # A job of a pool that it never asked for is somebody's mistake, or worse.
        pools=None if settings.pool is None else (settings.pool,),
        replays=Replays(folder),
    )
    return Working(
        life.membership,
        life.journal,
        life.reporter,
        trust=trust,
        secrets=Secrets.of(settings.allow_secrets, programs=settings.exec_dir),
        settings=WorkSettings(
            keep=settings.keep_workspace,
            pass_env=settings.pass_env,
            outside_workspace=settings.outside_workspace,
            term_grace_s=settings.cancel_grace_s,
        ),
        work_folder=settings.work_folder,
        log_folder=folder / "logs",
        log_bytes_max=settings.log_bytes_max,
        let_go=life.slots.let_go,
        unfit=life.checks.fail,
        rng=rng,
    )
