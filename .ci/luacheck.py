"""Run luacheck over the Lua scripts as Redis gets them, and lead what it finds back to the source lines.

The files of lua/ are parts: only the composed script knows which names are defined.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hybridq.scripts import load, verbs

CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Return luacheck's exit code; 0 with a note when it is not installed."""
    if shutil.which("luacheck") is None:
        print("luacheck is not installed (Debian: lua-check), so lua/ was not checked")
        return 0
    names = [name for folder in ("", "auth", "catalogue", "fleet") for name in verbs(folder)]
    scripts = {name.replace("/", "-"): load(name).without_shebang() for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for name, script in scripts.items():
            Path(folder, f"{name}.lua").write_text(script.text, encoding="utf-8")
        command = ["luacheck", ".", "--config", str(CHECKOUT / ".luacheckrc"), "--formatter", "plain", "--codes"]
        found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    for line in found.stdout.splitlines():
        place = re.match(r"([\w-]+)\.lua:(\d+):\d+: (.*)", line)
        if place is None:
            print(line)
        else:
            print(f"{scripts[place[1]].lines[int(place[2]) - 1]}: {place[3]} (in {place[1]})")
    if not found.returncode:
        print(f"luacheck: {len(scripts)} scripts are clean")
    return found.returncode


if __name__ == "__main__":
    sys.exit(main())
