"""Payloads travel byte for byte; what is too large or no JSON is refused with its size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridq import codec
from hybridq.codec import (
    PAYLOAD_BYTES_MAX,
    SpecHeader,
    digest_of,
    encode_fragment,
    encode_payload,
    spec_text,
    split_spec,
)
from hybridq.errors import InvalidArgument, PayloadTooLarge
from hybridq.lifecycle import JobStatus


@given(st.binary(max_size=2000))
def test_bytes_come_back_as_they_went(payload: bytes) -> None:
    """Line breaks, zero bytes and broken UTF-8 included."""
    header, back = split_spec(spec_text(SpecHeader(type="build", tags={"a": "b"}), encode_payload(payload)))

    assert payload == back
    assert ("build", {"a": "b"}) == (header.type, header.tags)


@pytest.mark.parametrize("size", [0, 1, PAYLOAD_BYTES_MAX])
def test_a_payload_up_to_the_limit_passes(size: int) -> None:
    """The limit itself is allowed."""
    assert size == len(encode_payload(b"x" * size))


def test_a_payload_over_the_limit_is_refused_with_both_numbers() -> None:
    """So that the caller knows by how much."""
    with pytest.raises(PayloadTooLarge, match=r"262145 bytes.*262144"):
        encode_payload(b"x" * (PAYLOAD_BYTES_MAX + 1))


@pytest.mark.parametrize(
    "wrong", [object(), {1, "a", object()}, float, lambda: 1], ids=["object", "set", "type", "function"]
)
def test_what_json_cannot_hold_is_refused(wrong: object) -> None:
    """And named by its type, never shown."""
    with pytest.raises(InvalidArgument, match="payload"):
        encode_payload(wrong)


@pytest.mark.parametrize("value", [{"a": "b\nc"}, ["x\r\n"], "line\nline", {"k": {"deep": "\n"}}], ids=repr)
def test_a_fragment_is_always_one_line(value: object) -> None:
    """The history keeps a line for each lease."""
    assert b"\n" not in encode_fragment("result", value, 1000)


def test_no_fragment_is_empty() -> None:
    """None is told from a JSON null by its absence."""
    assert b"" == encode_fragment("result", None, 10)


def test_the_usual_spec_is_short() -> None:
    """Only what differs from the defaults is stored."""
    assert b'{"type":"build"}\n1' == spec_text(SpecHeader(type="build"), b"1")


def test_tracing_does_not_make_another_job() -> None:
    """A repeat of the same enqueue has another request id, and is still the same job."""
    one = digest_of(SpecHeader(request_id="r1", trace_id="t1"), b"x", ["HIGH"])

    assert one == digest_of(SpecHeader(request_id="r2"), b"x", ["HIGH"])
    assert one != digest_of(SpecHeader(), b"y", ["HIGH"])
    assert one != digest_of(SpecHeader(), b"x", ["LOW"])
    assert one != digest_of(SpecHeader(type="other"), b"x", ["HIGH"])
    assert 22 == len(one)


def test_the_history_reads_back_with_its_late_note() -> None:
    """A line is an array; a late completion is one more element."""
    text = (
        b'[1,"a1",7,1000,null,3000,"lost","QUEUED",null,null,null,{"late":{"outcome":"success","at_ms":4000}}]\n'
        b'[1,"a2",8,5000,5001,6000,"failed","FAILED",2,{"m":"no"},null]'
    )

    first, second = codec.read_attempts(text)

    assert ("a1", 7, None, "lost", JobStatus.QUEUED) == (
        first.agent,
        first.fence,
        first.started_at,
        first.outcome,
        first.status,
    )
    assert {"outcome": "success", "at_ms": 4000} == first.late
    assert (2, {"m": "no"}, None) == (second.exit_code, second.error, second.late)
    assert () == codec.read_attempts(b"")
