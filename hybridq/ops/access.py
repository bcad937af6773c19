"""Who may call: API keys, registration keys, agents' tokens, sessions, trust rules, the audit.

Texts of credentials are made here and handed to the caller once; only their hashes are sent.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import functools
import hashlib
import ipaddress
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NoReturn

import msgspec

from .. import tokens
from .._units import YEAR_S, instant_to_ms, ms_to_instant, to_ms, to_s
from ..call import Call, Reply
from ..credential import (
    Admission,
    AgentTokens,
    AuditEntry,
    AuditPage,
    Credential,
    IssuedToken,
    KeyPage,
    LoginState,
    LoginToken,
    NewKey,
    OpenedSession,
    RateState,
    Spent,
    TrustRule,
)
from ..errors import (
    AccessFull,
    CredentialConflict,
    CredentialRefused,
    InvalidArgument,
    RegistrationSpent,
    RenewalReused,
)
from ..keys import ACCESS_ROOT, validate_name, validate_namespace
from ..scopes import ROLES, validate_scopes
from ..scripts import load
from . import _args

__all__ = [
    "admit",
    "audit",
    "audit_page",
    "begin_login",
    "bind_exchange_token",
    "close_session",
    "close_sessions",
    "create_key",
    "create_registration_key",
    "delete_trust_rule",
    "enrol",
    "enrolled_by",
    "establish",
    "find_trust_rules",
    "found",
    "issue_agent_token",
    "issue_exchange_token",
    "keys",
    "make_login_token",
    "open_session",
    "put_trust_rule",
    "remember_once",
    "revoke_agent",
    "revoke_key",
    "rotate_renewal",
    "spend_registration",
    "take_login",
    "take_login_token",
    "trust_rules",
]

NOTHING: Final = "0" * 64
"""Where a hash is asked for and nothing was presented."""
NONE_ID: Final = "0"
DAY_S: Final = 86_400.0
IDLE_S: Final = 1_800.0
LOGIN_S: Final = 600.0
TOKEN_S: Final = 900.0
TOKEN_S_MAX: Final = 3600.0
RENEWAL_S: Final = 7 * DAY_S
LIFE_S_MAX: Final = 30 * DAY_S
RATE_MAX: Final = 100_000.0
NAMES_MAX: Final = 100
PAGE_MAX: Final = 100
AUDIT_PAGE_MAX: Final = 200
GRANT_BYTES_MAX: Final = 16_384
READ_MAX: Final = 1_024
"""Records and addresses that are kept as they were read: the same ones come with every call."""
AGENT_SCOPES: Final = ("queue:claim",)
REGISTER_ONLY: Final = frozenset({"agents:register"})
_BOOT_RULE: Final = "1 to 128 bytes without control characters"
_AUDIT_ID: Final = re.compile(r"\d{1,16}-\d{1,16}")
_UNSEEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Grant(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a credential may do, as its record holds it: opaque to Lua, readable in redis-cli."""

    scopes: tuple[str, ...] = ()
    pools: tuple[str, ...] | None = None
    services: tuple[str, ...] | None = None
    labels: Mapping[str, str] | None = None
    role: str | None = None


_encode = msgspec.json.Encoder(order="deterministic").encode
_grant = msgspec.json.Decoder(Grant)
_rule = msgspec.json.Decoder(TrustRule)


# -- the records as a whole ------------------------------------------------------------------------------


def establish(root: str = ACCESS_ROOT, *, now_ms: int = 0) -> Call[bytes]:
    """Make the access records unless they are there. Value: the key that signs cursors, the same for everybody."""
    return _args.simple(
        "auth/establish",
        root,
        now_ms,
        [(secrets.token_hex(32),)],
        lambda replies: bytes.fromhex(replies[0][1].decode()),
    )


def found(root: str, now_ms: int) -> Sequence[Call[Any]]:
    """Return the calls that make the access records."""
    return (establish(root, now_ms=now_ms),)


# -- every call ------------------------------------------------------------------------------------------


def admit(
    root: str,
    text: str | None,
    *,
    peer: str,
    rate_class: str,
    limit_per_second: float,
    burst: int = 1,
    now_ms: int = 0,
) -> Call[Admission]:
    """Decide about one call: who it is, and whether it comes too fast."""
    presented = None if text is None else tokens.parse(text)
    if presented is not None and presented.kind == "login":
        presented = None
    said = presented.hash if presented else NOTHING
    if limit_per_second and not 0 < limit_per_second <= RATE_MAX:
        raise InvalidArgument("limit_per_second", limit_per_second, f"0 (no limit) to {RATE_MAX:.0f}")
    interval_us = min(round(1e6 / limit_per_second), 3_600_000_000) if limit_per_second else 0
    _args.integer("burst", burst, 1, 100_000)
    entry = (
        presented.kind if presented else "none",
        presented.id if presented else NONE_ID,
        said,
        peer_key(peer),
        validate_name("rate_class", rate_class),
        interval_us,
        burst,
    )
    script = load("auth/admit")

    def decode(replies: Sequence[Reply]) -> Admission:
        reply = replies[0]
        verdict = _args.tag_of(script, reply, "")
        record, family = tuple(reply[1]), tuple(reply[2])
        rate = RateState(
            limit=burst if interval_us else 0,
            remaining=int(reply[4]),
            reset_s=to_s(int(reply[5])),
            retry_after_s=to_s(int(reply[6])),
            limited=bool(int(reply[3])),
        )
        if verdict == "NONE" and text is None:
            return Admission(credential=None, reason=None, rate=rate)
        # Also for an id that is not there, and for each hash of a family: the time tells nothing.
        right = sum([tokens.same(one, said) for one in _hashes(record)])
        if verdict == "VALID" and right and presented is not None:
            credential = _read(presented.kind, presented.id, record, family, said)
            return Admission(credential=credential, reason=None, rate=rate)
        reason: Literal["unknown", "expired", "revoked"] = "unknown"
        if verdict == "EXPIRED":
            reason = "expired"
        elif verdict == "REVOKED":
            reason = "revoked"
        return Admission(credential=None, reason=reason, rate=rate)

    return _args.simple("auth/admit", root, now_ms, [entry], decode)


@functools.lru_cache(maxsize=READ_MAX)
def peer_key(peer: str) -> str:
    """Return what stands for where a call comes from. An IPv6 host has a whole /64, so that is one caller."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        place = peer
    else:
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        whole = mapped or address
        place = str(ipaddress.ip_network((whole, 32 if whole.version == 4 else 64), strict=False))
    return hashlib.sha256(place.encode(errors="replace")).hexdigest()[:32]


# -- keys ------------------------------------------------------------------------------------------------


def create_key(
    root: str,
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
    now_ms: int = 0,
) -> Call[NewKey]:
    """Make an API key. With a `key_id` the call can be repeated: same content, same key, without its text."""
    text, id = _drawn("key", key_id)
    grant = _encode_grant(scopes, pools=pools, services=services)
    expires_ms, lasts_ms = _end(expires_at, lasts_s, 10 * YEAR_S)
    verifies = _public_key(public_key)
    if require_signature and not verifies:
        raise InvalidArgument("public_key", public_key, "an Ed25519 key when require_signature is set")
    said = [namespace, name, grant.decode(), expires_ms, lasts_ms, created_by, require_signature, verifies]
    entry = (
        id,
        tokens.hash_of(text),
        validate_namespace(namespace),
        _label("name", name),
        grant,
        _digest(said),
        _args.text("created_by", created_by, 128),
        expires_ms,
        lasts_ms,
        int(require_signature),
        verifies,
    )
    return _making("auth/make_key", root, now_ms, entry, "key", text, expires_at)


def create_registration_key(
    root: str,
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
    now_ms: int = 0,
) -> Call[NewKey]:
    """Make a registration key for `uses` agents of one pool; it lasts an hour by default, 30 days at most."""
    text, id = _drawn("registration", key_id)
    # Its scope is what it is; it is written down so that a record says all there is.
    grant = _encode_grant(REGISTER_ONLY, pools=[pool], labels=labels or {})
    if expires_at is None and lasts_s is None:
        lasts_s = 3600.0
    expires_ms, lasts_ms = _end(expires_at, lasts_s, LIFE_S_MAX)
    called = name or f"{pool} agents"[:64]
    said = [namespace, called, pool, grant.decode(), expires_ms, lasts_ms, created_by, uses]
    entry = (
        id,
        tokens.hash_of(text),
        validate_namespace(namespace),
        _label("name", called),
        validate_name("pool", pool),
        grant,
        _digest(said),
        _args.text("created_by", created_by, 128),
        _args.integer("uses", uses, 1, 1000),
        expires_ms,
        lasts_ms or 1,
    )
    return _making("auth/make_registration", root, now_ms, entry, "registration", text, expires_at)


def keys(
    root: str,
    namespace: str,
    *,
    kind: Literal["key", "registration"] = "key",
    limit: int = 50,
    cursor: str | None = None,
    now_ms: int = 0,
) -> Call[KeyPage]:
    """One page of a namespace's keys, the newest first."""
    if kind not in ("key", "registration"):
        raise InvalidArgument("kind", kind, "key or registration")
    if cursor is not None and not re.fullmatch(r"[1-9]\d{0,14}", cursor):
        raise InvalidArgument("cursor", cursor, "a next_cursor of this list")
    entry = (kind, validate_namespace(namespace), int(cursor or 0), _args.integer("limit", limit, 1, PAGE_MAX))
    script = load("auth/list_keys")

    def decode(replies: Sequence[Reply]) -> KeyPage:
        _args.tag_of(script, replies[0], "")
        _, records, after = replies[0]
        items = tuple(_credential(kind, id.decode(), _fields(flat), {}) for id, flat in records)
        return KeyPage(items=items, next_cursor=None if after == b"0" else after.decode())

    return _args.simple("auth/list_keys", root, now_ms, [entry], decode)


def revoke_key(
    root: str, namespace: str, key_id: str, *, kind: Literal["key", "registration"] = "key", now_ms: int = 0
) -> Call[bool]:
    """Revoke a key. Value: whether there is one of this id in the namespace, revoked now or within the last day."""
    if kind not in ("key", "registration"):
        raise InvalidArgument("kind", kind, "key or registration")
    entry = (kind, validate_namespace(namespace), validate_name("key_id", key_id))
    return _said("auth/revoke_key", root, now_ms, entry, b"REVOKED")


def spend_registration(root: str, credential: Credential, use: str, *, now_ms: int = 0) -> Call[Spent]:
    """Spend one use of a registration key on what `use` names. Raises `RegistrationSpent`, `CredentialRefused`."""
    token = _admitted(credential, "registration")
    entry = (token.id, token.presented_hash or NOTHING, hashlib.sha256(use.encode()).hexdigest()[:40])
    script = load("auth/spend")

    def decode(replies: Sequence[Reply]) -> Spent:
        tag = _args.tag_of(script, replies[0], "")
        if tag == "USED_UP":
            raise RegistrationSpent(token.id, "every use of it is spent")
        if tag != "SPENT":
            raise CredentialRefused(token.id, tag.lower())
        return Spent(left=int(replies[0][1]), again=bool(int(replies[0][2])))

    return _args.simple("auth/spend", root, now_ms, [entry], decode)


# -- agents ----------------------------------------------------------------------------------------------


def enrol(
    root: str,
    agent_id: str,
    *,
    boot_id: str,
    session_id: str,
    generation: int,
    pool: str,
    namespace: str,
    scopes: Iterable[str] = AGENT_SCOPES,
    pools: Iterable[str] | None = None,
    labels: Mapping[str, str] | None = None,
    created_by: str = "",
    token_s: float = TOKEN_S,
    renewal_s: float = RENEWAL_S,
    now_ms: int = 0,
) -> Call[AgentTokens]:
    """Give an agent a new family of tokens; what it had before is refused from now on."""
    renewal, token = tokens.make("renewal"), tokens.make("agent")
    family_id, token_id = _id(renewal), _id(token)
    entry = (
        family_id,
        tokens.hash_of(renewal),
        token_id,
        tokens.hash_of(token),
        validate_namespace(namespace),
        validate_name("agent_id", agent_id),
        _boot(boot_id),
        _args.text("session_id", session_id, 64),
        _args.integer("generation", generation, 0, 2**53 - 1),
        validate_name("pool", pool),
        _encode_grant(scopes, pools=[pool] if pools is None else pools, labels=labels or {}),
        _args.text("created_by", created_by, 128),
        to_ms("token_s", token_s, 1, TOKEN_S_MAX),
        to_ms("renewal_s", renewal_s, 1, LIFE_S_MAX),
    )
    script = load("auth/enrol")

    def decode(replies: Sequence[Reply]) -> AgentTokens:
        _args.tag_of(script, replies[0], "")
        return _tokens(token, renewal, replies[0])

    return _args.simple("auth/enrol", root, now_ms, [entry], decode)


def enrolled_by(root: str, namespace: str, agent_id: str, *, now_ms: int = 0) -> Call[str | None]:
    """Read for whom an agent's present tokens were given; None when it has none."""
    entry = (validate_namespace(namespace), validate_name("agent_id", agent_id))
    script = load("auth/enrolled")

    def decode(replies: Sequence[Reply]) -> str | None:
        reply = replies[0]
        if reply[0] == b"NOT_FOUND":
            return None
        _args.tag_of(script, reply, "")
        return bytes(reply[1]).decode()

    return _args.simple("auth/enrolled", root, now_ms, [entry], decode)


def rotate_renewal(
    root: str,
    credential: Credential,
    *,
    agent_id: str,
    boot_id: str,
    session_id: str,
    generation: int,
    token_s: float = TOKEN_S,
    renewal_s: float = RENEWAL_S,
    now_ms: int = 0,
) -> Call[AgentTokens]:
    """Take a renewal token, give the next. Raises `RenewalReused` (the family is revoked), `CredentialRefused`."""
    presented = _admitted(credential, "renewal")
    renewal, token = tokens.make("renewal", presented.id), tokens.make("agent")
    entry = (
        presented.id,
        presented.presented_hash or NOTHING,
        tokens.hash_of(renewal),
        _id(token),
        tokens.hash_of(token),
        validate_name("agent_id", agent_id),
        _boot(boot_id),
        _args.text("session_id", session_id, 64),
        _args.integer("generation", generation, 0, 2**53 - 1),
        to_ms("token_s", token_s, 1, TOKEN_S_MAX),
        to_ms("renewal_s", renewal_s, 1, LIFE_S_MAX),
    )
    script = load("auth/renew")

    def decode(replies: Sequence[Reply]) -> AgentTokens:
        tag = _args.tag_of(script, replies[0], "")
        if tag == "REUSED":
            raise RenewalReused(presented.id, "it was used up and came again; all tokens of its agent are revoked")
        if tag == "MISMATCH":
            raise CredentialRefused(presented.id, "it belongs to another agent or boot")
        if tag != "RENEWED":
            raise CredentialRefused(presented.id, tag.lower())
        return _tokens(token, renewal, replies[0])

    return _args.simple("auth/renew", root, now_ms, [entry], decode)


def issue_agent_token(
    root: str, family_id: str, *, token_s: float = TOKEN_S, renewal_s: float = RENEWAL_S, now_ms: int = 0
) -> Call[IssuedToken]:
    """Give an agent its next token; its family lasts `renewal_s` from here. Raises `CredentialRefused`."""
    token = tokens.make("agent")
    entry = (
        validate_name("family_id", family_id),
        _id(token),
        tokens.hash_of(token),
        to_ms("token_s", token_s, 1, TOKEN_S_MAX),
        to_ms("renewal_s", renewal_s, 1, LIFE_S_MAX),
    )
    return _issuing("auth/issue", root, now_ms, entry, token, family_id)


def issue_exchange_token(
    root: str, rule: TrustRule, *, subject: str, token_s: float | None = None, now_ms: int = 0
) -> Call[IssuedToken]:
    """Give a token for a proof that met `rule`; it lasts no longer than the rule says. Raises `CredentialRefused`."""
    token = tokens.make("agent")
    lasts_s = min(rule.max_ttl_s, TOKEN_S if token_s is None else token_s)
    entry = (
        _id(token),
        tokens.hash_of(token),
        validate_namespace(rule.namespace),
        validate_name("rule", rule.id),
        clean(subject, 256) or "-",
        validate_name("pool", rule.pool),
        _encode_grant(rule.scopes, pools=[rule.pool]),
        to_ms("token_s", lasts_s, 1, TOKEN_S_MAX),
    )
    return _issuing("auth/exchange", root, now_ms, entry, token, rule.id)


def bind_exchange_token(root: str, token_id: str, *, agent_id: str, boot_id: str, now_ms: int = 0) -> Call[None]:
    """Bind an exchanged token to the agent that registers with it. Raises `CredentialConflict`, `CredentialRefused`."""
    entry = (validate_name("token_id", token_id), validate_name("agent_id", agent_id), _boot(boot_id))
    script = load("auth/bind")

    def decode(replies: Sequence[Reply]) -> None:
        tag = _args.tag_of(script, replies[0], "")
        if tag == "TAKEN":
            raise CredentialConflict(token_id, "another agent, or another boot of it, registered with it")
        if tag != "BOUND":
            raise CredentialRefused(token_id, tag.lower())

    return _args.simple("auth/bind", root, now_ms, [entry], decode)


def revoke_agent(root: str, namespace: str, agent_id: str, *, reason: str = "revoked", now_ms: int = 0) -> Call[bool]:
    """End an agent's tokens, all of them, at once. Value: whether it had any."""
    entry = (validate_namespace(namespace), validate_name("agent_id", agent_id), clean(reason, 64) or "revoked")
    return _said("auth/end_agent", root, now_ms, entry, b"ENDED")


# -- people ----------------------------------------------------------------------------------------------


def open_session(
    root: str,
    person: str,
    *,
    namespace: str,
    role: str | None = None,
    scopes: Iterable[str] | None = None,
    pools: Iterable[str] | None = None,
    services: Iterable[str] | None = None,
    life_s: float = DAY_S,
    idle_s: float = IDLE_S,
    replaces: str | None = None,
    now_ms: int = 0,
) -> Call[OpenedSession]:
    """Open a person's session; `replaces`, the id of the one the browser had, ends in the same step."""
    cookie = tokens.make("session")
    csrf = tokens.csrf_of(cookie)
    entry = (
        _id(cookie),
        tokens.hash_of(cookie),
        tokens.hash_of(csrf),
        validate_namespace(namespace),
        _person(person),
        person_key(person),
        _encode_grant(_scopes_of(role, scopes), pools=pools, services=services, role=role),
        to_ms("life_s", life_s, 1, LIFE_S_MAX),
        to_ms("idle_s", idle_s, 1, LIFE_S_MAX),
        NONE_ID if replaces is None else validate_name("replaces", replaces),
    )
    script = load("auth/open_session")

    def decode(replies: Sequence[Reply]) -> OpenedSession:
        _args.tag_of(script, replies[0], "")
        return OpenedSession(text=cookie, id=_id(cookie), csrf_token=csrf, expires_at=_instant(replies[0][1]))

    return _args.simple("auth/open_session", root, now_ms, [entry], decode)


def close_session(root: str, session_id: str, *, now_ms: int = 0) -> Call[bool]:
    """Close one session. Value: whether it was open."""
    return _said("auth/close_session", root, now_ms, (validate_name("session_id", session_id),), b"CLOSED")


def close_sessions(root: str, person: str, *, now_ms: int = 0) -> Call[int]:
    """Close all sessions of a person. Value: how many were open."""
    script = load("auth/close_sessions")

    def decode(replies: Sequence[Reply]) -> int:
        _args.tag_of(script, replies[0], "")
        return int(replies[0][1])

    return _args.simple("auth/close_sessions", root, now_ms, [(person_key(person),)], decode)


def begin_login(
    root: str, state: str, *, verifier: str, nonce: str, redirect: str = "", ttl_s: float = LOGIN_S, now_ms: int = 0
) -> Call[None]:
    """Keep what a login needs at its return from the provider: verifier and nonce in clear, for these minutes only."""
    entry = (
        tokens.hash_of(state),
        _args.text("verifier", verifier, 256),
        _args.text("nonce", nonce, 256),
        _args.text("redirect", redirect, 2048),
        to_ms("ttl_s", ttl_s, 1, 3600),
    )
    script = load("auth/begin_login")

    def decode(replies: Sequence[Reply]) -> None:
        _args.tag_of(script, replies[0], "")

    return _args.simple("auth/begin_login", root, now_ms, [entry], decode)


def take_login(root: str, state: str, *, now_ms: int = 0) -> Call[LoginState | None]:
    """Take what a login left, once. Value: None when it is not there (any more)."""
    script = load("auth/take_login")

    def decode(replies: Sequence[Reply]) -> LoginState | None:
        reply = replies[0]
        if reply[0] == b"NOT_FOUND":
            return None
        _args.tag_of(script, reply, "")
        return LoginState(verifier=reply[1].decode(), nonce=reply[2].decode(), redirect=reply[3].decode())

    return _args.simple("auth/take_login", root, now_ms, [(tokens.hash_of(state),)], decode, repeatable=False)


def make_login_token(
    root: str,
    person: str,
    *,
    namespace: str,
    role: str | None = None,
    scopes: Iterable[str] | None = None,
    pools: Iterable[str] | None = None,
    services: Iterable[str] | None = None,
    ttl_s: float = LOGIN_S,
    now_ms: int = 0,
) -> Call[str]:
    """Make a one-time login. Value: its text, shown once."""
    text = tokens.make("login")
    entry = (
        _id(text),
        tokens.hash_of(text),
        validate_namespace(namespace),
        _person(person),
        _encode_grant(_scopes_of(role, scopes), pools=pools, services=services, role=role),
        to_ms("ttl_s", ttl_s, 1, 3600),
    )
    script = load("auth/make_link")

    def decode(replies: Sequence[Reply]) -> str:
        _args.tag_of(script, replies[0], "")
        return text

    return _args.simple("auth/make_link", root, now_ms, [entry], decode)


def take_login_token(root: str, text: str, *, now_ms: int = 0) -> Call[LoginToken | None]:
    """Take a one-time login, once. Value: None when it is not there (any more)."""
    token = tokens.parse(text)
    usable = token is not None and token.kind == "login"
    entry = (token.id, token.hash) if token is not None and usable else (NONE_ID, NOTHING)
    script = load("auth/take_link")

    def decode(replies: Sequence[Reply]) -> LoginToken | None:
        if replies[0][0] == b"NOT_FOUND":
            return None
        _args.tag_of(script, replies[0], "")
        record = _fields(replies[0][1])
        if not tokens.same(record["hash"], entry[1]):
            return None
        grant = _grant.decode(record["grant"])
        return LoginToken(
            person=record["name"],
            namespace=record["namespace"],
            scopes=frozenset(grant.scopes),
            pools=grant.pools,
            services=grant.services,
            role=grant.role,
        )

    return _args.simple("auth/take_link", root, now_ms, [entry], decode, repeatable=False)


# -- trust -----------------------------------------------------------------------------------------------


def put_trust_rule(root: str, rule: TrustRule, *, now_ms: int = 0) -> Call[bool]:
    """Set a trust rule. Value: True when it is new. Raises `AccessFull`."""
    _check_rule(rule)
    text = _encode(rule)
    if len(text) > GRANT_BYTES_MAX:
        raise InvalidArgument("rule", len(text), f"at most {GRANT_BYTES_MAX} bytes of JSON")
    entry = (rule.namespace, rule.id, _proof(rule.issuer, rule.audience), text)
    script = load("auth/put_rule")

    def decode(replies: Sequence[Reply]) -> bool:
        tag = _args.tag_of(script, replies[0], "")
        if tag == "FULL":
            raise AccessFull("trust rules of a namespace, or of an issuer and audience", int(replies[0][1]))
        return tag == "CREATED"

    return _args.simple("auth/put_rule", root, now_ms, [entry], decode)


def trust_rules(root: str, namespace: str, *, now_ms: int = 0) -> Call[tuple[TrustRule, ...]]:
    """All trust rules of a namespace, by id; at most 200."""
    return _rules("auth/list_rules", root, now_ms, validate_namespace(namespace))


def find_trust_rules(root: str, issuer: str, audience: str, *, now_ms: int = 0) -> Call[tuple[TrustRule, ...]]:
    """Trust rules of whatever namespace for proofs of this issuer and audience; check each with `matches`."""
    return _rules("auth/find_rules", root, now_ms, _proof(issuer, audience))


def delete_trust_rule(root: str, namespace: str, rule_id: str, *, now_ms: int = 0) -> Call[bool]:
    """Delete a trust rule; tokens given by it are refused from now on. Value: whether it was there."""
    entry = (validate_namespace(namespace), validate_name("rule_id", rule_id))
    return _said("auth/delete_rule", root, now_ms, entry, b"DELETED")


def remember_once(root: str, what: str, value: str, ttl_s: float, *, now_ms: int = 0) -> Call[bool]:
    """Remember a value of a kind for `ttl_s` seconds. Value: True the first time, False when it was there."""
    entry = (
        validate_name("what", what),
        tokens.hash_of(value),
        secrets.token_hex(8),
        to_ms("ttl_s", ttl_s, 0.001, LIFE_S_MAX),
    )
    return _said("auth/once", root, now_ms, entry, b"FIRST")


# -- the audit -------------------------------------------------------------------------------------------


def audit(
    root: str,
    namespace: str,
    *,
    actor: str,
    action: str,
    object: str = "",
    outcome: str = "",
    request_id: str = "",
    now_ms: int = 0,
) -> Call[str]:
    """Write one line of the audit. Value: its id. When a reply is lost it may stand there twice, never not at all."""
    line = (
        validate_namespace(namespace),
        clean(actor, 128),
        clean(action, 64) or "-",
        clean(object, 256),
        clean(outcome, 64),
        clean(request_id, 128),
    )
    script = load("auth/note_audit")

    def decode(replies: Sequence[Reply]) -> str:
        _args.tag_of(script, replies[0], "")
        return bytes(replies[0][1]).decode()

    return _args.simple("auth/note_audit", root, now_ms, [line], decode)


def audit_page(
    root: str, namespace: str, *, limit: int = 50, cursor: str | None = None, now_ms: int = 0
) -> Call[AuditPage]:
    """One page of a namespace's audit, the newest first."""
    if cursor is not None and not _AUDIT_ID.fullmatch(cursor):
        raise InvalidArgument("cursor", cursor, "a next_cursor of this list")
    entry = (validate_namespace(namespace), cursor or "", _args.integer("limit", limit, 1, AUDIT_PAGE_MAX))
    script = load("auth/list_audit")

    def decode(replies: Sequence[Reply]) -> AuditPage:
        _args.tag_of(script, replies[0], "")
        _, lines, after = replies[0]
        items = tuple(_audit_entry(id.decode(), _fields(flat)) for id, flat in lines)
        return AuditPage(items=items, next_cursor=after.decode() or None)

    return _args.simple("auth/list_audit", root, now_ms, [entry], decode)


def clean(text: str, bytes_max: int) -> str:
    """Return a text as an audit may hold it: control characters written out, no credential, cut to its bound."""
    shown = _UNSEEN.sub(lambda found: f"\\x{ord(found[0]):02x}", tokens.redact(text))
    raw = shown.encode()
    return shown if len(raw) <= bytes_max else raw[: bytes_max - 3].decode(errors="ignore") + "…"


# -- how records travel ----------------------------------------------------------------------------------


def _credential(
    kind: Any, id: str, record: Mapping[str, str], family: Mapping[str, str], presented: str | None = None
) -> Credential:
    """Return the Credential of a record; what an agent token does not say itself, its family says."""
    fields = {**family, **record} if kind == "agent" else record
    grant = _grant.decode(fields["grant"])
    scopes = REGISTER_ONLY if kind in ("registration", "renewal") else frozenset(grant.scopes)

    def instant(name: str) -> dt.datetime | None:
        return ms_to_instant(int(record[name])) if record.get(name) else None

    def number(name: str) -> int | None:
        return int(fields[name]) if fields.get(name) else None

    return Credential(
        kind=kind,
        id=id,
        namespace=fields["namespace"],
        name=fields.get("name"),
        scopes=scopes,
        pools=grant.pools,
        services=grant.services,
        created_at=instant("created_ms"),
        created_by=fields.get("created_by") or None,
        expires_at=instant("expires_ms"),
        last_used_at=instant("used_ms"),
        require_signature=fields.get("require_signature") == "1",
        public_key=fields.get("public_key"),
        agent_id=fields.get("agent_id"),
        session_id=fields.get("session_id") or None,
        generation=number("generation"),
        boot_id=fields.get("boot_id"),
        pool=fields.get("pool"),
        labels=grant.labels,
        role=grant.role,
        family_id=id if kind == "renewal" else fields.get("family"),
        rule_id=fields.get("rule"),
        uses=number("uses"),
        uses_spent=number("spent") if kind == "registration" else None,
        csrf_hash=fields.get("csrf_hash"),
        presented_hash=presented,
    )


@functools.lru_cache(maxsize=READ_MAX)
def _read(kind: Any, id: str, record: tuple[bytes, ...], family: tuple[bytes, ...], presented: str) -> Credential:
    """Return the Credential in a reply. Asked by all that the reply says, so a changed record is read anew."""
    return _credential(kind, id, _fields(record), _fields(family), presented)


@functools.lru_cache(maxsize=READ_MAX)
def _hashes(record: tuple[bytes, ...]) -> tuple[str, ...]:
    fields = _fields(record)
    return tuple(fields[name] for name in ("hash", "current", "previous") if name in fields) or (NOTHING,)


def _fields(flat: Sequence[bytes]) -> dict[str, str]:
    return {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}


def _instant(ms: bytes) -> dt.datetime:
    return ms_to_instant(int(ms))


def _tokens(token: str, renewal: str, reply: Reply) -> AgentTokens:
    return AgentTokens(
        text=token,
        id=_id(token),
        expires_at=_instant(reply[1]),
        renewal_text=renewal,
        family_id=_id(renewal),
        renewal_expires_at=_instant(reply[2]),
    )


def _audit_entry(id: str, fields: Mapping[str, str]) -> AuditEntry:
    return AuditEntry(
        actor=fields["actor"],
        action=fields["action"],
        object=fields["object"],
        outcome=fields["outcome"],
        request_id=fields["request_id"],
        at=ms_to_instant(int(id.partition("-")[0])),
        id=id,
    )


def _making(
    name: str,
    root: str,
    now_ms: int,
    entry: tuple[Any, ...],
    kind: str,
    text: str,
    expires_at: dt.datetime | None,
) -> Call[NewKey]:
    script = load(name)
    id = entry[0]

    def decode(replies: Sequence[Reply]) -> NewKey:
        reply = replies[0]
        match _args.tag_of(script, reply, ""):
            case "CONFLICT":
                raise CredentialConflict(id, "it was made with other content; ask for the same, or take another id")
            case "FULL":
                raise AccessFull(f"{kind} credentials of the namespace", int(reply[1]))
            case "PAST":
                raise InvalidArgument("expires_at", str(expires_at), "in the future")
            case "TOO_FAR":
                raise InvalidArgument("expires_at", str(expires_at), "at most 30 days ahead")
        record = _fields(reply[1])
        # Ours, also when Redis had taken it already and only its reply was lost.
        mine = tokens.same(record["hash"], tokens.hash_of(text))
        return NewKey(credential=_credential(kind, id, record, {}), text=text if mine else None)

    return _args.simple(name, root, now_ms, [entry], decode)


def _issuing(
    name: str, root: str, now_ms: int, entry: tuple[Any, ...], token: str, stands_on: str
) -> Call[IssuedToken]:
    script = load(name)

    def decode(replies: Sequence[Reply]) -> IssuedToken:
        tag = _args.tag_of(script, replies[0], "")
        if tag != "ISSUED":
            raise CredentialRefused(stands_on, tag.lower().replace("_", " "))
        return IssuedToken(text=token, id=_id(token), expires_at=_instant(replies[0][1]))

    return _args.simple(name, root, now_ms, [entry], decode)


def _said(name: str, root: str, now_ms: int, entry: tuple[Any, ...], tag: bytes) -> Call[bool]:
    """Return the call whose value is whether the answer's tag is `tag`."""
    script = load(name)

    def decode(replies: Sequence[Reply]) -> bool:
        if replies[0][0] == b"IN_DOUBT":
            _args.tag_of(script, replies[0], "")
        return bool(replies[0][0] == tag)

    return _args.simple(name, root, now_ms, [entry], decode)


def _rules(name: str, root: str, now_ms: int, of: str) -> Call[tuple[TrustRule, ...]]:
    script = load(name)

    def decode(replies: Sequence[Reply]) -> tuple[TrustRule, ...]:
        _args.tag_of(script, replies[0], "")
        found = [_rule.decode(text) for text in replies[0][1]]
        return tuple(sorted(found, key=lambda rule: (rule.namespace, rule.id)))

    return _args.simple(name, root, now_ms, [(of,)], decode)


# -- checks ----------------------------------------------------------------------------------------------


def _drawn(kind: tokens.Kind, id: str | None) -> tuple[str, str]:
    text = tokens.make(kind, id)
    return text, _id(text)


def _id(text: str) -> str:
    return text[4 : 4 + tokens.ID_LENGTH]


def _admitted(credential: Credential, kind: tokens.Kind) -> Credential:
    if not isinstance(credential, Credential) or credential.kind != kind:
        raise InvalidArgument("credential", credential, f"a {kind} credential, as admit returned it")
    return credential


def _encode_grant(
    scopes: Iterable[str],
    *,
    pools: Iterable[str] | None = None,
    services: Iterable[str] | None = None,
    labels: Mapping[str, str] | None = None,
    role: str | None = None,
) -> bytes:
    grant = Grant(
        scopes=tuple(sorted(validate_scopes(scopes))),
        pools=_names("pools", pools),
        services=_names("services", services),
        labels=None if labels is None else _args.tags(labels),
        role=role,
    )
    raw = _encode(grant)
    if len(raw) > GRANT_BYTES_MAX:
        raise InvalidArgument("labels", len(raw), f"so that all grants are at most {GRANT_BYTES_MAX} bytes of JSON")
    return raw


def _scopes_of(role: str | None, scopes: Iterable[str] | None) -> Iterable[str]:
    """Return the scopes of a person: those of a role, or those given."""
    if (role is None) == (scopes is None):
        raise InvalidArgument("role", role, "given when scopes are not: one of the two")
    if role is not None and role not in ROLES:
        raise InvalidArgument("role", role, f"one of {', '.join(ROLES)}")
    return ROLES[role] if role is not None else scopes or ()


def _names(what: str, names: Iterable[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str):
        raise InvalidArgument(what, names, "an iterable of names; put one into a list")
    found = tuple(sorted({validate_name(what, name) for name in names}))
    if len(found) > NAMES_MAX:
        raise InvalidArgument(what, len(found), f"at most {NAMES_MAX} names")
    return found


def _label(what: str, name: str) -> str:
    if not _args.text(what, name, 64):
        raise InvalidArgument(what, name, "1 to 64 bytes")
    return name


def _person(person: str) -> str:
    if not _args.text("person", person, 128):
        raise InvalidArgument("person", person, "1 to 128 bytes")
    return person


def person_key(person: str) -> str:
    """Return what stands for a person in the names of keys."""
    return hashlib.sha256(person.encode()).hexdigest()[:32]


def _boot(boot_id: str) -> str:
    if not _args.text("boot_id", boot_id, 128):
        raise InvalidArgument("boot_id", boot_id, _BOOT_RULE)
    return boot_id


def _end(expires_at: dt.datetime | None, lasts_s: float | None, most_s: float) -> tuple[int, int]:
    if expires_at is not None and lasts_s is not None:
        raise InvalidArgument("lasts_s", lasts_s, "None when expires_at is given: one of the two")
    expires_ms = 0 if expires_at is None else instant_to_ms("expires_at", expires_at)
    if expires_at is not None and expires_ms <= 0:
        raise InvalidArgument("expires_at", str(expires_at), "in the future")
    return expires_ms, 0 if lasts_s is None else to_ms("lasts_s", lasts_s, 1, most_s)


def _public_key(text: str | None) -> str:
    if text is None:
        return ""
    try:
        raw = base64.b64decode(text, altchars=b"-_" if re.search("[-_]", text) else None, validate=True)
    except (binascii.Error, ValueError) as problem:
        raise InvalidArgument("public_key", text, "an Ed25519 public key: 32 bytes in base64") from problem
    if len(raw) != 32:
        raise InvalidArgument("public_key", text, "an Ed25519 public key: 32 bytes in base64")
    return base64.b64encode(raw).decode()


def _digest(said: Sequence[object]) -> str:
    return hashlib.sha256(_encode(said)).hexdigest()[:32]


def _proof(issuer: str, audience: str) -> str:
    return hashlib.sha256(_encode([issuer, audience])).hexdigest()[:40]


def _check_rule(rule: TrustRule) -> None:
    """Raise `InvalidArgument` unless a rule says exactly whom it trusts."""
    validate_namespace(rule.namespace)
    validate_name("id", rule.id)
    validate_name("pool", rule.pool)
    validate_scopes(rule.scopes)
    to_ms("max_ttl_s", rule.max_ttl_s, 60, TOKEN_S_MAX)
    local = re.match(r"http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/|$)", rule.issuer)
    if not _args.text("issuer", rule.issuer, 512) or not (rule.issuer.startswith("https://") or local):
        raise InvalidArgument("issuer", rule.issuer, "an https URL; http only on this machine")
    if not _args.text("audience", rule.audience, 512):
        raise InvalidArgument("audience", rule.audience, "1 to 512 bytes")
    if not rule.claims or len(rule.claims) > 32:
        raise InvalidArgument("claims", len(rule.claims), "1 to 32 conditions: all users of an issuer share it")
    for name, wanted in rule.claims.items():
        if not _args.text("claims", name, 128) or not _args.text(f"claims[{name}]", wanted, 512):
            _bad_claim(name, wanted, "texts of at most 128 and 512 bytes")
        if "*" in wanted and (name != "sub" or wanted.index("*") != len(wanted) - 1 or len(wanted) < 2):
            _bad_claim(name, wanted, "exact; only sub may end in one *, with something before it")


def _bad_claim(name: str, wanted: str, allowed: str) -> NoReturn:
    raise InvalidArgument(f"claims[{name}]", wanted, allowed)
