"""What an agent must not gather in a long life: descriptors, folders, clients. And what must not get out of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from hybridq.agent import AgentSettings
from hybridq.agent._session import Session
from hybridq.agent.errors import Unreachable
from hybridq.agent.life.identity import Membership
from hybridq.agent.logs import JobLog
from hybridq.agent.work.steps import outputs_of
from hybridq.agent.work.workspace import MARK, Workspace, sweep
from tests.servers import wait_until

NOBODY = "https://127.0.0.1:9"


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_others_of_the_same_user_cannot_read_what_an_agent_was_started_with() -> None:
    """A job is one. To root nothing is hidden, so the process becomes nobody first."""
    script = """
import ctypes, os, subprocess, sys
from hybridq.agent.life.hidden import hide_process
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as after an exec by that user
def look():
    return subprocess.run(["/bin/cat", f"/proc/{os.getpid()}/environ"], capture_output=True, cwd="/").stdout
assert b"hqr_secret" in look()
assert hide_process()
assert look() == b""
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"HYBRIDQ_AGENT_KEY": "hqr_secret"}, capture_output=True
    )

    assert (0, b"") == (done.returncode, done.stderr)


def test_steps_that_make_a_folder_of_the_outputs_cost_no_descriptor(tmp_path: Path) -> None:
    before = open_files()

    for _ in range(5):
        assert ({}, "outputs cannot be read: Is a directory") == outputs_of(tmp_path, 100)

    assert open_files() == before


def test_a_log_that_ended_leaves_neither_its_spool_nor_the_folder_of_it(tmp_path: Path) -> None:
    before = open_files()
    one = JobLog(tmp_path / "p~j.1", append=lambda offset, text: offset + len(text.encode()))
    one.write(b"said\n")

    assert one.close(within_s=10).delivered

    assert list(tmp_path.iterdir()) == []
    wait_until(lambda: open_files() == before, timeout_s=10)


def test_the_folder_of_a_spool_stays_when_others_made_it(tmp_path: Path) -> None:
    one = JobLog(tmp_path, append=lambda offset, text: offset + len(text.encode()))
    one.write(b"said\n")

    one.close(within_s=10)

    assert tmp_path.is_dir()


def test_a_server_that_is_away_costs_no_memory(tmp_path: Path) -> None:
    session = {
        "agent_id": "a",
        "session_id": "s",
        "pool": "p",
        "boot_id": "boot-1",
        "token": "hqa_x",
        "renewal_token": "hqn_x",
        "heartbeat_seconds": 10.0,
    }
    (tmp_path / "session.json").write_bytes(
        msgspec.json.encode({"url": NOBODY, "session": msgspec.convert(session, Session)})
    )
    settings = AgentSettings(url=NOBODY, name="a", pool="p", state_dir=tmp_path)
    membership = Membership(settings, tmp_path, labels={}, version="1", superseded=print)

    for _ in range(3):
        with pytest.raises(Unreachable):
            membership.join()

    assert membership._clients == []


def test_a_link_in_the_place_of_a_workspace_is_removed_and_what_it_points_to_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "folder").mkdir(parents=True)
    (elsewhere / "folder").chmod(0o555)
    workspace = Workspace(tmp_path / "work", "1")
    workspace.folder.rename(tmp_path / "moved")
    workspace.folder.symlink_to(elsewhere)

    assert workspace.remove()

    assert not workspace.folder.is_symlink()
    assert sweep(tmp_path / "work") == 0
    assert (elsewhere / "folder").stat().st_mode & 0o777 == 0o555


def nest(folder: Path, levels: int) -> None:
    """Make folders in folders, deeper than a path can say."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("deeper", dir_fd=here)
        below = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def test_a_workspace_is_removed_however_deep_its_folders_are(tmp_path: Path) -> None:
    """To walk down would take a call and a descriptor a level: the end of an agent, and of each after it."""
    workspace = Workspace(tmp_path, "1")
    nest(workspace.work, 1200)
    (workspace.home / "closed" / "within").mkdir(parents=True)
    (workspace.home / "closed").chmod(0)
    (workspace.tmp / "link").symlink_to(tmp_path)
    before = open_files()

    assert workspace.remove()

    assert list(tmp_path.iterdir()) == []
    assert open_files() == before


def test_what_a_killed_agent_left_is_swept_also_when_it_is_deep_or_its_mark_became_a_folder(tmp_path: Path) -> None:
    deep, odd = Workspace(tmp_path, "1"), Workspace(tmp_path, "2")
    nest(deep.work, 1200)
    (odd.folder / MARK).unlink()
    (odd.folder / MARK / "x").mkdir(parents=True)

    assert odd.remove()
    assert sweep(tmp_path) == 1

    assert list(tmp_path.iterdir()) == []


def test_a_workspace_that_lost_its_mark_is_removed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "1")
    (workspace.folder / MARK).unlink()

    assert workspace.remove()
