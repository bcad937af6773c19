"""Checks that several operations share. All raise `InvalidArgument` before anything is sent."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from ..call import Call, Reply, entry_in_doubt
from ..errors import InvalidArgument, JobNotFound, ScriptFailed
from ..job import LeaseProof
from ..keys import validate_name
from ..scripts import Script, load

E = TypeVar("E", bound=enum.StrEnum)

TAGS_MAX: Final = 64
TEXT_MAX: Final = 500


def member(what: str, value: object, kind: type[E]) -> E:
    """Return the member of an enum for a member or its value, in either case."""
    if isinstance(value, str):
        for one in kind:
            if value.upper() == one.value.upper():
                return one
    raise InvalidArgument(what, value, "one of " + ", ".join(one.value for one in kind))


def integer(what: str, value: object, low: int, high: int) -> int:
    """Return a whole number inside its bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidArgument(what, value, f"an integer from {low} to {high}")
    return value


def text(what: str, value: str | None, most: int = TEXT_MAX) -> str:
    """Return a bounded text without control characters; None is empty."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value.encode(errors="replace")) > most or not value.isprintable():
        raise InvalidArgument(what, value, f"text of at most {most} bytes without control characters")
    return value


def tags(value: Mapping[str, str]) -> Mapping[str, str]:
    """Return tags: at most 64 pairs of text."""
    if not isinstance(value, Mapping) or len(value) > TAGS_MAX:
        raise InvalidArgument("tags", value, f"a mapping of at most {TAGS_MAX} texts")
    for key, one in value.items():
        if not isinstance(key, str) or not isinstance(one, str):
            raise InvalidArgument("tags", {key: one}, "pairs of texts")
        text("tags", key, 64)
        text(f"tags[{key}]", one, 256)
    return value


def lease_entry(lease: LeaseProof) -> tuple[str, int, str, str]:
    """Return what proves a lease: job, fence, lease id, agent."""
    if not isinstance(lease, LeaseProof):
        raise InvalidArgument("lease", lease, "a Lease, as claim returned it, or a LeaseProof")
    return (lease.job_id, lease.fence, lease.lease_id, lease.agent)


def job_name(job_id: str) -> str:
    """Return a job id that obeys the rule for names."""
    return validate_name("job_id", job_id)


def tag_of(script: Script, reply: Reply, job_id: str) -> str:
    """Return the tag of an entry's reply; raises for the tags that mean the same everywhere."""
    tag = bytes(reply[0]).decode()
    if tag == "IN_DOUBT":
        raise entry_in_doubt(script, reply)
    if tag == "NOT_FOUND":
        raise JobNotFound(job_id)
    return tag


def unexpected(script: Script, reply: Reply) -> ScriptFailed:
    """Return the error for a tag that the caller of a script does not know."""
    return ScriptFailed(script.name, f"lua/{script.name}.lua", f"unexpected reply {reply[0]!r}")


def simple(
    name: str,
    root: str,
    now_ms: int,
    entries: Sequence[tuple[Any, ...]],
    decode: Any,
    *,
    common: tuple[Any, ...] = (),
    repeatable: bool = True,
    size_bytes: int = 0,
) -> Call[Any]:
    """Return the Call of a script whose entries may be sent again as they are, or not at all."""
    fixed = tuple(entries)
    return Call(
        script=load(name),
        root=root,
        common=(now_ms, *common),
        entries=fixed,
        decode=decode,
        size_bytes=size_bytes,
        repeat=fixed if repeatable else None,
    )
