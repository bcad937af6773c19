"""People: the way to their provider and back, and the session that their browser then has.

The state of a login belongs to the browser that began it: half of it is a cookie. So a page that has somebody else
finish an attacker's login gets nowhere, and a client that is no browser (it sends neither Origin nor Sec-Fetch-Site)
needs no cookie.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Final, Literal
from weakref import WeakKeyDictionary

import msgspec
import structlog
from msgspec import Meta

from hybridq import Credential, OpenedSession, tokens

from ..audit_trail import audit
from ..http.answer import Answer
from ..http.door import session_cookie_name
from ..http.problems import RETRY_S, Problem, invalid
from ..http.request import Request
from ..http.route import route
from ..http.scopes import PUBLIC, ROLES
from ..oidc import Identity, Issuers, LoginClient, ProviderUnavailable, TokenRefused, state_of
from ..plane import Plane

__all__ = ["issuers_of", "provider_unavailable"]

log = structlog.get_logger("hybridq.api")
LOGIN_S: Final = 600

_issuers: Final[WeakKeyDictionary[Plane, Issuers]] = WeakKeyDictionary()


class NewSession(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Either `code` and `state`, or `login_token`."""

    code: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    state: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    login_token: Annotated[str, Meta(min_length=1, max_length=256)] | None = None


class User(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    role: str | None
    namespace: str
    scopes: list[str]


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    user: User
    expires_at: dt.datetime
    csrf_token: str
    """To be sent as X-CSRF-Token with every change."""


class Validity(msgspec.Struct, frozen=True, kw_only=True):
    valid: bool
    user: User | None
    expires_at: dt.datetime | None
    csrf_token: str | None


# -- to the provider ------------------------------------------------------------------------------------------


@route(
    "GET",
    "/auth/login",
    scope=PUBLIC,
    rate="auth",
    answers={302: None},
    problems=["not_found", "provider_unavailable"],
    summary="Go to the provider and sign in; 404 where none is set up.",
    tags=["auth"],
)
async def begin_login(request: Request) -> Answer:
    client = _client_of(request)
    try:
        begun = await client.begin()
    except ProviderUnavailable:
        raise provider_unavailable() from None
    await request.plane.access.begin_login(begun.state, verifier=begun.verifier, nonce=begun.nonce, ttl_s=LOGIN_S)
    return Answer(None, 302, {"Location": begun.url}, cookies=_cookie(request, "login", begun.binding, LOGIN_S))


def issuers_of(plane: Plane) -> Issuers:
    """Return the issuers of this server, with what is kept of them."""
    found = _issuers.get(plane)
    if found is None:
        found = _issuers[plane] = Issuers()
    return found


def provider_unavailable() -> Problem:
    """Return the 503 of a provider that is away."""
    return Problem("provider_unavailable", headers={"Retry-After": str(RETRY_S)})


def _client_of(request: Request) -> LoginClient:
    settings = request.settings
    if settings.oidc_issuer is None or settings.oidc_client_id is None or settings.oidc_redirect_url is None:
        raise Problem("not_found", "No provider to sign in with is set up.")
    secret = settings.oidc_client_secret
    return LoginClient(
        issuers_of(request.plane),
        issuer=settings.oidc_issuer,
        client_id=settings.oidc_client_id,
        client_secret=None if secret is None else secret.reveal(),
        redirect_url=settings.oidc_redirect_url,
        rules=settings.oidc_rules,
    )


# -- back, and into a session -------------------------------------------------------------------------------------


@route(
    "POST",
    "/auth/session",
    scope=PUBLIC,
    rate="auth",
    body=NewSession,
    answers={201: SessionView},
    problems=["csrf", "login_failed", "no_role", "not_found", "provider_unavailable"],
    summary="Turn what the provider sent back, or a one-time login, into a session: a cookie with a new id.",
    tags=["auth"],
    examples={"body": {"code": "SplxlOBeZQQYbYS6WxSbIA", "state": "af0ifjsldkj"}},
)
async def create_session(request: Request) -> Answer:
    body: NewSession = request.body
    if _cookie_name(request, "session") is None:
        # A browser would not bring the cookie back, and it would not be taken.
        raise Problem("login_failed", "Sign in over https, or on this machine.")
    _check_origin(request)
    if body.login_token is not None and body.code is None and body.state is None:
        user, grant = await _by_login_token(request, body.login_token)
    elif body.code is not None and body.state is not None and body.login_token is None:
        user, grant = await _by_code(request, body.code, body.state)
    else:
        raise invalid("", "must hold code and state, or login_token")
    settings = request.settings
    opened = await request.plane.access.open_session(
        user.name,
        namespace=user.namespace,
        life_s=settings.session_ttl_s,
        idle_s=settings.session_idle_s,
        replaces=await _session_before(request),
        **grant,
    )
    await audit(request, "session.open", opened.id, actor=f"person:{user.name}", namespace=user.namespace)
    return _answer(request, user, opened)


def _check_origin(request: Request) -> None:
    """Raise 403 for a login that another site's page sends: it would put its own person into this browser."""
    origin, host = request.header("origin"), request.header("host") or ""
    if origin is not None and origin.lower() != f"{request.scheme}://{host}".lower():
        raise Problem("csrf")
    if request.header("sec-fetch-site") not in (None, "same-origin", "none"):
        raise Problem("csrf")


async def _by_login_token(request: Request, text: str) -> tuple[User, dict[str, Any]]:
    token = await request.plane.access.take_login_token(text)
    if token is None:
        raise _failed("login_token")
    user = User(name=token.person, role=token.role, namespace=token.namespace, scopes=sorted(token.scopes))
    grant: dict[str, Any] = {"role": token.role} if token.role is not None else {"scopes": token.scopes}
    return user, {**grant, "pools": token.pools, "services": token.services}


async def _by_code(request: Request, code: str, state: str) -> tuple[User, dict[str, Any]]:
    client = _client_of(request)
    binding = request.cookie(_cookie_name(request, "login") or "")
    is_browser = request.header("origin") is not None or request.header("sec-fetch-site") is not None
    if (binding is not None or is_browser) and state_of(binding or "") != state:
        raise _failed("state")
    begun = await request.plane.access.take_login(state)
    if begun is None:
        raise _failed("state")
    try:
        person = await client.finish(code, verifier=begun.verifier, nonce=begun.nonce)
    except TokenRefused as refused:
        raise _failed(refused.rule) from None
    except ProviderUnavailable:
        raise provider_unavailable() from None
    if person.role is None:
        await _note_refused(request, person)
        raise Problem("no_role")
    user = User(name=person.person, role=person.role, namespace=person.namespace, scopes=sorted(ROLES[person.role]))
    return user, {"role": person.role}


def _failed(rule: str) -> Problem:
    log.warning("login.failed", component="auth", rule=rule)
    return Problem("login_failed", headers={"WWW-Authenticate": 'Session realm="hybridq"'})


async def _note_refused(request: Request, person: Identity) -> None:
    await audit(
        request, "session.open", "", "refused", actor=f"person:{person.person}", namespace=request.plane.namespace
    )


async def _session_before(request: Request) -> str | None:
    """Return the id of the session that this browser had, which ends now: nobody's who only names its id."""
    cookie = _session_cookie(request)
    if cookie is None:
        return None
    admission = await request.plane.access.admit(cookie, peer=request.peer, rate_class="auth", limit_per_second=0)
    found = admission.credential
    return found.id if found is not None and found.kind == "session" else None


def _answer(request: Request, user: User, opened: OpenedSession) -> Answer:
    view = SessionView(user=user, expires_at=opened.expires_at, csrf_token=opened.csrf_token)
    session = _cookie(request, "session", opened.text, request.settings.session_ttl_s)
    return Answer(view, 201, cookies=(*session, *_cookie(request, "login", "", 0)))


# -- in a session -----------------------------------------------------------------------------------------------


@route(
    "POST",
    "/auth/validate",
    scope=PUBLIC,
    optional_session=True,
    csrf=False,
    rate="auth",
    answers={200: Validity},
    summary="Does the cookie belong to a session, and whose? Brings the CSRF token.",
    tags=["auth"],
)
async def validate_session(request: Request) -> Answer:
    session, cookie = request.caller, _session_cookie(request)
    if session is None or cookie is None:
        return Answer(Validity(valid=False, user=None, expires_at=None, csrf_token=None))
    return Answer(
        Validity(
            valid=True,
            user=_user_of(session),
            expires_at=session.expires_at,
            csrf_token=tokens.csrf_of(cookie),
        )
    )


@route(
    "POST",
    "/auth/logout",
    scope=PUBLIC,
    optional_session=True,
    rate="auth",
    answers={204: None},
    summary="End the session; without one there is nothing to do.",
    tags=["auth"],
)
async def end_session(request: Request) -> Answer:
    session = request.caller
    if session is not None:
        await request.plane.access.close_session(session.id)
        await audit(request, "session.close", session.id)
    headers = {"Clear-Site-Data": '"cache", "cookies", "storage"'}
    return Answer(None, 204, headers, cookies=_cookie(request, "session", "", 0))


def _user_of(session: Credential) -> User:
    return User(
        name=session.name or session.id,
        role=session.role,
        namespace=session.namespace,
        scopes=sorted(session.scopes),
    )


# -- cookies ----------------------------------------------------------------------------------------------------


def _cookie_name(request: Request, what: Literal["session", "login"]) -> str | None:
    """Return the name of a cookie beside that of the session; None where no cookie would be safe."""
    name = session_cookie_name(request.scheme, request.peer)
    return None if name is None else name.replace("session", what)


def _session_cookie(request: Request) -> str | None:
    name = _cookie_name(request, "session")
    return request.cookie(name) if name else None


def _cookie(request: Request, what: Literal["session", "login"], value: str, lasts_s: int) -> tuple[str, ...]:
    """Return a Set-Cookie for scripts of no page and requests of no other site; `lasts_s` 0 takes it away."""
    name = _cookie_name(request, what)
    if name is None:
        return ()
    secure = "; Secure" if request.scheme == "https" else ""
    return (f"{name}={value}; Path=/; Max-Age={lasts_s}; HttpOnly; SameSite=Lax{secure}",)
