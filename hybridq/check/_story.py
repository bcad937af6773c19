"""Sorts a history by job: what was asked of each and what was answered, in the terms the rules are written in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec

from ..errors import InvalidArgument
from ._best import Best, Mark
from ._events import Event
from ._shapes import Beat, ClaimArgs, Enqueued, Finished, Job, Lease, LeaseArgs, Spec, to

__all__ = ["NEVER", "Answer", "Enqueue", "Grant", "JobStory", "LeaseCall", "Order", "Read", "Story", "tell"]

NEVER: Final = 1 << 62
"""The time of an answer that did not come."""

HANDOVER_NS: Final = 10_000_000_000
"""A claim whose caller went away may still take a job, which the same agent's next caller is handed within this."""

LEASE_OPS: Final = frozenset({"start", "complete", "fail", "release"})


class Enqueue(NamedTuple):
    """One enqueue of one job; `created` is False when the job was there."""

    type: str
    t_inv: int
    t_ret: int
    created: bool
    spec: Spec
    said: dict[str, Any]
    error: str

    @property
    def delayed(self) -> bool:
        """True when the job was to wait for a time."""
        return bool(self.spec.delay_s) or self.spec.run_at is not None


@dataclass(slots=True)
class Grant:
    """One lease, as it was handed to a client. It was given between `t_inv` and `t_ret`."""

    lease: Lease
    t_inv: int
    t_ret: int
    claims: list[tuple[str, str | None]] = field(default_factory=list)
    """(agent, request id) of each call that was answered with it."""


class LeaseCall(NamedTuple):
    """One call by the holder of a lease, or of one job among those of a heartbeat."""

    kind: str
    type: str
    t_inv: int
    t_ret: int
    fence: int
    asked: LeaseArgs
    answer: Finished
    error: str

    @property
    def outcome(self) -> str:
        """What the holder reported; only of complete and fail."""
        return self.asked.outcome or ("success" if self.kind == "complete" else "failed")


class Order(NamedTuple):
    """A cancel, reprioritise, replay (or retry) or purge of one job."""

    kind: str
    type: str
    t_inv: int
    t_ret: int
    status: str


class Read(NamedTuple):
    """A job as a client read it; `job` is None when it was not found."""

    t_inv: int
    t_ret: int
    job: Job | None


@dataclass(slots=True)
class JobStory:
    """Everything clients did with one job, each list in the order of sending."""

    queue: str
    job_id: str
    enqueues: list[Enqueue] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    calls: list[LeaseCall] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)

    def ordered(self, *kinds: str) -> bool:
        """Return whether such an order was given and may have been carried out."""
        return any(order.kind in kinds and order.type != "fail" for order in self.orders)

    @property
    def taken(self) -> list[Enqueue]:
        """The enqueues that happened, or may have."""
        return [enqueue for enqueue in self.enqueues if enqueue.type != "fail"]


class Answer(NamedTuple):
    """One answered claim: at most how many leases it asked for, and the fences it brought."""

    n: int
    t_inv: int
    t_ret: int
    fences: frozenset[int]


class Inventory(NamedTuple):
    """All jobs of a queue with their statuses; `drained`: all were to have ended by then."""

    t_inv: int
    drained: bool
    statuses: dict[str, str]


class QueueStory:
    """What is known of a queue beside its jobs."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[Answer]] = defaultdict(list)
        """(agent, request id) → answered claims."""
        self.lost_claims: dict[str, list[tuple[int, int]]] = defaultdict(list)
        """agent → (t_inv, t_ret) of claims whose answer nobody knows."""
        self.first_sent: dict[tuple[str, str], int] = {}
        """(agent, request id) → when it was first sent."""
        self.unnamed_enqueue = False
        """An enqueue whose job id nobody knows may have happened."""
        self.blanket: list[Order] = []
        """Orders for jobs that the history does not name."""
        self.inventories: list[Inventory] = []


class Story:
    """The history, sorted."""

    def __init__(self) -> None:
        self.jobs: dict[tuple[str, str], JobStory] = {}
        self.queues: dict[str, QueueStory] = defaultdict(QueueStory)

    def job(self, queue: str, job_id: str) -> JobStory:
        """Return the story of a job, begun when there is none."""
        key = (queue, job_id)
        if key not in self.jobs:
            self.jobs[key] = JobStory(queue, job_id)
        return self.jobs[key]


def tell(events: Iterable[Event]) -> Story:
    """Sort a history. Raises `InvalidArgument` for an event whose arguments or answer do not read."""
    story = Story()
    grants: list[tuple[str, Lease, Event, ClaimArgs]] = []
    for event in sorted(events, key=lambda event: event.t_inv):
        reader = _READERS.get(event.op)
        if reader is None:
            continue
        queue = str(event.args.get("queue", ""))
        try:
            grants += [(queue, *grant) for grant in reader(story, queue, event)]
        except msgspec.ValidationError as problem:
            raise InvalidArgument("events", event, f"an event of {event.op} that reads: {problem}") from problem
    _place_grants(story, grants)
    return story


def _error_of(result: Any) -> str:
    return str(result.get("error", "")) if isinstance(result, dict) else ""


def _ret(event: Event) -> int:
    return NEVER if event.t_ret is None or event.type == "info" else event.t_ret


_Given = Iterator[tuple[Lease, Event, ClaimArgs]]


def _enqueue(story: Story, queue: str, event: Event) -> _Given:
    _one_enqueue(story, queue, event, event.args, event.result, event.type)
    yield from ()


def _enqueue_many(story: Story, queue: str, event: Event) -> _Given:
    specs = event.args.get("specs", ())
    results = event.result if event.type == "ok" else [event.result] * len(specs)
    for said, result in zip(specs, results, strict=True):
        refused = event.type == "ok" and "error" in result
        _one_enqueue(story, queue, event, said, result, "fail" if refused else event.type)
    yield from ()


def _one_enqueue(story: Story, queue: str, event: Event, said: dict[str, Any], result: Any, kind: str) -> None:
    spec = to(Spec, said)
    answer = to(Enqueued, result) if kind == "ok" else None
    if answer is not None and answer.unique:
        return  # another job was there instead
    job_id = answer.job_id if answer is not None else spec.job_id
    if job_id is None:
        story.queues[queue].unnamed_enqueue |= kind == "info"
        return
    story.job(queue, job_id).enqueues.append(
        Enqueue(
            type=kind,
            t_inv=event.t_inv,
            t_ret=_ret(event),
            created=answer is not None and answer.created,
            spec=spec,
            said={name: value for name, value in said.items() if name not in ("queue", "job_id", "on_conflict")},
            error=_error_of(result),
        )
    )


def _claim(story: Story, queue: str, event: Event) -> _Given:
    asked = to(ClaimArgs, event.args)
    agent = asked.agent or event.proc
    around = story.queues[queue]
    if asked.request_id:
        around.first_sent.setdefault((agent, asked.request_id), event.t_inv)
    if event.type == "info":
        around.lost_claims[agent].append((event.t_inv, NEVER if event.t_ret is None else event.t_ret))
    if event.type != "ok":
        return
    leases = to(tuple[Lease, ...], event.result)
    answer = Answer(asked.n, event.t_inv, _ret(event), frozenset(lease.fence for lease in leases))
    around.answers[agent, asked.request_id or ""].append(answer)
    for lease in leases:
        yield lease, event, msgspec.structs.replace(asked, agent=agent)


def _lease_call(story: Story, queue: str, event: Event) -> _Given:
    asked = to(LeaseArgs, event.args)
    job_id, fence = (asked.lease.job_id, asked.lease.fence) if asked.lease else (asked.job_id, asked.fence)
    if job_id is None:
        raise msgspec.ValidationError("it names neither lease nor job_id")
    answer = to(Finished, event.result) if event.type == "ok" and event.op != "start" else Finished()
    if event.type == "ok" and event.op == "start":
        answer = Finished(status="RUNNING")
    story.job(queue, job_id).calls.append(
        LeaseCall(event.op, event.type, event.t_inv, _ret(event), fence, asked, answer, _error_of(event.result))
    )
    if event.type == "info" and asked.claim_next and asked.lease:
        lost = (event.t_inv, NEVER if event.t_ret is None else event.t_ret)
        story.queues[queue].lost_claims[asked.lease.agent].append(lost)
    for lease in answer.next:
        yield lease, event, ClaimArgs(agent=lease.agent)


def _heartbeat(story: Story, queue: str, event: Event) -> _Given:
    renewed = set(to(Beat, event.result).renewed) if event.type == "ok" else set()
    for lease in to(LeaseArgs, event.args).leases:
        kind = event.type if event.type != "ok" else "ok" if lease.job_id in renewed else "fail"
        story.job(queue, lease.job_id).calls.append(
            LeaseCall("heartbeat", kind, event.t_inv, _ret(event), lease.fence, LeaseArgs(), Finished(), "")
        )
    yield from ()


def _order(story: Story, queue: str, event: Event) -> _Given:
    kind = "replay" if event.op == "retry" else event.op
    one = event.args.get("job_id")
    ids = [str(job_id) for job_id in event.args.get("job_ids") or ([] if one is None else [one])]
    status = ""
    if event.type == "ok" and isinstance(event.result, dict):
        status = str(event.result.get("status", ""))
        ids = [str(job_id) for job_id in event.result.get({"replay": "replayed", "purge": "purged"}.get(kind), ids)]
    order = Order(kind, event.type, event.t_inv, _ret(event), status)
    for job_id in ids:
        story.job(queue, job_id).orders.append(order)
    if not ids and event.type == "info":
        story.queues[queue].blanket.append(order)
    yield from ()


def _read(story: Story, queue: str, event: Event) -> _Given:
    if event.type == "ok":
        job = to(Job, event.result)
        story.job(queue, job.job_id).reads.append(Read(event.t_inv, _ret(event), job))
    elif event.type == "fail" and _error_of(event.result) == "JobNotFound":
        story.job(queue, str(event.args["job_id"])).reads.append(Read(event.t_inv, _ret(event), None))
    yield from ()


def _inventory(story: Story, queue: str, event: Event) -> _Given:
    if event.type == "ok":
        statuses = to(dict[str, str], event.result)
        drained = bool(event.args.get("drained", False))
        story.queues[queue].inventories.append(Inventory(event.t_inv, drained, statuses))
        for job_id, status in statuses.items():
            job = Job(job_id=job_id, status=status)
            story.job(queue, job_id).reads.append(Read(event.t_inv, _ret(event), job))
    yield from ()


_READERS: Final[dict[str, Callable[[Story, str, Event], _Given]]] = {
    "enqueue": _enqueue,
    "enqueue_many": _enqueue_many,
    "claim": _claim,
    **dict.fromkeys(LEASE_OPS, _lease_call),
    "heartbeat": _heartbeat,
    **dict.fromkeys(("cancel", "reprioritise", "retry", "replay", "purge"), _order),
    "job": _read,
    "inventory": _inventory,
}


def _place_grants(story: Story, given: list[tuple[str, Lease, Event, ClaimArgs]]) -> None:
    """Give each job its leases; the same lease in several answers is one, given before the first of them came."""
    found: dict[tuple[str, str, int, str], Grant] = {}
    lost = {
        (queue, agent): Best(Mark(-t_ret, -t_inv, None) for t_inv, t_ret in calls)
        for queue, around in story.queues.items()
        for agent, calls in around.lost_claims.items()
    }
    for queue, lease, event, asked in given:
        agent = asked.agent or event.proc
        t_inv = event.t_inv
        if asked.request_id:
            t_inv = min(t_inv, story.queues[queue].first_sent[agent, asked.request_id])
        if (queue, agent) in lost:
            earliest = lost[queue, agent].before(HANDOVER_NS - event.t_inv)
            t_inv = t_inv if earliest is None else min(t_inv, -earliest.value)
        key = (queue, lease.job_id, lease.fence, lease.lease_id)
        grant = found.get(key)
        if grant is None:
            grant = found[key] = Grant(lease, t_inv, _ret(event))
            story.job(queue, lease.job_id).grants.append(grant)
        grant.t_inv, grant.t_ret = min(grant.t_inv, t_inv), min(grant.t_ret, _ret(event))
        grant.claims.append((agent, asked.request_id))
