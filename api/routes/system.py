"""What is asked about the server itself: is it alive, is it ready, what is it, how much does it do; and its page."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec

from hybridq import HybridqError, __version__

from ..http.answer import Answer
from ..http.problems import RETRY_S, Problem
from ..http.request import Request
from ..http.route import route
from ..http.scopes import PUBLIC
from ..page import CONTENT_SECURITY_POLICY, PAGE

READY_WITHIN_S = 2.0


class Health(msgspec.Struct, frozen=True):
    status: Literal["healthy"]
    version: str


class Readiness(msgspec.Struct, frozen=True):
    status: Literal["ready"]
    redis: Literal["ok"]


class Info(msgspec.Struct, frozen=True):
    name: Literal["hybridq"]
    version: str
    environment: Literal["development", "production"]
    api_docs: str | None
    features: tuple[str, ...]


HEALTHY = Health("healthy", __version__)


@route(
    "GET",
    "/health",
    scope=PUBLIC,
    rate=None,
    answers={200: Health},
    summary="Is the process alive? Asks nobody, so it is no reason to look at Redis.",
    tags=["system"],
)
async def health(request: Request) -> Answer:
    return Answer(HEALTHY)


@route(
    "GET",
    "/health/ready",
    scope=PUBLIC,
    rate=None,
    answers={200: Readiness},
    problems=["not_ready", "stopping"],
    summary="May work be sent here? Not while Redis or its scripts are away, nor while the server stops.",
    tags=["system"],
)
async def ready(request: Request) -> Answer:
    plane = request.plane
    if plane.stopping.is_set():
        raise Problem("stopping", headers={"Retry-After": str(RETRY_S)})
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            await request.raw.app.state.probe.ask()
    except (HybridqError, TimeoutError):
        raise Problem("not_ready", headers={"Retry-After": str(RETRY_S)}) from None
    return Answer(Readiness("ready", "ok"))


@route("GET", "/info", scope=PUBLIC, rate=None, answers={200: Info}, summary="What this server is.", tags=["system"])
async def info(request: Request) -> Answer:
    settings = request.settings
    return Answer(
        Info(
            name="hybridq",
            version=__version__,
            environment=settings.environment,
            api_docs=None if settings.docs_for == "off" else "/api/docs",
            features=features(settings),
        )
    )


def features(settings: Any) -> tuple[str, ...]:
    """What a client may count on here beyond the version."""
    return ("events", "long_poll", "token_exchange", *(("oidc_login",) if settings.oidc_issuer else ()))


@route(
    "GET",
    "/metrics",
    scope="metrics:read",
    answers={200: "text/plain, application/openmetrics-text"},
    summary="Figures for Prometheus, of the pools that the credential may see.",
    tags=["system"],
)
async def metrics(request: Request) -> Answer:
    state = request.raw.app.state
    caller = request.caller
    assert caller is not None
    figures = await state.figures.read(caller.namespace, None if caller.pools is None else caller.allows_pool)
    text, content_type = state.metrics.text(figures, request.header("accept") or "")
    return Answer(text, media_type=content_type)


@route("GET", "/", scope=PUBLIC, rate=None, summary="A page with the figures of the summary, live.", documented=False)
async def page(request: Request) -> Answer:
    return Answer(
        PAGE, media_type="text/html; charset=utf-8", headers={"content-security-policy": CONTENT_SECURITY_POLICY}
    )
