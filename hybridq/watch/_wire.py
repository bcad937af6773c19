"""What is asked of Redis to watch: entries of streams, what is left of their history, and the time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import redis

from ..connect import AsyncRedis, Connects
from ..errors import RedisUnavailable
from ._position import Spot

__all__ = ["Entry", "Happened", "History", "Wire"]

ANSWER_S: Final = 10.0
"""How long an answer may take, beyond the time a read was told to wait."""
_TROUBLE: Final = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError, RuntimeError)


class Happened(msgspec.Struct, frozen=True):
    """One event as it stands in a stream: its type, and `<subject> <STATUS> <by> <number>`."""

    type: str
    subject: str
    status: str | None
    by: str | None
    number: int

    @classmethod
    def read(cls, kind: bytes, value: bytes) -> Happened:
        """Return what a field and its value say; what is not there, or `-`, is None."""
        subject, status, by, number, *_ = [*value.decode("utf-8", "replace").split(" "), "", "", "", ""]
        return cls(
            kind.decode("utf-8", "replace"),
            subject,
            None if status in ("", "-") else status,
            None if by in ("", "-") else by,
            int(number) if number.isdecimal() else 0,
        )


class Entry(NamedTuple):
    """One entry of a stream: up to 16 events of one moment."""

    ms: int
    seq: int
    happened: tuple[Happened, ...]


class History(NamedTuple):
    """What a stream still holds: the first entry's spot (None: it is empty), the last id ever given, and whether
    entries were dropped from its beginning.
    """

    first: Spot | None
    last: Spot
    trimmed: bool


class Wire:
    """One client and the questions. Anything that goes wrong is `RedisUnavailable`."""

    def __init__(self, connector: Connects, *, waits: bool) -> None:
        self._connector, self._waits = connector, waits
        self._client: AsyncRedis | None = None

    @property
    def spread(self) -> bool:
        """Whether streams live on several nodes of a cluster, so that one read cannot look at several."""
        return not hasattr(self._connected(), "connection_pool")

    async def read(
        self, after: Mapping[str, Spot], *, count: int, block_s: float | None = None
    ) -> dict[str, list[Entry]]:
        """Return up to `count` entries of each stream after its spot; waits for one up to `block_s` seconds."""
        block = () if block_s is None else ("BLOCK", max(1, round(block_s * 1000)))
        words = ("XREAD", "COUNT", count, *block, "STREAMS", *after, *(spot.text for spot in after.values()))
        reply = await self._ask(next(iter(after)), *words, wait_s=block_s or 0.0)
        streams = reply.items() if isinstance(reply, dict) else reply or ()
        return {key.decode(): [_entry(raw) for raw in entries] for key, entries in streams}

    async def histories(self, keys: Sequence[str]) -> list[History | None]:
        """Return what each stream holds; None where there is no such stream."""
        client = self._connected()
        if self.spread:
            return [await self._history(key) for key in keys]
        try:
            async with asyncio.timeout(ANSWER_S), client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.execute_command("XINFO STREAM", key)
                return [_history(answer) for answer in await pipe.execute(raise_on_error=False)]
        except (*_TROUBLE, TimeoutError) as problem:
            raise self._unavailable(problem) from problem

    async def now_ms(self, key: str) -> int:
        """Return the time of the server that holds this stream."""
        seconds, micros = await self._ask(key, "TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def close(self) -> None:
        """Close the connections; the next question opens them again."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(*_TROUBLE, TimeoutError):
                await client.aclose()

    async def _history(self, key: str) -> History | None:
        try:
            return _history(await self._ask(key, "XINFO STREAM", key))
        except RedisUnavailable as problem:
            if not _is_missing(problem.__cause__):
                raise
            return None

    async def _ask(self, key: str, *words: Any, wait_s: float = 0.0) -> Any:
        try:
            async with asyncio.timeout(wait_s + ANSWER_S):
                client = self._connected()
                if not self.spread:
                    return await client.execute_command(*words)
                await client.initialize()
                # By name, since the client would ask the server for the keys of these commands each time.
                node = client.get_node_from_key(key)  # type: ignore[union-attr]
                return await client.execute_command(*words, target_nodes=node)
        except (*_TROUBLE, TimeoutError) as problem:
            raise self._unavailable(problem) from problem

    def _connected(self) -> AsyncRedis:
        if self._client is None:
            self._client = self._connector.aio_bell() if self._waits else self._connector.aio()
            # An entry may name one field several times, which redis-py would make a dict of.
            self._client.set_response_callback("XREAD", _as_it_is)
        return self._client

    def _unavailable(self, problem: BaseException) -> RedisUnavailable:
        return RedisUnavailable(self._connector.safe_url, str(problem) or type(problem).__name__)


def _as_it_is(response: Any, **_: Any) -> Any:
    return response


def _entry(raw: Any) -> Entry:
    spot, fields = Spot.parse(raw[0]), raw[1]
    return Entry(spot.ms, spot.seq, tuple(Happened.read(fields[at], fields[at + 1]) for at in range(0, len(fields), 2)))


def _history(answer: Any) -> History | None:
    if _is_missing(answer):
        return None
    if isinstance(answer, BaseException):
        raise answer
    first = answer["first-entry"]
    return History(
        None if first is None else Spot.parse(first[0]),
        Spot.parse(answer["last-generated-id"]),
        int(answer["entries-added"]) > int(answer["length"]),
    )


def _is_missing(answer: Any) -> bool:
    return isinstance(answer, redis.ResponseError) and "no such key" in str(answer)
