"""configure: limits of a queue, each answered as it is now."""

from __future__ import annotations

import pytest

from tests.contract.harness import Rig

FIELDS = ("lease_ms", "max_queued", "max_dead", "retention_ms", "retention_count", "tombstone_ms", "events_max")


@pytest.mark.parametrize("field", FIELDS)
def test_a_limit_is_changed_and_nothing_else(rig: Rig, field: str) -> None:
    before = rig.hash("meta")

    assert rig.one("configure", field=field, value=123) == ["SET", "123"]
    assert rig.hash("meta") == {**before, field: "123"}


def test_several_limits_change_in_one_call_and_the_last_value_stands(rig: Rig) -> None:
    replies = rig.run(
        "configure",
        {"field": "max_dead", "value": 5},
        {"field": "max_queued", "value": 7},
        {"field": "max_dead", "value": 6},
    )

    assert replies == [["SET", "5"], ["SET", "7"], ["SET", "6"]]
    assert (rig.hash("meta")["max_dead"], rig.hash("meta")["max_queued"]) == ("6", "7")


@pytest.mark.parametrize("field", ["fence", "order", "seq", "schema", "paused", "activity_ms"])
def test_what_is_no_limit_cannot_be_set(rig: Rig, field: str) -> None:
    before = rig.snapshot()

    with pytest.raises(Exception, match="HQ_ARG field"):
        rig.one("configure", field=field, value=1)
    assert before == rig.snapshot()
