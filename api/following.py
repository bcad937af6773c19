"""Who follows the log of which job in this process, so that a piece that comes by way of it is told at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final
from weakref import WeakKeyDictionary

from .plane import Plane

__all__ = ["Following", "following_of"]

Job = tuple[str, str, str]
"""Namespace, pool and job id."""


class Following:
    """The followers of logs; without any, waking them costs one look into an empty map."""

    def __init__(self) -> None:
        self._news: dict[Job, set[asyncio.Event]] = {}

    def wake(self, namespace: str, pool: str, job_id: str) -> None:
        """Tell the followers of a job's log to look."""
        for news in self._news.get((namespace, pool, job_id), ()):
            news.set()

    @contextlib.contextmanager
    def listen(self, namespace: str, pool: str, job_id: str, news: asyncio.Event) -> Iterator[None]:
        """Have `news` set whenever there is something to look for."""
        job = (namespace, pool, job_id)
        self._news.setdefault(job, set()).add(news)
        try:
            yield
        finally:
            self._news[job].discard(news)
            if not self._news[job]:
                del self._news[job]


_of: Final[WeakKeyDictionary[Plane, Following]] = WeakKeyDictionary()


def following_of(plane: Plane) -> Following:
    """Return the followers of a plane."""
    found = _of.get(plane)
    if found is None:
        found = _of[plane] = Following()
    return found
