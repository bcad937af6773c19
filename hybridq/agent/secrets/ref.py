"""A reference to a secret, `scheme://path#field`: one way to write each, so that rules can be about texts.

There is no percent-encoding, no `.` or `..`, no empty segment and no upper case scheme, so that no two texts that are
allowed here mean the same thing, and nothing that a pattern reads differently from what a provider does.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

__all__ = ["AllowedRef", "SecretRef"]


class SecretRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the agent finds a secret: `{"secret_ref": "vault://ci/registry#token"}` in the payload."""

    secret_ref: str

    def __str__(self) -> str:
        return self.secret_ref

    @property
    def scheme(self) -> str:
        """What stands before `://`; it chooses the provider."""
        return self.secret_ref.partition("://")[0]

    @property
    def path(self) -> str:
        """What stands after `://`, up to `#`."""
        return self.secret_ref.partition("://")[2].partition("#")[0]

    @property
    def field(self) -> str:
        """What stands after `#`; empty without one."""
        return self.secret_ref.partition("#")[2]

    @property
    def well_formed(self) -> bool:
        """Whether it is written in the one way there is."""
        return len(self.secret_ref) <= REF_CHARS_MAX and _FORM.fullmatch(self.secret_ref) is not None


class AllowedRef(SecretRef, frozen=True, kw_only=True):
    """A reference that a rule allows; what a provider gets. It comes from no payload."""

    within: str
    """What the rule fixes, as a path: a link must not lead out of it."""


REF_CHARS_MAX: Final = 1024
_SEGMENT: Final = r"(?!\.{1,2}(?:[/#]|\Z))[A-Za-z0-9_.@:+=~-]+"
_FORM: Final = re.compile(
    rf"[a-z][a-z0-9-]{{0,31}}://(?:/?{_SEGMENT}(?:/{_SEGMENT})*+)(?:#[A-Za-z0-9_.-]{{1,128}})?", re.ASCII
)
