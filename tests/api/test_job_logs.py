"""Logs of jobs over HTTP: written by the holder alone, read and followed by others, with no secret in them."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import redis as redis_py

from api import streams
from api.routes import logs as route
from hybridq import Queue
from hybridq.agent import Client
from hybridq.keys import queue_root
from tests import invariants
from tests.api import shared
from tests.api.blocks import Blocks
from tests.api.client import Api
from tests.integration.conftest import one_engine
from tests.proxy import Proxy
from tests.servers import ServerProcess, wait_until

READ_S = 15.0
MIB = 1_048_576
GITHUB = "ghp_" + "R4nd0mLook1ngT0kenT3xt" + "0123456789abcd"
PASSWORD = "password=hunter2hunter2Xy9"


def enqueue(api: Api, job_id: str = "j", pool: str = "default", **fields: Any) -> str:
    made = api.post("/api/queue/jobs", {"job_id": job_id, "pool": pool, "payload": 1, **fields})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


class Running:
    """A job that runs, in the hands of an API key."""

    def __init__(self, api: Api, job_id: str = "j", pool: str = "default", *, token: str = "admin") -> None:
        self.api, self.token = api, token
        self.id = f"{pool}~{job_id}"
        claimed = api.post("/api/queue/claim", {"agent_id": "ann", "pool": pool, "start": True}, token=token)
        assert claimed.status_code == 200, claimed.text
        assert claimed.json()["job"]["id"] == self.id
        self.lease_token = claimed.json()["job"]["lease_token"]
        self.path = f"/api/queue/jobs/{self.id}/logs"

    def write(self, offset: int, data: str, **options: Any) -> httpx2.Response:
        body = {"lease_token": self.lease_token, "offset": offset, "data": data}
        return self.api.post(self.path, body, **{"token": self.token, **options})

    def say(self, offset: int, data: str) -> int:
        answer = self.write(offset, data)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["next_offset"])

    def read(self, **params: Any) -> dict[str, Any]:
        answer = self.api.get(self.path, params=params)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def end(self, outcome: str = "success", **fields: Any) -> None:
        body = {"lease_token": self.lease_token, "outcome": outcome, **fields}
        answer = self.api.post(f"/api/queue/jobs/{self.id}/complete", body, token=self.token)
        assert answer.status_code == 200, answer.text


api, running = shared.api, shared.running


@pytest.fixture(scope="module", autouse=True)
def _every_invariant_holds_at_the_end(running: Api) -> Iterator[None]:
    yield
    with contextlib.closing(redis_py.Redis.from_url(running.redis_url)) as client:
        invariants.must_hold(client)


@pytest.fixture
def redis(running: Api) -> Iterator[redis_py.Redis]:
    """A client of the server's Redis."""
    with contextlib.closing(redis_py.Redis.from_url(running.redis_url)) as client:
        yield client


@pytest.fixture
def queue(api: Api) -> Iterator[Queue]:
    """The queue of the default pool."""
    with Queue(redis=api.redis_url, namespace=api.namespace) as opened:
        yield opened


@pytest.fixture
def job(api: Api) -> Running:
    enqueue(api)
    return Running(api)


def refused(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    return dict(answer.json())


# -- write and read --------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_in_bytes_of_utf8(job: Running) -> None:
    assert job.say(0, "zwölf\n") == 7
    assert job.say(7, "🙂\n") == 12

    whole = {"data": "zwölf\n🙂\n", "offset": 0, "next_offset": 12, "complete": False, "truncated": False}
    assert job.read() == whole
    assert job.read(offset=7) == {**whole, "data": "🙂\n", "offset": 7}
    assert job.read(offset=12) == {**whole, "data": "", "offset": 12}
    assert job.read(offset=99) == {**whole, "data": "", "offset": 12}
    job.end()
    assert job.read() == {**whole, "complete": True}
    assert job.read(limit=7) == {**whole, "data": "zwölf\n", "next_offset": 7}


def test_a_repeat_is_ignored_and_a_gap_told(job: Running) -> None:
    assert job.write(0, "one\n").json() == {"next_offset": 4}
    assert job.write(0, "one\n").json() == {"next_offset": 4}
    assert job.write(0, "one\ntwo\n").json() == {"next_offset": 8}
    assert refused(job.write(9, "x"), 409, "offset_gap")["expected"] == 8
    assert job.read()["data"] == "one\ntwo\n"


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 7, 100])
def test_a_part_never_ends_inside_a_character(job: Running, limit: int) -> None:
    text = "aß€🙂\n" * 20
    job.say(0, text)
    job.end()
    parts, offset = [], 0
    while True:
        part = job.read(offset=offset, limit=limit)
        assert part["offset"] == offset
        assert part["next_offset"] == offset + len(part["data"].encode())
        assert 0 < len(part["data"].encode()) <= max(limit, 4)
        parts.append(part["data"])
        offset = part["next_offset"]
        if part["complete"]:
            break

    assert "".join(parts) == text


def test_who_begins_inside_a_character_begins_with_the_next(job: Running) -> None:
    job.say(0, "🙂ab")

    for offset in (1, 2, 3):
        assert job.read(offset=offset)["data"] == "ab"
        assert job.read(offset=offset)["offset"] == 4


def test_every_character_may_be_said(job: Running) -> None:
    """What programs print is not ours to judge; only half a surrogate pair is no text at all."""
    text = "".join(map(chr, [*range(0x20), 0x7F, 0x85, 0x9F, 0x200B, 0x202E, 0xFEFF, 0xFFFF, 0x10FFFF]))
    job.say(0, text)

    assert job.read()["data"] == text
    raw = json.dumps({"lease_token": job.lease_token, "offset": len(text.encode()), "data": "x"})
    broken = job.api.post(job.path, content=raw.replace('"x"', '"\\ud83d"'))
    refused(broken, 400, "bad_encoding")


def test_the_largest_piece_is_a_mebibyte_of_utf8(job: Running) -> None:
    text = ("x" * 98 + "ß") * (MIB // 100) + "y" * (MIB % 100)
    assert job.say(0, text) == MIB
    refused(job.write(MIB, "ß" * (MIB // 2) + "z"), 413, "payload_too_large")

    assert job.read(limit=MIB)["data"] == text
    assert len(job.read()["data"].encode()) <= 262_144


@pytest.mark.parametrize(
    "wrong",
    [
        {"offset": -1}, {"offset": 2**53}, {"offset": "0"}, {"offset": 0.5}, {"data": 1}, {"data": None},
        {"data": ["x"]}, {"lease_token": "x"}, {"more": 1},
    ],
)  # fmt: skip
def test_a_piece_off_its_rule_is_400(job: Running, wrong: dict[str, Any]) -> None:
    body = {"lease_token": job.lease_token, "offset": 0, "data": "x", **wrong}

    refused(job.api.post(job.path, body), 400, "invalid_argument")
    assert job.read()["data"] == ""


@pytest.mark.parametrize("query", ["offset=-1", "offset=x", "limit=0", "limit=1048577", "follow=1", "tail=5"])
def test_a_query_off_its_rule_is_400(job: Running, query: str) -> None:
    refused(job.api.get(f"{job.path}?{query}"), 400, "invalid_argument")


# -- who may -----------------------------------------------------------------------------------------------------------


def test_only_who_holds_the_job_writes(api: Api, job: Running) -> None:
    other = api.key("queue:claim")
    refused(job.write(0, "x", token=other), 403, "not_lease_holder")
    refused(job.write(0, "x", token=None), 401, "unauthenticated")
    refused(job.write(0, "x", token=api.key("queue:read queue:enqueue queue:admin")), 403, "missing_scope")
    refused(job.write(0, "x", token=api.key("queue:claim", pools=["other"])), 404, "job_not_found")
    refused(job.write(0, "x", token=api.key("*", namespace="elsewhere")), 404, "job_not_found")
    forged = Running.__new__(Running)
    forged.__dict__ = {**job.__dict__, "lease_token": job.lease_token.split(".")[0] + "." + "f" * 32}
    assert refused(forged.write(0, "x"), 409, "stale_lease")["job_status"] == "RUNNING"

    assert job.read()["data"] == ""


def test_a_registered_agent_writes_what_its_own_jobs_say(api: Api) -> None:
    ann, bob = api.agent("ann"), api.agent("bob")
    id = enqueue(api)
    job = ann.claim(start=True).json()["job"]
    body = {"lease_token": job["lease_token"], "offset": 0, "data": "hello\n"}

    assert ann.post(f"/api/queue/jobs/{id}/logs", body).json() == {"next_offset": 6}
    refused(bob.post(f"/api/queue/jobs/{id}/logs", body), 403, "not_lease_holder")
    refused(api.get(f"/api/queue/jobs/{id}/logs", token=ann.token), 403, "missing_scope")


def test_only_who_may_read_reads(api: Api, job: Running) -> None:
    job.say(0, "for readers\n")

    assert api.get(job.path, token=api.key("queue:read", pools=["default"])).json()["data"] == "for readers\n"
    for params in ({}, {"follow": "true"}):
        refused(api.get(job.path, params=params, token=None), 401, "unauthenticated")
        refused(api.get(job.path, params=params, token=api.key("queue:claim")), 403, "missing_scope")
        refused(api.get(job.path, params=params, token=api.key("queue:read", pools=["o"])), 404, "job_not_found")
        refused(api.get(job.path, params=params, token=api.key("*", namespace="else")), 404, "job_not_found")
        refused(api.get("/api/queue/jobs/default~nobody/logs", params=params), 404, "job_not_found")
        refused(api.get("/api/queue/jobs/nowhere~j/logs", params=params), 404, "job_not_found")


def test_a_job_that_ended_says_nothing_more(job: Running) -> None:
    job.say(0, "last words\n")
    job.end()

    assert refused(job.write(11, "late\n"), 409, "stale_lease")["job_status"] == "COMPLETED"
    assert job.read()["data"] == "last words\n"


def test_a_later_attempt_begins_with_a_line_of_the_servers(api: Api, job: Running) -> None:
    job.say(0, "first\n")
    body = {"lease_token": job.lease_token, "delay_seconds": 0}
    assert api.post(f"/api/queue/jobs/{job.id}/release", body).status_code == 200
    second = Running(api)
    assert second.say(0, "second\n") == 7

    assert second.read()["data"] == "first\n[hybridq] attempt 1, agent ann\nsecond\n"


# -- secrets -----------------------------------------------------------------------------------------------------------


def stored(api: Api, redis: redis_py.Redis, job_id: str = "j") -> str:
    found = redis.get(f"{queue_root(api.namespace, 'default')}:log:{job_id}")
    return found.decode() if isinstance(found, bytes) else ""


def test_a_secret_is_taken_out_before_anything_is_stored(job: Running, redis: redis_py.Redis) -> None:
    text = f"using {GITHUB}\nand {PASSWORD}\nzwölf\n"
    answer = job.write(0, text)

    assert answer.json() == {"next_offset": len(text.encode()), "redactions": 2}
    assert GITHUB not in answer.text
    kept = stored(job.api, redis)
    assert GITHUB not in kept and "hunter2" not in kept
    assert kept.startswith("using [redacted:") and kept.endswith("zwölf\n")
    assert job.read()["data"] == kept


def test_offsets_go_on_as_they_were_sent(job: Running) -> None:
    text = f"{GITHUB}\n"
    assert job.say(0, text) == len(text)
    assert job.say(0, text) == len(text)
    assert job.say(len(text), "more\n") == len(text) + 5

    data = job.read()["data"]
    assert data.count("redacted") == 1
    assert data.endswith("\nmore\n")


def test_a_repeat_with_a_secret_and_more_behind_it_stores_what_is_new(job: Running) -> None:
    first, more = f"one {GITHUB}\n", f"two {PASSWORD} 🙂\n"
    job.say(0, first)
    assert job.say(0, first + more) == len((first + more).encode())

    lines = job.read()["data"].splitlines()
    assert [line.split()[0] for line in lines] == ["one", "two"]
    assert lines[1].endswith("🙂")
    assert GITHUB not in str(lines) and "hunter2" not in str(lines)


def test_a_piece_of_secrets_alone_may_grow_and_is_stored(job: Running) -> None:
    text = "\n".join([GITHUB] * 2_000)
    answer = job.write(0, text)

    assert answer.json()["next_offset"] == len(text)
    assert GITHUB not in job.read(limit=MIB)["data"]


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_a_log_over_its_bound_is_taken_and_says_where_it_ends(job: Running, queue: Queue) -> None:
    queue.configure(log_bytes_max=1000)
    assert job.say(0, "x" * 2000) == 2000
    assert job.say(2000, "y" * 2000) == 4000
    job.end()

    part = job.read()
    assert (part["complete"], part["truncated"]) == (True, True)
    assert len(part["data"]) <= 1000
    assert part["data"].endswith("\n[hybridq] the log ends here: it reached 1000 bytes\n")


def test_a_dropped_log_is_truncated_to_its_readers_and_followers(api: Api, queue: Queue) -> None:
    first = _ended(api, "first", "f" * 600)
    queue.configure(logs_bytes_max=1000)
    _ended(api, "second", "s" * 600)

    gone = {"data": "", "offset": 600, "next_offset": 600, "complete": True, "truncated": True}
    assert first.read() == gone
    with following(api, first.path) as follower:
        assert [follower.part(), follower.part()] == [gone, None]


def _ended(api: Api, job_id: str, text: str) -> Running:
    enqueue(api, job_id)
    job = Running(api, job_id)
    job.say(0, text)
    job.end()
    return job


def test_a_log_is_gone_with_its_job(job: Running, queue: Queue, redis: redis_py.Redis) -> None:
    job.say(0, "soon gone\n")
    job.end()
    queue.configure(retention_count=0)
    wait_until(lambda: queue.upkeep().trimmed == 0, 10)

    refused(job.api.get(job.path), 404, "job_not_found")
    assert stored(job.api, redis) == ""


# -- follow ------------------------------------------------------------------------------------------------------------


class Follower(Blocks):
    """One open stream of a log."""

    last_id = ""

    def part(self) -> dict[str, Any] | None:
        """The next part of the log; None at the end of the stream."""
        while block := self.block():
            self.last_id = block.get("id", self.last_id)
            if "data" in block:
                part: dict[str, Any] = json.loads(block["data"])
                assert block["id"] == str(part["next_offset"])
                assert "event" not in block
                return part
        return None

    def text(self) -> str:
        """All that comes until the end."""
        said = ""
        while (part := self.part()) is not None:
            said += part["data"]
        return said


@contextlib.contextmanager
def following(
    api: Api, path: str, *, token: str | None = None, after: str | None = None, offset: int = 0
) -> Iterator[Follower]:
    """An open stream, of which the first block has been read."""
    sent = {"Authorization": f"Bearer {token or api.admin}"}
    if after is not None:
        sent["Last-Event-ID"] = after
    params = {"follow": "true", "offset": offset}
    with api.connect().stream("GET", path, headers=sent, params=params, timeout=READ_S) as response:
        assert response.status_code == 200, response.read()
        follower = Follower(response)
        first = follower.block()
        assert int(first["retry"]) > 0 and "data" not in first
        follower.last_id = first["id"]
        yield follower


def test_a_log_is_followed_as_it_is_written_to_its_end(job: Running) -> None:
    at = job.say(0, "before\n")
    with following(job.api, job.path) as follower:
        headers = follower.response.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert ("no-store" in headers["cache-control"], headers["x-accel-buffering"]) == (True, "no")
        first = {"data": "before\n", "offset": 0, "next_offset": 7, "complete": False, "truncated": False}
        assert follower.part() == first
        at = job.say(at, "zwölf\n")
        assert follower.part() == {**first, "data": "zwölf\n", "offset": 7, "next_offset": 14}
        job.end()
        assert follower.part() == {**first, "data": "", "offset": 14, "next_offset": 14, "complete": True}
        assert follower.part() is None


def test_a_log_that_is_whole_already_comes_and_ends(job: Running) -> None:
    text = "".join(f"{n} ß🙂\n" for n in range(40_000))
    job.say(0, text)
    job.end()
    with following(job.api, job.path) as follower:
        parts = []
        while (part := follower.part()) is not None:
            assert len(part["data"].encode()) <= route.PART_BYTES
            parts.append(part)

    assert "".join(part["data"] for part in parts) == text
    assert [part["complete"] for part in parts] == [False] * (len(parts) - 1) + [True]


def test_a_job_that_has_not_begun_can_be_followed(api: Api) -> None:
    id = enqueue(api)
    with following(api, f"/api/queue/jobs/{id}/logs") as follower:
        job = Running(api)
        job.say(0, "now\n")
        job.end()

        assert follower.text() == "now\n"


def test_a_follower_goes_on_after_its_last_event(job: Running) -> None:
    job.say(0, "one\n")
    with following(job.api, job.path) as follower:
        assert follower.part() is not None
        last_id = follower.last_id
    job.say(4, "two\n")
    job.end()

    assert last_id == "4"
    with following(job.api, job.path, after=last_id) as follower:
        assert follower.text() == "two\n"
    with following(job.api, job.path, after="0", offset=4) as follower:
        assert follower.text() == "one\ntwo\n"
    with following(job.api, job.path, offset=4) as follower:
        assert follower.text() == "two\n"


@pytest.mark.parametrize("last_id", ["x", "-1", "01", "1.0", "", str(2**53), "1" * 30])
def test_an_id_that_no_event_had_is_400(job: Running, last_id: str) -> None:
    answer = job.api.get(f"{job.path}?follow=true", headers={"Last-Event-ID": last_id})

    assert refused(answer, 400, "invalid_argument")["errors"][0]["pointer"] == "/header/last-event-id"


def test_a_follower_hears_at_once_what_comes_by_way_of_its_own_process(
    job: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "POLL_S", 60.0)
    with following(job.api, job.path) as follower:
        for n in range(5):
            job.say(2 * n, f"{n}\n")
            part = follower.part()
            assert part is not None and part["data"] == f"{n}\n"
        job.end()
        part = follower.part()
        assert part is not None and part["complete"]


def test_a_follower_hears_soon_what_comes_by_way_of_another_process(job: Running) -> None:
    with Api(job.api.redis_url, job.api.namespace, process=True) as other, following(other, job.path) as follower:
        job.say(0, "from elsewhere\n")
        part = follower.part()
        assert part is not None and part["data"] == "from elsewhere\n"
        job.end()
        assert follower.text() == ""


def test_who_follows_nothing_costs_redis_nothing_and_a_quiet_follower_little(
    job: Running, redis: redis_py.Redis
) -> None:
    def reads() -> int:
        counts = redis.info("commandstats")
        return int(counts.get("cmdstat_getrange", {}).get("calls", 0))

    with following(job.api, job.path):
        before = reads()
        wait_until(lambda: reads() >= before + 2, 10, what="it looks now and then")
        began, at = time.monotonic(), reads()
        wait_until(lambda: reads() >= at + 2, 10)
        assert time.monotonic() - began > route.POLL_S / 2
    settled = _settled(reads)
    with pytest.raises(TimeoutError):
        wait_until(lambda: reads() > settled, 2.5)


def _settled(read: Any) -> int:
    """What a number is when it has not moved for a while longer than a follower would leave it alone."""
    last, since = read(), time.monotonic()

    def still() -> bool:
        nonlocal last, since
        now = read()
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > 1.5

    wait_until(still, 20)
    return int(last)


def test_a_comment_comes_when_nothing_is_said(job: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "PING_S", 0.2)
    with following(job.api, job.path) as follower:
        assert [follower.block() for _ in range(3)] == [{"": "ping"}] * 3
        job.say(0, "x")
        part = follower.part()
        assert part is not None and part["data"] == "x"


def test_a_revoked_key_hears_no_more_after_a_ping(api: Api, job: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "PING_S", 0.3)
    token = api.key("queue:read")
    [listed] = [one for one in api.get("/api/keys").json()["items"] if one["scopes"] == ["queue:read"]]
    with following(api, job.path, token=token) as follower:
        assert follower.block() == {"": "ping"}
        assert api.delete(f"/api/keys/{listed['id']}").status_code == 204
        assert follower.text() == ""


def test_one_credential_has_so_many_streams_at_once(api: Api, job: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of events count as well."""
    monkeypatch.setattr(streams, "STREAMS_MAX", 2)
    token = api.key("queue:read")
    with following(api, job.path, token=token), following(api, job.path, token=token):
        refused(api.get(f"{job.path}?follow=true", token=token), 429, "too_many_streams")
        refused(api.get("/api/events", token=token), 429, "too_many_streams")

    def may_again() -> bool:
        with contextlib.suppress(AssertionError), following(api, job.path, token=token):
            return True
        return False

    wait_until(may_again, 10, what="closed streams count no more")


@one_engine
def test_a_server_that_stops_ends_its_streams(redis_url: str, namespace: str) -> None:
    with Api(redis_url, namespace, process=True, drain_s=8) as api:
        enqueue(api)
        job = Running(api)
        with following(api, job.path) as follower:
            job.say(0, "x")
            follower.part()
            began = time.monotonic()
            api.stop()
            assert follower.part() is None
            assert time.monotonic() - began < 6
        api.wait_stopped()


def test_a_job_that_is_trimmed_ends_its_streams(job: Running, queue: Queue) -> None:
    with following(job.api, job.path) as follower:
        queue.configure(retention_count=0)
        job.end()
        wait_until(lambda: queue.upkeep().trimmed == 0, 10)

        assert follower.text() == ""


@pytest.mark.timeout(90)
def test_redis_away_for_a_while_is_not_noticed(namespace: str) -> None:
    with ServerProcess(aof=True) as server, Api(server.url, namespace) as api:
        enqueue(api)
        job = Running(api)
        with following(api, job.path) as follower:
            job.say(0, "before\n")
            part = follower.part()
            assert part is not None and part["data"] == "before\n"
            server.kill()
            server.start()
            wait_until(lambda: job.write(7, "after\n").status_code == 200, 20)
            part = follower.part()
            assert part is not None and part["data"] == "after\n"


# -- through breaks ----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(100)
def test_twenty_cuts_lose_and_repeat_nothing_for_writer_and_follower(api: Api) -> None:
    """The client goes on by offset and by Last-Event-ID; what it reads is what was written, byte for byte."""
    rng = random.Random(7)
    id = enqueue(api)
    job = Running(api)
    lines = [f"{n} {'ß🙂x'[n % 3] * rng.randrange(1, 200)}\n" for n in range(400)]
    heard: list[str] = []
    with Proxy(f"redis://127.0.0.1:{api.port}") as proxy:
        url = proxy.url.replace("redis://", "http://")

        def follow() -> None:
            with Client(url, token=api.admin) as client:
                heard.extend(part.data for part in client.follow_log(id))

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        with Client(url, token=api.admin) as writer:
            offset = 0
            for n, line in enumerate(lines):
                if n % 20 == 10:
                    proxy.cut()
                elif n % 20 == 15:
                    proxy.drop_next_reply(b"/logs")
                offset = writer.append_log(id, job.lease_token, offset, line).next_offset
        job.end()
        follower.join(60)
        assert not follower.is_alive()

    assert "".join(heard) == "".join(lines)
    assert job.read(limit=MIB)["data"] == "".join(lines)
