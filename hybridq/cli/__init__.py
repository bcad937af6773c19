"""The command `hybridq`: `main` is its entry point.

`_app` gathers the commands, one module each for what they are about; `_options` holds what they have in common,
`_output` how they print. The library is imported by a command when it runs, so that help comes at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (None: this process's) and return its exit code: 0, 1 failed, 2 usage, 130 interrupted."""
    try:
        from ._app import run

        return run(sys.argv[1:] if arguments is None else list(arguments))
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in {"click", "rich", "rich_click"}:
            raise
        print("hybridq: the command line needs rich-click: pip install 'hybridq[cli]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before a command runs, or after: within one, click turns it into an end of its own
        return 130
