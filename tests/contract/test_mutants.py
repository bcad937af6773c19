"""The contract tests can fail: each rule taken out of the scripts turns at least one of them, or the checker, red."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType

import pytest

from hybridq import scripts
from hybridq.connect import SyncRedis
from hybridq.scripts import Script, verbs
from tests.contract import (
    test_cancel,
    test_claim,
    test_claim_again,
    test_complete,
    test_complete_again,
    test_enlist,
    test_enqueue,
    test_grace,
    test_heartbeat,
    test_logs,
    test_pause,
    test_promote,
    test_purge,
    test_reap,
    test_release,
    test_replay,
    test_reprioritise,
    test_retention,
    test_rings,
    test_start,
)
from tests.contract.conftest import one_engine
from tests.contract.harness import Rig

Scenario = Callable[[Rig], None]


@dataclass(frozen=True)
class Mutant:
    """A rule taken out of the scripts: `old` stands in the composed text of at least one, `new` takes its place."""

    sentence: str
    guard: ModuleType
    """The tests that have to notice."""
    old: str
    new: str = ""

    def load(self, name: str) -> Script:
        """Return a script without the rule."""
        script = scripts.load(name)
        text = script.text.replace(self.old, self.new)
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        return replace(script, text=text, sha=sha)


MUTANTS = (
    # -- who may act
    Mutant("the fence is not compared", test_heartbeat, "tonumber(job.fence) ~= e.fence or ", ""),
    Mutant("the lease id is not compared", test_heartbeat, " or job.lease_id ~= e.lease_id", ""),
    Mutant("the holder is not compared", test_heartbeat, "if not holds(e.agent, job.agent) then", "if false then"),
    Mutant("who gave an answer is not compared", test_complete_again, "elseif not holds(e.agent, agent) then",
           "elseif false then"),
    Mutant("fence and lease id are not compared", test_complete_again,
           " or tonumber(job.fence) ~= e.fence or job.lease_id ~= e.lease_id then", " then"),
    # -- one place for each job
    Mutant("a claimed job stays in line", test_claim, "    call('ZREM', k_ready .. job.lane, id)\n"),
    Mutant("an ended lease stays in the held set", test_release, "    call('ZREM', k_held .. job.agent, id)\n"),
    Mutant("an ended lease stays in the leased set", test_release, "    call('ZREM', k_leased, id)\n"),
    Mutant("a promoted job stays scheduled", test_promote, "    call('ZREM', k_scheduled .. job.priority, id)\n"),
    Mutant("a replayed job stays dead", test_replay, "    call('ZREM', k_dead, id)\n"),
    Mutant("an ended job is in no index", test_complete,
           "    call('ZADD', to == 'DEAD_LETTERED' and k_dead or k_finished, now_text, id)\n"),
    Mutant("a move is not written to the record", test_claim,
           "  fields[#fields + 1] = to\n  call('HSET', k_job .. id, unpack(fields))\nend\n",
           "  fields[#fields + 1] = to\nend\n"),
    Mutant("a heartbeat renews one set of two", test_heartbeat, "  call('ZADD', k_leased, deadline, e.job_id)\n"),
    # -- counters, events, rings
    Mutant("ended jobs are not counted", test_complete, "    count(string.lower(to), 1)\n"),
    Mutant("running jobs are not counted down", test_complete, "      count('running', -1)\n"),
    Mutant("pruned records are not counted", test_retention, "  count('pruned', #ids)\n"),
    Mutant("what becomes claimable does not ring", test_rings, "    ring(job.lane, 1)\n  elseif", "  elseif"),
    Mutant("events are not written", test_start, "  for first = 1, #happened, 32 do", "  for first = 1, 0 do"),
    # -- fences and order
    Mutant("the fence follows the clock alone", test_claim, "math.max(meta.fence + 1, now * 2048)", "now * 2048"),
    Mutant("the fence is a counter alone", test_claim, "math.max(meta.fence + 1, now * 2048)", "meta.fence + 1"),
    Mutant("a released job loses its place", test_release, "    if not job.order then\n", "    if true then\n"),
    Mutant("a retried job keeps its place", test_complete, "  if retried then\n    job.order = nil\n  end\n"),
    Mutant("priorities are ignored", test_claim, "BAND[job.priority] * 17592186044416 + job.order", "job.order"),
    Mutant("a new priority keeps its old order", test_reprioritise, "    local order = next_order()\n",
           "    local order = job.order\n"),
    Mutant("jobs are promoted before they are due", test_promote,
           "k_scheduled .. priority, '-inf', now_text", "k_scheduled .. priority, '-inf', '+inf'"),
    # -- attempts
    Mutant("a start charges nothing", test_start, "local attempt = text_of(int(job.attempt) + 1)",
           "local attempt = text_of(int(job.attempt))"),
    Mutant("an unconfirmed lease is charged", test_reap, "job.status == 'RUNNING' and job.confirmed",
           "job.status == 'RUNNING'"),
    Mutant("a released attempt is not given back", test_release, "(job.status == 'RUNNING' and 1 or 0)", "0"),
    Mutant("a lost run costs no attempt", test_reap, "  if not started then\n", "  if true then\n"),
    Mutant("un-started leases have no bound", test_reap, "if unstarted >= UNSTARTED_MAX then", "if false then"),
    Mutant("infrastructure failures are always free", test_complete, " and int(job.infra) < INFRA_FREE", ""),
    Mutant("attempts have no bound", test_complete, "elseif spent < int(job.max_attempts or 3) then",
           "elseif true then"),
    # -- cancel requests
    Mutant("a failure forgets the cancel request", test_cancel, "elseif job.cancel_ms or outcome", "elseif outcome"),
    Mutant("a lost lease forgets the cancel request", test_complete_again,
           "    to, at_ms, reason = 'CANCELLED', nil, nil\n"),
    Mutant("a release forgets the cancel request", test_release, "    to = 'CANCELLED'\n"),
    Mutant("a start forgets the cancel request", test_start,
           "  if job.cancel_ms then\n    move('start'", "  if false then\n    move('start'"),
    Mutant("a kill is taken back", test_cancel, "job.cancel_mode ~= 'kill' or e.mode == 'kill'", "true"),
    # -- idempotence
    Mutant("a job is taken in twice", test_enqueue, "  if status then\n    return {digest",
           "  if false then\n    return {digest"),
    Mutant("other content is the same job", test_enqueue, "{digest == e.digest and", "{true and"),
    Mutant("the same request claims anew", test_claim_again, "and again(e) or {}", "and {} or {}"),
    Mutant("late notes are piled up", test_complete_again, "== '}]' then", "== '' then"),
    Mutant("nothing is left of a trimmed record", test_retention, "      bury(oldest)\n"),
    Mutant("tombstones stay for ever", test_retention, "  trim_tombs()\n"),
    # -- unique keys
    Mutant("a unique key is never free again", test_replay, "      call('HDEL', k_unique, job.unique)\n"),
    Mutant("a replay does not take its unique key", test_replay, "    call('HSET', k_unique, job.unique, id)\n"),
    Mutant("a unique key is given twice", test_enqueue, "  if e.unique ~= '' then\n    local holder",
           "  if false then\n    local holder"),
    # -- time
    Mutant("an outage gives no grace", test_grace, "      if spared then\n", "      if false then\n"),
    Mutant("grace has no end", test_grace, " and recent, gap_at + lease_ms", ", gap_at + lease_ms"),
    Mutant("deadlines far ahead are left alone", test_grace, "  for i = 1, #ahead do\n", "  for i = 1, 0 do\n"),
    Mutant("leases never run out", test_reap, "  for i = 1, #expired, 2 do\n", "  for i = 1, 0, 2 do\n"),
    # -- who is served
    Mutant("a paused queue hands out jobs", test_pause, "if meta.paused ~= '1' then\n  share_out",
           "if true then\n  share_out"),
    Mutant("who gave a job back gets it again at once", test_claim_again, "job.avoid == e.agent", "false"),
    Mutant("nobody looks past a job that is left for another", test_claim_again, "if #ids == want and not further then",
           "if false then"),
    Mutant("capacity is not looked at", test_claim_again, "and room_of(e.agent) > 0", ""),
    Mutant("drain is not looked at", test_claim_again, "agent[2] == '1'", "false"),
    Mutant("old sessions are served", test_claim_again, "tonumber(agent[1] or 0) ~= e.generation", "false"),
    Mutant("older lanes are served", test_claim, "lanes_version ~= 0 and", "false and"),
    Mutant("a purge takes any job", test_purge, "job.status ~= 'DEAD_LETTERED'", "false"),
    Mutant("a full queue takes more", test_enqueue, "  return room < 0\n", "  return false\n"),
    # -- logs
    Mutant("a late holder writes on", test_logs, "tonumber(job.fence) ~= e.fence or job.lease_id ~= e.lease_id",
           "false"),
    Mutant("a repeat is stored twice", test_logs, "string.sub(e.data, known - e.offset + 1)", "e.data"),
    Mutant("gaps are let through", test_logs, "if e.offset > known then", "if false then"),
    Mutant("a repeat in a redacted piece is guessed", test_logs, "and e.sent ~= #e.data then", "and false then"),
    Mutant("offsets count what is stored", test_logs, "local ends = e.offset + e.sent",
           "local ends = e.offset + #e.data"),
    Mutant("a lease goes on where the last one was", test_logs,
           "tonumber(job.log_fence) == e.fence and int(job.log_sent) or 0", "int(job.log_sent)"),
    Mutant("a piece confirms nothing", test_logs, "  if not job.confirmed then\n    set('confirmed', '1')",
           "  if false then\n    set('confirmed', '1')"),
    Mutant("attempts run into each other", test_logs, "(size > 0 or job.log_base)", "false"),
    Mutant("a line of ours begins inside another", test_logs, "return last == '' or last == '\\n'", "return true"),
    Mutant("a log has no bound", test_logs, "math.min(left, left_of_all) then", "left_of_all then"),
    Mutant("a log ends inside a character", test_logs,
           "    if last == 0 or following < 128 or following > 191 then\n", "    if true then\n"),
    Mutant("a full log goes on", test_logs, "    if not job.log_full then\n", "    if true then\n"),
    Mutant("logs of a queue have no bound", test_logs, "logs_bytes() + bytes <= logs_bytes_max()", "true"),
    Mutant("drops have no bound", test_logs, "local DROP_MAX = 100", "local DROP_MAX = 1000"),
    Mutant("a log is cut for others that go", test_logs, "    left_of_all = left\n"),
    Mutant("the youngest log goes first", test_logs, "call('ZRANGE', k_logs, 0, 0)", "call('ZRANGE', k_logs, -1, -1)"),
    Mutant("positions begin anew after a drop", test_logs, "    call('HINCRBY', k_job .. id, 'log_base', bytes)\n"),
    Mutant("a dropped log stays full", test_logs, "'log_fence', 'log_sent', 'log_full')", "'log_fence', 'log_sent')"),
    Mutant("a log outlives its record", test_logs, "      keys[#keys + 1] = k_log .. ids[i]\n"),
    Mutant("an erased log is still counted", test_logs, "  count_log_bytes(-bytes)\n"),
    Mutant("ended jobs' logs are in no index", test_logs, "      call('ZADD', k_logs, now_text, id)\n"),
    Mutant("a job that lives again may lose its log", test_logs, "    call('ZREM', k_logs, id)\n  end\nend\n",
           "  end\nend\n"),
    Mutant("upkeep leaves too many logs", test_logs, "  trim_logs()\n"),
    # -- sessions of registered agents
    Mutant("an older session is taken", test_enlist, "if int(known[1]) > e.generation then", "if false then"),
    Mutant("leases of the new session are taken too", test_enlist, "int(job.session) < e.generation", "true"),
    Mutant("what was claimed later is taken too", test_enlist, "return in_time and", "return"),
    Mutant("a claim forgets its session", test_enlist, "    set('session', text_of(e.generation))\n"),
    Mutant("an ended lease keeps its session", test_enlist, "'request', 'session', 'claimed_ms'",
           "'request', 'claimed_ms'"),
    Mutant("claims of an agent are not called", test_rings, "    call('PUBLISH', k_bell, 'agent ' .. e.agent)\n"),
    Mutant("what a superseded session began costs nothing", test_enlist,
           "(e.free == 'supersede' and begun)", "false"),
    Mutant("what nobody confirmed is charged", test_enlist, "job.status == 'RUNNING' and job.confirmed\n  if e.free",
           "job.status == 'RUNNING'\n  if e.free"),
    Mutant("what was begun in no session is charged", test_enlist, "local begun = job.session and ", "local begun = "),
    Mutant("frees have no bound", test_enlist, "      if left == 0 then\n", "      if false then\n"),
    Mutant("an agent that left may claim", test_enlist, "'capacity', e.capacity,", "'capacity', 9,"),
    Mutant("gone agents are kept for ever", test_enlist, "text_of(now - GONE_MS)", "'-1'"),
    Mutant("runs are not counted with the agent", test_enlist, "  if figures then\n", "  if false then\n"),
    Mutant("cancelled runs count as failed", test_enlist, "if job.session and to ~= 'CANCELLED' then",
           "if job.session then"),
    Mutant("all runs are remembered", test_enlist, ", -RECENT)", ", 1)"),
)  # fmt: skip


def scenarios(guard: ModuleType) -> Iterator[tuple[str, Scenario]]:
    """The tests of a module that need nothing but a rig."""
    for name, function in vars(guard).items():
        if name.startswith("test_") and list(inspect.signature(function).parameters) == ["rig"]:
            yield name, function


@pytest.fixture
def rig_with(client: SyncRedis, namespace: str) -> Callable[..., Rig]:
    """Makes rigs whose scripts come from elsewhere."""
    return functools.partial(Rig, client, namespace)


def first_red(make: Callable[..., Rig], load: Callable[[str], Script], guard: ModuleType) -> str | None:
    """The name of the first test of a module that fails, and None when none does."""
    for number, (name, scenario) in enumerate(scenarios(guard)):
        rig = make(queue=f"q{number}", load=load)
        rig.run("create")
        try:
            scenario(rig)
            rig.check()
        except Exception:  # a test may fail in any way, by an answer that cannot be unpacked as well
            return name
    return None


@one_engine
@pytest.mark.parametrize("guard", sorted({mutant.guard.__name__ for mutant in MUTANTS}))
def test_the_scripts_as_they_are_turn_nothing_red(guard: str, rig_with: Callable[..., Rig]) -> None:
    [module] = {mutant.guard for mutant in MUTANTS if mutant.guard.__name__ == guard}

    assert len(list(scenarios(module))) >= 3
    assert first_red(rig_with, scripts.load, module) is None


@one_engine
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.sentence)
def test_a_rule_that_is_taken_out_is_missed(mutant: Mutant, rig_with: Callable[..., Rig]) -> None:
    changed = [name for name in verbs() if mutant.load(name).text != scripts.load(name).text]
    assert changed, f"no script has {mutant.old!r}"
    client = rig_with().client
    for name in changed:
        client.script_load(mutant.load(name).text)

    assert first_red(rig_with, mutant.load, mutant.guard) is not None
