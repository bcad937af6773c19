"""The tests of the fleet's scripts can fail: each rule taken out turns at least one of them, or the checker, red."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from hybridq import scripts
from hybridq.connect import SyncRedis
from hybridq.scripts import Script, verbs
from tests.contract.conftest import one_engine
from tests.fleet import test_scripts
from tests.fleet.rig import FleetRig


@dataclass(frozen=True)
class Mutant:
    """A rule taken out of the scripts: `old` stands in the composed text of at least one, `new` takes its place."""

    sentence: str
    old: str
    new: str = ""

    def load(self, name: str) -> Script:
        """Return a script without the rule."""
        script = scripts.load(name)
        text = script.text.replace(self.old, self.new)
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        return replace(script, text=text, sha=sha)


MUTANTS = (
    Mutant("the session is not compared", "one.session_id ~= e.session_id or one.ended_ms", "one.ended_ms"),
    Mutant("an ended session lives on",
           "one.session_id ~= e.session_id or one.ended_ms", "one.session_id ~= e.session_id"),
    Mutant("anybody's session is ended", "e.session_id ~= '' and one.session_id ~= e.session_id", "false"),
    Mutant("every call is another session", "if one and one.boot_id == e.boot_id and", "if false and"),
    Mutant("another boot is the same session", "one.boot_id == e.boot_id and ", ""),
    Mutant("another pool is the same session", "one.pool == e.pool and not one.ended_ms", "not one.ended_ms"),
    Mutant("an ended session is gone on with", " and not one.ended_ms then\n    seen", " then\n    seen"),
    Mutant("the generation follows the clock alone", "math.max(int(one and one.generation) + 1, now)", "now"),
    Mutant("an end leaves the generation", "math.max(int(one.generation) + 1, now)", "int(one.generation)"),
    Mutant("left pools are forgotten", "one and left_pools(one, e.pool) or {}", "{}"),
    Mutant("nobody owes the pool of a new session",
           "  owe(now + TOLD_BY_ITSELF_MS, agent, e.pool, generation, 'supersede', 0)\n"),
    Mutant("the interval ignores the fleet", "watched * 1000 / BEATS_A_S", "0"),
    Mutant("the interval ignores leases", "if shortest_lease_ms > 0 then", "if false then"),
    Mutant("the interval has no jitter", "(0.9 + 0.2 * jitter / 1048575)", "1"),
    Mutant("silence has no end",
           "if since + MISSED * int(one.heartbeat_ms) + OFFLINE_AFTER_MS > now then", "if true then"),
    Mutant("an outage gives no time", "int(meta.resumed_ms))", "0)"),
    Mutant("every pause is an outage", "local GAP_MS = 15000", "local GAP_MS = 5000"),
    Mutant("a clock set back goes unnoticed", "  safely(hear_now, agent)\n"),
    Mutant("who is OFFLINE owes nothing", "  owe(now, agent, one.pool, int(one.generation), 'lose', now)\n"),
    Mutant("who came back is OFFLINE still", "    call('HDEL', k_agent .. agent, 'offline_ms')\n"),
    Mutant("two processes tell the same at once", "  call('ZADD', k_owed, text_of(due), row)\n"),
    Mutant("what was told is told again",
           "  call('ZREM', k_owed, owed(e.agent, e.pool, e.generation, e.how, e.until_ms))\n"),
    Mutant("ended records stay", "text_of(now - ENDED_MS_MAX)", "'-1'"),
    Mutant("any number of ended records stays", "if #old == 0 and surplus > 0 then", "if false then"),
    Mutant("who came back is trimmed", "if one and (one.ended_ms or one.offline_ms) then", "if one then"),
    Mutant("the first reason to drain does not stand",
           "if e.draining == 1 and not one.draining then", "if e.draining == 1 then"),
    Mutant("contradictions are taken", "if low > high or wanted < low or wanted > high then", "if false then"),
    Mutant("recent runs of the gone still count", "  share(one, 0, 0)\n"),
    Mutant("a full fleet takes more", "call('ZCARD', k_agents) >= AGENTS_MAX", "false"),
)  # fmt: skip


def scenarios() -> Iterator[tuple[str, Callable[[FleetRig], None]]]:
    """The tests that need nothing but a rig."""
    for name, function in vars(test_scripts).items():
        if name.startswith("test_") and list(inspect.signature(function).parameters) == ["rig"]:
            yield name, function
    for case in ((2_000, 0, 0, 36_000), (1, 9_000, 0, 3_000)):
        yield f"test_the_interval {case}", _interval(case)
    yield "test_a_week", lambda rig: test_scripts.test_records_of_agents_that_ended_go_after_a_week(rig, 7, False)


def _interval(case: tuple[int, int, int, int]) -> Callable[[FleetRig], None]:
    check = test_scripts.test_the_interval_grows_with_the_fleet_and_never_beyond_a_third_of_a_lease
    return lambda rig: check(rig, *case)


def first_red(client: SyncRedis, namespace: str, load: Callable[[str], Script]) -> str | None:
    """The name of the first test that fails, and None when none does."""
    for number, (name, scenario) in enumerate(scenarios()):
        rig = FleetRig(client, f"{namespace}-{number}", load=load)
        try:
            scenario(rig)
            if "full_fleet" not in name:
                rig.check()
        except Exception:  # a test may fail in any way, by an answer that cannot be unpacked as well
            return name
    return None


@one_engine
def test_the_scripts_as_they_are_turn_nothing_red(client: SyncRedis, namespace: str) -> None:
    assert len(list(scenarios())) > 25
    assert first_red(client, namespace, scripts.load) is None


@one_engine
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.sentence)
def test_a_rule_that_is_taken_out_is_missed(mutant: Mutant, client: SyncRedis, namespace: str) -> None:
    changed = [name for name in verbs("fleet") if mutant.load(name).text != scripts.load(name).text]
    assert changed, f"no script has {mutant.old!r}"
    for name in changed:
        client.script_load(mutant.load(name).text)

    assert first_red(client, namespace, mutant.load) is not None
