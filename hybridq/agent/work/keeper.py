"""The keeper of one job: starts its steps, relays what they write, and ends everything below itself.

A process of its own session, between the agent and the steps, that knows two pipes: orders come in on 0, events go out
on 1. It ends the job when told to, when the orders end (the agent is dead), and when the lease ends that it was last
told of: it does not need the agent to be running, so that a stopped agent's job is dead before anyone else may hold it.

On Linux it is child subreaper: whatever a step leaves behind, by a double fork or in a session of its own, becomes a
child of the keeper sooner or later, and "no child is left" is proof that nothing of the job lives. Elsewhere there is
no such thing: what leaves its step's process group is out of reach.

Started as a script by `python -I -S`: the standard library alone, little of it, one thread. The agent imports it too,
for the form of a message: a letter, four bytes of length, and fields, each with four bytes of length.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import sys
import termios
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` takes longer to import than all of the above
    from collections.abc import Callable, Iterable, Iterator
    from typing import Final, NoReturn

# Orders.
STEP: Final = b"s"
"""cwd, number of arguments, arguments, `NAME=value`…: start a step. Answered by STARTED, then EXITED or FAILED."""
TERM: Final = b"t"
"""deadline: SIGTERM to the step, SIGKILL to it at the deadline."""
STOP: Final = b"x"
"""deadline: SIGTERM to the step, and the end of everything at the deadline. Further steps may be sent."""
LEASE: Final = b"l"
"""deadline: the end of everything, whatever the agent does."""
KILL: Final = b"k"
"""The end of everything, now."""
QUIT: Final = b"q"
"""No step follows: end what steps have left behind."""

# Events.
STARTED: Final = b"p"
"""pid, which is the step's process group and session too."""
OUTPUT: Final = b"o"
"""What steps wrote."""
EXITED: Final = b"e"
"""wait status, `1` if it was told to end before it ended."""
FAILED: Final = b"f"
"""errno, where (`chdir`, `exec` or `fork`): the step was not started."""
ENDED: Final = b"z"
"""order (`QUIT`, `KILL`, `STOP`, `LEASE`, or `` when the agent was gone), processes that resist, names of what was
left behind: the last event; nothing lives any more but those that resist."""

READ_BYTES: Final = 64 * 1024
PENDING_BYTES_MAX: Final = 256 * 1024
"""Of events the agent has not taken yet; after that steps wait in their `write`."""
KILL_S: Final = 10.0
"""How long the keeper tries to end what it can see; processes of another user resist."""
LAST_WORDS_S: Final = 5.0
"""How long the agent has to take the last events."""
OOM_SCORE: Final = b"500"
"""The kernel's choice when memory is used up falls on steps, not on the agent or a keeper."""
NAMES_MAX: Final = 5
MEANT_FOR_THE_AGENT: Final = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
"""Also when a whole service is told to stop: the agent says what is to be done, its end is the end of the orders."""
CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Also runs while the machine sleeps, as leases do."""
NEVER: Final = float("inf")


def pack(kind: bytes, *fields: bytes) -> bytes:
    """Return one message."""
    body = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    return kind + len(body).to_bytes(4, "big") + body


class Messages:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, list[bytes]]]:
        """Yield the messages that `data` completes, as kind and fields."""
        held = self._held
        held += data
        at = 0
        try:
            while len(held) >= at + 5:
                end = at + 5 + int.from_bytes(held[at + 1 : at + 5], "big")
                if len(held) < end:
                    return
                kind, body = bytes(held[at : at + 1]), bytes(held[at + 5 : end])
                at = end
                yield kind, _fields(body)
        finally:
            del held[:at]


def _fields(body: bytes) -> list[bytes]:
    fields, at = [], 0
    while at < len(body):
        end = at + 4 + int.from_bytes(body[at : at + 4], "big")
        fields.append(body[at + 4 : end])
        at = end
    return fields


def now_s() -> float:
    """The time that deadlines are of, the same in every process of the machine."""
    return time.clock_gettime(CLOCK)


class Below:
    """A process below the keeper, by its /proc/…/stat."""

    def __init__(self, pid: int, stat: bytes) -> None:
        self.pid = pid
        # The name may hold anything, brackets too.
        self.name, _, rest = stat[stat.find(b"(") + 1 :].rpartition(b")")
        state, parent, group = rest.split(None, 3)[:3]
        self.dead = state == b"Z"
        self.parent, self.group = int(parent), int(group)


class Keeper:
    """One job's keeper. `keep` runs until nothing of the job lives.

    Args:
        orders: Where orders come from.
        events: Where events go to.
        lease_by: When everything has to be over, as `now_s` counts.
    """

    def __init__(self, orders: int, events: int, lease_by: float) -> None:
        self._orders, self._events = orders, events
        self._lease_by, self._stop_by, self._term_by = lease_by, NEVER, NEVER
        self._messages = Messages()
        self._pending = bytearray()
        self._step: int | None = None
        self._step_output: int | None = None
        self._step_failure = -1
        self._told = False
        self._outputs: set[int] = set()
        self._groups: set[int] = set()
        self._end: bytes | None = None
        self._heard = True
        self._prctl = _prctl()
        self._sees_all = self._become_subreaper()
        self._null = os.open(os.devnull, os.O_RDWR)
        self._bell, bell = os.pipe()
        for end in (self._bell, bell, orders, events):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def keep(self) -> None:
        """Follow orders until the last; then end what lives, and say so."""
        try:
            while self._end is None:
                self._turn()
        finally:
            # Also when a turn fails: whatever happens here, nothing of the job outlives its keeper.
            self._reap()
            self._step = None  # from here on its end is not its own
            names = self._names() if self._end == QUIT else []
            left = self._end_all(KILL_S)
        self._last_words(left, names)

    def _turn(self) -> None:
        """Wait for something to happen, or for the next deadline; and see to it."""
        poll = select.poll()
        poll.register(self._orders, select.POLLIN)
        poll.register(self._bell, select.POLLIN)
        if self._pending:
            poll.register(self._events, select.POLLOUT)
        if len(self._pending) < PENDING_BYTES_MAX:
            for output in self._outputs:
                poll.register(output, select.POLLIN)
        # Never for long: the machine may sleep, and `poll` does not count that.
        wait_s = min(self._lease_by, self._stop_by, self._term_by) - now_s()
        ready = {fd for fd, _ in poll.poll(max(0.0, min(wait_s, 1.0)) * 1000 + 1)}

        # Deadlines first: a lease that has ended is not renewed by an order that was held up on its way, as when the
        # machine slept and an answer of before is read after.
        self._see_deadlines()
        if self._end is None and self._orders in ready:
            self._take_orders()
            self._see_deadlines()
        if self._end is not None:
            return
        if self._bell in ready:
            _drain(self._bell)
            self._reap()
        for output in ready & self._outputs:
            self._relay(output)
        self._send()

    # -- orders ---------------------------------------------------------------------------------

    def _take_orders(self) -> None:
        try:
            data = os.read(self._orders, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._end = b""
            return
        for kind, fields in self._messages.feed(data):
            self._follow(kind, fields)

    def _follow(self, kind: bytes, fields: list[bytes]) -> None:
        if self._end is not None:
            return
        if kind == STEP:
            arguments = int(fields[1])
            self._start(fields[0], fields[2 : 2 + arguments], fields[2 + arguments :])
        elif kind == LEASE:
            self._lease_by = float(fields[0])
        elif kind == TERM:
            self._term_by = float(fields[0])
            self._tell()
        elif kind == STOP:
            self._stop_by = min(self._stop_by, float(fields[0]))
            self._tell()
        elif kind in (KILL, QUIT):
            self._end = kind

    def _see_deadlines(self) -> None:
        now = now_s()
        if self._end is not None:
            return
        if now >= self._lease_by:
            self._end = LEASE
        elif now >= self._stop_by:
            self._end = STOP
        elif now >= self._term_by:
            self._term_by = NEVER
            if self._step is not None:
                _signal_group(self._step, signal.SIGKILL)

    def _tell(self) -> None:
        """Ask the step to end. One that has ended already was not told: its own end stands."""
        self._reap()
        if self._step is not None:
            self._told = True
            _signal_group(self._step, signal.SIGTERM)
            _signal_group(self._step, signal.SIGCONT)

    # -- a step ---------------------------------------------------------------------------------

    def _start(self, cwd: bytes, arguments: list[bytes], environment: list[bytes]) -> None:
        output, output_in = os.pipe()
        failure, failure_in = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            for end in (output, output_in, failure, failure_in):
                os.close(end)
            self._say(FAILED, str(error.errno).encode(), b"fork")
            return
        if pid == 0:
            self._become(cwd, arguments, environment, output_in, failure_in)
        os.close(output_in)
        os.close(failure_in)
        os.set_blocking(output, False)
        self._step, self._step_output, self._step_failure = pid, output, failure
        self._told, self._term_by = False, NEVER
        self._outputs.add(output)
        self._groups.add(pid)
        self._say(STARTED, str(pid).encode())

    def _become(
        self, cwd: bytes, arguments: list[bytes], environment: list[bytes], output: int, failure: int
    ) -> NoReturn:
        """In the child: become the step. Everything else that is open closes by itself."""
        where = b"exec"
        try:
            os.setsid()
            for name in (*MEANT_FOR_THE_AGENT, "SIGPIPE", "SIGXFSZ"):
                signal.signal(getattr(signal, name), signal.SIG_DFL)
            self._die_with_keeper()
            _prefer_for_oom()
            os.dup2(self._null, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            where = b"chdir"
            os.chdir(cwd)
            where = b"exec"
            os.execve(arguments[0], arguments, dict(_name_and_value(entry) for entry in environment))
        except OSError as error:
            os.write(failure, pack(FAILED, str(error.errno).encode(), where))
        except ValueError:
            os.write(failure, pack(FAILED, str(errno.EINVAL).encode(), where))
        finally:
            os._exit(127)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._step:
                self._step_over(status)

    def _step_over(self, status: int) -> None:
        """The step's first process ended, so the step did. What it wrote is relayed before that is said."""
        assert self._step is not None and self._step_output is not None
        failure = _read_all(self._step_failure)
        os.close(self._step_failure)
        self._relay_what_is_there(self._step_output)
        if failure:
            self._pending += failure
        else:
            self._say(EXITED, str(status).encode(), b"1" if self._told else b"")
        if not _signal_group(self._step, 0):
            # Its number is free from here on, and may become a stranger's. A group that lives keeps it.
            self._groups.discard(self._step)
        self._step, self._step_output, self._term_by = None, None, NEVER

    # -- what steps write -----------------------------------------------------------------------

    def _relay(self, output: int) -> int:
        """Read once from `output`. Returns how much there was."""
        try:
            data = os.read(output, READ_BYTES)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if data:
            self._say(OUTPUT, data)
        elif output in self._outputs:
            self._outputs.discard(output)
            os.close(output)
        return len(data)

    def _relay_what_is_there(self, output: int) -> None:
        """Relay what is in the pipe now, and no more: somebody else may hold it open, and write for ever."""
        left = _readable_bytes(output) if output in self._outputs else 0
        while left > 0:
            got = self._relay(output)
            left = left - got if got else 0

    def _say(self, kind: bytes, *fields: bytes) -> None:
        self._pending += pack(kind, *fields)

    def _send(self) -> None:
        """Send what the agent takes without waiting for it."""
        try:
            while self._pending:
                del self._pending[: os.write(self._events, self._pending[:READ_BYTES])]
        except BlockingIOError:
            return
        except OSError:
            self._heard, self._end = False, b""

    def _last_words(self, left: int, names: Iterable[bytes]) -> None:
        """Relay what is still in the pipes, whose writers are dead, and say that it is over."""
        until = now_s() + LAST_WORDS_S
        for output in list(self._outputs):
            self._relay_what_is_there(output)
        self._say(ENDED, self._end or b"", str(left).encode(), *names)
        poll = select.poll()
        poll.register(self._events, select.POLLOUT)
        while self._pending and self._heard and now_s() < until:
            poll.poll(100)
            self._send()

    # -- the end --------------------------------------------------------------------------------

    def _end_all(self, within_s: float) -> int:
        """SIGKILL to everything below, until there is nothing. Returns how many resist."""
        until = now_s() + within_s
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        while True:
            # Groups first: a signal to a group reaches all of it at once, also what is being forked. A number that is
            # read here would have to run out, be free again and be given to a stranger all before the next line.
            below = self._below()
            for group in {each.group for each in below} | self._groups:
                if group != os.getpgrp():  # a child that is not yet a step is still of our own
                    _signal_group(group, signal.SIGKILL)
            for each in below:
                _signal(each.pid, signal.SIGKILL)
            if not self._any_child() and (self._sees_all or not self._any_group()):
                return 0
            if now_s() >= until:
                return max(1, len(below))
            poll.poll(5)
            _drain(self._bell)

    def _any_child(self) -> bool:
        """Reap; say whether there is a child still. Without one nothing lives, where orphans become our children."""
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return False
        return True

    def _any_group(self) -> bool:
        return any([_signal_group(group, 0) for group in self._groups])

    def _below(self) -> list[Below]:
        """Everything below the keeper; empty where /proc does not tell."""
        children: dict[int, list[Below]] = {}
        for pid in _numbers("/proc"):
            try:
                with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
                    child = Below(pid, file.read(1024))
            except OSError:
                continue
            children.setdefault(child.parent, []).append(child)
        found, parents = [], [os.getpid()]
        while parents:
            for child in children.pop(parents.pop(), ()):
                found.append(child)
                parents.append(child.pid)
        return found

    def _names(self) -> list[bytes]:
        return [each.name for each in self._below() if not each.dead][:NAMES_MAX]

    # -- Linux ----------------------------------------------------------------------------------

    def _become_subreaper(self) -> bool:
        return self._prctl is not None and self._prctl(36, 1) == 0  # PR_SET_CHILD_SUBREAPER

    def _die_with_keeper(self) -> None:
        """Have the kernel end this process when the keeper ends, even by SIGKILL. It does not pass to children."""
        if self._prctl is not None:
            keeper = os.getppid()
            self._prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG
            if os.getppid() != keeper:
                os._exit(127)


def _prctl() -> Callable[[int, int], int] | None:
    if sys.platform != "linux":
        return None
    try:
        import ctypes

        call = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None
    return lambda option, value: int(call(option, ctypes.c_ulong(value), 0, 0, 0))


def _prefer_for_oom() -> None:
    try:
        with open("/proc/self/oom_score_adj", "r+b", buffering=0) as file:
            if int(file.read()) < int(OOM_SCORE):
                file.write(OOM_SCORE)
    except (OSError, ValueError):
        return


def _signal_group(group: int, number: int) -> bool:
    """Signal a process group; say whether there was one."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _readable_bytes(fd: int) -> int:
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4), sys.byteorder)


def _read_all(fd: int) -> bytes:
    data = b""
    while chunk := os.read(fd, 1024):
        data += chunk
    return data


def _drain(fd: int) -> None:
    try:
        while len(os.read(fd, 512)) == 512:
            pass
    except BlockingIOError:
        return


def _numbers(folder: str) -> list[int]:
    try:
        return [int(entry) for entry in os.listdir(folder) if entry.isdigit()]
    except OSError:
        return []


def _name_and_value(entry: bytes) -> tuple[bytes, bytes]:
    name, _, value = entry.partition(b"=")
    return name, value


def main() -> None:
    """Keep one job: orders on 0, events on 1, the end of the lease as the only argument."""
    for name in MEANT_FOR_THE_AGENT:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    Keeper(0, 1, float(sys.argv[1])).keep()


if __name__ == "__main__":
    main()
