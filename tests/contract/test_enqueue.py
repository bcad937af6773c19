"""enqueue: each job is taken in once, at its place, or recognised, or refused whole."""

from __future__ import annotations

import pytest

from tests.contract.harness import NOW, SPEC, Rig

BAND = 2**44


def test_a_job_waits_at_the_end_of_its_level_with_defaults_left_out(rig: Rig) -> None:
    assert rig.enqueue("a") == ["ENQUEUED", "QUEUED"]

    assert rig.record("a") == {
        "status": "QUEUED",
        "priority": "NORMAL",
        "lane": "any",
        "order": "1",
        "digest": "digest-1",
        "enqueued_ms": str(NOW),
    }
    assert rig.hash("spec") == {"a": SPEC}
    assert rig.zset("ready:any") == {"a": 2 * BAND + 1}
    assert rig.zset("all") == {"a": 1}
    assert rig.counters() == {"enqueued": 1}
    assert rig.events() == ["job.enqueued a QUEUED - 0"]


def test_what_differs_from_the_defaults_is_kept(rig: Rig) -> None:
    rig.enqueue("a", max_attempts=5, retry_base_ms=1000, retry_max_ms=2000, unique="key")

    record = rig.record("a")
    assert (record["max_attempts"], record["retry_base_ms"], record["retry_max_ms"]) == ("5", "1000", "2000")
    assert (record["unique"], rig.hash("unique")) == ("key", {"key": "a"})


def test_jobs_are_ordered_by_priority_then_by_place_in_the_batch(rig: Rig) -> None:
    jobs = {"a": "LOW", "b": "NORMAL", "c": "CRITICAL", "d": "HIGH", "e": "NORMAL", "f": "CRITICAL"}
    rig.run("enqueue", *({"job_id": job_id, "priority": priority} for job_id, priority in jobs.items()))

    assert rig.line() == ["c", "f", "d", "b", "e", "a"]
    assert list(rig.zset("all")) == list(jobs)


@pytest.mark.parametrize(
    ("field", "value", "due"),
    [("delay_ms", 1, NOW + 1), ("run_at_ms", NOW + 60_000, NOW + 60_000), ("delay_ms", 31_622_400_000, None)],
)
def test_a_later_job_is_scheduled_and_gets_no_place_in_line_yet(
    rig: Rig, field: str, value: int, due: int | None
) -> None:
    due = due or NOW + value
    assert rig.enqueue("a", priority="HIGH", **{field: value}) == ["ENQUEUED", "SCHEDULED"]

    assert rig.zset("scheduled:HIGH") == {"a": due}
    assert rig.record("a")["due_ms"] == str(due)
    assert "order" not in rig.record("a")
    assert rig.line() == []
    assert rig.events() == ["job.enqueued a SCHEDULED - 0"]


@pytest.mark.parametrize("field", [{"run_at_ms": NOW}, {"run_at_ms": NOW - 1}, {"run_at_ms": 1}, {"delay_ms": 0}])
def test_a_time_that_has_come_means_now(rig: Rig, field: dict[str, int]) -> None:
    assert rig.enqueue("a", **field) == ["ENQUEUED", "QUEUED"]
    assert "due_ms" not in rig.record("a")


def test_run_at_wins_over_a_delay(rig: Rig) -> None:
    assert rig.enqueue("a", run_at_ms=NOW + 5, delay_ms=9) == ["ENQUEUED", "SCHEDULED"]
    assert rig.zset("scheduled:NORMAL") == {"a": NOW + 5}


def test_the_same_id_and_content_is_the_same_job(rig: Rig) -> None:
    rig.enqueue("a", spec="{}\nfirst")
    before = rig.snapshot()

    assert rig.enqueue("a", spec="{}\nfirst") == ["DUPLICATE", "QUEUED"]
    assert before == rig.snapshot()


def test_the_same_id_with_other_content_is_refused_and_changes_nothing(rig: Rig) -> None:
    rig.enqueue("a")
    before = rig.snapshot()

    assert rig.enqueue("a", digest="digest-2", spec="{}\nother") == ["CONFLICT", "QUEUED"]
    assert before == rig.snapshot()


@pytest.mark.parametrize("end", ["success", "rejected", "cancelled"])
def test_a_job_that_ended_is_recognised_too(rig: Rig, end: str) -> None:
    rig.enqueue("a")
    status = rig.complete(rig.running(), end)[1]

    assert rig.enqueue("a") == ["DUPLICATE", status]
    assert rig.enqueue("a", digest="digest-2") == ["CONFLICT", status]


def test_two_entries_of_one_batch_with_one_id_make_one_job(rig: Rig) -> None:
    replies = rig.run("enqueue", {"job_id": "a"}, {"job_id": "a"}, {"job_id": "a", "digest": "digest-2"})

    assert replies == [["ENQUEUED", "QUEUED"], ["DUPLICATE", "QUEUED"], ["CONFLICT", "QUEUED"]]
    assert rig.counters() == {"enqueued": 1}


def test_entries_are_independent(rig: Rig) -> None:
    rig.enqueue("b", digest="other")
    replies = rig.run("enqueue", {"job_id": "a"}, {"job_id": "b"}, {"job_id": "c", "lane": "gpu"}, {"job_id": "d"})

    assert [reply[0] for reply in replies] == ["ENQUEUED", "CONFLICT", "NO_LANE", "ENQUEUED"]
    assert rig.line() == ["b", "a", "d"]


def test_a_lane_that_is_not_known_is_refused_and_changes_nothing(rig: Rig) -> None:
    before = rig.snapshot()

    assert rig.enqueue("a", lane="gpu") == ["NO_LANE"]
    assert before == rig.snapshot()


def test_a_known_lane_has_a_line_of_its_own(rig: Rig) -> None:
    rig.client.hset(f"{rig.root}:lanes", "gpu", "{}")

    assert rig.enqueue("a", lane="gpu") == ["ENQUEUED", "QUEUED"]
    assert (rig.line(), list(rig.zset("ready:gpu"))) == ([], ["a"])


# -- unique keys -----------------------------------------------------------------------------------------


def test_a_unique_key_answers_with_the_job_that_holds_it(rig: Rig) -> None:
    rig.enqueue("a", unique="key")
    before = rig.snapshot()

    assert rig.enqueue("b", unique="key") == ["UNIQUE", "a", "QUEUED"]
    assert before == rig.snapshot()
    assert rig.enqueue("c", unique="other") == ["ENQUEUED", "QUEUED"]


def test_a_unique_key_is_taken_inside_one_batch_too(rig: Rig) -> None:
    replies = rig.run("enqueue", {"job_id": "a", "unique": "key"}, {"job_id": "b", "unique": "key"})

    assert replies == [["ENQUEUED", "QUEUED"], ["UNIQUE", "a", "QUEUED"]]


def test_the_holder_of_a_unique_key_is_recognised_by_its_id_first(rig: Rig) -> None:
    rig.enqueue("a", unique="key")

    assert rig.enqueue("a", unique="key") == ["DUPLICATE", "QUEUED"]


@pytest.mark.parametrize("status", ["QUEUED", "SCHEDULED", "CLAIMED", "RUNNING", "retried"])
def test_a_unique_key_is_held_until_the_job_ends(rig: Rig, status: str) -> None:
    rig.enqueue("a", unique="key", delay_ms=5000 if status == "SCHEDULED" else 0)
    if status in ("CLAIMED", "RUNNING"):
        rig.lease(start=int(status == "RUNNING"))
    elif status == "retried":
        rig.complete(rig.running(), "failed")
        status = "SCHEDULED"

    assert rig.enqueue("b", unique="key") == ["UNIQUE", "a", status]


@pytest.mark.parametrize("end", ["success", "rejected", "cancelled", "dead", "cancel"])
def test_a_unique_key_is_free_once_the_job_has_ended(rig: Rig, end: str) -> None:
    rig.enqueue("a", unique="key", max_attempts=1)
    if end == "cancel":
        rig.cancel("a")
    else:
        rig.complete(rig.running(), "failed" if end == "dead" else end)

    assert rig.enqueue("b", unique="key") == ["ENQUEUED", "QUEUED"]
    assert rig.hash("unique") == {"key": "b"}


# -- a full queue ----------------------------------------------------------------------------------------


def test_a_queue_takes_as_many_waiting_jobs_as_its_limit(rig: Rig) -> None:
    rig.configure(max_queued=3)
    rig.enqueue("a", delay_ms=1000)

    replies = rig.run("enqueue", *({"job_id": job_id} for job_id in "bcdef"))
    assert [reply[0] for reply in replies] == ["ENQUEUED", "ENQUEUED", "FULL", "FULL", "FULL"]
    assert replies[-1] == ["FULL", "3"]
    assert rig.counters() == {"enqueued": 3}


def test_a_full_queue_changes_nothing_and_still_knows_its_jobs(rig: Rig) -> None:
    rig.configure(max_queued=1)
    rig.enqueue("a", unique="key")
    before = rig.snapshot()

    assert rig.enqueue("b") == ["FULL", "1"]
    assert rig.enqueue("a", unique="key") == ["DUPLICATE", "QUEUED"]
    assert rig.enqueue("c", unique="key") == ["UNIQUE", "a", "QUEUED"]
    assert before == rig.snapshot()


def test_leased_and_ended_jobs_take_no_room(rig: Rig) -> None:
    rig.configure(max_queued=1)
    rig.enqueue("a")
    rig.running(job_id="a")
    assert rig.enqueue("b")[0] == "ENQUEUED"
    rig.complete(rig.running("two", job_id="b"))

    assert rig.enqueue("c")[0] == "ENQUEUED"


def test_jobs_of_every_lane_and_priority_count_against_the_limit(rig: Rig) -> None:
    rig.client.hset(f"{rig.root}:lanes", "gpu", "{}")
    rig.configure(max_queued=3)
    rig.enqueue("a", lane="gpu")
    rig.enqueue("b", priority="LOW", delay_ms=1000)
    rig.enqueue("c", priority="CRITICAL")

    assert rig.enqueue("d") == ["FULL", "3"]


def test_an_atomic_call_takes_all_in_by_one_number(rig: Rig) -> None:
    assert rig.run("enqueue", {"job_id": "a"}, {"job_id": "b"}, atomic=7) == [["ENQUEUED", "QUEUED"]] * 2

    assert rig.line() == ["a", "b"]


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"job_id": "there", "digest": "other"}, ["CONFLICT", "QUEUED"]),
        ({"job_id": "b", "unique": "held"}, ["UNIQUE", "there", "QUEUED"]),
        ({"job_id": "b", "unique": "new"}, ["UNIQUE", "a", "QUEUED"]),
        ({"job_id": "a", "digest": "other"}, ["CONFLICT", "QUEUED"]),
        ({"job_id": "b", "lane": "nowhere"}, ["NO_LANE"]),
    ],
)
def test_one_entry_of_an_atomic_call_that_fails_leaves_none_made(
    rig: Rig, second: dict[str, str], said: list[str]
) -> None:
    rig.enqueue("there", unique="held")
    before = rig.snapshot()

    replies = rig.run("enqueue", {"job_id": "a", "unique": "new"}, second, {"job_id": "c"}, atomic=1, strict=1)

    assert replies == [["NOT_MADE"], said, ["NOT_MADE"]]
    assert rig.snapshot() == before


def test_an_atomic_call_that_does_not_fit_as_a_whole_is_refused_as_a_whole(rig: Rig) -> None:
    rig.configure(max_queued=2)

    assert rig.run("enqueue", {"job_id": "a"}, {"job_id": "b"}, {"job_id": "c"}, atomic=1) == [
        ["NOT_MADE"],
        ["NOT_MADE"],
        ["FULL", "2"],
    ]
    assert rig.line() == []
    assert rig.run("enqueue", {"job_id": "a"}, {"job_id": "b"}, atomic=2) == [["ENQUEUED", "QUEUED"]] * 2


def test_what_is_there_already_does_not_make_an_atomic_call_fail(rig: Rig) -> None:
    rig.enqueue("a", unique="held")

    replies = rig.run("enqueue", {"job_id": "a", "unique": "held"}, {"job_id": "b", "unique": "held"}, atomic=1)

    assert replies == [["DUPLICATE", "QUEUED"], ["UNIQUE", "a", "QUEUED"]]
