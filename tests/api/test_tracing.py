"""Spans: sent where an endpoint is named, one a request, knowing neither paths nor headers."""

from __future__ import annotations

import http.server
import json
import sys
import threading
from collections.abc import Iterator

import pytest

from api.settings import SettingsError
from api.tracing import tracer_of
from tests.servers import wait_until

from .serving import Serving

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector(http.server.ThreadingHTTPServer):
    """Takes what OTLP exporters send."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Take)
        self.bodies: list[bytes] = []


class _Take(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_request_is_a_span_of_the_callers_trace(collector: Collector, redis_url: str) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    environ = {
        "HYBRIDQ_REDIS_URL": redis_url,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "HYBRIDQ_ENVIRONMENT": "development",
        "HYBRIDQ_LOG_FILE": "/dev/stderr",
    }
    with Serving(environ=environ) as server:
        headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "Authorization": "Bearer hqk_canary"}
        answer = server.ask("/api/queue/jobs/default~canary?canary=1", headers=headers)
        assert answer.status == 401
        ours = answer.headers["traceparent"]
        server.tell()
        assert server.ended() == 0
    wait_until(lambda: collector.bodies, 10, what="the spans arrive")
    sent = b"".join(collector.bodies)
    request = ExportTraceServiceRequest.FromString(collector.bodies[0])
    [span] = request.resource_spans[0].scope_spans[0].spans

    assert span.name == "GET /api/queue/jobs/{id}"
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, "b7ad6b7169203331")
    assert ours == f"00-{TRACE}-{span.span_id.hex()}-01"
    told = {each.key: each.value for each in span.attributes}
    assert told["http.route"].string_value == "/api/queue/jobs/{id}"
    assert told["http.response.status_code"].int_value == 401
    assert b"canary" not in sent
    lines = [json.loads(line) for line in server.errors.splitlines()]
    assert TRACE in {line.get("trace_id") for line in lines}


def test_without_an_endpoint_there_is_no_tracer() -> None:
    assert tracer_of({}) is None
    assert tracer_of({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h", "OTEL_SDK_DISABLED": "true"}) is None


def test_an_endpoint_without_the_packages_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with pytest.raises(SettingsError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT: needs .*hybridq\[otel\]"):
        tracer_of({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
