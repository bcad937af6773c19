"""The memory of nonces: on the disk before the answer, bounded, and not lost by a crash."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from hybridq.agent.trust import Replays, ReplaysUnavailable

NOW = 1_900_000_000.0
NONCE = "n" * 32


def first(
    replays: Replays, nonce: str = NONCE, job: str = "linux~job-1", ends: float = NOW + 60, **more: float
) -> bool:
    return replays.first("key", nonce, job=job, not_after=ends, **{"now": NOW, **more})


def test_a_nonce_belongs_to_the_job_it_came_with(tmp_path: Path) -> None:
    replays = Replays(tmp_path)

    assert first(replays)
    assert first(replays), "the same job again"
    assert not first(replays, job="linux~job-2")
    assert not first(replays, job="windows~job-1")
    assert first(replays, nonce="m" * 32, job="linux~job-2")
    assert replays.first("another-key", NONCE, job="linux~job-2", not_after=NOW, now=NOW), "nonces are a key's own"


def test_it_is_on_the_disk_before_the_answer(tmp_path: Path) -> None:
    first(Replays(tmp_path))

    assert not first(Replays(tmp_path), job="linux~job-2")
    assert (tmp_path / "replays").stat().st_mode & 0o777 == 0o600


def test_the_folder_is_made(tmp_path: Path) -> None:
    assert first(Replays(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("torn", [1, 20, 60])
def test_a_line_that_a_crash_tore_costs_that_line_alone(tmp_path: Path, torn: int) -> None:
    replays = Replays(tmp_path)
    first(replays)
    first(replays, nonce="m" * 32, job="linux~job-2")
    replays.close()
    path = tmp_path / "replays"
    os.truncate(path, path.stat().st_size - torn)

    again = Replays(tmp_path)

    assert not first(again, job="linux~job-9")
    assert first(again, nonce="m" * 32, job="linux~job-3"), "it was not answered for"
    first(again, nonce="o" * 32)
    assert not first(Replays(tmp_path), nonce="o" * 32, job="linux~job-9"), "what follows is whole"


def test_what_is_no_line_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "replays").write_bytes(b"\xff\xfe\n\n1 2 3\n" + f"9 key {NONCE} linux~job-1\n".encode())

    assert not first(Replays(tmp_path), job="linux~job-2")


def test_of_two_lines_for_a_nonce_the_first_holds(tmp_path: Path) -> None:
    (tmp_path / "replays").write_text(f"9 key {NONCE} linux~job-1\n9 key {NONCE} linux~job-2\n")

    assert not first(Replays(tmp_path), job="linux~job-2")


def test_it_is_bounded_and_forgets_only_what_no_longer_counts(tmp_path: Path) -> None:
    replays = Replays(tmp_path, nonces_max=10)
    for i in range(10):
        assert first(replays, nonce=f"{i:032}", ends=NOW + i)

    with pytest.raises(ReplaysUnavailable, match="10 nonces"):
        first(replays, nonce="x" * 32)
    assert first(replays, nonce="0" * 32), "what it knows it can say"
    day = 86_400 + 5.0
    assert first(replays, nonce="x" * 32, now=NOW + day, ends=NOW + day), "five have ended a day ago"
    assert not first(replays, nonce=f"{7:032}", job="linux~job-2", now=NOW + day)
    assert len((tmp_path / "replays").read_text().splitlines()) <= 6


def test_a_disk_that_does_not_take_it_is_the_agent_s_trouble(tmp_path: Path) -> None:
    replays = Replays(tmp_path)
    replays.close()
    (tmp_path / "replays").unlink()
    (tmp_path / "replays").mkdir()

    with pytest.raises(ReplaysUnavailable, match="directory") as caught:
        first(replays)
    assert caught.value.error["code"] == "replays_unavailable"
    (tmp_path / "replays").rmdir()
    assert first(replays), "and is not remembered as answered"
    with pytest.raises(ReplaysUnavailable):
        Replays("/dev/null/x")


def test_what_did_not_reach_the_disk_was_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replays = Replays(tmp_path)

    def fails(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fails)
        with pytest.raises(ReplaysUnavailable, match="Input/output"):
            first(replays)

    assert first(replays, job="linux~job-2")
    assert not first(Replays(tmp_path), job="linux~job-1")


def test_of_many_threads_with_one_nonce_one_job_gets_it(tmp_path: Path) -> None:
    replays = Replays(tmp_path)
    ready, won = threading.Barrier(16), []

    def ask(i: int) -> None:
        ready.wait()
        if first(replays, job=f"linux~job-{i}"):
            won.append(i)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
