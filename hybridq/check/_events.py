"""The history a check reads: what each client asked for, when, and what it was answered.

A history is a list of `Event`s, kept in memory or as JSON lines. Its values are plain JSON, and instead of a payload
it holds the payload's SHA-256, so that a history of a million calls stays small and shows no customer's data.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import msgspec

from ..codec import encode_payload
from ..errors import Conflict, HybridqError, NotFound, RedisUnavailable, Refused, UsageError

__all__ = ["Event", "OpenCall", "Recorder", "read_events", "write_events"]

_NOT_DONE: Final = (UsageError, NotFound, Conflict, Refused, RedisUnavailable)
"""Errors that say for certain that the call changed nothing, but for a cancelled start, which says what it did."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call of one client."""

    proc: str
    """Who called: one thread, task or process, which makes one call at a time."""
    op: str
    """The verb, by its name in `Queue`: "enqueue", "claim", "complete" …"""
    args: dict[str, Any] = {}
    """The arguments by name; a lease as `lease`, several as `leases`."""
    t_inv: int
    """When the call was sent, in nanoseconds of a clock that all callers share and that never goes back."""
    t_ret: int | None = None
    """When the answer came; None when none came."""
    type: Literal["ok", "fail", "info"] = "info"
    """ok: it happened. fail: it did not happen. info: nobody knows."""
    result: Any = None
    """The answer of the call when ok, `{"error": name, "message": text}` when it failed."""


_decoder = msgspec.json.Decoder(Event)


class OpenCall:
    """A call under way; say how it ended by `ok` or `fail`, and nothing when nobody knows."""

    def __init__(self) -> None:
        self.type: Literal["ok", "fail", "info"] = "info"
        self.result: Any = None

    def ok(self, result: Any = None) -> None:
        """The call happened and was answered by `result`."""
        self.type, self.result = "ok", plain(result)

    def fail(self, error: BaseException | str) -> None:
        """The call was refused and changed nothing. `error` is the exception, or its name."""
        self.type = "fail"
        self.result = plain(error if isinstance(error, BaseException) else {"error": error})


class Recorder:
    """Writes the history of calls down as they happen. May be shared by threads and tasks.

    ```python
    with recorder.call("claim", proc="w1", queue="builds", agent="w1", request_id=request_id) as call:
        call.ok(queue.claim(request_id=request_id))
    ```

    With a `path` each call is also written there when it is sent and again when it has ended, so that the calls of
    a process that is killed are known too. Processes of one machine write files of their own; `read_events` reads
    several together. `clock` gives nanoseconds.
    """

    def __init__(self, path: Path | str | None = None, *, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._events: list[Event] = []
        self._lock = threading.Lock()
        self._file: BinaryIO | None = open(path, "ab", buffering=0) if path is not None else None  # noqa: SIM115

    @property
    def events(self) -> tuple[Event, ...]:
        """The calls that have ended, in the order they did."""
        with self._lock:
            return tuple(self._events)

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()

    @contextmanager
    def call(self, op: str, /, *, proc: str, **args: Any) -> Iterator[OpenCall]:
        """Time one call, with sync or async code inside.

        An error that leaves the block is noted and goes on: as `fail` when it says that nothing was changed, else
        as `info`. A block that ends without a word is `info` too.
        """
        said = plain(args)
        begun = Event(proc=proc, op=op, args=said, t_inv=self._clock())
        self._write(begun)
        call = OpenCall()
        try:
            yield call
        except HybridqError as error:
            if call.type == "info" and isinstance(error, _NOT_DONE):
                call.fail(error)
            raise
        finally:
            ended = msgspec.structs.replace(begun, t_ret=self._clock(), type=call.type, result=call.result)
            self._write(ended)
            with self._lock:
                self._events.append(ended)

    def _write(self, event: Event) -> None:
        if self._file is not None:
            with self._lock:
                self._file.write(msgspec.json.encode(event) + b"\n")


def write_events(path: Path | str, events: Iterable[Event]) -> None:
    """Write a history as JSON lines, over what the file held."""
    with open(path, "wb") as file:
        file.writelines(msgspec.json.encode(event) + b"\n" for event in events)


def read_events(*paths: Path | str) -> tuple[Event, ...]:
    """Read histories, in the order the calls were sent; a call written twice counts as it was written last.

    A last line that was cut short, as a killed process leaves it, is passed over. Raises `msgspec.DecodeError` for
    any other line that is no event.
    """
    found: dict[tuple[str, str, int], Event] = {}
    for path in paths:
        *lines, rest = Path(path).read_bytes().split(b"\n")
        for line in lines:
            event = _decoder.decode(line)
            found[event.proc, event.op, event.t_inv] = event
        if rest:
            _keep_whole(found, rest)
    return tuple(sorted(found.values(), key=lambda event: event.t_inv))


def _keep_whole(found: dict[tuple[str, str, int], Event], rest: bytes) -> None:
    try:
        event = _decoder.decode(rest)
    except msgspec.DecodeError:
        return
    found[event.proc, event.op, event.t_inv] = event


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: structs as mappings, a `payload` as `payload_sha256`."""
    if isinstance(value, msgspec.Struct):
        return plain({name: getattr(value, name) for name in value.__struct_fields__})
    if isinstance(value, Mapping):
        return dict(_pair(str(name), item) for name, item in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, BaseException):
        return {"error": type(value).__name__, "message": str(value)}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    return value


def _pair(name: str, item: Any) -> tuple[str, Any]:
    if name != "payload":
        return name, plain(item)
    try:
        return "payload_sha256", hashlib.sha256(encode_payload(item)).hexdigest()
    except UsageError:
        return "payload_sha256", None  # no payload at all, so the call will be refused
