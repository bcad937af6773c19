"""What a route may ask for instead of, or from, the one list of scopes, which the library keeps."""

from __future__ import annotations

from typing import Final

from hybridq.scopes import EVERYTHING, ROLES, SCOPES

__all__ = ["ANY_CREDENTIAL", "EVERYTHING", "PUBLIC", "ROLES", "SCOPES"]

PUBLIC: Final = "public"
"""Instead of a scope: nobody is asked who they are."""

ANY_CREDENTIAL: Final = "any"
"""Instead of a scope: whoever proves who they are."""
