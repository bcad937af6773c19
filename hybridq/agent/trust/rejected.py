"""What an agent says to a job that it will not run."""

from __future__ import annotations

from ...errors import HybridqError

__all__ = ["Rejected"]


class Rejected(HybridqError):
    """The agent will not run this job, now or later: outcome `rejected`, no retry.

    `code` is stable; `message` says what is wrong with the job and never holds a value of it.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(f"{code}: {message}")

    @property
    def error(self) -> dict[str, str]:
        """As the job's `error`: `{code, message}`."""
        return {"code": self.code, "message": self.message}
