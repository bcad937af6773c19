"""`hybridq dead`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hybridq import JobStatus, Queue

from .conftest import Ran

Run = Callable[..., Ran]


@pytest.fixture
def kill(queue: Queue) -> Callable[..., None]:
    """Make dead letters of one type, in order."""

    def make(*job_ids: str, type: str = "build", **fields: object) -> None:
        for job_id in job_ids:
            queue.enqueue(type, job_id=job_id, max_attempts=1, **fields)  # type: ignore[arg-type]
            [lease] = queue.claim(start=True)
            queue.fail(lease, {"type": "StepFailed", "message": "exit 1"})

    return make


def test_dead_letters_are_listed_with_their_reasons(hybridq: Run, kill: Callable[..., None]) -> None:
    kill("b1")
    kill("t1", type="test")
    assert [item["job_id"] for item in hybridq("dead", "list", "--json").document["items"]] == ["t1", "b1"]
    cells = hybridq("dead", "list", "--type", "build").out.splitlines()[1].split("\t")
    assert (cells[0], cells[2], cells[5]) == ("b1", "max_attempts", '{"type":"StepFailed","message":"exit 1"}')
    assert hybridq("dead", "list", "--reason", "lease_lost", "--json").document["items"] == []


def test_pages_of_dead_letters_follow_each_other(hybridq: Run, kill: Callable[..., None]) -> None:
    kill("b1", "b2", "b3")
    first = hybridq("dead", "list", "--limit", "2")
    cursor = first.err.removeprefix("more: --cursor ").strip()
    rest = hybridq("dead", "list", "--limit", "2", "--cursor", cursor, "--json").document
    assert [item["job_id"] for item in rest["items"]] == ["b1"]
    assert len(hybridq("dead", "list", "--all", "--json").document["items"]) == 3


@pytest.mark.parametrize(
    ("choice", "taken"),
    [
        (("b1",), ["b1"]),
        (("b2", "b1", "b2"), ["b2", "b1"]),
        (("--all",), ["b1", "b2", "t1"]),
        (("--type", "test"), ["t1"]),
        (("--tag", "os=linux"), ["t1"]),
        (("--reason", "max_attempts", "--limit", "2"), ["b2", "t1"]),
        (("--reason", "never_started"), []),
    ],
)
def test_those_chosen_are_replayed(
    hybridq: Run, queue: Queue, kill: Callable[..., None], choice: tuple[str, ...], taken: list[str]
) -> None:
    kill("b1", "b2")
    kill("t1", type="test", tags={"os": "linux"})
    counted = hybridq("dead", "replay", *choice, "--dry-run", "--json").document
    assert counted == {"matched": len(taken), "dry_run": True}
    assert queue.stats().dead_lettered == 3, "a dry run changes nothing"
    document = hybridq("dead", "replay", *choice, "--json").document
    assert (document["matched"], document["replayed"], document["skipped"]) == (len(taken), len(taken), {})
    assert sorted(document["job_ids"]) == sorted(taken)
    assert {queue.job(job_id).status for job_id in taken} <= {JobStatus.QUEUED}


def test_the_oldest_death_is_replayed_first(hybridq: Run, queue: Queue, kill: Callable[..., None]) -> None:
    kill("b1", "b2", "b3")
    assert hybridq("dead", "replay", "--all").out == "3 replayed\n"
    assert [lease.job_id for lease in queue.claim(3)] == ["b1", "b2", "b3"]


def test_more_than_a_page_is_replayed(hybridq: Run, queue: Queue) -> None:
    for n in range(250):
        queue.enqueue("build", job_id=f"b{n}", max_attempts=1)
    while leases := queue.claim(100, start=True):
        for lease in leases:
            queue.fail(lease)
    assert hybridq("dead", "replay", "--all", "--json").document["replayed"] == 250
    assert queue.stats().queued == 250


def test_what_cannot_be_replayed_is_left_alone_and_named(hybridq: Run, queue: Queue, kill: Callable[..., None]) -> None:
    kill("b1", unique="main")
    queue.enqueue("build", job_id="b2", unique="main")
    ran = hybridq("dead", "replay", "b1", "nope")
    assert ran.code == 1
    assert ran.out == "0 replayed, 2 left alone\n"
    assert "b1: " in ran.err
    assert "nope: " in ran.err
    assert set(hybridq("dead", "replay", "b1", "nope", "--json").document["skipped"]) == {"b1", "nope"}


@pytest.mark.parametrize("verb", ["replay", "purge"])
@pytest.mark.parametrize("choice", [(), ("--limit", "5"), ("b1", "--all"), ("b1", "--type", "build")])
def test_an_unclear_choice_is_a_wrong_call(hybridq: Run, verb: str, choice: tuple[str, ...]) -> None:
    assert hybridq("dead", verb, *choice).code == 2


def test_purging_asks_and_without_a_terminal_wants_yes(
    hybridq: Run, queue: Queue, kill: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    kill("b1", "b2")
    ran = hybridq("dead", "purge", "--all")
    assert (ran.code, "say --yes" in ran.err) == (2, True)
    assert queue.stats().dead_lettered == 2
    assert hybridq("dead", "purge", "--all", "--dry-run").out == "2 would be purged\n"
    document = hybridq("dead", "purge", "--all", "--yes", "--json").document
    assert (document["purged"], sorted(document["job_ids"])) == (2, ["b1", "b2"])
    assert queue.stats().dead_lettered == 0
