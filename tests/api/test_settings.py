"""Settings: what the environment may say, what it may not, and how it is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api.settings import (
    ClaimRule,
    Rate,
    Secret,
    Settings,
    SettingsError,
    environment_of,
    fields,
    strangers,
    table,
    written_into,
)

README = Path(__file__).parents[2] / "README.md"


def complaints(environ: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(environ)
    return caught.value.complaints


def complaint(environ: dict[str, str]) -> str:
    [only] = complaints(environ)
    return only


def test_an_empty_environment_is_what_the_readme_says() -> None:
    settings = Settings.from_environment({})

    assert settings == Settings()
    assert (settings.host, settings.port, settings.environment) == ("127.0.0.1", 8000, "development")
    assert (settings.session_ttl_s, settings.session_idle_s, settings.agent_token_s) == (86400, 1800, 900)
    assert settings.rate("claim") == settings.rate("report") == settings.rate("enqueue") == Rate(1000, 2000)
    assert (settings.rate("read"), settings.rate("admin"), settings.rate("auth")) == (
        Rate(200, 400),
        Rate(50, 100),
        Rate(5, 20),
    )
    assert written_into(README.read_text(encoding="utf-8")) == README.read_text(encoding="utf-8"), "make settings"


def test_the_table_has_every_variable_once_and_no_cell_breaks_it() -> None:
    rows = table().splitlines()[2:]

    assert [variable.env for _, variable in fields()] == [re.findall(r"HYBRIDQ_[A-Z_]+", row)[0] for row in rows]
    assert len({variable.env for _, variable in fields()}) == len(rows)
    assert all(row.count("|") == 4 for row in rows)


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("HYBRIDQ_HOST", "0.0.0.0", "host", "0.0.0.0"),
        ("HYBRIDQ_PORT", "0", "port", 0),
        ("HYBRIDQ_DEV", "Yes", "dev", True),
        ("HYBRIDQ_LOG_LEVEL", "debug", "log_level", "DEBUG"),
        ("HYBRIDQ_LOG_FILE", "/var/log/hq.log", "log_file", Path("/var/log/hq.log")),
        ("HYBRIDQ_ALLOWED_HOSTS", " CI.example.com, *.b.example ", "allowed_hosts", ("ci.example.com", "*.b.example")),
        ("HYBRIDQ_TRUSTED_PROXIES", "10.0.0.0/8, fd00::/8,unix", "trusted_proxies", ("10.0.0.0/8", "fd00::/8", "unix")),
        ("HYBRIDQ_RATE_READ", "2.5", "rate_read", Rate(2.5, 5)),
        ("HYBRIDQ_RATE_READ", "0.1", "rate_read", Rate(0.1, 1)),
        ("HYBRIDQ_RATE_READ", "10:15", "rate_read", Rate(10, 15)),
        ("HYBRIDQ_RATE_READ", "0", "rate_read", Rate(0, 0)),
        ("HYBRIDQ_SESSION_TTL_SECONDS", "7200", "session_ttl_s", 7200),
        ("HYBRIDQ_PUBLIC_URL", "https://CI.example.com/", "public_url", "https://ci.example.com"),
        ("HYBRIDQ_DOCS", "off", "docs", "off"),
        ("HYBRIDQ_PORT", "  ", "port", 8000),
    ],
)
def test_a_variable_is_read(name: str, text: str, field: str, value: object) -> None:
    assert getattr(Settings.from_environment({name: text}), field) == value


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("HYBRIDQ_HOST", "a b", "an address"),
        ("HYBRIDQ_PORT", "65536", "from 0 to 65535"),
        ("HYBRIDQ_PORT", "8e3", "from 0 to 65535"),
        ("HYBRIDQ_PORT", "٣", "from 0 to 65535"),
        ("HYBRIDQ_ENVIRONMENT", "prod", "development, production"),
        ("HYBRIDQ_DEV", "maybe", "1, true"),
        ("HYBRIDQ_LOG_LEVEL", "TRACE", "DEBUG, INFO"),
        ("HYBRIDQ_TRUSTED_PROXIES", "0.0.0.0/0", "none of them /0"),
        ("HYBRIDQ_TRUSTED_PROXIES", "10.0.0.1/8", "10.0.0.0/8"),
        ("HYBRIDQ_ALLOWED_HOSTS", "a.example:8000", "without ports"),
        ("HYBRIDQ_RATE_CLAIM", "-1", "0 for no limit"),
        ("HYBRIDQ_RATE_CLAIM", "5:0", "0 for no limit"),
        ("HYBRIDQ_SESSION_IDLE_SECONDS", "59", "from 60"),
        ("HYBRIDQ_NAMESPACE", "a/b", "A-Z a-z 0-9"),
        ("HYBRIDQ_OIDC_ISSUER", "http://login.example.com", "https://"),
        ("HYBRIDQ_OIDC_ISSUER", "https://u:p@login.example.com", "https://"),
        ("HYBRIDQ_PUBLIC_URL", "https://ci.example.com/hq", "without path"),
        ("HYBRIDQ_OIDC_RULES", '[{"claim": "groups"}]', "a JSON list"),
        ("HYBRIDQ_OIDC_RULES", '[{"claim": "g", "value": "v", "role": "root"}]', "viewer/operator/admin"),
        ("HYBRIDQ_OIDC_RULES", '[{"claim": "g", "value": "v", "role": "admin", "pool": "x"}]', "a JSON list"),
    ],
)
def test_a_value_that_will_not_do_is_named_with_what_would(name: str, text: str, allowed: str) -> None:
    said = complaint({name: text})

    assert said.startswith(f"{name}: ")
    assert allowed in said
    assert "\n" not in said


def test_everything_that_is_wrong_is_said_at_once() -> None:
    assert len(complaints({"HYBRIDQ_PORT": "x", "HYBRIDQ_DEV": "x", "HYBRIDQ_LOGLEVEL": "x"})) == 3


def test_the_port_that_kubernetes_sets_is_explained() -> None:
    assert "enableServiceLinks" in complaint({"HYBRIDQ_PORT": "tcp://10.0.0.1:8000"})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("HYBRIDQ_PROT", "HYBRIDQ_PORT"),
        ("HYBRIDQ_LOGLEVEL", "HYBRIDQ_LOG_LEVEL"),
        ("HYBRIDQ_REDIS", "HYBRIDQ_REDIS_URL"),
        ("HYBRIDQ_SESSION_TTL", "HYBRIDQ_SESSION_TTL_SECONDS"),
        ("HYBRIDQ_ENV", "HYBRIDQ_ENVIRONMENT"),
        ("HYBRIDQ_TRUSTED_PROXY", "HYBRIDQ_TRUSTED_PROXIES"),
    ],
)
def test_a_misspelt_name_is_refused_without_its_value(name: str, meant: str) -> None:
    said = complaint({name: "s3cr3t"})

    assert said == f"{name}: there is no such setting; did you mean {meant}?"


def test_names_of_others_are_left_alone_and_strange_ones_are_told() -> None:
    environ = {
        "HYBRIDQ_TOKEN": "of the agent",
        "HYBRIDQ_FENCE": "of a job",
        "HYBRIDQ_TEST_ENGINES": "of the tests",
        "HYBRIDQ_PORT_8000_TCP_ADDR": "of Kubernetes",
        "HYBRIDQ_SERVICE_HOST": "of Kubernetes",
        "HYBRIDQ_ZZZ": "of nobody",
        "PATH": "",
    }

    assert Settings.from_environment(environ) == Settings()
    assert strangers(environ) == ("HYBRIDQ_ZZZ",)


def test_no_secret_is_shown_by_repr_or_complaint(tmp_path: Path) -> None:
    kept = tmp_path / "secret"
    kept.write_text("canary-in-file\n")
    oidc = {
        "HYBRIDQ_OIDC_ISSUER": "https://login.example.com",
        "HYBRIDQ_OIDC_CLIENT_ID": "hq",
        "HYBRIDQ_OIDC_REDIRECT_URL": "https://ci.example.com/",
    }
    url = {"HYBRIDQ_REDIS_URL": "redis://:canary-in-url@h"}
    settings = Settings.from_environment(oidc | url | {"HYBRIDQ_OIDC_CLIENT_SECRET": "canary-in-variable"})
    from_file = Settings.from_environment(oidc | {"HYBRIDQ_OIDC_CLIENT_SECRET_FILE": str(kept)})

    assert settings.oidc_client_secret == Secret("canary-in-variable")
    assert from_file.oidc_client_secret is not None
    assert from_file.oidc_client_secret.reveal() == "canary-in-file"
    for shown in (repr(settings), str(settings), f"{from_file!r}", f"{settings.oidc_client_secret}"):
        assert "canary" not in shown
    assert "canary" not in "".join(complaints(url | {"HYBRIDQ_OIDC_CLIENT_SECRET": "canary", "HYBRIDQ_PORT": "x"}))


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"HYBRIDQ_TLS_CERT": "/dev/null"}, "HYBRIDQ_TLS_KEY: is needed with HYBRIDQ_TLS_CERT"),
        ({"HYBRIDQ_TLS_CERT": "/dev/null", "HYBRIDQ_TLS_KEY": "/nowhere"}, "HYBRIDQ_TLS_KEY: /nowhere cannot be read"),
        ({"HYBRIDQ_DEV": "1", "HYBRIDQ_HOST": "0.0.0.0"}, "HYBRIDQ_DEV: prints admin credentials"),
        ({"HYBRIDQ_DEV": "1", "HYBRIDQ_HOST": "ci.example.com"}, "HYBRIDQ_DEV: prints admin credentials"),
        (
            {"HYBRIDQ_DEV": "1", "HYBRIDQ_ENVIRONMENT": "production", "HYBRIDQ_TRUSTED_PROXIES": "10.0.0.0/8"},
            "HYBRIDQ_DEV: prints admin credentials",
        ),
        ({"HYBRIDQ_ENVIRONMENT": "production"}, "HYBRIDQ_ENVIRONMENT: production needs HYBRIDQ_TLS_CERT"),
        ({"HYBRIDQ_SESSION_TTL_SECONDS": "60"}, "HYBRIDQ_SESSION_IDLE_SECONDS: must not be above"),
        ({"HYBRIDQ_METRICS_PORT": "8000"}, "HYBRIDQ_METRICS_PORT: must differ"),
        ({"HYBRIDQ_OIDC_CLIENT_SECRET_FILE": "/nowhere"}, "HYBRIDQ_OIDC_CLIENT_SECRET_FILE: /nowhere cannot be read"),
        ({"HYBRIDQ_OIDC_CLIENT_SECRET_FILE": "/dev/null"}, "HYBRIDQ_OIDC_CLIENT_SECRET_FILE: /dev/null is empty"),
        (
            {
                "HYBRIDQ_OIDC_ISSUER": "https://login.example.com",
                "HYBRIDQ_OIDC_REDIRECT_URL": "https://ci.example.com/",
            },
            "HYBRIDQ_OIDC_CLIENT_ID: is needed with HYBRIDQ_OIDC_ISSUER",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(environ: dict[str, str], said: str) -> None:
    assert complaint(environ).startswith(said)


def test_production_decides_what_was_not_said() -> None:
    production = Settings(environment="production", trusted_proxies=("10.0.0.0/8",))
    development = Settings()

    assert (development.level, development.docs_for, development.drain) == ("INFO", "public", 0)
    assert (production.level, production.docs_for, production.drain) == ("WARNING", "private", 5)
    assert Settings(environment="production", log_level="DEBUG", docs="public", drain_s=0).drain == 0


def test_only_loopback_in_development_is_shy_of_other_names() -> None:
    assert "localhost" in Settings().hosts
    assert "[::1]" in Settings(host="::1").hosts
    assert Settings(host="0.0.0.0").hosts == ()
    assert Settings(environment="production").hosts == ()
    assert Settings(allowed_hosts=("ci.example.com",)).hosts == ("ci.example.com",)
    assert Settings(allowed_hosts=("*",)).hosts == ()


def test_rules_map_claims_to_roles() -> None:
    rules = '[{"claim": "groups", "value": "ci", "role": "operator", "namespace": "team-a"}]'
    oidc = {
        "HYBRIDQ_OIDC_ISSUER": "http://127.0.0.1:9999",
        "HYBRIDQ_OIDC_CLIENT_ID": "hq",
        "HYBRIDQ_OIDC_REDIRECT_URL": "http://localhost:8000/",
    }

    assert Settings.from_environment(oidc | {"HYBRIDQ_OIDC_RULES": rules}).oidc_rules == (
        ClaimRule(claim="groups", value="ci", role="operator", namespace="team-a"),
    )


def test_the_namespace_of_the_server_s_own_records_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"HYBRIDQ_NAMESPACE.*not `sys`"):
        Settings.from_environment({"HYBRIDQ_NAMESPACE": "sys"})


# -- .env ------------------------------------------------------------------------------------------------------


def test_a_file_says_what_the_environment_does_not(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "# for this machine\n"
        "HYBRIDQ_PORT=8001\n"
        "export HYBRIDQ_HOST = '::1'   # loopback\n"
        'HYBRIDQ_LOG_FILE="a \\"b\\".log"\n'
        "HYBRIDQ_REDIS_URL=redis://:p#w@h/0\n"
        "HYBRIDQ_NAMESPACE=\n"
        "PGPASSWORD=other\n"
        "\n"
    )
    found = environment_of({"HYBRIDQ_PORT": "8002", "PATH": "/bin"}, tmp_path)

    assert found == {
        "HYBRIDQ_PORT": "8002",
        "HYBRIDQ_HOST": "::1",
        "HYBRIDQ_LOG_FILE": 'a "b".log',
        "HYBRIDQ_REDIS_URL": "redis://:p#w@h/0",
        "HYBRIDQ_NAMESPACE": "",
        "PATH": "/bin",
    }


def test_production_reads_no_file_and_a_file_makes_no_production(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HYBRIDQ_PORT=8001\nHYBRIDQ_ENVIRONMENT=production\n")
    real = {"HYBRIDQ_ENVIRONMENT": "production"}

    assert environment_of(real, tmp_path) == real
    with pytest.raises(SettingsError, match="in the real environment"):
        environment_of({}, tmp_path)


@pytest.mark.parametrize("line", ["HYBRIDQ_PORT 8001", "HYBRIDQ_PORT='8001", 'HYBRIDQ_PORT="8001" x', "A-B=canary"])
def test_a_line_that_is_none_is_named_and_not_shown(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"# one\n{line}\n")

    with pytest.raises(SettingsError, match=r"\.env:2: ") as caught:
        environment_of({}, tmp_path)
    assert "8001" not in str(caught.value)
    assert "canary" not in str(caught.value)
