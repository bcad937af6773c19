"""The queue in plain Python: what each verb answers and leaves behind, with the time given by hand.

It knows nothing of Redis, keys or scripts, and it is small enough to be read beside the design. Answers are plain
values; a refusal is a `Refused` that names the error the library raises.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from hybridq.lifecycle import Priority
from tests.property.records import Hold, Record, Spec

BAND = {priority: band for band, priority in enumerate(Priority)}
UNLISTED_MS = 3000
BEFORE_START = ("rejected", "cancelled", "infra_error")


class Refused(Exception):
    """The verb is refused; the text is the name of the library's error."""


def growing_ms(n: int) -> int:
    return 0 if n <= 1 else min(60_000, 1000 * 2 ** (n - 2))


class Model:
    """One queue. Every verb begins with `now_ms` set by the caller."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.jobs: dict[str, Record] = {}
        self.unique: dict[str, str] = {}
        self.paused = False
        self.order = self.fence = self.upkeep_ms = self.gap_ms = self.gap_at_ms = 0
        self.activity_ms = now_ms
        self.agents: dict[str, int] = {}

    def touch(self) -> None:
        """Every call notes when it came: a long silence means that Redis was away, or everybody was cut off."""
        gap = self.now_ms - self.activity_ms
        if gap >= 100:
            self.activity_ms = self.now_ms
        if gap >= 500 and (gap >= self.gap_ms or self.now_ms > self.gap_at_ms + 2 * self.gap_ms):
            self.gap_ms, self.gap_at_ms = gap, self.now_ms

    def enqueue(self, spec: Spec) -> tuple[str, str, bool]:
        there = self.jobs.get(spec.job_id)
        if there is not None:
            if there.spec != spec:
                raise Refused("JobConflict")
            return spec.job_id, there.status, False
        if spec.unique in self.unique:
            holder = self.unique[spec.unique]
            return holder, self.jobs[holder].status, False
        job = self.jobs[spec.job_id] = Record(spec, spec.priority)
        self._admit(job, "SCHEDULED" if spec.delay_ms else "QUEUED", self.now_ms + spec.delay_ms)
        if spec.unique:
            self.unique[spec.unique] = spec.job_id
        return spec.job_id, job.status, True

    def claim(
        self, agent: str, n: int, lease_ms: int, start: bool, request: str | None, holding: Collection[int] | None
    ) -> list[Record]:
        if self.now_ms - self.upkeep_ms >= 20:
            self.upkeep()
        self.agents[agent] = self.now_ms
        held = [job for job in self.jobs.values() if job.hold and job.hold.agent == agent]
        again = [job for job in held if request and job.hold and job.hold.request == request]
        for job in again:
            self._renew(job)
        if again:
            return sorted(again, key=lambda job: job.hold.fence if job.hold else 0)
        for job in held:
            lease = job.hold
            unknown = holding is not None and lease and not lease.confirmed and lease.fence not in holding
            if unknown and lease and self.now_ms - lease.claimed_ms >= UNLISTED_MS:
                self._give_back(job, 0)
        given = [] if self.paused else [job for job in self.line() if not self._avoids(job, agent)][:n]
        for job in given:
            self.fence = max(self.fence + 1, self.now_ms * 2048)
            job.hold = Hold(agent, self.fence, lease_ms, self.now_ms + lease_ms, self.now_ms, request)
            job.deliveries += 1
            job.attempt += start
            job.status = "RUNNING" if start else "CLAIMED"
        return given

    def line(self) -> list[Record]:
        """Jobs that may be claimed, the next one first."""
        waiting = [job for job in self.jobs.values() if job.status == "QUEUED"]
        return sorted(waiting, key=lambda job: (BAND[job.priority], job.order))

    def start(self, job_id: str, fence: int) -> int:
        job, lease = self._current(job_id, fence)
        if job.status == "CLAIMED":
            if lease.cancel:
                self._end(job, "CANCELLED")
                raise Refused("JobCancelled")
            job.status, job.attempt = "RUNNING", job.attempt + 1
        lease.confirmed = True
        return job.attempt

    def beat(self, job_id: str, fence: int) -> bool:
        """Return whether a cancel request is to be obeyed."""
        job, lease = self._current(job_id, fence)
        self._renew(job)
        lease.confirmed = True
        return lease.cancel

    def say(self, job_id: str, fence: int, offset: int, text: str) -> int:
        """Return where the next piece begins."""
        job, lease = self._current(job_id, fence)
        known = job.said[1] if job.said[0] == fence else 0
        if offset > known:
            raise Refused("OffsetGap")
        lease.confirmed = True
        ends = offset + len(text)
        if known < ends:
            if job.log and job.said[0] != fence:
                number = job.attempt + (job.status == "CLAIMED")
                job.log += (
                    "" if job.log.endswith("\n") else "\n"
                ) + f"[hybridq] attempt {number}, agent {lease.agent}\n"
            job.log += text[known - offset :]
            job.said = (fence, ends)
        return max(known, ends)

    def finish(self, job_id: str, fence: int, outcome: str, retryable: bool, delay_ms: int) -> tuple[str, bool]:
        """Return the status, and whether it is the answer of before."""
        try:
            job, lease = self._current(job_id, fence)
        except Refused as refusal:
            said, status = self.jobs[job_id].ended.get(fence, ("lost", "")) if job_id in self.jobs else ("lost", "")
            if said in ("lost", "released"):
                raise
            if said != outcome:
                raise Refused("OutcomeConflict") from refusal
            return status, True
        if job.status == "CLAIMED" and outcome not in BEFORE_START:
            raise Refused("IllegalTransition")
        spent = job.attempt + (job.status == "CLAIMED")
        free = outcome == "infra_error" and job.infra < 3
        job.infra += outcome == "infra_error"
        if outcome == "success":
            status = "COMPLETED"
        elif lease.cancel or outcome == "cancelled":
            status = "CANCELLED"
        elif outcome == "rejected":
            status = "FAILED"
        else:
            job.attempt = spent - free
            again = free or (retryable and spent < job.spec.max_attempts)
            status = ("SCHEDULED" if delay_ms else "QUEUED") if again else "DEAD_LETTERED" if retryable else "FAILED"
        job.dead_reason = "max_attempts" if status == "DEAD_LETTERED" else job.dead_reason
        job.ended[fence] = (outcome, status)
        if status in ("SCHEDULED", "QUEUED"):
            job.order = None
        self._end(job, status, self.now_ms + delay_ms)
        return status, False

    def release(self, job_id: str, fence: int, delay_ms: int) -> str:
        job, _ = self._current(job_id, fence)
        return self._give_back(job, delay_ms)

    def cancel(self, job_id: str) -> tuple[str, bool]:
        """Return the status, and whether the holder is yet to be told."""
        job = self._job(job_id)
        if job.hold:
            job.hold.cancel = True
            return job.status, True
        if job.status not in ("QUEUED", "SCHEDULED", "CANCELLED"):
            raise Refused("AlreadyTerminal")
        self._end(job, "CANCELLED")
        return job.status, False

    def reprioritise(self, job_id: str, priority: Priority) -> str:
        job = self._job(job_id)
        if job.status not in ("QUEUED", "SCHEDULED", "CLAIMED", "RUNNING"):
            raise Refused("AlreadyTerminal")
        if job.priority != priority:
            job.priority = priority
            job.order = None if job.order is None else self._next_order()
        return job.status

    def replay_dead(self, job_id: str) -> str:
        if self._job(job_id).status != "DEAD_LETTERED":
            raise Refused("NotTerminal")
        return self.replay(job_id)

    def replay(self, job_id: str) -> str:
        job = self._job(job_id)
        if job.status not in ("FAILED", "CANCELLED", "DEAD_LETTERED"):
            raise Refused("NotTerminal")
        if job.spec.unique in self.unique:
            raise Refused("UniqueTaken")
        fresh = Record(job.spec, job.priority, generation=job.generation + 1, deliveries=job.deliveries)
        self.jobs[job_id] = replace(fresh, ended=job.ended, log=job.log, said=job.said)
        self._admit(self.jobs[job_id], "QUEUED")
        if job.spec.unique:
            self.unique[job.spec.unique] = job_id
        return "QUEUED"

    def purge(self, job_id: str) -> None:
        if self._job(job_id).status != "DEAD_LETTERED":
            raise Refused("NotTerminal")
        del self.jobs[job_id]

    def upkeep(self) -> tuple[int, int]:
        """Reap and promote; return how many jobs became dead letters and how many became due."""
        self.upkeep_ms = self.now_ms
        died = sum([self._lose(job) for job in self.jobs.values() if self._ran_out(job)])
        scheduled = [job for job in self.jobs.values() if job.status == "SCHEDULED" and job.due_ms <= self.now_ms]
        for job in sorted(scheduled, key=lambda job: (BAND[job.priority], job.due_ms, job.spec.job_id)):
            self._admit(job, "QUEUED")
        return died, len(scheduled)

    def _ran_out(self, job: Record) -> bool:
        lease = job.hold
        if lease is None or lease.deadline_ms > self.now_ms:
            return False
        cut_off = 2 * self.gap_ms > lease.lease_ms and lease.deadline_ms - lease.lease_ms <= self.gap_at_ms
        if cut_off and self.now_ms < self.gap_at_ms + lease.lease_ms:
            lease.deadline_ms = self.gap_at_ms + lease.lease_ms
            return False
        return True

    def _lose(self, job: Record) -> bool:
        lease, at_ms = job.hold, self.now_ms
        assert lease is not None
        job.avoid = (lease.agent, self.now_ms + growing_ms(2 + job.unstarted + job.releases))
        status, reason = "QUEUED", None
        if job.status == "RUNNING" and lease.confirmed:
            if job.attempt >= job.spec.max_attempts:
                status, reason = "DEAD_LETTERED", "lease_lost"
        else:
            job.attempt -= job.status == "RUNNING"
            job.unstarted += 1
            at_ms += growing_ms(job.unstarted)
            if job.unstarted >= 20:
                status, reason = "DEAD_LETTERED", "never_started"
            elif at_ms > self.now_ms:
                status = "SCHEDULED"
        if lease.cancel:
            status, reason = "CANCELLED", None
        if lease.confirmed:
            job.ended[lease.fence] = ("lost", status)
        job.dead_reason = reason
        self._end(job, status, at_ms)
        return status == "DEAD_LETTERED"

    def _give_back(self, job: Record, delay_ms: int) -> str:
        lease = job.hold
        assert lease is not None
        job.releases += 1
        job.attempt -= job.status == "RUNNING"
        job.avoid = (lease.agent, self.now_ms + growing_ms(1 + job.releases))
        status = "CANCELLED" if lease.cancel else "SCHEDULED" if delay_ms else "QUEUED"
        if lease.confirmed:
            job.ended[lease.fence] = ("released", status)
        self._end(job, status, self.now_ms + delay_ms)
        return status

    def _end(self, job: Record, status: str, at_ms: int = 0) -> None:
        job.hold = None
        self._admit(job, status, at_ms)

    def _admit(self, job: Record, status: str, at_ms: int = 0) -> None:
        job.status, job.due_ms = status, at_ms
        if status == "QUEUED" and job.order is None:
            job.order = self._next_order()
        if status not in ("QUEUED", "SCHEDULED") and self.unique.get(job.spec.unique or "") == job.spec.job_id:
            del self.unique[job.spec.unique or ""]

    def _next_order(self) -> int:
        self.order += 1
        return self.order

    def _avoids(self, job: Record, agent: str) -> bool:
        others = any(at >= self.now_ms - 60_000 for name, at in self.agents.items() if name != agent)
        return job.avoid[0] == agent and self.now_ms < job.avoid[1] and others

    def _renew(self, job: Record) -> None:
        assert job.hold is not None
        job.hold.deadline_ms = self.now_ms + job.hold.lease_ms

    def _job(self, job_id: str) -> Record:
        if job_id not in self.jobs:
            raise Refused("JobNotFound")
        return self.jobs[job_id]

    def _current(self, job_id: str, fence: int) -> tuple[Record, Hold]:
        job = self._job(job_id)
        if job.hold is None or job.hold.fence != fence:
            raise Refused("StaleLease")
        return job, job.hold
