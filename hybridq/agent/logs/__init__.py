"""What a job says, on its way to the server: made harmless, without secrets, bounded, and kept through an outage.

`JobLog` is the whole way; the parts of it stand alone:

    write → Neutral → Redactor → Lines (each stream) → Redactor (both streams) → spool (disk) → append (network)
"""

from __future__ import annotations

from .job_log import JobLog, LogSummary
from .neutral import Lines, Neutral, neutralise
from .redactor import MARKER, Redactor

__all__ = ["MARKER", "JobLog", "Lines", "LogSummary", "Neutral", "Redactor", "neutralise"]
