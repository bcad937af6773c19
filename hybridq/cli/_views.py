"""How jobs and times look: documents for machines, cells for people."""

from __future__ import annotations

import base64
import datetime as dt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridq import Job, JobPage

__all__ = ["JOB_COLUMNS", "ago", "job_document", "job_row", "page_document", "seconds", "shown"]

_NOT_LISTED = ("payload", "result", "error", "attempts")
JOB_COLUMNS = ("JOB", "TYPE", "STATUS", "PRIORITY", "ATTEMPT", "ENQUEUED", "AGENT")


def job_document(job: Job) -> dict[str, Any]:
    """Return a job whole, under the library's own names; a payload that is not JSON is `payload_base64`."""
    import msgspec

    document = msgspec.structs.asdict(job)
    try:
        msgspec.json.decode(job.payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        document |= {"payload": None, "payload_base64": base64.b64encode(job.payload).decode()}
    else:
        document["payload"] = msgspec.Raw(job.payload)
    return document


def page_document(page: JobPage) -> dict[str, Any]:
    """Return a page of jobs without what only a single job's document holds: payload, result, error, attempts."""
    import msgspec

    items = [
        {name: value for name, value in msgspec.structs.asdict(job).items() if name not in _NOT_LISTED}
        for job in page.items
    ]
    return {"items": items, "next_cursor": page.next_cursor}


def job_row(job: Job) -> tuple[object, ...]:
    """Return the cells of a job under `JOB_COLUMNS`."""
    attempt = f"{job.attempt}/{job.max_attempts}"
    return (job.job_id, job.type, job.status, job.priority, attempt, ago(job.enqueued_at), job.agent)


def ago(at: dt.datetime) -> str:
    """Return how long ago an instant was, by this machine's clock."""
    return f"{seconds((dt.datetime.now(dt.UTC) - at).total_seconds())} ago"


def seconds(value: float) -> str:
    """Return a duration in the unit that fits it: `0.013 s`, `4.2 s`, `3 min`, `5 h`, `2 d`."""
    if value < 1:
        return f"{max(0.0, value):.3f} s"
    if value < 120:
        return f"{value:.1f} s"
    for limit_s, unit_s, unit in ((7200, 60, "min"), (172_800, 3600, "h")):
        if value < limit_s:
            return f"{value / unit_s:.0f} {unit}"
    return f"{value / 86_400:.0f} d"


def shown(value: Any) -> str:
    """Return any value as one line: text as it is, the rest as JSON."""
    import msgspec

    if value is None:
        return "-"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
