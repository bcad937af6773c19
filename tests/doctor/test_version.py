"""The release check: a pure function of the INFO text, so recorded texts stand for servers of other days."""

from __future__ import annotations

import pytest

from hybridq.doctor import Level
from hybridq.doctor._version import Server, check_release, parse_info, read_server

REDIS_7_0 = "# Server\r\nredis_version:7.0.15\r\nredis_git_sha1:00000000\r\nredis_mode:standalone\r\nos:Linux\r\n"
VALKEY_9_1 = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n"
DRAGONFLY = "# Server\r\nredis_version:7.4.0\r\ndragonfly_version:df-v1.27.1\r\nredis_mode:standalone\r\n"


def judged(flavour: str, version: str) -> dict[str, Level]:
    field = f"{flavour}_version"
    server = read_server(parse_info(f"# Server\r\n{field}:{version}\r\n"))
    return {finding.check: finding.level for finding in check_release(server)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (REDIS_7_0, Server("redis", (7, 0, 15))),
        (VALKEY_9_1, Server("valkey", (9, 1, 2))),
        (DRAGONFLY, Server("dragonfly", (1, 27, 1))),
        ("redis_version:255.255.255\r\n", Server("redis", (255, 255, 255))),
        ("# Memory\r\nused_memory:1\r\n", None),
    ],
)
def test_the_flavour_and_version_are_read_from_info(text: str, expected: Server | None) -> None:
    assert read_server(parse_info(text)) == expected


@pytest.mark.parametrize(("flavour", "version"), [("redis", "6.2.20"), ("redis", "5.0.14"), ("valkey", "7.2.11")])
def test_a_release_without_what_the_scripts_need_is_refused(flavour: str, version: str) -> None:
    assert judged(flavour, version) == {"version": Level.REFUSE}


@pytest.mark.parametrize(
    ("flavour", "last_bad", "first_good"),
    [
        ("redis", "7.2.10", "7.2.11"),
        ("redis", "7.4.5", "7.4.6"),
        ("redis", "8.0.3", "8.0.4"),
        ("redis", "8.2.1", "8.2.2"),
        ("valkey", "8.0.5", "8.0.6"),
        ("valkey", "8.1.3", "8.1.4"),
    ],
)
def test_a_release_below_the_fixed_one_is_warned_of(flavour: str, last_bad: str, first_good: str) -> None:
    assert judged(flavour, last_bad) == {"version": Level.OK, "security": Level.WARN}
    assert judged(flavour, first_good) == {"version": Level.OK, "security": Level.OK}


@pytest.mark.parametrize(("flavour", "version"), [("valkey", "9.0.0"), ("redis", "8.4.0"), ("valkey", "10.0.0")])
def test_branches_that_began_with_the_fixes_are_well(flavour: str, version: str) -> None:
    assert judged(flavour, version) == {"version": Level.OK, "security": Level.OK}


def test_redis_7_0_is_warned_of_because_a_patched_package_keeps_its_number() -> None:
    [version, security] = check_release(read_server(parse_info(REDIS_7_0)))
    assert version.level is Level.OK
    assert security.level is Level.WARN
    assert "a distribution may have patched it under the same number" in security.message


@pytest.mark.parametrize("text", [DRAGONFLY, "# Server\r\n"])
def test_a_server_hybridq_is_not_tested_on_is_warned_of(text: str) -> None:
    [finding] = check_release(read_server(parse_info(text)))
    assert (finding.check, finding.level) == ("version", Level.WARN)
