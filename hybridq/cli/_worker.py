"""`worker`: run the tasks of a Python module."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import rich_click as click

from ._options import Target, at_server, prints
from ._output import Printer

if TYPE_CHECKING:
    from hybridq import Worker

__all__ = ["worker"]


@click.command()
@click.argument("module", metavar="MODULE[:WORKER]")
@at_server
@prints
def worker(*, target: Target, out: Printer, module: str) -> None:
    """Run the workers that a Python MODULE defines until SIGTERM or Ctrl-C, then drain.

    The module is imported with the current directory on its path; :WORKER names one of its workers. Options of the
    server go to queues that name none of their own. With --json the log is one JSON object a line.
    """
    _into_environment(target)
    from hybridq.worker import run_workers

    name, _, attribute = module.partition(":")
    workers = _find(_import(name), attribute)
    tasks = sorted({task for one in workers for task in one.tasks})
    out.note(f"{len(workers)} worker(s) for {', '.join(tasks) or 'no task'}; Ctrl-C drains, twice stops at once")
    run_workers(workers)


def _into_environment(target: Target) -> None:
    """Queues that the module makes look there for what they are not told."""
    if target.redis is not None:
        os.environ["HYBRIDQ_REDIS_URL"] = target.redis
    if target.data_dir is not None:
        os.environ.pop("HYBRIDQ_REDIS_URL", None)
        os.environ["HYBRIDQ_DATA_DIR"] = str(target.data_dir)
    if target.namespace is not None:
        os.environ["HYBRIDQ_NAMESPACE"] = target.namespace


def _import(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is None or not f"{name}.".startswith(f"{missing.name}."):
            raise  # the module is there, and what it imports is not
        raise click.BadParameter(f"no module {missing.name!r} here or installed", param_hint="MODULE") from None


def _find(module: ModuleType, attribute: str) -> list[Worker]:
    from hybridq import Worker
    from hybridq.worker import find_workers

    if not attribute:
        found = find_workers(module)
        if not found:
            raise click.BadParameter(f"{module.__name__} defines no Worker at its top level", param_hint="MODULE")
        return found
    value = getattr(module, attribute, None)
    if not isinstance(value, Worker):
        raise click.BadParameter(f"{module.__name__}.{attribute} is no Worker", param_hint="MODULE")
    return [value]
