"""Log lines: what every one has, and what none has."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from api import logs
from api.settings import Settings, SettingsError

KEY = "glpat-" + "x7Qm2Zt9Lk4Vb8Nc3Rw5"
AWS = "AKIA" + "Q3EGRTZK5LV7WXYN"


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    # Handlers of others (pytest's own) are not ours to close.
    for handler in before:
        root.removeHandler(handler)
    yield
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    for handler in before:
        root.addHandler(handler)
    root.setLevel(level)
    for name in ("hybridq", "api", "uvicorn", "granian"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def production(**more: Any) -> Settings:
    return Settings(environment="production", log_level="DEBUG", **more)


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_line_has_component_time_level_and_the_request_it_is_about() -> None:
    stream = io.StringIO()
    logs.configure(production(), stream=stream)
    structlog.contextvars.bind_contextvars(request_id="r-1", trace_id="0af7651916cd43dd8448eb211c80319c")

    structlog.get_logger("hybridq").info("worker.started", queue="default")
    structlog.get_logger("hybridq").debug("http.request", component="api", took_s=0.5)
    logging.getLogger("uvicorn.error").warning("Invalid %s request", "HTTP")
    first, second, third = lines_of(stream)

    assert (first["event"], first["component"], first["level"]) == ("worker.started", "worker", "info")
    assert (second["component"], second["took_s"]) == ("api", 0.5)
    assert (third["event"], third["component"], third["level"]) == ("Invalid HTTP request", "uvicorn", "warning")
    for line in (first, second, third):
        assert (line["request_id"], line["trace_id"]) == ("r-1", "0af7651916cd43dd8448eb211c80319c")
        assert line["at"].endswith("Z")


def test_debug_shows_neither_secret_nor_payload() -> None:
    stream = io.StringIO()
    logs.configure(production(), stream=stream)
    log = structlog.get_logger("hybridq")

    log.debug(
        "job.seen",
        authorization="Bearer canary-1",
        lease_token="17.canary-2",
        headers={"cookie": "canary-3"},
        payload={"steps": "canary-4"},
        nested={"api_key": "canary-5", "inner": [{"password": "canary-6"}]},
        note=f"the key is {AWS}",
        names=[f"x {KEY}"],
        job_id="job-1",
        token_expires_in_seconds=900,
    )
    try:
        raise RuntimeError(f"connect with {AWS}")
    except RuntimeError:
        log.exception("job.broke")
    logging.getLogger("uvicorn.error").error("broke on %s", AWS)
    logging.getLogger("httpx2").debug("headers canary-7")
    logging.getLogger("httpx2").info("GET https://login.example.com/?code=canary-8")
    text = stream.getvalue()

    assert "canary" not in text
    assert AWS not in text
    assert KEY not in text
    assert text.count("[redacted") >= 7
    seen = lines_of(stream)[0]
    assert (seen["job_id"], seen["token_expires_in_seconds"]) == ("job-1", 900)
    assert "RuntimeError" in lines_of(stream)[1]["exception"]


@pytest.mark.parametrize(("environment", "shown"), [("production", ["b"]), ("development", ["a", "b"])])
def test_production_is_quiet_by_default(environment: Any, shown: list[str]) -> None:
    stream = io.StringIO()
    logs.configure(Settings(environment=environment), stream=stream)
    structlog.get_logger("hybridq").info("x.a")
    structlog.get_logger("hybridq").warning("x.b")

    assert [name for name in ("a", "b") if f"x.{name}" in stream.getvalue()] == shown


def test_no_text_forges_a_line_on_a_terminal() -> None:
    stream = io.StringIO()
    logs.configure(Settings(), stream=stream)
    structlog.get_logger("hybridq").warning("job.failed", reason="a\n2026 [error] forged\x1b[31m")
    logging.getLogger("uvicorn.error").warning("b\nforged")

    assert len(stream.getvalue().splitlines()) == 2
    assert "\x1b[31m" not in stream.getvalue()


def test_a_file_gets_json_and_is_opened_anew_after_rotation(tmp_path: Path) -> None:
    path = tmp_path / "hq.log"
    stream = io.StringIO()
    logs.configure(Settings(log_file=path), stream=stream)
    log = structlog.get_logger("hybridq")

    log.info("x.before")
    path.rename(tmp_path / "hq.log.1")
    log.info("x.after")

    assert [json.loads(line)["event"] for line in (tmp_path / "hq.log.1").read_text().splitlines()] == ["x.before"]
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == ["x.after"]
    assert stream.getvalue() == ""


def test_a_file_that_cannot_be_written_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"HYBRIDQ_LOG_FILE: .* cannot be written: No such file"):
        logs.configure(Settings(log_file=tmp_path / "no" / "hq.log"))
