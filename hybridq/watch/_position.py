"""Where a follower stands in many streams at once, and how that is written into one short text.

A position is a time `t` and the spots of a few streams. A stream that is named goes on at its spot; one that is not
goes on with its first entry at or after `t`. So the text stays short with a thousand pools, of which few move at once.

Why nothing is lost and nothing comes twice. Entries of a stream have ascending ids, and an id begins with the
server's clock in ms. `safe` is a time before which everything of every followed stream has been handed out: readers
hand out what one XREAD gave in the order of its ids, and never past the end of what a stream was cut off at. `t` is
kept at or below `safe`, and every stream whose spot is at or past `t` is named. So a stream that is not named has
nothing at or after `t` that was handed out, and nothing before `t` that was not: to go on with its first entry at or
after `t` is exact. A pool nobody knew of when the text was made is not named either, and goes on at `t`.

`t` stays `SLACK_MS` behind `safe` where there is room: a clock that was set back (a replica that took over), and a
pool that was found a little late, would otherwise have entries before `t` that nobody has seen. When more than
`NAMED` streams moved within that time, `t` is drawn nearer to `safe`. Should even that not do (many nodes of a cluster,
some of them silent), up to `NAMED_MAX` are named, and beyond that the longest unmoved would repeat rather than lose.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from ..errors import InvalidArgument

__all__ = ["DIGEST_BYTES", "SEQ_MAX", "SLACK_MS", "START", "WHOLE", "Bookmark", "Marks", "Spot", "digest_of"]

WHOLE: Final = 255
SEQ_MAX: Final = 2**64 - 1
MS_MAX: Final = 2**53
SLACK_MS: Final = 60_000
NAMED: Final = 32
NAMED_MAX: Final = 256
TEXT_MAX: Final = 8_192
DIGEST_BYTES: Final = 6
_VERSION: Final = b"\x01"
_CHECK_BYTES: Final = 4
_TEXT = re.compile(r"[A-Za-z0-9_-]+")
ALLOWED: Final = "the id of an event of this namespace, as it was given"


class Spot(NamedTuple):
    """A place in a stream: an entry's id, and how many events of that entry were taken, `WHOLE` for all."""

    ms: int
    seq: int
    taken: int = WHOLE

    @classmethod
    def parse(cls, text: bytes) -> Spot:
        """Return the spot after the entry of this id."""
        ms, _, seq = text.partition(b"-")
        return cls(int(ms), int(seq))

    @classmethod
    def at_ms(cls, ms: int) -> Spot:
        """Return the spot before every entry of this time, and after all earlier ones."""
        return cls(ms - 1, SEQ_MAX) if ms > 0 else START

    @property
    def text(self) -> str:
        """Where XREAD, which gives what comes after, has to begin."""
        ms, seq = self.ms, self.seq
        if self.taken != WHOLE:  # the entry is read again, for the rest of its events
            ms, seq = (ms, seq - 1) if seq else (ms - 1, SEQ_MAX)
        return f"{ms}-{seq}"

    @property
    def is_time(self) -> bool:
        """Whether it stands for a time, or for the beginning, rather than for an entry that was there."""
        return self.taken == WHOLE and (self.seq == SEQ_MAX or self == START)

    def before(self) -> Spot:
        """Return the spot before this entry."""
        return Spot(self.ms, self.seq, 0)


START: Final = Spot(0, 0)
"""Before everything."""


def digest_of(key: str) -> bytes:
    """Return what stands for a stream's key in a text: two of 1,000 are the same once in 500 million fleets."""
    return hashlib.blake2b(key.encode(), digest_size=DIGEST_BYTES).digest()


class Bookmark(NamedTuple):
    """What a text says."""

    t_ms: int
    spots: dict[bytes, Spot]

    @classmethod
    def parse(cls, namespace: str, text: str) -> Bookmark:
        """Read a text. Raises `InvalidArgument` when it was not made here for this namespace."""
        wrong = InvalidArgument("after", "…", ALLOWED)
        if not isinstance(text, str) or len(text) > TEXT_MAX or _TEXT.fullmatch(text) is None:
            raise wrong
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except binascii.Error:
            raise wrong from None
        body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
        if body[:1] != _VERSION or check != _check(namespace, body) or _text(raw) != text:
            raise wrong
        try:
            t_ms, at = _read(body, 1)
            spots: dict[bytes, Spot] = {}
            while at < len(body):
                digest = body[at : at + DIGEST_BYTES]
                ms, at = _read(body, at + DIGEST_BYTES)
                seq, at = _read(body, at)
                spots[digest] = Spot(ms, seq, body[at])
                at += 1
        except IndexError:
            raise wrong from None
        if t_ms > MS_MAX or any(spot.ms > MS_MAX or spot.seq > SEQ_MAX for spot in spots.values()):
            raise wrong
        return cls(t_ms, spots)


class Marks:
    """How far a follower has been told, kept as what its next text has to say."""

    def __init__(self, namespace: str, t_ms: int, spots: Iterable[tuple[bytes, Spot]], *, safe_ms: int) -> None:
        self._namespace = namespace
        self._t_ms, self._safe_ms = t_ms, safe_ms
        # In the order in which they moved, so the one to forget first stands first.
        self._named: dict[bytes, tuple[int, bytes]] = {}
        self._pinned: dict[bytes, tuple[int, bytes]] = {}
        for digest, spot in sorted(spots, key=lambda one: one[1]):
            if spot.ms >= t_ms:
                self._named[digest] = (spot.ms, _chunk(digest, spot))
        self._shorten()

    @property
    def t_ms(self) -> int:
        """Where streams that are not named go on."""
        return self._t_ms

    @property
    def crowded(self) -> bool:
        """Whether more streams are named than is comfortable."""
        return len(self._named) > NAMED

    def move(self, digest: bytes, spot: Spot) -> None:
        """Note that a stream was handed out up to `spot`."""
        named = self._pinned if digest in self._pinned else self._named
        named.pop(digest, None)
        named[digest] = (spot.ms, _chunk(digest, spot))

    def pin(self, digest: bytes, spot: Spot) -> None:
        """Name a stream whatever `t` is: it is followed from a time at which others have long been further."""
        if len(self._pinned) < NAMED_MAX:
            self._named.pop(digest, None)
            self._pinned[digest] = (spot.ms, _chunk(digest, spot))

    def unpin(self) -> None:
        """Note that the streams that were pinned have caught up with the others."""
        self._named |= self._pinned
        self._pinned.clear()

    def advance(self, safe_ms: int) -> None:
        """Note that everything before `safe_ms` was handed out, of all streams that are not pinned."""
        self._safe_ms = max(self._safe_ms, safe_ms)
        self._raise(self._safe_ms - SLACK_MS)
        self._shorten()

    def text(self) -> str:
        """Return the position as text."""
        chunks = [_VERSION, _varint(self._t_ms)]
        chunks.extend(chunk for _, chunk in self._named.values())
        chunks.extend(chunk for _, chunk in self._pinned.values())
        body = b"".join(chunks)
        return _text(body + _check(self._namespace, body))

    def _raise(self, t_ms: int) -> None:
        if t_ms <= self._t_ms:
            return
        self._t_ms = t_ms
        while self._named:
            digest = next(iter(self._named))
            if self._named[digest][0] >= t_ms:
                break
            del self._named[digest]

    def _shorten(self) -> None:
        while len(self._named) > NAMED:
            digest = next(iter(self._named))
            ms = self._named[digest][0]
            if ms < self._safe_ms:
                del self._named[digest]
                self._raise(ms + 1)
            elif len(self._named) > NAMED_MAX:
                del self._named[digest]
            else:
                break


def _chunk(digest: bytes, spot: Spot) -> bytes:
    return digest + _varint(spot.ms) + _varint(spot.seq) + bytes((spot.taken,))


def _check(namespace: str, body: bytes) -> bytes:
    """Four bytes that tell a text that was mangled, or made for another namespace. No secret: ids grant nothing."""
    return hashlib.blake2b(body, digest_size=_CHECK_BYTES, key=namespace.encode()).digest()


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _read(raw: bytes, at: int) -> tuple[int, int]:
    n = shift = 0
    while True:
        byte = raw[at]
        n |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return n, at
        if shift > 63:
            raise IndexError
