"""An operation as a value: which script, on which queue, with which entries, and how its answer reads.

Queues of both colours only run Calls, so the two cannot differ in what they do. Calls of one script and the same
common arguments can travel together: their entries are joined, their replies taken apart again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from .errors import EntryInDoubt
from .scripts import Script

__all__ = ["Arg", "Call", "Reply"]

T = TypeVar("T")
Arg = str | int | bytes
Reply = list[Any]
"""The answer of one entry: its tag as bytes, then the fields that the script's header names."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One operation. `decode` takes the replies of its entries, in order, and returns the value or raises."""

    script: Script
    root: str
    common: tuple[Arg, ...]
    entries: tuple[tuple[Arg, ...], ...]
    decode: Callable[[Sequence[Reply]], T]
    size_bytes: int = 0
    """Of the large arguments, so that a batch stays bounded in bytes."""
    repeat: tuple[tuple[Arg, ...], ...] | None = None
    """The entries to send when the outcome of a first sending is unknown; None: it cannot be repeated safely."""

    @property
    def key(self) -> tuple[str, str, tuple[Arg, ...]]:
        """Calls with an equal key can travel as one."""
        return (self.script.sha, self.root, self.common)

    @property
    def turn(self) -> int:
        """Where it goes among calls that are sent together: what changes jobs, then claims of them, then looks."""
        return 2 if "no-writes" in self.script.header.flags else int(self.script.name == "claim")

    def again(self) -> Call[T] | None:
        """Return the call to send when the outcome of this one is unknown, if that is safe."""
        return None if self.repeat is None else replace(self, entries=self.repeat)


def entry_in_doubt(script: Script, reply: Reply) -> EntryInDoubt:
    """Return the error of an entry that stopped inside Redis."""
    message = bytes(reply[1]).decode(errors="replace")
    return EntryInDoubt(script.name, script.source_of(message), message)
