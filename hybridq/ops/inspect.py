"""What looks in and changes nothing: describe, list, stats."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from .._units import to_s
from ..call import Call, Reply
from ..codec import read_job
from ..errors import InvalidArgument
from ..job import Job, QueueStats, WindowStats
from ..lifecycle import JobStatus, Priority
from . import _args

__all__ = ["Page", "describe", "page", "stats"]

PAGE_MAX: Final = 200
WINDOW_S_MAX: Final = 3600
BUCKET_BASE: Final = 1.05
_INDEX_OF: Final = {
    JobStatus.CLAIMED: "leased",
    JobStatus.RUNNING: "leased",
    JobStatus.DEAD_LETTERED: "dead",
    JobStatus.COMPLETED: "finished",
    JobStatus.FAILED: "finished",
    JobStatus.CANCELLED: "finished",
    JobStatus.EXPIRED: "finished",
}


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Ids of one page, and the cursor of the next; None at the end."""

    job_ids: tuple[str, ...]
    next_cursor: str | None


def describe(root: str, job_ids: Sequence[str], *, queue: str, now_ms: int = 0) -> Call[list[Job | None]]:
    """Read jobs whole. Value: for each id, in order, the Job, or None when there is none."""
    names = [_args.job_name(job_id) for job_id in job_ids]

    def decode(replies: Sequence[Reply]) -> list[Job | None]:
        return [
            None if reply[0] == b"NOT_FOUND" else read_job(queue, name, reply[1:])
            for name, reply in zip(names, replies, strict=True)
        ]

    return _args.simple("describe", root, now_ms, [(name,) for name in names], decode)


def page(
    root: str,
    *,
    status: JobStatus | str | None = None,
    priority: Priority | str | None = None,
    limit: int = 50,
    cursor: str | None = None,
    now_ms: int = 0,
) -> Call[Page]:
    """Read one page of ids, newest first; at most 300 records are looked at, so a page may be short or empty."""
    wanted = None if status is None else _args.member("status", status, JobStatus)
    level = "" if priority is None else _args.member("priority", priority, Priority).value
    index = _INDEX_OF.get(wanted, "all") if wanted else "all"
    score, last_id = _read_cursor(index, cursor)
    _args.integer("limit", limit, 1, PAGE_MAX)

    def decode(replies: Sequence[Reply]) -> Page:
        _, ids, next_score, next_id = replies[0]
        following = _cursor(index, next_score.decode(), next_id.decode()) if next_id else None
        return Page(job_ids=tuple(one.decode() for one in ids), next_cursor=following)

    common = (index, wanted.value if wanted else "", level, limit, score, last_id)
    return _args.simple("list", root, now_ms, [], decode, common=common)


def _cursor(index: str, score: str, job_id: str) -> str:
    return base64.urlsafe_b64encode(f"{index} {score} {job_id}".encode()).decode().rstrip("=")


def _read_cursor(index: str, cursor: str | None) -> tuple[str, str]:
    if cursor is None:
        return "", ""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        of_index, score, job_id = text.split(" ")
        float(score)
        if of_index == index and len(score) <= 20:
            return score, _args.job_name(job_id)
    except (ValueError, binascii.Error, UnicodeDecodeError):
        pass
    raise InvalidArgument("cursor", cursor, "one that a page of this very list returned")


def stats(root: str, *, window_s: float = 300.0, now_ms: int = 0) -> Call[QueueStats]:
    """Read gauges, totals and a window of whole minutes up to 3,600 s; `window_s` = 0 means since the beginning."""
    if isinstance(window_s, bool) or not isinstance(window_s, (int, float)) or not 0 <= window_s <= WINDOW_S_MAX:
        raise InvalidArgument("window_s", window_s, f"from 0 to {WINDOW_S_MAX} seconds")
    minutes = -int(-window_s // 60)

    def decode(replies: Sequence[Reply]) -> QueueStats:
        _, gauges, totals, buckets = replies[0]
        now, ever = _pairs(gauges), _pairs(totals)
        return QueueStats(
            queued=now["queued"],
            scheduled=now["scheduled"],
            blocked=now["blocked"],
            claimed=max(0, now["leased"] - ever.get("running", 0)),
            running=ever.get("running", 0),
            dead_lettered=now["dead_lettered"],
            finished=now["finished"],
            by_priority={priority.value: now[priority.value] for priority in Priority},
            oldest_queued_s=to_s(now["oldest_queued_ms"]),
            paused=bool(now["paused"]),
            enqueued_total=ever.get("enqueued", 0),
            completed_total=ever.get("completed", 0),
            failed_total=ever.get("failed", 0),
            cancelled_total=ever.get("cancelled", 0),
            dead_lettered_total=ever.get("dead_lettered", 0),
            retried_total=ever.get("retried", 0),
            released_total=ever.get("released", 0),
            lost_leases_total=ever.get("lost_leases", 0),
            window=_window(window_s, buckets, ever, now),
        )

    return _args.simple("stats", root, now_ms, [], decode, common=(minutes,))


def _pairs(flat: Sequence[Any]) -> dict[str, int]:
    return {flat[i].decode(): int(flat[i + 1]) for i in range(0, len(flat), 2)}


def _window(
    window_s: float, minutes: Iterable[Sequence[Any]], ever: Mapping[str, int], now: Mapping[str, int]
) -> WindowStats:
    waits: dict[int, int] = {}
    runs: dict[int, int] = {}
    outcomes: dict[str, int] = {}
    for flat in minutes:
        for field, n in _pairs(flat).items():
            kind, number = field[0], field[1:]
            if number.isdigit():
                chosen = waits if kind == "w" else runs
                chosen[int(number)] = chosen.get(int(number), 0) + n
            else:
                outcomes[field] = outcomes.get(field, 0) + n
    if window_s:
        completed, bad = outcomes.get("completed", 0), outcomes.get("failed", 0) + outcomes.get("dead_lettered", 0)
        per_minute = completed / (window_s / 60)
    else:
        completed, bad = ever.get("completed", 0), ever.get("failed", 0) + ever.get("dead_lettered", 0)
        per_minute = completed / max(1.0, now["age_ms"] / 60_000)
    return WindowStats(
        window_s=window_s,
        avg_wait_s=_mean(waits),
        p50_wait_s=_quantile(waits, 0.50),
        p95_wait_s=_quantile(waits, 0.95),
        p99_wait_s=_quantile(waits, 0.99),
        avg_execution_s=_mean(runs),
        p95_execution_s=_quantile(runs, 0.95),
        failure_rate=bad / (completed + bad) if completed + bad else 0.0,
        throughput_per_minute=per_minute,
    )


def _middle_s(bucket: int) -> float:
    """Return the middle of a bucket: 0 is under 1 ms, b ends at 1.05^b ms; so a figure is off by 2.5 % at most."""
    return 0.0 if bucket == 0 else BUCKET_BASE ** (bucket - 0.5) / 1000


def _mean(buckets: Mapping[int, int]) -> float:
    total = sum(buckets.values())
    return sum(_middle_s(bucket) * n for bucket, n in buckets.items()) / total if total else 0.0


def _quantile(buckets: Mapping[int, int], share: float) -> float:
    left = share * sum(buckets.values())
    for bucket in sorted(buckets):
        left -= buckets[bucket]
        if left <= 0:
            return _middle_s(bucket)
    return 0.0
