"""The proxy breaks what it says it breaks, and nothing else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
import redis as redis_py
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.proxy import Proxy
from tests.servers import ServerProcess


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[Proxy]:
    with Proxy(server.url) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[redis_py.Redis]:
    """A client through the proxy that sends each command once and says nothing of its own first."""
    with redis_py.Redis.from_url(
        proxy.url, protocol=2, driver_info=None, retry=Retry(NoBackoff(), 0), socket_timeout=5
    ) as client:
        yield client


def test_bytes_pass_unchanged_in_both_directions(client: redis_py.Redis) -> None:
    payload = bytes(range(256)) * 4096

    client.set("k", payload)

    assert payload == client.get("k")


def test_a_cut_ends_open_connections_and_new_ones_are_served(proxy: Proxy) -> None:
    with _raw_connection(proxy) as old:
        old.sendall(b"PING\r\n")
        assert b"+PONG\r\n" == old.recv(100)

        proxy.cut()

        assert b"" == _read_to_the_end(old)
    with _raw_connection(proxy) as new:
        new.sendall(b"PING\r\n")
        assert b"+PONG\r\n" == new.recv(100)


def test_a_dropped_reply_belongs_to_a_request_that_was_executed(
    client: redis_py.Redis, proxy: Proxy, redis: redis_py.Redis
) -> None:
    client.ping()
    dropped = proxy.drop_next_reply()

    with pytest.raises(redis_py.ConnectionError):
        client.incr("n")

    assert dropped.is_set()
    assert b"1" == redis.get("n")
    assert 2 == client.incr("n"), "the fault happens once"


def test_a_fault_waits_for_the_request_it_names(client: redis_py.Redis, proxy: Proxy) -> None:
    dropped = proxy.drop_next_reply(containing=b"INCR")

    assert client.ping()
    assert not dropped.is_set()
    with pytest.raises(redis_py.ConnectionError):
        client.incr("n")
    assert dropped.is_set()


def test_a_reply_is_cut_after_the_given_number_of_bytes(proxy: Proxy, redis: redis_py.Redis) -> None:
    redis.set("k", "0123456789")
    proxy.cut_reply_after(8)

    with _raw_connection(proxy) as raw:
        raw.sendall(b"GET k\r\n")
        seen = _read_to_the_end(raw)

    assert b"$10\r\n012" == seen


def _raw_connection(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(proxy.url.rpartition(":")[2])), timeout=5)


def _read_to_the_end(raw: socket.socket) -> bytes:
    seen = b""
    try:
        while chunk := raw.recv(100):
            seen += chunk
    except ConnectionResetError:
        pass
    return seen


def test_a_delayed_reply_comes_after_the_client_gave_up(proxy: Proxy) -> None:
    impatient = redis_py.Redis.from_url(
        proxy.url, protocol=2, driver_info=None, retry=Retry(NoBackoff(), 0), socket_timeout=1.0
    )
    with impatient:
        impatient.ping()
        proxy.delay(3.0)
        with pytest.raises(redis_py.TimeoutError):
            impatient.ping()
        proxy.delay(0)
        assert impatient.ping()


def test_a_black_hole_swallows_until_it_is_healed(client: redis_py.Redis, proxy: Proxy) -> None:
    client.ping()
    proxy.blackhole()
    answered = threading.Event()
    asking = threading.Thread(target=lambda: client.ping() and answered.set())
    asking.start()
    assert not answered.wait(0.2)

    proxy.heal()

    assert answered.wait(5)
    asking.join(5)


def test_a_server_that_is_away_looks_away_through_the_proxy(client: redis_py.Redis, server: ServerProcess) -> None:
    client.ping()
    server.kill()

    with pytest.raises(redis_py.ConnectionError):
        client.ping()
    server.start()
    assert client.ping()
