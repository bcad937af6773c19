"""What is said about an exception is bounded, and fits into a job's record whatever it holds."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from hybridq import Outcome, Reject, Retry
from hybridq._report import Report, describe
from hybridq.codec import FAILURE_BYTES_MAX


def raised(problem: BaseException) -> BaseException:
    try:
        raise problem
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("text", ["x" * 100_000, "\x00" * 100_000, "\udcff" * 1000, "é\n" * 50_000])
def test_an_error_always_fits_into_the_record(text: str) -> None:
    error = describe(raised(ValueError(text)))
    assert error["type"] == "ValueError"
    assert len(error["message"]) == 500
    assert len(msgspec.json.encode(error)) <= FAILURE_BYTES_MAX


def test_the_last_lines_of_a_long_traceback_are_kept() -> None:
    def first(n: int) -> None:
        if n == 0:
            raise ValueError("the bottom")
        second(n - 1)

    def second(n: int) -> None:
        first(n)

    with pytest.raises(ValueError) as caught:
        first(200)
    text = describe(caught.value)["traceback"]
    assert 2000 < len(text) <= 4096
    assert text.rstrip().endswith("ValueError: the bottom")


def test_an_exception_whose_text_cannot_be_had_is_described_all_the_same() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    error = describe(raised(Broken()))
    assert (error["type"], error["message"]) == ("Broken", "<no text: RuntimeError>")


def test_each_way_out_has_its_report() -> None:
    assert Report.of(Retry(5, "later")) == Report(
        outcome=Outcome.FAILED, error={"type": "Retry", "message": "later"}, delay_s=5
    )
    assert Report.of(Reject("never")).outcome is Outcome.REJECTED
    assert Report.of(raised(ValueError("v"))).outcome is Outcome.FAILED
    for ending in (KeyboardInterrupt(), SystemExit(), asyncio.CancelledError()):
        assert Report.of(ending) == Report.release()


def test_the_error_type_is_the_class_or_the_code() -> None:
    assert Report.of(ValueError("v")).error_type == "ValueError"
    assert Report.rejected("bad_payload", "no").error_type == "bad_payload"
    assert Report.release().error_type is None
