"""The systemd unit of an agent: what it says, and what systemd says of it, where systemd is."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hybridq.agent.life.settings import AgentSettings, fields

COMMAND = (sys.executable, "-m", "hybridq.cli", "agent-unit")
CHECKOUT = Path(__file__).resolve().parents[2]


def _unit(*arguments: str) -> str:
    done = subprocess.run([*COMMAND, *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def _read(text: str) -> dict[str, dict[str, list[str]]]:
    """The unit's sections; a key may be there several times."""
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return {name: {key: [value] for key, value in parser[name].items()} for name in parser.sections()}


def test_systemd_has_nothing_against_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze here")
    unit = tmp_path / "hybridq-agent.service"
    unit.write_text(_unit())
    done = subprocess.run([program, "verify", "--man=no", unit], capture_output=True, text=True, timeout=60)

    assert (0, "") == (done.returncode, done.stdout + done.stderr)


def test_systemd_would_notice_a_wrong_unit(tmp_path: Path) -> None:
    """So that the test above can fail."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze here")
    unit = tmp_path / "hybridq-agent.service"
    unit.write_text(_unit().replace("KillMode=mixed", "KilMode=mixed"))
    done = subprocess.run([program, "verify", "--man=no", unit], capture_output=True, text=True, timeout=60)

    assert "KilMode" in done.stderr


def test_it_starts_this_installation_with_options_that_there_are() -> None:
    service = _read(_unit("--config", "/srv/a.toml", "--key-file", "/srv/a.key", "--user", "ci"))["Service"]
    [command] = service["ExecStart"]
    options = {setting.option for _, setting in fields()} | {"--config"}

    assert str(Path(sys.executable).parent) in command
    assert "agent --config /srv/a.toml --key-file ${CREDENTIALS_DIRECTORY}/key" in command
    assert set(re.findall(r"--[a-z-]+", command)) <= options
    assert (["ci"], ["key:/srv/a.key"]) == (service["User"], service["LoadCredential"])


def test_a_drain_fits_into_the_time_that_systemd_gives_it() -> None:
    """Else systemd would kill jobs that the agent still lets finish."""
    service = _read(_unit())["Service"]
    default = AgentSettings(url="https://ci.example.com")

    assert int(service["TimeoutStopSec"][0]) > default.drain_grace_s + default.cancel_grace_s
    # SIGTERM is for the agent alone, which ends its jobs by itself.
    assert (["mixed"], ["SIGTERM"]) == (service["KillMode"], service["KillSignal"])
    assert ["2 3"] == service["RestartPreventExitStatus"]
    name, _, value = service["Environment"][0].partition("=")
    assert name in {setting.env for _, setting in fields()}
    assert value.endswith(service["StateDirectory"][0])


@pytest.mark.parametrize("wrong", ["a b", "x\nExecStart=/bin/sh", "%h", "$HOME"])
def test_what_would_mean_something_else_in_a_unit_is_refused(wrong: str) -> None:
    done = subprocess.run(
        [*COMMAND, "--user", wrong], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
    )

    assert (2, "") == (done.returncode, done.stdout)
