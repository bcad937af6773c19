"""Data directories that cannot be used, or only in an unusual way: every refusal says what to do."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from hybridq.embedded import EmbeddedServer, default_data_dir, start_or_attach
from hybridq.errors import EmbeddedUnavailable
from tests.embedded.attached import CHECKOUT, Attached

NOBODY = 65534


def _start(data_dir: Path) -> EmbeddedServer:
    server = start_or_attach(data_dir)
    assert isinstance(server, EmbeddedServer)
    return server


def _refused_to_a_plain_user(data_dir: Path) -> str:
    """What a process without root's rights is told; root, who is refused nothing, gives them up first."""
    script = (
        "import os, sys; from pathlib import Path\n"
        "from hybridq.embedded import start_or_attach; from hybridq.errors import EmbeddedUnavailable\n"
        "import hybridq.connect._sync\n"
        f"if os.getuid() == 0: os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "try: start_or_attach(Path(sys.argv[1]))\n"
        "except EmbeddedUnavailable as refused: print(refused)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, str(data_dir)],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.returncode == 0, said.stderr
    return said.stdout


def test_a_directory_one_may_not_write_to_is_refused(data_dir: Path) -> None:
    data_dir.parent.chmod(0o755)
    data_dir.mkdir()
    data_dir.chmod(0o555)

    said = _refused_to_a_plain_user(data_dir)

    assert f"{data_dir}/run: Permission denied" in said
    assert "give this user write permission" in said


def test_a_directory_one_may_not_create_is_refused(data_dir: Path) -> None:
    data_dir.parent.chmod(0o555)

    said = _refused_to_a_plain_user(data_dir)

    data_dir.parent.chmod(0o755)
    assert f"{data_dir}: Permission denied" in said


def test_a_file_in_place_of_the_directory_is_refused(data_dir: Path) -> None:
    data_dir.write_text("I am a file")

    for path in (data_dir, data_dir / "below"):
        with pytest.raises(EmbeddedUnavailable, match="is a file; choose another"):
            start_or_attach(path)

    assert data_dir.read_text() == "I am a file"
    data_dir.unlink()


@pytest.fixture
def tiny_disk(data_dir: Path) -> Iterator[Path]:
    data_dir.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=64", "tmpfs", str(data_dir)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tiny file system here: {mounted.stderr.strip()}")
    yield data_dir
    subprocess.run(["umount", "--lazy", str(data_dir)], check=True)


def _fill(disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"), (disk / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))


def test_a_full_disk_is_named_as_the_cause(tiny_disk: Path) -> None:
    _fill(tiny_disk)

    with pytest.raises(EmbeddedUnavailable, match="disk is full") as refused:
        start_or_attach(tiny_disk)

    assert "free some space" in refused.value.advice


def test_a_disk_that_fills_up_before_the_server_writes_is_named_too(tiny_disk: Path) -> None:
    """The launcher's own files are there already, so it is the server that finds no room."""
    _start(tiny_disk).close()
    for path in (tiny_disk / "appendonlydir").iterdir():
        path.unlink()
    _fill(tiny_disk)

    with pytest.raises(EmbeddedUnavailable, match="disk is full"):
        start_or_attach(tiny_disk)


def test_a_path_too_long_for_a_socket_gets_a_short_private_one(data_dir: Path) -> None:
    deep = data_dir / ("d" * 60) / ("e" * 60)

    with _start(deep) as server, redis.Redis.from_url(server.url) as client:
        client.set("k", "v")
        socket = Path(client.connection_pool.connection_kwargs["path"])
        assert len(os.fsencode(socket)) <= 100
        assert deep not in socket.parents
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700

        with Attached(deep, XDG_RUNTIME_DIR=str(data_dir), TMPDIR=str(data_dir)) as other:
            assert other.said["url"] == server.url, "whoever attaches is told where, and does not work it out"
            other.close()
    assert not socket.parent.exists()


def test_a_short_folder_that_is_not_private_is_refused(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that all users share, another user may have made it first, to listen in."""
    deep = data_dir / ("d" * 60) / ("e" * 60)
    data_dir.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(data_dir))
    with _start(deep) as server:
        pass
    folder = Path(server.url.removeprefix("unix://")).parent
    assert folder.parent == data_dir
    folder.mkdir(mode=0o755)

    with pytest.raises(EmbeddedUnavailable, match="not a private folder of this user"):
        start_or_attach(deep)


def test_a_path_may_hold_any_character(data_dir: Path) -> None:
    with _start(data_dir / "a b'c\"d%20#?ü") as server, server.connector.sync() as client:
        assert client.ping()


def test_nobody_else_may_enter_the_folder_of_the_socket(data_dir: Path) -> None:
    data_dir.mkdir()
    data_dir.chmod(0o755)
    (data_dir / "run").mkdir()
    (data_dir / "run").chmod(0o777)

    with _start(data_dir):
        assert stat.S_IMODE((data_dir / "run").stat().st_mode) == 0o700


def test_a_server_keeps_every_key_and_writes_every_change(data_dir: Path) -> None:
    with _start(data_dir) as server, redis.Redis.from_url(server.url) as client:
        settings = client.config_get("*")

    expected = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
    expected |= {"port": "0", "save": "", "unixsocketperm": "700"}
    assert expected == {name: settings[name] for name in expected}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HYBRIDQ_DATA_DIR": "/srv/queue", "XDG_DATA_HOME": "/x"}, "/srv/queue"),
        ({"XDG_DATA_HOME": "/x"}, "/x/hybridq"),
        ({"XDG_DATA_HOME": "relative"}, "/home/someone/.local/share/hybridq"),
        ({}, "/home/someone/.local/share/hybridq"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="the XDG convention is not used on macOS")
def test_the_default_directory_follows_the_convention_of_the_platform(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], expected: str
) -> None:
    for name in ("HYBRIDQ_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/someone", **environ}.items():
        monkeypatch.setenv(name, value)

    assert Path(expected) == default_data_dir()


def test_the_directory_of_the_environment_is_used_when_none_is_given(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYBRIDQ_DATA_DIR", str(data_dir))

    with start_or_attach() as server:
        assert isinstance(server, EmbeddedServer)
        assert data_dir == server.data_dir

    assert json.loads((data_dir / "engine.json").read_text())["engine"] == "valkey"
