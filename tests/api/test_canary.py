"""Secrets planted wherever a caller can put anything: they are nowhere afterwards, in no answer, record, log or figure.

The OpenAPI document is all that this test knows of the routes, so a route that is added is in it from the first day.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

import jsonschema_rs
import pytest

from tests import servers
from tests.api.client import Agent, Api
from tests.unit import guard_corpus

METHODS: Final = ("get", "post", "put", "patch", "delete")
CANARIES: Final = {
    secret.value: secret.rule
    for secret in guard_corpus.SECRETS
    if secret.name in ("github-p", "aws-access-key-id-AKIA", "hybridq-k")
}
"""secret → rule that finds it. Two of them may also stand in a name, the third is too long for one."""
HEADERS: Final = {
    "Accept": "{}",
    "Authorization": "Bearer {}",
    "Content-Type": "application/json; charset={}",
    "Cookie": "hq_session={0}; hq_login={0}; {0}={0}",
    "Idempotency-Key": "{}",
    "If-Match": '"{}"',
    "If-None-Match": '"{}"',
    "Last-Event-ID": "{}",
    "Origin": "https://{}.example.com",
    "Referer": "https://example.com/?token={}",
    "traceparent": "00-{}",
    "tracestate": "vendor={}",
    "User-Agent": "curl/8.0 ({})",
    "X-CSRF-Token": "{}",
    "X-Forwarded-For": "{}",
    "X-Request-Id": "{}",
}
THERE: Final = {"agent_id": "build-7", "pool": "linux", "name": "linux"}
"""Part of a path → what is there."""


@dataclass
class Operation:
    """One call of the document."""

    method: str
    path: str
    spec: dict[str, Any]

    def parameters(self, place: str) -> list[dict[str, Any]]:
        return [one for one in self.spec.get("parameters", ()) if one["in"] == place]

    @property
    def content(self) -> dict[str, Any]:
        found: dict[str, Any] = self.spec.get("requestBody", {}).get("content", {})
        return found

    @property
    def form(self) -> bool:
        return "application/x-www-form-urlencoded" in self.content

    @property
    def schema(self) -> dict[str, Any] | None:
        return next((each["schema"] for each in self.content.values()), None)

    @property
    def example(self) -> Any:
        example = next((each.get("example") for each in self.content.values()), None)
        return {} if example is None and self.content else example

    @property
    def refuses(self) -> bool:
        """Its guard refuses secrets, so says its list of problems."""
        return "secret_suspected" in json.dumps(self.spec["responses"].get("422", {}))

    @property
    def parts(self) -> dict[str, str]:
        return {
            one["name"]: "linux~j1"
            if "~" in one["schema"].get("pattern", "")
            else THERE.get(one["name"], "nothing-here")
            for one in self.parameters("path")
        }

    @property
    def ends_something(self) -> bool:
        return self.method == "delete" or any(word in self.path for word in ("deregister", ":cancel", ":purge"))

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"


@dataclass
class Seen:
    """Everything that came back, in lower case; `leaks` says which calls gave a secret away."""

    calls: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    leaks: list[str] = field(default_factory=list)

    def take(self, what: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.calls += 1
        self.statuses[status] = self.statuses.get(status, 0) + 1
        text = f"{dict(headers)}\n{body.decode(errors='replace')}"
        if leaked := found_in(text):
            self.leaks.append(f"{what} answers {status} with {leaked}")
        if status >= 500:
            self.leaks.append(f"{what} answers {status}")


def found_in(text: str) -> list[str]:
    """Return the rules of the canaries in a text, which may have changed their case."""
    lower = text.lower()
    return [rule for canary, rule in CANARIES.items() if canary.lower() in lower]


@pytest.fixture(scope="module")
def database() -> Iterator[servers.ServerProcess]:
    with servers.ServerProcess(next(iter(servers.ENGINES))) as server:
        yield server


@pytest.fixture(scope="module")
def api(database: servers.ServerProcess) -> Iterator[Api]:
    """A server in a process of its own, which logs all there is to a file."""
    with Api(database.url, "canary", process=True, log_level="DEBUG") as running:
        yield running


@pytest.fixture(scope="module")
def document(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = api.get("/api/docs/openapi.json", token=None).json()
    return found


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> list[Operation]:
    found = [
        Operation(method, path, spec)
        for path, methods in document["paths"].items()
        for method, spec in methods.items()
        if method in METHODS
    ]
    assert len(found) > 40
    return sorted(found, key=lambda one: one.ends_something)


def dump(database: servers.ServerProcess) -> str:
    """Return every key of every type, read whole."""
    texts: list[str] = []
    with database.client() as client:
        for key in client.scan_iter(count=1000):
            match client.type(key):
                case b"string":
                    value: Any = client.get(key)
                case b"hash":
                    value = client.hgetall(key)
                case b"list":
                    value = client.lrange(key, 0, -1)
                case b"set":
                    value = client.smembers(key)
                case b"zset":
                    value = client.zrange(key, 0, -1, withscores=True)
                case b"stream":
                    value = (client.xrange(key), client.xinfo_groups(key))
                case b"none":
                    continue
                case other:
                    raise AssertionError(f"{key!r} is of a type that nothing here reads: {other!r}")
            texts.append(f"{key!r} {value!r}")
    return "\n".join(texts)


def log_of(api: Api) -> str:
    path = api._server.log_path  # type: ignore[union-attr]
    return path.read_text(errors="replace")


# -- where something can be planted -------------------------------------------------------------------------------


def plants(schema: Any, example: Any, canary: str, document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the JSON pointer and the value for each place, whatever its type, that a body of this schema has."""
    schema = _resolved(schema, document)
    for option in schema.get("anyOf") or schema.get("oneOf") or ():
        yield from plants(option, example, canary, document)
    if "anyOf" in schema or "oneOf" in schema or schema.get("type") == "null":
        return
    match schema.get("type"):
        case "object":
            base = example if isinstance(example, dict) else _least(schema, document)
            for name, each in schema.get("properties", {}).items():
                for pointer, value in plants(each, base.get(name), canary, document):
                    yield f"/{name}{pointer}", {**base, name: value}
            extra = schema.get("additionalProperties")
            if isinstance(extra, dict):
                for pointer, value in plants(extra, None, canary, document):
                    yield f"/zone{pointer}", {**base, "zone": value}
                yield "", {**base, canary: _least(extra, document)}
            else:
                yield "", {**base, canary: 1}
                yield "/unheard_of", {**base, "unheard_of": canary}
        case "array":
            first = example[0] if isinstance(example, list) and example else None
            for pointer, value in plants(schema["items"], first, canary, document):
                yield f"/0{pointer}", [value]
        case None if "enum" not in schema and "const" not in schema:  # any JSON value
            yield "", canary
            yield "/steps/0/run", {"steps": [{"run": f"deploy --token {canary}"}]}
            yield "", {canary: 1}
        case _:
            yield "", canary
            yield "", f"see {canary}, please"


def _resolved(schema: Any, document: dict[str, Any]) -> dict[str, Any]:
    while isinstance(schema, dict) and "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema if isinstance(schema, dict) else {}


def _least(schema: Any, document: dict[str, Any]) -> Any:
    """Return a value with nothing in it that need not be."""
    schema = _resolved(schema, document)
    if schema.get("default") is not None:
        return schema["default"]
    for option in schema.get("anyOf", ()):
        return _least(option, document)
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            required = schema.get("required", ())
            return {name: _least(schema["properties"][name], document) for name in required}
        case "array":
            return []
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return False
        case "string" if "[0-9a-f]{32}" in schema.get("pattern", ""):
            return "3686400000001." + "0" * 32 if "\\." in schema["pattern"] else "0" * 32
        case "string" if "~" in schema.get("pattern", ""):
            return "linux~j1"
        case _:
            return "x"


# -- planting -------------------------------------------------------------------------------------------------------


class Planter:
    """Sends calls and keeps what comes back."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.client = api.connect()
        self.seen = Seen()

    def send(
        self,
        operation: Operation,
        what: str,
        *,
        body: Any = None,
        parts: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Send one call; return its status and its body, when that is JSON."""
        path = operation.path.format(**{k: quote(v) for k, v in {**operation.parts, **(parts or {})}.items()})
        body = operation.example if body is None else body
        sent = {"Authorization": f"Bearer {self._api.admin}"}
        content = None
        if operation.method != "get":
            sent["Content-Type"] = "application/x-www-form-urlencoded" if operation.form else "application/json"
            content = urlencode(body) if operation.form else json.dumps({} if body is None else body)
        request = self.client.build_request(
            operation.method.upper(), path, params=query, headers={**sent, **(headers or {})}, content=content
        )
        answer = self.client.send(request, stream=True)
        try:
            streams = answer.headers.get("content-type", "").startswith("text/event-stream")
            got = next(answer.iter_raw()) if streams else answer.read()
        finally:
            answer.close()
        self.seen.take(f"{operation} with {what}", answer.status_code, answer.headers, got)
        is_json = "json" in answer.headers.get("content-type", "")
        return answer.status_code, json.loads(got) if is_json else None


@pytest.fixture(scope="module")
def planter(api: Api) -> Planter:
    """In a namespace that has some of everything."""
    for pool in ("default", "linux"):
        jobs = [{"payload": "harmless-marker", "pool": pool, "job_id": f"j{number}"} for number in range(1, 51)]
        assert api.post("/api/queue/jobs:batch", {"jobs": jobs}).status_code in (200, 201, 207)
    api.agent("build-7", "linux")
    return Planter(api)


def must_be_nowhere(planter: Planter, api: Api, database: servers.ServerProcess) -> None:
    """What was planted so far is in no record, log line or figure; the end of each test, as they come in any order."""
    records, log = dump(database), log_of(api)
    figures = api.get("/metrics").text
    assert "harmless-marker" in records, "what is stored is in the dump"
    assert log.count("http.request") >= planter.seen.calls, "every call is in the log"
    assert "hybridq_queue_depth" in figures
    for name, text in (("Redis", records), ("log", log), ("metrics", figures)):
        kept = [line for line in text.splitlines() if found_in(line)]
        assert kept == [], f"{name} keeps secrets in {len(kept)} lines"
    assert planter.seen.leaks == []


def test_headers_are_kept_nowhere(
    planter: Planter, operations: list[Operation], api: Api, database: servers.ServerProcess
) -> None:
    before, turn = planter.seen.calls, itertools.cycle(CANARIES)  # no divisor of the number of headers: each gets each
    for operation in operations:
        for name, form in HEADERS.items():
            canary = next(turn)
            planter.send(operation, f"{CANARIES[canary]} in {name}", headers={name: form.format(canary)})
    assert planter.seen.calls - before == len(operations) * len(HEADERS)
    must_be_nowhere(planter, api, database)


def test_parts_of_paths_and_queries_are_kept_nowhere(
    planter: Planter, operations: list[Operation], api: Api, database: servers.ServerProcess
) -> None:
    missed: list[str] = []
    for operation in operations:
        for canary, rule in CANARIES.items():
            for part, there in operation.parts.items():
                names = (
                    (f"linux~{canary}", f"{canary}~j1", canary) if "~" in there else (canary, f"{canary}?x={canary}")
                )
                for name in names:
                    status, said = planter.send(operation, f"{rule} as {part}", parts={part: name})
                    code = (said or {}).get("code")
                    if operation.refuses and status not in (400, 404) and code != "secret_suspected":
                        missed.append(f"{operation} takes {rule} as {part}: {status} {code}")
            asked = [one["name"] for one in operation.parameters("query")]
            for name in asked:
                for value in (canary, f"zone={canary}"):
                    planter.send(operation, f"{rule} in ?{name}", query={name: value})
            planter.send(operation, f"{rule} in a query", query={canary: "1", "token": canary})
    assert missed == []
    must_be_nowhere(planter, api, database)


def test_what_a_body_holds_is_refused_or_kept_nowhere(
    planter: Planter,
    operations: list[Operation],
    document: dict[str, Any],
    api: Api,
    database: servers.ServerProcess,
) -> None:
    missed: list[str] = []
    refused: dict[str, int] = {}
    planted = 0
    for operation in operations:
        if operation.schema is None:
            continue
        valid = jsonschema_rs.Draft202012Validator(
            {**operation.schema, "components": document["components"]}, validate_formats=True
        ).is_valid
        for canary, rule in CANARIES.items():
            for pointer, body in plants(operation.schema, operation.example, canary, document):
                planted += 1
                status, said = planter.send(operation, f"{rule} at {pointer or '/'}", body=body)
                if not operation.refuses:
                    continue
                errors = [error for error in (said or {}).get("errors", ()) if error["reason"] == rule]
                if status == 422 and said["code"] == "secret_suspected" and errors:
                    near = [each for each in errors if each["pointer"].startswith(pointer) or canary in str(body)]
                    assert near, (operation, pointer, errors)
                    if pointer and isinstance(_at(body, pointer), str):
                        assert pointer in [each["pointer"] for each in errors], (operation, pointer, errors)
                    refused[str(operation)] = refused.get(str(operation), 0) + 1
                elif valid(body) or status != 400:
                    missed.append(f"{operation} with {rule} at {pointer}: {status} {(said or {}).get('code')}")
    assert missed == []
    assert planted > 500
    with_guard = {str(operation) for operation in operations if operation.refuses}
    assert len(with_guard) > 8 and refused.keys() == with_guard
    must_be_nowhere(planter, api, database)


def _at(body: Any, pointer: str) -> Any:
    for name in pointer.split("/")[1:]:
        body = body[int(name)] if isinstance(body, list) else body[name]
    return body


def test_results_metrics_and_logs_of_agents_are_redacted_and_never_refused(
    planter: Planter, api: Api, database: servers.ServerProcess
) -> None:
    agent = api.agent("reporter", "reports")
    for number, (canary, rule) in enumerate(CANARIES.items()):
        beaten = agent.post(
            "/api/agents/reporter/heartbeat",
            {"session_id": agent.session_id, "metrics": {"load": 1, canary: 2, f"of.{canary}": 3}},
        )
        assert beaten.status_code == 200, beaten.text
        assert beaten.json()["redactions"] >= 1
        names = api.get("/api/agents/reporter").json()["metrics"]
        assert len(names) == 3 and names["load"] == 1
        assert any(f"[redacted:{rule}]" in name for name in names), names
        planter.seen.take("heartbeat", beaten.status_code, beaten.headers, beaten.content)
        for outcome, place in (("success", "result"), ("failed", "error")):
            job = {"pool": "reports", "job_id": f"r{number}{place}", "payload": 1}
            assert api.post("/api/queue/jobs", job).status_code == 201
            leased = agent.claim(pool="reports").json()["job"]
            lease = {"lease_token": leased["lease_token"]}
            assert agent.post(f"/api/queue/jobs/{leased['id']}/start", lease).status_code == 200
            _say_with_secrets(planter, api, agent, leased, canary, rule)
            ended = agent.post(
                f"/api/queue/jobs/{leased['id']}/complete",
                {**lease, "outcome": outcome, place: {"message": f"used {canary}", "lines": [canary]}},
            )
            assert ended.status_code == 200, ended.text
            assert ended.json()["redactions"] == 2
            found = api.get(f"/api/queue/jobs/{leased['id']}")
            for answer in (ended, found):
                planter.seen.take("complete", answer.status_code, answer.headers, answer.content)
            assert f"[redacted:{rule}]" in found.text
    must_be_nowhere(planter, api, database)


def _say_with_secrets(planter: Planter, api: Api, agent: Agent, leased: dict[str, Any], canary: str, rule: str) -> None:
    """Have a job say a secret; the piece comes again, with more behind it; then read and follow the log."""
    path = f"/api/queue/jobs/{leased['id']}/logs"
    first, more = f"export KEY {canary}\nzw\u00f6lf\n", f"\x1b[31m{canary}\x1b[0m\n"
    for said in (first, first + more):
        written = agent.post(path, {"lease_token": leased["lease_token"], "offset": 0, "data": said})
        assert written.status_code == 200, written.text
        assert written.json()["next_offset"] == len(said.encode())
        assert written.json()["redactions"] >= 1
        planter.seen.take("POST logs", written.status_code, written.headers, written.content)
    read = api.get(path)
    assert read.json()["data"].count(f"[redacted:{rule}]") == 2
    planter.seen.take("GET logs", read.status_code, read.headers, read.content)
    headers = {"Authorization": f"Bearer {api.admin}"}
    with planter.client.stream("GET", path, params={"follow": "true"}, headers=headers) as followed:
        blocks = itertools.takewhile(lambda line: "zw\u00f6lf" not in line, followed.iter_lines())
        planter.seen.take("follow logs", followed.status_code, followed.headers, "\n".join(blocks).encode())
