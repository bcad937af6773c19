"""`Agent`: the process."""

from __future__ import annotations

from .settings import AgentSettings

__all__ = ["Agent"]


class Agent:
    """Runs the jobs of a pool until it is drained."""

    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings

    def run(self) -> int:
        """Work until drained; returns the exit code."""
        return 0

    def drain(self, reason: str = "asked") -> None:
        """Claim nothing more, finish what runs within the grace, leave."""
