"""Histories told by hand: calls one after the other, a millisecond each, unless a test says otherwise."""

from __future__ import annotations

from typing import Any, Literal

from hybridq.check import Event

MS = 1_000_000


class Tale:
    """Collects events. `at` and `until` are milliseconds; by default a call follows the one told before it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._now = 0

    def tell(
        self,
        op: str,
        answer: Any = None,
        /,
        *,
        type: Literal["ok", "fail", "info"] = "ok",
        proc: str = "p1",
        at: int | None = None,
        until: int | None = None,
        **args: Any,
    ) -> None:
        begin = self._now + 1 if at is None else at
        end = begin + 1 if until is None else until
        self._now = max(self._now, end)
        self.events.append(
            Event(proc=proc, op=op, args=args, t_inv=begin * MS, t_ret=end * MS, type=type, result=answer)
        )

    def enqueue(self, job_id: str, *, created: bool = True, **more: Any) -> None:
        """An enqueue, acknowledged unless `type` says otherwise."""
        answered = more.get("type", "ok") == "ok"
        answer = {"job_id": job_id, "status": "QUEUED", "created": created} if answered else None
        self.tell("enqueue", more.pop("answer", answer), job_id=job_id, **more)

    def claim(self, *leases: dict[str, Any], agent: str = "a1", **more: Any) -> None:
        """A claim that was answered with these leases."""
        self.tell("claim", list(leases), agent=agent, **({"n": max(1, len(leases))} | more))

    def start(self, held: dict[str, Any], **more: Any) -> None:
        """A start that was answered with the lease."""
        self.tell("start", held, lease=held, **more)

    def heartbeat(self, held: dict[str, Any], **more: Any) -> None:
        """A heartbeat that renewed the lease."""
        self.tell("heartbeat", {"renewed": [held["job_id"]], "lost": {}}, leases=[held], **more)

    def finish(self, op: str, held: dict[str, Any], status: str, *, replayed: bool = False, **more: Any) -> None:
        """A complete, fail or release, answered with the status the job came to."""
        answer = {"job_id": held["job_id"], "status": status, "replayed": replayed}
        answer |= {name: more.pop(name) for name in ("retry_in_s", "next") if name in more}
        self.tell(op, answer, lease=held, **more)


def lease(job_id: str, fence: int, **more: Any) -> dict[str, Any]:
    """A lease as it stands in an answer; the first delivery of a job unless `more` says otherwise."""
    return {
        "job_id": job_id, "fence": fence, "lease_id": f"{fence:032x}", "agent": "a1", "priority": "NORMAL",
        "status": "CLAIMED", "attempt": 1, "max_attempts": 3, "deliveries": 1, "generation": 0,
    } | more  # fmt: skip
