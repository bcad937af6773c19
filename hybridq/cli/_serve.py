"""`serve` and `up`: the HTTP side, in this process; with `up` there are agents beside it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import rich_click as click
from click.exceptions import Exit

from ._beside import load_beside
from ._options import Target, at_server, prints
from ._output import Printer

if TYPE_CHECKING:
    from ._local import LocalAgents

__all__ = ["load_api", "serve", "up"]

AGENTS_MAX: Final = 16


def _listens(command: Any) -> Any:
    """Add the options that say where the server listens and what runs it."""
    options = [
        click.option("--host", metavar="ADDRESS", help="Default: 127.0.0.1. [env: HYBRIDQ_HOST]"),
        click.option("--port", metavar="PORT", help="Default: 8000; 0 takes a free one. [env: HYBRIDQ_PORT]"),
        click.option(
            "--server",
            "engine",
            type=click.Choice(["uvicorn", "granian"]),
            default="uvicorn",
            help="What speaks HTTP. Default: uvicorn.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_listens
@click.option("--reload", is_flag=True, help="Start anew when a source file changes. For developing hybridq.")
@at_server
@prints
def serve(*, target: Target, out: Printer, host: str | None, port: str | None, engine: str, reload: bool) -> None:
    """Serve the HTTP API until SIGTERM or Ctrl-C, then finish what is under way; a second one cuts it off.

    Everything else is told by HYBRIDQ_* variables; in development a file .env here may hold them. With --json one
    object is printed when requests are answered.
    """
    if reload:
        _reload(sys.argv[1:])
    _serve(_told(target, host, port), out, engine)


@click.command()
@_listens
@click.option(
    "--agents",
    type=click.IntRange(0, AGENTS_MAX),
    default=1,
    metavar="N",
    help="Agents to start, which run the jobs of pool default. Default: 1.",
)
@click.option("--no-agent", is_flag=True, help="As --agents 0.")
@at_server
@prints
def up(
    *, target: Target, out: Printer, host: str | None, port: str | None, engine: str, agents: int, no_agent: bool
) -> None:
    """Bring up everything on this machine for development: a private server, the HTTP API, an admin's login, an agent.

    Then `hybridq enqueue --run 'make test'`, in another terminal, runs. Ctrl-C drains the agent and stops everything;
    what is stored stays. With --redis, or HYBRIDQ_REDIS_URL, that Redis is used. HYBRIDQ_AGENT_* is for the agent:
    what it takes is told by `hybridq agent --help`.
    """
    told = _told(target, host, port)
    if told.get("HYBRIDQ_ENVIRONMENT", "").strip().lower() == "production":
        raise click.UsageError("up is for development, and HYBRIDQ_ENVIRONMENT is production; use hybridq serve")
    servers = {name: value for name, value in told.items() if not _is_for_agents(name)}
    _serve(servers | {"HYBRIDQ_DEV": "1"}, out, engine, target=target, agents=0 if no_agent else agents)


def _is_for_agents(name: str) -> bool:
    return name.startswith("HYBRIDQ_AGENT_") and name != "HYBRIDQ_AGENT_TOKEN_SECONDS"


def _told(target: Target, host: str | None, port: str | None) -> dict[str, str]:
    """Return the environment with the options in it, which come first."""
    told = dict(os.environ)
    if target.data_dir is not None:
        told.pop("HYBRIDQ_REDIS_URL", None)
    options = {
        "HYBRIDQ_HOST": host,
        "HYBRIDQ_PORT": port,
        "HYBRIDQ_REDIS_URL": target.redis,
        "HYBRIDQ_DATA_DIR": None if target.data_dir is None else str(target.data_dir),
        "HYBRIDQ_NAMESPACE": target.namespace,
    }
    return told | {name: value for name, value in options.items() if value is not None}


def _serve(told: dict[str, str], out: Printer, engine: str, *, target: Target | None = None, agents: int = 0) -> None:
    """Serve; `target` is where `up` was told to have its queues."""
    settings_of = load_api("settings")
    environ = settings_of.environment_of(told, Path.cwd())
    if target is not None:
        # A line for each heartbeat and poll of our own agents would hide what somebody waits for.
        environ.setdefault("HYBRIDQ_LOG_LEVEL", "WARNING")
    settings = settings_of.Settings.from_environment(environ)
    server = load_api("server")

    def beside(listening: Any) -> LocalAgents:
        from ._local import LocalAgents

        return LocalAgents(listening.url, settings, os.environ, count=agents, json=out.json)

    code = server.run(
        settings,
        engine=engine,
        environ=told,
        announce=lambda listening: _announce(out, listening, target if agents else None),
        beside=beside if agents else None,
    )
    if code:
        raise Exit(code)


def _announce(out: Printer, listening: Any, target: Target | None) -> None:
    """Say that we are there; `target`: where a job for the agent goes to, None without an agent."""
    import msgspec

    if out.json:
        click.echo(msgspec.json.encode(listening).decode())
    else:
        out.line(f"hybridq is up: {listening.url} ({listening.environment}, {listening.redis})")
        if listening.login_url:
            out.line(f"  sign in as admin, once:  {listening.login_url}")
        if listening.key:
            out.line(f"  admin key, for a day:    {listening.key}")
        if listening.metrics_url:
            out.line(f"  metrics:                 {listening.metrics_url}")
        if target is not None:
            out.line(f"  in another terminal:     hybridq enqueue --run 'make test'{target.words()}")
        out.line("Ctrl-C stops it; twice, at once")
    sys.stdout.flush()


def _reload(arguments: Sequence[str]) -> None:
    """Run this command as a child, again with every change of a source file."""
    from watchfiles import PythonFilter, run_process

    command = [sys.executable, "-m", "hybridq.cli", *(one for one in arguments if one != "--reload")]
    folders = {Path(str(load_api("settings").__file__)).parent, Path(__file__).parents[1]}
    run_process(*sorted(folders), target=shlex.join(command), target_type="command", watch_filter=PythonFilter())
    raise Exit(0)


def load_api(module: str) -> ModuleType:
    """Return a module of the HTTP side. Raises `click.UsageError` when it, or what it needs, is not there."""
    return load_beside("api", module, called="the HTTP side", extra="server")
