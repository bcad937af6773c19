"""Secrets by reference: resolved on the agent alone, when its operator allows the job's pool that reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

from ...errors import HybridqError
from ..trust.rejected import Rejected
from .ref import SecretRef

if TYPE_CHECKING:
    from ..work_of import Work

__all__ = ["Provider", "ResolvedEnv", "SecretRef", "SecretRefused", "SecretUnavailable", "Secrets"]


class SecretRefused(Rejected):
    """The job may not have this secret: `secret_not_allowed`, `secret_scheme_unknown`, `secret_ref_malformed`."""


class SecretUnavailable(HybridqError):
    """The secret is allowed, and could not be had now: the job's outcome is `infra_error`. Never holds a value."""

    code = "secret_unavailable"

    def __init__(self, ref: SecretRef, reason: str) -> None:
        self.ref, self.reason = ref.secret_ref, reason
        super().__init__(f"{ref.secret_ref}: {reason}")

    @property
    def error(self) -> dict[str, str]:
        """As the job's `error`: `{code, message}`."""
        return {"code": self.code, "message": str(self)}


class Provider(Protocol):
    """Resolves the references of one scheme; of others by the entry points `hybridq.secret_providers`."""

    scheme: str

    def resolve(self, ref: SecretRef, timeout_s: float) -> str:
        """Return the secret. Raises `SecretUnavailable`."""


class ResolvedEnv(msgspec.Struct, frozen=True):
    """An environment, all of texts; `secrets` are the values to redact. Its `repr` holds names alone."""

    values: dict[str, str]
    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"ResolvedEnv(names={sorted(self.values)}, secrets={len(self.secrets)})"


class Secrets:
    """Resolves references by `providers`, as far as the rules in `allow` let it: by default nothing.

    Args:
        providers: One for each scheme.
        allow: Rules `[POOL=]PATTERN`, such as `linux=vault://ci/*`. `*` stays within a segment, `**` crosses `/`.
        timeout_s: For one secret.
    """

    def __init__(self, providers: Iterable[Provider] = (), allow: Iterable[str] = (), *, timeout_s: float = 20.0) -> None:
        self._providers = {provider.scheme: provider for provider in providers}
        self._timeout_s = timeout_s

    def resolve(self, env: Mapping[str, str | SecretRef], *, pool: str, sealed: bool = False) -> ResolvedEnv:
        """Return `env` with each reference replaced by its secret; of a sealed job the texts are secrets too.

        Raises `SecretRefused` before anything is asked for, `SecretUnavailable` when a provider fails.
        """
        raise SecretRefused("secret_not_allowed", "no reference is allowed")

    def resolve_work(self, work: Work, *, pool: str) -> tuple[Work, ResolvedEnv]:
        """Return the work with the steps' own environments resolved, and the job's environment with all secrets."""
        raise SecretRefused("secret_not_allowed", "no reference is allowed")
