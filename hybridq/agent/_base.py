"""What clients of both colours are made of, but for the I/O."""

from __future__ import annotations

import copy
import platform
import random
import time
from collections.abc import Generator, Mapping
from os import PathLike
from typing import Any, Self, TypeVar

from .. import __version__
from .._units import to_ms
from . import _calls
from ._call import Call
from ._retry import Limits, Renew, Step, converse
from ._session import Credentials, Secret, Session, SessionChanged, TokenSource
from ._transport import ClientCert, Route
from .errors import ClientClosed

__all__ = ["ClientBase"]

T = TypeVar("T")
DAY_S = 86_400.0


class Shared:
    """What a client and its views share beside the credentials."""

    __slots__ = ("closed", "http", "refused", "renewing", "rng")

    def __init__(self, http: Any, renewing: Any) -> None:
        self.http, self.renewing = http, renewing
        self.closed = False
        self.refused: Secret | None = None
        """The renewal token that was refused: asking with it again would only make it look stolen."""
        self.rng = random.Random()


class ClientBase:
    """A route, a credential, and limits."""

    _shared: Shared

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        token_source: TokenSource | None,
        session: Session | None,
        on_session: SessionChanged | None,
        timeout_s: float,
        deadline_s: float,
        ca_file: str | PathLike[str] | None,
        client_cert: ClientCert | None,
        proxy: str | None,
        headers: Mapping[str, str] | None,
        user_agent: str | None,
        insecure: bool,
    ) -> None:
        self._credentials = Credentials(token, token_source, session, on_session)
        self._limits = _limits(timeout_s, deadline_s)
        self._route = Route.of(
            url,
            user_agent=user_agent or f"hybridq/{__version__} python/{platform.python_version()}",
            insecure=insecure,
            ca_file=ca_file,
            client_cert=client_cert,
            proxy=proxy,
            headers=headers,
        )

    def __repr__(self) -> str:
        session = self._credentials.session
        who = "" if session is None else f" as {session.agent_id}"
        return f"<{type(self).__name__} of {self._route.url}{who}>"

    @property
    def url(self) -> str:
        """Where the server is."""
        return self._route.url

    @property
    def session(self) -> Session | None:
        """The session of this agent with its newest tokens; None before `register` and after `deregister`."""
        return self._credentials.session

    def within(self, *, deadline_s: float | None = None, timeout_s: float | None = None) -> Self:
        """Return the same client with other limits, for calls that have less time, or more.

        It shares connections and session with this one, and is closed with it. `deadline_s=0`: one sending, no repeat.
        """
        view = copy.copy(self)
        view._limits = _limits(
            self._limits.timeout_s if timeout_s is None else timeout_s,
            self._limits.deadline_s if deadline_s is None else deadline_s,
        )
        return view

    def _is_in_use(self, step: Renew) -> bool:
        """Whether nobody else got another credential in the meantime."""
        found = self._credentials.current if step.auth == "bearer" else self._credentials.base
        return found == step.used

    def _renewal(self, step: Renew) -> Call[Any] | TokenSource | None:
        """Return what brings another credential: the call with the renewal token, or the source."""
        session = self._credentials.session
        if step.auth == "enrol" or session is None:
            return self._credentials.source
        renewal = self._credentials.renewal
        return None if renewal is None or renewal == self._shared.refused else _calls.renew(session)

    def _talk(self, call: Call[T]) -> Generator[Step, Any, T]:
        if self._shared.closed:
            raise ClientClosed
        return converse(
            call, self._credentials, self._limits, url=self._route.url, rng=self._shared.rng, clock=time.monotonic
        )


def _limits(timeout_s: float, deadline_s: float) -> Limits:
    to_ms("timeout_s", timeout_s, 0.001, DAY_S)
    to_ms("deadline_s", deadline_s, 0.0, DAY_S)
    return Limits(timeout_s=float(timeout_s), deadline_s=float(deadline_s))
