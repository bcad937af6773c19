"""What an agent is told: one frozen `AgentSettings`, from options > `HYBRIDQ_AGENT_*` variables > a TOML file.

A field says everything there is to know about its setting: its name in each of the three places, how a value is read,
what it is for. The table in the README is printed from that (`python -m hybridq.agent.life.settings README.md`), and
so are the options of `hybridq agent` and every complaint.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
import socket
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import msgspec

from ...errors import UsageError
from ...keys import NAME_PATTERN, NAME_RULE
from .._session import Secret

__all__ = ["AgentSettings", "Setting", "SettingsWrong", "fields", "table"]

PREFIX: Final = "HYBRIDQ_AGENT_"
RESERVED: Final = frozenset({"healthy", "pools", "register", "running", "keys"})
NOT_OURS: Final = frozenset({"HYBRIDQ_AGENT_ID", "HYBRIDQ_AGENT_TOKEN_SECONDS", "HYBRIDQ_AGENT_CONFIG"})
"""What a job is told, a setting of the server's, and the file of ours."""
CAPACITY_MAX: Final = 100


class SettingsWrong(UsageError):
    """What was told does not make an agent; one line a complaint, each with the setting it is about."""

    def __init__(self, *complaints: str) -> None:
        self.complaints = complaints
        super().__init__("\n".join(complaints))


# -- how a value is read -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reader:
    """Turns what was written, a text or what TOML has, into a value, or raises `ValueError`; `allowed`: what will do.

    `kind`: one (a value), flag, or many (values separated by commas, or an option given again).
    """

    read: Callable[[Any], Any]
    allowed: str
    kind: Literal["one", "flag", "many"] = "one"


def _text(given: Any) -> str:
    if not isinstance(given, str) or not given.strip() or not given.isprintable():
        raise ValueError
    return given.strip()


def _path(given: Any) -> Path:
    return Path(_text(given)).expanduser()


def _paths(given: Any) -> tuple[Path, ...]:
    return tuple(Path(one).expanduser() for one in _texts(given))


def _texts(given: Any) -> tuple[str, ...]:
    if isinstance(given, str):
        given = [one for one in given.split(",") if one.strip()]
    if not isinstance(given, (list, tuple)):
        raise ValueError
    return tuple(_text(one) for one in given)


def _labels(given: Any) -> dict[str, str]:
    if isinstance(given, (list, tuple)):
        given = ",".join(_texts(given))
    pairs = list(given.items()) if isinstance(given, Mapping) else [one.partition("=")[::2] for one in _texts(given)]
    labels = {str(name).strip(): str(value).strip() for name, value in pairs}
    if not all(NAME_PATTERN.fullmatch(name) and len(value) <= 128 for name, value in labels.items()):
        raise ValueError
    return labels


def _name(given: Any) -> str:
    name = _text(given)
    if NAME_PATTERN.fullmatch(name) is None or name in RESERVED:
        raise ValueError
    return name


def _flag(given: Any) -> bool:
    if isinstance(given, bool):
        return given
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if str(given).strip().lower() not in words:
        raise ValueError
    return words[str(given).strip().lower()]


def _number(low: float, high: float) -> Callable[[Any], float]:
    def read(given: Any) -> float:
        if isinstance(given, bool):
            raise ValueError
        value = float(given)
        if not low <= value <= high:
            raise ValueError
        return value

    return read


def _seconds(low: float, high: float) -> Reader:
    return Reader(_number(low, high), f"seconds from {low:g} to {high:g}")


def _whole(low: int, high: int) -> Reader:
    def read(given: Any) -> int:
        if isinstance(given, (bool, float)) or not re.fullmatch(r"[0-9]{1,12}", str(given).strip()):
            raise ValueError
        if not low <= int(given) <= high:
            raise ValueError
        return int(given)

    return Reader(read, f"a whole number from {low} to {high}")


_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def _bytes(low: int, high: int) -> Reader:
    def read(given: Any) -> int:
        if isinstance(given, (bool, float)):
            raise ValueError
        found = re.fullmatch(r"([0-9]{1,15})\s*([kmgt]?)(?:i?b)?", str(given).strip().lower())
        if found is None or not low <= (value := int(found[1]) * _UNITS[found[2]]) <= high:
            raise ValueError
        return value

    return Reader(read, "bytes, such as 500000, 64KiB or 2GiB")


def _word(*words: str) -> Reader:
    def read(given: Any) -> str:
        if given not in words:
            raise ValueError
        return str(given)

    return Reader(read, f"one of {', '.join(words)}")


FLAG: Final = Reader(_flag, "one of 1, true, yes, on, 0, false, no, off", "flag")
LABELS: Final = Reader(_labels, "name=value pairs; a name is " + NAME_RULE, "many")
NAME: Final = Reader(_name, f"{NAME_RULE}; not {', '.join(sorted(RESERVED))}")
PATH: Final = Reader(_path, "a path")
PATHS: Final = Reader(_paths, "paths", "many")
TEXT: Final = Reader(_text, "a text on one line")
TEXTS: Final = Reader(_texts, "texts", "many")
SECRET: Final = Reader(lambda given: Secret(_text(given)), "a text")


# -- the settings --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    """What a field says of itself. `default`: how the README says it, where the value does not.

    `env_only`: neither an option nor in the file, as both are read by others.
    """

    doc: str
    reader: Reader = TEXT
    default: str = ""
    env_only: bool = False
    name: str = ""
    """In the file; with dashes the option's, in capitals after `HYBRIDQ_AGENT_` the variable's."""

    @property
    def env(self) -> str:
        """The variable."""
        return PREFIX + self.name.upper()

    @property
    def option(self) -> str:
        """The option of the command."""
        return "--" + self.name.replace("_", "-")


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an agent can be told. Durations are in seconds, sizes in bytes."""

    url: Annotated[str, Setting("Where the server is. `HYBRIDQ_URL` will do as well.", default="needed")]
    key: Annotated[
        Secret | None,
        Setting(
            "What the agent registers with: a registration key (`hqr_…`) or an API key. Needed once: a restart goes "
            "on by a token of its own.",
            SECRET,
            env_only=True,
        ),
    ] = None
    key_file: Annotated[Path | None, Setting("File that holds the key instead.", PATH)] = None
    oidc_token_file: Annotated[
        Path | None,
        Setting("File of an OIDC token to register with instead of a key; read anew each time.", PATH),
    ] = None
    name: Annotated[
        str | None,
        Setting("The agent's name in the fleet.", NAME, default="the host's name"),
    ] = None
    pool: Annotated[
        str | None, Setting("The pool it works for.", NAME, default="the key's; `default` when it has none")
    ] = None
    labels: Annotated[
        Mapping[str, str],
        Setting(
            "Labels, `name=value`, beside those it finds: os, arch, python, cores, docker.",
            LABELS,
            default="what it finds",
        ),
    ] = {}
    capacity: Annotated[int, Setting("Jobs at once.", _whole(1, CAPACITY_MAX))] = 1
    lease_s: Annotated[
        float,
        Setting(
            "How long a lease lasts without a heartbeat; a job is stopped before its lease ends.", _seconds(3, 3600)
        ),
    ] = 30.0
    poll_s: Annotated[float, Setting("How long a claim waits in the server.", _seconds(0, 50))] = 50.0
    state_dir: Annotated[
        Path | None,
        Setting(
            "Folder of its session, its journal and results not yet reported; one process at a time.",
            PATH,
            default="the platform's, as `~/.local/state/hybridq/agent/<name>`",
        ),
    ] = None
    work_dir: Annotated[
        Path | None, Setting("Folder of the jobs' workspaces.", PATH, default="`work` in the state folder")
    ] = None
    once: Annotated[bool, Setting("Leave after one job.", FLAG, default="0")] = False
    ephemeral: Annotated[
        bool,
        Setting(
            "Keep no session: every start is another agent, with a name of its own unless it is given one.", FLAG, "0"
        ),
    ] = False
    idle_exit_s: Annotated[
        float | None, Setting("Leave when there was nothing to do for so long.", _seconds(0, 30 * 86_400))
    ] = None
    drain_grace_s: Annotated[
        float,
        Setting("How long running jobs may go on after SIGTERM; what is left is handed back.", _seconds(0, 86_400)),
    ] = 60.0
    cancel_grace_s: Annotated[
        float,
        Setting(
            "How long a job that is stopped has at most between SIGTERM and SIGKILL; a cancel may ask for less.",
            _seconds(0, 3600),
        ),
    ] = 10.0
    require_signature: Annotated[bool, Setting("Run signed jobs only.", FLAG, default="0")] = False
    verify_keys: Annotated[
        tuple[str, ...],
        Setting("Public keys whose signatures count, `hqverify_…` or a file of them (`hybridq keypair`).", TEXTS),
    ] = ()
    seal_keys: Annotated[tuple[Path, ...], Setting("Files of private keys that open sealed payloads.", PATHS)] = ()
    allow_secrets: Annotated[
        tuple[str, ...],
        Setting(
            "Secret references that jobs may ask for, `[POOL=]PATTERN`, such as `env://CI_*` or `linux=vault://ci/*`.",
            TEXTS,
            default="none may",
        ),
    ] = ()
    exec_dir: Annotated[Path | None, Setting("Folder of the programs that `exec://NAME` references may run.", PATH)] = (
        None
    )
    pass_env: Annotated[
        tuple[str, ...], Setting("Variables of the agent's environment that jobs get, beside the usual ones.", TEXTS)
    ] = ()
    outside_workspace: Annotated[
        bool, Setting("Let steps name a working directory outside their workspace.", FLAG, default="0")
    ] = False
    keep_workspace: Annotated[
        Literal["never", "failed", "always"],
        Setting("Whether a job's workspace stays after its end.", _word("never", "failed", "always")),
    ] = "never"
    log_bytes_max: Annotated[
        int,
        Setting("How much of a job's log is sent; of a longer one its end, too.", _bytes(1 << 16, 1 << 30), "`4MiB`"),
    ] = 4 << 20
    disk_free_min: Annotated[
        int, Setting("Claim nothing with less free disk below the work folder.", _bytes(0, 1 << 50), "`256MiB`")
    ] = 256 << 20
    memory_free_min: Annotated[
        int, Setting("Claim nothing with less memory available.", _bytes(0, 1 << 50), "`64MiB`")
    ] = 64 << 20
    health_command: Annotated[
        str | None, Setting("Shell command that must succeed (30 s at most) for jobs to be claimed.", TEXT)
    ] = None
    ca_file: Annotated[Path | None, Setting("PEM file of the authorities to trust instead of the system's.", PATH)] = (
        None
    )
    client_cert: Annotated[Path | None, Setting("PEM file of a client certificate and its key.", PATH)] = None
    proxy: Annotated[str | None, Setting("URL of a proxy.", TEXT, default="as `HTTPS_PROXY` and `NO_PROXY` say")] = None
    insecure: Annotated[
        bool, Setting("Send tokens in the clear, over plain http, to another machine.", FLAG, default="0")
    ] = False

    @classmethod
    def load(
        cls,
        options: Mapping[str, Any] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        config: Path | None = None,
    ) -> Self:
        """Read what was told; `options` by the names of the file, None and () say nothing.

        Raises `SettingsWrong` with everything that is wrong.
        """
        found = os.environ if environ is None else environ
        complaints: list[str] = []
        config = config or (Path(found[PREFIX + "CONFIG"]) if found.get(PREFIX + "CONFIG") else None)
        told = _of_file(config, complaints) | _of_environment(found, complaints) | _of_options(options or {})
        values = _read(told, complaints)
        if not complaints:
            complaints += _contradictions(values)
        if complaints:
            raise SettingsWrong(*complaints)
        if values.get("ephemeral") and "name" not in values:
            # Many of them may live on one machine, and one after the other: each is an agent of its own.
            values["name"] = f"{name_of(socket.gethostname())[:48]}-{secrets.token_hex(6)}"
        return cls(**values)

    def __repr__(self) -> str:
        told = {name: getattr(self, name) for name in self.__struct_fields__}
        if self.proxy is not None:
            told["proxy"] = re.sub(r"//[^/]*@", "//…@", self.proxy)
        return f"AgentSettings({', '.join(f'{name}={value!r}' for name, value in told.items())})"

    @property
    def agent_name(self) -> str:
        """`name`, or the host's made into one."""
        return self.name or name_of(socket.gethostname())

    @property
    def state_folder(self) -> Path:
        """`state_dir`, or where this platform keeps what programs remember."""
        return (self.state_dir or _platform_state() / "hybridq" / "agent" / self.agent_name).absolute()

    @property
    def work_folder(self) -> Path:
        """`work_dir`, or the folder in the state's."""
        return (self.work_dir or self.state_folder / "work").absolute()

    def registration_key(self) -> str | None:
        """Return the key, of the file where there is one, read now. Raises `SettingsWrong`."""
        if self.key_file is None:
            return None if self.key is None else self.key.reveal()
        return read_secret("key_file", self.key_file)


def read_secret(name: str, path: Path) -> str:
    """Return the one line that a file holds. Raises `SettingsWrong`, which shows nothing of it."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError as wrong:
        raise SettingsWrong(f"{name}: {path} cannot be read: {wrong.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsWrong(f"{name}: {path} holds something else than a token") from None
    if not text:
        raise SettingsWrong(f"{name}: {path} is empty")
    return text


def name_of(host: str) -> str:
    """Return a host's name as an agent may be called."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", host.partition(".")[0]).strip("-._")[:64] or "agent"
    return f"agent-{name}" if name in RESERVED else name


def _platform_state() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support"
    # The XDG convention says that a relative path is to be ignored.
    given = os.environ.get("XDG_STATE_HOME", "")
    return Path(given) if os.path.isabs(given) else Path.home() / ".local/state"


# -- the three places ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Told:
    """A value and where it was said, as a complaint names it."""

    value: Any
    where: str


@functools.cache
def fields() -> tuple[tuple[str, Setting], ...]:
    """Name and setting of each field, in the order of the table."""
    hints = typing.get_type_hints(AgentSettings, include_extras=True)
    found = []
    for name in AgentSettings.__struct_fields__:
        said: Setting = hints[name].__metadata__[0]
        wire = name.removesuffix("_s") + "_seconds" if name.endswith("_s") else name
        found.append((name, Setting(said.doc, said.reader, said.default, said.env_only, wire)))
    return tuple(found)


def _of_file(path: Path | None, complaints: list[str]) -> dict[str, _Told]:
    import tomllib

    if path is None:
        return {}
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as wrong:
        complaints.append(f"{path}: cannot be read: {wrong.strerror}")
        return {}
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as wrong:
        complaints.append(f"{path}: is not TOML: {wrong}")
        return {}
    known = {setting.name: field for field, setting in fields() if not setting.env_only}
    for name in sorted(document.keys() - known.keys()):
        hint = "; a key does not belong in it: say key_file" if name == "key" else ""
        complaints.append(f"{path}: {name} is no setting of an agent{hint}")
    return {known[name]: _Told(value, f"{path}: {name}") for name, value in document.items() if name in known}


def _of_environment(environ: Mapping[str, str], complaints: list[str]) -> dict[str, _Told]:
    known = {setting.env: field for field, setting in fields()}
    mistaken = {name for name in environ if name.startswith(PREFIX)} - known.keys() - NOT_OURS
    complaints += [f"{name}: there is no such setting" for name in sorted(mistaken)]
    found = {field: _Told(environ[name], name) for name, field in known.items() if environ.get(name, "").strip()}
    if "url" not in found and environ.get("HYBRIDQ_URL", "").strip():
        found["url"] = _Told(environ["HYBRIDQ_URL"], "HYBRIDQ_URL")
    return found


def _of_options(options: Mapping[str, Any]) -> dict[str, _Told]:
    known = {setting.name: (field, setting) for field, setting in fields()}
    return {
        known[name][0]: _Told(value, known[name][1].option)
        for name, value in options.items()
        if value is not None and value != ()
    }


def _read(told: Mapping[str, _Told], complaints: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field, setting in fields():
        if field not in told:
            continue
        try:
            values[field] = setting.reader.read(told[field].value)
        except (ValueError, TypeError):
            complaints.append(f"{told[field].where}: will not do; it must be {setting.reader.allowed}")
    return values


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    found = []
    if "url" not in values:
        found.append("--url: where is the server? Say it, or set HYBRIDQ_AGENT_URL")
    ways = [name for name in ("key", "key_file", "oidc_token_file") if values.get(name) is not None]
    if len(ways) > 1:
        found.append(f"{ways[0]} and {ways[1]}: one of the two")
    if values.get("require_signature") and not values.get("verify_keys"):
        found.append("--require-signature: needs --verify-keys, else no job would ever do")
    return found


# -- the table in the README ---------------------------------------------------------------------------------------

BEGIN: Final = "<!-- agent settings: written by `make settings` -->\n"
END: Final = "<!-- /agent settings -->"


def table() -> str:
    """Return the settings as a Markdown table."""
    lines = ["| setting | default | what it says |", "|---|---|---|"]
    empty = AgentSettings(url="")
    for field, setting in fields():
        value = getattr(empty, field)
        shown = f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
        default = setting.default or (shown if value not in (None, (), {}) else "none")
        place = f"`{setting.env}`" if setting.env_only else f"`{setting.option}`"
        lines.append(f"| {place} | {default} | {setting.doc} |")
    return "\n".join(lines) + "\n"


def written_into(text: str) -> str:
    """Return a page with the table in its place. Raises `ValueError` when the page has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no place for the table of the agent's settings")
    return before + begin + table() + end + after


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(written_into(page.read_text(encoding="utf-8")), encoding="utf-8")
