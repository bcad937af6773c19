"""Puts the house together: the table of routes, the pipeline and the shell become one Litestar app."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import litestar
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Receive, Send

from ..docs import docs_routes
from .answer import answer_of
from .door import Authenticate, Door, access_of
from .exchange import Proxies, exchange_of
from .pipeline import Pipeline, Verify, problem_of_exception
from .problems import Problem
from .route import Route, RouteError
from .shell import Shell

__all__ = ["build", "check_every_route_is_in_the_table"]

_TABLED: Final = "hybridq.route"
"""Mark of a Litestar handler that stands for a route of the table."""


def build(
    routes: Iterable[Route],
    *,
    plane: Any,
    settings: Any,
    authenticate: Authenticate | None = None,
    verify: Verify | None = None,
    handlers: Sequence[Any] = (),
    lifespan: Sequence[Any] = (),
) -> litestar.Litestar:
    """Return the app that serves `routes`.

    `authenticate` looks credentials up (default: `plane.access`), `verify` checks
    request signatures. Of `settings` are read, where it has them: `trusted_proxies`, `public_url`, `hosts` (values of
    Host that are answered), `docs_for`, `rate(class)`. `handlers` are further Litestar handlers: there must be none
    outside the table. Raises `RouteError` when the table is wrong.
    """
    known = tuple(routes)
    if (docs_for := getattr(settings, "docs_for", "off")) != "off":
        known += tuple(docs_routes(known, private=docs_for == "private"))
    door = Door(authenticate or access_of(plane.access, settings), origin=getattr(settings, "public_url", None))
    pipeline = Pipeline(door=door, plane=plane, settings=settings, verify=verify)
    app = litestar.Litestar(
        route_handlers=[*_refuse_options(known), *(_handler(route, pipeline) for route in known), *handlers],
        exception_handlers={Exception: _answer_exception},
        lifespan=list(lifespan),
        logging_config=None,
        openapi_config=None,
        request_max_body_size=None,  # the pipeline knows the limit of each route
    )
    check_every_route_is_in_the_table(app)
    app.asgi_handler = Shell(
        app.asgi_handler,
        proxies=Proxies(getattr(settings, "trusted_proxies", ())),
        hosts=getattr(settings, "hosts", ()),
    )
    return app


def check_every_route_is_in_the_table(app: litestar.Litestar) -> None:
    """Raise `RouteError` when the app answers on a path that no entry of the table stands for."""
    for found in app.routes:
        handlers = getattr(found, "route_handlers", None) or (getattr(found, "route_handler", None),)
        for handler in handlers:
            if handler is None or not handler.opt.get(_TABLED):
                raise RouteError(f"{found.path}: is served and not in the table of routes, so it has no scope")


def _handler(route: Route, pipeline: Pipeline) -> HTTPRouteHandler:
    async def answer(scope: Any, receive: Receive, send: Send) -> None:
        await pipeline.serve(route, scope, receive, send)

    def instead(app: ASGIApp) -> ASGIApp:
        return answer

    async def call() -> None:
        """Is never called: the pipeline answers before Litestar takes the request apart in its own way."""

    # Its answer says the status; Litestar would take a DELETE for one that answers nothing.
    handler = HTTPRouteHandler(
        route.litestar_path, http_method=[route.method], status_code=200, opt={_TABLED: True}, middleware=[instead]
    )
    return handler(call)


def _refuse_options(routes: Sequence[Route]) -> list[HTTPRouteHandler]:
    """Litestar answers OPTIONS by itself unless somebody does; here it is a method like others that are not allowed."""

    def refuse(methods: list[str]) -> Any:
        async def options(request: litestar.Request[Any, Any, Any]) -> ASGIApp:
            raise MethodNotAllowedException(headers={"allow": ", ".join(methods)})

        return options

    paths: dict[str, list[str]] = {}
    for route in routes:
        paths.setdefault(route.litestar_path, []).append(route.method)
    return [
        HTTPRouteHandler(path, http_method=["OPTIONS"], opt={_TABLED: True})(refuse(methods))
        for path, methods in paths.items()
    ]


def _answer_exception(request: litestar.Request[Any, Any, Any], error: Exception) -> litestar.Response[bytes]:
    """Make problem details of what Litestar raises itself, and of what nobody foresaw."""
    problem = _problem_of_litestar(error) if isinstance(error, HTTPException) else problem_of_exception(error)
    answer = answer_of(problem, exchange_of(request.scope).request_id)
    return litestar.Response(
        answer.body, status_code=answer.status, headers=answer.headers, media_type=answer.media_type
    )


def _problem_of_litestar(error: HTTPException) -> Problem:
    if isinstance(error, NotFoundException):
        return Problem("not_found")
    if isinstance(error, MethodNotAllowedException):
        named = (error.headers or {}).get("allow", "")
        allowed = sorted({each.strip() for each in named.split(",")} - {"OPTIONS", ""})
        return Problem("method_not_allowed", headers={"Allow": ", ".join(allowed)})
    if error.status_code == 413:
        return Problem("payload_too_large")
    if 400 <= error.status_code < 500:
        return Problem("bad_request")
    return problem_of_exception(error)
