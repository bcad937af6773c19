"""`exec://NAME`, `exec://NAME/argument#field`: what a program of the operator's prints.

Which programs there are is the operator's list alone; a reference chooses one by its name, and gives it at most two
arguments that cannot be options. There is no shell.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from .ref import SecretRef
from .refused import SecretUnavailable

__all__ = ["ExecSecrets"]

OUTPUT_BYTES_MAX: Final = 64 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_ARGUMENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:+=~/-]*")
_OWN: Final = re.compile(r"HYBRIDQ_", re.IGNORECASE)


class ExecSecrets:
    """Programs in `folder`, by their file name, and `commands`, by theirs: a name → words to run.

    The program gets the agent's environment without the agent's own credentials, no input, and the reference in
    `SECRET_REF`. What it prints on standard output, less one newline at the end, is the secret.
    """

    scheme = "exec"

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        commands: Mapping[str, Sequence[str]] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = None if folder is None else Path(folder).absolute()
        self._commands = {name: tuple(words) for name, words in (commands or {}).items()}
        self._environ = dict(os.environ if environ is None else environ)

    def resolve(self, ref: SecretRef, timeout_s: float) -> str:
        """Run the program and return what it prints."""
        name, _, argument = ref.path.partition("/")
        arguments = [one for one in (argument, ref.field) if one]
        if not _NAME.fullmatch(name) or not all(_ARGUMENT.fullmatch(one) for one in arguments):
            raise SecretUnavailable(ref, "a reference of this kind is exec://NAME/argument#field, and none an option")
        if ref.field and not argument:
            raise SecretUnavailable(ref, "a field needs an argument before it")
        words = self._commands.get(name) or (self._program(ref, name),)
        output = self._run(ref, [*words, *arguments], timeout_s)
        try:
            text = output.decode()
        except UnicodeDecodeError:
            raise SecretUnavailable(ref, "the program printed what is not UTF-8 text") from None
        return text.removesuffix("\n").removesuffix("\r")

    def _program(self, ref: SecretRef, name: str) -> str:
        if self._folder is None:
            raise SecretUnavailable(ref, "the agent's operator has listed no such program")
        try:
            folder = os.path.realpath(self._folder, strict=True)
            path = os.path.realpath(os.path.join(folder, name), strict=True)
            found, around = os.stat(path), os.stat(folder)
        except OSError:
            raise SecretUnavailable(ref, "the agent's operator has listed no such program") from None
        if os.path.dirname(path) != folder:
            raise SecretUnavailable(ref, "a link leads out of the folder of programs")
        if not stat.S_ISREG(found.st_mode) or not os.access(path, os.X_OK):
            raise SecretUnavailable(ref, "it is no program")
        for one in (found, around):
            if one.st_uid not in (0, os.geteuid()) or one.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise SecretUnavailable(ref, "others than the agent's user and root may change the program")
        return path

    def _run(self, ref: SecretRef, words: Sequence[str], timeout_s: float) -> bytes:
        kept = {name: value for name, value in self._environ.items() if not _OWN.match(name)}
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                # What a program complains of may hold what it was asked for.
                stderr=subprocess.DEVNULL,
                env=kept | {"SECRET_REF": ref.secret_ref},
                cwd=os.path.abspath(os.sep),
                start_new_session=True,
            )
        except (OSError, ValueError) as wrong:
            reason = wrong.strerror if isinstance(wrong, OSError) else None
            raise SecretUnavailable(ref, f"the program could not be started: {reason or 'its words'}") from None
        ends = time.monotonic() + timeout_s
        try:
            output = _read_all(ref, process, ends)
            try:
                code = process.wait(max(0.0, ends - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise _too_slow(ref) from None
        finally:
            _end(process)
        if code != 0:
            raise SecretUnavailable(ref, f"the program ended with {code}")
        return output


def _read_all(ref: SecretRef, process: subprocess.Popen[bytes], ends: float) -> bytes:
    assert process.stdout is not None
    output = bytearray()
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not ready.select(max(0.0, ends - time.monotonic())):
                raise _too_slow(ref)
            piece = os.read(process.stdout.fileno(), 8192)
            if not piece:
                return bytes(output)
            output += piece
            if len(output) > OUTPUT_BYTES_MAX:
                raise SecretUnavailable(ref, f"the program printed more than {OUTPUT_BYTES_MAX} bytes")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what still runs, with all that it started, and leave nothing to be waited for."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _too_slow(ref: SecretRef) -> SecretUnavailable:
    return SecretUnavailable(ref, "the program did not end in time")
