"""Runs one job on this machine, and knows no server.

To be read in this order: `run` one job from checkout to clean-up → `steps` what is run, when, and with what
environment → `git` the checkout → `outcome` what came of it → `workspace` its folders → `process` the agent's end of
the two pipes to its keeper → `keeper` the program at the other end, which outlives the agent by just long enough to
end everything the job started.
"""

from .outcome import Ended, JobFacts, StopReason, WorkSettings
from .run import Run
from .workspace import sweep

__all__ = ["Ended", "JobFacts", "Run", "StopReason", "WorkSettings", "sweep"]
