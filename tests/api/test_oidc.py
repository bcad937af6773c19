"""Tokens of others: each rule has its forgery, issuers that misbehave are borne."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey

from api.oidc import (
    Issuers,
    LoginClient,
    ProviderUnavailable,
    TokenRefused,
    Verified,
    issuer_of,
    state_of,
    valid_issuer,
)
from api.settings import ClaimRule
from tests.oidc import AUDIENCE, Issuer, Provider, public_key_as_secret, sign

CONFIGURATION = "/.well-known/openid-configuration"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def honest() -> Iterator[Issuer]:
    """An issuer that is never bent; its keys take a while to make."""
    with Issuer("RSA", "EC", "OKP") as issuer:
        yield issuer


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """An issuer to be bent."""
    with Issuer("EC") as issuer:
        yield issuer


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


async def check(issuers: Issuers, issuer: Issuer, token: str) -> Verified:
    return await issuers.verify(token, issuer=issuer.url, audiences=[AUDIENCE])


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256", "PS512", "ES256", "EdDSA", "Ed25519"])
async def test_a_good_token_is_believed(honest: Issuer, algorithm: str) -> None:
    token = honest.token(algorithm=algorithm, repository_owner_id="7")
    verified = await check(Issuers(), honest, token)
    assert (verified.issuer, verified.subject) == (honest.url, "repo:42")
    assert verified.claims["repository_owner_id"] == "7"
    assert issuer_of(token) == honest.url


async def test_a_real_provider_is_believed_and_what_it_says_wrong_is_not(provider: Provider) -> None:
    issuers = Issuers()

    async def verify(**claims: Any) -> Verified:
        token = await asyncio.to_thread(provider.id_token, "build-7", **claims)
        return await issuers.verify(token, issuer=provider.url, audiences=[AUDIENCE])

    assert (await verify(team="ci")).claims["team"] == "ci"
    for rule, claims in {
        "audience": {"aud": "https://another.test"},
        "expired": {"exp": int(time.time()) - 61},
        "issuer": {"iss": "https://another.test"},
    }.items():
        with pytest.raises(TokenRefused) as refused:
            await verify(**claims)
        assert refused.value.rule == rule


def _other_key(honest: Issuer) -> str:
    stranger = RSAKey.generate_key(2048, {"kid": honest.keys["RSA"].kid})
    return honest.token(key=stranger)


def _tampered(honest: Issuer) -> str:
    head, _, signature = honest.token().split(".")
    return ".".join((head, honest.token(sub="repo:1").split(".")[1], signature))


def _none(honest: Issuer) -> str:
    return sign({"alg": "none", "typ": "JWT"}, honest.claims(), honest.keys["RSA"])


def _confused(honest: Issuer) -> str:
    header = {"alg": "HS256", "typ": "JWT", "kid": honest.keys["RSA"].kid}
    return sign(header, honest.claims(), public_key_as_secret(honest.keys["RSA"]))


def _own_key_in_header(honest: Issuer) -> str:
    key = ECKey.generate_key("P-256")
    header = {"alg": "ES256", "typ": "JWT", "jwk": key.as_dict(private=False)}
    return sign(header, honest.claims(), key)


def _twice(honest: Issuer) -> str:
    claims = json.dumps(honest.claims()).replace('"sub": "repo:42"', '"sub": "repo:42", "sub": "repo:1"').encode()
    assert claims.count(b'"sub"') == 2
    return sign({"alg": "RS256", "typ": "JWT", "kid": "rsa-1"}, claims, honest.keys["RSA"])


def _header(**header: Any) -> Callable[[Issuer], str]:
    return lambda honest: honest.token(header=header)


def _claims(**changed: Any) -> Callable[[Issuer], str]:
    return lambda honest: honest.token(**changed)


NOW = int(time.time())
FORGERIES: dict[str, tuple[str, Callable[[Issuer], str]]] = {
    "signed by another key": ("signature", _other_key),
    "claims exchanged": ("signature", _tampered),
    "no signature": ("algorithm", _none),
    "signature cut off": ("signature", lambda honest: honest.token().rpartition(".")[0] + "."),
    "public key as shared secret": ("algorithm", _confused),
    "algorithm of another type of key": (
        "key",
        lambda honest: sign(
            {"alg": "ES256", "typ": "JWT", "kid": "rsa-1"}, honest.claims(), ECKey.generate_key("P-256")
        ),
    ),
    "jwk in header": ("header", _own_key_in_header),
    "jku in header": ("header", _header(jku="http://127.0.0.1:1/jwks")),
    "x5u in header": ("header", _header(x5u="http://127.0.0.1:1/x")),
    "crit in header": ("header", _header(crit=["exp"])),
    "unencoded payload": ("header", _header(b64=False)),
    "another type": ("type", _header(typ="logout+jwt")),
    "unknown key": ("key", _header(kid="nobody")),
    "kid is no text": ("key", _header(kid=7)),
    "another issuer": ("issuer", _claims(iss="https://evil.test")),
    "issuer begins alike": ("issuer", lambda honest: honest.token(iss=f"{honest.url}/evil")),
    "no issuer": ("issuer", _claims(iss=None)),
    "another audience": ("audience", _claims(aud="https://evil.test")),
    "audience begins alike": ("audience", _claims(aud=f"{AUDIENCE}.evil.test")),
    "no audience": ("audience", _claims(aud=None)),
    "audience is an object": ("audience", _claims(aud={AUDIENCE: True})),
    "expired": ("expired", _claims(exp=NOW - 61)),
    "never ends": ("times", _claims(exp=None)),
    "end is text": ("times", _claims(exp="9999999999")),
    "end is true": ("times", _claims(exp=True)),
    "end is too large": ("times", _claims(exp=10**30)),
    "not yet": ("not_yet_valid", _claims(nbf=NOW + 36_000)),
    "issued in the future": ("not_yet_valid", _claims(iat=NOW + 36_000)),
    "issued long ago": ("too_old", _claims(iat=NOW - 90_000)),
    "no time of issue": ("times", _claims(iat=None)),
    "no subject": ("subject", _claims(sub=None)),
    "subject is a number": ("subject", _claims(sub=42)),
    "id is a number": ("token_id", _claims(jti=42)),
    "a claim twice": ("shape", _twice),
    "two parts": ("shape", lambda honest: honest.token().rpartition(".")[0]),
    "five parts": ("shape", lambda honest: honest.token() + ".a.b"),
    "not base64": ("shape", lambda honest: "a." + honest.token().partition(".")[2]),
    "too long": ("shape", _claims(pad="x" * 20_000)),
}


@pytest.mark.parametrize("name", FORGERIES)
async def test_a_forged_token_breaks_its_rule(honest: Issuer, name: str) -> None:
    rule, make = FORGERIES[name]
    with pytest.raises(TokenRefused) as refused:
        await check(Issuers(), honest, make(honest))
    assert refused.value.rule == rule


async def test_clocks_may_be_a_minute_off(honest: Issuer) -> None:
    now = int(time.time())
    issuers = Issuers()
    await check(issuers, honest, honest.token(exp=now - 30))
    await check(issuers, honest, honest.token(iat=now + 30, nbf=now + 30))


async def test_a_list_of_audiences_holds_ours(honest: Issuer) -> None:
    await check(Issuers(), honest, honest.token(aud=["https://other.test", AUDIENCE]))


async def test_a_replay_is_known_by_its_id_or_by_what_was_signed(honest: Issuer) -> None:
    issuers = Issuers()
    first, second = honest.token(jti="one"), honest.token(jti="one", exp=int(time.time()) + 200)
    assert (await check(issuers, honest, first)).replay_id == (await check(issuers, honest, second)).replay_id
    claims = honest.claims(jti=None)
    header = {"alg": "ES256", "typ": "JWT", "kid": honest.keys["EC"].kid}
    unnamed = [sign(header, claims, honest.keys["EC"]) for _ in range(2)]
    assert unnamed[0] != unnamed[1], "each signature of ES256 differs"
    ids = {(await check(issuers, honest, token)).replay_id for token in unnamed}
    assert len(ids) == 1


async def test_a_token_that_names_no_key_is_checked_with_the_only_one_that_fits(honest: Issuer) -> None:
    claims = honest.claims()
    await check(Issuers(), honest, sign({"alg": "ES256"}, claims, honest.keys["EC"]))


async def test_a_key_for_another_algorithm_is_not_used(issuer: Issuer) -> None:
    rsa = RSAKey.generate_key(2048, {"kid": "r"})
    issuer.served = [{**rsa.as_dict(private=False), "alg": "RS512"}]
    with pytest.raises(TokenRefused, match="key"):
        await check(Issuers(), issuer, issuer.token(key=rsa))


async def test_keys_that_are_weak_or_for_something_else_are_not_used(issuer: Issuer) -> None:
    good = OKPKey.generate_key("Ed25519", {"kid": "good"})
    issuer.keys["OKP"] = good
    issuer.served = [
        {"kty": "RSA", "kid": "weak", "n": "AQAB" * 40, "e": "AQAB"},
        {"kty": "oct", "kid": "secret", "k": "c2VjcmV0"},
        {"kty": "OKP", "kid": "torn", "crv": "Ed25519", "x": "AA"},
        {**issuer.keys["EC"].as_dict(private=False), "use": "enc"},
        "not an object",
        good.as_dict(private=False),
    ]
    issuers = Issuers()
    await check(issuers, issuer, issuer.token(algorithm="EdDSA"))
    with pytest.raises(TokenRefused, match="key"):
        await check(issuers, issuer, issuer.token(algorithm="ES256"))


async def test_a_new_key_is_found_and_the_old_one_is_gone(issuer: Issuer) -> None:
    clock = Clock()
    issuers = Issuers(clock=clock)
    old = issuer.token(algorithm="ES256")
    await check(issuers, issuer, old)
    issuer.rotate("EC")
    clock.now += 61
    await check(issuers, issuer, issuer.token(algorithm="ES256"))
    with pytest.raises(TokenRefused, match="key"):
        await check(issuers, issuer, old)


async def test_a_withdrawn_key_goes_without_anybody_naming_another(issuer: Issuer) -> None:
    clock = Clock()
    issuers = Issuers(clock=clock)
    old = issuer.token(algorithm="ES256")
    await check(issuers, issuer, old)
    issuer.rotate("EC")
    clock.now += 601
    with pytest.raises(TokenRefused, match="key"):
        await check(issuers, issuer, old)


async def test_a_flood_of_made_up_keys_is_one_look_a_minute(issuer: Issuer) -> None:
    clock = Clock()
    issuers = Issuers(clock=clock)
    await check(issuers, issuer, issuer.token(algorithm="ES256"))

    async def refused(number: int) -> None:
        with pytest.raises(TokenRefused, match="key"):
            await check(issuers, issuer, issuer.token(algorithm="ES256", header={"kid": f"k{number}"}))

    await asyncio.gather(*(refused(number) for number in range(50)))
    assert issuer.reads["/jwks"] == 1
    clock.now += 61
    await asyncio.gather(*(refused(number) for number in range(50)))
    assert issuer.reads["/jwks"] == 2


async def test_many_at_once_read_the_documents_once(issuer: Issuer) -> None:
    issuers = Issuers()
    await asyncio.gather(*(check(issuers, issuer, issuer.token(algorithm="ES256")) for _ in range(20)))
    assert issuer.reads == {CONFIGURATION: 1, "/jwks": 1}


async def test_the_last_good_keys_outlive_an_outage(issuer: Issuer) -> None:
    clock = Clock()
    issuers = Issuers(clock=clock)
    await check(issuers, issuer, issuer.token(algorithm="ES256"))
    issuer.bent["/jwks"] = (503, {}, b"{}")
    for _ in range(3):
        clock.now += 700
        await check(issuers, issuer, issuer.token(algorithm="ES256"))
    with pytest.raises(TokenRefused, match="key"):
        await check(issuers, issuer, issuer.token(algorithm="ES256", header={"kid": "new"}))
    clock.now += 86_400
    with pytest.raises(ProviderUnavailable):
        await check(issuers, issuer, issuer.token(algorithm="ES256"))
    issuer.bent.clear()
    clock.now += 61
    await check(issuers, issuer, issuer.token(algorithm="ES256"))


async def test_an_issuer_that_is_away_is_not_asked_again_at_once(issuer: Issuer) -> None:
    clock = Clock()
    issuers = Issuers(clock=clock)
    issuer.bent[CONFIGURATION] = (500, {}, b"")
    for _ in range(5):
        with pytest.raises(ProviderUnavailable):
            await check(issuers, issuer, issuer.token(algorithm="ES256"))
    assert issuer.reads[CONFIGURATION] == 1
    issuer.bent.clear()
    clock.now += 6
    await check(issuers, issuer, issuer.token(algorithm="ES256"))


def _bad_documents(issuer: Issuer) -> dict[str, tuple[str, tuple[int, dict[str, str], bytes]]]:
    jwks = json.dumps({"keys": issuer.jwks()}).encode()
    moved = json.dumps({"issuer": issuer.url, "jwks_uri": "http://10.0.0.1/jwks"}).encode()
    renamed = json.dumps({"issuer": f"{issuer.url}/", "jwks_uri": f"{issuer.url}/jwks"}).encode()
    return {
        "larger than any": ("/jwks", (200, {}, jwks[:-1] + b" " * 5_000_000 + b"}")),
        "a redirect": ("/jwks", (302, {"Location": f"{issuer.url}/elsewhere"}, jwks)),
        "a redirect to this": (CONFIGURATION, (301, {"Location": "http://127.0.0.1:1/"}, b"")),
        "an error that looks well": ("/jwks", (404, {}, jwks)),
        "not JSON": ("/jwks", (200, {}, b"<html>")),
        "a list": ("/jwks", (200, {}, b"[]")),
        "too many keys": ("/jwks", (200, {}, json.dumps({"keys": issuer.jwks() * 101}).encode())),
        "keys over plain http": (CONFIGURATION, (200, {}, moved)),
        "of another issuer": (CONFIGURATION, (200, {}, renamed)),
    }


@pytest.mark.parametrize(
    "name",
    [
        "larger than any",
        "a redirect",
        "a redirect to this",
        "an error that looks well",
        "not JSON",
        "a list",
        "too many keys",
        "keys over plain http",
        "of another issuer",
    ],
)
async def test_documents_that_are_off_are_not_believed(issuer: Issuer, name: str) -> None:
    path, answer = _bad_documents(issuer)[name]
    issuer.bent[path] = answer
    issuer.bent["/elsewhere"] = (200, {}, json.dumps({"keys": issuer.jwks()}).encode())
    with pytest.raises(ProviderUnavailable):
        await check(Issuers(), issuer, issuer.token(algorithm="ES256"))
    assert "/elsewhere" not in issuer.reads


def test_an_issuer_is_an_https_address_or_on_this_machine() -> None:
    for good in ("https://token.actions.test", "https://a.test/realms/x", "http://127.0.0.1:9/x", "http://localhost"):
        assert valid_issuer(good), good
    for bad in (
        "http://a.test",
        "https://a.test?x=1",
        "https://a.test?",
        "https://a.test#f",
        "https://u:p@a.test",
        "file:///etc/passwd",
        "https://",
        "https://a.test:99999",
        "http://2130706433",
        "http://127.1",
        "https://a.test/\u200b",
    ):
        assert not valid_issuer(bad), bad


# -- a person's way in --------------------------------------------------------------------------------------

RULES = (
    ClaimRule(claim="groups", value="ops", role="operator"),
    ClaimRule(claim="email", value="root@hybridq.test", role="admin"),
    ClaimRule(claim="groups", value="readers", role="viewer", namespace="other"),
)


@pytest.fixture
async def client(provider: Provider) -> AsyncIterator[LoginClient]:
    yield LoginClient(
        Issuers(),
        issuer=provider.url,
        client_id="hybridq",
        client_secret="any & all",
        redirect_url="http://127.0.0.1/",
        rules=RULES,
    )


async def _sign_in(client: LoginClient, provider: Provider, subject: str, **claims: Any) -> Any:
    await asyncio.to_thread(provider.put_user, subject, **claims)
    begun = await client.begin()
    back = await asyncio.to_thread(provider.sign_in, begun.url, subject)
    assert back["state"] == begun.state == state_of(begun.binding)
    return await client.finish(back["code"], verifier=begun.verifier, nonce=begun.nonce)


async def test_a_person_comes_in_by_the_strongest_rule(client: LoginClient, provider: Provider) -> None:
    person = await _sign_in(client, provider, "ada", groups=["x", "ops"], email="root@hybridq.test")
    assert (person.role, person.namespace, person.person) == ("admin", "default", "ada")
    person = await _sign_in(client, provider, "bob", groups=["readers"], preferred_username="ada")
    assert (person.role, person.namespace, person.person) == ("viewer", "other", "bob")


async def test_who_meets_no_rule_stays_out(client: LoginClient, provider: Provider) -> None:
    assert (await _sign_in(client, provider, "eve", groups=["xops", "op"])).role is None
    assert (await _sign_in(client, provider, "eve", groups="ops-not")).role is None


async def test_an_address_that_nobody_verified_lets_nobody_in(client: LoginClient, provider: Provider) -> None:
    person = await _sign_in(client, provider, "mal", email="root@hybridq.test", email_verified=False)
    assert person.role is None


async def test_another_login_s_nonce_or_verifier_is_refused(client: LoginClient, provider: Provider) -> None:
    first, second = await client.begin(), await client.begin()
    code = (await asyncio.to_thread(provider.sign_in, first.url, "ada"))["code"]
    with pytest.raises(TokenRefused, match="nonce"):
        await client.finish(code, verifier=first.verifier, nonce=second.nonce)
    with pytest.raises(TokenRefused, match="code"):
        await client.finish(code, verifier=first.verifier, nonce=first.nonce)
    with pytest.raises(TokenRefused, match="code"):
        await client.finish("made-up", verifier=first.verifier, nonce=first.nonce)
    assert "code_challenge_method=S256" in first.url and first.verifier not in first.url


async def test_an_id_token_for_another_client_is_refused(client: LoginClient, provider: Provider) -> None:
    for claims in ({"aud": "another"}, {"aud": ["hybridq", "another"]}, {"azp": "another"}):
        with pytest.raises(TokenRefused, match="audience"):
            await _sign_in(client, provider, "ada", **claims)


async def test_the_code_is_redeemed_with_the_verifier_of_its_challenge(issuer: Issuer) -> None:
    client = LoginClient(
        Issuers(),
        issuer=issuer.url,
        client_id="h:q",
        client_secret="s c",
        redirect_url="http://127.0.0.1/",
        rules=RULES,
    )
    begun = await client.begin()
    query = {name: values[0] for name, values in parse_qs(urlsplit(begun.url).query).items()}
    issuer.next_id_token = issuer.token(algorithm="ES256", aud="h:q", nonce=begun.nonce, groups=["ops"])
    assert (await client.finish("c0de", verifier=begun.verifier, nonce=begun.nonce)).role == "operator"
    form = issuer.posted[-1]
    digest = hashlib.sha256(form["code_verifier"].encode()).digest()
    assert query["code_challenge"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert query["code_challenge_method"] == "S256" and len(form["code_verifier"]) >= 43
    assert form["redirect_uri"] == query["redirect_uri"] and form["code"] == "c0de"
    assert form["authorization"] == "Basic " + base64.b64encode(b"h%3Aq:s+c").decode()
