"""Who calls, and what the access records hold: credentials, what was decided about a call, trust rules, audit entries.

Durations end in `_s` (seconds), instants in `_at` (aware UTC datetimes). Nothing here shows the text of a credential
when it is printed: what carries one is shown without it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from . import tokens
from .scopes import EVERYTHING

__all__ = [
    "Admission",
    "AgentTokens",
    "AuditEntry",
    "AuditPage",
    "Credential",
    "IssuedToken",
    "KeyPage",
    "LoginState",
    "LoginToken",
    "NewKey",
    "OpenedSession",
    "RateState",
    "Spent",
    "TrustRule",
]

HIDDEN = frozenset({"text", "renewal_text", "csrf_token", "csrf_hash", "presented_hash", "verifier", "nonce"})


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={'…' if name in HIDDEN and value else repr(value)}"
            for name in self.__struct_fields__
            if (value := getattr(self, name)) is not None
        )
        return f"{type(self).__name__}({shown})"


class Credential(_Struct, frozen=True, kw_only=True):
    """Who calls and what they may do. A field that does not apply is None."""

    kind: Literal["key", "registration", "agent", "renewal", "session"]
    id: str
    namespace: str
    name: str | None = None
    """Of a key: what it was called. Of a session: the person. Of an exchanged token: the issuer's subject."""
    scopes: frozenset[str] = frozenset()
    pools: tuple[str, ...] | None = None
    """None: every pool of the namespace."""
    services: tuple[str, ...] | None = None
    """None: every service."""
    created_at: dt.datetime | None = None
    created_by: str | None = None
    expires_at: dt.datetime | None = None
    last_used_at: dt.datetime | None = None
    """Of keys and sessions, to the minute; of a registration key its last spending."""
    require_signature: bool = False
    public_key: str | None = None
    """Ed25519, 32 bytes in base64: what requests of a key are signed with (RFC 9421)."""
    agent_id: str | None = None
    session_id: str | None = None
    generation: int | None = None
    boot_id: str | None = None
    pool: str | None = None
    labels: Mapping[str, str] | None = None
    family_id: str | None = None
    """Of an agent's tokens: the family of renewal tokens they stand on."""
    rule_id: str | None = None
    """Of an exchanged token: the trust rule it stands on."""
    uses: int | None = None
    uses_spent: int | None = None
    role: str | None = None
    """Of a session: the role its scopes come from."""
    csrf_hash: str | None = None
    presented_hash: str | None = None
    """SHA-256 of the text it was presented by: what is done with a registration or renewal key goes by it."""

    def may(self, scope: str) -> bool:
        """Tell whether this credential holds a scope."""
        return scope in self.scopes or EVERYTHING in self.scopes

    def allows_pool(self, pool: str) -> bool:
        """Tell whether this credential reaches a pool."""
        return self.pools is None or pool in self.pools

    def allows_service(self, service: str) -> bool:
        """Tell whether this credential reaches a service."""
        return self.services is None or service in self.services

    def csrf_matches(self, token: str) -> bool:
        """Tell in constant time whether this is the CSRF token of the session."""
        return tokens.same(self.csrf_hash or tokens.hash_of(""), tokens.hash_of(token)) and bool(self.csrf_hash)

    @property
    def acts_as(self) -> str:
        """Who answers for what it does: the person of a session, who made a key, an agent."""
        if self.kind == "session":
            return self.name or self.id
        if self.agent_id is not None:
            return f"agent:{self.agent_id}"
        return self.created_by or f"{self.kind}:{self.id}"


class RateState(_Struct, frozen=True, kw_only=True):
    """What is left of a caller's budget in a class of calls."""

    limit: int
    """Calls that may come at once; 0: there is no limit."""
    remaining: int
    reset_s: float
    """Until the budget is whole again."""
    retry_after_s: float
    """Until one more call is taken; 0 when one is."""
    limited: bool


class Admission(_Struct, frozen=True, kw_only=True):
    """What was decided about a call. No credential and no reason: nothing was presented."""

    credential: Credential | None
    reason: Literal["unknown", "expired", "revoked"] | None
    rate: RateState


class NewKey(_Struct, frozen=True, kw_only=True):
    """A key that was made. `text` is shown once and stored nowhere; None: it had been made before."""

    credential: Credential
    text: str | None

    def __iter__(self) -> Iterator[Any]:
        """Unpack: `credential, text = …`."""
        return iter((self.credential, self.text))


class KeyPage(_Struct, frozen=True, kw_only=True):
    """One page of keys, the newest first."""

    items: tuple[Credential, ...]
    next_cursor: str | None


class Spent(_Struct, frozen=True, kw_only=True):
    """A use of a registration key. `again`: it had been spent on the same agent and boot before."""

    left: int
    again: bool


class IssuedToken(_Struct, frozen=True, kw_only=True):
    """An agent token. `text` is shown once."""

    text: str
    id: str
    expires_at: dt.datetime


class AgentTokens(_Struct, frozen=True, kw_only=True):
    """An agent token and the renewal token of its family. The texts are shown once."""

    text: str
    id: str
    expires_at: dt.datetime
    renewal_text: str
    family_id: str
    renewal_expires_at: dt.datetime


class OpenedSession(_Struct, frozen=True, kw_only=True):
    """A session. `text` is the cookie's value, shown once; the CSRF token follows from it."""

    text: str
    id: str
    csrf_token: str
    expires_at: dt.datetime


class LoginState(_Struct, frozen=True, kw_only=True):
    """What a login left for its return from the provider."""

    verifier: str
    nonce: str
    redirect: str


class LoginToken(_Struct, frozen=True, kw_only=True):
    """Whom a one-time login link lets in."""

    person: str
    namespace: str
    scopes: frozenset[str]
    pools: tuple[str, ...] | None
    services: tuple[str, ...] | None
    role: str | None = None


class TrustRule(_Struct, frozen=True, kw_only=True):
    """Whose proofs (OIDC tokens) are exchanged for an agent token, and for which.

    `claims` are the conditions: each names a claim and its exact value; that of `sub` may end in `*`.
    """

    id: str
    namespace: str
    issuer: str
    audience: str
    claims: Mapping[str, str]
    pool: str
    scopes: tuple[str, ...]
    max_ttl_s: float = 900.0

    def matches(self, claims: Mapping[str, Any]) -> bool:
        """Tell whether the verified claims of a proof meet every condition. Texts and whole numbers count, no lists."""
        return bool(self.claims) and all(_meets(name, wanted, claims.get(name)) for name, wanted in self.claims.items())


def _meets(name: str, wanted: str, found: Any) -> bool:
    if isinstance(found, bool) or not isinstance(found, (str, int)):
        return False
    if name == "sub" and wanted.endswith("*"):
        return str(found).startswith(wanted[:-1])
    return str(found) == wanted


class AuditEntry(_Struct, frozen=True, kw_only=True):
    """Who did what to what, and how it ended."""

    actor: str
    action: str
    object: str = ""
    outcome: str = ""
    request_id: str = ""
    at: dt.datetime | None = None
    """When Redis took it down; not to be given."""
    id: str | None = None


class AuditPage(_Struct, frozen=True, kw_only=True):
    """One page of the audit, the newest first."""

    items: tuple[AuditEntry, ...]
    next_cursor: str | None
