"""Carries Calls to Redis and brings answers or errors back.

What to send, what an answer means and when to send again is decided in one generator, `exchange`, that does no I/O;
the two runners only carry its requests, one blocking, one awaited. So the colours cannot differ in how they fail.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import redis
import redis.cluster

from .call import Call, Reply
from .connect import AsyncRedis, Connects, SyncRedis
from .errors import (
    HybridqError,
    LanesChanged,
    OutcomeUnknown,
    QueueFull,
    QueueLost,
    RedisUnavailable,
    SchemaMismatch,
    ScriptFailed,
)
from .ops import queues
from .scripts import Script

__all__ = ["AsyncRunner", "Make", "Place", "Runner", "split"]

T = TypeVar("T")
SCHEMA: Final = "1"
BATCH_BYTES_MAX: Final = 4 * 1024 * 1024

_NOT_DONE: Final = frozenset(
    {
        "LOADING",
        "READONLY",
        "MASTERDOWN",
        "NOREPLICAS",
        "MISCONF",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "BUSY",
        "UNKILLABLE",
    }
)
"""Errors that Redis gives before a script's first write: nothing was done."""
_NOT_SENT: Final = ("connecting", "No connection available", "max number of clients")
_TROUBLE: Final = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError)
"""Everything redis-py raises; what its cluster clients say of the cluster as a whole is no `RedisError`."""
_LOADS_MAX: Final = 3


Make = Callable[[int], Sequence[Call[Any]]]
"""Returns the calls that create what is missing, given the time in ms that tests pass, 0 otherwise."""


@dataclass(slots=True)
class Place:
    """Where a queue (or another root) lives, and whether this process has seen it there."""

    queue: str
    root: str
    url: str
    shebang: bool = True
    seen: bool = False
    make: Make | None = None
    """None: as a queue is made, without a note in the catalogue."""


@dataclass(frozen=True, slots=True)
class Eval:
    """A request: run a script."""

    script: Script
    root: str
    args: tuple[Any, ...]
    in_full: bool = False
    """Send the script's text along, for a server that forgets it again and again."""

    def command(self) -> tuple[Any, ...]:
        """Return it as redis-py's command words."""
        name = ("EVAL", self.script.text) if self.in_full else ("EVALSHA", self.script.sha)
        return (*name, 1, f"{self.root}:meta", *self.args)


@dataclass(frozen=True, slots=True)
class Load:
    """A request: make a script known to the server."""

    script: Script


Request = Eval | Load
Exchange = Generator[Request, Any, list[Reply]]


def split(call: Call[Any]) -> list[Call[Any]]:
    """Return the parts of a call that respect its script's batch limit and the limit in bytes, in order."""
    most = call.script.header.batch_max
    if len(call.entries) <= most and call.size_bytes <= BATCH_BYTES_MAX:
        return [call]
    if call.size_bytes:
        most = max(1, min(most, BATCH_BYTES_MAX * len(call.entries) // call.size_bytes))
    return [
        replace(
            call,
            entries=call.entries[first : first + most],
            repeat=None if call.repeat is None else call.repeat[first : first + most],
            size_bytes=call.size_bytes * most // len(call.entries),
        )
        for first in range(0, len(call.entries), most)
    ]


def exchange(call: Call[Any], place: Place) -> Exchange:
    """Yield what to send for one call, take what came back (an answer or an exception), return the replies.

    A script the server does not know is loaded and sent again, in the end with its text: nothing had run. A queue
    that does not exist yet is created, once. A call whose answer was lost is sent once more where its script
    recognises it; after that the outcome is the caller's to find out.
    """
    doubt: BaseException | None = None
    loads = 0
    # As it was when this call was made: of several first calls under way at once each may find no queue yet.
    known = place.seen
    while True:
        script = call.script if place.shebang else call.script.without_shebang()
        now, *common = call.common
        args = (now or "", *common, *(arg for entry in call.entries for arg in entry))
        answer = yield Eval(script, call.root, args, in_full=loads == _LOADS_MAX)
        if isinstance(answer, redis.exceptions.NoScriptError) and loads < _LOADS_MAX:
            loads += 1
            loaded = yield Load(script)
            if isinstance(loaded, Exception):
                raise _translate(loaded, call, place, doubt)
            continue
        if isinstance(answer, Exception):
            again = call.again()
            if _maybe_done(answer) and doubt is None and again is not None:
                doubt, call = answer, again
                continue
            raise _translate(answer, call, place, doubt)
        if answer and isinstance(answer[0], bytes):
            if answer[0] != b"NO_QUEUE":
                raise _refused(answer, place)
            if known:
                raise QueueLost(place.queue)
            known = True
            now_ms = int(call.common[0])
            making = (queues.create(place.root, now_ms=now_ms),) if place.make is None else place.make(now_ms)
            for one in making:
                yield from exchange(one, replace(place, root=one.root))
            continue
        place.seen = place.seen or call.script.name != "create"
        replies: list[Reply] = answer
        return replies


def _refused(answer: Sequence[Any], place: Place) -> HybridqError:
    tag = answer[0].decode()
    if tag == "SCHEMA":
        return SchemaMismatch(place.queue, answer[1].decode(), SCHEMA)
    if tag == "LANES_CHANGED":
        return LanesChanged(place.queue, int(answer[1]))
    return ScriptFailed("?", "?", f"unexpected reply {tag}")


def _maybe_done(problem: Exception) -> bool:
    """Tell whether a call that ended in this exception may have been carried out."""
    if isinstance(problem, (redis.exceptions.AuthenticationError, redis.exceptions.MaxConnectionsError)):
        return False
    if isinstance(problem, (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError)):
        return _word(problem) not in _NOT_DONE and not any(words in str(problem) for words in _NOT_SENT)
    return False


def _word(problem: Exception) -> str:
    """Return the word that Redis began its error with; redis-py takes those it knows off the message."""
    return getattr(problem, "status_code", None) or str(problem).partition(" ")[0]


def _translate(problem: Exception, call: Call[Any], place: Place, doubt: BaseException | None) -> HybridqError:
    """Return our error for one of redis-py, its cause kept. `doubt`: an earlier sending may have worked."""
    error = _translated(problem, call, place)
    reads_only = "no-writes" in call.script.header.flags
    if isinstance(error, OutcomeUnknown) and reads_only:
        error = RedisUnavailable(place.url, str(problem))
    elif isinstance(error, RedisUnavailable) and doubt is not None and not reads_only:
        error = OutcomeUnknown(call.script.name, f"{doubt}; then {problem}")
    error.__cause__ = problem
    return error


def _translated(problem: Exception, call: Call[Any], place: Place) -> HybridqError:
    text = str(problem)
    if _maybe_done(problem):
        return OutcomeUnknown(call.script.name, text or type(problem).__name__)
    if isinstance(problem, redis.exceptions.OutOfMemoryError) or text.startswith("OOM"):
        return QueueFull(place.queue, 0)
    if isinstance(problem, (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError)):
        return RedisUnavailable(place.url, text)
    # A cluster client says so before it has sent the call, or after it was only sent elsewhere, again and again.
    if isinstance(problem, redis.exceptions.RedisClusterException) or _word(problem) in _NOT_DONE:
        return RedisUnavailable(place.url, text)
    return ScriptFailed(call.script.name, call.script.source_of(text), text)


class Runner:
    """Runs Calls on redis-py's blocking client."""

    def __init__(self, connector: Connects, places: Mapping[str, Place]) -> None:
        self._connector, self._places = connector, places
        self._client: SyncRedis | None = None

    def run(self, call: Call[T]) -> T:
        """Run one call to its end and return its value."""
        replies: list[Reply] = []
        for part in split(call):
            replies += self._drive(exchange(part, self._places[call.root]))
        return call.decode(replies)

    def run_all(self, calls: Sequence[Call[Any]]) -> list[Any]:
        """Run calls in one round trip, in order; for each its value, or its error."""
        exchanges = [exchange(call, self._places[call.root]) for call in calls]
        answers = self._send_all([next(one) for one in exchanges])
        results: list[Any] = []
        for call, steps, answer in zip(calls, exchanges, answers, strict=True):
            try:
                results.append(call.decode(self._drive(steps, answer)))
            except HybridqError as error:
                results.append(error)
        return results

    def close(self) -> None:
        """Close the connections; the runner cannot be used afterwards."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _drive(self, steps: Exchange, answer: Any = None) -> list[Reply]:
        try:
            request = steps.send(answer) if answer is not None else next(steps)
            while True:
                request = steps.send(self._send(request))
        except StopIteration as end:
            replies: list[Reply] = end.value
            return replies

    def _send(self, request: Request) -> Any:
        try:
            client = self._connected()
            if isinstance(request, Load):
                return client.script_load(request.script.text)
            return client.execute_command(*request.command())  # type: ignore[no-untyped-call]
        except _TROUBLE as problem:
            return problem

    def _send_all(self, requests: Sequence[Request]) -> list[Any]:
        try:
            client = self._connected()
            if isinstance(client, redis.cluster.RedisCluster):
                return [self._send(request) for request in requests]
            pipe = client.pipeline(transaction=False)
            for request in requests:
                assert isinstance(request, Eval)
                pipe.execute_command(*request.command())
            answers: list[Any] = pipe.execute(raise_on_error=False)
            return answers
        except _TROUBLE as problem:
            return [problem] * len(requests)

    def _connected(self) -> SyncRedis:
        if self._client is None:
            self._client = self._connector.sync()
        return self._client


class AsyncRunner:
    """Runs Calls on redis-py's asyncio client, several in one round trip."""

    def __init__(self, connector: Connects, places: Mapping[str, Place]) -> None:
        self._connector, self._places = connector, places
        self._client: AsyncRedis | None = None
        self.on_silence: Callable[[RedisUnavailable], None] | None = None
        """Told when a server let the time for its answer pass, as soon as that is known."""

    async def run_all(self, calls: Sequence[Call[Any]]) -> list[list[Reply] | Exception]:
        """Run calls, sent together and in order; for each its replies, or its error."""
        exchanges = [exchange(call, self._places[call.root]) for call in calls]
        answers = await self._send_all([next(one) for one in exchanges])
        results: list[list[Reply] | Exception] = []
        sending = _Sending(self._send)
        for steps, answer in zip(exchanges, answers, strict=True):
            try:
                results.append(await self._drive(steps, answer, sending))
            except HybridqError as error:
                results.append(error)
        return results

    async def close(self) -> None:
        """Close the connections; the runner cannot be used afterwards."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _drive(self, steps: Exchange, answer: Any, sending: _Sending) -> list[Reply]:
        try:
            while True:
                request = steps.send(answer)
                answer = await sending(request)
        except StopIteration as end:
            replies: list[Reply] = end.value
            return replies

    async def _send(self, request: Request) -> Any:
        try:
            client = self._connected()
            if isinstance(request, Load):
                return await client.script_load(request.script.text)
            return await client.execute_command(*request.command())
        except _TROUBLE as problem:
            self._note_silence(problem)
            return problem

    async def _send_all(self, requests: Sequence[Request]) -> list[Any]:
        if len(requests) == 1:
            return [await self._send(requests[0])]
        try:
            client = self._connected()
            if not hasattr(client, "connection_pool"):  # a cluster spreads its pipelines, which would lose the order
                return [await self._send(request) for request in requests]
            async with client.pipeline(transaction=False) as pipe:
                for request in requests:
                    assert isinstance(request, Eval)
                    pipe.execute_command(*request.command())
                answers: list[Any] = await pipe.execute(raise_on_error=False)
                return answers
        except _TROUBLE as problem:
            self._note_silence(problem)
            return [problem] * len(requests)

    def _note_silence(self, problem: Exception) -> None:
        # Of a cluster one node may be silent, and the others are not.
        if self.on_silence is not None and _is_silence(problem) and hasattr(self._client, "connection_pool"):
            error = RedisUnavailable(self._connector.safe_url, "what was sent before had no answer in time")
            error.__cause__ = problem
            self.on_silence(error)

    def _connected(self) -> AsyncRedis:
        if self._client is None:
            self._client = self._connector.aio()
        return self._client


class _Sending:
    """Sends what follows in the exchanges of one round trip; of several that are to be sent again the first finds out.

    When that has no answer in time either, the others are told so without another wait: what became of them is as
    unknown as before.
    """

    def __init__(self, send: Callable[[Request], Awaitable[Any]]) -> None:
        self._send = send
        self._silence: Exception | None = None

    async def __call__(self, request: Request) -> Any:
        if self._silence is not None:
            return self._silence
        answer = await self._send(request)
        if isinstance(answer, Exception) and _is_silence(answer):
            self._silence = answer
        return answer


def _is_silence(problem: Exception) -> bool:
    """Tell whether a server was there and said nothing until the time was over."""
    return isinstance(problem, (redis.exceptions.TimeoutError, TimeoutError))
