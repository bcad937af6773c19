"""What goes wrong, as RFC 9457 problem details: one table of codes, and which error of the library has which code.

No text here holds a value of the request: details are written once per code, and reasons name only the rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import hybridq as hq

__all__ = [
    "OAUTH_ERRORS",
    "PROBLEMS",
    "Kind",
    "Problem",
    "Reason",
    "invalid",
    "oauth_body",
    "problem_of",
    "unauthenticated",
]

RETRY_S: Final = 2
"""What Retry-After says when Redis is away: long enough to reconnect, short enough for a waiting agent."""


class Kind(NamedTuple):
    """A kind of problem: its status, its title, and what to do about it."""

    status: int
    title: str
    detail: str


class Reason(NamedTuple):
    """One place that is wrong: a JSON pointer into the body, or `/query/…`, `/path/…`, `/header/…`; and the rule."""

    pointer: str
    reason: str


PROBLEMS: Final[dict[str, Kind]] = {
    # 400: malformed
    "bad_encoding": Kind(400, "Not UTF-8", "The request must be UTF-8 without a byte order mark."),
    "bad_request": Kind(400, "Bad request", "The request is not valid HTTP for this server."),
    "duplicate_key": Kind(400, "Duplicate key", "An object of the body names a key twice."),
    "filter_required": Kind(400, "Filter required", "Name a filter, or say `all: true`."),
    "invalid_argument": Kind(400, "Invalid argument", "Something in the request is missing, unknown or off its rule."),
    "invalid_cursor": Kind(400, "Invalid cursor", "The cursor was not made by this list with these filters."),
    "malformed_json": Kind(400, "Malformed JSON", "The body is not strict JSON."),
    "reserved_name": Kind(400, "Reserved name", "This name is kept for the server; take another."),
    "too_deep": Kind(400, "Nested too deeply", "The body nests deeper than 64 levels."),
    # 400 in the words of OAuth (RFC 6749 §5.2, RFC 8693 §2.2.2)
    "invalid_grant": Kind(400, "Invalid grant", "The token is not valid, has expired, or was used before."),
    "invalid_request": Kind(400, "Invalid request", "A parameter is missing, unknown, repeated or malformed."),
    "invalid_scope": Kind(400, "Invalid scope", "The scope is unknown, or wider than the rule allows."),
    "invalid_target": Kind(400, "Invalid target", "No trust rule accepts this token for what was asked."),
    "unsupported_grant_type": Kind(400, "Unsupported grant type", "Only token exchange is offered here."),
    # 401, 403: who
    "unauthenticated": Kind(401, "Unauthenticated", "Send a valid credential."),
    "signature_invalid": Kind(401, "Signature invalid", "The signature does not fit, is too old, or was used before."),
    "signature_required": Kind(401, "Signature required", "Requests of this credential must be signed (RFC 9421)."),
    "login_failed": Kind(401, "Login failed", "The login is unknown, too old or used; begin again."),
    "agent_not_allowed": Kind(403, "Agent not allowed", "This credential may not act under this agent's name."),
    "csrf": Kind(403, "Cross-site request", "Changes by cookie need X-CSRF-Token and an Origin of this site."),
    "missing_scope": Kind(403, "Missing scope", "The credential does not hold the scope of this call."),
    "no_role": Kind(403, "No role", "Signed in, but no rule gives this person a role here."),
    "not_lease_holder": Kind(403, "Not the holder", "The lease is current, and belongs to another credential."),
    "pool_not_allowed": Kind(403, "Pool not allowed", "The credential is not valid for this pool."),
    "scope_escalation": Kind(403, "Wider than your own", "Nobody hands out more than they hold themselves."),
    # 404: not there
    "agent_draining": Kind(404, "Agent is draining", "Finish what is held; claim nothing more."),
    "agent_not_registered": Kind(404, "Agent not registered", "No agent of this name is registered; register it."),
    "job_not_found": Kind(404, "Job not found", "No such job: never enqueued here, purged, or past its retention."),
    "no_jobs_available": Kind(404, "No jobs available", "Nothing to claim now; ask again."),
    "not_found": Kind(404, "Not found", "There is nothing here."),
    "pool_not_found": Kind(404, "Pool not found", "No such pool."),
    # 405 to 415: not so
    "method_not_allowed": Kind(405, "Method not allowed", "The header Allow names the methods of this path."),
    "request_timeout": Kind(408, "Request timeout", "The body took too long to arrive."),
    "agent_terminated": Kind(409, "Agent terminated", "The agent's session was ended; register it again."),
    "already_terminal": Kind(409, "Already ended", "The job has ended; retry gives it a new life."),
    "cancelled": Kind(409, "Cancelled", "The job was cancelled: do not run it, or stop running it."),
    "credential_conflict": Kind(409, "Id taken", "This id was given to something else; take another."),
    "idempotency_conflict": Kind(409, "Key used before", "The Idempotency-Key was used with other content."),
    "illegal_transition": Kind(409, "Illegal transition", "The call is not allowed from the present status."),
    "job_conflict": Kind(409, "Job exists", "A job of this id exists with other content; take another id."),
    "not_terminal": Kind(409, "Not ended", "Only failed, cancelled and dead-lettered jobs can be retried."),
    "offset_gap": Kind(409, "Gap in the log", "This piece does not follow the last one; go on at `expected`."),
    "outcome_conflict": Kind(409, "Outcome already reported", "This lease reported another outcome; that one stands."),
    "stale_lease": Kind(409, "Stale lease", "The lease is no longer current; stop the work."),
    "unique_taken": Kind(409, "Unique key taken", "A live job holds the unique key."),
    "session_superseded": Kind(410, "Session superseded", "A newer session of this agent took over; stop this one."),
    "precondition_failed": Kind(412, "Precondition failed", "It has changed since it was read; read it again."),
    "payload_too_large": Kind(413, "Too large", "Over the size limit; store it elsewhere and send a reference."),
    "unsupported_media_type": Kind(415, "Unsupported media type", "Send application/json, neither encoded nor packed."),
    # 422: well-formed, against state or policy
    "invalid_range": Kind(422, "Contradicting bounds", "The bounds contradict each other or what is stored."),
    "invalid_status": Kind(422, "Status not settable", "This status cannot be asked for."),
    "limit_reached": Kind(422, "Limit reached", "There are as many as there may be; remove some."),
    "not_supported_yet": Kind(422, "Not supported yet", "This part of the contract is not in this version."),
    "secret_suspected": Kind(422, "Secret suspected", "This looks like a secret; send a reference or seal it."),
    # 429, 431
    "rate_limited": Kind(429, "Too many requests", "Slow down; Retry-After says how long."),
    "too_many_streams": Kind(429, "Too many streams", "Close a stream of this credential before opening another."),
    "headers_too_large": Kind(431, "Headers too large", "At most 100 headers and 16 KiB of them."),
    # 503, 507: the only ones of the server
    "internal_error": Kind(503, "Internal error", "Something unexpected; it was logged under this request's id."),
    "not_ready": Kind(503, "Not ready", "Redis or its scripts are not ready."),
    "outcome_unknown": Kind(503, "Outcome unknown", "It may have happened; repeat the call with the same ids."),
    "provider_unavailable": Kind(503, "Provider unavailable", "The identity provider is away; try again."),
    "queue_lost": Kind(503, "Queue lost", "The pool's records are gone from Redis; restore or reopen it."),
    "redis_unavailable": Kind(503, "Redis unavailable", "Redis is away; nothing was done. Repeat the call."),
    "server_trouble": Kind(503, "Server trouble", "Redis or the installation is at fault; the operator knows more."),
    "stopping": Kind(503, "Stopping", "This server is stopping; ask another, or again."),
    "queue_full": Kind(507, "Queue full", "The pool is at its limit; claims and completions go on."),
}
"""code → kind. A code is stable: clients switch on it."""

OAUTH_ERRORS: Final = frozenset(
    {"invalid_grant", "invalid_request", "invalid_scope", "invalid_target", "unsupported_grant_type"}
)


class Problem(Exception):
    """Raised anywhere below a route; becomes the answer. `members` are further keys of the body.

    `detail` replaces the code's own text; like the reasons of `errors` it never holds a value that came in.
    """

    def __init__(
        self,
        code: str,
        detail: str | None = None,
        *,
        errors: Iterable[Reason | tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        self.kind = PROBLEMS[code]
        self.code = code
        self.detail = detail or self.kind.detail
        self.errors = tuple(Reason(*error) for error in errors)
        self.headers = dict(headers or {})
        self.members = members
        super().__init__(code)

    @property
    def status(self) -> int:
        """The HTTP status of its code."""
        return self.kind.status

    def body(self, request_id: str | None = None) -> dict[str, Any]:
        """Return the problem as RFC 9457 has it; without `request_id` (an entry of a batch) it has no `instance`."""
        found: dict[str, Any] = {
            "type": f"urn:hybridq:problem:{self.code}",
            "title": self.kind.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if request_id is not None:
            found["instance"] = f"urn:hybridq:request:{request_id}"
        if self.errors:
            found["errors"] = [{"pointer": pointer, "reason": reason} for pointer, reason in self.errors]
        return {**self.members, **found}


def invalid(pointer: str, reason: str, *, code: str = "invalid_argument") -> Problem:
    """Return the 400 that points at one place."""
    return Problem(code, errors=[Reason(pointer, reason)])


def unauthenticated(*, sent: bool) -> Problem:
    """Return the 401 with its challenge (RFC 6750 §3); `sent`: there was a credential, and it is no good."""
    challenge = 'Bearer realm="hybridq"' + (', error="invalid_token"' if sent else "")
    return Problem("unauthenticated", headers={"WWW-Authenticate": challenge})


def oauth_body(problem: Problem) -> dict[str, Any]:
    """Return the problem in the words of RFC 6749 §5.2, for the one route that speaks them."""
    if problem.code in OAUTH_ERRORS:
        error = problem.code
    elif problem.status in (429, 503, 507):
        error = "temporarily_unavailable"
    elif problem.status == 401:
        error = "invalid_client"
    else:
        error = "invalid_request"
    return {"error": error, "error_description": problem.detail}


def problem_of(error: hq.HybridqError) -> Problem:
    """Return the problem that an error of the library is over HTTP."""
    for kind, make in _OF_ERRORS:
        if isinstance(error, kind):
            found: Problem = make(error)
            return found
    return Problem("internal_error", headers={"Retry-After": str(RETRY_S)})


def wire_name(name: str) -> str:
    """Return an argument's name as the wire has it: `delay_s` is `delay_seconds`, `retry.max_s` is `retry/max_seconds`.

    Of an entry of a map, `tags[key]`, it is the map: the key is the sender's. So is a name of other than our own words.
    """
    parts = name.partition("[")[0].split(".")
    if not all(part.replace("_", "").isalnum() and part.isascii() for part in parts):
        return ""
    return "".join(f"/{part[:-2]}_seconds" if part.endswith("_s") else f"/{part}" for part in parts)


def _invalid_argument(error: Any) -> Problem:
    if error.name == "cursor":
        return Problem("invalid_cursor")
    return invalid(wire_name(error.name), f"must be {error.allowed}")


def _batch(error: Any) -> Problem:
    first = min(error.errors)
    problem = problem_of(error.errors[first])
    problem.errors = tuple(Reason(f"/jobs/{first}{pointer}", reason) for pointer, reason in problem.errors)
    problem.members["index"] = first
    return problem


def _too_large(error: Any) -> Problem:
    return Problem(
        "payload_too_large",
        errors=[Reason(wire_name(error.what), f"at most {error.limit_bytes} bytes")],
        limit_bytes=error.limit_bytes,
    )


def _stale(error: Any) -> Problem:
    return Problem("stale_lease", job_status=error.status, allowed=getattr(error, "allowed", ()))


def _illegal(error: Any) -> Problem:
    return Problem("illegal_transition", job_status=error.status, allowed=error.allowed)


def _unique(error: Any) -> Problem:
    return Problem("unique_taken", existing_job_id=error.existing_job_id)


def _with_status(code: str) -> Any:
    return lambda error: Problem(code, job_status=error.status)


def _plain(code: str, **members: Any) -> Any:
    return lambda error: Problem(code, **members)


def _later(code: str) -> Any:
    return lambda error: Problem(
        code, headers={"Retry-After": str(max(1, math.ceil(getattr(error, "retry_after_s", RETRY_S))))}
    )


_OF_ERRORS: tuple[tuple[type[hq.HybridqError], Any], ...] = (
    (hq.InvalidArgument, _invalid_argument),
    (hq.PayloadTooLarge, _too_large),
    (hq.JobNotFound, _plain("job_not_found")),
    (hq.AgentNotRegistered, _plain("agent_not_registered")),
    (hq.PoolNotFound, _plain("pool_not_found")),
    (hq.NotFound, _plain("not_found")),
    (hq.BatchRefused, _batch),
    (hq.JobConflict, _with_status("job_conflict")),
    (hq.UniqueTaken, _unique),
    (hq.StaleLease, _stale),
    (hq.NotLeaseHolder, _plain("not_lease_holder")),
    (hq.IllegalTransition, _illegal),
    (hq.AlreadyTerminal, _with_status("already_terminal")),
    (hq.NotTerminal, _with_status("not_terminal")),
    (hq.OffsetGap, lambda error: Problem("offset_gap", expected=error.expected)),
    (hq.OutcomeConflict, lambda error: Problem("outcome_conflict", outcome=error.outcome)),
    (hq.JobCancelled, _plain("cancelled")),
    (hq.AgentTerminated, _plain("agent_terminated")),
    (hq.CredentialConflict, _plain("credential_conflict")),
    (hq.AccessFull, lambda error: Problem("limit_reached", limit=error.limit)),
    (hq.CredentialRefused, lambda error: unauthenticated(sent=True)),
    (hq.QueueFull, lambda error: Problem("queue_full", headers={"Retry-After": "5"}, limit=error.limit)),
    (hq.AgentDraining, _plain("agent_draining", drain=True)),
    (hq.SessionSuperseded, _plain("session_superseded")),
    (hq.OutcomeUnknown, _later("outcome_unknown")),
    (hq.RedisUnavailable, _later("redis_unavailable")),
    (hq.QueueClosed, _later("stopping")),
    (hq.QueueLost, _later("queue_lost")),
    (hq.ServerTrouble, _later("server_trouble")),
)
"""error of the library → problem, the narrower class first. What is missing here is a bug, so an internal error."""
