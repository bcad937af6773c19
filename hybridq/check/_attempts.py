"""Judges the history kept with a job: one JSON line for each lease that ended, the last 32 of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import msgspec

from ..lifecycle import LEASED, JobStatus
from ._read import Seen

__all__ = ["judge_attempts"]

LINES_MAX: Final = 32

Line = tuple[int, str, int, int, int | None, int, str, JobStatus, int | None, Any, Any]
"""number, agent, fence, claimed_ms, started_ms, finished_ms, outcome, status, exit code, error, result."""
LINE_FIELDS: Final = 11

_line_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_late_decoder = msgspec.json.Decoder(dict[str, dict[str, Any]])


def judge_attempts(seen: Seen, status: str, ended: int, fence: int) -> Iterator[tuple[int, str]]:
    """Yield what is wrong with a job's history, given its status, its count of ended leases, its last fence."""
    lines = seen.result.split(b"\n") if seen.result is not None else []
    if len(lines) != min(ended, LINES_MAX):
        yield 11, f"its history has {len(lines)} lines; {ended} leases ended, and {LINES_MAX} lines are kept"
    if len(lines) > LINES_MAX:
        return
    attempts = []
    for place, text in enumerate(lines, 1):
        try:
            attempts.append(_read(text))
        except msgspec.DecodeError as problem:
            yield 9, f"line {place} of its history cannot be read ({problem})"
            return
    fences = [line[2] for line in attempts]
    if any(later <= earlier for earlier, later in pairwise(fences)):
        yield 3, f"the fences of its history do not grow: {fences}"
    if fences and (fences[-1] > fence or (fences[-1] == fence and status in LEASED)):
        yield 3, f"its history ends with fence {fences[-1]}, and the last lease given has {fence}"
    if any(line[7] == JobStatus.COMPLETED for line in attempts[:-1]):
        yield 10, "its history goes on after it was COMPLETED"
    yield from _last(seen, status, fence, attempts)


def _last(seen: Seen, status: str, fence: int, attempts: list[Line]) -> Iterator[tuple[int, str]]:
    """Only a holder's report makes a job COMPLETED or FAILED, so the last line has to be that report."""
    if status not in (JobStatus.COMPLETED, JobStatus.FAILED):
        return
    if not attempts:
        yield 11, f"it is {status} and no lease ended with that"
        return
    last = attempts[-1]
    outcome = seen.record.get("outcome")
    if (last[2], last[6], last[7]) != (fence, outcome, status):
        reported = f"{last[7]} by outcome {last[6]} of fence {last[2]}"
        yield 11, f"it is {status} by outcome {outcome} of fence {fence}, and its last lease ended as {reported}"
    elif (status == JobStatus.COMPLETED) != (outcome == "success"):
        yield 11, f"it is {status} by outcome {outcome}"


def _read(text: bytes) -> Line:
    """Return a line; a note of a late completion may follow its fields. Raises `msgspec.DecodeError`."""
    parts = _list_decoder.decode(text)
    if len(parts) == LINE_FIELDS + 1:
        _late_decoder.decode(parts.pop())
    return _line_decoder.decode(b"[" + b",".join(parts) + b"]")
