"""`hybridq agent`: what it is told, and how it says that it will not do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.api.client import Api
from tests.cli.conftest import Ran
from tests.servers import wait_until


@pytest.fixture
def api(redis_url: str, namespace: str) -> Iterator[Api]:
    with Api(redis_url, namespace) as running:
        yield running


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state-home"))


def test_it_needs_a_server_and_a_way_in(hybridq: Callable[..., Ran]) -> None:
    nowhere = hybridq("agent")
    stranger = hybridq("agent", "--url", "http://127.0.0.1:1", "--name", "a1", "--json")

    assert (2, True) == (nowhere.code, "--url: where is the server?" in nowhere.err)
    assert 2 == stranger.code
    assert "set HYBRIDQ_AGENT_KEY" in stranger.error["message"]


def test_every_complaint_is_told(hybridq: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDQ_AGENT_CAPACITY", "lots")

    wrong = hybridq("agent", "--lease-seconds", "1", "--json")

    assert 2 == wrong.code
    assert ["HYBRIDQ_AGENT_CAPACITY", "--lease-seconds"] == [
        line.partition(":")[0] for line in wrong.error["complaints"]
    ]


def test_a_key_is_never_an_argument(hybridq: Callable[..., Ran]) -> None:
    assert 2 == hybridq("agent", "--url", "http://127.0.0.1:1", "--key", "hqr_x").code


def test_plain_http_leads_to_this_machine_only(hybridq: Callable[..., Ran], tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("hqr_x")

    refused = hybridq("agent", "--url", "http://ci.example.com", "--key-file", str(key), "--json")

    assert 2 == refused.code
    assert "https://" in refused.error["message"]


def test_a_key_that_is_refused_ends_it(hybridq: Callable[..., Ran], api: Api, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(api.key("queue:read"))

    refused = hybridq("agent", "--url", api.url, "--key-file", str(key), "--name", "a1", "--json")

    assert 1 == refused.code
    assert "missing_scope" in refused.err


def test_a_folder_that_cannot_be_made_is_named(hybridq: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    key = tmp_path / "key"
    key.write_text("hqr_x")
    state = str(tmp_path / "file" / "state")

    refused = hybridq("agent", "--url", "http://127.0.0.1:1", "--key-file", str(key), "--state-dir", state, "--json")

    assert (2, "folder_unusable") == (refused.code, refused.error["code"])
    assert state in refused.error["message"]


def test_the_folder_that_is_swept_is_not_the_one_that_is_kept(hybridq: Callable[..., Ran], tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("hqr_x")
    folder = str(tmp_path / "one")
    both = ("--state-dir", folder, "--work-dir", f"{folder}/../one")

    refused = hybridq("agent", "--url", "http://127.0.0.1:1", "--key-file", str(key), *both, "--json")

    assert (2, "folders_alike") == (refused.code, refused.error["code"])
    assert "a folder of their own" in refused.error["message"]


def test_a_second_process_does_not_get_the_folder_of_the_first(
    hybridq: Callable[..., Ran],
    start: Callable[..., subprocess.Popen[str]],
    api: Api,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HYBRIDQ_AGENT_KEY", api.key("agents:register"))
    state = str(tmp_path / "state")
    first = start("agent", "--url", api.url, "--name", "a1", "--state-dir", state)
    assert first.stdout is not None
    assert first.stdout.readline().startswith("agent a1 works for pool default")

    second = hybridq("agent", "--url", api.url, "--name", "a1", "--state-dir", state, "--json")

    assert (2, "folder_taken") == (second.code, second.error["code"])
    first.send_signal(signal.SIGTERM)
    assert 0 == first.wait(30)


def test_it_says_as_json_when_it_is_ready_and_takes_the_first_ctrl_c_for_a_drain(
    start: Callable[..., subprocess.Popen[str]], api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a closed standard input, as a child of somebody's has it."""
    monkeypatch.setenv("HYBRIDQ_AGENT_KEY", api.key("agents:register"))
    config = tmp_path / "agent.toml"
    config.write_text(f'url = "{api.url}"\nname = "a1"\nlabels = {{room = "7"}}\nstate_dir = "{tmp_path / "state"}"\n')
    agent = start("agent", "--config", str(config), "--json", "--capacity", "2", stdin=subprocess.DEVNULL)
    assert agent.stdout is not None

    ready = json.loads(agent.stdout.readline())
    agent.send_signal(signal.SIGINT)

    assert ("a1", "default") == (ready["agent_id"], ready["pool"])
    assert 0 == agent.wait(30)
    found = api.get("/api/agents/a1").json()
    assert ("TERMINATED", 2, "7") == (found["status"], found["capacity"], found["labels"]["room"])


def test_no_token_is_in_the_log_nor_in_what_others_see_of_the_process(
    start: Callable[..., subprocess.Popen[str]], api: Api, tmp_path: Path
) -> None:
    key = api.key("agents:register")
    path = tmp_path / "key"
    path.write_text(key)
    agent = start("agent", "--url", api.url, "--name", "a1", "--key-file", str(path), "--json")
    assert agent.stdout is not None
    ready = agent.stdout.readline()
    session = tmp_path / "state-home" / "hybridq" / "agent" / "a1" / "session.json"
    wait_until(session.exists, 10, what="the session is kept")
    kept = json.loads(session.read_text())["session"]
    command = Path(f"/proc/{agent.pid}/cmdline").read_bytes().decode() if os.path.exists("/proc/self") else ""

    agent.send_signal(signal.SIGTERM)
    out, err = agent.communicate(timeout=30)

    assert 0 == agent.returncode
    for secret in (key, kept["token"], kept["renewal_token"]):
        assert secret not in ready + out + err + command
