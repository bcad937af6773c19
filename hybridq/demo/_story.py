"""Tells what happens: plain lines for pipes and logs, a live picture for a terminal, nothing for machines."""

from __future__ import annotations

import datetime as dt
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self, TextIO

from ..job import Attempt, Job
from ..lifecycle import LEASED, JobStatus

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

__all__ = ["LiveStory", "PlainStory", "SilentStory", "Story", "changes"]

LINES_SHOWN: Final = 12
STYLES: Final = {
    JobStatus.COMPLETED: "green",
    JobStatus.RUNNING: "cyan",
    JobStatus.CLAIMED: "cyan",
    JobStatus.SCHEDULED: "yellow",
    JobStatus.DEAD_LETTERED: "red",
    JobStatus.FAILED: "red",
}


class Story(Protocol):
    """Somebody who is told."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def say(self, text: str) -> None:
        """One thing happened."""

    def show(self, jobs: Sequence[Job], workers: Mapping[str, str]) -> None:
        """This is how the jobs and the workers are now."""


class SilentStory:
    """Is told and says nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def say(self, text: str) -> None:
        """Nothing is said."""

    def show(self, jobs: Sequence[Job], workers: Mapping[str, str]) -> None:
        """Nothing is shown."""


class PlainStory(SilentStory):
    """One line for each thing that happened, with the seconds since the beginning."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line."""
        print(f"{time.monotonic() - self._began:6.1f} s  {_one_line(text)}", file=self._stream, flush=True)


class LiveStory(SilentStory):
    """A picture of the jobs that keeps still, with the last lines below it; the lines stay when it ends."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._lines: deque[str] = deque(maxlen=LINES_SHOWN)
        self._live: Live | None = None
        self._jobs: Sequence[Job] = ()
        self._workers: Mapping[str, str] = {}

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(), get_renderable=self._picture, refresh_per_second=8)
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Add a line below the picture."""
        self._lines.append(f"{time.monotonic() - self._began:6.1f} s  {_one_line(text)}")

    def show(self, jobs: Sequence[Job], workers: Mapping[str, str]) -> None:
        """Change the picture."""
        self._jobs, self._workers = jobs, workers

    def _picture(self) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        whole = Table.grid()
        jobs = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
        for column in ("JOB", "PRIORITY", "STATUS", "ATTEMPT", "WORKER"):
            jobs.add_column(column)
        for job in self._jobs:
            status = Text(job.status, style=STYLES.get(job.status, ""))
            agent = job.agent if job.status in LEASED else ""
            jobs.add_row(job.job_id, job.priority, status, f"{job.attempt}/{job.max_attempts}", agent)
        whole.add_row(jobs)
        whole.add_row(Text("   ".join(f"{name}: {state}" for name, state in self._workers.items()), style="bold"))
        whole.add_row(Text("\n".join(self._lines), style="dim"))
        return whole


def changes(before: Mapping[str, Job], now: Mapping[str, Job]) -> list[str]:
    """Put into words what became of the jobs between two looks at them, in the order in which it happened."""
    found = [change for job_id, job in now.items() for change in _changes_of(before.get(job_id), job)]
    return [text for _, text in sorted(found, key=lambda change: change[0])]


def _changes_of(old: Job | None, job: Job) -> Iterator[tuple[dt.datetime, str]]:
    for attempt in job.attempts[len(old.attempts) if old else 0 :]:
        yield attempt.finished_at, _ended(job, attempt)
    if job.status in LEASED and job.claimed_at is not None and (old is None or old.fence != job.fence):
        yield job.claimed_at, f"{job.job_id}: {job.agent} runs attempt {job.attempt} ({job.priority})"
    elif job.status is JobStatus.DEAD_LETTERED and job.finished_at is not None and old is not None and old != job:
        yield job.finished_at, f"{job.job_id}: its attempts are used up, it is a dead letter now"


def _ended(job: Job, attempt: Attempt) -> str:
    began = attempt.started_at or attempt.claimed_at
    took = f"{(attempt.finished_at - began).total_seconds():.1f} s"
    match attempt.outcome:
        case "success":
            return f"{job.job_id}: done by {attempt.agent} in {took}"
        case "lost":
            return f"{job.job_id}: {attempt.agent} went silent, its lease ran out; another worker may have it"
        case outcome:
            error = attempt.error if isinstance(attempt.error, dict) else {}
            reason = str(error.get("message") or "no reason given").strip().splitlines()[-1]
            return f"{job.job_id}: attempt {attempt.number} {outcome} on {attempt.agent} after {took}: {reason}"


def _one_line(text: str) -> str:
    """Return text as one line of 160 characters at most, without what would steer a terminal."""
    line = re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text)
    return line if len(line) <= 160 else f"{line[:157]}..."
