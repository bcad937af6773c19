"""One job from checkout to clean-up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .outcome import Ended, JobFacts, StopReason, WorkSettings

if TYPE_CHECKING:
    from ..logs import JobLog
    from ..work_of import Work

__all__ = ["Run"]


class Run:
    """One job, on this machine, from its checkout to the end of the last process it started."""

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
        raise NotImplementedError

    @property
    def killed(self) -> bool:
        """Whether anything of the job had to be ended by SIGKILL before its steps were through."""
        raise NotImplementedError

    def run(self) -> Ended:
        """Run the job, and return when nothing of it lives any more. Never raises for what a job does."""
        raise NotImplementedError

    def extend(self, lease_ends_at_s: float) -> None:
        """The lease was renewed and ends at this CLOCK_MONOTONIC time. From any thread; never blocks."""
        raise NotImplementedError

    def stop(self, reason: StopReason, grace_s: float) -> None:
        """SIGTERM to what runs, SIGKILL to all of it after `grace_s`. From any thread; never blocks; idempotent."""
        raise NotImplementedError
