"""/health, /health/ready, /info, and the page."""

from __future__ import annotations

import base64
import hashlib
import re

from hybridq import __version__
from tests.api.client import Api, problem
from tests.servers import ServerProcess, wait_until


def test_health_says_little_and_asks_nobody(api: Api, server: ServerProcess) -> None:
    server.pause()
    try:
        answer = api.get("/health", token=None)
    finally:
        server.resume()

    assert (answer.status_code, answer.json()) == (200, {"status": "healthy", "version": __version__})


def test_ready_while_redis_answers_and_not_while_it_is_away(api: Api, server: ServerProcess) -> None:
    assert api.get("/health/ready", token=None).json() == {"status": "ready", "redis": "ok"}
    server.pause()
    try:
        wait_until(lambda: api.get("/health/ready", token=None).status_code == 503, 10, what="it is not ready")
        answer = api.get("/health/ready", token=None)
        problem(answer, 503, "not_ready")
        assert answer.headers["retry-after"]
        assert api.get("/health", token=None).status_code == 200
    finally:
        server.resume()
    wait_until(lambda: api.get("/health/ready", token=None).status_code == 200, 10, what="it is ready again")


def test_ready_loads_scripts_that_redis_forgot(api: Api, server: ServerProcess) -> None:
    with server.client() as client:
        client.script_flush()
    wait_until(lambda: api.get("/health/ready", token=None).status_code == 200, 5, what="it is ready")


def test_info_says_what_this_is(api: Api, redis_url: str, namespace: str) -> None:
    info = api.get("/info", token=None).json()

    assert info.keys() == {"name", "version", "environment", "api_docs", "features"}
    assert (info["name"], info["version"], info["environment"]) == ("hybridq", __version__, "development")
    assert info["api_docs"] == "/api/docs"
    assert api.get(info["api_docs"], token=None).status_code == 200
    assert "long_poll" in info["features"]
    with Api(redis_url, namespace, docs="off") as silent:
        assert silent.get("/info", token=None).json()["api_docs"] is None
        problem(silent.get("/api/docs", token=None), 404, "not_found")


def test_the_page_loads_nothing_and_runs_what_it_brings_alone(api: Api) -> None:
    answer = api.get("/", token=None)
    page, policy = answer.text, answer.headers["content-security-policy"]

    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        [text] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert re.findall(r"(?:src|href)=\"(?!/|data:)", page) == []
    assert " on" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL).replace(" one", "")


def test_the_page_has_a_place_for_every_figure_of_the_summary(api: Api) -> None:
    page = api.get("/", token=None).text

    assert set(re.findall(r'data-figure="(\w+)"', page)) == api.get("/api/dashboard/summary").json().keys()
