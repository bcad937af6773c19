"""`file:///path`: a file on the agent's machine, such as an orchestrator mounts.

It must be where the rule that allows it says, also after links were followed; not writable by others than its owner
(the agent's user, or root), and not readable by everybody unless it lies where container runtimes mount secrets.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from .ref import AllowedRef, SecretRef
from .refused import SecretUnavailable

__all__ = ["FileSecrets"]

FILE_BYTES_MAX: Final = 64 * 1024
MOUNTS: Final = ("/run/secrets", "/var/run/secrets")


class FileSecrets:
    """Files by absolute path. One newline at the end is not part of the secret.

    `open_to_all`: folders below which files may be readable by every user.
    """

    scheme = "file"

    def __init__(self, open_to_all: Iterable[str | os.PathLike[str]] = MOUNTS) -> None:
        self._open_to_all = tuple(os.path.realpath(folder) for folder in open_to_all)

    def resolve(self, ref: SecretRef, timeout_s: float) -> str:
        """Return what the file holds."""
        if ref.field or not ref.path.startswith("/"):
            raise SecretUnavailable(ref, "a reference of this kind is file:///absolute/path")
        try:
            content = self._read(ref)
        except OSError as wrong:
            raise SecretUnavailable(ref, wrong.strerror or "it cannot be read") from None
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise SecretUnavailable(ref, "the file is not UTF-8 text") from None
        return text.removesuffix("\n").removesuffix("\r")

    def _read(self, ref: SecretRef) -> bytes:
        path = os.path.realpath(ref.path, strict=True)
        # The file itself may be a link, as in a mounted volume, but not out of what the rule allows.
        within = os.path.realpath(ref.within if isinstance(ref, AllowedRef) else os.path.dirname(ref.path))
        if not _is_below(path, within):
            raise SecretUnavailable(ref, "a link leads out of what the rule allows")
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            self._check(ref, path, os.fstat(handle))
            content = bytearray()
            while piece := os.read(handle, FILE_BYTES_MAX):
                content += piece
                if len(content) > FILE_BYTES_MAX:
                    raise SecretUnavailable(ref, f"the file is larger than {FILE_BYTES_MAX} bytes")
        finally:
            os.close(handle)
        return bytes(content)

    def _check(self, ref: SecretRef, path: str, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise SecretUnavailable(ref, "it is no file")
        if found.st_uid not in (0, os.geteuid()):
            raise SecretUnavailable(ref, "the file belongs to another user than the agent's or root")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise SecretUnavailable(ref, "others than its owner may write the file; chmod go-w")
        if found.st_mode & stat.S_IROTH and not any(_is_below(path, folder) for folder in self._open_to_all):
            raise SecretUnavailable(ref, "every user of the machine may read the file; chmod o-r")


def _is_below(path: str, folder: str) -> bool:
    return Path(path).is_relative_to(folder)
