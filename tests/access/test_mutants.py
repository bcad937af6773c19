"""The tests of access can fail: each rule taken out of the scripts turns at least one of them red."""

# ruff: noqa: E501 - a rule stands here as its script has it
from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from hybridq import scripts
from hybridq.connect import SyncRedis
from hybridq.scripts import Script, verbs
from tests.access import (
    test_admit,
    test_agents,
    test_audit,
    test_keys,
    test_rate,
    test_registration,
    test_sessions,
    test_trust,
)
from tests.access.harness import AccessRig, Mutant, with_scripts
from tests.contract.conftest import one_engine

MUTANTS = (
    Mutant("any secret will do", test_admit, "if not place and record.hash ~= e.hash then", "if false then"),
    Mutant("revoked keys are valid", test_admit, "if record.revoked_ms then", "if false then"),
    Mutant("nothing expires", test_admit, "now >= tonumber(record.expires_ms)", "false"),
    Mutant("wrong secrets cost the key", test_admit, "verdict == 'VALID' and 'id-'", "e.kind ~= 'none' and 'id-'"),
    Mutant("classes share", test_admit, "k_rate .. e.rate_class ..", "k_rate .."),
    Mutant("every use is noted", test_admit, "local USED_STEP_MS = 60000", "local USED_STEP_MS = 0"),
    Mutant("no use is noted", test_admit, "if verdict == 'VALID' and use_is_news(e, record) then", "if false then"),
    Mutant("limiters stay", test_admit, ", 'PX', math.ceil((whole_us - now_us) / 1000)"),
    Mutant("refused calls cost too", test_rate, "if e.interval_us > 0 and not limited then", "if e.interval_us > 0 then"),
    Mutant("one more than the burst", test_rate, "after_us > now_us + room_us", "after_us > now_us + room_us + e.interval_us"),
    Mutant("a clock that went back locks out", test_rate, "math.min(math.max(tonumber(call('GET', key) or 0), now_us), now_us + room_us)", "math.max(tonumber(call('GET', key) or 0), now_us)"),
    Mutant("idle time is saved up", test_rate, "math.max(tonumber(call('GET', key) or 0), now_us)", "tonumber(call('GET', key) or now_us)"),
    Mutant("other content is the same", test_keys, "found.digest == e.digest and found.namespace == e.namespace", "true"),
    Mutant("keys of others are revoked", test_keys, "if found.namespace ~= e.namespace then", "if not found.hash then"),
    Mutant("revoked keys are forgotten at once", test_keys, "call('PEXPIRE', records .. e.id, KEPT_MS)", "call('DEL', records .. e.id)"),
    Mutant("revoked keys stay listed", test_keys, "    call('ZREM', index, e.id)\n", ""),
    Mutant("ended keys pile up", test_keys, "now - KEPT_MS)", "0)"),
    Mutant("no bound on keys", test_keys, "call('ZCARD', index) >= KEYS_MAX", "false"),
    Mutant("an end in the past", test_keys, "if expires > 0 and expires <= now then", "if false then"),
    Mutant("a page too many", test_keys, "#ids > e.limit and last or '0'", "last"),
    Mutant("uses are not counted", test_registration, "if left <= 0 then", "if false then"),
    Mutant("the same use costs again", test_registration, "if call('HEXISTS', uses, e.use) == 1 then", "if false then"),
    Mutant("spent by anybody", test_registration, "found.hash ~= e.hash", "not found.hash"),
    Mutant("spent after the end", test_registration, "now >= tonumber(found.expires_ms)", "false"),
    Mutant("uses stay", test_registration, "call('PEXPIRE', uses, text_of(tonumber(found.expires_ms) - now))", ""),
    Mutant("for years", test_registration, "expires > now + LIFE_MS_MAX", "false"),
    Mutant("families do not matter", test_agents, "if not family.current or family.revoked_ms then", "if false then"),
    Mutant("the previous token goes on and on", test_agents, "'previous_spent', '1', ", ""),
    Mutant("no previous token", test_agents, "return family.previous_spent == '1' and 'reused' or 'previous'", "return 'reused'"),
    Mutant("the replaced one is merely unknown", test_agents, "hash == family.replaced or ", ""),
    Mutant("older ones are merely unknown", test_agents, "string.find(family.spent or '', hash, 1, true)", "false"),
    Mutant("reuse is seen and nothing done", test_agents, "local function end_reused(id, family)\n", "local function end_reused()\nlocal id, family = 'x', {namespace = 'x', agent_id = 'x'}\n"),
    Mutant("reuse is not audited", test_agents, "  audit(family.namespace, 'agent:'", "  local _ = (family.namespace .. 'agent:'"),
    Mutant("reuse is only seen at rotation", test_agents, "  if place == 'reused' then\n    end_reused", "  if false then\n    end_reused"),
    Mutant("any agent renews", test_agents, "family.agent_id ~= e.agent_id or ", ""),
    Mutant("any boot renews", test_agents, " or family.boot_id ~= e.boot_id", ""),
    Mutant("older families go on", test_agents, "end_family(older_id, older, 'enrolled anew')", ""),
    Mutant("a repeat rotates again", test_agents, "family.current == e.next_hash", "false"),
    Mutant("a family does not live on", test_agents, "call('HSET', record, 'expires_ms', text_of(now + e.renewal_ms))", ""),
    Mutant("revoked families get tokens", test_agents, "  if family.revoked_ms then\n    return {'REVOKED'}\n  end\n", ""),
    Mutant("idle sessions go on", test_sessions, ">= idle and 'EXPIRED'", ">= idle * 1000 and 'EXPIRED'"),
    Mutant("calls do not keep a session", test_sessions, "local NOTED = {key = k_key, session = k_session}", "local NOTED = {key = k_key}"),
    Mutant("the session before the login goes on", test_sessions, "call('DEL', k_session .. e.old_id)", ""),
    Mutant("closed sessions go on", test_sessions, "call('DEL', k_session .. e.id)", ""),
    Mutant("no bound on sessions", test_sessions, "math.min(over, SESSIONS_MAX) - 1", "-1"),
    Mutant("a login is taken twice", test_sessions, "call('DEL', k_login .. e.state_hash)", ""),
    Mutant("a late login is taken", test_sessions, "now >= tonumber(found.expires_ms)", "false"),
    Mutant("any link will do", test_sessions, "found.hash ~= e.hash", "not found.hash"),
    Mutant("a link is taken twice", test_sessions, "call('DEL', k_link .. e.id)", ""),
    Mutant("logins pile up", test_sessions, "call('ZCARD', k_logins) >= LOGINS_MAX", "false"),
    Mutant("rules do not matter", test_trust, "return rule_is_there and 'VALID' or 'REVOKED'", "return 'VALID'"),
    Mutant("tokens without a rule", test_trust, "call('HEXISTS', k_rules .. e.namespace, e.rule) == 0", "false"),
    Mutant("a moved rule is found twice", test_trust, "call('HDEL', k_rules_of .. old, field)", ""),
    Mutant("a deleted rule is found", test_trust, "call('HDEL', k_rules_of .. string", "local _ = (k_rules_of .. string"),
    Mutant("no bound on rules", test_trust, "not stored and call('HLEN', rules) >= RULES_MAX", "false"),
    Mutant("a token is bound anew", test_trust, "found.agent_id ~= e.agent_id or found.boot_id ~= e.boot_id", "false"),
    Mutant("any token is bound", test_trust, "if not found.rule then", "if not found.hash then"),
    Mutant("a value counts twice", test_trust, "mark == e.mark and 'FIRST' or 'SEEN'", "'FIRST'"),
    Mutant("our own repeat is a second time", test_trust, "mark == e.mark and 'FIRST' or 'SEEN'", "'SEEN'"),
    Mutant("values are remembered forever", test_trust, "call('SET', key, e.mark, 'PX', e.ttl_ms)", "call('SET', key, e.mark)"),
    Mutant("pages of the audit overlap", test_audit, "'(' .. e.before", "e.before"),
)  # fmt: skip


def scenarios(guard: ModuleType) -> Iterator[tuple[str, Callable[[AccessRig], None]]]:
    """The tests of a module that need a rig and no more than one row of values."""
    for name, function in vars(guard).items():
        if not name.startswith("test_"):
            continue
        tables = [mark.args for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
        tables = [(names, rows) for names, rows in tables if names != "engine"]
        names, rows = tables[0] if len(tables) == 1 else ((), [()])
        columns = names.split(",") if isinstance(names, str) else list(names)
        if list(inspect.signature(function).parameters) == ["rig", *columns]:
            for row in rows:
                values = dict(zip(columns, row if len(columns) != 1 else [row], strict=True))
                yield name, functools.partial(function, **values)


def first_red(client: SyncRedis, namespace: str, guard: ModuleType) -> str | None:
    """The name of the first test of a module that fails, and None when none does."""
    for number, (name, scenario) in enumerate(scenarios(guard)):
        try:
            scenario(AccessRig(client, f"{namespace}-{number}"))
        except (Exception, pytest.fail.Exception):  # in any way, by an answer that cannot be unpacked as well
            return name
    return None


@one_engine
@pytest.mark.parametrize("guard", sorted({mutant.guard.__name__ for mutant in MUTANTS}))
def test_the_scripts_as_they_are_turn_nothing_red(guard: str, client: SyncRedis, namespace: str) -> None:
    [module] = {mutant.guard for mutant in MUTANTS if mutant.guard.__name__ == guard}

    assert len(list(scenarios(module))) >= 3
    assert first_red(client, namespace, module) is None


@one_engine
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.sentence)
def test_a_rule_that_is_taken_out_is_missed(
    mutant: Mutant, client: SyncRedis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = [name for name in verbs("auth") if mutant.load(name).text != scripts.load(name).text]
    assert changed, f"no script has {mutant.old!r}"
    mutants: dict[str, Script] = {name: mutant.load(name) for name in verbs("auth")}
    with_scripts(monkeypatch, mutants.__getitem__)

    assert first_red(client, namespace, mutant.guard) is not None
