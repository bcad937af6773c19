"""What is sent for a call, what an answer means, when it is sent again: decided without any I/O, so tested without."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from redis._parsers.base import BaseParser

from hybridq.call import Call
from hybridq.errors import (
    LanesChanged,
    OutcomeUnknown,
    QueueFull,
    QueueLost,
    RedisUnavailable,
    SchemaMismatch,
    ScriptFailed,
)
from hybridq.job import JobSpec
from hybridq.ops import inspect, jobs, leases, queues
from hybridq.runner import BATCH_BYTES_MAX, Eval, Load, Place, exchange, split

ROOT = "hq:{default/q/jobs}"
DONE = [[b"CANCELLED"]]
LOST = redis.exceptions.ConnectionError("Connection closed by server.")
SLOW = redis.exceptions.TimeoutError("Timeout reading from socket")


def place(**fields: Any) -> Place:
    return Place("jobs", ROOT, "redis://here", **fields)


def cancel() -> Call[Any]:
    """A call that may be sent again."""
    return jobs.cancel(ROOT, "a", now_ms=7)


def retry() -> Call[Any]:
    """A call that may not be sent again by itself."""
    return jobs.retry(ROOT, "a", now_ms=7)


def stats() -> Call[Any]:
    """A call that changes nothing."""
    return inspect.stats(ROOT, now_ms=7)


def drive(call: Call[Any], where: Place, *answers: Any) -> tuple[list[Any], Any]:
    """Answer each request in turn; returns the requests, and the replies or the error in the end."""
    steps = exchange(call, where)
    sent = [next(steps)]
    try:
        for answer in answers:
            sent.append(steps.send(answer))
    except StopIteration as end:
        return sent, end.value
    except Exception as problem:
        return sent, problem
    raise AssertionError(f"not done after {sent}")


def names(sent: list[Any]) -> list[str]:
    return [f"load {one.script.name}" if isinstance(one, Load) else one.script.name for one in sent]


def error_of(text: str) -> Exception:
    """What redis-py makes of an error that Redis answered."""
    problem: Exception = BaseParser.parse_error(text)
    return problem


def test_a_call_is_one_script_with_its_arguments_in_order() -> None:
    [request], replies = drive(cancel(), place(), DONE)

    assert replies == DONE
    assert request.command() == (
        "EVALSHA", cancel().script.sha, 1, f"{ROOT}:meta", 7, "a", "graceful", 10_000,
    )  # fmt: skip


def test_a_server_without_shebang_gets_the_script_without_it() -> None:
    [request], _ = drive(cancel(), place(shebang=False), DONE)

    assert request.script == cancel().script.without_shebang()


# -- a script the server does not know --------------------------------------------------------------------


def test_a_script_that_is_not_known_is_loaded_and_sent_again() -> None:
    sent, replies = drive(cancel(), place(), error_of("NOSCRIPT No matching script."), cancel().script.sha, DONE)

    assert names(sent) == ["cancel", "load cancel", "cancel"]
    assert replies == DONE


def test_a_script_that_stays_unknown_is_not_loaded_for_ever() -> None:
    sent, error = drive(cancel(), place(), *[error_of("NOSCRIPT No matching script."), "sha"] * 9)

    assert len(sent) < 9
    assert isinstance(error, ScriptFailed)


def test_a_load_that_is_refused_is_the_calls_error() -> None:
    _, error = drive(cancel(), place(), error_of("NOSCRIPT No matching script."), error_of("NOPERM this user"))

    assert isinstance(error, ScriptFailed)


# -- a queue that is not there ----------------------------------------------------------------------------


def test_a_queue_that_is_not_there_is_created_once() -> None:
    where = place()
    sent, replies = drive(cancel(), where, [b"NO_QUEUE"], [[b"CREATED"]], DONE)

    assert names(sent) == ["cancel", "create", "cancel"]
    assert sent[1].args == (7,)
    assert (replies, where.seen) == (DONE, True)


def test_a_queue_that_another_created_meanwhile_is_as_good() -> None:
    sent, replies = drive(cancel(), place(), [b"NO_QUEUE"], [[b"EXISTS"]], DONE)

    assert (names(sent), replies) == (["cancel", "create", "cancel"], DONE)


def test_a_queue_that_vanished_is_not_created_again() -> None:
    _, error = drive(cancel(), place(seen=True), [b"NO_QUEUE"])

    assert isinstance(error, QueueLost)


def test_a_queue_that_vanishes_right_after_its_creation_is_lost() -> None:
    where = place()
    _, error = drive(cancel(), where, [b"NO_QUEUE"], [[b"CREATED"]], [b"NO_QUEUE"])

    assert isinstance(error, QueueLost)
    assert not where.seen


def test_creating_a_queue_by_itself_is_not_having_used_it() -> None:
    where = place()
    drive(queues.create(ROOT), where, [[b"CREATED"]])

    assert not where.seen


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ([b"SCHEMA", b"2"], SchemaMismatch),
        ([b"LANES_CHANGED", b"4"], LanesChanged),
        ([b"SURPRISE"], ScriptFailed),
    ],
)
def test_a_refusal_of_the_whole_call_is_a_typed_error(answer: list[bytes], kind: type[Exception]) -> None:
    _, error = drive(cancel(), place(), answer)

    assert type(error) is kind


# -- lost replies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [LOST, SLOW, ConnectionResetError("reset"), TimeoutError("slow")])
def test_a_call_whose_reply_was_lost_is_sent_once_more(problem: Exception) -> None:
    sent, replies = drive(cancel(), place(), problem, DONE)

    assert (names(sent), replies) == (["cancel", "cancel"], DONE)


@pytest.mark.parametrize("problem", [LOST, SLOW])
def test_a_reply_lost_twice_leaves_the_outcome_open(problem: Exception) -> None:
    _, error = drive(cancel(), place(), LOST, problem)

    assert isinstance(error, OutcomeUnknown)
    assert error.__cause__ is problem


def test_a_call_that_is_not_recognised_when_repeated_is_not_sent_again() -> None:
    sent, error = drive(retry(), place(), LOST)

    assert names(sent) == ["replay"]
    assert isinstance(error, OutcomeUnknown)


def test_a_claim_is_repeated_as_one_that_is_looked_for() -> None:
    call = leases.claim(ROOT, queue="jobs", agent="one", lease_id="0" * 32, request_id="r1", fresh=True)
    fresh = 3 + [parameter.name for parameter in call.script.header.each].index("fresh")
    sent, _ = drive(call, place(), LOST, [[b"EMPTY", 0, b"-1"]])

    assert [one.args[fresh] for one in sent] == [1, 0]


def test_a_claim_without_a_request_id_is_not_repeated() -> None:
    call = leases.claim(ROOT, queue="jobs", agent="one", lease_id="0" * 32)
    sent, error = drive(call, place(), LOST)

    assert len(sent) == 1
    assert isinstance(error, OutcomeUnknown)


def test_an_outcome_stays_open_when_redis_is_gone_at_the_second_sending() -> None:
    refused = redis.exceptions.ConnectionError("Error 111 connecting to localhost:6379. Connection refused.")
    _, error = drive(cancel(), place(), LOST, refused)

    assert isinstance(error, OutcomeUnknown)


@pytest.mark.parametrize("problem", [LOST, SLOW])
def test_a_look_that_failed_is_never_an_open_outcome(problem: Exception) -> None:
    _, error = drive(stats(), place(), problem, problem)

    assert isinstance(error, RedisUnavailable)


# -- errors that say that nothing was done ------------------------------------------------------------------

NOTHING_DONE = [
    redis.exceptions.ConnectionError("Error 111 connecting to localhost:6379. Connection refused."),
    redis.exceptions.TimeoutError("Timeout connecting to server"),
    redis.exceptions.ConnectionError("No connection available."),
    redis.exceptions.MaxConnectionsError("Too many connections"),
    redis.exceptions.RedisClusterException("Redis Cluster cannot be connected."),
    *map(
        error_of,
        [
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
            "MASTERDOWN Link with MASTER is down",
            "NOREPLICAS Not enough good replicas to write.",
            "MISCONF Errors writing to the AOF file",
            "CLUSTERDOWN The cluster is down",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "BUSY Redis is busy running a script.",
            "UNKILLABLE The busy script was sent by a master.",
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair",
            "ERR max number of clients reached",
        ],
    ),
]


@pytest.mark.parametrize("problem", NOTHING_DONE, ids=str)
def test_an_error_before_the_script_ran_is_no_open_outcome(problem: Exception) -> None:
    sent, error = drive(cancel(), place(), problem)

    assert names(sent) == ["cancel"]
    assert isinstance(error, RedisUnavailable)
    assert (error.__cause__, error.url) == (problem, "redis://here")


def test_a_redis_without_memory_is_a_full_queue() -> None:
    _, error = drive(cancel(), place(), error_of("OOM command not allowed when used memory > 'maxmemory'."))

    assert isinstance(error, QueueFull)
    assert error.limit == 0


@pytest.mark.parametrize(
    "text",
    [
        "ERR user_script:3: attempt to index a nil value script: f_ab, on @user_script:3.",
        "WRONGTYPE Operation against a key holding the wrong kind of value script: f_ab, on @user_script:3.",
        "NOPERM User default has no permissions to run the 'zadd' command script: f_ab, on @user_script:3.",
        "HQ_ARG job_id: must be a name",
    ],
)
def test_a_script_that_stopped_is_an_error_with_its_place_in_the_sources(text: str) -> None:
    sent, error = drive(cancel(), place(), error_of(text))

    assert names(sent) == ["cancel"]
    assert isinstance(error, ScriptFailed)
    assert error.script == "cancel"
    assert error.line.startswith("lua/cancel.lua")


# -- large calls --------------------------------------------------------------------------------------------


def test_a_small_call_stays_whole() -> None:
    call = cancel()

    assert split(call) == [call]


def test_a_large_call_is_split_by_the_scripts_limit_in_order() -> None:
    call = jobs.purge(ROOT, [f"job-{n}" for n in range(230)])
    most = call.script.header.batch_max
    parts = split(call)

    assert [len(part.entries) for part in parts[:-1]] == [most] * (len(parts) - 1)
    assert tuple(entry for part in parts for entry in part.entries) == call.entries
    assert tuple(entry for part in parts for entry in part.repeat or ()) == call.entries


def test_a_call_that_may_not_be_repeated_stays_so_in_parts() -> None:
    parts = split(jobs.replay(ROOT, [f"job-{n}" for n in range(230)]))

    assert {part.repeat for part in parts} == {None}


@pytest.mark.parametrize("size", [200_000, 262_000])
def test_a_heavy_call_is_split_by_bytes(size: int) -> None:
    call = jobs.enqueue(ROOT, [JobSpec(payload=b"x" * size) for _ in range(40)], queue="jobs")
    parts = split(call)

    assert sum(len(part.entries) for part in parts) == 40
    for part in parts:
        assert (
            len(b"".join(entry[2] for entry in part.entries if isinstance(entry[2], bytes))) <= BATCH_BYTES_MAX * 1.01
        )


def test_the_parts_of_a_call_are_requests_of_one_script() -> None:
    call = jobs.purge(ROOT, [f"job-{n}" for n in range(120)])

    for part in split(call):
        request = next(exchange(part, place()))
        assert isinstance(request, Eval)
        assert len(request.args) == 1 + len(part.entries)
