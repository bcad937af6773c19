"""What is measured: one row each, with the goal it is held against and the limit that stands beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from .drive import FLOOR, OURS, WEB, Program, Works
from .verbs import VERBS
from .work import Work


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table. `ours` and `limit` make the works of a run for a server's URL."""

    name: str
    unit: str = "jobs/s"
    ours: Works | None = None
    limit: Works | None = None
    limit_is: str = "floor"
    goal_of_limit: float | None = None
    """Share of the limit that is aimed at."""
    goal: float | None = None
    """Most that the figure itself may be, where less is better."""
    smallest: Works | None = None
    """The same with the least backlog: the cost is flat when this is no faster."""
    aof: str | None = None
    """Of the server for ours, where it is not the run's own mode."""
    limit_aof: str | None = None
    settings: str
    group: str


UNITS: Final = ("jobs/s", "commands/s", "µs", "bytes", "ms p50")
"""Less is better in all but the first."""


def _alone(program: Program, jobs: int, processes: int = 1, **how: object) -> Works:
    """Works of `processes` equal programs that share the jobs."""

    def works(url: str) -> Sequence[tuple[Program, Work]]:
        work = msgspec.convert({"url": url, "jobs": jobs, **how}, Work)
        return [(program, work)] * processes

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
    return [*made, *_verb_rows(few), *_memory_rows(jobs), *_aof_rows(jobs, few), *_limit_rows(few)]


BYTES_MAX: Final = {"waiting": 800, "finished": 900}


def _verb_rows(jobs: int) -> list[Row]:
    """Return rows of what each verb costs inside Redis."""
    return [
        Row(
            name=f"{verb}, {batch} a call",
            unit="µs",
            group="verbs",
            ours=_alone(OURS, jobs, what="verb", how=verb, batch=batch),
            limit=_alone(FLOOR, jobs, what="verb", how=verb, batch=batch),
            settings=f"µs inside scripts a job; {jobs:,} jobs, 199 bytes",
        )
        for batch in (1, 10, 100)
        for verb in VERBS
    ]


def _memory_rows(jobs: int) -> list[Row]:
    """Return rows of the memory that a job takes in each state."""
    return [
        Row(
            name=f"memory of a job that is {state}",
            unit="bytes",
            group="memory",
            ours=_alone(OURS, jobs, what="hold", how=state),
            limit=_alone(FLOOR, jobs, what="hold", how=state) if state in ("waiting", "leased") else None,
            goal=BYTES_MAX.get(state),
            settings=f"{jobs:,} jobs, 199 bytes",
        )
        for state in ("waiting", "scheduled", "leased", "finished", "dead")
    ]


def _aof_rows(jobs: int, few: int) -> list[Row]:
    """Return rows of what durability costs: each mode beside none, in one run."""
    works: list[tuple[str, int, dict[str, object]]] = [
        ("enqueue one by one", few, {"what": "enqueue"}),
        ("drain, 50 tasks", jobs, {"what": "drain", "how": "concurrent", "concurrency": 50}),
        ("drain, batches of 50", jobs, {"what": "drain", "how": "concurrent", "concurrency": 4, "batch": 50}),
    ]
    return [
        Row(
            name=f"AOF {mode}: {name}",
            group="aof",
            ours=_alone(OURS, count, 1, **how),
            limit=_alone(OURS, count, 1, **how),
            limit_is="hybridq, AOF off",
            goal_of_limit=0.85 if mode == "everysec" else None,
            aof=mode,
            limit_aof="off",
            settings=f"{count:,} jobs, 199 bytes",
        )
        for mode in ("everysec", "always")
        for name, count, how in works
    ]


def _limit_rows(jobs: int) -> list[Row]:
    """Return rows of what a client can do at all: PING and its answer."""
    return [
        Row(
            name=f"PING: {name}",
            group="limits",
            limit=_alone(FLOOR, count, what="ping", how=how, concurrency=tasks),
            limit_is="the client",
            settings=f"{count:,} calls",
        )
        for name, how, tasks, count in (
            ("redis-py, one after another", "one", 1, jobs),
            ("redis-py asyncio, 50 tasks", "concurrent", 50, jobs),
            ("joined on one connection, 50 tasks", "bulk", 50, 10 * jobs),
        )
    ]


ENDPOINTS: Final = ("life", "claim", "enqueue", "complete", "get", "list", "stats", "register", "heartbeat")
FEWER: Final = {"list": 20}
"""How many times fewer calls of an endpoint are made: five pages of 200 jobs are one."""
PARKED: Final = 2000
OVER_HTTP: Final = frozenset({"http", "parked"})


def web_rows(jobs: int, engine: str) -> list[Row]:
    """Return rows of each endpoint over HTTP, 16 clients at once, beside a handler that does nothing."""
    parked = Row(
        name="HTTP: parked long polls, idle",
        unit="commands/s",
        group="parked",
        ours=_alone(WEB, PARKED, what="parked", how=engine),
        goal=5.0,
        settings=f"{PARKED:,} polls looked at for 10 s; commands inside scripts are counted too",
    )
    return [parked, *_endpoint_rows(jobs, engine)]


def _endpoint_rows(jobs: int, engine: str) -> list[Row]:
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


def needs(groups: Sequence[str], web_engine: str) -> list[tuple[str, str]]:
    """Return the packages that the programs of some groups (none: of all) import, and the extra that brings each."""
    found = [("uvloop", "bench")]
    if not groups or OVER_HTTP & set(groups):
        found += [("litestar", "server"), (web_engine, "server" if web_engine == "uvicorn" else web_engine)]
    return found


def backlog_rows(sizes: Sequence[int], jobs: int) -> list[Row]:
    """Return rows of the same drain before ever more waiting jobs."""
    how: dict[str, object] = {"what": "drain", "how": "concurrent", "concurrency": 50}
    least = min(sizes, default=0)
    return [
        msgspec.structs.replace(
            _row("backlog", f"drain with {size:,} more waiting", jobs, how | {"backlog": size}),
            smallest=None if size == least else _alone(OURS, jobs, 1, **how, backlog=least),
        )
        for size in sorted(sizes)
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


GROUPS: Final = (
    "enqueue",
    "drain",
    "claim",
    "latency",
    "payload",
    "verbs",
    "memory",
    "aof",
    "limits",
    "backlog",
    "parked",
    "http",
)
