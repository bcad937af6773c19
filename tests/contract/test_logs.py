"""append_log and read_log: what a job says under its lease, each byte once, bounded, and gone with the record."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.contract.conftest import one_engine
from tests.contract.harness import NOW, Held, Rig

MIB = 1_048_576


def begun(rig: Rig, job_id: str = "a", agent: str = "one", **fields: object) -> Held:
    """A job that runs."""
    rig.enqueue(job_id, **fields)
    return rig.running(agent, job_id=job_id)


def again(rig: Rig, held: Held, agent: str = "two") -> Held:
    """The next run of a job whose run just failed."""
    assert rig.complete(held, "failed")[:2] == ["DONE", "SCHEDULED"]
    rig.live(5_000)
    rig.upkeep()
    return rig.running(agent, job_id=held.job_id)


def said(rig: Rig, job_id: str, text: str, *, outcome: str = "success") -> None:
    """Have a job come, say something, and end."""
    held = begun(rig, job_id, max_attempts=1)
    assert rig.append_log(held, 0, text) == ["APPENDED", str(len(text))]
    rig.complete(held, outcome)
    rig.now += 1


def total(rig: Rig) -> int:
    return int(rig.hash("meta")["logs_bytes"])


# -- pieces ----------------------------------------------------------------------------------------------------


def test_pieces_follow_each_other(rig: Rig) -> None:
    held = begun(rig)

    assert rig.append_log(held, 0, "one\n") == ["APPENDED", "4"]
    assert rig.append_log(held, 4, "zwölf\n") == ["APPENDED", "11"]
    assert rig.log("a") == "one\nzwölf\n"
    assert rig.record("a")["log_sent"] == "11"
    assert rig.record("a")["log_fence"] == str(held.fence)
    assert total(rig) == 11


def test_a_piece_that_comes_again_changes_nothing(rig: Rig) -> None:
    held = begun(rig)
    rig.append_log(held, 0, "one\n")
    rig.append_log(held, 4, "two\n")
    before = rig.snapshot()

    assert rig.append_log(held, 4, "two\n") == ["APPENDED", "8"]
    assert rig.append_log(held, 0, "one\n") == ["APPENDED", "8"]
    assert rig.append_log(held, 0, "other, and longer than that"[:8]) == ["APPENDED", "8"]
    assert rig.snapshot() == before


def test_of_a_repeat_with_more_behind_it_only_what_is_new_is_stored(rig: Rig) -> None:
    """The reply was lost, the job said more meanwhile, and the sender joined both."""
    held = begun(rig)
    rig.append_log(held, 0, "one\n")

    assert rig.append_log(held, 0, "one\ntwo\n") == ["APPENDED", "8"]
    assert rig.append_log(held, 6, "o\nthree\n") == ["APPENDED", "14"]
    assert rig.log("a") == "one\ntwo\nthree\n"


def test_a_piece_that_leaves_a_gap_is_refused_and_told_where_to_go_on(rig: Rig) -> None:
    held = begun(rig)
    before = rig.snapshot()
    assert rig.append_log(held, 1, "x") == ["OFFSET_GAP", "0"]
    assert rig.snapshot() == before

    rig.append_log(held, 0, "four")
    assert rig.append_log(held, 5, "x") == ["OFFSET_GAP", "4"]
    assert rig.log("a") == "four"


def test_an_offset_counts_a_piece_as_it_was_sent_not_as_it_is_stored(rig: Rig) -> None:
    held = begun(rig)

    assert rig.append_log(held, 0, "key [redacted]\n", sent=100) == ["APPENDED", "100"]
    assert rig.append_log(held, 0, "key [redacted]\n", sent=100) == ["APPENDED", "100"]
    assert rig.append_log(held, 100, "more\n") == ["APPENDED", "105"]
    assert rig.log("a") == "key [redacted]\nmore\n"
    assert total(rig) == 20


def test_a_repeat_with_more_behind_it_of_which_something_was_taken_out_is_told_where_to_go_on(rig: Rig) -> None:
    """Where in such a piece the repeat ends is known to nobody here."""
    held = begun(rig)
    rig.append_log(held, 0, "[redacted]", sent=50)

    assert rig.append_log(held, 0, "[redacted]more\n", sent=55) == ["OFFSET_GAP", "50"]
    assert rig.append_log(held, 50, "more\n") == ["APPENDED", "55"]
    assert rig.log("a") == "[redacted]more\n"


def test_an_empty_piece_says_only_that_the_holder_is_there(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.lease()

    assert rig.append_log(held, 0, "") == ["APPENDED", "0"]
    assert rig.record("a")["confirmed"] == "1"
    assert rig.log("a") is None
    assert "log_fence" not in rig.record("a")


def test_each_piece_of_a_batch_sees_those_before_it(rig: Rig) -> None:
    held = begun(rig)
    pieces = [
        {**held.proof, "offset": at, "sent": 2, "data": text} for at, text in ((0, "a\n"), (9, "x\n"), (2, "b\n"))
    ]

    assert rig.run("append_log", *pieces) == [["APPENDED", "2"], ["OFFSET_GAP", "2"], ["APPENDED", "4"]]
    assert rig.log("a") == "a\nb\n"


def test_bytes_that_are_no_text_are_stored_as_they_are(rig: Rig) -> None:
    held = begun(rig)
    piece = bytes(range(256))
    rig.append_log(held, 0, piece)

    assert rig.client.get(f"{rig.root}:log:a") == piece


# -- who may ---------------------------------------------------------------------------------------------------


def test_the_first_piece_confirms_the_lease_and_does_not_renew_it(rig: Rig) -> None:
    rig.enqueue("a")
    held = rig.lease()
    deadline = rig.zset("leased")
    rig.now += 1000
    rig.append_log(held, 0, "hello\n")

    assert rig.record("a")["confirmed"] == "1"
    assert rig.status("a") == "CLAIMED"
    assert rig.zset("leased") == deadline


@pytest.mark.parametrize("how", ["complete", "release", "lose", "claim"])
def test_who_held_the_job_before_adds_nothing(rig: Rig, how: str) -> None:
    held = begun(rig, max_attempts=5)
    rig.append_log(held, 0, "first\n")
    if how == "complete":
        rig.complete(held)
    elif how == "release":
        rig.release(held)
    else:
        rig.lose(held)
        if how == "claim":
            rig.running("two", job_id="a")
    before = rig.snapshot()

    status = {"complete": "COMPLETED", "claim": "RUNNING"}.get(how, "QUEUED")
    assert rig.append_log(held, 6, "late\n") == ["STALE_LEASE", status]
    assert rig.snapshot() == before


def test_the_right_lease_in_other_hands_or_with_another_id_adds_nothing(rig: Rig) -> None:
    held = begun(rig)

    assert rig.append_log(replace(held, agent="two"), 0, "x") == ["NOT_HOLDER"]
    assert rig.append_log(replace(held, lease_id="f" * 32), 0, "x") == ["STALE_LEASE", "RUNNING"]
    assert rig.append_log(replace(held, job_id="other"), 0, "x") == ["NOT_FOUND"]
    assert rig.log("a") is None


def test_a_job_that_is_trimmed_to_a_tombstone_is_told_as_stale(rig: Rig) -> None:
    rig.configure(retention_count=0)
    held = begun(rig)
    rig.complete(held)
    rig.upkeep()

    assert rig.append_log(held, 0, "x") == ["STALE_LEASE", "COMPLETED"]
    assert rig.read_log("a") == ["NOT_FOUND"]


# -- attempts --------------------------------------------------------------------------------------------------


def test_a_later_attempt_begins_with_a_line_of_its_own(rig: Rig) -> None:
    held = begun(rig)
    rig.append_log(held, 0, "no line break")
    second = again(rig, held, "two@abc")

    assert rig.append_log(second, 0, "second\n") == ["APPENDED", "7"]
    assert rig.append_log(second, 7, "more\n") == ["APPENDED", "12"]
    assert rig.log("a") == "no line break\n[hybridq] attempt 2, agent two\nsecond\nmore\n"


def test_an_attempt_that_says_nothing_leaves_no_line(rig: Rig) -> None:
    held = begun(rig)
    rig.append_log(held, 0, "first\n")
    third = again(rig, again(rig, held))
    rig.append_log(third, 0, "third\n")

    assert rig.log("a") == "first\n[hybridq] attempt 3, agent two\nthird\n"


def test_the_first_to_say_something_has_no_line_before_it(rig: Rig) -> None:
    second = again(rig, begun(rig))
    rig.append_log(second, 0, "second\n")

    assert rig.log("a") == "second\n"


def test_a_job_that_was_claimed_and_not_started_names_the_attempt_to_come(rig: Rig) -> None:
    held = begun(rig)
    rig.append_log(held, 0, "first\n")
    rig.release(held)
    rig.append_log(rig.lease("two"), 0, "preparing\n")

    assert rig.log("a") == "first\n[hybridq] attempt 1, agent two\npreparing\n"


def test_a_new_life_goes_on_in_the_same_log(rig: Rig) -> None:
    held = begun(rig, max_attempts=1)
    rig.append_log(held, 0, "dying\n")
    rig.complete(held, "failed")
    assert rig.zset("logs") == {"a": rig.now}
    rig.replay("a")
    assert rig.zset("logs") == {}
    rig.append_log(rig.running("two"), 0, "risen\n")

    assert rig.log("a") == "dying\n[hybridq] attempt 1, agent two\nrisen\n"


# -- reading ---------------------------------------------------------------------------------------------------


def test_a_log_is_read_from_a_position_on(rig: Rig) -> None:
    held = begun(rig)
    rig.append_log(held, 0, "0123456789")

    assert rig.read_log("a") == ["LOG", "RUNNING", "0", "10", "0", "0123456789"]
    assert rig.read_log("a", 4, 3) == ["LOG", "RUNNING", "4", "10", "0", "456"]
    assert rig.read_log("a", 10) == ["LOG", "RUNNING", "10", "10", "0", ""]
    assert rig.read_log("a", 99) == ["LOG", "RUNNING", "10", "10", "0", ""]
    rig.complete(held)
    assert rig.read_log("a", 9) == ["LOG", "COMPLETED", "9", "10", "0", "9"]


def test_a_job_that_said_nothing_has_an_empty_log(rig: Rig) -> None:
    rig.enqueue("a")

    assert rig.read_log("a") == ["LOG", "QUEUED", "0", "0", "0", ""]
    assert rig.read_log("nobody") == ["NOT_FOUND"]


# -- bounds of a job ----------------------------------------------------------------------------------------------


def test_a_log_ends_where_its_bound_is_and_says_so_once(rig: Rig) -> None:
    rig.configure(log_bytes_max=1000)
    held = begun(rig)
    rig.append_log(held, 0, "x" * 900)
    assert rig.append_log(held, 900, "y" * 200) == ["APPENDED", "1100"]
    text = rig.log("a")
    assert text is not None and len(text) <= 1000
    assert text.startswith("x" * 900 + "yyyy")
    assert text.endswith("y\n[hybridq] the log ends here: it reached 1000 bytes\n")
    assert rig.append_log(held, 1100, "z" * 500) == ["APPENDED", "1600"]

    assert rig.log("a") == text
    assert rig.read_log("a", 0, 1)[4] == "1"
    assert total(rig) == len(text)


@pytest.mark.parametrize(("size", "stays"), [(500, True), (501, False), (2000, False)])
def test_a_log_that_leaves_too_little_room_makes_way_for_the_next_attempt(rig: Rig, size: int, stays: bool) -> None:
    """The latest attempt is what people look for; positions go on after what was dropped."""
    rig.configure(log_bytes_max=1000)
    held = begun(rig)
    rig.append_log(held, 0, "x" * size)
    before = rig.log("a")
    assert before is not None
    second = again(rig, held)
    assert rig.append_log(second, 0, "second\n") == ["APPENDED", "7"]
    assert rig.append_log(second, 7, "more\n") == ["APPENDED", "12"]
    if stays:
        assert rig.log("a") == before + "\n[hybridq] attempt 2, agent two\nsecond\nmore\n"
        assert rig.read_log("a")[4] == "0"
        return
    text = "[hybridq] attempt 2, agent two\nsecond\nmore\n"
    assert rig.read_log("a") == ["LOG", "RUNNING", str(len(before)), str(len(before) + len(text)), "1", text]
    assert total(rig) == len(text)
    rig.check()


def test_a_log_that_just_fits_is_whole(rig: Rig) -> None:
    """96 bytes are kept for the line that says where a log ends."""
    rig.configure(log_bytes_max=1000)
    held = begun(rig)
    rig.append_log(held, 0, "x" * 904)
    assert rig.read_log("a")[4] == "0"
    rig.append_log(held, 904, "y")

    assert rig.log("a") == "x" * 904 + "\n[hybridq] the log ends here: it reached 1000 bytes\n"


def test_a_log_never_ends_inside_a_character(rig: Rig) -> None:
    rig.configure(log_bytes_max=1000)
    for size, character in ((2, "ß"), (3, "€"), (4, "🙂")):
        for before in range(size):
            job_id = f"job-{size}-{before}"
            rig.append_log(begun(rig, job_id), 0, "x" * before + character * 500)
            stored = rig.client.get(f"{rig.root}:log:{job_id}")

            assert isinstance(stored, bytes)
            kept, _, note = stored.decode().partition("\n")
            assert set(kept) <= {"x", character}
            assert 904 - size < len(kept.encode()) <= 904
            assert note.startswith("[hybridq] the log ends here")


def test_what_is_cut_keeps_every_byte_before_the_cut(rig: Rig) -> None:
    rig.configure(log_bytes_max=1000)
    held = begun(rig)
    rig.append_log(held, 0, b"a\0b" * 400)
    stored = rig.client.get(f"{rig.root}:log:a")

    assert isinstance(stored, bytes)
    assert stored.startswith((b"a\0b" * 400)[:904] + b"\n[hybridq]")


def test_the_largest_piece_fits(rig: Rig) -> None:
    held = begun(rig)

    assert rig.append_log(held, 0, "x" * MIB) == ["APPENDED", str(MIB)]
    assert rig.read_log("a", 0, MIB)[5] == "x" * MIB


# -- bounds of a queue ---------------------------------------------------------------------------------------------


def test_over_the_bound_of_the_queue_the_logs_of_jobs_that_ended_first_go_first(rig: Rig) -> None:
    rig.configure(logs_bytes_max=1000)
    said(rig, "old", "o" * 400)
    said(rig, "young", "y" * 400)
    held = begun(rig)
    rig.append_log(held, 0, "x" * 300)

    assert rig.log("old") is None
    assert rig.log("young") == "y" * 400
    assert rig.log("a") == "x" * 300
    assert rig.zset("logs").keys() == {"young"}
    assert total(rig) == 700
    assert rig.read_log("old") == ["LOG", "COMPLETED", "400", "400", "1", ""]
    assert rig.read_log("young")[4] == "0"
    assert rig.counters()["logs_dropped"] == 1


def test_a_log_whose_job_lives_is_not_dropped_for_others(rig: Rig) -> None:
    rig.configure(logs_bytes_max=1000)
    first = begun(rig, "first")
    rig.append_log(first, 0, "f" * 900)
    held = begun(rig)

    assert rig.append_log(held, 0, "x" * 300) == ["APPENDED", "300"]
    assert rig.log("first") == "f" * 900
    assert rig.log("a") == "x" * 4 + "\n[hybridq] the log ends here: those of this queue reached 1000 bytes\n"
    assert rig.read_log("a")[4] == "1"
    assert rig.append_log(held, 300, "more") == ["APPENDED", "304"]
    assert rig.append_log(first, 900, "more") == ["APPENDED", "904"]
    rig.check()


def test_positions_go_on_after_what_was_dropped(rig: Rig) -> None:
    rig.configure(logs_bytes_max=1000)
    said(rig, "a", "a" * 600, outcome="failed")
    said(rig, "b", "b" * 600)
    assert rig.log("a") is None
    rig.replay("a")
    rig.append_log(rig.running("two", job_id="a"), 0, "risen\n")

    text = "[hybridq] attempt 1, agent two\nrisen\n"
    assert rig.log("a") == text
    assert rig.read_log("a", 0) == ["LOG", "RUNNING", "600", str(600 + len(text)), "1", text]
    assert rig.read_log("a", 631)[5] == "risen\n"


def test_a_log_that_was_full_and_dropped_takes_more_in_its_next_life(rig: Rig) -> None:
    rig.configure(log_bytes_max=1000, logs_bytes_max=1500)
    said(rig, "a", "a" * 2000, outcome="failed")
    said(rig, "b", "b" * 900)
    rig.replay("a")
    rig.append_log(rig.running("two", job_id="a"), 0, "risen\n")

    assert rig.log("a") == "[hybridq] attempt 1, agent two\nrisen\n"


def test_logs_are_dropped_in_bounded_steps(rig: Rig) -> None:
    """The step that is not enough takes nothing away from who speaks: the next ones, and upkeep, go on."""
    rig.configure(logs_bytes_max=1000)
    for n in range(150):
        said(rig, f"job-{n}", "x" * 6)
    assert total(rig) == 900
    held = begun(rig)
    rig.append_log(held, 0, "x" * 800)

    assert len(rig.zset("logs")) == 50
    assert rig.log("a") == "x" * 800
    assert total(rig) == 1100
    rig.append_log(held, 800, "y")
    assert len(rig.zset("logs")) == 17
    assert total(rig) == 903


def test_upkeep_drops_what_a_lower_bound_leaves_no_room_for(rig: Rig) -> None:
    for n in range(25):
        said(rig, f"job-{n}", "x" * 100)
    rig.configure(logs_bytes_max=1000)

    assert rig.upkeep()["more"] == 1
    assert total(rig) == 1500
    rig.upkeep()
    assert rig.upkeep()["more"] == 0
    assert total(rig) == 1000
    assert list(rig.zset("logs")) == [f"job-{n}" for n in range(15, 25)]


def test_a_queue_over_its_bound_with_none_to_drop_is_not_looked_after_again_and_again(rig: Rig) -> None:
    held = begun(rig)
    rig.append_log(held, 0, "x" * 2000)
    rig.configure(logs_bytes_max=1000)

    assert rig.upkeep()["more"] == 0
    assert rig.log("a") == "x" * 2000


# -- gone with the record --------------------------------------------------------------------------------------------


def test_the_log_of_a_job_that_ended_stands_in_its_index_since_then(rig: Rig) -> None:
    held = begun(rig)
    rig.append_log(held, 0, "x")
    assert rig.zset("logs") == {}
    rig.now += 500
    rig.complete(held)

    assert rig.zset("logs") == {"a": NOW + 500}


@pytest.mark.parametrize("how", ["retention", "count", "purge", "max_dead"])
def test_a_log_goes_with_its_record(rig: Rig, how: str) -> None:
    outcome = "failed" if how in ("purge", "max_dead") else "success"
    said(rig, "a", "a" * 10, outcome=outcome)
    said(rig, "b", "b" * 7, outcome=outcome)
    if how == "purge":
        assert rig.one("purge", job_id="a") == ["PURGED"]
    elif how == "retention":
        rig.now = NOW + 86_400_000
        rig.upkeep()
    else:
        rig.configure(**{"retention_count" if how == "count" else "max_dead": 1})
        rig.upkeep()

    assert rig.log("a") is None
    assert rig.zset("logs").keys() == {"b"}
    assert total(rig) == 7
    assert rig.read_log("a") == ["NOT_FOUND"]


def test_a_cancelled_job_keeps_its_log_as_long_as_its_record(rig: Rig) -> None:
    held = begun(rig)
    rig.append_log(held, 0, "before the end\n")
    rig.release(held)
    rig.cancel("a")

    assert rig.zset("logs") == {"a": rig.now}
    assert rig.read_log("a")[1] == "CANCELLED"
    rig.configure(retention_count=0)
    rig.upkeep()
    assert rig.log("a") is None
    assert total(rig) == 0


def test_jobs_that_say_nothing_leave_no_trace_of_logs(rig: Rig) -> None:
    rig.complete(begun(rig))

    assert rig.zset("logs") == {}
    assert not [key for key in rig.snapshot() if ":log" in key]


# -- how much work -----------------------------------------------------------------------------------------------------


@one_engine
def test_a_queue_from_before_logs_has_bounds_as_well(rig: Rig) -> None:
    rig.client.hdel(f"{rig.root}:meta", "log_bytes_max", "logs_bytes_max", "logs_bytes")
    held = begun(rig)
    for n in range(9):
        rig.append_log(held, n * MIB, "x" * MIB)
    rig.complete(held)
    rig.upkeep()

    text = rig.log("a")
    assert text is not None and 8 * MIB - 200 < len(text) <= 8 * MIB
    assert total(rig) == len(text)
