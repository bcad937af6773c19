"""Streams of events that break: they go on where they were, and say nothing twice."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from hybridq.agent import AnswerNotUnderstood, Forbidden, Unauthenticated, Unreachable
from hybridq.errors import InvalidArgument
from tests.agent.colours import in_a_hurry
from tests.agent.scripted import HTML, Reply, Scripted, problem
from tests.api.client import Api
from tests.proxy import Proxy
from tests.servers import wait_until

SSE = "text/event-stream"


def stream(*blocks: str, **options: Any) -> Reply:
    return Reply(200, "".join(f"{block}\n\n" for block in blocks).encode(), SSE, **options)


def event(id: str, type: str = "job.completed", **data: Any) -> str:
    body = "".join(f',"{name}":"{value}"' for name, value in data.items())
    return f'id: {id}\nevent: {type}\ndata: {{"type":"{type}","at":"2026-11-25T12:00:00Z","pool":"a"{body}}}'


def take(many: int, events: Any) -> list[Any]:
    try:
        return list(itertools.islice(events, many))
    finally:
        events.close()


def test_a_stream_goes_on_where_it_broke(client: Any, scripted: Scripted) -> None:
    scripted.replies = [
        stream("retry: 10\nid: p0", ": ping", event("p1", job_id="a~j1")),
        Reply(503, b"", HTML),
        stream(event("p2", job_id="a~j2"), event("p3", job_id="a~j3"), cut=10),
        stream(event("p2", job_id="a~j2"), event("p3", "reset")),
    ]
    found = take(3, client.events(pool=["a", "b"], types=["job", "agent.lost"]))
    assert [(each.id, each.type, each.job_id) for each in found] == [
        ("p1", "job.completed", "a~j1"),
        ("p2", "job.completed", "a~j2"),
        ("p3", "reset", None),
    ]
    assert found[0].at.year == 2026 and found[0].pool == "a"
    assert {request.path for request in scripted.requests} == {"/api/events?pool=a&pool=b&types=job%2Cagent.lost"}
    assert [request.headers.get("last-event-id") for request in scripted.requests] == [None, "p1", "p1", "p1"]
    assert scripted.requests[0].headers["accept"] == SSE


def test_an_id_without_an_event_is_where_to_go_on(client: Any, scripted: Scripted) -> None:
    scripted.replies = [stream("id: p7"), stream(event("p8"))]
    assert take(1, client.events(last_event_id="p1"))[0].id == "p8"
    assert [request.headers["last-event-id"] for request in scripted.requests] == ["p1", "p7"]


def test_what_cannot_be_read_is_passed_over(client: Any, scripted: Scripted) -> None:
    scripted.replies = [
        stream("id: p1\ndata: not json", "id: p2\ndata: [1]", "id: p3\nevent: new.kind\ndata: {}", event("p4"))
    ]
    assert [(each.id, each.type) for each in take(2, client.events())] == [("p3", "new.kind"), ("p4", "job.completed")]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [(problem(403, "missing_scope"), Forbidden), (problem(401, "unauthenticated"), Unauthenticated)],
    ids=["403", "401"],
)
def test_who_may_not_listen_is_told(client: Any, scripted: Scripted, reply: Reply, kind: type[Exception]) -> None:
    scripted.replies = [reply]
    with pytest.raises(kind):
        take(1, client.events())


def test_an_answer_that_is_no_stream_is_tried_again_until_the_deadline(client: Any, scripted: Scripted) -> None:
    scripted.replies = [Reply(200, b"<p>log in</p>", HTML, {"Retry-After": "1"})]
    with pytest.raises(AnswerNotUnderstood, match="stream"):
        take(1, client.within(deadline_s=0.5).events())
    scripted.replies = [Reply(200, b"<p>log in</p>", HTML), stream(event("p1"))]
    assert take(1, client.events())[0].id == "p1"


def test_nobody_there_any_more_ends_it_after_the_deadline(client: Any, scripted: Scripted) -> None:
    scripted.replies = [stream("retry: 1", event("p1")), Reply(cut=0)]
    events = client.within(deadline_s=0).events()
    assert next(events).id == "p1"
    with pytest.raises(Unreachable):
        next(events)


def test_a_stream_that_is_let_go_is_closed(client: Any, scripted: Scripted) -> None:
    scripted.replies = [stream(*(event(f"p{n}") for n in range(100)), drip_s=0.001)]
    assert take(1, client.events())[0].id == "p0"
    scripted.replies = [Reply(200, {"status": "healthy"})]
    assert client.health().status == "healthy"


def test_a_log_is_followed_through_breaks_to_its_end(client: Any, scripted: Scripted) -> None:
    def part(data: str, offset: int, complete: bool = False) -> str:
        more = ',"complete":true' if complete else ""
        return f'data: {{"data":"{data}","offset":{offset},"next_offset":{offset + len(data)}{more}}}'

    scripted.replies = [
        stream("retry: 10", part("one ", 0), part("two ", 4)),
        Reply(cut=0),
        stream(part("two ", 4), part("o three", 6), part("ree", 10)),
        stream(part("", 13, complete=True)),
    ]
    assert "".join(each.data for each in client.follow_log("a~j1")) == "one two three"
    offsets = [request.path.rpartition("offset=")[2] for request in scripted.requests]
    assert offsets == ["0", "8", "8", "13"]


def test_a_real_stream_through_twenty_cuts(api: Api, open_client: Callable[..., Any]) -> None:
    """Every job once and in order, whatever happens to the connection."""
    made: list[str] = []
    heard: list[str] = []
    with Proxy(f"redis://127.0.0.1:{api.port}") as proxy:
        listener = in_a_hurry(open_client(proxy.url.replace("redis://", "http://"), token=api.admin))
        writer = open_client(api.url, token=api.admin)

        def enqueue(job_id: str | None = None) -> None:
            made.append(writer.enqueue("build", pool="linux", job_id=job_id).id)

        def listen() -> None:
            for event in listener.events(pool=["linux"], types=["job.enqueued"]):
                heard.append(event.job_id)
                if event.job_id == "linux~last":
                    return

        enqueue()  # so that the pool is there
        thread = threading.Thread(target=listen, daemon=True)
        thread.start()

        def begun() -> bool:
            enqueue()  # what happened before the stream was open is not told
            return bool(heard)

        wait_until(begun, 20, what="something is heard")
        for n in range(40):
            enqueue()
            if n % 2:
                proxy.cut()
        enqueue("last")
        thread.join(40)
        assert not thread.is_alive()
    assert heard == made[made.index(heard[0]) :]


def test_what_is_no_id_of_an_event_is_not_sent(client: Any, scripted: Scripted) -> None:
    for id in ("p1\nx: y", "caf\u00e9"):
        with pytest.raises(InvalidArgument):
            take(1, client.events(last_event_id=id))
    assert not scripted.requests
