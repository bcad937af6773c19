"""Spans for OpenTelemetry, where its packages are installed (`hybridq[otel]`) and an endpoint is named.

The standard `OTEL_*` variables say where to and how (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, …); without
an endpoint there is nothing here but a trace id passing through. A span knows method, route template and status:
no path, no query, no header, since those may hold names and tokens.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from litestar.types import Scope

from hybridq import __version__

from .settings import SettingsError

__all__ = ["Span", "Tracer", "tracer_of"]

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
TRACEPARENT = b"traceparent"


class Tracer:
    """Makes spans and sends them."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("hybridq", __version__)
        self._propagator = TraceContextTextMapPropagator()

    @contextlib.contextmanager
    def request(self, scope: Scope) -> Iterator[Span]:
        """A span around one request; the scope's `traceparent` becomes that of the span."""
        from opentelemetry.trace import SpanKind

        headers = scope["headers"]
        carried = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in headers
            if name in (TRACEPARENT, b"tracestate")
        }
        parent = self._propagator.extract(carried)
        with self._tracer.start_as_current_span(
            "HTTP", context=parent, kind=SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        ) as span:
            ours: dict[str, str] = {}
            self._propagator.inject(ours)
            if "traceparent" in ours:
                others = [(name, value) for name, value in headers if name != TRACEPARENT]
                scope["headers"] = [*others, (TRACEPARENT, ours["traceparent"].encode())]
            yield Span(span)

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


class Span:
    """One request's span."""

    def __init__(self, span: Any) -> None:
        self._span = span

    def answered(self, method: str, route: str, status: int) -> None:
        """Say what it was, once that is known. `route` is its template."""
        from opentelemetry.trace import StatusCode

        self._span.update_name(f"{method} {route}")
        self._span.set_attributes(
            {"http.request.method": method, "http.route": route, "http.response.status_code": status}
        )
        if status >= 500:
            self._span.set_status(StatusCode.ERROR)


def tracer_of(environ: Mapping[str, str] = os.environ) -> Tracer | None:
    """Return the tracer that the `OTEL_*` variables ask for, or None.

    Raises `SettingsError` when they name an endpoint and the packages are not installed.
    """
    named = next((name for name in ENDPOINTS if environ.get(name)), None)
    if named is None or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        raise SettingsError(f"{named}: needs the packages of OpenTelemetry: pip install 'hybridq[otel]'") from None
    resource = Resource.create(
        {SERVICE_NAME: environ.get("OTEL_SERVICE_NAME", "hybridq"), SERVICE_VERSION: __version__}
    )
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracer(provider)
