"""The log of one lease: clean before it reaches the disk, bounded, complete and in order, whatever the server says."""

from __future__ import annotations

import os
import random
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridq.agent.errors import (
    Forbidden,
    JobNotFound,
    Malformed,
    OffsetGap,
    RateLimited,
    ServerAway,
    SessionSuperseded,
    StaleLease,
    Unauthenticated,
    Unreachable,
)
from hybridq.agent.logs import JobLog, LogSummary
from hybridq.agent.logs.cleaner import Cleaner
from tests.agent.test_redactor import SPELLINGS, cut_at_random, many_secrets, plain_log
from tests.servers import wait_until

SECRET = "hunter2-Pass/word+x=1"
LONG_S = 30.0


class Server:
    """Keeps a log as the server does: a repeat is ignored, a gap refused. `troubles` come before answers."""

    def __init__(self) -> None:
        self.stored = b""
        self.calls: list[tuple[int, str]] = []
        self.troubles: list[Exception] = []
        self.lose = 0
        self.gate = threading.Event()
        self.gate.set()

    @property
    def text(self) -> str:
        return self.stored.decode()

    def append(self, offset: int, text: str) -> int:
        self.gate.wait(LONG_S)
        self.calls.append((offset, text))
        if self.troubles:
            raise self.troubles.pop(0)
        data = text.encode()
        if offset > len(self.stored):
            raise OffsetGap(409, "offset_gap", members={"expected": len(self.stored)})
        self.stored = self.stored + data[len(self.stored) - offset :]
        if self.lose:
            self.lose -= 1
            raise unreachable(in_doubt=True)
        return offset + len(data)


def unreachable(*, in_doubt: bool = False) -> Unreachable:
    return Unreachable("http://server", "reset", in_doubt=in_doubt, attempts=1)


@pytest.fixture
def far() -> Server:
    return Server()


_others: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def threads_of_others() -> None:
    """Whatever other tests of this process have left running is none of ours."""
    _others.clear()
    _others.update(threading.enumerate())


@pytest.fixture
def open_log(tmp_path: Path, far: Server) -> Iterator[Callable[..., JobLog]]:
    """Opens logs whose pauses are none; what a test leaves open is abandoned."""
    opened: list[JobLog] = []

    def open_log(**options: Any) -> JobLog:
        options = {"append": far.append, "flush_s": 0.01, "rng": Eager(), **options}
        opened.append(JobLog(tmp_path / "job", **options))
        return opened[-1]

    yield open_log
    far.gate.set()
    for log in opened:
        log.abandon()
    wait_until(lambda: not senders(), 10, what="the senders' end")


class Eager(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return 0.0


def senders() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "hybridq-log" and one not in _others]


# -- what is sent ----------------------------------------------------------------------------------------------------


def test_what_a_job_says_arrives_while_it_runs(open_log: Callable[..., JobLog], far: Server) -> None:
    log = open_log(secrets=[SECRET])
    log.write(b"one.\n")
    wait_until(lambda: far.text == "one.\n", 10)
    log.write(f"key: {SECRET}.\ntwo: ".encode())
    wait_until(lambda: far.text == "one.\nkey: [redacted].\ntwo: ", 10, what="the line that has not ended")
    log.write(b"2\n")
    summary = log.close(within_s=LONG_S)
    assert far.text == "one.\nkey: [redacted].\ntwo: 2\n"
    assert summary == LogSummary(
        bytes_written=5 + len(f"key: {SECRET}.\ntwo: ") + 2,
        bytes_sent=len(far.stored),
        bytes_dropped=0,
        truncated=False,
        delivered=True,
        redactions=1,
        last_lines=("one.", "key: [redacted].", "two: 2"),
    )
    assert log.close(within_s=0) == summary
    log.write(b"too late\n")
    log.note("too late")
    assert log.close(within_s=0) == summary


def test_nothing_said_is_nothing_sent(open_log: Callable[..., JobLog], far: Server, tmp_path: Path) -> None:
    summary = open_log().close(within_s=LONG_S)
    assert summary.delivered and summary.bytes_sent == 0 and not far.calls and not senders()
    assert not (tmp_path / "job").exists()


def test_offsets_count_bytes_and_pieces_end_with_lines(open_log: Callable[..., JobLog], far: Server) -> None:
    log = open_log(chunk_bytes=1000)
    text = "".join(f"Zeile {n} äöü €\n" for n in range(500)) + "€" * 2000
    far.gate.clear()
    log.write(text.encode())
    far.gate.set()
    assert log.close(within_s=LONG_S).delivered
    assert far.text == text and len(far.calls) > 10
    assert all(len(piece.encode()) <= 1000 for _, piece in far.calls)
    lines = [piece for offset, piece in far.calls if offset < len(text.encode()) - 7000]
    assert all(piece.endswith("\n") for piece in lines)


def test_notes_stand_where_they_were_said(open_log: Callable[..., JobLog], far: Server) -> None:
    log = open_log(secrets=[SECRET])
    log.note("step build")
    log.write(b"no line end, and an h")
    log.note(f"step test of {SECRET}\x1b[2J")
    log.write(b"on\n")
    log.note("done")
    summary = log.close(within_s=LONG_S)
    assert far.text == (
        "[hybridq] step build\nno line end, and an h\n[hybridq] step test of [redacted]\non\n[hybridq] done\n"
    )
    assert summary.last_lines == ("no line end, and an h", "on")


def test_the_agent_says_how_many_secrets_it_cannot_look_for(open_log: Callable[..., JobLog], far: Server) -> None:
    log = open_log(secrets=["abc", SECRET])
    log.write(b"abc\n")
    log.close(within_s=LONG_S)
    assert far.text == "[hybridq] 1 secret(s) of less than 4 characters are not looked for in this log\nabc\n"


def test_last_lines_are_few_and_short(open_log: Callable[..., JobLog]) -> None:
    log = open_log(secrets=[SECRET])
    log.write(b"".join(b"line %d\n\n" % n for n in range(100)) + b"x" * 3000 + b"\n" + SECRET.encode())
    lines = log.close(within_s=LONG_S).last_lines
    assert len(lines) == 20 and lines[0] == "line 82" and lines[-1] == "[redacted]"
    assert lines[-2] == "x" * 499 + "…"


def test_error_texts_are_cleaned_too(open_log: Callable[..., JobLog]) -> None:
    log = open_log(secrets=[SECRET])
    assert log.redact(f"cannot \x1b[31mlogin\x1b[0m with {SECRET[:5]}\x1b[1m{SECRET[5:]}\r\n") == (
        "cannot login with [redacted]\n"
    )
    log.add_secrets(["later-secret"])
    assert log.redact("later-secret") == "[redacted]"
    assert log.close(within_s=0).redactions == 0


# -- secrets and what hides them -------------------------------------------------------------------------------------

HIDING = [
    "\x1b[0m",
    "\x1b[1;31m",
    "\0",
    "\x07",
    "\x1b]0;t\x07",
    "\u200b",
    "\u202e",
    "\x9b31m",
    "\r",
    "\b",
    "\n",
    "\r\n  ",
]
HIDING += [
    "\x1b(B",
    "\u00ad",
    "\ufeff",
    "\x1b]8;;http://x\x1b\\",
    "\x7f",
    "\x85",
    "\u2028",
    "\x0b",
    "\u200d",
    "\x01\u200d",
]
SWALLOWING = ["\x1b[", "\x9b", "\x1b", "\x1b]", "\x1bP", "\x1b[1;", "\x1b[\n"]


def cleaned(secret: str, pieces: list[tuple[str, bytes]]) -> str:
    cleaner = Cleaner([secret])
    out = b"".join([cleaner.feed(data, stream) for stream, data in pieces])
    return (out + cleaner.flush()).decode()


def leaks(secret: str, text: str) -> bool:
    """Whether six characters of it in a row are there, over any line ends."""
    flat = text.replace("\n", "").replace("[redacted]", "|")
    return any(secret[at : at + 6] in flat for at in range(len(secret) - 5))


upper = st.text("ABCDEFGHJKLMNPQRSTUVWXYZ3456789", min_size=8, max_size=40)


@settings(max_examples=300, deadline=None)
@given(upper, st.lists(st.tuples(st.integers(0, 40), st.sampled_from(HIDING))), st.randoms(use_true_random=False))
def test_control_sequences_in_its_middle_hide_no_secret(
    secret: str, hiding: list[tuple[int, str]], rng: random.Random
) -> None:
    hidden = secret
    for at, sequence in hiding:
        hidden = hidden[:at] + sequence + hidden[at:]
    # Not between the bytes of another sequence, which is none then.
    if any(
        sequence in hidden and hidden.count(sequence) < sum(s == sequence for _, s in hiding) for _, sequence in hiding
    ):
        return
    data = f"before {hidden} after\n".encode()
    out = cleaned(secret, [("stdout", piece) for piece in cut_at_random(data, rng)])
    if out.count("[redacted]") == 0:
        # A sequence put into another one makes text of both; then it is no secret that a screen would show.
        assert secret not in out.replace("\n", "")
        return
    assert not leaks(secret, out)


@pytest.mark.parametrize("sequence", HIDING, ids=ascii)
def test_each_sequence_by_itself(sequence: str) -> None:
    for at in range(len(SECRET) + 1):
        data = f"before {SECRET[:at]}{sequence}{SECRET[at:]} after\n".encode()
        for seed in range(3):
            out = cleaned(SECRET, [("stdout", piece) for piece in cut_at_random(data, random.Random(seed))])
            assert "after" in out and not leaks(SECRET, out), (at, out)


@pytest.mark.parametrize("sequence", SWALLOWING, ids=ascii)
def test_a_sequence_that_swallows_a_character_of_it(sequence: str) -> None:
    """`ESC [ hunter2` is `unter2` on a screen: all of the secret but a character that is easily guessed."""
    for at in (0, 3):
        data = f"before {SECRET[:at]}{sequence}{SECRET[at:]} after\n".encode()
        if at and sequence in ("\x1bP", "\x1b[1;", "\x1b[\n"):
            continue  # with text of its own in the middle it is no spelling of the secret any more
        out = cleaned(SECRET, [("stdout", data)])
        assert not leaks(SECRET, out), out


@pytest.mark.parametrize("charset", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_secrets_in_wide_text(charset: str) -> None:
    out = cleaned(SECRET, [("stdout", f"key {SECRET} \x1b[1m{SECRET}\n".encode(charset))])
    assert out == "key [redacted] [redacted]\n"


def test_what_backspaces_and_returns_bring_together() -> None:
    struck = "".join(f"{c}\b{c}" for c in SECRET)
    assert cleaned(SECRET, [("stdout", struck.encode())]) == "[redacted]"
    assert cleaned(SECRET, [("stdout", f"{SECRET[:6]}zz\b\b{SECRET[6:]}".encode())]) == "[redacted]"
    assert cleaned(SECRET, [("stdout", f"{SECRET[:6]}\n50%\r{SECRET[6:]}\n".encode())]) == "[redacted]\n"


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_passes_through_a_coloured_log(spelling: str) -> None:
    spelled = SPELLINGS[spelling](SECRET)
    half = len(spelled) // 2
    plain = cleaned(SECRET, [("stdout", f"ok {spelled}.\n".encode())])
    assert "[redacted]" in plain and spelled.strip() not in plain and not leaks(SECRET, plain)
    data = f"\x1b[32mok\x1b[0m {spelled[:half]}\x1b[0m{spelled[half:]}\x1b[K.\n".encode()
    for seed in range(5):
        assert cleaned(SECRET, [("stdout", piece) for piece in cut_at_random(data, random.Random(seed))]) == plain


def test_a_line_that_vanishes_between_two_halves() -> None:
    for seed in range(20):
        data = f"{SECRET[:6]}\n50%\r{SECRET[6:]}\n".encode()
        assert (
            cleaned(SECRET, [("stdout", piece) for piece in cut_at_random(data, random.Random(seed))]) == "[redacted]\n"
        )


def test_halves_at_the_ends_of_large_pieces() -> None:
    """Of a large piece only the ends are searched again; a line that vanishes brings two halves together there."""
    filler = b"plain line of a build.\n" * 2_000
    for at in range(1, len(SECRET)):
        half = SECRET[:at].encode(), SECRET[at:].encode()
        pieces = [
            filler + half[0] + b"\n",
            b"50%",
            b"\r" + half[1] + b"\n" + filler,
            filler + half[0],
            half[1] + filler,
        ]
        out = cleaned(SECRET, [("stdout", piece) for piece in pieces])
        assert out.count("[redacted]") == 2 and not leaks(SECRET, out.replace("plain line of a build.", ""))


def test_a_secret_over_the_joins_of_two_streams() -> None:
    """Lines of the other stream come between, and neither half is left; nor do the halves of two streams make one."""
    pieces = [("stdout", SECRET[:9].encode()), ("stderr", b"warning\n"), ("stdout", SECRET[9:].encode() + b"\n")]
    assert sorted(cleaned(SECRET, pieces).splitlines()) == ["[redacted]", "warning"]
    halves = [("stdout", SECRET[:9].encode()), ("stderr", SECRET[9:].encode())]
    assert not leaks(SECRET, cleaned(SECRET, halves))


def test_lines_of_two_streams_stay_whole(open_log: Callable[..., JobLog], far: Server) -> None:
    log = open_log(flush_s=LONG_S)  # or else lines would be shown before they end

    def say(stream: str) -> None:
        for n in range(200):
            log.write(f"{stream} {n} begins, ".encode(), stream)
            log.write(f"and {n} ends\n".encode(), stream)

    writers = [threading.Thread(target=say, args=(stream,)) for stream in ("stdout", "stderr")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    log.close(within_s=LONG_S)
    for stream in ("stdout", "stderr"):
        said = [line for line in far.text.splitlines() if line.startswith(stream)]
        assert said == [f"{stream} {n} begins, and {n} ends" for n in range(200)]
    assert len(far.text.splitlines()) == 400


def test_no_secret_reaches_the_disk(open_log: Callable[..., JobLog], far: Server, tmp_path: Path) -> None:
    far.gate.clear()
    log = open_log(secrets=[SECRET])
    rng = random.Random(1)
    for spelling in SPELLINGS.values():
        for piece in cut_at_random(f"say {spelling(SECRET)} end.\n".encode(), rng):
            log.write(piece)
    spool = tmp_path / "job" / "log.spool"
    log.note("all of it is on the disk now, and the server has not answered yet")
    kept = spool.read_text()
    assert not leaks(SECRET, kept) and kept.count("[redacted]") >= len(SPELLINGS)
    assert stat.S_IMODE(spool.stat().st_mode) == 0o600
    assert stat.S_IMODE(spool.parent.stat().st_mode) == 0o700
    far.gate.set()
    assert log.close(within_s=LONG_S).delivered and far.text == kept
    assert not spool.exists()


def test_the_spool_goes_through_no_link(open_log: Callable[..., JobLog], tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "job").mkdir()
    os.symlink(victim, tmp_path / "job" / "log.spool")
    log = open_log()
    log.write(b"said\n")
    assert log.close(within_s=LONG_S).delivered and victim.read_text() == "precious"


# -- bounds ----------------------------------------------------------------------------------------------------------


def test_a_log_that_is_too_long_loses_its_middle_and_says_so(open_log: Callable[..., JobLog], far: Server) -> None:
    log = open_log(bytes_max=100_000, tail_bytes=20_000)
    text = "".join(f"line {n} ü\n" for n in range(50_000))
    log.write(text.encode())
    summary = log.close(within_s=LONG_S)
    assert summary.truncated and summary.delivered and summary.bytes_written == len(text.encode())
    head, _, rest = far.text.partition("[hybridq] this log is longer than 100,000 bytes")
    middle, _, tail = rest.partition(" bytes are left out here\n")
    assert text.startswith(head.removesuffix("\n")) and len(head.encode()) > 79_000
    assert text.endswith(tail) and tail.startswith("line ") and 15_000 < len(tail.encode()) <= 20_000
    assert middle.endswith(f"[hybridq] {summary.bytes_dropped:,}")
    assert len(head.removesuffix("\n").encode()) + len(tail.encode()) + summary.bytes_dropped == len(text.encode())
    assert summary.last_lines[-1] == "line 49999 ü"


@pytest.mark.parametrize("over", [0, 1])
def test_a_log_of_exactly_its_bound_is_whole(open_log: Callable[..., JobLog], far: Server, over: int) -> None:
    log = open_log(bytes_max=10_000, tail_bytes=2_000)
    text = "x" * (10_000 + over)
    log.write(text.encode())
    summary = log.close(within_s=LONG_S)
    assert summary.truncated is bool(over) and (far.text == text) is not bool(over)


def test_a_secret_at_the_cut_is_not_halved(open_log: Callable[..., JobLog], far: Server) -> None:
    for shift in range(0, 40, 3):
        far.stored = b""
        log = open_log(secrets=[SECRET], bytes_max=4_000, tail_bytes=1_000)
        log.write(b"." * (2_990 + shift - len(SECRET)) + SECRET.encode() + b"." * 5_000)
        log.write(SECRET.encode() + b"-" * (1_000 - shift))
        assert log.close(within_s=LONG_S).truncated
        assert not leaks(SECRET, far.text)


def test_fifty_megabytes_are_truncated_in_seconds(open_log: Callable[..., JobLog], far: Server) -> None:
    """All of it is cleaned, as a cut in the middle might halve a secret. Measured: 7 s of CPU on 2 busy cores."""
    log = open_log(secrets=[*many_secrets(19), SECRET])
    data = plain_log(50_000_000)
    begin = time.process_time()
    for at in range(0, len(data), 32_768):
        log.write(data[at : at + 32_768])
    log.write(f"\nthe end with {SECRET}\n".encode())
    summary = log.close(within_s=60)
    took_s = time.process_time() - begin
    assert summary.truncated and summary.delivered and summary.redactions == 1
    assert summary.last_lines[-1] == "the end with [redacted]"
    assert len(far.stored) < 4 * 1024 * 1024 + 1000
    assert far.text.count(" bytes are left out here\n") == 1
    assert summary.bytes_dropped > 45_000_000
    assert took_s < 20.0


@pytest.mark.skipif(sys.platform != "linux", reason="a full disk is made with /dev/full")
def test_a_full_disk_costs_what_it_costs_and_is_said(
    open_log: Callable[..., JobLog], far: Server, tmp_path: Path
) -> None:
    (tmp_path / "job").write_text("not a folder")
    log = open_log()
    log.write(b"lost\n")
    log.note("lost too")
    (tmp_path / "job").unlink()
    log.write(b"kept\n")
    summary = log.close(within_s=LONG_S)
    assert "kept\n" in far.text and "bytes are missing here: the agent's disk failed\n" in far.text
    assert summary.truncated and summary.bytes_dropped >= len("lost\n") and summary.delivered


def test_a_disk_that_stays_full_ends_no_job(open_log: Callable[..., JobLog], tmp_path: Path) -> None:
    (tmp_path / "job").write_text("not a folder")
    log = open_log()
    log.write(b"lost\n")
    summary = log.close(within_s=LONG_S)
    assert (summary.truncated, summary.delivered, summary.bytes_dropped) == (True, False, 5)
    assert summary.last_lines == ("lost",)


# -- a server that is not there --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [
        unreachable(),
        ServerAway(503, "redis_unavailable"),
        ServerAway(507, "queue_full"),
        RateLimited(429, "rate_limited", retry_after_s=0.01),
        Unauthenticated(401, "unauthenticated"),
    ],
    ids=lambda trouble: getattr(trouble, "code", "unreachable"),
)
def test_what_passes_is_waited_for(open_log: Callable[..., JobLog], far: Server, trouble: Exception) -> None:
    far.troubles = [trouble] * 5
    log = open_log()
    log.write(b"one\n")
    wait_until(lambda: far.text == "one\n", 10)
    log.write(b"two\n")
    assert log.close(within_s=LONG_S).delivered and far.text == "one\ntwo\n"


def test_a_lost_answer_repeats_nothing(open_log: Callable[..., JobLog], far: Server) -> None:
    far.lose = 3
    log = open_log()
    for n in range(100):
        log.write(f"line {n}\n".encode())
    assert log.close(within_s=LONG_S).delivered
    assert far.text == "".join(f"line {n}\n" for n in range(100))


def test_a_server_that_lost_some_is_given_it_again(open_log: Callable[..., JobLog], far: Server) -> None:
    log = open_log()
    text = "".join(f"line {n}\n" for n in range(1000))
    log.write(text.encode())
    wait_until(lambda: far.text == text, 10)
    far.stored = far.stored[:100]
    log.write(b"more\n")
    assert log.close(within_s=LONG_S).delivered and far.text == text + "more\n"


@pytest.mark.parametrize(
    "refusal",
    [
        StaleLease(409, "stale_lease"),
        JobNotFound(404, "job_not_found"),
        Forbidden(403, "not_lease_holder"),
        SessionSuperseded(410, "session_superseded"),
        Malformed(413, "payload_too_large"),
        OffsetGap(409, "offset_gap", members={"expected": 10**9}),
    ],
    ids=lambda refusal: refusal.code,
)
def test_a_refusal_ends_the_sending_and_nothing_else(
    open_log: Callable[..., JobLog], far: Server, refusal: Any
) -> None:
    far.troubles = [refusal]
    log = open_log()
    log.write(b"one\n")
    wait_until(lambda: len(far.calls) == 1, 10)
    log.write(b"two\n")
    begin = time.monotonic()
    summary = log.close(within_s=LONG_S)
    assert time.monotonic() - begin < 5.0
    assert (summary.delivered, summary.refused, summary.last_lines) == (False, refusal.code, ("one", "two"))
    assert len(far.calls) == 1


def test_an_append_that_breaks_is_no_reason_to_wait(open_log: Callable[..., JobLog], far: Server) -> None:
    far.troubles = [RuntimeError("a bug")]
    log = open_log()
    log.write(b"one\n")
    assert log.close(within_s=LONG_S).refused == "RuntimeError"


def test_an_answer_that_goes_nowhere_is_no_endless_loop(open_log: Callable[..., JobLog]) -> None:
    log = open_log(append=lambda offset, text: offset)
    log.write(b"one\n")
    assert log.close(within_s=LONG_S).refused == "offset_not_understood"


def test_an_outage_longer_than_the_job_costs_the_log_and_no_time(open_log: Callable[..., JobLog], far: Server) -> None:
    far.gate.clear()
    log = open_log()
    begin = time.monotonic()
    for _ in range(100):
        log.write(b"x" * 10_000 + b"\n")
    summary = log.close(within_s=0.2)
    assert time.monotonic() - begin < 10.0, "neither the job nor its end waits for the network"
    assert not summary.delivered and summary.refused is None and summary.bytes_written == 1_000_100


def test_a_close_that_comes_while_something_is_sent_returns(open_log: Callable[..., JobLog], far: Server) -> None:
    """The sender, done with the rest, looked for news of a log that has none and kept the lock: nobody came in."""
    for n in range(20):
        far.stored = b""
        far.gate.clear()
        log = open_log()
        log.write(b"one\n")
        wait_until(lambda: any(thread.is_alive() for thread in senders()), 10)
        opener = threading.Timer(0.01 * (n % 4), far.gate.set)
        opener.start()
        assert log.close(within_s=LONG_S).delivered and far.text == "one\n"
        opener.join()


def test_a_log_that_is_abandoned_leaves_nothing(open_log: Callable[..., JobLog], far: Server, tmp_path: Path) -> None:
    far.gate.clear()
    log = open_log()
    log.write(b"one\n")
    wait_until((tmp_path / "job" / "log.spool").exists, 10)
    log.abandon()
    log.abandon()
    assert not (tmp_path / "job").exists()
    log.write(b"two\n")
    far.gate.set()
    wait_until(lambda: not senders(), 10, what="the sender's end")
    assert "two" not in far.text
    assert not log.close(within_s=LONG_S).delivered


def test_logs_leave_no_descriptor_open(open_log: Callable[..., JobLog]) -> None:
    def opened() -> int:
        return len(os.listdir("/dev/fd"))

    before = opened()
    for n in range(20):
        log = open_log()
        log.write(b"one\n")
        if n % 2:
            log.close(within_s=LONG_S)
        else:
            log.abandon()
    wait_until(lambda: not senders(), 10)
    assert opened() <= before
