"""Events as they happen: one Redis reader a process, any number of followers, and a way to go on after a break.

Every verb writes what it did into its root's stream. An `AsyncWatch` reads the streams that somebody follows, with one
connection that blocks in one XREAD, and hands out what comes. Without followers there is no connection, and while
nothing happens Redis sees two commands in 15 s. A follower that comes back with the id of the last event it was given
gets what it missed, from Redis, as far as the streams still hold it.

On a cluster the streams of several queues cannot be read together, so there each stream has a connection of its own.

```
follow() ─► admit ─► behind: pages of XREAD, on demand ──► live: what the readers hand out
                        ▲                                        │ queue full
                        └────────────────────────────────────────┘
```
Reading order: `_position` (where one stands, as text), `_wire` (what is asked of Redis), `_stream`, `_reader`,
`_follower`, and below who brings them together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from .._units import to_ms
from ..backend import AsyncBackend, BackendBase
from ..connect import Connects
from ..errors import InvalidArgument
from ..keys import fleet_root, queue_root, validate_name, validate_namespace
from ._follower import Event, Follower
from ._position import START, Bookmark, Spot
from ._reader import Reader
from ._stream import Stream, gone_on_from
from ._wire import History, Wire

__all__ = ["AsyncWatch", "Event", "Follower"]

SLOW_S = 15.0


class AsyncWatch:
    """Follows what happens in queues and fleets, of any namespace.

    Args:
        redis: A URL, a connector, or an `AsyncBackend`, of which only the address is used. None:
            `HYBRIDQ_REDIS_URL`, else a private server in `data_dir`.
        data_dir: Folder of the private server.

    It belongs to the event loop of its first call.
    """

    def __init__(
        self, redis: str | Connects | BackendBase | None = None, *, data_dir: Path | str | None = None
    ) -> None:
        shared = redis if isinstance(redis, AsyncBackend) else None
        self._backend = shared or AsyncBackend(redis, data_dir=data_dir)
        self._owns_backend = shared is None
        self._asking = Wire(self._backend.connector, waits=False)
        self._blocking: Wire | None = None
        """The client that the readers of a cluster share; elsewhere the one reader has its own."""
        self._readers: dict[str, Reader] = {}
        self._followers: set[Follower] = set()

    def __repr__(self) -> str:
        return f"<AsyncWatch at {self._backend.connector.safe_url}>"

    def follow(
        self,
        queues: Iterable[str],
        *,
        namespace: str | None = None,
        fleet: bool = False,
        types: Iterable[str] | None = None,
        after: str | None = None,
        slow_s: float = SLOW_S,
    ) -> Follower:
        """Follow queues of a namespace, and its `fleet` of agents: `async with watch.follow(["builds"]) as events`.

        `types` are event types or their beginnings (`job`, `job.completed`). `after` is the id of the last event that
        was seen, of this namespace and any of its queues; None: what happens from now on. When history between that
        event and now is gone, a `reset` comes first. A follower that took nothing for `slow_s` seconds while more
        than 1,000 events waited for it is dropped: it gets `SlowFollower`, and may come back with its last id.

        Raises `InvalidArgument` for names and ids off their rules, at once; `RedisUnavailable` when it is entered.
        """
        space = validate_namespace(namespace or os.environ.get("HYBRIDQ_NAMESPACE") or "default")
        names = tuple(validate_name("queues", name) for name in queues)
        to_ms("slow_s", slow_s, 0.1, 3600)
        if isinstance(types, str):
            raise InvalidArgument("types", types, "a list of types")
        return Follower(
            self,
            space,
            names,
            fleet=fleet,
            types=None if types is None else tuple(types),
            after=None if after is None else Bookmark.parse(space, after),
            slow_s=slow_s,
        )

    @property
    def spread(self) -> bool:
        """Whether this is a cluster, where each stream is read on its own."""
        return self._asking.spread

    async def close(self) -> None:
        """End all followers, and close the connections."""
        for follower in tuple(self._followers):
            await follower.close()
        await self._rest()
        if self._owns_backend:
            await self._backend.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- called by followers ---------------------------------------------------------------------------------

    async def _admit(self, follower: Follower, queues: Sequence[str], *, fleet: bool) -> None:
        """Let a follower stand in some streams, reading those that nobody read before."""
        self._backend.check_loop("a watch")
        self._followers.add(follower)
        wanted = {f"{queue_root(follower.namespace, name)}:events": name for name in queues}
        named: dict[str, str | None] = {key: name for key, name in wanted.items() if key not in follower._streams}
        if fleet:
            named[f"{fleet_root(follower.namespace)}:events"] = None
        if follower.entered and not named:
            return
        told: dict[str, History | None] = {}
        fresh = {key: Stream(key, name, START) for key, name in named.items()}
        checked = {key: spot for key, one in fresh.items() if (spot := follower.spot_to_begin(one)) is not None}
        now_ms = await self._now_ms(f"{fleet_root(follower.namespace)}:events")
        while True:
            # Others come and go while we ask; what is still unknown when we have the answers is asked as well.
            unknown = [key for key in named if key not in told and (key in checked or self._find(key) is None)]
            if not unknown:
                break
            told |= zip(unknown, await self._asking.histories(unknown), strict=True)
        if follower._closed:
            return
        even_ms = now_ms
        found: dict[Stream, tuple[Reader, Spot | None]] = {}
        for key, one in fresh.items():
            reader = self._reader_for(key)
            stream = reader.find(key)
            history = told.get(key)
            if stream is None:
                stream = one
                stream.last = START if history is None else history.last
                reader.join(stream)
            else:
                even_ms = min(even_ms, reader.drained_ms)
            gone_on = gone_on_from(checked[key], history) if key in checked else None
            stream.followers.add(follower)
            found[stream] = (reader, gone_on)
        follower.begin(found, now_ms, even_ms)

    async def _dismiss(self, follower: Follower) -> None:
        """Let a follower go; streams without followers are read no more, readers without streams end."""
        self._followers.discard(follower)
        ended = []
        for key, stream in follower._streams.items():
            stream.followers.discard(follower)
            reader = self._reader_of(key)
            if reader is not None and not stream.followers and reader.find(key) is stream:
                reader.leave(stream)
                if not len(reader):
                    ended.append(self._readers.pop(self._group(key)))
        for reader in ended:
            await reader.close()
        if not self._followers:
            await self._rest()

    def _reader_of(self, key: str) -> Reader | None:
        return self._readers.get(self._group(key))

    # -- readers ---------------------------------------------------------------------------------------------

    def _group(self, key: str) -> str:
        return key if self.spread else ""

    def _find(self, key: str) -> Stream | None:
        reader = self._reader_of(key)
        return None if reader is None else reader.find(key)

    def _reader_for(self, key: str) -> Reader:
        group = self._group(key)
        found = self._readers.get(group)
        if found is None:
            wire = self._blocking or Wire(self._backend.connector, waits=True)
            if self.spread:
                self._blocking = wire
            found = self._readers[group] = Reader(wire, owns_wire=not self.spread)
        return found

    async def _now_ms(self, key: str) -> int:
        """Return the server's time, from a reader that knows it, else from the server that would hold this key."""
        for reader in self._readers.values():
            now_ms = reader.now_ms()
            if now_ms is not None:
                return now_ms
        return await self._asking.now_ms(key)

    async def _rest(self) -> None:
        readers, self._readers = self._readers, {}
        for reader in readers.values():
            await reader.close()
        blocking, self._blocking = self._blocking, None
        if blocking is not None:
            await blocking.close()
        if not self._followers:  # one may have come meanwhile, and be asking
            await self._asking.close()
