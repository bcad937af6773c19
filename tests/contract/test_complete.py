"""complete: what becomes of a job by the outcome of its lease, and what that costs."""

from __future__ import annotations

import random

import pytest

from hybridq.job import Backoff
from hybridq.retry import JITTER_STEPS, delay_ms
from tests.contract.harness import NOW, Rig


def test_success_completes_the_job(rig: Rig) -> None:
    rig.enqueue("a", unique="key")
    held = rig.running(request_id="r1")
    rig.now += 250

    assert rig.complete(held, result='{"answer":42}') == ["DONE", "COMPLETED", "0"]
    assert rig.record("a") == {
        "status": "COMPLETED", "outcome": "success", "priority": "NORMAL", "lane": "any", "order": "1",
        "digest": "digest-1", "enqueued_ms": str(NOW), "attempt": "1", "deliveries": "1", "ended": "1",
        "fence": str(held.fence), "unique": "key",
    }  # fmt: skip
    assert rig.zset("finished") == {"a": NOW + 250}
    assert (rig.zset("leased"), rig.zset("held:one"), rig.hash("unique")) == ({}, {}, {})
    assert rig.history("a") == [
        [1, "one", held.fence, NOW, NOW, NOW + 250, "success", "COMPLETED", None, None, {"answer": 42}]
    ]
    assert rig.counters() == {"enqueued": 1, "completed": 1}
    assert rig.events()[-1] == "job.completed a COMPLETED one 1"


@pytest.mark.parametrize(("ran_ms", "bucket"), [(0, "x0"), (1, "x1"), (1000, "x142"), (29_999, "x212")])
def test_the_run_is_counted_in_its_bucket_and_the_minute_in_its_tally(rig: Rig, ran_ms: int, bucket: str) -> None:
    rig.enqueue("a")
    held = rig.running()
    rig.now += ran_ms
    rig.complete(held)

    latency = rig.hash(f"latency:{rig.now // 60_000}")
    assert latency.items() >= {bucket: "1", "completed": "1"}.items()


FROM_RUNNING = [
    # outcome, retryable, status, attempt charged, dead_reason, counter
    ("success", 1, "COMPLETED", 1, None, "completed"),
    ("failed", 1, "SCHEDULED", 1, None, "retried"),
    ("failed", 0, "FAILED", 1, None, "failed"),
    ("timeout", 1, "SCHEDULED", 1, None, "retried"),
    ("timeout", 0, "FAILED", 1, None, "failed"),
    ("infra_error", 1, "SCHEDULED", 0, None, "retried"),
    ("infra_error", 0, "SCHEDULED", 0, None, "retried"),
    ("rejected", 1, "FAILED", 1, None, "failed"),
    ("rejected", 0, "FAILED", 1, None, "failed"),
    ("cancelled", 1, "CANCELLED", 1, None, "cancelled"),
]


@pytest.mark.parametrize(("outcome", "retryable", "status", "attempt", "reason", "counter"), FROM_RUNNING)
def test_what_becomes_of_a_running_job(
    rig: Rig, outcome: str, retryable: int, status: str, attempt: int, reason: str | None, counter: str
) -> None:
    rig.enqueue("a")
    answer = rig.complete(rig.running(), outcome, retryable=retryable)

    assert answer[:2] == ["DONE", status]
    record = rig.record("a")
    assert (record["status"], record["outcome"], record["attempt"]) == (status, outcome, str(attempt))
    assert record.get("dead_reason") == reason
    assert rig.counters() == {"enqueued": 1, counter: 1}


FROM_CLAIMED = [
    ("infra_error", "SCHEDULED", "retried"),
    ("rejected", "FAILED", "failed"),
    ("cancelled", "CANCELLED", "cancelled"),
]


@pytest.mark.parametrize(("outcome", "status", "counter"), FROM_CLAIMED)
def test_what_needs_no_run_is_accepted_before_the_start_uncharged(
    rig: Rig, outcome: str, status: str, counter: str
) -> None:
    rig.enqueue("a")

    assert rig.complete(rig.lease(), outcome)[:2] == ["DONE", status]
    assert rig.record("a")["attempt"] == "0"
    assert rig.history("a")[0][4] is None
    assert rig.counters() == {"enqueued": 1, counter: 1}


@pytest.mark.parametrize("outcome", ["success", "failed", "timeout"])
def test_what_needs_a_run_is_illegal_before_the_start(rig: Rig, outcome: str) -> None:
    rig.enqueue("a")
    held = rig.lease()
    before = rig.snapshot()

    assert rig.complete(held, outcome) == ["ILLEGAL", "CLAIMED"]
    assert before == rig.snapshot()


# -- attempts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["failed", "timeout"])
@pytest.mark.parametrize("most", [1, 2, 4])
def test_attempts_used_up_make_a_dead_letter(rig: Rig, outcome: str, most: int) -> None:
    rig.enqueue("a", max_attempts=most)
    answers = [rig.complete(rig.running(), outcome, jitter=0)[1] for _ in range(most)]

    assert answers == ["QUEUED"] * (most - 1) + ["DEAD_LETTERED"]
    assert (rig.record("a")["attempt"], rig.record("a")["dead_reason"]) == (str(most), "max_attempts")
    assert rig.zset("dead") == {"a": NOW}
    assert rig.events()[-1] == f"job.dead_lettered a DEAD_LETTERED one {most}"


def test_infrastructure_failures_are_free_three_times(rig: Rig) -> None:
    rig.enqueue("a", max_attempts=2)
    charged = []
    for _ in range(5):
        rig.complete(rig.running(), "infra_error", jitter=0)
        charged.append((rig.record("a")["attempt"], rig.status("a")))

    assert charged == [("0", "QUEUED")] * 3 + [("1", "QUEUED"), ("2", "DEAD_LETTERED")]


def test_infrastructure_failures_before_the_start_are_free_three_times_too(rig: Rig) -> None:
    rig.enqueue("a", max_attempts=1)
    charged = []
    for _ in range(4):
        rig.complete(rig.lease(), "infra_error", jitter=0)
        charged.append((rig.record("a")["attempt"], rig.status("a")))

    assert charged == [("0", "QUEUED")] * 3 + [("1", "DEAD_LETTERED")]


def test_an_uncharged_failure_leaves_the_charged_ones_as_they_are(rig: Rig) -> None:
    rig.enqueue("a", max_attempts=2)
    rig.complete(rig.running(), "failed", jitter=0)
    rig.complete(rig.running(), "infra_error", jitter=0)

    assert rig.record("a")["attempt"] == "1"
    assert rig.complete(rig.running(), "failed")[1] == "DEAD_LETTERED"


# -- retries ---------------------------------------------------------------------------------------------


def test_a_retried_job_joins_the_end_of_its_level_when_it_is_due(rig: Rig) -> None:
    rig.enqueue("a", "b")
    held = rig.running(job_id="a")

    assert rig.complete(held, "failed") == ["DONE", "SCHEDULED", "2500"]
    assert rig.zset("scheduled:NORMAL") == {"a": NOW + 2500}
    assert "order" not in rig.record("a")
    rig.enqueue("c")
    rig.now += 2500
    rig.upkeep()
    assert rig.line() == ["b", "c", "a"]
    assert rig.record("a")["order"] == "4"


def test_a_retry_without_a_wait_joins_the_end_of_its_level_at_once(rig: Rig) -> None:
    rig.enqueue("a", "b")

    assert rig.complete(rig.running(), "failed", jitter=0) == ["DONE", "QUEUED", "0"]
    assert rig.line() == ["b", "a"]
    assert rig.record("a")["ready_ms"] == str(NOW)
    assert rig.events()[-1] == "job.retried a QUEUED one 1"


def test_the_holder_may_choose_the_delay_to_the_millisecond(rig: Rig) -> None:
    """The argument is the delay plus one, so that 0 can mean the job's own backoff."""
    rig.enqueue("a", "b")

    assert rig.complete(rig.running(), "failed", delay_ms=1) == ["DONE", "QUEUED", "0"]
    assert rig.complete(rig.running(), "failed", delay_ms=2) == ["DONE", "SCHEDULED", "1"]


@pytest.mark.parametrize(("base_ms", "max_ms"), [(5000, 300_000), (1000, 4000), (0, 0), (3_600_000, 86_400_000)])
def test_the_backoff_is_that_of_the_library(rig: Rig, base_ms: int, max_ms: int) -> None:
    """`hybridq.retry` and the script compute one formula, each in its own language."""
    rng = random.Random(base_ms)
    rig.enqueue("a", max_attempts=10, retry_base_ms=base_ms, retry_max_ms=max_ms)
    backoff = Backoff(base_s=base_ms / 1000, max_s=max_ms / 1000)

    for attempt in range(1, 10):
        jitter = rng.choice([0, 1, JITTER_STEPS - 1, rng.randrange(JITTER_STEPS)])
        answer = rig.complete(rig.running(), "failed", jitter=jitter)
        assert int(answer[2]) == delay_ms(backoff, attempt, jitter)
        rig.client.zadd(f"{rig.root}:scheduled:NORMAL", {"a": rig.now}, xx=True)
        rig.upkeep()


# -- cancel requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["failed", "timeout", "infra_error", "rejected", "cancelled"])
def test_after_a_cancel_request_every_end_but_success_is_cancelled(rig: Rig, outcome: str) -> None:
    rig.enqueue("a", max_attempts=1)
    held = rig.running()
    rig.cancel("a")

    assert rig.complete(held, outcome) == ["DONE", "CANCELLED", "0"]
    assert rig.counters() == {"enqueued": 1, "cancelled": 1}
    assert rig.history("a")[0][6:8] == [outcome, "CANCELLED"]


def test_success_stands_after_a_cancel_request(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.running()
    rig.cancel("a")

    assert rig.complete(held) == ["DONE", "COMPLETED", "0"]
    assert not rig.record("a").keys() & {"cancel_ms", "cancel_mode", "cancel_grace_ms"}


# -- reports ---------------------------------------------------------------------------------------------


def test_a_report_is_kept_with_its_attempt(rig: Rig) -> None:
    rig.enqueue("a")
    rig.complete(rig.running(), "failed", exit_code="-7", failure='{"why":"\\"[x,1]\\""}', jitter=0)
    rig.complete(rig.running("two"), exit_code="0", result="[1,2]")

    [first, second] = rig.history("a")
    assert (first[0], first[1], first[6:]) == (1, "one", ["failed", "QUEUED", -7, {"why": '"[x,1]"'}, None])
    assert (second[0], second[1], second[6:]) == (2, "two", ["success", "COMPLETED", 0, None, [1, 2]])


@pytest.mark.parametrize("field", ["failure", "result"])
def test_a_report_that_would_break_its_line_is_refused_alone(rig: Rig, field: str) -> None:
    rig.enqueue("a", "b")
    [first, second] = [rig.running(), rig.running()]
    bad = {**first.proof, "outcome": "success", field: '"x\ny"'}
    before = rig.record("a")

    assert rig.run("complete", bad, {**second.proof, "outcome": "success"}) == [
        ["MALFORMED"],
        ["DONE", "COMPLETED", "0"],
    ]
    assert before == rig.record("a")


@pytest.mark.parametrize("exit_code", ["x", "1,2", "-", "--1", "1.5", " 1", "0x1", "007", "-0"])
def test_an_exit_code_that_is_no_number_is_refused(rig: Rig, exit_code: str) -> None:
    rig.enqueue("a")
    held = rig.running()
    before = rig.snapshot()

    assert rig.complete(held, exit_code=exit_code) == ["MALFORMED"]
    assert before == rig.snapshot()


def test_the_history_keeps_the_last_32_leases(rig: Rig) -> None:
    rig.enqueue("a", max_attempts=40)
    fences = []
    for _ in range(34):
        held = rig.running()
        fences.append(held.fence)
        rig.complete(held, "failed", jitter=0, failure='"' + "x" * 100 + '"')

    assert [line[2] for line in rig.history("a")] == fences[2:]
    assert rig.record("a")["ended"] == "34"


def test_entries_of_one_batch_end_one_by_one(rig: Rig) -> None:
    rig.enqueue("a", "b", "c")
    leases = [rig.running() for _ in range(3)]
    outcomes = ["success", "failed", "rejected"]
    replies = rig.run("complete", *({**held.proof, "outcome": o} for held, o in zip(leases, outcomes, strict=True)))

    assert replies == [["DONE", "COMPLETED", "0"], ["DONE", "SCHEDULED", "2500"], ["DONE", "FAILED", "0"]]
