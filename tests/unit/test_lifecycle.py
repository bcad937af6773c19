"""The one table of moves is the same in Python and in the headers of the Lua files, and makes sense by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridq.lifecycle import LEASED, NEW, TERMINAL, TRANSITIONS, WAITING, JobStatus, Outcome, Priority, allowed_from
from hybridq.scripts import _read_header, locate

LUA = locate()
FILES = sorted(LUA.rglob("*.lua"))
MOVES = sorted(f"{verb}:{source}>{target}" for verb, pairs in TRANSITIONS.items() for source, target in pairs)
PLACES = {NEW, *(status.value for status in JobStatus)}


def moves_of(path: Path) -> list[str]:
    return _read_header(path.read_text(encoding="utf-8")).moves


def test_the_table_is_the_same_in_lua_and_in_python() -> None:
    assert sorted({move for path in FILES for move in moves_of(path)}) == MOVES


def test_no_header_names_a_move_twice() -> None:
    for path in FILES:
        assert len(moves_of(path)) == len(set(moves_of(path))), path.name


@pytest.mark.parametrize("verb", TRANSITIONS)
def test_a_verb_moves_between_known_places(verb: str) -> None:
    for source, target in TRANSITIONS[verb]:
        assert {source, target} <= PLACES
        assert source != target


def test_every_status_waits_or_is_leased_or_has_ended() -> None:
    assert set(JobStatus) == WAITING | LEASED | TERMINAL
    assert len(JobStatus) == len(WAITING) + len(LEASED) + len(TERMINAL)


def test_what_has_ended_moves_by_replay_or_vanishes() -> None:
    after_the_end = {verb for verb, pairs in TRANSITIONS.items() for source, _ in pairs if source in TERMINAL}

    assert after_the_end == {"replay", "trim", "purge"}


def test_success_is_final() -> None:
    ways = {(verb, target) for verb, pairs in TRANSITIONS.items() for source, target in pairs if source == "COMPLETED"}

    assert ways == {("trim", NEW)}


def test_only_a_claim_makes_a_lease() -> None:
    into_a_lease = {
        verb
        for verb, pairs in TRANSITIONS.items()
        for source, target in pairs
        if target in LEASED and source not in LEASED
    }

    assert into_a_lease == {"claim"}


def test_only_a_run_completes() -> None:
    ways = {(verb, source) for verb, pairs in TRANSITIONS.items() for source, target in pairs if target == "COMPLETED"}

    assert ways == {("complete", "RUNNING")}


@pytest.mark.parametrize("status", [status for status in JobStatus if status not in ("BLOCKED", "EXPIRED")])
def test_every_status_in_use_can_be_reached_and_left(status: JobStatus) -> None:
    pairs = [pair for pairs in TRANSITIONS.values() for pair in pairs]

    assert any(target == status for _, target in pairs)
    assert any(source == status for source, _ in pairs)


def test_from_every_lease_every_way_out_can_lead_to_cancelled() -> None:
    for verb in ("complete", "release", "reap"):
        for status in LEASED:
            assert (status.value, "CANCELLED") in TRANSITIONS[verb], (verb, status)


@pytest.mark.parametrize(
    ("verb", "statuses"),
    [
        ("start", ["CLAIMED"]),
        ("complete", ["CLAIMED", "RUNNING"]),
        ("release", ["CLAIMED", "RUNNING"]),
        ("cancel", ["SCHEDULED", "BLOCKED", "QUEUED"]),
        ("replay", ["FAILED", "DEAD_LETTERED", "CANCELLED"]),
        ("purge", ["DEAD_LETTERED"]),
        ("enqueue", []),
        ("dance", []),
    ],
)
def test_where_a_verb_is_allowed_from(verb: str, statuses: list[str]) -> None:
    assert allowed_from(verb) == statuses


def test_priorities_stand_in_their_order() -> None:
    assert [priority.value for priority in Priority] == ["CRITICAL", "HIGH", "NORMAL", "LOW"]


def test_outcomes_are_the_words_the_script_takes() -> None:
    [kind] = [one.kind for one in _read_header((LUA / "complete.lua").read_text()).each if one.name == "outcome"]

    assert kind.split("/") == [outcome.value for outcome in Outcome]
