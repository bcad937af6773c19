"""Signed jobs: who ordered the work, and for which job, `{"signed": "<compact JWS>"}`.

Header `{"alg":"Ed25519","kid":"<key id>","typ":"hybridq-job"}`, all three and nothing else: no key comes with a
signature, none is fetched, and the algorithm is no choice (RFC 9864's name for EdDSA with this one curve). The content
is canonical JSON of

```
v 1 | pool | job_id? | nonce | issued_at | not_after | steps | git? | env?
```

Times are RFC 3339 in UTC, whole seconds. With `job_id` the signature counts for that job alone. Without one it counts
for one job on each agent, which remembers the nonce until `not_after`.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ...errors import PayloadTooLarge, UsageError
from ...keys import validate_name
from .canonical import NotPortable, canonical, parse
from .keys import SignKey, VerifyKey
from .rejected import Rejected

if TYPE_CHECKING:
    from joserfc.jws import JWSRegistry

__all__ = ["ALGORITHM", "TYPE", "Signed", "sign", "verify"]

ALGORITHM: Final = "Ed25519"
TYPE: Final = "hybridq-job"
CLOCKS_APART_S: Final = 60.0
"""How far the clocks of signer and agent may be apart."""
VALID_S_MAX: Final = 366 * 86_400.0
UNBOUND_VALID_S_MAX: Final = 7 * 86_400.0
"""Without a job id: agents have to remember every nonce for so long."""
PAYLOAD_BYTES_MAX: Final = 256 * 1024
WORK: Final = ("steps", "git", "env")
_REQUIRED: Final = frozenset({"v", "pool", "nonce", "issued_at", "not_after", "steps"})
_ALLOWED: Final = _REQUIRED | {"job_id", "git", "env"}
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_FORM: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})")


@dataclass(frozen=True, slots=True)
class Signed:
    """A content whose signature holds. When, for which job, and whether it was seen before: that comes after."""

    key_id: str
    pool: str
    job_id: str | None
    nonce: str
    issued_at: float
    not_after: float
    work: dict[str, Any] = field(repr=False)
    """`steps`, `git`, `env`, as they were signed."""


# -- signing -----------------------------------------------------------------------------------------------------


def sign(
    work: Mapping[str, Any], key: SignKey, *, pool: str, job_id: str | None, now: float, valid_s: float
) -> dict[str, str]:
    """Return `{"signed": …}` for the job `job_id` of `pool`, to be started within `valid_s` seconds from `now` (epoch).

    `job_id` None: for any one job of the pool. Raises `UsageError`.
    """
    from joserfc import jws
    from joserfc.jwk import OKPKey

    unknown = sorted(set(work) - set(WORK))
    if unknown:
        raise UsageError(f"a signed job has steps, git and env; it cannot carry {', '.join(map(repr, unknown))}")
    if not work.get("steps"):
        raise UsageError("there are no steps to sign")
    validate_name("pool", pool)
    if job_id is not None:
        validate_name("job_id", job_id)
    longest = VALID_S_MAX if job_id is not None else UNBOUND_VALID_S_MAX
    if not 1 <= valid_s <= longest:
        raise UsageError(f"a signature of this kind is valid for 1 to {longest:.0f} seconds")
    content = {
        **work,
        "v": 1,
        "pool": pool,
        "nonce": secrets.token_urlsafe(24),
        "issued_at": _written(now),
        "not_after": _written(now + valid_s),
    }
    if job_id is not None:
        content["job_id"] = job_id
    header = {"alg": ALGORITHM, "kid": key.public.id, "typ": TYPE}
    jwk: dict[str, str | list[str]] = {"kty": "OKP", "crv": "Ed25519", "x": _b64(key.public.raw), "d": _b64(key.raw)}
    text = jws.serialize_compact(header, canonical(content), OKPKey.import_key(jwk), algorithms=[ALGORITHM])
    if len(text) + len('{"signed":""}') > PAYLOAD_BYTES_MAX:
        raise PayloadTooLarge("signed payload", len(text), PAYLOAD_BYTES_MAX)
    return {"signed": text}


def _written(instant: float) -> str:
    return dt.datetime.fromtimestamp(int(instant), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- verifying ---------------------------------------------------------------------------------------------------


def verify(text: str, keys: Mapping[str, VerifyKey]) -> Signed:
    """Return what was signed by one of `keys` (id → key).

    Raises `Rejected`: `signature_invalid`, `signature_unknown_key`, `unknown_field`.
    """
    form = _FORM.fullmatch(text) if len(text) <= 2 * PAYLOAD_BYTES_MAX else None
    if form is None:
        raise _invalid("it is not a compact JWS with an Ed25519 signature")
    key = keys.get(_key_id(form[1]))
    if key is None:
        raise Rejected("signature_unknown_key", "the job was signed with a key that this agent does not trust")
    content = _authentic(text, form[2], key)
    try:
        value = parse(content)
        if canonical(value) != content:
            raise _invalid("its content is not in canonical form")
    except NotPortable as wrong:
        raise _invalid(f"its content is {wrong}") from None
    return _signed(key.id, value)


def _key_id(segment: str) -> str:
    """Return the key that the header names; it decides nothing else, and may say nothing else."""
    header = _unb64(segment)
    try:
        value = None if header is None else parse(header)
    except NotPortable:
        value = None
    kid = value.get("kid") if isinstance(value, dict) else None
    if not isinstance(kid, str) or header != canonical({"alg": ALGORITHM, "kid": kid, "typ": TYPE}):
        raise _invalid(f"its header must name alg {ALGORITHM}, typ {TYPE} and a kid, and nothing else")
    return kid


def _authentic(text: str, segment: str, key: VerifyKey) -> bytes:
    from joserfc import jws
    from joserfc.errors import JoseError
    from joserfc.jwk import OKPKey

    public = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": _b64(key.raw)})
    try:
        content = jws.deserialize_compact(text, public, registry=_registry()).payload
    except (JoseError, ValueError, TypeError):
        raise _invalid("it does not hold: the job was changed, or signed by somebody else") from None
    # What was verified is the text of the segment: take the bytes that it alone stands for.
    if content != _unb64(segment):
        raise _invalid("its content is not in canonical form")
    return content


def _registry() -> JWSRegistry:
    """One algorithm, and room for a whole payload."""
    from joserfc.jws import JWSRegistry

    registry = JWSRegistry(algorithms=[ALGORITHM])
    registry.max_payload_length = 2 * PAYLOAD_BYTES_MAX
    return registry


def _signed(key_id: str, value: Any) -> Signed:
    if not isinstance(value, dict):
        raise _invalid("its content is no object")
    if type(value.get("v")) is not int or value["v"] != 1:
        raise _invalid("its content is of a version that this agent does not know")
    unknown = sorted(value.keys() - _ALLOWED)
    if unknown:
        from ... import guard

        raise Rejected(
            "unknown_field",
            f"the signed job has fields that are not known: {guard.redact(', '.join(map(repr, unknown)))[0][:200]}",
        )
    missing = sorted(_REQUIRED - value.keys())
    if missing:
        raise _invalid(f"its content lacks {', '.join(missing)}")
    pool, job_id, nonce = value["pool"], value.get("job_id"), value["nonce"]
    if not isinstance(pool, str) or not isinstance(nonce, str) or not _NONCE.fullmatch(nonce):
        raise _invalid("pool and nonce must be texts, the nonce of 16 to 64 characters")
    if "job_id" in value and not isinstance(job_id, str):
        raise _invalid("job_id must be a text")
    issued_at, not_after = _instant(value["issued_at"]), _instant(value["not_after"])
    longest = VALID_S_MAX if job_id is not None else UNBOUND_VALID_S_MAX
    if not 0 < not_after - issued_at <= longest:
        raise _invalid(f"it must be valid for at most {longest:.0f} seconds" + (" without a job_id" * (job_id is None)))
    work = {name: value[name] for name in WORK if name in value}
    return Signed(key_id, pool, job_id, nonce, issued_at, not_after, work)


def _instant(value: Any) -> float:
    if isinstance(value, str) and _INSTANT.fullmatch(value):
        try:
            return dt.datetime.fromisoformat(value).timestamp()
        except ValueError:
            pass
    raise _invalid("issued_at and not_after must be times in UTC, such as 2030-01-31T08:00:00Z")


def _invalid(why: str) -> Rejected:
    return Rejected("signature_invalid", f"the signature does not count: {why}")


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unb64(segment: str) -> bytes | None:
    """Return what a segment stands for, None when another text would stand for the same."""
    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except (binascii.Error, ValueError):
        return None
    return raw if _b64(raw) == segment else None
