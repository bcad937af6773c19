"""The folders of one lease."""

from __future__ import annotations

from pathlib import Path

__all__ = ["sweep"]


def sweep(root: Path) -> int:
    """Remove the workspaces under `root` that an agent which is no more left behind. Returns how many are gone.

    To be called before the first claim, by the one agent that works in `root`.
    """
    raise NotImplementedError
