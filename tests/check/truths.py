"""Histories that look odd and are honest: each excuse the rules know, once."""

from __future__ import annotations

from collections.abc import Callable

from tests.check.tale import Tale, lease

Truth = Callable[[Tale], None]

TRUTHS: list[tuple[str, Truth]] = []


def truth(sentence: str) -> Callable[[Truth], Truth]:
    """Register an honest history."""

    def register(tell: Truth) -> Truth:
        TRUTHS.append((sentence, tell))
        return tell

    return register


@truth("nothing happened")
def _(tale: Tale) -> None:
    pass


@truth("a job is enqueued, leased, started, kept alive and completed")
def _(tale: Tale) -> None:
    tale.enqueue("a", payload_sha256="aa", priority="HIGH")
    tale.claim(lease("a", 1, priority="HIGH", payload_sha256="aa"), request_id="r1")
    tale.start(lease("a", 1))
    tale.heartbeat(lease("a", 1))
    tale.finish("complete", lease("a", 1), "COMPLETED", result=1)
    tale.finish("complete", lease("a", 1), "COMPLETED", replayed=True, result=1)
    shown = {"fence": 1, "outcome": "success", "result": 1}
    tale.tell("job", {"job_id": "a", "status": "COMPLETED", "attempts": [shown], "payload_sha256": "aa"}, job_id="a")
    tale.tell("inventory", {"a": "COMPLETED"}, drained=True)


@truth("calls that overlap are in no order")
def _(tale: Tale) -> None:
    tale.enqueue("a", at=1, until=10)
    tale.enqueue("b", at=2, until=9)
    tale.claim(lease("b", 1), at=11, until=20)
    tale.claim(lease("a", 2), at=12, until=19, agent="a2")
    tale.enqueue("c", at=30, until=40)
    tale.claim(lease("c", 3), at=31, until=41)


@truth("a released job is leased again, and others in between")
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.enqueue("b")
    tale.claim(lease("a", 1))
    tale.finish("release", lease("a", 1), "QUEUED")
    tale.claim(lease("b", 2))
    tale.claim(lease("a", 3, deliveries=2), agent="a2")


@truth("a delayed job is overtaken")
def _(tale: Tale) -> None:
    tale.enqueue("a", delay_s=0.002)
    tale.enqueue("b")
    tale.claim(lease("b", 1))
    tale.claim(lease("a", 2), at=20)


@truth("a job that lost its place to another priority is overtaken")
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.enqueue("b")
    tale.tell("reprioritise", "QUEUED", job_id="a", priority="LOW")
    tale.claim(lease("b", 1))
    tale.claim(lease("a", 2, priority="LOW"))


@truth("a job whose first delivery went to a lost answer comes later")
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.enqueue("b")
    tale.tell("claim", type="info", agent="a1", n=1)
    tale.claim(lease("b", 2), agent="a2")
    tale.claim(lease("a", 3, deliveries=2), agent="a2")


@truth("a job never comes because a lost answer may have taken it")
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.enqueue("b")
    tale.tell("claim", type="info", agent="a1", n=1)
    tale.claim(lease("b", 2), agent="a2")


@truth("a claim asked again brings the lease of the answer that was lost, given before later ones")
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.enqueue("b")
    tale.tell("claim", type="info", agent="a1", request_id="r1", n=1)
    tale.claim(lease("b", 2), agent="a2")
    tale.claim(lease("a", 1), agent="a1", request_id="r1")


@truth("a lease taken by a caller that went away is handed to the agent's next caller")
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.enqueue("b")
    tale.tell("claim", type="info", agent="a1", n=1)
    tale.claim(lease("b", 2), agent="a2")
    tale.claim(lease("a", 1), agent="a1")


@truth("an enqueue without an answer happened, and its repetition says so")
def _(tale: Tale) -> None:
    tale.enqueue("a", type="info")
    tale.claim(lease("a", 1))
    tale.enqueue("a", created=False)


@truth("an enqueue without an answer and without a name happened")
def _(tale: Tale) -> None:
    tale.tell("enqueue", type="info")
    tale.claim(lease("a", 1))


@truth("a completion without an answer happened, and the job is past its retention")
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING"))
    tale.tell("complete", type="info", lease=lease("a", 1))
    tale.tell("job", {"error": "JobNotFound"}, type="fail", job_id="a")
    tale.tell("inventory", {})


@truth("a completion that was not answered counts, and the same report is replayed")
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING"))
    tale.tell("complete", type="info", lease=lease("a", 1))
    tale.finish("complete", lease("a", 1), "COMPLETED", replayed=True)


@truth("a purged job is enqueued anew")
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING", max_attempts=1))
    tale.finish("fail", lease("a", 1), "DEAD_LETTERED")
    tale.tell("purge", {"purged": ["a"], "skipped": {}}, job_ids=["a"])
    tale.tell("job", {"error": "JobNotFound"}, type="fail", job_id="a")
    tale.enqueue("a", payload_sha256="other")


@truth("a dead letter is replayed and runs in a new generation")
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING", max_attempts=1))
    tale.finish("fail", lease("a", 1), "DEAD_LETTERED")
    tale.tell("replay", {"replayed": ["a"], "skipped": {}}, all=True)
    tale.claim(lease("a", 2, status="RUNNING", max_attempts=1, deliveries=2, generation=1))
    tale.finish("complete", lease("a", 2), "COMPLETED")
    tale.finish("fail", lease("a", 1), "DEAD_LETTERED", replayed=True)
    tale.tell("job", {"job_id": "a", "status": "COMPLETED"}, job_id="a")


@truth("a job is leased again when a replay without an answer may have happened")
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING", max_attempts=1))
    tale.finish("fail", lease("a", 1), "DEAD_LETTERED")
    tale.tell("replay", type="info", all=True)
    tale.claim(lease("a", 2, max_attempts=1, deliveries=2, generation=1))


@truth("runs of infrastructure errors and releases are not charged")
def _(tale: Tale) -> None:
    tale.enqueue("a")
    for fence, end in enumerate(("infra", "infra", "release", "last"), 1):
        tale.claim(lease("a", fence, max_attempts=1, deliveries=fence))
        tale.start(lease("a", fence))
        if end == "infra":
            tale.finish("fail", lease("a", fence), "QUEUED", outcome="infra_error")
        elif end == "release":
            tale.finish("release", lease("a", fence), "QUEUED")
        else:
            tale.finish("fail", lease("a", fence, max_attempts=1), "DEAD_LETTERED")


@truth("claims straight into running that nobody confirmed are not charged")
def _(tale: Tale) -> None:
    tale.enqueue("a")
    for fence in (1, 2, 3):
        tale.claim(lease("a", fence, status="RUNNING", max_attempts=1, deliveries=fence))


@truth("a stale completion is refused, and leaves no trace")
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING"))
    tale.claim(lease("a", 2, status="RUNNING", deliveries=2), agent="a2")
    tale.tell("complete", {"error": "StaleLease"}, type="fail", lease=lease("a", 1))
    tale.finish("complete", lease("a", 2), "COMPLETED")
    ended = [{"fence": 1, "outcome": "lost"}, {"fence": 2, "outcome": "success"}]
    tale.tell("job", {"job_id": "a", "status": "COMPLETED", "attempts": ended}, job_id="a")


@truth("a repeated claim brings what is left, and something new when nothing is")
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.enqueue("b")
    tale.enqueue("c")
    tale.claim(lease("a", 1), lease("b", 2), request_id="r1")
    tale.start(lease("a", 1))
    tale.finish("complete", lease("a", 1), "COMPLETED")
    tale.claim(lease("b", 2), request_id="r1", n=2)
    tale.finish("release", lease("b", 2), "SCHEDULED", retry_in_s=3600)
    tale.claim(lease("c", 3), request_id="r1", n=2)
    tale.start(lease("c", 3))


@truth("a finish brings the next job")
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.enqueue("b")
    tale.claim(lease("a", 1, status="RUNNING"))
    tale.finish("complete", lease("a", 1), "COMPLETED", next=[lease("b", 2, status="RUNNING")], claim_next=1)
    tale.finish("complete", lease("b", 2), "COMPLETED")


@truth("a job is cancelled before it starts")
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1))
    tale.tell("cancel", {"job_id": "a", "status": "CLAIMED", "requested": True}, job_id="a")
    tale.tell("start", {"error": "JobCancelled"}, type="fail", lease=lease("a", 1))
    tale.tell("job", {"job_id": "a", "status": "CANCELLED"}, job_id="a")


@truth("a unique key is answered with the job that holds it")
def _(tale: Tale) -> None:
    tale.enqueue("a", unique="k")
    tale.tell("enqueue", {"job_id": "a", "status": "QUEUED", "created": False, "unique": True}, job_id="b", unique="k")


@truth("jobs of other labels and other queues have an order of their own")
def _(tale: Tale) -> None:
    tale.enqueue("a", labels=["gpu"], priority="HIGH")
    tale.enqueue("b")
    tale.enqueue("c", queue="other")
    tale.claim(lease("b", 1))
    tale.claim(lease("c", 1), queue="other")
    tale.claim(lease("a", 2, priority="HIGH"))


@truth("a forgotten id is free again")
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING"))
    tale.finish("complete", lease("a", 1), "COMPLETED")
    tale.enqueue("a", at=901_000)
