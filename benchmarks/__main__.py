"""`python -m benchmarks` does what `hybridq bench` does."""

from __future__ import annotations

from hybridq.cli import main

if __name__ == "__main__":
    import sys

    raise SystemExit(main(["bench", *sys.argv[1:]]))
