"""The least a Litestar handler can do: take JSON, give JSON. What the HTTP side is held against."""

from __future__ import annotations

from litestar import Litestar, Request, post
from litestar.response import Response


@post("/noop", status_code=200)
async def noop(request: Request) -> Response[bytes]:  # type: ignore[type-arg]
    await request.body()
    return Response(b'{"job":null}', media_type="application/json")


app = Litestar([noop], openapi_config=None)
