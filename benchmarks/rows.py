"""What is measured: one row each, with the goal it is held against and the limit that stands beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from .drive import FLOOR, OURS, WEB, Program
from .work import Work

Works = Callable[[str], Sequence[tuple[Program, Work]]]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table. `ours` and `limit` make the works of a run for a server's URL."""

    name: str
    unit: str = "jobs/s"
    ours: Works
    limit: Works | None = None
    limit_is: str = "floor"
    goal_of_limit: float | None = None
    """Share of the limit that PERFORMANCE asks for."""
    settings: str
    group: str


def _alone(program: Program, jobs: int, processes: int = 1, **how: object) -> Works:
    """Works of `processes` equal programs that share the jobs."""

    def works(url: str) -> Sequence[tuple[Program, Work]]:
        first = {"url": url, "jobs": jobs, **how}
        rest = {**first, "what": f"{how['what']}"}
        return [(program, msgspec.convert(first if not n else rest, Work)) for n in range(processes)]

    return works


def _pair(program: Program, jobs: int) -> Works:
    """A worker that waits, and a producer that knocks now and then."""

    def works(url: str) -> Sequence[tuple[Program, Work]]:
        return [(program, Work(url=url, jobs=jobs, what=what)) for what in ("serve", "knock")]

    return works


def rows(jobs: int) -> list[Row]:
    """Return all rows; `jobs` is how many each of ours handles, the slow one-by-one modes a fifth of it."""
    few = max(1, jobs // 5)
    made = [
        _row("enqueue", "one by one", few, {"what": "enqueue"}, goal=0.8),
        _row("enqueue", "50 concurrent tasks", jobs, {"what": "enqueue", "how": "concurrent", "concurrency": 50}),
        _row(
            "enqueue",
            "bulk",
            jobs,
            {"what": "enqueue", "how": "bulk", "batch": 1000},
            floor={"what": "enqueue", "how": "bulk", "batch": 100},
            goal=0.5,
        ),
        _row("drain", "one call a job, one after another", few, {"what": "drain"}, goal=0.5),
        _row(
            "drain",
            "one call a job, 50 tasks",
            jobs,
            {"what": "drain", "how": "concurrent", "concurrency": 50},
            goal=0.5,
        ),
        _row(
            "drain",
            "batches of 50",
            jobs,
            {"what": "drain", "how": "concurrent", "concurrency": 4, "batch": 50},
            goal=0.5,
        ),
        _row(
            "drain",
            "2 processes, 50 tasks",
            jobs,
            {"what": "drain", "how": "concurrent", "concurrency": 50},
            processes=2,
        ),
        _row(
            "drain",
            "2 processes, batches of 50",
            jobs,
            {"what": "drain", "how": "concurrent", "concurrency": 4, "batch": 50},
            processes=2,
        ),
    ]
    for batch in (1, 10, 100):
        for concurrency in (1, 4, 16, 64):
            made.append(
                _row(
                    "claim",
                    f"{concurrency} claimers, batch {batch}",
                    few if concurrency * batch == 1 else jobs,
                    {"what": "claim", "how": "concurrent", "concurrency": concurrency, "batch": batch},
                )
            )
    made += [
        Row(
            name="enqueue → start on an idle worker",
            unit="ms p50",
            group="latency",
            ours=_pair(OURS, 500),
            limit=_pair(FLOOR, 500),
            settings="500 samples, 2 to 10 ms apart",
        )
    ]
    for size in (200, 4096, 65_536):
        made.append(
            _row(
                "payload",
                f"life of a job, payload {size} bytes",
                jobs if size <= 4096 else few,
                {"what": "drain", "how": "concurrent", "concurrency": 50, "payload_bytes": size},
            )
        )
    return made


ENDPOINTS: Final = ("life", "claim", "enqueue", "complete", "get", "list", "stats", "register", "heartbeat")
FEWER: Final = {"list": 20}
"""How many times fewer calls of an endpoint are made: five pages of 200 jobs are one."""


def web_rows(jobs: int, engine: str) -> list[Row]:
    """Return rows of each endpoint over HTTP, 16 clients at once, beside a handler that does nothing."""
    return [
        Row(
            name=f"HTTP: {what}",
            group="http",
            ours=_alone(WEB, jobs // FEWER.get(what, 1), what=what, how=engine, concurrency=16),
            limit=_alone(WEB, jobs, what="noop", how=engine, concurrency=16),
            limit_is="no-op handler",
            goal_of_limit=0.6 if what == "life" else None,
            settings=f"{jobs // FEWER.get(what, 1):,} calls, 16 connections, {engine}",
        )
        for what in ENDPOINTS
    ]


def backlog_rows(sizes: Sequence[int], jobs: int) -> list[Row]:
    """Return rows of the same drain before ever more waiting jobs."""
    return [
        _row(
            "backlog",
            f"drain with {size:,} more waiting",
            jobs,
            {"what": "drain", "how": "concurrent", "concurrency": 50, "backlog": size},
        )
        for size in sizes
    ]


def _row(
    group: str,
    name: str,
    jobs: int,
    how: dict[str, object],
    *,
    floor: dict[str, object] | None = None,
    goal: float | None = None,
    processes: int = 1,
) -> Row:
    size = how.get("payload_bytes", 199)
    return Row(
        name=f"{group}: {name}" if group != "payload" else name,
        group=group,
        ours=_alone(OURS, jobs, processes, **how),
        limit=_alone(FLOOR, jobs, processes, **(floor or how)),
        goal_of_limit=goal,
        settings=f"{jobs:,} jobs, {size} bytes" + (f", {processes} processes" if processes > 1 else ""),
    )


GROUPS: Final = ("enqueue", "drain", "claim", "latency", "payload", "backlog", "http")
