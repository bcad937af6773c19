"""`agents list`, `show`, `drain`, `undrain`; `pools list`, `show`, `scale`: who works, and what waits for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import rich_click as click

from ._options import Target, at_server, prints
from ._output import Printer
from ._views import ago, seconds, shown

if TYPE_CHECKING:
    from hybridq import AgentRecord, Fleet, PoolRecord

__all__ = ["agents", "pools"]

PAGE_MAX = 200
STATUSES = ("HEALTHY", "DEGRADED", "UNHEALTHY", "OFFLINE", "DRAINING", "TERMINATED")
AGENT_COLUMNS = ("AGENT", "POOL", "STATUS", "RUNNING", "COMPLETED", "FAILED", "LAST SEEN", "LABELS")
POOL_COLUMNS = ("POOL", "QUEUED", "OLDEST", "ACTIVE", "IDLE", "UNHEALTHY", "CAPACITY", "MIN", "TARGET", "MAX")


@contextlib.contextmanager
def _opened(target: Target) -> Iterator[Fleet]:
    from hybridq import Fleet

    with target.open() as queue, Fleet(redis=queue.connector, namespace=queue.namespace) as fleet:
        yield fleet


@click.group()
def agents() -> None:
    """List, show and drain agents."""


@agents.command("list")
@click.option("--pool", metavar="NAME")
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False))
@click.option(
    "--label", "labels", multiple=True, metavar="LABEL", help='"os=linux", "gpu" or "!spot". May be repeated.'
)
@click.option("--limit", type=click.IntRange(1, PAGE_MAX), default=50, help="Of one page. Default: 50.")
@click.option("--cursor", metavar="CURSOR", help="Go on where a page ended.")
@click.option("--all", "everything", is_flag=True, help="Every page, not only one.")
@at_server
@prints
def list_agents(
    *, target: Target, out: Printer, limit: int, cursor: str | None, everything: bool, **filters: Any
) -> None:
    """List agents by name."""
    items: list[AgentRecord] = []
    with _opened(target) as fleet:
        page = fleet.agents(limit=PAGE_MAX if everything else limit, cursor=cursor, **filters)
        items += page.items
        while everything and page.next_cursor is not None:
            page = fleet.agents(limit=PAGE_MAX, cursor=page.next_cursor, **filters)
            items += page.items
    if out.json:
        out.document({"items": items, "next_cursor": page.next_cursor})
        return
    out.table(AGENT_COLUMNS, [_agent_row(agent) for agent in items])
    if page.next_cursor is not None:
        out.note(f"more: --cursor {page.next_cursor}")


@agents.command()
@click.argument("agent_id", metavar="AGENT")
@at_server
@prints
def show(*, target: Target, out: Printer, agent_id: str) -> None:
    """Show an agent whole."""
    with _opened(target) as fleet:
        agent = fleet.agent(agent_id)
    _show_agent(out, agent)


@agents.command()
@click.argument("agent_ids", metavar="AGENT...", nargs=-1, required=True)
@click.option("--reason", metavar="TEXT")
@click.option("--by", metavar="NAME", help="Who says so.")
@at_server
@prints
def drain(*, target: Target, out: Printer, agent_ids: Sequence[str], reason: str | None, by: str | None) -> None:
    """Have agents finish what they hold and claim nothing more."""
    _steer(target, out, agent_ids, draining=True, reason=reason, by=by)


@agents.command()
@click.argument("agent_ids", metavar="AGENT...", nargs=-1, required=True)
@click.option("--by", metavar="NAME", help="Who says so.")
@at_server
@prints
def undrain(*, target: Target, out: Printer, agent_ids: Sequence[str], by: str | None) -> None:
    """Have drained agents claim again."""
    _steer(target, out, agent_ids, draining=False, by=by)


def _steer(target: Target, out: Printer, agent_ids: Sequence[str], **said: Any) -> None:
    with _opened(target) as fleet:
        steered = [fleet.steer(agent_id, **said) for agent_id in agent_ids]
    if out.json:
        out.document({"results": steered})
    else:
        for agent in steered:
            out.line(f"{agent.agent_id} {agent.status}" + (f" (holds {agent.running})" if agent.running else ""))


def _agent_row(agent: AgentRecord) -> tuple[object, ...]:
    done = (f"{agent.running}/{agent.capacity}", agent.jobs_completed, agent.jobs_failed)
    return (agent.agent_id, agent.pool, agent.status, *done, ago(agent.last_heartbeat_at), _labels(agent) or "-")


def _labels(agent: AgentRecord) -> str:
    return " ".join(f"{key}={value}" if value else key for key, value in agent.labels.items())


def _show_agent(out: Printer, agent: AgentRecord) -> None:
    if out.json:
        out.document(agent)
        return
    facts: list[tuple[str, object]] = [
        ("agent", agent.agent_id),
        ("pool", agent.pool),
        ("status", agent.status),
        ("draining because", agent.drain_reason),
        ("ended because", agent.end_reason),
        ("version", agent.version),
        ("labels", _labels(agent) or None),
        ("features", " ".join(agent.features) or None),
        ("running", f"{agent.running} of {agent.capacity}"),
        ("completed", agent.jobs_completed),
        ("failed", agent.jobs_failed),
        ("last seen", agent.last_heartbeat_at.isoformat()),
        ("heartbeat", seconds(agent.heartbeat_s)),
        ("registered", agent.registered_at.isoformat()),
        ("metrics", shown(agent.metrics) if agent.metrics else None),
    ]
    out.table(("FIELD", "VALUE"), [fact for fact in facts if fact[1] is not None])


@click.group()
def pools() -> None:
    """List and show pools, and say how many agents they should have."""


@pools.command("list")
@at_server
@prints
def list_pools(*, target: Target, out: Printer) -> None:
    """List pools by name."""
    with _opened(target) as fleet:
        found = fleet.pools()
    if out.json:
        out.document({"items": found})
    else:
        out.table(POOL_COLUMNS, [_pool_row(pool) for pool in found])


@pools.command("show")
@click.argument("name", metavar="POOL")
@at_server
@prints
def show_pool(*, target: Target, out: Printer, name: str) -> None:
    """Show one pool."""
    with _opened(target) as fleet:
        pool = fleet.pool(name)
    _print_pool(out, pool)


@pools.command()
@click.argument("name", metavar="POOL")
@click.option("--min", type=int, metavar="N")
@click.option("--max", type=int, metavar="N")
@click.option("--target", "wanted", type=int, metavar="N")
@at_server
@prints
def scale(*, target: Target, out: Printer, name: str, min: int | None, max: int | None, wanted: int | None) -> None:
    """Say how many agents a pool should have; whoever starts machines asks for it."""
    with _opened(target) as fleet:
        pool = fleet.scale(name, min=min, max=max, target=wanted)
    _print_pool(out, pool)


def _print_pool(out: Printer, pool: PoolRecord) -> None:
    if out.json:
        out.document(pool)
    else:
        out.table(POOL_COLUMNS, [_pool_row(pool)])


def _pool_row(pool: PoolRecord) -> tuple[object, ...]:
    oldest = seconds(pool.oldest_wait_s) if pool.queued else "-"
    agents = (pool.active, pool.idle, pool.unhealthy, pool.capacity)
    return (
        pool.name,
        pool.queued,
        oldest,
        *agents,
        *("-" if n is None else n for n in (pool.min, pool.target, pool.max)),
    )
