"""The fleet's scripts: sessions, signs of life, who is OFFLINE, what queues are owed, and how much is kept."""

from __future__ import annotations

import pytest

from tests.contract.conftest import one_engine
from tests.contract.harness import NOW, Bell
from tests.fleet.rig import FleetRig

DAY_MS = 86_400_000
ALLOWED_MS = 2 * 10_000 + 30_000
"""Two heartbeats and half a minute: what an agent of a small fleet may be silent before it is OFFLINE."""


# -- register ---------------------------------------------------------------------------------------------


def test_a_session_begins_with_what_the_agent_says(rig: FleetRig) -> None:
    session = rig.register(capacity=3)

    assert session == {
        "session_id": "0" * 31 + "1", "generation": NOW, "created": 1, "heartbeat_ms": 10_000, "left": "",
    }  # fmt: skip
    assert rig.kept() == {
        "pool": "builds", "boot_id": "boot-1", "session_id": session["session_id"], "generation": str(NOW),
        "version": "1.0", "labels": '{"os":"linux"}', "features": "[]", "capacity": "3", "registered_ms": str(NOW),
        "seen_ms": str(NOW), "heartbeat_ms": "10000",
    }  # fmt: skip
    assert rig.zset("agents") == rig.zset("pool:builds") == {"one": 0}
    assert rig.zset("watch") == {"one": NOW + 20_000}
    assert rig.events() == ["agent.registered one HEALTHY builds 0"]


def test_the_same_boot_goes_on_with_its_session(rig: FleetRig) -> None:
    first = rig.register(version="1.0")
    rig.now += 1000
    again = rig.register(version="1.1", capacity=5)

    assert again == {**first, "created": 0}
    assert (rig.kept()["version"], rig.kept()["capacity"]) == ("1.1", "5")
    assert rig.kept()["seen_ms"] == str(rig.now)
    assert len(rig.events()) == 1


def test_another_boot_supersedes_the_session(rig: FleetRig) -> None:
    first = rig.register()
    rig.now += 1000
    second = rig.register(boot_id="boot-2")

    assert second["generation"] == rig.now > first["generation"]
    assert rig.beat(first["session_id"]) == ["SUPERSEDED"]
    assert rig.beat(second["session_id"])[0] == "BEAT"
    assert rig.events()[1:] == ["agent.superseded one TERMINATED builds 0", "agent.registered one HEALTHY builds 0"]


def test_generations_grow_when_the_clock_stands_or_goes_back(rig: FleetRig) -> None:
    generations = [rig.register(boot_id=f"boot-{n}")["generation"] for n in range(3)]
    rig.now -= 3_600_000
    generations.append(rig.register(boot_id="boot-4")["generation"])

    assert generations == [NOW, NOW + 1, NOW + 2, NOW + 3]


def test_another_pool_is_another_session_also_for_the_same_boot(rig: FleetRig) -> None:
    first = rig.register()
    second = rig.register(pool="other")

    assert second["generation"] > first["generation"]
    assert second["left"] == "builds"
    assert rig.client.exists(f"{rig.root}:pool:builds") == 0
    assert rig.zset("pool:other") == {"one": 0}


def test_pools_left_are_remembered_until_they_were_told(rig: FleetRig) -> None:
    rig.register()
    rig.register(pool="second")
    third = rig.register(pool="third")
    assert third["left"] == "builds second"

    rig.one("fleet/settle", agent="one", pool="builds", generation=third["generation"], how="supersede", until_ms=0)
    assert rig.register(pool="third")["left"] == "second"
    rig.one("fleet/settle", agent="one", pool="second", generation=third["generation"], how="supersede", until_ms=0)
    assert "left" not in rig.kept()


def test_a_drained_agent_that_starts_anew_takes_work_again_and_the_same_boot_does_not(rig: FleetRig) -> None:
    rig.register()
    rig.one("fleet/steer", agent="one", draining=1, reason="reboot")
    rig.register()
    assert rig.kept()["draining"] == "1"
    rig.register(boot_id="boot-2")

    assert "draining" not in rig.kept() and "drain_reason" not in rig.kept()


def test_a_session_that_was_ended_is_not_gone_on_with(rig: FleetRig) -> None:
    first = rig.register()
    rig.one("fleet/deregister", agent="one")
    second = rig.register()

    assert (second["created"], second["session_id"]) == (1, "0" * 31 + "2")
    assert second["generation"] > first["generation"]
    assert "ended_ms" not in rig.kept()


@one_engine
@pytest.mark.breaks_keys
def test_a_full_fleet_takes_no_more(rig: FleetRig) -> None:
    rig.register()
    for first in range(0, 100_000, 10_000):
        rig.client.zadd(f"{rig.root}:agents", {f"agent-{n:06}": 0 for n in range(first, first + 10_000)})
    rig.client.zrem(f"{rig.root}:agents", "agent-000000")
    before = rig.kept()

    reply = rig.one("fleet/register", agent="new", session_id="f" * 32)
    assert reply == ["FULL", 100_000]
    assert rig.kept("new") == {}
    assert rig.register() and rig.kept() == before


# -- signs of life ----------------------------------------------------------------------------------------


def test_a_beat_notes_the_time_and_what_was_said(rig: FleetRig) -> None:
    session = rig.register()
    rig.now += 9_000
    tag, record, now, resumed, recent, failed = rig.beat(
        session["session_id"], metrics='{"cpu_percent":7}', recent=20, recent_failed=5
    )

    assert (tag, now, resumed, recent, failed) == ("BEAT", str(rig.now), "0", "20", "5")
    assert dict(zip(record[::2], record[1::2], strict=True)) == rig.kept()
    assert rig.kept()["metrics"] == '{"cpu_percent":7}'
    assert rig.zset("watch") == {"one": rig.now + 20_000}


def test_metrics_stand_until_the_next_ones(rig: FleetRig) -> None:
    session = rig.register()
    rig.beat(session["session_id"], metrics='{"a":1}')
    rig.beat(session["session_id"])
    assert rig.kept()["metrics"] == '{"a":1}'
    rig.beat(session["session_id"], metrics="{}")

    assert rig.kept()["metrics"] == "{}"


def test_who_is_not_registered_cannot_beat(rig: FleetRig) -> None:
    assert rig.beat("0" * 32, "nobody") == ["NOT_REGISTERED"]
    assert rig.one("fleet/seen", agent="nobody", session_id="0" * 32) == ["NOT_REGISTERED"]
    assert rig.snapshot() == {}


@pytest.mark.parametrize("verb", ["fleet/beat", "fleet/seen"])
def test_a_session_that_is_over_shows_no_life(rig: FleetRig, verb: str) -> None:
    first = rig.register()
    rig.register(boot_id="boot-2")
    rig.now += 5_000
    before = rig.kept()

    assert rig.one(verb, agent="one", session_id=first["session_id"]) == ["SUPERSEDED"]
    assert rig.kept() == before


def test_a_claim_is_a_sign_of_life_noted_once_a_second(rig: FleetRig) -> None:
    session = rig.register()
    at = []
    for _ in range(4):
        rig.now += 400
        assert rig.one("fleet/seen", agent="one", session_id=session["session_id"]) == ["SEEN"]
        at.append(int(rig.kept()["seen_ms"]) - NOW)

    assert at == [0, 0, 1200, 1200]


@pytest.mark.parametrize(
    ("agents", "shortest_lease_ms", "jitter", "wanted_ms"),
    [
        (1, 0, 1 << 19, 10_000),
        (1, 0, 0, 9_000),
        (1, 0, (1 << 20) - 1, 11_000),
        (1, 30_000, 0, 9_000),
        (1, 9_000, 0, 3_000),
        (1, 1_000, 0, 333),
        (500, 0, 0, 9_000),
        (2_000, 0, 0, 36_000),
        (2_000, 0, (1 << 20) - 1, 44_000),
        (2_000, 30_000, 0, 10_000),
        (10_000, 0, 1 << 19, 200_000),
    ],
)
def test_the_interval_grows_with_the_fleet_and_never_beyond_a_third_of_a_lease(
    rig: FleetRig, agents: int, shortest_lease_ms: int, jitter: int, wanted_ms: int
) -> None:
    session = rig.register()
    if agents > 1:
        rig.client.zadd(f"{rig.root}:watch", {f"other-{n}": NOW for n in range(agents - 1)})
    rig.beat(session["session_id"], shortest_lease_ms=shortest_lease_ms, jitter=jitter)

    assert int(rig.kept()["heartbeat_ms"]) == pytest.approx(wanted_ms, abs=1)
    assert rig.zset("watch")["one"] == NOW + 2 * int(rig.kept()["heartbeat_ms"])
    if agents > 1:
        rig.client.zrem(f"{rig.root}:watch", *(f"other-{n}" for n in range(agents - 1)))


def test_the_fleets_sum_of_recent_runs_follows_its_agents(rig: FleetRig) -> None:
    one, two = rig.register("one"), rig.register("two")

    def total() -> tuple[str, str]:
        return rig.hash("meta")["recent"], rig.hash("meta")["recent_failed"]

    rig.beat(one["session_id"], "one", recent=20, recent_failed=2)
    rig.beat(two["session_id"], "two", recent=10, recent_failed=10)
    assert total() == ("30", "12")
    rig.beat(one["session_id"], "one", recent=20, recent_failed=0)
    assert total() == ("30", "10")
    rig.one("fleet/deregister", agent="two")
    assert total() == ("20", "0")
    rig.register("one", boot_id="boot-2")
    assert total() == ("0", "0")


# -- drain and end ----------------------------------------------------------------------------------------


def test_an_agent_is_drained_once_and_takes_work_again(rig: FleetRig) -> None:
    session = rig.register()
    generation = str(session["generation"])
    for reason in ("first", "second"):
        reply = rig.one("fleet/steer", agent="one", draining=1, reason=reason, by="ann")
        assert reply == ["STEERED", "builds", generation, "2", 1]
    assert (rig.kept()["drain_reason"], rig.kept()["drain_by"]) == ("first", "ann")
    for _ in range(2):
        assert rig.one("fleet/steer", agent="one", draining=0) == ["STEERED", "builds", generation, "2", 0]

    assert rig.events()[1:] == ["agent.draining one DRAINING builds 0", "agent.resumed one HEALTHY builds 0"]
    assert not {"draining", "drain_reason", "drain_by", "drain_ms"} & rig.kept().keys()


def test_an_ended_session_is_ended_once_and_its_generation_grew(rig: FleetRig) -> None:
    session = rig.register()
    first = rig.one("fleet/deregister", agent="one", session_id=session["session_id"], reason="scaled in")
    rig.now += 1000
    again = rig.one("fleet/deregister", agent="one", session_id=session["session_id"], reason="other")

    assert first == again == ["TERMINATED", "builds", str(session["generation"] + 1), ""]
    assert (rig.kept()["ended_ms"], rig.kept()["end_reason"]) == (str(NOW), "scaled in")
    assert (rig.zset("watch"), rig.zset("ended")) == ({}, {"one": NOW})
    assert rig.events()[1:] == ["agent.terminated one TERMINATED builds 0"]
    assert rig.beat(session["session_id"]) == ["SUPERSEDED"]
    assert rig.one("fleet/steer", agent="one") == ["TERMINATED"]


def test_an_older_session_cannot_end_the_newer_one(rig: FleetRig) -> None:
    first = rig.register()
    rig.register(boot_id="boot-2")

    assert rig.one("fleet/deregister", agent="one", session_id=first["session_id"]) == ["SUPERSEDED"]
    assert "ended_ms" not in rig.kept()


# -- who is lost ------------------------------------------------------------------------------------------


def test_a_silent_agent_is_found_once_its_time_is_over(rig: FleetRig) -> None:
    session = rig.register()
    rig.one("fleet/settle", agent="one", pool="builds", generation=session["generation"], how="supersede", until_ms=0)
    rig.tick(ALLOWED_MS - 1)
    assert rig.lost() == []
    rig.tick(1)
    rows = rig.lost()

    generation, now = str(session["generation"]), str(rig.now)
    assert rows == [["one", "builds", generation, "lose", now, generation, "0", "0"]]
    assert (rig.kept()["offline_ms"], rig.zset("watch"), rig.zset("ended")) == (now, {}, {"one": rig.now})
    assert rig.events()[-1] == "agent.offline one OFFLINE builds 0"


def test_who_takes_what_is_owed_has_five_seconds_before_the_next_may(rig: FleetRig) -> None:
    rig.register()
    assert rig.lost() == []
    rig.tick(5_000)
    [row] = rig.lost()
    assert rig.lost() == []
    rig.tick(4_999)
    assert rig.lost() == []
    rig.tick(1)
    assert rig.lost() == [row]

    agent, pool, generation, how, until, *_ = row
    rig.one("fleet/settle", agent=agent, pool=pool, generation=generation, how=how, until_ms=until)
    rig.tick(5_000)
    assert (rig.lost(), rig.zset("owed")) == ([], {})


def test_a_sign_of_life_brings_an_agent_back(rig: FleetRig) -> None:
    session = rig.register()
    rig.tick(ALLOWED_MS)
    rig.lost()
    reply = rig.one("fleet/seen", agent="one", session_id=session["session_id"])

    assert reply == ["RETURNED", "builds", str(session["generation"]), "2", "0"]
    assert "offline_ms" not in rig.kept()
    assert (rig.zset("watch"), rig.zset("ended")) == ({"one": rig.now + 20_000}, {})
    assert rig.events()[-1] == "agent.returned one HEALTHY builds 0"
    assert rig.one("fleet/seen", agent="one", session_id=session["session_id"]) == ["SEEN"]


def test_a_beat_in_time_keeps_an_agent(rig: FleetRig) -> None:
    session = rig.register()
    for _ in range(6):
        rig.tick(ALLOWED_MS - 1)
        assert rig.beat(session["session_id"])[0] == "BEAT"
        rig.lost()

    assert "offline_ms" not in rig.kept()


def test_after_an_outage_everybody_has_the_full_time_again(rig: FleetRig) -> None:
    rig.register()
    rig.now += 3_600_000
    rig.lost()
    rig.tick(ALLOWED_MS - 1)
    rig.lost()
    assert "offline_ms" not in rig.kept()
    rig.tick(1)
    rig.lost()

    assert "offline_ms" in rig.kept()


def test_a_pause_that_is_no_outage_gives_no_time(rig: FleetRig) -> None:
    rig.register()
    rig.tick(ALLOWED_MS, step_ms=14_999)
    rig.lost()

    assert "offline_ms" in rig.kept()
    assert "resumed_ms" not in rig.hash("meta")


def test_after_the_clock_was_set_back_silence_counts_from_then(rig: FleetRig) -> None:
    rig.register()
    rig.now -= 3_600_000
    rig.lost()
    rig.tick(ALLOWED_MS - 1)
    rig.lost()
    assert "offline_ms" not in rig.kept()
    rig.tick(1)
    rig.lost()

    assert "offline_ms" in rig.kept()


def test_a_step_finds_twenty_and_says_that_there_is_more(rig: FleetRig) -> None:
    for first in range(0, 45, 15):
        entries = ({"agent": f"a{n:02}", "session_id": f"{n:032x}"} for n in range(first, first + 15))
        rig.run("fleet/register", *entries)
    rig.client.delete(f"{rig.root}:owed")
    rig.tick(ALLOWED_MS)

    answers = [rig.run("fleet/lost")[0] for _ in range(4)]
    assert [(len(rows), more) for _, rows, more in answers] == [(20, 1), (20, 1), (5, 0), (0, 0)]


def test_what_a_pool_is_owed_says_whether_the_agent_is_there_now(rig: FleetRig) -> None:
    first = rig.register()
    rig.register(pool="other", boot_id="boot-2")
    rig.one("fleet/steer", agent="one", draining=1)
    rig.tick(5_000)

    now = str(first["generation"] + 1)
    assert sorted(rig.lost()) == [
        ["one", "builds", str(first["generation"]), "supersede", "0", now, "0", "1"],
        ["one", "builds", now, "supersede", "0", now, "0", "1"],
        ["one", "other", now, "supersede", "0", now, "2", "1"],
    ]


# -- how much is kept -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "kept"), [(6.99, True), (7, False)])
def test_records_of_agents_that_ended_go_after_a_week(rig: FleetRig, days: float, kept: bool) -> None:
    rig.register("gone")
    rig.one("fleet/deregister", agent="gone")
    rig.now += int(days * DAY_MS)
    rig.lost()

    assert bool(rig.kept("gone")) is kept
    assert ("gone" in rig.zset("agents"), "gone" in rig.zset("pool:builds")) == (kept, kept)


def test_an_agent_that_came_back_is_not_trimmed(rig: FleetRig) -> None:
    session = rig.register()
    rig.tick(ALLOWED_MS)
    rig.lost()
    rig.beat(session["session_id"])
    rig.client.zadd(f"{rig.root}:ended", {"one": rig.now - 8 * DAY_MS})
    rig.lost()

    assert rig.kept() != {} and rig.zset("ended") == {}


def test_of_agents_that_ended_the_last_ten_thousand_are_kept(rig: FleetRig) -> None:
    rig.register("oldest")
    rig.one("fleet/deregister", agent="oldest")
    rig.client.zadd(f"{rig.root}:ended", {f"gone-{n:05}": NOW + 1 + n for n in range(10_000)})
    rig.lost()

    assert rig.kept("oldest") == {}
    assert rig.client.zcard(f"{rig.root}:ended") == 10_000
    rig.client.delete(f"{rig.root}:ended")


# -- looking in -------------------------------------------------------------------------------------------


def names_of(rig: FleetRig, **said: object) -> tuple[list[str], str]:
    [[_, names, records, after, *_]] = rig.run("fleet/list", **said)
    assert [rig.kept(name) for name in names] == [dict(zip(r[::2], r[1::2], strict=True)) for r in records]
    return names, after


def test_a_list_runs_by_name_in_pages(rig: FleetRig) -> None:
    for name in ("b", "a", "B", "c-1", "c.1"):
        rig.register(name, pool="other" if name == "B" else "builds")

    assert names_of(rig, limit=2) == (["B", "a"], "a")
    assert names_of(rig, limit=2, after="a") == (["b", "c-1"], "c-1")
    assert names_of(rig, limit=2, after="c-1") == (["c.1"], "")
    assert names_of(rig, within="other", limit=9) == (["B"], "")
    assert names_of(rig, within="none", limit=9) == ([], "")


def test_a_scaled_pool_is_there_and_contradictions_change_nothing(rig: FleetRig) -> None:
    assert rig.one("fleet/scale", pool="builds", min=2, max=6) == ["SCALED", "1", "5", "-"]
    assert rig.one("fleet/scale", pool="builds", target=4) == ["SCALED", "1", "5", "3"]
    assert rig.one("fleet/scale", pool="builds", min=5) == ["CONTRADICTION", "4", "5", "3"]
    assert rig.one("fleet/scale", pool="builds", target=7) == ["CONTRADICTION", "1", "5", "6"]
    assert rig.one("fleet/scale", pool="new", min=3, max=2) == ["CONTRADICTION", "2", "1", "-"]

    assert rig.run("fleet/pool", {"pool": "builds"}, {"pool": "new"}) == [["POOL", "1 5 3", 0], ["POOL", "", 0]]
    assert rig.run("fleet/pools") == [["POOLS", ["builds", "1 5 3"]]]


def test_scaling_is_heard_on_the_catalogues_bell(rig: FleetRig) -> None:
    with Bell(rig.client, f"{rig.catalogue().root}:bell") as bell:
        rig.one("fleet/scale", pool="builds", target=4)
        rig.one("fleet/scale", pool="builds", max=2)
        assert bell.heard() == ["changed"]


def test_a_queue_is_found_without_being_made(rig: FleetRig) -> None:
    catalogue = rig.catalogue()
    assert catalogue.run("catalogue/find", {"queue": "builds"}) == [["UNKNOWN"]]
    catalogue.run("catalogue/note", {"queue": "builds"})

    assert catalogue.run("catalogue/find", {"queue": "builds"}, {"queue": "b"}) == [["THERE"], ["UNKNOWN"]]


@pytest.mark.breaks_keys
@pytest.mark.parametrize("verb", ["beat", "deregister", "lost", "register", "scale", "seen", "settle", "steer"])
def test_a_fleet_of_another_schema_is_not_touched(rig: FleetRig, verb: str) -> None:
    from tests.fleet.rig import SAMPLES

    rig.register()
    rig.client.hset(f"{rig.root}:meta", "schema", "2")
    before = rig.snapshot()

    assert rig.run(f"fleet/{verb}", *SAMPLES[f"fleet/{verb}"]) == ["SCHEMA", "2"]
    assert before == rig.snapshot()
