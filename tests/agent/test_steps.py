"""Which steps are due, what of the agent's environment is passed on, and how outputs are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridq.agent.work.steps import is_due, outputs_of, passed_on, passwords_of, unfit_names

CONDITIONS = (None, "success", "failure", "always", "cancelled")


@pytest.mark.parametrize(
    ("failed", "stopped", "due"),
    [
        (False, None, {None, "success", "always"}),
        (True, None, {"failure", "always"}),
        (False, "cancelled", {"cancelled", "always"}),
        (True, "cancelled", {"cancelled", "always"}),
        (False, "timeout", {"failure", "always"}),
        (False, "drain", {"always"}),
        (True, "drain", {"always"}),
        (False, "lease_lost", set()),
        (True, "lease_lost", set()),
    ],
)
def test_if_against_all_that_can_have_happened(failed: bool, stopped: str | None, due: set[str | None]) -> None:
    assert {each for each in CONDITIONS if is_due(each, failed=failed, stopped=stopped)} == due  # type: ignore[arg-type]


def test_an_if_that_nobody_knows_never_runs_by_itself() -> None:
    assert not is_due("sometimes", failed=False, stopped=None)


def test_a_few_names_are_passed_on_and_what_the_operator_adds() -> None:
    environ = {
        "PATH": "/bin",
        "LC_TIME": "C",
        "https_proxy": "http://proxy",
        "AWS_SECRET_ACCESS_KEY": "no",
        "HYBRIDQ_KEY": "no",
        "GO_A": "1",
    }

    assert passed_on(environ, ["GO_*", "HYBRIDQ_KEY"]) == {
        "PATH": "/bin",
        "LC_TIME": "C",
        "https_proxy": "http://proxy",
        "GO_A": "1",
    }
    assert "HYBRIDQ_KEY" not in passed_on(environ, ["*"])
    assert passed_on({})["PATH"]


def test_passwords_of_proxies_are_known() -> None:
    environ = {
        "https_proxy": "http://me:p%40ss@proxy:3128/",
        "HTTP_PROXY": "me:word@proxy:3128",
        "ALL_PROXY": "socks5://proxy:1080",
        "NO_PROXY": "localhost,a:1@b",
        "OTHER": "http://me:other@host",
    }

    assert {"p%40ss", "p@ss", "word"} <= set(passwords_of(environ)) and "other" not in passwords_of(environ)


def test_names_no_job_may_set() -> None:
    fine = {"A": "", "_a1": "x\ny", "PATH": "/bin", "HOME": "/", "LD_LIBRARY_PATH": "/lib", "ENV": "staging", "CI": "0"}
    unfit: dict[str, object] = {
        **{"HYBRIDQ_OUTPUT": "x", "LD_PRELOAD": "x", "LD_AUDIT": "x", "BASH_ENV": "x"},
        **{"1A": "x", "": "x", "A B": "x", "A=": "x", "Ä": "x", "A\n": "x", "BASH_FUNC_x%%": "() { :; }"},
        **{"NUL": "a\0b", "LONE": "\ud800", "NUMBER": 1, "REFERENCE": {"secret_ref": "env://A"}},
    }

    assert unfit_names({**fine, **unfit}) == list(unfit)


@pytest.mark.parametrize(
    ("text", "outputs"),
    [
        ("", {}),
        ("a=1\n", {"a": "1"}),
        ("a=1", {"a": "1"}),
        ("a=1\n\n\nb-c.d=x=y\n", {"a": "1", "b-c.d": "x=y"}),
        ("a=\n", {"a": ""}),
        ("a=1\na=2\n", {"a": "2"}),
        ("a=x<<EOF\n", {"a": "x<<EOF"}),
        ("a<<E\nE\n", {"a": ""}),
        ("a<<E\n1\n2=3\nE\nb=4\n", {"a": "1\n2=3", "b": "4"}),
        ("a<<E\nEE\n E\nE\n", {"a": "EE\n E"}),
    ],
)
def test_outputs(tmp_path: Path, text: str, outputs: dict[str, str]) -> None:
    (tmp_path / "output").write_text(text)

    assert outputs_of(tmp_path / "output", 1000) == (outputs, None)


@pytest.mark.parametrize("text", ["no equals sign\n", "=x\n", "a b=x\n", "b<<E\nnever ends\n", "é=x\n"])
def test_what_is_no_output_is_left_out_and_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "output").write_text(f"a=1\n{text}")

    outputs, wrong = outputs_of(tmp_path / "output", 1000)

    assert outputs == {"a": "1"} and wrong is not None and "left out" in wrong


def test_outputs_that_are_no_text_are_read_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "output").write_bytes(b"a=\xff\n")

    assert outputs_of(tmp_path / "output", 1000) == ({"a": "\N{REPLACEMENT CHARACTER}"}, None)
