"""`exec://`: the operator's programs alone, no shell, no options, and nothing left running."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from hybridq.agent.secrets import ExecSecrets, SecretRef, Secrets, SecretUnavailable
from tests.servers import wait_until

VALUE = "s3cr3t-value-of-mine"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    made = tmp_path / "programs"
    made.mkdir(mode=0o700)
    return made


def program(path: Path, script: str, mode: int = 0o700) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(mode)
    return path


def run(folder: Path | None, ref: str, timeout_s: float = 20.0, **options: object) -> str:
    provider = ExecSecrets(folder, **options)  # type: ignore[arg-type]
    secrets = Secrets([provider], ["exec://**"], timeout_s=timeout_s)
    return secrets.resolve({"A": SecretRef(ref)}, pool="linux").values["A"]


def unavailable(folder: Path | None, ref: str, reason: str, **options: object) -> None:
    with pytest.raises(SecretUnavailable, match=reason) as caught:
        run(folder, ref, **options)  # type: ignore[arg-type]
    assert VALUE not in str(caught.value)


def test_what_a_program_prints_is_the_secret(programs: Path) -> None:
    program(programs / "token", f"echo {VALUE}")

    assert run(programs, "exec://token") == VALUE


def test_it_gets_two_arguments_and_the_reference(programs: Path) -> None:
    program(programs / "show", 'for one in "$@"; do echo "<$one>"; done; echo "$SECRET_REF"')

    assert run(programs, "exec://show") == "exec://show"
    assert run(programs, "exec://show/ci/registry") == "<ci/registry>\nexec://show/ci/registry"
    assert run(programs, "exec://show/ci/registry#token").splitlines()[:2] == ["<ci/registry>", "<token>"]


def test_there_is_no_shell(programs: Path, tmp_path: Path) -> None:
    """What a shell would read as more than a word does not even get as far as the program."""
    program(programs / "show", 'echo "<$1>"')

    assert run(programs, "exec://show/a=b:c@d+e~f") == "<a=b:c@d+e~f>"
    for argument in ("$(id)", "a;b", "a|b", "a b", "`id`", "a>b", "*"):
        with pytest.raises(Exception, match="secret_ref_malformed"):
            run(programs, f"exec://show/{argument}")


@pytest.mark.parametrize("argument", ["-h", "--help", "-", "--", "+x", "@/etc/passwd", "~root", "=x", ":x", ".x"])
def test_an_argument_is_never_an_option(programs: Path, argument: str) -> None:
    program(programs / "show", f"echo {VALUE}")

    unavailable(programs, f"exec://show/{argument}", "option")
    if "/" not in argument and all(c.isalnum() or c in "-." for c in argument):
        unavailable(programs, f"exec://show/a#{argument}", "option")


def test_only_what_the_operator_listed_can_be_run(programs: Path, tmp_path: Path) -> None:
    program(tmp_path / "outside", f"echo {VALUE}")
    (programs / "link").symlink_to(tmp_path / "outside")
    (programs / "below").mkdir()
    program(programs / "below" / "token", f"echo {VALUE}")

    unavailable(None, "exec://sh", "listed")
    unavailable(programs, "exec://sh", "listed")
    unavailable(programs, "exec://link", "link")
    unavailable(programs, "exec://below", "no program")
    unavailable(programs, "exec://below/token", "no program")
    unavailable(programs, "exec:///bin/sh", "exec://NAME")
    unavailable(programs / "nothing", "exec://token", "listed")
    for name in (".hidden", "-x", "..x"):
        unavailable(programs, f"exec://{name}", "exec://NAME")


def test_a_program_that_others_may_change_is_not_run(programs: Path) -> None:
    program(programs / "token", f"echo {VALUE}", mode=0o722)
    unavailable(programs, "exec://token", "change")
    program(programs / "token", f"echo {VALUE}", mode=0o600)
    unavailable(programs, "exec://token", "no program")
    program(programs / "token", f"echo {VALUE}")
    programs.chmod(0o777)
    unavailable(programs, "exec://token", "change")
    programs.chmod(0o755)
    assert run(programs, "exec://token") == VALUE


def test_a_list_of_commands_does_as_well() -> None:
    commands = {"token": [sys.executable, "-c", "import sys; print(sys.argv[1:])", "fixed"]}

    assert run(None, "exec://token/a#b", commands=commands) == "['fixed', 'a', 'b']"
    unavailable(None, "exec://other", "listed", commands=commands)
    unavailable(None, "exec://gone", "started", commands={"gone": ["/no/such/program"]})


def test_it_runs_without_the_agent_s_own_credentials(programs: Path) -> None:
    program(programs / "all", "env")
    environ = {"PATH": os.environ["PATH"], "HYBRIDQ_TOKEN": "own", "HYBRIDQ_AGENT_KEY": "own", "VAULT_ADDR": "there"}

    seen = run(programs, "exec://all", environ=environ)

    assert "VAULT_ADDR=there" in seen
    assert "own" not in seen
    program(programs / "where", "pwd; cat")
    assert run(programs, "exec://where") == "/", "and reads nothing from us"


def test_what_goes_wrong_is_said_without_what_was_printed(programs: Path) -> None:
    program(programs / "fails", f"echo {VALUE}; echo {VALUE} >&2; exit 3")
    unavailable(programs, "exec://fails", "ended with 3")
    program(programs / "killed", f"echo {VALUE}; kill -9 $$")
    unavailable(programs, "exec://killed", "ended with -9")
    program(programs / "silent", "true")
    unavailable(programs, "exec://silent", "empty")
    program(programs / "binary", f"printf '\\377{VALUE}'")
    unavailable(programs, "exec://binary", "UTF-8")
    program(programs / "endless", f"while :; do echo {VALUE}; done")
    unavailable(programs, "exec://endless", "more than")
    (programs / "no-format").write_text("\0\0")
    (programs / "no-format").chmod(0o700)
    unavailable(programs, "exec://no-format", "started")


@pytest.mark.parametrize("script", ["sleep 600", "sleep 600 & echo started", "exec >&-; sleep 600"])
def test_one_that_takes_too_long_is_ended_with_all_it_started(programs: Path, tmp_path: Path, script: str) -> None:
    program(programs / "slow", f"echo $$ > {tmp_path / 'pid'}; {script}; sleep 600")
    began = time.monotonic()

    unavailable(programs, "exec://slow", "time", timeout_s=0.5)

    assert time.monotonic() - began < 10
    group = int((tmp_path / "pid").read_text())
    wait_until(lambda: not _lives(group), 10.0, what="the whole group has ended")


def _lives(group: int) -> bool:
    """Whether a process of the group runs; one that nobody waited for yet does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False
