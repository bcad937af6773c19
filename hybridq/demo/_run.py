"""The demo from beginning to end. What happens is decided by the queue; this only starts, disturbs and looks."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

from .. import check
from ..client import Queue
from ..connect import Connector, SyncRedis
from ..embedded import InMemory, start_or_attach
from ..errors import EmbeddedUnavailable
from ..job import Job, QueueStats
from ..lifecycle import JobStatus
from ._crew import Crew
from ._plan import DOOMED, INTERRUPTIBLE, LEASE_S, QUEUE, Plan
from ._promises import Promise, Records, judge
from ._source import copy_tree, default_tree
from ._story import Story, changes

__all__ = ["Report", "run"]

PATIENCE_S: Final = 180.0
"""After so long the demo gives up and says which promises it did not keep. It takes 20 to 40 s on two cores."""
LOOK_EVERY_S: Final = 0.05
DELETE_COUNT: Final = 500


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    ok: bool
    took_s: float
    tree: str
    server: str
    namespace: str
    promises: tuple[Promise, ...]
    jobs: tuple[Job, ...]
    stats: QueueStats


def run(story: Story, *, tree: Path | None = None, redis: str | None = None) -> Report:
    """Run the pipeline over a copy of `tree` (None: this checkout, or the sample package) and judge it.

    `redis` None starts a private server in a temporary folder. Whatever happens, no process, no file and no key
    is left behind; SIGTERM counts as Ctrl-C. Raises `InvalidArgument` for a tree it cannot use, and what a queue
    raises.
    """
    began = time.monotonic()
    tree = (tree or default_tree()).resolve()
    namespace = f"demo-{secrets.token_hex(4)}"
    with story, contextlib.ExitStack() as cleanup:
        cleanup.enter_context(_interrupted_by_sigterm())
        folder = Path(tempfile.mkdtemp(prefix="hybridq-demo-"))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        url = redis or _private_server(folder / "data", cleanup)
        plan = Plan(tree=folder / "tree", out=folder / "out")
        story.say(f"{copy_tree(tree, plan.tree)} files of {tree} copied; server: {_server_of(url)}")
        plan.prepare()
        queue = cleanup.enter_context(Queue(QUEUE, redis=url, namespace=namespace, agent="demo"))
        if redis is not None:
            cleanup.callback(_delete_keys, queue)
        crew = Crew(url, namespace, plan.logs)
        cleanup.callback(crew.dismiss)
        killed = _Pipeline(story, plan, queue, crew).run()
        crew.dismiss()
        return _report(plan, queue, killed, tree=str(tree), began=began)


class _Pipeline:
    """The middle part: jobs are in, workers work, one of them is killed, one job is mended."""

    def __init__(self, story: Story, plan: Plan, queue: Queue, crew: Crew) -> None:
        self._story, self._plan, self._queue, self._crew = story, plan, queue, crew
        self._workers: dict[str, str] = {}
        self._jobs: dict[str, Job] = {}
        self._killed: tuple[str, str, int] | None = None
        self._mended = False

    def run(self) -> tuple[str, str, int] | None:
        """Run until every job has ended, or patience has; return the worker that was killed, and over what."""
        specs = self._plan.specs()
        for answer in self._queue.enqueue_many(specs):
            if isinstance(answer, Exception):
                raise answer
        self._story.say(f"{len(specs)} jobs enqueued, the CRITICAL one last: {', '.join(str(s.job_id) for s in specs)}")
        for _ in range(2):
            self._hire()
        deadline = time.monotonic() + PATIENCE_S
        pause = threading.Event()
        while time.monotonic() < deadline:
            self._look()
            if self._killed is None:
                self._kill_one()
            if not self._mended:
                self._mend()
            if self._over():
                break
            pause.wait(LOOK_EVERY_S)
        return self._killed

    def _hire(self) -> None:
        name = self._crew.hire()
        self._workers[name] = "at work"
        self._story.say(f"{name} is started")

    def _look(self) -> None:
        now = {job.job_id: job for job in reversed(self._queue.jobs(limit=200).items)}
        for sentence in changes(self._jobs, now):
            self._story.say(sentence)
        self._jobs = now
        for name, words in self._crew.died().items():
            if self._workers[name] == "at work":
                self._workers[name] = "ended"
                self._story.say(f"{name} ended by itself: {words}")
        self._story.show(list(now.values()), self._workers)

    def _kill_one(self) -> None:
        """Kill a worker that seems to be in the middle of a job; whether it was is told by the record afterwards."""
        for job_id in INTERRUPTIBLE:
            job = self._jobs.get(job_id)
            if job is None or job.agent is None or not _is_held(job):
                continue
            status = self._crew.kill(job.agent)
            self._workers[job.agent] = "killed"
            after = self._queue.job(job_id)
            if _is_held(after) and after.fence == job.fence:
                self._killed = (job.agent, job_id, status)
                self._story.say(f"{job.agent} is killed with SIGKILL in the middle of {job_id} (exit {status})")
            else:
                self._story.say(f"{job.agent} is killed with SIGKILL, and had just done with {job_id}: once more")
            self._hire()
            return

    def _mend(self) -> None:
        job = self._jobs.get(DOOMED)
        if job is not None and job.status is JobStatus.DEAD_LETTERED:
            self._plan.mend()
            self._story.say(f"{DOOMED}: its cause is mended, and it is replayed from the dead letters")
            self._queue.dead.replay([DOOMED])
            self._mended = True

    def _over(self) -> bool:
        """Whether nothing will change any more: all is done, or what is left has failed for good."""
        if "at work" not in self._workers.values():
            return True
        settled = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.DEAD_LETTERED)
        if not all(job.status in settled for job in self._jobs.values()):
            return False
        return self._mended or self._jobs[DOOMED].status is not JobStatus.DEAD_LETTERED


def _is_held(job: Job) -> bool:
    """Whether a worker runs it and has confirmed its lease by a heartbeat, which moves the end of the lease."""
    if job.status is not JobStatus.RUNNING or job.claimed_at is None or job.lease_expires_at is None:
        return False
    return (job.lease_expires_at - job.claimed_at).total_seconds() > LEASE_S


def _private_server(data_dir: Path, cleanup: contextlib.ExitStack) -> str:
    server = start_or_attach(data_dir)
    cleanup.callback(server.close)
    if isinstance(server, InMemory):
        raise EmbeddedUnavailable(
            "worker processes need a server that they can share, and there is none",
            "pip install 'hybridq[server]', install redis-server, or give --redis URL",
        )
    return server.url


def _server_of(url: str) -> str:
    return Connector.parse(url).safe_url


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does, so that it cleans up; only the main thread can hear of it."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _delete_keys(queue: Queue) -> None:
    """Remove the keys of the demo's own namespace, which nobody else can have used, from a server that stays."""
    client: SyncRedis = queue.connector.sync()
    with contextlib.closing(client):
        for key in client.scan_iter(match=f"hq:{{{queue.namespace}/*", count=DELETE_COUNT):
            client.unlink(key)


def _report(plan: Plan, queue: Queue, killed: tuple[str, str, int] | None, *, tree: str, began: float) -> Report:
    jobs = {job.job_id: job for job in queue.jobs(limit=200).items}
    stats = queue.stats(window_s=0)
    with contextlib.closing(queue.connector.sync()) as client:
        checked = check.keyspace(client, queue.namespace)
    promises = judge(plan, Records(jobs=jobs, stats=stats, checked=checked, killed=killed))
    return Report(
        ok=all(promise.kept for promise in promises),
        took_s=round(time.monotonic() - began, 3),
        tree=tree,
        server=queue.connector.safe_url,
        namespace=queue.namespace,
        promises=tuple(promises),
        jobs=tuple(sorted(jobs.values(), key=lambda job: job.seq)),
        stats=stats,
    )
