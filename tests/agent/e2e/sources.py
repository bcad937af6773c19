"""The git repository that jobs check out, build and test: a little C program with a Makefile, in several commits."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

MAKEFILE = """\
program: main.c version.h
\tcc -O0 -o program main.c
test: program
\ttest "$$(./program)" = "$(VERSION)"
"""
MAIN = """\
#include <stdio.h>
#include "version.h"
int main(void) { return printf("%s\\n", VERSION) > 0 ? 0 : 1; }
"""
QUIET = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.com",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.com",
}


@dataclass(frozen=True)
class Sources:
    """A repository. `versions`: commit → what the program built from it prints."""

    repo: Path
    versions: dict[str, str]


def make_sources(folder: Path, commits: int = 4) -> Sources:
    """Make a repository in which each commit builds a program that prints another version."""
    repo = folder / "sources"
    repo.mkdir(parents=True)
    git(repo, "init", "-q", "-b", "main")
    (repo / "Makefile").write_text(MAKEFILE)
    (repo / "main.c").write_text(MAIN)
    versions = {}
    for number in range(1, commits + 1):
        version = f"1.{number}"
        (repo / "version.h").write_text(f'#define VERSION "{version}"\n')
        git(repo, "add", ".")
        git(repo, "commit", "-q", "-m", f"Version {version}")
        versions[git(repo, "rev-parse", "HEAD").strip()] = version
    return Sources(repo, versions)


def git(repo: Path, *arguments: str) -> str:
    """Run git in a repository, as nobody in particular."""
    done = subprocess.run(
        ["git", *arguments], cwd=repo, env={**os.environ, **QUIET}, check=True, capture_output=True, text=True
    )
    return done.stdout
