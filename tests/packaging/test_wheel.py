"""What people install: sdist → wheel → a fresh environment outside the checkout, which has nothing but the wheel.

Third-party packages come from the running environment, by a line in a `.pth` file. Such a line adds a folder and
does not follow the `.pth` files in it, so an editable install of the checkout stays out of sight.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest

from hybridq.embedded import status
from hybridq.scripts import load, verbs
from tests.api.serving import Serving

CHECKOUT = Path(__file__).resolve().parents[2]
WAIT_S = 110.0

# Built once: every test of this file runs in one worker.
pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(240)]

ROUND_TRIP = """
import sys
from hybridq import Queue

q = Queue("t", data_dir=sys.argv[1])
q.enqueue("build", {"a": 1})
[lease] = q.claim()
q.start(lease)
q.complete(lease, result={"b": 2})
print(q.job(lease.job_id).status.value)
q.close()
"""

WHERE = """
import json
import hybridq
from hybridq.scripts import load, locate, verbs

shas = {name: load(name).sha for name in verbs()}
print(json.dumps({"library": hybridq.__file__, "lua": str(locate()), "shas": shas}))
"""


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, CHECKOUT, cwd=folder)
    [sdist], [wheel] = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="session")
def fresh(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment that has the wheel."""
    folder = tmp_path_factory.mktemp("fresh")
    environment = folder / "venv"
    _run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=folder)
    python = environment / "bin/python"
    _run(
        *(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python),
        *("install", "--no-deps", "--no-index", built[1]),
        cwd=folder,
    )
    [site_packages] = environment.glob("lib/python*/site-packages")
    (site_packages / "third_party.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin"


def _wheel_names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def _lua_files() -> dict[str, bytes]:
    return {str(path.relative_to(CHECKOUT / "lua")): path.read_bytes() for path in (CHECKOUT / "lua").rglob("*.lua")}


def test_the_wheel_brings_one_package_and_no_other_top_level_name(built: tuple[Path, Path]) -> None:
    names = {name.partition("/")[0] for name in _wheel_names(built[1])}

    assert {"hybridq", "hybridq-0.1.0.dist-info"} == names


def test_the_scripts_in_the_wheel_are_those_of_the_checkout(built: tuple[Path, Path]) -> None:
    prefix = "hybridq/_lua/"
    with zipfile.ZipFile(built[1]) as archive:
        packed = {
            name.removeprefix(prefix): archive.read(name)
            for name in archive.namelist()
            if name.startswith(prefix) and name.endswith(".lua")
        }

    assert _lua_files() == packed


def test_the_wheel_is_typed_licensed_and_carries_the_http_app(built: tuple[Path, Path]) -> None:
    names = _wheel_names(built[1])

    for name in ("hybridq/py.typed", "hybridq/_api/__init__.py", "hybridq-0.1.0.dist-info/licenses/LICENSE"):
        assert name in names
    benchmarks = {str(path.relative_to(CHECKOUT / "benchmarks")) for path in (CHECKOUT / "benchmarks").rglob("*.lua")}
    assert benchmarks and {f"hybridq/_benchmarks/{name}" for name in benchmarks} <= set(names)
    assert "hybridq/_benchmarks/peers/programs/bullmq_node.mjs" in names


def test_the_library_alone_needs_three_packages(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        metadata = BytesParser().parsebytes(archive.read("hybridq-0.1.0.dist-info/METADATA"))
    base = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]

    assert ["msgspec", "redis[hiredis]", "structlog"] == sorted(line.split("<")[0].split(">")[0] for line in base)
    assert {"agent", "bench", "cli", "dev", "fake", "granian", "otel", "server"} == set(
        metadata.get_all("Provides-Extra", [])
    )


def test_the_sdist_has_the_sources_and_nothing_of_this_machine(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {f"lua/{name}" for name in _lua_files()} <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "api/__init__.py", "tests/conftest.py"} <= names
    assert [] == [name for name in names if name.startswith((".venv", ".git/")) or "__pycache__" in name]


def test_the_installed_library_uses_its_own_scripts_and_they_compose_to_the_same_texts(
    fresh: Path, tmp_path: Path
) -> None:
    found = json.loads(_run(fresh / "python", "-I", "-c", WHERE, cwd=tmp_path))

    assert Path(found["library"]).is_relative_to(fresh.parent)
    assert Path(found["lua"]) == Path(found["library"]).parent / "_lua"
    assert {name: load(name).sha for name in verbs()} == found["shas"]


def test_a_job_goes_from_enqueued_to_completed_with_nothing_but_the_wheel(fresh: Path, tmp_path: Path) -> None:
    said = _run(fresh / "python", "-I", "-c", ROUND_TRIP, tmp_path / "data", cwd=tmp_path)

    assert "COMPLETED\n" == said


def test_the_installed_command_says_its_version(fresh: Path, tmp_path: Path) -> None:
    assert "0.1.0" in _run(fresh / "hybridq", "--version", cwd=tmp_path)


def test_the_installed_command_serves_and_stops(fresh: Path, tmp_path: Path) -> None:
    """The HTTP side of the wheel, on a private server, with no checkout in sight."""
    environ = {"HYBRIDQ_DATA_DIR": str(tmp_path / "data")}
    command = (str(fresh / "python"), "-I", "-m", "hybridq.cli")
    with Serving(environ=environ, command=command, cwd=tmp_path) as server:
        assert {"status": "healthy", "version": "0.1.0"} == server.ask("/health").document
        assert 200 == server.ask("/health/ready").status
        assert 200 == server.ask("/api/docs").status
        server.tell()
        assert 0 == server.ended(), server.errors
    assert not status(tmp_path / "data").running


def test_the_installed_command_runs_a_job_by_an_agent_of_its_own(fresh: Path, tmp_path: Path) -> None:
    """`hybridq up` in one terminal, `hybridq enqueue --run` in another, with nothing but the wheel."""
    command = (str(fresh / "python"), "-I", "-m", "hybridq.cli")
    data = str(tmp_path / "data")
    with Serving("--data-dir", data, environ={}, command=command, verb="up", cwd=tmp_path) as server:
        said = _run(fresh / "hybridq", "enqueue", "--data-dir", data, "--run", "echo hello", cwd=tmp_path)
        assert "hello" == said.splitlines()[-1]
        server.tell()
        assert 0 == server.ended(), server.errors
    assert not status(tmp_path / "data").running


def test_the_installed_command_measures_itself(fresh: Path, tmp_path: Path) -> None:
    """`hybridq bench` runs programs of its own, which have to be found without a checkout."""
    command = (fresh / "hybridq", "bench", "limits", "latency", "--repeats", "1", "--jobs", "50", "--json")
    report = json.loads(_run(*command, cwd=tmp_path))

    assert {"limits", "latency"} == {row["group"] for row in report["rows"]}
    assert all(figures["samples"] for row in report["rows"] for figures in row["figures"].values())
    assert "installed from a wheel" == report["machine"]["commit"]


def test_the_installed_command_prints_a_unit_that_starts_it(fresh: Path, tmp_path: Path) -> None:
    unit = _run(fresh / "hybridq", "agent-unit", cwd=tmp_path)

    assert f"ExecStart={fresh}/hybridq agent " in unit
