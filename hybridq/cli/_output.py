"""How commands print: one JSON document, a table for people, tab-separated lines for pipes, errors on stderr.

Texts that come from jobs are shown with their control characters made visible: a job must not steer a terminal.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import rich_click as click
from click.exceptions import Exit

__all__ = ["Printer", "code_of", "visible"]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
BAR_FROM = 1000
"""Work on at least so many jobs shows a progress bar, on a terminal."""


def visible(value: object) -> str:
    """Return a value as text with control characters (escape sequences, direction marks) written out."""
    text = "-" if value is None else str(value)
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def code_of(problem: BaseException) -> str:
    """Return an error's stable code: the HTTP API's own, else its class name in snake case, such as `job_not_found`."""
    code = getattr(problem, "code", None)
    if isinstance(code, str):
        return code
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(problem).__name__).lower()


class Printer:
    """What a command prints through. `json`: documents instead of text. `debug`: tracebacks with errors."""

    def __init__(self, *, json: bool, debug: bool) -> None:
        self.json, self.debug = json, debug

    @property
    def for_people(self) -> bool:
        """Whether somebody looks at it: text on a terminal."""
        return not self.json and sys.stdout.isatty()

    def document(self, value: Any) -> None:
        """Print one JSON document, indented on a terminal."""
        import msgspec

        raw = msgspec.json.encode(value)
        click.echo((msgspec.json.format(raw, indent=2) if sys.stdout.isatty() else raw).decode())

    def line_of_json(self, value: Any) -> None:
        """Print one of several JSON documents, each on a line of its own, as it comes."""
        import msgspec

        sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
        sys.stdout.flush()

    def line(self, text: str) -> None:
        """Print a line of text."""
        click.echo(visible(text))

    def note(self, text: str, *, style: str = "") -> None:
        """Say something aside, on stderr, that is no part of the answer; nothing with `--json`. `style`: a colour."""
        if not self.json:
            said = visible(text)
            # Colours are left out where nobody looks, too.
            click.echo(click.style(said, fg=style) if style and "NO_COLOR" not in os.environ else said, err=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table: ruled on a terminal, else a line of names and lines of values, separated by tabs."""
        if not self.for_people:
            for row in (columns, *rows):
                click.echo("\t".join(re.sub(r"[\t\n]", " ", visible(cell)) for cell in row))
            return
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
        for name in columns:
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*(Text(visible(cell), style=_STYLES.get(str(cell), "")) for cell in row))
        Console().print(table)

    @contextlib.contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar on stderr while much is done at a terminal; yields what to call with each number done."""
        if self.json or total < BAR_FROM or not sys.stderr.isatty():
            yield lambda done: None
            return
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=total)
            yield lambda done: bar.advance(task, done)

    @contextlib.contextmanager
    def reporting(self) -> Iterator[None]:
        """Turn an error of the library or of Redis into a line on stderr and an exit code."""
        from hybridq.errors import HybridqError, UsageError

        self._log_to_stderr()
        try:
            yield
        except UsageError as problem:
            self._problem(problem)
            raise Exit(2) from None
        except HybridqError as problem:
            self._problem(problem)
            raise Exit(1) from None
        except Exception as problem:
            if isinstance(problem, (click.ClickException, click.Abort, Exit, BrokenPipeError)):
                raise
            self._problem(problem, f"{type(problem).__name__}: {problem}")
            raise Exit(1) from None

    def _log_to_stderr(self) -> None:
        """The library logs through structlog, which left alone would write into our answer on stdout."""
        import structlog

        def to_stderr(*_: object) -> structlog.PrintLogger:
            return structlog.PrintLogger(sys.stderr)

        if self.json:
            structlog.configure(
                processors=[
                    structlog.contextvars.merge_contextvars,
                    structlog.processors.add_log_level,
                    structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
                    structlog.processors.JSONRenderer(),
                ],
                logger_factory=to_stderr,
            )
        else:
            structlog.configure(logger_factory=to_stderr)

    def problem_document(self, problem: BaseException, message: str = "") -> dict[str, Any]:
        """Return an error as `{code, message, …}` with the attributes it carries."""
        carried = {name: _plain(value) for name, value in vars(problem).items() if not name.startswith("_")}
        return carried | {"code": code_of(problem), "message": message or str(problem)}

    def failure(self, code: str, message: str) -> None:
        """Say on stderr that the command failed."""
        self._fail({"code": code, "message": message})

    def usage(self, wrong: click.ClickException) -> None:
        """Say on stderr how the command is used."""
        if self.json:
            self._fail({"code": "usage", "message": wrong.format_message()})
        else:
            wrong.show()

    def _problem(self, problem: BaseException, message: str = "") -> None:
        if self.debug:
            click.echo("".join(traceback.format_exception(problem)), err=True, nl=False)
        self._fail(self.problem_document(problem, message))

    def _fail(self, error: dict[str, Any]) -> None:
        if self.json:
            import msgspec

            click.echo(msgspec.json.encode({"error": error}).decode(), err=True)
        else:
            click.echo(f"hybridq: {visible(error['message'])}", err=True)


def _plain(value: object) -> Any:
    """Return what an error carries as JSON can hold it."""
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


_STYLES = {
    "COMPLETED": "green",
    "RUNNING": "cyan",
    "CLAIMED": "cyan",
    "FAILED": "red",
    "DEAD_LETTERED": "red",
    "CANCELLED": "yellow",
    "CRITICAL": "bold",
    "ok": "green",
    "warn": "yellow",
    "refuse": "bold red",
}
