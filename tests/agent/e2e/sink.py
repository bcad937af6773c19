"""Where a job leaves its effect: `python sink.py DATABASE JOB FENCE VALUE`, a target that knows fences.

It takes an effect only when the fence is above every one it has seen for the job: exit 0. A fence that is older, or
that has left its effect already, is refused: exit 75. What was tried is written down either way.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from pathlib import Path

TAKEN, REFUSED = 0, 75
BUSY_S = 30.0
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS effects (job TEXT PRIMARY KEY, fence INTEGER NOT NULL, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS tries (job TEXT NOT NULL, fence INTEGER NOT NULL, taken INTEGER NOT NULL)",
)


def create(database: Path) -> None:
    """Make an empty sink."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for statement in SCHEMA:
            connection.execute(statement)


def take(database: Path, job: str, fence: int, value: str) -> bool:
    """Take an effect unless its fence is too old; return whether it was taken."""
    with contextlib.closing(sqlite3.connect(database, timeout=BUSY_S, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        done = connection.execute(
            "INSERT INTO effects VALUES (?1, ?2, ?3) ON CONFLICT (job)"
            " DO UPDATE SET fence = ?2, value = ?3 WHERE fence < ?2",
            (job, fence, value),
        )
        taken = done.rowcount == 1
        connection.execute("INSERT INTO tries VALUES (?, ?, ?)", (job, fence, taken))
        connection.execute("COMMIT")
    return taken


def effects(database: Path) -> dict[str, tuple[int, str]]:
    """Return job → (fence, value) of the effect that stands."""
    with contextlib.closing(sqlite3.connect(database, timeout=BUSY_S)) as connection:
        return {job: (fence, value) for job, fence, value in connection.execute("SELECT * FROM effects")}


def tries(database: Path) -> list[tuple[str, int, bool]]:
    """Return (job, fence, taken) of everything that was tried, in order."""
    with contextlib.closing(sqlite3.connect(database, timeout=BUSY_S)) as connection:
        return [(job, fence, bool(taken)) for job, fence, taken in connection.execute("SELECT * FROM tries")]


if __name__ == "__main__":
    path, job_id, number, text = sys.argv[1:]
    sys.exit(TAKEN if take(Path(path), job_id, int(number), text) else REFUSED)
