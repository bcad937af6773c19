"""Logs over a network that cuts, to a real server: complete, in order, nothing twice, no secret."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hybridq.agent import Client
from hybridq.agent.logs import JobLog
from tests.agent.test_redactor import SPELLINGS, plain_log
from tests.api.client import Api
from tests.proxy import Proxy
from tests.servers import wait_until

SECRET = "hunter2-Pass/word+x=1"
CUTS = 20
LONG_S = 60.0


class Running:
    """A job that this agent runs: its log goes through `proxy`, and is read beside it."""

    def __init__(self, api: Api, proxy: Proxy, folder: Path, opened: contextlib.ExitStack) -> None:
        self.boss = opened.enter_context(contextlib.closing(Client(api.url, token=api.admin)))
        url = proxy.url.replace("redis://", "http://")
        self.client = opened.enter_context(contextlib.closing(Client(url, token=api.admin, timeout_s=3, deadline_s=6)))
        self.id = self.boss.enqueue("build", pool="linux").id
        self.claimed: Any = self.boss.claim(agent_id="mine", pool="linux", start=True, lease_seconds=300).job
        self.folder = folder

    def open_log(self, **options: Any) -> JobLog:
        def append(offset: int, text: str) -> int:
            return self.client.append_log(self.id, self.claimed.lease_token, offset, text).next_offset

        return JobLog(self.folder, append=append, **{"flush_s": 0.02, **options})

    def read(self) -> str:
        """The whole log, as the server has it."""
        parts, offset = [], 0
        while True:
            part = self.boss.read_log(self.id, offset=offset)
            if part.next_offset == offset:
                return "".join(parts)
            parts.append(part.data)
            offset = part.next_offset


@pytest.fixture
def proxy(api: Api) -> Iterator[Proxy]:
    with Proxy(f"redis://127.0.0.1:{api.port}") as proxy:
        yield proxy


@pytest.fixture
def running(api: Api, proxy: Proxy, tmp_path: Path) -> Iterator[Running]:
    with contextlib.ExitStack() as opened:
        yield Running(api, proxy, tmp_path / "log", opened)


def test_logs_arrive_complete_and_in_order_through_twenty_cuts(running: Running, proxy: Proxy) -> None:
    log = running.open_log(secrets=[SECRET])
    rng = random.Random(20)
    said = []
    for n in range(CUTS):
        if n % 3 == 2:
            proxy.cut()
        cut = proxy.drop_next_reply(b"/logs") if n % 2 else proxy.cut_reply_after(30, b"/logs")
        for k in range(50):
            line = f"{n:03d}.{k:02d} äöü {'x' * rng.randint(0, 200)}\n"
            said.append(line)
            log.write(line.encode())
        wait_until(cut.is_set, LONG_S, what=f"cut {n}")
    log.write(f"{SECRET}\n".encode())
    summary = log.close(within_s=LONG_S)
    assert running.read() == "".join(said) + "[redacted]\n"
    assert summary.delivered and not summary.truncated and summary.bytes_sent == len("".join(said).encode()) + 11
    assert proxy.accepted > CUTS


def test_an_outage_is_spooled_and_caught_up_with(running: Running, proxy: Proxy) -> None:
    log = running.open_log()
    log.write(b"before.\n")
    wait_until(lambda: running.read() == "before.\n", LONG_S)
    proxy.blackhole()
    said = "".join(f"during {n}\n" for n in range(20_000))
    for at in range(0, len(said), 1000):
        log.write(said[at : at + 1000].encode())
    assert running.read() == "before.\n"
    proxy.cut()
    proxy.heal()
    log.write(b"after.\n")
    assert log.close(within_s=LONG_S).delivered
    assert running.read() == f"before.\n{said}after.\n"


def test_fifty_megabytes_arrive_as_head_and_tail(running: Running) -> None:
    log = running.open_log()
    data = plain_log(50_000_000)
    for at in range(0, len(data), 65_536):
        log.write(data[at : at + 65_536])
    log.write(b"\nthe end.\n")
    summary = log.close(within_s=LONG_S)
    stored = running.read()
    assert summary.truncated and summary.delivered and summary.bytes_written == len(data) + 10
    assert stored.startswith(data[:3_000_000].decode()) and stored.endswith("the end.\n")
    assert "this log is longer than 4,194,304 bytes: its middle is left out, its end follows\n" in stored
    assert f"[hybridq] {summary.bytes_dropped:,} bytes are left out here\n" in stored
    assert len(stored.encode()) == summary.bytes_sent < 4_200_000


def test_no_spelling_of_a_secret_reaches_the_server(running: Running, redis: Any) -> None:
    log = running.open_log(secrets=[SECRET])
    rng = random.Random(21)
    for name, spell in SPELLINGS.items():
        log.note(name)
        spelled = f"{spell(SECRET)}.\n".encode()
        at = rng.randrange(len(spelled))
        log.write(spelled[:at])
        log.write(spelled[at:])
    assert log.close(within_s=LONG_S).redactions >= len(SPELLINGS)
    stored = running.read()
    assert stored.count("[redacted") >= len(SPELLINGS)
    for spell in SPELLINGS.values():
        assert spell(SECRET) not in stored


def test_a_lease_that_was_lost_ends_the_log(running: Running) -> None:
    log = running.open_log()
    log.write(b"mine.\n")
    wait_until(lambda: running.read() == "mine.\n", LONG_S)
    running.boss.complete(running.id, running.claimed.lease_token, exit_code=0)
    log.write(b"late.\n")
    summary = log.close(within_s=LONG_S)
    assert not summary.delivered and summary.refused in ("stale_lease", "illegal_transition")
    assert running.read() == "mine.\n"
