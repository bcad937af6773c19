"""Who the client is: tokens that expire, are renewed, are refused; and that none of them is ever shown."""

from __future__ import annotations

import io
import logging
import pickle
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
import redis as redis_py
import structlog
from rich.console import Console

from hybridq.agent import (
    AnswerNotUnderstood,
    ApiError,
    AsyncClient,
    Client,
    Forbidden,
    Session,
    SessionSuperseded,
    Unauthenticated,
    Unreachable,
)
from hybridq.errors import HybridqError, InvalidArgument
from tests.agent.conftest import TOKEN
from tests.agent.scripted import HTML, Reply, Scripted, problem
from tests.agent.test_client_retries import JOB, LEASED
from tests.api.client import Api
from tests.proxy import Proxy
from tests.servers import free_port

REGISTERED = {
    "agent_id": "b1",
    "session_id": "0" * 32,
    "pool": "linux",
    "status": "HEALTHY",
    "token": "hqa_first",
    "token_expires_in_seconds": 900,
    "renewal_token": "hqn_first",
    "heartbeat_seconds": 10.0,
    "boot_id": "boot1",
}
BEAT = {"status": "HEALTHY", "next_heartbeat_seconds": 10.0, "renewed": [], "lost": [], "cancel": [], "drain": False}
REFUSED = problem(401, "unauthenticated")


def an_end_of_all_tokens(redis: redis_py.Redis) -> None:
    """Every agent token has expired; keys and renewal tokens have not."""
    for name in redis.scan_iter(match="hq:{sys/auth}:agent_token:*", count=1000):
        redis.delete(name)


@pytest.fixture
def spent_key(api: Api) -> str:
    return str(api.post("/api/agents/keys", {"pool": "linux"}).json()["key"])


# -- a real server -----------------------------------------------------------------------------------------------


def test_an_expired_token_is_renewed_without_the_caller_noticing(
    api: Api, redis: redis_py.Redis, open_client: Callable[..., Any], spent_key: str
) -> None:
    told: list[Session | None] = []
    client = open_client(api.url, token=spent_key, on_session=told.append)
    client.register("b1", boot_id="boot1")
    first = client.session
    for _ in range(3):
        an_end_of_all_tokens(redis)
        assert client.heartbeat().status == "HEALTHY"
    last = client.session
    assert last.session_id == first.session_id
    assert len({first.token, last.token}) == 2 and len({first.renewal_token, last.renewal_token}) == 2
    assert [each.token for each in told if each][-1] == last.token and len(told) == 4


def test_a_session_that_was_kept_goes_on_in_a_new_client_without_a_key(
    api: Api, redis: redis_py.Redis, open_client: Callable[..., Any], spent_key: str
) -> None:
    client = open_client(api.url, token=spent_key)
    client.register("b1", boot_id="boot1", capacity=3)
    kept = msgspec.json.encode(client.session)
    an_end_of_all_tokens(redis)

    later = open_client(api.url, session=msgspec.json.decode(kept, type=Session))
    assert later.heartbeat().status == "HEALTHY"
    an_end_of_all_tokens(redis)
    again = later.register()
    assert again.session_id == client.session.session_id, "registering goes on by the renewal token as well"
    assert later.agent().capacity == 3 or again.agent_id == "b1"


def test_a_heartbeat_brings_a_fresh_token_in_time(
    redis_url: str, namespace: str, open_client: Callable[..., Any]
) -> None:
    with Api(redis_url, namespace, agent_token_s=200) as api:
        client = open_client(api.url, token=api.admin)
        registered = client.register("b1", pool="linux")
        beat = client.heartbeat()
        assert beat.token not in (None, registered.token) and client.session.token == beat.token
        assert client.claim().jobs == ()


def test_the_answer_to_a_renewal_may_be_lost(
    api: Api, redis: redis_py.Redis, open_client: Callable[..., Any], spent_key: str
) -> None:
    with Proxy(f"redis://127.0.0.1:{api.port}") as proxy:
        client = open_client(proxy.url.replace("redis://", "http://"), token=spent_key)
        client.register("b1", boot_id="boot1")
        for _ in range(2):
            an_end_of_all_tokens(redis)
            gone = proxy.drop_next_reply(b"POST /api/agents/register")
            assert client.heartbeat().status == "HEALTHY" and gone.is_set()


def test_many_threads_renew_once(api: Api, redis: redis_py.Redis, spent_key: str) -> None:
    """A renewal token is accepted twice at most: two threads that renewed by themselves would look like a thief."""
    changes: list[Any] = []
    with Client(api.url, token=spent_key, on_session=changes.append) as client, ThreadPoolExecutor(16) as pool:
        client.register("b1", boot_id="boot1", capacity=4)
        for _ in range(3):
            an_end_of_all_tokens(redis)
            barrier = threading.Barrier(16)

            def beat(_: int, barrier: threading.Barrier = barrier) -> str:
                barrier.wait()
                return client.heartbeat().status

            assert set(pool.map(beat, range(16))) == {"HEALTHY"}
    assert len(changes) == 4


async def test_many_tasks_renew_once(api: Api, redis: redis_py.Redis, spent_key: str) -> None:
    import asyncio

    changes: list[Any] = []
    async with AsyncClient(api.url, token=spent_key, on_session=changes.append) as client:
        await client.register("b1", boot_id="boot1", capacity=4)
        for _ in range(3):
            an_end_of_all_tokens(redis)
            beats = await asyncio.gather(*(client.heartbeat() for _ in range(16)))
            assert {beat.status for beat in beats} == {"HEALTHY"}
    assert len(changes) == 4


def test_a_deregistered_agent_does_not_come_back_by_itself(
    api: Api, open_client: Callable[..., Any], spent_key: str
) -> None:
    """An operator ended it: only a call of `register` begins anew, not some heartbeat."""
    client, boss = open_client(api.url, token=spent_key), open_client(api.url, token=api.admin)
    client.register("b1", boot_id="boot1")
    assert boss.deregister("b1").status == "TERMINATED"
    with pytest.raises((Unauthenticated, SessionSuperseded)):
        client.heartbeat()
    assert boss.agent("b1").status == "TERMINATED"
    assert boss.session is None


def test_the_api_is_killed_and_comes_back(redis_url: str, namespace: str, open_client: Callable[..., Any]) -> None:
    port = free_port()
    with Api(redis_url, namespace, process=True, port=port) as first:
        client = open_client(f"http://127.0.0.1:{port}", token=first.admin, deadline_s=60.0)
        client.register("b1", pool="linux")
        first.stop()
        first.wait_stopped()
        with pytest.raises(Unreachable) as caught:
            client.within(deadline_s=0).heartbeat()
        assert not caught.value.in_doubt
    with ThreadPoolExecutor(1) as pool:
        beat = pool.submit(client.heartbeat)
        with Api(redis_url, namespace, process=True, port=port):
            assert beat.result().status == "HEALTHY"


# -- a server that refuses ---------------------------------------------------------------------------------------


def test_a_token_source_is_asked_first_and_again_once(open_client: Callable[..., Any], scripted: Scripted) -> None:
    tokens = iter(["one\n", "two", "three"])
    client = open_client(scripted.url, token_source=lambda: next(tokens))
    scripted.replies = [Reply(200, JOB), REFUSED, Reply(200, JOB), REFUSED, REFUSED]
    client.job("a~j1")
    client.job("a~j1")
    with pytest.raises(Unauthenticated):
        client.job("a~j1")
    sent = [request.headers["authorization"] for request in scripted.requests]
    assert sent == [f"Bearer {name}" for name in ("one", "one", "two", "two", "three")]


def test_a_token_that_was_refused_stays_refused(client: Any, scripted: Scripted) -> None:
    scripted.replies = [REFUSED]
    with pytest.raises(Unauthenticated):
        client.job("a~j1")
    assert len(scripted.requests) == 1


def test_a_refused_renewal_is_not_tried_again_and_again(client: Any, scripted: Scripted) -> None:
    """Each try with a renewal token that is used up makes it look more like a stolen one."""
    scripted.replies = [Reply(201, REGISTERED), REFUSED]
    client.register("b1", boot_id="boot1")
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            client.heartbeat()
    sent = [(request.path.rpartition("/")[2], request.headers["authorization"]) for request in scripted.requests]
    beat, renewal = ("heartbeat", "Bearer hqa_first"), ("register", "Bearer hqn_first")
    assert sent == [("register", f"Bearer {TOKEN}"), beat, renewal, beat, beat]


def test_a_renewal_asks_for_the_same_agent(client: Any, scripted: Scripted) -> None:
    second = {**REGISTERED, "token": "hqa_second", "renewal_token": "hqn_second"}
    scripted.replies = [Reply(201, REGISTERED), REFUSED, Reply(200, second), Reply(200, BEAT)]
    client.register("b1", boot_id="boot1", labels={"os": "linux"}, capacity=7, version="9", features=["x"])
    client.heartbeat(metrics={"cpu_percent": 1})
    first, beat, renewal, repeat = scripted.requests
    assert renewal.document == {**first.document, "pool": "linux"}
    assert renewal.headers["authorization"] == "Bearer hqn_first"
    assert (beat.body, beat.headers["x-request-id"]) == (repeat.body, repeat.headers["x-request-id"])
    assert repeat.headers["authorization"] == "Bearer hqa_second"


def test_an_outage_may_outlast_a_token_more_than_once(client: Any, scripted: Scripted) -> None:
    """One call, with all the time it needs: each 401 is answered by one renewal, none by two."""
    second, third = ({**REGISTERED, "token": f"hqa_{n}", "renewal_token": f"hqn_{n}"} for n in ("second", "third"))
    scripted.replies = [Reply(201, REGISTERED), REFUSED, Reply(200, second), Reply(cut=0)]
    scripted.replies += [REFUSED, Reply(200, third), Reply(200, BEAT)]
    client.register("b1", boot_id="boot1")
    client.heartbeat()
    assert client.session.token == "hqa_third"
    assert [request.headers["authorization"] for request in scripted.requests][-3:] == [
        "Bearer hqa_second",
        "Bearer hqn_second",
        "Bearer hqa_third",
    ]
    scripted.replies = [REFUSED, Reply(200, second), REFUSED]
    with pytest.raises(Unauthenticated):
        client.heartbeat()
    assert len(scripted.requests) == 10


def test_a_late_fresh_token_does_not_push_out_a_newer_one(client: Any, scripted: Scripted) -> None:
    """A heartbeat that was slow brings the token of a time before a renewal."""
    inner = getattr(client, "client", client)
    scripted.replies = [Reply(201, REGISTERED)]
    client.register("b1", boot_id="boot1")
    used = inner._credentials.current
    scripted.replies = [Reply(200, {**BEAT, "token": "hqa_second"})]
    client.heartbeat()
    inner._credentials.refresh(used, "hqa_late")
    assert client.session.token == "hqa_second"


def test_a_key_registers_again_when_its_first_way_is_refused(client: Any, scripted: Scripted) -> None:
    """The registration key has expired meanwhile; the renewal token is still good."""
    scripted.replies = [Reply(201, REGISTERED), REFUSED, Reply(200, REGISTERED)]
    client.register("b1", boot_id="boot1")
    client.register()
    sent = [request.headers["authorization"] for request in scripted.requests]
    assert sent == [f"Bearer {TOKEN}", f"Bearer {TOKEN}", "Bearer hqn_first"]
    assert scripted.requests[2].document["boot_id"] == "boot1"


def test_a_key_does_not_speak_for_another_boot_by_its_renewal_token(client: Any, scripted: Scripted) -> None:
    scripted.replies = [Reply(201, REGISTERED), REFUSED]
    client.register("b1", boot_id="boot1")
    with pytest.raises(Unauthenticated):
        client.register("b1", boot_id="boot2")
    assert len(scripted.requests) == 2


def test_an_end_whose_answer_is_lost_is_an_end(client: Any, scripted: Scripted) -> None:
    scripted.replies = [Reply(201, REGISTERED), Reply(cut=0), REFUSED]
    client.register("b1", boot_id="boot1")
    assert client.deregister() is None and client.session is None
    scripted.replies = [Reply(200, JOB)]
    client.job("a~j1")
    assert scripted.requests[-1].headers["authorization"] == f"Bearer {TOKEN}", "the key is the credential again"


def test_an_end_that_is_refused_at_once_is_none(client: Any, scripted: Scripted) -> None:
    scripted.replies = [Reply(201, REGISTERED), REFUSED]
    client.register("b1", boot_id="boot1")
    with pytest.raises(Unauthenticated):
        client.deregister()
    assert client.session is not None


# -- nothing is shown ----------------------------------------------------------------------------------------------

SECRETS = (TOKEN, "hqa_first", "hqn_first", LEASED["lease_token"], "s3cret-header")


def _said_of(error: BaseException) -> str:
    """Everything that a log, a console or a post-mortem would show of an error."""
    rich = Console(file=io.StringIO(), width=200)
    found = error.__traceback__
    while found is not None and "hybridq/agent" not in found.tb_frame.f_code.co_filename:
        found = found.tb_next  # what the test itself knows is no secret of the client
    assert found is not None
    try:
        raise error.with_traceback(found)
    except BaseException:
        rich.print_exception(show_locals=True)
        structured = structlog.processors.JSONRenderer(default=repr)
        detailed = structlog.tracebacks.ExceptionDictTransformer(show_locals=True)
        told = structured(None, "", {"exception": detailed(sys.exc_info())})  # type: ignore[arg-type]
    frames = traceback.TracebackException.from_exception(error, capture_locals=True)
    assert isinstance(rich.file, io.StringIO)
    return "".join([repr(error), str(error), str(vars(error)), *frames.format(), rich.file.getvalue(), str(told)])


@pytest.fixture
def everything_logged() -> Iterator[io.StringIO]:
    """All log lines of all libraries, down to the last detail."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(1)
    yield stream
    root.removeHandler(handler)
    root.setLevel(before)


TROUBLE = {
    "refused": (REFUSED, Unauthenticated),
    "forbidden": (problem(403, "missing_scope"), Forbidden),
    "503": (problem(503, "redis_unavailable"), ApiError),
    "a proxy's page that echoes": (Reply(502, f"<p>{SECRETS}</p>".encode(), HTML), ApiError),
    "200 that echoes": (Reply(200, f"<p>{SECRETS}</p>".encode(), HTML), AnswerNotUnderstood),
    "redirect": (Reply(302, headers={"Location": "https://elsewhere/"}), AnswerNotUnderstood),
    "cut": (Reply(cut=0), Unreachable),
    "cut half way": (Reply(200, LEASED, cut=10), Unreachable),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_no_error_and_no_log_line_shows_a_token(
    open_client: Callable[..., Any],
    scripted: Scripted,
    everything_logged: io.StringIO,
    capfd: pytest.CaptureFixture[str],
    name: str,
) -> None:
    reply, kind = TROUBLE[name]
    client = open_client(scripted.url, token=TOKEN, headers={"X-Door": "s3cret-header"}, deadline_s=0.3, timeout_s=1.0)
    scripted.replies = [Reply(201, REGISTERED)]
    registered = client.register("b1", boot_id="boot1")
    scripted.replies = [Reply(200, {"job": LEASED, "jobs": [LEASED]})]
    claimed = client.claim()
    scripted.replies = [reply]
    said = [repr(client), repr(registered), repr(client.session), repr(claimed)]
    for call in (
        lambda: client.heartbeat(leases=claimed.jobs),
        lambda: client.lease_heartbeat(claimed.jobs),
        lambda: client.enqueue("build", {"a": 1}),
    ):
        with pytest.raises(HybridqError) as caught:
            call()
        assert isinstance(caught.value, kind)
        assert caught.value.__cause__ is None and caught.value.__context__ is None
        said.append(_said_of(caught.value))
    said += [everything_logged.getvalue(), *capfd.readouterr()]
    assert (
        "httpcore" in "".join(said) or "client.retry" in "".join(said) or name in ("refused", "forbidden", "redirect")
    )
    for secret in SECRETS:
        for text in said:
            assert secret not in text


def test_a_console_that_draws_structs_shows_no_token(client: Any, scripted: Scripted) -> None:
    scripted.replies = [Reply(201, REGISTERED)]
    registered = client.register("b1", boot_id="boot1")
    console = Console(file=io.StringIO(), width=200)
    console.print(registered, client.session)
    assert isinstance(console.file, io.StringIO)
    assert "hqa_first" not in console.file.getvalue() and "b1" in console.file.getvalue()


@pytest.mark.parametrize("token", ["", " ", "two words", "caf\u00e9", "line\nbreak", "x" * 20_000, None.__class__])
def test_what_is_no_token_is_refused_and_not_repeated(token: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Client("https://ci.example.com", token=token)
    assert "two words" not in str(caught.value) and "break" not in str(caught.value)


def test_a_token_and_a_source_are_one_too_many() -> None:
    with pytest.raises(InvalidArgument, match="one of the two"):
        Client("https://ci.example.com", token=TOKEN, token_source=lambda: TOKEN)


def test_a_client_s_secrets_are_not_pickled() -> None:
    with Client("https://ci.example.com", token=TOKEN) as client, pytest.raises(TypeError):
        pickle.dumps(client._credentials.base)
