"""The network between agents and the API: it breaks on demand, and writes down every call that it carries.

A `Tap` is a `Proxy` that reads along. What it hears becomes the history that `hybridq.check.history` judges, in the
terms of the library: a request is an open call from the moment it has come whole, and what the API answered is known
even when the network then loses the answer. A call without an answer stays in doubt.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httptools
import msgspec

from hybridq.check import Recorder
from hybridq.check._events import OpenCall
from tests.proxy import CHUNK_BYTES, Proxy, _Link

JOB = re.compile(r"/api/queue/jobs/([^/:?]+)(?:/(start|complete|release))?")
AGENT_BEAT = re.compile(r"/api/agents/[^/]+/heartbeat")
DEREGISTER = re.compile(r"/api/agents/[^/]+/deregister")
SURE = frozenset({200, 201, 202, 204})
REST_S = 2.0
IN_DOUBT = 500
"""From here on: nobody says whether it happened."""


@dataclass(slots=True)
class Heard:
    """One request and what came back; `status` 0: nothing came."""

    method: str
    path: str
    asked: Any
    status: int = 0
    answer: Any = None


class Tap(Proxy):
    """A proxy in front of the API at `port`. `heard` is everything that went through, in the order of sending.

    `pool` is the one that is meant where a request names none.
    """

    def __init__(self, port: int, name: str, recorder: Recorder, pool: str) -> None:
        super().__init__(f"redis://127.0.0.1:{port}")
        self.name, self.recorder, self.pool = name, recorder, pool
        self.heard: list[Heard] = []
        self.held: dict[int, dict[str, Any]] = {}
        """fence → lease that was handed out here, and not reported on since."""
        self._numbers = itertools.count()

    @property
    def url(self) -> str:
        """Where clients connect instead of to the API."""
        return super().url.replace("redis://", "http://", 1)

    def calls(self, method: str, ending: str) -> list[Heard]:
        """Return what was heard of one kind of call so far."""
        return [heard for heard in self.heard if heard.method == method and heard.path.endswith(ending)]

    def _link(self) -> _Link:
        return _HeardLink(self, f"{self.name}#{next(self._numbers)}")


class _HeardLink(_Link):
    """A connection that is listened to. Requests and answers alternate, as HTTP/1.1 clients have it."""

    def __init__(self, tap: Tap, proc: str) -> None:
        super().__init__(tap)
        self._tap, self._proc = tap, proc
        self._request = _Message(self._asked)
        self._answer = _Message(self._answered)
        self._open: _OpenHeard | None = None

    async def requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = httptools.HttpRequestParser(self._request)
        self._request.parser = parser
        await super().requests(_Ear(reader, parser.feed_data), writer)  # type: ignore[arg-type]

    async def replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = httptools.HttpResponseParser(self._answer)
        self._answer.parser = parser
        ear = _Ear(reader, parser.feed_data)
        try:
            await super().replies(ear, writer)  # type: ignore[arg-type]
            # An answer that the network loses may come in several pieces.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REST_S):
                    while self._open is not None and await ear.read(CHUNK_BYTES):
                        pass
        finally:
            self._close()

    def _asked(self, message: _Message) -> None:
        method = message.parser.get_method().decode()
        heard = Heard(method, message.url, _decoded(message.body))
        self._tap.heard.append(heard)
        self._open = _OpenHeard(heard, self._tap, self._proc)

    def _answered(self, message: _Message) -> None:
        if self._open is not None:
            self._open.heard.status = message.parser.get_status_code()
            self._open.heard.answer = _decoded(message.body)
        self._close()

    def _close(self) -> None:
        if self._open is not None:
            self._open.end()
        self._open = None


class _Ear:
    """A reader whose bytes are also told to somebody."""

    def __init__(self, reader: asyncio.StreamReader, tell: Callable[[bytes], object]) -> None:
        self._reader, self._tell = reader, tell

    async def read(self, count: int) -> bytes:
        chunk = await self._reader.read(count)
        if chunk:
            self._tell(chunk)
        return chunk


@dataclass
class _Message:
    """What httptools tells while it parses one direction."""

    whole: Callable[[_Message], None]
    parser: Any = None
    url: str = ""
    pieces: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def on_message_begin(self) -> None:
        self.url, self.pieces = "", []

    def on_url(self, url: bytes) -> None:
        self.url += url.decode("ascii", "replace")

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        self.whole(self)


def _decoded(body: bytes) -> Any:
    with contextlib.suppress(msgspec.DecodeError):
        return msgspec.json.decode(body)
    return None


# -- from HTTP to the terms of the library -------------------------------------------------------------------------


class _OpenHeard:
    """A call under way; those that no rule speaks of are not recorded."""

    def __init__(self, heard: Heard, tap: Tap, proc: str) -> None:
        self.heard, self._tap, self._proc = heard, tap, proc
        self._stack = contextlib.ExitStack()
        self._call: OpenCall | None = None
        told = next(told_of(heard, tap.pool), None)
        if told is not None:
            self._op, self._args = told
            self._call = self._stack.enter_context(tap.recorder.call(self._op, proc=proc, **self._args))

    def end(self) -> None:
        if self._call is not None:
            _end(self._call, self._op, self._args, self.heard)
            self._note_leases(self._call)
        self._stack.close()
        if DEREGISTER.fullmatch(self.heard.path) and not 400 <= self.heard.status < IN_DOUBT:
            self._give_back()

    def _note_leases(self, call: OpenCall) -> None:
        if call.type == "ok" and self._op == "claim":
            self._tap.held |= {lease["fence"]: lease for lease in call.result}
        if call.type != "info" and self._op in ("complete", "release"):
            self._tap.held.pop(self._args["lease"]["fence"], None)
        if call.type == "ok" and self._op == "heartbeat":
            for lease in self._args["leases"]:
                if lease["job_id"] not in call.result["renewed"]:
                    self._tap.held.pop(lease["fence"], None)

    def _give_back(self) -> None:
        """Who deregisters hands back whatever it still holds, uncharged; nobody says what that was."""
        for lease in self._tap.held.values():
            told = {name: lease[name] for name in ("job_id", "fence", "lease_id")}
            with self._tap.recorder.call("release", proc=self._proc, queue=lease["queue"], lease=told):
                pass
        self._tap.held.clear()


def told_of(heard: Heard, pool: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the verb and arguments of a request, when it is one of a queue's."""
    path, asked = urlsplit(heard.path), heard.asked if isinstance(heard.asked, dict) else {}
    if path.path == "/api/queue/claim":
        claim = {"agent": asked["agent_id"], "n": asked.get("max", 1), "request_id": asked.get("request_id")}
        yield "claim", {"queue": asked.get("pool") or pool, **claim}
    elif path.path == "/api/queue/jobs" and heard.method == "POST":
        yield "enqueue", _spec(asked, pool)
    elif path.path == "/api/queue/heartbeat" or AGENT_BEAT.fullmatch(path.path):
        leases = [_lease(each["id"], each["lease_token"]) for each in asked.get("leases") or ()]
        if leases:
            yield "heartbeat", {"queue": leases[0].pop("queue"), "leases": leases}
    elif found := JOB.fullmatch(path.path):
        yield from _of_job(heard.method, found[1], found[2], asked, parse_qs(path.query))


def _of_job(method: str, full_id: str, verb: str | None, asked: Any, query: Any) -> Iterator[tuple[str, Any]]:
    if verb is not None:
        lease = _lease(full_id, asked["lease_token"])
        said = {name: asked[name] for name in ("outcome",) if name in asked}
        yield verb, {"queue": lease.pop("queue"), "lease": lease, **said}
        return
    queue, _, job_id = full_id.partition("~")
    if method == "GET":
        yield "job", {"queue": queue, "job_id": job_id}
    elif method == "DELETE":
        yield "cancel", {"queue": queue, "job_id": job_id}


def _spec(asked: dict[str, Any], pool: str) -> dict[str, Any]:
    said = {name: value for name, value in asked.items() if value is not None and name != "pool"}
    if "delay_seconds" in said:
        said["delay_s"] = said.pop("delay_seconds")
    return {"queue": asked.get("pool") or pool, **said}


def _lease(full_id: str, token: str) -> dict[str, Any]:
    queue, _, job_id = full_id.partition("~")
    fence, _, lease_id = token.partition(".")
    return {"queue": queue, "job_id": job_id, "fence": int(fence), "lease_id": lease_id}


def _end(call: OpenCall, op: str, args: dict[str, Any], heard: Heard) -> None:
    if heard.status in SURE:
        call.ok(_result(op, args, heard))
    elif op == "claim" and heard.status == 404:
        call.ok([])
    elif 400 <= heard.status < IN_DOUBT:
        call.fail(_ERRORS.get(str((heard.answer or {}).get("code")), "Refused"))


_ERRORS = {"job_not_found": "JobNotFound", "cancelled": "JobCancelled", "job_conflict": "JobConflict"}


def _result(op: str, args: dict[str, Any], heard: Heard) -> Any:
    answer = heard.answer
    if op == "claim":
        return [_granted(args["agent"], job) for job in answer["jobs"]]
    if op == "enqueue":
        return {"job_id": answer["job_id"], "status": answer["status"], "created": heard.status == 201}
    if op == "heartbeat":
        return {"renewed": [each["id"].partition("~")[2] for each in answer["renewed"]]}
    if op == "complete":
        # The job is shown as it is now: for a repeated report, what became of it since.
        return {"status": "QUEUED" if answer["retried"] else answer["job"]["status"], "replayed": answer["replayed"]}
    if op == "job":
        ended = [attempt for attempt in answer.get("attempts") or () if attempt["outcome"]]
        return {"job_id": answer["job_id"], "status": answer["status"], "attempts": ended}
    return {"status": answer["status"]}


def _granted(agent: str, job: dict[str, Any]) -> dict[str, Any]:
    lease = _lease(job["id"], job["lease_token"])
    known = ("priority", "status", "attempt", "max_attempts", "deliveries", "generation", "payload")
    said = {name: job[name] for name in known if job[name] is not None}
    if job["status"] == "CLAIMED":
        said["attempt"] += 1  # the library counts the attempt that a claim leads to
    return {**lease, **said, "agent": agent}
