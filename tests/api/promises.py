"""What the OpenAPI document promises, asked about every answer that a client of the tests gets.

A status or a problem code that an operation does not document fails the test that met it, whatever that is about.
"""

from __future__ import annotations

import functools
import importlib
import json
import pkgutil
import re
from typing import Any

import httpx2
import msgspec

from api import routes
from api.http.route import TABLE
from api.openapi import document

__all__ = ["SEEN", "must_be_documented", "operation_of", "the_document"]

SEEN: set[tuple[str, int, str]] = set()
"""Operation id, status and problem code of each answer so far."""


@functools.cache
def the_document() -> dict[str, Any]:
    """Return the document of all routes there are, as it travels."""
    for module in pkgutil.iter_modules(routes.__path__):
        importlib.import_module(f"{routes.__name__}.{module.name}")
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(document(TABLE, version="0")))
    return found


@functools.cache
def _paths() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    """Paths as patterns, those with fewer variable parts first: a router prefers what is written out."""
    found = the_document()["paths"]
    return [
        (re.compile(re.sub(r"\\\{[a-z_]+\\\}", "[^/]+", re.escape(path))), item)
        for path, item in sorted(found.items(), key=lambda pair: pair[0].count("{"))
    ]


def operation_of(method: str, path: str) -> dict[str, Any] | None:
    """Return the operation that stands for a call; None where the document has none."""
    for pattern, item in _paths():
        if pattern.fullmatch(path):
            return item.get(method.lower())
    return None


def must_be_documented(answer: httpx2.Response) -> None:
    """Fail unless the document has the answer's status with its content type and problem code."""
    method, path = answer.request.method, answer.request.url.path
    operation = operation_of(method, path)
    if operation is None:
        return
    kind = answer.headers.get("content-type", "").partition(";")[0]
    where = f"{method} {path} answered {answer.status_code}"
    promised = operation["responses"].get(str(answer.status_code))
    if kind == "application/problem+json" or (kind == "application/json" and answer.status_code >= 400):
        answer.read()
        said = json.loads(answer.content)
        code = said["code"] if kind == "application/problem+json" else said["error"]
        SEEN.add((operation["operationId"], answer.status_code, code))
        assert promised is not None, f"{where} {code}: {operation['operationId']} documents no such status"
        if kind == "application/problem+json":
            codes = promised["content"][kind]["examples"]
            assert code in codes, f"{where} {code}: {operation['operationId']} documents {', '.join(codes)}"
        else:
            errors = promised["content"][kind]["schema"]["properties"]["error"]["enum"]
            assert code in errors, f"{where} {code}: {operation['operationId']} documents {', '.join(errors)}"
        return
    SEEN.add((operation["operationId"], answer.status_code, ""))
    assert promised is not None, f"{where}: {operation['operationId']} documents no such status"
    assert not kind or kind in promised.get("content", {}), f"{where} as {kind}: not documented"
