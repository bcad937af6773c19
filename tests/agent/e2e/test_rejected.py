"""An agent that runs signed jobs only: what does not hold is rejected once, runs nothing, and is in the audit trail."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from hybridq.agent import Job
from hybridq.agent.trust.canonical import canonical, parse
from hybridq.agent.trust.keys import SignKey
from hybridq.agent.trust.signed import sign
from tests.agent.e2e.agents import AgentProcess
from tests.agent.e2e.doings import payload
from tests.agent.e2e.house import House

Start = Callable[..., AgentProcess]


@pytest.fixture
def key() -> SignKey:
    return SignKey.new()


@pytest.fixture
def careful(agent: Start, room: Path, key: SignKey) -> AgentProcess:
    """An agent that runs what was signed with `key`."""
    (room / "trusted").write_text(key.public.text)
    return agent("a", require_signature=True, verify_keys=room / "trusted")


def marks(room: Path) -> dict[str, Any]:
    """Return work that leaves a mark, so that it is seen whether it ran."""
    return payload(f"echo $HYBRIDQ_JOB_ID >> '{room / 'ran'}'")


def ran(room: Path) -> list[str]:
    return (room / "ran").read_text().split() if (room / "ran").exists() else []


def signed(house: House, work: dict[str, Any], key: SignKey, job_id: str | None) -> dict[str, str]:
    return sign(work, key, pool=house.pool, job_id=job_id, now=time.time(), valid_s=600)


def signed_anew(text: str, key: SignKey, **more: Any) -> dict[str, str]:
    """Return the same content with more in it, under a signature that holds."""
    header, content, _ = text.split(".")
    changed = _b64(canonical(parse(_unb64(content)) | more))
    signature = SigningKey(key.raw).sign(f"{header}.{changed}".encode()).signature
    return {"signed": f"{header}.{changed}.{_b64(signature)}"}


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def run(house: House, body: dict[str, Any], job_id: str) -> Job:
    return house.wait_for_end(house.client.enqueue("t", body, job_id=job_id, pool=house.pool, max_attempts=3).id)


def must_be_rejected(house: House, careful: AgentProcess, job: Job, code: str) -> None:
    """Rejected once for all, by this agent, with a reason; and the audit trail says so."""
    assert (job.status, job.outcome) == ("FAILED", "rejected"), job
    assert job.error["code"] == code, job.error
    assert [(attempt.agent_id, attempt.outcome) for attempt in job.attempts] == [(careful.name, "rejected")]
    assert job.deliveries == 1, "not tried again"
    entries = [entry for entry in house.ask("GET", "/api/audit")["items"] if entry["action"] == "job.rejected"]
    about = [entry for entry in entries if job.id in str(entry["object"])]
    assert len(about) == 1, entries
    assert about[0]["outcome"] == code
    assert careful.name in about[0]["actor"]


def test_what_was_signed_well_runs(house: House, careful: AgentProcess, room: Path, key: SignKey) -> None:
    """Else the other tests would show nothing: the key is trusted, the form is right."""
    assert run(house, signed(house, marks(room), key, "good"), "good").status == "COMPLETED"
    resigned = signed_anew(signed(house, marks(room), key, "again")["signed"], key)
    assert run(house, resigned, "again").status == "COMPLETED"
    assert ran(room) == [f"{house.pool}~good", f"{house.pool}~again"]


def test_unknown_fields_in_a_signed_job_are_rejected(
    house: House, careful: AgentProcess, room: Path, key: SignKey
) -> None:
    good = signed(house, marks(room), key, "one")["signed"]
    must_be_rejected(house, careful, run(house, signed_anew(good, key, extra=1), "one"), "unknown_field")
    step = marks(room)["steps"][0] | {"retries": 3}
    work = signed_anew(signed(house, marks(room), key, "two")["signed"], key, steps=[step])
    must_be_rejected(house, careful, run(house, work, "two"), "unknown_field")
    assert ran(room) == []


def test_a_bad_signature_is_rejected(house: House, careful: AgentProcess, room: Path, key: SignKey) -> None:
    header, content, signature = signed(house, marks(room), key, "one")["signed"].split(".")
    other = signed(house, marks(room) | {"env": {"A": "1"}}, key, "one")["signed"].split(".")[1]
    changed = {"signed": f"{header}.{other}.{signature}"}
    must_be_rejected(house, careful, run(house, changed, "one"), "signature_invalid")
    stranger = signed(house, marks(room), SignKey.new(), "two")
    must_be_rejected(house, careful, run(house, stranger, "two"), "signature_unknown_key")
    must_be_rejected(house, careful, run(house, marks(room), "three"), "signature_required")
    assert content != other and ran(room) == []


def test_a_replayed_signature_is_rejected(house: House, careful: AgentProcess, room: Path, key: SignKey) -> None:
    bound = signed(house, marks(room), key, "one")
    assert run(house, bound, "one").status == "COMPLETED"
    must_be_rejected(house, careful, run(house, bound, "two"), "signature_for_another_job")
    free = signed(house, marks(room), key, None)
    assert run(house, free, "three").status == "COMPLETED"
    must_be_rejected(house, careful, run(house, free, "four"), "signature_replayed")
    assert ran(room) == [f"{house.pool}~one", f"{house.pool}~three"]


def test_a_replay_is_known_after_the_agent_was_killed(house: House, agent: Start, room: Path, key: SignKey) -> None:
    (room / "trusted").write_text(key.public.text)
    careful = agent("a", require_signature=True, verify_keys=room / "trusted", kept_up=True)
    free = signed(house, marks(room), key, None)
    assert run(house, free, "one").status == "COMPLETED"
    careful.kill()
    must_be_rejected(house, careful, run(house, free, "two"), "signature_replayed")
    assert ran(room) == [f"{house.pool}~one"]
