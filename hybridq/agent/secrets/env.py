"""`env://NAME`: a variable of the agent's own environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

from .ref import SecretRef
from .refused import SecretUnavailable

__all__ = ["EnvSecrets"]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWN: Final = re.compile(r"HYBRIDQ_|VAULT_TOKEN\Z", re.IGNORECASE)
"""The agent's own credentials: no job has them, whatever the rules say. Windows knows no case in these names."""


class EnvSecrets:
    """Variables of `environ`, by default of this process, as they were when the agent started."""

    scheme = "env"

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = dict(os.environ if environ is None else environ)

    def resolve(self, ref: SecretRef, timeout_s: float) -> str:
        """Return the variable's value."""
        if ref.field or not _NAME.fullmatch(ref.path):
            raise SecretUnavailable(ref, "a reference of this kind is env://NAME")
        if _OWN.match(ref.path):
            raise SecretUnavailable(ref, "this is the agent's own, and no job's")
        value = self._environ.get(ref.path)
        if value is None:
            raise SecretUnavailable(ref, "the agent's environment has no such variable")
        return value
