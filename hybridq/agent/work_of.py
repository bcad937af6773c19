"""From a claimed job to the work in it: opened, verified, and of the one form that an agent runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .secrets.ref import SecretRef
from .trust.rejected import Rejected

if TYPE_CHECKING:
    from ._wire import ClaimedJob
    from .trust import Trust

__all__ = ["Git", "Rejected", "SecretRef", "Step", "Work", "work_of"]


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step: `run` is handed to `shell`, in `working_directory` of the workspace, with `env` on top of the job's."""

    name: str
    run: str
    shell: str | tuple[str, ...] | None = None
    env: dict[str, str | SecretRef] = {}
    timeout_seconds: float | None = None
    working_directory: str | None = None
    if_: str | None = msgspec.field(name="if", default=None)
    """`success` (also when None), `failure`, `always` or `cancelled`."""


class Git(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is checked out before the first step."""

    repo: str
    ref: str | None = None
    commit_sha: str | None = None
    commit_message: str | None = None
    author: str | None = None


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What a job asks of an agent."""

    steps: tuple[Step, ...]
    git: Git | None = None
    env: dict[str, str | SecretRef] = {}
    signed_by: str | None = None
    """Id of the key that signed it."""
    sealed: bool = False


def work_of(job: ClaimedJob, trust: Trust) -> Work:
    """Return what `job` asks for. Raises `Rejected` with a stable code."""
    raise Rejected("no_steps", "nothing to run")
