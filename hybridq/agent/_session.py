"""Who the client is: the credential it was given, and the session it has once it registered.

Both are replaced as a whole and never changed, so that a thread that reads one sees a token and the session it
belongs to. A token is a `Secret` from the moment it comes in: only the transport, writing a header, looks into it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any, ClassVar, Final

import msgspec

from ..errors import InvalidArgument
from ._wire import Registered, Wire

__all__ = ["Credentials", "Secret", "Session", "SessionChanged", "TokenSource"]

TokenSource = Callable[[], str]
"""Returns a token that is good now. It may block; an `AsyncClient` calls it in a thread."""

SessionChanged = Callable[["Session | None"], None]
"""Told the session whenever its tokens change, and None at its end; called in the thread of the call that did it."""

_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,16384}")


class Secret:
    """A text that no message, log line or traceback shows."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text, where it is used."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not pickled")


def token_of(text: str) -> Secret:
    """Return a token as a secret; blanks around it (a file's last line break) are taken off."""
    stripped = text.strip() if isinstance(text, str) else ""
    if _TOKEN.fullmatch(stripped) is None:
        raise InvalidArgument("token", Secret(""), "1 to 16,384 visible ASCII characters")
    return Secret(stripped)


class Session(Wire, frozen=True, kw_only=True):
    """The session of a registered agent. Kept and given to a new client (`session=`), it goes on without a key.

    Whoever has the renewal token is this agent, for 7 days after its last use: keep it like a private key.
    """

    _hidden: ClassVar[frozenset[str]] = frozenset({"token", "renewal_token"})

    agent_id: str
    session_id: str
    pool: str
    boot_id: str
    token: str
    renewal_token: str | None
    heartbeat_seconds: float
    version: str | None = None
    labels: dict[str, str] | None = None
    capacity: int = 1
    features: tuple[str, ...] | None = None


class Credentials:
    """What a client and its views share. Every change happens under one lock, and only if nobody was faster."""

    def __init__(
        self,
        token: str | None,
        source: TokenSource | None,
        session: Session | None,
        changed: SessionChanged | None,
    ) -> None:
        if token is not None and source is not None:
            raise InvalidArgument("token_source", Secret(""), "None when a token is given: one of the two")
        self.source = source
        self._base = None if token is None else token_of(token)
        self._session = session
        self._bearer = None if session is None else token_of(session.token)
        self._changed = changed
        self._lock = threading.Lock()

    @property
    def session(self) -> Session | None:
        """The session, None before registering and after the end."""
        return self._session

    @property
    def base(self) -> Secret | None:
        """The credential that was given: a key, a registration key, or the source's last."""
        return self._base

    @property
    def current(self) -> Secret | None:
        """What calls are made with: the agent's token once there is a session, else what was given."""
        with self._lock:
            return self._bearer if self._session is not None else self._base

    @property
    def renewal(self) -> Secret | None:
        """The renewal token of the session."""
        session = self._session
        return None if session is None or session.renewal_token is None else token_of(session.renewal_token)

    def supply(self, text: str) -> None:
        """Take a token that the source gave."""
        self._base = token_of(text)

    def adopt(self, registered: Registered, asked: dict[str, Any]) -> None:
        """Begin, or go on with, the session that a registration answered."""
        features = asked.get("features")
        self._replace(
            Session(
                agent_id=registered.agent_id,
                session_id=registered.session_id,
                pool=registered.pool,
                boot_id=registered.boot_id or asked["boot_id"],
                token=registered.token,
                renewal_token=registered.renewal_token,
                heartbeat_seconds=registered.heartbeat_seconds,
                version=asked.get("version"),
                labels=asked.get("labels"),
                capacity=asked.get("capacity", 1),
                features=None if features is None else tuple(features),
            )
        )

    def refresh(self, used: Secret | None, token: str) -> None:
        """Take a fresh token of the session, unless the one it was asked with is no longer in use."""
        with self._lock:
            if self._session is None or self._bearer != used:
                return
            renewed = msgspec.structs.replace(self._session, token=token)
            self._session, self._bearer = renewed, token_of(token)
        self._tell(renewed)

    def leave(self, used: Secret | None) -> None:
        """The session has ended; what was given at the start is the credential again."""
        with self._lock:
            if self._session is None or self._bearer != used:
                return
            self._session = self._bearer = None
        self._tell(None)

    def _replace(self, session: Session) -> None:
        with self._lock:
            self._session, self._bearer = session, token_of(session.token)
        self._tell(session)

    def _tell(self, session: Session | None) -> None:
        if self._changed is not None:
            self._changed(session)
