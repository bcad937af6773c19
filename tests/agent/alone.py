"""A process that runs one job as an agent would, to be killed or stopped: `python alone.py FOLDER LEASE_S SCRIPT`.

It writes when the lease ends to `FOLDER/lease`, and how the job ended to `FOLDER/ended`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.agent.runs import Job


def main() -> None:
    folder, lease_s, script = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    job = Job(folder, script, lease_s=lease_s)
    (folder / "lease").write_text(f"{job.lease_ends_at_s}\n")
    ended = job.run.run()
    (folder / "ended").write_text(f"{ended.outcome} {ended.stopped}\n")


if __name__ == "__main__":
    main()
