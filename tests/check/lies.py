"""Histories that no honest queue could have made, each with the invariant it breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.check.tale import Tale, lease

Lie = Callable[[Tale], None]


@dataclass(frozen=True)
class Case:
    """One lie; `job_id` is None when the violation is no single job's."""

    sentence: str
    invariants: set[int]
    job_id: str | None
    tell: Lie


LIES: list[Case] = []


def lie(sentence: str, *invariants: int, job: str | None = "a") -> Callable[[Lie], Lie]:
    """Register a history that breaks these invariants."""

    def register(tell: Lie) -> Lie:
        LIES.append(Case(sentence, set(invariants), job, tell))
        return tell

    return register


# -- leases ------------------------------------------------------------------------------------------------


@lie("a heartbeat is accepted after the job was given to another", 2)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1))
    tale.claim(lease("a", 2, deliveries=2), agent="a2")
    tale.heartbeat(lease("a", 1))


@lie("a late worker completes a job that another holds", 2)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING"))
    tale.claim(lease("a", 2, status="RUNNING", deliveries=2), agent="a2")
    tale.finish("complete", lease("a", 1), "COMPLETED")


@lie("a forged fence is accepted", 2)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1))
    tale.start(lease("a", 7))


@lie("one fence is given out for two jobs", 3)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.enqueue("b")
    tale.claim(lease("a", 5), lease("b", 5, lease_id="f" * 32))


@lie("one fence is given out again with another lease id", 3)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 5))
    tale.claim(lease("a", 5, lease_id="f" * 32, deliveries=2))


@lie("fences start over after a restart", 3, job="b")
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 900))
    tale.enqueue("b")
    tale.claim(lease("b", 1))


@lie("a heartbeat is accepted after the job was completed", 4)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING"))
    tale.finish("complete", lease("a", 1), "COMPLETED")
    tale.heartbeat(lease("a", 1))


@lie("a refused completion shows in the job's history", 4)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING"))
    tale.tell("complete", {"error": "StaleLease"}, type="fail", lease=lease("a", 1))
    tale.tell("job", {"job_id": "a", "status": "QUEUED", "attempts": [{"fence": 1, "outcome": "success"}]}, job_id="a")


@lie("a job shows the result of a refused completion", 4)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING"))
    tale.finish("complete", lease("a", 1), "COMPLETED", result=1)
    shown = {"fence": 1, "outcome": "success", "result": 2}
    tale.tell("job", {"job_id": "a", "status": "COMPLETED", "attempts": [shown]}, job_id="a")


# -- attempts ------------------------------------------------------------------------------------------------


@lie("a job is leased for one attempt too many", 5)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, attempt=4))


@lie("a job runs more often than it has attempts", 5)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    for fence in (1, 2, 3):
        tale.claim(lease("a", fence, max_attempts=2, deliveries=fence))
        tale.start(lease("a", fence))


@lie("the failure of the last attempt is tried again", 5)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING", max_attempts=1))
    tale.finish("fail", lease("a", 1), "SCHEDULED")


# -- ends ----------------------------------------------------------------------------------------------------


@lie("a completed job is leased again", 10)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING"))
    tale.finish("complete", lease("a", 1), "COMPLETED")
    tale.claim(lease("a", 2, deliveries=2))


@lie("a cancelled job is leased", 10)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.tell("cancel", {"job_id": "a", "status": "CANCELLED", "requested": False}, job_id="a")
    tale.claim(lease("a", 1))


@lie("a replayed job is leased in its old generation", 10)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING"))
    tale.finish("fail", lease("a", 1), "FAILED", retryable=False)
    tale.tell("retry", "QUEUED", job_id="a")
    tale.claim(lease("a", 2, deliveries=2, generation=0))


@lie("a completed job is read as failed", 10)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING"))
    tale.finish("complete", lease("a", 1), "COMPLETED")
    tale.tell("job", {"job_id": "a", "status": "FAILED"}, job_id="a")


@lie("a lease is completed twice, each time for the first time", 11)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING"))
    tale.finish("complete", lease("a", 1), "COMPLETED")
    tale.finish("complete", lease("a", 1), "COMPLETED")


@lie("a lease is granted two outcomes", 11)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING"))
    tale.finish("complete", lease("a", 1), "COMPLETED")
    tale.finish("fail", lease("a", 1), "COMPLETED", replayed=True)


@lie("the same report is answered differently", 11)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING"))
    tale.finish("fail", lease("a", 1), "SCHEDULED")
    tale.finish("fail", lease("a", 1), "DEAD_LETTERED", replayed=True)


@lie("a lease is completed after it was released", 11)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING"))
    tale.finish("release", lease("a", 1), "QUEUED")
    tale.finish("complete", lease("a", 1), "COMPLETED")


# -- order ----------------------------------------------------------------------------------------------------


@lie("a job is overtaken by one that was enqueued after it", 6)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.enqueue("b")
    tale.claim(lease("b", 1))
    tale.claim(lease("a", 2))


@lie("a job is passed over for good", 6)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.enqueue("b")
    tale.claim(lease("b", 1))


@lie("a batch overtakes a job", 6)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    specs = [{"job_id": "b"}, {"job_id": "c"}]
    tale.tell("enqueue_many", [{"job_id": "b"}, {"job_id": "c"}], specs=specs)
    tale.claim(lease("c", 1), lease("b", 2))
    tale.claim(lease("a", 3))


@lie("an urgent job waits while a lesser one is leased", 15)
def _(tale: Tale) -> None:
    tale.enqueue("b", priority="LOW")
    tale.enqueue("a", priority="HIGH")
    tale.claim(lease("b", 1, priority="LOW"))
    tale.claim(lease("a", 2, priority="HIGH"))


@lie("a delayed job is leased before its time", 16)
def _(tale: Tale) -> None:
    tale.enqueue("a", delay_s=5.0)
    tale.claim(lease("a", 1))


@lie("a retry does not wait for its backoff", 16)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1, status="RUNNING"))
    tale.finish("fail", lease("a", 1), "SCHEDULED", retry_in_s=5.0)
    tale.claim(lease("a", 2, attempt=2, deliveries=2))


# -- there and not there ------------------------------------------------------------------------------------------


@lie("an acknowledged job is not found", 8)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.tell("job", {"error": "JobNotFound"}, type="fail", job_id="a")


@lie("an acknowledged job is missing from the inventory", 8)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1))
    tale.tell("inventory", {"b": "QUEUED"})


@lie("a job is left over when everything was drained", 8)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1))
    tale.tell("inventory", {"a": "CLAIMED"}, drained=True)


@lie("a job is leased that nobody enqueued", 9)
def _(tale: Tale) -> None:
    tale.claim(lease("a", 1))


@lie("a job is leased whose enqueue was refused", 9)
def _(tale: Tale) -> None:
    tale.enqueue("a", type="fail", answer={"error": "QueueFull"})
    tale.claim(lease("a", 1))


@lie("a job is leased before it is enqueued", 9)
def _(tale: Tale) -> None:
    tale.claim(lease("a", 1))
    tale.enqueue("a")


@lie("a payload comes back changed", 9)
def _(tale: Tale) -> None:
    tale.enqueue("a", payload_sha256="aa")
    tale.claim(lease("a", 1, payload_sha256="bb"))


@lie("a job is created twice", 12)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.enqueue("a")


@lie("other content is taken for the same job", 12)
def _(tale: Tale) -> None:
    tale.enqueue("a", payload_sha256="aa")
    tale.enqueue("a", payload_sha256="bb", created=False)


@lie("the same content is refused", 12)
def _(tale: Tale) -> None:
    tale.enqueue("a", payload_sha256="aa", request_id="one")
    tale.enqueue("a", payload_sha256="aa", request_id="two", type="fail", answer={"error": "JobConflict"})


@lie("a repeated claim brings another job while the first lease lives", 13, job=None)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.enqueue("b")
    tale.claim(lease("a", 1), request_id="r1")
    tale.claim(lease("b", 2), request_id="r1")
    tale.heartbeat(lease("a", 1))


@lie("a repeated claim brings nothing while its lease lives", 13, job=None)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1), request_id="r1")
    tale.claim(request_id="r1")
    tale.start(lease("a", 1))


@lie("one lease is handed to two claims", 13)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.claim(lease("a", 1), request_id="r1")
    tale.claim(lease("a", 1), request_id="r2")


@lie("a claim brings more than it asked for", 13, job=None)
def _(tale: Tale) -> None:
    tale.enqueue("a")
    tale.enqueue("b")
    tale.claim(lease("a", 1), lease("b", 2), n=1)
