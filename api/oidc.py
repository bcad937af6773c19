"""OpenID Connect: whom a signed token speaks of, and the way of a person through their provider.

Two users: `POST /auth/token` checks tokens of workloads against the issuers that trust rules name, `/auth/login` and
`/auth/session` send a person to the provider of the settings and read the ID token that comes back.

An issuer's documents are fetched over https (http on this machine alone), without redirects, up to a size and within
a time; its keys are kept, read anew at most once a minute when a token names one that is not known, and outlive an
outage of the issuer. Addresses inside a private network are allowed: clusters issue tokens there, and only those who
may write trust rules name issuers.

Sources: RFC 7515, 7517, 7519, 8725 (best practices), OpenID Connect Core §3.1.3.7, Discovery §4.3, RFC 7636 (PKCE).
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import ipaddress
import json
import re
import secrets
import ssl
import time
from collections.abc import Callable, Collection
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

import httpx2
import structlog
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key

from .settings import ClaimRule

__all__ = [
    "ALGORITHMS",
    "Identity",
    "Issuers",
    "LoginClient",
    "LoginStart",
    "ProviderUnavailable",
    "TokenRefused",
    "Verified",
    "audiences_of",
    "issuer_of",
    "state_of",
    "valid_issuer",
]

ALGORITHMS: Final[dict[str, str]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    **dict.fromkeys(("EdDSA", "Ed25519"), "OKP"),
}
"""Algorithms that a token may be signed with, and the type of key that each needs. No shared secrets, no `none`."""

SKEW_S: Final = 60
"""How far another's clock may be off."""
AGE_MAX_S: Final = 86_400
"""A token that was issued longer ago is not looked at, however long it wants to live."""
TOKEN_BYTES_MAX: Final = 16_384
DOCUMENT_BYTES_MAX: Final = 256 * 1024
KEYS_MAX: Final = 100
ISSUERS_MAX: Final = 256
PERSON_BYTES_MAX: Final = 100
FETCH_WITHIN_S: Final = 5.0
FRESH_S: Final = 600.0
"""Keys of this age are read anew, so that one which was withdrawn goes."""
LAST_GOOD_S: Final = 86_400.0
"""For so long keys are believed while their issuer cannot be reached."""
REFETCH_S: Final = 60.0
AGAIN_S: Final = 5.0
"""After a failure, when nothing is known yet."""

_PART = re.compile(r"[A-Za-z0-9_-]+")
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt", "application/jwt"})
_FORBIDDEN_HEADERS = ("crit", "jku", "jwk", "x5u", "b64", "zip", "enc")
"""Headers that would have us fetch or believe a key of the sender's choice, or read the token in another way."""

log = structlog.get_logger("hybridq.api")
T = TypeVar("T")


class TokenRefused(Exception):
    """A token breaks a rule. `rule` is a word of ours; nothing of the token is kept."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        super().__init__(rule)


class ProviderUnavailable(Exception):
    """The issuer's documents cannot be had now, and none are kept."""


class Verified(NamedTuple):
    """What a token says, after everything about it was checked."""

    issuer: str
    subject: str
    claims: dict[str, Any]
    replay_id: str
    """The same for the same token, another for any other."""
    expires_at: int
    """Seconds since 1970."""


# -- reading a token ----------------------------------------------------------------------------------------


class _Unverified(NamedTuple):
    header: dict[str, Any]
    claims: dict[str, Any]


def issuer_of(token: str) -> str:
    """Return who a token says it is from: to choose what to check it against, not to believe it.

    Raises `TokenRefused`.
    """
    issuer = _read(token).claims.get("iss")
    if not isinstance(issuer, str):
        raise TokenRefused("issuer")
    return issuer


def audiences_of(token: str) -> list[str]:
    """Return whom a token says it is for; as `issuer_of`. Raises `TokenRefused`."""
    return _audiences(_read(token).claims)


def _audiences(claims: dict[str, Any]) -> list[str]:
    named = claims.get("aud")
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
        raise TokenRefused("audience")
    return named


def _read(token: str) -> _Unverified:
    parts = token.split(".")
    if len(token) > TOKEN_BYTES_MAX or len(parts) != 3 or not all(map(_PART.fullmatch, parts[:2])):
        raise TokenRefused("shape")
    if parts[2] and _PART.fullmatch(parts[2]) is None:
        raise TokenRefused("shape")
    return _Unverified(_json_object(parts[0]), _json_object(parts[1]))


def _json_object(part: str) -> dict[str, Any]:
    try:
        found = json.loads(
            base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError):
        raise TokenRefused("shape") from None
    if not isinstance(found, dict):
        raise TokenRefused("shape")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers of one token must not see two different values."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _no_constant(_: str) -> Any:
    raise ValueError


def _check_header(header: dict[str, Any]) -> str:
    """Return the algorithm. Raises `TokenRefused`."""
    if any(name in header for name in _FORBIDDEN_HEADERS):
        raise TokenRefused("header")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenRefused("type")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise TokenRefused("algorithm")
    if not isinstance(header.get("kid", ""), str):
        raise TokenRefused("key")
    return algorithm


class _Registry(jws.JWSRegistry):
    """Knows our algorithms and no others; says nothing about names that newer RFCs prefer."""

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise TokenRefused("algorithm")
        return self.algorithms[name]


_registry = _Registry(strict_check_header=False)
_registry.max_header_length = _registry.max_payload_length = TOKEN_BYTES_MAX


def _check_signature(token: str, key: Key) -> None:
    try:
        jws.deserialize_compact(token.encode("ascii"), key, registry=_registry)
    except (JoseError, ValueError):
        raise TokenRefused("signature") from None


def _check_times(claims: dict[str, Any], now: float) -> int:
    """Return when the token ends. Raises `TokenRefused`."""
    times = {name: claims.get(name) for name in ("exp", "iat", "nbf")}
    for value in times.values():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise TokenRefused("times")
        if value is not None and not 0 <= value < 2**53:
            raise TokenRefused("times")
    if times["exp"] is None or times["iat"] is None:
        raise TokenRefused("times")
    if times["exp"] <= now - SKEW_S:
        raise TokenRefused("expired")
    if times["iat"] > now + SKEW_S or (times["nbf"] or 0) > now + SKEW_S:
        raise TokenRefused("not_yet_valid")
    if now - times["iat"] > AGE_MAX_S + SKEW_S:
        raise TokenRefused("too_old")
    return int(times["exp"])


def _check_audience(claims: dict[str, Any], audiences: Collection[str]) -> None:
    if not any(one in audiences for one in _audiences(claims)):
        raise TokenRefused("audience")


# -- issuers ------------------------------------------------------------------------------------------------


def valid_issuer(text: str) -> bool:
    """Whether a text can be an issuer: an https URL without query or fragment; http on this machine alone."""
    try:
        parts = urlsplit(text)
        port_is_right = parts.port is None or parts.port > 0
    except ValueError:
        return False
    plain = not (parts.query or parts.fragment or parts.username or parts.password) and "?" not in text
    return plain and port_is_right and _may_be_fetched(text) and text.isascii() and text.isprintable()


def _may_be_fetched(url: str) -> bool:
    parts = urlsplit(url)
    if not parts.hostname or parts.username or parts.password:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_this_machine(parts.hostname))


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


async def _fetch(method: str, url: str, **options: Any) -> tuple[int, Any]:
    """Return status and JSON of an answer; neither redirected, nor larger or slower than its bounds."""
    try:
        if not _may_be_fetched(url):
            raise ProviderUnavailable
        async with asyncio.timeout(FETCH_WITHIN_S):
            async with httpx2.AsyncClient(verify=_tls(), trust_env=False, timeout=FETCH_WITHIN_S) as client:
                async with client.stream(method, url, headers={"Accept": "application/json"}, **options) as answer:
                    body = bytearray()
                    async for chunk in answer.aiter_bytes():
                        body += chunk
                        if len(body) > DOCUMENT_BYTES_MAX:
                            raise ProviderUnavailable
                    return answer.status_code, json.loads(bytes(body)) if body else None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError, ValueError, RecursionError) as wrong:
        log.warning("oidc.fetch_failed", component="oidc", error_type=type(wrong).__name__)
        raise ProviderUnavailable from None


async def _fetch_document(url: str) -> dict[str, Any]:
    status, document = await _fetch("GET", url)
    if status != 200 or not isinstance(document, dict):
        log.warning("oidc.bad_document", component="oidc", status=status)
        raise ProviderUnavailable
    return document


class _Kept(NamedTuple):
    metadata: dict[str, Any]
    keys: tuple[Key, ...]
    at: float


class _Issuer:
    """One issuer's documents as they were last read."""

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        self._url, self._clock = url, clock
        self._kept: _Kept | None = None
        self._tried_at = float("-inf")
        self._reading: asyncio.Task[_Kept] | None = None

    async def metadata(self) -> dict[str, Any]:
        return (await self._known()).metadata

    async def key(self, algorithm: str, kid: str | None) -> Key:
        """Return the one key that a token's header can mean. Raises `TokenRefused`, `ProviderUnavailable`."""
        kept = await self._known()
        found = _choose(kept.keys, algorithm, kid)
        if found is None and self._clock() - self._tried_at >= REFETCH_S:
            # It may be newer than what is kept. Whoever sends made-up names causes one look a minute, no more.
            try:
                kept = await self._read()
            except ProviderUnavailable:
                raise TokenRefused("key") from None
            found = _choose(kept.keys, algorithm, kid)
        if found is None:
            raise TokenRefused("key")
        return found

    async def _known(self) -> _Kept:
        kept, now = self._kept, self._clock()
        if kept is None:
            if self._reading is None and now - self._tried_at < AGAIN_S:
                raise ProviderUnavailable
            return await self._read()
        if now - kept.at < FRESH_S or now - self._tried_at < REFETCH_S:
            if now - kept.at >= LAST_GOOD_S:
                raise ProviderUnavailable
            return kept
        try:
            return await self._read()
        except ProviderUnavailable:
            if now - kept.at >= LAST_GOOD_S:
                raise
            return kept

    async def _read(self) -> _Kept:
        """Read both documents; who asks while they are being read gets the same answer."""
        if self._reading is None:
            self._tried_at = self._clock()
            self._reading = asyncio.get_running_loop().create_task(self._read_documents())
            self._reading.add_done_callback(self._has_read)
        return await asyncio.shield(self._reading)

    def _has_read(self, done: asyncio.Task[_Kept]) -> None:
        self._reading = None
        if not done.cancelled() and done.exception() is None:
            self._kept = done.result()

    async def _read_documents(self) -> _Kept:
        metadata = await _fetch_document(f"{self._url.rstrip('/')}/.well-known/openid-configuration")
        if metadata.get("issuer") != self._url or not isinstance(metadata.get("jwks_uri"), str):
            log.warning("oidc.bad_document", component="oidc", status=200)
            raise ProviderUnavailable
        document = await _fetch_document(metadata["jwks_uri"])
        keys = document.get("keys")
        if not isinstance(keys, list) or len(keys) > KEYS_MAX:
            raise ProviderUnavailable
        return _Kept(metadata, tuple(key for one in keys if (key := _key_of(one)) is not None), self._clock())


def _key_of(document: Any) -> Key | None:
    """Return a key that tokens may be checked with; None for any that is of no use for that, or too weak."""
    if not isinstance(document, dict) or document.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    if document.get("use", "sig") != "sig" or not isinstance(document.get("kid", ""), str):
        return None
    public = {name: document[name] for name in ("kty", "kid", "alg", "n", "e", "crv", "x", "y") if name in document}
    try:
        if document["kty"] == "RSA" and len(base64.urlsafe_b64decode(document["n"] + "==")) < 256:
            return None
        return JWKRegistry.import_key(public)
    except (JoseError, ValueError, TypeError, KeyError):
        return None


def _choose(keys: tuple[Key, ...], algorithm: str, kid: str | None) -> Key | None:
    """Return the key of this name, or the only one that fits a token which names none."""
    fitting = [key for key in keys if key.key_type == ALGORITHMS[algorithm] and key.get("alg", algorithm) == algorithm]
    if kid is not None:
        fitting = [key for key in fitting if key.kid == kid]
    return fitting[0] if len(fitting) == 1 else None


class Issuers:
    """Everybody whose tokens are looked at, with their keys. `clock`: seconds that only grow."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._issuers: dict[str, _Issuer] = {}

    def of(self, url: str) -> _Issuer:
        found = self._issuers.pop(url, None) or _Issuer(url, self._clock)
        self._issuers[url] = found  # the one used last is the last to go
        while len(self._issuers) > ISSUERS_MAX:
            del self._issuers[next(iter(self._issuers))]
        return found

    async def verify(
        self, token: str, *, issuer: str, audiences: Collection[str], now: float | None = None
    ) -> Verified:
        """Return what a token of this issuer, meant for one of these audiences, says.

        Raises `TokenRefused` with the rule it breaks, `ProviderUnavailable` when its keys cannot be had.
        """
        header, claims = _read(token)
        algorithm = _check_header(header)
        if claims.get("iss") != issuer:
            raise TokenRefused("issuer")
        # Whoever made it up gets no further than this, so their words decide nothing before it.
        _check_signature(token, await self.of(issuer).key(algorithm, header.get("kid")))
        expires_at = _check_times(claims, time.time() if now is None else now)
        _check_audience(claims, audiences)
        subject, token_id = claims.get("sub"), claims.get("jti")
        if not isinstance(subject, str) or not 1 <= len(subject) <= 1024:
            raise TokenRefused("subject")
        if token_id is not None and (not isinstance(token_id, str) or not token_id):
            raise TokenRefused("token_id")
        # Without an id of its own a token is known by what was signed: the signature can be written in several ways.
        unique = f"{issuer}\n{token_id}" if token_id is not None else token.rpartition(".")[0]
        return Verified(issuer, subject, claims, hashlib.sha256(unique.encode()).hexdigest(), expires_at)


# -- a person's way in ------------------------------------------------------------------------------------


class LoginStart(NamedTuple):
    """What is kept while a person is at their provider, and where they are sent."""

    url: str
    state: str
    verifier: str
    nonce: str
    binding: str
    """Goes into a cookie of that browser; `state_of(binding)` is the state."""


class Identity(NamedTuple):
    """Who came back."""

    person: str
    """What names them for good: it stands in the audit, and in the approval of deployments."""
    role: str | None
    """None: no rule lets them in."""
    namespace: str


def state_of(binding: str) -> str:
    """Return the state that belongs to a browser's cookie: so nobody can be made to finish another's login."""
    return hashlib.sha256(b"hybridq login\n" + binding.encode("utf-8", "replace")).hexdigest()


class LoginClient:
    """Speaks to the provider of the settings: authorization code with PKCE (RFC 7636), always S256."""

    def __init__(
        self,
        issuers: Issuers,
        *,
        issuer: str,
        client_id: str,
        client_secret: str | None,
        redirect_url: str,
        rules: Collection[ClaimRule],
    ) -> None:
        self._issuers, self._issuer = issuers, issuer
        self._client_id, self._client_secret, self._redirect_url = client_id, client_secret, redirect_url
        self._rules = tuple(rules)

    async def begin(self) -> LoginStart:
        """Return where to send the browser. Raises `ProviderUnavailable`."""
        endpoint = await self._endpoint("authorization_endpoint")
        binding, verifier, nonce = (secrets.token_urlsafe(32) for _ in range(3))
        state = state_of(binding)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self._client_id,
                "redirect_uri": self._redirect_url,
                "scope": "openid profile email",
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
        )
        joint = "&" if urlsplit(endpoint).query else "?"
        return LoginStart(f"{endpoint}{joint}{query}", state, verifier, nonce, binding)

    async def finish(self, code: str, *, verifier: str, nonce: str) -> Identity:
        """Return who the provider says came back with `code`. Its own tokens are dropped here.

        Raises `TokenRefused`, `ProviderUnavailable`.
        """
        metadata = await self._issuers.of(self._issuer).metadata()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_url,
            "code_verifier": verifier,
        }
        options: dict[str, Any] = {"data": form}
        methods = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if self._client_secret is None:
            form["client_id"] = self._client_id
        elif "client_secret_basic" in methods or "client_secret_post" not in methods:
            options["auth"] = (_form_encoded(self._client_id), _form_encoded(self._client_secret))
        else:
            form |= {"client_id": self._client_id, "client_secret": self._client_secret}
        status, document = await _fetch("POST", await self._endpoint("token_endpoint"), **options)
        if 500 <= status or status == 429:
            raise ProviderUnavailable
        token = document.get("id_token") if isinstance(document, dict) else None
        if status != 200 or not isinstance(token, str):
            raise TokenRefused("code")
        verified = await self._issuers.verify(token, issuer=self._issuer, audiences=(self._client_id,))
        self._check_id_token(verified.claims, nonce)
        return self._admit(verified)

    def _check_id_token(self, claims: dict[str, Any], nonce: str) -> None:
        """Check what only an ID token has (OpenID Connect Core §3.1.3.7)."""
        named = claims.get("nonce")
        if not isinstance(named, str) or not secrets.compare_digest(named.encode(), nonce.encode()):
            raise TokenRefused("nonce")
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if (several or "azp" in claims) and claims.get("azp") != self._client_id:
            raise TokenRefused("audience")

    def _admit(self, verified: Verified) -> Identity:
        """Return the person with the strongest role that the rules give them in the first namespace that has one.

        They are known by their subject: a name or an address is what people can change, to approve their own work.
        """
        person = verified.subject
        if len(person.encode()) > PERSON_BYTES_MAX or not person.isprintable():
            person = hashlib.sha256(person.encode("utf-8", "surrogatepass")).hexdigest()
        met = [rule for rule in self._rules if _meets(verified.claims, rule)]
        if not met:
            return Identity(person, None, "default")
        namespace = met[0].namespace
        strength = {"viewer": 0, "operator": 1, "admin": 2}
        role = max((rule.role for rule in met if rule.namespace == namespace), key=strength.__getitem__)
        return Identity(person, role, namespace)

    async def _endpoint(self, name: str) -> str:
        found = (await self._issuers.of(self._issuer).metadata()).get(name)
        if not isinstance(found, str) or not _may_be_fetched(found):
            raise ProviderUnavailable
        return found


def _form_encoded(text: str) -> str:
    """Return what RFC 6749 §2.3.1 wants inside of Basic."""
    return urlencode({"": text})[1:]


def _meets(claims: dict[str, Any], rule: ClaimRule) -> bool:
    value = claims.get(rule.claim)
    if rule.claim == "email" and claims.get("email_verified") is False:
        return False  # anybody can write any address there
    return value == rule.value if isinstance(value, str) else isinstance(value, list) and rule.value in value
