"""The jobs of the demo, and where their files lie."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from ..job import Backoff, JobSpec
from ..lifecycle import Priority

__all__ = ["CRITICAL", "DOOMED", "FLAKY", "INTERRUPTIBLE", "LEASE_S", "QUEUE", "FollowUp", "Plan", "Step"]

QUEUE: Final = "ci"
LEASE_S: Final = 3.0
"""Short, so that a job comes back soon after its worker died."""
CRITICAL: Final = "manifest"
FLAKY: Final = "smoke"
DOOMED: Final = "lint"
RETRY: Final = Backoff(base_s=0.2, max_s=0.5)
INTERRUPTIBLE: Final = ("tests", "sdist", "wheel", "compile")
"""Jobs that take long enough for their worker to be killed in the middle, the longest first."""

MENDED: Final = '"""What a release needs."""\n\nREADY = True\n'
BROKEN: Final = '"""What a release needs."""\n\ndef ready(:\n    return True\n'


class FollowUp(msgspec.Struct, frozen=True):
    """A job to enqueue when another is done."""

    job_id: str
    argv: tuple[str, ...]


class Step(msgspec.Struct, frozen=True):
    """Payload of every job: the program to run, and what comes after it."""

    argv: tuple[str, ...]
    then: tuple[FollowUp, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is built from `tree` (a copy), with everything made going to `out`."""

    tree: Path
    out: Path

    @property
    def release_file(self) -> Path:
        """The file that is broken at first, and mended before its job is replayed."""
        return self.out / "release.py"

    @property
    def logs(self) -> Path:
        """Where each run of a job leaves its output."""
        return self.out / "logs"

    def prepare(self) -> None:
        """Make the folders, and the file that is not Python yet."""
        self.logs.mkdir(parents=True)
        self.release_file.write_text(BROKEN)

    def mend(self) -> None:
        """Correct the file that the doomed job stumbles over."""
        self.release_file.write_text(MENDED)

    def specs(self) -> list[JobSpec]:
        """Return the jobs in the order they are enqueued: the most urgent one last."""
        tree, out = str(self.tree), str(self.out)

        def job(job_id: str, *arguments: str, then: tuple[FollowUp, ...] = (), **fields: Any) -> JobSpec:
            step = Step(argv=_program(*arguments), then=then)
            return JobSpec(type=job_id, job_id=job_id, payload=step, timeout_s=300, retry=RETRY, **fields)

        def artifact(kind: str) -> tuple[FollowUp, ...]:
            return (FollowUp(job_id=f"hash-{kind}", argv=_program("hash", str(self.out / kind), kind)),)

        return [
            job("compile", "compile", tree, out, priority=Priority.LOW),
            job("sdist", "build", "sdist", tree, out, then=artifact("sdist")),
            job("wheel", "build", "wheel", tree, out, then=artifact("wheel")),
            job(FLAKY, "smoke"),
            job("tests", "tests", tree, out, priority=Priority.HIGH),
            job(DOOMED, "lint", str(self.release_file), priority=Priority.HIGH, max_attempts=2),
            job(CRITICAL, "manifest", tree, out, priority=Priority.CRITICAL),
        ]

    def job_ids(self) -> list[str]:
        """Return the ids of all jobs there will be: those enqueued, and those that follow from them."""
        specs = self.specs()
        following = [after.job_id for spec in specs for after in spec.payload.then]
        return [str(spec.job_id) for spec in specs] + following


def _program(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-P", str(Path(__file__).with_name("steps.py")), *arguments)
