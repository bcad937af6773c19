"""`hybridq up` and its agent: they come together, and neither outlives the other."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from hybridq import Fleet, Queue
from tests.api.serving import Serving
from tests.servers import wait_until

from .conftest import ROOT
from .standing import Standing, lives

ENDS_S = 60.0
WAITS = "echo $$ > pid.$HYBRIDQ_ATTEMPT; while ! test -e go; do sleep 0.02; done"
"""A job that says which process it is, and ends when it is told to."""


def _begun(up: Standing, folder: Path, *options: str) -> str:
    """Enqueue the job that waits, and return its id once it runs."""
    ran = up.run("enqueue", "--detach", "--here", *options, "--run", WAITS, cwd=folder)
    assert ran.code == 0, ran
    _pid(folder / "pid.1")
    return ran.out.split()[0]


def _pid(file: Path) -> int:
    wait_until(lambda: file.exists() and file.read_text().endswith("\n"), ENDS_S, what=f"{file.name} is written")
    return int(file.read_text())


def test_the_agent_comes_and_goes_with_it(tmp_path: Path) -> None:
    with Standing(tmp_path / "data") as up:
        wait_until(lambda: up.agents() == {"local": "HEALTHY"}, ENDS_S, what="the agent is registered")
        [agent] = up.agent_processes()
        up.tell(signal.SIGINT)
        assert up.ended() == 0
        assert not lives(agent)
        assert up.agents() == {"local": "TERMINATED"}
        assert "Traceback" not in up.errors


def test_ctrl_c_lets_a_running_job_end(tmp_path: Path) -> None:
    with Standing(tmp_path / "data", environ={"HYBRIDQ_AGENT_DRAIN_GRACE_SECONDS": str(ENDS_S)}) as up:
        job_id = _begun(up, tmp_path)
        up.tell(signal.SIGINT)
        wait_until(lambda: "agent.draining" in up.errors, ENDS_S, what="the agent drains")
        (tmp_path / "go").touch()
        assert up.ended() == 0
        with up.queue() as queue:
            assert queue.job(job_id).status == "COMPLETED"


def test_ctrl_c_twice_hands_it_back(tmp_path: Path) -> None:
    with Standing(tmp_path / "data", environ={"HYBRIDQ_AGENT_DRAIN_GRACE_SECONDS": str(ENDS_S)}) as up:
        job_id = _begun(up, tmp_path)
        up.tell(signal.SIGINT)
        wait_until(lambda: "agent.draining" in up.errors, ENDS_S, what="the agent drains")
        up.tell(signal.SIGINT)
        assert up.ended() == 128 + signal.SIGINT
        assert not lives(_pid(tmp_path / "pid.1"))
        with up.queue() as queue:
            job = queue.job(job_id)
            assert (job.status in ("QUEUED", "SCHEDULED"), job.attempt) == (True, 0), job
        assert "Traceback" not in up.errors


def test_an_agent_that_dies_is_started_again_and_its_job_with_it(tmp_path: Path) -> None:
    """It is the same agent, so the server need not wait until the old one's lease ends."""
    with Standing(tmp_path / "data") as up:
        job_id = _begun(up, tmp_path, "--max-attempts", "3")
        [agent] = up.agent_processes()
        os.kill(agent, signal.SIGKILL)
        (tmp_path / "go").touch()
        with up.queue() as queue:
            wait_until(lambda: queue.job(job_id).status == "COMPLETED", ENDS_S, what="the job is run again")
            assert queue.job(job_id).attempts[0].outcome in ("infra_error", "lost")
            assert len(queue.job(job_id).attempts) == 2
        assert not lives(_pid(tmp_path / "pid.1"))
        assert up.agent_processes() != [agent]
        assert "local_agent.ended" in up.errors
        up.checked()
        up.tell()
        assert up.ended() == 0


def test_when_it_is_killed_the_agent_and_its_job_end_too(tmp_path: Path) -> None:
    with Standing(tmp_path / "data") as up:
        _begun(up, tmp_path)
        [agent] = up.agent_processes()
        up.tell(signal.SIGKILL)
        job = _pid(tmp_path / "pid.1")
        wait_until(lambda: not lives(agent) and not lives(job), ENDS_S, what="nothing is left")
        assert up.run("down", cwd=ROOT).code == 0


@pytest.mark.parametrize("option", [("--no-agent",), ("--agents", "0")])
def test_without_an_agent_it_is_the_server_alone(tmp_path: Path, option: tuple[str, ...]) -> None:
    with Standing(tmp_path / "data", *option) as up:
        assert up.ask("/health/ready").status == 200
        assert up.agent_processes() == []
        up.tell()
        assert up.ended() == 0
        assert not (tmp_path / "data" / "agents").exists()


def test_several_agents_work_at_the_same_time(tmp_path: Path) -> None:
    """Each of two jobs waits for the other."""
    with Standing(tmp_path / "data", "--agents", "2") as up:
        scripts = [f"touch {ours}; while ! test -e {theirs}; do sleep 0.02; done" for ours, theirs in ("ab", "ba")]
        started = [up.begin("enqueue", "--here", "--run", script, cwd=tmp_path) for script in scripts]
        for process in started:
            out, err = process.communicate(timeout=ENDS_S)
            assert process.returncode == 0, out + err
        assert up.agents() == {"local": "HEALTHY", "local-2": "HEALTHY"}
        up.tell()
        assert up.ended() == 0


def test_two_of_them_on_one_directory_do_not_fight_for_a_name(tmp_path: Path) -> None:
    with Standing(tmp_path / "data") as first, Standing(tmp_path / "data") as second:
        both = {"local": "HEALTHY", "local-2": "HEALTHY"}
        wait_until(lambda: first.agents() == both, ENDS_S, what="both are registered")
        for up in (second, first):
            up.tell()
            assert up.ended() == 0
            assert "superseded" not in up.errors


def test_what_is_said_to_agents_reaches_it_and_nobody_else_s_name_does(tmp_path: Path) -> None:
    environ = {
        "HYBRIDQ_AGENT_POOL": "linux",
        "HYBRIDQ_AGENT_CAPACITY": "3",
        # Of an agent that works for somebody else.
        "HYBRIDQ_AGENT_URL": "https://ci.example.com",
        "HYBRIDQ_AGENT_NAME": "theirs",
        "HYBRIDQ_AGENT_KEY_FILE": "/nowhere",
        "HYBRIDQ_URL": "https://ci.example.com",
    }
    with Standing(tmp_path / "data", environ=environ) as up:
        wait_until(lambda: up.agents() == {"local": "HEALTHY"}, ENDS_S, what="the agent is registered")
        with Fleet(data_dir=up.data_dir) as fleet:
            agent = fleet.agent("local")
        assert (agent.pool, agent.capacity) == ("linux", 3)
        up.tell()
        assert up.ended() == 0
        assert "settings.unknown" not in up.errors


def test_an_agent_that_will_not_start_is_told_once_and_the_server_stays(tmp_path: Path) -> None:
    with Standing(tmp_path / "data", environ={"HYBRIDQ_AGENT_CAPACITY": "0"}) as up:
        wait_until(lambda: "local_agent.refused" in up.errors, ENDS_S, what="it is told")
        assert "HYBRIDQ_AGENT_CAPACITY" in up.errors
        assert up.ask("/health/ready").status == 200
        up.tell()
        assert up.ended() == 0
        assert up.errors.count("local_agent.refused") == 1


def test_on_a_redis_of_others_it_goes_by_the_name_of_the_host(tmp_path: Path, redis_url: str) -> None:
    environ = {"HYBRIDQ_DATA_DIR": str(tmp_path / "data"), "HYBRIDQ_REDIS_URL": redis_url}
    host = socket.gethostname().partition(".")[0]
    with Serving(environ=environ, verb="up") as up, Fleet(redis=redis_url) as fleet, Queue(redis=redis_url) as queue:
        wait_until(lambda: len(fleet.agents().items) == 1, ENDS_S, what="the agent is registered")
        [agent] = fleet.agents().items
        assert agent.agent_id == f"{host[:40]}-local"
        job = queue.enqueue("run", {"steps": [{"name": "hello", "run": "echo hello"}]})
        wait_until(lambda: queue.job(job.job_id).status == "COMPLETED", ENDS_S, what="it works")
        assert "hello\n" in queue.read_log(job.job_id).data
        up.tell()
        assert up.ended() == 0
