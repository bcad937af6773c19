"""What a Redis URL means, what it is refused for, and that no part of it that is secret is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff

from hybridq.connect import Connector
from hybridq.connect._address import parse
from hybridq.errors import InvalidURL, RedisUnavailable, UsageError

SECRET = "s3cr3t-hunter2"


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("redis://localhost", "redis://localhost:6379"),
        ("redis://localhost:6380/2", "redis://localhost:6380?db=2"),
        ("redis://localhost?db=2", "redis://localhost:6379?db=2"),
        ("rediss://user:pw@redis.example:6380/0", "rediss://redis.example:6380"),
        ("redis://[::1]:7000", "redis://[::1]:7000"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("unix://user:pw@/run/redis.sock", "unix:///run/redis.sock"),
        ("redis+sentinel://a,b:26380/mymaster", "redis+sentinel://a:26379,b:26380/mymaster"),
        ("redis+sentinel://a/my-master/3", "redis+sentinel://a:26379/my-master?db=3"),
        ("rediss+sentinel://:pw@a/m?sentinel_password=x", "rediss+sentinel://a:26379/m"),
        ("redis+cluster://a:7000,b:7001", "redis+cluster://a:7000,b:7001"),
        ("rediss+cluster://a/0", "rediss+cluster://a:6379"),
    ],
)
def test_a_url_is_understood_and_shown_without_its_secrets(url: str, safe: str) -> None:
    connector = Connector.parse(url)

    assert safe == connector.safe_url
    assert f"Connector({safe!r})" == repr(connector)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://localhost",
        "redis://",
        "redis://a:99999",
        "redis://a:0",
        "redis://a,b",
        "redis://a/name",
        "redis://a?db=-1",
        "redis://a?decode_responses=1",
        "redis://a?max_connections=0",
        "redis://a?socket_timeout=nan",
        "redis://a?ssl_check_hostname=no",
        "rediss://a?ssl_check_hostname=perhaps",
        "rediss://a?ssl_ca_certs=/no/such/file",
        "redis://a#fragment",
        "unix://run/redis.sock",
        "unix:///",
        "redis+sentinel://a",
        "redis+sentinel://a/two words",
        "redis+cluster://a/1",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_as_wrong_usage(url: str) -> None:
    with pytest.raises(InvalidURL) as refused:
        Connector.parse(url)

    assert isinstance(refused.value, UsageError)
    assert refused.value.reason


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{SECRET}@host:port",
        f"redis://:a/{SECRET}@host",
        f"redis://user:1/{SECRET}@host",
        f"redis://user:1?{SECRET}@host",
        f"redis://user:1#{SECRET}@host",
        f"redis://{SECRET}:x:y",
        f"redis://host:{SECRET}",
        f"redis://host/{SECRET}",
        f"redis://host?password={SECRET}&db=x",
        f"redis://host?{SECRET}=1",
        f"redis://host?db={SECRET}",
        f"redis+sentinel://host/{SECRET}!",
        f"unix://{SECRET}",
        SECRET,
        f"{SECRET}://host",
    ],
)
def test_a_refusal_never_repeats_what_may_be_a_password(url: str) -> None:
    with pytest.raises(InvalidURL) as refused:
        Connector.parse(url)

    shown = f"{refused.value} {refused.value!r} {refused.value.url} {refused.value.__cause__!r}"
    assert SECRET not in shown
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{SECRET}@localhost",
        f"unix://:{SECRET}@/run/redis.sock",
        f"redis+sentinel://:{SECRET}@localhost/m?sentinel_password={SECRET}",
        f"redis://localhost?password={SECRET}",
    ],
)
def test_no_representation_of_a_connector_or_its_clients_shows_the_password(url: str) -> None:
    connector = Connector.parse(url)
    client = connector.sync()

    assert SECRET not in f"{connector!r} {parse(url)!r} {client!r} {connector.aio()!r}"
    client.close()


def test_credentials_are_unescaped_and_handed_to_the_client() -> None:
    address = parse("redis://us%40er:p%2Fw%23@localhost")

    assert ("us@er", "p/w#") == (address.username, address.password)


def test_options_of_the_url_override_ours() -> None:
    client = Connector.parse("redis://localhost?socket_timeout=2.5&max_connections=3&timeout=1").sync()

    assert isinstance(client, redis.Redis)
    pool = client.connection_pool
    assert (3, 1.0, 2.5) == (pool.max_connections, pool.timeout, pool.connection_kwargs["socket_timeout"])
    client.close()


@pytest.mark.parametrize("url", ["redis://localhost", "unix:///run/redis.sock", "redis+sentinel://localhost/m"])
def test_no_client_retries_decodes_or_introduces_itself(url: str) -> None:
    connector = Connector.parse(url)
    for client in (connector.sync(), connector.sync_bell(), connector.aio(), connector.aio_bell()):
        options = client.connection_pool.connection_kwargs
        retry = options["retry"]

        assert 0 == retry.get_retries()
        assert isinstance(retry._backoff, NoBackoff)
        assert options["decode_responses"] is False
        assert options["driver_info"] is None
        assert 0 == options["health_check_interval"]
        assert 2 == options["protocol"]


def test_a_shorter_patience_is_a_new_connector_and_never_a_longer_one() -> None:
    connector = Connector.parse("redis://localhost?socket_timeout=3")

    for wait_s, expected in [(0.5, (0.5, 0.5)), (4.0, (3.0, 4.0)), (60.0, (3.0, 5.0))]:
        options = connector.with_reply_wait(wait_s).sync().connection_pool.connection_kwargs
        assert expected == (options["socket_timeout"], options["socket_connect_timeout"])
    assert connector.sync().connection_pool.connection_kwargs["socket_timeout"] == 3.0


def test_a_bell_waits_for_ever_and_a_command_does_not() -> None:
    connector = Connector.parse("redis://localhost")

    for make, timeout_s in [(connector.sync, 10.0), (connector.sync_bell, None)]:
        assert timeout_s == make().connection_pool.connection_kwargs["socket_timeout"]
    for amake, timeout_s in [(connector.aio, 10.0), (connector.aio_bell, None)]:
        assert timeout_s == amake().connection_pool.connection_kwargs["socket_timeout"]


def test_a_cluster_that_is_away_is_reported_with_its_address_alone(tmp_path: Path) -> None:
    connector = Connector.parse(f"redis+cluster://:{SECRET}@127.0.0.1:1")

    with pytest.raises(RedisUnavailable) as away:
        connector.sync()

    assert "redis+cluster://127.0.0.1:1" == away.value.url
    assert SECRET not in str(away.value)
