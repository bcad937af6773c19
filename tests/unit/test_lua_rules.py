"""Rules that every Lua file keeps: declared keys, bounded loops and reads, no command that grows with the queue."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridq.keys import families_of
from hybridq.scripts import _parts_of, _read_header, load, locate, verbs

CHECKOUT = Path(__file__).parents[2]
LUA = locate()
FILES = sorted(str(path.relative_to(LUA)) for path in LUA.rglob("*.lua"))
WRITES = {
    "APPEND", "DEL", "EXPIRE", "HDEL", "HINCRBY", "HSET", "LTRIM", "PEXPIRE", "PUBLISH", "RPUSH", "SET", "XADD", "ZADD",
    "ZREM", "ZREMRANGEBYRANK",
}  # fmt: skip
READS = {
    "EXISTS", "GET", "GETRANGE", "HEXISTS", "HGET", "HGETALL", "HKEYS", "HLEN", "HMGET", "LRANGE", "PTTL", "STRLEN",
    "TIME", "TYPE", "XREVRANGE", "ZCARD", "ZCOUNT", "ZINTER", "ZMSCORE", "ZRANGE", "ZRANGEBYLEX", "ZRANGEBYSCORE",
    "ZREVRANGE", "ZREVRANGEBYSCORE", "ZREVRANK", "ZSCORE",
}  # fmt: skip
FOLDERS = ("", "auth", "catalogue", "fleet")
WHOLE = {
    "job", "meta", "stats", "latency", "agent", "pools",
    "agent_token", "key", "link", "login", "registration", "renewal", "rules", "rules_of", "session",
}  # fmt: skip
"""Families whose hashes have a fixed or small number of fields, and may be read whole."""

every_file = pytest.mark.parametrize("name", FILES)
every_verb = pytest.mark.parametrize("verb", [verb for folder in FOLDERS for verb in verbs(folder)])


def code_of(name: str) -> list[str]:
    """The lines of a file that are not comments."""
    lines = (LUA / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("--")]


def calls_of(name: str) -> Iterator[tuple[str, str]]:
    """Each Redis command of a file, and its arguments as written."""
    text = "\n".join(code_of(name))
    for found in re.finditer(r"\bp?call\('(\w+)'", text):
        depth, end = 1, found.end()
        for piece in re.finditer(r"'[^']*'|[()]", text[found.end() :]):
            depth += {"(": 1, ")": -1}.get(piece[0], 0)
            if not depth:
                end += piece.start()
                break
        yield found[1], " ".join(text[found.end() : end].lstrip(", ").split())


def families_in(name: str, arguments: str) -> set[str]:
    """The families that the key of a command may be of: named there, or by what the file calls so."""
    word = re.match(r"\w+", arguments)
    if word is None or word[0].startswith("k_"):
        return {word[0][2:]} if word else set()
    found = set()
    for names, said in re.findall(
        r"^ *(?:local )?(\w+(?:, \w+)*) = (\{[^}]*\}|.+)$", "\n".join(code_of(name)), re.MULTILINE
    ):
        values = said.split(", ") if "," in names else [said]
        for one, value in zip(names.split(", "), values, strict=False):
            found |= set(re.findall(r"\bk_(\w+)", value)) if one == word[0] else set()
    return found


# -- headers ---------------------------------------------------------------------------------------------


@every_file
def test_a_file_says_first_what_it_is_for(name: str) -> None:
    first = (LUA / name).read_text(encoding="utf-8").split("\n", 1)[0]

    assert re.match(r"--- [A-Z].{20,}", first)


@every_file
def test_every_family_that_is_written_has_a_bound(name: str) -> None:
    header = _read_header((LUA / name).read_text(encoding="utf-8"))

    assert {*header.reads, *header.writes, *header.may_write} <= families_of(name).keys()
    for family, bound in {**header.writes, **header.may_write}.items():
        assert len(bound) > 5, f"{family} has no bound"


@every_verb
def test_a_verb_says_what_it_takes_and_returns_and_costs(verb: str) -> None:
    header = load(verb).header

    assert header.common[0].name == "now_ms"
    assert header.returns
    assert "calls" in header.cost or "call" in header.cost
    assert 1 <= header.batch_max <= 100
    assert header.each or header.batch_max == 1
    for parameter in (*header.common, *header.each):
        assert re.fullmatch(r"(name|holder|(integer|text) \d+\.\.\d+|\w+(/\w+)+)( =\w+)?", parameter.kind), parameter


@every_verb
def test_every_key_a_script_uses_is_declared_and_what_it_declares_is_used(verb: str) -> None:
    script = load(verb)
    used = set(re.findall(r"\bk_(\w+)", "\n".join(line for part in _parts_of(LUA, verb) for line in code_of(part))))

    assert used <= set(script.families)
    assert set(script.families) - used <= {"meta"}


@every_file
def test_what_a_file_writes_is_declared_by_it_or_by_what_it_uses(name: str) -> None:
    headers = [_read_header((LUA / part).read_text(encoding="utf-8")) for part in _chain(name)]
    declared = {family for header in headers for family in (*header.writes, *header.may_write)}

    for command, arguments in calls_of(name):
        if command in WRITES:
            assert families_in(name, arguments) <= declared, f"{command} {arguments}"


def _chain(name: str) -> list[str]:
    """A file and all it uses."""
    root, inside, _ = name.rpartition("lib/")
    if inside:
        uses = _read_header((LUA / name).read_text(encoding="utf-8")).uses
        own = [f"{root}lib/{lib}.lua" for lib in uses]
        return [name, *(part for one in own for part in _chain(one if one in FILES else one.removeprefix(root)))]
    return _parts_of(LUA, name.removesuffix(".lua"))


@every_verb
def test_the_tags_in_the_header_are_those_the_script_returns(verb: str) -> None:
    text = load(verb).text
    declared = {tag.split()[0] for tag in load(verb).header.returns}
    of_all = {"NO_QUEUE", "SCHEMA", "IN_DOUBT"}

    assert declared <= set(re.findall(r"'([A-Z_]+)'", text))
    for reply in re.findall(r"(?:return|reply =|\] =) \{+(.+)", text):
        tags = re.match(r"(?:[^',]* )?'([A-Z_]+)'(?: or '([A-Z_]+)')?", reply)
        if tags:
            assert {tag for tag in tags.groups() if tag} <= declared | of_all, reply


# -- commands --------------------------------------------------------------------------------------------


@every_file
def test_only_known_commands_are_called(name: str) -> None:
    assert {command for command, _ in calls_of(name)} <= READS | WRITES


@every_file
def test_commands_are_called_in_one_way(name: str) -> None:
    """So that these rules see every one of them."""
    text = "\n".join(code_of(name))
    named = len(re.findall(r"\bp?call\(", text))

    assert len(list(calls_of(name))) == named - len(re.findall(r"(?<!redis\.)\bpcall\(\w", text))
    assert not re.search(r"\bcall\((?!')", text)


@every_file
def test_reads_of_what_grows_are_bounded(name: str) -> None:
    for command, arguments in calls_of(name):
        if command in ("ZRANGE", "ZREVRANGE", "LRANGE"):
            assert not re.search(r", -\d+(, 'WITHSCORES')?$", arguments), f"{command} {arguments}"
        elif command in ("ZRANGEBYLEX", "ZRANGEBYSCORE", "ZREVRANGEBYSCORE"):
            assert re.search(r"'LIMIT', 0, \w+$", arguments), f"{command} {arguments}"
        elif command == "HGETALL":
            families = families_in(name, arguments)
            assert families and families <= WHOLE, f"{command} {arguments}"
        elif command == "HKEYS":
            assert arguments == "k_lanes"
        elif command == "XADD":
            assert re.search(r"'MAXLEN', '~', (meta\.events_max|[A-Z]+_MAX)", arguments)
        elif command == "XREVRANGE":
            assert re.search(r"'COUNT', [\w.]+( \+ 1)?$", arguments), f"{command} {arguments}"


@every_file
def test_loops_are_bounded(name: str) -> None:
    for line in code_of(name):
        assert not re.search(r"\brepeat\b|\bwhile (true|1)\b|\bgoto\b", line), line
        loop = re.search(r"\bwhile (.+) do\b", line)
        assert not loop or re.search(r"\w+ < \w+", loop[1]), line


@every_verb
def test_the_clock_is_read_at_most_once(verb: str) -> None:
    assert load(verb).text.count("'TIME'") <= 1
    assert "os." not in re.sub(r"[\w.]+os\.", "", load(verb).text)
    assert "math.random" not in load(verb).text


@every_verb
def test_only_verbs_that_write_nothing_say_so(verb: str) -> None:
    commands = {command for part in _parts_of(LUA, verb) for command, _ in calls_of(part)}

    assert bool(commands & WRITES) == ("no-writes" not in load(verb).header.flags)


@pytest.mark.parametrize("script", [name for folder in FOLDERS for name in verbs(folder)])
def test_a_time_that_is_not_sent_is_the_server_s(script: str) -> None:
    """The library leaves it out: every script has to know what that means, also one that comes from another branch."""
    [now, *_] = load(script).header.common

    assert (now.name, now.default) == ("now_ms", "0")


def test_only_what_takes_something_new_in_is_refused_when_redis_is_full() -> None:
    refused = {verb for verb in verbs() if not load(verb).header.flags}

    assert refused == {"append_log", "create", "enqueue", "replay"}


# -- names -----------------------------------------------------------------------------------------------


@every_file
def test_no_argument_is_read_by_its_position(name: str) -> None:
    assert not re.search(r"\b(KEYS|ARGV)\b", "\n".join(code_of(name)))


@every_verb
def test_nothing_global_is_written(verb: str) -> None:
    """Redis would stop the script there; luacheck, where it is installed, looks closer."""
    text = load(verb).without_shebang().text
    known = set(re.findall(r"\blocal function (\w+)", text))
    for names in re.findall(r"\blocal ([\w, ]+?)(?: =|$)", text, re.MULTILINE):
        known |= set(re.split(r", *", names.strip()))
    for names in re.findall(r"\bfunction *\w*\(([\w, .]*)\)", text) + re.findall(r"\bfor ([\w, ]+?) (?:in|=)", text):
        known |= set(re.split(r", *", names.strip()))

    depth = 0
    for line in text.splitlines():
        names = re.match(r" *([A-Za-z_]\w*(?:, *[A-Za-z_]\w*)*) = ", line)
        if names and not depth:
            assert set(re.split(r", *", names[1])) <= known, line
        assert not line.startswith("function "), line
        outside_strings = re.sub(r"'[^']*'", "", line)
        depth += outside_strings.count("{") - outside_strings.count("}")
    assert depth == 0


@pytest.mark.skipif(shutil.which("luacheck") is None, reason="luacheck is not installed")
def test_luacheck_finds_nothing() -> None:
    command = [sys.executable, str(CHECKOUT / ".ci" / "luacheck.py")]
    here = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=here)

    assert found.returncode == 0, found.stdout + found.stderr
    assert "clean" in found.stdout
