"""The text of a credential: how it is made, recognised, and stood in for by a hash. No Redis here.

`<prefix>_<id><secret><checksum>`: a prefix for its kind, 12 base62 characters that name the record, 43 base62
characters of secret (256 bits), and a CRC32 in 6 base62 characters, so that a scanner knows a leaked one without
asking anybody, and a mistyped one never costs a look-up. What is stored is the SHA-256 of the whole text: a secret of
so many bits needs no slow hash.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import string
from typing import Final, Literal, get_args

import msgspec

from .errors import InvalidArgument

__all__ = ["KINDS", "Kind", "Token", "csrf_of", "derived_id", "hash_of", "make", "new_id", "parse", "redact", "same"]

Kind = Literal["key", "registration", "agent", "renewal", "session", "login"]

KINDS: Final[dict[Kind, str]] = {
    "key": "hqk",
    "registration": "hqr",
    "agent": "hqa",
    "renewal": "hqn",
    "session": "hqs",
    "login": "hql",
}
"""kind → prefix of its text. `login`: a one-time link of development."""

ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_LENGTH: Final = 12
SECRET_LENGTH: Final = 43
CHECKSUM_LENGTH: Final = 6
_KIND_OF: Final[dict[str, Kind]] = {prefix: kind for kind, prefix in KINDS.items()}
_PREFIXES: Final = "|".join(_KIND_OF)
_TEXT: Final = re.compile(
    rf"({_PREFIXES})_([0-9A-Za-z]{{{ID_LENGTH}}})[0-9A-Za-z]{{{SECRET_LENGTH}}}([0-9A-Za-z]{{{CHECKSUM_LENGTH}}})"
)
# Also what is only the beginning of one: a text that was cut must not let most of a secret through.
_LIKE_ONE: Final = re.compile(rf"\b({_PREFIXES})_([0-9A-Za-z]{{{ID_LENGTH}}})[0-9A-Za-z]+")


class Token(msgspec.Struct, frozen=True):
    """A text that has the shape of a credential. Whether it is one, only its record can tell."""

    kind: Kind
    id: str
    text: str

    def __repr__(self) -> str:
        return f"<Token {self.kind} {self.id}>"

    @property
    def hash(self) -> str:
        """SHA-256 of the whole text, in hex: what its record holds."""
        return hash_of(self.text)


def make(kind: Kind, id: str | None = None) -> str:
    """Return the text of a new credential, with an id of its own or the one given. Show it once, store its hash."""
    if kind not in get_args(Kind):
        raise InvalidArgument("kind", kind, f"one of {', '.join(KINDS)}")
    if id is not None and not is_id(id):
        raise InvalidArgument("id", id, f"{ID_LENGTH} of 0-9 A-Z a-z")
    body = f"{KINDS[kind]}_{id or new_id()}{_random(SECRET_LENGTH)}"
    return body + _checksum(body)


def parse(text: str) -> Token | None:
    """Return the parts of a credential's text, None when its shape or checksum is wrong. Nothing is looked up."""
    found = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if found is None or _checksum(text[:-CHECKSUM_LENGTH]) != found[3]:
        return None
    return Token(_KIND_OF[found[1]], found[2], text)


def hash_of(text: str) -> str:
    """Return what stands for a secret text in Redis: its SHA-256 in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def same(one: str, other: str) -> bool:
    """Compare two hashes in a time that does not depend on where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


def new_id() -> str:
    """Return a random id: 12 base62 characters, 71 bits."""
    return _random(ID_LENGTH)


def is_id(text: object) -> bool:
    """Tell whether a text has the shape of a credential's id."""
    return isinstance(text, str) and len(text) == ID_LENGTH and set(text) <= set(ALPHABET)


def derived_id(text: str) -> str:
    """Return the id that always belongs to `text`: so that a repeated request names the credential it made before."""
    return _base62(int.from_bytes(hashlib.sha256(b"hybridq id\0" + text.encode()).digest()[:16]), ID_LENGTH)


def csrf_of(cookie: str) -> str:
    """Return the CSRF token of a session's cookie text.

    It follows from the cookie, so `validate` can show it again though Redis holds only its hash; a page of another
    origin can read neither, and a script of our own page not the cookie.
    """
    digest = hmac.digest(cookie.encode(), b"hybridq csrf", "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def redact(text: str) -> str:
    """Return a text in which every credential is cut down to its prefix and id."""
    return _LIKE_ONE.sub(r"\1_\2…", text)


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


_PAIRS: Final = tuple(one + other for one in ALPHABET for other in ALPHABET)


def _checksum(body: str) -> str:
    # Every call has a token: 32 bits in three looks at a table, as `_base62` writes them.
    rest, low = divmod(binascii.crc32(body.encode()), len(_PAIRS))
    high, middle = divmod(rest, len(_PAIRS))
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
