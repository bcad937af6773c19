"""Runs rows: every program of a row in turn, again and again, so that the drift of a machine meets all alike."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

import msgspec

from .server import Server
from .work import Done, Work

READY_WITHIN_S: Final = 600.0
"""Filling a million jobs before the measured part begins."""
DONE_WITHIN_S: Final = 300.0
PEER_WITHIN_S: Final = 45.0
SLOTS_BYTES: Final = 4096

Program = tuple[str, ...]
"""The command of a program; the work comes behind it."""
Works = Callable[[str], Sequence[tuple[Program, Work]]]
"""Makes the programs of one run, with the work of each, for a server's URL."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one program, or of several at once."""

    jobs: int
    took_s: float
    rate: float
    """Jobs a second."""
    server_us: float
    """Microseconds of CPU of the Redis process a job, everything counted."""
    script_us: float
    """Microseconds inside scripts a job."""
    bytes_per_job: float = 0.0
    """What the server's data grew by, a job, where jobs only come."""
    commands_per_s: float = 0.0
    """Commands that the server ran, those of scripts included."""
    latencies_ms: list[float] = []


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All samples of one program of a row; the figures are medians of them."""

    samples: list[Sample]
    failure: str | None = None
    """Why there are no more samples."""

    def median(self, of: Callable[[Sample], float]) -> float:
        return statistics.median(of(sample) for sample in self.samples)

    @property
    def rate(self) -> float:
        return self.median(lambda sample: sample.rate)

    @property
    def spread(self) -> tuple[float, float]:
        rates = [sample.rate for sample in self.samples]
        return min(rates), max(rates)

    def percentile_ms(self, share: float) -> float | None:
        """Return the median over the samples of a percentile of the latencies."""
        found = [percentile(sample.latencies_ms, share) for sample in self.samples if sample.latencies_ms]
        return statistics.median(found) if found else None


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values is below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class ProgramFailed(Exception):
    """A program of a row ended, hung, or said something that is no answer."""


def run_once(server: Server, works: Sequence[tuple[Program, Work]], within_s: float = DONE_WITHIN_S) -> Sample:
    """Empty the server, start the programs, let them go together, and read what it cost.

    The jobs and the time are those of the programs that are measured, not of one that only knocks. Raises
    `ProgramFailed` when one does not answer within `within_s` after the go; none is left running.
    """
    server.empty()
    empty_bytes = server.data_bytes()
    with tempfile.TemporaryDirectory(prefix="hq-bench-") as folder, contextlib.ExitStack() as stack:
        shared = Path(folder, "slots")
        shared.write_bytes(bytes(SLOTS_BYTES))
        running = [stack.enter_context(_Running(*one)) for one in _told_of_each_other(works, shared)]
        for process in running:
            process.line("ready", READY_WITHIN_S if within_s >= DONE_WITHIN_S else within_s)
        server.client.config_resetstat()
        cpu_s = server.cpu_s()
        for process in running:
            process.go()
        deadline_s = time.monotonic() + within_s
        answers = [process.done(deadline_s - time.monotonic()) for process in running]
        cpu_s, script_us, commands = server.cpu_s() - cpu_s, server.script_us(), sum(server.calls().values())
    counted = [done for (_, work), done in zip(works, answers, strict=True) if work.what != "knock"]
    jobs, took_s = sum(done.jobs for done in counted), max(done.took_s for done in counted)
    if jobs < 1:
        raise ProgramFailed(f"{_name(works[0][0])} did no job within {within_s:.0f} s")
    server.wait_until_alone()
    stored_bytes = server.data_bytes() - empty_bytes if works[0][1].what in ("enqueue", "hold") else 0
    return Sample(
        jobs=jobs,
        took_s=took_s,
        rate=jobs / took_s,
        server_us=cpu_s * 1e6 / jobs,
        script_us=script_us / jobs,
        bytes_per_job=stored_bytes / jobs,
        commands_per_s=commands / took_s,
        latencies_ms=[one for done in counted for one in done.latencies_ms],
    )


def end_on_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does, so that servers and programs are ended with it."""

    def end(_number: int, _frame: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)


def interleaved(
    entrants: Mapping[str, tuple[Server, Works]], repeats: int, within_s: float = DONE_WITHIN_S
) -> Iterator[tuple[str, Sample | ProgramFailed]]:
    """Yield name and sample of every program of a row, `repeats` times round; the server is emptied before each.

    One that fails yields its failure, once, and is left out of the rounds that follow.
    """
    failed: set[str] = set()
    for _ in range(repeats):
        for name, (server, works) in entrants.items():
            if name in failed:
                continue
            try:
                yield name, run_once(server, works(server.url), within_s)
            except ProgramFailed as failure:
                failed.add(name)
                yield name, failure


def _told_of_each_other(works: Sequence[tuple[Program, Work]], shared: Path) -> Sequence[tuple[Program, Work]]:
    """Give each program a slot in shared memory and the number of those that do the same."""
    same = [work.what for _, work in works]
    return [
        (program, msgspec.structs.replace(work, shared=str(shared), slot=slot, processes=same.count(work.what)))
        for slot, (program, work) in enumerate(works)
    ]


class _Running:
    """One started program, in a process group of its own, which is gone with it."""

    def __init__(self, program: Program, work: Work) -> None:
        self._program = program
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed on exit)
        try:
            self._process = subprocess.Popen(
                [*program, msgspec.json.encode(work).decode()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=_environment(program),
                start_new_session=True,
            )
        except OSError as error:
            self._errors.close()
            raise ProgramFailed(f"{_name(program)} cannot be started: {error}") from None
        self._held = b""

    def __enter__(self) -> _Running:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self._errors.close()

    def go(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(b"go\n")
            self._process.stdin.flush()

    def done(self, within_s: float) -> Done:
        line = self.line("", within_s)
        try:
            return msgspec.json.decode(line, type=Done)
        except msgspec.DecodeError:
            raise ProgramFailed(f"{_name(self._program)} answered {line[:200]!r}") from None

    def line(self, expected: str, within_s: float) -> str:
        """Return the next line. Raises `ProgramFailed` when it is not the expected one, or does not come in time."""
        assert self._process.stdout is not None
        deadline_s = time.monotonic() + within_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._held:
                if not selector.select(max(0.0, deadline_s - time.monotonic())):
                    raise ProgramFailed(f"{_name(self._program)} said nothing for {within_s:.0f} s: {self._said()}")
                read = os.read(self._process.stdout.fileno(), 1 << 20)
                if not read:
                    raise ProgramFailed(f"{_name(self._program)} ended: {self._said()}")
                self._held += read
        first, _, self._held = self._held.partition(b"\n")
        line = first.decode(errors="replace").strip()
        if expected and line != expected:
            raise ProgramFailed(f"{_name(self._program)} said {line[:200]!r} instead of {expected}")
        return line

    def _said(self) -> str:
        """Return the last line of standard error."""
        self._errors.seek(0)
        lines = self._errors.read()[-4000:].decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "no word on standard error"


def _name(program: Program) -> str:
    return " ".join([Path(program[0]).name, *program[1:]]).replace(str(Path(__file__).parent) + os.sep, "")


def _environment(program: Program) -> dict[str, str]:
    """Return a program's environment: ours find this package wherever they are started, peers know nothing of it."""
    found = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    if program[:1] == (sys.executable,):
        top = Path(__file__).parents[len(__package__.split("."))]
        found["PYTHONPATH"] = os.pathsep.join(filter(None, (str(top), os.environ.get("PYTHONPATH"))))
    return found


OURS: Final[Program] = (sys.executable, "-m", f"{__package__}.ours")
WEB: Final[Program] = (sys.executable, "-m", f"{__package__}.web")
FLOOR: Final[Program] = (sys.executable, "-m", f"{__package__}.floor")
