"""What jobs say: appended, read and followed, in both colours and on every server."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest

from hybridq import (
    InvalidArgument,
    JobNotFound,
    Lease,
    LeaseProof,
    LogPart,
    NotLeaseHolder,
    OffsetGap,
    PayloadTooLarge,
    StaleLease,
)
from tests.conformance.conftest import Open

MIB = 1_048_576


@pytest.fixture
def lease(queue: Any) -> Lease:
    """A job that runs."""
    queue.enqueue("t", job_id="j")
    [lease] = queue.claim(start=True)
    assert isinstance(lease, Lease)
    return lease


def test_what_is_appended_is_read(queue: Any, lease: Lease) -> None:
    assert queue.append_log(lease, 0, "zwölf\n") == 7
    assert queue.append_log(lease, 7, "🙂\n".encode()) == 12

    assert queue.read_log("j") == LogPart(data="zwölf\n🙂\n", offset=0, next_offset=12)
    assert queue.read_log("j", offset=7, limit=100) == LogPart(data="🙂\n", offset=7, next_offset=12)
    assert queue.read_log("j", offset=500) == LogPart(data="", offset=12, next_offset=12)
    queue.complete(lease)
    assert queue.read_log("j") == LogPart(data="zwölf\n🙂\n", offset=0, next_offset=12, complete=True)


def test_a_repeat_is_ignored_and_a_gap_says_where_to_go_on(queue: Any, lease: Lease) -> None:
    assert [queue.append_log(lease, 0, "one\n") for _ in range(3)] == [4, 4, 4]
    assert queue.append_log(lease, 0, "one\ntwo\n") == 8
    with pytest.raises(OffsetGap) as gap:
        queue.append_log(lease, 9, "x")

    assert (gap.value.job_id, gap.value.fence, gap.value.expected) == ("j", lease.fence, 8)
    assert queue.read_log("j").data == "one\ntwo\n"


def test_a_piece_counts_as_it_was_sent(queue: Any, lease: Lease) -> None:
    assert queue.append_log(lease, 0, "[redacted]\n", sent_bytes=100) == 100
    assert queue.append_log(lease, 100, "more\n") == 105
    with pytest.raises(OffsetGap):
        queue.append_log(lease, 100, "[redacted]", sent_bytes=50)

    assert queue.read_log("j").data == "[redacted]\nmore\n"


def test_a_character_may_be_cut_between_two_pieces_and_is_read_whole(queue: Any, lease: Lease) -> None:
    text = "ß€🙂".encode()
    for at in range(len(text)):
        queue.append_log(lease, at, text[at : at + 1])
        part = queue.read_log("j")
        assert "ß€🙂".startswith(part.data)
        assert part.next_offset == len(part.data.encode())

    assert queue.read_log("j").data == "ß€🙂"


@pytest.mark.parametrize("limit", range(1, 8))
def test_a_part_holds_whole_characters_and_one_at_least(queue: Any, lease: Lease, limit: int) -> None:
    text = "aß€🙂" * 7
    queue.append_log(lease, 0, text)
    queue.complete(lease)
    found, offset = "", 0
    for _ in range(40):
        part = queue.read_log("j", offset=offset, limit=limit)
        assert part.offset == offset
        assert 0 < len(part.data.encode()) <= max(limit, 4)
        found, offset = found + part.data, part.next_offset
        if part.complete:
            break

    assert found == text


def test_bytes_that_are_no_text_are_read_in_their_place(queue: Any, lease: Lease) -> None:
    piece = b"a\xff\xfeb\xf0\x9fc" + "🙂".encode()[:3]
    queue.append_log(lease, 0, piece)
    assert queue.read_log("j").data == "a\ufffd\ufffdb\ufffdc"
    assert queue.read_log("j").next_offset == 7
    queue.complete(lease)

    whole = queue.read_log("j")
    assert (whole.data, whole.next_offset, whole.complete) == ("a\ufffd\ufffdb\ufffdc\ufffd", len(piece), True)


def test_bytes_that_only_go_on_come_to_an_end(queue: Any, lease: Lease) -> None:
    queue.append_log(lease, 0, b"\x80" * 100)
    queue.complete(lease)
    offset = 0
    for _ in range(100):
        part = queue.read_log("j", offset=offset, limit=3)
        offset = part.next_offset
        if part.complete:
            break

    assert offset == 100


def test_half_a_surrogate_pair_becomes_a_question_mark(queue: Any, lease: Lease) -> None:
    assert queue.append_log(lease, 0, "a\ud83db") == 3
    assert queue.read_log("j").data == "a?b"


def test_the_attempts_follow_each_other(queue: Any, lease: Lease) -> None:
    queue.append_log(lease, 0, "first")
    queue.fail(lease, delay_s=0)
    [second] = queue.claim(start=True, agent="bob")
    assert queue.append_log(second, 0, "second\n") == 7

    assert queue.read_log("j").data == "first\n[hybridq] attempt 2, agent bob\nsecond\n"


def test_only_the_holder_of_the_current_lease_appends(queue: Any, lease: Lease) -> None:
    stranger = LeaseProof(job_id="j", fence=lease.fence, lease_id=lease.lease_id, agent="bob")
    with pytest.raises(NotLeaseHolder):
        queue.append_log(stranger, 0, "x")
    queue.complete(lease)
    with pytest.raises(StaleLease) as stale:
        queue.append_log(lease, 0, "x")
    nobody = LeaseProof(job_id="nobody", fence=1, lease_id="0" * 32, agent="ann")
    with pytest.raises(JobNotFound):
        queue.append_log(nobody, 0, "x")

    assert stale.value.status == "COMPLETED"
    assert queue.read_log("j").data == ""


def test_a_job_without_a_log_has_an_empty_one(queue: Any) -> None:
    queue.enqueue("t", job_id="j")

    assert queue.read_log("j") == LogPart(data="", offset=0, next_offset=0)
    with pytest.raises(JobNotFound):
        queue.read_log("nobody")


def test_a_full_log_takes_more_and_says_that_it_is_not_whole(queue: Any, lease: Lease) -> None:
    assert queue.configure(log_bytes_max=1000, logs_bytes_max=5000) == {"log_bytes_max": 1000, "logs_bytes_max": 5000}
    assert (queue.limits().log_bytes_max, queue.limits().logs_bytes_max) == (1000, 5000)
    assert queue.append_log(lease, 0, "x" * 3000) == 3000
    assert queue.append_log(lease, 3000, "y") == 3001

    part = queue.read_log("j")
    assert part.truncated
    assert part.data.endswith("\n[hybridq] the log ends here: it reached 1000 bytes\n")


def test_a_dropped_log_is_not_whole_and_its_reader_goes_on(queue: Any, lease: Lease) -> None:
    queue.append_log(lease, 0, "j" * 600)
    queue.complete(lease)
    queue.configure(logs_bytes_max=1000)
    queue.enqueue("t", job_id="k")
    [other] = queue.claim(start=True)
    queue.append_log(other, 0, "k" * 600)

    assert queue.read_log("j") == LogPart(data="", offset=600, next_offset=600, complete=True, truncated=True)
    assert not queue.read_log("k").truncated


def test_a_log_is_followed_to_the_end_of_its_job(queue: Any, lease: Lease) -> None:
    begun, said = threading.Event(), "line ß🙂\n" * 300

    def work() -> None:
        begun.wait(10)
        offset = 0
        for at in range(0, len(said), 100):
            offset = queue.append_log(lease, offset, said[at : at + 100])
        queue.complete(lease)

    worker = threading.Thread(target=work)
    worker.start()
    parts = []
    with contextlib.closing(queue.follow_log("j", poll_s=0.01)) as following:
        begun.set()
        parts = list(following)
    worker.join()

    assert "".join(part.data for part in parts) == said
    assert [part.complete for part in parts] == [False] * (len(parts) - 1) + [True]
    assert [part.data for part in queue.follow_log("j", offset=len("line ß🙂\n".encode()) * 299)] == ["line ß🙂\n"]
    assert list(queue.follow_log("j", offset=10**6)) == [
        LogPart(data="", offset=parts[-1].next_offset, next_offset=parts[-1].next_offset, complete=True)
    ]
    with pytest.raises(JobNotFound):
        list(queue.follow_log("nobody"))


def test_a_piece_has_a_mebibyte_at_most(queue: Any, lease: Lease) -> None:
    assert queue.append_log(lease, 0, "ß" * (MIB // 2)) == MIB
    with pytest.raises(PayloadTooLarge) as large:
        queue.append_log(lease, MIB, b"x" * (MIB + 1))

    assert (large.value.size_bytes, large.value.limit_bytes) == (MIB + 1, MIB)
    assert len(queue.read_log("j", limit=MIB).data) == MIB // 2


@pytest.mark.parametrize("offset", [-1, 2**53, "0", None, 1.0, True])
def test_an_offset_off_its_rule_is_refused(queue: Any, lease: Lease, offset: Any) -> None:
    for call in (
        lambda: queue.append_log(lease, offset, "x"),
        lambda: queue.read_log("j", offset=offset),
        lambda: next(iter(queue.follow_log("j", offset=offset))),
    ):
        with pytest.raises(InvalidArgument, match="offset"):
            call()


def test_other_arguments_off_their_rules_are_refused(queue: Any, lease: Lease) -> None:
    for call in (
        lambda: queue.append_log(lease, 0, 5),
        lambda: queue.append_log(lease, 0, None),
        lambda: queue.append_log("j", 0, "x"),
        lambda: queue.append_log(lease, 0, "x", sent_bytes=-1),
        lambda: queue.read_log("j", limit=0),
        lambda: queue.read_log("j", limit=MIB + 1),
        lambda: queue.read_log("~"),
        lambda: next(iter(queue.follow_log("j", poll_s=0))),
        lambda: queue.configure(log_bytes_max=10),
    ):
        with pytest.raises(InvalidArgument):
            call()


def test_a_queue_can_be_opened_anew_and_goes_on(open_queue: Open, lease: Lease) -> None:
    again = open_queue()

    assert again.append_log(lease, 0, "one\n") == 4
    assert open_queue().append_log(lease, 4, "two\n") == 8
