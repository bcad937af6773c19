"""Ids of events: however many streams there are, going on after one gives what was not seen, and nothing twice."""

from __future__ import annotations

import random

import pytest

from hybridq import InvalidArgument
from hybridq.watch._position import SLACK_MS, START, WHOLE, Bookmark, Marks, Spot, digest_of
from hybridq.watch._stream import Stream, gone_on_from, in_order
from hybridq.watch._wire import Entry, History

NOW_MS = 1_700_000_000_000
HEADER_BYTES = 16_384


def test_a_text_says_what_was_put_in() -> None:
    spots = {digest_of(f"s{n}"): Spot(NOW_MS + n, 2**64 - 1 - n, WHOLE if n % 2 else n) for n in range(20)}

    read = Bookmark.parse("a", Marks("a", NOW_MS, spots.items(), safe_ms=NOW_MS).text())

    assert (NOW_MS, spots) == read


TEXT = Marks("a", NOW_MS, [(digest_of("s"), Spot(NOW_MS, 3, 2))], safe_ms=NOW_MS).text()
MALFORMED = {
    "empty": "",
    "not base64": "&&&&",
    "one letter": "A",
    "padded": TEXT + "=",
    "cut": TEXT[:-4],
    "longer": TEXT + "AAAA",
    "another letter": TEXT[:8] + ("A" if TEXT[8] != "A" else "B") + TEXT[9:],
    "not ASCII": TEXT + "é",
    "a line break": TEXT + "\n",
    "a number": "12345678",
    "long": "A" * 100_000,
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_what_was_not_made_here_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Bookmark.parse("a", text)

    assert len(text) < 8 or text not in str(caught.value)


def test_every_change_of_a_letter_is_noticed() -> None:
    for at, letter in enumerate(TEXT):
        changed = TEXT[:at] + ("A" if letter != "A" else "B") + TEXT[at + 1 :]
        with pytest.raises(InvalidArgument):
            Bookmark.parse("a", changed)


def test_an_id_of_another_namespace_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        Bookmark.parse("b", TEXT)


class World:
    """Streams that grow by a clock, a follower that takes all events in the order of their ids, and what it missed."""

    def __init__(self, streams: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.keys = [digest_of(f"s{n}") for n in range(streams)]
        self.entries: dict[bytes, list[Spot]] = {key: [] for key in self.keys}
        self.line: list[tuple[Spot, bytes]] = []
        self.ms = NOW_MS

    def grow(self, events: int, streams_at_once: int, pace_ms: int) -> None:
        for _ in range(events):
            self.ms += self.rng.randrange(pace_ms + 1)
            for key in self.rng.sample(self.keys, self.rng.randrange(1, streams_at_once + 1)):
                last = self.entries[key][-1] if self.entries[key] else START
                spot = Spot(self.ms, last.seq + 1 if last.ms == self.ms else 0)
                self.entries[key].append(spot)
                self.line.append((spot, key))
        self.line.sort()

    def resumed(self, text: str) -> set[tuple[bytes, Spot]]:
        bookmark = Bookmark.parse("a", text)
        return {
            (key, spot)
            for key, spots in self.entries.items()
            for spot in spots
            if spot > bookmark.spots.get(key, Spot.at_ms(bookmark.t_ms))
        }


@pytest.mark.parametrize("streams", [1, 3, 40, 1000])
@pytest.mark.parametrize("pace_ms", [0, 1, 100, SLACK_MS], ids="{}ms".format)
def test_going_on_gives_exactly_what_was_not_taken(streams: int, pace_ms: int) -> None:
    """At every event; and the id always fits a header."""
    at_once = min(20, streams)
    world = World(streams, seed=streams + pace_ms)
    world.grow(100, at_once, pace_ms)
    rest = {(key, spot) for spot, key in world.line}
    marks = Marks("a", NOW_MS - SLACK_MS, [(key, START) for key in world.keys], safe_ms=NOW_MS)

    for number, (spot, key) in enumerate(world.line):
        rest.discard((key, spot))
        marks.move(key, spot)
        # With a pace of 0 everything happens in one ms, which no server manages with so many streams.
        marks.advance(spot.ms)
        text = marks.text()
        assert len(text) < HEADER_BYTES / 2
        if number % 50 == 0 and (pace_ms or streams <= 200):
            assert rest == world.resumed(text)


def test_an_id_names_few_streams_when_few_moved_lately() -> None:
    world = World(1000, seed=1)
    world.grow(2_000, 1, 100)
    marks = Marks("a", NOW_MS - SLACK_MS, [], safe_ms=NOW_MS)
    longest = 0
    for spot, key in world.line:
        marks.move(key, spot)
        marks.advance(spot.ms)
        longest = max(longest, len(marks.text()))

    assert longest < 800


def test_a_clock_that_was_set_back_costs_nothing_within_the_slack() -> None:
    """A replica with a slow clock took over: its entries bear times that lie before what was seen."""
    marks = Marks("a", NOW_MS - SLACK_MS, [], safe_ms=NOW_MS)
    marks.move(digest_of("busy"), Spot(NOW_MS + 1_000, 0))
    marks.advance(NOW_MS + 1_000)

    later = Bookmark.parse("a", marks.text())

    assert later.t_ms <= NOW_MS - 50_000, "an entry of another stream at that time is still to come"
    assert {digest_of("busy"): Spot(NOW_MS + 1_000, 0)} == later.spots


def test_a_stream_that_has_to_catch_up_is_named_until_it_has() -> None:
    marks = Marks("a", NOW_MS, [], safe_ms=NOW_MS)
    late = digest_of("late")
    marks.advance(NOW_MS + 10 * SLACK_MS)
    marks.pin(late, Spot.at_ms(NOW_MS))
    for n in range(500):
        marks.move(digest_of(f"s{n}"), Spot(NOW_MS + 10 * SLACK_MS + n, 0))
        marks.advance(NOW_MS + 10 * SLACK_MS + n)
    assert Spot.at_ms(NOW_MS) == Bookmark.parse("a", marks.text()).spots[late]

    marks.move(late, Spot(NOW_MS + 5, 0))
    assert Spot(NOW_MS + 5, 0) == Bookmark.parse("a", marks.text()).spots[late]

    marks.unpin()
    marks.advance(NOW_MS + 20 * SLACK_MS)
    assert {} == Bookmark.parse("a", marks.text()).spots


def test_what_was_read_is_in_order_up_to_where_a_stream_was_cut_off() -> None:
    """What follows in that stream is older than what others have beyond it, and must come before."""
    busy, calm = Stream("busy", "busy", START), Stream("calm", "calm", START)
    reads = [
        (busy, [Entry(NOW_MS + n, 0, ()) for n in range(3)]),
        (calm, [Entry(NOW_MS + 2, 0, ()), Entry(NOW_MS + 9, 0, ())]),
    ]

    merged, cut = in_order(reads, 3)
    assert [(0, busy), (1, busy), (2, busy), (2, calm)] == [(entry.ms - NOW_MS, stream) for entry, stream in merged]
    assert [busy] == cut

    merged, cut = in_order(reads, 4)
    assert [0, 1, 2, 2, 9] == [entry.ms - NOW_MS for entry, _ in merged]
    assert [] == cut


SEEN, TIME, AGAIN = Spot(50, 1), Spot.at_ms(50), Spot(50, 1, 0)
AFTER_A_GAP = Spot(60, 2, 0)
GAPS: dict[str, tuple[Spot, History | None, Spot | None]] = {
    "no stream, nothing was seen": (TIME, None, None),
    "no stream, and one was seen": (SEEN, None, START),
    "from the beginning": (START, History(Spot(60, 2), Spot(70, 0), False), None),
    "from the beginning, which is gone": (START, History(Spot(60, 2), Spot(70, 0), True), AFTER_A_GAP),
    "the entry is there": (SEEN, History(Spot(50, 1), Spot(70, 0), True), None),
    "an earlier one is there": (SEEN, History(Spot(40, 0), Spot(70, 0), True), None),
    "the entry is gone": (SEEN, History(Spot(60, 2), Spot(70, 0), True), AFTER_A_GAP),
    "the stream was begun anew": (SEEN, History(Spot(60, 2), Spot(70, 0), False), AFTER_A_GAP),
    "the stream was begun anew in the past": (SEEN, History(Spot(20, 2), Spot(30, 0), False), Spot(30, 0)),
    "half an entry, and it is there": (Spot(50, 1, 3), History(Spot(50, 1), Spot(70, 0), True), None),
    "half an entry, and it is gone": (Spot(50, 1, 3), History(Spot(60, 2), Spot(70, 0), True), AFTER_A_GAP),
    "after a gap": (AGAIN, History(Spot(50, 1), Spot(70, 0), True), None),
    "after a gap, and another": (AGAIN, History(Spot(60, 2), Spot(70, 0), True), AFTER_A_GAP),
    "a time in a stream that is whole": (TIME, History(Spot(60, 2), Spot(70, 0), False), None),
    "a time before what is left": (TIME, History(Spot(60, 2), Spot(70, 0), True), AFTER_A_GAP),
    "a time within what is left": (TIME, History(Spot(40, 2), Spot(70, 0), True), None),
    "a time after everything": (TIME, History(Spot(20, 2), Spot(30, 0), True), None),
    "emptied, and the last was seen": (SEEN, History(None, Spot(50, 1), True), None),
    "emptied, and the last was not seen": (SEEN, History(None, Spot(70, 0), True), Spot(70, 0)),
    "emptied, and half an entry was seen": (Spot(50, 1, 3), History(None, Spot(50, 1), True), Spot(50, 1)),
    "emptied before the time": (TIME, History(None, Spot(30, 0), True), None),
    "emptied after the time": (TIME, History(None, Spot(70, 0), True), Spot(70, 0)),
}


@pytest.mark.parametrize(("spot", "history", "on"), GAPS.values(), ids=GAPS)
def test_missing_history_is_noticed(spot: Spot, history: History | None, on: Spot | None) -> None:
    assert on == gone_on_from(spot, history)


@pytest.mark.parametrize("spot", [SEEN, TIME, AGAIN, Spot(50, 1, 3)])
@pytest.mark.parametrize("history", [history for _, history, _ in GAPS.values()])
def test_what_was_noticed_once_is_not_noticed_again(spot: Spot, history: History | None) -> None:
    """Else a reset would follow a reset for ever."""
    on = gone_on_from(spot, history)

    if on is not None:
        assert gone_on_from(on, history) is None
