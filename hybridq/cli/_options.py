"""What commands have in common: where the queue is, and how to print."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from ._output import Printer

if TYPE_CHECKING:
    from hybridq import Queue

__all__ = ["LEVELS", "Target", "at_server", "on_queue", "prints", "tags_of"]

Command = Callable[..., Any]
LEVELS = ("CRITICAL", "HIGH", "NORMAL", "LOW")


@dataclass(frozen=True, slots=True)
class Target:
    """The server and queue that a command is about; None leaves the choice to the library and its environment."""

    redis: str | None
    data_dir: Path | None
    namespace: str | None
    queue: str = "default"

    def open(self) -> Queue:
        """Return the queue. Raises `HybridqError`, also where it would be gone with this very command."""
        from hybridq import EmbeddedUnavailable, Queue

        queue = Queue(self.queue, redis=self.redis, namespace=self.namespace, data_dir=self.data_dir)
        if queue.connector.safe_url.startswith("memory:"):
            queue.close()
            raise EmbeddedUnavailable(
                "this machine has no server to keep jobs in",
                "pip install 'hybridq[server]', install redis-server, or give --redis URL",
            )
        return queue


def at_server(function: Command) -> Command:
    """Add the options that say which server; the command gets them as `target`."""
    return _targeted(function, with_queue=False)


def on_queue(function: Command) -> Command:
    """Add the options that say which queue of which server; the command gets them as `target`."""
    return _targeted(function, with_queue=True)


def _targeted(function: Command, *, with_queue: bool) -> Command:
    @functools.wraps(function)
    def command(
        *, redis: str | None, data_dir: Path | None, namespace: str | None, queue: str = "default", **rest: Any
    ) -> Any:
        if redis is not None and data_dir is not None:
            raise click.UsageError("--redis or --data-dir, not both")
        return function(target=Target(redis, data_dir, namespace, queue), **rest)

    options = [
        click.option("--redis", metavar="URL", help="Redis to use. [env: HYBRIDQ_REDIS_URL]"),
        click.option(
            "--data-dir",
            type=click.Path(file_okay=False, path_type=Path),
            help="Folder of a private server. [env: HYBRIDQ_DATA_DIR]",
        ),
        click.option("--namespace", metavar="NAME", help="Default: default. [env: HYBRIDQ_NAMESPACE]"),
    ]
    if with_queue:
        options.append(click.option("--queue", "-q", metavar="NAME", default="default", help="Default: default."))
    return _stacked(command, options)


def prints(function: Command) -> Command:
    """Add `--json` and `--debug`; the command gets a `Printer` as `out`, and its errors are reported by it."""

    @functools.wraps(function)
    def command(*, json: bool, debug: bool, **rest: Any) -> Any:
        out = Printer(json=json, debug=debug)
        with out.reporting():
            return function(out=out, **rest)

    return _stacked(
        command,
        [
            click.option("--json", is_flag=True, help="Print one JSON document; errors too, on stderr."),
            click.option("--debug", is_flag=True, help="Show where an error comes from."),
        ],
    )


def _stacked(command: Command, options: Sequence[Callable[[Any], Any]]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def tags_of(_context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Callback of `--tag`: turn `key=value` words into a mapping."""
    pairs = [value.partition("=") for value in values]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise click.BadParameter("a tag is written key=value", param=parameter)
    return {key: value for key, _, value in pairs}
