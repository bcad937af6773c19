"""What the agent was started with, hidden from the jobs: they are processes of the same user."""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["hide_process"]

PR_SET_DUMPABLE: Final = 4


def hide_process() -> bool:
    """Have the kernel keep this process's environment and memory from others of its user; say whether it does.

    A variable that was deleted still stands in /proc/<pid>/environ. Root sees it all the same, and programs that are
    started from here are as visible as any.
    """
    if sys.platform != "linux":
        return False
    try:
        import ctypes

        return int(ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, ctypes.c_ulong(0), 0, 0, 0)) == 0
    except (ImportError, OSError, AttributeError):
        return False
