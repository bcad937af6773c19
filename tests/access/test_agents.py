"""Agents' tokens: short ones that stand on a family, and renewal tokens that tell a thief from a lost reply."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridq import AgentTokens, CredentialRefused, InvalidArgument, RenewalReused, tokens
from tests.access.harness import BOOT, DAY_MS, MINUTE_MS, NOW, AccessRig
from tests.contract.conftest import one_engine

WEEK_MS = 7 * DAY_MS


def test_an_agent_token_says_which_agent_it_is_and_what_it_may(rig: AccessRig) -> None:
    made = rig.enrol(labels={"os": "linux"}, created_by="registration:x", generation=7)
    found = rig.who(made.text)

    assert (found.kind, found.agent_id, found.session_id, found.generation) == ("agent", "one", "s-1", 7)
    assert (found.boot_id, found.pool, found.pools) == ("boot-1", "linux", ("linux",))
    assert (found.namespace, found.family_id, found.labels) == (rig.namespace, made.family_id, {"os": "linux"})
    assert found.scopes == {"queue:claim"}
    assert found.acts_as == "agent:one"


def test_a_renewal_token_may_only_register(rig: AccessRig) -> None:
    found = rig.who(rig.enrol().renewal_text)

    assert (found.kind, found.agent_id, found.boot_id) == ("renewal", "one", "boot-1")
    assert found.scopes == {"agents:register"}


def test_an_agent_token_lasts_a_quarter_of_an_hour(rig: AccessRig) -> None:
    made = rig.enrol()
    rig.now = NOW + 15 * MINUTE_MS - 1
    assert rig.who(made.text).agent_id == "one"
    rig.now += 1

    assert rig.reason(made.text) == "expired"
    assert made.expires_at.timestamp() * 1000 == rig.now
    assert 0 < rig.ttl_ms(f"agent_token:{made.id}") <= 15 * MINUTE_MS


def test_a_renewal_token_lasts_a_week_after_the_last_token_of_its_family(rig: AccessRig) -> None:
    """An agent that beats for a month without a restart still comes back by itself after an outage."""
    made = rig.enrol()
    for _ in range(5):
        rig.now += WEEK_MS - 1
        rig.access.issue_agent_token(made.family_id)
    assert rig.who(made.renewal_text).agent_id == "one"

    rig.now += WEEK_MS
    assert rig.reason(made.renewal_text) == "expired"
    with pytest.raises(CredentialRefused, match="expired"):
        rig.access.issue_agent_token(made.family_id)


def test_the_family_s_records_end_by_themselves(rig: AccessRig) -> None:
    made = rig.enrol()

    for name in (f"renewal:{made.family_id}", f"family_of:{rig.namespace}/one"):
        assert WEEK_MS - 60_000 < rig.ttl_ms(name) <= WEEK_MS


def test_the_next_token_is_another_and_the_last_one_goes_on(rig: AccessRig) -> None:
    made = rig.enrol()
    rig.now += 10 * MINUTE_MS
    issued = rig.access.issue_agent_token(made.family_id)

    assert rig.who(issued.text).agent_id == rig.who(made.text).agent_id == "one"
    assert issued.text != made.text


def test_rotation_gives_the_next_renewal_token_and_a_token(rig: AccessRig) -> None:
    first = rig.enrol()
    second = rig.rotate(first.renewal_text, session_id="s-2", generation=2)
    third = rig.rotate(second.renewal_text)

    assert len({first.renewal_text, second.renewal_text, third.renewal_text}) == 3
    assert first.family_id == second.family_id == third.family_id
    assert rig.who(third.text).agent_id == "one"
    assert rig.who(first.text).agent_id == "one", "what was given before goes on until its end"


def test_the_family_follows_the_session(rig: AccessRig) -> None:
    first = rig.enrol()
    rig.rotate(first.renewal_text, session_id="s-2", generation=2)

    found = rig.who(first.text)
    assert (found.session_id, found.generation) == ("s-2", 2)


def test_a_lost_reply_costs_nothing(rig: AccessRig) -> None:
    """The agent never saw the second token, and presents the first again."""
    first = rig.enrol()
    rig.rotate(first.renewal_text)
    again = rig.rotate(first.renewal_text)

    assert rig.who(again.renewal_text).agent_id == "one"
    assert rig.rotate(again.renewal_text)
    assert rig.audit() == []


def everything_is_refused(rig: AccessRig, *made: AgentTokens) -> None:
    for one in made:
        assert rig.admit(one.text).credential is None
        assert rig.admit(one.renewal_text).credential is None


def test_a_stolen_previous_token_is_accepted_once_and_then_revokes_both(rig: AccessRig) -> None:
    stolen = rig.enrol()
    owner = rig.rotate(stolen.renewal_text)
    thief = rig.rotate(stolen.renewal_text)

    assert rig.reason(owner.renewal_text) == "revoked", "the owner's next call gives it away"

    everything_is_refused(rig, stolen, owner, thief)
    assert rig.audit() == [("agent:one", "renewal.reused", stolen.family_id, "revoked")]
    with pytest.raises(CredentialRefused):
        rig.access.issue_agent_token(stolen.family_id)


def test_a_previous_token_that_comes_a_second_time_revokes_the_family(rig: AccessRig) -> None:
    first = rig.enrol()
    second = rig.rotate(first.renewal_text)
    third = rig.rotate(first.renewal_text)

    assert rig.reason(first.renewal_text) == "revoked"
    everything_is_refused(rig, first, second, third)


def test_the_script_that_rotates_sees_it_too(rig: AccessRig) -> None:
    """Two that were admitted before either rotated: the third to come is the one too many."""
    first = rig.enrol()
    admitted = rig.who(first.renewal_text)
    said = {"agent_id": "one", **BOOT}
    made = [rig.access.rotate_renewal(admitted, **said) for _ in range(2)]  # type: ignore[arg-type]

    with pytest.raises(RenewalReused):
        rig.access.rotate_renewal(admitted, **said)  # type: ignore[arg-type]

    everything_is_refused(rig, first, *made)
    assert [line[1] for line in rig.audit()] == ["renewal.reused"]
    with pytest.raises(CredentialRefused, match="revoked"):
        rig.access.rotate_renewal(admitted, **said)  # type: ignore[arg-type]
    assert len(rig.audit()) == 1, "once it is over, it is not news"


def test_a_thief_who_rotates_on_is_found_out_by_the_owner_s_next_call(rig: AccessRig) -> None:
    """The thief comes first and twice: the token that the owner holds is older than the previous one."""
    owner = rig.enrol()
    thief = rig.rotate(rig.rotate(owner.renewal_text).renewal_text)

    assert rig.reason(owner.renewal_text) == "revoked"
    everything_is_refused(rig, owner, thief)


def test_sixteen_older_tokens_are_remembered_and_what_is_older_is_merely_unknown(rig: AccessRig) -> None:
    made = [rig.enrol()]
    for _ in range(18):
        made.append(rig.rotate(made[-1].renewal_text))

    assert rig.reason(made[0].renewal_text) == "unknown"
    assert len(rig.hash(f"renewal:{made[0].family_id}")["spent"]) == 16 * 64
    assert rig.who(made[-1].renewal_text).agent_id == "one"
    assert rig.reason(made[1].renewal_text) == "revoked"


@pytest.mark.parametrize("other", [{"agent_id": "two"}, {"boot_id": "boot-2"}], ids=str)
def test_a_renewal_token_is_of_one_agent_and_boot(rig: AccessRig, other: dict[str, str]) -> None:
    made = rig.enrol()
    before = rig.snapshot()

    with pytest.raises(CredentialRefused, match="another agent or boot"):
        rig.access.rotate_renewal(rig.who(made.renewal_text), **{"agent_id": "one", **BOOT, **other})  # type: ignore[arg-type]

    assert before == rig.snapshot(), "and is not used up by it"


def test_a_new_boot_ends_the_family_of_the_older_one(rig: AccessRig) -> None:
    older, newer = rig.enrol(), rig.enrol(boot_id="boot-2")

    assert rig.reason(older.text) == rig.reason(older.renewal_text) == "revoked"
    assert rig.who(newer.text).boot_id == "boot-2"
    assert rig.who(newer.renewal_text).boot_id == "boot-2"


def test_families_of_different_agents_and_namespaces_do_not_touch(rig: AccessRig) -> None:
    made = [rig.enrol("one"), rig.enrol("two"), rig.enrol("one", namespace=f"{rig.namespace}-2")]
    assert rig.access.revoke_agent(rig.namespace, "one")

    assert [rig.admit(one.text).credential is None for one in made] == [True, False, False]


def test_a_revoked_agent_s_tokens_die_at_once(rig: AccessRig) -> None:
    made = rig.enrol()
    more = [made, rig.rotate(made.renewal_text)]
    issued = rig.access.issue_agent_token(made.family_id)
    admitted = rig.who(more[1].renewal_text)

    assert rig.access.revoke_agent(rig.namespace, "one", reason="deregistered")

    everything_is_refused(rig, *more)
    assert rig.reason(issued.text) == "revoked"
    with pytest.raises(CredentialRefused, match="revoked"):
        rig.access.rotate_renewal(admitted, agent_id="one", **BOOT)  # type: ignore[arg-type]
    assert not rig.access.revoke_agent(rig.namespace, "one")
    assert not rig.access.revoke_agent(rig.namespace, "nobody")


def test_a_revoked_family_does_not_come_back_with_a_new_one(rig: AccessRig) -> None:
    """Same agent, same boot, enrolled anew: what was stolen before stays dead."""
    older = rig.enrol()
    rig.access.revoke_agent(rig.namespace, "one")
    newer = rig.enrol()

    assert rig.reason(older.text) == rig.reason(older.renewal_text) == "revoked"
    assert rig.who(newer.text).agent_id == "one"


def test_a_wrong_secret_neither_rotates_nor_revokes(rig: AccessRig) -> None:
    made = rig.enrol()
    guess = tokens.make("renewal", made.family_id)
    assert rig.reason(guess) == "unknown"
    admitted = msgspec.structs.replace(rig.who(made.renewal_text), presented_hash=tokens.hash_of(guess))

    with pytest.raises(CredentialRefused, match="unknown"):
        rig.access.rotate_renewal(admitted, agent_id="one", **BOOT)  # type: ignore[arg-type]
    assert rig.rotate(made.renewal_text)


def test_an_unknown_family_gets_nothing(rig: AccessRig) -> None:
    with pytest.raises(CredentialRefused, match="unknown"):
        rig.access.issue_agent_token("x" * 12)


def test_a_call_that_redis_took_and_whose_reply_was_lost_is_sent_again_without_harm(rig: AccessRig) -> None:
    from hybridq.ops import access as ops

    made = rig.enrol()
    admitted = rig.who(made.renewal_text)
    call = ops.rotate_renewal(rig.root, admitted, agent_id="one", **BOOT, now_ms=rig.now)  # type: ignore[arg-type]
    again = call.again()
    assert again is not None

    first = rig.access._run(call)
    assert rig.access._run(again) == first
    assert rig.access._run(again) == first, "however often"
    assert rig.who(first.renewal_text).agent_id == "one"
    assert rig.rotate(first.renewal_text)


@pytest.mark.parametrize("seconds", [0, 3601, -1])
def test_an_agent_token_lasts_an_hour_at_most(rig: AccessRig, seconds: float) -> None:
    with pytest.raises(InvalidArgument):
        rig.enrol(token_s=seconds)
    with pytest.raises(InvalidArgument):
        rig.access.issue_agent_token("x" * 12, token_s=seconds)


class Family:
    """The rules in plain Python: hashes of a family, and what is said to each presentation of one."""

    def __init__(self) -> None:
        self.current, self.previous, self.previous_spent = 0, -1, True
        self.dead = False
        self.used_up: set[int] = set()

    def present(self, token: int, fresh: int) -> str:
        if self.dead:
            return "refused"
        if token == self.current:
            if self.previous >= 0:
                self.used_up.add(self.previous)
            self.previous, self.previous_spent, self.current = self.current, False, fresh
            return "renewed"
        if token == self.previous and not self.previous_spent:
            self.used_up.add(self.current)
            self.previous_spent, self.current = True, fresh
            return "renewed"
        assert token in self.used_up or token == self.previous
        self.dead = True
        return "refused"


@one_engine
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choices=st.lists(st.integers(0, 3), min_size=1, max_size=10))
def test_whatever_is_presented_in_whatever_order_the_family_is_the_model(rig: AccessRig, choices: list[int]) -> None:
    """Each choice presents one of the last four texts that were given, the last one first."""
    agent = f"agent-{next(counter)}"
    texts, family = [rig.enrol(agent).renewal_text], Family()

    for back in choices:
        token = max(0, len(texts) - 1 - back)
        said = family.present(token, len(texts))
        try:
            admitted = rig.admit(texts[token]).credential
            if admitted is None:
                raise CredentialRefused("", "")
            texts.append(rig.access.rotate_renewal(admitted, agent_id=agent, **BOOT).renewal_text)  # type: ignore[arg-type]
        except CredentialRefused:
            assert said == "refused"
        else:
            assert said == "renewed"


counter = itertools.count()


def test_who_registered_an_agent_is_known_while_its_family_is_in_force(rig: AccessRig) -> None:
    rig.enrol(created_by="key-1")
    assert rig.access.enrolled_by(rig.namespace, "one") == "key-1"
    rig.enrol(boot_id="boot-2", created_by="key-2")
    assert rig.access.enrolled_by(rig.namespace, "one") == "key-2"
    rig.access.revoke_agent(rig.namespace, "one")

    assert rig.access.enrolled_by(rig.namespace, "one") is None
    assert rig.access.enrolled_by("elsewhere", "one") is None
