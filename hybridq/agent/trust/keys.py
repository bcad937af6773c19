"""Keys as texts: a prefix that says what the key does, then the key and a checksum in base64url.

```
hqsign_…     private   signs jobs                     with the people and pipelines that may order work
hqverify_…   public    says which signatures count    on agents
hqseal_…     public    seals payloads                 with whoever enqueues
hqopen_…     private   opens sealed payloads          on agents
```

The two pairs are told apart by their prefix, so neither can stand in for the other, and a key's id is a hash of the
public key: nobody can choose the id under which a key is found. Private keys are shown by no `repr` and no error.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Self, TypeVar

from ...errors import UsageError

__all__ = ["KeyUnusable", "OpenKey", "SealKey", "SignKey", "VerifyKey", "read_keys"]

KEY_BYTES: Final = 32
FILE_BYTES_MAX: Final = 64 * 1024
_BODY: Final = re.compile(r"[A-Za-z0-9_-]{48}")


class KeyUnusable(UsageError):
    """A key, or a file of keys, that cannot be used. The message never holds the key."""


@dataclass(frozen=True, slots=True)
class _Key:
    """32 bytes and what they are for."""

    prefix: ClassVar[str]
    private: ClassVar[bool]
    raw: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.raw) != KEY_BYTES:
            raise KeyUnusable(f"a key of this kind has {KEY_BYTES} bytes")

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the key that `text` writes. Raises `KeyUnusable`."""
        body = text.strip().removeprefix(cls.prefix)
        if not text.strip().startswith(cls.prefix) or not _BODY.fullmatch(body):
            raise KeyUnusable(f"not a key of the form {cls.prefix}… that `hybridq keypair` makes")
        try:
            decoded = base64.b64decode(body, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise KeyUnusable(f"{cls.prefix}…: not base64url") from None
        raw = decoded[:KEY_BYTES]
        if decoded[KEY_BYTES:] != _checksum(cls.prefix, raw):
            raise KeyUnusable(f"{cls.prefix}…: the checksum does not hold; it was mistyped or cut off")
        return cls(raw)

    @property
    def text(self) -> str:
        """The key as text; for a private one this is the secret itself."""
        return self.prefix + base64.urlsafe_b64encode(self.raw + _checksum(self.prefix, self.raw)).decode()


@dataclass(frozen=True, slots=True)
class VerifyKey(_Key):
    """Public Ed25519 key: a signature by its private half counts."""

    prefix: ClassVar[str] = "hqverify_"
    private: ClassVar[bool] = False

    def __post_init__(self) -> None:
        from nacl.bindings import crypto_core_ed25519_is_valid_point, has_crypto_core_ed25519

        _Key.__post_init__(self)
        # Under a point of small order some signatures hold for whatever they are put.
        if has_crypto_core_ed25519 and not crypto_core_ed25519_is_valid_point(self.raw):
            raise KeyUnusable(f"{self.prefix}…: no public key of Ed25519")

    @property
    def id(self) -> str:
        """What signatures call the key."""
        return _id_of(self.prefix, self.raw)


@dataclass(frozen=True, slots=True)
class SignKey(_Key):
    """Private Ed25519 key (its seed): signs jobs."""

    prefix: ClassVar[str] = "hqsign_"
    private: ClassVar[bool] = True

    @classmethod
    def new(cls) -> Self:
        """Return a new key, of the operating system's randomness."""
        return cls(os.urandom(KEY_BYTES))

    @property
    def public(self) -> VerifyKey:
        """Its other half."""
        from nacl.signing import SigningKey

        return VerifyKey(bytes(SigningKey(self.raw).verify_key))


@dataclass(frozen=True, slots=True)
class SealKey(_Key):
    """Public X25519 key: what is sealed to it, its private half alone opens."""

    prefix: ClassVar[str] = "hqseal_"
    private: ClassVar[bool] = False

    @property
    def id(self) -> str:
        """What sealed payloads call the key."""
        return _id_of(self.prefix, self.raw)


@dataclass(frozen=True, slots=True)
class OpenKey(_Key):
    """Private X25519 key: opens what was sealed to its public half."""

    prefix: ClassVar[str] = "hqopen_"
    private: ClassVar[bool] = True

    @classmethod
    def new(cls) -> Self:
        """Return a new key, of the operating system's randomness."""
        return cls(os.urandom(KEY_BYTES))

    @property
    def public(self) -> SealKey:
        """Its other half."""
        from nacl.public import PrivateKey

        return SealKey(bytes(PrivateKey(self.raw).public_key))


def _checksum(prefix: str, raw: bytes) -> bytes:
    """Holds for this kind of key alone, so that a key does not become another by its prefix."""
    return hashlib.sha256(prefix.encode() + b"checksum\0" + raw).digest()[:4]


def _id_of(prefix: str, raw: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(prefix.encode() + b"id\0" + raw).digest()[:12]).decode()


K = TypeVar("K", bound=_Key)


def read_keys(kind: type[K], given: Iterable[str]) -> tuple[K, ...]:
    """Return the keys in `given`: each a key's text, or the path of a file with one key a line.

    Blank lines and those that begin with `#` are passed over. A file of private keys must be its owner's alone, and no
    file may be others' to write. The same key twice counts once. Raises `KeyUnusable`.
    """
    found: dict[bytes, K] = {}
    for one in given:
        if one.strip().startswith(kind.prefix):
            keys = [kind.of(one)]
        elif _LOOKS_LIKE_A_KEY.match(one.strip()):
            raise KeyUnusable(f"a key of another kind than {kind.prefix}…")
        else:
            keys = _keys_in(kind, Path(one))
        found |= {key.raw: key for key in keys}
    return tuple(found.values())


_LOOKS_LIKE_A_KEY: Final = re.compile(r"hq[a-z]+_[A-Za-z0-9_-]{24,}")
_MAY_BE_A_KEY: Final = re.compile(r"\s*[A-Za-z0-9_+/=-]{40,}\s*")


def _keys_in(kind: type[K], path: Path) -> list[K]:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as wrong:
        shown = "a path that may be a key itself" if _MAY_BE_A_KEY.fullmatch(str(path)) else str(path)
        reason = wrong.strerror if isinstance(wrong, OSError) else None
        raise KeyUnusable(f"{shown}: {reason or 'cannot be read'}") from None
    if kind.private and os.name == "posix" and mode & 0o077:
        raise KeyUnusable(f"{path}: others may read or change this private key; chmod 600 {path}")
    if os.name == "posix" and mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise KeyUnusable(f"{path}: others may put keys of theirs into this file; chmod go-w {path}")
    if len(content) > FILE_BYTES_MAX:
        raise KeyUnusable(f"{path}: larger than {FILE_BYTES_MAX} bytes, so no file of keys")
    lines = [line.strip() for line in content.decode(errors="replace").splitlines()]
    keys: list[K] = []
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#"):
            try:
                keys.append(kind.of(line))
            except KeyUnusable as wrong:
                raise KeyUnusable(f"{path}, line {number}: {wrong}") from None
    if not keys:
        raise KeyUnusable(f"{path}: holds no key")
    return keys
