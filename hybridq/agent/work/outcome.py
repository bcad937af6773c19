"""What a run is told, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from ...lifecycle import Outcome

__all__ = ["Ended", "JobFacts", "StopReason", "WorkSettings"]

StopReason: TypeAlias = Literal["cancelled", "lease_lost", "drain", "timeout"]
"""Why a job is stopped before its steps are through."""


class JobFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has to know of its job; its steps see all of it as `HYBRIDQ_…`."""

    id: str
    """The full id, `<pool>~<job_id>`."""
    fence: int
    attempt: int
    pool: str
    agent_id: str
    type: str | None = None
    timeout_s: float | None = None
    """All steps together, the checkout included; None: no bound but the lease."""
    traceparent: str | None = None


class WorkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How this machine runs jobs, whatever the job says."""

    keep: Literal["never", "failed", "always"] = "never"
    """Whether the workspace stays after the job; `failed`: unless it was a success."""
    pass_env: tuple[str, ...] = ()
    """Variables of the agent that jobs get besides the usual few; `*` stands for any part of a name."""
    outside_workspace: bool = False
    """Whether a step's `working_directory` may lie outside the job's workspace."""
    checkout_s: float = 900.0
    """How long the checkout may take; a longer one is the machine's failure."""
    term_grace_s: float = 10.0
    """From the SIGTERM to the SIGKILL of a step, or a job, that is past its time."""
    git_protocols: tuple[str, ...] = ("file", "git", "https", "ssh")
    output_bytes_max: int = 64 * 1024
    """How large the file of a job's outputs may be; a larger one is left out, and the log says so."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended, as it is reported.

    `stopped` is the reason of the `stop` that ended it, None when it ended by itself: a `drain` is not to be reported
    but released, a `lease_lost` cannot be reported at all.
    """

    outcome: Outcome
    exit_code: int | None = None
    """Of the first step that failed; 128 + n for signal n."""
    error: dict[str, Any] | None = None
    """`{code, message, step?}`; None after a success."""
    result: dict[str, Any]
    """`{duration_seconds, steps: [{name, outcome, exit_code, duration_seconds}], git?: {commit_sha}, outputs?}`; the
    last lines of the log are the log's to add."""
    stopped: StopReason | None = None
    kept: Path | None = None
    """The workspace, when it is still there."""
