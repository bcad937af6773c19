"""Signed requests (RFC 9421): required where a key says so, in time, and once."""

from __future__ import annotations

import base64
import datetime as dt
import secrets
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from http_message_signatures import HTTPMessageSigner, MappingKeyResolver
from http_message_signatures.algorithms import ED25519, HMAC_SHA256

from tests.api import shared
from tests.api.client import Api, problem

api, running = shared.api, shared.running

COVERED = ("@method", "@target-uri", "authorization", "content-digest")


class Signer:
    """A client that holds a key and its private half."""

    def __init__(self, api: Api, *scopes: str) -> None:
        self.api, self.client = api, api.connect()
        self.private = Ed25519PrivateKey.generate()
        public = base64.urlsafe_b64encode(self.private.public_key().public_bytes_raw()).rstrip(b"=").decode()
        made = api.post("/api/keys", {"name": "signed", "scopes": list(scopes) or ["*"], "public_key": public})
        assert made.status_code == 201, made.text
        assert made.json()["require_signature"] is True
        self.id, self.text = made.json()["id"], made.json()["key"]

    def request(self, method: str = "POST", path: str = "/api/queue/jobs", body: Any = None) -> httpx2.Request:
        body = {"payload": 1} if body is None and method == "POST" else body
        headers = {"Authorization": f"Bearer {self.text}"}
        return self.client.build_request(method, path, json=body, headers=headers)

    def sign(
        self,
        request: httpx2.Request,
        *,
        covered: Sequence[str] = COVERED,
        nonce: str | None = "",
        age_s: float = 0.0,
        key_id: str | None = None,
        private: Ed25519PrivateKey | None = None,
        expires_s: float | None = None,
    ) -> httpx2.Request:
        now = dt.datetime.now(dt.UTC)
        keys = MappingKeyResolver(public_keys={}, private_keys={key_id or self.id: private or self.private})
        HTTPMessageSigner(signature_algorithm=ED25519, key_resolver=keys).sign(
            request,
            key_id=key_id or self.id,
            created=now - dt.timedelta(seconds=age_s),
            expires=None if expires_s is None else now + dt.timedelta(seconds=expires_s),
            nonce=secrets.token_hex(8) if nonce == "" else nonce,
            covered_component_ids=covered,
            body=request.content or None,
        )
        return request

    def send(self, request: httpx2.Request) -> httpx2.Response:
        return self.client.send(request)


@pytest.fixture
def signer(api: Api) -> Signer:
    return Signer(api)


def test_a_signed_request_passes_and_an_unsigned_one_does_not(signer: Signer) -> None:
    assert signer.send(signer.sign(signer.request())).status_code == 201
    look = signer.request("GET", "/api/queue/jobs?limit=5&type=a%20b")
    assert signer.send(signer.sign(look, covered=COVERED[:3])).status_code == 200
    unsigned = signer.send(signer.request())
    problem(unsigned, 401, "signature_required")
    assert unsigned.headers["www-authenticate"].startswith("Signature ")


def test_a_key_that_asks_for_no_signature_needs_none(api: Api) -> None:
    assert api.post("/api/queue/jobs", {"payload": 1}).status_code == 201
    headers = {"Signature": "x", "Signature-Input": "y"}
    assert api.post("/api/queue/jobs", {"payload": 1}, headers=headers).status_code == 201


def _body(request: httpx2.Request) -> httpx2.Request:
    content = request.content.replace(b"1", b"2")
    return httpx2.Request(request.method, request.url, headers=request.headers, content=content)


def _without_digest(request: httpx2.Request) -> httpx2.Request:
    del request.headers["content-digest"]
    return request


def _path(request: httpx2.Request) -> httpx2.Request:
    url = request.url.copy_with(path="/api/dashboard/jobs")
    return httpx2.Request(request.method, url, headers=request.headers, content=request.content)


def _query(request: httpx2.Request) -> httpx2.Request:
    url = request.url.copy_with(query=b"x=1")
    return httpx2.Request(request.method, url, headers=request.headers, content=request.content)


def _method(request: httpx2.Request) -> httpx2.Request:
    return httpx2.Request("PATCH", request.url, headers=request.headers, content=request.content)


def _cut(request: httpx2.Request) -> httpx2.Request:
    request.headers["signature"] = request.headers["signature"][:40] + ":"
    return request


def _younger(request: httpx2.Request) -> httpx2.Request:
    created = int(dt.datetime.now(dt.UTC).timestamp())
    text = request.headers["signature-input"]
    begin, _, rest = text.partition("created=")
    request.headers["signature-input"] = f"{begin}created={created + 1}{rest[10:]}"
    return request


@pytest.mark.parametrize("change", [_body, _without_digest, _path, _query, _cut, _younger])
def test_what_was_signed_cannot_be_changed(signer: Signer, change: Any) -> None:
    problem(signer.send(change(signer.sign(signer.request()))), 401, "signature_invalid")


def test_the_method_is_signed(signer: Signer, api: Api) -> None:
    job = api.post("/api/queue/jobs", {"payload": 1}).json()["id"]
    look = signer.sign(signer.request("GET", f"/api/queue/jobs/{job}"), covered=COVERED[:3])
    gone = httpx2.Request("DELETE", look.url, headers=look.headers)
    problem(signer.send(gone), 401, "signature_invalid")
    assert api.get(f"/api/queue/jobs/{job}").json()["status"] == "QUEUED"


@pytest.mark.parametrize("left_out", COVERED)
def test_every_component_must_be_covered(signer: Signer, left_out: str) -> None:
    covered = [one for one in COVERED if one != left_out]
    request = signer.request()
    if left_out == "content-digest":  # the package adds it by itself when it is given the body
        content = request.content
        request = signer.request("GET", "/api/queue/jobs")
        signer.sign(request, covered=covered)
        request = httpx2.Request("GET", request.url, headers={**request.headers}, content=content)
        request.headers["content-type"] = "application/json"
    else:
        signer.sign(request, covered=covered)
    problem(signer.send(request), 401, "signature_invalid")


def test_a_signature_is_good_for_a_minute(signer: Signer) -> None:
    assert signer.send(signer.sign(signer.request(), age_s=50)).status_code == 201
    problem(signer.send(signer.sign(signer.request(), age_s=62)), 401, "signature_invalid")
    problem(signer.send(signer.sign(signer.request(), age_s=-60)), 401, "signature_invalid")
    problem(signer.send(signer.sign(signer.request(), expires_s=-10)), 401, "signature_invalid")


def test_a_nonce_is_good_once(signer: Signer, api: Api) -> None:
    signed = signer.sign(signer.request())
    assert signer.send(signed).status_code == 201
    problem(signer.send(signed), 401, "signature_invalid")
    problem(signer.send(signer.sign(signer.request(), nonce=None)), 401, "signature_invalid")
    problem(signer.send(signer.sign(signer.request(), nonce="x" * 129)), 401, "signature_invalid")
    other = Signer(api)
    mine, theirs = signer.sign(signer.request(), nonce="same"), other.sign(other.request(), nonce="same")
    assert (signer.send(mine).status_code, other.send(theirs).status_code) == (201, 201)


def test_another_s_key_signs_nothing(signer: Signer, api: Api) -> None:
    other = Signer(api)
    problem(signer.send(signer.sign(signer.request(), private=other.private)), 401, "signature_invalid")
    problem(signer.send(signer.sign(signer.request(), key_id=other.id)), 401, "signature_invalid")
    problem(
        signer.send(signer.sign(signer.request(), key_id=other.id, private=other.private)), 401, "signature_invalid"
    )


def test_a_shared_secret_is_no_key(signer: Signer) -> None:
    """The public key is no secret, so whoever knows it must not be able to sign with it."""
    request = signer.request()
    public = signer.private.public_key().public_bytes_raw()
    keys = MappingKeyResolver(public_keys={}, private_keys={signer.id: public})
    HTTPMessageSigner(signature_algorithm=HMAC_SHA256, key_resolver=keys).sign(
        request, key_id=signer.id, nonce="n", covered_component_ids=COVERED, body=request.content
    )
    problem(signer.send(request), 401, "signature_invalid")


@pytest.mark.parametrize(
    "headers",
    [
        {"Signature": "x", "Signature-Input": "y"},
        {"Signature": "sig=:AA==:", "Signature-Input": "sig=()"},
        {"Signature": "sig=:AA==:", "Signature-Input": 'sig=("@method" "@method");created=1;keyid="x"'},
        {"Signature": "sig=:AA==:, other=:AA==:", "Signature-Input": "sig=(), other=()"},
        {"Signature": "sig=1", "Signature-Input": "sig=1"},
        {"Signature": "\u00ff", "Signature-Input": "\u00ff"},
    ],
)
def test_nonsense_is_refused(signer: Signer, headers: dict[str, str]) -> None:
    request = signer.request()
    raw = [(name.encode(), value.encode("latin-1")) for name, value in {**request.headers, **headers}.items()]
    answer = signer.send(httpx2.Request("POST", request.url, headers=raw, content=request.content))
    problem(answer, 401, "signature_invalid")


def test_refusals_are_in_the_audit(signer: Signer, api: Api) -> None:
    signer.send(signer.request())
    signer.send(_body(signer.sign(signer.request())))
    newest = api.get("/api/audit").json()["items"][:2]
    assert [(one["actor"], one["action"], one["outcome"]) for one in newest] == [
        (f"key:{signer.id}", "signature.check", "refused"),
        (f"key:{signer.id}", "signature.check", "missing"),
    ]


def test_a_key_that_signs_makes_none_that_does_not(signer: Signer) -> None:
    body = {"name": "unsigned", "scopes": ["queue:read"]}
    answer = signer.send(signer.sign(signer.request("POST", "/api/keys", body)))
    assert [error["pointer"] for error in problem(answer, 403, "scope_escalation")["errors"]] == ["/public_key"]
