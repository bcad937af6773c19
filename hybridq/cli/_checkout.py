"""What `enqueue --run` checks out: the git work tree one stands in, as an agent can fetch it."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import rich_click as click

__all__ = ["Tree", "find_tree"]

SUBJECT_CHARACTERS_MAX: Final = 200
GIT_S: Final = 30.0
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")


@dataclass(frozen=True, slots=True)
class Tree:
    """A work tree with at least one commit."""

    top: Path
    prefix: str
    """Where in it we stand, with a slash at the end; "" at the top."""
    commit_sha: str
    branch: str | None
    subject: str
    author: str
    changes: int
    """Files that differ from the commit, and new ones."""

    def payload(self, repo: str) -> dict[str, str]:
        """Return what the job says about its checkout."""
        said = {
            "repo": repo,
            "ref": self.branch or "",
            "commit_sha": self.commit_sha,
            "commit_message": self.subject,
            "author": self.author,
        }
        return {name: value for name, value in said.items() if value}

    def remote(self) -> str:
        """Return the URL that agents elsewhere fetch the commit from. Raises `click.UsageError` when there is none."""
        names = (_git(self.top, "remote") or "").split()
        if not names:
            raise click.UsageError("this repository has no remote that an agent elsewhere could fetch from")
        name = "origin" if "origin" in names else names[0]
        url = _git(self.top, "remote", "get-url", name) or ""
        if not _git(self.top, "branch", "--remotes", "--contains", self.commit_sha):
            raise click.UsageError(f"commit {self.commit_sha[:10]} is on no branch of {name} yet: git push, then again")
        return _without_credential(url)


def find_tree(folder: Path) -> Tree | None:
    """Return the work tree that `folder` is in; None when it is in none, or git is not here.

    Raises `click.UsageError` when the folder is not in the commit.
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    commit_sha = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if not top or not commit_sha:
        return None
    prefix = _git(folder, "rev-parse", "--show-prefix") or ""
    if prefix and _git(folder, "cat-file", "-e", f"{commit_sha}:{prefix.rstrip('/')}") is None:
        raise click.UsageError(
            f"{prefix} is not in commit {commit_sha[:10]}: commit it, or --here runs the folder as it is"
        )
    described = _git(folder, "show", "--no-patch", "--format=%s%n%an", commit_sha) or ""
    subject, _, author = described.partition("\n")
    return Tree(
        top=Path(top),
        prefix=prefix,
        commit_sha=commit_sha,
        branch=_git(folder, "symbolic-ref", "--quiet", "--short", "HEAD"),
        subject=_shown(subject),
        author=_shown(author),
        changes=len((_git(folder, "status", "--porcelain") or "").splitlines()),
    )


def _shown(text: str) -> str:
    return _UNPRINTABLE.sub(" ", text).strip()[:SUBJECT_CHARACTERS_MAX]


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git says, without the line's end; None when it says no, or is not here."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            # Looking at the tree must not write to it.
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
            timeout=GIT_S,
            check=False,
        )
    except FileNotFoundError:
        return None
    except subprocess.TimeoutExpired:
        raise click.UsageError(
            f"git {arguments[0]} takes longer than {GIT_S:.0f} s here; --here does without"
        ) from None
    return done.stdout.decode(errors="surrogateescape").rstrip("\n") if done.returncode == 0 else None


def _without_credential(url: str) -> str:
    """Return a remote's URL without the password that some keep in it: agents have their own."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
