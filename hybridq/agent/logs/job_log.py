"""The log of one lease, from the job's output to the server.

    write ─ memory ─ Cleaner ─┬─ head ─ spool (disk) ─ append (network)
                              └─ over the bound: the tail (memory), which follows the head at the end

Only what was cleaned reaches the disk. The job waits for the disk and the cleaning, never for the network: one thread
a log sends what is in the spool, and goes on where the server says that it ends.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from ...errors import HybridqError
from .. import errors
from .cleaner import Cleaner
from .spool import Spool

__all__ = ["JobLog", "LogSummary"]

SPOOL_NAME: Final = "log.spool"
INCOMING_BYTES_MAX: Final = 128 * 1024
LAST_LINES: Final = 20
LAST_LINE_CHARS: Final = 500
RECENT_BYTES: Final = 64 * 1024
BACKOFF_S: Final = 0.25
BACKOFF_S_MAX: Final = 10.0
GAPS_MAX: Final = 10

_LATER: Final = (
    errors.Unreachable,
    errors.ServerAway,
    errors.RateLimited,
    errors.AnswerNotUnderstood,
    errors.Unauthenticated,
)
"""What passes: the server is away, or the agent is about to get another credential."""


class LogSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a log.

    `bytes_written` came from the job, `bytes_sent` the server has taken, `bytes_dropped` were left out between head and
    tail, or for want of disk; `truncated` when there were any. `delivered`: the server has all that was not left out.
    """

    bytes_written: int
    bytes_sent: int
    bytes_dropped: int
    truncated: bool
    delivered: bool
    redactions: int
    last_lines: tuple[str, ...]
    """Of the job's output, the agent's own notes not among them."""
    refused: str | None = None
    """The code of the answer after which nothing more was sent, such as `stale_lease`."""


class JobLog:
    """The log of one lease. Every method may be called from any thread.

    Args:
        folder: Where the spool is kept, until the log is closed.
        append: Sends a piece of the log: given its offset in bytes and its text, returns where the next one begins. It
            raises what `hybridq.agent.errors` has; what passes is tried again, with backoff.
        secrets: Values that must not appear, in any spelling; see `Redactor`.
        bytes_max: How much of the log is kept. What comes first is sent at once, up to `tail_bytes` before that bound;
            of the rest the last `tail_bytes` follow when the log is closed, and a line says how much was left out.
        tail_bytes: How much of the end is kept of a log that is too long.
        chunk_bytes: How much is sent at a time.
        flush_s: How long output may wait for more before it is sent.
        rng: Spreads the waits between attempts.
    """

    def __init__(
        self,
        folder: Path,
        *,
        append: Callable[[int, str], int],
        secrets: Iterable[str | bytes] = (),
        bytes_max: int = 4 * 1024 * 1024,
        tail_bytes: int = 256 * 1024,
        chunk_bytes: int = 64 * 1024,
        flush_s: float = 0.5,
        rng: random.Random | None = None,
    ) -> None:
        self._path = folder / SPOOL_NAME
        self._append = append
        self._bytes_max, self._tail_bytes = bytes_max, min(tail_bytes, bytes_max // 2)
        self._chunk_bytes, self._flush_s = chunk_bytes, flush_s
        self._rng = rng or random.Random()
        self._changed = threading.Condition()
        self._cleaner = Cleaner(secrets)
        self._incoming: list[tuple[str, bytes]] = []
        self._incoming_bytes = 0
        self._written = self._dropped = self._missing = 0
        self._head = _Head(self._bytes_max - self._tail_bytes)
        self._tail = bytearray()
        self._recent = bytearray()
        self._spool: Spool | None = None
        self._sender: threading.Thread | None = None
        self._sent = 0
        self._refused: str | None = None
        self._closing = self._stopped = False
        self._summary: LogSummary | None = None

    # -- what the job says ---------------------------------------------------------------------------------------

    def write(self, data: bytes, stream: str = "stdout") -> None:
        """Take output of the job, in pieces of any size; ignored after the end. Never waits for the network."""
        with self._changed:
            if self._closing or self._stopped or not data:
                return
            self._start()
            self._written += len(data)
            self._incoming.append((stream, bytes(data)))
            self._incoming_bytes += len(data)
            if self._incoming_bytes >= INCOMING_BYTES_MAX:
                self._take_in()
            self._changed.notify_all()

    def note(self, text: str) -> None:
        """Say something of the agent's own: a line `[hybridq] …`, after all output that has come before it."""
        with self._changed:
            if self._closing or self._stopped:
                return
            self._start()
            self._take_in()
            self._keep(self._cleaner.settle())
            self._recent += b"\n"
            self._keep(self._cleaner.note(_noted(text)), of_job=False)
            self._changed.notify_all()

    def add_secrets(self, values: Iterable[str | bytes]) -> None:
        """Look for these values too, from here on."""
        with self._changed:
            for value in values:
                self._cleaner.add(value)

    def redact(self, text: str) -> str:
        """Return a text, such as an error's message, made harmless and without secrets."""
        with self._changed:
            return self._cleaner.whole(text)

    # -- its end -------------------------------------------------------------------------------------------------

    def close(self, *, within_s: float) -> LogSummary:
        """Send what is left, for at most `within_s` seconds; returns what became of the log, each time the same.

        What has not arrived by then never will: the spool is deleted.
        """
        until = time.monotonic() + within_s
        with self._changed:
            if self._summary is None:
                if not self._closing and not self._stopped:
                    self._closing = True
                    self._finish()
                self._changed.notify_all()
                self._changed.wait_for(self._is_over, max(0.0, until - time.monotonic()))
                self._summary = self._summed_up()
                self._end()
            return self._summary

    def abandon(self) -> None:
        """Stop at once and delete the spool: the log is somebody else's now, or nobody's."""
        with self._changed:
            self._end()

    def _is_over(self) -> bool:
        return self._stopped or self._refused is not None or self._spool is None or self._sent == self._spool.size

    def _summed_up(self) -> LogSummary:
        size = self._spool.size if self._spool else 0
        dropped = self._dropped + self._missing
        return LogSummary(
            bytes_written=self._written,
            bytes_sent=self._sent,
            bytes_dropped=dropped,
            truncated=dropped > 0,
            delivered=self._sent == size and not self._missing and not self._stopped,
            redactions=self._cleaner.count,
            last_lines=self._last_lines(),
            refused=self._refused,
        )

    def _last_lines(self) -> tuple[str, ...]:
        text = bytes(self._recent[-RECENT_BYTES:])
        lines = [line.decode("utf-8", "replace") for line in text.split(b"\n") if line.strip()]
        return tuple(line if len(line) <= LAST_LINE_CHARS else line[: LAST_LINE_CHARS - 1] + "…" for line in lines)[
            -LAST_LINES:
        ]

    def _end(self) -> None:
        self._stopped = True
        self._incoming.clear()
        self._tail.clear()
        if self._spool:
            self._spool.delete()
        self._changed.notify_all()

    # -- from memory to the spool, under the lock ----------------------------------------------------------------

    def _start(self) -> None:
        if self._sender is not None:
            return
        self._sender = threading.Thread(target=self._send_all, name="hybridq-log", daemon=True)
        self._sender.start()
        if self._cleaner.too_short:
            said = f"{self._cleaner.too_short} secret(s) of less than 4 characters are not looked for in this log"
            self._keep(self._cleaner.note(_noted(said)), of_job=False)

    def _take_in(self) -> bool:
        """Clean what has come; returns whether there was something."""
        incoming, self._incoming, self._incoming_bytes = self._incoming, [], 0
        at = 0
        while at < len(incoming):
            stream, parts = incoming[at][0], []
            while at < len(incoming) and incoming[at][0] == stream:
                parts.append(incoming[at][1])
                at += 1
            self._keep(self._cleaner.feed(b"".join(parts), stream))
        return bool(incoming)

    def _keep(self, text: bytes, *, of_job: bool = True) -> None:
        """Put cleaned text into the head, or into the tail once the head is full."""
        # What filters have cut may have been cut within a character, and offsets count what is sent.
        text = text.decode("utf-8", "replace").encode()
        if not text:
            return
        if of_job:
            self._recent += text[-RECENT_BYTES:]
            if len(self._recent) > 4 * RECENT_BYTES:
                del self._recent[:-RECENT_BYTES]
        here = self._head.take(text)
        if here:
            self._store(text[:here])
        self._tail += text[here:]
        if len(self._tail) > 2 * self._tail_bytes:
            self._drop(len(self._tail) - self._tail_bytes)

    def _drop(self, count: int) -> None:
        if not self._dropped:
            most = f"{self._bytes_max:,} bytes"
            self._store(
                b"\n"
                + _noted(f"this log is longer than {most}: its middle is left out, its end follows").encode()
                + b"\n"
            )
        self._dropped += count
        del self._tail[:count]

    def _finish(self) -> None:
        """Put everything into the spool that is not there yet."""
        self._take_in()
        self._keep(self._cleaner.flush())
        over = len(self._tail) - self._tail_bytes
        if over > 0 or self._dropped:
            # To the end of a line, when one is near.
            count = max(0, over)
            line_end = self._tail.find(b"\n", max(0, count - 1), count + 4096) + 1
            while line_end == 0 and count < len(self._tail) and self._tail[count] & 0xC0 == 0x80:
                count += 1
            self._drop(line_end or count)
        if self._dropped:
            self._store(_noted(f"{self._dropped:,} bytes are left out here").encode() + b"\n")
        self._store(bytes(self._tail))
        self._tail.clear()

    def _store(self, text: bytes) -> None:
        """Append to the spool; what the disk has no room for is missing, and the log says so once there is room."""
        if not text and not self._missing:
            return
        said = b""
        if self._missing:
            said = b"\n" + _noted(f"{self._missing:,} bytes are missing here: the agent's disk failed").encode() + b"\n"
        try:
            if self._spool is None:
                self._spool = Spool(self._path)
            self._spool.append(said + text)
        except OSError:
            self._missing += len(text)
        else:
            self._dropped, self._missing = self._dropped + self._missing, 0

    # -- from the spool to the server, in the sender's thread ----------------------------------------------------

    def _send_all(self) -> None:
        failures = gaps = 0
        while (piece := self._next_piece()) is not None:
            offset, text = piece
            try:
                after = self._append(offset, text.decode("utf-8", "replace"))
            except errors.OffsetGap as gap:
                gaps += 1
                if gaps > GAPS_MAX or not self._go_on_at(gap.expected):
                    self._refuse(gap.code)
            except _LATER as trouble:
                failures += 1
                self._wait_after(failures, getattr(trouble, "retry_after_s", None))
            except HybridqError as refusal:
                self._refuse(getattr(refusal, "code", type(refusal).__name__))
            except Exception as fault:
                # The thread alone knows of it, and whoever closes the log must not wait for it in vain.
                self._refuse(type(fault).__name__)
            else:
                failures = gaps = 0
                if after <= offset or not self._go_on_at(after):
                    self._refuse("offset_not_understood")
        with self._changed:
            self._changed.notify_all()
            if self._spool and self._stopped:
                self._spool.close()

    def _next_piece(self) -> tuple[int, bytes] | None:
        """Wait for something to send; None when nothing more will be."""
        with self._changed:
            while not self._stopped and self._refused is None:
                if not self._closing:
                    self._take_in()
                if self._spool and self._spool.size > self._sent:
                    return self._sent, self._spool.read(self._sent, self._chunk_bytes)
                self._changed.notify_all()
                if self._closing:
                    break  # all is sent, and nothing more will come
                if not self._changed.wait_for(self._has_news, self._flush_s):
                    # Quiet: the line that has not ended may be a question.
                    self._keep(self._cleaner.pause())
                    self._changed.wait_for(self._has_news)
                # More may be about to come.
                self._changed.wait_for(lambda: self._stopped or self._closing, self._flush_s)
            self._changed.wait_for(lambda: self._stopped)
            return None

    def _has_news(self) -> bool:
        unsent = self._spool is not None and self._spool.size > self._sent
        return self._stopped or self._closing or unsent or bool(self._incoming)

    def _go_on_at(self, offset: int) -> bool:
        with self._changed:
            if self._spool is None or not 0 <= offset <= self._spool.size:
                return False
            self._sent = offset
            self._changed.notify_all()
            return True

    def _refuse(self, code: str) -> None:
        with self._changed:
            self._refused = code
            self._changed.notify_all()

    def _wait_after(self, failures: int, asked_s: float | None) -> None:
        most_s = min(BACKOFF_S_MAX, BACKOFF_S * 2.0 ** min(failures, 10))
        wait_s = max(self._rng.uniform(0, most_s), min(asked_s or 0.0, BACKOFF_S_MAX))
        with self._changed:
            closing = self._closing
            self._changed.wait_for(lambda: self._stopped or self._closing is not closing, wait_s)


class _Head:
    """How much of the beginning may still be taken; once something was not, nothing more is."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max

    def take(self, text: bytes) -> int:
        """Return how many bytes of `text` belong to the head."""
        if len(text) <= self._left:
            self._left -= len(text)
            return len(text)
        end, self._left = self._left, 0
        while end > 0 and text[end] & 0xC0 == 0x80:
            end -= 1
        return end


def _noted(text: str) -> str:
    return f"[hybridq] {text}"
