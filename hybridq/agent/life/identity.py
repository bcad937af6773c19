"""Who the agent is: its folder, for one process at a time, and its session, which outlives the process.

A restart goes on with the session by its renewal token, with the same boot, so that the server sees one life of the
agent and its leases stay. When that is refused it begins anew, with its key or OIDC token and another boot.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import structlog

from ...errors import HybridqError, UsageError
from ...keys import NAME_PATTERN, new_id
from .. import errors
from .._session import Session
from .journal import write_whole
from .settings import AgentSettings, SettingsWrong, read_secret

if TYPE_CHECKING:
    from .._wire import Registered
    from ..client import Client

__all__ = ["FolderTaken", "FolderUnusable", "FoldersAlike", "Membership", "NoWayIn", "OwnFolder", "Superseded"]

T = TypeVar("T")
log = structlog.get_logger("hybridq")

TIMEOUT_S: Final = 10.0
FEATURES: Final = ("logs", "sealed", "signed")
NO_MORE: Final = (errors.Unauthenticated, errors.Forbidden, errors.SessionSuperseded, errors.AgentNotRegistered)
"""What says that the session is not what it was."""


class FoldersAlike(UsageError):
    """The work folder, which is swept, cannot be the state folder, which is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        super().__init__(f"--work-dir and --state-dir are both {folder}; give jobs a folder of their own")


class FolderTaken(UsageError):
    """Another process works with this folder. Give one of them another one."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        super().__init__(
            f"another agent works with {folder}; stop it, or give this one another --name, --state-dir or --work-dir"
        )


class Superseded(HybridqError):
    """Another agent registered under our name, or our tokens were ended: nothing we hold is ours any more."""

    def __init__(self, agent_id: str, reason: str) -> None:
        self.agent_id, self.reason = agent_id, reason
        super().__init__(
            f"another agent registered as {agent_id}, or its tokens were revoked ({reason}); all jobs stop"
        )


class FolderUnusable(UsageError):
    """A folder that the agent cannot write to. Give it another one, or the right to."""

    def __init__(self, folder: Path, reason: str) -> None:
        self.folder, self.reason = str(folder), reason
        super().__init__(f"{folder}: {reason}; give another --state-dir or --work-dir, or the right to write there")


class NoWayIn(UsageError):
    """Neither a session to go on with nor anything to register with."""

    def __init__(self) -> None:
        super().__init__(
            "there is no session to go on with: set HYBRIDQ_AGENT_KEY, or give --key-file or --oidc-token-file"
        )


class OwnFolder:
    """A folder of an agent, made when it is missing, and held by one process while the block runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def __enter__(self) -> Path:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as trouble:
            raise FolderUnusable(self.path, trouble.strerror or type(trouble).__name__) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise FolderTaken(self.path) from None
        self._lock = handle
        return self.path

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class Membership:
    """The agent's place in the fleet; `ask` makes its calls, from any thread.

    Args:
        settings: What the agent was told.
        folder: Where the session is kept.
        labels: What it says of itself.
        version: Of hybridq.
        superseded: Told once when the session is over for good.
    """

    def __init__(
        self,
        settings: AgentSettings,
        folder: Path,
        *,
        labels: dict[str, str],
        version: str,
        superseded: Callable[[Superseded], None],
    ) -> None:
        self._settings, self._file, self._boot_file = settings, folder / "session.json", folder / "boot"
        self._labels, self._version = labels, version
        self._superseded = superseded
        self._over: Superseded | None = None
        self._leaving = False
        self._clients: list[Client] = []
        self._joining = threading.Lock()
        self._client: Client | None = None
        self._newcomer: Client | None = None
        """Comes with the key, until it has registered."""

    @property
    def agent_id(self) -> str:
        """The agent's name."""
        return self._settings.agent_name

    @property
    def session(self) -> Session:
        """The session there is; `join` must have returned."""
        assert self._client is not None and self._client.session is not None
        return self._client.session

    # -- coming in -------------------------------------------------------------------------------------------

    def join(self) -> Registered:
        """Go on with the kept session, else begin one. May be called again after `Unreachable` and the like.

        Raises what `Client.register` does, at the first trouble, and `NoWayIn`.
        """
        kept = self._kept()
        if kept is not None:
            client = self._open(kept)
            try:
                return self._register(client, kept.boot_id)
            except NO_MORE as refused:
                log.info("agent.session_refused", component="agent", agent_id=self.agent_id, code=refused.code)
                self._forget()
            except HybridqError:
                # A server may be away for days, and a client with its certificates is not small.
                self._clients.remove(client)
                client.close()
                raise
        return self._enrol(self._boot())

    def ask(self, call: Callable[[Client], T], *, timeout_s: float, deadline_s: float = 0.0) -> T:
        """Make a call as the agent. Raises what it raises; `Superseded` when the session is over for good.

        After a loss of the server's records the agent joins again, and the call is made once more.
        """
        for again in (True, False):
            client = self._client
            assert client is not None
            if self._over is not None:
                raise self._over
            try:
                return call(client.within(timeout_s=timeout_s, deadline_s=deadline_s))
            except NO_MORE as refused:
                if isinstance(refused, errors.Forbidden) or not again or self._leaving:
                    raise
                self._rejoin(client, refused)
        raise AssertionError

    def _rejoin(self, client: Client, refused: errors.ApiError) -> None:
        """Join again with the same boot, so that leases which are still ours stay.

        Not when somebody else is who we were: to register then would take the name away from them.
        """
        with self._joining:
            if self._client is not client:
                return
            session = client.session
            if session is None or not self._may_return(session, refused):
                if self._over is None:
                    self._over = Superseded(self.agent_id, refused.code)
                    self._forget()
                    self._superseded(self._over)
                raise self._over
            log.warning("agent.rejoining", component="agent", agent_id=self.agent_id, code=refused.code)
            self._enrol(session.boot_id)

    def leave(self, reason: str) -> None:
        """End the session; its leases go back at once. Raises what `Client.deregister` does."""
        # From here on it is us who ended it: what is still under way finds the session gone.
        self._leaving = True
        if self._client is not None and self._client.session is not None and self._over is None:
            self._client.within(timeout_s=5.0, deadline_s=5.0).deregister(reason=reason)

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients:
            client.close()

    # -- beginning -------------------------------------------------------------------------------------------

    def _enrol(self, boot_id: str) -> Registered:
        """Register with the key, or the OIDC token; the client stays the same until that has worked."""
        self._newcomer = self._newcomer or self._open(None)
        registered = self._register(self._newcomer, boot_id)
        self._newcomer = None
        return registered

    def _register(self, client: Client, boot_id: str) -> Registered:
        registered = client.within(timeout_s=TIMEOUT_S, deadline_s=0).register(
            self.agent_id,
            pool=self._settings.pool,
            version=self._version,
            labels=self._labels,
            capacity=self._settings.capacity,
            boot_id=boot_id,
            features=FEATURES,
        )
        self._client = client
        return registered

    def _may_return(self, session: Session, refused: errors.ApiError) -> bool:
        """Whether nobody registered under our name since. With an API key the server can be asked by the session."""
        if isinstance(refused, errors.SessionSuperseded):
            return False
        if isinstance(refused, errors.AgentNotRegistered):
            return self._has_way
        try:
            key = self._settings.registration_key()
        except SettingsWrong:
            return False
        if key is None or not key.startswith("hqk_"):
            return False
        asking = self._open(msgspec.structs.replace(session, token=key, renewal_token=None), keep=False)
        try:
            asking.within(timeout_s=TIMEOUT_S, deadline_s=0).heartbeat()
        except errors.AgentNotRegistered:
            return True
        except NO_MORE:
            return False
        finally:
            asking.close()
        return True

    @property
    def _has_way(self) -> bool:
        told = self._settings
        return told.oidc_token_file is not None or told.key_file is not None or told.key is not None

    def _open(self, session: Session | None, *, keep: bool = True) -> Client:
        """Return a client: of a session without the key, so that it goes on by the renewal token alone."""
        from ..client import Client

        told = self._settings
        way: dict[str, Any] = {}
        if session is not None:
            way["session"] = session
        elif not self._has_way:
            raise NoWayIn
        elif told.oidc_token_file is not None:
            way["token_source"] = self._exchanged
        else:
            way["token"] = told.registration_key()
        if keep and not told.ephemeral:
            way["on_session"] = self._keep
        client = Client(
            told.url, timeout_s=TIMEOUT_S, user_agent=f"hybridq-agent/{self._version}", **way, **self._route()
        )
        if keep:
            self._clients.append(client)
        return client

    def _route(self) -> dict[str, Any]:
        told = self._settings
        return {
            "ca_file": told.ca_file,
            "client_cert": None if told.client_cert is None else str(told.client_cert),
            "proxy": told.proxy,
            "insecure": told.insecure,
        }

    def _exchanged(self) -> str:
        """Return what registers, for the OIDC token that the file holds now."""
        from ..client import Client

        path = self._settings.oidc_token_file
        assert path is not None
        with Client(self._settings.url, timeout_s=TIMEOUT_S, deadline_s=0, **self._route()) as client:
            return client.exchange_token(read_secret("oidc_token_file", path)).access_token

    # -- what is kept ----------------------------------------------------------------------------------------

    def _boot(self) -> str:
        """Return the boot to register with, written down before.

        A key that is good once is good again for the same boot: when the answer was lost, or the process died with it.
        """
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found = self._boot_file.read_text(encoding="ascii")
            if not self._settings.ephemeral and NAME_PATTERN.fullmatch(found):
                return found
        boot_id = f"boot-{new_id()}"
        try:
            write_whole(self._boot_file, boot_id.encode())
        except OSError as trouble:
            log.warning("agent.session_not_kept", component="agent", error_type=type(trouble).__name__)
        return boot_id

    def _kept(self) -> Session | None:
        """Return the session of the process before, when it is this agent's at this server."""
        if self._settings.ephemeral:
            return None
        try:
            kept = msgspec.json.decode(self._file.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError):
            log.warning("agent.journal_torn", component="agent", file=self._file.name)
            return None
        session, told = kept.session, self._settings
        same = kept.url == told.url and session.agent_id == self.agent_id and told.pool in (None, session.pool)
        return session if same and session.renewal_token is not None else None

    def _keep(self, session: Session | None) -> None:
        if session is None:
            self._forget()
            return
        try:
            write_whole(self._file, msgspec.json.encode(_Kept(url=self._settings.url, session=session)))
        except OSError as trouble:
            # The session goes on in memory; only a restart would have to begin anew.
            log.warning("agent.session_not_kept", component="agent", error_type=type(trouble).__name__)

    def _forget(self) -> None:
        for path in (self._file, self._boot_file):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What the session's file holds."""

    url: str
    session: Session
