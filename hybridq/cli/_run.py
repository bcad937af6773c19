"""`enqueue --run`: commands become the payload that `hybridq agent` runs, and the place they run in."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import rich_click as click

from ._checkout import Tree, find_tree
from ._options import Target
from ._output import Printer

__all__ = ["TYPE", "payload_of", "settings_of"]

TYPE: Final = "run"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def settings_of(_context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Callback of `--env` and `--secret`: turn `NAME=value` words into a mapping."""
    pairs = [value.partition("=") for value in values]
    for name, equals, _ in pairs:
        if not equals or _NAME.fullmatch(name) is None:
            raise click.BadParameter("is written NAME=value", param=parameter)
    return {name: value for name, _, value in pairs}


def payload_of(
    target: Target,
    out: Printer,
    commands: Sequence[str],
    *,
    env: Mapping[str, str],
    secrets: Mapping[str, str],
    place: str | None,
) -> dict[str, Any]:
    """Return the payload of a job that runs `commands` one after the other, the same way an agent's jobs are told.

    `place`: "git", the commit of the work tree one stands in, fetched afresh; "here", this very folder; None: git
    where there is a work tree, else this folder, or nothing where agents are elsewhere. What the choice leaves out is
    said on stderr.
    """
    folder = Path(os.path.realpath(os.curdir))
    local = _is_here(target)
    if place == "here" and not local:
        raise click.UsageError("--here is for an agent on this machine, and the server is elsewhere")
    tree = None if place == "here" else find_tree(folder)
    if place == "git" and tree is None:
        raise click.UsageError(f"{folder} is in no git work tree that has a commit")
    step: dict[str, Any] = {}
    payload: dict[str, Any] = {}
    if tree is not None:
        payload["git"] = tree.payload(str(tree.top) if local else tree.remote())
        if tree.prefix:
            step["working_directory"] = tree.prefix.rstrip("/")
        _say_what_is_left_out(out, tree, local)
    elif local:
        step["working_directory"] = str(folder)
        if place is None:
            out.note(f"no git commit here, so it runs in {folder} itself")
    else:
        out.note("no git commit here, so it starts in an empty folder")
    payload["steps"] = [{"name": _name_of(command), "run": command, **step} for command in commands]
    merged = dict(env) | {name: {"secret_ref": reference} for name, reference in secrets.items()}
    if merged:
        payload["env"] = merged
    return payload


def _say_what_is_left_out(out: Printer, tree: Tree, local: bool) -> None:
    if tree.changes:
        changes = "1 uncommitted change is" if tree.changes == 1 else f"{tree.changes} uncommitted changes are"
        way_out = "; --here runs the folder as it is" if local else ""
        out.note(f"{changes} not in it: it runs commit {tree.commit_sha[:10]}{way_out}")


def _name_of(command: str) -> str:
    """Return a step's name: the beginning of the command's first line."""
    line = next((line.strip() for line in command.splitlines() if line.strip()), "run")
    return line if len(line) <= 60 else f"{line[:59]}…"


def _is_here(target: Target) -> bool:
    """Whether the server is on this machine, so that its agents likely are, too."""
    url = target.over_http
    if url is None:
        url = target.redis or ("" if target.data_dir else os.environ.get("HYBRIDQ_REDIS_URL", ""))
    if not url or url.startswith("unix:"):
        return True
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or host.endswith(".localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
