"""References, the rules about them, and what is resolved for a job; with providers that say what they were asked."""

from __future__ import annotations

import re
import traceback
from importlib.metadata import EntryPoint
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridq import guard
from hybridq.agent.secrets import (
    Provider,
    ResolvedEnv,
    RuleMalformed,
    Rules,
    SecretRef,
    SecretRefused,
    Secrets,
    SecretUnavailable,
)
from hybridq.agent.trust import Rejected, Trust
from hybridq.agent.work_of import work_of
from tests.agent.trusting import STEPS, claimed
from tests.api.client import took

VALUE = "s3cr3t-value-of-mine"


class Noted:
    """Answers with a table, and writes down what it was asked."""

    def __init__(self, scheme: str = "vault", **table: str) -> None:
        self.scheme = scheme
        self.table = table
        self.asked: list[str] = []

    def resolve(self, ref: SecretRef, timeout_s: float) -> str:
        self.asked.append(ref.secret_ref)
        assert 0 < timeout_s <= 20
        return self.table.get(ref.path, VALUE)


class Failing:
    """Fails as a provider of somebody else's may."""

    scheme = "vault"

    def __init__(self, error: Any) -> None:
        self.error = error

    def resolve(self, ref: SecretRef, timeout_s: float) -> Any:
        if isinstance(self.error, BaseException):
            raise self.error
        return self.error


def refused(secrets: Secrets, ref: str, code: str, pool: str = "linux") -> str:
    with pytest.raises(SecretRefused) as caught:
        secrets.resolve({"A": SecretRef(ref)}, pool=pool)
    assert caught.value.code == code
    assert isinstance(caught.value, Rejected), "so the job is rejected"
    return caught.value.message


# -- references ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "scheme", "path", "field"),
    [
        ("vault://ci/registry#token", "vault", "ci/registry", "token"),
        ("env://CI_TOKEN", "env", "CI_TOKEN", ""),
        ("file:///run/secrets/db_password", "file", "/run/secrets/db_password", ""),
        ("file:///run/secrets/..data/db", "file", "/run/secrets/..data/db", ""),
        ("exec://op/ci/registry#password", "exec", "op/ci/registry", "password"),
        ("aws-sm://prod/db:v2@eu-west-1+x=y", "aws-sm", "prod/db:v2@eu-west-1+x=y", ""),
    ],
)
def test_a_reference_has_scheme_path_and_field(text: str, scheme: str, path: str, field: str) -> None:
    ref = SecretRef(text)

    assert ref.well_formed
    assert (ref.scheme, ref.path, ref.field, str(ref)) == (scheme, path, field, text)
    assert guard.scan({"secret_ref": text}) == [] or scheme == "aws-sm"


ODD = [
    *(
        "",
        "x",
        "vault",
        "vault:",
        "vault:/",
        "vault://",
        "vault:///",
        "://x",
        "vault://#f",
        "vault://a#",
        "vault://a#b#c",
    ),
    *("VAULT://ci/a", "Vault://ci/a", "va ult://a", "1vault://a", "-://a"),
    *(
        "vault://ci/../prod/a",
        "vault://../a",
        "vault://ci/..",
        "vault://ci/..#f",
        "vault://ci/./a",
        "vault://.",
        "vault://.#f",
    ),
    *(
        "file:///run/secrets/../../etc/shadow",
        "file:///..",
        "file:////etc/shadow",
        "file://///x",
        "vault://ci//a",
        "vault://ci/",
    ),
    *("vault://ci/%2e%2e/prod", "vault://ci/a%2fb", "vault://ci/a%23token", "env://%50ATH", "vault://ci/%252e"),
    *(
        "vault://ci\\..\\prod",
        "vault://ci/a?b",
        "vault://ci/a&b",
        "vault://ci/*",
        "vault://ci/[ab]",
        "vault://ci/a;b",
        "vault://ci/a,b",
    ),
    *(
        "vault://ci/a b",
        " vault://ci/a",
        "vault://ci/a ",
        "vault://ci/a\n",
        "\nvault://ci/a",
        "vault://ci/a\0",
        "vault://ci/a\t",
    ),
    *(
        "vault://ci/\u2025/a",
        "vault://ci/\uff0e\uff0e/a",
        "vault://ci/a\u200b",
        "vault://c\u0456/a",
        "env://\uff2eAME",
        "vault://ci/\u2044",
    ),
    *(
        "vault://ci/$(id)",
        "vault://ci/`id`",
        "vault://ci/${A}",
        "vault://ci/a'b",
        'vault://ci/a"b',
        "vault://" + "a" * 1024,
    ),
]


@pytest.mark.parametrize("text", ODD, ids=lambda text: repr(text)[:32])
def test_whatever_could_be_read_in_two_ways_is_no_reference(text: str) -> None:
    """Also where everything is allowed."""
    secrets = Secrets([Noted("vault"), Noted("env"), Noted("file")], ["vault://**", "env://**", "file:///**"])

    message = refused(secrets, text, "secret_ref_malformed")

    assert not SecretRef(text).well_formed
    assert len(text) < 4 or text not in message


@given(st.text(max_size=40))
def test_a_well_formed_reference_is_its_own_normal_form(rest: str) -> None:
    ref = SecretRef(f"vault://{rest}")

    if ref.well_formed:
        assert ref.secret_ref.isascii()
        assert not {"..", ".", ""} & set(ref.path.removeprefix("/").split("/"))
        assert f"{ref.scheme}://{ref.path}" + (f"#{ref.field}" if ref.field else "") == ref.secret_ref


# -- rules -----------------------------------------------------------------------------------------------------------

RULES = [
    ("vault://ci/*", "vault://ci/a", True),
    ("vault://ci/*", "vault://ci/a#token", True),
    ("vault://ci/*", "vault://ci/a/b", False),
    ("vault://ci/*", "vault://ci2/a", False),
    ("vault://ci/*", "vault://CI/a", False),
    ("vault://ci/*", "xvault://ci/a", False),
    ("vault://ci/**", "vault://ci/a/b/c#d", True),
    ("vault://ci/**", "vault://ci", False),
    ("vault://ci/**", "vault://prod/ci/a", False),
    ("vault://ci/*#token", "vault://ci/a#token", True),
    ("vault://ci/*#token", "vault://ci/a#password", False),
    ("vault://ci/*#token", "vault://ci/a", False),
    ("vault://*/ci/a", "vault://x/ci/a", True),
    ("vault://*/ci/a", "vault://x/y/ci/a", False),
    ("vault://ci/a", "vault://ci/a", True),
    ("vault://ci/a", "vault://ci/a#f", False),
    ("vault://ci/a", "vault://ci/ab", False),
    ("vault://ci/a.b", "vault://ci/aXb", False),
    ("env://CI_*", "env://CI_TOKEN", True),
    ("env://CI_*", "env://ci_token", False),
    ("env://CI_*", "env://XCI_TOKEN", False),
    ("file:///run/secrets/*", "file:///run/secrets/a", True),
    ("file:///run/secrets/*", "file:///run/secrets/a/b", False),
    ("linux=vault://ci/*", "vault://ci/a", True),
    (" linux = vault://ci/* ", "vault://ci/a", True),
    ("l*=vault://ci/*", "vault://ci/a", True),
    ("*=vault://ci/*", "vault://ci/a", True),
    ("windows=vault://ci/*", "vault://ci/a", False),
    ("LINUX=vault://ci/*", "vault://ci/a", False),
    ("linux2=vault://ci/*", "vault://ci/a", False),
    ("inux=vault://ci/*", "vault://ci/a", False),
    ("exec://op/a=b", "exec://op/a=b", True),
]


@pytest.mark.parametrize(("rule", "ref", "allowed"), RULES, ids=lambda value: str(value))
def test_a_rule_is_about_the_whole_reference_and_its_pool(rule: str, ref: str, allowed: bool) -> None:
    assert (Rules([rule]).allowed(SecretRef(ref), "linux") is not None) is allowed


def test_nothing_is_allowed_unless_a_rule_says_so() -> None:
    provider = Noted()

    assert "linux" in refused(Secrets([provider]), "vault://ci/a", "secret_not_allowed")
    refused(Secrets([provider], ["", "# vault://**"]), "vault://ci/a", "secret_not_allowed")
    assert provider.asked == []


def test_the_first_rule_that_allows_it_does() -> None:
    rules = Rules(["windows=vault://ci/*", "# comment", "", "linux=vault://ci/**"])

    assert rules.allowed(SecretRef("vault://ci/a"), "linux") is not None
    assert rules.allowed(SecretRef("vault://ci/a/b"), "windows") is None


@pytest.mark.parametrize(
    "rule",
    [
        *(
            "*",
            "**",
            "vault",
            "vault://",
            "*://**",
            "v*://a",
            "VAULT://a",
            "vault://ci/../*",
            "vault://ci/./*",
            "vault://ci//*",
        ),
        *("vault://ci/%2e", "vault://ci/?", "vault://ci/[ab]*", "vault://ci/{a,b}", "vault://ci/ a", "vault://ci/***"),
        *("a b=vault://ci/*", "=vault://ci/*", "li/nux=vault://ci/*", "vault://a*b*c*d*e*f*g*h*i*j", "linux=", "linux"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_at_the_start(rule: str) -> None:
    with pytest.raises(RuleMalformed):
        Secrets([Noted()], [rule])


@given(
    st.lists(st.sampled_from(["a", "b", "/", "*", "**"]), min_size=1, max_size=7),
    st.lists(st.sampled_from(["a", "b", "/"]), min_size=1, max_size=7),
)
def test_patterns_mean_what_they_say(pattern: list[str], text: list[str]) -> None:
    """Compared with a regular expression, where both take the pattern and the reference."""
    rule, ref = f"vault://{''.join(pattern)}", SecretRef(f"vault://{''.join(text)}")
    try:
        rules = Rules([rule])
    except RuleMalformed:
        return
    words = re.split(r"(\*\*?)", rule)
    expression = "".join({"*": "[^/]*", "**": ".*"}.get(word) or re.escape(word) for word in words)

    if ref.well_formed:
        assert (rules.allowed(ref, "linux") is not None) is (re.fullmatch(expression, ref.secret_ref) is not None)


def test_a_reference_that_almost_fits_does_not_keep_the_agent_busy() -> None:
    rules = Rules(["vault://**a**a**a**a**a**a**a/x", "vault://*a*a*a*a*a*a*a*b"])

    with took(30.0):
        for _ in range(10):
            assert rules.allowed(SecretRef("vault://" + "a" * 1000), "linux") is None


def test_what_a_rule_fixes_is_told_to_the_provider() -> None:
    def within(rule: str, ref: str) -> str | None:
        found = Rules([rule]).allowed(SecretRef(ref), "linux")
        return None if found is None else found.within

    assert within("file:///run/secrets/*", "file:///run/secrets/a") == "/run/secrets"
    assert within("file:///run/secrets/ci-*", "file:///run/secrets/ci-a") == "/run/secrets"
    assert within("file:///run/**", "file:///run/secrets/a") == "/run"
    assert within("file:///run/secrets/a", "file:///run/secrets/a") == "/run/secrets"
    assert within("file:///**", "file:///run/secrets/a") == "/"


def test_a_payload_cannot_say_what_a_rule_fixes() -> None:
    payload = {"steps": STEPS, "env": {"A": {"secret_ref": "file:///run/secrets/a", "within": "/"}}}

    with pytest.raises(Rejected) as caught:
        work_of(claimed(payload), Trust())
    assert caught.value.code == "unknown_field"


# -- resolving -------------------------------------------------------------------------------------------------------


def test_references_become_values_and_texts_stay() -> None:
    provider = Noted(**{"ci/a": "first-secret", "ci/b": "other-secret"})
    env = {"A": SecretRef("vault://ci/a"), "B": SecretRef("vault://ci/b"), "C": "plain", "D": SecretRef("vault://ci/a")}

    found = Secrets([provider], ["vault://ci/*"]).resolve(env, pool="linux")

    assert found.values == {"A": "first-secret", "B": "other-secret", "C": "plain", "D": "first-secret"}
    assert list(found.values) == list(env)
    assert found.secrets == ("first-secret", "other-secret")
    assert provider.asked == ["vault://ci/a", "vault://ci/b"], "each once"


def test_of_a_sealed_job_the_texts_are_secrets_too() -> None:
    secrets = Secrets([Noted()], ["vault://ci/*"])
    env = {"A": SecretRef("vault://ci/a"), "B": "was sealed", "C": ""}

    assert secrets.resolve(env, pool="linux", sealed=True).secrets == (VALUE, "was sealed")
    assert secrets.resolve(env, pool="linux").secrets == (VALUE,)


def test_the_steps_own_environments_are_resolved_with_the_job_s() -> None:
    steps = [{**STEPS[0], "env": {"B": {"secret_ref": "vault://ci/b"}, "X": "y"}}, {"name": "second", "run": "id"}]
    payload = {"steps": steps, "env": {"A": {"secret_ref": "vault://ci/a"}}}
    secrets = Secrets([Noted(**{"ci/a": "first-secret", "ci/b": "other-secret"})], ["vault://ci/*"])

    work, env = secrets.resolve_work(work_of(claimed(payload), Trust()), pool="linux")

    assert work.env == env.values == {"A": "first-secret"}
    assert work.steps[0].env == {"B": "other-secret", "X": "y"}
    assert work.steps[1].env == {}
    assert env.secrets == ("first-secret", "other-secret")


def test_all_are_looked_at_before_any_is_asked_for() -> None:
    provider = Noted()
    secrets = Secrets([provider], ["vault://ci/*"])
    env = {"A": SecretRef("vault://ci/a"), "B": SecretRef("vault://prod/b")}

    with pytest.raises(SecretRefused) as caught:
        secrets.resolve(env, pool="linux")

    assert caught.value.code == "secret_not_allowed"
    assert "vault://prod/b" in caught.value.message
    assert provider.asked == []


def test_a_scheme_that_nobody_knows_is_refused() -> None:
    assert "consul" in refused(Secrets([Noted()], ["consul://**"]), "consul://ci/a", "secret_scheme_unknown")


def test_an_agent_knows_four_schemes() -> None:
    secrets = Secrets.of(environ={})

    for ref in ("env://A", "file:///a", "vault://ci/a#b", "exec://a"):
        refused(secrets, ref, "secret_not_allowed")
    refused(secrets, "aws://a", "secret_scheme_unknown")


def test_another_scheme_is_an_entry_point_and_loaded_when_it_is_allowed() -> None:
    plugin = EntryPoint("noted", f"{__name__}:plugged", "hybridq.secret_providers")
    broken = EntryPoint("broken", "no.such.module:x", "hybridq.secret_providers")
    secrets = Secrets(allow=["noted://**", "broken://x"], plugins=[plugin, broken])

    assert secrets.resolve({"A": SecretRef("noted://a")}, pool="linux").values == {"A": VALUE}
    refused(secrets, "broken://y", "secret_not_allowed")
    with pytest.raises(SecretUnavailable, match="ModuleNotFoundError"):
        secrets.resolve({"A": SecretRef("broken://x")}, pool="linux")


def plugged() -> Provider:
    return Noted("noted")


# -- nothing is shown ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ValueError(f"bad answer {VALUE}"),
        KeyError(VALUE),
        UnicodeDecodeError("utf-8", VALUE.encode(), 0, 1, "x"),
        RuntimeError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_provider_says_of_its_trouble_is_not_repeated(error: Exception) -> None:
    with pytest.raises(SecretUnavailable) as caught:
        Secrets([Failing(error)], ["vault://**"]).resolve({"A": SecretRef("vault://ci/a")}, pool="linux")

    assert caught.value.error["code"] == "secret_unavailable"
    assert type(error).__name__ in str(caught.value)
    assert VALUE not in "".join(traceback.format_exception(caught.value))


def test_an_interruption_is_no_trouble_of_a_provider() -> None:
    with pytest.raises(KeyboardInterrupt):
        Secrets([Failing(KeyboardInterrupt())], ["vault://**"]).resolve({"A": SecretRef("vault://a")}, pool="linux")


@pytest.mark.parametrize(
    "value", [None, 12, b"bytes", "", "nul\0here", "x" * 65_537, ["a"]], ids=lambda v: repr(v)[:12]
)
def test_what_no_environment_takes_is_no_secret(value: Any) -> None:
    with pytest.raises(SecretUnavailable) as caught:
        Secrets([Failing(value)], ["vault://**"]).resolve({"A": SecretRef("vault://ci/a")}, pool="linux")
    assert "nul" not in str(caught.value).lower().replace("nul character", "")


def test_a_job_s_secrets_have_a_time_together() -> None:
    class Slow(Noted):
        def resolve(self, ref: SecretRef, timeout_s: float) -> str:
            given.append(timeout_s)
            return super().resolve(ref, timeout_s)

    given: list[float] = []
    env = {f"A{i}": SecretRef(f"vault://ci/{i}") for i in range(3)}
    Secrets([Slow()], ["vault://ci/*"], timeout_s=0.5).resolve(env, pool="linux")
    assert all(0 < one <= 0.5 for one in given)

    with pytest.raises(SecretUnavailable, match="time"):
        Secrets([Slow()], ["vault://ci/*"], timeout_s=-1).resolve(env, pool="linux")


def test_values_stand_in_no_repr() -> None:
    found = ResolvedEnv({"TOKEN": VALUE}, (VALUE,))

    assert VALUE not in repr(found)
    assert VALUE not in str(found.__rich_repr__())
    assert "TOKEN" in repr(found)
    with pytest.raises(AttributeError):
        msgspec.structs.force_setattr(found, "nothing", 1)
