"""Runs rows: every program of a row in turn, again and again, so that the drift of a machine meets all alike."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from .server import Server
from .work import Done, Work

HUNG_S: Final = 300.0
"""A program that says nothing for so long has hung."""

Program = tuple[str, ...]
"""The command of a program; the work comes behind it."""


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
    latencies_ms: list[float] = []


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All samples of one program of a row; the figures are medians of them."""

    samples: list[Sample]

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
        found = [_percentile(sample.latencies_ms, share) for sample in self.samples if sample.latencies_ms]
        return statistics.median(found) if found else None


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def run_once(server: Server, works: Sequence[tuple[Program, Work]]) -> Sample:
    """Empty the server, start the programs, let them go together, and read what it cost.

    The latencies are those of all programs; the jobs and the time are of the first one where the others only help it.
    """
    server.empty()
    running = [_start(program, work) for program, work in works]
    try:
        for process in running:
            _line_of(process, "ready")
        server.client.config_resetstat()
        cpu_s = server.cpu_s()
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [msgspec.json.decode(_line_of(process), type=Done) for process in running]
        cpu_s, script_us = server.cpu_s() - cpu_s, server.script_us()
    finally:
        for process in running:
            process.kill()
            process.communicate()
    helps = {"knock"}
    counted = [done for (_, work), done in zip(works, answers, strict=True) if work.what not in helps]
    jobs, took_s = sum(done.jobs for done in counted), max(done.took_s for done in counted)
    return Sample(
        jobs=jobs,
        took_s=took_s,
        rate=jobs / took_s,
        server_us=cpu_s * 1e6 / jobs,
        script_us=script_us / jobs,
        latencies_ms=[one for done in counted for one in done.latencies_ms],
    )


def _start(program: Program, work: Work) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*program, msgspec.json.encode(work).decode()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _line_of(process: subprocess.Popen[str], expected: str = "") -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line or (expected and line != expected):
        raise RuntimeError(f"{process.args!r} ended with {process.wait(HUNG_S)} instead of an answer: {line!r}")
    return line


OURS: Final[Program] = (sys.executable, "-m", f"{__package__}.ours")
WEB: Final[Program] = (sys.executable, "-m", f"{__package__}.web")
FLOOR: Final[Program] = (sys.executable, "-m", f"{__package__}.floor")


def interleaved(
    server: Server, programs: Mapping[str, Callable[[str], Sequence[tuple[Program, Work]]]], repeats: int
) -> Iterator[tuple[str, Sample]]:
    """Yield name and sample of every program of a row, `repeats` times round; the server is emptied before each."""
    for _ in range(repeats):
        for name, works in programs.items():
            yield name, run_once(server, works(server.url))


def as_json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1)
