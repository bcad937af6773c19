"""What commands have in common: where the queue is, and how to print."""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from ._output import Printer

if TYPE_CHECKING:
    from hybridq import Queue

    from ._remote import Remote

__all__ = ["LEVELS", "Target", "at_server", "on_jobs", "on_queue", "prints", "tags_of"]

Command = Callable[..., Any]
LEVELS = ("CRITICAL", "HIGH", "NORMAL", "LOW")
REDIS_VARIABLES = ("HYBRIDQ_REDIS_URL", "HYBRIDQ_DATA_DIR")


@dataclass(frozen=True, slots=True)
class Target:
    """The server and queue that a command is about; None leaves the choice to the library and its environment.

    `url` and what follows it are for the HTTP API, and only of commands that can be told so (`on_jobs`).
    """

    redis: str | None
    data_dir: Path | None
    namespace: str | None
    queue: str = "default"
    url: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    insecure: bool = False

    @property
    def names_redis(self) -> bool:
        """Whether an option or the environment says which Redis, or which data directory."""
        return self.redis is not None or self.data_dir is not None or any(map(os.environ.get, REDIS_VARIABLES))

    @property
    def over_http(self) -> str | None:
        """The URL of the HTTP API, where that is meant: options come first, then HYBRIDQ_URL."""
        if self.url is not None or self.redis is not None or self.data_dir is not None:
            return self.url
        return os.environ.get("HYBRIDQ_URL") or None

    def reach(self) -> Queue | Remote:
        """Return the queue, or the pool over HTTP, which has the same verbs. Raises `HybridqError`."""
        return self._open() if self.over_http is None else self._connect(self.over_http)

    def open(self) -> Queue:
        """Return the queue. Raises `HybridqError`, also where it would be gone with this very command."""
        if os.environ.get("HYBRIDQ_URL") and not self.names_redis:
            # Else it would answer from an empty private server, which is not what HYBRIDQ_URL speaks of.
            raise click.UsageError("this command speaks to Redis, not to HYBRIDQ_URL: give --redis or --data-dir")
        return self._open()

    def named(self, text: str) -> tuple[Target, str]:
        """Return what an ID names, `<pool>~<id>` or an id of this queue: the queue that it is of, and its id there."""
        pool, tilde, job_id = text.partition("~")
        return (replace(self, queue=pool), job_id) if tilde else (self, text)

    def words(self) -> str:
        """Return the options that name the same server and queue, to be shown in an advice; "" for the defaults."""
        named = {
            "--url": self.url,
            "--token-file": self.token_file,
            "--ca-file": self.ca_file,
            "--redis": None if self.redis is None else _without_password(self.redis),
            "--data-dir": self.data_dir,
            "--namespace": self.namespace,
            "--queue": None if self.queue == "default" else self.queue,
        }
        found = [f"{option} {shlex.quote(str(value))}" for option, value in named.items() if value is not None]
        return "".join(f" {one}" for one in (*found, *(["--insecure"] if self.insecure else [])))

    def _connect(self, url: str) -> Remote:
        from hybridq.agent import Client

        from ._remote import Remote

        if self.namespace is not None:
            raise click.UsageError("--namespace is for Redis; over HTTP the token decides the namespace")
        client = Client(url, token=self._token(), ca_file=self.ca_file, insecure=self.insecure)
        return Remote(client, self.queue)

    def _token(self) -> str:
        """Return the token, which is never an argument: those can be read by everybody on the machine."""
        path = self.token_file or os.environ.get("HYBRIDQ_TOKEN_FILE")
        if not path:
            token = os.environ.get("HYBRIDQ_TOKEN", "").strip()
            if not token:
                raise click.UsageError("the HTTP API needs a key: in HYBRIDQ_TOKEN, or in a file by --token-file")
            return token
        try:
            return Path(path).read_text(encoding="ascii").strip()
        except OSError as wrong:
            raise click.UsageError(f"{path}: {wrong.strerror}") from None
        except UnicodeDecodeError:
            raise click.UsageError(f"{path}: holds no token") from None

    def _open(self) -> Queue:
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


def on_jobs(function: Command) -> Command:
    """Add the options of `on_queue`, and those that reach the queue over HTTP instead (`Target.reach`)."""
    return _targeted(function, with_queue=True, with_url=True)


def _targeted(function: Command, *, with_queue: bool, with_url: bool = False) -> Command:
    @functools.wraps(function)
    def command(
        *,
        redis: str | None,
        data_dir: Path | None,
        namespace: str | None,
        queue: str = "default",
        url: str | None = None,
        token_file: Path | None = None,
        ca_file: Path | None = None,
        insecure: bool = False,
        **rest: Any,
    ) -> Any:
        if (redis is not None) + (data_dir is not None) + (url is not None) > 1:
            raise click.UsageError("--redis or --data-dir, not both" if url is None else "--url or a Redis, not both")
        target = Target(redis, data_dir, namespace, queue, url, token_file, ca_file, insecure)
        return function(target=target, **rest)

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
    if with_url:
        file = click.Path(exists=True, dir_okay=False, path_type=Path)
        options += [
            click.option("--url", metavar="URL", help="HTTP API to use instead of Redis. [env: HYBRIDQ_URL]"),
            click.option(
                "--token-file", type=file, help="File with its key. [env: HYBRIDQ_TOKEN_FILE, HYBRIDQ_TOKEN: the key]"
            ),
            click.option("--ca-file", type=file, help="Authorities to trust, PEM. Default: the system's."),
            click.option("--insecure", is_flag=True, help="Send the key over plain http to another machine."),
        ]
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


def _without_password(url: str) -> str:
    """Return a Redis URL as it may be shown; the password is left out, so it has to be filled in."""
    from hybridq.connect import Connector

    return Connector.parse(url).safe_url
