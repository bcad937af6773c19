"""What is run, when, where and with what environment; and the outputs steps hand back."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from .outcome import JobFacts, StopReason
from .process import Step as Command
from .workspace import Workspace

if TYPE_CHECKING:
    from ..work_of import Git, Step

__all__ = [
    "Unfit",
    "command_of",
    "environment_of",
    "is_due",
    "outputs_of",
    "passed_on",
    "passwords_of",
    "sayable",
    "unfit_names",
]

PASSED: Final = (
    *("PATH", "LANG", "LANGUAGE", "LC_*", "TZ", "USER", "LOGNAME", "SHELL", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
)
"""Of the agent's own environment. Nothing else gets into a job unasked: there are credentials in it."""
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
RESERVED: Final = re.compile(r"HYBRIDQ_|(LD_PRELOAD|LD_AUDIT|DYLD_INSERT_LIBRARIES|BASH_ENV|SHELLOPTS|BASHOPTS)\Z")
"""Ours, and those that put code into every program, or change what every script means."""
PASSWORD: Final = re.compile(r"(?:[A-Za-z0-9+.-]+://)?[^/@:]*:([^/@]+)@")
OUTPUT_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
OUTPUT_OF_SEVERAL_LINES: Final = re.compile(r"([^=<]+)<<(\S+)\Z")
SHELLS: Final[dict[str, tuple[str, ...]]] = {
    "bash": ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "{0}"),
    "sh": ("sh", "-e", "{0}"),
    "python": ("python", "{0}"),
}
SUFFIXES: Final = {"python": ".py", "pwsh": ".ps1"}


class Unfit(Exception):
    """A step that cannot be run as it is. `rejected`: and never could on this machine, whatever is tried."""

    def __init__(self, code: str, message: str, *, rejected: bool = False, infra: bool = False) -> None:
        self.code, self.message, self.rejected, self.infra = code, message, rejected, infra
        super().__init__(message)


def is_due(condition: str | None, *, failed: bool, stopped: StopReason | None) -> bool:
    """Whether a step of this `if` runs after a failure (`failed`), or after a stop, whose grace it may use."""
    if stopped == "lease_lost":
        return False
    if condition == "always":
        return True
    if stopped is not None:
        return (stopped, condition) in (("cancelled", "cancelled"), ("timeout", "failure"))
    if condition in (None, "success", "failure"):
        return failed is (condition == "failure")
    return False


# -- environment ---------------------------------------------------------------------------------


def passed_on(environ: Mapping[str, str], further: Iterable[str] = ()) -> dict[str, str]:
    """What a job gets of the agent's own environment; `further` are names or patterns. Never our own settings."""
    patterns = [*PASSED, *further]
    found = {
        name: value
        for name, value in environ.items()
        if not name.startswith("HYBRIDQ_") and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    found.setdefault("PATH", os.defpath)
    return found


def passwords_of(environ: Mapping[str, str]) -> list[str]:
    """The passwords in the addresses of proxies, which are passed on."""
    found = [PASSWORD.match(value) for name, value in environ.items() if name.lower().endswith("_proxy")]
    return [password for match in found if match is not None for password in {match[1], unquote(match[1])}]


def unfit_names(env: Mapping[str, object]) -> list[str]:
    """The names and values in `env` that no job may set."""
    return [name for name, value in env.items() if not NAME.match(name) or RESERVED.match(name) or not _is_text(value)]


def _is_text(value: object) -> bool:
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def environment_of(job: JobFacts, workspace: Workspace, git: Git | None) -> dict[str, str]:
    """What every step of a job is told; `git` is what was checked out."""
    told: dict[str, str | None] = {
        "CI": "true",
        "HOME": str(workspace.home),
        "TMPDIR": str(workspace.tmp),
        "HYBRIDQ": "true",
        "HYBRIDQ_AGENT_ID": job.agent_id,
        "HYBRIDQ_ATTEMPT": str(job.attempt),
        "HYBRIDQ_FENCE": str(job.fence),
        "HYBRIDQ_JOB_ID": job.id,
        "HYBRIDQ_JOB_TYPE": job.type,
        "HYBRIDQ_OUTPUT": str(workspace.output),
        "HYBRIDQ_POOL": job.pool,
        "HYBRIDQ_WORKSPACE": str(workspace.work),
        "TRACEPARENT": job.traceparent,
    }
    if git is not None:
        told |= {
            "HYBRIDQ_GIT_AUTHOR": git.author,
            "HYBRIDQ_GIT_COMMIT_MESSAGE": git.commit_message,
            "HYBRIDQ_GIT_COMMIT_SHA": git.commit_sha,
            "HYBRIDQ_GIT_REF": git.ref,
            "HYBRIDQ_GIT_REPO": git.repo,
        }
    return {name: sayable(value) for name, value in told.items() if value is not None}


def sayable(value: str) -> str:
    """Return a text of the job as an environment can hold it."""
    return value.replace("\0", "").encode("utf-8", "replace").decode()


# -- command -------------------------------------------------------------------------------------


def command_of(
    step: Step, number: int, environment: Mapping[str, str], workspace: Workspace, *, outside: bool
) -> Command:
    """Return what the kernel is given to run `step`, with its script written. Raises `Unfit`, or `OSError`."""
    cwd = _folder_of(step, workspace, outside=outside)
    words = _words(step.shell, environment["PATH"])
    suffix = SUFFIXES.get(Path(words[0]).name, ".sh")
    script = workspace.steps / f"{number}{suffix}"
    workspace.write(script, step.run.encode("utf-8", "surrogatepass") + b"\n")
    arguments = [word.replace("{0}", str(script)) for word in words]
    if arguments == list(words):
        arguments.append(str(script))
    arguments[0] = _program(words[0], environment["PATH"], cwd)
    return Command(arguments, environment, str(cwd))


def _folder_of(step: Step, workspace: Workspace, *, outside: bool) -> Path:
    root = workspace.work.resolve()
    try:
        cwd = (root / (step.working_directory or ".")).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise Unfit("no_working_directory", f"there is no folder {step.working_directory!r}") from error
    if not outside and not cwd.is_relative_to(root):
        raise Unfit("outside_workspace", f"{step.working_directory!r} lies outside the workspace", rejected=True)
    if not cwd.is_dir():
        raise Unfit("no_working_directory", f"{step.working_directory!r} is no folder")
    return cwd


def _words(shell: str | Sequence[str] | None, path: str) -> Sequence[str]:
    if shell is None:
        return SHELLS["bash" if shutil.which("bash", path=path) else "sh"]
    if isinstance(shell, str):
        try:
            words: Sequence[str] = SHELLS.get(shell) or shlex.split(shell)
        except ValueError as error:
            raise Unfit("malformed_steps", f"shell: {error}", rejected=True) from error
    else:
        words = shell
    if not words or any("\0" in word for word in words):
        raise Unfit("malformed_steps", "shell names no program", rejected=True)
    return words


def _program(name: str, path: str, cwd: Path) -> str:
    """The file to execute: as a shell would find it from `cwd`."""
    if "/" in name:
        return name
    # The folders of PATH that are not absolute are meant from the step's folder, not from ours.
    found = shutil.which(name, path=os.pathsep.join(os.path.join(cwd, folder) for folder in path.split(os.pathsep)))
    if found is None and name == "python":
        found = shutil.which("python3", path=path) or sys.executable
    if found is None:
        raise Unfit("spawn_failed", f"there is no {name!r} on this machine's PATH", infra=True)
    return found


# -- outputs -------------------------------------------------------------------------------------


def outputs_of(path: Path, bytes_max: int) -> tuple[dict[str, str], str | None]:
    """What steps wrote into the file of outputs, as names and values; and what is wrong with it, if anything.

    A line is `NAME=value`, or `NAME<<WORD`, the lines of the value, and `WORD` alone in a line. The later one holds.
    """
    try:
        # Neither follow a link, nor wait for somebody to write into a pipe.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            with open(fd, "rb", closefd=False) as file:
                data = file.read(bytes_max + 1) or b""
        finally:
            # Here, as `open` leaves a descriptor open that is none of a file: steps may have made a folder of it.
            os.close(fd)
    except OSError as error:
        return {}, f"outputs cannot be read: {error.strerror}"
    if len(data) > bytes_max:
        return {}, f"outputs are larger than {bytes_max} bytes and were left out"

    found: dict[str, str] = {}
    wrong: str | None = None
    lines = iter(data.decode("utf-8", "replace").split("\n"))
    for line in lines:
        several = OUTPUT_OF_SEVERAL_LINES.match(line)
        if several is not None:
            name, values, closed = several[1], [], False
            for value in lines:
                if closed := value == several[2]:
                    break
                values.append(value)
            value = "\n".join(values)
            if not closed:
                wrong = "an output of several lines has no end and was left out"
                continue
        elif line.strip():
            name, equals, value = line.partition("=")
            if not equals:
                wrong = "a line of the outputs is no NAME=value and was left out"
                continue
        else:
            continue
        if OUTPUT_NAME.match(name):
            found[name] = value
        else:
            wrong = "an output's name is not made of letters, digits, _ . and - and was left out"
    return found, wrong
