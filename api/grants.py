"""What one credential may hand out: nothing that it does not hold itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import Any, Final

from .http.problems import Problem, Reason
from .http.scopes import EVERYTHING, SCOPES

__all__ = ["check_not_wider", "check_pool", "check_scopes", "covers_pools"]

_KNOWN: Final = f"one of {', '.join(SCOPES)}, or {EVERYTHING} for all"


def check_pool(caller: Any, pool: str) -> None:
    """Raise 403 `pool_not_allowed` for a pool that the caller named and may not touch."""
    if not caller.allows_pool(pool):
        raise Problem("pool_not_allowed")


def covers_pools(caller: Any, pools: Collection[str] | None) -> bool:
    """Whether everything that is bound to these pools (None: to none, so to all) is within the caller's."""
    if caller.pools is None:
        return True
    return pools is not None and all(caller.allows_pool(pool) for pool in pools)


def check_scopes(pointer: str, scopes: Collection[str]) -> None:
    """Raise 400 that points at a scope nobody knows."""
    for place, scope in enumerate(scopes):
        if scope not in SCOPES and scope != EVERYTHING:
            raise Problem("invalid_argument", errors=[Reason(f"{pointer}/{place}", f"must be {_KNOWN}")])


def check_not_wider(
    caller: Any,
    *,
    scopes: Collection[str],
    pools: Collection[str] | None,
    services: Collection[str] | None = None,
    any_service: bool = False,
    expires_at: dt.datetime | None = None,
    signs: bool = True,
) -> None:
    """Raise 403 `scope_escalation`, with a pointer to each part that is more than the caller has.

    `any_service`: what is made has nothing to do with services. `signs` False: it will be used without signatures.
    A key that ends makes none that outlives it; a person's session is no such bound, their role is.
    """
    wider = []
    if not all(_holds(caller, scope) for scope in scopes):
        wider.append(Reason("/scopes", "holds a scope that the caller does not"))
    if not covers_pools(caller, pools):
        wider.append(Reason("/pools", "must be among the pools of the caller"))
    if caller.services is not None and not any_service and not (services and set(services) <= set(caller.services)):
        wider.append(Reason("/services", "must be among the services of the caller"))
    if caller.kind == "key":
        ends = caller.expires_at
        if ends is not None and (expires_at is None or expires_at > ends):
            wider.append(Reason("/expires_at", "must not be after the end of the caller"))
        if caller.require_signature and not signs:
            wider.append(Reason("/public_key", "is needed, as the caller has to sign too"))
    if wider:
        raise Problem("scope_escalation", errors=wider)


def _holds(caller: Any, scope: str) -> bool:
    if scope == EVERYTHING:
        return all(caller.may(each) for each in SCOPES)
    may: bool = caller.may(scope)
    return may
