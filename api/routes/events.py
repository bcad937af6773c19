"""What happens, as it happens: a stream of server-sent events, of the caller's pools and, with the scope, its agents.

A stream is a follower of the plane's watch with the words of SSE around it. It says nothing that a list of jobs would
not show: no payload, no token, nothing of pools the caller may not see.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator
from typing import Annotated, Final

import msgspec

import hybridq as hq

from ..grants import check_pool
from ..http.answer import Answer, Stream
from ..http.names import Name
from ..http.request import Request
from ..http.route import EVENT_STREAM, route
from ..parking import refuse_while_stopping
from ..reach import own_pools
from ..streams import HEADERS, PING_S, RETRY_MS, Streams, bad_last_event_id, is_admitted, last_event_id, streams_of
from ..views import full_id

POOLS_S: Final = 2.0
"""How often a stream of all pools asks for new ones; what happened in one before that comes too, a little late."""
AGENTS: Final = "agents:read"

Types = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z_]{1,64}(\.[a-z_]{1,64})?(,[a-z_]{1,64}(\.[a-z_]{1,64})?)*$",
        max_length=1024,
        description="Event types or their beginnings, separated by commas: `job.completed,agent`.",
    ),
]


class EventsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which events."""

    pool: list[
        Annotated[Name, msgspec.Meta(description="Of these pools; without it, of all that the caller sees.")]
    ] = []
    types: list[Types] = []


class EventView(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The `data` of an event. One of the ids is there, but for a `reset` and for what happened to a whole pool."""

    type: Annotated[str, msgspec.Meta(examples=["job.completed"])] = msgspec.field()
    at: dt.datetime = msgspec.field()
    pool: str | None = msgspec.field()
    status: str | None = msgspec.field()
    job_id: str | None = None
    agent_id: str | None = None
    deployment_id: str | None = None


_encode = msgspec.json.Encoder().encode


@route(
    "GET",
    "/api/events",
    scope="queue:read",
    query=EventsQuery,
    answers={200: EVENT_STREAM},
    problems=["pool_not_allowed", "stopping", "too_many_streams"],
    summary="What happens to jobs, pools and agents, as server-sent events.",
    description=(
        "Each event has an `id`; sent back as `Last-Event-ID` it goes on after that event, in all pools at once. "
        "A `reset` says that history in between is gone: read anew what you show. Without anything to say there is a "
        "comment every 15 s. Events of agents (`agent.*`) need the scope `agents:read`."
    ),
    tags=["events"],
)
async def events(request: Request) -> Answer | Stream:
    refuse_while_stopping(request.plane)
    query: EventsQuery = request.query
    for pool in query.pool:
        check_pool(request.credential, pool)
    after = last_event_id(request)
    pools = list(dict.fromkeys(query.pool)) or await own_pools(request)
    types = [one for text in query.types for one in text.split(",")]
    caller = request.credential
    try:
        follower = request.plane.watch.follow(
            pools, namespace=caller.namespace, fleet=caller.may(AGENTS), types=types or None, after=after
        )
    except hq.InvalidArgument:
        raise bad_last_event_id() from None
    open_streams = streams_of(request.plane)
    open_streams.admit(caller.id)
    told = _Told(request, follower, open_streams)
    try:
        await follower.__aenter__()
    except BaseException:
        await told.aclose()
        raise
    return Stream(told, headers=HEADERS)


class _Told:
    """The chunks of one stream. It is closed in any case, also when nobody ever asked for the first."""

    def __init__(self, request: Request, follower: hq.Follower, streams: Streams) -> None:
        self._request, self._follower, self._streams = request, follower, streams
        self._chunks = self._tell()
        self._closed = False
        streams.sources.add(follower)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return await self._chunks.__anext__()

    async def aclose(self) -> None:
        """Follow no more, and count one stream less."""
        if self._closed:
            return
        self._closed = True
        self._streams.sources.discard(self._follower)
        self._streams.dismiss(self._request.credential.id)
        await self._chunks.aclose()  # type: ignore[attr-defined]
        await self._follower.close()

    async def _tell(self) -> AsyncIterator[bytes]:
        """Yield events as they come, and a comment when there was none for a while."""
        loop, follower = asyncio.get_running_loop(), self._follower
        pause_s = PING_S if self._request.query.pool else POOLS_S
        # With an id from the start, a client that heard nothing before its connection broke misses nothing either.
        yield f"retry: {RETRY_MS}\nid: {follower.position}\n\n".encode()
        ping_at = loop.time() + PING_S
        while not self._ended:
            try:
                found = await follower.take(wait_s=max(0.0, min(ping_at - loop.time(), pause_s)))
            except hq.SlowFollower:
                return
            chunk = b"".join(_block(event) for event in found if self._shows(event))
            if chunk:
                yield chunk
            if loop.time() >= ping_at:
                if not await is_admitted(self._request):
                    return
                yield b": ping\n\n"
                ping_at = loop.time() + PING_S
            if not self._request.query.pool:
                await self._add_pools()

    @property
    def _ended(self) -> bool:
        return self._request.plane.stopping.is_set() or self._closed

    async def _add_pools(self) -> None:
        with contextlib.suppress(hq.HybridqError):
            await self._follower.add(await own_pools(self._request))

    def _shows(self, event: hq.Event) -> bool:
        """Whether it is for this caller. Streams of queues are theirs; the fleet's holds agents of all pools."""
        if event.agent_id is None or event.job_id is not None:
            return True
        caller, pools = self._request.credential, self._request.query.pool
        if event.queue is None:
            return caller.pools is None and not pools
        return caller.allows_pool(event.queue) and (not pools or event.queue in pools)


def _block(event: hq.Event) -> bytes:
    view = EventView(
        type=event.type,
        at=event.at,
        pool=event.queue,
        status=event.status,
        job_id=full_id(event.queue or "", event.job_id) if event.job_id else None,
        agent_id=None if event.job_id else event.agent_id,
        deployment_id=event.deployment_id,
    )
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event.id.encode(), event.type.encode(), _encode(view))
