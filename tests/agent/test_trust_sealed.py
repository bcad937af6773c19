"""Sealed payloads: whom they open to, for which job, and what becomes of one that was touched."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from nacl.public import PublicKey, SealedBox
from nacl.secret import Aead

from hybridq import PayloadTooLarge, UsageError, guard
from hybridq.agent.trust import OpenKey, Rejected, SealKey, SignKey, seal
from hybridq.agent.trust.canonical import canonical
from hybridq.agent.trust.sealed import RECIPIENTS_MAX, unseal
from hybridq.agent.work_of import work_of
from tests.agent.trusting import STEPS, WORK, b64, claimed, signed_by, trusting, unb64

KEY, OTHER = OpenKey.new(), OpenKey.new()
SECRET = "correct horse battery staple"
PLAIN = {**WORK, "env": {"DB_PASSWORD": SECRET}}


def rejected(payload: Any, code: str, keys: tuple[OpenKey, ...] = (KEY,), **job: Any) -> str:
    """The job is rejected with this code, and the message says nothing of its content."""
    with pytest.raises(Rejected) as caught:
        work_of(claimed(payload, **job), trusting(seal_keys=[key.text for key in keys]))
    assert (caught.value.code, caught.value.error["code"]) == (code, code)
    assert SECRET not in str(caught.value)
    return caught.value.message


def by_hand(content: Any, key: SealKey = KEY.public, count: int | None = None) -> dict[str, str]:
    """A sealed payload of whatever content, made without the code under test."""
    raw = content if isinstance(content, bytes) else canonical(content)
    content_key, nonce = random.randbytes(32), random.randbytes(24)
    head = unb64("HQS1") + bytes([1 if count is None else count])
    head += key.id[:8].encode() + SealedBox(PublicKey(key.raw)).encrypt(content_key)
    return {"sealed": b64(head + Aead(content_key).encrypt(raw, head, nonce))}


# -- who can read it -----------------------------------------------------------------------------------------------


def test_what_was_sealed_is_what_is_opened() -> None:
    work = work_of(claimed(seal(PLAIN, [KEY.public])), trusting(seal_keys=[KEY.text]))

    assert (work.sealed, work.signed_by) == (True, None)
    assert work.env == {"DB_PASSWORD": SECRET}
    assert [step.run for step in work.steps] == ["make test"]


def test_each_of_several_recipients_opens_it_alone() -> None:
    """So keys can be changed: seal to the old and the new one until every agent has the new one."""
    keys = [OpenKey.new() for _ in range(RECIPIENTS_MAX)]
    payload = seal(PLAIN, [key.public for key in keys])

    for key in keys:
        assert unseal(payload["sealed"], [key]).payload == PLAIN
        assert unseal(payload["sealed"], [OTHER, key]).payload == PLAIN
    assert "does not have" in rejected(payload, "sealed_unreadable")


def test_without_its_key_it_is_rejected() -> None:
    assert "does not have" in rejected(seal(PLAIN, [OTHER.public]), "sealed_unreadable")
    assert "seal_keys" in rejected(seal(PLAIN, [KEY.public]), "sealed_unreadable", keys=())


def test_nothing_of_it_can_be_read_and_no_two_are_alike() -> None:
    one, two = (seal(PLAIN, [KEY.public])["sealed"] for _ in range(2))

    assert SECRET.encode() not in unb64(one)
    assert one[4 + 2 + 12 + 108 :] != two[4 + 2 + 12 + 108 :]
    assert len({unb64(text)[-16:] for text in (one, two)}) == 2
    assert SECRET not in repr(unseal(one, [KEY]))
    assert SECRET not in repr(work_of(claimed({"sealed": one}), trusting(seal_keys=[KEY.text])))


def test_it_passes_the_guard_as_it_stands() -> None:
    for count in (1, 2, RECIPIENTS_MAX):
        payload = seal(PLAIN, [OpenKey.new().public for _ in range(count)])
        assert guard.scan({"payload": payload}) == []
        assert guard.redact_value(payload) == (payload, 0)


def test_what_cannot_be_sealed() -> None:
    with pytest.raises(UsageError, match="1 to 32"):
        seal(PLAIN, [])
    with pytest.raises(UsageError, match="1 to 32"):
        seal(PLAIN, [OpenKey.new().public for _ in range(RECIPIENTS_MAX + 1)])
    with pytest.raises(UsageError, match="already"):
        seal(seal(PLAIN, [KEY.public]), [KEY.public])
    with pytest.raises(PayloadTooLarge):
        seal({"steps": [{"name": "a", "run": "x" * 200_000}]}, [KEY.public])
    with pytest.raises(UsageError, match="pool"):
        seal(PLAIN, [KEY.public], pool="a/b")
    for weak in (bytes(32), b"\x01" + bytes(31)):
        with pytest.raises(UsageError, match="X25519"):
            seal(PLAIN, [SealKey(weak)])


# -- for which job -------------------------------------------------------------------------------------------------


def test_what_was_sealed_for_a_job_is_that_job_s() -> None:
    payload = seal(PLAIN, [KEY.public], pool="linux", job_id="job-1")

    assert work_of(claimed(payload), trusting(seal_keys=[KEY.text])).sealed
    rejected(payload, "sealed_for_another_job", job_id="job-2")
    rejected(payload, "sealed_for_another_pool", pool="windows")


def test_payloads_of_two_jobs_that_were_swapped_are_rejected() -> None:
    one = seal(PLAIN, [KEY.public], pool="linux", job_id="job-1")
    two = seal(PLAIN, [KEY.public], pool="linux", job_id="job-2")

    rejected(one, "sealed_for_another_job", job_id="job-2")
    rejected(two, "sealed_for_another_job", job_id="job-1")


def test_the_label_is_sealed_with_it() -> None:
    """Heads of one and bodies of the other do not fit."""
    one, two = (unb64(seal(PLAIN, [KEY.public], job_id=job_id)["sealed"]) for job_id in ("job-1", "job-2"))
    head = 4 + 8 + 80

    rejected({"sealed": b64(one[:head] + two[head:])}, "sealed_unreadable")
    assert unseal(b64(one), [KEY]).job_id == "job-1"


# -- sealed and signed ---------------------------------------------------------------------------------------------


def test_a_signed_job_may_be_sealed() -> None:
    signer = SignKey.new()
    payload = seal(signed_by(signer, PLAIN), [KEY.public])

    work = work_of(claimed(payload), trusting(signer, seal_keys=[KEY.text]))

    assert (work.sealed, work.signed_by) == (True, signer.public.id)


def test_a_seal_is_no_signature() -> None:
    """Anybody can seal with a public key."""
    with pytest.raises(Rejected) as caught:
        work_of(claimed(seal(PLAIN, [KEY.public])), trusting(SignKey.new(), seal_keys=[KEY.text]))

    assert caught.value.code == "signature_required"


def test_a_signed_job_that_was_sealed_again_is_still_its_job_s() -> None:
    """Who opened it may seal it to others; the signature inside says for which job it was."""
    signer = SignKey.new()
    moved = seal(signed_by(signer, PLAIN), [KEY.public], pool="linux", job_id="job-2")

    with pytest.raises(Rejected) as caught:
        work_of(claimed(moved, job_id="job-2"), trusting(signer, seal_keys=[KEY.text]))

    assert caught.value.code == "signature_for_another_job"


def test_what_is_sealed_twice_is_not_opened_twice() -> None:
    inner = seal(PLAIN, [KEY.public])

    rejected(by_hand({"v": 1, "payload": inner}), "no_steps")


# -- touched -------------------------------------------------------------------------------------------------------


def test_every_single_change_is_noticed() -> None:
    raw = bytearray(unb64(seal(PLAIN, [KEY.public, OTHER.public])["sealed"]))
    rng = random.Random(3)

    for at in [*range(4 + 2 * 88 + 24), *rng.sample(range(len(raw)), 60)]:
        changed = bytearray(raw)
        changed[at] ^= 1 << rng.randrange(8)
        rejected({"sealed": b64(bytes(changed))}, "sealed_unreadable")


def test_a_recipient_cannot_be_taken_away_or_added() -> None:
    raw = unb64(seal(PLAIN, [KEY.public, OTHER.public])["sealed"])
    alone = raw[:3] + b"\x01" + raw[4 : 4 + 88] + raw[4 + 2 * 88 :]
    more = raw[:3] + b"\x03" + raw[4 : 4 + 2 * 88] + raw[4 : 4 + 88] + raw[4 + 2 * 88 :]

    for touched in (alone, more):
        assert "changed" in rejected({"sealed": b64(touched)}, "sealed_unreadable")


def test_a_text_of_any_length_is_answered() -> None:
    text = seal(PLAIN, [KEY.public])["sealed"]

    for length in (*range(8), *range(60, 80), *range(len(text) - 8, len(text))):
        rejected({"sealed": text[:length]}, "sealed_unreadable")


@pytest.mark.parametrize("cut", [0, 4, 10, 100, 200])
def test_what_was_cut_off_is_rejected(cut: int) -> None:
    raw = unb64(seal(PLAIN, [KEY.public])["sealed"])

    rejected({"sealed": b64(raw[:cut])}, "sealed_unreadable")
    rejected({"sealed": b64(raw[: len(raw) - cut - 1])}, "sealed_unreadable")


@pytest.mark.parametrize(
    "text",
    ["", "HQS1", "HQS1" + "A" * 200, "HQS2" + "A" * 200, "x" * 600_000, "HQS1" + "=" * 100, "HQS1\n" + "A" * 100]
    + ["HQS1" + b64(bytes([count])) + "A" * 400 for count in (0, 33, 255)],
    ids=lambda text: repr(text)[:14],
)
def test_what_never_was_sealed_is_rejected(text: str) -> None:
    rejected({"sealed": text}, "sealed_unreadable")


def test_another_spelling_of_the_same_bytes_is_rejected() -> None:
    text = seal({**PLAIN, "env": {"A": "1"}}, [KEY.public])["sealed"]
    while len(text) % 4 == 0:
        text = seal({**PLAIN, "env": {"A": "1" * random.randrange(9)}}, [KEY.public])["sealed"]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]
    assert unb64(other) == unb64(text)

    rejected({"sealed": other}, "sealed_unreadable")
    rejected({"sealed": text + "="}, "sealed_unreadable")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"not json",
        {"payload": PLAIN},
        {"v": 2, "payload": PLAIN},
        {"v": True, "payload": PLAIN},
        {"v": 1.5, "payload": PLAIN},
        {"v": 1, "payload": PLAIN, "more": 1},
        {"v": 1, "payload": PLAIN, "pool": 1},
        {"v": 1, "payload": PLAIN, "job_id": ["job-1"]},
        {"v": 1},
        json.dumps({"v": 1, "payload": PLAIN}).encode(),
        b'{"payload":{"steps":[]},"payload":{},"v":1}',
    ],
    ids=range(14),
)
def test_content_of_another_form_is_rejected(content: Any) -> None:
    rejected(by_hand(content), "sealed_unreadable")


def test_the_test_s_own_seal_is_a_good_one() -> None:
    """So that the tests above fail for what they say."""
    assert work_of(claimed(by_hand({"v": 1, "payload": WORK})), trusting(seal_keys=[KEY.text])).sealed


@pytest.mark.parametrize("payload", [{"v": 1}, [], "x", None, {"steps": []}, {"sealed": "x"}], ids=repr)
def test_what_is_opened_is_read_like_any_payload(payload: Any) -> None:
    rejected(by_hand({"v": 1, "payload": payload}), "no_steps")


def test_sealed_beside_other_fields_is_a_field_that_nobody_knows() -> None:
    rejected({**seal(PLAIN, [KEY.public]), "steps": STEPS}, "unknown_field")
    rejected({"sealed": 1}, "malformed_payload")
    rejected({"sealed": {"a": "b"}}, "malformed_payload")
