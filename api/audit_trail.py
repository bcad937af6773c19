"""Who did what to what, and how it went: one line in the namespace's audit for each deed that an operator answers for.

Routes call `audit` once a deed was done or refused. Objects are named by their ids; no line holds a secret, or free
text that came in.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import structlog

from hybridq import HybridqError

from .http.problems import Problem
from .http.request import Request

__all__ = ["actor_of", "audit", "noting_refusals"]

log = structlog.get_logger("hybridq.api")


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
