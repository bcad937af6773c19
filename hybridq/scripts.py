"""Finds, reads, composes and hashes the Lua scripts, and leads their errors back to the file and line they come from.

A script is one file of `lua/`, or of a folder there for keys other than a queue's. Its header (lines that begin with
`---`) is its contract. This module alone knows how a header reads:

```
--- COMMON   name type [| note]      an argument of the whole call
--- EACH     name type [| note]      an argument of each entry; the block repeats for every entry
--- BATCH_MAX 100                    most entries a call
--- USES     lib …                   parts of lua/lib that come before the verb, with what they use
--- NEEDS    field …                 fields of the root's own record that it looks at; all are read in one call
--- READS    family …                key families of `hybridq.keys.families_of(script)`
--- WRITES   family: bound           the same, with what bounds the family; its type is checked before the first write
--- MAY_WRITE family: bound          written now and then, its type checked where that happens
--- MOVES    verb:FROM>TO …          moves of `hybridq.lifecycle.TRANSITIONS` the script makes
--- RETURNS  TAG field … | TAG …     what an entry is answered
--- FLAGS    allow-oom               of the script's first line (Redis ≥ 7)
--- COST     words                   Big-O, and the number of Redis calls a job
```

Types: `name`, `holder` (a name, a name and `@credential`, or `@credential` for any name of it), `integer LOW..HIGH`,
`text LOW..HIGH` (bytes), or the allowed words joined by `/`. `=value` behind a type is what an empty argument means:
most are left empty, and what is not there need not be checked.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Final

from .errors import ScriptsMissing
from .keys import families_of

__all__ = ["Header", "Parameter", "Script", "load", "locate", "verbs"]

_KEYWORD: Final = re.compile(
    r"--- (COMMON|EACH|BATCH_MAX|USES|NEEDS|READS|WRITES|MAY_WRITE|MOVES|RETURNS|FLAGS|COST) +(.*)"
)
_PRIORITIES: Final = ("CRITICAL", "HIGH", "NORMAL", "LOW")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of a script: its name, and its type as the header says it."""

    name: str
    kind: str

    @property
    def default(self) -> str | None:
        """Return what an empty argument means, as it is written in the header."""
        _, equals, value = self.kind.partition(" =")
        return value if equals else None

    def lua(self, value: str) -> str:
        """Return the Lua expression that checks and converts the argument `value`."""
        if self.default is not None:
            literal = self.default if self.kind.startswith("integer") else f"'{self.default}'"
            return f"{value} == '' and {literal} or {self._check(value)}"
        return self._check(value)

    def _check(self, value: str) -> str:
        kind, _, rest = self.kind.partition(" =")[0].partition(" ")
        if kind in ("name", "holder"):
            return f"{kind}_of({value}, '{self.name}')"
        if kind in ("integer", "text"):
            low, _, high = rest.partition("..")
            return f"{kind}_of({value}, '{self.name}', {low}, {high})"
        return f"word_of({value}, '{self.name}', {self.name}_words)"

    @property
    def words(self) -> str | None:
        """Return the Lua table of the words that are allowed; None when it is of another type."""
        kind = self.kind.partition(" =")[0]
        if kind.partition(" ")[0] in ("name", "holder", "integer", "text"):
            return None
        return "{" + ", ".join(f"['{word}'] = true" for word in kind.split("/")) + "}"


@dataclass(slots=True)
class Header:
    """What a Lua file says of itself."""

    common: list[Parameter] = field(default_factory=list)
    each: list[Parameter] = field(default_factory=list)
    batch_max: int = 1
    uses: list[str] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    writes: dict[str, str] = field(default_factory=dict)
    may_write: dict[str, str] = field(default_factory=dict)
    moves: list[str] = field(default_factory=list)
    returns: list[str] = field(default_factory=list)
    flags: str = ""
    cost: str = ""


@dataclass(frozen=True, slots=True)
class Script:
    """A composed script: its text, the SHA-1 Redis knows it by, its header, and where each line comes from."""

    name: str
    text: str
    sha: str
    header: Header
    lines: tuple[str, ...]
    families: tuple[str, ...]

    def source_of(self, message: str) -> str:
        """Return the place in the Lua sources that a Redis error message speaks of, such as `lua/claim.lua:23`."""
        found = re.search(r"user_script:(\d+)", message) or re.search(r'string "<?\w+>?"\]:(\d+)', message)
        number = int(found[1]) if found else 0
        return self.lines[number - 1] if 0 < number <= len(self.lines) else f"lua/{self.name}.lua"

    def without_shebang(self) -> Script:
        """Return the same script for servers that do not know `#!lua`; the line stays, so numbers still lead back."""
        text = f"--{self.text.partition(chr(10))[0]}\n{self.text.partition(chr(10))[2]}"
        return Script(self.name, text, _sha(text), self.header, self.lines, self.families)


def locate() -> Path:
    """Return the folder of the Lua sources: the packaged copy, else the sibling folder of a checkout.

    Raises `ScriptsMissing` when neither is there. An editable install has no packaged copy beside the library, so
    the live files of the checkout win there.
    """
    package = Path(str(files("hybridq")))
    candidates = (package / "_lua", package.parent / "lua")
    for folder in candidates:
        if (folder / "lib" / "open.lua").is_file():
            return folder
    raise ScriptsMissing(candidates)


@functools.cache
def verbs(folder: str = "") -> tuple[str, ...]:
    """Return the names of all scripts of a queue, sorted; `folder` names those of another root, as `fleet/register`."""
    prefix = f"{folder}/" if folder else ""
    return tuple(sorted(prefix + path.stem for path in (locate() / folder).glob("*.lua")))


@functools.cache
def load(name: str) -> Script:
    """Return the composed script `name`; the same object every time."""
    folder = locate()
    parts = _parts_of(folder, name)
    headers = [_read_header((folder / part).read_text(encoding="utf-8")) for part in parts]
    own = headers[-1]
    families = _families(name, headers)
    lines = _preamble(own, headers, families_of(name), families)
    origins = [f"lua/{name}.lua (generated)"] * len(lines)
    for part in parts:
        for number, line in enumerate((folder / part).read_text(encoding="utf-8").splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("--"):
                lines.append(line)
                origins.append(f"lua/{part}:{number}")
    lines, origins = _without_unused(lines, origins)
    text = "\n".join(lines) + "\n"
    return Script(name, text, _sha(text), own, tuple(origins), families)


def _without_unused(lines: Sequence[str], origins: Sequence[str]) -> tuple[list[str], list[str]]:
    """Leave out the functions of parts that a verb never calls: a script makes all its functions anew at each call."""
    blocks: list[tuple[str | None, list[int]]] = []
    inside = False
    for number, line in enumerate(lines):
        begun = re.match(r"local function (\w+)", line)
        if begun or not inside:
            blocks.append((begun[1] if begun else None, []))
        blocks[-1][1].append(number)
        inside = (begun is not None or inside) and line != "end"
    words = [set(re.findall(r"\w+", "\n".join(lines[number] for number in numbers))) for _, numbers in blocks]
    kept = {place for place, (name, _) in enumerate(blocks) if name is None}
    while True:
        called = set().union(*(words[place] for place in kept))
        more = {place for place, (name, _) in enumerate(blocks) if name in called} - kept
        if not more:
            break
        kept |= more
    numbers = [number for place in sorted(kept) for number in blocks[place][1]]
    return [lines[number] for number in numbers], [origins[number] for number in numbers]


def _sha(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _parts_of(folder: Path, name: str) -> list[str]:
    """Return the files a verb is made of, what is used before what uses it, the verb last."""
    done: list[str] = []
    root = "".join(name.rpartition("/")[:2])

    def visit(part: str, trail: tuple[str, ...]) -> None:
        if part in trail:
            raise ValueError(f"lua/{part} uses itself by way of {' '.join(trail)}")
        if part not in done:
            header = _read_header((folder / part).read_text(encoding="utf-8"))
            for lib in header.uses:
                own = f"{root}lib/{lib}.lua"
                visit(own if (folder / own).is_file() else f"lib/{lib}.lua", (*trail, part))
            done.append(part)

    visit(f"{name}.lua", ())
    return done


def _read_header(text: str) -> Header:
    header = Header()
    keyword = ""
    for line in text.splitlines():
        if not line.startswith("---"):
            break
        found = _KEYWORD.match(line)
        if found:
            keyword, rest = found[1], found[2]
        elif line.startswith("---     ") and keyword:
            rest = line[3:].strip()
        else:
            keyword = ""
            continue
        _take(header, keyword, rest.strip())
    return header


def _take(header: Header, keyword: str, rest: str) -> None:
    match keyword:
        case "COMMON" | "EACH":
            name, _, kind = rest.partition("|")[0].strip().partition(" ")
            (header.common if keyword == "COMMON" else header.each).append(Parameter(name, kind.strip()))
        case "BATCH_MAX":
            header.batch_max = int(rest)
        case "USES":
            header.uses += rest.split()
        case "NEEDS":
            header.needs += rest.split()
        case "READS":
            header.reads += rest.split()
        case "WRITES" | "MAY_WRITE":
            family, _, bound = rest.partition(":")
            (header.writes if keyword == "WRITES" else header.may_write)[family] = bound.strip()
        case "MOVES":
            header.moves += rest.split()
        case "RETURNS":
            header.returns += [tag.strip() for tag in rest.split("|")]
        case "FLAGS":
            header.flags = rest
        case "COST":
            header.cost = rest


def _families(script: str, headers: list[Header]) -> tuple[str, ...]:
    used = {name for header in headers for name in (*header.reads, *header.writes, *header.may_write)} | {"meta"}
    unknown = used - families_of(script).keys()
    if unknown:
        raise ValueError(f"key families {sorted(unknown)} of script {script} are not in hybridq.keys")
    return tuple(sorted(used))


_CHECKS: Final = {
    "integer_of": """local function integer_of(value, name, low, high)
  local number = string.find(value, '^%d+$') and #value <= 16 and tonumber(value)
  if not number or number < low or number > high then
    bad = bad or string.format('%s: must be an integer from %.0f to %.0f', name, low, high)
    return low
  end
  return number
end""",
    "name_of": """local function name_of(value, name)
  if #value > 64 or not string.find(value, '^%w[%w._-]*$') then
    bad = bad or name .. ': must be 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit'
  end
  return value
end""",
    "holder_of": """local last_holder
local function holder_of(value, name)
  if value == last_holder then
    return value
  end
  last_holder = value
  local whole, id = string.match(value, '^(.-)@(%w+)$')
  whole = whole or value
  if #whole > 64 or not (string.find(whole, '^%w[%w._-]*$') or whole == '' and id) or #(id or '') > 32 then
    bad = bad or name .. ': must be a name of 1 to 64 of A-Z a-z 0-9 . _ -, or one with @ and a credential id'
  end
  return value
end""",
    "text_of": """local function text_of(value, name, low, high)
  if #value < low or #value > high then
    bad = bad or string.format('%s: must have %.0f to %.0f bytes', name, low, high)
  end
  return value
end""",
    "word_of": """local function word_of(value, name, words)
  if not words[value] then
    bad = bad or name .. ': not one of the words allowed'
  end
  return value
end""",
}


def _preamble(
    own: Header, headers: list[Header], known: Mapping[str, tuple[str, str]], used: Sequence[str]
) -> list[str]:
    """Return the generated lines: shebang, keys, tables for the parts, and the arguments checked and named."""
    parameters = [*own.common, *own.each]
    lines = [f"#!lua flags={own.flags}" if own.flags else "#!lua", "local root = string.sub(KEYS[1], 1, -6)"]
    lines += [f"local k_{name} = root .. '{known[name][0]}'" for name in used]
    written = {name for header in headers for name in header.writes} - _untouched(headers)
    lines.append(f"local ZSETS = {{{', '.join(_zset_keys(written, known))}}}")
    others = [
        f"'{kind}', k_{name}"
        for name in sorted(written - {"meta"})
        for suffix, kind in [known[name]]
        if kind not in ("zset", "channel") and not suffix.endswith(":")
    ]
    lines.append(f"local OTHERS = {{{', '.join(others)}}}")
    needs = dict.fromkeys(field for header in headers for field in header.needs)
    if needs:
        lines.append(f"local NEEDS = {{{', '.join(map(repr, needs))}}}")
    moves = sorted({move for header in headers for move in header.moves})
    lines.append(f"local MOVES = {{{', '.join(f'[{move!r}] = true' for move in moves)}}}")
    if parameters:
        lines += _argument_lines(own, parameters)
    return "\n".join(lines).splitlines()


INDEX_OF: Final = {
    "QUEUED": "ready",
    "SCHEDULED": "scheduled",
    "BLOCKED": "blocked",
    "CLAIMED": "leased",
    "RUNNING": "leased",
    "DEAD_LETTERED": "dead",
    "COMPLETED": "finished",
    "FAILED": "finished",
    "CANCELLED": "finished",
    "EXPIRED": "finished",
}
"""status → the family that is its index."""


def _untouched(headers: list[Header]) -> set[str]:
    """Return the indexes that no move of a script leads from or to, although a part that it uses could write them."""
    moved = {
        INDEX_OF.get(status) for header in headers for move in header.moves for status in re.findall("[A-Z_]+", move)
    }
    return set(INDEX_OF.values()) - moved if any(header.moves for header in headers) else set()


def _zset_keys(written: set[str], known: Mapping[str, tuple[str, str]]) -> list[str]:
    keys = []
    for name in sorted(written):
        suffix, kind = known[name]
        if kind != "zset":
            continue
        if name == "ready":
            keys.append("k_ready .. 'any'")
        elif name == "scheduled":
            keys += [f"k_scheduled .. '{priority}'" for priority in _PRIORITIES]
        elif not suffix.endswith(":"):
            keys.append(f"k_{name}")
    return keys


def _argument_lines(own: Header, parameters: list[Parameter]) -> list[str]:
    first, width = len(own.common), len(own.each)
    expressions = "\n".join(parameter.lua("") for parameter in parameters)
    lines = ["local bad"]
    lines += [_scoped(check) for name, check in _CHECKS.items() if name in expressions]
    lines += [f"local {one.name}_words = {one.words}" for one in parameters if one.words]
    if width:
        lines.append(f"local batch = (#ARGV - {first}) / {width}")
        lines.append(f"if batch < 1 or batch > {own.batch_max} or batch % 1 ~= 0 then")
        wanted = f"{first} and then 1 to {own.batch_max} times {width} are needed"
        lines.append(f"  return redis.error_reply('HQ_ARG arguments: {wanted}, not ' .. #ARGV)")
    else:
        lines.append(f"if #ARGV ~= {first} then")
        lines.append(f"  return redis.error_reply('HQ_ARG arguments: {first} are needed, not ' .. #ARGV)")
    lines.append("end")
    lines += [
        f"local {parameter.name} = {_scoped(parameter.lua(f'ARGV[{n}]'))}" for n, parameter in enumerate(own.common, 1)
    ]
    if width:
        lines += ["local entries = {}", f"for at = {first}, #ARGV - 1, {width} do", "  entries[#entries + 1] = {"]
        lines += [
            f"    {parameter.name} = {_scoped(parameter.lua(f'ARGV[at + {n}]'))},"
            for n, parameter in enumerate(own.each, 1)
        ]
        lines += ["  }", "end"]
    lines += ["if bad then", "  return redis.error_reply('HQ_ARG ' .. bad)", "end"]
    return lines


def _scoped(text: str) -> str:
    """Give the generated checks names of their own, so that no part of lua/lib can shadow one."""
    return re.sub(r"\b(integer|name|holder|text|word)_of\(", r"arg_\1(", text)
