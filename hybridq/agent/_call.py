"""A request over HTTP as a value: what is sent, how its answer reads, and whether it may be sent again.

Clients of both colours only run Calls, so the two cannot differ in what they do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from ._session import Credentials, Secret
from .errors import ApiError

__all__ = ["Answer", "Auth", "Call"]

T = TypeVar("T")
Auth = Literal["bearer", "enrol", "renew", "none"]
"""Whose credential goes along: the client's present one; what may register; the renewal token; nobody's."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back whole. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One operation. `read` takes the body of a 2xx and returns the value, or raises `msgspec.DecodeError`."""

    method: str
    path: str
    read: Callable[[bytes], T] = field(repr=False)
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = field(default=None, repr=False)
    content_type: str = "application/json"
    key: str | None = None
    """Idempotency-Key."""
    wait_s: float = 0.0
    """How long the server may park it."""
    repeatable: bool = True
    """False: it is sent again only when the first sending cannot have been acted on."""
    auth: Auth = "bearer"
    or_else: Auth | None = None
    """Whose credential goes along when that of `auth` is not there, or is refused."""
    last_event_id: str | None = None
    """Last-Event-ID, of a stream that goes on."""
    streams: bool = False
    """The answer is a stream of events, left open for who asked."""
    meant: Callable[[ApiError], tuple[T] | None] | None = field(default=None, repr=False)
    """Turns a problem that is an answer into the value, in a tuple of one; None: it is an error after all."""
    lost: Callable[[ApiError], tuple[T] | None] | None = field(default=None, repr=False)
    """The same for a problem that comes after a sending that was in doubt, and may be what that one brought about."""
    effect: Callable[[Credentials, Secret | None, T], None] | None = field(default=None, repr=False)
    """What the value changes of who we are; it is given the credential that was used."""

    @property
    def name(self) -> str:
        """Method and path, for messages."""
        return f"{self.method} {self.path}"
