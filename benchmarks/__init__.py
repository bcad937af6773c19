"""Measures hybridq beside its limits and its peers, in one run. `python -m benchmarks`, or `make bench`.

In reading order: `rows` what is measured → `drive` runs it, interleaved → `ours`, `floor`, `web`, `peers/` the programs
that do the work, each in a process of its own → `report` and `plots` what comes out. `server` is the Redis under test.
"""
