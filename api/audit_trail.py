"""Who did what to what, and how it went: one line in the namespace's audit for each deed that an operator answers for.

Routes call `audit` once a deed was done or refused. Objects are named by their ids; no line holds a secret, or free
text that came in.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
import structlog

from hybridq import HybridqError, guard

from .http.problems import Problem
from .http.request import Request

__all__ = ["actor_of", "audit", "audit_rejection", "noting_refusals"]

log = structlog.get_logger("hybridq.api")
_CODE: Final = re.compile(r"[a-z][a-z0-9_]{1,47}")
_CODES_ALONE: Final = frozenset({"no_steps"})
"""Errors that are their code and nothing else; any other text is somebody's words, and stays out of the audit."""


async def audit(
    request: Request,
    action: str,
    object: str,
    outcome: str = "done",
    *,
    actor: str | None = None,
    namespace: str | None = None,
) -> None:
    """Note that `actor` (by default whoever calls) did `action` to `object` in `namespace` (the caller's).

    `action` is `<thing>.<verb>`, such as `key.create`; `outcome` is `done`, `refused`, or a word more exact than that.
    A deed that was done is not undone because it could not be noted: that is logged, and the call goes on.
    """
    who = actor_of(request) if actor is None else actor
    where = request.credential.namespace if namespace is None else namespace
    try:
        await request.plane.access.audit(
            where, actor=who, action=action, object=object, outcome=outcome, request_id=request.request_id
        )
    except HybridqError as problem:
        log.error("audit.lost", component="audit", action=action, error_type=type(problem).__name__)


async def audit_rejection(request: Request, job: str, error: msgspec.Raw | None) -> None:
    """Note that an agent would not run a job: a signature that does not fit, fields it does not know, no steps.

    The outcome is the code in the agent's `error`, or `rejected` when that holds none.
    """
    await audit(request, "job.rejected", job, _code_in(error) or "rejected")


def _code_in(error: msgspec.Raw | None) -> str | None:
    """Return the code of an error when it is a short identifier that nobody would take for a secret's value."""
    said: Any = None if error is None else msgspec.json.decode(error)
    code = said.get("code") if isinstance(said, dict) else None
    if isinstance(said, str) and said in _CODES_ALONE:
        code = said
    # As the value of what promises a secret, so that also what looks random is found.
    if not isinstance(code, str) or not _CODE.fullmatch(code) or guard.scan({"secret": code}):
        return None
    return code


@contextlib.asynccontextmanager
async def noting_refusals(request: Request, action: str, object: str = "") -> AsyncIterator[None]:
    """Note it when what is done inside is refused with 403: somebody tried to get more than they have."""
    try:
        yield
    except Problem as problem:
        if problem.status == 403:
            await audit(request, action, object, "refused")
        raise


def actor_of(request: Request) -> str:
    """Return the caller as the audit names it: `key:<id>`, `agent:<agent_id>`, `person:<name>` …; `nobody`."""
    caller = request.caller
    if caller is None:
        return "nobody"
    if caller.kind == "session":
        return f"person:{caller.name}"
    if caller.rule_id is not None:  # also when an agent registered with it: one name from first to last
        return f"token:{caller.id}"
    if caller.kind in ("agent", "renewal") and caller.agent_id is not None:
        return f"agent:{caller.agent_id}"
    return f"{caller.kind}:{caller.id}"
