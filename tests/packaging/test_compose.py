"""The compose file and the image: what can be held true without a Docker to run them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from api.settings import fields

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def services() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    document: dict[str, Any] = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text(encoding="utf-8"))
    return document["services"]


def test_the_api_waits_for_a_redis_that_keeps_jobs(services: dict[str, Any]) -> None:
    assert {"redis", "api"} == services.keys()
    assert {"redis": {"condition": "service_healthy"}} == services["api"]["depends_on"]
    command = services["redis"]["command"]
    assert "yes" == command[command.index("--appendonly") + 1]
    assert "noeviction" == command[command.index("--maxmemory-policy") + 1]


def test_nothing_without_a_password_is_open_to_others(services: dict[str, Any]) -> None:
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_what_the_files_set_are_settings(services: dict[str, Any]) -> None:
    known = {variable.env for _, variable in fields()}
    image = (CHECKOUT / "api" / "Dockerfile").read_text(encoding="utf-8")

    assert services["api"]["environment"].keys() <= known
    assert set(re.findall(r"HYBRIDQ_[A-Z_]+", image)) <= known
    assert (CHECKOUT / services["api"]["build"]["dockerfile"]).is_file()


def test_the_image_installs_extras_that_exist_and_runs_as_nobody_special() -> None:
    image = (CHECKOUT / "api" / "Dockerfile").read_text(encoding="utf-8")
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [extras] = re.findall(r"\.whl\)\[([a-z,]+)\]", image)

    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    assert "USER hybridq" in image
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", image, flags=re.MULTILINE):
        assert all((CHECKOUT / name).exists() for name in copied.split())
