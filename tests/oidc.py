"""OpenID providers for tests, each a process or a server of its own on loopback.

`Provider` is a whole one (package oidc-provider-mock, on authlib): people sign in there by authorization code and
PKCE, and what it is told of a person stands in their ID tokens, also where that is wrong. `Issuer` has keys that the
test holds, so that a test can sign what no honest provider would, and documents that can go bad.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import httpx2
from joserfc import jws
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from tests.servers import START_TIMEOUT_S, ServerFailed, _die_with_parent, free_port, wait_until

AUDIENCE = "https://hybridq.test"
_MAKE = {
    "RSA": lambda kid: RSAKey.generate_key(2048, {"kid": kid}),
    "EC": lambda kid: ECKey.generate_key("P-256", {"kid": kid}),
    "OKP": lambda kid: OKPKey.generate_key("Ed25519", {"kid": kid}),
}


class Provider:
    """The real provider, in a process of its own. `url` is its issuer."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Path(tempfile.mkstemp(prefix="hq-oidc-")[1])
        self.client = httpx2.Client(base_url=self.url, trust_env=False, timeout=START_TIMEOUT_S)

    def start(self) -> Self:
        """Start it and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "oidc_provider_mock", "--port", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "NO_COLOR": "1"},
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

        def answers() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                raise ServerFailed(self._log.read_text(errors="replace")[-2000:])
            with contextlib.suppress(httpx2.HTTPError):
                return self.client.get("/.well-known/openid-configuration").status_code == 200
            return False

        wait_until(answers, 30.0, what="the provider answers")
        return self

    def stop(self) -> None:
        """End the process; `start` begins anew on the same port, with other keys and no users."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(START_TIMEOUT_S)

    def close(self) -> None:
        """End it and remove its log."""
        self.stop()
        self.client.close()
        self._log.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def put_user(self, subject: str, **claims: Any) -> None:
        """Say what stands in the ID tokens of a person; it wins over what the provider would say, `aud` included."""
        answer = self.client.put(f"/users/{quote(subject, safe='')}", json=claims)
        assert answer.status_code == 204, answer.text

    def sign_in(self, authorize_url: str, subject: str) -> dict[str, str]:
        """Be the browser: go where `/auth/login` sent us, sign in, and return what comes back (`code`, `state`)."""
        answer = self.client.post(authorize_url, data={"sub": subject})
        assert answer.status_code == 302, answer.text
        query = parse_qs(urlsplit(answer.headers["location"]).query)
        return {name: values[0] for name, values in query.items()}

    def id_token(self, subject: str, **claims: Any) -> str:
        """Return an ID token of a workload, meant for `AUDIENCE`, with an id of its own unless `claims` say so."""
        self.put_user(subject, **{"aud": AUDIENCE, "jti": secrets.token_hex(16), **claims})
        redirect = "http://127.0.0.1/back"
        query = {
            "response_type": "code",
            "client_id": "workload",
            "redirect_uri": redirect,
            "scope": "openid",
            "nonce": secrets.token_hex(8),
        }
        code = self.sign_in(f"{self.url}/oauth2/authorize?{urlencode(query)}", subject)["code"]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect}
        answer = self.client.post("/oauth2/token", data=form, auth=("workload", "any"))
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["id_token"]
        return token


class Issuer:
    """An issuer whose keys the test holds. What it serves can be bent: `documents`, `status`, `delay_s`."""

    def __init__(self, *kinds: str) -> None:
        self.keys: dict[str, Key] = {kind: _MAKE[kind](f"{kind.lower()}-1") for kind in kinds or ("RSA",)}
        self.reads: dict[str, int] = {}
        """How often each path was asked for."""
        self.bent: dict[str, tuple[int, dict[str, str], bytes]] = {}
        """path → status, headers and body to answer instead."""
        self.served: list[dict[str, Any]] | None = None
        """JWKs to serve instead of our own."""
        self.posted: list[dict[str, str]] = []
        """Forms that were sent to `/token`, the Authorization header beside them."""
        self.next_id_token = ""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(START_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rotate(self, kind: str = "RSA") -> None:
        """Take a new key of this kind; the old one is no longer served."""
        self.keys[kind] = _MAKE[kind](f"{kind.lower()}-{secrets.token_hex(4)}")

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Return what a good token says, with changes; None takes a claim away."""
        now = int(time.time())
        found = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "repo:42",
            "iat": now,
            "exp": now + 300,
            "jti": secrets.token_hex(16),
            **changed,
        }
        return {name: value for name, value in found.items() if value is not None}

    def token(
        self,
        *,
        algorithm: str = "RS256",
        key: Key | None = None,
        header: Mapping[str, Any] | None = None,
        **changed: Any,
    ) -> str:
        """Return a token signed by a key of ours (or by `key`); `header` and claims as told."""
        kind = {"R": "RSA", "P": "RSA", "E": "EC"}[algorithm[0]] if algorithm not in ("EdDSA", "Ed25519") else "OKP"
        key = key or self.keys[kind]
        return sign({"alg": algorithm, "typ": "JWT", "kid": key.kid, **(header or {})}, self.claims(**changed), key)

    def jwks(self) -> list[dict[str, Any]]:
        return [dict(key.as_dict(private=False)) for key in self.keys.values()]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.reads[self.path] = issuer.reads.get(self.path, 0) + 1
                status, headers, body = issuer._answer(self.path)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.send_response(status)
                    for name, value in {"Content-Length": str(len(body)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                sent = {name: values[0] for name, values in form.items()}
                issuer.posted.append({**sent, "authorization": self.headers.get("authorization", "")})
                body = json.dumps({"id_token": issuer.next_id_token, "token_type": "Bearer"}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    def _answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if path in self.bent:
            return self.bent[path]
        if path == "/.well-known/openid-configuration":
            found = {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/jwks",
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
            }
            return 200, {}, json.dumps(found).encode()
        if path == "/jwks":
            return 200, {}, json.dumps({"keys": self.jwks() if self.served is None else self.served}).encode()
        return 404, {}, b"{}"


def sign(header: Mapping[str, Any], claims: Mapping[str, Any] | bytes, key: Key) -> str:
    """Sign whatever it is, by whatever algorithm: `none` and shared secrets too."""
    body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signing = f"{_b64(json.dumps(header).encode())}.{_b64(body)}"
    if header["alg"] == "none":
        return f"{signing}."
    model = jws.JWSRegistry.algorithms[header["alg"]]
    return f"{signing}.{_b64(model.sign(signing.encode(), key))}"


def public_key_as_secret(key: Key) -> Key:
    """Return the public key's PEM as a shared secret: what confuses a reader that lets the token choose."""
    pem = key.as_pem(private=False)  # type: ignore[union-attr]
    made = OctKey.import_key(b"-" * 40)
    made._raw_value = pem
    return made


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@contextlib.contextmanager
def running_provider() -> Iterator[Provider]:
    """A provider for the length of a block."""
    with Provider() as provider:
        yield provider
