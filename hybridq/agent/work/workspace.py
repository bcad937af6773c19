"""The folders of one lease: made fresh, for its user alone, and gone afterwards."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["Workspace", "sweep"]

MARK: Final = ".hybridq-job"
"""Lies in every folder that is to be removed, and in none that is to be kept."""
LEVELS_MAX: Final = 100_000
"""Of folders in folders; more are left to the next `sweep`, and so is what somebody goes on making."""
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
    with contextlib.suppress(OSError):
        if folder.is_symlink():
            # A job has put it in the place of its folder: what it points to is not ours to remove.
            folder.unlink()
        else:
            _open_up(folder)
            _clear(folder)
            folder.rmdir()
    return not _there(folder)


def _clear(folder: Path) -> None:
    """Remove what is in a folder. Should something resist, the mark stays, and the next `sweep` tries again.

    However deep a job has nested folders, two of them are open at a time: those in a folder are moved up to `folder`
    before they are looked into themselves. To walk down instead would take a descriptor, and a call, a level.
    """
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        resist: set[str] = set()
        fresh = (f".{os.urandom(8).hex()}-{number}" for number in itertools.count())
        for _ in range(LEVELS_MAX):
            entries = [entry for entry in _entries(top) if entry[0] not in resist and entry != (MARK, False)]
            if not entries:
                break
            for name, is_folder in entries:
                try:
                    if is_folder:
                        _lift(top, name, fresh)
                    else:
                        os.unlink(name, dir_fd=top)
                except OSError:
                    resist.add(name)
        if _entries(top) == [(MARK, False)]:
            os.unlink(MARK, dir_fd=top)
    finally:
        os.close(top)


def _lift(top: int, name: str, fresh: Iterator[str]) -> None:
    """Remove the folder `name` of `top`; the folders in it become ones of `top`, under `fresh` names."""
    # Jobs leave folders that their owner may not read or write to, such as Go's module cache.
    os.chmod(name, stat.S_IRWXU, dir_fd=top)
    within = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        for child, is_folder in _entries(within):
            with contextlib.suppress(OSError):  # `rmdir` says that it is still there
                if is_folder:
                    os.chmod(child, stat.S_IRWXU, dir_fd=within)
                    os.rename(child, next(fresh), src_dir_fd=within, dst_dir_fd=top)
                else:
                    os.unlink(child, dir_fd=within)
    finally:
        os.close(within)
    os.rmdir(name, dir_fd=top)


def _entries(folder: int) -> list[tuple[str, bool]]:
    """Return the names in an open folder, and which of them are folders and no links."""
    with os.scandir(folder) as found:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]


def _open_up(folder: Path) -> None:
    with contextlib.suppress(OSError):
        if not folder.is_symlink():
            folder.chmod(stat.S_IRWXU)


def _there(folder: Path) -> bool:
    return os.path.lexists(folder)
