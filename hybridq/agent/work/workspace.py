"""The folders of one lease: made fresh, for its user alone, and gone afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["Workspace", "sweep"]

MARK: Final = ".hybridq-job"
"""Lies in every folder that is to be removed, and in none that is to be kept."""
FREE_BYTES_MIN: Final = 1024 * 1024


class Workspace:
    """`work` is where steps start, `home` and `tmp` are theirs too; `steps` and `git` are the agent's.

    Args:
        root: Where it is made, in a new folder.
        name: What the folder's name begins with. Short: jobs put sockets into `tmp`, whose paths may not be long.

    Raises `OSError`.
    """

    def __init__(self, root: Path, name: str) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root.absolute()))
        self.work, self.home, self.tmp = self.folder / "work", self.folder / "home", self.folder / "tmp"
        self.steps, self.git = self.folder / "steps", self.folder / "git"
        self.output = self.folder / "output"
        try:
            self.write(self.folder / MARK, b"")
            for each in (self.work, self.home, self.tmp, self.steps, self.git):
                each.mkdir(mode=0o700)
            self.write(self.output, b"")
        except OSError:
            self.remove()
            raise

    def write(self, path: Path, data: bytes) -> None:
        """Write a file that nobody else reads. Raises `OSError`, also when the disk is full."""
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(data)

    def is_full(self) -> bool:
        """Whether the disk under the workspace has no room left."""
        try:
            disk = os.statvfs(self.folder)
        except OSError:
            return False
        return disk.f_bavail * disk.f_frsize < FREE_BYTES_MIN or (disk.f_files > 0 and disk.f_favail == 0)

    def keep(self) -> Path:
        """Leave the folder where it is, also in a `sweep`. Returns it."""
        with contextlib.suppress(OSError):
            (self.folder / MARK).unlink()
        return self.folder

    def remove(self) -> bool:
        """Remove everything; say whether it is gone. Nothing of the job may live any more."""
        return _remove(self.folder)


def sweep(root: Path) -> int:
    """Remove the workspaces under `root` that an agent which is no more left behind. Returns how many are gone.

    To be called before the first claim, by the one agent that works in `root`. Anything else under `root` stays.
    """
    try:
        found = [path for path in root.iterdir() if not path.is_symlink() and (path / MARK).is_file()]
    except OSError:
        return 0
    return sum(_remove(path) for path in found)


def _remove(folder: Path) -> bool:
    if folder.is_symlink():
        # A job has put it in the place of its folder: what it points to is not ours to open up.
        with contextlib.suppress(OSError):
            folder.unlink()
        return not _there(folder)
    shutil.rmtree(folder, ignore_errors=True)
    if not _there(folder):
        return True
    # Jobs leave folders that their owner may not read or write to, such as Go's module cache.
    _open_up(folder)
    for path, names, _ in os.walk(folder):
        for name in names:
            _open_up(Path(path, name))
    shutil.rmtree(folder, ignore_errors=True)
    return not _there(folder)


def _open_up(folder: Path) -> None:
    with contextlib.suppress(OSError):
        if not folder.is_symlink():
            folder.chmod(stat.S_IRWXU)


def _there(folder: Path) -> bool:
    return os.path.lexists(folder)
