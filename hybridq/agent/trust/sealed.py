"""Sealed payloads: what only the holders of an agent's private key can read, `{"sealed": "HQS1…"}`.

One text in base64url of

```
magic 3 | n 1 | n times: key id 8, sealed box of the content key 80 | nonce 24 | ciphertext
```

A fresh content key encrypts the content (XChaCha20-Poly1305), and a sealed box (X25519, libsodium) for each recipient
holds that key, so several agents' keys, or an old and a new one, open the same text. All that stands before the nonce
is authenticated with the content: nobody takes a recipient away or adds one.

The content is canonical JSON, `{v: 1, payload, pool?, job_id?}`. Who sealed it stays unknown: anybody may, with a
public key. With `pool` and `job_id` it cannot be moved to another job; who ordered it says a signature inside.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ...errors import PayloadTooLarge, UsageError
from ...keys import validate_name
from .canonical import NotPortable, canonical, parse
from .keys import KEY_BYTES, KeyUnusable, OpenKey, SealKey
from .rejected import Rejected

__all__ = ["Opened", "seal", "unseal"]

MAGIC: Final = base64.urlsafe_b64decode("HQS1")
KEY_ID_CHARS: Final = 8
BOX_BYTES: Final = KEY_BYTES + 48
NONCE_BYTES: Final = 24
RECIPIENTS_MAX: Final = 32
PAYLOAD_BYTES_MAX: Final = 256 * 1024
_FORM: Final = re.compile(r"HQS1[A-Za-z0-9_-]{64,}")


@dataclass(frozen=True, slots=True)
class Opened:
    """What was in a sealed payload, and the job it was sealed for, where it says so."""

    payload: Any = field(repr=False)
    pool: str | None = None
    job_id: str | None = None


def seal(
    payload: Mapping[str, Any], to: Sequence[SealKey], *, pool: str | None = None, job_id: str | None = None
) -> dict[str, str]:
    """Return `{"sealed": …}`, which the holders of the private half of each of `to` can open.

    With `pool` or `job_id` agents refuse it in any other job. Raises `UsageError`.
    """
    from nacl.exceptions import CryptoError
    from nacl.public import PublicKey, SealedBox
    from nacl.secret import Aead
    from nacl.utils import random

    if not 1 <= len(to) <= RECIPIENTS_MAX:
        raise UsageError(f"seal to 1 to {RECIPIENTS_MAX} keys")
    if "sealed" in payload:
        raise UsageError("the payload is sealed already")
    bound = {"pool": pool, "job_id": job_id}
    for what, name in bound.items():
        if name is not None:
            validate_name(what, name)
    content = canonical(
        {"v": 1, "payload": payload} | {name: value for name, value in bound.items() if value is not None}
    )
    key = random(KEY_BYTES)
    head = MAGIC + bytes([len(to)])
    for recipient in to:
        try:
            box = SealedBox(PublicKey(recipient.raw)).encrypt(key)
        except (CryptoError, RuntimeError):
            raise KeyUnusable(f"{recipient.prefix}…: no public key of X25519") from None
        head += recipient.id[:KEY_ID_CHARS].encode() + box
    text = base64.urlsafe_b64encode(head + Aead(key).encrypt(content, head, random(NONCE_BYTES))).decode().rstrip("=")
    if len(text) + len('{"sealed":""}') > PAYLOAD_BYTES_MAX:
        raise PayloadTooLarge("sealed payload", len(text), PAYLOAD_BYTES_MAX)
    return {"sealed": text}


def unseal(text: str, keys: Iterable[OpenKey]) -> Opened:
    """Return the content of a sealed payload. Raises `Rejected` `sealed_unreadable`, whatever is wrong with it."""
    content = _decrypted(text, tuple(keys))
    try:
        value = parse(content)
        if canonical(value) != content:
            raise _unreadable("its content is not in canonical form")
    except NotPortable as wrong:
        raise _unreadable(f"its content is {wrong}") from None
    if not isinstance(value, dict) or type(value.get("v")) is not int or value["v"] != 1 or "payload" not in value:
        raise _unreadable("its content is of a form that this agent does not know")
    pool, job_id = value.get("pool"), value.get("job_id")
    known = value.keys() <= {"v", "payload", "pool", "job_id"}
    if not known or not all(one is None or isinstance(one, str) for one in (pool, job_id)):
        raise _unreadable("its content is of a form that this agent does not know")
    return Opened(value["payload"], pool, job_id)


def _decrypted(text: str, keys: tuple[OpenKey, ...]) -> bytes:
    from nacl.exceptions import CryptoError
    from nacl.public import PrivateKey, SealedBox
    from nacl.secret import Aead

    if not keys:
        raise _unreadable("this agent has no key to open it (seal_keys)")
    # Twice the limit: a payload that came through the API is smaller, and nobody should make us decrypt more.
    if len(text) > 2 * PAYLOAD_BYTES_MAX or not _FORM.fullmatch(text):
        raise _unreadable("it is not what `hybridq seal` makes")
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise _unreadable("it is cut off") from None
    if base64.urlsafe_b64encode(raw).decode().rstrip("=") != text:
        raise _unreadable("it is not what `hybridq seal` makes")
    start, count = len(MAGIC) + 1, raw[len(MAGIC)]
    entry = KEY_ID_CHARS + BOX_BYTES
    end = start + count * entry
    if not 1 <= count <= RECIPIENTS_MAX or len(raw) < end + NONCE_BYTES:
        raise _unreadable("it is cut off")
    ours = {key.public.id[:KEY_ID_CHARS].encode(): key for key in keys}
    for at in range(start, end, entry):
        key = ours.get(raw[at : at + KEY_ID_CHARS])
        if key is None:
            continue
        try:
            content_key = SealedBox(PrivateKey(key.raw)).decrypt(raw[at + KEY_ID_CHARS : at + entry])
            return bytes(Aead(content_key).decrypt(raw[end + NONCE_BYTES :], raw[:end], raw[end : end + NONCE_BYTES]))
        except (CryptoError, ValueError, TypeError):
            # The text is for this key by its id and does not open: another entry of the same id may.
            continue
    if any(raw[at : at + KEY_ID_CHARS] in ours for at in range(start, end, entry)):
        raise _unreadable("it was changed on its way")
    raise _unreadable("it was sealed to keys that this agent does not have")


def _unreadable(why: str) -> Rejected:
    return Rejected("sealed_unreadable", f"the sealed payload cannot be opened: {why}")
