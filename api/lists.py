"""Lists of jobs over one pool or many: one page, newest first, and where the next begins.

One pool is read by the library's own cursor. Of many each is read ahead a little and the heads are merged. A page ends
at a mark, the place of its last job in the order of all, and the next page begins below it; cursors of single pools
only save reading again what stands above, so those that do not fit into the cursor of the whole are left out.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

import hybridq as hq

from .http.problems import Problem

__all__ = ["ListedJobs", "Read", "list_jobs"]

Read = Callable[[str, int, str | None], Awaitable[hq.JobPage]]
"""Reads a page: of this pool, at most so many jobs, from this cursor of the library."""

Order = Callable[[hq.Job], tuple[dt.datetime | None, int]]
"""What its pool orders a job by: an instant, and a number among those of one instant (0: they go by id)."""

Key = tuple[int, str, int, str]
"""A job's place in the order of all: when, pool, number, id. Lists run from the greatest to the least."""

ROUNDS_MAX: Final = 10
"""How often one request reads on in pools that it knows no next job of, beyond the first page of each."""
AHEAD_MIN: Final = 10
PAGE_MAX: Final = 200
PACKED_BYTES_MAX: Final = 4_000
"""What the cursors of single pools may take of the cursor of the whole."""

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class ListedJobs(msgspec.Struct, frozen=True):
    """One page; `position` is where the next begins, None at the end."""

    jobs: list[hq.Job]
    position: Any


async def list_jobs(pools: Sequence[str], read: Read, *, limit: int, position: Any, order: Order) -> ListedJobs:
    """Return a page of the jobs of some pools, each of which is read in this order."""
    if len(pools) == 1:
        return await _list_one(pools[0], read, limit, position)
    return await _list_many(pools, read, limit, position, order)


async def _list_one(pool: str, read: Read, limit: int, cursor: str | None) -> ListedJobs:
    page = await read(pool, limit, cursor)
    return ListedJobs(list(page.items), page.next_cursor)


class _Stream:
    """The jobs of one pool that were read and not yet taken."""

    def __init__(self, pool: str, cursor: str | None, below: Key | None, key: Callable[[hq.Job], Key]) -> None:
        self.pool, self.cursor, self._below, self._key = pool, cursor, below, key
        self.ahead: deque[tuple[Key, hq.Job]] = deque()
        self.began: str | None = cursor
        """Cursor of the page that the head stands in."""
        self.at_end = False
        self._above = below is not None
        """Whether everything that was read stands above the mark."""

    @property
    def starved(self) -> bool:
        """Whether it cannot tell what its next job is."""
        return not self.ahead and not self.at_end

    async def read_on(self, read: Read, many: int) -> None:
        """Read a page. What stands above the mark was listed before, and is passed by in pages as large as may be."""
        passing = self._above and self.cursor is not None
        page = await read(self.pool, PAGE_MAX if passing else many, self.cursor)
        self.began = self.cursor
        for job in page.items:
            key = self._key(job)
            if self._below is None or key < self._below:
                self.ahead.append((key, job))
                self._above = False
        self.cursor = page.next_cursor
        self.at_end = page.next_cursor is None

    @property
    def resumes_at(self) -> str | None:
        """Return the cursor from which everything that was not taken can be read again."""
        return self.began if self.ahead else self.cursor


async def _list_many(pools: Sequence[str], read: Read, limit: int, position: Any, order: Order) -> ListedJobs:
    def key(job: hq.Job) -> Key:
        when, number = order(job)
        return (((when or job.enqueued_at) - _EPOCH) // dt.timedelta(milliseconds=1), job.queue, number, job.job_id)

    mark, cursors = (None, {}) if position is None else (position[0], _unpacked(position[1]))
    below: Key | None = None if mark is None else tuple(mark)
    streams = [_Stream(pool, cursors.get(pool), below, key) for pool in pools if cursors.get(pool) != ENDED]
    many = min(limit, max(AHEAD_MIN, 2 * limit // max(1, len(streams))))
    await asyncio.gather(*(stream.read_on(read, many) for stream in streams))
    found: list[hq.Job] = []
    rounds = 0
    while len(found) < limit:
        starved = [stream for stream in streams if stream.starved]
        if starved:
            if rounds == ROUNDS_MAX:
                break
            rounds += 1
            await asyncio.gather(*(stream.read_on(read, many) for stream in starved))
            continue
        heads = [stream for stream in streams if stream.ahead]
        if not heads:
            return ListedJobs(found, None)
        below, job = max(heads, key=lambda stream: stream.ahead[0][0]).ahead.popleft()
        found.append(job)
    if all(stream.at_end and not stream.ahead for stream in streams):
        return ListedJobs(found, None)
    over = [pool for pool in pools if cursors.get(pool) == ENDED]
    following = [below, _packed(streams, over)]
    if not found and following == position:
        raise Problem("invalid_range", "These are too many pools to be listed together; name one.")
    return ListedJobs(found, following)


ENDED: Final = ""
"""Stands for the cursor of a pool that has no more jobs."""


def _packed(streams: Sequence[_Stream], over: Sequence[str]) -> str:
    """Return as many cursors of single pools as fit, those first that save most reading."""
    cursors: dict[str, str] = dict.fromkeys(over, ENDED)
    for stream in streams:
        if stream.at_end and not stream.ahead:
            cursors[stream.pool] = ENDED
        elif stream.resumes_at is not None:
            cursors[stream.pool] = stream.resumes_at
    kept = list(cursors.items())
    while True:
        packed = zlib.compress(msgspec.json.encode(dict(kept)), 9)
        if len(packed) <= PACKED_BYTES_MAX:
            return base64.urlsafe_b64encode(packed).decode()
        kept = kept[: len(kept) * PACKED_BYTES_MAX // len(packed)]


def _unpacked(packed: str) -> dict[str, str]:
    return msgspec.json.decode(zlib.decompress(base64.urlsafe_b64decode(packed)), type=dict[str, str])
