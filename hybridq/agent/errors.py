"""What goes wrong between an agent and the server.

```
HybridqError
├── ApiError                       the server answered, and said no; `code` is stable, switch on it
│   ├── Malformed                  400, 405, 413, 415, 431   the call is wrong
│   ├── Unauthenticated            401   the credential is unknown, expired or revoked
│   ├── Forbidden                  403   not with this credential
│   ├── Missing (LookupError)      404   not there
│   │   ├── JobNotFound
│   │   └── AgentNotRegistered     register again
│   ├── Contradicted               409, 412   it contradicts what is stored
│   │   ├── StaleLease             the job is somebody else's, or ended: stop the work
│   │   ├── IllegalTransition      not from the job's present status
│   │   ├── JobCancelled           do not run it, or stop running it
│   │   ├── OutcomeConflict        this lease reported another outcome, which stands
│   │   ├── JobConflict            a job of this id exists with other content
│   │   └── OffsetGap              a piece of log that leaves a hole; `expected` is where to go on
│   ├── SessionSuperseded          410   a newer session of this agent took over: stop this one
│   ├── Refused                    422   well-formed, against state or policy
│   ├── RateLimited                429   slow down
│   └── ServerAway                 5xx   Redis away, stopping, full
├── Unreachable                    nobody answered in time; `in_doubt`: it may have been done all the same
└── AnswerNotUnderstood            something answered that does not speak this contract
```

They are told apart from the errors of the library of the same names, which speak of Redis: over HTTP it is these that
are raised. None of them ever holds a token, nor a value of the request, nor the text of an answer that was not
understood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from ..errors import HybridqError, UsageError

__all__ = [
    "AgentNotRegistered",
    "AnswerNotUnderstood",
    "ApiError",
    "ClientClosed",
    "Contradicted",
    "Forbidden",
    "IllegalTransition",
    "JobCancelled",
    "JobConflict",
    "JobNotFound",
    "Malformed",
    "Missing",
    "NotRegistered",
    "OffsetGap",
    "OutcomeConflict",
    "RateLimited",
    "Reason",
    "Refused",
    "ServerAway",
    "SessionSuperseded",
    "StaleLease",
    "Unauthenticated",
    "Unreachable",
]


class Reason(NamedTuple):
    """One place of a request that is wrong: a JSON pointer (or `/query/…`, `/path/…`, `/header/…`), and the rule."""

    pointer: str
    reason: str


class ApiError(HybridqError):
    """The server answered with a problem. `code` is stable: switch on it, never on `detail`.

    Args:
        status: The HTTP status.
        code: The problem's code, or `http_<status>` when what answered was not our server.
        detail: What it says.
        errors: The places of the request that are wrong.
        request_id: Under which the server logged it.
        retry_after_s: When it asks to be asked again; None: it does not say.
        members: Further keys of the problem, such as `job_status` and `allowed`.
        call: Method and path.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str = "",
        *,
        errors: Sequence[Reason] = (),
        request_id: str | None = None,
        retry_after_s: float | None = None,
        members: Mapping[str, Any] | None = None,
        call: str = "",
    ) -> None:
        self.status, self.code, self.detail = status, code, detail
        self.errors = tuple(errors)
        self.request_id, self.retry_after_s = request_id, retry_after_s
        self.members = dict(members or {})
        self.call = call
        self.in_doubt = False
        """Whether an earlier sending of the call may have been done all the same."""
        places = "; ".join(f"{pointer or '/'} {reason}" for pointer, reason in self.errors)
        said = f"{status} {code}" + (f": {detail}" if detail else "") + (f" ({places})" if places else "")
        super().__init__(said + (f" [{call}, request {request_id}]" if call and request_id else ""))

    @property
    def job_status(self) -> str | None:
        """The job's status, where it is the reason."""
        found = self.members.get("job_status")
        return found if isinstance(found, str) else None


class Malformed(ApiError):
    """The call is wrong (400, 405, 413, 415, 431); `errors` says where. Mend the call."""


class Unauthenticated(ApiError):
    """The credential is unknown, expired or revoked, and could not be renewed. Register anew, or get another."""


class Forbidden(ApiError):
    """Not with this credential: its scopes, its pools, another's lease."""


class Missing(ApiError, LookupError):
    """There is no such thing, or the credential may not see it."""


class JobNotFound(Missing):
    """No such job: never enqueued here, purged, or past its retention."""


class AgentNotRegistered(Missing):
    """The server does not know this agent (any more). Register again."""


class Contradicted(ApiError):
    """Well-formed, and it contradicts what is stored; nothing was changed."""


class StaleLease(Contradicted):
    """The lease is no longer the job's current one: stop the work, it is not yours any more."""


class IllegalTransition(Contradicted):
    """The call is not allowed from the job's present status, `job_status`."""


class JobCancelled(Contradicted):
    """The job was cancelled: do not run it, or stop running it."""


class OutcomeConflict(Contradicted):
    """This lease reported another outcome before; that one stands."""


class JobConflict(Contradicted):
    """A job of this id exists with other content. Take another id, or send the same content."""


class OffsetGap(Contradicted):
    """A piece of a log that would leave a hole behind the piece before. Go on from `expected`."""

    @property
    def expected(self) -> int:
        """The offset, in bytes of UTF-8, at which the server's log ends."""
        found = self.members.get("expected")
        return found if isinstance(found, int) else 0


class SessionSuperseded(ApiError):
    """A newer session of this agent took over. Stop all work of this one: its leases are gone."""


class Refused(ApiError):
    """Well-formed, and against what is stored or against policy (422), such as `secret_suspected`."""


class RateLimited(ApiError):
    """Too many requests for this credential, and the deadline passed before there was room."""


class ServerAway(ApiError):
    """The server cannot serve it now, and the deadline passed: Redis away, stopping, `queue_full`."""


class Unreachable(HybridqError):
    """Nobody answered before the deadline. `in_doubt`: a request had left, so it may have been done all the same.

    The same call with the same ids (`request_id`, `job_id`, token and offset) finds out: it is answered as the first
    one was, and nothing is done twice. `reason` names the last trouble, `attempts` how often it was tried.
    """

    def __init__(self, url: str, reason: str, *, in_doubt: bool, attempts: int, call: str = "") -> None:
        self.url, self.reason, self.in_doubt, self.attempts, self.call = url, reason, in_doubt, attempts, call
        tried = f"{attempts} attempt{'s' * (attempts != 1)}"
        doubt = "; it may have been done all the same: repeat it with the same ids" if in_doubt else ""
        super().__init__(f"{url} cannot be reached: {reason} ({tried} of {call}){doubt}")


class AnswerNotUnderstood(HybridqError):
    """What answered does not speak this contract: a proxy's page, a redirect (never followed), another server.

    `in_doubt`: the call may have been done all the same.
    """

    def __init__(self, url: str, status: int, reason: str, *, in_doubt: bool, call: str = "") -> None:
        self.url, self.status, self.reason, self.in_doubt, self.call = url, status, reason, in_doubt, call
        super().__init__(
            f"{url} answered {call} with {status}, {reason}; is it a hybridq server, and is a proxy between?"
        )


class ClientClosed(UsageError):
    """A call on a client after `close()`. Open a new one."""

    def __init__(self) -> None:
        super().__init__("the client was closed; open a new one")


class NotRegistered(UsageError):
    """A call that only a registered agent can make, on a client that has not registered. Call `register` first."""

    def __init__(self, call: str) -> None:
        self.call = call
        super().__init__(f"{call}: this client is no registered agent; call register first, or name what it is about")


BY_CODE: Final[dict[str, type[ApiError]]] = {
    "agent_not_registered": AgentNotRegistered,
    "cancelled": JobCancelled,
    "idempotency_conflict": JobConflict,
    "illegal_transition": IllegalTransition,
    "job_conflict": JobConflict,
    "job_not_found": JobNotFound,
    "offset_gap": OffsetGap,
    "outcome_conflict": OutcomeConflict,
    "session_superseded": SessionSuperseded,
    "stale_lease": StaleLease,
}
"""code → class, where the meaning asks for its own handling."""

BY_STATUS: Final[dict[int, type[ApiError]]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: Missing,
    409: Contradicted,
    410: SessionSuperseded,
    412: Contradicted,
    422: Refused,
    429: RateLimited,
}
"""status → class; other 4xx are `Malformed`, 5xx `ServerAway`."""


def class_of(status: int, code: str) -> type[ApiError]:
    """Return the class for a problem, by its code where it has its own, else by its status."""
    if code in BY_CODE:
        return BY_CODE[code]
    return BY_STATUS.get(status, ServerAway if status >= 500 else Malformed)
