"""The documentation in a browser: it renders, and loads nothing from elsewhere."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from api.docs import CSP
from api.http.answer import Answer
from api.http.app import build
from api.http.route import Table
from tests.api.framework import Credentials, Served, serve

TABLE = Table()
CHROMIUM = shutil.which("chromium")
PATHS = [
    "/api/docs",
    "/api/docs/openapi.json",
    "/api/docs/start.js",
    "/api/docs/swagger-ui.css",
    "/api/docs/swagger-ui-bundle.js",
    "/api/docs/favicon-32x32.png",
]


@TABLE.route("GET", "/api/queue/jobs/{job_id:full_id}", scope="queue:read", summary="Read one job", tags=["queue"])
async def get_job(request: Any) -> Answer:
    return Answer({})


@TABLE.route("POST", "/api/queue/dead:replay", scope="queue:admin", summary="Replay dead letters", tags=["queue"])
async def replay(request: Any) -> Answer:
    return Answer({})


def serve_docs(docs_for: str, credentials: Credentials) -> Any:
    settings = SimpleNamespace(trusted_proxies=(), docs_for=docs_for)
    return serve(build(TABLE, plane=None, settings=settings, authenticate=credentials))


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serve_docs("public", Credentials()) as served:
        yield served


def test_the_document_and_its_page_are_served(served: Served) -> None:
    """With a policy of their own, and tags that spare the second load."""
    for path in PATHS:
        answer = served.call("GET", path)
        assert answer.status_code == 200, path
        assert answer.headers["content-security-policy"] == CSP
        again = served.call("GET", path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    paths = served.call("GET", "/api/docs/openapi.json").json()["paths"]
    assert set(paths) == {"/api/queue/jobs/{job_id}", "/api/queue/dead:replay"}


def test_the_page_names_no_other_host(served: Served) -> None:
    """Nor has it a script in its own text; the policy would forbid both."""
    page = served.call("GET", "/api/docs").text + served.call("GET", "/api/docs/start.js").text

    assert "://" not in page
    assert "<script>" not in page and "style=" not in page and "onload" not in page
    assert "unsafe" not in CSP


def test_in_private_any_credential_is_needed() -> None:
    """Whatever it may do."""
    credentials = Credentials()
    with serve_docs("private", credentials) as served:
        token = credentials.make("key")
        for path in PATHS:
            assert served.call("GET", path).status_code == 401
            assert served.call("GET", path, token).status_code == 200


def test_off_is_off() -> None:
    """As if there were none."""
    credentials = Credentials()
    with serve_docs("off", credentials) as served:
        token = credentials.make("key", "*")
        assert {served.call("GET", path, token).status_code for path in PATHS} == {404}


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
def test_operations_render_in_a_browser(served: Served, tmp_path: Path) -> None:
    """In a real one, without a complaint about the policy."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path}", "--dump-dom", "--virtual-time-budget=10000", f"{served.url}/api/docs",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)

    assert 'data-path="/api/queue/jobs/{job_id}"' in done.stdout
    assert 'data-path="/api/queue/dead:replay"' in done.stdout
    assert "Replay dead letters" in done.stdout
    assert "Content Security Policy" not in done.stderr
    assert "CONSOLE" not in done.stderr
