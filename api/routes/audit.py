"""The audit of a namespace, for those who may read it."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import msgspec
from msgspec import Meta

from ..http.answer import Answer
from ..http.cursors import CURSOR, CURSOR_CHARS_MAX
from ..http.request import Request
from ..http.route import route
from ..paging import next_cursor, position_of

__all__: list[str] = []


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    at: dt.datetime | None
    actor: str
    action: str
    object: str
    outcome: str
    request_id: str | None


class AuditList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Entry]
    next_cursor: str | None


class AuditQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    cursor: Annotated[str, Meta(pattern=CURSOR, max_length=CURSOR_CHARS_MAX)] | None = None


@route(
    "GET",
    "/api/audit",
    scope="audit:read",
    query=AuditQuery,
    answers={200: AuditList},
    problems=["invalid_cursor"],
    summary="Who did what, the newest first.",
    tags=["audit"],
)
async def list_audit(request: Request) -> Answer:
    query: AuditQuery = request.query
    page = await request.plane.access.audit_page(
        request.credential.namespace, limit=query.limit, cursor=await position_of(request)
    )
    items = [
        Entry(
            at=entry.at,
            actor=entry.actor,
            action=entry.action,
            object=entry.object,
            outcome=entry.outcome,
            request_id=entry.request_id or None,
        )
        for entry in page.items
    ]
    return Answer(AuditList(items=items, next_cursor=await next_cursor(request, page.next_cursor)))
