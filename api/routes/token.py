"""The exchange of a signed token of somebody we trust for one of ours (RFC 8693)."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Final

import msgspec
import structlog
from msgspec import Meta

from hybridq import CredentialRefused, TrustRule

from ..audit_trail import audit
from ..http.answer import Answer
from ..http.problems import Problem
from ..http.request import Request
from ..http.route import route
from ..http.scopes import PUBLIC
from ..oidc import ProviderUnavailable, TokenRefused, Verified, audiences_of, issuer_of
from .agents import token_s
from .sessions import issuers_of, provider_unavailable

__all__: list[str] = []

log = structlog.get_logger("hybridq.api")

GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
SUBJECT_TYPES: Final = frozenset({"urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token"})
AUDIENCES_MAX: Final = 8
KEPT_LONGER_S: Final = 120.0
"""Longer than clocks may differ, so that no token is forgotten while it would still be taken."""
KEPT_S_MAX: Final = 2 * 86_400.0


class Exchange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    grant_type: Annotated[str, Meta(min_length=1, max_length=128)]
    subject_token: Annotated[str, Meta(min_length=1, max_length=16_384)]
    subject_token_type: Annotated[str, Meta(min_length=1, max_length=128)]
    audience: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    scope: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    requested_token_type: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class Exchanged(msgspec.Struct, frozen=True, kw_only=True):
    access_token: str
    issued_token_type: str
    token_type: str
    expires_in: int
    scope: str


@route(
    "POST",
    "/auth/token",
    scope=PUBLIC,
    rate="auth",
    body=Exchange,
    form=True,
    answers={200: Exchanged},
    problems=[
        "invalid_request",
        "invalid_scope",
        "invalid_target",
        "provider_unavailable",
        "unsupported_grant_type",
    ],
    summary="Exchange an OpenID Connect token for an agent token, by trust rules (RFC 8693).",
    tags=["auth"],
    examples={
        "body": {
            "grant_type": GRANT,
            "subject_token": "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        }
    },
)
async def exchange_token(request: Request) -> Answer:
    body: Exchange = request.body
    if body.grant_type != GRANT:
        raise Problem("unsupported_grant_type")
    if body.subject_token_type not in SUBJECT_TYPES:
        raise Problem("invalid_request", "subject_token_type must be that of a JWT or an ID token.")
    if body.requested_token_type not in (None, ACCESS_TOKEN):
        raise Problem("invalid_request", "Only access tokens are given.")
    offered = await _rules_for(request, body)
    try:
        rule, verified = await _check(request, body, offered)
        scopes = _scopes(rule, body.scope)
        await _only_once(request, verified)
        issued = await request.plane.access.issue_exchange_token(
            msgspec.structs.replace(rule, scopes=scopes), subject=verified.subject, token_s=token_s(request)
        )
    except TokenRefused as refused:
        log.warning("exchange.refused", component="auth", rule=refused.rule)
        await _note(request, offered, f"refused: {refused.rule}")
        raise Problem("invalid_request", f"The subject token is refused: {refused.rule}.") from None
    except CredentialRefused:
        raise Problem("invalid_target") from None
    except ProviderUnavailable:
        raise provider_unavailable() from None
    await _note(request, (rule,), "done", verified.subject)
    return Answer(
        Exchanged(
            access_token=issued.text,
            issued_token_type=ACCESS_TOKEN,
            token_type="Bearer",
            expires_in=max(0, round((issued.expires_at - dt.datetime.now(dt.UTC)).total_seconds())),
            scope=" ".join(scopes),
        ),
        headers={"Cache-Control": "no-store", "Pragma": "no-cache"},
    )


async def _rules_for(request: Request, body: Exchange) -> tuple[TrustRule, ...]:
    """Return the rules for who the token says it is from and for: what anybody can make up opens nothing by itself."""
    try:
        issuer, named = issuer_of(body.subject_token), audiences_of(body.subject_token)
    except TokenRefused as refused:
        log.warning("exchange.refused", component="auth", rule=refused.rule)
        raise Problem("invalid_request", f"The subject token is refused: {refused.rule}.") from None
    wanted = [one for one in named[:AUDIENCES_MAX] if body.audience in (None, one)]
    found: list[TrustRule] = []
    for audience in wanted:
        if 1 <= len(issuer.encode()) <= 512 and 1 <= len(audience.encode()) <= 512:
            found += await request.plane.access.find_trust_rules(issuer, audience)
    if not found:
        log.warning("exchange.refused", component="auth", rule="no_rule")
        raise Problem("invalid_target")
    return tuple(found)


async def _check(request: Request, body: Exchange, offered: tuple[TrustRule, ...]) -> tuple[TrustRule, Verified]:
    """Return the rule that the token meets, the one with the most conditions, and what it says.

    One that is met in two namespaces would let either take the other's agents in, so it is met in none.
    """
    verified = await issuers_of(request.plane).verify(
        body.subject_token, issuer=offered[0].issuer, audiences=sorted({rule.audience for rule in offered})
    )
    met = [rule for rule in offered if rule.matches(verified.claims)]
    if not met:
        raise TokenRefused("claims")
    if len({rule.namespace for rule in met}) > 1:
        raise TokenRefused("ambiguous")
    return max(met, key=lambda rule: (len(rule.claims), rule.id)), verified


def _scopes(rule: TrustRule, asked: str | None) -> tuple[str, ...]:
    if asked is None:
        return rule.scopes
    named = asked.split(" ")
    if not all(named) or not set(named) <= set(rule.scopes):
        raise Problem("invalid_scope")
    return tuple(sorted(set(named)))


async def _only_once(request: Request, verified: Verified) -> None:
    """Raise `TokenRefused` for a token that was exchanged before: remembered for as long as it could come again."""
    left_s = verified.expires_at - dt.datetime.now(dt.UTC).timestamp() + KEPT_LONGER_S
    kept_s = min(max(left_s, KEPT_LONGER_S), KEPT_S_MAX)
    if not await request.plane.access.remember_once("jti", verified.replay_id, kept_s):
        raise TokenRefused("replay")


async def _note(request: Request, rules: tuple[TrustRule, ...], outcome: str, subject: str | None = None) -> None:
    """Note an exchange in the namespaces whose rules it was about."""
    actor = "nobody" if subject is None else f"subject:{subject}"
    for namespace in sorted({rule.namespace for rule in rules}):
        about = next(rule.id for rule in rules if rule.namespace == namespace)
        await audit(request, "token.exchange", about, outcome, actor=actor, namespace=namespace)
