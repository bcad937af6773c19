"""The life of `hybridq agent`: one process that claims jobs, keeps their leases alive, and tells how they ended.

`agent` puts the parts together: `identity` (who it is), `claiming` (one long poll at a time), `beating` (leases kept,
cancels heard), `slots` (a job from its lease to its end), `journal` (what survives the process), `checks` and `metrics`
(whether more may be claimed), `settings` (what it was told).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agent import Agent
    from .settings import AgentSettings, SettingsWrong

__all__ = ["Agent", "AgentSettings", "SettingsWrong"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        return getattr(import_module(".agent" if name == "Agent" else ".settings", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
