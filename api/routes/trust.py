"""Trust rules: whose signed tokens are exchanged for ours, and for which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from hybridq import TrustRule

from ..audit_trail import audit, noting_refusals
from ..grants import check_not_wider, check_pool, check_scopes
from ..http.answer import Answer
from ..http.names import Name, refuse_reserved
from ..http.problems import Problem, invalid
from ..http.request import Request
from ..http.route import route
from ..oidc import valid_issuer
from ..paging import next_cursor, position_of
from .keys import Page, Scopes

__all__ = ["RuleView"]

ClaimName = Annotated[str, Meta(min_length=1, max_length=128)]
ClaimValue = Annotated[str, Meta(min_length=1, max_length=512)]


class PutRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    issuer: Annotated[str, Meta(min_length=1, max_length=512)]
    audience: Annotated[str, Meta(min_length=1, max_length=512)]
    claims: Annotated[
        dict[ClaimName, ClaimValue],
        Meta(
            min_length=1,
            max_length=32,
            description="Conditions: claim and exact value. That of `sub` may end in one *.",
        ),
    ]
    pool: Name = "default"
    scopes: Scopes = msgspec.field(default_factory=lambda: ["agents:register"])
    max_ttl_seconds: Annotated[int, Meta(ge=60, le=3600)] = 900


class RuleView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    issuer: str
    audience: str
    claims: Mapping[str, str]
    pool: str
    scopes: tuple[str, ...]
    max_ttl_seconds: float


class RuleList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[RuleView]
    next_cursor: str | None


@route(
    "GET",
    "/api/trust-rules",
    scope="keys:manage",
    query=Page,
    answers={200: RuleList},
    problems=["invalid_cursor"],
    summary="Trust rules by id.",
    tags=["keys"],
)
async def list_trust_rules(request: Request) -> Answer:
    query: Page = request.query
    after = await position_of(request) or ""
    rules = [rule for rule in await _visible(request) if rule.id > after]
    page = rules[: query.limit]
    following = page[-1].id if len(rules) > len(page) else None
    return Answer(RuleList(items=[_view(rule) for rule in page], next_cursor=await next_cursor(request, following)))


@route(
    "PUT",
    "/api/trust-rules/{id:name}",
    scope="keys:manage",
    rate="admin",
    body=PutRule,
    answers={200: RuleView, 201: RuleView},
    problems=["limit_reached", "not_found", "pool_not_allowed", "reserved_name", "scope_escalation"],
    guard="refuse",
    summary="Set a trust rule.",
    tags=["keys"],
    examples={
        "body": {
            "issuer": "https://token.actions.example.com",
            "audience": "https://hybridq.example.com",
            "claims": {"repository_owner_id": "1234"},
            "pool": "linux",
        }
    },
)
async def put_trust_rule(request: Request) -> Answer:
    body: PutRule = request.body
    caller, rule_id = request.credential, request.path["id"]
    refuse_reserved("/path/id", rule_id)
    if not valid_issuer(body.issuer):
        raise invalid("/issuer", "must be an https URL without query; http on this machine alone")
    for name, wanted in body.claims.items():
        if "*" in wanted and (name != "sub" or wanted.index("*") != len(wanted) - 1 or len(wanted) < 2):
            raise invalid("/claims", "must be exact; only that of sub may end in one *, after something else")
    check_scopes("/scopes", body.scopes)
    async with noting_refusals(request, "rule.put", rule_id):
        check_pool(caller, body.pool)
        check_not_wider(caller, scopes=body.scopes, pools=[body.pool], any_service=True, expires_at=caller.expires_at)
    rule = TrustRule(
        id=rule_id,
        namespace=caller.namespace,
        issuer=body.issuer,
        audience=body.audience,
        claims=body.claims,
        pool=body.pool,
        scopes=tuple(sorted(body.scopes)),
        max_ttl_s=float(body.max_ttl_seconds),
    )
    if caller.pools is not None:
        await _refuse_hidden(request, rule_id)
    created = await request.plane.access.put_trust_rule(rule)
    await audit(request, "rule.create" if created else "rule.change", rule_id)
    return Answer(_view(rule), 201 if created else 200)


@route(
    "DELETE",
    "/api/trust-rules/{id:name}",
    scope="keys:manage",
    rate="admin",
    answers={204: None},
    problems=["not_found"],
    summary="Delete a trust rule: tokens that were given by it are refused from the next call on.",
    tags=["keys"],
)
async def delete_trust_rule(request: Request) -> Answer:
    caller, rule_id = request.credential, request.path["id"]
    if caller.pools is not None:
        await _refuse_hidden(request, rule_id)
    if not await request.plane.access.delete_trust_rule(caller.namespace, rule_id):
        raise Problem("not_found")
    await audit(request, "rule.delete", rule_id)
    return Answer(None, 204)


async def _visible(request: Request) -> list[TrustRule]:
    caller = request.credential
    rules = await request.plane.access.trust_rules(caller.namespace)
    return [rule for rule in rules if caller.allows_pool(rule.pool)]


async def _refuse_hidden(request: Request, rule_id: str) -> None:
    """Raise 404 for a rule that is there and about a pool which is not the caller's."""
    rules = await request.plane.access.trust_rules(request.credential.namespace)
    if any(rule.id == rule_id and not request.credential.allows_pool(rule.pool) for rule in rules):
        raise Problem("not_found")


def _view(rule: TrustRule) -> RuleView:
    return RuleView(
        id=rule.id,
        issuer=rule.issuer,
        audience=rule.audience,
        claims=rule.claims,
        pool=rule.pool,
        scopes=rule.scopes,
        max_ttl_seconds=rule.max_ttl_s,
    )
