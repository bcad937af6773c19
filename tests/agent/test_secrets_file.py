"""`env://` and `file://`: what is the agent's own stays so, and no link leads elsewhere."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from hybridq.agent.secrets import EnvSecrets, FileSecrets, SecretRef, Secrets, SecretUnavailable

VALUE = "s3cr3t-value-of-mine"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the rule of these tests allows files."""
    made = tmp_path / "secrets"
    made.mkdir(mode=0o700)
    return made


def written(path: Path, content: str | bytes = VALUE, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def read(path: Path, folder: Path, rule: str = "/**", **options: object) -> str:
    secrets = Secrets([FileSecrets(**options)], [f"file://{folder}{rule}"])  # type: ignore[arg-type]
    return secrets.resolve({"A": SecretRef(f"file://{path}")}, pool="linux").values["A"]


def unavailable(path: Path, folder: Path, reason: str, **options: object) -> None:
    with pytest.raises(SecretUnavailable, match=reason) as caught:
        read(path, folder, **options)
    assert VALUE not in str(caught.value)


# -- env -------------------------------------------------------------------------------------------------------------


def test_a_variable_of_the_agent_s() -> None:
    secrets = Secrets([EnvSecrets({"CI_TOKEN": VALUE, "EMPTY": ""})], ["env://**"])

    assert secrets.resolve({"A": SecretRef("env://CI_TOKEN")}, pool="linux").values == {"A": VALUE}
    for name in ("NOPE", "EMPTY", "CI_TOKEN#x", "A/B", "1A", "A-B", "A.B"):
        with pytest.raises(SecretUnavailable):
            secrets.resolve({"A": SecretRef(f"env://{name}")}, pool="linux")


def test_the_agent_s_own_credentials_are_no_job_s() -> None:
    """Whatever the rules say; also by other case, where the system knows none."""
    own = ["HYBRIDQ_AGENT_KEY", "HYBRIDQ_TOKEN", "hybridq_token", "Hybridq_X", "VAULT_TOKEN", "vault_token"]
    secrets = Secrets([EnvSecrets(dict.fromkeys(own, VALUE))], ["env://**"])

    for name in own:
        with pytest.raises(SecretUnavailable, match="own"):
            secrets.resolve({"A": SecretRef(f"env://{name}")}, pool="linux")


def test_the_environment_is_that_of_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI_TOKEN", VALUE)
    provider = EnvSecrets()
    monkeypatch.setenv("CI_TOKEN", "changed")

    assert provider.resolve(SecretRef("env://CI_TOKEN"), 1.0) == VALUE


# -- file ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (VALUE, VALUE),
        (VALUE + "\n", VALUE),
        (VALUE + "\r\n", VALUE),
        (VALUE + "\n\n", VALUE + "\n"),
        ("a\nb\n", "a\nb"),
    ],
    ids=repr,
)
def test_a_file_without_the_newline_at_its_end(folder: Path, content: str, value: str) -> None:
    assert read(written(folder / "a", content), folder) == value


def test_what_is_no_secret_in_a_file(folder: Path) -> None:
    unavailable(folder / "nothing", folder, "No such file")
    unavailable(written(folder / "empty", ""), folder, "empty")
    unavailable(written(folder / "large", "x" * 65_537), folder, "larger")
    unavailable(written(folder / "latin", b"\xff\xfe"), folder, "UTF-8")
    unavailable(written(folder / "below" / "a") / "b", folder, "Not a directory")
    unavailable(folder / "below", folder, "no file")
    unavailable(Path(f"{written(folder / 'a')}#x"), folder, "file:///absolute")
    with pytest.raises(SecretUnavailable, match="absolute"):
        FileSecrets().resolve(SecretRef("file://relative/path"), 1.0)


def test_a_pipe_a_socket_and_a_device_are_no_files(folder: Path) -> None:
    """And do not hold up the agent."""
    os.mkfifo(folder / "pipe", 0o600)
    unavailable(folder / "pipe", folder, "no file")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "sock"))
        unavailable(folder / "sock", folder, "it cannot|No such device|no file")
    unavailable(Path("/dev/null"), Path("/dev"), "no file|larger")
    unavailable(Path("/dev/zero"), Path("/dev"), "no file")


@pytest.mark.parametrize(
    ("mode", "reason"),
    [(0o620, "write"), (0o602, "write"), (0o666, "write"), (0o604, "every user"), (0o644, "every user")],
)
def test_a_file_that_others_may_read_or_write_is_refused(folder: Path, mode: int, reason: str) -> None:
    unavailable(written(folder / "a", mode=mode), folder, reason)


def test_a_group_may_read_and_mounts_of_runtimes_may_be_read_by_all(folder: Path) -> None:
    assert read(written(folder / "a", mode=0o640), folder) == VALUE
    path = written(folder / "b", mode=0o444)
    assert read(path, folder, open_to_all=[folder]) == VALUE
    assert read(path, folder, open_to_all=[folder.parent]) == VALUE
    unavailable(path, folder, "every user", open_to_all=[folder / "b2", str(folder) + "x"])
    unavailable(written(folder / "c", mode=0o446), folder, "write", open_to_all=[folder])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_refused(folder: Path) -> None:
    path = written(folder / "a", mode=0o600)
    os.chown(path, 4242, 4242)

    unavailable(path, folder, "another user")


# -- links -----------------------------------------------------------------------------------------------------------


def test_a_link_within_the_allowed_folder_is_followed(folder: Path) -> None:
    """Kubernetes mounts secrets so: name → ..data/name, ..data → ..2030_01_31."""
    written(folder / "..2030_01_31" / "db")
    (folder / "..data").symlink_to("..2030_01_31")
    (folder / "db").symlink_to("..data/db")

    assert read(folder / "db", folder) == VALUE
    assert read(folder / "db", folder, rule="/*") == VALUE
    assert read(folder / "db", folder, rule="/db") == VALUE


def test_a_link_out_of_it_is_not(folder: Path, tmp_path: Path) -> None:
    outside = written(tmp_path / "outside" / "a")
    (folder / "file").symlink_to(outside)
    (folder / "relative").symlink_to("../outside/a")
    (folder / "folder").symlink_to(outside.parent)
    (folder / "chain").symlink_to("file")

    for name in ("file", "relative", "folder/a", "chain"):
        unavailable(folder / name, folder, "link")


def test_a_folder_whose_name_only_begins_alike_is_another(folder: Path) -> None:
    written(folder.with_name("secrets-of-others") / "a")
    (folder / "a").symlink_to("../secrets-of-others/a")

    unavailable(folder / "a", folder, "link")


def test_a_link_to_itself_ends(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")

    unavailable(folder / "loop", folder, "symbolic links")


def test_the_allowed_folder_may_itself_be_behind_a_link(folder: Path, tmp_path: Path) -> None:
    """As /var/run is /run."""
    written(folder / "a")
    (tmp_path / "alias").symlink_to(folder)

    assert read(tmp_path / "alias" / "a", tmp_path / "alias") == VALUE
