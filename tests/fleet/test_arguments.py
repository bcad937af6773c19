"""Malformed arguments: the scripts of the fleet and the catalogue refuse them whole, before they read or write."""

from __future__ import annotations

import pytest
import redis

from hybridq.scripts import load, verbs
from tests.contract.test_arguments import parameters_of, wrong
from tests.fleet.rig import SAMPLES, FleetRig

VERBS = (*verbs("fleet"), *verbs("catalogue"))


def refusal(rig: FleetRig, verb: str, args: list[object]) -> str:
    with pytest.raises(redis.exceptions.ResponseError) as caught:
        rig.eval(verb, *args)
    return str(caught.value)


@pytest.fixture
def busy(rig: FleetRig) -> FleetRig:
    """A fleet in which every call that is let through by mistake would leave a trace."""
    rig.register("one")
    rig.one("fleet/scale", pool="builds", target=3)
    return rig


def test_every_script_has_a_sample() -> None:
    assert sorted(VERBS) == sorted(SAMPLES)


@pytest.mark.parametrize("verb", VERBS)
def test_a_malformed_argument_is_refused_by_name_and_changes_nothing(busy: FleetRig, verb: str) -> None:
    before = busy.snapshot()
    good = busy.arguments(verb, *SAMPLES[verb])

    for place, parameter in enumerate(parameters_of(verb)):
        for value in wrong(parameter):
            message = refusal(busy, verb, [*good[:place], value, *good[place + 1 :]])
            assert message.startswith(f"HQ_ARG {parameter.name}: "), (value, message)
    assert before == busy.snapshot()


@pytest.mark.parametrize("verb", VERBS)
def test_a_wrong_count_of_arguments_is_refused_and_changes_nothing(busy: FleetRig, verb: str) -> None:
    before = busy.snapshot()
    good = busy.arguments(verb, *SAMPLES[verb])
    most = load(verb).header.batch_max

    assert refusal(busy, verb, good[:-1]).startswith("HQ_ARG arguments: ")
    if len(load(verb).header.each) != 1:
        assert refusal(busy, verb, [*good, "more"]).startswith("HQ_ARG arguments: ")
    if load(verb).header.each:
        many = busy.arguments(verb, *SAMPLES[verb] * (most + 1))
        assert refusal(busy, verb, many).startswith("HQ_ARG arguments: ")
    assert before == busy.snapshot()


@pytest.mark.parametrize("verb", [verb for verb in VERBS if load(verb).header.batch_max > 1])
def test_a_batch_of_the_limit_is_taken(busy: FleetRig, verb: str) -> None:
    most = load(verb).header.batch_max
    place = busy.catalogue() if verb.startswith("catalogue/") else busy

    assert len(place.run(verb, *SAMPLES[verb] * most)) == most


@pytest.mark.breaks_keys
@pytest.mark.parametrize("verb", [verb for verb in verbs("fleet") if "no-writes" not in load(verb).header.flags])
@pytest.mark.parametrize("key", ["agents", "watch", "ended", "owed", "pools", "events", "agent:one", "pool:builds"])
def test_a_key_of_another_type_never_tears_a_call(rig: FleetRig, verb: str, key: str) -> None:
    """The call is refused whole, or the entry says that it is in doubt, or it did not need the key."""
    session = rig.register()
    rig.tick(60_000)
    rig.client.delete(f"{rig.root}:{key}")
    rig.client.set(f"{rig.root}:{key}", "foreign")
    before = rig.snapshot()
    [sample] = SAMPLES[verb] or ({},)
    entry = {**sample, **({"session_id": session["session_id"]} if "session_id" in sample else {})}
    try:
        replies = rig.run(verb, *([entry] if entry else []))
    except redis.exceptions.ResponseError as refused:
        assert "HQ_ARG" not in str(refused)
        assert before == rig.snapshot()
        return
    if replies[0][0] == "IN_DOUBT":
        after = rig.snapshot()
        meta = f"{rig.root}:meta"
        assert {name: before[name] for name in before if name != meta} == {
            name: after[name] for name in after if name != meta
        }
