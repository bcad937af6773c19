"""What a handler is called with is read off its signature."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import msgspec
import pytest

from hybridq import InvalidArgument, JobStatus, Lease, Priority
from hybridq._units import ms_to_instant
from hybridq.worker.tasks import Task


class Build(msgspec.Struct):
    ref: str
    jobs: Annotated[int, msgspec.Meta(ge=1)] = 1


def lease_of(payload: bytes) -> Lease:
    return Lease(
        job_id="j1",
        queue="work",
        type="build",
        payload=payload,
        fence=1,
        lease_id="0" * 32,
        agent="a",
        status=JobStatus.RUNNING,
        priority=Priority.NORMAL,
        attempt=1,
        max_attempts=3,
        deliveries=1,
        generation=0,
        lease_s=30,
        timeout_s=60,
        tags={},
        enqueued_at=ms_to_instant(0),
    )


def called(function: Any, payload: bytes = b'{"ref":"main"}') -> Any:
    return function(*Task.read("build", function, None).arguments(lease_of(payload)))


def test_a_handler_may_take_nothing() -> None:
    assert called(lambda: "ran") == "ran"


def test_a_payload_without_annotation_is_whatever_the_json_holds() -> None:
    assert called(lambda payload: payload) == {"ref": "main"}


def test_a_payload_is_read_into_its_annotation() -> None:
    def build(build: Build) -> Build:
        return build

    assert called(build) == Build(ref="main")


def test_a_payload_annotated_as_bytes_is_given_as_it_is() -> None:
    def build(payload: bytes) -> bytes:
        return payload

    assert called(build, b"\x00\xff") == b"\x00\xff"


def test_the_lease_goes_to_the_parameter_that_is_annotated_so_or_named_so() -> None:
    def by_annotation(held: Lease, payload: Build) -> tuple[int, str]:
        return held.fence, payload.ref

    def by_name(payload, lease):  # type: ignore[no-untyped-def]
        return lease.fence, payload["ref"]

    def alone(lease: Lease) -> tuple[int, str]:
        return lease.fence, "main"

    assert called(by_annotation) == called(by_name) == called(alone) == (1, "main")


def test_further_parameters_keep_their_defaults() -> None:
    def build(payload: Build, lease: Lease, dry: bool = True, *, clean: bool = False) -> tuple[bool, bool]:
        return dry, clean

    assert called(build) == (True, False)


def test_a_payload_that_does_not_fit_is_an_error_of_the_job() -> None:
    def build(payload: Build) -> None: ...

    with pytest.raises(msgspec.ValidationError):
        called(build, b'{"ref":"main","jobs":0}')
    with pytest.raises(msgspec.DecodeError):
        called(build, b"no JSON")


def test_methods_partials_and_callable_objects_are_handlers() -> None:
    class Builder:
        def build(self, payload: Build) -> str:
            return payload.ref

        async def __call__(self, payload: Build) -> str:
            return payload.ref

    assert called(Builder().build) == "main"
    assert called(functools.partial(lambda clean, payload: payload["ref"], True)) == "main"
    assert Task.read("build", Builder(), None).is_async
    assert asyncio.run(called(Builder())) == "main"


def test_a_function_that_cannot_be_called_with_a_payload_is_refused() -> None:
    def two(payload: Build, other: int) -> None: ...

    def many(*payloads: Build) -> None: ...

    def keyword(payload: Build, *, clean: bool) -> None: ...

    def generator(payload: Build) -> Iterator[int]:
        yield 1

    async def async_generator(payload: Build) -> AsyncIterator[int]:
        yield 1

    for function in (two, many, keyword, generator, async_generator, "build"):
        with pytest.raises(InvalidArgument, match="handler"):
            Task.read("build", function, None)  # type: ignore[arg-type]


def test_an_annotation_that_nobody_can_read_is_refused_at_once() -> None:
    def unreadable(payload: Build | Task) -> None: ...

    def unknown(payload: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    for function in (unreadable, unknown):
        with pytest.raises(InvalidArgument, match="annotated"):
            Task.read("build", function, None)
