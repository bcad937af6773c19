"""Lists of jobs over one pool or many: one page, newest first, and where the next begins.

One pool is read by the library's own cursor. Of many each is read ahead a little and the heads are merged. A page ends
at a mark, the place of its last job in the order of all, and the next page begins below it; cursors of single pools
only save reading again what stands above.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

import hybridq as hq

__all__ = ["ListedJobs", "Read", "list_jobs"]

Read = Callable[[str, int, str | None], Awaitable[hq.JobPage]]
"""Reads a page: of this pool, at most so many jobs, from this cursor of the library."""

Order = Callable[[hq.Job], tuple[dt.datetime | None, int]]
"""What its pool orders a job by: an instant, and a number among those of one instant (0: they go by id)."""

Key = tuple[int, str, int, str]
"""A job's place in the order of all: when, pool, number, id. Lists run from the greatest to the least."""

READS_MAX: Final = 20
"""How often one request reads on, beyond the first page of each pool."""
AHEAD_MIN: Final = 10
CURSORS_BYTES_MAX: Final = 1_200
"""What cursors of single pools may take of a cursor that is at most 2,048 characters long."""

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

    @property
    def starved(self) -> bool:
        """Whether it cannot tell what its next job is."""
        return not self.ahead and not self.at_end

    async def read_on(self, read: Read, many: int) -> None:
        page = await read(self.pool, many, self.cursor)
        self.began = self.cursor
        for job in page.items:
            key = self._key(job)
            if self._below is None or key < self._below:
                self.ahead.append((key, job))
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

    mark, cursors, ended = (None, {}, []) if position is None else position
    below: Key | None = None if mark is None else tuple(mark)
    streams = [_Stream(pool, cursors.get(pool), below, key) for pool in pools if pool not in ended]
    many = min(limit, max(AHEAD_MIN, 2 * limit // max(1, len(streams))))
    await asyncio.gather(*(stream.read_on(read, many) for stream in streams))
    found: list[hq.Job] = []
    reads = 0
    while len(found) < limit:
        starved = [stream for stream in streams if stream.starved]
        if starved:
            if reads + len(starved) > READS_MAX:
                break
            reads += len(starved)
            await asyncio.gather(*(stream.read_on(read, many) for stream in starved))
            continue
        heads = [stream for stream in streams if stream.ahead]
        if not heads:
            return ListedJobs(found, None)
        below, job = max(heads, key=lambda stream: stream.ahead[0][0]).ahead.popleft()
        found.append(job)
    if all(stream.at_end and not stream.ahead for stream in streams):
        return ListedJobs(found, None)
    return ListedJobs(found, _position(below, streams, ended))


def _position(below: Key | None, streams: Sequence[_Stream], ended: Sequence[str]) -> Any:
    cursors: dict[str, str] = {}
    over = list(ended)
    left = CURSORS_BYTES_MAX - sum(len(pool) + 3 for pool in over)
    for stream in streams:
        done = stream.at_end and not stream.ahead
        size = len(stream.pool) + (3 if done else len(stream.resumes_at or "") + 6)
        if size > left or not (done or stream.resumes_at):
            continue
        left -= size
        if done:
            over.append(stream.pool)
        else:
            cursors[stream.pool] = stream.resumes_at or ""
    return [below, cursors, over]
