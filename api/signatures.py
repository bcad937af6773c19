"""Signatures of requests (RFC 9421), for keys that ask for them: who read a key on its way still cannot use it.

A signature is by Ed25519, made with the private key whose public half was given when the API key was made. It covers
`@method`, `@target-uri`, `authorization`, and `content-digest` (RFC 9530) when there is a body; `created` is at most
60 s away, `keyid` is the id of the API key, and a `nonce` is good for one request.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Iterator
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from http_message_signatures import HTTPMessageVerifier, HTTPSignatureKeyResolver, InvalidSignature
from http_message_signatures.algorithms import ED25519

from .audit_trail import audit
from .http.problems import Problem
from .http.request import Request

__all__ = ["public_key_of", "verify"]

WINDOW: Final = dt.timedelta(seconds=60)
SKEW: Final = dt.timedelta(seconds=5)
"""How far the signer's clock may be ahead of ours."""
NONCE_CHARS_MAX: Final = 128
COVERED: Final = ("@method", "@target-uri", "authorization")
CHALLENGE: Final = 'Signature realm="hybridq"'
_HEADERS: Final = ("signature", "signature-input")


async def verify(request: Request) -> None:
    """Let a request pass whose credential asks for no signature, or which bears a good one that is new.

    Raises 401 `signature_required` or `signature_invalid`.
    """
    caller = request.caller
    if caller is None or not caller.require_signature:
        return
    if any(request.header(name) is None for name in _HEADERS):
        await audit(request, "signature.check", caller.id, "missing")
        raise Problem("signature_required", headers={"WWW-Authenticate": CHALLENGE})
    try:
        nonce = _check(request, caller)
    except (InvalidSignature, ValueError) as wrong:
        raise await _refused(request) from wrong
    # Kept for longer than the time in the signature would let it pass again.
    kept_s = (WINDOW + 2 * SKEW).total_seconds()
    if not await request.plane.access.remember_once("nonce", f"{caller.id}\n{nonce}", kept_s):
        raise await _refused(request)


def public_key_of(text: str) -> Ed25519PublicKey:
    """Return the Ed25519 key that 32 bytes in base64 are. Raises `ValueError`."""
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (binascii.Error, UnsupportedAlgorithm):
        raise ValueError("not a public key") from None


def _check(request: Request, caller: Any) -> str:
    """Return the nonce of a good signature. Raises `InvalidSignature`, `ValueError`."""
    verifier = HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=_OneKey(caller))
    verifier.max_clock_skew = SKEW
    needed = (*COVERED, "content-digest") if request.raw_body else COVERED
    age = WINDOW - SKEW  # to which the package adds the skew
    (found,) = verifier.verify(_Message(request), max_age=age, require_components=needed, body=request.raw_body)
    if not found.nonce or len(found.nonce) > NONCE_CHARS_MAX:
        raise InvalidSignature("nonce")
    return found.nonce


async def _refused(request: Request) -> Problem:
    await audit(request, "signature.check", request.credential.id, "refused")
    return Problem("signature_invalid", headers={"WWW-Authenticate": CHALLENGE})


class _OneKey(HTTPSignatureKeyResolver):
    """Knows the key of the credential that calls, under the credential's id."""

    def __init__(self, caller: Any) -> None:
        self._caller = caller

    def resolve_public_key(self, key_id: str) -> Ed25519PublicKey | None:
        if key_id != self._caller.id or self._caller.public_key is None:
            return None
        return public_key_of(self._caller.public_key)


class _Message:
    """A request as the package wants it: method, absolute URL, header lines in their order."""

    def __init__(self, request: Request) -> None:
        scope = request.raw.scope
        self.method: str = scope["method"]
        path = (scope["raw_path"] or b"").decode("latin-1").partition("?")[0]
        query = scope["query_string"].decode("latin-1")
        self.url = f"{request.scheme}://{request.header('host') or ''}{path}{'?' if query else ''}{query}"
        self.headers = _Lines(request)


class _Lines:
    """Header lines; what is not ASCII stays what it was, byte by byte."""

    def __init__(self, request: Request) -> None:
        self._lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]

    def items(self) -> Iterator[tuple[str, str]]:
        return iter(self._lines)
