"""The agent's end of the two pipes to a keeper: starts it, orders, hears, and sees to it that it is gone."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from . import keeper

__all__ = ["Event", "KeeperGone", "KeeperProcess", "NotSpawned", "Step", "deadline"]

Event: TypeAlias = tuple[bytes, list[bytes]]

READ_BYTES: Final = 256 * 1024
LOOK_S: Final = 0.5
"""How often it is looked after a keeper that says nothing."""
LATE_S: Final = {keeper.LEASE: 0.25, keeper.STOP: keeper.KILL_S + 1}
"""A keeper that is silent so long after a deadline of its own is ended by the agent. With a stop it may take its time
to end what resists; with a lease there is none left."""
HUNT_S: Final = 5.0
EXIT_S: Final = 5.0


def deadline(at_s: float) -> float:
    """Turn a CLOCK_MONOTONIC time into one that keepers count by."""
    return at_s - time.monotonic() + keeper.now_s()


class NotSpawned(OSError):
    """The keeper could not be started at all."""


class KeeperGone(Exception):
    """The keeper ended without its last word: it was killed, or the machine is in trouble."""


class Step(NamedTuple):
    """A command as it is given to the kernel."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    cwd: str


class KeeperProcess:
    """A keeper that runs. One thread hears it (`next`); any thread may order, and never waits in it.

    Args:
        lease_by: When everything has to be over, in the keeper's time.
        mark: `NAME=value` that the environment of every step has and of nothing else on the machine, by which the
            agent finds them should their keeper be killed.
    """

    def __init__(self, lease_by: float, mark: str) -> None:
        self._mark = os.fsencode(mark)
        self._lock = threading.Lock()
        self._unsent = bytearray()
        self._by = {keeper.LEASE: lease_by, keeper.STOP: keeper.NEVER}
        self._heard_at = 0.0
        self._group: int | None = None
        self._events: deque[Event] = deque()
        self._messages = keeper.Messages()
        self.over = False
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper.__file__, repr(lease_by)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                cwd="/",
                env={"LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
        except OSError as error:
            raise NotSpawned(error.errno, error.strerror) from error
        assert self._process.stdin is not None and self._process.stdout is not None
        self._orders, self._heard = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._orders, False)
        os.set_blocking(self._heard, False)

    @property
    def pid(self) -> int:
        """The keeper's own."""
        return self._process.pid

    # -- orders, from any thread ----------------------------------------------------------------

    def start(self, step: Step) -> None:
        """Start a step; `STARTED` and then `EXITED` or `FAILED` will be heard."""
        arguments = [os.fsencode(argument) for argument in step.arguments]
        environment = [os.fsencode(f"{name}={value}") for name, value in step.environment.items()]
        self._order(keeper.STEP, os.fsencode(step.cwd), str(len(arguments)).encode(), *arguments, *environment)

    def lease(self, by: float) -> None:
        """Everything has to be over by then."""
        self._by[keeper.LEASE] = by
        self._order(keeper.LEASE, repr(by).encode())

    def term(self, by: float) -> None:
        """SIGTERM to the step that runs, SIGKILL to it at `by`."""
        self._order(keeper.TERM, repr(by).encode())

    def stop(self, by: float) -> None:
        """SIGTERM to the step that runs, SIGKILL to everything at `by`."""
        self._by[keeper.STOP] = min(self._by[keeper.STOP], by)
        self._order(keeper.STOP, repr(by).encode())
        self._wake()

    def kill(self) -> None:
        """SIGKILL to everything, now."""
        self._by[keeper.STOP] = keeper.now_s()
        self._order(keeper.KILL)
        self._wake()

    def quit(self) -> None:
        """No step will follow: end what they left behind."""
        self._order(keeper.QUIT)

    def _wake(self) -> None:
        """A job that stopped its keeper does not keep it from this."""
        with self._lock:
            if not self.over and self._process.returncode is None:
                self._process.send_signal(signal.SIGCONT)

    def _order(self, kind: bytes, *fields: bytes) -> None:
        with self._lock:
            self._unsent += keeper.pack(kind, *fields)
            self._send()

    def _send(self) -> None:
        """Send what the pipe takes. A keeper that is gone is noticed by who hears it."""
        if self._process.stdin is None or self._process.stdin.closed:
            return
        try:
            while self._unsent:
                del self._unsent[: os.write(self._orders, self._unsent[:READ_BYTES])]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()

    # -- events, for one thread -----------------------------------------------------------------

    def next(self, until_s: float) -> Event | None:
        """Return what is heard next; None when it is `until_s` (CLOCK_MONOTONIC) first.

        Raises `KeeperGone` when there will be nothing more, and no last word was heard.
        """
        while not self._events:
            wait_s = until_s - time.monotonic()
            if wait_s <= 0:
                return None
            late_s = (
                min(max(self._by[kind], self._heard_at) + late_s for kind, late_s in LATE_S.items()) - keeper.now_s()
            )
            poll = select.poll()
            poll.register(self._heard, select.POLLIN)
            with self._lock:
                if self._unsent:
                    poll.register(self._orders, select.POLLOUT)
            ready = {fd for fd, _ in poll.poll(max(0.0, min(wait_s, late_s, LOOK_S)) * 1000 + 1)}
            if self._orders in ready:
                with self._lock:
                    self._send()
            if self._heard in ready:
                self._hear()
            elif late_s <= 0:
                raise KeeperGone("the keeper does not keep its deadlines")
        event = self._events.popleft()
        self.over = event[0] == keeper.ENDED
        return event

    def _hear(self) -> None:
        try:
            data = os.read(self._heard, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise KeeperGone("the keeper was killed")
        self._heard_at = keeper.now_s()
        for event in self._messages.feed(data):
            if event[0] == keeper.STARTED:
                self._group = int(event[1][0])
            elif event[0] in (keeper.EXITED, keeper.FAILED):
                self._group = None
            self._events.append(event)

    def close(self) -> None:
        """Let go of the keeper: after its last word it only has to exit; without one it and its job are ended here."""
        with self._lock:
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.close()
        if not self.over:
            self._process.kill()
            self._process.wait()
            self._end_its_job()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(EXIT_S)
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _end_its_job(self) -> None:
        """End what a killed keeper left: its step's group, and whatever has the job's mark in its environment.

        The kernel ended the step's first process along with the keeper. Somebody who removes the mark and leaves the
        group escapes, which is why it is the keeper that does this.
        """
        if self._group is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, signal.SIGKILL)
        until_s = time.monotonic() + HUNT_S
        while (found := _marked(self._mark)) and time.monotonic() < until_s:
            for pid in found:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


def _marked(mark: bytes) -> list[int]:
    """The processes with `mark` in their environment, where /proc tells."""
    found = []
    try:
        entries = os.listdir("/proc")
    except OSError:
        return []
    for entry in entries:
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/environ", "rb") as file:
                if mark in file.read().split(b"\0"):
                    found.append(int(entry))
    return found
