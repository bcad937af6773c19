"""Producers and workers that live through every fault, and a history of all they saw."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from hybridq import Conflict, Lease, NotFound, OutcomeUnknown, ServerTrouble, check
from tests.servers import wait_until

T = TypeVar("T")
TROUBLE = (OutcomeUnknown, ServerTrouble)
AGAIN_S = 0.02
RELEASE_EVERY = 7
"""A share of the jobs is handed back once; the library does not repeat a release by itself, so the caller does."""


class Load:
    """Threads that enqueue, and threads that claim, start, beat and complete, on one queue of either colour.

    Each call whose outcome is in doubt is made again with the same ids until it is known, as a caller should. The
    history holds every try. Leaving the block stops the threads; a thread that failed raises there.
    """

    def __init__(
        self, queue: Any, *, producers: int = 2, workers: int = 4, lease_s: float = 5.0, think_s: float = 0.002
    ) -> None:
        self._queue, self._lease_s, self._think_s = queue, lease_s, think_s
        self.recorder = check.Recorder()
        self.acknowledged: dict[str, float] = {}
        """Job id → when its enqueue was answered, by `time.monotonic`."""
        self.completed: list[str] = []
        self.fences: list[int] = []
        self.troubles: list[BaseException] = []
        self._failed: list[BaseException] = []
        self._enough, self._over = threading.Event(), threading.Event()
        names = [*(f"p{n}" for n in range(producers)), *(f"w{n}" for n in range(workers))]
        self._threads = [
            threading.Thread(target=self._run, args=(self._produce if name[0] == "p" else self._work, name), name=name)
            for name in names
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough.set()
        self._over.set()
        for thread in self._threads:
            thread.join(30)
        if exc is None and self._failed:
            raise self._failed[0]

    def wait_for_progress(self, jobs: int, timeout_s: float = 20.0) -> None:
        """Wait until so many more jobs were enqueued and completed than now."""
        enough = len(self.acknowledged) + jobs, len(self.completed) + jobs

        def done() -> bool:
            if self._failed:
                raise self._failed[0]
            return len(self.acknowledged) >= enough[0] and len(self.completed) >= enough[1]

        wait_until(done, timeout_s, what=f"{jobs} more jobs go through")

    def drain(self, timeout_s: float = 30.0) -> None:
        """Enqueue no more, and wait until all that was acknowledged has ended. Then every rule must hold."""
        statuses = self.settle(timeout_s)
        with self.recorder.call("inventory", proc="end", queue=self._queue.name, drained=True) as call:
            call.ok(statuses)
        check.history(self.recorder.events).raise_if_broken()

    def settle(self, timeout_s: float = 30.0) -> dict[str, str]:
        """Enqueue no more, and wait until all there is has ended; return the status of each job."""
        self._enough.set()

        def ended() -> bool:
            if self._failed:
                raise self._failed[0]
            stats = self._queue.stats()
            return not (stats.queued or stats.scheduled or stats.claimed or stats.running)

        wait_until(ended, timeout_s, what="all jobs have ended")
        self._over.set()
        for thread in self._threads:
            thread.join(30)
        return self._inventory()

    def _inventory(self) -> dict[str, str]:
        statuses: dict[str, str] = {}
        cursor = None
        while True:
            page = self._queue.jobs(limit=200, cursor=cursor)
            statuses |= {job.job_id: job.status for job in page.items}
            cursor = page.next_cursor
            if cursor is None:
                return statuses

    def _run(self, body: Callable[[str], None], name: str) -> None:
        try:
            body(name)
        except BaseException as problem:
            self._failed.append(problem)

    def _produce(self, name: str) -> None:
        for n in itertools.count():
            if self._enough.wait(self._think_s):
                return
            said = {"type": "t", "payload": [name, n], "job_id": f"{name}-{n}"}
            answer = self._until_known("enqueue", name, self._queue.enqueue, said)
            if answer is not None:
                self.acknowledged[answer.job_id] = time.monotonic()

    def _work(self, name: str) -> None:
        for n in itertools.count():
            if self._over.is_set():
                return
            asked = {"n": 1, "agent": name, "request_id": f"{name}-{n}", "lease_s": self._lease_s, "wait_s": 0.2}
            for lease in self._until_known("claim", name, self._queue.claim, asked) or ():
                self.fences.append(lease.fence)
                self._run_job(name, lease)

    def _run_job(self, name: str, lease: Lease) -> None:
        try:
            self._until_known("start", name, self._queue.start, {"lease": lease})
            self._until_known("heartbeat", name, self._queue.heartbeat, {"leases": [lease]}, positional=True)
            if lease.fence % RELEASE_EVERY == 0 and lease.deliveries == 1:
                self._until_known("release", name, self._queue.release, {"lease": lease})
                return
            if self._until_known("complete", name, self._queue.complete, {"lease": lease, "result": lease.fence}):
                self.completed.append(lease.job_id)
        except (Conflict, NotFound):
            return  # the lease was lost; somebody else has the job

    def _until_known(
        self, op: str, name: str, call: Callable[..., T], said: dict[str, Any], *, positional: bool = False
    ) -> T | None:
        """Call until the outcome is known; None when the test is over before that."""
        while True:
            try:
                with self.recorder.call(op, proc=name, queue=self._queue.name, **said) as record:
                    answer = call(*said.values()) if positional else call(**said)
                    record.ok(answer)
                    return answer
            except TROUBLE as trouble:
                self.troubles.append(trouble)
            if self._over.wait(AGAIN_S):
                return None
