"""`keys create`, `keys agent`, `keys list`, `keys revoke`, `audit`: who may call over HTTP, and who did what."""

from __future__ import annotations

import contextlib
import getpass
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import rich_click as click
from click.exceptions import Exit

from ._options import Target, at_server, prints, tags_of
from ._output import Printer

if TYPE_CHECKING:
    from hybridq import Access, Credential

__all__ = ["audit", "keys"]

UNITS_S: Final = {"m": 60, "h": 3600, "d": 86_400}


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


def _expiry(_context: click.Context, parameter: click.Parameter, value: str) -> float | None:
    """Callback of `--expires`: seconds from now, None for never."""
    if value == "never":
        return None
    found = re.fullmatch(r"([1-9]\d{0,5})([mhd])", value)
    if found is None:
        raise click.BadParameter("write 90m, 12h, 30d, or never", param=parameter)
    return float(int(found[1]) * UNITS_S[found[2]])


def _names(_context: click.Context, _parameter: click.Parameter, value: str | None) -> list[str] | None:
    """Callback of options that take names joined by commas; None when not given."""
    return None if value is None else [name.strip() for name in value.split(",") if name.strip()]


def _scopes(context: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    """Callback of `--scopes`: names that are known."""
    from hybridq.errors import InvalidArgument
    from hybridq.scopes import validate_scopes

    try:
        return sorted(validate_scopes(_names(context, parameter, value) or ()))
    except InvalidArgument as wrong:
        unknown = f"unknown: {wrong.value}; " if wrong.value else ""
        raise click.BadParameter(f"{unknown}must be {wrong.allowed}", param=parameter) from None


@keys.command()
@click.argument("name")
@click.option("--scopes", metavar="A,B", callback=_scopes, required=True, help="What it may do; '*' is everything.")
@click.option("--pools", metavar="A,B", callback=_names, help="Pools it reaches. Default: all.")
@click.option("--services", metavar="A,B", callback=_names, help="Services it reaches. Default: all.")
@click.option(
    "--expires",
    "lasts_s",
    metavar="TIME",
    callback=_expiry,
    default="90d",
    help="From now: 90m, 12h, 30d; or never. Default: 90d.",
)
@click.option("--by", metavar="NAME", help="Who answers for what it does. Default: who runs this command.")
@at_server
@prints
def create(
    *,
    target: Target,
    out: Printer,
    name: str,
    scopes: list[str],
    pools: list[str] | None,
    services: list[str] | None,
    lasts_s: float | None,
    by: str | None,
) -> None:
    """Make an API key. It is shown once, here, and stored nowhere."""
    with _opened(target) as (access, namespace):
        made = access.create_key(
            name,
            namespace=namespace,
            scopes=scopes,
            pools=pools,
            services=services,
            lasts_s=lasts_s,
            created_by=by or _user(),
        )
        access.audit(namespace, actor=_actor(by), action="key.create", object=made.credential.id, outcome="done")
    if out.json:
        out.document({"key": made.text, **_document(made.credential)})
        return
    click.echo(made.text)
    out.note(f"key {made.credential.id} of namespace {namespace}; it is not shown again")


@keys.command()
@click.option("--pool", metavar="NAME", default="default", help="What its agents work for. Default: default.")
@click.option("--uses", type=click.IntRange(1, 1000), default=1, metavar="N", help="How many agents. Default: 1.")
@click.option(
    "--label", "labels", multiple=True, callback=tags_of, metavar="NAME=VALUE", help="Of its agents; may be repeated."
)
@click.option(
    "--expires", "lasts_s", metavar="TIME", callback=_expiry, default="1h", help="From now: 90m, 12h, 30d. Default: 1h."
)
@click.option("--by", metavar="NAME", help="Who answers for it. Default: who runs this command.")
@at_server
@prints
def agent(
    *,
    target: Target,
    out: Printer,
    pool: str,
    uses: int,
    labels: dict[str, str],
    lasts_s: float | None,
    by: str | None,
) -> None:
    """Make a registration key, by which a new agent joins a pool. It is shown once, here, and stored nowhere."""
    if lasts_s is None:
        raise click.UsageError("a registration key expires: say 12h, or 30d at most")
    with _opened(target) as (access, namespace):
        made = access.create_registration_key(
            namespace, pool, labels=labels or None, uses=uses, lasts_s=lasts_s, created_by=by or _user()
        )
        access.audit(
            namespace, actor=_actor(by), action="registration.create", object=made.credential.id, outcome="done"
        )
    if out.json:
        key = made.credential
        document = {"id": key.id, "pool": key.pool, "labels": key.labels, "uses": uses, "expires_at": key.expires_at}
        out.document({"key": made.text, **document})
        return
    click.echo(made.text)
    out.note(f"for {uses} agent(s) of pool {pool}, as HYBRIDQ_AGENT_KEY or in a --key-file; it is not shown again")


@keys.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=50, help="Default: 50.")
@click.option("--cursor", metavar="TEXT", help="Where the page before ended.")
@at_server
@prints
def list_(*, target: Target, out: Printer, limit: int, cursor: str | None) -> None:
    """List API keys, the newest first."""
    with _opened(target) as (access, namespace):
        page = access.keys(namespace, limit=limit, cursor=cursor)
    if out.json:
        out.document({"items": [_document(one) for one in page.items], "next_cursor": page.next_cursor})
        return
    out.table(
        ("ID", "NAME", "SCOPES", "POOLS", "EXPIRES", "LAST USED", "BY"),
        [
            (
                one.id,
                one.name,
                " ".join(sorted(one.scopes)),
                "all" if one.pools is None else " ".join(one.pools),
                _minute(one.expires_at) or "never",
                _minute(one.last_used_at) or "never",
                one.created_by,
            )
            for one in page.items
        ],
    )
    if page.next_cursor:
        out.note(f"there are more: --cursor {page.next_cursor}")


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--by", metavar="NAME", help="Who says so. Default: who runs this command.")
@at_server
@prints
def revoke(*, target: Target, out: Printer, key_id: str, by: str | None) -> None:
    """Revoke an API key: it is refused from the next call on."""
    with _opened(target) as (access, namespace):
        there = access.revoke_key(namespace, key_id)
        if there:
            access.audit(namespace, actor=_actor(by), action="key.revoke", object=key_id, outcome="done")
    if not there:
        out.failure("not_found", f"no key {key_id} in namespace {namespace}")
        raise Exit(1)
    if out.json:
        out.document({"id": key_id, "revoked": True})
    else:
        out.line(f"{key_id} is revoked")


@click.command()
@click.option("--limit", type=click.IntRange(1, 200), default=50, help="Default: 50.")
@click.option("--cursor", metavar="TEXT", help="Where the page before ended.")
@at_server
@prints
def audit(*, target: Target, out: Printer, limit: int, cursor: str | None) -> None:
    """Show who did what, the latest first."""
    with _opened(target) as (access, namespace):
        page = access.audit_page(namespace, limit=limit, cursor=cursor)
    fields = ("at", "actor", "action", "object", "outcome", "request_id")
    if out.json:
        items = [{field: getattr(one, field) for field in fields} for one in page.items]
        out.document({"items": items, "next_cursor": page.next_cursor})
        return
    out.table(
        ("AT", "ACTOR", "ACTION", "OBJECT", "OUTCOME", "REQUEST"),
        [
            (f"{one.at:%Y-%m-%d %H:%M:%S}", one.actor, one.action, one.object, one.outcome, one.request_id)
            for one in page.items
        ],
    )
    if page.next_cursor:
        out.note(f"there are more: --cursor {page.next_cursor}")


@contextlib.contextmanager
def _opened(target: Target) -> Iterator[tuple[Access, str]]:
    """The access records of the server, and the namespace that is meant."""
    from hybridq import Access

    with target.open() as queue, Access(redis=queue.connector) as access:
        yield access, queue.namespace


def _document(key: Credential) -> dict[str, Any]:
    """A key as the API lists it."""
    return {
        "id": key.id,
        "name": key.name,
        "namespace": key.namespace,
        "scopes": sorted(key.scopes),
        "pools": key.pools,
        "services": key.services,
        "expires_at": key.expires_at,
        "created_by": key.created_by,
        "last_used_at": key.last_used_at,
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        return "command line"


def _actor(by: str | None) -> str:
    return f"person:{by or _user()}"


def _minute(at: Any) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M}"
