"""The servers of the tests do as they are told, and none outlives its test run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.servers import ServerProcess, wait_until

CHECKOUT = Path(__file__).resolve().parents[2]

STARTS_ONE_AND_WAITS = """
import sys
from tests.servers import ServerProcess
server = ServerProcess().start()
print(server.pid, server.folder, flush=True)
sys.stdin.read()
"""


def test_a_restarted_server_has_its_data_when_it_writes_them_and_none_when_not() -> None:
    for aof, expected in [(True, b"v"), (False, None)]:
        with ServerProcess(aof=aof) as server:
            with server.client() as client:
                client.set("k", "v")
            server.kill()
            server.start()
            with server.client() as client:
                assert expected == client.get("k")


def test_a_paused_server_answers_nothing_until_it_goes_on() -> None:
    with ServerProcess() as server, redis.Redis.from_url(server.url, socket_timeout=0.2, retry=None) as client:
        client.ping()
        server.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        server.resume()
        assert client.ping()


@pytest.mark.parametrize(
    "killed", [pytest.param(True, marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux only")), False]
)
def test_no_server_outlives_the_process_that_started_it(killed: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTS_ONE_AND_WAITS],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        if killed:
            parent.kill()
        parent.communicate(timeout=30)

    wait_until(lambda: not _runs(int(pid)), 10, what="the server has ended")
    assert killed or not Path(folder).exists()


def _runs(pid: int) -> bool:
    """Whether a process exists and is more than a record that its parent has yet to read."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return not state.stdout.strip().startswith("Z") and bool(state.stdout.strip())
