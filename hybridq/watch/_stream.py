"""One stream that somebody follows, and the two questions of what was read: in which order, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ._position import START, WHOLE, Spot, digest_of
from ._wire import Entry, History

if TYPE_CHECKING:
    from ._follower import Follower

__all__ = ["Stream", "gone_on_from", "in_order"]


class Stream:
    """A stream of events, how far it was read, and who follows it. `queue` is None for a fleet's."""

    __slots__ = ("digest", "followers", "key", "last", "queue")

    def __init__(self, key: str, queue: str | None, last: Spot) -> None:
        self.key, self.queue = key, queue
        self.digest = digest_of(key)
        self.last = last
        """Everything up to here was handed to the followers."""
        self.followers: set[Follower] = set()


def in_order(
    found: Iterable[tuple[Stream, list[Entry]]], count: int
) -> tuple[list[tuple[Entry, Stream]], list[Stream]]:
    """Return entries of several streams by their ids, and the streams that were cut off at `count` entries.

    Nothing past the last entry of a stream that was cut off is returned: what follows there is older than that.
    """
    found = list(found)
    cut = [stream for stream, entries in found if len(entries) >= count]
    limit = min((entries[-1].ms for _, entries in found if len(entries) >= count), default=None)
    merged = [(entry, stream) for stream, entries in found for entry in entries if limit is None or entry.ms <= limit]
    merged.sort(key=lambda one: (one[0].ms, one[0].seq))
    return merged, cut


def gone_on_from(spot: Spot, history: History | None) -> Spot | None:
    """Return where to go on when entries after `spot` may have been dropped unseen; None when nothing is missing.

    Streams are trimmed from their beginning, so as long as an entry at or before `spot` is there, all after it are.
    When the first entry is later, what was between is gone, or nothing was: only a stream that never dropped anything
    is known to be whole, and only from a time on, since an entry that was seen and is not there has been dropped
    itself. A last id below an entry that was seen is a stream that was begun anew: a flush, an older backup, a replica
    that had not heard everything.
    """
    seen = not spot.is_time
    if history is None:
        return START if seen else None
    if history.last[:2] < spot[:2]:
        return history.last if seen else None
    if history.first is None:
        return history.last if history.last > spot else None
    if history.first[:2] <= spot[:2] or (spot.taken == WHOLE and not (seen or history.trimmed)):
        return None
    return history.first.before()
