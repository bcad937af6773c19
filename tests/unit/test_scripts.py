"""How the Lua files are read and composed, and how an error leads back to the line it comes from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import lupa.lua51
import pytest

from hybridq import scripts
from hybridq.errors import HybridqError, ScriptsMissing
from hybridq.scripts import Header, Parameter, Script, load, locate, verbs

LUA = Path(__file__).parents[2] / "lua"

HEADER = """\
--- What it does, in words.
---
--- COMMON   now_ms integer 0..10 | a note
---          lane name
--- EACH     job_id name
---          word red/green
---          text text 0..64 | 1 | 2
--- BATCH_MAX 7
--- USES     move run
--- NEEDS    seq paused
--- READS    tombs lanes
--- WRITES   spec: one field a record, deleted with it
--- MAY_WRITE unique: one field: a live job
--- MOVES    cancel:QUEUED>CANCELLED cancel:BLOCKED>CANCELLED
---          cancel:SCHEDULED>CANCELLED
--- RETURNS  CANCELLED | REQUESTED status
---          NOT_FOUND
--- FLAGS    allow-oom
--- COST     O(log n) a job; 5 calls
local function cancel(e)
--- READS    meta
"""


def test_a_header_is_read_whole() -> None:
    assert scripts._read_header(HEADER) == Header(
        common=[Parameter("now_ms", "integer 0..10"), Parameter("lane", "name")],
        each=[Parameter("job_id", "name"), Parameter("word", "red/green"), Parameter("text", "text 0..64")],
        batch_max=7,
        uses=["move", "run"],
        needs=["seq", "paused"],
        reads=["tombs", "lanes"],
        writes={"spec": "one field a record, deleted with it"},
        may_write={"unique": "one field: a live job"},
        moves=["cancel:QUEUED>CANCELLED", "cancel:BLOCKED>CANCELLED", "cancel:SCHEDULED>CANCELLED"],
        returns=["CANCELLED", "REQUESTED status", "NOT_FOUND"],
        flags="allow-oom",
        cost="O(log n) a job; 5 calls",
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "local x = 1\n--- READS    meta\n",
        "-- READS    meta\n",
        "--- READS\n",
        "--- Words only.\n---          meta\n",
    ],
)
def test_what_is_no_header_says_nothing(text: str) -> None:
    assert scripts._read_header(text) == Header()


@pytest.mark.parametrize(
    ("kind", "expression"),
    [
        ("name", "name_of(x, 'it')"),
        ("integer 1..100", "integer_of(x, 'it', 1, 100)"),
        ("text 0..64", "text_of(x, 'it', 0, 64)"),
        ("a/b", "word_of(x, 'it', it_words)"),
        ("integer 1..100 =7", "x == '' and 7 or integer_of(x, 'it', 1, 100)"),
        ("name =any", "x == '' and 'any' or name_of(x, 'it')"),
    ],
)
def test_each_type_has_its_check(kind: str, expression: str) -> None:
    assert expression == Parameter("it", kind).lua("x")


def test_the_words_of_a_type_are_a_table_of_the_whole_call() -> None:
    assert Parameter("it", "a/b =a").words == "{['a'] = true, ['b'] = true}"
    assert Parameter("it", "integer 0..1").words is None


# -- composition -----------------------------------------------------------------------------------------


def folder_of(tmp_path: Path, **uses: str) -> Path:
    """A folder of Lua files: name of the part → the parts it uses; the part `verb` is the verb."""
    (tmp_path / "lib").mkdir()
    for name, others in uses.items():
        path = tmp_path / "verb.lua" if name == "verb" else tmp_path / "lib" / f"{name}.lua"
        path.write_text(f"--- {name}\n--- USES     {others}\nlocal {name} = 1\n" if others else f"local {name} = 1\n")
    return tmp_path


def test_what_is_used_comes_before_what_uses_it_and_once(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, verb="left right", left="base", right="base left", base="")

    assert scripts._parts_of(folder, "verb") == ["lib/base.lua", "lib/left.lua", "lib/right.lua", "verb.lua"]


def test_functions_that_nobody_calls_are_left_out() -> None:
    """Also those that only they call; each line keeps the place it came from."""
    lines = ["local a = 1", "local function used()", "  return inner()", "end", "local function inner()", "  return a",
             "end", "local function idle()", "  return other()", "end", "local function other()", "end",
             "return used()"]  # fmt: skip
    kept, origins = scripts._without_unused(lines, [str(number) for number in range(len(lines))])

    assert kept == lines[:7] + lines[12:]
    assert origins == [*(str(number) for number in range(7)), "12"]


def test_a_circle_is_refused_with_the_way_around_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, verb="one", one="two", two="one")

    with pytest.raises(ValueError, match=r"lib/one\.lua uses itself by way of verb\.lua lib/one\.lua lib/two\.lua"):
        scripts._parts_of(folder, "verb")


def test_a_part_that_is_missing_is_missed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.lua"):
        scripts._parts_of(folder_of(tmp_path, verb="nowhere"), "verb")


@pytest.mark.parametrize(
    "header", [Header(reads=["jobs"]), Header(writes={"jobs": ""}), Header(may_write={"jobs": ""})]
)
def test_a_key_family_that_is_unknown_is_refused(header: Header) -> None:
    with pytest.raises(ValueError, match="'jobs'"):
        scripts._families("claim", [Header(), header])


def test_the_verbs_are_the_files_of_the_folder() -> None:
    assert verbs() == tuple(sorted(path.stem for path in LUA.glob("*.lua")))
    assert locate() == LUA


def test_a_script_that_is_not_there_is_missed() -> None:
    with pytest.raises(FileNotFoundError):
        load("explode")


def test_missing_scripts_are_an_error_that_says_where_they_were_sought(tmp_path: Path) -> None:
    error = ScriptsMissing([tmp_path / "a", tmp_path / "b"])

    assert isinstance(error, HybridqError)
    assert str(tmp_path / "a") in str(error) and str(tmp_path / "b") in str(error)


# -- composed scripts ------------------------------------------------------------------------------------

every_verb = pytest.mark.parametrize("verb", verbs())


@every_verb
def test_a_script_is_composed_once_and_known_by_its_hash(verb: str) -> None:
    script = load(verb)

    assert script is load(verb)
    assert script.sha == hashlib.sha1(script.text.encode()).hexdigest()
    assert script.name == verb


@every_verb
def test_a_script_begins_with_its_shebang(verb: str) -> None:
    first = load(verb).text.split("\n", 1)[0]

    assert first == f"#!lua flags={load(verb).header.flags}" if load(verb).header.flags else first == "#!lua"


@every_verb
def test_without_its_shebang_a_script_keeps_its_lines(verb: str) -> None:
    script = load(verb)
    bare = script.without_shebang()

    assert bare.text == f"--{script.text}"
    assert bare.sha == hashlib.sha1(bare.text.encode()).hexdigest() != script.sha
    assert (bare.lines, bare.header, bare.families) == (script.lines, script.header, script.families)


@every_verb
def test_every_line_leads_back_to_its_source(verb: str) -> None:
    script = load(verb)
    composed = script.text.splitlines()
    assert len(composed) == len(script.lines)

    for text, origin in zip(composed, script.lines, strict=True):
        path, _, number = origin.partition(":")
        if number:
            assert text == (LUA.parent / path).read_text(encoding="utf-8").splitlines()[int(number) - 1]
        else:
            assert origin == f"lua/{verb}.lua (generated)"


@every_verb
def test_comments_and_empty_lines_are_left_out(verb: str) -> None:
    lines = load(verb).text.splitlines()

    assert not [line for line in lines if not line.strip() or line.lstrip().startswith("--")]


@every_verb
def test_a_script_is_lua(verb: str) -> None:
    compiled, problem = _compile(load(verb).without_shebang().text)

    assert compiled, problem


def _compile(text: str) -> tuple[bool, str]:
    load_string = lupa.lua51.LuaRuntime(unpack_returned_tuples=True).eval("loadstring")
    result = load_string(text)
    return (False, str(result[1])) if isinstance(result, tuple) else (True, "")


def test_the_compiler_of_these_tests_does_refuse() -> None:
    assert _compile("local x = = 1") != (True, "")


# -- errors ----------------------------------------------------------------------------------------------

SAMPLE = Script("claim", "", "", Header(), ("lua/claim.lua (generated)", "lua/lib/open.lua:4", "lua/claim.lua:9"), ())


@pytest.mark.parametrize(
    ("message", "place"),
    [
        ("ERR user_script:3: attempt to index a nil value script: f_ab, on @user_script:3.", "lua/claim.lua:9"),
        ("WRONGTYPE Operation against a key … script: on @user_script:2.", "lua/lib/open.lua:4"),
        ("user_script:1: in the generated lines", "lua/claim.lua (generated)"),
        ('Error running script: [string "<python>"]:3: attempt to call', "lua/claim.lua:9"),
        ("user_script:0: before the first line", "lua/claim.lua"),
        ("user_script:4: after the last line", "lua/claim.lua"),
        ("ERR something without a line", "lua/claim.lua"),
        ("", "lua/claim.lua"),
    ],
)
def test_a_message_of_redis_leads_to_the_source_line(message: str, place: str) -> None:
    assert SAMPLE.source_of(message) == place
