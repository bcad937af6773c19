"""What was sent is what comes back: bytes unchanged, JSON of equal value."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from hybridq import JobSpec

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)
one_queue = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
"""Every example takes out of the queue what it put in, so that all can share it."""
AWKWARD = {
    "nothing": b"",
    "line breaks": b"\n\r\n",
    "what ends a RESP string": b"\r\n$-1\r\n",
    "every byte": bytes(range(256)) * 4,
    "no UTF-8": b"\xff\xfe\x80",
    "Lua": b"]]..redis.call('FLUSHALL')..[[",
    "zero bytes": b"\x00" * 100,
    "the most there may be": b"\n" * 262_144,
}


def there_and_back(queue: Any, payload: Any) -> tuple[bytes, bytes]:
    """Return the payload as its holder gets it, and as a reader does."""
    job_id = queue.enqueue("t", payload).job_id
    [lease] = queue.claim(start=True)
    assert lease.job_id == job_id
    queue.complete(lease)
    return lease.payload, queue.job(job_id).payload


@one_queue
@given(payload=st.binary(max_size=2000))
def test_bytes_come_back_unchanged(queue: Any, payload: bytes) -> None:
    assert (payload, payload) == there_and_back(queue, payload)


@one_queue
@given(value=json_values)
def test_values_come_back_equal(queue: Any, value: Any) -> None:
    queue.enqueue("t", value)
    [lease] = queue.claim(start=True)
    queue.complete(lease, value)

    assert value == lease.decode()
    assert value == queue.job(lease.job_id).result


@pytest.mark.parametrize("payload", AWKWARD.values(), ids=AWKWARD)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_awkward_bytes_come_back_unchanged(queue: Any, payload: bytes, kind: type) -> None:
    assert (payload, payload) == there_and_back(queue, kind(payload))


def test_payloads_of_one_batch_keep_to_their_jobs(queue: Any) -> None:
    payloads = [bytes([n]) * n * 100 for n in range(1, 60)]
    queue.enqueue_many(JobSpec(payload=payload) for payload in payloads)

    taken = [lease.payload for _ in range(3) for lease in queue.claim(20)]

    assert payloads == taken


def test_results_and_errors_of_awkward_text_come_back_equal(queue: Any) -> None:
    text = 'line\nbreak \u2028 \x00 \U0001f600 \\n "quoted" ]]'
    queue.enqueue("t", max_attempts=1)
    queue.enqueue("t")
    first, second = queue.claim(2, start=True)

    queue.fail(first, {"message": text})
    queue.complete(second, [text])

    assert {"message": text} == queue.job(first.job_id).error
    assert [text] == queue.job(second.job_id).result
