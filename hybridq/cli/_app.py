"""The group of all commands, and what becomes of errors that no command met: usage, interruption, a closed pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import rich_click as click
from click.exceptions import Exit

from .. import __version__
from . import (
    _agent,
    _bench,
    _dead,
    _demo,
    _enqueue,
    _fleet,
    _jobs,
    _keys,
    _logs,
    _queue,
    _serve,
    _server,
    _steer,
    _trust,
    _unit,
    _worker,
)
from ._output import Printer

__all__ = ["hybridq", "run"]

INTERRUPTED = 130
CLOSED_PIPE = 141


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Every command takes --help. Server: --redis, HYBRIDQ_REDIS_URL, --data-dir or HYBRIDQ_DATA_DIR, "
    "else a private server in the user's data directory; for commands about jobs also --url or HYBRIDQ_URL.",
)
@click.version_option(__version__, message="hybridq %(version)s")
def hybridq() -> None:
    """A work queue for CI/CD fleets, on Redis.

    Exit codes: 0, 1 failed, 2 usage, 130 interrupted.
    """


for command in (
    *(_demo.demo, _serve.up, _serve.serve, _agent.agent, _unit.agent_unit, _worker.worker),
    *(_enqueue.enqueue, _jobs.jobs, _jobs.job, _logs.logs),
    *(_steer.cancel, _steer.retry, _steer.priority, _dead.dead),
    *(_queue.stats, _queue.pause, _queue.resume),
    *(_fleet.agents, _fleet.pools),
    *(_keys.keys, _keys.audit),
    *(_trust.keypair, _trust.sign, _trust.seal),
    *(_server.check, _server.doctor, _server.down),
    _bench.bench,
):
    hybridq.add_command(command)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    out = Printer(json="--json" in arguments, debug="--debug" in arguments)
    try:
        with hybridq.make_context("hybridq", list(arguments)) as context:
            hybridq.invoke(context)
        sys.stdout.flush()
    except Exit as end:
        return end.exit_code
    except click.ClickException as wrong:
        out.usage(wrong)
        return wrong.exit_code
    except (click.Abort, KeyboardInterrupt):
        out.failure("interrupted", "interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough. What is buffered has nowhere to go, so the flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    return 0
