"""create: a queue is made once, explicitly; no other verb makes one."""

from __future__ import annotations

import pytest

from hybridq.scripts import load, verbs
from tests.contract.harness import NOW, Rig
from tests.contract.samples import SAMPLES

OTHERS = tuple(verb for verb in verbs() if verb != "create")


def test_a_queue_is_created_once_and_keeps_its_first_record(bare: Rig) -> None:
    assert bare.run("create") == [["CREATED"]]
    before = bare.snapshot()
    bare.now += 5_000

    assert bare.run("create") == [["EXISTS"]]
    assert before == bare.snapshot()


def test_a_new_queue_has_the_limits_of_the_design(rig: Rig) -> None:
    assert rig.hash("meta") == {
        "schema": "1",
        "policy": "fifo",
        "created_ms": str(NOW),
        "activity_ms": str(NOW),
        "upkeep_ms": "0",
        "fence": "0",
        "order": "0",
        "seq": "0",
        "lanes_version": "0",
        "lease_ms": "30000",
        "max_queued": "0",
        "max_dead": "100000",
        "retention_ms": "86400000",
        "retention_count": "10000",
        "tombstone_ms": "900000",
        "events_max": "10000",
        "log_bytes_max": "8388608",
        "logs_bytes_max": "1073741824",
        "logs_bytes": "0",
    }


def test_the_servers_clock_counts_when_no_time_is_given(bare: Rig) -> None:
    seconds, micros = bare.client.time()
    bare.run("create", now_ms=0)

    created = int(bare.hash("meta")["created_ms"])
    assert 0 <= created - (seconds * 1000 + micros // 1000) < 60_000


@pytest.mark.parametrize("verb", OTHERS)
def test_a_queue_that_was_not_created_is_not_touched(bare: Rig, verb: str) -> None:
    assert bare.run(verb, *SAMPLES[verb]) == ["NO_QUEUE"]
    assert bare.snapshot() == {}


@pytest.mark.breaks_keys
@pytest.mark.parametrize("verb", [verb for verb in OTHERS if "no-writes" not in load(verb).header.flags])
def test_a_queue_of_another_schema_is_not_touched(rig: Rig, verb: str) -> None:
    rig.client.hset(f"{rig.root}:meta", "schema", "2")
    before = rig.snapshot()

    assert rig.run(verb, *SAMPLES[verb]) == ["SCHEMA", "2"]
    assert before == rig.snapshot()
