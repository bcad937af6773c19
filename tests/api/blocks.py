"""Server-sent events as they come over the wire, block by block."""

from __future__ import annotations

import httpx2


class Blocks:
    """One open stream."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()

    def block(self) -> dict[str, str]:
        """Return the fields of the next block; a comment is the field ''. Empty when the stream has ended."""
        fields: dict[str, str] = {}
        for line in self._lines:
            if not line:
                return fields
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        return {}
