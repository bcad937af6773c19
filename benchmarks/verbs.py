"""Each verb alone, `n` jobs a call: hybridq's public names, and the least scripts that could do the same."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from hybridq import AsyncQueue, JobSpec, Lease

from .joined import Joined
from .work import payload_of

VERBS: Final = ("enqueue", "claim", "start", "heartbeat", "complete")
"""In the order of a job's life: each finds what those before it left."""
FILL_STEP: Final = 50
UNTIL: Final = 4_000_000_000_000


class Verbs(Protocol):
    """A queue whose verbs are called one by one."""

    async def do(self, verb: str, n: int) -> None:
        """Do a verb for the next `n` jobs, in as few calls as the queue can."""


class OurVerbs:
    """hybridq: what is called in one turn of the loop travels in one script call."""

    def __init__(self, queue: AsyncQueue, payload_bytes: int = 199) -> None:
        self._queue, self._payload = queue, payload_of(payload_bytes)
        self._claimed: list[Lease] = []
        self._started: list[Lease] = []

    async def do(self, verb: str, n: int) -> None:
        if verb == "enqueue":
            await self._queue.enqueue_many([JobSpec(type="build", payload=self._payload)] * n)
        elif verb == "claim":
            self._claimed += await self._queue.claim(n)
        elif verb == "start":
            taken, self._claimed = self._claimed[:n], self._claimed[n:]
            self._started += await asyncio.gather(*(self._queue.start(lease) for lease in taken))
        elif verb == "heartbeat":
            taken, rest = self._started[:n], self._started[n:]
            await self._queue.heartbeat(taken)
            self._started = rest + taken
        else:
            taken, self._started = self._started[:n], self._started[n:]
            await asyncio.gather(*(self._queue.complete(lease) for lease in taken))


class FloorVerbs:
    """The least scripts: no state but the lease, no checks but that there is one."""

    KEYS: Final = ("floor:{q}:jobs", "floor:{q}:ready", "floor:{q}:leased")

    def __init__(self, joined: Joined, shas: dict[str, str], payload_bytes: int = 199) -> None:
        self._joined, self._shas = joined, shas
        self._payload = payload_of(payload_bytes)
        self._numbers = itertools.count()
        self._claimed: list[bytes] = []
        self._started: list[bytes] = []

    @classmethod
    async def at(cls, url: str, payload_bytes: int = 199) -> FloorVerbs:
        """Connect, and load the scripts."""
        joined = await Joined.to(url)
        folder = Path(__file__).parent / "floor"
        shas = {verb: await joined.call("SCRIPT", "LOAD", (folder / f"{verb}.lua").read_text()) for verb in VERBS}
        return cls(joined, shas, payload_bytes)

    async def do(self, verb: str, n: int) -> None:
        if verb == "enqueue":
            entries: list[Any] = []
            for number in itertools.islice(self._numbers, n):
                entries += (f"job-{number:016d}", 2 * 2**44 + number, msgspec.json.encode(self._payload))
            await self._call(verb, *entries)
        elif verb == "claim":
            self._claimed += (await self._call(verb, n, UNTIL))[::2]
        elif verb == "start":
            taken, self._claimed = self._claimed[:n], self._claimed[n:]
            await self._call(verb, *taken)
            self._started += taken
        elif verb == "heartbeat":
            taken, rest = self._started[:n], self._started[n:]
            await self._call(verb, UNTIL, *taken)
            self._started = rest + taken
        else:
            taken, self._started = self._started[:n], self._started[n:]
            await self._call(verb, *taken)

    async def _call(self, verb: str, *words: Any) -> Any:
        reply = await self._joined.call("EVALSHA", self._shas[verb], 3, *self.KEYS, *words)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def close(self) -> None:
        self._joined.close()


async def prepare(verbs: Verbs, verb: str, jobs: int) -> None:
    """Bring jobs to where a verb finds them."""
    for before in VERBS[: VERBS.index(verb)]:
        for first in range(0, jobs, FILL_STEP):
            await verbs.do(before, min(FILL_STEP, jobs - first))


async def repeat(verbs: Verbs, verb: str, jobs: int, batch: int) -> int:
    """Do a verb for so many jobs, `batch` a call."""
    for first in range(0, jobs, batch):
        await verbs.do(verb, min(batch, jobs - first))
    return jobs
