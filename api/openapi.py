"""The OpenAPI 3.1 document, made of the table of routes and of nothing else.

What it says is what the server checks: the bounds of the Structs are those that decode requests, and the rules that
hold for every text and number outside of payload are written into each of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from .http.answer import JSON, PROBLEM_JSON
from .http.names import NAME
from .http.problems import OAUTH_ERRORS, PROBLEMS
from .http.reading import SAFE_INT_MAX
from .http.route import EVENT_STREAM, Route
from .http.scopes import ANY_CREDENTIAL, SCOPES

__all__ = ["codes_of", "document"]

_REF: Final = "#/components/schemas/{name}"
NO_CONTROLS: Final = r"^[^\u0000-\u001f\u007f-\u009f]*$"
NO_CONTROLS_BUT_LINES: Final = r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$"
FORM: Final = "application/x-www-form-urlencoded"

PATHS: Final[dict[str, dict[str, Any]]] = {
    "name": {"type": "string", "pattern": f"^{NAME}$", "maxLength": 64},
    "full_id": {"type": "string", "pattern": f"^{NAME}~{NAME}$", "maxLength": 129},
}
"""converter of a path → schema of its part."""

_BODY_CODES: Final = (
    "bad_encoding",
    "duplicate_key",
    "malformed_json",
    "payload_too_large",
    "request_timeout",
    "too_deep",
    "unsupported_media_type",
)
_COMMON_CODES: Final = ("bad_encoding", "bad_request", "headers_too_large", "internal_error", "invalid_argument")
_REDIS_CODES: Final = ("outcome_unknown", "redis_unavailable", "server_trouble", "stopping")


def codes_of(route: Route) -> tuple[str, ...]:
    """Return every problem code the route can answer with, its own and those of the way to it, sorted."""
    codes = {*route.problems, *_COMMON_CODES}
    if route.mutates:
        codes.update(_BODY_CODES)
    if not route.public:
        codes.update(("unauthenticated", "signature_invalid", "signature_required"))
        if route.scopes != (ANY_CREDENTIAL,):
            codes.add("missing_scope")
    if route.mutates and route.csrf and "session" in route.bearers and (not route.public or route.optional_session):
        codes.add("csrf")
    if route.rate is not None:
        codes.update(("rate_limited", *_REDIS_CODES))
    if route.guard == "refuse":
        codes.add("secret_suspected")
    if route.if_match:
        codes.add("precondition_failed")
    return tuple(sorted(codes))


def document(routes: Iterable[Route], *, version: str) -> dict[str, Any]:
    """Return the document over the documented routes."""
    shown = [route for route in routes if route.documented]
    schemas = _Schemas(shown)
    paths: dict[str, dict[str, Any]] = {}
    for route in shown:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "hybridq",
            "version": version,
            "description": "A work queue for CI/CD fleets. Errors are problem details (RFC 9457); `code` is stable.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in sorted({tag for route in shown for tag in route.tags})],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "headers": _HEADERS,
            "securitySchemes": _SECURITY,
        },
    }


# -- one operation -------------------------------------------------------------------------------------------


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": route.operation_id,
        "summary": route.summary or route.operation_id.replace("_", " ").capitalize(),
        "tags": list(route.tags),
    }
    if route.description:
        found["description"] = route.description
    if parameters := _parameters(route, schemas):
        found["parameters"] = parameters
    if route.body is not None:
        found["requestBody"] = _request_body(route, schemas)
    found["responses"] = _responses(route, schemas)
    found["security"] = _security(route)
    found["x-scope"] = list(route.scopes)
    if route.agents:
        found["x-agents"] = True
    if not route.public:
        found["x-credentials"] = sorted(route.bearers)
    if route.rate is not None:
        found["x-rate-class"] = route.rate
    return found


def _security(route: Route) -> list[dict[str, list[str]]]:
    if route.public:
        return [{}, {"session": []}] if route.optional_session else []
    offered: list[dict[str, list[str]]] = []
    if route.bearers - {"session"}:
        offered.append({"bearer": []})
    if "session" in route.bearers:
        offered.append({"session": []})
    return offered


def _parameters(route: Route, schemas: _Schemas) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    path_examples = route.examples.get("path", {})
    for name, kind in route.parts:
        part: dict[str, Any] = {"name": name, "in": "path", "required": True, "schema": PATHS[kind]}
        if name in path_examples:
            part["example"] = path_examples[name]
        found.append(part)
    found.extend(_query_parameters(route, schemas))
    if route.idempotent:
        found.append(_header_parameter("Idempotency-Key", _IDEMPOTENCY, pattern="^[!-~]([ -~]{0,126}[!-~])?$"))
    if route.if_match:
        found.append(_header_parameter("If-Match", "Entity tag of what was read before."))
    if route.etag:
        found.append(_header_parameter("If-None-Match", "Entity tag of what is at hand."))
    return found


_IDEMPOTENCY: Final = "Makes a repeat of this call the same call: it gets the first answer, or 409 with other content."


def _header_parameter(name: str, description: str, **bounds: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string", **bounds},
    }


def _query_parameters(route: Route, schemas: _Schemas) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    schema = schemas.inner(route.query)
    examples = route.examples.get("query", {})
    found = []
    for name, prop in schema.get("properties", {}).items():
        kept = _without_null(prop)
        part = {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": kept}
        if "description" in kept:
            part["description"] = kept.pop("description")
        if name in examples:
            part["example"] = examples[name]
        found.append(part)
    return found


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter, which is absent rather than null."""
    kept = {key: value for key, value in schema.items() if not (key == "default" and value in (None, []))}
    options = [option for option in kept.pop("anyOf", ()) if option.get("type") != "null"]
    if len(options) == 1:
        return {**options[0], **kept}
    return {**kept, "anyOf": options} if options else kept


def _request_body(route: Route, schemas: _Schemas) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schemas.request(route.body)}
    if "body" in route.examples:
        content["example"] = route.examples["body"]
    return {
        "required": not route.empty_body_allowed,
        "description": f"At most {route.body_bytes_max} bytes, nested 64 levels at most.",
        "content": {FORM if route.form else JSON: content},
    }


def _responses(route: Route, schemas: _Schemas) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, kind in sorted(route.answers.items()):
        found[str(status)] = _answer(route, status, kind, schemas)
    by_status: dict[int, list[str]] = {}
    for code in codes_of(route):
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    for status, codes in sorted(by_status.items()):
        problem = _oauth_answer(codes) if route.form else _problem_answer(status, codes)
        if str(status) in found:  # an answer and a problem of one status: told apart by their content types
            found[str(status)].setdefault("content", {}).update(problem["content"])
        else:
            found[str(status)] = problem
    return dict(sorted(found.items()))


def _answer(route: Route, status: int, kind: Any, schemas: _Schemas) -> dict[str, Any]:
    found: dict[str, Any] = {"description": _TITLES.get(status, "Done"), "headers": _headers(route, status)}
    if route.links and 200 <= status < 300:
        found["links"] = route.links
    if kind is None:
        return found
    if kind is EVENT_STREAM:
        found["content"] = dict(_EVENTS)
    elif isinstance(kind, str):
        found["content"] = {each: {"schema": {"type": "string"}} for each in kind.split(", ")}
    else:
        content: dict[str, Any] = {"schema": schemas.answer(kind)}
        if status in route.examples:
            content["example"] = route.examples[status]
        found["content"] = {JSON: content}
    if route.streams and status == 200:
        found["content"] |= _EVENTS
    return found


_EVENTS: Final = {"text/event-stream": {"schema": {"type": "string"}}}
_TITLES: Final = {
    200: "OK",
    201: "Made",
    202: "Accepted; it happens later",
    204: "Done; nothing to say",
    302: "Elsewhere",
    304: "Not modified",
}


def _headers(route: Route, status: int) -> dict[str, Any]:
    names = ["X-Request-Id", "traceparent"]
    if route.rate is not None:
        names += ["RateLimit", "RateLimit-Policy"]
    if route.etag and status in (200, 304):
        names.append("ETag")
    if route.idempotent:
        names.append("Idempotency-Replayed")
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _problem_answer(status: int, codes: list[str]) -> dict[str, Any]:
    narrowed = {"properties": {"code": {"enum": codes}, "status": {"const": status}}}
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", "traceparent")}
    if status in (429, 503, 507):
        headers["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
    if status == 401:
        headers["WWW-Authenticate"] = {"$ref": "#/components/headers/WWW-Authenticate"}
    return {
        "description": "; ".join(PROBLEMS[code].title for code in codes),
        "headers": headers,
        "content": {
            PROBLEM_JSON: {
                "schema": {"allOf": [{"$ref": _REF.format(name="Problem")}, narrowed]},
                "examples": {code: {"value": _problem_example(code)} for code in codes},
            }
        },
    }


def _problem_example(code: str) -> dict[str, Any]:
    kind = PROBLEMS[code]
    return {
        "type": f"urn:hybridq:problem:{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": kind.detail,
        "code": code,
        "instance": "urn:hybridq:request:7f1b2c9e4d5a4f7e8a6b1c2d3e4f5a6b",
    }


def _oauth_answer(codes: list[str]) -> dict[str, Any]:
    errors = sorted({code for code in codes if code in OAUTH_ERRORS} | {"invalid_request", "temporarily_unavailable"})
    schema = {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {"enum": [*errors, "invalid_client"]},
            "error_description": {"type": "string"},
        },
    }
    return {
        "description": "; ".join(PROBLEMS[code].title for code in codes),
        "content": {JSON: {"schema": schema}},
    }


# -- what operations share -----------------------------------------------------------------------------------

_HEADERS: Final[dict[str, Any]] = {
    "ETag": {"description": "Changes when the thing does.", "schema": {"type": "string"}},
    "Idempotency-Replayed": {"description": "This call was made before.", "schema": {"enum": ["true"]}},
    "RateLimit": {"description": "What is left of the class's limit.", "schema": {"type": "string"}},
    "RateLimit-Policy": {"description": "The class's limit.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}},
    "WWW-Authenticate": {"schema": {"type": "string"}},
    "X-Request-Id": {
        "description": "The caller's, when it obeys the rule; else ours.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    },
    "traceparent": {
        "description": "W3C trace context: the caller's, or a new one.",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
    },
}

_SECURITY: Final[dict[str, Any]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key (hqk_), an agent's token (hqa_); on register also hqr_ and hqn_. Scopes: "
        + ", ".join(f"`{scope}`" for scope in SCOPES),
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "__Host-hq_session",
        "description": "A person's session; changes also need X-CSRF-Token and an Origin of this site.",
    },
}

_PROBLEM: Final[dict[str, Any]] = {
    "title": "Problem",
    "description": "Problem details (RFC 9457). Further members belong to the code.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "instance"],
    "properties": {
        "type": {"type": "string", "pattern": "^urn:hybridq:problem:[a-z_]+$"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "code": {"type": "string", "pattern": "^[a-z_]+$"},
        "instance": {"type": "string", "pattern": "^urn:hybridq:request:"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "reason"],
                "properties": {"pointer": {"type": "string"}, "reason": {"type": "string"}},
            },
        },
    },
}


# -- schemas -------------------------------------------------------------------------------------------------


class _Schemas:
    """Schemas of all Structs of the table; those of requests get the rules that hold outside of payload."""

    def __init__(self, routes: list[Route]) -> None:
        bodies = [route.body for route in routes if route.body is not None]
        queries = [route.query for route in routes if route.query is not None]
        answers = [
            kind
            for route in routes
            for kind in route.answers.values()
            if kind is not None and kind is not EVENT_STREAM and not isinstance(kind, str)
        ]
        kinds = list(dict.fromkeys([*bodies, *queries, *answers]))
        schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
        self._of: dict[Any, dict[str, Any]] = dict(zip(kinds, schemas, strict=True))
        self._components: dict[str, Any] = components
        _write_instants(kinds, components)
        asked = self._reachable([self._of[kind] for kind in [*bodies, *queries]])
        for name in asked:
            self._components[name] = _ruled(self._components[name])
        shown = self._reachable([self._of[kind] for kind in [*bodies, *answers]])
        self.components = {name: self._components[name] for name in sorted(shown)} | {"Problem": _PROBLEM}

    def request(self, kind: Any) -> dict[str, Any]:
        """Return the schema of a body."""
        found = _ruled(self._of[kind])
        assert isinstance(found, dict)
        return found

    def answer(self, kind: Any) -> dict[str, Any]:
        """Return the schema of an answer."""
        return self._of[kind]

    def inner(self, kind: Any) -> dict[str, Any]:
        """Return the schema of a Struct itself, references to other components written out."""
        found = self._inlined(self._of[kind])
        assert isinstance(found, dict)
        return found

    def _inlined(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self._inlined(each) for each in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return self._inlined(self._components[node["$ref"].rsplit("/", 1)[1]])
        return {key: self._inlined(value) for key, value in node.items()}

    def _reachable(self, roots: list[Any]) -> set[str]:
        found: set[str] = set()
        stack = list(roots)
        while stack:
            node = stack.pop()
            if isinstance(node, list):
                stack.extend(node)
            elif isinstance(node, dict):
                if "$ref" in node and (name := node["$ref"].rsplit("/", 1)[1]) not in found:
                    found.add(name)
                    stack.append(self._components[name])
                stack.extend(value for value in node.values() if isinstance(value, dict | list))
        return found


def _write_instants(kinds: list[Any], components: dict[str, Any]) -> None:
    """Say of every instant that it is one; msgspec writes `date-time` only where what comes in must have a zone."""
    todo: list[Any] = list(msgspec.inspect.multi_type_info(kinds))
    seen: set[Any] = set()
    while todo:
        info = todo.pop()
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in seen:
                continue
            seen.add(info.cls)
            for field in info.fields:
                todo.append(field.type)
                if _holds_instant(field.type):
                    prop = components[info.cls.__name__]["properties"][field.encode_name]
                    for option in prop.get("anyOf", (prop,)):
                        if option.get("type") == "string":
                            option["format"] = "date-time"
        elif isinstance(info, msgspec.inspect.UnionType):
            todo.extend(info.types)
        elif isinstance(info, msgspec.inspect.Metadata):
            todo.append(info.type)
        elif isinstance(info, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
            todo.append(info.item_type)
        elif isinstance(info, msgspec.inspect.DictType):
            todo.append(info.value_type)


def _holds_instant(info: Any) -> bool:
    if isinstance(info, msgspec.inspect.UnionType):
        return any(map(_holds_instant, info.types))
    if isinstance(info, msgspec.inspect.Metadata):
        return _holds_instant(info.type)
    return isinstance(info, msgspec.inspect.DateTimeType)


_CLASS = re.compile(r"\\.|\[(?:\\.|[^\]])*\]")


def _may_match_controls(pattern: str) -> bool:
    """Whether a pattern leaves room for any character: by a dot, or by a class that only excludes."""
    return "[^" in pattern or "." in _CLASS.sub("", pattern)


def _ruled(node: Any) -> Any:
    """Write into a schema of requests what is checked of every text and number outside of payload."""
    if isinstance(node, list):
        return [_ruled(each) for each in node]
    if not isinstance(node, dict):
        return node
    found = {
        key: value if key in ("default", "enum", "examples", "required") else _ruled(value)
        for key, value in node.items()
    }
    kind = found.get("type")
    if found.pop("x-any-text", False):
        return found
    if kind == "string" and not {"pattern", "format", "enum", "contentEncoding"} & set(found):
        found["pattern"] = NO_CONTROLS_BUT_LINES if found.pop("x-lines", False) else NO_CONTROLS
    elif kind == "string" and _may_match_controls(found.get("pattern", "")):
        found["allOf"] = [{"pattern": NO_CONTROLS}]
    found.pop("x-lines", None)
    if kind in ("integer", "number"):
        if not {"minimum", "exclusiveMinimum"} & set(found):
            found["minimum"] = -SAFE_INT_MAX
        if not {"maximum", "exclusiveMaximum"} & set(found):
            found["maximum"] = SAFE_INT_MAX
    if kind == "object" and isinstance(found.get("additionalProperties"), dict):
        names = found.setdefault("propertyNames", {})
        if "pattern" not in names:
            names["pattern"] = NO_CONTROLS
    return found
