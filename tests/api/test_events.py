"""`GET /api/events` over real sockets: what is said, to whom, going on after a break, and what it costs."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis as redis_py

from api import streams
from api.http import answer
from api.routes import events as route
from tests.api.blocks import Blocks
from tests.api.client import Api
from tests.integration.conftest import one_engine
from tests.servers import ServerProcess, wait_until

READ_S = 15.0


class Listener(Blocks):
    """One open stream: blocks of lines, events as plain values."""

    last_id: str | None = None

    def event(self) -> dict[str, Any]:
        """Return the `data` of the next event, whatever comments come before."""
        while block := self.block():
            self.last_id = block.get("id", self.last_id)
            if "data" in block:
                data = json.loads(block["data"])
                assert block["event"] == data["type"]
                return dict(data)
        raise AssertionError("the stream has ended")

    def events(self, n: int) -> list[dict[str, Any]]:
        return [self.event() for _ in range(n)]

    def until_its_end(self) -> list[dict[str, str]]:
        found = []
        while block := self.block():
            found.append(block)
        return found


@contextlib.contextmanager
def listening(
    api: Api, path: str = "/api/events", *, token: str | None = None, after: str | None = None, **headers: str
) -> Iterator[Listener]:
    """An open stream, of which the first block has been read."""
    sent = {"Authorization": f"Bearer {token or api.admin}", **headers}
    if after is not None:
        sent["Last-Event-ID"] = after
    client = api.connect()
    with client.stream("GET", path, headers=sent, timeout=READ_S) as response:
        assert response.status_code == 200, response.read()
        listener = Listener(response)
        first = listener.block()
        assert int(first["retry"]) > 0
        listener.last_id = first["id"]
        yield listener


def enqueue(api: Api, *job_ids: str, pool: str = "default") -> None:
    for job_id in job_ids:
        made = api.post("/api/queue/jobs", {"job_id": job_id, "pool": pool, "payload": {"n": job_id}, "type": "build"})
        assert made.status_code == 201, made.text


def refused(api: Api, path: str = "/api/events", **headers: str) -> httpx2.Response:
    return api.request("GET", path, headers={"Authorization": f"Bearer {api.admin}", **headers}, token=None)


# -- what is said ----------------------------------------------------------------------------------------------


def test_the_life_of_a_job(api: Api) -> None:
    with listening(api) as listener:
        assert listener.response.headers["content-type"].startswith("text/event-stream")
        assert "no-store" in listener.response.headers["cache-control"]
        assert listener.response.headers["x-accel-buffering"] == "no"
        enqueue(api, "one", pool="production")
        job = api.post(
            "/api/queue/claim", {"agent_id": "ann", "pool": "production", "start": True, "request_id": "r"}
        ).json()["job"]
        api.post(
            f"/api/queue/jobs/{job['id']}/complete",
            {"lease_token": job["lease_token"], "outcome": "success", "result": {"secret": "payload"}},
        )
        found = listener.events(3)

    assert [("job.enqueued", "QUEUED"), ("job.claimed", "RUNNING"), ("job.completed", "COMPLETED")] == [
        (one["type"], one["status"]) for one in found
    ]
    for one in found:
        assert set(one) == {"type", "at", "pool", "job_id", "status"}
        assert (one["pool"], one["job_id"]) == ("production", "production~one")
        assert one["at"].endswith("Z")


def test_agents_and_pools_have_events_too(api: Api) -> None:
    with listening(api) as listener:
        api.agent("ann", "builds")
        api.post("/api/queue/pools/builds/pause", {"reason": "a release"})
        found = {one["type"]: one for one in listener.events(2)}

    registered, paused = found["agent.registered"], found["queue.paused"]
    assert set(registered) == {"type", "at", "pool", "agent_id", "status"}
    assert (registered["agent_id"], registered["pool"], registered["status"]) == ("ann", "builds", "HEALTHY")
    assert set(paused) == {"type", "at", "pool", "status"}
    assert paused["pool"] == "builds"


@one_engine
def test_the_first_bytes_come_at_once_and_then_a_comment_now_and_then(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "PING_S", 0.2)
    began = time.monotonic()
    with listening(api) as listener:
        assert time.monotonic() - began < 2.0
        assert [{"": "ping"}] * 3 == [listener.block() for _ in range(3)]
        assert 0.5 < time.monotonic() - began < 10.0
        enqueue(api, "one")
        assert "default~one" == listener.event()["job_id"]


@one_engine
@pytest.mark.parametrize(
    ("types", "kinds"),
    [
        ("types=job", ["job.enqueued", "job.cancelled", "job.enqueued"]),
        ("types=job.cancelled", ["job.cancelled"]),
        ("types=job.cancelled,queue", ["queue.paused", "job.cancelled"]),
        ("types=job.cancelled&types=queue", ["queue.paused", "job.cancelled"]),
    ],
)
def test_only_the_types_asked_for_come(api: Api, types: str, kinds: list[str]) -> None:
    with listening(api, f"/api/events?pool=default&{types}") as listener:
        enqueue(api, "one")
        api.post("/api/queue/pools/default/pause", {})
        api.delete("/api/queue/jobs/default~one")
        enqueue(api, "two")
        assert kinds == [one["type"] for one in listener.events(len(kinds))]


# -- which pools -----------------------------------------------------------------------------------------------


@one_engine
def test_pools_that_come_into_being_later_are_heard_from_their_first_event_on(api: Api) -> None:
    with listening(api) as listener:
        enqueue(api, "one", pool="new")
        enqueue(api, "two", pool="new")
        enqueue(api, "one", pool="newer")
        found = listener.events(3)

    assert {"new~one", "new~two", "newer~one"} == {one["job_id"] for one in found}


@one_engine
def test_a_key_of_some_pools_hears_of_those_alone(api: Api) -> None:
    token = api.key("queue:read agents:read", pools=["a", "b"])
    enqueue(api, "old", pool="c")
    with listening(api, token=token) as listener, listening(api, "/api/events?pool=b", token=token) as only_b:
        for pool in "cab":
            api.agent(f"agent-{pool}", pool)
            enqueue(api, "one", pool=pool)
        found = listener.events(4)
        assert {"a", "b"} == {one["pool"] for one in found}
        assert {"b"} == {one["pool"] for one in only_b.events(2)}

    answer = api.get("/api/events?pool=a&pool=c", token=token)
    assert (403, "pool_not_allowed") == (answer.status_code, answer.json()["code"])


@one_engine
def test_agents_are_for_those_who_may_read_them(api: Api) -> None:
    with listening(api, token=api.key("queue:read")) as listener:
        api.agent("ann", "default")
        enqueue(api, "one")
        assert "default~one" == listener.event()["job_id"]


@one_engine
def test_another_namespace_is_not_heard_nor_its_ids_taken(api: Api) -> None:
    other = api.key("*", namespace="elsewhere")
    with listening(api) as listener, listening(api, token=other) as stranger:
        enqueue(api, "one")
        listener.event()
        made = api.post("/api/queue/jobs", {"job_id": "two", "payload": 1}, token=other)
        assert made.status_code == 201
        assert "default~two" == stranger.event()["job_id"]

    answer = refused(api, **{"Last-Event-ID": stranger.last_id or ""})
    assert (400, "invalid_argument") == (answer.status_code, answer.json()["code"])


@one_engine
def test_without_the_scope_or_a_credential_there_is_no_stream(api: Api) -> None:
    answer = api.get("/api/events", token=api.key("queue:enqueue agents:read"))
    assert (403, "missing_scope") == (answer.status_code, answer.json()["code"])
    assert 401 == api.get("/api/events", token=None).status_code


# -- going on --------------------------------------------------------------------------------------------------


def test_going_on_after_a_break_gives_what_was_missed(api: Api) -> None:
    with listening(api) as listener:
        for n in range(5):
            enqueue(api, f"a{n}", pool="a")
            enqueue(api, f"b{n}", pool="b")
        before = listener.events(4)
        last_id = listener.last_id
    enqueue(api, "late", pool="a")
    enqueue(api, "first", pool="c")

    with listening(api, after=last_id) as listener:
        rest = listener.events(8)
        assert 12 == len({one["job_id"] for one in before + rest})
        enqueue(api, "now", pool="b")
        assert "b~now" == listener.event()["job_id"]


@one_engine
def test_a_client_that_heard_nothing_can_go_on_too(api: Api) -> None:
    enqueue(api, "before")
    with listening(api) as listener:
        last_id = listener.last_id
    enqueue(api, "missed")

    with listening(api, after=last_id) as listener:
        assert "default~missed" == listener.event()["job_id"]


def test_trimmed_history_is_a_reset(api: Api, redis: redis_py.Redis, namespace: str) -> None:
    with listening(api, "/api/events?pool=default") as listener:
        enqueue(api, "a", "b", "c")
        listener.event()
        last_id = listener.last_id
    redis.xtrim(f"hq:{{{namespace}/q/default}}:events", maxlen=1, approximate=False)

    with listening(api, "/api/events?pool=default", after=last_id) as listener:
        reset = listener.event()
        assert {"type": "reset", "pool": None, "status": None} == {k: v for k, v in reset.items() if k != "at"}
        last_id = listener.last_id
        assert "default~c" == listener.event()["job_id"]
    with listening(api, "/api/events?pool=default", after=last_id) as listener:
        assert "default~c" == listener.event()["job_id"]


BAD = {
    "empty": {"Last-Event-ID": ""},
    "a number": {"Last-Event-ID": "12"},
    "of Redis": {"Last-Event-ID": "1700000000000-0"},
    "not ASCII": {"Last-Event-ID": "\xe9"},
    "long": {"Last-Event-ID": "A" * 9_000},
}


@one_engine
@pytest.mark.parametrize("headers", BAD.values(), ids=BAD)
def test_a_malformed_id_is_400(api: Api, headers: Mapping[str, str]) -> None:
    client = api.connect()
    sent = [(b"authorization", f"Bearer {api.admin}".encode())]
    sent += [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = client.get("/api/events", headers=sent)

    assert (400, "invalid_argument") == (answer.status_code, answer.json()["code"])
    assert "/header/last-event-id" == answer.json()["errors"][0]["pointer"]


@one_engine
@pytest.mark.parametrize(
    "query",
    ["last_event_id=x", "pool=", "pool=a~b", "types=", "types=Job", "types=job,", "types=job.completed.now", "limit=1"],
)
def test_a_query_off_its_rule_is_400(api: Api, query: str) -> None:
    assert 400 == api.get(f"/api/events?{query}").status_code


# -- the end ---------------------------------------------------------------------------------------------------


@one_engine
def test_one_credential_has_so_many_streams_at_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STREAMS_MAX", 3)
    token = api.key("queue:read")
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(listening(api, token=token))
        answer = api.get("/api/events", token=token)
        assert (429, "too_many_streams") == (answer.status_code, answer.json()["code"])
        assert int(answer.headers["retry-after"]) > 0
        with listening(api):
            pass  # another credential has its own

    def may_again() -> bool:
        with contextlib.suppress(AssertionError), listening(api, token=token):
            return True
        return False

    wait_until(may_again, 10, what="closed streams count no more")


@one_engine
def test_a_revoked_key_hears_no_more_after_a_ping(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "PING_S", 0.3)
    token = api.key("queue:read")
    [listed] = [one for one in api.get("/api/keys").json()["items"] if one["scopes"] == ["queue:read"]]
    with listening(api, token=token) as listener:
        assert {"": "ping"} == listener.block()
        assert 204 == api.delete(f"/api/keys/{listed['id']}").status_code
        assert all(block == {"": "ping"} for block in listener.until_its_end())
    assert 401 == api.get("/api/events", token=token).status_code


@one_engine
def test_a_key_that_expires_hears_no_more(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "PING_S", 0.3)
    began = time.monotonic()
    with listening(api, token=api.key("queue:read", lasts_s=2.0)) as listener:
        listener.until_its_end()
    assert time.monotonic() - began < 10


@one_engine
def test_a_server_that_stops_ends_its_streams(redis_url: str, namespace: str) -> None:
    """At once, and not when the time is over that load balancers are given."""
    with (
        Api(redis_url, namespace, process=True, drain_s=8) as api,
        listening(api) as listener,
        listening(api, "/api/events?pool=quiet") as quiet,
    ):
        enqueue(api, "one")
        listener.event()
        began = time.monotonic()
        api.stop()
        assert [] == listener.until_its_end()
        quiet.until_its_end()
        assert time.monotonic() - began < 6
        api.wait_stopped()


@one_engine
def test_a_client_that_leaves_leaves_nothing_behind(api: Api, redis: redis_py.Redis) -> None:
    for _ in range(10):
        with listening(api):
            pass
    wait_until(
        lambda: not any(one["cmd"] == "xread" for one in redis.client_list()), 10, what="nobody reads for nobody"
    )


@pytest.mark.timeout(90)
def test_redis_away_for_a_while_is_not_noticed(namespace: str) -> None:
    with ServerProcess(aof=True) as server, Api(server.url, namespace) as api:
        enqueue(api, "before")
        with listening(api) as listener:
            enqueue(api, "one")
            assert "default~one" == listener.event()["job_id"]
            server.kill()
            server.start()

            def enqueued() -> bool:
                return api.post("/api/queue/jobs", {"job_id": "two", "payload": 1}).status_code in (200, 201)

            wait_until(enqueued, 20)
            assert "default~two" == listener.event()["job_id"]


@one_engine
def test_a_client_that_never_reads_is_cut_off(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "SLOW_CLIENT_S", 0.3)
    monkeypatch.setattr(streams, "STREAMS_MAX", 1)
    token = api.key("queue:read")
    enqueue(api, "first")
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(READ_S)
        deaf.connect(("127.0.0.1", api.port))
        ask_and_read_no_more(deaf, api, token)
        assert 429 == api.get("/api/events", token=token).status_code

        def cut_off() -> bool:
            api.post("/api/queue/jobs:batch", {"jobs": [{"payload": 1} for _ in range(1000)]})
            with contextlib.suppress(AssertionError), listening(api, token=token):
                return True
            return False

        wait_until(cut_off, 30, what="its stream counts no more")
        with contextlib.suppress(ConnectionResetError):
            while deaf.recv(65_536):
                pass


def ask_and_read_no_more(sock: socket.socket, api: Api, token: str) -> None:
    host = f"127.0.0.1:{api.port}"
    sock.sendall(
        f"GET /api/events?pool=default HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    )
    assert sock.recv(12) == b"HTTP/1.1 200"


def resident_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"no process {pid}")


@one_engine
@pytest.mark.timeout(180)
def test_clients_that_never_read_cost_no_memory_and_disturb_nobody(api_process: Api) -> None:
    """50,000 events, four clients that send a request and read nothing, one that reads."""
    api = api_process
    token = api.admin
    enqueue(api, "first")
    with contextlib.ExitStack() as stack:
        deaf = []
        for _ in range(4):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", api.port)))
            ask_and_read_no_more(sock, api, token)
            deaf.append(sock)
        listener = stack.enter_context(listening(api, "/api/events?pool=default"))
        heard = 0

        def fill(events: int) -> None:
            nonlocal heard
            for _ in range(events // 1000):
                jobs = [{"payload": 1} for _ in range(1000)]
                answer = api.post("/api/queue/jobs:batch", {"jobs": jobs})
                assert answer.status_code == 200, answer.text
                for _ in range(1000):
                    listener.event()
                    heard += 1

        fill(10_000)
        before = resident_kb(api.pid)
        fill(40_000)
        grown = resident_kb(api.pid) - before

        assert heard == 50_000
        assert grown < 30_000, f"{grown} kB more after 40,000 events that four clients did not read"
