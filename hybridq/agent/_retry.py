"""How a call is carried through: sent, judged, sent again, as a conversation without any I/O.

`converse` yields what is to be done next (send, pause, renew the credential) and is told what came of it; it returns
the value or raises. The clients of both colours only do what it says.

What is sent again: what nobody answered, 408, 425, 429, 5xx, and a 2xx that cannot be read (a proxy's page). Never
401 (the credential is renewed once instead), 403, 404, 409, 410, 412, 422. Between sendings is a random pause ("full
jitter"), or what Retry-After asks for; none is begun when the deadline has passed. A call whose repeat is not
harmless is sent again only when the first sending cannot have been acted on.
"""

from __future__ import annotations

import email.utils
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import msgspec
import structlog

from ..errors import HybridqError
from ..job import Backoff
from ..keys import new_id
from ..retry import delay_ms, jitter
from ._call import Answer, Auth, Call
from ._calls import reasons
from ._session import Credentials, Secret
from .errors import AnswerNotUnderstood, ApiError, Unauthenticated, Unreachable, class_of

__all__ = ["Failure", "Limits", "Opened", "Pause", "Renew", "Send", "Step", "converse"]

T = TypeVar("T")
log = structlog.get_logger("hybridq")

BACKOFF: Final = Backoff(base_s=0.25, max_s=10.0)
RETRY_AFTER_S_MAX: Final = 3600.0
SPREAD: Final = 0.2
"""Who was told to come back in 10 s comes within 12, so that they do not all come at once."""
AGAIN: Final = frozenset({408, 425, 429})
"""Beside all 5xx."""
NOT_DONE: Final = frozenset({"redis_unavailable", "not_ready", "stopping", "queue_full"})
"""Problems of 5xx that say that nothing was done."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`timeout_s`: of one sending, beside the time the server may park it. `deadline_s`: of a call with its repeats."""

    timeout_s: float
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Send:
    """Do: send the call, and tell what came back (`Answer`, `Opened`) or what prevented that (`Failure`)."""

    call: Call[Any]
    bearer: Secret | None
    request_id: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Do: wait."""

    pause_s: float


@dataclass(frozen=True, slots=True)
class Renew:
    """Do: get another credential than the one that was used, unless somebody has; none there is no error."""

    auth: Auth
    used: Secret | None


Step = Send | Pause | Renew


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer. `sent`: some of it may have reached the server. `hopeless`: the next sending would fail as well."""

    reason: str
    sent: bool
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream that is open."""

    stream: Any = field(repr=False)


def converse(
    call: Call[T],
    credentials: Credentials,
    limits: Limits,
    *,
    url: str,
    rng: random.Random,
    clock: Callable[[], float],
) -> Generator[Step, Any, T]:
    """Carry a call through; see above. `clock` is monotonic, in seconds."""
    request_id = new_id()
    ends = clock() + limits.deadline_s + call.wait_s
    attempts, in_doubt, renewed = 0, False, False
    auth = call.auth
    while True:
        used = _credential(auth, credentials)
        if used is None and not renewed and credentials.source is not None and auth in ("bearer", "enrol"):
            renewed = True
            yield Renew(auth, None)
            continue
        if used is None and call.or_else is not None and auth != call.or_else:
            auth = call.or_else
            continue
        attempts += 1
        # The last one too has its whole time: cut short, it would only bring doubt.
        reply = yield Send(call, used, request_id, limits.timeout_s + call.wait_s)
        verdict = _judge(call, reply, url=url, request_id=request_id, attempts=attempts, in_doubt=in_doubt)
        if verdict.value is not None:
            if call.effect is not None:
                call.effect(credentials, used, verdict.value[0])
            return verdict.value[0]
        error = verdict.error
        assert error is not None
        in_doubt = in_doubt or verdict.in_doubt
        error.in_doubt = in_doubt  # type: ignore[attr-defined]
        if isinstance(error, Unauthenticated):
            if not renewed and auth in ("bearer", "enrol"):
                renewed = True
                yield Renew(auth, used)
                if _credential(auth, credentials) not in (None, used):
                    continue
            if call.or_else is not None and auth != call.or_else:
                auth = call.or_else
                continue
            raise error
        if not verdict.again or (in_doubt and not call.repeatable):
            raise error
        pause_s = _pause_s(attempts, verdict.after_s, rng)
        if clock() + pause_s >= ends:
            raise error
        log.info(
            "client.retry",
            component="agent",
            call=call.name,
            request_id=request_id,
            attempt=attempts,
            reason=verdict.reason,
            delay_s=round(pause_s, 3),
        )
        yield Pause(pause_s)
        renewed = False  # an outage may outlast a token more than once


def _credential(auth: Auth, credentials: Credentials) -> Secret | None:
    if auth == "bearer":
        return credentials.current
    if auth == "enrol":
        return credentials.base
    return credentials.renewal if auth == "renew" else None


def _pause_s(attempt: int, after_s: float | None, rng: random.Random) -> float:
    random_s = delay_ms(BACKOFF, attempt, jitter(rng)) / 1000
    return random_s if after_s is None else max(random_s, after_s * (1 + SPREAD * rng.random()))


# -- judging -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Verdict(Generic[T]):
    """The value, in a tuple of one; or the error, whether to send again, and whether it may have been done."""

    value: tuple[T] | None = None
    error: HybridqError | None = None
    again: bool = False
    in_doubt: bool = False
    after_s: float | None = None
    reason: str = ""


def _judge(call: Call[T], reply: Any, *, url: str, request_id: str, attempts: int, in_doubt: bool) -> _Verdict[T]:
    if isinstance(reply, Opened):
        return _Verdict(value=(reply.stream,))
    if isinstance(reply, Failure):
        doubt = in_doubt or reply.sent
        error = Unreachable(url, reply.reason, in_doubt=doubt, attempts=attempts, call=call.name)
        return _Verdict(error=error, again=not reply.hopeless, in_doubt=reply.sent, reason=reply.reason)
    assert isinstance(reply, Answer)
    if reply.status < 300 and not call.streams:
        try:
            return _Verdict(value=(call.read(reply.body),))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _not_understood(call, reply, url, "a body that is not what the contract says", again=True)
    if reply.status < 300:
        return _not_understood(call, reply, url, "something else than a stream of events", again=True)
    if reply.status < 400:
        return _not_understood(call, reply, url, "a redirect, which is never followed", again=False)
    problem = _problem(call, reply, request_id)
    meant = call.meant(problem) if call.meant is not None else None
    if meant is None and in_doubt and call.lost is not None:
        meant = call.lost(problem)
    if meant is not None:
        return _Verdict(value=meant)
    return _Verdict(
        error=problem,
        again=problem.status in AGAIN or problem.status >= 500,
        in_doubt=problem.status >= 500 and problem.code not in NOT_DONE,
        after_s=problem.retry_after_s,
        reason=f"{problem.status} {problem.code}",
    )


def _not_understood(call: Call[T], reply: Answer, url: str, reason: str, *, again: bool) -> _Verdict[T]:
    error = AnswerNotUnderstood(url, reply.status, reason, in_doubt=again, call=call.name)
    return _Verdict(
        error=error,
        again=again,
        in_doubt=again,
        after_s=_retry_after_s(reply),
        reason=f"{reply.status}, not understood",
    )


def _problem(call: Call[Any], reply: Answer, request_id: str) -> ApiError:
    """Return the error of an answer; what is not the server's own problem has no code and no text of its own."""
    said = _document(reply)
    code, detail = said.pop("code", None), said.pop("detail", "")
    if not isinstance(code, str) and isinstance(said.get("error"), str):
        code, detail = said.pop("error"), said.pop("error_description", "")  # RFC 6749 §5.2
    if not isinstance(code, str):
        code, detail, said = f"http_{reply.status}", "", {}
    for name in ("type", "title", "status", "instance"):
        said.pop(name, None)
    return class_of(reply.status, code)(
        reply.status,
        code,
        detail if isinstance(detail, str) else "",
        errors=reasons(said.pop("errors", None)),
        request_id=reply.headers.get("x-request-id", request_id),
        retry_after_s=_retry_after_s(reply),
        members=said,
        call=call.name,
    )


def _document(reply: Answer) -> dict[str, Any]:
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/problem+json", "application/json"):
        return {}
    try:
        found = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _retry_after_s(reply: Answer) -> float | None:
    """Return what Retry-After says, in seconds; a date is read by the clock of who sent it (RFC 9110 §10.2.3)."""
    text = reply.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), RETRY_AFTER_S_MAX)
    try:
        until = email.utils.parsedate_to_datetime(text)
        now = email.utils.parsedate_to_datetime(reply.headers.get("date", ""))
        return min(max(0.0, (until - now).total_seconds()), RETRY_AFTER_S_MAX)
    except (ValueError, TypeError):
        return None
