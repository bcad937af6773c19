"""What a payload must look like to be run, what is said about one that does not, and the whole way over a real API."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hybridq.agent import Client
from hybridq.agent.secrets import SecretRef, Secrets
from hybridq.agent.trust import OpenKey, Rejected, Replays, SignKey, Trust, seal, sign
from hybridq.agent.work_of import Step, Work, work_of
from tests.agent.trusting import STEPS, WORK, claimed, forged
from tests.api.client import Api, problem

VALUE = "hunter2-not-to-be-seen"
TRUST = Trust()


def rejected(payload: Any, code: str, **job: Any) -> str:
    with pytest.raises(Rejected) as caught:
        work_of(claimed(payload, **job), TRUST)
    assert caught.value.code == code, caught.value
    assert VALUE not in str(caught.value)
    return caught.value.message


def step(**more: Any) -> dict[str, Any]:
    return {"steps": [{**STEPS[0], **more}]}


# -- what runs -------------------------------------------------------------------------------------------------------


def test_the_least_there_can_be() -> None:
    assert work_of(claimed(WORK), TRUST) == Work(steps=(Step(name="test", run="make test"),))


def test_everything_there_can_be() -> None:
    payload = {
        "steps": [
            {
                "name": "tests",
                "run": "make test\n",
                "shell": ["bash", "-e", "{0}"],
                "env": {"A": "b\n", "T": {"secret_ref": "env://CI_T"}},
                "timeout_seconds": 12.5,
                "working_directory": "sub/folder",
                "if": "always",
            },
            {"name": "more", "run": "import os", "shell": "python", "timeout_seconds": 3, "if": "failure"},
        ],
        "git": {
            "repo": "https://git.example.com/shop.git",
            "ref": "refs/heads/main",
            "commit_sha": "4bf92f3577b34da6a3ce929d0e0e47361a2b3c4d",
            "commit_message": "Title\n\nBody\n",
            "author": "Ann <ann@example.com>",
        },
        "env": {"_A1": "", "B": "ü"},
    }

    work = work_of(claimed(payload), TRUST)

    first, second = work.steps
    assert first.shell == ("bash", "-e", "{0}")
    assert first.env == {"A": "b\n", "T": SecretRef("env://CI_T")}
    assert (first.timeout_seconds, first.working_directory, first.if_) == (12.5, "sub/folder", "always")
    assert (second.shell, second.timeout_seconds, second.if_) == ("python", 3, "failure")
    assert work.git is not None and work.git.commit_message == "Title\n\nBody\n"
    assert work.env == {"_A1": "", "B": "ü"}
    assert (work.signed_by, work.sealed) == (None, False)


def test_what_is_null_is_not_set() -> None:
    payload = {
        "steps": [{**STEPS[0], "shell": None, "env": None, "timeout_seconds": None, "if": None}],
        "git": {"repo": "r", "ref": None, "commit_sha": None},
        "env": None,
    }

    assert work_of(claimed(payload), TRUST).steps == (Step(name="test", run="make test"),)
    assert work_of(claimed({**WORK, "git": None}), TRUST).git is None


# -- what does not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [None, 1, "make", [], [STEPS], {}, {"steps": []}, {"steps": None}, {"commit": "4f2a"}, {"git": {"repo": "r"}}],
)
def test_a_payload_without_steps_is_for_somebody_else(payload: Any) -> None:
    rejected(payload, "no_steps")


def test_bytes_that_are_no_json_are_for_somebody_else() -> None:
    rejected(json.dumps("AAEC").encode(), "no_steps", payload_encoding="base64")


@pytest.mark.parametrize(
    ("payload", "named", "place"),
    [
        ({**WORK, "image": VALUE}, "image", "the payload"),
        ({**WORK, "Env": {}}, "Env", "the payload"),
        ({**WORK, "signed_by": VALUE}, "signed_by", "the payload"),
        (step(image=VALUE), "image", "steps[0]"),
        (step(if_="always"), "if_", "steps[0]"),
        (step(timeout=3), "timeout", "steps[0]"),
        ({**WORK, "git": {"repo": "r", "submodules": True}}, "submodules", "git"),
        ({**WORK, "env": {"A": {"secret_ref": "env://A", "default": VALUE}}}, "default", "env"),
        (step(env={"A": {"secret": VALUE}}), "secret", "steps[0]"),
    ],
)
def test_a_field_that_nobody_knows_is_named(payload: Any, named: str, place: str) -> None:
    """Rather than passed over: it may be the one that mattered."""
    message = rejected(payload, "unknown_field")

    assert place in message
    assert repr(named) in message


@pytest.mark.parametrize(
    ("payload", "code", "place"),
    [
        ({"steps": VALUE}, "malformed_steps", "steps"),
        ({"steps": {"name": VALUE}}, "malformed_steps", "steps"),
        ({"steps": [VALUE]}, "malformed_steps", "steps[0]"),
        ({"steps": [STEPS[0], {"name": VALUE}]}, "malformed_steps", "steps[1]"),
        ({"steps": [{"run": VALUE}]}, "malformed_steps", "name"),
        (step(run=""), "malformed_steps", "run"),
        (step(run=["make"]), "malformed_steps", "run"),
        (step(name=""), "malformed_steps", "name"),
        (step(name="a\nb"), "malformed_steps", "name"),
        (step(name="a\x1b[31m"), "malformed_steps", "name"),
        (step(name="x" * 129), "malformed_steps", "name"),
        (step(run="x" * 65_537), "malformed_steps", "run"),
        (step(shell=""), "malformed_steps", "shell"),
        (step(shell=[]), "malformed_steps", "shell"),
        (step(shell=[1]), "malformed_steps", "shell"),
        (step(timeout_seconds=0), "malformed_steps", "timeout_seconds"),
        (step(timeout_seconds=-1), "malformed_steps", "timeout_seconds"),
        (step(timeout_seconds=True), "malformed_steps", "timeout_seconds"),
        (step(timeout_seconds="60"), "malformed_steps", "timeout_seconds"),
        (step(timeout_seconds=1e12), "malformed_steps", "timeout_seconds"),
        (step(working_directory=""), "malformed_steps", "working_directory"),
        (step(working_directory="a\nb"), "malformed_steps", "working_directory"),
        (step(**{"if": VALUE}), "malformed_steps", "if"),
        (step(**{"if": True}), "malformed_steps", "if"),
        (step(env=[]), "malformed_steps", "env"),
        (step(env={"A=B": VALUE}), "malformed_steps", "env"),
        ({**WORK, "env": {"": VALUE}}, "malformed_env", "env"),
        ({**WORK, "env": {"1A": VALUE}}, "malformed_env", "env"),
        ({**WORK, "env": {"A-B": VALUE}}, "malformed_env", "env"),
        ({**WORK, "env": {"A B": VALUE}}, "malformed_env", "env"),
        ({**WORK, "env": {"A\n": VALUE}}, "malformed_env", "env"),
        ({**WORK, "env": {"Ä": VALUE}}, "malformed_env", "env"),
        ({**WORK, "env": {"x" * 257: VALUE}}, "malformed_env", "env"),
        ({**WORK, "env": {"A": 1}}, "malformed_env", "env"),
        ({**WORK, "env": {"A": None}}, "malformed_env", "env"),
        ({**WORK, "env": {"A": {"secret_ref": 1}}}, "malformed_env", "secret_ref"),
        ({**WORK, "env": {"A": {}}}, "malformed_env", "secret_ref"),
        ({**WORK, "env": {"A": "x" * 65_537}}, "malformed_env", "env"),
        ({**WORK, "env": {f"A{i}": "" for i in range(1001)}}, "malformed_env", "env"),
        ({**WORK, "git": VALUE}, "malformed_git", "git"),
        ({**WORK, "git": {}}, "malformed_git", "git"),
        ({**WORK, "git": {"repo": ""}}, "malformed_git", "repo"),
        ({**WORK, "git": {"repo": "a\nb"}}, "malformed_git", "repo"),
        ({**WORK, "git": {"repo": "r", "commit_sha": "HEAD"}}, "malformed_git", "commit_sha"),
        ({**WORK, "git": {"repo": "r", "commit_sha": "--upload-pack=id"}}, "malformed_git", "commit_sha"),
        ({**WORK, "git": {"repo": "r", "commit_sha": "abcdef1\n"}}, "malformed_git", "commit_sha"),
        ({**WORK, "git": {"repo": "r", "ref": "a\0b"}}, "malformed_git", "ref"),
        (step(run="a\0b"), "malformed_payload", "NUL"),
        ({**WORK, "env": {"A": "b\0"}}, "malformed_payload", "NUL"),
        ({"steps": STEPS * 257}, "too_many_steps", "256"),
    ],
)
def test_what_is_wrong_is_said_by_its_place_and_never_by_its_value(payload: Any, code: str, place: str) -> None:
    assert place in rejected(payload, code)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"steps": [], "steps": [{"name": "x", "run": "id"}]}',
        b'{"steps": [{"name": "x", "run": "make", "run": "id"}]}',
        b'{"steps": [{"name": "x", "run": "id", "timeout_seconds": NaN}]}',
        b'{"steps": [{"name": "x", "run": "id", "timeout_seconds": 1e999}]}',
        b'{"steps": [{"name": "x", "run": "\\ud800"}]}',
        b'{"steps": [{"name": "x", "run": "\xff"}]}',
        b'{"steps": ' + b"[" * 100_000,
        b"{'steps': []}",
        b"",
        b" " * 1_100_000,
    ],
    ids=range(10),
)
def test_what_could_be_read_in_two_ways_is_not_read(raw: bytes) -> None:
    rejected(raw, "malformed_payload")


def test_a_work_shows_names_alone() -> None:
    work = work_of(claimed({"steps": [{"name": "deploy", "run": VALUE}], "env": {"A": VALUE}}), TRUST)

    assert VALUE not in repr(work) and "deploy" in repr(work)


def test_work_is_read_without_the_libraries_that_it_does_not_need() -> None:
    """An agent starts fast; who neither seals nor signs loads nothing for it."""
    code = (
        "import sys, msgspec; from hybridq.agent.work_of import work_of; from hybridq.agent.trust import Trust\n"
        "from hybridq.agent.secrets import Secrets; Secrets.of(); Trust()\n"
        "print(sorted({'nacl', 'joserfc', 'cryptography', 'httpx2', 'redis', 'asyncio'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


# -- the whole way ---------------------------------------------------------------------------------------------------

SIGNER, OPENER = SignKey.new(), OpenKey.new()
PLAIN: dict[str, Any] = {
    "steps": [{"name": "deploy", "run": "./deploy.sh", "env": {"REGION": "eu"}}],
    "env": {"TOKEN": {"secret_ref": "env://CI_TOKEN"}},
}
SECRET_INSIDE = {**PLAIN, "env": {"DB_PASSWORD": "Xk39fjsl2kd93kfs9"}}


def signed(work: dict[str, Any], job_id: str | None = "job-1", key: SignKey = SIGNER) -> dict[str, str]:
    return sign(work, key, pool="default", job_id=job_id, now=time.time(), valid_s=3600.0)


@pytest.fixture
def agent(api: Api) -> Iterator[Client]:
    with Client(api.url, token=api.key("queue:claim")) as client:
        yield client


def run(api: Api, agent: Client, payload: Any, trust: Trust, job_id: str = "job-1") -> Work:
    """Enqueue over HTTP, claim over HTTP, and read the work."""
    answer = api.post("/api/queue/jobs", {"job_id": job_id, "payload": payload})
    assert answer.status_code == 201, answer.text
    job = agent.claim(agent_id="builder-1", start=True).job
    assert job is not None and job.job_id == job_id
    try:
        return work_of(job, trust)
    finally:
        agent.complete(job.id, job.lease_token)


@pytest.mark.parametrize("form", ["plain", "signed", "sealed", "signed-and-sealed"])
def test_a_job_comes_through_a_real_server_as_it_was_ordered(api: Api, agent: Client, form: str) -> None:
    payload: Any = {
        "plain": lambda: PLAIN,
        "signed": lambda: signed(PLAIN),
        "sealed": lambda: seal(PLAIN, [OpenKey.new().public, OPENER.public], pool="default", job_id="job-1"),
        "signed-and-sealed": lambda: seal(signed(PLAIN), [OPENER.public]),
    }[form]()
    trust = Trust(
        verify_keys=[SIGNER.public.text],
        seal_keys=[OPENER.text],
        require_signature="signed" in form,
        pools=["default"],
    )

    work = run(api, agent, payload, trust)

    assert work.signed_by == (SIGNER.public.id if "signed" in form else None)
    assert work.sealed is ("sealed" in form)
    secrets = Secrets.of(["default=env://CI_*"], environ={"CI_TOKEN": VALUE})
    ready, env = secrets.resolve_work(work, pool="default")
    assert env.values == {"TOKEN": VALUE}
    assert env.secrets == ((VALUE, "eu") if work.sealed else (VALUE,))
    assert ready.steps[0].env == {"REGION": "eu"}


def test_a_batch_takes_signed_and_sealed_jobs(api: Api) -> None:
    jobs = [{"job_id": "job-1", "payload": signed(PLAIN)}, {"payload": seal(SECRET_INSIDE, [OPENER.public])}]

    answer = api.post("/api/queue/jobs:batch", {"jobs": jobs})

    assert [entry["status"] for entry in answer.json()["results"]] == [201, 201]


def test_a_secret_travels_sealed_and_not_otherwise(api: Api, agent: Client) -> None:
    """The server refuses it in clear, also under a signature, which hides nothing."""
    for payload, pointer in ((SECRET_INSIDE, "/payload/env/DB_PASSWORD"), (signed(SECRET_INSIDE), "/payload/signed")):
        refused = problem(api.post("/api/queue/jobs", {"payload": payload}), 422, "secret_suspected")
        assert [error["pointer"] for error in refused["errors"]] == [pointer]

    work = run(
        api,
        agent,
        seal(signed(SECRET_INSIDE), [OPENER.public]),
        Trust(seal_keys=[OPENER.text], verify_keys=[SIGNER.public.text]),
    )
    assert work.env == SECRET_INSIDE["env"]


def test_a_token_does_not_come_in_as_a_signed_job(api: Api) -> None:
    token = forged(SIGNER, {"sub": "repo:acme/app", "steps": []}, {"alg": "Ed25519", "kid": "k", "typ": "JWT"})

    for body in ({"payload": token}, {"payload": 1, "tags": {"signed": signed(PLAIN)["signed"][:200]}}):
        problem(api.post("/api/queue/jobs", body), 422, "secret_suspected")


def test_a_server_that_replays_a_signed_job_is_noticed(api: Api, agent: Client, tmp_path: Path) -> None:
    """Under another id it is another job's; and a signature for any job is spent by the first."""
    trust = Trust(verify_keys=[SIGNER.public.text], require_signature=True, replays=Replays(tmp_path))
    bound, free = signed(PLAIN), signed(PLAIN, job_id=None)
    assert run(api, agent, bound, trust)
    assert run(api, agent, free, trust, job_id="job-2")

    for payload, code in ((bound, "signature_for_another_job"), (free, "signature_replayed")):
        with pytest.raises(Rejected) as caught:
            run(api, agent, payload, trust, job_id=f"again-{code.replace('_', '-')}")
        assert caught.value.code == code


def test_a_rejected_job_fails_without_another_try(api: Api, agent: Client) -> None:
    job_id = api.post("/api/queue/jobs", {"job_id": "job-1", "payload": signed(PLAIN, key=SignKey.new())}).json()["id"]
    job = agent.claim(agent_id="builder-1", start=True).job
    assert job is not None

    with pytest.raises(Rejected) as caught:
        work_of(job, Trust(verify_keys=[SIGNER.public.text], require_signature=True))
    agent.complete(job.id, job.lease_token, "rejected", error=caught.value.error)

    found = api.get(f"/api/queue/jobs/{job_id}").json()
    assert (found["status"], found["error"]["code"]) == ("FAILED", "signature_unknown_key")


def test_payloads_are_kept_to_the_byte(api: Api, agent: Client) -> None:
    payload = signed(PLAIN)
    api.post("/api/queue/jobs", {"job_id": "job-1", "payload": payload})

    job = agent.claim(agent_id="builder-1").job

    assert job is not None and msgspec.json.decode(job.payload) == payload
