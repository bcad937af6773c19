"""API keys and registration keys: made, listed, revoked. A key's text is shown once, to whoever made it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from hybridq import Credential, NewKey, tokens

from ..audit_trail import audit, noting_refusals
from ..grants import check_not_wider, check_pool, check_scopes, covers_pools
from ..http.answer import Answer
from ..http.cursors import CURSOR, CURSOR_CHARS_MAX
from ..http.names import Name
from ..http.problems import Problem, invalid
from ..http.request import Request
from ..http.route import route
from ..paging import next_cursor, position_of
from .agents import Labels

__all__ = ["KeyView", "Page", "Scopes"]

FAR: Final = dt.timedelta(days=3660)
REGISTRATION_FAR: Final = dt.timedelta(days=30)
REGISTRATION_USUAL: Final = dt.timedelta(hours=1)

Scopes = Annotated[list[Annotated[str, Meta(min_length=1, max_length=64)]], Meta(min_length=1, max_length=32)]
Names = Annotated[list[Name], Meta(min_length=1, max_length=100)]
Title = Annotated[str, Meta(min_length=1, max_length=64)]
PublicKey = Annotated[
    str,
    Meta(
        pattern="^[A-Za-z0-9_-]{43}$",
        description="Ed25519 public key in base64url, as `x` of RFC 8037. Requests must then be signed (RFC 9421).",
    ),
]


class NewApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Title
    scopes: Scopes
    pools: Names | None = None
    services: Names | None = None
    expires_at: dt.datetime | None = None
    public_key: PublicKey | None = None


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str | None
    scopes: list[str]
    pools: tuple[str, ...] | None
    services: tuple[str, ...] | None
    expires_at: dt.datetime | None
    created_by: str | None
    last_used_at: dt.datetime | None
    created_at: dt.datetime | None
    require_signature: bool


class MadeKey(KeyView, frozen=True, kw_only=True):
    key: str | None
    """Null in the answer to a repeat: a key is shown once."""


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[KeyView]
    next_cursor: str | None


class NewRegistrationKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pool: Name
    labels: Labels | None = None
    uses: Annotated[int, Meta(ge=1, le=1000)] = 1
    expires_at: dt.datetime | None = None


class RegistrationView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    pool: str | None
    labels: Mapping[str, str]
    uses: int | None
    uses_spent: int | None
    expires_at: dt.datetime | None
    created_by: str | None
    last_used_at: dt.datetime | None
    created_at: dt.datetime | None


class MadeRegistration(RegistrationView, frozen=True, kw_only=True):
    key: str | None
    """Null in the answer to a repeat: a key is shown once."""


class RegistrationList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[RegistrationView]
    next_cursor: str | None


class Page(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=100)] = 50
    cursor: Annotated[str, Meta(pattern=CURSOR, max_length=CURSOR_CHARS_MAX)] | None = None


# -- API keys -------------------------------------------------------------------------------------------------


@route(
    "GET",
    "/api/keys",
    scope="keys:manage",
    query=Page,
    answers={200: KeyList},
    problems=["invalid_cursor"],
    summary="API keys, the newest first, without their texts.",
    tags=["keys"],
)
async def list_keys(request: Request) -> Answer:
    items, cursor = await _page(request, "key")
    return Answer(KeyList(items=[_view(key) for key in items], next_cursor=cursor))


@route(
    "POST",
    "/api/keys",
    scope="keys:manage",
    rate="admin",
    body=NewApiKey,
    answers={200: MadeKey, 201: MadeKey},
    problems=["credential_conflict", "limit_reached", "scope_escalation"],
    guard="refuse",
    idempotent=True,
    summary="Make an API key. Its text is in this answer and nowhere else.",
    tags=["keys"],
    examples={"body": {"name": "ci", "scopes": ["queue:enqueue", "queue:read"], "pools": ["linux"]}},
)
async def create_key(request: Request) -> Answer:
    body: NewApiKey = request.body
    caller = request.credential
    check_scopes("/scopes", body.scopes)
    _check_end(body.expires_at, FAR)
    async with noting_refusals(request, "key.create"):
        check_not_wider(
            caller,
            scopes=body.scopes,
            pools=body.pools,
            services=body.services,
            expires_at=body.expires_at,
            signs=body.public_key is not None,
        )
    made = await request.plane.access.create_key(
        body.name,
        scopes=body.scopes,
        namespace=caller.namespace,
        pools=body.pools,
        services=body.services,
        expires_at=body.expires_at,
        created_by=caller.acts_as,
        require_signature=body.public_key is not None,
        public_key=None if body.public_key is None else f"{body.public_key}=",
        key_id=_key_id(request),
    )
    return await _made(request, made, "key.create", MadeKey)


@route(
    "DELETE",
    "/api/keys/{id:name}",
    scope="keys:manage",
    rate="admin",
    answers={204: None},
    problems=["not_found"],
    summary="Revoke an API key: it is refused from the next call on.",
    tags=["keys"],
)
async def revoke_key(request: Request) -> Answer:
    return await _revoke(request, "key")


# -- registration keys --------------------------------------------------------------------------------------------


@route(
    "GET",
    "/api/agents/keys",
    scope="agents:manage",
    query=Page,
    answers={200: RegistrationList},
    problems=["invalid_cursor"],
    summary="Registration keys, the newest first, without their texts.",
    tags=["keys"],
)
async def list_registration_keys(request: Request) -> Answer:
    items, cursor = await _page(request, "registration")
    return Answer(RegistrationList(items=[_registration_view(key) for key in items], next_cursor=cursor))


@route(
    "POST",
    "/api/agents/keys",
    scope="agents:manage",
    rate="admin",
    body=NewRegistrationKey,
    answers={200: MadeRegistration, 201: MadeRegistration},
    problems=["credential_conflict", "limit_reached", "pool_not_allowed", "scope_escalation"],
    guard="refuse",
    idempotent=True,
    summary="Make a key that agents of one pool register with: so many of them, for so long (an hour by default).",
    tags=["keys"],
    examples={"body": {"pool": "linux", "labels": {"os": "linux"}, "uses": 3}},
)
async def create_registration_key(request: Request) -> Answer:
    body: NewRegistrationKey = request.body
    caller = request.credential
    expires_at = _registration_end(caller, body.expires_at)
    async with noting_refusals(request, "registration.create"):
        check_pool(caller, body.pool)
        check_not_wider(caller, scopes=(), pools=[body.pool], any_service=True, expires_at=expires_at)
    made = await request.plane.access.create_registration_key(
        caller.namespace,
        body.pool,
        labels=body.labels,
        uses=body.uses,
        expires_at=expires_at,
        created_by=caller.acts_as,
        key_id=_key_id(request),
    )
    return await _made(request, made, "registration.create", MadeRegistration)


@route(
    "DELETE",
    "/api/agents/keys/{id:name}",
    scope="agents:manage",
    rate="admin",
    answers={204: None},
    problems=["not_found"],
    summary="Revoke a registration key; agents that registered with it go on.",
    tags=["keys"],
)
async def revoke_registration_key(request: Request) -> Answer:
    return await _revoke(request, "registration")


# -- what both share ----------------------------------------------------------------------------------------------


def _key_id(request: Request) -> str | None:
    """Return the id that an Idempotency-Key stands for, so that the same call again finds the key it made."""
    asked = request.idempotent_id("key")
    return None if asked is None else tokens.derived_id(asked)


def _check_end(expires_at: dt.datetime | None, far: dt.timedelta) -> None:
    now = dt.datetime.now(dt.UTC)
    if expires_at is None:
        return
    if expires_at.tzinfo is None:
        raise invalid("/expires_at", "must have a time zone")
    if not now < expires_at <= now + far:
        raise invalid("/expires_at", f"must be in the future, at most {far.days} days ahead")


def _registration_end(caller: Credential, asked: dt.datetime | None) -> dt.datetime | None:
    """Return when a registration key ends. Without a word it is an hour from now, or when the caller's own key ends."""
    _check_end(asked, REGISTRATION_FAR)
    if asked is not None or caller.kind != "key" or caller.expires_at is None:
        return asked
    return min(caller.expires_at, dt.datetime.now(dt.UTC) + REGISTRATION_USUAL)


async def _made(request: Request, made: NewKey, action: str, kind: type[MadeKey] | type[MadeRegistration]) -> Answer:
    again = made.text is None
    if not again:
        await audit(request, action, made.credential.id)
    view = _view(made.credential) if kind is MadeKey else _registration_view(made.credential)
    headers = {"Idempotency-Replayed": "true"} if again else None
    return Answer(kind(**msgspec.structs.asdict(view), key=made.text), 200 if again else 201, headers)


async def _page(request: Request, kind: Literal["key", "registration"]) -> tuple[list[Credential], str | None]:
    """Return one page of the keys that the caller may see: one that is bound to pools sees none that reach further."""
    query: Page = request.query
    caller = request.credential
    page = await request.plane.access.keys(
        caller.namespace, kind=kind, limit=query.limit, cursor=await position_of(request)
    )
    return [key for key in page.items if covers_pools(caller, key.pools)], await next_cursor(request, page.next_cursor)


async def _revoke(request: Request, kind: Literal["key", "registration"]) -> Answer:
    caller, key_id = request.credential, request.path["id"]
    if caller.pools is not None and not await _is_visible(request, kind, key_id):
        raise Problem("not_found")
    if not await request.plane.access.revoke_key(caller.namespace, key_id, kind=kind):
        raise Problem("not_found")
    await audit(request, f"{kind}.revoke", key_id)
    return Answer(None, 204)


async def _is_visible(request: Request, kind: Literal["key", "registration"], key_id: str) -> bool:
    caller = request.credential
    cursor: str | None = None
    while True:
        page = await request.plane.access.keys(caller.namespace, kind=kind, limit=100, cursor=cursor)
        for key in page.items:
            if key.id == key_id:
                return covers_pools(caller, key.pools)
        cursor = page.next_cursor
        if cursor is None:
            return False


def _view(key: Credential) -> KeyView:
    return KeyView(
        id=key.id,
        name=key.name,
        scopes=sorted(key.scopes),
        pools=key.pools,
        services=key.services,
        expires_at=key.expires_at,
        created_by=key.created_by,
        last_used_at=key.last_used_at,
        created_at=key.created_at,
        require_signature=key.require_signature,
    )


def _registration_view(key: Credential) -> RegistrationView:
    return RegistrationView(
        id=key.id,
        pool=key.pool,
        labels=key.labels or {},
        uses=key.uses,
        uses_spent=key.uses_spent,
        expires_at=key.expires_at,
        created_by=key.created_by,
        last_used_at=key.last_used_at,
        created_at=key.created_at,
    )
