"""A token of somebody we trust becomes one of ours, once, and only as the rule says."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from joserfc.jwk import ECKey

from tests.api import shared
from tests.api.client import Api, problem
from tests.api.shared import in_namespace
from tests.oidc import Issuer, Provider, public_key_as_secret, sign

api, key, running = shared.api, shared.key, shared.running

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer("RSA", "EC", "OKP") as issuer:
        yield issuer


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture
def audience() -> str:
    """One for each test, as one for each tenant."""
    return f"https://hybridq.test/{secrets.token_hex(4)}"


def put_rule(api: Api, issuer: str, audience: str, rule_id: str = "ci", **changed: Any) -> None:
    body = {"issuer": issuer, "audience": audience, "claims": {"sub": "repo:42"}, "pool": "linux", **changed}
    answer = api.put(f"/api/trust-rules/{rule_id}", body)
    assert answer.status_code in (200, 201), answer.text


def exchange(api: Api, token: str, **form: str | None) -> httpx2.Response:
    sent = {"grant_type": GRANT, "subject_token": token, "subject_token_type": JWT, **form}
    data = httpx2.QueryParams({name: value for name, value in sent.items() if value is not None})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return api.post("/auth/token", content=str(data), headers=headers, token=None)


def refused(answer: httpx2.Response, error: str, said: str = "") -> None:
    assert answer.status_code == 400, answer.text
    assert answer.json().keys() == {"error", "error_description"}
    assert answer.json()["error"] == error and said in answer.json()["error_description"]
    assert answer.headers["cache-control"] == "no-store"


def test_a_real_provider_s_token_becomes_ours_and_an_agent_registers_with_it(
    api: Api, provider: Provider, audience: str
) -> None:
    put_rule(api, provider.url, audience, claims={"sub": "build-*", "team": "ci"})
    answer = exchange(api, provider.id_token("build-7", aud=audience, team="ci"))
    assert answer.status_code == 200, answer.text
    given = answer.json()
    assert given["access_token"].startswith("hqa_")
    assert given["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    assert (given["token_type"], given["expires_in"], given["scope"]) == ("Bearer", 900, "agents:register")
    assert answer.headers["cache-control"] == "no-store"
    body = {"agent_id": "a1", "boot_id": "b1"}
    registered = api.post("/api/agents/register", body, token=given["access_token"])
    assert registered.status_code == 201 and registered.json()["pool"] == "linux"
    beat = {"session_id": registered.json()["session_id"]}
    assert api.post("/api/agents/a1/heartbeat", beat, token=registered.json()["token"]).status_code == 200
    again = api.post("/api/agents/register", body, token=given["access_token"])
    assert again.status_code == 200, "a lost reply is mended by the same call"
    other = api.post("/api/agents/register", {"agent_id": "a2"}, token=given["access_token"])
    problem(other, 403, "agent_not_allowed")
    problem(api.get("/api/agents", token=given["access_token"]), 403, "missing_scope")


def test_an_exchanged_token_is_no_agent_s_token(api: Api, issuer: Issuer, audience: str) -> None:
    """It would claim past capacity and session; an agent of the name that stands for none would lend it its leases."""
    put_rule(api, issuer.url, audience, pool="default", scopes=["agents:register", "queue:claim"])
    token = exchange(api, issuer.token(aud=audience)).json()["access_token"]
    other = api.post("/api/agents/register", {"agent_id": "None"}).json()
    api.post("/api/queue/jobs", {"payload": 1})
    job = api.post("/api/queue/claim", {"agent_id": "None"}, token=other["token"]).json()["job"]
    start = f"/api/queue/jobs/{job['id']}/start"
    problem(api.post(start, {"lease_token": job["lease_token"]}, token=token), 403, "not_lease_holder")
    problem(api.post("/api/queue/claim", {"agent_id": "a1"}, token=token), 403, "agent_not_allowed")
    agent = api.post("/api/agents/register", {"agent_id": "a1"}, token=token).json()
    problem(api.post("/api/queue/claim", {"agent_id": "a1"}, token=token), 403, "agent_not_allowed")
    problem(api.post("/api/queue/claim", {"agent_id": "a1"}, token=agent["token"]), 404, "no_jobs_available")


def test_an_exchanged_token_ends_the_agent_it_registered_and_no_other(api: Api, issuer: Issuer, audience: str) -> None:
    put_rule(api, issuer.url, audience)
    token = exchange(api, issuer.token(aud=audience)).json()["access_token"]
    api.post("/api/agents/register", {"agent_id": "a1", "boot_id": "b1"}, token=token)
    api.post("/api/agents/register", {"agent_id": "a1", "boot_id": "b1"}, token=token)
    api.post("/api/agents/register", {"agent_id": "a2", "pool": "linux"})
    problem(api.post("/api/agents/a2/deregister", {}, token=token), 403, "agent_not_allowed")
    api.post("/api/agents/register", {"agent_id": "a1", "boot_id": "b2", "pool": "linux"})
    problem(api.post("/api/agents/a1/deregister", {}, token=token), 403, "agent_not_allowed")
    again = exchange(api, issuer.token(aud=audience)).json()["access_token"]
    api.post("/api/agents/register", {"agent_id": "a1", "boot_id": "b3"}, token=again)
    assert api.post("/api/agents/a1/deregister", {}, token=again).status_code == 200


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_every_algorithm_of_the_list_is_taken(api: Api, issuer: Issuer, audience: str, algorithm: str) -> None:
    put_rule(api, issuer.url, audience)
    assert exchange(api, issuer.token(algorithm=algorithm, aud=audience)).status_code == 200


Forge = Callable[[Issuer, dict[str, Any]], str]


def _claims(**changed: Any) -> Forge:
    return lambda issuer, claims: issuer.token(**{**claims, **changed})


def _at(**offsets_s: int) -> Forge:
    """Times that are counted when the token is made: a suite may run for longer than they are off."""
    return lambda issuer, claims: issuer.token(
        **claims, **{name: int(time.time()) + offset_s for name, offset_s in offsets_s.items()}
    )


def _header(**header: Any) -> Forge:
    return lambda issuer, claims: issuer.token(header=header, **claims)


def _signed(header: dict[str, Any], key: Callable[[Issuer], Any]) -> Forge:
    return lambda issuer, claims: sign({"typ": "JWT", **header}, issuer.claims(**claims), key(issuer))


STRANGER = ECKey.generate_key("P-256", {"kid": "ec-1"})
FORGERIES: dict[str, tuple[str, Forge]] = {
    "algorithm none": ("algorithm", _signed({"alg": "none"}, lambda issuer: issuer.keys["RSA"])),
    "public key as secret": (
        "algorithm",
        _signed({"alg": "HS256", "kid": "rsa-1"}, lambda issuer: public_key_as_secret(issuer.keys["RSA"])),
    ),
    "another's key": ("signature", _signed({"alg": "ES256", "kid": "ec-1"}, lambda issuer: STRANGER)),
    "key of another type": ("key", _signed({"alg": "ES256", "kid": "rsa-1"}, lambda issuer: STRANGER)),
    "own key in the header": (
        "header",
        _signed({"alg": "ES256", "jwk": STRANGER.as_dict(private=False)}, lambda issuer: STRANGER),
    ),
    "own key set in the header": ("header", _header(jku="https://evil.test/jwks")),
    "certificate by address": ("header", _header(x5u="https://evil.test/x")),
    "critical extension": ("header", _header(crit=["x"], x=1)),
    "another type": ("type", _header(typ="logout+jwt")),
    "unknown key": ("key", _header(kid="none-such")),
    "expired": ("expired", _at(exp=-61)),
    "without end": ("times", _claims(exp=None)),
    "not yet": ("not_yet_valid", _at(nbf=600)),
    "from the future": ("not_yet_valid", _at(iat=600)),
    "too old": ("too_old", _at(iat=-90_000)),
    "another subject": ("claims", _claims(sub="repo:43")),
    "subject begins alike": ("claims", _claims(sub="repo:421")),
    "a list for a subject": ("subject", _claims(sub=["repo:42"])),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_token_is_refused_by_its_rule(api: Api, issuer: Issuer, audience: str, name: str) -> None:
    rule, make = FORGERIES[name]
    put_rule(api, issuer.url, audience)
    refused(exchange(api, make(issuer, {"aud": audience})), "invalid_request", f": {rule}.")
    newest = api.get("/api/audit").json()["items"][0]
    assert (newest["action"], newest["object"], newest["outcome"]) == ("token.exchange", "ci", f"refused: {rule}")


def test_a_token_is_exchanged_once(api: Api, issuer: Issuer, audience: str) -> None:
    put_rule(api, issuer.url, audience)
    named, unnamed = issuer.token(aud=audience), issuer.token(aud=audience, jti=None)
    for token in (named, unnamed):
        assert exchange(api, token).status_code == 200
        refused(exchange(api, token), "invalid_request", "replay")


def test_a_refused_token_uses_nothing_up(api: Api, issuer: Issuer, audience: str) -> None:
    put_rule(api, issuer.url, audience)
    token = issuer.token(aud=audience)
    refused(exchange(api, token, scope="queue:admin"), "invalid_scope")
    refused(exchange(api, token, audience="https://another.test"), "invalid_target")
    assert exchange(api, token, audience=audience).status_code == 200


def test_without_a_rule_nothing_is_asked_of_the_issuer(api: Api, audience: str) -> None:
    with Issuer("EC") as stranger:
        put_rule(api, "https://elsewhere.test", audience)
        refused(exchange(api, stranger.token(algorithm="ES256", aud=audience)), "invalid_target")
        assert stranger.reads == {}


def test_a_rule_of_another_issuer_or_audience_is_not_met(api: Api, issuer: Issuer, audience: str) -> None:
    put_rule(api, issuer.url, audience)
    refused(exchange(api, issuer.token(aud=f"{audience}/x")), "invalid_target")
    refused(exchange(api, issuer.token(aud=audience, iss=f"{issuer.url}/")), "invalid_target")


def test_pool_and_scopes_are_those_of_the_rule_and_its_time_too(api: Api, issuer: Issuer, audience: str) -> None:
    put_rule(api, issuer.url, audience, pool="mac", scopes=["agents:register", "queue:enqueue"], max_ttl_seconds=120)
    given = exchange(api, issuer.token(aud=audience), scope="queue:enqueue").json()
    assert (given["scope"], given["expires_in"]) == ("queue:enqueue", 120)
    token = given["access_token"]
    assert api.post("/api/queue/jobs", {"pool": "mac", "payload": 1}, token=token).status_code == 201
    problem(api.post("/api/queue/jobs", {"pool": "linux", "payload": 1}, token=token), 403, "pool_not_allowed")


def test_the_rule_with_the_most_conditions_counts(api: Api, issuer: Issuer, audience: str) -> None:
    put_rule(api, issuer.url, audience, "wide", claims={"sub": "repo:*"}, pool="linux")
    put_rule(api, issuer.url, audience, "exact", claims={"sub": "repo:42", "env": "prod"}, pool="prod")
    token = exchange(api, issuer.token(aud=audience, env="prod")).json()["access_token"]
    assert api.post("/api/agents/register", {}, token=token).json()["pool"] == "prod"
    token = exchange(api, issuer.token(aud=audience, env="test")).json()["access_token"]
    assert api.post("/api/agents/register", {}, token=token).json()["pool"] == "linux"


def test_a_rule_that_another_namespace_copied_is_met_by_nobody(
    api: Api,
    running: Api,
    issuer: Issuer,
    audience: str,
) -> None:
    put_rule(api, issuer.url, audience)
    put_rule(in_namespace(running, f"{api.namespace}-2"), issuer.url, audience)
    refused(exchange(api, issuer.token(aud=audience)), "invalid_request", "ambiguous")


def test_tokens_go_with_their_rule(api: Api, issuer: Issuer, audience: str) -> None:
    put_rule(api, issuer.url, audience)
    token = exchange(api, issuer.token(aud=audience)).json()["access_token"]
    assert api.delete("/api/trust-rules/ci").status_code == 204
    problem(api.post("/api/agents/register", {}, token=token), 401, "unauthenticated")
    refused(exchange(api, issuer.token(aud=audience)), "invalid_target")


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"grant_type": None}, "invalid_request"),
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request"),
        ({"actor_token": "x"}, "invalid_request"),
        ({"subject_token": "nonsense"}, "invalid_request"),
        ({"subject_token": "e30.e30."}, "invalid_request"),
        ({"scope": "nothing:known"}, "invalid_scope"),
        ({"scope": "agents:register  agents:register"}, "invalid_scope"),
    ],
)
def test_requests_off_the_rules(
    api: Api, issuer: Issuer, audience: str, form: dict[str, str | None], error: str
) -> None:
    put_rule(api, issuer.url, audience)
    refused(exchange(api, issuer.token(aud=audience), **form), error)


def test_json_is_no_form(api: Api) -> None:
    answer = api.post("/auth/token", {"grant_type": GRANT}, token=None)
    assert answer.status_code == 415 and answer.json()["error"] == "invalid_request"


def test_an_issuer_that_is_away_is_503_until_it_is_back(api: Api, audience: str) -> None:
    with Issuer("EC") as away:
        put_rule(api, away.url, audience)
        away.bent["/jwks"] = (500, {}, b"")
        answer = exchange(api, away.token(algorithm="ES256", aud=audience))
        assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
        assert int(answer.headers["retry-after"]) > 0


def test_a_flood_of_made_up_keys_costs_the_issuer_one_look(api: Api, audience: str) -> None:
    with Issuer("EC") as flooded:
        put_rule(api, flooded.url, audience)
        assert exchange(api, flooded.token(algorithm="ES256", aud=audience)).status_code == 200
        for number in range(20):
            token = flooded.token(algorithm="ES256", aud=audience, header={"kid": f"k{number}"})
            refused(exchange(api, token), "invalid_request", "key")
        assert flooded.reads["/jwks"] == 1
