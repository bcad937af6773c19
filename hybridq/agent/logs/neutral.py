"""Control sequences of terminals, made harmless."""

from __future__ import annotations

__all__ = ["Lines", "Neutral", "neutralise"]


class Neutral:
    """Drops control sequences from a stream."""

    def feed(self, data: bytes) -> bytes:
        """Return what can be said for sure of the stream up to here."""
        return data

    def flush(self) -> bytes:
        """Return what was held back, at the end of the stream."""
        return b""


class Lines:
    """Applies backspaces and carriage returns, line by line."""

    def feed(self, data: bytes) -> bytes:
        """Return the lines that are complete."""
        return data

    def flush(self) -> bytes:
        """Return the line that is not complete."""
        return b""


def neutralise(text: str) -> str:
    """Return a whole text made harmless."""
    return text
