"""What tests of trust need: claimed jobs made by hand, keys, and what a signer or the server might do wrong."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
from nacl.signing import SigningKey

from hybridq.agent import ClaimedJob
from hybridq.agent.trust import SignKey, Trust, sign
from hybridq.agent.trust.canonical import canonical

NOW = 1_900_000_000.0
STEPS = [{"name": "test", "run": "make test"}]
WORK: dict[str, Any] = {"steps": STEPS}


def claimed(payload: Any, *, pool: str = "linux", job_id: str = "job-1", **more: Any) -> ClaimedJob:
    """A job as a claim brings it; a payload of bytes stays as it is."""
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    fields = {
        "id": f"{pool}~{job_id}",
        "job_id": job_id,
        "pool": pool,
        "status": "RUNNING",
        "payload": msgspec.Raw(raw),
        "lease_token": "1." + "0" * 32,
        "fence": 1,
        "lease_expires_in_seconds": 30.0,
    }
    return ClaimedJob(**fields | more)


def trusting(*keys: SignKey, now: float = NOW, **more: Any) -> Trust:
    """A policy that wants signatures by one of these keys, at a fixed time."""
    texts = [key.public.text for key in keys]
    return Trust(**{"verify_keys": texts, "require_signature": bool(keys), "clock": lambda: now, **more})


def signed_by(key: SignKey, work: dict[str, Any] = WORK, **more: Any) -> dict[str, str]:
    """A signed payload of the job that `claimed` makes."""
    return sign(work, key, **{"pool": "linux", "job_id": "job-1", "now": NOW, "valid_s": 3600.0, **more})


def content_of(payload: dict[str, str]) -> dict[str, Any]:
    """What was signed."""
    content: dict[str, Any] = json.loads(unb64(payload["signed"].split(".")[1]))
    return content


def forged(key: SignKey, content: Any, header: Any = None) -> dict[str, str]:
    """A signature that holds over whatever content and header, made without the code under test."""
    if header is None:
        header = {"alg": "Ed25519", "kid": key.public.id, "typ": "hybridq-job"}
    parts = [one if isinstance(one, bytes) else canonical(one) for one in (header, content)]
    head = b".".join(b64(part).encode() for part in parts)
    signature = SigningKey(key.raw).sign(head).signature
    return {"signed": f"{head.decode()}.{b64(signature)}"}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
