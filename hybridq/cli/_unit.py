"""`agent-unit`: the systemd unit of an agent, for this installation."""

from __future__ import annotations

import re
import sys
from importlib import resources
from pathlib import Path
from typing import Final

import rich_click as click

from ._options import prints
from ._output import Printer

__all__ = ["agent_unit"]

FILE: Final = "hybridq-agent.service"
COMMAND: Final = "/usr/local/bin/hybridq"
HIDDEN: Final = ("/home/", "/root/", "/run/user/")
"""What the unit's `ProtectHome` hides from the agent."""


def _word(_context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Callback of options: a word that means itself in a unit file."""
    if re.fullmatch(r"[A-Za-z0-9_@+:,./-]+", value) is None:
        raise click.BadParameter("letters, digits and _ @ + : , . / - only", param=parameter)
    return value


@click.command("agent-unit")
@click.option("--user", metavar="NAME", callback=_word, default="hybridq", help="Who it runs as. Default: hybridq.")
@click.option(
    "--config",
    metavar="FILE",
    callback=_word,
    default="/etc/hybridq/agent.toml",
    help="Default: /etc/hybridq/agent.toml.",
)
@click.option(
    "--key-file",
    metavar="FILE",
    callback=_word,
    default="/etc/hybridq/agent.key",
    help="Default: /etc/hybridq/agent.key.",
)
@prints
def agent_unit(*, out: Printer, user: str, config: str, key_file: str) -> None:
    """Print a systemd unit that runs `hybridq agent` of this installation; its first lines say how to install it."""
    command = _command()
    text = resources.files("hybridq.agent").joinpath("systemd", FILE).read_text(encoding="utf-8")
    for before, after in (
        (COMMAND, command),
        ("User=hybridq\n", f"User={user}\n"),
        ("/etc/hybridq/agent.toml", config),
        ("/etc/hybridq/agent.key", key_file),
    ):
        text = text.replace(before, after)
    if command.startswith(HIDDEN):
        out.note("this installation is in a home folder, which the unit hides from the agent: install it elsewhere")
    if out.json:
        out.document({"name": FILE, "unit": text})
    else:
        click.echo(text, nl=False)


def _command() -> str:
    """Return how this installation is called: its script, else its Python."""
    python = Path(sys.executable)
    script = python.with_name("hybridq")
    return str(script) if script.is_file() else f"{python} -m hybridq.cli"
