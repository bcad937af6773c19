"""Malformed arguments: every script refuses them whole with `HQ_ARG`, before it reads or writes anything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from hybridq.scripts import Parameter, load, verbs
from tests.contract.harness import Rig
from tests.contract.samples import SAMPLES

LUA = "]]..redis.call('FLUSHALL')--"
NO_INTEGERS = (
    "", " 5", "5 ", "+5", "-1", "-0", "0x10", "1e3", "1.0", "1.5", "inf", "-inf", "nan", "5\n", "5\0", "٣", LUA,
    "9" * 17,
)  # fmt: skip
NO_NAMES = (
    "", "-a", ".a", "_a", "a b", " a", "a ", "a{b}", "{a}", "a:b", "a*", "a?b", "a[b]", "a/b", "a~b", "é", "a\n",
    "\na", "a\0", "a\x7f", b"a\xff", LUA, "x" * 65,
)  # fmt: skip


def wrong(parameter: Parameter) -> Iterator[object]:
    """Values that are none of the parameter's type, and those just outside its bounds."""
    yield from (value for value in _wrong(parameter.kind.partition(" =")[0]) if value or parameter.default is None)


def _wrong(whole: str) -> Iterator[object]:
    kind, _, bounds = whole.partition(" ")
    low, _, high = bounds.partition("..")
    if kind == "integer":
        yield from NO_INTEGERS
        yield str(int(high) + 1)
        if int(low):
            yield str(int(low) - 1)
    elif kind == "name":
        yield from NO_NAMES
    elif kind == "holder":
        yield from (*NO_NAMES, "@", "a@", "a@b-c", "a@b@c", "a b@c", "@b c", f"a@{'x' * 33}", f"{'x' * 65}@b")
    elif kind == "text":
        yield "x" * (int(high) + 1)
        if int(low):
            yield "x" * (int(low) - 1)
    else:
        words = whole.split("/")
        yield from ("", "nothing", f"{words[0]} ", words[0].swapcase(), f"{words[0]}\0", LUA)


def parameters_of(verb: str) -> list[Parameter]:
    header = load(verb).header
    return [*header.common, *header.each]


@pytest.fixture
def busy(rig: Rig) -> Rig:
    """A queue in which every call that is let through by mistake would leave a trace."""
    rig.enqueue("job", "other")
    rig.running(job_id="job")
    return rig


def refusal(rig: Rig, verb: str, args: list[object]) -> str:
    with pytest.raises(redis.exceptions.ResponseError) as caught:
        rig.eval(verb, *args)
    return str(caught.value)


@pytest.mark.parametrize("verb", verbs())
def test_a_malformed_argument_is_refused_by_name_and_changes_nothing(busy: Rig, verb: str) -> None:
    before = busy.snapshot()
    good = busy.arguments(verb, *SAMPLES[verb])

    for place, parameter in enumerate(parameters_of(verb)):
        for value in wrong(parameter):
            message = refusal(busy, verb, [*good[:place], value, *good[place + 1 :]])
            assert message.startswith(f"HQ_ARG {parameter.name}: "), (value, message)

    assert before == busy.snapshot()


@pytest.mark.parametrize("verb", verbs())
def test_a_wrong_count_of_arguments_is_refused_and_changes_nothing(busy: Rig, verb: str) -> None:
    before = busy.snapshot()
    good = busy.arguments(verb, *SAMPLES[verb])

    header = load(verb).header
    counts = {0, len(header.common) - 1, len(good) - 1, len(good) + 1}
    if header.each:
        counts -= set(range(len(good), 2 * len(good), len(header.each)))
        counts.add(len(header.common))
    for count in counts:
        args = (good * 2)[:count]
        assert refusal(busy, verb, args).startswith("HQ_ARG arguments: ")

    assert before == busy.snapshot()


@pytest.mark.parametrize("verb", [verb for verb in verbs() if load(verb).header.each])
def test_a_batch_over_its_limit_is_refused_whole(busy: Rig, verb: str) -> None:
    before = busy.snapshot()
    entries = SAMPLES[verb] * (load(verb).header.batch_max + 1)

    assert refusal(busy, verb, busy.arguments(verb, *entries)).startswith("HQ_ARG arguments: ")
    assert before == busy.snapshot()


@pytest.mark.parametrize("verb", [verb for verb in verbs() if load(verb).header.batch_max > 1])
def test_one_malformed_entry_refuses_the_whole_batch(busy: Rig, verb: str) -> None:
    before = busy.snapshot()
    good = busy.arguments(verb, *SAMPLES[verb] * 3)
    first_of_last = len(load(verb).header.common) + 2 * len(load(verb).header.each)
    good[first_of_last] = "no such{thing}"

    assert refusal(busy, verb, good).startswith("HQ_ARG ")
    assert before == busy.snapshot()


@pytest.mark.parametrize("verb", [verb for verb in verbs() if load(verb).header.batch_max > 1])
def test_a_batch_of_the_limit_is_taken(busy: Rig, verb: str) -> None:
    most = load(verb).header.batch_max

    assert len(busy.run(verb, *SAMPLES[verb] * most)) == most


def test_bounds_themselves_are_inside(rig: Rig) -> None:
    job_id = "A" + "z.-_0" * 12 + "9ab"
    assert len(job_id) == 64
    limits = {
        "digest": "d" * 32, "spec": "{}\n", "delay_ms": 31_622_400_000, "max_attempts": 100,
        "retry_base_ms": 3_600_000, "retry_max_ms": 86_400_000, "unique": "u" * 64,
    }  # fmt: skip

    assert rig.enqueue(job_id, **limits) == ["ENQUEUED", "SCHEDULED"]
    assert rig.record(job_id)["max_attempts"] == "100"
    assert rig.enqueue("x", digest="d", spec="{}\n", max_attempts=1, retry_base_ms=0, retry_max_ms=0) == [
        "ENQUEUED", "QUEUED",
    ]  # fmt: skip


def test_text_that_looks_like_lua_is_only_text(rig: Rig) -> None:
    rig.enqueue("job", spec="{}\n" + LUA, unique=LUA)

    held = rig.lease(request_id=LUA)
    assert held.spec == "{}\n" + LUA
    assert rig.record("job")["unique"] == LUA


def test_payload_bytes_come_back_as_they_were(rig: Rig) -> None:
    spec = b"{}\n" + bytes(range(256)) * 4
    rig.enqueue("job", spec=spec)
    rig.lease()

    assert spec == rig.client.hget(f"{rig.root}:spec", "job")
