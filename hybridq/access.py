"""`AsyncAccess` and `Access`: who may call. Credentials, limits of calls, sessions, trust rules, the audit.

The records lie under a root of their own, looked up before a namespace is known. Both colours run the Calls of
`hybridq.ops.access`; over an `AsyncBackend` they travel with the other calls of a loop turn. Nothing is cached: what
was revoked is refused from the next call on.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, TypeVar

from .backend import AsyncBackend, Backend, BackendBase
from .call import Call
from .connect import Connects
from .credential import (
    Admission,
    AgentTokens,
    AuditPage,
    Credential,
    IssuedToken,
    KeyPage,
    LoginState,
    LoginToken,
    NewKey,
    OpenedSession,
    Spent,
    TrustRule,
)
from .errors import QueueClosed
from .keys import ACCESS_ROOT
from .ops import access as ops

__all__ = ["Access", "AsyncAccess"]

T = TypeVar("T")
NAME: Final = "access"


class _AccessBase:
    def __init__(self, backend: BackendBase) -> None:
        self.connector: Connects = backend.connector
        self._root = ACCESS_ROOT
        self._now_ms = 0
        self._closed = False
        backend.place(NAME, self._root, functools.partial(ops.found, self._root))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.connector.safe_url}>"

    def _check_open(self) -> None:
        if self._closed:
            raise QueueClosed(NAME)


class AsyncAccess(_AccessBase):
    """The access records of a server, for asyncio.

    Args:
        redis: A URL, a connector, or an `AsyncBackend` to share, which its maker closes. None: `HYBRIDQ_REDIS_URL`,
            else a private server in `data_dir`.
        data_dir: Folder of the private server. None: `HYBRIDQ_DATA_DIR`, else the platform's place for user data.

    Texts of credentials are returned once and stored nowhere. Errors: `hybridq.errors`.
    """

    def __init__(
        self, *, redis: str | Connects | BackendBase | None = None, data_dir: Path | str | None = None
    ) -> None:
        shared = redis if isinstance(redis, AsyncBackend) else None
        self._backend = shared or AsyncBackend(redis, data_dir=data_dir)
        self._owns_backend = shared is None
        super().__init__(self._backend)

    async def admit(
        self, text: str | None, *, peer: str, rate_class: str, limit_per_second: float, burst: int = 1
    ) -> Admission:
        """Decide about one call: whose credential `text` is, and whether its calls of `rate_class` come too fast.

        `peer`, the address it comes from, is who is limited where there is no valid credential; a wrong secret never
        counts for the credential it names. `limit_per_second` = 0: no limit; `burst` calls may come at once.
        """
        return await self._run(
            ops.admit(
                self._root,
                text,
                peer=peer,
                rate_class=rate_class,
                limit_per_second=limit_per_second,
                burst=burst,
                now_ms=self._now_ms,
            )
        )

    async def create_key(
        self,
        name: str,
        *,
        scopes: Iterable[str],
        namespace: str,
        pools: Iterable[str] | None = None,
        services: Iterable[str] | None = None,
        expires_at: dt.datetime | None = None,
        lasts_s: float | None = None,
        created_by: str = "",
        require_signature: bool = False,
        public_key: str | None = None,
        key_id: str | None = None,
    ) -> NewKey:
        """Make an API key, at most 10,000 a namespace; it ends at `expires_at`, or `lasts_s` from now, or never.

        `created_by` is who answers for what it does. With `require_signature` its requests are to be signed with the
        Ed25519 key whose public half is `public_key` (32 bytes in base64). With a `key_id` (12 base62 characters,
        `tokens.derived_id`) the call can be repeated: same content, same key, then without its text.
        Raises `CredentialConflict`, `AccessFull`.
        """
        return await self._run(
            ops.create_key(
                self._root,
                name,
                scopes=scopes,
                namespace=namespace,
                pools=pools,
                services=services,
                expires_at=expires_at,
                lasts_s=lasts_s,
                created_by=created_by,
                require_signature=require_signature,
                public_key=public_key,
                key_id=key_id,
                now_ms=self._now_ms,
            )
        )

    async def create_registration_key(
        self,
        namespace: str,
        pool: str,
        *,
        labels: Mapping[str, str] | None = None,
        uses: int = 1,
        name: str | None = None,
        expires_at: dt.datetime | None = None,
        lasts_s: float | None = None,
        created_by: str = "",
        key_id: str | None = None,
    ) -> NewKey:
        """Make a key that `uses` (1 to 1,000) agents of one pool register with; an hour by default, 30 days at most.

        At most 1,000 a namespace. `key_id` as for `create_key`. Raises `CredentialConflict`, `AccessFull`.
        """
        return await self._run(
            ops.create_registration_key(
                self._root,
                namespace,
                pool,
                labels=labels,
                uses=uses,
                name=name,
                expires_at=expires_at,
                lasts_s=lasts_s,
                created_by=created_by,
                key_id=key_id,
                now_ms=self._now_ms,
            )
        )

    async def keys(
        self,
        namespace: str,
        *,
        kind: Literal["key", "registration"] = "key",
        limit: int = 50,
        cursor: str | None = None,
    ) -> KeyPage:
        """Return one page of a namespace's keys, the newest first, at most 100."""
        return await self._run(
            ops.keys(self._root, namespace, kind=kind, limit=limit, cursor=cursor, now_ms=self._now_ms)
        )

    async def revoke_key(self, namespace: str, key_id: str, *, kind: Literal["key", "registration"] = "key") -> bool:
        """Revoke a key: it is refused from the next call on. Returns whether it was there; the same for a day after."""
        return await self._run(ops.revoke_key(self._root, namespace, key_id, kind=kind, now_ms=self._now_ms))

    async def spend_registration(self, credential: Credential, use: str) -> Spent:
        """Spend one use of an admitted registration key on an agent and boot (`use`); the same again costs nothing.

        Raises `RegistrationSpent`, `CredentialRefused`.
        """
        return await self._run(ops.spend_registration(self._root, credential, use, now_ms=self._now_ms))

    async def enrol(
        self,
        agent_id: str,
        *,
        boot_id: str,
        session_id: str,
        generation: int,
        pool: str,
        namespace: str,
        scopes: Iterable[str] = ops.AGENT_SCOPES,
        pools: Iterable[str] | None = None,
        labels: Mapping[str, str] | None = None,
        created_by: str = "",
        token_s: float = ops.TOKEN_S,
        renewal_s: float = ops.RENEWAL_S,
    ) -> AgentTokens:
        """Give an agent that registered its tokens, a new family; all it had before are refused from now on.

        `pools` it may claim from: its own by default. The agent token lasts `token_s` (at most 3,600), the family
        `renewal_s` after its last token.
        """
        return await self._run(
            ops.enrol(
                self._root,
                agent_id,
                boot_id=boot_id,
                session_id=session_id,
                generation=generation,
                pool=pool,
                namespace=namespace,
                scopes=scopes,
                pools=pools,
                labels=labels,
                created_by=created_by,
                token_s=token_s,
                renewal_s=renewal_s,
                now_ms=self._now_ms,
            )
        )

    async def enrolled_by(self, namespace: str, agent_id: str) -> str | None:
        """Return the `created_by` that an agent's present tokens were enrolled with; None when it has none."""
        return await self._run(ops.enrolled_by(self._root, namespace, agent_id, now_ms=self._now_ms))

    async def rotate_renewal(
        self,
        credential: Credential,
        *,
        agent_id: str,
        boot_id: str,
        session_id: str,
        generation: int,
        token_s: float = ops.TOKEN_S,
        renewal_s: float = ops.RENEWAL_S,
    ) -> AgentTokens:
        """Use an admitted renewal token of this agent and boot, and give the next one with an agent token.

        The current one is accepted, and after that once more, in case the reply was lost. Used up and presented again
        it ends its family for whoever holds a token of it: `RenewalReused`. Raises `CredentialRefused`.
        """
        return await self._run(
            ops.rotate_renewal(
                self._root,
                credential,
                agent_id=agent_id,
                boot_id=boot_id,
                session_id=session_id,
                generation=generation,
                token_s=token_s,
                renewal_s=renewal_s,
                now_ms=self._now_ms,
            )
        )

    async def issue_agent_token(
        self, family_id: str, *, token_s: float = ops.TOKEN_S, renewal_s: float = ops.RENEWAL_S
    ) -> IssuedToken:
        """Give an agent its next token; its family lasts `renewal_s` from now. Raises `CredentialRefused`."""
        return await self._run(
            ops.issue_agent_token(self._root, family_id, token_s=token_s, renewal_s=renewal_s, now_ms=self._now_ms)
        )

    async def issue_exchange_token(self, rule: TrustRule, *, subject: str, token_s: float | None = None) -> IssuedToken:
        """Give a token, of no agent yet, for a verified proof that met `rule`; it lasts no longer than the rule says.

        Raises `CredentialRefused` when the rule is not there any more.
        """
        return await self._run(
            ops.issue_exchange_token(self._root, rule, subject=subject, token_s=token_s, now_ms=self._now_ms)
        )

    async def bind_exchange_token(self, token_id: str, *, agent_id: str, boot_id: str) -> None:
        """Bind an exchanged token to the agent and boot that registers with it; harmless to repeat.

        Raises `CredentialConflict` when another has it, `CredentialRefused` when it is gone.
        """
        await self._run(
            ops.bind_exchange_token(self._root, token_id, agent_id=agent_id, boot_id=boot_id, now_ms=self._now_ms)
        )

    async def revoke_agent(self, namespace: str, agent_id: str, *, reason: str = "revoked") -> bool:
        """End all tokens of an agent at once, renewal tokens included. Returns whether it had any."""
        return await self._run(ops.revoke_agent(self._root, namespace, agent_id, reason=reason, now_ms=self._now_ms))

    async def open_session(
        self,
        person: str,
        *,
        namespace: str,
        role: str | None = None,
        scopes: Iterable[str] | None = None,
        pools: Iterable[str] | None = None,
        services: Iterable[str] | None = None,
        life_s: float = ops.DAY_S,
        idle_s: float = ops.IDLE_S,
        replaces: str | None = None,
    ) -> OpenedSession:
        """Open a session of a person, of at most 50; it ends after `life_s`, or `idle_s` after its last call.

        What they may do is a `role` (viewer, operator, admin), or `scopes`. `replaces` is the id of the session the
        browser had before the login; it ends in the same step.
        """
        return await self._run(
            ops.open_session(
                self._root,
                person,
                namespace=namespace,
                role=role,
                scopes=scopes,
                pools=pools,
                services=services,
                life_s=life_s,
                idle_s=idle_s,
                replaces=replaces,
                now_ms=self._now_ms,
            )
        )

    async def close_session(self, session_id: str) -> bool:
        """Close a session at once. Returns whether it was open."""
        return await self._run(ops.close_session(self._root, session_id, now_ms=self._now_ms))

    async def close_sessions(self, person: str) -> int:
        """Close all sessions of a person at once. Returns how many were open."""
        return await self._run(ops.close_sessions(self._root, person, now_ms=self._now_ms))

    async def begin_login(
        self, state: str, *, verifier: str, nonce: str, redirect: str = "", ttl_s: float = ops.LOGIN_S
    ) -> None:
        """Keep what a login needs at its return: the PKCE verifier and the nonce, in clear, for `ttl_s` at most.

        The state is stored hashed. Of more than 10,000 logins under way the oldest end.
        """
        await self._run(
            ops.begin_login(
                self._root, state, verifier=verifier, nonce=nonce, redirect=redirect, ttl_s=ttl_s, now_ms=self._now_ms
            )
        )

    async def take_login(self, state: str) -> LoginState | None:
        """Take what a login left, once; None when it is not there (any more)."""
        return await self._run(ops.take_login(self._root, state, now_ms=self._now_ms))

    async def make_login_token(
        self,
        person: str,
        *,
        namespace: str,
        role: str | None = None,
        scopes: Iterable[str] | None = None,
        pools: Iterable[str] | None = None,
        services: Iterable[str] | None = None,
        ttl_s: float = ops.LOGIN_S,
    ) -> str:
        """Make a one-time login of development and return its text, the `login_token`."""
        return await self._run(
            ops.make_login_token(
                self._root,
                person,
                namespace=namespace,
                role=role,
                scopes=scopes,
                pools=pools,
                services=services,
                ttl_s=ttl_s,
                now_ms=self._now_ms,
            )
        )

    async def take_login_token(self, text: str) -> LoginToken | None:
        """Take a one-time login, once; None when it is not there (any more). A wrong secret leaves it where it is."""
        return await self._run(ops.take_login_token(self._root, text, now_ms=self._now_ms))

    async def put_trust_rule(self, rule: TrustRule) -> bool:
        """Set a trust rule. Returns True when it is new. Raises `AccessFull` at 200 a namespace."""
        return await self._run(ops.put_trust_rule(self._root, rule, now_ms=self._now_ms))

    async def trust_rules(self, namespace: str) -> tuple[TrustRule, ...]:
        """Return all trust rules of a namespace, by id."""
        return await self._run(ops.trust_rules(self._root, namespace, now_ms=self._now_ms))

    async def find_trust_rules(self, issuer: str, audience: str) -> tuple[TrustRule, ...]:
        """Return the rules of every namespace for proofs of this issuer and audience; check each with `matches`."""
        return await self._run(ops.find_trust_rules(self._root, issuer, audience, now_ms=self._now_ms))

    async def delete_trust_rule(self, namespace: str, rule_id: str) -> bool:
        """Delete a trust rule; tokens given by it are refused from now on. Returns whether it was there."""
        return await self._run(ops.delete_trust_rule(self._root, namespace, rule_id, now_ms=self._now_ms))

    async def remember_once(self, what: str, value: str, ttl_s: float) -> bool:
        """Remember, as a hash, a value of a kind for `ttl_s` seconds. Returns True the first time, then False."""
        return await self._run(ops.remember_once(self._root, what, value, ttl_s, now_ms=self._now_ms))

    async def audit(
        self,
        namespace: str,
        *,
        actor: str,
        action: str,
        object: str = "",
        outcome: str = "",
        request_id: str = "",
    ) -> str:
        """Write one line into the audit and return its id. Control characters are written out, credentials cut down.

        A lost reply may leave it there twice, never not at all. About the last 100,000 lines are kept.
        """
        return await self._run(
            ops.audit(
                self._root,
                namespace,
                actor=actor,
                action=action,
                object=object,
                outcome=outcome,
                request_id=request_id,
                now_ms=self._now_ms,
            )
        )

    async def audit_page(self, namespace: str, *, limit: int = 50, cursor: str | None = None) -> AuditPage:
        """Return one page of a namespace's audit, the newest first, at most 200."""
        return await self._run(ops.audit_page(self._root, namespace, limit=limit, cursor=cursor, now_ms=self._now_ms))

    async def signing_key(self) -> bytes:
        """Return 32 bytes made once for this server, the same for every process: what cursors are signed with."""
        return await self._run(ops.establish(self._root, now_ms=self._now_ms))

    async def close(self) -> None:
        """Close the connections, unless they are shared."""
        if not self._closed:
            self._closed = True
            if self._owns_backend:
                await self._backend.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, call: Call[T]) -> T:
        self._check_open()
        self._backend.check_loop(NAME)
        return await self._backend.coalescer.run(call)


class Access(_AccessBase):
    """The access records of a server, for threads.

    Args:
        redis: A URL, a connector, or a `Backend` to share, which its maker closes. None: `HYBRIDQ_REDIS_URL`,
            else a private server in `data_dir`.
        data_dir: Folder of the private server. None: `HYBRIDQ_DATA_DIR`, else the platform's place for user data.

    Texts of credentials are returned once and stored nowhere. Errors: `hybridq.errors`.
    """

    def __init__(
        self, *, redis: str | Connects | BackendBase | None = None, data_dir: Path | str | None = None
    ) -> None:
        shared = redis if isinstance(redis, Backend) else None
        self._backend = shared or Backend(redis, data_dir=data_dir)
        self._owns_backend = shared is None
        super().__init__(self._backend)

    def admit(
        self, text: str | None, *, peer: str, rate_class: str, limit_per_second: float, burst: int = 1
    ) -> Admission:
        """Decide about one call: whose credential `text` is, and whether its calls of `rate_class` come too fast.

        `peer`, the address it comes from, is who is limited where there is no valid credential; a wrong secret never
        counts for the credential it names. `limit_per_second` = 0: no limit; `burst` calls may come at once.
        """
        return self._run(
            ops.admit(
                self._root,
                text,
                peer=peer,
                rate_class=rate_class,
                limit_per_second=limit_per_second,
                burst=burst,
                now_ms=self._now_ms,
            )
        )

    def create_key(
        self,
        name: str,
        *,
        scopes: Iterable[str],
        namespace: str,
        pools: Iterable[str] | None = None,
        services: Iterable[str] | None = None,
        expires_at: dt.datetime | None = None,
        lasts_s: float | None = None,
        created_by: str = "",
        require_signature: bool = False,
        public_key: str | None = None,
        key_id: str | None = None,
    ) -> NewKey:
        """Make an API key, at most 10,000 a namespace; it ends at `expires_at`, or `lasts_s` from now, or never.

        `created_by` is who answers for what it does. With `require_signature` its requests are to be signed with the
        Ed25519 key whose public half is `public_key` (32 bytes in base64). With a `key_id` (12 base62 characters,
        `tokens.derived_id`) the call can be repeated: same content, same key, then without its text.
        Raises `CredentialConflict`, `AccessFull`.
        """
        return self._run(
            ops.create_key(
                self._root,
                name,
                scopes=scopes,
                namespace=namespace,
                pools=pools,
                services=services,
                expires_at=expires_at,
                lasts_s=lasts_s,
                created_by=created_by,
                require_signature=require_signature,
                public_key=public_key,
                key_id=key_id,
                now_ms=self._now_ms,
            )
        )

    def create_registration_key(
        self,
        namespace: str,
        pool: str,
        *,
        labels: Mapping[str, str] | None = None,
        uses: int = 1,
        name: str | None = None,
        expires_at: dt.datetime | None = None,
        lasts_s: float | None = None,
        created_by: str = "",
        key_id: str | None = None,
    ) -> NewKey:
        """Make a key that `uses` (1 to 1,000) agents of one pool register with; an hour by default, 30 days at most.

        At most 1,000 a namespace. `key_id` as for `create_key`. Raises `CredentialConflict`, `AccessFull`.
        """
        return self._run(
            ops.create_registration_key(
                self._root,
                namespace,
                pool,
                labels=labels,
                uses=uses,
                name=name,
                expires_at=expires_at,
                lasts_s=lasts_s,
                created_by=created_by,
                key_id=key_id,
                now_ms=self._now_ms,
            )
        )

    def keys(
        self,
        namespace: str,
        *,
        kind: Literal["key", "registration"] = "key",
        limit: int = 50,
        cursor: str | None = None,
    ) -> KeyPage:
        """Return one page of a namespace's keys, the newest first, at most 100."""
        return self._run(ops.keys(self._root, namespace, kind=kind, limit=limit, cursor=cursor, now_ms=self._now_ms))

    def revoke_key(self, namespace: str, key_id: str, *, kind: Literal["key", "registration"] = "key") -> bool:
        """Revoke a key: it is refused from the next call on. Returns whether it was there; the same for a day after."""
        return self._run(ops.revoke_key(self._root, namespace, key_id, kind=kind, now_ms=self._now_ms))

    def spend_registration(self, credential: Credential, use: str) -> Spent:
        """Spend one use of an admitted registration key on an agent and boot (`use`); the same again costs nothing.

        Raises `RegistrationSpent`, `CredentialRefused`.
        """
        return self._run(ops.spend_registration(self._root, credential, use, now_ms=self._now_ms))

    def enrol(
        self,
        agent_id: str,
        *,
        boot_id: str,
        session_id: str,
        generation: int,
        pool: str,
        namespace: str,
        scopes: Iterable[str] = ops.AGENT_SCOPES,
        pools: Iterable[str] | None = None,
        labels: Mapping[str, str] | None = None,
        created_by: str = "",
        token_s: float = ops.TOKEN_S,
        renewal_s: float = ops.RENEWAL_S,
    ) -> AgentTokens:
        """Give an agent that registered its tokens, a new family; all it had before are refused from now on.

        `pools` it may claim from: its own by default. The agent token lasts `token_s` (at most 3,600), the family
        `renewal_s` after its last token.
        """
        return self._run(
            ops.enrol(
                self._root,
                agent_id,
                boot_id=boot_id,
                session_id=session_id,
                generation=generation,
                pool=pool,
                namespace=namespace,
                scopes=scopes,
                pools=pools,
                labels=labels,
                created_by=created_by,
                token_s=token_s,
                renewal_s=renewal_s,
                now_ms=self._now_ms,
            )
        )

    def enrolled_by(self, namespace: str, agent_id: str) -> str | None:
        """Return the `created_by` that an agent's present tokens were enrolled with; None when it has none."""
        return self._run(ops.enrolled_by(self._root, namespace, agent_id, now_ms=self._now_ms))

    def rotate_renewal(
        self,
        credential: Credential,
        *,
        agent_id: str,
        boot_id: str,
        session_id: str,
        generation: int,
        token_s: float = ops.TOKEN_S,
        renewal_s: float = ops.RENEWAL_S,
    ) -> AgentTokens:
        """Use an admitted renewal token of this agent and boot, and give the next one with an agent token.

        The current one is accepted, and after that once more, in case the reply was lost. Used up and presented again
        it ends its family for whoever holds a token of it: `RenewalReused`. Raises `CredentialRefused`.
        """
        return self._run(
            ops.rotate_renewal(
                self._root,
                credential,
                agent_id=agent_id,
                boot_id=boot_id,
                session_id=session_id,
                generation=generation,
                token_s=token_s,
                renewal_s=renewal_s,
                now_ms=self._now_ms,
            )
        )

    def issue_agent_token(
        self, family_id: str, *, token_s: float = ops.TOKEN_S, renewal_s: float = ops.RENEWAL_S
    ) -> IssuedToken:
        """Give an agent its next token; its family lasts `renewal_s` from now. Raises `CredentialRefused`."""
        return self._run(
            ops.issue_agent_token(self._root, family_id, token_s=token_s, renewal_s=renewal_s, now_ms=self._now_ms)
        )

    def issue_exchange_token(self, rule: TrustRule, *, subject: str, token_s: float | None = None) -> IssuedToken:
        """Give a token, of no agent yet, for a verified proof that met `rule`; it lasts no longer than the rule says.

        Raises `CredentialRefused` when the rule is not there any more.
        """
        return self._run(
            ops.issue_exchange_token(self._root, rule, subject=subject, token_s=token_s, now_ms=self._now_ms)
        )

    def bind_exchange_token(self, token_id: str, *, agent_id: str, boot_id: str) -> None:
        """Bind an exchanged token to the agent and boot that registers with it; harmless to repeat.

        Raises `CredentialConflict` when another has it, `CredentialRefused` when it is gone.
        """
        self._run(
            ops.bind_exchange_token(self._root, token_id, agent_id=agent_id, boot_id=boot_id, now_ms=self._now_ms)
        )

    def revoke_agent(self, namespace: str, agent_id: str, *, reason: str = "revoked") -> bool:
        """End all tokens of an agent at once, renewal tokens included. Returns whether it had any."""
        return self._run(ops.revoke_agent(self._root, namespace, agent_id, reason=reason, now_ms=self._now_ms))

    def open_session(
        self,
        person: str,
        *,
        namespace: str,
        role: str | None = None,
        scopes: Iterable[str] | None = None,
        pools: Iterable[str] | None = None,
        services: Iterable[str] | None = None,
        life_s: float = ops.DAY_S,
        idle_s: float = ops.IDLE_S,
        replaces: str | None = None,
    ) -> OpenedSession:
        """Open a session of a person, of at most 50; it ends after `life_s`, or `idle_s` after its last call.

        What they may do is a `role` (viewer, operator, admin), or `scopes`. `replaces` is the id of the session the
        browser had before the login; it ends in the same step.
        """
        return self._run(
            ops.open_session(
                self._root,
                person,
                namespace=namespace,
                role=role,
                scopes=scopes,
                pools=pools,
                services=services,
                life_s=life_s,
                idle_s=idle_s,
                replaces=replaces,
                now_ms=self._now_ms,
            )
        )

    def close_session(self, session_id: str) -> bool:
        """Close a session at once. Returns whether it was open."""
        return self._run(ops.close_session(self._root, session_id, now_ms=self._now_ms))

    def close_sessions(self, person: str) -> int:
        """Close all sessions of a person at once. Returns how many were open."""
        return self._run(ops.close_sessions(self._root, person, now_ms=self._now_ms))

    def begin_login(
        self, state: str, *, verifier: str, nonce: str, redirect: str = "", ttl_s: float = ops.LOGIN_S
    ) -> None:
        """Keep what a login needs at its return: the PKCE verifier and the nonce, in clear, for `ttl_s` at most.

        The state is stored hashed. Of more than 10,000 logins under way the oldest end.
        """
        self._run(
            ops.begin_login(
                self._root, state, verifier=verifier, nonce=nonce, redirect=redirect, ttl_s=ttl_s, now_ms=self._now_ms
            )
        )

    def take_login(self, state: str) -> LoginState | None:
        """Take what a login left, once; None when it is not there (any more)."""
        return self._run(ops.take_login(self._root, state, now_ms=self._now_ms))

    def make_login_token(
        self,
        person: str,
        *,
        namespace: str,
        role: str | None = None,
        scopes: Iterable[str] | None = None,
        pools: Iterable[str] | None = None,
        services: Iterable[str] | None = None,
        ttl_s: float = ops.LOGIN_S,
    ) -> str:
        """Make a one-time login of development and return its text, the `login_token`."""
        return self._run(
            ops.make_login_token(
                self._root,
                person,
                namespace=namespace,
                role=role,
                scopes=scopes,
                pools=pools,
                services=services,
                ttl_s=ttl_s,
                now_ms=self._now_ms,
            )
        )

    def take_login_token(self, text: str) -> LoginToken | None:
        """Take a one-time login, once; None when it is not there (any more). A wrong secret leaves it where it is."""
        return self._run(ops.take_login_token(self._root, text, now_ms=self._now_ms))

    def put_trust_rule(self, rule: TrustRule) -> bool:
        """Set a trust rule. Returns True when it is new. Raises `AccessFull` at 200 a namespace."""
        return self._run(ops.put_trust_rule(self._root, rule, now_ms=self._now_ms))

    def trust_rules(self, namespace: str) -> tuple[TrustRule, ...]:
        """Return all trust rules of a namespace, by id."""
        return self._run(ops.trust_rules(self._root, namespace, now_ms=self._now_ms))

    def find_trust_rules(self, issuer: str, audience: str) -> tuple[TrustRule, ...]:
        """Return the rules of every namespace for proofs of this issuer and audience; check each with `matches`."""
        return self._run(ops.find_trust_rules(self._root, issuer, audience, now_ms=self._now_ms))

    def delete_trust_rule(self, namespace: str, rule_id: str) -> bool:
        """Delete a trust rule; tokens given by it are refused from now on. Returns whether it was there."""
        return self._run(ops.delete_trust_rule(self._root, namespace, rule_id, now_ms=self._now_ms))

    def remember_once(self, what: str, value: str, ttl_s: float) -> bool:
        """Remember, as a hash, a value of a kind for `ttl_s` seconds. Returns True the first time, then False."""
        return self._run(ops.remember_once(self._root, what, value, ttl_s, now_ms=self._now_ms))

    def audit(
        self,
        namespace: str,
        *,
        actor: str,
        action: str,
        object: str = "",
        outcome: str = "",
        request_id: str = "",
    ) -> str:
        """Write one line into the audit and return its id. Control characters are written out, credentials cut down.

        A lost reply may leave it there twice, never not at all. About the last 100,000 lines are kept.
        """
        return self._run(
            ops.audit(
                self._root,
                namespace,
                actor=actor,
                action=action,
                object=object,
                outcome=outcome,
                request_id=request_id,
                now_ms=self._now_ms,
            )
        )

    def audit_page(self, namespace: str, *, limit: int = 50, cursor: str | None = None) -> AuditPage:
        """Return one page of a namespace's audit, the newest first, at most 200."""
        return self._run(ops.audit_page(self._root, namespace, limit=limit, cursor=cursor, now_ms=self._now_ms))

    def signing_key(self) -> bytes:
        """Return 32 bytes made once for this server, the same for every process: what cursors are signed with."""
        return self._run(ops.establish(self._root, now_ms=self._now_ms))

    def close(self) -> None:
        """Close the connections, unless they are shared."""
        if not self._closed:
            self._closed = True
            if self._owns_backend:
                self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, call: Call[T]) -> T:
        self._check_open()
        return self._backend.runner.run(call)
