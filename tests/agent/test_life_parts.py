"""Parts of the agent's life that need no process: settings, journal, leases in our hands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hybridq.agent import AgentSettings, ClaimedJob
from hybridq.agent.life.identity import FolderTaken, OwnFolder
from hybridq.agent.life.journal import LATE_MAX, Journal, KeptLease, KeptResult
from hybridq.agent.life.labels import labels_of
from hybridq.agent.life.metrics import Load
from hybridq.agent.life.notify import tell_systemd, watchdog_s
from hybridq.agent.life.settings import PREFIX, SettingsWrong, fields, name_of, written_into
from hybridq.agent.life.slots import Held, Slots
from tests.servers import wait_until

README = Path(__file__).parents[2] / "README.md"
URL = {"HYBRIDQ_AGENT_URL": "https://ci.example.com"}
TOKEN = f"7.{'0' * 32}"


def told(options: dict[str, Any] | None = None, /, **environ: str) -> AgentSettings:
    return AgentSettings.load(options, environ={**URL, **{PREFIX + name: text for name, text in environ.items()}})


def complaints(options: dict[str, Any] | None = None, /, **environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsWrong) as wrong:
        told(options, **environ)
    return wrong.value.complaints


# -- settings ------------------------------------------------------------------------------------------------------


def test_options_come_before_variables_and_variables_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(
        'capacity = 1\nlease_seconds = 10\npool = "a"\nallow_secrets = ["env://A", "env://B"]\nonce = true\n'
    )

    found = AgentSettings.load(
        {"capacity": "3"}, environ={**URL, "HYBRIDQ_AGENT_CAPACITY": "2", "HYBRIDQ_AGENT_POOL": "b"}, config=file
    )

    assert (3, "b", 10.0, True) == (found.capacity, found.pool, found.lease_s, found.once)
    assert ("env://A", "env://B") == found.allow_secrets


def test_an_option_that_says_no_wins_over_a_variable_that_says_yes() -> None:
    assert told({"once": None}, ONCE="1").once
    assert not told({"once": False}, ONCE="1").once


def test_all_that_is_wrong_is_said_at_once_and_no_value_is_shown() -> None:
    found = complaints({"capacity": "many"}, LEASE_SECONDS="0", NAME="pools", COLOUR="red", DISK_FREE_MIN="1 parsec")

    assert 5 == len(found)
    assert [True] * 5 == [
        any(line.startswith(where) for line in found)
        for where in (
            "--capacity",
            "HYBRIDQ_AGENT_LEASE_SECONDS",
            "HYBRIDQ_AGENT_NAME",
            "HYBRIDQ_AGENT_COLOUR",
            "HYBRIDQ_AGENT_DISK_FREE_MIN",
        )
    ]
    assert not any("parsec" in line or "many" in line for line in found)


def test_a_key_has_no_place_in_the_file_and_two_ways_in_are_one_too_many(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('key = "hqr_secret"\n')

    with pytest.raises(SettingsWrong, match="say key_file") as wrong:
        AgentSettings.load(environ=URL, config=file)

    assert "hqr_secret" not in str(wrong.value)
    assert ["key and key_file: one of the two"] == list(complaints({"key_file": "x"}, KEY="hqr_x"))


def test_a_server_has_to_be_named_and_signatures_need_keys() -> None:
    with pytest.raises(SettingsWrong, match="--url"):
        AgentSettings.load(environ={})
    assert "http://a" == AgentSettings.load(environ={"HYBRIDQ_URL": "http://a"}).url
    assert "--verify-keys" in complaints(REQUIRE_SIGNATURE="1")[0]


def test_variables_of_the_server_and_of_jobs_are_no_mistakes() -> None:
    assert told(TOKEN_SECONDS="900", ID="a1", CONFIG="").url


def test_the_password_of_a_proxy_is_not_shown() -> None:
    shown = repr(told(PROXY="http://me:hunter2@proxy.example:3128"))
    assert "hunter2" not in shown and "proxy.example:3128" in shown


def test_the_key_is_not_shown_and_a_file_is_read_when_it_is_needed(tmp_path: Path) -> None:
    assert "hqr_hidden" not in repr(told(KEY="hqr_hidden"))
    file = tmp_path / "key"
    settings = told({"key_file": str(file)})
    with pytest.raises(SettingsWrong, match="cannot be read"):
        settings.registration_key()
    file.write_text("hqr_one\n")

    assert "hqr_one" == settings.registration_key()


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("build-7.example.com", "build-7"),
        ("running", "agent-running"),
        ("__x__", "x"),
        ("", "agent"),
        ("Zoë's mac", "Zo-s-mac"),
    ],
)
def test_a_host_s_name_is_made_one_that_an_agent_may_have(host: str, name: str) -> None:
    assert name == name_of(host)


def test_two_ephemeral_agents_have_two_names() -> None:
    assert told(EPHEMERAL="1").name != told(EPHEMERAL="1").name


def test_the_readme_has_the_table_of_settings() -> None:
    assert written_into(README.read_text(encoding="utf-8")) == README.read_text(encoding="utf-8"), "make settings"


def test_every_setting_is_read_from_its_variable() -> None:
    names = {setting.env for _, setting in fields()}

    assert {"HYBRIDQ_AGENT_DRAIN_GRACE_SECONDS", "HYBRIDQ_AGENT_KEY", "HYBRIDQ_AGENT_LABELS"} <= names
    assert {"os": "x", "gpu": ""} == told(LABELS="os=x, gpu").labels
    assert 64 * 1024 == told(LOG_BYTES_MAX="64KiB").log_bytes_max


# -- journal -------------------------------------------------------------------------------------------------------


def lease(number: int = 7) -> KeptLease:
    return KeptLease(id="default~job-1", lease_token=TOKEN, fence=number, attempt=1)


def result(number: int = 7, **more: Any) -> KeptResult:
    given = {"id": "default~job-1", "lease_token": TOKEN, "fence": number, "outcome": "failed", **more}
    return KeptResult(**given)


def test_a_lease_is_in_the_journal_until_its_end_is(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.hold(lease())
    assert [lease()] == Journal(tmp_path).left_behind()

    journal.keep(result(error={"code": "x"}, result=None))

    assert [] == Journal(tmp_path).left_behind()
    assert [result(error={"code": "x"})] == Journal(tmp_path).unreported()
    journal.taken(result())
    assert [] == Journal(tmp_path).unreported()


def test_a_process_that_died_between_the_two_files_left_a_result(tmp_path: Path) -> None:
    """The lease's file is still there; what it came to must not be written over."""
    journal = Journal(tmp_path)
    journal.keep(result(outcome="success"))
    journal.hold(lease())

    found = Journal(tmp_path)

    assert [] == found.left_behind()
    assert ["success"] == [one.outcome for one in found.unreported()]


def test_others_can_read_nothing_of_it_and_no_token_is_shown(tmp_path: Path) -> None:
    Journal(tmp_path).hold(lease())

    [path] = (tmp_path / "leases").iterdir()
    assert 0o600 == path.stat().st_mode & 0o777
    assert 0o700 == path.parent.stat().st_mode & 0o777
    assert TOKEN not in repr(lease()) + repr(result())


def test_a_torn_file_stops_nobody(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.hold(lease(1))
    [path] = (tmp_path / "leases").iterdir()
    path.write_bytes(b'{"id": "def')
    (tmp_path / "leases" / ".half.tmp").touch()
    journal.hold(lease(2))

    found = Journal(tmp_path)

    assert [lease(2)] == found.left_behind()
    assert [lease(2)] == found.left_behind()
    assert not list((tmp_path / "leases").glob("*.tmp"))


def test_evidence_that_came_late_is_kept_and_bounded(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(LATE_MAX + 5):
        journal.keep(result(number))
        journal.set_aside(result(number), "stale_lease")
        os.utime(tmp_path / "late" / f"default~job-1.{number}.json", ns=(number, number))

    kept = [msgspec.json.decode(path.read_bytes(), type=KeptResult) for path in (tmp_path / "late").iterdir()]
    assert LATE_MAX == len(kept)
    assert {"stale_lease"} == {one.refused for one in kept}
    assert set(range(5, LATE_MAX + 5)) == {one.fence for one in kept}
    assert [] == journal.unreported()


def test_a_folder_belongs_to_one_process(tmp_path: Path) -> None:
    with OwnFolder(tmp_path / "state") as folder:
        with pytest.raises(FolderTaken, match="another agent works with"), OwnFolder(folder):
            pass
    with OwnFolder(tmp_path / "state"):
        pass


# -- leases in our hands -------------------------------------------------------------------------------------------


class Told:
    """Takes a run's place, and notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def stop(self, reason: str, grace_s: float) -> None:
        self.heard.append((reason, grace_s))

    def extend(self, ends_at_s: float) -> None:
        self.heard.append(ends_at_s)


def held(id: str = "default~job-1", fence: int = 7, ends_at_s: float = 100.0) -> Held:
    job = ClaimedJob(
        id=id,
        job_id=id.partition("~")[2],
        pool="default",
        status="CLAIMED",
        lease_token=TOKEN,
        fence=fence,
        lease_expires_in_seconds=30.0,
    )
    return Held(job, ends_at_s=ends_at_s)


def test_what_was_stopped_before_it_began_never_begins() -> None:
    run, one = Told(), held()
    one.stop("cancelled", 5.0)

    assert not one.begin(run)  # type: ignore[arg-type]
    assert [] == run.heard


def test_the_weightier_reason_counts_and_the_end_of_a_lease_never_comes_nearer() -> None:
    run, one = Told(), held()
    assert one.begin(run)  # type: ignore[arg-type]
    one.extend(120.0)
    one.extend(110.0)
    one.stop("drain", 10.0)
    one.stop("lease_lost", 0.0, why="stale_lease")
    one.stop("cancelled", 5.0)

    assert [100.0, 120.0, 120.0, ("drain", 10.0), ("lease_lost", 0.0), ("cancelled", 5.0)] == run.heard
    assert (True, "stale_lease") == (one.lost, one.why)


def test_a_cancelled_job_has_no_more_grace_than_who_wants_to_leave_gives_it() -> None:
    """A second signal hands back at once, also what has an hour to end after a cancel."""
    run, one = Told(), held()
    assert one.begin(run)  # type: ignore[arg-type]
    one.stop("cancelled", 3600.0)
    one.stop("drain", 0.0)

    assert [100.0, ("cancelled", 3600.0), ("drain", 0.0)] == run.heard
    assert "cancelled" == one.stopped


def test_a_job_that_comes_to_us_once_more_ends_the_lease_we_had() -> None:
    import threading

    go = threading.Event()

    def work(_: Held) -> bool:
        return go.wait(30)

    slots = Slots(2, work, changed=lambda: None)
    before, after = held(fence=7), held(fence=8)
    slots.take(before)
    slots.take(after)

    assert before.lost and not after.lost
    assert [after] == slots.held()
    assert (0, 2) == (slots.free, slots.busy)
    slots.let_go(before)
    assert [after] == slots.held()
    go.set()
    wait_until(lambda: slots.worked == 2, 10, what="both ended")


# -- the machine ---------------------------------------------------------------------------------------------------


def test_given_labels_win_over_those_it_finds() -> None:
    found = labels_of({"arch": "quantum", "room": "7"})

    assert {"arch": "quantum", "room": "7"}.items() <= found.items()
    assert {"os", "python", "cores"} <= found.keys()


def test_the_figures_are_percentages(tmp_path: Path) -> None:
    found = Load(tmp_path).look()

    assert {"memory_percent", "disk_percent"} <= found.keys()
    assert all(0 <= value <= 100 for name, value in found.items() if name.endswith("_percent"))


def test_systemd_is_told_where_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    tell_systemd("READY=1")
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind(path)
        door.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        tell_systemd("READY=1", "STATUS=well")
        assert b"READY=1\nSTATUS=well" == door.recv(1000)

    tell_systemd("READY=1")  # nobody listens any more
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    assert 1.5 == watchdog_s()
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_s() is None
