"""What a measured program is told, and what it answers.

A program is started with one argument, the `Work` as JSON. It connects, prepares, prints `ready`, waits for a line on
stdin, does the work and prints a `Done` as one line of JSON. So start-up and preparation are in no figure, and several
processes begin together. Programs of peers do the same without importing this package.
"""

from __future__ import annotations

import sys

import msgspec


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """`what`: enqueue, claim, complete, drain, serve (latency: the waiting side), knock (the other), ping, hold (put
    jobs into the state `how`), parked (leave long polls alone), or verb (`how` alone, `batch` jobs a call)."""

    what: str
    how: str = "one"
    """one: a call a job · concurrent: `concurrency` tasks · bulk: `batch` a call."""
    url: str
    jobs: int
    payload_bytes: int = 199
    concurrency: int = 1
    batch: int = 1
    backlog: int = 0
    """Jobs that wait beforehand and are not among those measured."""
    processes: int = 1
    """How many programs do the same at once, each with `jobs` of its own."""
    slot: int = 0
    shared: str = ""
    """A file of memory that the programs of a run share: eight bytes a program, the jobs that it has done."""
    cut_s: float = 0.0
    """A peer stops after so long and reports what was done; parked polls are looked at for so long. 0: not told."""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    jobs: int
    took_s: float
    latencies_ms: list[float] = []


def told() -> Work:
    """Return the work that this program was started for."""
    return msgspec.json.decode(sys.argv[1], type=Work)


def wait_for_go() -> None:
    """Say that everything is prepared, and wait until all are."""
    print("ready", flush=True)
    sys.stdin.readline()


def answer(done: Done) -> None:
    """Report."""
    print(msgspec.json.encode(done).decode(), flush=True)


def payload_of(size_bytes: int) -> dict[str, str]:
    """Return a payload whose JSON has so many bytes, as of a job: a repository, a commit, and filling."""
    base = {"repo": "git@example.com:shop/api", "sha": "9f8d111d8" * 4, "pad": ""}
    return base | {"pad": "x" * max(0, size_bytes - len(msgspec.json.encode(base)))}
