"""The compose file and the image: what can be held true without a Docker to run them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from api.settings import fields
from hybridq.agent.life.settings import AgentSettings
from hybridq.agent.life.settings import fields as agent_fields

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def services() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    document: dict[str, Any] = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text(encoding="utf-8"))
    return document["services"]


def test_the_api_waits_for_a_redis_that_keeps_jobs(services: dict[str, Any]) -> None:
    assert {"redis", "api", "agent"} == services.keys()
    assert {"redis": {"condition": "service_healthy"}} == services["api"]["depends_on"]
    command = services["redis"]["command"]
    assert "yes" == command[command.index("--appendonly") + 1]
    assert "noeviction" == command[command.index("--maxmemory-policy") + 1]


def test_nothing_without_a_password_is_open_to_others(services: dict[str, Any]) -> None:
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_agent_is_asked_for_and_has_time_to_drain(services: dict[str, Any]) -> None:
    """Without a key it could not start, so that `docker compose up` alone does not start it."""
    agent, drain = services["agent"], AgentSettings(url="https://ci.example.com")

    assert ["agent"] == agent["profiles"]
    assert {"api": {"condition": "service_healthy"}} == agent["depends_on"]
    assert int(agent["stop_grace_period"].removesuffix("s")) > drain.drain_grace_s + drain.cancel_grace_s
    told = AgentSettings.load(environ=agent["environment"] | {"HYBRIDQ_AGENT_KEY": "hqr_"})
    assert (told.url, told.insecure) == ("http://api:8000", True)
    # What it remembers outlives the container.
    image = (CHECKOUT / "api" / "Dockerfile").read_text(encoding="utf-8")
    [state] = re.findall(r"HYBRIDQ_AGENT_STATE_DIR=(\S+)", image)
    assert [f"agent-data:{state}"] == agent["volumes"]


def test_what_the_files_set_are_settings(services: dict[str, Any]) -> None:
    known = {variable.env for _, variable in fields()} | {setting.env for _, setting in agent_fields()}
    image = (CHECKOUT / "api" / "Dockerfile").read_text(encoding="utf-8")

    for name in ("api", "agent"):
        assert services[name]["environment"].keys() <= known
        assert (CHECKOUT / services[name]["build"]["dockerfile"]).is_file()
    assert set(re.findall(r"HYBRIDQ_[A-Z_]+", image)) <= known
    assert f"AS {services['agent']['build']['target']}\n" in image


def test_the_image_installs_extras_that_exist_and_runs_as_nobody_special() -> None:
    image = (CHECKOUT / "api" / "Dockerfile").read_text(encoding="utf-8")
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    images = image.split("FROM python:3.11-slim")[2:]

    assert 2 == len(images)
    for each in images:
        [extras] = re.findall(r"\.whl\)\[([a-z,]+)\]", each)
        assert set(extras.split(",")) <= project["optional-dependencies"].keys()
        assert "USER hybridq" in each
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", image, flags=re.MULTILINE):
        assert all((CHECKOUT / name).exists() for name in copied.split())
