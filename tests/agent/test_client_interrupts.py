"""A call that is stopped half way leaves a client as good as new; and what a closed one says."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
import structlog

from hybridq.agent import AsyncClient, Client, ClientClosed
from tests.agent.conftest import TOKEN
from tests.agent.scripted import Reply, Scripted, problem
from tests.agent.test_client_retries import JOB
from tests.api.client import Api
from tests.proxy import Proxy
from tests.servers import wait_until

CHECKOUT = Path(__file__).parents[2]


async def until(predicate: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not predicate():
            await asyncio.sleep(0.01)


async def test_a_poll_that_is_cancelled_leaves_a_clean_client(api: Api) -> None:
    """The server notices, so the next job goes to who asks next; and the client claims it under the same id."""
    async with AsyncClient(api.url, token=api.admin) as client:
        await client.register("b1", pool="linux")
        boss = AsyncClient(api.url, token=api.admin)
        for round in range(3):
            poll = asyncio.create_task(client.claim(wait_seconds=30, request_id=f"r{round}"))
            await asyncio.sleep(0)
            if round:  # else before the server has it
                await until(lambda: "hybridq_claims_parked 1" in api.get("/metrics").text)
            poll.cancel()
            with pytest.raises(asyncio.CancelledError):
                await poll
            job = await boss.enqueue("build", pool="linux")
            claimed = await client.claim(wait_seconds=10, request_id=f"r{round}")
            assert claimed.job is not None and claimed.job.id == job.id
            done = await client.complete(job.id, claimed.job.lease_token, "rejected")
            assert done.job.status == "FAILED"
        stats = await boss.stats(pool="linux")
        assert (stats.claimed, stats.queued) == (0, 0)
        await boss.close()


async def test_a_timeout_around_a_call_is_the_caller_s(scripted: Scripted) -> None:
    event = threading.Event()
    scripted.replies = [Reply(silent=event), Reply(200, JOB)]
    async with AsyncClient(scripted.url, token=TOKEN) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.job("a~j1")
        assert (await client.job("a~j1")).id == "a~j1"
    event.set()


async def test_a_pause_between_two_sendings_is_cancelled_too(scripted: Scripted) -> None:
    scripted.replies = [problem(503, "stopping", retry_after="20")]
    async with AsyncClient(scripted.url, token=TOKEN) as client:
        with structlog.testing.capture_logs() as said:
            task = asyncio.create_task(client.job("a~j1"))
            await until(lambda: [line for line in said if line["event"] == "client.retry"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 2)


async def test_a_renewal_goes_on_when_who_asked_for_it_is_cancelled(api: Api, redis: redis_py.Redis) -> None:
    """Its answer holds the next renewal token: lost twice, the agent would look like a thief."""
    key = api.post("/api/agents/keys", {"pool": "linux"}).json()["key"]
    with Proxy(f"redis://127.0.0.1:{api.port}") as slow:
        async with AsyncClient(slow.url.replace("redis://", "http://"), token=key) as client:
            await client.register("b1", boot_id="boot1")
            slow.delay(0.15)
            for _ in range(4):
                before = client.session
                for name in redis.scan_iter(match="hq:{sys/auth}:agent_token:*", count=1000):
                    redis.delete(name)
                beat = asyncio.create_task(client.heartbeat())
                await until(lambda: client._shared.renewing is not None and not client._shared.renewing.done())
                beat.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await beat
                await until(lambda before=before: client.session is not before)  # type: ignore[misc]
                assert (await client.heartbeat()).status == "HEALTHY"


async def test_many_calls_at_once_share_a_client(api: Api) -> None:
    """More than a pool of connections usually holds, with parked claims among them."""
    async with AsyncClient(api.url, token=api.admin) as client:
        polls = [asyncio.create_task(client.claim(agent_id=f"a{n}", pool="linux", wait_seconds=20)) for n in range(120)]
        await until(lambda: "hybridq_claims_parked 120.0" in api.get("/metrics").text)
        assert (await client.health()).status == "healthy"
        await client.enqueue("build", pool="linux")
        done, waiting = await asyncio.wait(polls, timeout=15, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1 and done.pop().result().job is not None
        for poll in waiting:
            poll.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert (await client.stats(pool="linux")).claimed == 1


PROGRAM = """
import sys, traceback
from hybridq.agent import Client
client = Client(sys.argv[1], token=sys.argv[2])
try:
    print("asking", flush=True)
    client.claim(agent_id="a1", pool="linux", wait_seconds=40, request_id="r1")
except KeyboardInterrupt as stop:
    said = "".join(traceback.TracebackException.from_exception(stop, capture_locals=True).format())
    assert sys.argv[2] not in said.replace(repr(sys.argv), ""), said
    print("stopped", flush=True)
job = client.enqueue("build", pool="linux")
print(client.claim(agent_id="a1", pool="linux", wait_seconds=5, request_id="r1").job.id == job.id, flush=True)
client.close()
"""


def test_ctrl_c_stops_a_poll_and_the_client_goes_on(api: Api) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, api.url, api.admin],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "asking\n"
        parked = api.get("/metrics")
        assert parked.status_code == 200
        wait_until(lambda: _parked(api), 20, what="the claim is parked")
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert out.splitlines() == ["stopped", "True"], errors


def _parked(api: Api) -> bool:
    lines = api.get("/metrics").text.splitlines()
    return any("parked" in line and not line.startswith("#") and not line.endswith(" 0.0") for line in lines)


# -- closed --------------------------------------------------------------------------------------------------------


def test_a_closed_client_says_so(open_client: Callable[..., Any], scripted: Scripted) -> None:
    client = open_client(scripted.url, token=TOKEN)
    view = client.within(deadline_s=0)
    (client if isinstance(client, Client) else _Closes(client)).close()
    for each in (client, view):
        with pytest.raises(ClientClosed):
            each.health()
    assert not scripted.requests


class _Closes:
    """Closes the client, and leaves the loop it is driven in open."""

    def __init__(self, driven: Any) -> None:
        self._driven = driven

    def close(self) -> None:
        self._driven._runner.run(self._driven.client.close())


def test_with_closes() -> None:
    with Client("https://ci.example.com", token=TOKEN) as client:
        pass
    client.close()
    with pytest.raises(ClientClosed):
        client.health()


async def test_async_with_closes() -> None:
    async with AsyncClient("https://ci.example.com", token=TOKEN) as client:
        pass
    await client.close()
    with pytest.raises(ClientClosed):
        await client.health()
