"""The checkout: exactly the commit that was asked for, by the machine's own git and with the agent's own credentials.

The repository's name and its content are a stranger's. So: only protocols on a list, no name that git could take for
an option or a helper program, no hooks, no filters but the operator's own, no submodules, no prompts, no clean-up that
goes on in the background. What is fetched with is written into a file that the job never sees.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from .process import Step as Command
from .steps import passed_on
from .workspace import Workspace

if TYPE_CHECKING:
    from ..work_of import Git

__all__ = ["Checkout", "Executed", "GitFailed"]

PASSED: Final = (
    *("HOME", "XDG_CONFIG_HOME", "SSH_AUTH_SOCK", "SSH_ASKPASS"),
    *("GIT_SSH", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_SSL_CAINFO", "GIT_PROXY_COMMAND"),
)
"""git is the operator's program here: it may use their keys and credential helpers, as steps may not."""
SETTINGS: Final = """\
[core]
	hooksPath = /dev/null
	fsmonitor = false
[init]
	templateDir =
	defaultBranch = main
[gc]
	auto = 0
[maintenance]
	auto = false
[fetch]
	recurseSubmodules = false
[submodule]
	recurse = false
[advice]
	detachedHead = false
[credential]
	interactive = false
"""
OWN_FOLDERS: Final = "[safe]\n\tdirectory = *\n"
EVERYTHING: Final = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
SHA: Final = re.compile(r"[0-9a-f]{7,64}\Z")
REF: Final = re.compile(r"(?!.*(\.\.|@\{|//|/\.|\.lock\Z))[A-Za-z0-9_][A-Za-z0-9_./@+#=,%!-]*(?<![./])\Z")
SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
HELPER: Final = re.compile(r"[^/]*::")
SCP: Final = re.compile(
    r"(?:[A-Za-z0-9_.+][A-Za-z0-9_.+-]*@)?(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]):(?!/?-)\S"
)
MISSING: Final = ("couldn't find remote ref", "not our ref", "no such remote ref", "remote ref does not exist")
WORDS_MAX: Final = 500


class GitFailed(Exception):
    """There is no checkout. `rejected`: nor would there ever be, from what the job says."""

    def __init__(self, code: str, message: str, *, rejected: bool = False) -> None:
        self.code, self.message, self.rejected = code, message, rejected
        super().__init__(message)


class Executed(NamedTuple):
    """How a command of git ended."""

    exit_code: int
    words: str
    """The last of what it wrote."""


class Repository(NamedTuple):
    """Where to fetch from: `url` has no credentials; those are in `secrets`, and in `secret_url` if there are any."""

    url: str
    secret_url: str | None
    secrets: tuple[str, ...]
    local: bool

    @classmethod
    def parse(cls, text: str, protocols: Collection[str]) -> Repository:
        """Read the name of a repository: a URL, `host:path`, or an absolute path. Raises `GitFailed`."""
        if (
            not text
            or text.startswith("-")
            or any(ord(char) < 33 or ord(char) == 127 for char in text.replace(" ", ""))
        ):
            raise _refused("the repository's name is none that git may be given")
        scheme = SCHEME.match(text)
        if scheme is not None:
            return cls._of_url(text, scheme[1].lower(), protocols)
        if HELPER.match(text):
            raise _refused("a repository may not name a helper program (`…::`)")
        if os.path.isabs(text):
            protocol, local = "file", True
        elif SCP.match(text):
            protocol, local = "ssh", False
        else:
            raise _refused("the repository is neither a URL, nor host:path, nor an absolute path")
        if protocol not in protocols:
            raise _refused(f"repositories by {protocol} are not allowed on this agent")
        return cls(text, None, (), local)

    @classmethod
    def _of_url(cls, text: str, protocol: str, protocols: Collection[str]) -> Repository:
        if protocol not in protocols:
            raise _refused(f"repositories by {protocol} are not allowed on this agent")
        try:
            parts = urlsplit(text)
            host = parts.hostname or ""
        except ValueError as error:
            raise _refused("the repository's URL cannot be read") from error
        user, _, _ = parts.netloc.rpartition("@")
        if host.startswith("-") or user.startswith("-") or (not host and protocol != "file"):
            raise _refused("the repository's URL has no usable host")
        name, _, password = user.partition(":")
        secrets = [password] if password else [name] if name and protocol in ("http", "https") else []
        if not secrets:
            return cls(text, None, (), protocol == "file")
        bare = parts.netloc.rpartition("@")[2]
        if password and protocol == "ssh":
            bare = f"{name}@{bare}"
        secrets += [unquote(secret) for secret in secrets if unquote(secret) != secret]
        return cls(urlunsplit(parts._replace(netloc=bare)), text, tuple(secrets), False)


class Checkout:
    """Checks out one commit.

    Args:
        git: What the job asks for.
        repository: The same, as far as it was found fit.
        workspace: Whose `work` gets the files.
        environ: The agent's own environment.
        mark: Name and value that every process of the job has in its environment.
        protocols: Those that git may speak.
        execute: Runs one command to its end.
    """

    def __init__(
        self,
        git: Git,
        repository: Repository,
        *,
        workspace: Workspace,
        environ: Mapping[str, str],
        mark: tuple[str, str],
        protocols: Collection[str],
        execute: Callable[[Command], Executed],
    ) -> None:
        if git.ref is not None and not REF.match(git.ref):
            raise _refused("the ref's name is none that git may be given")
        if git.commit_sha is not None and not SHA.match(git.commit_sha):
            raise _refused("the commit is no lower-case hexadecimal name of a commit")
        program = shutil.which("git", path=environ.get("PATH", os.defpath))
        if program is None:
            raise GitFailed("git_missing", "there is no git on this machine's PATH")
        self._git, self._repository, self._workspace = git, repository, workspace
        self._program, self._execute = program, execute
        self._config = workspace.git / "config"
        self._environment = {
            **passed_on(environ, PASSED),
            "GIT_ALLOW_PROTOCOL": ":".join(protocols),
            "GIT_CONFIG_GLOBAL": str(self._config),
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "LC_ALL": "C",
            mark[0]: mark[1],
        }
        if not {"GIT_SSH", "GIT_SSH_COMMAND"} & self._environment.keys():
            self._environment["GIT_SSH_COMMAND"] = "ssh -o BatchMode=yes"
        self._write_config(environ)

    def run(self) -> str:
        """Check the commit out; return its full name. Raises `GitFailed`."""
        asked = self._git.commit_sha
        kind = ["--object-format=sha256"] if asked is not None and len(asked) == 64 else []
        self._must("init", "--quiet", *kind, ".")
        self._must("remote", "add", "origin", self._repository.url)
        try:
            sha = self._fetch_commit(asked) if asked is not None else self._fetch_ref(self._git.ref or "HEAD")
            self._must("checkout", "--quiet", "--force", "--detach", sha)
        finally:
            self._config.unlink(missing_ok=True)
        return sha

    def _fetch_commit(self, asked: str) -> str:
        """The commit alone where the server gives it; else all branches and tags, and the commit out of those."""
        if len(asked) in (40, 64) and self._fetch("--depth=1", "--no-tags", what=[asked]).exit_code == 0:
            return self._commit(asked) or self._lacking(asked)
        further = [self._git.ref] if self._git.ref is not None else []
        fetched = self._fetch(what=[*EVERYTHING, *further])
        if fetched.exit_code != 0 and further:
            fetched = self._fetch(what=EVERYTHING)
        if fetched.exit_code != 0:
            raise _failed(fetched)
        return self._commit(asked) or self._lacking(asked)

    def _fetch_ref(self, ref: str) -> str:
        fetched = self._fetch("--depth=1", "--no-tags", what=[ref])
        if fetched.exit_code != 0:
            if any(words in fetched.words for words in MISSING):
                self._lacking(ref)
            raise _failed(fetched)
        return self._commit("FETCH_HEAD") or self._lacking(ref)

    def _lacking(self, what: str) -> str:
        raise GitFailed("commit_not_found", f"{self._repository.url} has no {what}")

    def _fetch(self, *options: str, what: Collection[str]) -> Executed:
        return self._call("fetch", "--quiet", "--force", "--no-recurse-submodules", *options, "--", "origin", *what)

    def _commit(self, name: str) -> str | None:
        """The full name of a commit, when it is there."""
        found = self._call("rev-parse", "--quiet", "--verify", "--end-of-options", f"{name}^{{commit}}")
        sha = found.words.strip()
        return sha if found.exit_code == 0 and SHA.match(sha) else None

    def _must(self, *arguments: str) -> None:
        executed = self._call(*arguments)
        if executed.exit_code != 0:
            raise _failed(executed)

    def _call(self, *arguments: str) -> Executed:
        return self._execute(Command([self._program, *arguments], self._environment, str(self._workspace.work)))

    def _write_config(self, environ: Mapping[str, str]) -> None:
        """A file of ours stands for the user's own, includes that, and has the last word.

        A file, and not options: git does not pass those on to the program that reads a local repository.
        """
        theirs = [environ["GIT_CONFIG_GLOBAL"]] if "GIT_CONFIG_GLOBAL" in environ else _usual_configs(environ)
        text = "".join(f"[include]\n\tpath = {_quoted(path)}\n" for path in theirs) + SETTINGS
        if self._repository.local:
            text += OWN_FOLDERS
        if self._repository.secret_url is not None:
            text += f"[url {_quoted(self._repository.secret_url)}]\n\tinsteadOf = {_quoted(self._repository.url)}\n"
        self._workspace.write(self._config, text.encode("utf-8", "surrogateescape"))


def _usual_configs(environ: Mapping[str, str]) -> list[str]:
    home = environ.get("HOME")
    folder = environ.get("XDG_CONFIG_HOME") or (str(Path(home) / ".config") if home else None)
    found = [str(Path(folder) / "git" / "config")] if folder else []
    return [*found, str(Path(home) / ".gitconfig")] if home else found


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _refused(message: str) -> GitFailed:
    return GitFailed("repository_refused", message, rejected=True)


def _failed(executed: Executed) -> GitFailed:
    words = " ".join(executed.words.split())[-WORDS_MAX:]
    return GitFailed("git_failed", f"git: {words or f'exit code {executed.exit_code}'}")
