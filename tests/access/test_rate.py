"""The limiter against a model of it in plain Python, in virtual time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hybridq import RateState, tokens
from hybridq.errors import InvalidArgument
from tests.access.harness import NOW, AccessRig, Mutant, with_scripts
from tests.contract.conftest import one_engine


@dataclass
class Bucket:
    """The generic cell rate algorithm as a bucket that leaks: fills by one a call, and runs empty with time."""

    level_us: int = 0
    at_us: int = 0

    def call(self, now_ms: int, interval_us: int, burst: int) -> RateState:
        now_us, room_us = now_ms * 1000, burst * interval_us
        level = max(0, min(self.level_us - (now_us - self.at_us), room_us))
        limited = level + interval_us > room_us
        after = level if limited else level + interval_us
        if not limited:
            self.level_us, self.at_us = after, now_us
        return RateState(
            limit=burst,
            remaining=0 if limited else (room_us - after) // interval_us,
            reset_s=math.ceil(after / 1000) / 1000,
            retry_after_s=math.ceil((level + interval_us - room_us) / 1000) / 1000 if limited else 0.0,
            limited=limited,
        )


@pytest.fixture
def undying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limiters that never end by themselves: their time to live runs in the server's time, the test in its own."""
    with_scripts(monkeypatch, Mutant("", "", ", 'PX', math.ceil((whole_us - now_us) / 1000)", "").load)


steps_ms = st.lists(st.one_of(st.integers(0, 3), st.integers(0, 5000), st.integers(-2000, -1)), min_size=1, max_size=40)


@one_engine
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps_ms=steps_ms, per_second=st.sampled_from([0.01, 0.5, 1, 3, 7.5, 100, 20_000]), burst=st.integers(1, 8))
@example(steps_ms=[0] * 9, per_second=1, burst=8)
@example(steps_ms=[0, 0, -1_000_000_000, 0], per_second=0.5, burst=1)
def test_the_limiter_is_the_model(
    rig: AccessRig, undying: None, steps_ms: list[int], per_second: float, burst: int
) -> None:
    text = rig.key()
    rig.now = NOW
    bucket = Bucket()
    interval_us = round(1e6 / per_second)

    for step_ms in steps_ms:
        rig.now += step_ms
        state = rig.admit(text, limit_per_second=per_second, burst=burst).rate
        assert state == bucket.call(rig.now, interval_us, burst)


@given(st.lists(st.integers(0, 400), min_size=50, max_size=120), st.integers(1, 5))
def test_the_model_never_lets_more_through_than_the_rate_says(steps_ms: list[int], burst: int) -> None:
    """Of the model alone, so that agreeing with it means something: in any stretch, burst + rate x time at most."""
    bucket, now_ms, taken = Bucket(), NOW, []
    for step_ms in steps_ms:
        now_ms += step_ms
        if not bucket.call(now_ms, 100_000, burst).limited:
            taken.append(now_ms)

    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + (taken[last] - start) / 100


def test_who_waits_as_long_as_told_is_let_through(rig: AccessRig) -> None:
    text = rig.key()
    limit = {"limit_per_second": 0.03, "burst": 2}
    states = [rig.admit(text, **limit).rate for _ in range(3)]
    assert states[-1].limited

    rig.now += round(states[-1].retry_after_s * 1000) - 1
    assert rig.admit(text, **limit).rate.limited
    rig.now += 1
    assert not rig.admit(text, **limit).rate.limited


def test_idle_time_is_not_saved_up(rig: AccessRig) -> None:
    text = rig.key()
    limit = {"limit_per_second": 0.01, "burst": 2}
    rig.admit(text, **limit)
    rig.now += 1_000_000

    assert [rig.admit(text, **limit).rate.limited for _ in range(3)] == [False, False, True]


def test_a_clock_that_went_back_locks_nobody_out_for_longer_than_the_limit_does(rig: AccessRig) -> None:
    text = rig.key()
    for _ in range(4):
        rig.admit(text, limit_per_second=0.01, burst=3)
    rig.now = NOW - 3_600_000

    assert rig.admit(text, limit_per_second=0.01, burst=3).rate.retry_after_s <= 100


def test_entries_of_one_batch_see_each_other(rig: AccessRig) -> None:
    text = rig.key()
    entry = ["key", text[4:16], tokens.hash_of(text), "peer", "read", 1_000_000, 3]
    replies = rig.eval("auth/admit", NOW, *entry * 5)

    assert [reply[3] for reply in replies] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), 1e9])
def test_a_rate_out_of_range_is_refused(rig: AccessRig, wrong: float) -> None:
    with pytest.raises(InvalidArgument):
        rig.admit(None, limit_per_second=wrong)
    with pytest.raises(InvalidArgument):
        rig.admit(None, burst=0)
