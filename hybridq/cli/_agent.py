"""`agent`: run a pool's jobs on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.exceptions import Exit

from hybridq.agent.life.settings import PREFIX, Setting, fields

from ._options import prints
from ._output import Printer

if TYPE_CHECKING:
    from hybridq.agent._wire import Registered

__all__ = ["agent"]


def _told(command: Any) -> Any:
    """Add an option for every setting of an agent."""
    for _, setting in reversed(fields()):
        if not setting.env_only:
            command = _option(setting)(command)
    return command


def _option(setting: Setting) -> Any:
    says = f"{setting.doc.replace('`', '')} [env: {setting.env}]"
    if setting.reader.kind == "flag":
        return click.option(f"{setting.option}/--no-{setting.option[2:]}", setting.name, default=None, help=says)
    many = setting.reader.kind == "many"
    return click.option(setting.option, setting.name, metavar="VALUE", multiple=many, help=says)


@click.command()
@_told
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"TOML file of settings, below options and variables. [env: {PREFIX}CONFIG]",
)
@prints
def agent(*, out: Printer, config: Path | None, **told: Any) -> None:
    """Run the jobs of a pool on this machine until SIGTERM or Ctrl-C, then drain; a second one hands back at once.

    It registers at the server with a key (HYBRIDQ_AGENT_KEY, or --key-file) or an OIDC token; a restart goes on by a
    token of its own. With --json the log is one JSON object a line, and one object on standard output says when it is
    ready.
    """
    from hybridq.agent.life import Agent, AgentSettings
    from hybridq.agent.life.hidden import hide_process

    hide_process()
    settings = AgentSettings.load(told, config=config)
    # Jobs get none of the agent's variables, and neither does anything else that it starts.
    os.environ.pop(f"{PREFIX}KEY", None)
    code = Agent(settings, on_ready=lambda registered: _announce(out, registered)).run()
    if code:
        raise Exit(code)


def _announce(out: Printer, registered: Registered) -> None:
    if out.json:
        out.document({"agent_id": registered.agent_id, "pool": registered.pool, "session_id": registered.session_id})
    else:
        out.line(
            f"agent {registered.agent_id} works for pool {registered.pool}; Ctrl-C drains, twice hands back at once"
        )
    sys.stdout.flush()
