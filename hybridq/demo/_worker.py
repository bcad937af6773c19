"""A worker process of the demo: one job at a time, each a subprocess."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from ..aio import AsyncQueue
from ..job import Lease
from ..worker import Worker
from ._plan import LEASE_S, QUEUE, Step

__all__ = ["TYPES", "StepFailed", "main"]

GRACE_S: Final = 5.0
TAIL_BYTES: Final = 2_000
TYPES: Final = ("manifest", "tests", "lint", "sdist", "wheel", "smoke", "compile", "hash")


class StepFailed(Exception):
    """The program of a job ended with an exit code other than 0; the message is the end of what it said."""


class Result(msgspec.Struct, frozen=True):
    """What a job leaves behind."""

    log: str
    facts: dict[str, Any]


def main() -> None:
    """Work until SIGTERM or until the demo, at the other end of stdin, is gone.

    Arguments: namespace, agent, folder of logs. The server is in `HYBRIDQ_REDIS_URL`.
    """
    *_, namespace, agent, logs = sys.argv
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(_work(namespace, agent, Path(logs)))


async def _work(namespace: str, agent: str, logs: Path) -> None:
    async with AsyncQueue(QUEUE, namespace=namespace, agent=agent, lease_s=LEASE_S) as queue:
        worker = Worker(queue, concurrency=1, grace_s=GRACE_S)

        async def run_step(step: Step, lease: Lease) -> Result:
            # Says that the claim arrived: an unconfirmed lease that ends goes back without a trace in the record.
            await queue.heartbeat([lease])
            log = logs / f"{lease.job_id}-{lease.fence}.log"
            await _run(step, lease, log)
            for after in step.then:
                # Under an id of its own, so that a run that is repeated enqueues it once.
                await queue.enqueue("hash", Step(argv=after.argv), job_id=after.job_id)
            return Result(log=log.name, facts=_facts(log))

        for type in TYPES:
            worker.task(type)(run_step)
        await _unless_abandoned(asyncio.ensure_future(worker.run()))


async def _unless_abandoned(running: asyncio.Future[None]) -> None:
    """Wait for the worker, and cancel it when stdin ends: the demo holds its other end and sends nothing."""
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()

    def abandoned() -> None:
        loop.remove_reader(stdin)
        running.cancel()

    loop.add_reader(stdin, abandoned)
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def _run(step: Step, lease: Lease, log: Path) -> None:
    """Run the program to its end; when the job is taken away meanwhile, end the program. Raises `StepFailed`."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *step.argv, env=_environment(lease), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if code:
        raise StepFailed(f"exit {code}: {_tail(log)}")


def _environment(lease: Lease) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HYBRIDQ_")}
    return plain | {
        "HYBRIDQ_JOB_ID": lease.job_id,
        "HYBRIDQ_ATTEMPT": str(lease.attempt),
        "HYBRIDQ_FENCE": str(lease.fence),
    }


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return "\n".join(lines[-5:]) if lines else "it said nothing"


def _facts(log: Path) -> dict[str, Any]:
    return msgspec.json.decode(_tail(log).splitlines()[-1], type=dict[str, Any])
