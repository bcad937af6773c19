"""The status of an agent, by virtual time: one pure function of what is known."""

from __future__ import annotations

from typing import Any

import pytest

from hybridq import AgentStatus
from hybridq.health import Fleet, Signs, status_of

NOW = 1_800_000_000_000
HEALTHY, DEGRADED, UNHEALTHY = AgentStatus.HEALTHY, AgentStatus.DEGRADED, AgentStatus.UNHEALTHY
OFFLINE, DRAINING, TERMINATED = AgentStatus.OFFLINE, AgentStatus.DRAINING, AgentStatus.TERMINATED


def status(silent_ms: int = 0, *, fleet: dict[str, Any] | None = None, **said: Any) -> AgentStatus:
    signs = Signs(**{"seen_ms": NOW - silent_ms, "heartbeat_ms": 10_000, **said})
    return status_of(signs, Fleet(now_ms=NOW, **(fleet or {})))


@pytest.mark.parametrize(
    ("heartbeat_ms", "silent_ms", "wanted"),
    [
        (10_000, 0, HEALTHY),
        (10_000, 10_001, HEALTHY),
        (10_000, 19_999, HEALTHY),
        (10_000, 20_000, UNHEALTHY),
        (10_000, 49_999, UNHEALTHY),
        (10_000, 50_000, OFFLINE),
        (10_000, 86_400_000, OFFLINE),
        (333, 665, HEALTHY),
        (333, 666, UNHEALTHY),
        (333, 30_666, OFFLINE),
        (200_000, 399_999, HEALTHY),
        (200_000, 400_000, UNHEALTHY),
        (200_000, 430_000, OFFLINE),
        (10_000, -5_000, HEALTHY),
    ],
)
def test_silence_counts_against_the_interval_the_agent_was_told(
    heartbeat_ms: int, silent_ms: int, wanted: AgentStatus
) -> None:
    assert status(silent_ms, heartbeat_ms=heartbeat_ms) is wanted


@pytest.mark.parametrize(
    ("metrics", "wanted"),
    [
        ({}, HEALTHY),
        ({"cpu_percent": 90.0}, HEALTHY),
        ({"cpu_percent": 90.1}, DEGRADED),
        ({"memory_percent": 90.0}, HEALTHY),
        ({"memory_percent": 91.0}, DEGRADED),
        ({"disk_percent": 95.0}, HEALTHY),
        ({"disk_percent": 95.5}, DEGRADED),
        ({"cpu_percent": 10.0, "disk_percent": 99.0}, DEGRADED),
        ({"load": 999.0}, HEALTHY),
    ],
)
def test_an_overloaded_machine_is_degraded(metrics: dict[str, float], wanted: AgentStatus) -> None:
    assert status(metrics=metrics) is wanted


@pytest.mark.parametrize(
    ("recent", "fleet", "wanted"),
    [
        ("-" * 20, (200, 20), DEGRADED),
        ("-" * 20, (200, 99), DEGRADED),
        ("-" * 20, (200, 100), HEALTHY),
        ("-" * 20, (20, 20), HEALTHY),
        ("-" * 9, (200, 0), HEALTHY),
        ("-" * 10, (200, 0), DEGRADED),
        ("+" * 9 + "-" * 11, (200, 8), DEGRADED),
        ("+" * 10 + "-" * 10, (200, 0), HEALTHY),
        ("+" * 20, (200, 200), HEALTHY),
        ("-" * 20, (0, 0), HEALTHY),
    ],
)
def test_who_fails_far_more_than_the_fleet_is_degraded(
    recent: str, fleet: tuple[int, int], wanted: AgentStatus
) -> None:
    assert status(recent=recent, fleet={"recent": fleet[0], "recent_failed": fleet[1]}) is wanted


@pytest.mark.parametrize(
    ("silent_ms", "said", "wanted"),
    [
        (0, {"draining": True}, DRAINING),
        (0, {"draining": True, "metrics": {"cpu_percent": 99.0}}, DRAINING),
        (30_000, {"draining": True}, DRAINING),
        (50_000, {"draining": True}, OFFLINE),
        (30_000, {"metrics": {"cpu_percent": 99.0}}, UNHEALTHY),
        (0, {"offline": True}, OFFLINE),
        (0, {"offline": True, "draining": True}, OFFLINE),
        (0, {"ended": True}, TERMINATED),
        (86_400_000, {"ended": True, "draining": True}, TERMINATED),
    ],
)
def test_of_several_answers_the_gravest_counts(silent_ms: int, said: dict[str, Any], wanted: AgentStatus) -> None:
    assert status(silent_ms, **said) is wanted


@pytest.mark.parametrize(
    ("since_outage_ms", "wanted"),
    [(0, HEALTHY), (19_999, HEALTHY), (20_000, UNHEALTHY), (49_999, UNHEALTHY), (50_000, OFFLINE)],
)
def test_after_an_outage_silence_counts_from_its_end(since_outage_ms: int, wanted: AgentStatus) -> None:
    assert status(3_600_000, fleet={"resumed_ms": NOW - since_outage_ms}) is wanted


def test_an_agent_heard_since_the_outage_is_judged_by_that() -> None:
    assert status(25_000, fleet={"resumed_ms": NOW - 40_000}) is UNHEALTHY
