"""What is sent again and what is not, against a server that misbehaves; and that nothing is done twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest

from hybridq.agent import (
    AgentNotRegistered,
    AnswerNotUnderstood,
    ApiError,
    Contradicted,
    Forbidden,
    IllegalTransition,
    JobCancelled,
    JobConflict,
    JobNotFound,
    Malformed,
    Missing,
    NewJob,
    OffsetGap,
    OutcomeConflict,
    RateLimited,
    Refused,
    ServerAway,
    SessionSuperseded,
    StaleLease,
    Unauthenticated,
    Unreachable,
)
from tests.agent.scripted import HTML, Reply, Scripted, problem
from tests.api.client import Api
from tests.proxy import Proxy
from tests.servers import free_port

JOB = {"id": "a~j1", "job_id": "j1", "pool": "a", "status": "QUEUED"}
LEASED = {**JOB, "lease_token": f"7.{'0' * 32}", "fence": 7, "lease_expires_in_seconds": 30.0}
DONE = {"job": JOB, "retried": False, "replayed": False, "next": []}
SEVEN = LEASED["lease_token"]

CALLS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "enqueue": (lambda client: client.enqueue("build", {"a": 1}), JOB),
    "enqueue_batch": (
        lambda client: client.enqueue_batch([NewJob(type="build")]),
        {"results": [{"index": 0, "status": 201, "job": JOB}]},
    ),
    "claim": (lambda client: client.claim(agent_id="a1"), {"job": LEASED, "jobs": [LEASED]}),
    "start": (lambda client: client.start("a~j1", SEVEN), JOB),
    "complete": (lambda client: client.complete("a~j1", SEVEN, claim_next=True), DONE),
    "release": (lambda client: client.release("a~j1", SEVEN), JOB),
    "append_log": (lambda client: client.append_log("a~j1", SEVEN, 0, "x"), {"next_offset": 1}),
    "lease_heartbeat": (lambda client: client.lease_heartbeat([]), {"renewed": [], "lost": [], "cancel": []}),
    "job": (lambda client: client.job("a~j1"), JOB),
    "cancel": (lambda client: client.cancel("a~j1"), JOB),
    "retry": (lambda client: client.retry("a~j1"), JOB),
    "priority": (lambda client: client.priority("a~j1", "HIGH"), JOB),
    "replay of named ones": (
        lambda client: client.dead_replay(job_ids=["a~j1"]),
        {"matched": 1, "replayed": 1, "remaining": 0},
    ),
}

AGAIN = {
    "503 of ours": problem(503, "redis_unavailable"),
    "503 that may have been done": problem(503, "outcome_unknown"),
    "502 of a proxy": Reply(502, b"<h1>Bad gateway</h1>", HTML),
    "504 of a proxy": Reply(504, b"", HTML),
    "500": Reply(500, b"oops", "text/plain"),
    "507": problem(507, "queue_full"),
    "429": problem(429, "rate_limited", retry_after="0"),
    "408": problem(408, "request_timeout"),
    "425": Reply(425),
    "200 of a proxy": Reply(200, b"<h1>Please log in</h1>", HTML),
    "200 of something else": Reply(200, {"hello": "world"}),
    "200 and not UTF-8": Reply(200, b'{"id": "\xff"}'),
    "200 and empty": Reply(200, b""),
    "cut before the answer": Reply(cut=0),
    "cut in the answer": Reply(200, {"a": "b" * 100}, cut=20),
}


@pytest.mark.parametrize("trouble", AGAIN.values(), ids=AGAIN.keys())
def test_trouble_that_passes_is_not_noticed(client: Any, scripted: Scripted, trouble: Reply) -> None:
    scripted.replies = [trouble, Reply(201, JOB)]
    assert client.enqueue("build", {"a": 1}).id == "a~j1"
    assert len(scripted.requests) == 2


@pytest.mark.parametrize("name", CALLS)
def test_a_repeat_is_the_same_request_with_the_same_ids(client: Any, scripted: Scripted, name: str) -> None:
    call, answer = CALLS[name]
    scripted.replies = [Reply(cut=0), Reply(502), Reply(200, answer)]
    call(client)
    first, second, third = scripted.requests
    assert first.ids == second.ids == third.ids
    assert first.headers["x-request-id"]


def test_two_calls_have_ids_of_their_own(client: Any, scripted: Scripted) -> None:
    scripted.replies = [Reply(201, JOB)]
    client.enqueue("build", {"a": 1})
    client.enqueue("build", {"a": 1})
    first, second = scripted.requests
    assert first.document["job_id"] != second.document["job_id"]
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


NEVER: list[tuple[int, str, type[ApiError]]] = [
    (400, "invalid_argument", Malformed),
    (401, "unauthenticated", Unauthenticated),
    (403, "missing_scope", Forbidden),
    (403, "not_lease_holder", Forbidden),
    (404, "job_not_found", JobNotFound),
    (404, "agent_not_registered", AgentNotRegistered),
    (404, "pool_not_found", Missing),
    (405, "method_not_allowed", Malformed),
    (409, "stale_lease", StaleLease),
    (409, "illegal_transition", IllegalTransition),
    (409, "outcome_conflict", OutcomeConflict),
    (409, "cancelled", JobCancelled),
    (409, "job_conflict", JobConflict),
    (409, "offset_gap", OffsetGap),
    (409, "unique_taken", Contradicted),
    (410, "session_superseded", SessionSuperseded),
    (412, "precondition_failed", Contradicted),
    (413, "payload_too_large", Malformed),
    (415, "unsupported_media_type", Malformed),
    (422, "secret_suspected", Refused),
]


@pytest.mark.parametrize(("status", "code", "kind"), NEVER, ids=lambda value: str(value))
def test_a_no_is_a_no(client: Any, scripted: Scripted, status: int, code: str, kind: type[ApiError]) -> None:
    scripted.replies = [
        problem(status, code, errors=[{"pointer": "/x", "reason": "must be y"}], job_status="RUNNING", expected=17)
    ]
    with pytest.raises(kind) as caught:
        client.start("a~j1", SEVEN)
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.code, error.detail) == (status, code, "Said so.")
    assert error.errors == (("/x", "must be y"),) and error.job_status == "RUNNING"
    assert error.request_id == scripted.requests[0].headers["x-request-id"]
    assert not error.in_doubt
    assert code in str(error) and "must be y" in str(error)
    assert len(scripted.requests) == 1
    if isinstance(error, OffsetGap):
        assert error.expected == 17


@pytest.mark.parametrize("status", [401, 403, 404, 409, 410, 422])
def test_a_no_of_somebody_else_s_is_told_apart(client: Any, scripted: Scripted, status: int) -> None:
    """A proxy's 404 is not `no_jobs_available`, and its words are not repeated: they may echo the request."""
    scripted.replies = [Reply(status, b"<h1>your Authorization: hqk_x</h1>", HTML)]
    with pytest.raises(ApiError) as caught:
        client.claim(agent_id="a1")
    assert caught.value.code == f"http_{status}"
    assert "Authorization" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused(client: Any, scripted: Scripted, status: int) -> None:
    """The token is for one server."""
    with Scripted() as elsewhere:
        scripted.replies = [Reply(status, headers={"Location": f"{elsewhere.url}/api/queue/jobs"})]
        with pytest.raises(AnswerNotUnderstood, match="redirect") as caught:
            client.enqueue("build")
        assert caught.value.status == status and not caught.value.in_doubt
        assert len(scripted.requests) == 1 and not elsewhere.requests


# -- when ----------------------------------------------------------------------------------------------------------


def test_retry_after_is_heeded(client: Any, scripted: Scripted) -> None:
    scripted.replies = [problem(503, "stopping", retry_after="1"), Reply(200, JOB)]
    client.job("a~j1")
    first, second = scripted.requests
    assert 1.0 <= second.at - first.at < 3.0


def test_retry_after_may_be_a_date_by_the_clock_of_who_sent_it(client: Any, scripted: Scripted) -> None:
    now = time.time() - 86_400
    later = Reply(
        503, b"", HTML, {"Retry-After": formatdate(now + 3, usegmt=True), "Date": formatdate(now, usegmt=True)}
    )
    scripted.replies = [later]
    with pytest.raises(ServerAway) as caught:
        client.within(deadline_s=0.5).job("a~j1")
    assert caught.value.retry_after_s == 3.0


def test_who_is_told_to_come_back_after_the_deadline_is_told_so_at_once(client: Any, scripted: Scripted) -> None:
    scripted.replies = [problem(429, "rate_limited", retry_after="3600")]
    began = time.monotonic()
    with pytest.raises(RateLimited) as caught:
        client.job("a~j1")
    assert caught.value.retry_after_s == 3600.0
    assert time.monotonic() - began < 2.0 and len(scripted.requests) == 1


def test_the_deadline_ends_it(client: Any, scripted: Scripted) -> None:
    scripted.replies = [problem(503, "redis_unavailable", retry_after="1")]
    began = time.monotonic()
    with pytest.raises(ServerAway) as caught:
        client.within(deadline_s=1.5).enqueue("build")
    assert time.monotonic() - began < 2.5
    assert len(scripted.requests) > 1 and not caught.value.in_doubt


def test_no_deadline_means_one_sending(client: Any, scripted: Scripted) -> None:
    scripted.replies = [problem(503, "redis_unavailable")]
    with pytest.raises(ServerAway):
        client.within(deadline_s=0).enqueue("build")
    assert len(scripted.requests) == 1


def test_nobody_there(open_client: Callable[..., Any]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    client = open_client(url, token="t", deadline_s=0.6)
    with pytest.raises(Unreachable, match=url) as caught:
        client.enqueue("build")
    assert not caught.value.in_doubt and caught.value.attempts > 1
    assert "refused" in str(caught.value)


def test_a_server_that_says_nothing_leaves_the_caller_in_doubt(client: Any, scripted: Scripted) -> None:
    with _set_at_the_end(threading.Event()) as event:
        scripted.replies = [Reply(silent=event)]
        with pytest.raises(Unreachable) as caught:
            client.within(deadline_s=0.5, timeout_s=0.3).enqueue("build")
    assert caught.value.in_doubt and "same ids" in str(caught.value)


class _set_at_the_end:
    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __enter__(self) -> threading.Event:
        return self._event

    def __exit__(self, *_: object) -> None:
        self._event.set()


def test_the_doubt_of_a_first_sending_outlives_the_certainty_of_a_second(client: Any, scripted: Scripted) -> None:
    """The last trouble says that nothing was done; the sending before it may have been."""
    scripted.replies = [Reply(cut=0), problem(503, "redis_unavailable", retry_after="2")]
    with pytest.raises(ServerAway) as caught:
        client.within(deadline_s=1).enqueue("build")
    assert caught.value.in_doubt


def test_an_answer_that_drips_is_cut_off(client: Any, scripted: Scripted) -> None:
    """Each byte comes in time, all of them do not."""
    scripted.replies = [Reply(200, JOB, drip_s=0.05)]
    began = time.monotonic()
    with pytest.raises(Unreachable, match="too long"):
        client.within(timeout_s=0.4, deadline_s=0).job("a~j1")
    assert time.monotonic() - began < 1.5


def test_a_poll_may_take_as_long_as_it_waits_and_a_little_longer(client: Any, scripted: Scripted) -> None:
    with _set_at_the_end(threading.Event()) as event:
        threading.Timer(3.5, event.set).start()
        scripted.replies = [Reply(200, {"job": LEASED, "jobs": [LEASED]}, silent=event)]
        assert client.within(timeout_s=3, deadline_s=0).claim(agent_id="a1", wait_seconds=3).job.fence == 7


# -- what must not be said twice -----------------------------------------------------------------------------------


def test_a_replay_by_filter_is_not_sent_again_when_it_may_have_been_done(client: Any, scripted: Scripted) -> None:
    scripted.replies = [Reply(cut=0), Reply(200, {"matched": 9, "replayed": 9, "remaining": 0})]
    with pytest.raises(Unreachable) as caught:
        client.dead_replay(all=True)
    assert caught.value.in_doubt and len(scripted.requests) == 1


@pytest.mark.parametrize("trouble", [problem(503, "redis_unavailable"), problem(429, "rate_limited", retry_after="0")])
def test_it_is_when_nothing_was_done(client: Any, scripted: Scripted, trouble: Reply) -> None:
    scripted.replies = [trouble, Reply(200, {"matched": 9, "replayed": 9, "remaining": 0})]
    assert client.dead_replay(all=True).replayed == 9


# -- what a newer server says ---------------------------------------------------------------------------------------


def test_what_is_not_known_is_passed_over(client: Any, scripted: Scripted) -> None:
    scripted.replies = [Reply(200, {**JOB, "status": "PONDERING", "priority": "URGENT", "colour": {"a": [1]}})]
    job = client.job("a~j1")
    assert (job.status, job.priority) == ("PONDERING", "URGENT")


def test_payload_and_large_fences_come_as_they_are(client: Any, scripted: Scripted) -> None:
    body = b'{"job":null,"jobs":[{"id":"a~j1","job_id":"j1","pool":"a","status":"CLAIMED","payload": {"n":  1e2} ,'
    body += b'"lease_token":"%s","fence":9007199254740991,"lease_expires_in_seconds":30}]}' % SEVEN.encode()
    scripted.replies = [Reply(200, body)]
    claimed = client.claim(agent_id="a1", request_id="r1")
    assert bytes(claimed.job.payload) == b'{"n":  1e2}' and claimed.job.decode() == {"n": 100.0}
    assert claimed.job.fence == 2**53 - 1 and claimed.request_id == "r1" and claimed


# -- a real server behind a network that cuts -------------------------------------------------------------------------


@pytest.fixture
def cut(api: Api) -> Any:
    with Proxy(f"redis://127.0.0.1:{api.port}") as proxy:
        yield proxy


def lossy(open_client: Callable[..., Any], api: Api, proxy: Proxy) -> Any:
    return open_client(proxy.url.replace("redis://", "http://"), token=api.admin, timeout_s=5.0, deadline_s=20.0)


@pytest.mark.parametrize("reply_bytes", [0, 40])
def test_an_agent_s_day_with_every_answer_lost_once(
    api: Api, cut: Proxy, open_client: Callable[..., Any], reply_bytes: int
) -> None:
    """Every call is done by the server, its answer is lost, and the repeat is answered as the first one was."""
    client, boss = lossy(open_client, api, cut), open_client(api.url, token=api.admin)

    def lost(verb: bytes) -> threading.Event:
        return cut.drop_next_reply(verb) if not reply_bytes else cut.cut_reply_after(reply_bytes, verb)

    gone = [lost(b"POST /api/agents/register")]
    registered = client.register("b1", pool="linux", capacity=5)
    assert [each.agent_id for each in boss.agents().items] == ["b1"]

    client.deregister()  # the key enqueues; an agent may not
    gone.append(lost(b"POST /api/queue/jobs "))
    job = client.enqueue("build", {"a": 1}, pool="linux", unique="one")
    assert not job.unique and boss.stats(pool="linux").enqueued == 1
    other = client.enqueue("test", pool="linux")

    registered = client.register("b1", pool="linux", capacity=5)
    gone.append(lost(b"POST /api/queue/claim"))
    claimed = client.claim(max=1)
    assert claimed.job.id == job.id and boss.stats(pool="linux").claimed == 1
    gone.append(lost(b"/start"))
    started = client.start(claimed.job.id, claimed.job.lease_token)
    assert (started.status, started.attempt) == ("RUNNING", 1)
    gone.append(lost(b"/heartbeat"))
    assert [each.id for each in client.heartbeat(leases=[claimed.job]).renewed] == [job.id]
    gone.append(lost(b"/complete"))
    done = client.complete(claimed.job.id, claimed.job.lease_token, result={"ok": True}, claim_next=True)
    assert done.replayed and done.job.status == "COMPLETED" and len(done.job.attempts) == 1
    assert [each.id for each in done.next] == [other.id]
    gone.append(lost(b"/release"))
    released = client.release(other.id, done.next[0].lease_token)
    assert released.status == "QUEUED"
    stats = boss.stats(pool="linux")
    assert (stats.completed, stats.queued, stats.enqueued, stats.claimed, stats.running) == (1, 1, 2, 0, 0)
    gone.append(lost(b"/deregister"))
    client.deregister()
    assert boss.agent("b1").status == "TERMINATED" and client.session is None
    assert all(event.is_set() for event in gone)
    assert registered.agent_id == "b1"


def test_steering_with_every_answer_lost_once(api: Api, cut: Proxy, open_client: Callable[..., Any]) -> None:
    client = lossy(open_client, api, cut)
    job = client.enqueue("build", pool="linux")
    for verb, act, status in [
        (b"PATCH ", lambda: client.priority(job.id, "HIGH"), "QUEUED"),
        (b"DELETE ", lambda: client.cancel(job.id), "CANCELLED"),
        (b"/retry", lambda: client.retry(job.id), "QUEUED"),
    ]:
        gone = cut.drop_next_reply(verb)
        assert act().status == status
        assert gone.is_set()
    assert client.job(job.id).generation == 1, "one new life, not two"


def test_a_batch_whose_answer_is_lost_is_made_once(api: Api, cut: Proxy, open_client: Callable[..., Any]) -> None:
    client = lossy(open_client, api, cut)
    cut.drop_next_reply(b"jobs:batch")
    made = client.enqueue_batch([NewJob(type="build", payload=n, pool="linux") for n in range(20)])
    assert [each.status for each in made.results] == [200] * 20
    assert client.stats(pool="linux").enqueued == 20


def test_a_network_that_hangs_and_heals(api: Api, cut: Proxy, open_client: Callable[..., Any]) -> None:
    client = lossy(open_client, api, cut).within(timeout_s=0.5, deadline_s=20)
    client.enqueue("build", pool="linux")
    cut.blackhole()
    threading.Timer(1.5, cut.heal).start()
    client.enqueue("build", pool="linux")
    assert client.stats(pool="linux").enqueued == 2
