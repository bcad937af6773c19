"""What an agent believes: which signatures it accepts, which seals it opens, and what it has seen before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .rejected import Rejected

__all__ = ["Rejected", "Trust"]


class Trust:
    """The agent's policy.

    Args:
        verify_keys: Public keys whose signatures count, as `hybridq keypair` prints them.
        seal_keys: Private keys that open sealed payloads.
        require_signature: Refuse every job that none of `verify_keys` signed.
        pools: The agent's pools; a job of another one is refused. None: any.
        replays: Remembers the nonces of signed jobs that are bound to no job id.
    """

    def __init__(
        self,
        *,
        verify_keys: Iterable[str] = (),
        seal_keys: Iterable[str] = (),
        require_signature: bool = False,
        pools: Iterable[str] | None = None,
        replays: Any = None,
    ) -> None:
        self.verify_keys, self.seal_keys = tuple(verify_keys), tuple(seal_keys)
        self.require_signature = require_signature
        self.pools = None if pools is None else frozenset(pools)
        self.replays = replays
