"""`hybridq keypair`, `sign`, `seal`: from keys on disk to a job that an agent would run."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hybridq.agent import ClaimedJob
from hybridq.agent.trust import OpenKey, Rejected, Replays, SignKey, Trust
from hybridq.agent.work_of import work_of

from .conftest import COMMAND, ROOT, Ran

WORK = {"steps": [{"name": "test", "run": "make test"}]}
PASSWORD = "Xk39fjsl2kd93kfs9"
Run = Callable[..., Ran]


@pytest.fixture
def hybridq(capsys: pytest.CaptureFixture[str]) -> Run:
    """None of these commands needs a server."""
    from hybridq.cli import main

    def run(*arguments: str | Path) -> Ran:
        code = main([str(one) for one in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def work(tmp_path: Path) -> Path:
    path = tmp_path / "work.json"
    path.write_text(json.dumps(WORK))
    return path


class Keys:
    """Both pairs, as the command makes them."""

    def __init__(self, hybridq: Run, folder: Path) -> None:
        self.sign, self.open = folder / "sign.key", folder / "open.key"
        self.verify = hybridq("keypair", "signing", self.sign).out.strip()
        self.seal = hybridq("keypair", "sealing", self.open).out.strip()

    def trust(self, **more: Any) -> Trust:
        return Trust(verify_keys=[self.verify], seal_keys=[str(self.open)], **more)


@pytest.fixture
def keys(hybridq: Run, tmp_path: Path) -> Keys:
    return Keys(hybridq, tmp_path)


def claimed(body: dict[str, Any]) -> ClaimedJob:
    """The job of a body of POST /api/queue/jobs, as an agent gets it."""
    pool, job_id = body["pool"], body.get("job_id", "job-of-the-server")
    return ClaimedJob(
        id=f"{pool}~{job_id}",
        job_id=job_id,
        pool=pool,
        status="RUNNING",
        payload=msgspec.Raw(json.dumps(body["payload"]).encode()),
        lease_token="1." + "0" * 32,
        fence=1,
        lease_expires_in_seconds=30.0,
    )


# -- keypair ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("purpose", "kind"), [("signing", SignKey), ("sealing", OpenKey)])
def test_a_pair_of_keys(hybridq: Run, tmp_path: Path, purpose: str, kind: type[SignKey]) -> None:
    path = tmp_path / "key"

    ran = hybridq("keypair", purpose, path)

    key = kind.of(path.read_text())
    assert (ran.code, ran.out) == (0, key.public.text + "\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key.text not in ran.out + ran.err
    assert key.public.id in ran.err and str(path) in ran.err


def test_a_pair_of_keys_as_json(hybridq: Run, tmp_path: Path) -> None:
    document = hybridq("keypair", "signing", tmp_path / "key", "--json").document

    key = SignKey.of((tmp_path / "key").read_text())
    assert document == {
        "purpose": "signing",
        "id": key.public.id,
        "public": key.public.text,
        "private_file": str(tmp_path / "key"),
    }


def test_a_key_is_never_written_over(hybridq: Run, keys: Keys, tmp_path: Path) -> None:
    before = keys.sign.read_text()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")

    for path in (keys.sign, tmp_path / "link", tmp_path, tmp_path / "no" / "folder"):
        assert hybridq("keypair", "signing", path).code == 2
    assert hybridq("keypair", "signing", keys.sign, "--json").error["code"] == "key_unusable"
    assert keys.sign.read_text() == before
    assert not (tmp_path / "elsewhere").exists()


# -- sign ------------------------------------------------------------------------------------------------------------


def test_a_signed_job_is_a_body_to_post(hybridq: Run, keys: Keys, work: Path) -> None:
    body = hybridq("sign", work, "--key", keys.sign, "--pool", "linux").document

    assert set(body) == {"pool", "job_id", "payload"} and body["pool"] == "linux"
    assert work_of(claimed(body), keys.trust(require_signature=True)).steps[0].run == "make test"
    for other in ({"job_id": "another"}, {"pool": "default"}):
        with pytest.raises(Rejected):
            work_of(claimed(body | other), keys.trust())


def test_the_work_may_come_from_a_pipe(keys: Keys) -> None:
    done = subprocess.run(
        [*COMMAND, "sign", "--key", str(keys.sign)], cwd=ROOT, input=json.dumps(WORK), capture_output=True, text=True
    )

    assert work_of(claimed(json.loads(done.stdout)), keys.trust()).signed_by is not None
    assert done.stderr == ""


def test_ids_are_new_or_as_told(hybridq: Run, keys: Keys, work: Path) -> None:
    ids = {hybridq("sign", work, "--key", keys.sign).document["job_id"] for _ in range(3)}
    assert len(ids) == 3 and all(re.fullmatch(r"job-[0-9a-f]{32}", one) for one in ids)
    assert hybridq("sign", work, "--key", keys.sign, "--job-id", "b-17").document["job_id"] == "b-17"


def test_a_signature_for_any_job(hybridq: Run, keys: Keys, work: Path, tmp_path: Path) -> None:
    body = hybridq("sign", work, "--key", keys.sign, "--any-job").document

    assert "job_id" not in body
    with pytest.raises(Rejected):
        work_of(claimed(body), keys.trust())
    assert work_of(claimed(body), keys.trust(replays=Replays(tmp_path / "memory")))


def test_the_payload_alone(hybridq: Run, keys: Keys, work: Path) -> None:
    ran = hybridq("sign", work, "--key", keys.sign, "--payload-only", "--job-id", "b-17", "--pool", "linux")

    assert set(ran.document) == {"signed"}
    assert "b-17" in ran.err and "linux" in ran.err


def test_how_long_it_counts(hybridq: Run, keys: Keys, work: Path) -> None:
    def expires_s(*arguments: str) -> float:
        body = hybridq("sign", work, "--key", keys.sign, *arguments).document
        for after in (0.0, 7_000.0, 90_000.0, 3 * 86_400.0):
            now = time.time() + after
            try:
                work_of(claimed(body), keys.trust(clock=lambda now=now: now))
            except Rejected as no:
                assert no.code == "signature_expired"
                return after
        return float("inf")

    assert expires_s("--valid-for", "90m") == 7_000.0
    assert expires_s() == 90_000.0
    assert expires_s("--valid-for", "2d") == 3 * 86_400.0
    for wrong in ("0d", "-1d", "soon", "never", "1", "d", "1.5h", "²d", "9999999d", "400d"):
        assert hybridq("sign", work, "--key", keys.sign, f"--valid-for={wrong}").code == 2
    assert hybridq("sign", work, "--key", keys.sign, "--any-job", "--valid-for", "8d").code == 2


def test_signed_and_sealed_at_once(hybridq: Run, keys: Keys, work: Path) -> None:
    work.write_text(json.dumps(WORK | {"env": {"DB_PASSWORD": PASSWORD}}))

    ran = hybridq("sign", work, "--key", keys.sign, "--seal-to", keys.seal)

    assert set(ran.document["payload"]) == {"sealed"} and ran.err == ""
    found = work_of(claimed(ran.document), keys.trust(require_signature=True))
    assert found.sealed and found.signed_by and found.env == {"DB_PASSWORD": PASSWORD}


def test_a_secret_that_a_signature_would_show_is_pointed_out(hybridq: Run, keys: Keys, work: Path) -> None:
    work.write_text(json.dumps(WORK | {"env": {"DB_PASSWORD": PASSWORD}}))

    ran = hybridq("sign", work, "--key", keys.sign)

    assert ran.code == 0 and "/env/DB_PASSWORD" in ran.err
    assert PASSWORD not in ran.err


# -- seal ------------------------------------------------------------------------------------------------------------


def test_a_sealed_job_is_a_body_to_post(hybridq: Run, keys: Keys, work: Path) -> None:
    body = hybridq("seal", work, "--to", keys.seal, "--pool", "linux", "--job-id", "b-17").document

    assert (body["pool"], body["job_id"], set(body["payload"])) == ("linux", "b-17", {"sealed"})
    assert work_of(claimed(body), keys.trust()).sealed
    for other in ({"job_id": "another"}, {"pool": "default"}):
        with pytest.raises(Rejected):
            work_of(claimed(body | other), keys.trust())


def test_sealed_to_several_and_for_any_job(hybridq: Run, keys: Keys, work: Path, tmp_path: Path) -> None:
    more = [OpenKey.new() for _ in range(3)]
    (tmp_path / "keys").write_text("".join(f"{key.public.text}\n" for key in more[1:]))

    body = hybridq("seal", work, "--to", more[0].public.text, "--to", tmp_path / "keys", "--any-job").document

    assert "job_id" not in body
    for key in more:
        assert work_of(claimed(body | {"job_id": "x"}), Trust(seal_keys=[key.text])).sealed


# -- wrong -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "null", '{"steps": []}', '{"steps": [{"name": "a"}]}', '{"commit": "4f2a"}'),
        '{"steps": [{"name": "a", "run": "b", "image": "hunter2"}]}',
        '{"steps": [{"name": "a", "run": "hunter2", "run": "c"}]}',
        '{"steps": [{"name": "a", "run": "b", "timeout_seconds": NaN}]}',
        '{"steps": [{"name": "a", "run": "b"}], "labels": ["hunter2"]}',
        '{"signed": "hunter2"}',
    ],
)
def test_what_no_agent_would_run_is_neither_signed_nor_sealed(
    hybridq: Run, keys: Keys, work: Path, content: str
) -> None:
    work.write_text(content)

    for command in (("sign", work, "--key", keys.sign), ("seal", work, "--to", keys.seal)):
        ran = hybridq(*command)
        assert (ran.code, ran.out) == (2, "")
        assert "hunter2" not in ran.err and ran.err.count("\n") == 1


def test_keys_that_do_not_fit_are_refused_and_not_shown(hybridq: Run, keys: Keys, work: Path) -> None:
    private = [keys.sign.read_text().strip(), keys.open.read_text().strip()]
    keys.open.chmod(0o600)
    tries: list[tuple[str | Path, ...]] = [
        ("seal", work, "--to", keys.sign),
        ("seal", work, "--to", keys.open),
        ("seal", work, "--to", keys.verify),
        ("seal", work, "--to", private[0]),
        ("seal", work, "--to", private[1]),
        ("seal", work, "--to", keys.seal[:-1]),
        ("seal", work),
        ("sign", work),
        ("sign", work, "--key", keys.open),
        ("sign", work, "--key", keys.verify),
        ("sign", work, "--key", private[1]),
        ("sign", work, "--key", private[0][:-1] + "!"),
        ("sign", work, "--key", work),
        ("sign", work.with_name("nothing"), "--key", keys.sign),
        ("sign", work.parent, "--key", keys.sign),
        ("sign", work, "--key", "no-such-file"),
        ("sign", work, "--key", keys.sign, "--seal-to", private[1]),
        ("sign", work, "--key", keys.sign, "--job-id", "a~b"),
        ("sign", work, "--key", keys.sign, "--pool", "a b"),
        ("sign", work, "--key", keys.sign, "--job-id", "a", "--any-job"),
        ("seal", work, "--to", keys.seal, "--pool", "a b"),
    ]
    for arguments in tries:
        ran = hybridq(*arguments)
        assert (ran.code, ran.out) == (2, ""), arguments
        assert not any(key[8:40] in ran.err for key in private), arguments


def test_a_private_key_that_others_may_read_signs_nothing(hybridq: Run, keys: Keys, work: Path) -> None:
    keys.sign.chmod(0o644)

    ran = hybridq("sign", work, "--key", keys.sign)

    assert ran.code == 2 and "chmod 600" in ran.err


def test_errors_are_json_where_asked(hybridq: Run, keys: Keys, work: Path) -> None:
    work.write_text("{}")

    assert hybridq("sign", work, "--key", keys.sign, "--json").error["code"] == "usage_error"
    assert hybridq("seal", work, "--to", "hqseal_x", "--json").error["code"] == "key_unusable"


def test_without_the_agent_s_libraries_one_line_says_what_to_install(tmp_path: Path) -> None:
    script = (
        "import importlib.util, sys; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name == 'nacl' else find(name)\n"
        f"from hybridq.cli import main; sys.exit(main(['keypair', 'signing', {str(tmp_path / 'key')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 2 and "hybridq[agent]" in done.stderr
    assert not (tmp_path / "key").exists()


def test_the_command_line_loads_no_cryptography_to_begin_with() -> None:
    script = "import sys; from hybridq.cli import _app; print(*sorted({'nacl', 'joserfc'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""
