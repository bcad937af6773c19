"""Why a job does not get its secret: it may not, or it cannot be had now."""

from __future__ import annotations

from ...errors import HybridqError
from ..trust.rejected import Rejected
from .ref import SecretRef

__all__ = ["SecretRefused", "SecretUnavailable"]


class SecretRefused(Rejected):
    """The job may not have it: `secret_not_allowed`, `secret_scheme_unknown`, `secret_ref_malformed`."""


class SecretUnavailable(HybridqError):
    """The secret is allowed, and could not be had: outcome `infra_error`. Holds the reference, never a value."""

    code = "secret_unavailable"

    def __init__(self, ref: SecretRef, reason: str) -> None:
        self.ref, self.reason = ref.secret_ref, reason
        super().__init__(f"{ref.secret_ref}: {reason}")

    @property
    def error(self) -> dict[str, str]:
        """As the job's `error`: `{code, message}`."""
        return {"code": self.code, "message": str(self)}
