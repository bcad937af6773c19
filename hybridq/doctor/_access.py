"""Checks on what the URL's user may do: a command denied in the middle of a script tears its writes.

`redis.acl_check_cmd` judges a command for the very user who runs the script; unlike `ACL DRYRUN` it needs no
administrator's rights. The commands are those found in the Lua sources, so a new one cannot be forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from redis.exceptions import NoPermissionError

from .. import keys, scripts
from ._facts import Facts
from ._findings import Finding, ok, refuse

__all__ = ["check_access", "commands_of_scripts", "grant"]

_CALL: Final = re.compile(r"\bcall\(\s*'([A-Z]+)'")
_PROBE: Final = """#!lua flags=no-writes
local denied = {}
for i = 1, #ARGV do
  if not redis.acl_check_cmd(unpack(cjson.decode(ARGV[i]))) then
    denied[#denied + 1] = i
  end
end
return denied
"""
_KEYLESS: Final = frozenset({"TIME"})


def commands_of_scripts() -> tuple[str, ...]:
    """Return every command that the Lua sources call, sorted."""
    found: set[str] = set()
    for path in scripts.locate().rglob("*.lua"):
        found |= set(_CALL.findall(path.read_text(encoding="utf-8")))
    return tuple(sorted(found))


def check_access(facts: Facts, *, namespace: str, queue: str) -> Iterator[Finding]:
    """Ask the server whether its user may do all that a queue does: run scripts, and all that these do."""
    root = keys.queue_root(namespace, queue)
    wanted = dict(_wanted(root))
    client = facts.client
    try:
        sha = client.script_load(_PROBE)
        answers = client.evalsha(sha, 0, *map(msgspec.json.encode, wanted.values()))
    except NoPermissionError as exc:
        yield refuse("access", f"scripts cannot be run: {exc}", f"ACL SETUSER <user> {grant()}")
        return
    names = list(wanted)
    denied = [names[int(index) - 1] for index in answers]
    if denied:
        yield refuse(
            "access",
            f"denied to this user: {', '.join(denied)}; a script that meets it stops half way",
            f"ACL SETUSER <user> {grant()}",
        )
    else:
        count = len(commands_of_scripts())
        yield ok("access", f"the {count} commands of the scripts, their keys and the bell are granted")


def grant() -> str:
    """Return the ACL rules that allow a user all that a queue needs, and nothing else."""
    own = " ".join(f"+{command.lower()}" for command in commands_of_scripts())
    plain = "+evalsha +script|load +subscribe +unsubscribe +xread +xinfo|stream"
    return f"resetkeys ~hq:* resetchannels &hq:* -@all {plain} {own}"


def _wanted(root: str) -> Iterable[tuple[str, list[str]]]:
    """Yield (how to name it in a finding, command and arguments) for all that a queue needs."""
    meta, bell = f"{root}:meta", keys.bell_channel(root)
    for command in commands_of_scripts():
        match command:
            case "PUBLISH":
                yield f"PUBLISH to {bell}", [command, bell, "-"]
            case "ZINTER":
                yield command, [command, "1", meta]
            case _ if command in _KEYLESS:
                yield command, [command]
            case _:
                yield command, [command, meta]
    for suffix, kind in keys.FAMILIES.values():
        if kind != "channel":
            key = f"{root}{suffix}x" if suffix.endswith(":") else f"{root}{suffix}"
            # EXISTS reads and DEL writes; scripts call both, so their rights are needed anyway.
            yield f"reading {root}{suffix}", ["EXISTS", key]
            yield f"writing {root}{suffix}", ["DEL", key]
    yield "XREAD", ["XREAD", "STREAMS", f"{root}:events", "0"]
    yield "XINFO STREAM", ["XINFO", "STREAM", f"{root}:events"]
    yield "SCRIPT LOAD", ["SCRIPT", "LOAD", "-"]
    yield "EVALSHA", ["EVALSHA", "-", "1", meta]
    yield f"SUBSCRIBE to {bell}", ["SUBSCRIBE", bell]
    yield "UNSUBSCRIBE", ["UNSUBSCRIBE", bell]
