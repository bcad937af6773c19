"""What a check found: violations by the numbers of the design, and a report that can raise."""

from __future__ import annotations

from typing import Final

import msgspec

from ..errors import HybridqError

__all__ = ["INVARIANTS", "Findings", "InvariantBroken", "Report", "Violation"]

INVARIANTS: Final[dict[int, str]] = {
    0: "every key family keeps to its shape and bound",
    1: "each job is in exactly the index its status names",
    2: "at most one valid lease",
    3: "fences grow and never repeat",
    4: "a stale call changes nothing",
    5: "attempts and deliveries are bounded",
    6: "first in, first out inside a priority",
    7: "counters equal cardinalities",
    8: "no acknowledged job is lost",
    9: "nothing is invented or changed",
    10: "terminal is final within a generation",
    11: "complete is idempotent",
    12: "enqueue is idempotent",
    13: "claim is idempotent",
    14: "every lease has a bounded deadline",
    15: "higher priority first",
    16: "never before due",
    17: "nothing crosses namespaces",
    18: "one slot per queue",
    19: "fences grow across restarts",
    20: "only the holder acts on a lease",
}
"""number → rule. 0 stands for the bounds of key families; the others are the numbered rules of the design."""

VIOLATIONS_MAX: Final = 1000
SHOWN_MAX: Final = 20


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """One rule found broken in one place."""

    invariant: int
    """A key of `INVARIANTS`."""
    queue: str
    """Name of the queue; empty when the place belongs to none."""
    job_id: str | None
    """None when the violation is the queue's, not one job's."""
    message: str
    """What was found, and what should have been."""

    @property
    def rule(self) -> str:
        """The broken rule in words."""
        return INVARIANTS[self.invariant]

    def __str__(self) -> str:
        place = f"queue {self.queue or '-'}" + (f", job {self.job_id}" if self.job_id else "")
        return f"invariant {self.invariant} ({self.rule}): {place}: {self.message}"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a check."""

    violations: tuple[Violation, ...]
    """At most 1,000, in the order they were found."""
    dropped: int = 0
    """Violations past the first 1,000, which are counted only."""
    jobs: int
    """How many jobs were looked at."""
    queues: tuple[str, ...]
    """The queues looked at, by name, sorted."""

    @property
    def ok(self) -> bool:
        """True when nothing is broken."""
        return not self.violations

    def raise_if_broken(self) -> None:
        """Raise `InvariantBroken` when there is a violation."""
        if not self.ok:
            raise InvariantBroken(self)


class InvariantBroken(HybridqError, AssertionError):
    """A check found violations; `report` holds them. An `AssertionError` too, so that a test fails by it."""

    def __init__(self, report: Report) -> None:
        self.report = report
        count = len(report.violations) + report.dropped
        shown = [str(violation) for violation in report.violations[:SHOWN_MAX]]
        if count > SHOWN_MAX:
            shown.append(f"and {count - SHOWN_MAX} more")
        super().__init__(f"{count} violation(s) in {report.jobs} job(s):\n  " + "\n  ".join(shown))


class Findings:
    """Collects violations: each once, the first 1,000 kept."""

    def __init__(self) -> None:
        self._kept: dict[Violation, None] = {}
        self._dropped = 0

    def add(self, invariant: int, message: str, *, queue: str, job_id: str | None = None) -> None:
        """Note a violation; the same again is not counted twice."""
        violation = Violation(invariant=invariant, queue=queue, job_id=job_id, message=message)
        if violation in self._kept:
            return
        if len(self._kept) < VIOLATIONS_MAX:
            self._kept[violation] = None
        else:
            self._dropped += 1

    def report(self, *, jobs: int, queues: set[str]) -> Report:
        """Return what was found."""
        return Report(violations=tuple(self._kept), dropped=self._dropped, jobs=jobs, queues=tuple(sorted(queues)))
