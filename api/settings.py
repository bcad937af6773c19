"""What the server is told: one frozen `Settings`, read from `HYBRIDQ_*` variables and from nothing else.

A field says everything there is to know about its variable: name, default, how its text is read, what it is for.
The table in the README is printed from that (`python -m api.settings README.md`), and so is every complaint.
"""

from __future__ import annotations

import difflib
import functools
import ipaddress
import json
import os
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

import msgspec

from hybridq import UsageError

__all__ = [
    "ClaimRule",
    "Rate",
    "Secret",
    "Settings",
    "SettingsError",
    "environment_of",
    "strangers",
    "table",
]

PREFIX: Final = "HYBRIDQ_"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")


class SettingsError(UsageError):
    """The environment does not make a server; one line a complaint, each with the variable it is about."""

    def __init__(self, *complaints: str) -> None:
        self.complaints = complaints
        super().__init__("\n".join(complaints))


# -- values that are more than text ------------------------------------------------------------------------


class Secret:
    """A value that no message, log line or traceback shows. `reveal()` where it is used."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class Rate(msgspec.Struct, frozen=True):
    """Requests a second that a credential may keep up, and how many at once; `per_second` 0: no limit."""

    per_second: float
    burst: int

    def __str__(self) -> str:
        return f"{self.per_second:g}:{self.burst}" if self.per_second else "0"


class ClaimRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who the provider says has `value` in `claim` (equal to it, or one of its list) gets `role` in `namespace`."""

    claim: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    value: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    role: Literal["viewer", "operator", "admin"]
    namespace: Annotated[str, msgspec.Meta(pattern=f"^{NAME.pattern}$")] = "default"


# -- how a variable's text is read -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reader:
    """Turns text into a value, raising `ValueError`; `allowed` says which texts will do."""

    read: Callable[[str], Any]
    allowed: str


def _whole(low: int, high: int) -> Reader:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise ValueError
        return int(text)

    return Reader(read, f"a whole number from {low} to {high}")


def _word(*words: str) -> Reader:
    def read(text: str) -> str:
        found = {word.lower(): word for word in words}.get(text.lower())
        if found is None:
            raise ValueError
        return found

    return Reader(read, f"one of {', '.join(words)}")


def _flag(text: str) -> bool:
    return {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}[
        text.lower()
    ]


def _host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.:_-]{1,253}", text):
        raise ValueError
    return text


def _hosts(text: str) -> tuple[str, ...]:
    names = _list(text)
    if not all(re.fullmatch(r"\*|(\*\.)?[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]+\]", name) for name in names):
        raise ValueError
    return tuple(name.lower() for name in names)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _networks(text: str) -> tuple[str, ...]:
    parts = _list(text)
    if any(ipaddress.ip_network(part).prefixlen == 0 for part in parts if part != "unix"):
        raise ValueError("a network of every address would let anybody say who they are")
    return tuple(parts)


def _rate(text: str) -> Rate:
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(?::([0-9]{1,7}))?", text)
    if not found:
        raise ValueError
    per_second = float(found[1])
    burst = int(found[2]) if found[2] else max(1, round(2 * per_second))
    if burst < 1 and per_second:
        raise ValueError
    return Rate(per_second, burst if per_second else 0)


def _url(text: str) -> str:
    """An address that secrets travel to: https, or http on this very machine."""
    parts = urlsplit(text)
    local = parts.hostname == "localhost" or _is_loopback(parts.hostname or "")
    if not parts.hostname or parts.scheme not in (("http", "https") if local else ("https",)):
        raise ValueError
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError
    return text


def _origin(text: str) -> str:
    parts = urlsplit(_url(text))
    if parts.path not in ("", "/"):
        raise ValueError
    return f"{parts.scheme}://{parts.netloc}".lower()


def _claim_rules(text: str) -> tuple[ClaimRule, ...]:
    return msgspec.json.decode(text, type=tuple[ClaimRule, ...])


def _namespace(text: str) -> str:
    if not NAME.fullmatch(text) or text == "sys":
        raise ValueError
    return text


FLAG = Reader(_flag, "one of 1, true, yes, on, 0, false, no, off")
HOST = Reader(_host, "an address or host name")
HOSTS = Reader(_hosts, "host names without ports, separated by commas; *.example.com for those below; * for any")
NETWORKS = Reader(
    _networks, "networks such as 10.0.0.0/8 or fd00::/8, separated by commas, none of them /0; unix for a unix socket"
)
ORIGIN = Reader(_origin, "an https:// URL without path, user, query or fragment (http:// on this machine)")
PATH = Reader(Path, "a path")
RATE = Reader(_rate, "a rate a second such as 50, or 50:100 with a burst; 0 for no limit")
RULES = Reader(_claim_rules, "a JSON list of {claim, value, role: viewer/operator/admin, namespace?}")
SECRET = Reader(Secret, "a text")
TEXT = Reader(str, "a text")
URL = Reader(_url, "an https:// URL without user, query or fragment (http:// on this machine)")


# -- the settings ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Variable:
    """What a field of `Settings` says of itself. `default`: how the README says it, where the value does not."""

    doc: str
    reader: Reader = TEXT
    env: str = ""
    default: str = ""
    secret: bool = False


Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
_LIMIT = "Requests a second by one credential, `rate[:burst]`, 0 for no limit: "


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the server can be told. `Settings()` is what an empty environment makes."""

    host: Annotated[str, Variable("Address to listen on.", HOST)] = "127.0.0.1"
    port: Annotated[int, Variable("Port to listen on; 0 takes a free one.", _whole(0, 65535))] = 8000
    environment: Annotated[
        Literal["development", "production"],
        Variable(
            "`production` logs JSON, keeps the API's documentation to those with a credential, and does not start "
            "without TLS or trusted proxies, on a Redis without persistence, or on one that evicts keys.",
            _word("development", "production"),
        ),
    ] = "development"
    dev: Annotated[
        bool,
        Variable("Print a one-time admin login link and an admin key at start; loopback only.", FLAG, default="0"),
    ] = False
    redis_url: Annotated[
        str | None,
        Variable(
            "Redis to use: `redis:// rediss:// unix:// redis+sentinel:// redis+cluster://`.",
            default="a private server in the data directory",
            secret=True,
        ),
    ] = None
    data_dir: Annotated[
        Path | None,
        Variable(
            "Folder of the private server, where no Redis is named.",
            PATH,
            default="the platform's, as `~/.local/share/hybridq`",
        ),
    ] = None
    namespace: Annotated[
        str,
        Variable(
            "Namespace of `hybridq` commands, of keys made at start, and of the metrics port.",
            Reader(_namespace, "1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit, and not `sys`"),
        ),
    ] = "default"
    tls_cert: Annotated[Path | None, Variable("PEM file of the certificate chain.", PATH)] = None
    tls_key: Annotated[Path | None, Variable("PEM file of the certificate's private key.", PATH)] = None
    trusted_proxies: Annotated[
        tuple[str, ...],
        Variable("Networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.", NETWORKS),
    ] = ()
    public_url: Annotated[
        str | None,
        Variable(
            "Where people reach the server, as `https://ci.example.com`: the origin their browsers must come from.",
            ORIGIN,
            default="what the request's `Host` says",
        ),
    ] = None
    allowed_hosts: Annotated[
        tuple[str, ...],
        Variable(
            "Values of `Host` that are answered.",
            HOSTS,
            default="any; in development on loopback: the names of loopback",
        ),
    ] = ()
    log_level: Annotated[
        Level | None,
        Variable(
            "Least level of what is logged.",
            _word("DEBUG", "INFO", "WARNING", "ERROR"),
            default="INFO; in production WARNING",
        ),
    ] = None
    log_file: Annotated[
        Path | None,
        Variable(
            "File to log to, as JSON lines; opened anew when it was rotated away.", PATH, default="standard error"
        ),
    ] = None
    docs: Annotated[
        Literal["public", "private", "off"] | None,
        Variable(
            "Who may read `/api/docs`: everybody, those with a credential, or nobody.",
            _word("public", "private", "off"),
            default="public; in production private",
        ),
    ] = None
    metrics_port: Annotated[
        int | None,
        Variable(
            "Port of its own for `/metrics` of the namespace, where no credential is asked: keep it inside.",
            _whole(0, 65535),
        ),
    ] = None
    drain_s: Annotated[
        int | None,
        Variable(
            "Seconds between SIGTERM and the end of listening, for balancers to see that `/health/ready` says no.",
            _whole(0, 300),
            env="HYBRIDQ_DRAIN_SECONDS",
            default="0; in production 5",
        ),
    ] = None
    session_ttl_s: Annotated[
        int,
        Variable(
            "Seconds until a person must sign in again.",
            _whole(60, 30 * 86_400),
            env="HYBRIDQ_SESSION_TTL_SECONDS",
        ),
    ] = 86_400
    session_idle_s: Annotated[
        int,
        Variable(
            "Seconds without a request after which a session ends.",
            _whole(60, 30 * 86_400),
            env="HYBRIDQ_SESSION_IDLE_SECONDS",
        ),
    ] = 1_800
    agent_token_s: Annotated[
        int,
        Variable("Seconds an agent's token is good for.", _whole(60, 3600), env="HYBRIDQ_AGENT_TOKEN_SECONDS"),
    ] = 900
    rate_claim: Annotated[Rate, Variable(_LIMIT + "claims.", RATE)] = Rate(1000, 2000)
    rate_report: Annotated[Rate, Variable(_LIMIT + "starts, heartbeats, completions, releases, logs.", RATE)] = Rate(
        1000, 2000
    )
    rate_enqueue: Annotated[Rate, Variable(_LIMIT + "new jobs (a batch is one request).", RATE)] = Rate(1000, 2000)
    rate_read: Annotated[Rate, Variable(_LIMIT + "everything that only looks.", RATE)] = Rate(200, 400)
    rate_admin: Annotated[Rate, Variable(_LIMIT + "everything that steers.", RATE)] = Rate(50, 100)
    rate_auth: Annotated[
        Rate, Variable("Requests a second by one address to `/auth`, `rate[:burst]`, 0 for no limit.", RATE)
    ] = Rate(5, 20)
    oidc_issuer: Annotated[str | None, Variable("OpenID provider that people sign in with.", URL)] = None
    oidc_client_id: Annotated[str | None, Variable("This server's name at the provider.")] = None
    oidc_client_secret: Annotated[
        Secret | None, Variable("This server's secret at the provider.", SECRET, secret=True)
    ] = None
    oidc_client_secret_file: Annotated[Path | None, Variable("File that holds the secret instead.", PATH)] = None
    oidc_redirect_url: Annotated[
        str | None, Variable("Where the provider sends people back to: `https://<host>/`.", URL)
    ] = None
    oidc_rules: Annotated[
        tuple[ClaimRule, ...],
        Variable(
            "JSON list of `{claim, value, role, namespace}`: who may come in as what. Who meets no rule stays out.",
            RULES,
        ),
    ] = ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read `HYBRIDQ_*`; an empty value counts as none. Raises `SettingsError` with everything that is wrong."""
        complaints = list(_typos(environ))
        values: dict[str, Any] = {}
        for field, variable in fields():
            text = environ.get(variable.env, "").strip()
            if text:
                try:
                    values[field] = variable.reader.read(text)
                except (ValueError, KeyError, msgspec.MsgspecError) as wrong:
                    complaints.append(_complaint(variable, text, wrong))
        _read_secret_file(values, complaints)
        if complaints:
            raise SettingsError(*complaints)
        if "redis_url" in values:
            values.pop("data_dir", None)
        settings = cls(**values)
        if contradictions := list(_contradictions(settings)):
            raise SettingsError(*contradictions)
        return settings

    def __repr__(self) -> str:
        shown = (
            f"{name}={'…' if variable.secret and getattr(self, name) is not None else repr(getattr(self, name))}"
            for name, variable in fields()
        )
        return f"Settings({', '.join(shown)})"

    @property
    def production(self) -> bool:
        return self.environment == "production"

    @property
    def tls(self) -> bool:
        return self.tls_cert is not None

    @property
    def loopback(self) -> bool:
        """Whether nobody but this machine can reach the port."""
        return self.host == "localhost" or _is_loopback(self.host)

    @property
    def level(self) -> Level:
        """`log_level`, or what the environment makes of none."""
        return self.log_level or ("WARNING" if self.production else "INFO")

    @property
    def drain(self) -> int:
        """`drain_s`, or what the environment makes of none."""
        return self.drain_s if self.drain_s is not None else (5 if self.production else 0)

    @property
    def docs_for(self) -> Literal["public", "private", "off"]:
        """`docs`, or what the environment makes of none."""
        return self.docs or ("private" if self.production else "public")

    @property
    def hosts(self) -> tuple[str, ...]:
        """Values of `Host` to answer, without ports, in lower case; empty: any.

        A page of somebody else can make a browser call a name of theirs that leads here; on loopback in development
        nothing else stands in its way.
        """
        if self.allowed_hosts:
            return () if "*" in self.allowed_hosts else self.allowed_hosts
        return LOOPBACK_NAMES if self.loopback and not self.production else ()

    def rate(self, rate_class: str) -> Rate:
        """Return the limit of a class: claim, report, enqueue, read, admin, auth."""
        found: Rate = getattr(self, f"rate_{rate_class}")
        return found


@functools.cache
def fields() -> tuple[tuple[str, Variable], ...]:
    """Name and variable of each field, in the order of the table."""
    hints = typing.get_type_hints(Settings, include_extras=True)
    found = []
    for name in Settings.__struct_fields__:
        variable: Variable = hints[name].__metadata__[0]
        env = variable.env or PREFIX + name.upper()
        found.append((name, Variable(variable.doc, variable.reader, env, variable.default, variable.secret)))
    return tuple(found)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _complaint(variable: Variable, text: str, wrong: Exception) -> str:
    shown = "its value" if variable.secret else json.dumps(text[:80], ensure_ascii=False)
    said = f" ({wrong})" if str(wrong) and type(wrong) in (ValueError, msgspec.ValidationError) else ""
    why = "" if variable.secret else said
    hint = ""
    if variable.env == "HYBRIDQ_PORT" and text.startswith("tcp://"):
        hint = "; Kubernetes set it for a service of this name: say enableServiceLinks: false, or set it yourself"
    return f"{variable.env}: {shown} will not do{why}; it must be {variable.reader.allowed}{hint}"


def _read_secret_file(values: dict[str, Any], complaints: list[str]) -> None:
    path: Path | None = values.get("oidc_client_secret_file")
    if path is None:
        return
    if "oidc_client_secret" in values:
        complaints.append("HYBRIDQ_OIDC_CLIENT_SECRET_FILE: HYBRIDQ_OIDC_CLIENT_SECRET is set too; one of the two")
        return
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as wrong:
        reason = wrong.strerror if isinstance(wrong, OSError) else "not UTF-8"
        complaints.append(f"HYBRIDQ_OIDC_CLIENT_SECRET_FILE: {path} cannot be read: {reason}")
        return
    if not text:
        complaints.append(f"HYBRIDQ_OIDC_CLIENT_SECRET_FILE: {path} is empty")
    values["oidc_client_secret"] = Secret(text)


def _contradictions(settings: Settings) -> Iterator[str]:
    """Rules about more than one variable."""
    if (settings.tls_cert is None) != (settings.tls_key is None):
        missing, given = ("KEY", "CERT") if settings.tls_key is None else ("CERT", "KEY")
        yield f"HYBRIDQ_TLS_{missing}: is needed with HYBRIDQ_TLS_{given}"
    for name, path in (("CERT", settings.tls_cert), ("KEY", settings.tls_key)):
        if path is not None and not os.access(path, os.R_OK):
            yield f"HYBRIDQ_TLS_{name}: {path} cannot be read"
    if settings.session_idle_s > settings.session_ttl_s:
        yield "HYBRIDQ_SESSION_IDLE_SECONDS: must not be above HYBRIDQ_SESSION_TTL_SECONDS"
    if settings.metrics_port is not None and settings.metrics_port == settings.port != 0:
        yield "HYBRIDQ_METRICS_PORT: must differ from HYBRIDQ_PORT"
    if settings.dev and settings.production:
        yield "HYBRIDQ_DEV: prints admin credentials, so it must be off where HYBRIDQ_ENVIRONMENT is production"
    elif settings.dev and not settings.loopback:
        yield (
            f"HYBRIDQ_DEV: prints admin credentials, so HYBRIDQ_HOST must be 127.0.0.1, ::1 or localhost, "
            f"not {settings.host}"
        )
    if settings.production and not settings.tls and not settings.trusted_proxies:
        yield (
            "HYBRIDQ_ENVIRONMENT: production needs HYBRIDQ_TLS_CERT and HYBRIDQ_TLS_KEY, or HYBRIDQ_TRUSTED_PROXIES "
            "when a proxy ends TLS"
        )
    yield from _oidc_contradictions(settings)


def _oidc_contradictions(settings: Settings) -> Iterator[str]:
    needed = ("oidc_issuer", "oidc_client_id", "oidc_redirect_url")
    given = [name for name, _ in fields() if name.startswith("oidc_") and getattr(settings, name)]
    if not given:
        return
    for name in needed:
        if not getattr(settings, name):
            yield f"{PREFIX}{name.upper()}: is needed with {PREFIX}{given[0].upper()}"


# -- names that are no setting -----------------------------------------------------------------------------

_NOT_OURS: Final = frozenset(
    PREFIX + name
    for name in (
        *("URL", "TOKEN", "TOKEN_FILE", "JOB_ID", "JOB_TYPE", "ATTEMPT", "FENCE", "POOL", "AGENT_ID", "WORKSPACE"),
        *("OUTPUT", "STEP", "DEPLOY_NUMBER", "LEASE_TOKEN", "HYPOTHESIS_PROFILE"),
    )
)
"""Read by commands and jobs, not by the server."""
_LEFT_ALONE: Final = re.compile(r"HYBRIDQ_(TEST_\w+|SERVICE_\w+|PORT_\d+_\w+|GIT_\w+|AGENT_(?!TOKEN)\w+)")
"""The tests' own, what Kubernetes sets for a service called hybridq, and what a job or an agent is told."""


def _unknown(environ: Mapping[str, str]) -> list[str]:
    known = {variable.env for _, variable in fields()} | _NOT_OURS
    return sorted(
        name for name in environ if name.startswith(PREFIX) and name not in known and not _LEFT_ALONE.fullmatch(name)
    )


def _meant(name: str) -> str | None:
    """Return the variable that somebody who wrote `name` meant, or None."""
    own = name.removeprefix(PREFIX)
    known = [variable.env.removeprefix(PREFIX) for _, variable in fields()]
    begun = [one for one in known if len(own) >= 3 and (one.startswith(own) or own.startswith(one))]
    close = difflib.get_close_matches(own, known, n=1, cutoff=0.75)
    return PREFIX + (close or begun)[0] if close or begun else None


def _typos(environ: Mapping[str, str]) -> Iterator[str]:
    for name in _unknown(environ):
        if meant := _meant(name):
            yield f"{name}: there is no such setting; did you mean {meant}?"


def strangers(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return `HYBRIDQ_*` names that mean nothing here and resemble nothing that does: worth a warning."""
    return tuple(name for name in _unknown(environ) if _meant(name) is None)


# -- .env --------------------------------------------------------------------------------------------------

_LINE: Final = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*
    (?:'(?P<plain>[^']*)'|"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^'"#\s].*?|))\s*(?:(?<=[\s=])\#.*)?""",
    re.VERBOSE,
)


def environment_of(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return `environ`, with `HYBRIDQ_*` of `folder`/.env where it says nothing; in development only.

    Raises `SettingsError` for a file that cannot be read as lines of NAME=value.
    """
    path = folder / ".env"
    if environ.get("HYBRIDQ_ENVIRONMENT", "").strip().lower() == "production" or not path.is_file():
        return dict(environ)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{path}: cannot be read as text") from None
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = _LINE.fullmatch(line)
        if parts is None:
            raise SettingsError(f"{path}:{number}: is not NAME=value, NAME='value' or NAME=\"value\"")
        if parts["name"].startswith(PREFIX):
            found[parts["name"]] = _value_of(parts)
    if found.get("HYBRIDQ_ENVIRONMENT", "").lower() == "production":
        raise SettingsError(f"HYBRIDQ_ENVIRONMENT: {path} is for development; say production in the real environment")
    return found | dict(environ)


def _value_of(parts: re.Match[str]) -> str:
    if parts["quoted"] is not None:
        escapes = {"n": "\n", "t": "\t"}
        return re.sub(r"\\(.)", lambda one: escapes.get(one[1], one[1]), parts["quoted"])
    return parts["plain"] if parts["plain"] is not None else parts["bare"]


# -- the table in the README -------------------------------------------------------------------------------

_BEGIN: Final = "<!-- settings: written by `make settings` -->\n"
_END: Final = "<!-- /settings -->"


def table() -> str:
    """Return the settings as a Markdown table."""
    lines = ["| variable | default | what it says |", "|---|---|---|"]
    empty = Settings()
    for name, variable in fields():
        value = getattr(empty, name)
        default = variable.default or (f"`{value}`" if value not in (None, ()) else "none")
        lines.append(f"| `{variable.env}` | {default} | {variable.doc} |")
    return "\n".join(lines) + "\n"


def written_into(text: str) -> str:
    """Return a page with the table in its place. Raises `ValueError` when the page has none."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError("the page has no place for the table of settings")
    return before + begin + table() + end + after


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(written_into(page.read_text(encoding="utf-8")), encoding="utf-8")
