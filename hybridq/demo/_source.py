"""The source tree that the demo builds: always a copy, so that the original is never written to."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..errors import InvalidArgument

__all__ = ["copy_tree", "default_tree"]

FILES_MAX: Final = 20_000
BYTES_MAX: Final = 200 * 2**20
GIT_S_MAX: Final = 30
NOT_SOURCE: Final = frozenset(
    {
        *(".git", ".hg", ".venv", "venv", "node_modules", "__pycache__", ".tox", ".nox"),
        *(".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".eggs"),
    }
)
BUILT: Final = frozenset({"build", "dist"})


def default_tree() -> Path:
    """Return the checkout that this package runs from, else the sample package that comes with it."""
    package = Path(__file__).resolve().parent.parent
    project = package.parent / "pyproject.toml"
    if project.is_file():
        name = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {}).get("name")
        if name == "hybridq":
            return package.parent
    return Path(__file__).resolve().parent / "sample"


def copy_tree(tree: Path, target: Path) -> int:
    """Copy the sources of `tree` (what git would, where it is a repository) to `target`; return how many files.

    Raises `InvalidArgument` for what is no directory, or more than 20,000 files or 200 MiB.
    """
    if not tree.is_dir():
        raise InvalidArgument("path", str(tree), "a directory with sources")
    count = size_bytes = 0
    for source in _known_to_git(tree) or _walk(tree):
        goal = target / source.relative_to(tree)
        goal.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source, goal)
        except FileNotFoundError:
            continue  # listed, and deleted since: not a source any more
        count, size_bytes = count + 1, size_bytes + goal.stat().st_size
        if count > FILES_MAX or size_bytes > BYTES_MAX:
            raise InvalidArgument("path", str(tree), "a tree of at most 20,000 files and 200 MiB")
    if not count:
        raise InvalidArgument("path", str(tree), "a directory with sources; this one is empty")
    return count


def _known_to_git(tree: Path) -> list[Path]:
    """Return tracked and new files of a repository, without those it ignores; nothing where git does not know."""
    if not (tree / ".git").exists() or shutil.which("git") is None:
        return []
    command = ["git", "-C", str(tree), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, timeout=GIT_S_MAX).stdout
    except (subprocess.SubprocessError, OSError):
        return []
    found = (tree / name.decode(errors="surrogateescape") for name in listed.split(b"\0") if name)
    return [path for path in found if _is_source(path, tree)]


def _walk(tree: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(tree):
        folders[:] = [name for name in folders if name not in NOT_SOURCE | BUILT]
        yield from (path for name in names if _is_source(path := Path(folder) / name, tree))


def _is_source(path: Path, tree: Path) -> bool:
    inside = path.relative_to(tree).parts
    return not NOT_SOURCE.intersection(inside) and path.is_file() and not path.is_symlink()
