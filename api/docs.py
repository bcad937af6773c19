"""The documentation a browser shows: Swagger UI from the installed package, nothing from elsewhere."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from hybridq import __version__

from .http.answer import Answer
from .http.request import Request
from .http.route import Route
from .http.scopes import ANY_CREDENTIAL, PUBLIC
from .openapi import document

__all__ = ["docs_routes"]

CSP: Final = "; ".join(
    (
        "default-src 'none'",
        "base-uri 'none'",
        "connect-src 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "img-src 'self' data:",
        "script-src 'self'",
        "style-src 'self'",
    )
)

_PAGE: Final = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>hybridq API</title>
<link rel="stylesheet" href="/api/docs/swagger-ui.css">
<link rel="icon" type="image/png" href="/api/docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/api/docs/swagger-ui-bundle.js"></script>
<script src="/api/docs/start.js"></script>
</body>
</html>
"""

_START: Final = b"""window.addEventListener("load", () => {
  SwaggerUIBundle({
    url: "/api/docs/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    validatorUrl: null,
    tryItOutEnabled: true,
    persistAuthorization: false,
  });
});
"""

_FILES: Final = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
"""file of the package → its type."""


def docs_routes(routes: Sequence[Route], *, private: bool) -> list[Route]:
    """Return the routes of the documentation of `routes`; `private`: for those who prove who they are."""

    @functools.cache
    def openapi() -> bytes:
        return msgspec.json.encode(document(routes, version=__version__))

    contents: dict[str, tuple[Callable[[], bytes], str]] = {
        "/api/docs": (lambda: _PAGE, "text/html; charset=utf-8"),
        "/api/docs/openapi.json": (openapi, "application/json"),
        "/api/docs/start.js": (lambda: _START, "text/javascript; charset=utf-8"),
    }
    for name, media_type in _FILES.items():
        contents[f"/api/docs/{name}"] = (functools.partial(_packaged, name), media_type)
    return [
        Route(
            "GET",
            path,
            _serve(content, media_type),
            scope=ANY_CREDENTIAL if private else PUBLIC,
            rate="read" if private else None,
            operation_id=f"docs{path.removeprefix('/api/docs').replace('/', '_')}",
            documented=False,
        )
        for path, (content, media_type) in contents.items()
    ]


def _serve(content: Callable[[], bytes], media_type: str) -> Any:
    @functools.cache
    def tag() -> str:
        return f'"{hashlib.sha256(content()).hexdigest()[:32]}"'

    async def serve(request: Request) -> Answer:
        headers = {"ETag": tag(), "Cache-Control": "private, no-cache", "Content-Security-Policy": CSP}
        if request.has_current(tag()):
            return Answer(None, 304, headers)
        return Answer(content(), headers=headers, media_type=media_type)

    return serve


@functools.cache
def _packaged(name: str) -> bytes:
    import swagger_ui_bundle  # type: ignore[import-untyped]

    return Path(swagger_ui_bundle.swagger_ui_path, name).read_bytes()
