"""What an agent believes: which signatures count, which seals it opens, and what it has seen before.

The server is not trusted with any of it. It hands out payloads, and the agent, with keys that its operator gave it,
decides whether they came from somebody who may order work, for this job, and in time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from ...errors import UsageError
from .keys import KeyUnusable, OpenKey, SealKey, SignKey, VerifyKey, read_keys
from .rejected import Rejected
from .replays import Replays, ReplaysUnavailable
from .sealed import seal, unseal
from .signed import CLOCKS_APART_S, Signed, sign, verify

__all__ = [
    "KeyUnusable",
    "OpenKey",
    "Rejected",
    "Replays",
    "ReplaysUnavailable",
    "SealKey",
    "SignKey",
    "Signed",
    "Trust",
    "VerifyKey",
    "read_keys",
    "seal",
    "sign",
]


class Trust:
    """The agent's policy. Raises `KeyUnusable` for keys that cannot be read, `UsageError` for what contradicts itself.

    Args:
        verify_keys: Public keys whose signatures count: `hqverify_…`, or paths of files with one a line.
        seal_keys: Private keys that open sealed payloads: paths of files, or `hqopen_…`.
        require_signature: Reject every job that none of `verify_keys` signed.
        pools: The agent's pools; a job of another one is rejected. None: any.
        replays: Remembers signed jobs that are bound to no job id; without it they are rejected.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        *,
        verify_keys: Iterable[str] = (),
        seal_keys: Iterable[str] = (),
        require_signature: bool = False,
        pools: Iterable[str] | None = None,
        replays: Replays | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._verify_keys = {key.id: key for key in read_keys(VerifyKey, verify_keys)}
        self._open_keys = read_keys(OpenKey, seal_keys)
        if require_signature and not self._verify_keys:
            raise UsageError("signatures are required and no key can verify one: give verify keys too")
        self.require_signature = require_signature
        self.pools = None if pools is None else frozenset(pools)
        self._replays, self._clock = replays, clock

    def __repr__(self) -> str:
        return (
            f"Trust(verify_keys={sorted(self._verify_keys)}, seal_keys={[key.public.id for key in self._open_keys]}, "
            f"require_signature={self.require_signature})"
        )

    def opened(self, text: str, *, pool: str, job_id: str) -> Any:
        """Return what a sealed payload holds, when it was sealed for this job or for any. Raises `Rejected`."""
        found = unseal(text, self._open_keys)
        if found.pool is not None and found.pool != pool:
            raise Rejected("sealed_for_another_pool", "the payload was sealed for a job of another pool")
        if found.job_id is not None and found.job_id != job_id:
            raise Rejected("sealed_for_another_job", "the payload was sealed for another job")
        return found.payload

    def verified(self, text: str, *, pool: str, job_id: str) -> Signed:
        """Return what was signed, for this job and in time. Raises `Rejected`. `spend` remembers what has to be."""
        signed = verify(text, self._verify_keys)
        now = self._clock()
        if signed.pool != pool:
            raise Rejected("signature_for_another_pool", "the job was signed for another pool")
        if signed.job_id is not None and signed.job_id != job_id:
            raise Rejected("signature_for_another_job", "the signature is another job's")
        if now < signed.issued_at - CLOCKS_APART_S:
            raise Rejected("signature_not_yet_valid", "the signature is of the future; compare the clocks")
        if now > signed.not_after + CLOCKS_APART_S:
            raise Rejected("signature_expired", "the signature has expired; sign the job again")
        if signed.job_id is None and self._replays is None:
            raise Rejected("signature_not_bound", "the signature names no job id, and this agent remembers no nonces")
        return signed

    def spend(self, signed: Signed, *, job: str) -> None:
        """Remember that `signed`, if it is bound to no job id, now belongs to `job` (its full id).

        Raises `Rejected` `signature_replayed`, `ReplaysUnavailable`.
        """
        if signed.job_id is not None or self._replays is None:
            return
        first = self._replays.first(
            signed.key_id, signed.nonce, job=job, not_after=signed.not_after + CLOCKS_APART_S, now=self._clock()
        )
        if not first:
            raise Rejected("signature_replayed", "the signature was used for another job before")
