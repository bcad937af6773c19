"""Concurrency: calls that travel together, and races that only one may win."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import redis as redis_py

from hybridq import (
    AgentTokens,
    AsyncAccess,
    AsyncBackend,
    AsyncQueue,
    CredentialRefused,
    NewKey,
    RegistrationSpent,
    RenewalReused,
    Spent,
)
from tests.access.harness import BOOT
from tests.integration.conftest import scripts_run

CALL = {"peer": "192.0.2.1", "rate_class": "read", "limit_per_second": 0.0}


@pytest.fixture
async def backend(redis_url: str) -> AsyncIterator[AsyncBackend]:
    async with AsyncBackend(redis_url) as opened:
        yield opened


@pytest.fixture
async def access(backend: AsyncBackend) -> AsyncIterator[AsyncAccess]:
    async with AsyncAccess(redis=backend) as opened:
        yield opened


async def made(access: AsyncAccess, namespace: str) -> str:
    text = (await access.create_key("ci", scopes=["*"], namespace=namespace)).text
    assert text is not None
    return text


async def test_admissions_of_a_loop_turn_are_one_script_each_hundred(
    access: AsyncAccess, namespace: str, redis: redis_py.Redis
) -> None:
    text = await made(access, namespace)
    await access.admit(text, **CALL)
    before = scripts_run(redis)

    admitted = await asyncio.gather(*(access.admit(text, **CALL) for _ in range(200)))

    assert all(one.credential is not None for one in admitted)
    assert scripts_run(redis) - before <= 2


async def test_admissions_travel_with_what_else_the_turn_asks_for(
    access: AsyncAccess, backend: AsyncBackend, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One round trip for the admission and for another caller's enqueue."""
    text = await made(access, namespace)
    async with AsyncQueue("one", redis=backend, namespace=namespace) as one:
        await one.enqueue("build")
        await access.admit(text, **CALL)
        trips: list[list[str]] = []
        run_all = backend.runner.run_all
        monkeypatch.setattr(
            backend.runner,
            "run_all",
            lambda calls: trips.append([call.script.name for call in calls]) or run_all(calls),
        )
        await asyncio.gather(access.admit(text, **CALL), one.enqueue("build"))

    assert trips == [["auth/admit", "enqueue"]]


async def test_each_admission_is_answered_for_itself(access: AsyncAccess, namespace: str) -> None:
    texts = [await made(access, namespace) for _ in range(5)]
    asked = [text for text in (*texts, None, "nonsense") for _ in range(7)]

    admitted = await asyncio.gather(*(access.admit(text, **CALL) for text in asked))

    found = [None if one.credential is None else one.credential.id for one in admitted]
    assert found == [text[4:16] if text and text != "nonsense" else None for text in asked]


async def test_a_cancelled_admission_harms_no_other(access: AsyncAccess, namespace: str) -> None:
    text = await made(access, namespace)
    tasks = [asyncio.ensure_future(access.admit(text, **CALL)) for _ in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()

    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(not isinstance(one, BaseException) and one.credential for one in answers[1::2])


async def test_of_many_who_spend_the_last_use_one_wins(access: AsyncAccess, namespace: str) -> None:
    text = (await access.create_registration_key(namespace, "linux", uses=3)).text
    found = (await access.admit(text, **CALL)).credential
    assert found is not None

    spent = await asyncio.gather(
        *(access.spend_registration(found, f"agent-{n}/1") for n in range(20)), return_exceptions=True
    )

    assert sorted(one.left for one in spent if isinstance(one, Spent)) == [0, 1, 2]
    assert len([one for one in spent if isinstance(one, RegistrationSpent)]) == 17


async def test_of_many_rotations_with_one_token_two_are_given_and_the_rest_ends_the_family(
    access: AsyncAccess, namespace: str
) -> None:
    first = await access.enrol("one", pool="linux", namespace=namespace, **BOOT)  # type: ignore[arg-type]
    found = (await access.admit(first.renewal_text, **CALL)).credential
    assert found is not None

    rotated = await asyncio.gather(
        *(access.rotate_renewal(found, agent_id="one", **BOOT) for _ in range(6)),  # type: ignore[arg-type]
        return_exceptions=True,
    )

    assert [type(one) for one in rotated] == [AgentTokens] * 2 + [RenewalReused] + [CredentialRefused] * 3
    for one in rotated[:2]:
        assert isinstance(one, AgentTokens)
        assert (await access.admit(one.text, **CALL)).reason == "revoked"
        assert (await access.admit(one.renewal_text, **CALL)).reason == "revoked"
    assert len((await access.audit_page(namespace)).items) == 1


async def test_of_many_who_make_the_same_key_one_gets_its_text(access: AsyncAccess, namespace: str) -> None:
    keys = await asyncio.gather(
        *(access.create_key("ci", scopes=["*"], namespace=namespace, key_id="A" * 12) for _ in range(20))
    )

    assert len([one for one in keys if one.text is not None]) == 1
    assert all(isinstance(one, NewKey) and one.credential == keys[0].credential for one in keys)


async def test_of_many_who_take_one_login_one_has_it(access: AsyncAccess) -> None:
    await access.begin_login("state", verifier="v", nonce="n")
    taken = await asyncio.gather(*(access.take_login("state") for _ in range(20)))

    assert len([one for one in taken if one is not None]) == 1


async def test_a_revocation_is_seen_by_every_process_in_the_call_that_follows(
    redis_url: str, access: AsyncAccess, namespace: str
) -> None:
    text = await made(access, namespace)
    async with AsyncAccess(redis=redis_url) as other:
        assert (await other.admit(text, **CALL)).credential is not None
        await access.revoke_key(namespace, text[4:16])
        assert (await other.admit(text, **CALL)).reason == "revoked"


async def test_all_processes_sign_cursors_with_one_key(redis_url: str, redis: redis_py.Redis) -> None:
    async with AsyncAccess(redis=redis_url) as one, AsyncAccess(redis=redis_url) as other:
        keys = await asyncio.gather(*(access.signing_key() for access in (one, other) for _ in range(5)))

    assert len(set(keys)) == 1


def test_threads_share_one_access(redis_url: str, namespace: str) -> None:
    from hybridq import Access

    with Access(redis=redis_url) as access:
        text = access.create_key("ci", scopes=["*"], namespace=namespace).text
        found: list[bool] = []
        threads = [
            threading.Thread(target=lambda: found.append(access.admit(text, **CALL).credential is not None))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert found == [True] * 8
