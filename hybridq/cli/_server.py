"""`check`, `doctor`, `down`: the truth of the records, the fitness of the server, the end of a private one."""

from __future__ import annotations

import os
from pathlib import Path

import rich_click as click
from click.exceptions import Exit

from ._options import Target, at_server, on_queue, prints
from ._output import Printer

__all__ = ["check", "doctor", "down"]


@click.command()
@click.option("--queue", "-q", "only", metavar="NAME", help="Only this queue; default: all of the namespace.")
@at_server
@prints
def check(*, target: Target, out: Printer, only: str | None) -> None:
    """Check that the records of a namespace keep every invariant; exit 1 when one is broken."""
    import msgspec

    from hybridq.check import fleet, keyspace

    with target.open() as queue:
        client = queue.connector.sync()
        try:
            report = keyspace(client, queue.namespace, only)
            if only is None:
                agents = fleet(client, queue.namespace)
                report = msgspec.structs.replace(report, violations=(*report.violations, *agents.violations))
        finally:
            client.close()
    if out.json:
        violations = [{"rule": one.rule, **msgspec.structs.asdict(one)} for one in report.violations]
        out.document({"ok": report.ok, **msgspec.structs.asdict(report), "violations": violations})
    elif report.ok:
        out.line(f"every invariant holds: {report.jobs} job(s) in {len(report.queues)} queue(s)")
    else:
        out.table(
            ("INVARIANT", "RULE", "QUEUE", "JOB", "FOUND"),
            [(one.invariant, one.rule, one.queue, one.job_id, one.message) for one in report.violations],
        )
        if report.dropped:
            out.note(f"and {report.dropped} more")
    if not report.ok:
        raise Exit(1)


@click.command()
@click.option("--production", is_flag=True, help="Refuse what is only risky elsewhere.")
@on_queue
@prints
def doctor(*, target: Target, out: Printer, production: bool) -> None:
    """Tell whether this Redis is fit for a queue; exit 1 when it is not."""
    from hybridq.doctor import examine

    with target.open() as queue:
        report = examine(
            queue.connector,
            namespace=queue.namespace if target.namespace or "HYBRIDQ_NAMESPACE" in os.environ else None,
            queue=queue.name,
            production=production,
        )
    if out.json:
        out.document({"url": report.url, "level": report.level, "findings": report.findings})
    else:
        with_node = any(finding.node for finding in report.findings)
        columns = (("NODE",) if with_node else ()) + ("CHECK", "LEVEL", "FOUND", "ADVICE")
        out.table(
            columns,
            [
                ((one.node,) if with_node else ()) + (one.check, one.level.value, one.message, one.advice)
                for one in report.findings
            ],
        )
        out.line(f"{report.url}: {'fit for a queue' if report.fit else 'not fit for a queue'}")
    if not report.fit:
        raise Exit(1)


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the private server. [env: HYBRIDQ_DATA_DIR]",
)
@prints
def down(*, out: Printer, data_dir: Path | None) -> None:
    """Stop the private server of a data directory, whoever uses it; what is stored stays."""
    from hybridq.embedded import default_data_dir
    from hybridq.embedded import down as stop

    folder = data_dir or default_data_dir()
    stopped = stop(folder)
    if out.json:
        out.document({"data_dir": str(folder), "stopped": stopped})
    else:
        out.line(f"{folder}: {'stopped' if stopped else 'no server was running'}")
