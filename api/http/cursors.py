"""Cursors that only their own list, with the same filters, in the same namespace, understands."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import Any, Final

import msgspec

from .problems import Problem, Reason

__all__ = ["CURSOR", "CURSOR_CHARS_MAX", "Cursors"]

CURSOR_CHARS_MAX: Final = 8192
CURSOR: Final = "^[A-Za-z0-9_-]+$"
MAC_BYTES: Final = 16

_shape = re.compile(r"[A-Za-z0-9_-]+").fullmatch


class Cursors:
    """Seals positions into opaque texts and opens them again; `key` is the same in every process of a deployment."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def seal(self, list_name: str, filters: Any, position: Any) -> str:
        """Return the cursor for a position (plain JSON values) of a list. `filters` holds the namespace too."""
        text = msgspec.json.encode(position)
        return base64.urlsafe_b64encode(self._mac(list_name, filters, text) + text).rstrip(b"=").decode("ascii")

    def open(self, list_name: str, filters: Any, cursor: str) -> Any:
        """Return the position. Raises 400 `invalid_cursor` unless it was sealed with the same list and filters."""
        raw = _decode(cursor)
        mac, text = raw[:MAC_BYTES], raw[MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(list_name, filters, text)):
            raise _invalid()
        return msgspec.json.decode(text)

    def _mac(self, list_name: str, filters: Any, text: bytes) -> bytes:
        bound = msgspec.json.encode([list_name, filters], order="sorted")
        return hmac.digest(self._key, len(bound).to_bytes(8) + bound + text, hashlib.sha256)[:MAC_BYTES]


def _decode(cursor: str) -> bytes:
    if len(cursor) > CURSOR_CHARS_MAX or _shape(cursor) is None:
        raise _invalid()
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except binascii.Error:
        raise _invalid() from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != cursor.encode():  # one spelling of each cursor
        raise _invalid()
    return raw


def _invalid() -> Problem:
    return Problem("invalid_cursor", errors=[Reason("/query/cursor", "was not made by this list with these filters")])
