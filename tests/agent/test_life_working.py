"""Leases that come to nothing, and results that are refused: parts of the agent with a real server, step by step."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hybridq.agent import AgentSettings
from hybridq.agent.life.identity import Membership, Superseded
from hybridq.agent.life.journal import Journal, KeptResult
from hybridq.agent.life.reporting import Reporter
from hybridq.agent.life.slots import Held, Slots
from hybridq.agent.life.working import Working
from hybridq.agent.secrets import Secrets
from hybridq.agent.trust import Trust
from hybridq.agent.work import WorkSettings
from tests.api.client import Api
from tests.proxy import Proxy
from tests.servers import wait_until


class Bench:
    """The parts of an agent that has joined, driven by the test."""

    def __init__(self, api: Api, folder: Path, name: str = "a1", key: str = "", url: str = "") -> None:
        self.api, self.folder = api, folder / name
        self.folder.mkdir()
        settings = AgentSettings.load(
            {"name": name},
            environ={"HYBRIDQ_AGENT_URL": url or api.url, "HYBRIDQ_AGENT_KEY": key or api.key("agents:register")},
        )
        self.over: list[Superseded] = []
        self.unfit: list[str] = []
        self.membership = Membership(
            settings, self.folder, labels={}, version="1", superseded=lambda over: self.over.append(over)
        )
        self.membership.join()
        self.journal = Journal(self.folder)
        self.slots = Slots(1, lambda held: True, changed=lambda: None)
        rng = random.Random(1)
        self.reporter = Reporter(self.membership, self.journal, let_go=self.slots.let_go, rng=rng)
        self.working = Working(
            self.membership,
            self.journal,
            self.reporter,
            trust=Trust(),
            secrets=Secrets.of(),
            settings=WorkSettings(),
            work_folder=self.folder / "work",
            log_folder=self.folder / "logs",
            log_bytes_max=1 << 20,
            let_go=self.slots.let_go,
            unfit=self.unfit.append,
            rng=rng,
        )

    def claim(self) -> Held:
        """Claim the job there is."""
        claimed = self.membership.ask(lambda client: client.claim(wait_seconds=5), timeout_s=10)
        assert claimed.job is not None
        return Held(claimed.job, ends_at_s=1e12)

    def files(self, folder: str) -> list[Path]:
        return sorted((self.folder / folder).glob("*.json"))


@pytest.fixture
def bench(api: Api, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(api, tmp_path)
    yield made
    made.membership.close()


@pytest.fixture
def job(api: Api) -> str:
    payload = {"steps": [{"name": "never", "run": "exit 9"}]}
    made: str = api.post("/api/queue/jobs", {"payload": payload}).json()["id"]
    return made


def look(api: Api, job: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/api/queue/jobs/{job}").json()
    return found


def test_a_job_that_was_cancelled_before_its_start_never_runs(api: Api, bench: Bench, job: str) -> None:
    held = bench.claim()
    api.delete(f"/api/queue/jobs/{job}")

    assert not bench.working(held)

    assert ("CANCELLED", 0) == (look(api, job)["status"], look(api, job)["attempt"])
    assert [] == bench.files("leases") + bench.files("results") + bench.files("late")


def test_a_lease_that_is_not_ours_any_more_is_dropped(api: Api, bench: Bench, job: str) -> None:
    held = bench.claim()
    bench.membership.ask(lambda client: client.release(held.id, held.lease_token), timeout_s=10)

    assert not bench.working(held)

    assert [] == bench.files("leases")
    assert 0 == look(api, job)["attempt"]


def test_a_job_that_comes_while_we_drain_goes_back_as_it_was(api: Api, bench: Bench, job: str) -> None:
    held = bench.claim()
    held.stop("drain", 0)

    assert not bench.working(held)

    assert look(api, job)["status"] in ("QUEUED", "SCHEDULED")
    assert (0, []) == (look(api, job)["attempt"], bench.files("leases"))


def test_a_job_that_cannot_be_written_down_goes_back(api: Api, bench: Bench, job: str) -> None:
    held = bench.claim()
    (bench.folder / "leases").rmdir()

    assert not bench.working(held)

    assert ["the journal cannot be written"] == bench.unfit
    assert look(api, job)["status"] in ("QUEUED", "SCHEDULED")
    assert 0 == look(api, job)["attempt"]


def test_a_secret_that_nobody_allowed_is_rejected_before_anything_runs(api: Api, bench: Bench) -> None:
    payload = {"steps": [{"name": "x", "run": "true"}], "env": {"A": {"secret_ref": "env://PATH"}}}
    made = api.post("/api/queue/jobs", {"payload": payload}).json()["id"]

    assert bench.working(bench.claim())

    found = look(api, made)
    assert ("FAILED", "rejected", "secret_not_allowed") == (found["status"], found["outcome"], found["error"]["code"])
    assert not (bench.folder / "work").exists()


def test_a_job_whose_process_cannot_be_made_is_the_machine_s_trouble(api: Api, bench: Bench, job: str) -> None:
    (bench.folder / "work").write_text("a file, where a folder should be")

    assert bench.working(bench.claim())

    first = look(api, job)["attempts"][0]
    assert "infra_error" == first["outcome"]
    assert look(api, job)["status"] in ("QUEUED", "SCHEDULED")


def test_how_a_job_ended_is_on_the_disk_before_the_rest_of_its_log_has_arrived(api: Api, tmp_path: Path) -> None:
    """A process that is killed while the server is slow, or away, must not have done the work for nothing."""
    payload = {"steps": [{"name": "says", "run": "echo much"}]}
    made = api.post("/api/queue/jobs", {"payload": payload}).json()["id"]
    with Proxy(f"redis://127.0.0.1:{api.port}") as proxy:
        key = api.key("agents:register")
        bench = Bench(api, tmp_path, key=key, url=proxy.url.replace("redis://", "http://"))
        held = bench.claim()
        proxy.drop_next_reply(b"/logs", times=1000)
        worker = threading.Thread(target=bench.working, args=(held,))
        worker.start()
        try:
            wait_until(lambda: bench.files("results") and not bench.files("leases"), 20)

            [kept] = bench.files("results")
            assert worker.is_alive()
            assert "success" == json.loads(kept.read_text())["outcome"]
        finally:
            proxy.heal()
            worker.join(60)
            bench.membership.close()
        assert [] == bench.files("results")
    found = look(api, made)
    assert ("COMPLETED", ["much"]) == (found["status"], found["result"]["last_lines"])


def test_an_agent_that_fails_at_a_job_leaves_no_thread_of_its_log(api: Api, bench: Bench, job: str) -> None:
    bench.working._settings = None  # type: ignore[assignment]
    before = threading.enumerate()

    assert bench.working(bench.claim())

    assert "agent_failed" == look(api, job)["attempts"][0]["error"]["code"]
    mine = [one for one in threading.enumerate() if one.name == "hybridq-log" and one not in before]
    wait_until(lambda: not any(one.is_alive() for one in mine), 20)


def test_a_result_that_the_server_does_not_take_is_told_without_it(api: Api, bench: Bench, job: str) -> None:
    held = bench.claim()
    bench.membership.ask(lambda client: client.start(held.id, held.lease_token), timeout_s=10)
    told = KeptResult(
        id=held.id,
        lease_token=held.lease_token,
        fence=held.fence,
        outcome="failed",
        exit_code=9,
        result={"lines": ["x" * 250_000]},
        error={"code": "step_failed", "message": "y" * 9_000},
    )

    bench.reporter.report(told, held)

    found = look(api, job)
    attempt = found["attempts"][0]
    assert ("failed", 9, "step_failed") == (attempt["outcome"], attempt["exit_code"], attempt["error"]["code"])
    assert [] == bench.files("results") + bench.files("late")


def test_what_nobody_takes_any_more_is_set_aside(api: Api, bench: Bench, job: str) -> None:
    held = bench.claim()
    bench.membership.ask(lambda client: client.start(held.id, held.lease_token), timeout_s=10)
    bench.membership.ask(lambda client: client.release(held.id, held.lease_token), timeout_s=10)

    bench.reporter.report(
        KeptResult(id=held.id, lease_token=held.lease_token, fence=held.fence, outcome="success"), held
    )

    [late] = bench.files("late")
    assert "stale_lease" == json.loads(late.read_text())["refused"]
    assert [] == bench.files("results")
    assert look(api, job)["status"] in ("QUEUED", "SCHEDULED")


def test_who_was_superseded_is_told_so_once_and_takes_nothing_back(api: Api, tmp_path: Path) -> None:
    key = api.post("/api/agents/keys", {"pool": "default", "uses": 5}).json()["key"]
    first = Bench(api, tmp_path, "a1", key)
    api.agent("a1")

    for _ in range(2):
        with pytest.raises(Superseded, match="another agent registered as a1"):
            first.membership.ask(lambda client: client.heartbeat(), timeout_s=10)

    assert 1 == len(first.over)
    assert not (first.folder / "session.json").exists()
    first.membership.close()
