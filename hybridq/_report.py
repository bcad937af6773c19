"""What a holder tells the queue about a run that ended: one rule for `Hold`, `AsyncHold` and `Worker`."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .errors import Reject, Retry
from .lifecycle import Outcome

if TYPE_CHECKING:
    from .aio import AsyncQueue
    from .client import Queue
    from .job import Finished, Lease

__all__ = ["Report", "describe"]

MESSAGE_CHARS_MAX: Final = 500
TRACEBACK_CHARS_MAX: Final = 4096
ERROR_BYTES_MAX: Final = 8000
"""A little under the limit of the queue, since control characters grow when they are written as JSON."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. `outcome` None hands the lease back: the attempt is not charged."""

    outcome: Outcome | None
    result: Any = None
    error: Any = None
    delay_s: float | None = None

    @classmethod
    def release(cls) -> Report:
        """The work was stopped by us, and is for somebody else to do."""
        return cls(outcome=None)

    @classmethod
    def rejected(cls, code: str, message: str) -> Report:
        """The job cannot be carried out here or anywhere; `code` names the reason."""
        return cls(outcome=Outcome.REJECTED, error={"code": code, "message": _plain(message)[:MESSAGE_CHARS_MAX]})

    @classmethod
    def of(cls, raised: BaseException) -> Report:
        """What an exception says that came out of the work.

        `Retry`: again after its delay. `Reject`: never again. Any other `Exception`: failed. What is no
        `Exception` (`KeyboardInterrupt`, `SystemExit`, `CancelledError`) is no fault of the job: the lease is
        handed back.
        """
        if isinstance(raised, Retry):
            return cls(outcome=Outcome.FAILED, error=_error("Retry", str(raised)), delay_s=raised.delay_s)
        if isinstance(raised, Reject):
            return cls(outcome=Outcome.REJECTED, error=_error("Reject", raised.reason))
        return cls.failed(raised) if isinstance(raised, Exception) else cls.release()

    @classmethod
    def failed(cls, raised: BaseException) -> Report:
        """The work raised this; the job is tried again while attempts are left."""
        return cls(outcome=Outcome.FAILED, error=describe(raised))

    @property
    def error_type(self) -> str | None:
        """The class or code of the error, without its text: fit for logs."""
        return (self.error or {}).get("type") or (self.error or {}).get("code")

    def send(self, queue: Queue, lease: Lease) -> Finished:
        """Tell a sync queue. Raises what `complete`, `fail` and `release` raise."""
        if self.outcome is None:
            return queue.release(lease)
        if self.outcome is Outcome.SUCCESS:
            return queue.complete(lease, self.result)
        return queue.fail(lease, self.error, outcome=self.outcome, delay_s=self.delay_s)

    async def asend(self, queue: AsyncQueue, lease: Lease, *, claim_next: int = 0) -> Finished:
        """Tell an async queue, and claim up to `claim_next` jobs in the same round trip."""
        if self.outcome is None:
            return await queue.release(lease)
        if self.outcome is Outcome.SUCCESS:
            return await queue.complete(lease, self.result, claim_next=claim_next)
        return await queue.fail(lease, self.error, outcome=self.outcome, delay_s=self.delay_s, claim_next=claim_next)


def describe(raised: BaseException) -> dict[str, str]:
    """Return type, message and end of the traceback of an exception, bounded to fit into a job's record."""
    error = _error(type(raised).__name__, _text_of(lambda: str(raised)))
    lines = _text_of(lambda: "".join(traceback.format_exception(raised)))
    error["traceback"] = _tail(lines, TRACEBACK_CHARS_MAX)
    while len(msgspec.json.encode(error)) > ERROR_BYTES_MAX:
        error["traceback"] = _tail(error["traceback"], len(error["traceback"]) // 2)
    return error


def _error(kind: str, message: str) -> dict[str, str]:
    return {"type": kind, "message": _plain(message)[:MESSAGE_CHARS_MAX]}


def _text_of(make: Callable[[], str]) -> str:
    try:
        return make()
    except Exception as problem:  # an exception's text is made by code of its own, which may fail as well
        return f"<no text: {type(problem).__name__}>"


def _plain(text: str) -> str:
    # A lone surrogate, as in a file name that is no UTF-8, cannot be written as JSON.
    return text.encode("utf-8", "replace").decode()


def _tail(text: str, most: int) -> str:
    text = _plain(text)
    if len(text) <= most:
        return text
    kept = text[len(text) - most :]
    first_line, newline, rest = kept.partition("\n")
    return rest if newline and rest else first_line
