"""What a name may look like on the wire, and the two shapes of ids made of names."""

from __future__ import annotations

import re
from typing import Annotated, Final, NamedTuple

from msgspec import Meta

from .problems import Problem, Reason, invalid

__all__ = ["NAME", "RESERVED", "FullId", "Name", "check_full_id", "check_name", "refuse_reserved", "split_full_id"]

NAME: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
RULE: Final = "1 to 64 characters: A-Z a-z 0-9 . _ -, beginning with a letter or digit"
FULL_RULE: Final = "a full id, <pool>~<job_id>, each part a name"
RESERVED: Final = frozenset({"healthy", "pools", "register", "running", "keys"})
"""Names that stand in paths beside names of things."""

Name = Annotated[str, Meta(pattern=f"^{NAME}$", max_length=64, description=RULE)]
"""The type of a field that holds a name or a short id."""

FullId = Annotated[str, Meta(pattern=f"^{NAME}~{NAME}$", max_length=129, description=FULL_RULE)]
"""The type of a field that holds a job's full id."""

_name = re.compile(NAME).fullmatch
_full_id = re.compile(f"({NAME})~({NAME})").fullmatch


class PoolJob(NamedTuple):
    """The parts of a full id."""

    pool: str
    job_id: str


def check_name(pointer: str, text: str) -> str:
    """Return `text` when it is a name; else raise the 400 that points at it."""
    if _name(text) is None:
        raise invalid(pointer, f"must be {RULE}")
    return text


def check_full_id(pointer: str, text: str) -> str:
    """Return `text` when it is a full id; else raise the 400 that points at it."""
    if _full_id(text) is None:
        raise invalid(pointer, f"must be {FULL_RULE}")
    return text


def split_full_id(text: str) -> PoolJob:
    """Return pool and job id of a full id that was checked before."""
    pool, _, job_id = text.partition("~")
    return PoolJob(pool, job_id)


def refuse_reserved(pointer: str, name: str | None) -> None:
    """Raise 400 `reserved_name` when a name that comes in for something new is kept for the server."""
    if name in RESERVED:
        raise Problem("reserved_name", errors=[Reason(pointer, f"must not be one of {', '.join(sorted(RESERVED))}")])
