"""Every method of the client once, against the real server: both understand the contract alike."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hybridq.agent import (
    AgentNotRegistered,
    ApiError,
    Client,
    Forbidden,
    JobConflict,
    JobNotFound,
    LeaseRef,
    Malformed,
    Missing,
    NewJob,
    NotRegistered,
    OutcomeConflict,
    Refused,
    RetryPolicy,
    SessionSuperseded,
    StaleLease,
    Unauthenticated,
)
from hybridq.errors import InvalidArgument
from hybridq.lifecycle import JobStatus
from tests.agent.colours import Driven
from tests.agent.test_client_colours import METHODS
from tests.api.client import Api
from tests.oidc import Issuer


class Recorder:
    """A client that notes which of its methods were called."""

    def __init__(self, client: Any, called: set[str]) -> None:
        self._client, self._called = client, called

    def __getattr__(self, name: str) -> Any:
        self._called.add(name)
        return getattr(self._client, name)


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer("RSA") as issuer:
        yield issuer


def test_every_method_once(api: Api, open_client: Callable[..., Any], issuer: Issuer) -> None:
    called: set[str] = set()

    def of(token: str | None) -> Any:
        return Recorder(open_client(api.url, token=token), called)

    boss = of(api.admin)
    _the_server(of(None))
    _an_agent_s_day(api, of, boss)
    _work_of_a_key(boss)
    _jobs(boss)
    _dead_letters(boss)
    _pools(boss)
    _the_fleet(boss)
    _what_happened(boss)
    _an_exchange(api, of, issuer)
    _logs(boss)
    assert called & set(METHODS) == set(METHODS) - {"close"}


def _the_server(client: Any) -> None:
    assert client.health().status == "healthy"
    assert client.ready().status == "ready"
    info = client.info()
    assert info.name == "hybridq" and "long_poll" in info.features
    with pytest.raises(Unauthenticated):
        client.summary()


def _an_agent_s_day(api: Api, of: Callable[[str], Any], boss: Any) -> None:
    boss.enqueue("build", {"n": 1}, pool="linux")
    boss.enqueue("test", {"n": 2}, pool="linux", priority="HIGH")
    key = api.post("/api/agents/keys", {"pool": "linux", "labels": {"zone": "a"}}).json()["key"]
    agent = of(key)
    with pytest.raises(NotRegistered):
        agent.heartbeat()
    registered = agent.register(
        "b1", version="1.2", labels={"os": "linux", "gpu": ""}, capacity=2, boot_id="boot1", features=["logs"]
    )
    assert (registered.agent_id, registered.pool, registered.status) == ("b1", "linux", "HEALTHY")
    assert agent.session.session_id == registered.session_id and agent.session.boot_id == "boot1"
    again = agent.register(version="1.3", capacity=2)
    assert again.session_id == registered.session_id, "the same agent and boot: the same session"

    claimed = agent.claim(wait_seconds=5, max=2, lease_seconds=20)
    first, second = claimed.jobs
    assert [first.type, second.type] == ["test", "build"] and claimed.job is first
    assert first.decode() == {"n": 2} and 0 < first.lease_expires_in_seconds <= 20.0
    assert (first.status, first.agent_id, first.attempt) == ("CLAIMED", "b1", 0)
    assert first.lease_token == f"{first.fence}.{first.lease_token.partition('.')[2]}"
    started = agent.start(first.id, first.lease_token)
    assert started.status == JobStatus.RUNNING and started.attempts[0].agent_id == "b1"
    beat = agent.heartbeat(metrics={"cpu_percent": 12.5}, leases=claimed.jobs)
    assert {each.id for each in beat.renewed} == {first.id, second.id} and not beat.lost and not beat.drain
    assert beat.status == "HEALTHY" and beat.next_heartbeat_seconds > 0

    assert boss.cancel(second.id).cancel_requested_at is not None
    beat = agent.lease_heartbeat([LeaseRef(id=second.id, lease_token=second.lease_token)])
    assert [(each.id, each.mode) for each in beat.cancel] == [(second.id, "graceful")] and beat.cancel[0].grace_seconds
    assert agent.complete(second.id, second.lease_token, "cancelled").job.status == "CANCELLED"

    extra = boss.enqueue("next", pool="linux")
    done = agent.complete(first.id, first.lease_token, exit_code=0, result={"ok": 1}, claim_next=True)
    assert (done.job.status, done.job.result, done.replayed, done.retried) == ("COMPLETED", {"ok": 1}, False, False)
    assert [each.id for each in done.next] == [extra.id]
    assert agent.complete(first.id, first.lease_token, exit_code=0, result={"ok": 1}).replayed
    with pytest.raises(OutcomeConflict):
        agent.complete(first.id, first.lease_token, "failed")
    assert agent.claim(holding=done.next).jobs == ()
    assert agent.release(extra.id, done.next[0].lease_token, delay_seconds=0).status in ("QUEUED", "SCHEDULED")
    with pytest.raises(StaleLease) as stale:
        agent.start(extra.id, done.next[0].lease_token)
    assert stale.value.job_status in ("QUEUED", "SCHEDULED")

    me = agent.agent()
    assert (me.agent_id, me.version, me.capacity, me.labels["zone"], me.features) == ("b1", "1.3", 2, "a", ())
    assert boss.steer_agent("b1", "DRAINING", reason="kernel").drain_reason == "kernel"
    assert agent.heartbeat().drain
    nothing = agent.claim()
    assert not nothing and nothing.job is None and nothing.drain
    assert not boss.steer_agent("b1", "healthy").drain_reason
    assert agent.deregister(reason="done").status == "TERMINATED"
    assert agent.session is None


def _work_of_a_key(boss: Any) -> None:
    """An API key claims under a name of its own, and an empty answer says when to come back."""
    nothing = boss.claim(agent_id="mine", pool="keyed")
    assert not nothing and not nothing.drain and nothing.retry_after_seconds == 1.0
    with pytest.raises(NotRegistered):
        boss.claim(pool="keyed")
    job = boss.enqueue("build", pool="keyed", max_attempts=1)
    claimed = boss.claim(agent_id="mine", pools=["keyed"], start=True, request_id="r1")
    assert claimed.job.status == "RUNNING" and claimed.job.id == job.id
    same = boss.claim(agent_id="mine", pool="keyed", start=True, request_id="r1")
    assert same.job.lease_token == claimed.job.lease_token
    done = boss.complete(job.id, claimed.job.lease_token, "failed", exit_code=2, error={"code": "x"}, retryable=False)
    assert (done.job.status, done.job.exit_code, done.job.error) == ("FAILED", 2, {"code": "x"})


def _jobs(boss: Any) -> None:
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    job = boss.enqueue(
        "deploy",
        b'{"exactly":  1.0}',
        job_id="j1",
        pool="jobs",
        priority="LOW",
        tags={"team": "a", "x": "y=z"},
        run_at=soon,
        max_attempts=5,
        timeout_seconds=60,
        retry=RetryPolicy(base_seconds=1, max_seconds=2),
        unique={"key": "u1", "on_conflict": "reject"},
    )
    assert (job.id, job.status, job.priority, job.max_attempts) == ("jobs~j1", "SCHEDULED", "LOW", 5)
    assert bytes(job.payload) == b'{"exactly":  1.0}' and job.tags == {"team": "a", "x": "y=z"}
    assert job.retry == RetryPolicy(base_seconds=1, max_seconds=2) and abs(job.run_at - soon) < dt.timedelta(seconds=1)
    assert boss.enqueue("other", pool="jobs", unique="u1").id == job.id
    with pytest.raises(JobConflict):
        boss.enqueue("deploy", {"other": True}, job_id="j1", pool="jobs")
    with pytest.raises(Refused, match="not_supported_yet") as later:
        boss.enqueue("build", labels=["os=linux"], group="g", pool="jobs")
    assert {each.pointer for each in later.value.errors} == {"/labels", "/group"}
    with pytest.raises(Malformed) as wrong:
        boss.enqueue("build", priority="SOON", pool="jobs")
    assert wrong.value.errors[0].pointer == "/priority"

    batch = boss.enqueue_batch(NewJob(type="many", payload=n, pool="jobs", tags={"n": str(n)}) for n in range(3))
    assert [(each.index, each.status, each.job.decode()) for each in batch.results] == [(n, 201, n) for n in range(3)]
    ids = [each.job.id for each in batch.results]
    whole = boss.enqueue_batch([NewJob(type="one", pool="jobs"), NewJob(type="two", pool="jobs")], atomic=True)
    assert len(whole.results) == 2
    page = boss.jobs(pool="jobs", type="many", status="QUEUED", priority="NORMAL", limit=2)
    rest = boss.jobs(pool="jobs", type="many", status="QUEUED", priority="NORMAL", limit=2, cursor=page.next_cursor)
    assert [each.id for each in itertools.chain(page.items, rest.items)] == ids[::-1] and rest.next_cursor is None
    assert [each.id for each in boss.jobs(pool="jobs", tags={"n": "1"}).items] == [ids[1]]

    assert boss.priority(ids[0], "CRITICAL").priority == "CRITICAL"
    assert boss.cancel(ids[0]).status == "CANCELLED"
    assert boss.job(ids[0], wait_seconds=10).status == "CANCELLED", "it has ended, so nothing is waited for"
    assert boss.job(ids[1], wait_seconds=0.2).status == "QUEUED"
    assert boss.retry(ids[0]).generation == 1
    with pytest.raises(JobNotFound) as missing:
        boss.job("jobs~nobody")
    assert isinstance(missing.value, LookupError) and isinstance(missing.value, ApiError)
    stats = boss.stats(pool="jobs", window_seconds=60)
    assert stats.queued == 5 and stats.scheduled == 1 and stats.by_priority["LOW"] == 0
    assert boss.stats(pool="nobody").enqueued == 0
    assert boss.requeue_expired(pool="jobs").more is False


def _dead_letters(boss: Any) -> None:
    job = boss.enqueue("doomed", pool="dead", max_attempts=1)
    claimed = boss.claim(agent_id="mine", pool="dead", start=True)
    boss.complete(job.id, claimed.job.lease_token, "failed")
    found = boss.dead(pool="dead", type="doomed", limit=10)
    assert [(each.id, each.status) for each in found.items] == [(job.id, "DEAD_LETTERED")] and found.items[
        0
    ].dead_reason
    assert boss.dead_replay(pool="dead", all=True, dry_run=True).matched == 1
    with pytest.raises(Malformed, match="filter_required"):
        boss.dead_replay(pool="dead")
    replayed = boss.dead_replay(job_ids=[job.id])
    assert (replayed.matched, replayed.replayed, replayed.remaining) == (1, 1, 0)
    claimed = boss.claim(agent_id="mine", pool="dead", start=True)
    boss.complete(job.id, claimed.job.lease_token, "failed")
    assert boss.dead_purge(type="doomed", limit=5).purged == 1
    with pytest.raises(JobNotFound):
        boss.job(job.id)


def _pools(boss: Any) -> None:
    assert boss.configure_pool("made", max_queued=10, lease_seconds=45).lease_seconds == 45.0
    pool = boss.pool("made")
    assert (pool.pool, pool.policy, pool.max_queued, pool.paused) == ("made", "fifo", 10, False)
    assert {"made", "linux", "jobs"} <= {each.pool for each in boss.pools().items}
    paused = boss.pause("made", reason="upkeep")
    assert (paused.pool, paused.paused, paused.reason) == ("made", True, "upkeep") and paused.at is not None
    assert not boss.resume("made").paused
    with pytest.raises(Missing, match="pool_not_found"):
        boss.pool("nobody")


def _the_fleet(boss: Any) -> None:
    [agent] = boss.agents(pool="linux", status="TERMINATED", label=["zone=a", "zone"], limit=10).items
    assert agent.agent_id == "b1" and agent.jobs_completed == 1
    assert boss.healthy_agents(pool="linux") == ()
    assert "linux" in {each.name for each in boss.agent_pools().items}
    scaled = boss.scale("linux", min=1, max=3, target=2)
    assert (scaled.min, scaled.max, scaled.target) == (1, 3, 2)
    assert boss.agent_pool("linux").target == 2
    with pytest.raises(Refused, match="invalid_range"):
        boss.scale("linux", min=9)
    with pytest.raises(AgentNotRegistered):
        boss.agent("nobody")
    assert boss.summary().total_jobs > 5


def _what_happened(boss: Any) -> None:
    events = boss.events(pool=["jobs"], types=["job.enqueued"], last_event_id=None)
    try:
        job, found = _while_enqueueing(boss, events)
    finally:
        events.close()
    assert found.type == "job.enqueued" and found.pool == "jobs" and found.job_id == job.id and found.id


def _while_enqueueing(boss: Any, events: Iterator[Any]) -> tuple[Any, Any]:
    """Return the first event, and its job: what happened before the stream was open is not told."""
    made: list[Any] = []
    stop = threading.Event()

    def enqueue() -> None:
        with Client(boss.url, token=_token_of(boss)) as other:
            while not stop.wait(0.1):
                made.append(other.enqueue("seen", pool="jobs"))

    thread = threading.Thread(target=enqueue)
    thread.start()
    try:
        event = next(events)
    finally:
        stop.set()
        thread.join()
    return next(job for job in made if job.id == event.job_id), event


def _token_of(boss: Any) -> str:
    client = boss._client.client if isinstance(boss._client, Driven) else boss._client
    return str(client._credentials.base.reveal())


def _an_exchange(api: Api, of: Callable[[str | None], Any], issuer: Issuer) -> None:
    audience = "https://hybridq.test/client"
    rule = {"issuer": issuer.url, "audience": audience, "claims": {"sub": "repo:42"}, "pool": "linux"}
    assert api.put("/api/trust-rules/ci", rule).status_code == 201
    exchanged = of(None).exchange_token(issuer.token(aud=audience, sub="repo:42") + "\n")
    assert exchanged.access_token.startswith("hqa_") and exchanged.expires_in > 0
    agent = of(exchanged.access_token)
    assert agent.register("oidc1").pool == "linux"
    with pytest.raises(Malformed, match="invalid_request"):
        of(None).exchange_token("not.a.token")


def _logs(boss: Any) -> None:
    job = boss.enqueue("loud", pool="logs")
    claimed = boss.claim(agent_id="mine", pool="logs", start=True)
    assert boss.append_log(job.id, claimed.job.lease_token, 0, "häl").next_offset == 4
    assert boss.append_log(job.id, claimed.job.lease_token, 4, "lo\n").next_offset == 7
    part = boss.read_log(job.id, offset=4, limit=100)
    assert (part.data, part.offset, part.next_offset, part.complete) == ("lo\n", 4, 7, False)
    boss.complete(job.id, claimed.job.lease_token)
    assert "".join(each.data for each in boss.follow_log(job.id)) == "hällo\n"


# -- what a call may not be ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["j1", "a~b~c", "../x~y", "a~j1/start", "a~", "~a", "a~j 1", "", None, "a~j1?x=1"])
def test_an_id_that_leads_elsewhere_is_not_sent(client: Any, scripted: Any, id: Any) -> None:
    with pytest.raises(InvalidArgument):
        client.job(id)
    with pytest.raises(InvalidArgument):
        client.start(id, f"1.{'0' * 32}")
    assert not scripted.requests


def test_what_json_cannot_hold_is_not_sent(client: Any, scripted: Any) -> None:
    for payload in (object(), "\ud800", {1j: 2}):
        with pytest.raises(InvalidArgument):
            client.enqueue("build", payload)
    with pytest.raises(InvalidArgument, match="surrogate"):
        client.jobs(type="\ud800")
    with pytest.raises(InvalidArgument, match="time zone"):
        client.enqueue("build", run_at=dt.datetime(2030, 1, 1))
    assert not scripted.requests


def test_limits_of_scope_and_pool_are_told_apart(api: Api, open_client: Callable[..., Any]) -> None:
    reader = open_client(api.url, token=api.key("queue:read", pools=["a"]))
    with pytest.raises(Forbidden, match="missing_scope"):
        reader.enqueue("build", pool="a")
    with pytest.raises(Forbidden, match="pool_not_allowed"):
        reader.stats(pool="b")


def test_a_newer_session_ends_the_older_one(api: Api, open_client: Callable[..., Any]) -> None:
    first, second = (open_client(api.url, token=api.admin) for _ in range(2))
    first.register("b1", pool="linux", boot_id="one")
    second.register("b1", pool="linux", boot_id="two")
    for call in (first.heartbeat, lambda: first.claim(wait_seconds=0)):
        with pytest.raises((SessionSuperseded, Unauthenticated)):
            call()
    assert second.heartbeat().status == "HEALTHY"
