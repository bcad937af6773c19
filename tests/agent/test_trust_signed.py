"""Signed jobs: who may order work, which one, until when, and how a signature is not to be got round."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import OctKey, OKPKey, RSAKey
from nacl.signing import SigningKey

from hybridq import InvalidArgument, PayloadTooLarge, UsageError
from hybridq.agent.trust import KeyUnusable, Rejected, Replays, SignKey, VerifyKey, sign
from hybridq.agent.trust.canonical import NotPortable, canonical
from hybridq.agent.work_of import Work, work_of
from tests.agent.trusting import NOW, STEPS, WORK, b64, claimed, content_of, forged, signed_by, trusting, unb64

KEY, OTHER = SignKey.new(), SignKey.new()
HEADER = {"alg": "Ed25519", "kid": KEY.public.id, "typ": "hybridq-job"}


def ran(payload: Any, trust: Any = None, **job: Any) -> Work:
    return work_of(claimed(payload, **job), trust or trusting(KEY))


def rejected(payload: Any, code: str, trust: Any = None, **job: Any) -> str:
    with pytest.raises(Rejected) as caught:
        ran(payload, trust, **job)
    assert caught.value.code == code, caught.value
    assert caught.value.error == {"code": code, "message": caught.value.message}
    return caught.value.message


def content(**more: Any) -> dict[str, Any]:
    """A content as it should be; what is None is left out."""
    fields = content_of(signed_by(KEY)) | more
    return {name: value for name, value in fields.items() if value is not None}


# -- what counts ---------------------------------------------------------------------------------------------------


def test_what_was_signed_is_what_runs() -> None:
    work = {
        "steps": [{"name": "tests", "run": "make test", "timeout_seconds": 90.0, "env": {"A": "é\n"}}],
        "git": {"repo": "https://git.example.com/shop.git", "commit_sha": "4bf92f3577b34da6"},
        "env": {"TOKEN": {"secret_ref": "vault://ci/registry#token"}},
    }

    found = ran(signed_by(KEY, work))

    assert found.signed_by == KEY.public.id
    assert not found.sealed
    assert found.steps[0].timeout_seconds == 90
    assert found.git is not None and found.git.commit_sha == "4bf92f3577b34da6"
    assert str(found.env["TOKEN"]) == "vault://ci/registry#token"


def test_it_is_a_jws_that_others_can_verify() -> None:
    """RFC 7515 with RFC 9864's name of the algorithm, over RFC 8785's form."""
    payload = signed_by(KEY)
    public = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": b64(KEY.public.raw)})

    found = jws.deserialize_compact(payload["signed"], public, algorithms=["Ed25519"])

    assert found.headers() == HEADER
    assert found.payload == canonical(json.loads(found.payload))
    assert content_of(payload) | {"nonce": ""} == {
        "v": 1,
        "pool": "linux",
        "job_id": "job-1",
        "nonce": "",
        "issued_at": "2030-03-17T17:46:40Z",
        "not_after": "2030-03-17T18:46:40Z",
        "steps": STEPS,
    }


def test_a_large_job_can_be_signed_up_to_the_payload_s_limit() -> None:
    steps = [{"name": f"s{i}", "run": "x" * 60_000} for i in range(3)]

    assert len(ran(signed_by(KEY, {"steps": steps})).steps) == 3
    with pytest.raises(PayloadTooLarge):
        signed_by(KEY, {"steps": [*steps, *steps]})


def test_any_of_several_keys_counts(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{OTHER.public.text}\n{KEY.public.text}\n")
    trust = trusting(KEY, verify_keys=[str(tmp_path / "keys")])

    assert ran(signed_by(KEY), trust).signed_by == KEY.public.id
    assert ran(signed_by(OTHER), trust).signed_by == OTHER.public.id


def test_without_the_policy_signed_and_unsigned_jobs_run() -> None:
    trust = trusting(KEY, require_signature=False)

    assert ran(signed_by(KEY), trust).signed_by == KEY.public.id
    assert ran(WORK, trust).signed_by is None


def test_a_signature_that_cannot_be_judged_is_not_passed_over() -> None:
    """Also where unsigned jobs may run: whoever signed it wanted it to be checked."""
    rejected(signed_by(KEY), "signature_unknown_key", trusting(require_signature=False))


def test_with_the_policy_unsigned_jobs_do_not_run() -> None:
    rejected(WORK, "signature_required")
    rejected({**WORK, "signed_by": KEY.public.id}, "signature_required")
    rejected({}, "signature_required")


def test_a_policy_that_nothing_can_meet_is_refused_at_the_start() -> None:
    with pytest.raises(UsageError, match="verify keys"):
        trusting(require_signature=True)


# -- the wrong key, the wrong algorithm ------------------------------------------------------------------------------


def test_another_s_signature_does_not_count() -> None:
    rejected(signed_by(OTHER), "signature_unknown_key")


def test_another_s_signature_under_a_trusted_key_s_name_does_not_count() -> None:
    rejected(forged(OTHER, content(), HEADER), "signature_invalid")


def test_a_signature_counts_for_its_own_content_alone() -> None:
    one, two = signed_by(KEY)["signed"].split("."), signed_by(KEY, {"steps": [{"name": "x", "run": "id"}]})["signed"]

    rejected({"signed": ".".join([one[0], two.split(".")[1], one[2]])}, "signature_invalid")


def test_every_single_change_is_noticed() -> None:
    text = signed_by(KEY)["signed"]
    rng = random.Random(4)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

    for at in [*rng.sample(range(len(text)), 150), len(text) - 1]:
        changed = text[:at] + rng.choice(alphabet.replace(text[at], "")) + text[at + 1 :]
        with pytest.raises(Rejected) as caught:
            ran({"signed": changed})
        assert caught.value.code in ("signature_invalid", "signature_unknown_key")


def test_another_spelling_of_the_same_signature_is_rejected() -> None:
    """The last letter of 86 holds four bits that mean nothing."""
    text = signed_by(KEY)["signed"]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]
    assert unb64(other.split(".")[2]) == unb64(text.split(".")[2])

    rejected({"signed": other}, "signature_invalid")


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "HS256", "HS512", "RS256", "ES256", "EdDSA", "Ed448", "ed25519", ""]
)
def test_the_header_does_not_choose_the_algorithm(algorithm: str) -> None:
    """Even where the signature is good."""
    rejected(forged(KEY, content(), HEADER | {"alg": algorithm}), "signature_invalid")


def test_a_public_key_is_no_shared_secret() -> None:
    """The classic confusion: HMAC with the public key, in every spelling of it, as its key."""
    for secret in (KEY.public.raw, KEY.public.text.encode(), b64(KEY.public.raw).encode()):
        for header in (HEADER | {"alg": "HS256"}, HEADER):
            head = f"{b64(canonical(header))}.{b64(canonical(content()))}"
            for digest in ("sha256", "sha512"):
                mac = hmac.new(secret, head.encode(), getattr(hashlib, digest)).digest()
                rejected({"signed": f"{head}.{b64(mac)}"}, "signature_invalid")
                rejected({"signed": f"{head}.{b64((mac + mac)[:64])}"}, "signature_invalid")


def test_other_kinds_of_keys_do_not_count() -> None:
    rsa = RSAKey.generate_key(2048)
    octets = OctKey.import_key(KEY.public.raw)
    for algorithm, key in (("RS256", rsa), ("HS256", octets)):
        text = jws.serialize_compact(HEADER | {"alg": algorithm}, canonical(content()), key, algorithms=[algorithm])
        rejected({"signed": text}, "signature_invalid")


def test_no_signature_at_all_does_not_count() -> None:
    head = f"{b64(canonical(HEADER | {'alg': 'none'}))}.{b64(canonical(content()))}"
    good = signed_by(KEY)["signed"]

    for text in (
        head + ".",
        head,
        good.rpartition(".")[0] + ".",
        good.rpartition(".")[0] + "." + "A" * 86,
        good + ".A",
    ):
        rejected({"signed": text}, "signature_invalid")


@pytest.mark.parametrize(
    "more",
    [
        {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": b64(OTHER.public.raw)}},
        {"jku": "https://evil.example/keys.json"},
        {"x5u": "https://evil.example/cert.pem"},
        {"x5c": ["MIIB"]},
        {"crit": ["exp"], "exp": 1},
        {"b64": False, "crit": ["b64"]},
        {"zip": "DEF"},
        {"cty": "JWT"},
        {"typ": "JWT"},
        {"typ": None},
        {"kid": [KEY.public.id]},
        {"kid": None},
        {"kid": {"$ne": ""}},
    ],
    ids=lambda more: "-".join(more),
)
def test_a_header_brings_no_key_and_says_nothing_else(more: dict[str, Any]) -> None:
    """By whomever it was signed: the trusted key, or the one it brings along."""
    for signer in (KEY, OTHER):
        rejected(forged(signer, content(), HEADER | more), "signature_invalid")


@pytest.mark.parametrize(
    "kid",
    [
        "",
        "../keys/other",
        "/dev/null",
        "' OR 1=1",
        "*",
        "\0",
        KEY.public.text,
        KEY.public.id.lower(),
        KEY.public.id + "\n",
    ],
    # Not by their values: keys are made anew in each process, and test runners in parallel compare names.
    ids=["empty", "path", "device", "sql", "glob", "nul", "the key itself", "lower case", "with a line break"],
)
def test_a_key_s_name_is_a_name_in_a_table(kid: str) -> None:
    rejected(forged(KEY, content(), HEADER | {"kid": kid}), "signature_unknown_key")


def test_a_header_in_another_spelling_is_rejected() -> None:
    spelled = [
        json.dumps(HEADER).encode(),
        json.dumps(dict(reversed(HEADER.items())), separators=(",", ":")).encode(),
        canonical(HEADER)[:-1] + b',"kid":"' + OTHER.public.id.encode() + b'"}',
        b'{"kid":"' + OTHER.public.id.encode() + b'",' + canonical(HEADER)[1:],
        b"\xef\xbb\xbf" + canonical(HEADER),
        b"[]",
        b"\xff",
    ]
    for header in spelled:
        for signer in (KEY, OTHER):
            rejected(forged(signer, content(), header), "signature_invalid")


@pytest.mark.parametrize(
    "text",
    ["", "a", "a.b", "a.b.c", "a.b.c.d", "..", "=.=.=", " ", "\n", "x" * 700_000],
    ids=lambda text: repr(text)[:9],
)
def test_what_is_no_jws_is_rejected(text: str) -> None:
    rejected({"signed": text}, "signature_invalid")


@pytest.mark.parametrize("change", ["blank", "newline", "padding", "json", "flattened"])
def test_other_serialisations_are_rejected(change: str) -> None:
    text = signed_by(KEY)["signed"]
    parts = text.split(".")
    flattened = {"protected": parts[0], "payload": parts[1], "signature": parts[2]}
    changed = {
        "blank": " " + text,
        "newline": text + "\n",
        "padding": ".".join(part + "=" * (-len(part) % 4) for part in parts),
        "json": json.dumps(flattened),
        "flattened": flattened,
    }[change]

    rejected({"signed": changed}, "malformed_payload" if change == "flattened" else "signature_invalid")


def test_a_weak_key_is_no_key() -> None:
    """With a point of small order as the public key, some signatures hold for any content."""
    for raw in (bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f", b"\xff" * 32):
        with pytest.raises(KeyUnusable, match="Ed25519"):
            VerifyKey(raw)


def test_a_signature_with_a_scalar_that_is_too_large_is_rejected() -> None:
    """S and S + L are the same to the equation; only one of them is a signature (RFC 8032, 5.1.7)."""
    head, _, tail = signed_by(KEY)["signed"].rpartition(".")
    raw = unb64(tail)
    order = 2**252 + 27742317777372353535851937790883648493
    larger = int.from_bytes(raw[32:], "little") + order

    rejected({"signed": f"{head}.{b64(raw[:32] + larger.to_bytes(32, 'little'))}"}, "signature_invalid")


# -- the content -----------------------------------------------------------------------------------------------------


def test_the_test_s_own_signature_is_a_good_one() -> None:
    """So that the tests around it fail for what they say."""
    assert ran(forged(KEY, content())).signed_by == KEY.public.id


@pytest.mark.parametrize(
    "written",
    [
        lambda good: json.dumps(good).encode(),
        lambda good: canonical(good) + b"\n",
        lambda good: canonical(good)[:-1] + b',"v":1}',
        lambda good: canonical(good).replace(b'"steps":', b'"steps":[{"name":"x","run":"id"}],"steps":'),
        lambda good: canonical(good).replace(b'"v":1', b'"v":1.0'),
        lambda good: canonical(good).replace(b'"v":1', b'"v":1e0'),
        lambda good: canonical(good).replace(b"make", b"\\u006dake"),
        lambda good: b"\xef\xbb\xbf" + canonical(good),
        lambda good: canonical(good).replace(b"make", b"m\xffke"),
        lambda good: canonical(good).replace(b"make", b"\\ud800"),
        lambda good: canonical(good).replace(b'"v":1', b'"v":NaN'),
        lambda good: b"",
        lambda good: b"[" * 100_000,
        lambda good: canonical([good]),
        lambda good: canonical("x"),
    ],
    ids=range(15),
)
def test_content_in_another_form_is_rejected(written: Any) -> None:
    """Two readers could read it differently, so what was signed is not what would run."""
    rejected(forged(KEY, written(content())), "signature_invalid")


def test_content_in_another_spelling_of_its_base64_is_rejected() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    raw = canonical(content(steps=[{"name": "x", "run": "id"}]))
    while len(raw) % 3 == 0:
        raw = canonical(content(steps=[{"name": "x", "run": "id" + "x" * random.randrange(9)}]))
    segment = b64(raw)
    other = segment[:-1] + alphabet[alphabet.index(segment[-1]) ^ 1]
    assert unb64(other) == raw

    for text, good in ((segment, True), (other, False)):
        head = f"{b64(canonical(HEADER))}.{text}"
        payload = {"signed": f"{head}.{b64(SigningKey(KEY.raw).sign(head.encode()).signature)}"}
        if good:
            assert ran(payload)
        else:
            rejected(payload, "signature_invalid")


@pytest.mark.parametrize("name", ["labels", "Steps", "step", "timeout_seconds", "payload", "exp", "signed", ""])
def test_unknown_fields_are_rejected_and_named(name: str) -> None:
    assert name in rejected(forged(KEY, content(**{name: 1})), "unknown_field")


def test_unknown_fields_inside_are_rejected_and_named() -> None:
    for place in ({"steps": [{**STEPS[0], "image": "x"}]}, {"git": {"repo": "r", "image": "x"}}):
        assert "image" in rejected(forged(KEY, content(**place)), "unknown_field")


def test_a_name_that_is_a_secret_is_not_repeated() -> None:
    secret = "gh" + "p_" + "Ab3" * 12

    assert secret not in rejected(forged(KEY, content(**{secret: 1})), "unknown_field")
    assert secret not in rejected({"steps": STEPS, secret: 1}, "unknown_field", trusting())


@pytest.mark.parametrize("name", ["v", "pool", "nonce", "issued_at", "not_after", "steps"])
def test_what_must_be_there_must_be_there(name: str) -> None:
    rejected(forged(KEY, content(**{name: None})), "signature_invalid")


@pytest.mark.parametrize(
    "more",
    [
        {"v": 2},
        {"v": True},
        {"v": "1"},
        {"pool": 1},
        {"pool": ["linux"]},
        {"nonce": ""},
        {"nonce": "short"},
        {"nonce": "x" * 65},
        {"nonce": "a b" * 10},
        {"nonce": 1},
        {"job_id": 1},
        {"job_id": ["job-1"]},
        {"issued_at": 1_900_000_000},
        {"issued_at": "2030-03-17T17:46:40+00:00"},
        {"issued_at": "2030-03-17T17:46:40.5Z"},
        {"issued_at": "2030-02-30T17:46:40Z"},
        {"issued_at": "٢٠٣٠-03-17T17:46:40Z"},
        {"not_after": "2030-03-17T17:46:40Z"},
        {"not_after": "2030-03-17T17:46:39Z"},
        {"not_after": "2031-12-17T17:46:40Z"},
        {"not_after": "9999-12-31T23:59:59Z"},
    ],
    ids=lambda more: repr(more)[:40],
)
def test_what_is_said_beside_the_work_must_be_well_formed(more: dict[str, Any]) -> None:
    rejected(forged(KEY, content(**more)), "signature_invalid")


def test_a_null_job_id_is_not_no_job_id() -> None:
    bad = canonical(content()).replace(b'"job_id":"job-1"', b'"job_id":null')

    rejected(forged(KEY, bad), "signature_invalid")


def test_signed_work_is_checked_like_any_other() -> None:
    rejected(forged(KEY, content(steps=[])), "no_steps")
    rejected(forged(KEY, content(steps=[{"name": "x"}])), "malformed_steps")
    rejected(forged(KEY, content(env={"A": 1})), "malformed_env")


def test_a_signed_payload_stands_alone() -> None:
    rejected({**signed_by(KEY), "steps": STEPS}, "signature_required")
    rejected({**signed_by(KEY), "steps": STEPS}, "unknown_field", trusting(KEY, require_signature=False))
    rejected({**signed_by(KEY), "env": {"A": "b"}}, "no_steps", trusting(KEY, require_signature=False))
    rejected([signed_by(KEY)], "signature_required")
    rejected({"payload": signed_by(KEY)}, "signature_required")


# -- which job, and when ---------------------------------------------------------------------------------------------


def test_a_signature_is_its_job_s() -> None:
    rejected(signed_by(KEY), "signature_for_another_job", job_id="job-2")
    rejected(signed_by(KEY), "signature_for_another_job", job_id="JOB-1")
    rejected(signed_by(KEY), "signature_for_another_pool", pool="windows")


def test_the_same_job_may_come_again() -> None:
    """A lost lease, or a retry."""
    payload, trust = signed_by(KEY), trusting(KEY)

    assert ran(payload, trust, fence=1) == ran(payload, trust, fence=2)


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (NOW - 61, "signature_not_yet_valid"),
        (NOW - 60, None),
        (NOW, None),
        (NOW + 3600, None),
        (NOW + 3660, None),
        (NOW + 3661, "signature_expired"),
        (NOW + 10**9, "signature_expired"),
    ],
)
def test_it_counts_from_when_it_was_signed_until_it_ends(now: float, code: str | None) -> None:
    """With a minute for clocks that differ."""
    if code is None:
        assert ran(signed_by(KEY), trusting(KEY, now=now))
    else:
        rejected(signed_by(KEY), code, trusting(KEY, now=now))


def test_a_job_of_a_pool_that_the_agent_does_not_serve_is_rejected() -> None:
    """A server cannot make an agent work for another pool, with that pool's secrets."""
    trust = trusting(KEY, pools=["windows"])

    rejected(signed_by(KEY), "pool_not_served", trust)
    rejected(WORK, "pool_not_served", trusting(pools=["windows"]))
    assert ran(WORK, trusting(pools=["windows", "linux"]))


def test_a_job_whose_id_contradicts_itself_is_rejected() -> None:
    """The signature is compared with pool and job id; what runs is told the full id."""
    rejected(signed_by(KEY), "malformed_job", id="prod~job-1")
    rejected(signed_by(KEY), "malformed_job", id="linux~job-2")


# -- bound to no job -------------------------------------------------------------------------------------------------


@pytest.fixture
def remembering(tmp_path: Path) -> Any:
    return trusting(KEY, replays=Replays(tmp_path))


def test_a_signature_without_a_job_id_counts_for_one_job(remembering: Any, tmp_path: Path) -> None:
    payload = signed_by(KEY, job_id=None)

    assert ran(payload, remembering, job_id="job-7")
    assert ran(payload, remembering, job_id="job-7", fence=2), "the same job again"
    rejected(payload, "signature_replayed", remembering, job_id="job-8")
    rejected(payload, "signature_replayed", trusting(KEY, replays=Replays(tmp_path)), job_id="job-8")
    assert ran(signed_by(KEY, job_id=None), remembering, job_id="job-8"), "another signature of the same work"


def test_a_job_that_is_rejected_spends_nothing(remembering: Any) -> None:
    payload = forged(KEY, content(job_id=None, steps=[{"name": "x"}]))
    rejected(payload, "malformed_steps", remembering, job_id="job-7")
    good = signed_by(KEY, job_id=None)
    rejected(good, "signature_for_another_pool", remembering, pool="windows")

    assert ran(good, remembering, job_id="job-9")


def test_an_agent_that_remembers_nothing_rejects_it() -> None:
    rejected(signed_by(KEY, job_id=None), "signature_not_bound")


def test_without_a_job_id_it_is_valid_for_a_week_at_most(remembering: Any) -> None:
    week = 7 * 86_400.0
    assert ran(signed_by(KEY, job_id=None, valid_s=week), remembering)
    with pytest.raises(UsageError, match="valid"):
        signed_by(KEY, job_id=None, valid_s=week + 1)
    rejected(forged(KEY, content(job_id=None, not_after="2030-03-24T17:46:41Z")), "signature_invalid", remembering)


# -- signing ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_signed() -> None:
    with pytest.raises(UsageError, match="labels"):
        signed_by(KEY, {**WORK, "labels": []})
    with pytest.raises(UsageError, match="no steps"):
        signed_by(KEY, {"env": {}})
    with pytest.raises(InvalidArgument, match="pool"):
        signed_by(KEY, pool="a b")
    with pytest.raises(InvalidArgument, match="job_id"):
        signed_by(KEY, job_id="a~b")
    with pytest.raises(UsageError, match="valid"):
        signed_by(KEY, valid_s=0.5)
    with pytest.raises(UsageError, match="valid"):
        signed_by(KEY, valid_s=400 * 86_400.0)
    with pytest.raises(NotPortable):
        signed_by(KEY, {"steps": [{"name": "x", "run": "\ud800"}]})


def test_no_two_signatures_share_a_nonce() -> None:
    nonces = {content_of(signed_by(KEY))["nonce"] for _ in range(50)}

    assert len(nonces) == 50
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", nonce) for nonce in nonces)


def test_the_signature_is_what_another_library_makes() -> None:
    text = sign(WORK, KEY, pool="linux", job_id="job-1", now=NOW, valid_s=60.0)["signed"]
    head, _, signature = text.rpartition(".")

    assert SigningKey(KEY.raw).sign(head.encode()).signature == base64.urlsafe_b64decode(signature + "==")
