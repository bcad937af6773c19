"""One server for a data directory, however many processes use it and however they end."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from hybridq.embedded import EmbeddedServer, _process, down, start_or_attach, status
from tests.embedded.attached import Attached
from tests.servers import wait_until


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url)


def _start(data_dir: Path) -> EmbeddedServer:
    server = start_or_attach(data_dir)
    assert isinstance(server, EmbeddedServer)
    return server


def test_a_second_process_attaches_to_the_running_server(data_dir: Path) -> None:
    with _start(data_dir) as ours, Attached(data_dir) as theirs:
        with _client(theirs.said["url"]) as client:
            client.set("k", "v")

        assert ours.started_here
        assert not theirs.said["started_here"]
        assert ours.pid == theirs.said["pid"]
        with _client(ours.url) as client:
            assert b"v" == client.get("k")
        assert status(data_dir).users == 2


def test_processes_that_race_to_start_get_one_server(data_dir: Path) -> None:
    with ExitStack() as stack:
        racers = [stack.enter_context(Attached(data_dir)) for _ in range(4)]

        assert [False, False, False, True] == sorted(racer.said["started_here"] for racer in racers)
        assert len({racer.said["pid"] for racer in racers}) == 1


def test_the_last_to_close_stops_the_server(data_dir: Path) -> None:
    with _start(data_dir) as ours, Attached(data_dir) as theirs:
        theirs.close()
        assert status(data_dir).running, "we still use it"
        ours.close()
        assert not status(data_dir).running


def test_two_holds_of_one_process_count_as_two(data_dir: Path) -> None:
    first, second = _start(data_dir), _start(data_dir)

    first.close()
    first.close()

    assert status(data_dir).running
    second.close()
    assert not status(data_dir).running


def test_a_process_that_ends_without_closing_stops_the_server_if_it_was_the_last(data_dir: Path) -> None:
    with Attached(data_dir) as only:
        assert only.said["started_here"]

        only.leave()

    assert not status(data_dir).running


def test_a_killed_process_does_not_count_as_a_user(data_dir: Path) -> None:
    with _start(data_dir) as ours, Attached(data_dir) as theirs:
        assert not theirs.said["started_here"]
        theirs.kill()
        assert status(data_dir).users == 1

        ours.close()

        assert not status(data_dir).running


def test_a_server_outlives_its_killed_parent_and_the_next_start_finds_the_data(data_dir: Path) -> None:
    with Attached(data_dir) as parent:
        with _client(parent.said["url"]) as client:
            client.set("k", "v")
        parent.kill()

        with _start(data_dir) as server, _client(server.url) as client:
            assert not server.started_here
            assert parent.said["pid"] == server.pid
            assert b"v" == client.get("k")


def test_data_outlive_a_killed_server_and_its_socket_does_not_stand_in_the_way(data_dir: Path) -> None:
    with _start(data_dir) as first:
        with _client(first.url) as client:
            client.set("k", "v")
        os.kill(first.pid, signal.SIGKILL)
        wait_until(lambda: not status(data_dir).running, 10, what="the server is gone")
        assert (data_dir / "run/s").exists(), "a killed server leaves its socket"

        with _start(data_dir) as second, _client(second.url) as client:
            assert second.started_here
            assert first.pid != second.pid
            assert b"v" == client.get("k")


def test_data_outlive_a_server_that_was_stopped(data_dir: Path) -> None:
    with _start(data_dir) as server, _client(server.url) as client:
        client.set("k", "v")

    with _start(data_dir) as server, _client(server.url) as client:
        assert b"v" == client.get("k")


def test_down_stops_the_server_whoever_uses_it(data_dir: Path) -> None:
    with Attached(data_dir) as theirs:
        assert theirs.said["started_here"]

        assert down(data_dir)

        assert not status(data_dir).running
        assert not down(data_dir), "there is nothing left to stop"
        theirs.close()


def test_down_stops_a_server_that_does_not_answer(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process takes no request and no SIGTERM: only SIGKILL ends it."""
    server = _start(data_dir)
    os.kill(server.pid, signal.SIGSTOP)
    monkeypatch.setattr(_process, "STOP_WAIT_S", 0.3)

    assert down(data_dir)

    assert not status(data_dir).running
    server.close()


def test_down_and_status_leave_a_directory_alone_that_was_never_used(data_dir: Path) -> None:
    assert not down(data_dir)
    found = status(data_dir)

    assert (False, None, 0) == (found.running, found.engine, found.users)
    assert not data_dir.exists()


def test_ctrl_c_in_a_terminal_does_not_reach_the_server(data_dir: Path) -> None:
    with _start(data_dir) as server:
        assert os.getsid(server.pid) != os.getsid(0)
        assert os.getpgid(server.pid) != os.getpgid(0)
