"""Strict reading: every row of bad input has its code and its place, and no refusal quotes what came."""

from __future__ import annotations

import datetime as dt
import json
from typing import Annotated, Any

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from api.http.names import FullId, Name, refuse_reserved
from api.http.problems import Problem
from api.http.query import TextReader
from api.http.reading import DEPTH_MAX, EitherCase, JsonReader, Lines


class Level(EitherCase):
    HIGH = "HIGH"
    LOW = "LOW"


class Retry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    base_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 5.0


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    run: Lines


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    payload: msgspec.Raw
    name: Name | None = None
    job: FullId | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    level: Level | None = None
    tags: dict[str, str] = {}
    retry: Retry = Retry()
    steps: tuple[Step, ...] = ()
    note: Lines | None = None
    loud: bool = False


class Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    jobs: list[Order]


ORDER = JsonReader(Order)
BATCH = JsonReader(Batch)


def nested(levels: int) -> bytes:
    return b'{"payload":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def refusal(reader: JsonReader[Any] | TextReader[Any], text: bytes) -> tuple[str, str]:
    with pytest.raises(Problem) as caught:
        reader.read(text)
    problem = caught.value
    assert problem.status == 400
    return problem.code, problem.errors[0].pointer if problem.errors else "-"


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        (b"[" * 5_000, "too_deep", ""),
        (b"{" * 5_000, "too_deep", ""),
        (b'{"a":' * 5_000, "too_deep", ""),
        (nested(DEPTH_MAX + 1), "too_deep", ""),
        (b'{"payload":"\xff"}', "bad_encoding", "-"),
        (b'{"payload":"\xed\xa0\x80"}', "bad_encoding", "-"),
        (b'\xef\xbb\xbf{"payload":1}', "bad_encoding", "-"),
        (b'{"payload":1}'.decode().encode("utf-16"), "bad_encoding", "-"),
        (rb'{"payload":"\ud800"}', "bad_encoding", ""),
        (rb'{"payload":1,"name":"\udc00a"}', "bad_encoding", ""),
        (rb'{"payload":1,"name":"a\u0000"}', "invalid_argument", "/name"),
        (rb'{"payload":1,"name":"a\n"}', "invalid_argument", "/name"),
        (b'{"payload":1,"name":"a\x00"}', "malformed_json", ""),
        (b'{"payload":1,"tags":{"a":"\x7f"}}', "invalid_argument", "/tags"),
        (rb'{"payload":1,"tags":{"a\u0001":"b"}}', "invalid_argument", "/tags"),
        (rb'{"payload":1,"note":"\u001b[31m"}', "invalid_argument", "/note"),
        (rb'{"payload":1,"steps":[{"run":"a"},{"run":"\u0000"}]}', "invalid_argument", "/steps/1/run"),
        (b'{"payload":1,"count":1,"count":2}', "duplicate_key", "-"),
        (rb'{"payload":1,"count":1,"c\u006funt":2}', "duplicate_key", "-"),
        (b'{"payload":{"a":1,"a":2}}', "duplicate_key", "-"),
        (b'{"payload":NaN}', "malformed_json", ""),
        (b'{"payload":-Infinity}', "malformed_json", ""),
        (b'{"payload":1e400}', "invalid_argument", ""),
        (b'{"payload":' + b"9" * 5_000 + b"}", "invalid_argument", ""),
        (b'{"payload":1,"count":9007199254740993}', "invalid_argument", "/count"),
        (b'{"payload":1,"retry":{"base_seconds":1e30}}', "invalid_argument", "/retry/base_seconds"),
        (b'{"payload":1,"count":-0}', "invalid_argument", "/count"),
        (b'{"payload":1,"count":true}', "invalid_argument", "/count"),
        (b'{"payload":1,"count":1.5}', "invalid_argument", "/count"),
        (b'{"payload":1,"count":-0.0}', "invalid_argument", "/count"),
        (b'{"payload":1.0,"count":101.0}', "invalid_argument", "/count"),
        (b'{"payload":1.0,"count":"1.0"}', "invalid_argument", "/count"),
        (b'{"payload":1,"count":"1"}', "invalid_argument", "/count"),
        (b'{"payload":1,"count":0}', "invalid_argument", "/count"),
        (b'{"payload":1,"count":null}', "invalid_argument", "/count"),
        (b'{"payload":1,"loud":1}', "invalid_argument", "/loud"),
        (b'{"payload":1,"status":"RUNNING"}', "invalid_argument", ""),
        (b'{"payload":1,"retry":{"max":1}}', "invalid_argument", "/retry"),
        (b'{"payload":1,"level":"MIDDLE"}', "invalid_argument", "/level"),
        (b'{"payload":1,"name":"a b"}', "invalid_argument", "/name"),
        (b'{"payload":1,"job":"no-tilde"}', "invalid_argument", "/job"),
        (b"{}", "invalid_argument", "/payload"),
        (b"[]", "invalid_argument", ""),
        (b"null", "invalid_argument", ""),
        (b"", "malformed_json", ""),
        (b'{"payload":1} {}', "malformed_json", ""),
        (b"{'payload':1}", "malformed_json", ""),
        (b'{"payload":01}', "malformed_json", ""),
        (b'{"payload":1,}', "malformed_json", ""),
        (b'{"payload":"a\tb"}', "malformed_json", ""),
        (b"payload=1", "malformed_json", ""),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_bad_input_is_refused_with_its_place(body: bytes, code: str, pointer: str) -> None:
    """The table of bad input, row by row."""
    assert refusal(ORDER, body) == (code, pointer)


def test_the_place_inside_a_batch_is_told() -> None:
    """The pointer leads through lists."""
    body = b'{"jobs":[{"payload":1},{"payload":1,"count":500}]}'

    assert refusal(BATCH, body) == ("invalid_argument", "/jobs/1/count")


def test_an_unknown_field_is_told_by_the_fields_that_are_known() -> None:
    """The name of the unknown one is the sender's, and may be anything."""
    with pytest.raises(Problem) as caught:
        BATCH.read(b'{"jobs":[{"payload":1,"retry":{"hunter2":1}}]}')

    (error,) = caught.value.errors
    assert error.pointer == "/jobs/0/retry"
    assert "base_seconds" in error.reason
    assert "hunter2" not in json.dumps(caught.value.body("r"))


@pytest.mark.parametrize(
    "payload",
    [
        b'{ "b" : 1.0 ,"a":[ ]}',
        rb'"\u0000\u001b\n"',
        b"-0",
        b"9007199254740993",
        b"1E5",
        b"null",
        rb'"\ud83d\ude00"',
        nested(DEPTH_MAX - 1),
        b'"' + b"[" * 100 + b'"',
        rb'"\"[[[[' + b"[" * 100 + b'"',
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_payload_comes_through_byte_for_byte(payload: bytes) -> None:
    """Any JSON value is a fine payload, control characters and large numbers included."""
    assert bytes(ORDER.read(b'{"payload":' + payload + b',"count":2}').value.payload) == payload


def test_a_whole_number_may_be_spelled_as_a_float() -> None:
    """`2.0` is the integer 2 (JSON Schema 2020-12 §4.2.3); what is payload keeps its spelling all the same."""
    order = b'{"payload": { "a":2.0 } ,"count":2.0,"retry":{"base_seconds":3},"note":"a\\nb","level":"low"}'

    read = ORDER.read(order).value
    (inner,) = BATCH.read(b'{"jobs": [' + order + b"]}").value.jobs

    assert read.count == inner.count == 2
    assert type(read.count) is int
    assert bytes(read.payload) == bytes(inner.payload) == b'{ "a":2.0 }'
    assert (read.retry.base_seconds, read.note, read.level) == (3.0, "a\nb", Level.LOW)


def test_what_is_payload_depends_on_the_type_and_not_on_the_name() -> None:
    """A tag that is called payload is a tag."""
    assert refusal(ORDER, rb'{"payload":1,"tags":{"payload":"\u0000"}}') == ("invalid_argument", "/tags")
    assert BATCH.read(rb'{"jobs":[{"payload":"\u0000"}]}').value.jobs[0].count == 1


def test_lines_may_break_and_be_indented() -> None:
    """A shell script has several lines; so has an error."""
    read = ORDER.read(rb'{"payload":1,"note":"a\n\tb\r\n","steps":[{"run":"set -e\nmake"}]}').value

    assert read.note == "a\n\tb\r\n"
    assert read.steps[0].run == "set -e\nmake"


def test_exactly_64_levels_are_read() -> None:
    """The bound is the last that passes, also when brackets abound beside it."""
    ORDER.read(nested(DEPTH_MAX))
    ORDER.read(b'{"payload":[' + b"[]," * 500 + b'1],"count":2}')


@pytest.mark.parametrize("text", ["high", "HIGH", "High"])
def test_upper_case_words_are_read_in_either_case(text: str) -> None:
    """Statuses and priorities."""
    assert ORDER.read(json.dumps({"payload": 1, "level": text}).encode()).value.level is Level.HIGH


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@hypothesis.given(JSON_VALUES, st.booleans())
def test_every_json_value_is_a_payload(value: Any, escaped: bool) -> None:
    """Both roads, the fast and the slow, agree with msgspec on what JSON is."""
    sent = json.dumps(value, ensure_ascii=escaped).encode()

    document = ORDER.read(b'{"payload":' + sent + b"}")

    assert bytes(document.value.payload) == sent
    assert document.plain["payload"] == value


@hypothesis.given(st.binary(max_size=200) | st.text(alphabet='{}[]",:\\u0dtrue1e-', max_size=80).map(str.encode))
@hypothesis.example(b'{"payload":1,"note":"\xc2\x85"}')
def test_no_bytes_make_the_reader_stumble(body: bytes) -> None:
    """Whatever comes, it is read or refused."""
    try:
        ORDER.read(body)
    except Problem as problem:
        assert problem.status == 400


@pytest.mark.parametrize("where", ["name", "level", "count", "unknown", "tags", "key", "note", "job"])
def test_no_refusal_quotes_the_value(where: str) -> None:
    """Neither value nor the name of a field that is not ours."""
    canary = "correct horse\u0001battery"
    body: dict[str, Any] = {"payload": 1}
    body[where] = {canary: 1} if where in ("tags", "key") else canary
    if where == "unknown":
        body = {"payload": 1, canary: canary}

    with pytest.raises(Problem) as caught:
        ORDER.read(json.dumps(body).encode())

    assert "horse" not in json.dumps(caught.value.body("r"))


# -- queries -------------------------------------------------------------------------------------------------


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50
    tag: list[str] = []
    level: Level | None = None
    pool: Name | None = None
    follow: bool = False
    wait_seconds: Annotated[float, msgspec.Meta(ge=0, le=50)] = 0.0
    since: Annotated[dt.datetime, msgspec.Meta(tz=True)] | None = None


FILTER = TextReader(Filter)


def test_a_query_is_read_into_its_struct() -> None:
    """Percent signs, plus signs, lists, words in either case, instants."""
    query = b"limit=7&tag=a%3Db&tag=c+d%C3%A9&level=low&follow=true&wait_seconds=1.5&since=2026-01-02T03:04:05Z"

    assert FILTER.read(query) == Filter(
        limit=7,
        tag=["a=b", "c dé"],
        level=Level.LOW,
        follow=True,
        wait_seconds=1.5,
        since=dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
    )
    assert FILTER.read(b"") == Filter()


@pytest.mark.parametrize(
    ("query", "code", "pointer"),
    [
        (b"color=red", "invalid_argument", "/query"),
        (b"limit=1&limit=2", "invalid_argument", "/query/limit"),
        (b"limit=0", "invalid_argument", "/query/limit"),
        (b"limit=201", "invalid_argument", "/query/limit"),
        (b"limit=", "invalid_argument", "/query/limit"),
        (b"limit=+7", "invalid_argument", "/query/limit"),
        (b"limit=07", "invalid_argument", "/query/limit"),
        (b"limit=7.0", "invalid_argument", "/query/limit"),
        (b"limit=0x10", "invalid_argument", "/query/limit"),
        (b"limit=1e2", "invalid_argument", "/query/limit"),
        (b"limit=%D9%A7", "invalid_argument", "/query/limit"),
        (b"limit=99999999999999999999", "invalid_argument", "/query/limit"),
        (b"wait_seconds=nan", "invalid_argument", "/query/wait_seconds"),
        (b"wait_seconds=inf", "invalid_argument", "/query/wait_seconds"),
        (b"wait_seconds=1_0", "invalid_argument", "/query/wait_seconds"),
        (b"wait_seconds=51", "invalid_argument", "/query/wait_seconds"),
        (b"follow=1", "invalid_argument", "/query/follow"),
        (b"follow=True", "invalid_argument", "/query/follow"),
        (b"follow", "invalid_argument", "/query/follow"),
        (b"level=middle", "invalid_argument", "/query/level"),
        (b"pool=null&limit=x", "invalid_argument", "/query/limit"),
        (b"pool=", "invalid_argument", "/query/pool"),
        (b"since=2026-01-02T03:04:05", "invalid_argument", "/query/since"),
        (b"tag=%00", "invalid_argument", "/query"),
        (b"tag=%0a", "invalid_argument", "/query"),
        (b"tag=%ff", "bad_encoding", "/query"),
        (b"tag=%zz", "bad_encoding", "/query"),
        (b"tag=%", "bad_encoding", "/query"),
        (b"&", "invalid_argument", "/query"),
        (b"&".join([b"tag=a"] * 101), "invalid_argument", "/query"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_bad_query_is_refused_with_its_place(query: bytes, code: str, pointer: str) -> None:
    """As strict as a body."""
    assert refusal(FILTER, query) == (code, pointer)


def test_the_word_null_is_a_text() -> None:
    """A query knows no null."""
    assert FILTER.read(b"pool=null").pool == "null"


@hypothesis.given(st.binary(max_size=80))
def test_no_query_makes_the_reader_stumble(query: bytes) -> None:
    """Whatever comes, it is read or refused."""
    try:
        FILTER.read(query)
    except Problem as problem:
        assert problem.status == 400


@pytest.mark.parametrize("name", ["healthy", "pools", "register", "running", "keys"])
def test_names_that_stand_in_paths_are_reserved(name: str) -> None:
    """Nobody may be called as a path is."""
    with pytest.raises(Problem) as caught:
        refuse_reserved("/agent_id", name)

    assert (caught.value.code, caught.value.errors[0].pointer) == ("reserved_name", "/agent_id")
    refuse_reserved("/agent_id", f"{name}-1")
    refuse_reserved("/agent_id", None)
