"""The OpenAPI document against the server: what is generated from it is answered as it says, by a real process.

In the suite a seeded run of one pass. `HYBRIDQ_TEST_FUZZ_EXAMPLES=500` makes it a long one: so many examples of each
operation and so many walks through the states, with another seed each time (`HYBRIDQ_TEST_FUZZ_SEED` pins it).
"""

from __future__ import annotations

import collections
import contextlib
import copy
import os
import random
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema

from tests import servers
from tests.api import shared
from tests.api.client import Api

EXAMPLES: Final = int(os.environ.get("HYBRIDQ_TEST_FUZZ_EXAMPLES", "0"))
LONG: Final = EXAMPLES > 0
SEED: Final = int(os.environ.get("HYBRIDQ_TEST_FUZZ_SEED", str(random.SystemRandom().getrandbits(32)) if LONG else "3"))
COVERAGE_S: Final = 36_000 if LONG else 45
"""A machine that is busy with more than this sees only the first of the cases that follow from each schema."""
WALKS_S: Final = 2 * EXAMPLES or 10
STREAM_S: Final = 0.5
WAIT_S: Final = 0.02

REFUSALS: Final = ("400", "401", "403", "404", "405", "406", "409", "415", "422", "428", "429", "5xx")
"""What the check expects by itself."""
REFUSED_BY_STATE: Final = ("400", "410", "412", "415", "422")
"""Beside what the check expects anyhow: what was stored, a precondition or policy may refuse a body that obeys its
schema. Which 400 may is not left to this list: see `Run.refusals`."""

CANCELS: Final = "deleted with `DELETE /api/queue/jobs/"
"""DELETE of a job cancels it: by the contract it is there afterwards, CANCELLED. Other things are gone when deleted."""

if LONG:
    pytestmark = pytest.mark.timeout(36_000)


@pytest.fixture(scope="module")
def process() -> Iterator[Api]:
    """A server in a process of its own, over the first engine there is."""
    with servers.ServerProcess(shared._engine()) as server, Api(server.url, "fuzz", process=True) as running:
        yield running


@pytest.fixture(scope="module")
def document(process: Api) -> dict[str, Any]:
    found: dict[str, Any] = process.get("/api/docs/openapi.json", token=None).json()
    return found


class Run:
    """What came of one run: how many calls were made, and everything that a check had against an answer."""

    def __init__(self) -> None:
        self.statuses: collections.Counter[int] = collections.Counter()
        self.failures: dict[tuple[str, str, str], str] = {}
        self.refusals: dict[str, str] = {}
        """Code or reason of each 400 to what obeys the document → where it was seen."""
        self.seen: set[str] = set()
        """Operations that were answered."""

    @property
    def calls(self) -> int:
        return sum(self.statuses.values())

    def take(self, event: events.EngineEvent) -> None:
        if isinstance(event, events.NonFatalError):
            if event.label == "GET /api/events" and "ReadTimeout" in type(event.value).__name__:
                return  # a busy machine had not sent the head of a stream when the time to look at it was over
            self.failures[event.label, "error", type(event.value).__name__] = repr(event.value)
        elif isinstance(event, events.FatalError):
            raise event.exception
        elif isinstance(event, events.ScenarioFinished):
            self._take_scenario(event)

    def _take_scenario(self, event: events.ScenarioFinished) -> None:
        recorder = event.recorder
        for case_id, interaction in recorder.interactions.items():
            if interaction.response is None:
                continue
            case = recorder.cases[case_id].value
            self.seen.add(case.operation.label)
            self.statuses[interaction.response.status_code] += 1
            if interaction.response.status_code == 400 and case.meta and case.meta.generation.mode.is_positive:
                self._take_refusal(case, interaction.response)
        for case_id, checks in recorder.checks.items():
            for check in checks:
                if check.status is Status.FAILURE and check.failure_info is not None:
                    failure, case = check.failure_info.failure, recorder.cases[case_id].value
                    if check.name == "use_after_free" and CANCELS in failure.message:
                        continue
                    key = (case.operation.label, check.name, failure.title)
                    self.failures.setdefault(key, f"{failure.message}\n{check.failure_info.code_sample}")

    def _take_refusal(self, case: Any, answer: Any) -> None:
        body = answer.json()
        code = body.get("code", body.get("error"))
        for each in body.get("errors", ()) if code == "invalid_argument" else ({"reason": code},):
            self.refusals.setdefault(each["reason"], f"{case.operation.label}: {body}")


@contextlib.contextmanager
def _careful(own_id: str) -> Iterator[None]:
    """Within the block no call waits for long, and none revokes the key that the calls are made with."""

    @schemathesis.hook
    def before_call(context: Any, case: Any, kwargs: Any) -> None:
        for holder in (case.body, case.query):
            waits = holder.get("wait_seconds") if isinstance(holder, dict) else None
            if isinstance(waits, int | float) and not isinstance(waits, bool) and WAIT_S < waits <= 50:
                holder["wait_seconds"] = WAIT_S
            elif isinstance(waits, str) and waits.replace(".", "", 1).isdecimal() and WAIT_S < float(waits) <= 50:
                holder["wait_seconds"] = str(WAIT_S)
        if own_id and own_id in str((case.path_parameters or {}).get("id", "")):
            case.path_parameters["id"] = "another"

    try:
        yield
    finally:
        schemathesis.hooks.unregister(before_call)


def run(document: dict[str, Any], api: Api, token: str | None, phases: str, *, examples: int) -> Run:
    """Generate calls with a credential, or without one, and hold the answers to the document with every check."""
    config: dict[str, Any] = {
        "seed": SEED,
        "base-url": api.url,
        "request-timeout": 30,
        "continue-on-failure": True,
        "checks": {
            # A pool may be full, and says so; that an operation documents it is another check's affair.
            "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "507"]},
            # By its size alone, before it is read: a query of 25 KiB, or a body over the limit of its route.
            "negative_data_rejection": {"expected-statuses": [*REFUSALS, "413", "431"]},
            "positive_data_acceptance": {
                "expected-statuses": ["2xx", "3xx", "401", "403", "404", "409", "429", "507", *REFUSED_BY_STATE]
            },
        },
        "generation": {"max-examples": examples, "no-shrink": not LONG, "database": "none"},
        "phases": {
            name: {"enabled": name in phases.split()} for name in ("examples", "coverage", "fuzzing", "stateful")
        },
        "operations": [
            {  # it ends when nobody listens any more
                "include-name": "GET /api/events",
                "request-timeout": STREAM_S,
                "max-stream-events": 1,
                "generation": {"max-examples": min(examples, 5)},
            }
        ],
    }
    if "coverage" in phases:
        config["max-time"] = COVERAGE_S
    elif phases == "stateful":  # one pass is short: they follow each other until the time is over
        config["max-time"] = WALKS_S
    if token is not None:
        config["auth"] = {"openapi": {"bearer": {"bearer": token}}}
    found = Run()
    with _careful(token[4:16] if token else ""):
        schema = schemathesis.openapi.from_dict(document, config=SchemathesisConfig.from_dict(config))
        for event in from_schema(schema).execute():
            found.take(event)
    print(f"seed {SEED}, {found.calls} calls: {dict(sorted(found.statuses.items()))}")
    return found


UNSAYABLE: Final = re.compile(
    # whole problems
    "filter_required|invalid_cursor|reserved_name|unsupported_grant_type|invalid_request"
    # of texts: bytes of UTF-8, what can be printed, what an id means
    "|must be (printable )?text of at most [0-9]+ bytes( without control characters)?"
    "|must be <fence>.<lease_id>|must be an https URL .*|must be one of queue:enqueue, .*"
    "|must be .* beginning with a letter or digit|must be exact; only that of sub may end in one [*].*"
    # of two fields at once, or of a field and the clock
    "|must be between 1970 and a year from now|must be in the future.*|stands beside [a-z_]+: one of the two"
    "|must not be below base_seconds|goes with every outcome but success|is not of the pool that is named"
    "|contradicts status, whose other name it is|must hold code and state, or login_token|names one key with two values"
)
"""What a schema cannot say, so that a body which obeys it may still be malformed. Whatever else is refused with 400
is a rule that the document should tell."""


def must_be_as_documented(found: Run) -> None:
    said = "\n\n".join(f"{' | '.join(key)}\n{text}" for key, text in sorted(found.failures.items()))
    assert not found.failures, said
    assert not {status for status in found.statuses if status >= 500} - {507}, found.statuses
    unforeseen = {reason: where for reason, where in found.refusals.items() if not UNSAYABLE.fullmatch(reason)}
    assert not unforeseen, unforeseen


def test_every_case_of_the_document_is_answered_as_it_says(process: Api, document: dict[str, Any]) -> None:
    """Each bound of each field from both sides, each method that is not offered, each example."""
    found = run(document, process, process.admin, "examples coverage", examples=1)
    must_be_as_documented(found)
    assert found.calls > 500


def test_what_is_generated_at_random_is_answered_as_the_document_says(process: Api, document: dict[str, Any]) -> None:
    found = run(document, process, process.admin, "fuzzing", examples=EXAMPLES or 3)
    must_be_as_documented(found)
    assert found.calls > 100


def test_walks_through_the_states_are_answered_as_the_document_says(process: Api, document: dict[str, Any]) -> None:
    """What was made is found, changed, taken away, and then gone."""
    found = run(document, process, process.admin, "stateful", examples=min(EXAMPLES, 50) or 6)
    must_be_as_documented(found)
    assert found.calls > 20


def test_an_agent_is_answered_as_the_document_says(process: Api, document: dict[str, Any]) -> None:
    agent = process.agent("fuzzed")
    found = run(document, process, agent.token, "examples fuzzing", examples=EXAMPLES or 2)
    must_be_as_documented(found)
    assert found.statuses[403] and found.statuses[200]


def test_without_a_credential_nothing_but_public_calls_is_answered(process: Api, document: dict[str, Any]) -> None:
    """The check `ignored_auth` tells what gets through; here it is what must not even be looked at."""
    found = run(document, process, None, "examples fuzzing", examples=EXAMPLES or 1)
    must_be_as_documented(found)
    asked = {
        f"{method.upper()} {path}"
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if operation["x-scope"] != ["public"]
    }
    assert len(found.seen & asked) > 50
    assert found.statuses[401] > 50


def test_the_checks_notice_what_the_document_does_not_say(process: Api, document: dict[str, Any]) -> None:
    """A document that is silent about an answer, asks too much or promises another shape is told so."""
    silent = copy.deepcopy(document)
    paths = silent["paths"]
    silent["paths"] = {
        path: paths[path] for path in ("/api/queue/jobs/{id}", "/health", "/info", "/api/agents/{agent_id}")
    }
    del silent["paths"]["/api/queue/jobs/{id}"]["get"]["responses"]["404"]
    silent["paths"]["/health"]["get"]["security"] = [{"bearer": []}]
    silent["components"]["schemas"]["Info"]["required"].append("nothing_like_it")
    codes = silent["paths"]["/api/agents/{agent_id}"]["get"]["responses"]["404"]["content"]["application/problem+json"]
    codes["schema"] = {"properties": {"code": {"enum": ["another_code"]}}}

    found = run(silent, process, process.admin, "examples fuzzing", examples=10)

    noticed = {(label, check) for label, check, _ in found.failures}
    assert noticed >= {
        ("GET /api/queue/jobs/{id}", "status_code_conformance"),
        ("GET /health", "ignored_auth"),
        ("GET /info", "response_schema_conformance"),
        ("GET /api/agents/{agent_id}", "response_schema_conformance"),
    }, sorted(noticed)
