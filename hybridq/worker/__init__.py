"""Runs the jobs of a queue in this process. To be read in this order:

`worker` what users see → `tasks` their functions → `shift` one run of a worker → `run` one job in it →
`journal` what is said about it. Beside them: `threads`, `outage`, `signals`, `hooks`, `entry`.
"""

from .entry import find_workers, run_workers
from .hooks import (
    ClaimDetails,
    DrainDetails,
    FailDetails,
    FinishDetails,
    Hooks,
    LossDetails,
    NoHooks,
    StartDetails,
)
from .worker import Worker

__all__ = [
    "ClaimDetails",
    "DrainDetails",
    "FailDetails",
    "FinishDetails",
    "Hooks",
    "LossDetails",
    "NoHooks",
    "StartDetails",
    "Worker",
    "find_workers",
    "run_workers",
]
