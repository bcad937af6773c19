"""Following a job from a terminal: why it waits, its log as it comes, how it ended, and the exit code that says so.

```
Ctrl-C ──► the job goes on; two lines say how to follow it again and how to cancel it            exit 130
Ctrl-C with --cancel-on-interrupt ──► the job is cancelled, and followed to its end; again ──► as above
```
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

import rich_click as click

from ._output import Printer, visible
from ._views import seconds

if TYPE_CHECKING:
    from types import FrameType

    from hybridq import Job, Queue

    from ._remote import Remote

__all__ = ["EXIT_CANCELLED", "EXIT_TIMEOUT", "exit_code_of", "follow", "print_log"]

EXIT_TIMEOUT: Final = 124
"""As timeout(1) has it."""
EXIT_CANCELLED: Final = 130
LOOK_S: Final = (0.05, 1.0)
"""How often to look whether the job has begun: soon at first, then ever less."""
LOG_S: Final = 0.2
HINT_AFTER_S: Final = 1.0
"""An agent that is there has claimed by then."""


class LogPart(Protocol):
    """A part of a log, the library's or the wire's."""

    @property
    def data(self) -> str:
        """The text."""

    @property
    def next_offset(self) -> int:
        """Where to go on."""

    @property
    def truncated(self) -> bool:
        """Whether something is missing before it."""


def print_log(part: LogPart) -> None:
    """Print a part of a log as it is, with what could steer a terminal written out."""
    sys.stdout.write(visible(part.data))
    sys.stdout.flush()


def exit_code_of(job: Job) -> int:
    """Return the exit code that says how a job ended: its own, 124 past its time, 130 when cancelled, else 0 or 1."""
    if job.status == "COMPLETED":
        return 0
    if job.status == "CANCELLED":
        return EXIT_CANCELLED
    if job.outcome == "timeout":
        return EXIT_TIMEOUT
    return job.exit_code if job.exit_code is not None and 0 < job.exit_code < 256 else 1


def follow(
    queue: Queue | Remote, job_id: str, out: Printer, *, first: str, words: str, cancel_on_interrupt: bool
) -> Job:
    """Print a job's log until the job has ended, and return it; with `--json` nothing is printed.

    `first` is said before; `words`: the options that lead a command to the same queue. Raises `KeyboardInterrupt`
    when the user has left.
    """
    follower = _Follower(queue, job_id, out, words)
    with _as_interrupts(signal.SIGTERM):
        try:
            out.note(first)
            return follower.to_the_end()
        except KeyboardInterrupt:
            if not cancel_on_interrupt:
                _say_it_goes_on(out, job_id, words)
                raise
        try:
            follower.cancel()
            return follower.to_the_end()
        except KeyboardInterrupt:
            _say_it_goes_on(out, job_id, words)
            raise


def _say_it_goes_on(out: Printer, job_id: str, words: str) -> None:
    out.note(f"\n{job_id} goes on without you\n  hybridq logs -f {job_id}{words}\n  hybridq cancel {job_id}{words}")


@contextlib.contextmanager
def _as_interrupts(number: int) -> Iterator[None]:
    """Have a signal do what Ctrl-C does: whoever stops a CI step means what runs in it."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, interrupt)
    try:
        yield
    finally:
        signal.signal(number, before)


class _Follower:
    def __init__(self, queue: Queue | Remote, job_id: str, out: Printer, words: str) -> None:
        self._queue, self._job_id, self._out, self._words = queue, job_id, out, words
        self._offset = 0
        self._ends_in_line = False

    def to_the_end(self) -> Job:
        """Follow until the job has ended, or go on with that."""
        if self._offset == 0:
            self._until_it_begins()
        for part in self._queue.follow_log(self._job_id, offset=self._offset, poll_s=LOG_S):
            self._offset = part.next_offset
            if part.data and not self._out.json:
                print_log(part)
                self._ends_in_line = not part.data.endswith("\n")
        job = self._queue.job(self._job_id)
        self._say_how_it_ended(job)
        return job

    def cancel(self) -> None:
        """Ask for the job's end."""
        from hybridq.agent.errors import Contradicted
        from hybridq.errors import Conflict

        self._out.note("\ncancelling; Ctrl-C again leaves it alone")
        with contextlib.suppress(Conflict, Contradicted):  # it ended meanwhile
            self._queue.cancel(self._job_id)

    # -- before it begins ----------------------------------------------------------------------------------------

    def _until_it_begins(self) -> None:
        began = time.monotonic()
        pause_s, pause_s_max = LOOK_S
        with _Wait(self._out) as wait:
            while True:
                job = self._queue.job(self._job_id)
                if job.attempt > 0 or job.finished_at is not None:
                    return
                waited_s = time.monotonic() - began
                wait.say(self._why(job) if waited_s >= HINT_AFTER_S else f"{job.status.value.lower()} …")
                time.sleep(pause_s)
                pause_s = min(pause_s_max, pause_s * 1.5)

    def _why(self, job: Job) -> str:
        """Return why a job does not begin, as far as that is easily told."""
        status = job.status.value
        if status == "SCHEDULED" and job.run_at is not None:
            return f"waits until {job.run_at.astimezone():%H:%M:%S}"
        if status != "QUEUED":
            return f"{status.lower()}" + (f" by {job.agent}" if job.agent else "")
        paused, agents = self._state_of_pool()
        if paused:
            return f"queue {self._queue.name} is paused: hybridq resume hands out jobs again"
        if agents == 0:
            return f"no agent of pool {self._queue.name} is there; in another terminal: {self._start_of_agent()}"
        return "waits until an agent is free"

    def _start_of_agent(self) -> str:
        """Return the command that brings an agent for this queue."""
        from hybridq import Queue

        if isinstance(self._queue, Queue) and self._queue.name == "default":
            return f"hybridq up{self._words}"
        where = "" if isinstance(self._queue, Queue) else f" --url {self._queue.client.url}"
        return f"hybridq agent --pool {self._queue.name}{where}"

    def _state_of_pool(self) -> tuple[bool, int | None]:
        """Return whether it is paused, and how many agents can be seen (None: not ours to see)."""
        from hybridq import Fleet, Queue
        from hybridq.agent.errors import Forbidden
        from hybridq.errors import NotFound

        if isinstance(self._queue, Queue):
            stats = self._queue.stats(window_s=0)
            with Fleet(redis=self._queue.connector, namespace=self._queue.namespace) as fleet:
                try:
                    pool = fleet.pool(self._queue.name)
                    return stats.paused, pool.active + pool.idle
                except NotFound:
                    return stats.paused, 0
        there = self._queue.client.stats(pool=self._queue.name)
        try:
            agents: int | None = len(self._queue.client.healthy_agents(pool=self._queue.name))
        except Forbidden:
            agents = None
        return there.paused, agents

    # -- after it ended ------------------------------------------------------------------------------------------

    def _say_how_it_ended(self, job: Job) -> None:
        if self._out.json:
            return
        if self._ends_in_line:
            click.echo()
        good = job.status == "COMPLETED"
        began, ended = job.started_at or job.enqueued_at, job.finished_at
        took = "" if ended is None else f" after {seconds((ended - began).total_seconds())}"
        where = f" on {job.agent}" if job.agent else ""
        how = {"COMPLETED": "succeeded", "CANCELLED": "was cancelled", "EXPIRED": "waited too long"}
        ending = how.get(job.status.value, "ran out of time" if job.outcome == "timeout" else "failed")
        self._out.note(
            f"{'✓' if good else '✗'} {job.job_id} {ending}{took}{where}{_why_it_failed(job)}",
            style="green" if good else "yellow" if job.status == "CANCELLED" else "red",
        )


def _why_it_failed(job: Job) -> str:
    if job.status in ("COMPLETED", "CANCELLED"):
        return ""
    error: Any = job.error
    said = error.get("message") or error.get("code") if isinstance(error, dict) else error
    if isinstance(said, str) and said:
        return f": {said}"
    if job.exit_code is not None:
        return f": exit code {job.exit_code}"
    return f": {job.dead_reason or job.outcome}" if job.dead_reason or job.outcome else ""


class _Wait:
    """Tells why nothing happens: a line that turns on a terminal, elsewhere each new reason once."""

    def __init__(self, out: Printer) -> None:
        self._out = out
        self._said = ""
        self._status: Any = None

    def __enter__(self) -> _Wait:
        if not self._out.json and sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True).status("")
            self._status.start()
        return self

    def say(self, text: str) -> None:
        """Say what is the matter now."""
        if self._status is not None:
            from rich.text import Text

            self._status.update(Text(visible(text)))
        elif text != self._said and not text.endswith("…"):
            self._out.note(text)
        self._said = text

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
