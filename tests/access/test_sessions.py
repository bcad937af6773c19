"""People: sessions, logins under way, one-time links."""

from __future__ import annotations

from typing import Any

import pytest

from hybridq import InvalidArgument, OpenedSession, scopes, tokens
from tests.access.harness import DAY_MS, MINUTE_MS, NOW, AccessRig
from tests.contract.conftest import one_engine

IDLE_MS = 30 * MINUTE_MS


def opened(rig: AccessRig, person: str = "ann", **fields: Any) -> OpenedSession:
    return rig.access.open_session(person, **{"namespace": rig.namespace, "role": "operator", **fields})


def test_a_session_is_a_person_with_a_role(rig: AccessRig) -> None:
    found = rig.who(opened(rig).text)

    assert (found.kind, found.name, found.role, found.acts_as) == ("session", "ann", "operator", "ann")
    assert found.scopes == scopes.ROLES["operator"]
    assert found.namespace == rig.namespace


def test_scopes_of_one_s_own_instead_of_a_role(rig: AccessRig) -> None:
    found = rig.who(opened(rig, role=None, scopes=["audit:read"], pools=["a"]).text)

    assert (found.role, found.scopes, found.pools) == (None, {"audit:read"}, ("a",))
    for wrong in ({"role": None}, {"role": "king"}, {"scopes": ["audit:read"]}):
        with pytest.raises(InvalidArgument):
            opened(rig, **wrong)


def test_it_ends_when_it_was_idle_for_half_an_hour(rig: AccessRig) -> None:
    session = opened(rig)
    rig.now = NOW + IDLE_MS - 1
    assert rig.who(session.text).name == "ann"
    rig.now += IDLE_MS - 1
    assert rig.who(session.text).name == "ann", "a call keeps it"
    rig.now += IDLE_MS

    assert rig.reason(session.text) == "expired"


def test_a_refused_call_does_not_keep_it(rig: AccessRig) -> None:
    session = opened(rig)
    rig.now = NOW + IDLE_MS
    assert rig.reason(session.text) == "expired"
    rig.now += 1

    assert rig.reason(session.text) == "expired"


def test_it_ends_after_a_day_however_busy(rig: AccessRig) -> None:
    session = opened(rig)
    while rig.now < NOW + DAY_MS - IDLE_MS + 1:
        rig.now += IDLE_MS - 1
        rig.who(session.text)
    rig.now = NOW + DAY_MS

    assert rig.reason(session.text) == "expired"
    assert DAY_MS - 60_000 < rig.ttl_ms(f"session:{session.id}") <= DAY_MS


def test_both_ends_can_be_set(rig: AccessRig) -> None:
    session = opened(rig, life_s=10, idle_s=2)
    for _ in range(4):
        rig.now += 1999
        assert rig.who(session.text).name == "ann"
    rig.now = NOW + 10_000
    assert rig.reason(session.text) == "expired"


def test_a_login_ends_the_session_that_the_browser_had(rig: AccessRig) -> None:
    """Against fixation: what was known before the login is worth nothing after it."""
    before = opened(rig, "bob")
    after = opened(rig, "ann", replaces=before.id)

    assert rig.reason(before.text) == "unknown"
    assert rig.who(after.text).name == "ann"
    assert not rig.access.close_sessions("bob")


def test_a_closed_session_is_refused_at_once(rig: AccessRig) -> None:
    session, other = opened(rig), opened(rig)

    assert rig.access.close_session(session.id)
    assert not rig.access.close_session(session.id)
    assert rig.reason(session.text) == "unknown"
    assert rig.who(other.text).name == "ann"


def test_all_sessions_of_a_person_close_together(rig: AccessRig) -> None:
    mine, hers = [opened(rig) for _ in range(3)], opened(rig, "bob")

    assert rig.access.close_sessions("ann") == 3
    assert {rig.reason(one.text) for one in mine} == {"unknown"}
    assert rig.who(hers.text).name == "bob"
    assert rig.access.close_sessions("ann") == 0


def test_a_person_has_fifty_sessions_and_the_nearest_to_its_end_makes_room(rig: AccessRig) -> None:
    made = []
    for _ in range(52):
        rig.now += 1
        made.append(opened(rig))

    assert [rig.admit(one.text).credential is not None for one in made] == [False] * 2 + [True] * 50
    assert len([name for name in rig.names() if name.startswith("session:")]) == 50


def test_sessions_that_ended_leave_the_person_s_list(rig: AccessRig) -> None:
    opened(rig, life_s=10)
    rig.now += 10_000
    opened(rig)
    [index] = [name for name in rig.names() if name.startswith("sessions:")]

    assert rig.client.zcard(f"{rig.root}:{index}") == 1
    assert rig.ttl_ms(index) > 0


def test_a_long_session_keeps_the_list_for_as_long(rig: AccessRig) -> None:
    opened(rig, life_s=1000)
    opened(rig, life_s=10)
    [index] = [name for name in rig.names() if name.startswith("sessions:")]

    assert rig.ttl_ms(index) > 900_000


def test_the_csrf_token_is_the_session_s_and_the_cookie_gives_it_again(rig: AccessRig) -> None:
    session, other = opened(rig), opened(rig)
    found = rig.who(session.text)

    assert found.csrf_matches(session.csrf_token)
    assert found.csrf_matches(tokens.csrf_of(session.text))
    for wrong in (other.csrf_token, "", session.csrf_token + "x", session.text):
        assert not found.csrf_matches(wrong)
    assert not rig.who(rig.key()).csrf_matches(""), "a credential without a session has none"


# -- logins ------------------------------------------------------------------------------------------------


def test_a_login_is_taken_once(rig: AccessRig) -> None:
    rig.access.begin_login("state", verifier="v", nonce="n", redirect="/jobs")
    taken = rig.access.take_login("state")

    assert taken is not None and (taken.verifier, taken.nonce, taken.redirect) == ("v", "n", "/jobs")
    assert rig.access.take_login("state") is None
    assert rig.access.take_login("other") is None
    assert rig.names() == ["meta"]


def test_a_login_has_ten_minutes(rig: AccessRig) -> None:
    rig.access.begin_login("late", verifier="v", nonce="n")
    [name] = [name for name in rig.names() if name.startswith("login:")]
    assert 0 < rig.ttl_ms(name) <= 10 * MINUTE_MS
    rig.now += 10 * MINUTE_MS

    assert rig.access.take_login("late") is None
    rig.access.begin_login("next", verifier="v", nonce="n")
    assert rig.client.zcard(f"{rig.root}:logins") == 1


@one_engine
def test_of_ten_thousand_logins_the_oldest_makes_room(rig: AccessRig) -> None:
    rig.access.begin_login("oldest", verifier="v", nonce="n")
    far = {f"{n:064}": rig.now + DAY_MS + n for n in range(9_999)}
    rig.client.zadd(f"{rig.root}:logins", far)

    rig.access.begin_login("newest", verifier="v", nonce="n")

    assert rig.client.zcard(f"{rig.root}:logins") == 10_000
    assert rig.access.take_login("oldest") is None
    assert rig.access.take_login("newest") is not None


def test_a_one_time_link_lets_one_in_once(rig: AccessRig) -> None:
    text = rig.access.make_login_token("ann", namespace=rig.namespace, role="admin")
    wrong = tokens.make("login", text[4:16])
    assert rig.access.take_login_token(wrong) is None
    assert rig.access.take_login_token("nonsense") is None
    assert rig.access.take_login_token(rig.key()) is None
    taken = rig.access.take_login_token(text)

    assert taken is not None and (taken.person, taken.namespace, taken.role) == ("ann", rig.namespace, "admin")
    assert taken.scopes == scopes.ROLES["admin"]
    assert rig.access.take_login_token(text) is None


def test_a_one_time_link_has_ten_minutes(rig: AccessRig) -> None:
    text = rig.access.make_login_token("ann", namespace=rig.namespace, role="admin")
    assert 0 < rig.ttl_ms(f"link:{text[4:16]}") <= 10 * MINUTE_MS
    rig.now += 10 * MINUTE_MS

    assert rig.access.take_login_token(text) is None
